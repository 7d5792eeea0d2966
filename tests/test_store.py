"""The cache: round trips, damage, foreign content, locks, a disk that refuses."""

import hashlib
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from builders import full_disk, run_app, run_python, spoil
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vtr.api.inspect import describe, inspect
from vtr.errors import (
    FingerprintError,
    ShardError,
    StoreError,
    StoreLockedError,
    StoreWriteError,
    UnknownNameError,
)
from vtr.extract.resume import set_aside_damaged
from vtr.features import FeatureSpec, FeatureStore, LedgerRow, VideoRow
from vtr.features.digests import WholeShards
from vtr.features.lock import write_lock
from vtr.features.reader import open_shard
from vtr.features.rows import MAX_ERROR_BYTES
from vtr.features.shard import ShardName, list_shards, write_shard
from vtr.files import publish, remove_leftovers

Build = Callable[..., Path]
Change = Callable[[h5py.File], object]
PAD = np.arange(4, dtype=np.float32)


def shard(
    folder: Path,
    spec: FeatureSpec,
    *rows: VideoRow,
    slot: tuple[int, int, int] = (1, 1, 0),
    revision: int = 0,
) -> Path:
    return write_shard(folder, rows, spec=spec, slot=slot, revision=revision, pad_embedding=PAD)


def test_round_trip(build_store: Build, row_factory: Callable[..., VideoRow]) -> None:
    store = FeatureStore(build_store([[3, 0, 5], [1, 2]]), sampler="uniform")
    assert store.ids == ("vidéo 0", "vidéo 2", "vidéo 3", "vidéo 4")
    assert store.input_ids == tuple(f"vidéo {n}" for n in range(5))
    for number, count in [(0, 3), (2, 5), (3, 1), (4, 2)]:
        row = row_factory("", count, number)
        features = store[f"vidéo {number}"]
        np.testing.assert_array_equal(features.frames, row.frames.astype(np.float16))
        np.testing.assert_array_equal(features.pts_seconds, row.pts_seconds)
    failed = store.ledger[1]
    assert (failed.status, failed.reason) == ("failed", "not-a-video")
    assert store.ledger[2] == row_factory("vidéo 2", 5, 2).ledger
    np.testing.assert_array_equal(store.pad_embedding, PAD)
    assert store.verify() == []


def test_sampler_chooses_the_frames(build_store: Build) -> None:
    folder = build_store([[3, 5], [1]])
    head, everything = FeatureStore(folder, sampler="head"), FeatureStore(folder)
    assert [len(head[i].frames) for i in head] == [2, 2, 1]
    assert [len(everything[i].frames) for i in everything] == [3, 5, 1]
    with pytest.raises(UnknownNameError, match="Did you mean 'uniform'"):
        FeatureStore(folder, sampler="unifrm")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_packed_equals_one_at_a_time(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory, spec: FeatureSpec
) -> None:
    """The gather over shards against a plain loop over videos."""
    from_seed = np.random.default_rng(data.draw(st.integers(0, 1000)))
    folder = tmp_path_factory.mktemp("store")
    truth: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for sequence in range(data.draw(st.integers(1, 3))):
        rows = []
        for _ in range(data.draw(st.integers(0, 4))):
            count = data.draw(st.integers(0, 5))
            keep = np.flatnonzero(from_seed.random(count) < 0.6)
            video_id = f"v{len(truth)}-{sequence}-{len(rows)}"
            frames = from_seed.standard_normal((count, 4)).astype(np.float16)
            chosen = {"head": keep, "uniform": np.arange(count)}
            rows.append(VideoRow(LedgerRow(video_id, "ok"), frames, np.arange(count) / 3, chosen))
            if count:
                truth[video_id] = frames[keep], np.arange(count)[keep] / 3
        shard(folder, spec, *rows, slot=(1, 1, sequence))
    store = FeatureStore(folder, sampler="head")
    assert set(store.ids) == set(truth)
    ids = data.draw(st.lists(st.sampled_from(sorted(truth)), max_size=8)) if truth else []
    for request in (ids, None):
        packed = store.packed(request, dtype="float32")
        wanted = list(store.ids) if request is None else request
        assert packed.ids == tuple(wanted)
        for v, video_id in enumerate(wanted):
            part = slice(packed.offsets[v], packed.offsets[v + 1])
            np.testing.assert_array_equal(packed.frames[part], truth[video_id][0])
            np.testing.assert_array_equal(packed.pts_seconds[part], truth[video_id][1])
        padded, mask = packed.padded()
        assert mask.sum() == len(packed.frames)
        np.testing.assert_array_equal(padded[mask], packed.frames)
        assert not padded[~mask].any()


