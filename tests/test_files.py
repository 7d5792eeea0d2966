"""Files appear whole, and those that belong together appear together."""

import os
import tracemalloc
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

import pytest

from vtr import files
from vtr.errors import ConfigError, DatasetError, StoreWriteError
from vtr.json_files import as_fields, read_json


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    files.publish(tmp_path / "a", b"old")
    files.publish(tmp_path / "a", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"new")]


def test_one_refused_file_leaves_all_as_they_were(tmp_path: Path) -> None:
    files.publish(tmp_path / "a", b"old")
    too_long = tmp_path / ("b" * 256)
    with pytest.raises(StoreWriteError, match=r"cannot write .*b+ \(3 bytes\): File name too long"):
        files.publish_all({tmp_path / "a": b"new", too_long: b"new"})
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"old")]


def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    """Whatever ends the writing: a file of many megabytes would stay under a hidden name."""

    def interrupted(file: BinaryIO) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    files.publish(tmp_path / "a", b"old")
    with pytest.raises(KeyboardInterrupt):
        files.publish_all({tmp_path / "a": b"new", tmp_path / "b": interrupted})
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"old")]


def test_a_planted_temporary_name_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    planted = tmp_path / f"{files.TEMPORARY_PREFIX}{os.getpid()}-a"
    planted.symlink_to(tmp_path / "precious")
    files.publish(tmp_path / "a", b"new")
    (tmp_path / "a").unlink()
    (tmp_path / "a").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="it is a link"):
        files.open_shared(tmp_path / "a", append=True)
    files.publish(tmp_path / "a", b"new")
    assert (tmp_path / "precious").read_text() == "mine"
    assert (tmp_path / "a").read_bytes() == b"new"


def test_the_longest_name_can_be_written_and_cleared_up_after(tmp_path: Path) -> None:
    longest = tmp_path / ("é" * 127 + "a")
    with files.publishing() as create:
        create(longest).write(b"old")
        (temporary,) = tmp_path.iterdir()
    temporary.touch()  # as a killed writer leaves it
    with files.publishing(alone=True) as create:
        create(longest).write(b"new")
    assert [(path, path.read_bytes()) for path in tmp_path.iterdir()] == [(longest, b"new")]
    folder = tmp_path / "folders" / ("f" * 255)
    for text in ("old", "new"):
        with files.replacing(folder, option="--out", over=True) as new:
            (new / "a").write_text(text)
    assert [path.read_text() for path in folder.parent.rglob("*") if path.is_file()] == ["new"]


def test_a_folder_among_leftovers_is_left(tmp_path: Path) -> None:
    (tmp_path / f"{files.TEMPORARY_PREFIX}x").mkdir()
    (tmp_path / f"{files.TEMPORARY_PREFIX}y").touch()
    assert files.remove_leftovers(tmp_path) == [f"{files.TEMPORARY_PREFIX}y"]


DEEP = "[" * 3_000 + "]" * 3_000


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b'{"a": ' + DEEP.encode() + b"}", "nested too deeply"),
        (b'{"a": ' + b"[" * 40 + b"]" * 40 + b"}", "nested too deeply"),
        (b'{"a": "\xff"}', "no UTF-8: invalid start byte at byte 7"),
        (b'{"a": 1, "b": 2, "a": 3}', "the key 'a' twice"),
        (b'{"a": NaN}', "NaN is no finite number"),
        (b'{"a": 1e999}', "1e999 is no finite number"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "Exceeds the limit"),
        (b"[]", "holds a list; needed: a thing"),
        (b'{"a": ', "Expecting value"),
        (b"", "Expecting value"),
    ],
)
def test_a_document_that_we_never_write_is_refused(
    tmp_path: Path, text: bytes, reason: str
) -> None:
    path = tmp_path / "it.json"
    path.write_bytes(text)
    with pytest.raises(DatasetError, match=f"it.json .*{reason}.*needed: a thing|{reason}$"):
        read_json(path, needed="a thing", error=DatasetError)


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "big").write_bytes(b"{}" + b" " * 99)
    for name, reason in (
        ("pipe", "not a regular file"),
        ("none", "No such file"),
        (".", "not a reg"),
    ):
        with pytest.raises(ConfigError, match=f"{reason}.*; needed: a thing"):
            read_json(tmp_path / name, needed="a thing")
    with pytest.raises(ConfigError, match="is larger than 100 bytes"):
        files.read_regular(tmp_path / "big", needed="a thing", limit=100)


def test_reading_takes_memory_for_what_there_is_not_for_what_there_may_be(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"abc")
    tracemalloc.start()
    try:
        assert files.read_regular(tmp_path / "small", needed="a thing", limit=16 << 30) == b"abc"
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@dataclass(frozen=True)
class _Inner:
    mode: Literal["a", "b"]
    size: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class _Outer:
    inner: _Inner
    share: float | None = None
    names: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    done: bool = False


def test_an_object_becomes_its_dataclass() -> None:
    values = {"inner": {"mode": "a", "size": [2, 3]}, "share": 1, "names": ["x"], "labels": {}}
    expected = _Outer(_Inner("a", (2, 3)), 1, ("x",), {})
    assert as_fields(_Outer, values, source="it") == expected


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"inner": None}, "it: inner is None; allowed: an object"),
        ({"inner": {"mode": "c"}}, r"it: inner: mode is 'c'; allowed: Literal\['a', 'b'\]"),
        ({"inner": {"mode": "a", "size": [1]}}, r"size is \[1\]; allowed: tuple\[int, int\]"),
        ({"inner": {}}, "it: inner lacks 'mode'"),
        ({"share": "x"}, r"it: share is 'x'; allowed: float \| None"),
        ({"share": True}, "it: share is True"),
        ({"names": [None]}, r"it: names is \[None\]"),
        ({"labels": {"x": 1}}, "it: labels is"),
        ({"done": 1}, "it: done is 1; allowed: bool"),
        ({"more": 1}, "it has unknown 'more'"),
    ],
)
def test_a_field_of_another_type_is_named(change: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        as_fields(_Outer, {"inner": {"mode": "a"}, **change}, source="it")
