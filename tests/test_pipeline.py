"""Extraction end to end with real files, real decoders and real processes.

The encoder is a small one of our own: the mean colour of each quarter of the picture. The clips
show their frame number as brightness, so a wrong frame is a wrong number.
"""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from builders import put, ramp, shards, spoil, wait_until, write_clip

from vtr.datasets.base import Video
from vtr.datasets.registry import load_dataset, resolve_videos, unique_videos
from vtr.errors import ConfigError, FingerprintError, StoreLockedError, StoreWriteError
from vtr.extract.pipeline import ExtractReport, Progress, extract
from vtr.extract.resume import ExtractMode
from vtr.extract.samplers.base import parse_samplers
from vtr.extract.settings import ExtractSettings
from vtr.features import FeatureStore
from vtr.features.lock import write_lock
from vtr.features.shard import ShardName
from vtr.files import publish
from vtr.verbs.extract import Options

ENCODER = '''
import numpy as np

class QuarterColours:
    """A real encoder, only a simple one: (B, 8, 8, 3) pictures to (B, 12) mean colours."""
    device = "cpu"

    def describe(self):
        return {
            "backbone": "quarter-colours", "revision": "local", "weights_sha256": "0" * 64,
            "embedding_dim": 12, "compute_dtype": "float32",
            "preprocessing": {
                "route": "exact", "size": [8, 8], "resize": "shortest-edge", "resize_to": 8,
                "resample": "bicubic", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5],
            },
        }

    def encode_frames(self, crops):
        quarters = crops.reshape(len(crops), 2, 4, 2, 4, 3).astype(np.float32)
        return quarters.mean((2, 4)).reshape(len(crops), 12) + 1

    def pad_embedding(self):
        return np.full(12, 0.5, np.float32)
'''

namespace: dict[str, Any] = {}
exec(ENCODER, namespace)
QuarterColours = namespace["QuarterColours"]


def write_ramp(path: Path, num_frames: int) -> Path:
    """A clip whose frame i is grey of brightness 20 + 8 i."""
    return write_clip(path, ramp(num_frames, (48, 32)))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for n in range(10):
        write_ramp(folder / f"clip{n}.mp4", 8 + 2 * n)
    return folder


def inputs_of(folder: Path) -> list[tuple[Video, str | None]]:
    dataset = load_dataset("folder", videos=folder)
    return list(unique_videos(resolve_videos(dataset, folder)))


SETTINGS = ExtractSettings(
    samplers=parse_samplers("uniform,head"),
    num_frames=4,
    candidate_fps=None,
    storage_dtype="float32",
    shard_videos=4,
    workers=2,
    batch_size=16,
)


def settings(**changes: Any) -> ExtractSettings:
    values = {name: getattr(SETTINGS, name) for name in SETTINGS.__dataclass_fields__}
    return ExtractSettings(**{**values, **changes})


def run(
    inputs: Sequence[tuple[Video, str | None]],
    store: Path,
    *,
    mode: dict[str, Any] | None = None,
    **changes: Any,
) -> ExtractReport:
    return extract(
        inputs, store, QuarterColours(), settings(**changes), mode=ExtractMode(**(mode or {}))
    )


def test_frames_are_the_chosen_ones(clips: Path, tmp_path: Path) -> None:
    report = run(inputs_of(clips), tmp_path)
    assert (report.inputs, report.ok, report.partial, report.failed) == (10, 10, 0, 0)
    assert report.done_now == 10
    assert len(shards(tmp_path)) == 3
    for sampler in ("uniform", "head"):
        store = FeatureStore(tmp_path, sampler=sampler)
        assert store.ids == tuple(f"clip{n}.mp4" for n in range(10))
        for n in range(10):
            count = 8 + 2 * n
            wanted = np.arange(4) if sampler == "head" else np.linspace(0, count - 1, 4).astype(int)
            features = store[f"clip{n}.mp4"]
            np.testing.assert_allclose(features.pts_seconds, wanted / 4)
            levels = 20 + 8 * wanted % 220 + 1
            np.testing.assert_allclose(features.frames.mean(1), levels, atol=3)
            row = store.ledger[n]
            assert (row.num_candidates, row.width, row.height) == (count, 48, 32)
            assert row.duration_seconds == pytest.approx(count / 4)
            assert row.file_bytes == (clips / f"clip{n}.mp4").stat().st_size
    np.testing.assert_array_equal(store.pad_embedding, np.full(12, 0.5))