def test_padding_can_be_the_tower_s_answer_to_a_blank_image(build_store: Build) -> None:
    store = FeatureStore(build_store([[1, 3]]), sampler="uniform")
    padded, mask = store.packed().padded(store.pad_embedding)
    assert mask.tolist() == [[True, False, False], [True, True, True]]
    np.testing.assert_array_equal(padded[0, 1], PAD)


def test_same_rows_give_the_same_bytes(tmp_path: Path, spec: FeatureSpec, row_factory) -> None:
    names = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        names.append(shard(folder, spec, row_factory("x", 3), row_factory("y", 0)).name)
    assert names[0] == names[1]


def test_later_revision_replaces_the_earlier(
    tmp_path: Path, spec: FeatureSpec, row_factory
) -> None:
    """What a crash between publishing a retry and deleting the old shard leaves behind."""
    old = [row_factory("x", 0), row_factory("y", 2)]
    new = [row_factory("x", 3), row_factory("y", 2)]
    for revision, rows in enumerate([old, new]):
        shard(tmp_path, spec, *rows, revision=revision)
    store = FeatureStore(tmp_path, sampler="uniform")
    assert store.ids == ("x", "y")
    assert [ShardName.parse(path.name).revision for path in list_shards(tmp_path)[1]] == [0]
    assert len(list_shards(tmp_path)[0]) == 1


def test_a_thousandth_retry_still_counts(tmp_path: Path, spec: FeatureSpec, row_factory) -> None:
    """A retry every hour gets there in six weeks."""
    for revision in (999, 1000):
        shard(tmp_path, spec, row_factory("x", revision - 998), revision=revision)
    assert len(FeatureStore(tmp_path, sampler="uniform")["x"].frames) == 2
    assert [ShardName.parse(path.name).revision for path in list_shards(tmp_path)[1]] == [999]


def test_an_id_stored_twice_is_reported_and_the_first_counts(
    tmp_path: Path, spec: FeatureSpec, row_factory
) -> None:
    for part in (1, 2):
        shard(tmp_path, spec, row_factory("x", part), slot=(2, part, 0))
    store = FeatureStore(tmp_path, sampler="uniform")
    assert (len(store), store.duplicates, len(store["x"].frames)) == (1, ["x"], 1)


def test_missing_ids_say_why(build_store: Build) -> None:
    store = FeatureStore(build_store([[2, 0]]), sampler="head")
    with pytest.raises(StoreError, match="'vidéo 1' has no features: not-a-video: moov"):
        store["vidéo 1"]
    with pytest.raises(StoreError, match="'nobody' is not in"):
        store.packed(["nobody"])
    assert "vidéo 1" not in store


def test_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"holds no shards. Run `vtr extract`"):
        FeatureStore(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="file is not a folder"):
        FeatureStore(tmp_path / "file")
    with pytest.raises(StoreError, match="does not exist"):
        FeatureStore(tmp_path / "absent")


def test_a_store_that_was_begun_is_told_from_one_that_is_not_there(tmp_path: Path) -> None:
    with (
        write_lock(tmp_path, part=(1, 2)),
        pytest.raises(StoreError, match=r"no features yet: .* at work there, wait for its first"),
    ):
        FeatureStore(tmp_path)


def test_long_errors_and_odd_ids_survive(tmp_path: Path, spec: FeatureSpec) -> None:
    ids = ["a/b", "../../x", "new\nline", 'quo"te', "emoji 🎬", "." * 300, "العربية", "NUL", ""]
    rows = [VideoRow.failed(LedgerRow(i, "failed", "decode-error: " + "ü" * 400), 4) for i in ids]
    shard(tmp_path, spec, *rows)
    ledger = FeatureStore(tmp_path).ledger
    assert [row.id for row in ledger] == ids
    assert all(len(row.error.encode()) in (MAX_ERROR_BYTES - 1, MAX_ERROR_BYTES) for row in ledger)


