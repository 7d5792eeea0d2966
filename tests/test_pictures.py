"""The pictures that a store keeps: what the tower saw, bit for bit, through every way."""

import io
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from builders import Corners, full_disk, ramp, run_app, write_clip, write_config
from PIL import Image

import vtr
from vtr.datasets.base import Video
from vtr.errors import (
    ConfigError,
    FingerprintError,
    ModelError,
    OverBudgetError,
    ShardError,
    StoreError,
    StoreLockedError,
    StoreWriteError,
)
from vtr.extract.pipeline import extract
from vtr.extract.reembed import embed_view, reembed
from vtr.extract.resume import ExtractMode
from vtr.extract.samplers.base import parse_samplers
from vtr.extract.settings import ExtractSettings
from vtr.features import FeatureStore
from vtr.features.lock import write_lock
from vtr.features.pictures import from_webp, to_webp
from vtr.features.reader import open_shard
from vtr.features.shard import list_shards

SIDE = 8


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Video, str | None]]:
    """Six clips and two that fail, in the middle."""
    folder = tmp_path_factory.mktemp("clips")
    videos = [write_clip(folder / f"c{n}.mp4", ramp(4 + n, (40, 32))) for n in range(6)]
    (folder / "bad.mp4").write_bytes(b"no video")
    videos.insert(2, folder / "bad.mp4")
    return [(Video(path.name, path), None) for path in videos] + [
        (Video("gone", None), "duplicate-id")
    ]


def settings(**changes: Any) -> ExtractSettings:
    basis = ExtractSettings(
        samplers=parse_samplers("uniform,head"), num_frames=3, candidate_fps=None,
        storage_dtype="float32", shard_videos=4, workers=2, batch_size=5, pictures="raw",
    )  # fmt: skip
    return replace(basis, **changes)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("shard-*.h5"))


@pytest.mark.parametrize("kind", ["raw", "webp"])
def test_what_the_tower_saw_is_kept(inputs: Any, tmp_path: Path, kind: Any) -> None:
    encoder = Corners()
    report = extract(inputs, tmp_path, encoder, settings(pictures=kind))
    assert (report.ok, report.failed) == (6, 2)
    store = FeatureStore(tmp_path)
    assert (store.picture_format, store.spec.preprocessing["size"]) == (kind, [SIDE, SIDE])
    packed = store.pictures()
    np.testing.assert_array_equal(packed.pixels, np.concatenate(encoder.seen))
    np.testing.assert_array_equal(packed.offsets, store.packed().offsets)
    uniform = FeatureStore(tmp_path, sampler="uniform")
    ids = ["c5.mp4", "c0.mp4", "c5.mp4"]  # any order, through a selection
    features, pictures = uniform.packed(ids), uniform.pictures(ids)
    assert pictures.ids == features.ids
    np.testing.assert_array_equal(pictures.offsets, features.offsets)
    np.testing.assert_array_equal(Corners().encode_frames(pictures.pixels), features.frames)
    assert store.verify() == []
    plain = tmp_path / "plain"
    extract(inputs, plain, Corners(), settings(pictures=None))
    assert FeatureStore(plain).fingerprint == store.fingerprint  # they change no number
    np.testing.assert_array_equal(FeatureStore(plain).packed().frames, store.packed().frames)


@pytest.mark.parametrize("kind", ["raw", "webp"])
def test_going_on_gives_the_same_bytes_and_a_retry_keeps_the_others(
    inputs: Any, tmp_path: Path, kind: Any
) -> None:
    how = settings(pictures=kind)
    extract(inputs, tmp_path / "once", Corners(), how)
    extract(inputs[:4], tmp_path / "twice", Corners(), how)
    extract(inputs, tmp_path / "twice", Corners(), how)
    assert names(tmp_path / "once") == names(tmp_path / "twice")
    before = FeatureStore(tmp_path / "once").pictures().pixels
    again = ExtractMode(retry=frozenset({"failed"}))
    extract(inputs, tmp_path / "once", Corners(), how, mode=again)
    np.testing.assert_array_equal(FeatureStore(tmp_path / "once").pictures().pixels, before)


