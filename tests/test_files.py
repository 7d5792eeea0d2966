"""Files appear whole, and those that belong together appear together."""

from __future__ import annotations

from pathlib import Path

import pytest

from vtr.errors import StoreWriteError
from vtr.files import publish, publish_all


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    publish(tmp_path / "a", b"old")
    publish(tmp_path / "a", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"new")]


def test_one_refused_file_leaves_all_as_they_were(tmp_path: Path) -> None:
    publish(tmp_path / "a", b"old")
    too_long = tmp_path / ("b" * 255)  # the temporary name does not fit a file system's 255 bytes
    with pytest.raises(StoreWriteError, match=r"cannot write .*b+ \(3 bytes\): File name too long"):
        publish_all({tmp_path / "a": b"new", too_long: b"new"})
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"old")]