def test_different_settings_are_refused_by_name(build_store: Build, spec: FeatureSpec) -> None:
    folder = build_store([[1]])
    other = replace(spec, preprocessing={"route": "exact", "size": [8, 8]}, seed=7)
    shard(folder, other, slot=(1, 1, 1))
    with pytest.raises(FingerprintError) as caught:
        FeatureStore(folder)
    assert "preprocessing.route is 'fast', asked 'exact'; seed is 0, asked 7" in str(caught.value)


def test_the_tower_s_settings_count_where_they_are_known(spec: FeatureSpec) -> None:
    told = replace(spec, vision={"hidden_act": "gelu"})
    other = replace(spec, vision={"hidden_act": "quick_gelu"})
    assert len({spec.fingerprint, told.fingerprint, other.fingerprint}) == 3
    assert told.differences(other) == [("vision.hidden_act", "gelu", "quick_gelu")]
    assert FeatureSpec.from_json(told.to_json()) == told
    assert '"vision"' not in spec.to_json()  # stores made before keep their fingerprints
    assert FeatureSpec.from_json(spec.to_json()) == spec


def test_flipped_byte_is_found(build_store: Build) -> None:
    folder = build_store([[3], [3]])
    path = sorted(folder.glob("*.h5"))[1]
    with h5py.File(path) as file:
        at = file["frame/embedding"].id.get_offset() + 1
    spoil(path, at)
    with pytest.raises(ShardError, match=r"its bytes are not those.*--retry damaged"):
        FeatureStore(folder)
    rest = FeatureStore(folder, skip_damaged=True)
    assert (list(rest.damaged), rest.ids) == ([path], ("vidéo 0",))
    moved = set_aside_damaged(folder, owned=lambda name: name.sequence == 0)
    assert moved == []
    moved = set_aside_damaged(folder, owned=lambda name: True)
    assert moved == [folder / f"damaged-{path.name}"]
    assert FeatureStore(folder).ids == ("vidéo 0",)