def test_one_embedding_of_the_union(clips: Path, tmp_path: Path) -> None:
    report = run(inputs_of(clips)[:1], tmp_path)
    store = FeatureStore(tmp_path)  # 8 frames: uniform 0 2 4 7, head 0 1 2 3
    assert report.frames_now == len(store["clip0.mp4"].frames) == 6


def test_running_again_does_nothing_and_growing_adds_shards(clips: Path, tmp_path: Path) -> None:
    everything = inputs_of(clips)
    run(everything[:6], tmp_path)
    before = shards(tmp_path)
    again = run(everything[:6], tmp_path)
    assert (again.done_now, again.ok) == (0, 6)
    grown = run(everything, tmp_path)
    assert (grown.done_now, grown.ok) == (4, 10)
    assert set(before) < set(shards(tmp_path))


def test_the_number_of_workers_and_the_order_of_arrival_change_no_byte(
    clips: Path, tmp_path: Path
) -> None:
    for workers in (1, 3):
        run(inputs_of(clips), tmp_path / str(workers), workers=workers)
    assert shards(tmp_path / "1") == shards(tmp_path / "3")  # names hold the checksums


def test_shards_close_at_their_size(clips: Path, tmp_path: Path) -> None:
    run(inputs_of(clips), tmp_path, shard_bytes=12 * 4 * 15)  # 15 frames: two videos of 6 or 7
    assert len(shards(tmp_path)) == 5
    run(inputs_of(clips)[:3], tmp_path / "tiny", shard_bytes=1)  # one video may exceed it
    assert len(shards(tmp_path / "tiny")) == 3


def test_parts_make_the_whole(clips: Path, tmp_path: Path) -> None:
    everything = inputs_of(clips)
    for i in (1, 2, 3):
        report = run(everything, tmp_path, mode={"part": (i, 3)})
        assert report.inputs == len(everything[i - 1 :: 3])
    store = FeatureStore(tmp_path)
    assert sorted(store.ids) == [f"clip{n}.mp4" for n in range(10)]
    assert store.duplicates == []