def test_shards_close_by_their_pictures_too(inputs: Any, tmp_path: Path) -> None:
    extract(inputs, tmp_path, Corners(), settings(shard_bytes=9 * SIDE * SIDE * 3))
    assert len(names(tmp_path)) > 3


def test_a_store_is_of_one_kind(inputs: Any, tmp_path: Path) -> None:
    extract(inputs[:2], tmp_path, Corners(), settings(pictures=None))
    with pytest.raises(FingerprintError, match=r"keeps no pictures .* asked: raw pictures"):
        extract(inputs, tmp_path, Corners(), settings())
    extract(inputs[:2], tmp_path, Corners(), settings(), mode=ExtractMode(overwrite=True))
    assert FeatureStore(tmp_path).picture_format == "raw"


@pytest.mark.parametrize("kinds", [("raw", "webp"), ("raw", None)])
def test_parts_of_several_kinds_are_read_together_and_stay_as_they_are(
    inputs: Any, tmp_path: Path, kinds: Any
) -> None:
    both = tmp_path / "both"
    both.mkdir()
    for part, kind in enumerate(kinds, 1):
        one = tmp_path / str(part)
        mode = ExtractMode(part=(part, 2))
        extract(inputs, one, Corners(), settings(pictures=kind), mode=mode)
        for path in one.glob("shard-*.h5"):
            shutil.copy(path, both)
    store = FeatureStore(both)
    if None in kinds:
        with pytest.raises(StoreError, match=r"no pictures of the videos in shard-002of002-0000"):
            store.require_pictures()
    else:
        extract(inputs, tmp_path / "whole", Corners(), settings())
        expected = FeatureStore(tmp_path / "whole").pictures(store.ids).pixels
        np.testing.assert_array_equal(store.pictures().pixels, expected)
        assert store.picture_format == "webp", "some are decoded each time"
    before = names(both)
    for how in kinds:
        again = ExtractMode(retry=frozenset({"failed"}))
        with pytest.raises(FingerprintError, match=r"several --crops .* nothing is added to them"):
            extract(inputs, both, Corners(), settings(pictures=how), mode=again)
    assert names(both) == before


def test_a_store_without_pictures_says_how_to_make_them(inputs: Any, tmp_path: Path) -> None:
    extract(inputs[:2], tmp_path, Corners(), settings(pictures=None))
    for ask in (FeatureStore(tmp_path).pictures, FeatureStore(tmp_path).require_pictures):
        with pytest.raises(StoreError, match=r"vtr extract --crops raw .* about .* GB for its"):
            ask()


def test_another_model_embeds_the_pictures(inputs: Any, tmp_path: Path) -> None:
    extract(inputs, tmp_path / "a", Corners(), settings())
    source = FeatureStore(tmp_path / "a")
    report = reembed(source, tmp_path / "b", Corners(2.0, mean=[0.1] * 3))
    assert (report.inputs, report.ok, report.failed) == (8, 6, 2)
    extract(inputs, tmp_path / "direct", Corners(2.0, mean=[0.1] * 3), settings(pictures=None))
    one, other = FeatureStore(tmp_path / "b"), FeatureStore(tmp_path / "direct")
    assert one.fingerprint == other.fingerprint
    assert one.ledger == other.ledger
    np.testing.assert_array_equal(one.packed().frames, other.packed().frames)
    assert names(tmp_path / "b") == names(tmp_path / "direct")
    assert reembed(source, tmp_path / "b", Corners(2.0, mean=[0.1] * 3)).frames_now == 0
    with (
        write_lock(tmp_path / "b"),
        pytest.raises(StoreLockedError, match=r"another folder with --features$"),
    ):
        reembed(source, tmp_path / "b", Corners(2.0, mean=[0.1] * 3))


def test_the_route_by_which_pictures_were_made_stays(inputs: Any, tmp_path: Path) -> None:
    extract(inputs[:2], tmp_path / "a", Corners(), settings())
    reembed(FeatureStore(tmp_path / "a"), tmp_path / "b", Corners(2.0, route="fast"))
    assert FeatureStore(tmp_path / "b").spec.preprocessing["route"] == "exact"