def test_bytes_are_read_once_and_again_when_the_file_changed(
    build_store: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = build_store([[3]])
    path = next(folder.glob("*.h5"))
    read: list[object] = []
    digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *a: read.append(a) or digest(*a))
    monkeypatch.setattr("vtr.marks._SETTLED_NS", 0)
    for _ in range(3):
        FeatureStore(folder)
    assert len(read) == 1
    times = path.stat()
    spoil(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(ShardError, match="its bytes are not those"):
        FeatureStore(folder)
    assert len(read) == 2
    assert [p.name for p in folder.iterdir()] == [path.name], "nothing is written into the store"


def test_a_file_just_written_is_not_yet_remembered(
    build_store: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within a tick of the clock a second write leaves size and times as they are."""
    folder = build_store([[3]])
    FeatureStore(folder)
    assert WholeShards(folder)._before.lines == frozenset()


def test_reading_many_bytes_is_told_once(
    build_store: Build, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = build_store([[3], [3], [3]])
    FeatureStore(folder)
    assert not capsys.readouterr().err
    monkeypatch.setattr("vtr.features.digests._SEVERAL_SECONDS", 0)
    FeatureStore(folder)
    assert capsys.readouterr().err.count(f"checking every byte of {folder}, once") == 1


@pytest.mark.parametrize("cache", ["/dev/null", "/dev/null/x", ""])
def test_without_a_cache_the_bytes_are_read_each_time(
    build_store: Build, cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", cache)
    monkeypatch.setenv("HOME", "/dev/null")
    monkeypatch.setattr("vtr.marks._SETTLED_NS", 0)
    folder = build_store([[3]])
    for _ in range(2):
        assert len(FeatureStore(folder)) == 1


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, -1])
def test_cut_shard_is_refused(build_store: Build, keep: float) -> None:
    path = next(build_store([[3, 2]]).glob("*.h5"))
    payload = path.read_bytes()
    size = int(len(payload) * keep) if isinstance(keep, float) else keep
    path.write_bytes(payload[:size])
    with pytest.raises(ShardError, match=r"is damaged: .*\. vtr extract .* --retry damaged puts"):
        FeatureStore(path.parent)


def _forge(path: Path, change: Change) -> Path:
    """Changes a shard and gives it the name of what it now is, as an attacker would."""
    with h5py.File(path, "r+") as file:
        change(file)
    name = ShardName.parse(path.name)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return path.rename(path.with_name(str(replace(name, sha256=digest))))


def anew(name: str, *what: Any, **how: Any) -> Change:
    """Puts another dataset in the place of one, as h5py makes it."""

    def change(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, *what, **how)

    return change


def put(name: str, values: Any) -> Change:
    return lambda file: file[name].__setitem__(..., values)


def spec_with(old: str, new: str) -> Change:
    return lambda file: file.attrs.__setitem__("spec", file.attrs["spec"].replace(old, new))


def soft_link(file: h5py.File) -> None:
    file.move("frame/embedding", "elsewhere")
    file["frame/embedding"] = h5py.SoftLink("/elsewhere")


def external_link(file: h5py.File) -> None:
    del file["video"]
    file["video"] = h5py.ExternalLink("other.h5", "/video")


def virtual(file: h5py.File) -> None:
    del file["frame/embedding"]
    layout = h5py.VirtualLayout((2, 4), "float16")
    layout[:] = h5py.VirtualSource("other.h5", "data", (2, 4))
    file.create_virtual_dataset("frame/embedding", layout)


FRAMES = "frame/embedding"
NOT_PLAIN = "'frame/embedding' is not stored plainly"
PASSWORDS = [("/etc/passwd", 0, h5py.h5f.UNLIMITED)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (anew(FRAMES, (2, 4), "float16", external=PASSWORDS), NOT_PLAIN),
        (soft_link, "'frame/embedding' is absent or a link to elsewhere"),
        (external_link, "is absent or a link to elsewhere"),
        (virtual, NOT_PLAIN),
        (anew("video/id", data=["x"], dtype=h5py.string_dtype()), "'video/id' holds object"),
        (anew(FRAMES, data=np.zeros((2, 4), "float16"), compression="gzip"), NOT_PLAIN),
        (lambda file: file.pop("pad_embedding"), "'pad_embedding' is absent"),
        (put("selection/head/row", 99), "inconsistent selection/head"),
        (put("video/frame_offset", [0, 1]), "inconsistent video/frame_offset"),
        (put("video/status", 9), "inconsistent video/status"),
        (
            anew("video/error", data=np.array([b"\xff"])),
            "not a readable shard .*invalid start byte",
        ),
        (anew("selection/head/row", data=np.zeros(2)), "inconsistent selection/head/row"),
        (
            lambda file: file.attrs.update(spec='{"schema": ' + "[" * 3_000 + "]" * 3_000 + "}"),
            r"the spec is not whole JSON \(nested too deeply\)",
        ),
        (spec_with('"seed":0', '"seed":"x"'), "the spec: seed is 'x'; allowed: int"),
        (spec_with('"seed":0', '"seed":1'), "its fingerprint does not fit its spec"),
        (spec_with('"schema":1', '"schema":2'), "schema 2; this vtr reads schema 1"),
    ],
)
def test_foreign_content_is_refused(build_store: Build, change: Change, message: str) -> None:
    path = next(build_store([[2]]).glob("*.h5"))
    path = _forge(path, change)
    with pytest.raises(ShardError, match=message) as caught:
        FeatureStore(path.parent)
    assert str(caught.value).count(str(path)) == 1


def test_a_shard_that_cannot_be_read_is_one_line(build_store: Build) -> None:
    path = next(build_store([[2]]).glob("*.h5"))
    path.unlink()
    path.mkdir()
    with pytest.raises(ShardError, match=r"\.h5 cannot be read: not a regular file\. vtr extract"):
        FeatureStore(path.parent)


def test_a_shard_replaced_while_the_store_opens_is_found_again(
    build_store: Build, spec: FeatureSpec, row_factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = build_store([[2], [3]])
    openings = []

    def replace_first(path: Path, name: ShardName, **more: Any) -> object:
        openings.append(path)
        if len(openings) == 1:
            path.unlink()
            shard(folder, spec, row_factory("anew", 1), revision=1)
        return open_shard(path, name, **more)

    monkeypatch.setattr("vtr.features.store.open_shard", replace_first)
    assert FeatureStore(folder, sampler="uniform").ids == ("anew", "vidéo 1")
    assert len(openings) == 3  # what was sound is not read again


def test_a_slot_that_a_listing_missed_is_found_again(
    build_store: Build, spec: FeatureSpec, row_factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large folder is read in pieces: the old name went before, the new one came behind."""
    folder = build_store([[2], [3], [1]])
    listings = []

    def list_late(folder: Path, **more: Any) -> object:
        found, superseded = list_shards(folder, **more)
        if not listings:
            shard(folder, spec, row_factory("anew", 1), slot=(1, 1, 1), revision=1)
            found[1][1].unlink()
        listings.append(found)
        return found if len(listings) > 1 else [found[0], found[2]], superseded

    monkeypatch.setattr("vtr.features.store.list_shards", list_late)
    assert FeatureStore(folder, sampler="uniform").ids == ("vidéo 0", "anew", "vidéo 2")
    assert len(listings) == 3


def test_a_shard_replaced_after_the_store_was_opened_is_still_read(
    build_store: Build, spec: FeatureSpec, row_factory
) -> None:
    folder = build_store([[2], [3]])
    store = FeatureStore(folder, sampler="uniform")
    before, num_bytes = store.packed().frames.tobytes(), describe(store)["bytes"]
    shard(folder, spec, row_factory("anew", 1), revision=1)
    store.shards[0].path.unlink()
    assert store.packed().frames.tobytes() == before
    assert store.verify() == []
    assert describe(store)["bytes"] == num_bytes


def test_not_hdf5_at_all(tmp_path: Path) -> None:
    name = ShardName(1, 1, 0, 0, hashlib.sha256(b"hello" * 100).hexdigest())
    (tmp_path / str(name)).write_bytes(b"hello" * 100)
    with pytest.raises(ShardError, match="not a readable shard"):
        FeatureStore(tmp_path)


def _hold(folder: Path, part: tuple[int, int], held: object, leave: object) -> None:
    with write_lock(folder, part=part):
        held.set()  # type: ignore[attr-defined]
        leave.wait(30)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("first", "second", "free"),
    [
        ((1, 1), (1, 1), False),
        ((1, 1), (1, 2), False),
        ((1, 2), (1, 1), False),
        ((1, 2), (1, 2), False),
        ((1, 2), (2, 2), True),
    ],
)
def test_one_writer_at_a_time(
    tmp_path: Path, first: tuple[int, int], second: tuple[int, int], free: bool
) -> None:
    context = multiprocessing.get_context("spawn")
    held, leave = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(tmp_path, first, held, leave))
    process.start()
    try:
        assert held.wait(30)
        if free:
            with write_lock(tmp_path, part=second):
                pass
        else:
            with pytest.raises(StoreLockedError, match=r"being written by .*--features$"):
                write_lock(tmp_path, part=second).__enter__()
    finally:
        leave.set()
        process.join()
    with write_lock(tmp_path, part=second):
        pass