def test_a_part_neither_deletes_nor_undoes_what_others_do(clips: Path, tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    for n in range(8):
        (folder / f"clip{n}.mp4").parent.mkdir(exist_ok=True)
        (folder / f"clip{n}.mp4").write_text("not yet a video")
    store = tmp_path / "store"
    run(inputs_of(folder), store, shard_videos=2)  # whole, by one machine: four shards
    for n in range(8):
        write_ramp(folder / f"clip{n}.mp4", 8)
    written_now = store / ".tmp-1-shard-001of002-000000-r000-x.h5"
    written_now.write_bytes(b"half")
    names = {}
    for part in (2, 1):
        before = set(shards(store))
        mode = {"part": (part, 2), "retry": frozenset({"failed"})}
        run(inputs_of(folder), store, mode=mode, shard_videos=2)
        names[part] = {ShardName.parse(name).sequence for name in before - set(shards(store))}
        assert written_now.exists() == (part == 2)
    assert names == {1: {0, 2}, 2: {1, 3}}  # no shard is replaced by both
    assert len(FeatureStore(store)) == 8
    with pytest.raises(ConfigError, match="--overwrite with --shard 1/2 would delete"):
        Options.of(shard="1/2", overwrite=True)


def test_a_video_that_changed_is_named_and_done_again_on_request(
    clips: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "videos"
    for n in range(3):
        write_ramp(folder / f"clip{n}.mp4", 8)
    (folder / "clip2.mp4").write_text("half a download")
    store = tmp_path / "store"
    assert run(inputs_of(folder), store).changed == ()
    (folder / "clip0.mp4").unlink()
    write_ramp(folder / "clip0.mp4", 24)
    (folder / "clip2.mp4").unlink()
    write_ramp(folder / "clip2.mp4", 24)
    report = run(inputs_of(folder), store)
    assert (report.changed, report.done_now) == (("clip0.mp4", "clip2.mp4"), 0)
    report = run(inputs_of(folder), store, mode={"retry": frozenset({"changed"})})
    assert (report.changed, report.done_now, report.ok) == ((), 2, 3)
    run(inputs_of(folder), tmp_path / "fresh")
    assert FeatureStore(store).ledger == FeatureStore(tmp_path / "fresh").ledger


def test_another_video_of_the_same_size_is_seen(clips: Path, tmp_path: Path) -> None:
    folder, store, hashed = tmp_path / "videos", tmp_path / "store", tmp_path / "hashed"
    path = write_ramp(folder / "clip0.mp4", 8)
    run(inputs_of(folder), store)
    run(inputs_of(folder), hashed, hash_files=True)
    before = path.stat()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 10**9))  # touched, or copied
    assert run(inputs_of(folder), store).changed == ("clip0.mp4",)
    assert run(inputs_of(folder), hashed).changed == ()
    spoil(path)
    assert run(inputs_of(folder), hashed).changed == ("clip0.mp4",)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as rsync -t and cp -p do
    assert run(inputs_of(folder), hashed).changed == ()
    assert run(inputs_of(folder), hashed, hash_files=True).changed == ("clip0.mp4",)
    again = {"retry": frozenset({"changed"})}
    report = run(inputs_of(folder), hashed, hash_files=True, mode=again)
    assert (report.changed, report.done_now) == ((), 1)


def test_older_shards_know_no_date_and_are_read(clips: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    run(inputs_of(clips), store)
    path = shards(store)[0]
    with h5py.File(store / path, "a") as file:
        del file["video/file_mtime_ns"]
    digest = hashlib.sha256((store / path).read_bytes()).hexdigest()
    (store / path).rename(store / str(replace(ShardName.parse(path), sha256=digest)))
    assert FeatureStore(store).ledger[0].file_mtime_ns == -1
    assert run(inputs_of(clips), store).changed == ()


def test_retry_does_failed_rows_again_and_only_those(clips: Path, tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    for n in range(6):
        write_ramp(folder / f"clip{n}.mp4", 8)
    sound = (folder / "clip2.mp4").read_bytes()
    (folder / "clip2.mp4").write_bytes(b"not a video at all")
    store = tmp_path / "store"
    first = run(inputs_of(folder), store)
    assert (first.ok, first.failed, first.reasons) == (5, 1, {"not-a-video": 1})
    untouched = shards(store)[1]
    (folder / "clip2.mp4").write_bytes(sound)
    assert run(inputs_of(folder), store).done_now == 0
    again = run(inputs_of(folder), store, mode={"retry": frozenset({"failed"})})
    assert (again.done_now, again.ok, again.failed) == (1, 6, 0)
    assert untouched in shards(store)
    assert len(shards(store)) == 2
    fresh = tmp_path / "fresh"
    run(inputs_of(folder), fresh)
    np.testing.assert_array_equal(
        FeatureStore(store).packed().frames, FeatureStore(fresh).packed().frames
    )
    assert FeatureStore(store).ledger == FeatureStore(fresh).ledger


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"num_frames": 5}, "num_frames is 4, asked 5"),
        ({"candidate_fps": 2.0}, "candidate_fps is None, asked 2.0"),
        ({"samplers": parse_samplers("tail")}, r"samplers is \['head', 'uniform'\]"),
        ({"storage_dtype": "float16"}, "storage_dtype is 'float32', asked 'float16'"),
        ({"seed": 3}, "seed is 0, asked 3"),
    ],
)
def test_other_settings_are_refused_and_overwrite_starts_anew(
    clips: Path, tmp_path: Path, changes: dict[str, Any], field: str
) -> None:
    run(inputs_of(clips)[:1], tmp_path)
    with pytest.raises(FingerprintError, match=field):
        run(inputs_of(clips)[:1], tmp_path, **changes)
    assert run(inputs_of(clips)[:2], tmp_path, mode={"overwrite": True}, **changes).ok == 2
    assert len(FeatureStore(tmp_path)) == 2