def test_what_was_done_again_is_embedded_again(inputs: Any, tmp_path: Path) -> None:
    """Its slot is filled, but with what the video was before."""
    late = [inputs[0], (Video("late", tmp_path / "late.mp4"), None)]
    extract(late, tmp_path / "a", Corners(), settings())
    reembed(FeatureStore(tmp_path / "a"), tmp_path / "b", Corners(2.0))
    write_clip(tmp_path / "late.mp4", ramp(5, (40, 32)))
    again = ExtractMode(retry=frozenset({"failed"}))
    extract(late, tmp_path / "a", Corners(), settings(), mode=again)
    report = reembed(FeatureStore(tmp_path / "a"), tmp_path / "b", Corners(2.0))
    assert (report.ok, report.failed) == (2, 0)
    assert len(names(tmp_path / "b")) == 1
    assert FeatureStore(tmp_path / "b").ledger == FeatureStore(tmp_path / "a").ledger


def test_what_the_source_has_no_more_goes(inputs: Any, tmp_path: Path) -> None:
    """The source was started anew with fewer videos: its last shards stayed in the other."""
    few = settings(shard_videos=2)
    extract(inputs[:5], tmp_path / "a", Corners(), few)
    reembed(FeatureStore(tmp_path / "a"), tmp_path / "b", Corners(2.0))
    extract(inputs[:2], tmp_path / "a", Corners(), few, mode=ExtractMode(overwrite=True))
    report = reembed(FeatureStore(tmp_path / "a"), tmp_path / "b", Corners(2.0))
    assert report.inputs == 2
    assert FeatureStore(tmp_path / "b").ledger == FeatureStore(tmp_path / "a").ledger


def test_a_view_is_embedded_video_by_video_as_it_is_asked_for(inputs: Any, tmp_path: Path) -> None:
    """A sampler chooses from a dense store with pictures; the cache grows, and heals."""
    dense = settings(samplers=parse_samplers("dense"), thumbnails=False)
    extract(inputs, tmp_path / "a", Corners(), dense)
    view = vtr.FeatureStore(tmp_path / "a", sampler="head", frames=2)
    cache, how = tmp_path / "cache", settings(num_frames=2)
    expected = view.packed(["c3.mp4", "c0.mp4"]).frames * 2
    embed_view(view, ["c0.mp4", "bad.mp4"], cache, Corners(2.0), settings=how)
    encoder = Corners(2.0)
    embed_view(view, ["c3.mp4", "c0.mp4"], cache, encoder, settings=how)
    assert sum(map(len, encoder.seen)) == 2, "one video is new"
    made = FeatureStore(cache)
    assert (made.sampler, made.spec.num_frames, len(made)) == ("head", 2, 2)
    assert [row.status for row in made.ledger] == ["ok", "failed", "ok"]
    np.testing.assert_array_equal(made.packed(["c3.mp4", "c0.mp4"]).frames, expected)
    shard = cache / names(cache)[0]
    shard.write_bytes(shard.read_bytes()[:-1])
    embed_view(view, ["c0.mp4"], cache, Corners(2.0), settings=how)
    np.testing.assert_array_equal(FeatureStore(cache)["c0.mp4"].frames, expected[2:])


def test_a_full_disk_leaves_whole_shards_only(inputs: Any, tmp_path: Path) -> None:
    how = settings(shard_videos=2)
    with full_disk(9_000), pytest.raises(StoreWriteError):
        extract(inputs, tmp_path, Corners(), how)
    assert not list(tmp_path.glob("*.tmp*"))
    extract(inputs, tmp_path, Corners(), how)
    assert FeatureStore(tmp_path).verify() == []
    assert len(FeatureStore(tmp_path)) == 6