@pytest.mark.parametrize("name", [".lock", ".lock-1of2"])
def test_what_lies_under_the_lock_s_name_is_neither_followed_nor_written(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "precious").write_text("mine")
    part = (1, 1) if name == ".lock" else (1, 2)
    lock = tmp_path / "features" / name
    lock.parent.mkdir()
    for make, reason in (
        (lambda: lock.symlink_to(tmp_path / "precious"), "it is a link"),
        (lambda: lock.symlink_to(tmp_path / "absent"), "it is a link"),
        (lambda: os.mkfifo(lock), "not a regular file"),
    ):
        make()
        with pytest.raises(StoreWriteError, match=f"cannot write .*{name}: {reason}"):
            write_lock(lock.parent, part=part).__enter__()
        lock.unlink()
    lock.mkdir()
    with pytest.raises(StoreWriteError, match="Is a directory"):
        write_lock(lock.parent, part=part).__enter__()
    assert (tmp_path / "precious").read_text() == "mine"
    assert not (tmp_path / "absent").exists()


def test_a_full_disk_under_the_lock_is_said(tmp_path: Path) -> None:
    with (
        full_disk(0),
        pytest.raises(StoreWriteError, match=r"cannot write .*\.lock: File too large"),
    ):
        write_lock(tmp_path).__enter__()


