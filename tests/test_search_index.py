"""What a folder's search keeps: added to, gone on with, shared, and derived anew when lost."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import (
    demo_spec,
    full_disk,
    kill_when,
    patchwork,
    random_rows,
    random_store,
    script,
    spoil,
    start_python,
    write_clip,
    write_store,
)
from hypothesis import given
from hypothesis import strategies as st

from vtr.demo import demo_model_folder
from vtr.errors import StoreError, StoreWriteError
from vtr.features import FeatureStore
from vtr.features.lock import write_lock
from vtr.searching.calibration import Calibration
from vtr.searching.encoder import unit
from vtr.searching.folder import FolderSource, StoreSource
from vtr.searching.index import read_index
from vtr.searching.library import Library
from vtr.searching.moments import find_cuts, find_runs, run_around
from vtr.searching.query import Query
from vtr.searching.scan import Scanner

MODEL = str(demo_model_folder())
COMMAND = [sys.executable, "-m", "vtr", "search"]


def write_clips(folder: Path, count: int, *, start: int = 0) -> Path:
    for n in range(start, start + count):
        write_clip(folder / f"{n}.mp4", patchwork(2, seed=n))
    return folder


def open_it(folder: Path, **options: Any) -> Library:
    source = FolderSource(folder, model=MODEL, device="cpu", workers=1)
    return Library(source, **options)


def index_folder(folder: Path) -> Path:
    return folder / ".vtr" / "search" / "index"


def test_only_new_shards_are_added_and_nothing_is_done_twice(tmp_path: Path) -> None:
    first = open_it(write_clips(tmp_path, 2)).index
    place = index_folder(tmp_path)
    made = (place / "index.npz").stat().st_mtime_ns
    assert not open_it(tmp_path).changes
    assert (place / "index.npz").stat().st_mtime_ns == made
    write_clips(tmp_path, 1, start=2)
    library = open_it(tmp_path)
    assert library.changes.new == ("2.mp4",)
    assert library.index.facts["frames"] == first.facts["frames"]
    assert np.array_equal(library.index.frames[: len(first.frames)], first.frames)
    assert len(library.index.frames) == len(first.frames) + 1


@pytest.mark.parametrize(
    "damage", ["absent", "cut", "other bytes", "no index", "empty index", "index of the future"]
)
def test_an_index_that_is_lost_is_derived_from_the_store_again(tmp_path: Path, damage: str) -> None:
    before = np.array(open_it(write_clips(tmp_path, 2)).index.frames)
    place = index_folder(tmp_path)
    frames = next(place.glob("frames-*.f16"))
    if damage == "absent":
        frames.unlink()
    elif damage == "cut":
        os.truncate(frames, 10)
    elif damage == "other bytes":
        spoil(frames, -2)
    elif damage == "index of the future":  # a version of zip that is not known
        content = bytearray((place / "index.npz").read_bytes())
        content[content.rfind(b"PK\x01\x02") + 6] = 236
        (place / "index.npz").write_bytes(content)
    else:
        (place / "index.npz").write_bytes(b"no archive" if damage == "no index" else b"")
    assert read_index(place) is None
    after = open_it(tmp_path)
    assert not after.changes
    assert np.array_equal(after.index.frames, before)


def test_a_store_without_a_whole_shard_is_made_anew(tmp_path: Path) -> None:
    before = np.array(open_it(write_clips(tmp_path, 2)).index.frames)
    (shard,) = index_folder(tmp_path).parent.glob("shard-*.h5")
    spoil(shard, 4000)
    (index_folder(tmp_path) / "index.npz").unlink()
    after = open_it(tmp_path)
    assert after.changes.new == ("0.mp4", "1.mp4")
    assert np.array_equal(after.index.frames, before)


@pytest.mark.parametrize(
    ("seen", "sent"), [("shard-*.h5", signal.SIGINT), ("model.json", signal.SIGKILL)]
)
def test_a_search_killed_while_it_indexes_goes_on(
    tmp_path: Path, seen: str, sent: signal.Signals
) -> None:
    folder = write_clips(tmp_path / "films", 70)
    words = ("-m", "vtr", "search", folder, "a red square", "--model", MODEL, "--device", "cpu")
    shards = folder / ".vtr" / "search"
    error = kill_when(lambda: list(shards.glob(seen)), start_python(*words), sent)
    assert "Traceback" not in error
    # Without --model: the one that was named at first.
    assert len(Library(FolderSource(folder, device="cpu", workers=2)).videos) == 70
    assert not FeatureStore(shards).duplicates


def test_a_folder_that_grows_during_the_search_is_whole_at_the_next(tmp_path: Path) -> None:
    folder = write_clips(tmp_path / "films", 2)
    whole = (folder / "1.mp4").read_bytes()
    (folder / "1.mp4").write_bytes(whole[: len(whole) // 2])  # somebody is still copying it
    library = open_it(folder)
    write_clips(folder, 1, start=2)
    (folder / "1.mp4").write_bytes(whole)
    assert {hit.video_id for hit in library.search(Query(("a red square",))).nearest} <= {"0.mp4"}
    changes = library.refresh()
    assert (changes.new, changes.changed) == (("2.mp4",), ("1.mp4",))
    assert {video.status for video in library.videos} == {"ok"}
    assert len(library.videos) == 3


def test_two_searches_at_once_index_once(tmp_path: Path) -> None:
    folder = write_clips(tmp_path / "films", 3)
    words = [*COMMAND, str(folder), "a red square", "--model", MODEL, "--json"]
    both = [subprocess.Popen(words, stderr=subprocess.PIPE, stdout=-1, text=True) for _ in "ab"]
    answers = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], answers
    assert answers[0][0] == answers[1][0]
    assert "indexed 0 videos" not in answers[0][1] + answers[1][1]
    assert len(list((folder / ".vtr" / "search").glob("shard-*.h5"))) == 1


def test_while_another_indexes_what_was_there_before_answers(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    open_it(write_clips(tmp_path, 2))
    write_clips(tmp_path, 1, start=2)
    with write_lock(tmp_path / ".vtr" / "search"):
        library = open_it(tmp_path)
    assert len(library.search(Query(like=(("0.mp4", 0.0),))).hits) == 2
    said = capfd.readouterr().err
    assert "process" in said
    assert ": the answer comes from what was indexed before" in said
    assert "--features" not in said  # which searches do not have


def test_a_full_disk_is_said_and_nothing_is_lost(tmp_path: Path) -> None:
    write_clips(tmp_path, 2)
    with full_disk(2000), pytest.raises(StoreWriteError, match="cannot write"):
        open_it(tmp_path)
    assert len(open_it(tmp_path).videos) == 2


def test_a_lock_that_cannot_be_written_names_the_option_of_search(tmp_path: Path) -> None:
    (index_folder(write_clips(tmp_path, 2)).parent / ".lock").mkdir(parents=True)
    with pytest.raises(StoreWriteError, match=r"\.lock.*Is a directory.* with --index$"):
        open_it(tmp_path)


def test_tries_on_a_full_disk_do_not_add_up(tmp_path: Path) -> None:
    open_it(write_clips(tmp_path, 2))
    (index_folder(tmp_path) / "index.npz").unlink()
    for _ in range(3):
        with full_disk(3000), pytest.raises(StoreWriteError):
            open_it(tmp_path)
        assert len(list(index_folder(tmp_path).glob("frames-*"))) == 1


def test_a_kill_loses_little_of_long_videos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vtr.searching.folder._SHARD_BYTES", 300)
    open_it(write_clips(tmp_path, 3))
    assert len(list((tmp_path / ".vtr" / "search").glob("shard-*"))) == 3


def test_a_deleted_video_is_gone_and_an_answer_is_the_same_twice(tmp_path: Path) -> None:
    library = open_it(write_clips(tmp_path, 3))
    query = Query(("a red square",), without=("a dog",))
    assert library.search(query) == library.search(query)
    (tmp_path / "1.mp4").unlink()
    assert library.refresh().deleted == ("1.mp4",)
    found = library.search(Query(like=(("0.mp4", 0.0),)))
    assert {hit.video_id for hit in found.hits} == {"0.mp4", "2.mp4"}


def test_a_store_without_times_is_refused(tmp_path: Path) -> None:
    spec = demo_spec()
    rows = random_rows(["a"], spec)
    rows[0].pts_seconds[:] = np.nan
    store = write_store(tmp_path / "features", rows, spec)
    with pytest.raises(StoreError, match="frames without times"):
        Library(StoreSource(store, {}, model=MODEL, device="cpu"))


def test_a_store_where_every_video_failed_finds_nothing(tmp_path: Path) -> None:
    store = random_store(tmp_path / "features", ["a", "b"], failed=("a", "b"))
    answer = Library(StoreSource(store, {}, model=MODEL, device="cpu")).search(Query(("a dog",)))
    assert (answer.hits, answer.nearest, answer.match) == ((), (), False)


@given(st.integers(0, 2**32), st.lists(st.integers(1, 30), min_size=1, max_size=6))
def test_cuts_are_where_shots_change(seed: int, lengths: list[int]) -> None:
    rng = np.random.default_rng(seed)
    shots = np.linalg.qr(rng.standard_normal((16, 16)))[0][: len(lengths)].repeat(lengths, axis=0)
    cuts = find_cuts(unit(shots))
    assert cuts.tolist() == np.cumsum([0, *lengths[:-1]]).tolist()


def test_a_moment_has_its_best_frame_and_no_frame_twice() -> None:
    scores = np.array([0.1, 0.1, 0.9, 0.8, 0.1, 0.7, 0.7, 0.1])
    pieces = np.arange(9)
    runs = find_runs(scores, pieces, background=0.1, several=True)
    assert runs == [(2, 4, 2), (5, 7, 5)]
    assert find_runs(np.full(4, 0.3), np.array([0, 2, 4]), background=0.1) == [(0, 4, 0)]
    assert run_around(np.array([0.5]), np.ones(1), 0.9, 0) == (0, 1)


def test_the_very_frame_scores_best_whatever_rounding_did_to_lengths() -> None:
    rng = np.random.default_rng(0)
    base = rng.standard_normal(96)
    rows = base + 1e-3 * rng.standard_normal((200, 96))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    scanner = Scanner(rows.astype(np.float16), np.array([0]), np.array([200]))
    found = [int(np.argmax(scanner.exact(0, 200, row.astype(np.float32)))) for row in rows]
    assert found == list(range(200))


def test_memory_that_is_given_back_changes_no_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vtr.searching.scan._BLOCK_ROWS", 1024)
    monkeypatch.setattr("vtr.searching.scan._RESIDENT_BYTES", 0)
    rows = np.random.default_rng(0).standard_normal((4096, 64)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows.astype(np.float16).tofile(tmp_path / "frames")
    frames = np.memmap(tmp_path / "frames", np.float16, "c", shape=rows.shape)
    scanner = Scanner(frames, np.array([0]), np.array([4096]))
    first, second = (scanner.scores(rows[7]) for _ in range(2))
    assert np.abs(first - rows @ rows[7]).max() < 1e-3
    assert np.array_equal(first, second)


def test_a_level_is_a_share_of_the_bank() -> None:
    rng = np.random.default_rng(0)
    above, outlier = rng.normal(0.3, 0.05, 200), rng.normal(3.0, 0.2, 200)
    made = Calibration.of(above, outlier)
    assert made.level(0.0, 0.0) == 0.0
    assert made.level(1.0, 0.0) == made.level(0.0, 9.0) == 1.0
    shares = [made.level(a, o) for a, o in zip(above, outlier, strict=True)]
    assert sorted(shares) == pytest.approx(np.arange(200) / 200)


@pytest.mark.slow
def test_the_demo_world_is_found_as_promised(tmp_path: Path) -> None:
    figures = script("benchmarks/search.py")
    found = figures.measure_world(tmp_path / "world", tmp_path, num_joined=20)
    for name, goal in figures.GOALS.items():
        least, most = goal.get("at_least", 0.0), goal.get("at_most", 1.0)
        assert least <= found[name] <= most, (name, found[name])