def test_a_model_that_sees_other_pictures_is_refused(inputs: Any, tmp_path: Path) -> None:
    extract(inputs[:2], tmp_path / "a", Corners(), settings())
    source = FeatureStore(tmp_path / "a")
    for change in ({"size": [16, 16], "resize_to": 16}, {"resample": "bilinear"}):
        with pytest.raises(ModelError, match=f"{next(iter(change))} .* against"):
            reembed(source, tmp_path / "b", Corners(2.0, **change))
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("frame/picture_offset", lambda a: a[:-1]),
        ("frame/picture_offset", lambda a: a + 1),
        ("frame/picture_webp", lambda a: a[:-3]),
        ("frame/picture_webp", lambda a: a.astype(np.int16)),
    ],
)
def test_pictures_that_do_not_fit_are_refused(
    inputs: Any, tmp_path: Path, name: str, change: Any
) -> None:
    extract(inputs[:2], tmp_path, Corners(), settings(pictures="webp"))
    ((shard, path),) = list_shards(tmp_path)[0]
    with h5py.File(path, "a") as file:
        value = change(file[name][:])
        del file[name]
        file[name] = value
    with pytest.raises(ShardError, match="inconsistent frame/picture"):
        open_shard(path, shard)


def test_webp_is_exact_and_a_foreign_picture_is_refused() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 9, 7, 3), dtype=np.uint8)
    out = np.empty_like(pixels)
    from_webp(to_webp(pixels), out)
    np.testing.assert_array_equal(out, pixels)
    large = io.BytesIO()
    Image.new("RGB", (4000, 4000)).save(large, "WEBP", lossless=True)
    png = io.BytesIO()
    Image.new("RGB", (7, 9)).save(png, "PNG")
    for file, message in ((large, "of \\(4000, 4000\\)"), (png, "cannot be read")):
        with pytest.raises(ShardError, match=message):
            from_webp([file.getvalue()], out[:1])


# ---- the command


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    for n in range(3):
        write_clip(tmp_path / "videos" / f"v{n}.mp4", ramp(6, (64, 48)))
    write_config(tmp_path, data={"dataset": "folder", "videos": "videos"})
    return tmp_path


def extract_app(workspace: Path, *words: str) -> Any:
    return run_app("extract", "--frames", "2", "--fps", "native", *words, cwd=workspace)


def test_the_command_says_what_pictures_take_and_goes_on_as_the_store_has_them(
    workspace: Path,
) -> None:
    done = extract_app(workspace, "--crops", "webp")
    assert "pictures: webp" in done.stderr
    assert "at most 6 frames" in done.stderr
    write_clip(workspace / "videos" / "v3.mp4", ramp(6, (64, 48)))
    done = extract_app(workspace)
    again = extract_app(workspace)
    assert "at most 2 frames" in done.stderr, "of what is new"
    assert "at most 0 frames" in again.stderr
    store = FeatureStore(workspace / "features")
    assert (len(store), store.picture_format) == (4, "webp")
    inspected = run_app("inspect", "features", cwd=workspace)
    assert re.search(r"kept as webp, \d+ ", inspected.stdout)
    facts = json.loads(run_app("inspect", "features", "--json", cwd=workspace).stdout)
    assert facts["pictures"] == "webp"
    assert 0 < facts["picture_bytes"] < facts["bytes"]


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_another_kind_is_refused_in_a_dry_run_too(workspace: Path, dry: Sequence[str]) -> None:
    extract_app(workspace, "--crops", "webp")
    words = ("--frames", "2", "--fps", "native", "--crops", "none", *dry)
    with pytest.raises(FingerprintError, match=r"keeps webp pictures .* asked: no pictures"):
        run_app("extract", *words, cwd=workspace)