@pytest.mark.parametrize("option", ["--index", "DST"])
def test_what_is_in_the_way_names_the_option_of_the_command_at_work(
    tmp_path: Path, option: str
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreWriteError, match=f"Choose another with {option}$"):
        write_lock(tmp_path / "file" / "below", option=option).__enter__()
    with full_disk(0), pytest.raises(StoreWriteError, match=f"another folder with {option}$"):
        write_lock(tmp_path, option=option).__enter__()
    with (
        write_lock(tmp_path),
        pytest.raises(StoreLockedError, match=f"another folder with {option}$"),
    ):
        write_lock(tmp_path, option=option).__enter__()


def test_lock_file_of_a_dead_process_is_harmless(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("process 999999 on elsewhere\n")
    with write_lock(tmp_path):
        assert "999999" not in (tmp_path / ".lock").read_text()


def test_full_disk_is_a_clear_error_and_nothing_is_left(build_store: Build) -> None:
    folder = build_store([[3]])
    before = sorted(path.name for path in folder.iterdir())
    code = f"""
import resource, sys
from pathlib import Path
from vtr.errors import StoreWriteError
from vtr.extract.resume import set_aside_damaged
from vtr.files import publish
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    publish(Path({str(folder)!r}) / "big", b"x" * 5000)
except StoreWriteError as error:
    sys.exit(f"refused: {{error}}")
"""
    done = run_python("-c", code)
    assert "refused: cannot write" in done.stderr
    assert "File too large" in done.stderr
    assert "free some space or choose another folder, then run the same command" in done.stderr
    assert sorted(path.name for path in folder.iterdir()) == before
    assert FeatureStore(folder).verify() == []


def test_leftovers_of_killed_writers_go(build_store: Build) -> None:
    folder = build_store([[3]])
    (folder / ".tmp-1234-shard").write_bytes(b"half")
    assert len(FeatureStore(folder)) == 1
    assert remove_leftovers(folder) == [".tmp-1234-shard"]


def test_only_leftovers_of_ones_own_go_on_request(tmp_path: Path) -> None:
    for part in (1, 2):
        (tmp_path / f".tmp-77-shard-00{part}of002-000000-r000-x.h5").touch()
    assert remove_leftovers(tmp_path, "*-shard-002of002-*") == [
        ".tmp-77-shard-002of002-000000-r000-x.h5"
    ]


def test_publish_says_what_stands_in_the_way(tmp_path: Path) -> None:
    with pytest.raises(StoreWriteError, match=r"No such file or directory.* make the folder .*ab"):
        publish(tmp_path / "absent" / "x", b"")
    (tmp_path / "x.png").mkdir()
    with pytest.raises(StoreWriteError, match="choose another name: this is a folder"):
        publish(tmp_path / "x.png", b"")
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]


def test_inspect_names_the_parts_that_have_no_shard(
    tmp_path: Path, spec: FeatureSpec, row_factory: Callable[..., VideoRow]
) -> None:
    for n, slot in enumerate([(1, 1, 0), (4, 1, 0), (4, 3, 0), (4, 3, 1)]):
        shard(tmp_path, spec, row_factory(f"v{n}", 2), slot=slot)
    facts, _ = inspect(tmp_path)
    assert facts["parts_without_shards"] == ["2/4", "4/4"]
    told = " ".join(run_app("inspect", tmp_path).stdout.split())
    assert "no shard of 2/4, 4/4." in told
    assert "vtr extract --shard 2/4" in told
