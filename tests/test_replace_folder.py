"""A folder is replaced as a whole: at any moment its name holds the old version or the new one."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from builders import full_disk, put, run_python

from vtr import files
from vtr.errors import StoreWriteError
from vtr.features.importing import SHARD_VIDEOS, import_arrays
from vtr.files import UNFINISHED, begin_beside, beside, is_begun, publish, replacing, take_place


def _make(folder: Path, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("a", "b"):
        (folder / name).write_text(text)


def _read(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def _stop_half_way(folder: Path) -> None:
    with replacing(folder, option="--out", over=True) as new:
        (new / "a").write_text("half")
        raise KeyboardInterrupt


def test_the_new_version_takes_the_place_with_nothing_of_the_old(tmp_path: Path) -> None:
    _make(tmp_path / "run", "old")
    (tmp_path / "run/eval").mkdir()
    with replacing(tmp_path / "run", option="--out", over=True) as new:
        _make(new, "new")
        assert (tmp_path / "run/a").read_text() == "old"
    assert _read(tmp_path / "run") == {"a": "new", "b": "new"}
    assert list(tmp_path.iterdir()) == [tmp_path / "run"]


@pytest.mark.parametrize("there", [True, False])
def test_what_goes_wrong_leaves_the_old_version(tmp_path: Path, there: bool) -> None:
    if there:
        _make(tmp_path / "run", "old")
    with pytest.raises(KeyboardInterrupt):
        _stop_half_way(tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["run"] * there
    assert not there or _read(tmp_path / "run") == {"a": "old", "b": "old"}


@pytest.mark.parametrize("over", [True, False])
def test_what_others_put_there_meanwhile_is_not_thrown_away(tmp_path: Path, over: bool) -> None:
    folder = tmp_path / "store"
    if over:
        _make(folder, "old")
    message = r"store was filled by others meanwhile \(c\) and stays as it is\. Choose .* --out"
    with contextlib.ExitStack() as stack:
        _make(stack.enter_context(replacing(folder, option="--out", over=over)), "new")
        put(folder / "c", "theirs")
        with pytest.raises(StoreWriteError, match=message):
            stack.close()
    assert _read(folder) == ({"a": "old", "b": "old"} if over else {}) | {"c": "theirs"}
    assert list(tmp_path.iterdir()) == [folder]


def test_two_do_not_make_one_folder_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    with replacing(folder, option="--out") as new:
        _make(new, "first")
        done = run_python("-c", BUILD, folder)
        assert "StoreWriteError: another program is making" in done.stderr
    assert _read(folder) == {"a": "first", "b": "first"}


BUILD = """
import sys
from pathlib import Path
from vtr.files import replacing
with replacing(Path(sys.argv[1]), option="--out"):
    pass