def test_an_interrupt_while_a_batch_is_embedded_keeps_what_is_decoded(
    clips: Path, tmp_path: Path
) -> None:
    class Interrupted(QuarterColours):
        calls = 0

        def encode_frames(self, crops: Any) -> Any:
            self.calls += 1
            if self.calls == 2:
                raise KeyboardInterrupt
            return super().encode_frames(crops)

    inputs, how = inputs_of(clips)[:3], settings(batch_size=2)
    with pytest.raises(KeyboardInterrupt):
        extract(inputs, tmp_path / "store", Interrupted(), how)
    assert len(FeatureStore(tmp_path / "store")) > 0
    report = extract(inputs, tmp_path / "store", QuarterColours(), how)
    assert (report.ok, 0 < report.done_now < 3) == (3, True)


def test_a_store_made_anew_replaces_the_old_one_when_it_is_complete(
    clips: Path, tmp_path: Path
) -> None:
    """Stopped, it leaves the old one; run again, it goes on; what others keep there stays."""
    store = tmp_path / "store"
    run(inputs_of(clips)[:3], store)
    put(store / "texts" / "captions", "embedded")
    before = {path.name: path.read_bytes() for path in store.glob("shard-*")}
    changes: dict[str, Any] = {"num_frames": 5, "shard_videos": 1}

    def stop(progress: Progress) -> None:
        if progress.done == 2:
            raise KeyboardInterrupt

    overwrite = ExtractMode(overwrite=True)
    with pytest.raises(KeyboardInterrupt):
        extract(
            inputs_of(clips)[:3],
            store,
            QuarterColours(),
            settings(**changes),
            mode=overwrite,
            progress=stop,
        )
    assert {path.name: path.read_bytes() for path in store.glob("shard-*")} == before
    report = run(inputs_of(clips)[:3], store, mode={"overwrite": True}, **changes)
    assert report.ok == 3
    assert 0 < report.done_now < 3
    assert FeatureStore(store).spec.num_frames == 5
    assert (store / "texts" / "captions").read_text() == "embedded"
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


class Hostile(QuarterColours):  # type: ignore[misc, valid-type]
    """Gives NaN for dark pictures and zeros for bright ones."""

    def encode_frames(self, crops: np.ndarray) -> np.ndarray:
        embeddings = super().encode_frames(crops)
        embeddings[crops.mean((1, 2, 3)) < 25] = np.nan
        embeddings[crops.mean((1, 2, 3)) > 160] = 0
        return embeddings


def test_useless_embeddings_are_failures(clips: Path, tmp_path: Path) -> None:
    report = extract(inputs_of(clips)[:2], tmp_path, Hostile(), settings())
    assert report.reasons == {"bad-features": 2}
    error = FeatureStore(tmp_path).ledger[0].error
    assert error == "bad-features: 1 of 6 frames gave a zero or non-finite embedding"


def test_a_second_run_is_refused(clips: Path, tmp_path: Path) -> None:
    with write_lock(tmp_path), pytest.raises(StoreLockedError, match="process"):
        run(inputs_of(clips)[:1], tmp_path)


def test_nothing_to_do(tmp_path: Path) -> None:
    report = run([], tmp_path)
    assert (report.inputs, report.done_now) == (0, 0)