def test_another_kind_is_refused_before_the_model_is_loaded(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extract_app(workspace, "--crops", "none")
    capsys.readouterr()
    with pytest.raises(FingerprintError, match=r"keeps no pictures .* asked: raw pictures"):
        run_app("extract", "--frames", "2", "--fps", "native", "--crops", "raw", cwd=workspace)
    assert "pictures: raw" not in capsys.readouterr().err, "what they take is no matter"


def test_a_dry_run_makes_no_folder(workspace: Path) -> None:
    before = names(workspace)
    way = ("--crops", "raw", "--features", "new/store", "--dry-run")
    assert "are free" in extract_app(workspace, *way).stderr
    assert names(workspace) == before


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_too_large_a_budget_is_refused_before_the_work(workspace: Path, dry: Sequence[str]) -> None:
    with pytest.raises(ConfigError, match=r"about 0\.000249 GB, and --crops-budget allows 1e-05"):
        run_app("extract", "--crops", "raw", "--crops-budget", "0.00001", *dry, cwd=workspace)
    assert not (workspace / "features").exists()


def test_a_dense_run_ends_before_it_takes_more_than_the_budget(workspace: Path) -> None:
    """What it takes is known only as the videos are decoded."""
    way = ("extract", "--sampler", "dense", "--fps", "native", "--crops", "raw", "--crops-budget")
    with pytest.raises(
        OverBudgetError, match=r"up to 'v2.mp4' take .* --crops-budget allows 0\.0001"
    ):
        run_app(*way, "0.0001", "--dtype", "float32", cwd=workspace)
    assert FeatureStore(workspace / "features").input_ids == ("v0.mp4", "v1.mp4"), (
        "what fitted is kept"
    )
    run_app(*way, "0.001", cwd=workspace)
    assert FeatureStore(workspace / "features").input_ids == ("v0.mp4", "v1.mp4", "v2.mp4")


def test_what_vtr_toml_says_of_decoding_does_not_hinder_embedding_anew(workspace: Path) -> None:
    extract_app(workspace, "--crops", "raw")
    with (workspace / "vtr.toml").open("a") as file:
        file.write('[extract]\ncrops = "raw"\nframes = 2\nmemory = 2.0\n')
    words = ("extract", "--from-crops", "features", "--features", "new")
    done = run_app(*words, "--workers", "3", "--videos", "gone", "--timeout", "9", cwd=workspace)
    idle = "not heeded with --from-crops, which decodes no videos: --videos, --workers, --timeout"
    assert f"{idle}\n" in done.stderr
    assert "not heeded" not in run_app(*words, "--dry-run", cwd=workspace).stderr


def test_pictures_are_embedded_anew_without_the_videos(workspace: Path) -> None:
    extract_app(workspace, "--crops", "raw")
    old = FeatureStore(workspace / "features")
    for video in (workspace / "videos").iterdir():
        video.unlink()
    anew = ("--from-crops", "features", "--features", "new", "--workers", "1", "--seed", "0")
    dry = run_app("extract", *anew, "--dry-run", cwd=workspace)
    assert "would extract 3 new videos and 0 again" in dry.stdout
    assert not (workspace / "new").exists()
    run_app("extract", *anew, cwd=workspace)
    np.testing.assert_array_equal(
        FeatureStore(workspace / "new").packed().frames, old.packed().frames
    )


REFUSED: Sequence[tuple[Sequence[str], type[vtr.VtrError], str]] = [
    (["--from-crops", "features"], StoreError, "name another folder .* --features DIR"),
    (["--from-crops", "nowhere", "--features", "new"], StoreError, "nowhere does not exist"),
    (["--from-crops", "features", "--overwrite"], ConfigError, "--overwrite has no meaning"),
    *(
        (["--from-crops", "features", *words], ConfigError, f"{words[0]} has no meaning")
        for words in (
            ("--crops", "raw"), ("--sampler", "head"), ("--fps", "2"), ("--frames", "3"),
            ("--route", "exact"), ("--hash", "--dry-run"), ("--memory", "2"), ("--max-pixels", "9"),
        )
    ),
    (["--thumbnails", "--sampler", "head"], ConfigError, "--thumbnails is about --sampler dense"),
    (["--crops", "none", "--crops-budget", "1", "--features", "new"], ConfigError, "none are kept"),
    (["--crops", "raw", "--crops-budget", "1", "--ray"], ConfigError, "--crops-budget and --ray"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "error", "message"), REFUSED)
def test_requests_without_sense_are_refused(
    workspace: Path, words: Sequence[str], error: type[Exception], message: str
) -> None:
    extract_app(workspace, "--crops", "raw")
    with pytest.raises(error, match=message):
        run_app("extract", *words, cwd=workspace)
