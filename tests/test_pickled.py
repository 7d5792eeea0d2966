"""Pickles whose keys would take for ever to hash."""

import collections
import pickle
import time
import zipfile
from pathlib import Path

import pytest
import torch

from vtr.clip.checkpoint_files import read_tensors
from vtr.datasets.documents import read_plain_pickle
from vtr.errors import CheckpointError, DatasetError
from vtr.pickled import require_light_keys


def nested(depth: int) -> bytes:
    """A dictionary whose key is a tuple that holds a tuple twice, and so on."""
    steps = [b"h" + bytes([n]) + b"\x86q" + bytes([n + 1]) for n in range(depth)]
    return b"".join([b"\x80\x02}K\x01\x85q\x00", *steps, b"K\x01s."])


@pytest.mark.parametrize("protocol", range(6))
def test_ordinary_pickles_pass(protocol: int) -> None:
    once = ("a", ("b", 1))
    for value in (
        {once: [once, once], "x": {1, 2}, "y": frozenset([once])},
        collections.OrderedDict(a=pytest.approx, b=Path("c"), d=[None, True, 1.5, b"x", 10**30]),
        [[], (), {}, (1, 2), (1, 2, 3), (1, 2, 3, 4)],
    ):
        require_light_keys(pickle.dumps(value, protocol))


def test_keys_without_end_are_refused_in_time(tmp_path: Path) -> None:
    path = tmp_path / "raw-captions.pkl"
    start = time.monotonic()
    path.write_bytes(nested(10))
    assert len(read_plain_pickle(path)) == 1
    path.write_bytes(nested(45))
    with pytest.raises(DatasetError, match="its tuples hold each other without end"):
        read_plain_pickle(path)
    torch.save({"a": torch.zeros(1)}, tmp_path / "good.pt")
    with zipfile.ZipFile(tmp_path / "good.pt") as old:
        members = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(tmp_path / "bad.pt", "w") as new:
        for name, payload in members.items():
            new.writestr(name, nested(45) if name.endswith("data.pkl") else payload)
    with pytest.raises(CheckpointError, match="its tuples hold each other without end"):
        read_tensors(tmp_path / "bad.pt")
    assert time.monotonic() - start < 5


def test_what_is_no_pickle_is_said_to_be_none() -> None:
    for payload in (b"", b"junk", b"\x80\x02h\x07.", b"\x80\x02s."):
        with pytest.raises(pickle.UnpicklingError, match="no whole pickle"):
            require_light_keys(payload)