def test_every_odd_input_has_its_row(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    good = write_ramp(folder / "good.mp4", 8)
    write_ramp(folder / "deep/er/new\nline 'quo\"te' ü.mp4", 8)
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("<html>404 not found</html>")
    (folder / "headless.mp4").write_bytes(good.read_bytes()[:200])
    (folder / "dangling.mp4").symlink_to(folder / "nowhere")
    (folder / "folder.mp4").mkdir()
    os.mkfifo(folder / "pipe.mp4")
    (folder / "playlist.mp4").write_text("#EXTM3U\n#EXTINF:1,\n/etc/passwd\n")
    (folder / "concat.mp4").write_text("ffconcat version 1.0\nfile good.mp4\n")
    (folder / "caf\u00e9.mp4").write_bytes(good.read_bytes())
    (folder / "cafe\u0301.mp4").write_bytes(good.read_bytes())
    (folder / os.fsdecode(b"bad\xff.mp4")).write_bytes(good.read_bytes())
    write_ramp(folder / "one.mp4", 1)
    report = run(inputs_of(folder), tmp_path / "store")
    rows = {row.id: row for row in FeatureStore(tmp_path / "store").ledger}
    assert len(rows) == report.inputs == report.ok + report.partial + report.failed == 14
    reasons = {i: row.reason for i, row in rows.items() if row.status == "failed"}
    assert reasons == {
        "empty.mp4": "empty-file",
        "text.mp4": "not-a-video",
        "headless.mp4": "not-a-video",
        "dangling.mp4": "not-found",
        "folder.mp4": "not-a-file",
        "pipe.mp4": "not-a-file",
        "playlist.mp4": reasons["playlist.mp4"],
        "concat.mp4": reasons["concat.mp4"],
        "caf\u00e9.mp4#duplicate-2": "duplicate-id",
        "bad\\xff.mp4": "bad-name",
    }
    assert reasons["playlist.mp4"] in ("refused", "not-a-video")
    assert reasons["concat.mp4"] in ("refused", "not-a-video")
    assert "one.mp4" in FeatureStore(tmp_path / "store")


def test_a_cut_video_keeps_its_frames_and_says_why(tmp_path: Path) -> None:
    whole = write_ramp(tmp_path / "whole.mkv", 40)
    folder = tmp_path / "videos"
    put(folder / "cut.mkv", whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    report = run(inputs_of(folder), tmp_path / "store")
    assert (report.ok, report.partial, report.reasons) == (0, 1, {"damaged": 1})
    store = FeatureStore(tmp_path / "store", sampler="head")
    assert len(store["cut.mkv"].frames) == 4
    assert store.ledger[0].status == "partial"
    assert store.ledger[0].num_candidates < 40
    again = run(inputs_of(folder), tmp_path / "store", mode={"retry": frozenset({"partial"})})
    assert again.done_now == 1


SCRIPT = """
import sys
import threading
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from quarter_colours import QuarterColours
from vtr.datasets.registry import load_dataset, resolve_videos, unique_videos
from vtr.extract.pipeline import extract
from vtr.extract.samplers.base import parse_samplers
from vtr.extract.settings import ExtractSettings
videos, store, per_shard = Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
dataset = load_dataset("folder", videos=videos)
settings = ExtractSettings(samplers=parse_samplers("uniform,head"), num_frames=4,
    candidate_fps=None, storage_dtype="float32", shard_videos=per_shard, workers=2, batch_size=16,
    pictures="raw")
inputs = list(unique_videos(resolve_videos(dataset, videos)))
report = extract(inputs, store, QuarterColours(), settings)
print(report.ok)
"""


@pytest.fixture
def start(tmp_path: Path, clips: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts an extraction of the ten clips, two per shard, in a process of its own."""
    (tmp_path / "quarter_colours.py").write_text(ENCODER)
    (tmp_path / "run.py").write_text(SCRIPT)

    def go(store: Path, *, per_shard: int = 2, limit: str = "") -> subprocess.Popen[str]:
        command = [sys.executable, str(tmp_path / "run.py"), str(tmp_path), str(clips), str(store)]
        shell = f"{limit} exec " + " ".join(f"'{word}'" for word in [*command, str(per_shard)])
        pipe = subprocess.PIPE
        return subprocess.Popen(["sh", "-c", shell], stdout=pipe, stderr=pipe, text=True)

    return go


Start = Callable[..., subprocess.Popen[str]]


def kill_and_compare(start: Start, tmp_path: Path, *, times: int) -> None:
    """Kills runs at random moments around every shard, then lets one finish."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(whole).communicate()[0].strip() == "10"
    chance = random.Random(7)
    seen = set()
    for number in range(times):
        # At once, or around the next shard or the one after it.
        target = len(list(killed.glob("shard-*.h5"))) + number % 3
        process = start(killed)
        wait_for_shards(process, killed, target)
        time.sleep(chance.uniform(0, 1.0 if number % 3 == 0 else 0.05))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        seen.add(len(shards(killed)))
        if shards(killed):
            assert FeatureStore(killed).verify() == []
        if len(shards(killed)) == 5:
            for path in killed.glob("shard-*.h5"):
                path.unlink()
    assert start(killed).communicate()[0].strip() == "10"
    assert shards(killed) == shards(whole)
    assert not list(killed.glob(".tmp-*"))
    assert FeatureStore(killed).duplicates == []
    assert len(seen) > 1, "the kills all fell at the same moment"


def test_killed_runs_go_on_to_the_same_bytes(start: Start, tmp_path: Path) -> None:
    kill_and_compare(start, tmp_path, times=5)


@pytest.mark.slow
def test_killed_fifty_times(start: Start, tmp_path: Path) -> None:
    kill_and_compare(start, tmp_path, times=50)


def test_interrupt_keeps_what_is_done(start: Start, tmp_path: Path) -> None:
    store = tmp_path / "store"
    process = start(store, per_shard=1)
    wait_for_shards(process, store, 1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0 or "KeyboardInterrupt" in errors
    kept = FeatureStore(store)
    assert len(kept) >= 1
    assert kept.verify() == []


def test_full_disk_leaves_the_store_readable(start: Start, tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert start(store, per_shard=2).communicate()[0].strip() == "10"
    before = shards(store)
    for name in before[3:]:
        (store / name).unlink()
    process = start(store, per_shard=4, limit="ulimit -f 4;")  # 4 blocks: no shard fits
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "StoreWriteError: cannot write" in errors
    assert "free some space" in errors
    assert shards(store) == before[:3]
    assert FeatureStore(store).verify() == []


def test_read_only_store_is_refused(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreWriteError, match="cannot make the folder"):
        run(inputs_of(clips)[:1], tmp_path / "file" / "store")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"samplers": parse_samplers("head")},
            r"began at the same time: made .* samplers is \['h",
        ),
        ({"pictures": "raw"}, "began at the same time, keeps raw pictures .* asked: no pictures"),
    ],
)
def test_parts_that_begin_a_store_at_once_have_the_same_settings(
    clips: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    """Neither finds a shard of the other when it looks: else nobody could open what they made."""
    inputs, store = inputs_of(clips), tmp_path / "store"

    class Slow(QuarterColours):  # type: ignore[misc, valid-type]
        def encode_frames(self, crops: np.ndarray) -> np.ndarray:
            if not shards(store):
                run(inputs, store, mode={"part": (2, 2)}, **changes)
            return super().encode_frames(crops)

    with pytest.raises(FingerprintError, match=message):
        extract(inputs, store, Slow(), settings(), mode=ExtractMode((1, 2)))
    assert len(FeatureStore(store)) == 5
    run(inputs, store, mode={"part": (1, 2)}, **changes)
    assert len(FeatureStore(store)) == 10


# ---- runs that cannot see each other's lock, as on a shared file system without one


def blind(store: Path) -> None:
    """Takes away the lock files: who holds one goes on, and the next run sees nothing of it."""
    for path in store.glob(".lock*"):
        path.unlink()


def wait_for_shards(process: subprocess.Popen[str], store: Path, count: int) -> None:
    wait_until(lambda: len(list(store.glob("shard-*.h5"))) >= count, process)


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_two_runs_that_cannot_see_each_others_lock_make_the_bytes_of_one(
    start: Start, tmp_path: Path, ahead: int
) -> None:
    store, whole = tmp_path / "store", tmp_path / "whole"
    first = start(store)
    wait_until((store / ".lock").exists)
    wait_for_shards(first, store, ahead)
    blind(store)
    second = start(store)
    for process in (first, second):
        output, errors = process.communicate(timeout=120)
        assert output.strip() == "10", errors
    assert start(whole).communicate()[0].strip() == "10"
    assert shards(store) == shards(whole)
    assert FeatureStore(store).duplicates == []


@pytest.mark.slow
def test_one_of_two_such_runs_is_killed_twenty_times(start: Start, tmp_path: Path) -> None:
    store, whole, chance = tmp_path / "store", tmp_path / "whole", random.Random(5)
    assert start(whole, per_shard=1).communicate()[0].strip() == "10"
    for _ in range(20):
        shutil.rmtree(store, ignore_errors=True)
        runs = [start(store, per_shard=1)]
        wait_until((store / ".lock").exists)
        blind(store)
        runs.append(start(store, per_shard=1))
        wait_for_shards(runs[0], store, chance.randrange(8))
        time.sleep(chance.uniform(0, 0.1))
        killed = runs.pop(chance.randrange(2))
        killed.kill()
        killed.communicate()
        output, errors = runs[0].communicate(timeout=120)
        assert output.strip() == "10", errors
        assert start(store, per_shard=1).communicate()[0].strip() == "10"
        assert shards(store) == shards(whole)
        assert FeatureStore(store).verify() == FeatureStore(store).duplicates == []
        assert not list(store.glob(".tmp-*"))


def test_what_two_such_runs_cut_differently_is_all_there_and_settled_by_the_next(
    start: Start, tmp_path: Path, clips: Path
) -> None:
    """One that is interrupted ends with a short shard, in a slot that the other fills whole."""
    store = tmp_path / "store"
    for count, per_shard in ((1, 3), (2, 4)):  # both begin with an empty store: slots meet
        process = start(tmp_path / f"{count}", per_shard=per_shard)
        assert process.communicate()[0].strip() == "10"
    store.mkdir()
    for name in ("1", "2"):
        for path in (tmp_path / name).glob("shard-*.h5"):
            (store / path.name).write_bytes(path.read_bytes())
    before = FeatureStore(store)
    assert len(before) == 10
    assert before.duplicates
    before.packed()
    assert run(inputs_of(clips), store, pictures="raw").ok == 10
    after = FeatureStore(store)
    slots = [shard.name.slot for shard in after.shards]
    assert len(set(slots)) == len(slots)
    assert after.verify() == []
    assert set(after) == set(before)
    assert after.packed(before.ids).frames.tobytes() == before.packed().frames.tobytes()
    assert run(inputs_of(clips), store, pictures="raw").done_now == 0


def test_a_store_is_read_while_parts_still_come_in(start: Start, tmp_path: Path) -> None:
    store, seen = tmp_path / "store", set()
    process = start(store, per_shard=1)
    while process.poll() is None:
        if list(store.glob("shard-*.h5")):
            view = FeatureStore(store)
            assert len(view.packed().ids) == len(view.ledger)
            assert view.verify() == []
            seen.add(len(view))
    assert process.communicate()[0].strip() == "10"
    assert min(seen) < 10, "it was read when all was over"


def test_what_is_being_written_may_be_swept_away(tmp_path: Path) -> None:
    """One who cannot see our lock takes it for a leftover, once at most: then it is at work too."""
    stop, swept = threading.Event(), set()

    def sweep() -> None:
        while not stop.is_set():
            for path in tmp_path.glob(".tmp-*"):
                if (final := path.name.rpartition("-")[2]) not in swept:
                    path.unlink(missing_ok=True)
                    swept.add(final)

    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    try:
        for number in range(100):
            publish(tmp_path / f"{number}", b"x" * 1000)
    finally:
        stop.set()
        sweeper.join()
    assert swept
    assert {path.name for path in tmp_path.iterdir()} == {str(number) for number in range(100)}