"""


def test_where_names_cannot_be_exchanged_they_are_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_exchange", lambda *_: False)  # such as NFS
    _make(tmp_path / "run", "old")
    with replacing(tmp_path / "run", option="--out", over=True) as new:
        _make(new, "new")
    assert _read(tmp_path / "run") == {"a": "new", "b": "new"}
    assert list(tmp_path.iterdir()) == [tmp_path / "run"]


def test_one_moved_away_by_a_process_that_died_comes_back(tmp_path: Path) -> None:
    away = tmp_path / UNFINISHED / ".tmp-1-run"
    _make(away, "old")
    (away / ".replaced").touch()
    with pytest.raises(KeyboardInterrupt):
        _stop_half_way(tmp_path / "run")
    assert (tmp_path / "run/a").read_text() == "old"


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    _make(tmp_path / "disk/run", "old")
    (tmp_path / "run").symlink_to(tmp_path / "disk/run")
    with replacing(tmp_path / "run", option="--out", over=True) as new:
        _make(new, "new")
    assert (tmp_path / "run").is_symlink()
    assert _read(tmp_path / "disk/run") == {"a": "new", "b": "new"}


def _write_much(folder: Path) -> None:
    with full_disk(10_000), replacing(folder, option="--out", over=True) as new:
        publish(new / "a", bytes(20_000))


def test_a_full_disk_leaves_the_old_version_and_says_so(tmp_path: Path) -> None:
    _make(tmp_path / "run", "old")
    with pytest.raises(StoreWriteError, match="before is intact"):
        _write_much(tmp_path / "run")
    assert _read(tmp_path / "run") == {"a": "old", "b": "old"}
    assert list(tmp_path.iterdir()) == [tmp_path / "run"]


def test_features_that_did_not_fit_on_the_disk_leave_no_half_store(tmp_path: Path) -> None:
    """Half a store was in the way of the next attempt: it "is a store already"."""
    (tmp_path / "arrays").mkdir()
    for number in range(SHARD_VIDEOS + 1):
        frames = np.ones((1 if number < SHARD_VIDEOS else 4000, 8), np.float32)
        np.save(tmp_path / "arrays" / f"{number:03}.npy", frames)
    with full_disk(60_000), pytest.raises(StoreWriteError, match="cannot write"):
        import_arrays(tmp_path / "arrays", tmp_path / "store")
    assert [path.name for path in tmp_path.iterdir()] == ["arrays"]
    assert import_arrays(tmp_path / "arrays", tmp_path / "store").ok == SHARD_VIDEOS + 1


def test_where_nothing_can_be_renamed_an_empty_folder_is_filled_or_left_empty(here: Path) -> None:
    """Such as a mount point of a container, given to --out; or the folder one is in."""
    with pytest.raises(KeyboardInterrupt):
        _stop_half_way(here)
    assert not list(here.iterdir())
    with replacing(Path(), option="--out", over=True) as new:
        _make(new, "new")
    assert _read(here) == {"a": "new", "b": "new"}
    with pytest.raises(StoreWriteError, match=r"\. is where you are, and cannot be replaced"):
        _stop_half_way(Path())


def test_a_mount_point_is_refused_before_any_work() -> None:
    with pytest.raises(StoreWriteError, match=r"/proc is a mount point.*--out"):
        begin_beside(Path("/proc"), option="--out")


KILLED = """
import sys
from pathlib import Path
from vtr.files import begin_beside, take_place
folder = Path(sys.argv[1])
print("go", flush=True)
for number in range(100_000):
    new = begin_beside(folder, option="--out")
    for name in "ab":
        (new / name).write_text(str(number))
    take_place(folder)
"""


@pytest.mark.parametrize("moment", range(8))
def test_a_kill_at_any_moment_leaves_one_version_whole(tmp_path: Path, moment: int) -> None:
    folder = tmp_path / "run"
    _make(folder, "-1")
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, folder], stdout=subprocess.PIPE, env=os.environ
    ) as process:
        process.stdout.readline()
        time.sleep(0.013 * moment + 0.001)
        process.kill()
    held = _read(folder)
    held.pop(".replaced", None)
    assert held.keys() == {"a", "b"}
    assert held["a"] == held["b"]
    with replacing(folder, option="--out", over=True) as new:
        _make(new, "after")
    assert _read(folder) == {"a": "after", "b": "after"}
    assert list(tmp_path.iterdir()) == [folder]


def test_the_old_version_is_never_taken_for_the_next_one(tmp_path: Path) -> None:
    """A kill between the exchange and the deletion leaves the old one where the next is built."""
    _make(tmp_path / "run", "old")
    new = begin_beside(tmp_path / "run", option="--out")
    _make(new, "new")
    assert is_begun(tmp_path / "run")
    (tmp_path / "run/.replaced").touch()
    files._exchange(new, tmp_path / "run")
    assert not is_begun(tmp_path / "run")
    take = begin_beside(tmp_path / "run", option="--out")
    assert take == beside(tmp_path / "run")
    assert not list(take.iterdir())
    _make(take, "newer")
    take_place(tmp_path / "run")
    assert _read(tmp_path / "run") == {"a": "newer", "b": "newer"}
