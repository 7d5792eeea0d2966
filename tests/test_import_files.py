"""Reading foreign checkpoint files: the right tensors, and never anything that runs."""

import contextlib
import os
import pickle
import random
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import same
from safetensors.torch import save_file
from torch import Tensor, nn

from vtr.clip.checkpoint_files import read_tensors
from vtr.errors import CheckpointError

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning"),
]


class Part(nn.Module):
    """Parameters, buffers, a plain tensor and other attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)
        self.lower = nn.Parameter(torch.rand(2, 3).half())
        self.attn_mask = torch.zeros(2, 2)  # no part of a state dict
        self.register_buffer("context_length", torch.tensor(77))
        self.sizes = [1, 2]
        self.name = "part"

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.attn_mask.sum() + self.lower.sum()


class Whole(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        first = Part()
        self.blocks = nn.ModuleList([first, Part()])
        self.scale = nn.Parameter(torch.tensor(4.6))
        self.tied = first.linear.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks[0](x) * self.scale


def archive(path: Path, kind: str = "script") -> dict[str, Tensor]:
    """Writes a TorchScript archive; returns its state dict as torch itself reads it."""
    torch.manual_seed(0)
    module = Whole().eval()
    jit: Any = torch.jit
    made = jit.script(module) if kind == "script" else jit.trace(module, torch.rand(2, 3))
    made.save(str(path))
    return jit.load(str(path)).state_dict()


def rewrite(path: Path, change: Callable[[str, bytes], bytes], **options: int) -> None:
    """Writes a zip anew with changed members."""
    with zipfile.ZipFile(path) as old:
        members = [(name, change(name, old.read(name))) for name in old.namelist()]
    with zipfile.ZipFile(path, "w", **options) as new:  # type: ignore[call-overload]
        for name, payload in members:
            new.writestr(name, payload)


# --- good files


@pytest.mark.parametrize("kind", ["script", "trace"])
def test_archives_give_the_state_dict_that_torch_gives(tmp_path: Path, kind: str) -> None:
    expected = archive(tmp_path / "it.pt", kind)
    read = read_tensors(tmp_path / "it.pt")
    same(read, expected)
    assert "blocks.0.attn_mask" not in read
    assert read["blocks.1.lower"].dtype == torch.float16
    assert read["blocks.0.context_length"].shape == ()


def test_archives_of_old_versions_have_no_list_of_buffers(tmp_path: Path) -> None:
    path = tmp_path / "it.pt"
    expected = archive(path)

    def old(name: str, payload: bytes) -> bytes:
        lines = payload.splitlines(keepends=True) if name.endswith(".py") else [payload]
        return b"".join(line for line in lines if b"__buffers__" not in line)

    rewrite(path, old)
    read = read_tensors(path)
    assert read.keys() - expected.keys() == {"blocks.0.attn_mask", "blocks.1.attn_mask"}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_state_dicts(tmp_path: Path, zipped: bool) -> None:
    state = {"a": torch.rand(3, 2).half(), "b": torch.tensor(1.5), "c": torch.arange(4)}
    state["view"] = torch.rand(4, 4)[1:3, ::2]
    torch.save(state, tmp_path / "w.bin", _use_new_zipfile_serialization=zipped)
    same(read_tensors(tmp_path / "w.bin"), state)


def test_parameters_of_a_module_and_safetensors(tmp_path: Path) -> None:
    module = nn.Linear(2, 3)
    torch.save(dict(module.named_parameters()), tmp_path / "p.bin")
    read = read_tensors(tmp_path / "p.bin")
    assert not any(tensor.requires_grad for tensor in read.values())
    same(read, module.state_dict())
    save_file(module.state_dict(), tmp_path / "p.safetensors")
    same(read_tensors(tmp_path / "p.safetensors"), module.state_dict())


# --- hostile files: the canary is a file that any executed payload would leave


class Bomb:
    """Unpickling it with the ordinary unpickler creates a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.canary),)


def hostile_plain(path: Path, canary: Path) -> None:
    path.write_bytes(pickle.dumps(Bomb(canary)))


def hostile_state(path: Path, canary: Path) -> None:
    torch.save({"a": torch.zeros(2), "b": Bomb(canary)}, path)


def hostile_legacy(path: Path, canary: Path) -> None:
    torch.save({"b": Bomb(canary)}, path, _use_new_zipfile_serialization=False)


def put(path: Path, member: str, payload: bytes) -> None:
    """Writes an archive with another content of one of its pickles."""
    archive(path)
    rewrite(path, lambda name, old: payload if name.endswith(f"/{member}.pkl") else old)


def hostile_archive(path: Path, canary: Path) -> None:
    put(path, "data", pickle.dumps(Bomb(canary), protocol=2))


def hostile_eval(path: Path, canary: Path) -> None:
    """Dotted names reach builtins through an allowed-looking module."""
    for_exec = f"__import__('os').mkdir({str(canary)!r})".encode()
    size = len(for_exec).to_bytes(4, "little")
    put(path, "data", b"c__builtin__\neval\n(X" + size + for_exec + b"tR.")


HOSTILE = [hostile_plain, hostile_state, hostile_legacy, hostile_archive, hostile_eval]


@pytest.mark.parametrize("make", HOSTILE)
def test_hostile_files_run_nothing(tmp_path: Path, make: Callable[[Path, Path], None]) -> None:
    canary = tmp_path / "canary"
    make(tmp_path / "bad.bin", canary)
    with pytest.raises(CheckpointError, match=r"bad\.bin cannot be read as tensors: ") as caught:
        read_tensors(tmp_path / "bad.bin")
    assert not canary.exists()
    assert "weights_only" not in str(caught.value), "torch's advice would run the file"
    assert "Re-running" not in str(caught.value)


def test_the_canary_sings_under_an_ordinary_unpickler(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    hostile_state(tmp_path / "bad.bin", canary)
    torch.load(tmp_path / "bad.bin", weights_only=False)
    assert canary.exists()


def test_the_rest_of_an_archive_is_not_even_read(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    put(tmp_path / "it.pt", "constants", pickle.dumps(Bomb(canary), protocol=2))
    assert "scale" in read_tensors(tmp_path / "it.pt")
    assert not canary.exists()


@pytest.mark.parametrize(
    "payload",
    [
        b"c__torch__\nX\n(tR.",  # a holder called with nothing is no tensor: fine, but no module
        b"ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x02tR.",
        b"ctorch._utils\n_rebuild_parameter\n.",
        b"ccollections\nOrderedDict.fromkeys\n.",
        b"ctorch\nload\n.",
        b"c__torch__\n__init__\n}X\x01\x00\x00\x00aK\x01sb.",  # BUILD on a class
        b"X\x01\x00\x00\x00aQ.",  # a persistent id that is a text
        b"",
        b"\x80\x02}q\x00",
    ],
)
def test_odd_pickles_in_archives_are_refused(tmp_path: Path, payload: bytes) -> None:
    path = tmp_path / "it.pt"
    put(path, "data", payload)
    if payload.startswith(b"c__torch__\nX"):
        assert read_tensors(path) == {}
        return
    refused(path, r"it\.pt cannot be read|data\.pkl holds a")


# --- damaged files, and files that are something else


def refused(path: Path, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_tensors(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3, "optimizer_state_dict": {}}, r"'epoch' is of type int; .* optimiser's file"),
        ([torch.zeros(1)], "holds a list, not a state dict"),
        ({"a": torch.zeros(3).to_sparse()}, "a is not an ordinary dense tensor"),
        ({"huge": torch.zeros(1).expand(1 << 40)}, "huge claims 1099511627776 values"),
    ],
)
def test_other_contents_are_told(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "w.bin")
    refused(tmp_path / "w.bin", message)


def test_folders_and_what_is_no_checkpoint_are_told_in_our_words(tmp_path: Path) -> None:
    refused(tmp_path, "give the file itself, not its folder")
    (tmp_path / "x.safetensors").write_bytes(b"no")
    refused(tmp_path / "x.safetensors", "is not a whole safetensors file")
    (tmp_path / "bad.bin").write_bytes(b"\x89PNG\r\n")
    refused(tmp_path / "bad.bin", r"tensors: it is no checkpoint \(it begins with b'\\x89PNG")


@pytest.mark.parametrize("kind", ["state", "archive"])
def test_cut_files_are_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "it.pt"
    if kind == "archive":
        archive(path)
    else:
        torch.save({"a": torch.zeros(999)}, path)
    whole = path.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        refused(path, r"it\.pt cannot be read as tensors")


@pytest.mark.parametrize("kind", ["zip", "before torch 1.6", "archive", "safetensors"])
def test_whatever_the_damage_the_error_is_a_checkpoint_error(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("it.safetensors" if kind == "safetensors" else "it.pt")
    state = {"a": torch.rand(3, 2).half(), "b": torch.tensor(1.5), "c": torch.arange(4)}
    if kind == "archive":
        archive(path)
    elif kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    whole, refused = path.read_bytes(), 0
    for number in range(300):
        path.write_bytes(damaged(whole, random.Random(number)))
        try:
            read_tensors(path)  # a flipped bit of a weight is still a weight
        except CheckpointError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("make", [hostile_state, hostile_legacy, hostile_archive])
def test_damaged_hostile_files_run_nothing(
    tmp_path: Path, make: Callable[[Path, Path], None]
) -> None:
    path, canary = tmp_path / "bad.bin", tmp_path / "canary"
    make(path, canary)
    whole = path.read_bytes()
    for number in range(100):
        path.write_bytes(damaged(whole, random.Random(number)))
        with contextlib.suppress(CheckpointError):
            read_tensors(path)
    assert {entry.name for entry in tmp_path.iterdir()} == {"bad.bin"}


def damaged(whole: bytes, rng: random.Random) -> bytes:
    """Cuts a file off, or flips up to ten of its bits, or leaves a few bytes out."""
    changed = bytearray(whole)
    place, way = rng.randrange(len(changed)), rng.randrange(3)
    if way == 0:
        return bytes(changed[:place])
    if way == 1:
        del changed[place : place + rng.randrange(1, 9)]
        return bytes(changed)
    for _ in range(rng.choice((1, 3, 10))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


@pytest.mark.parametrize("junk", [b"junk", b"", b"\x80\x02.", b"PK\x03\x04", b"\0" * 100])
def test_junk_is_told_with_what_to_do(tmp_path: Path, junk: bytes) -> None:
    (tmp_path / "junk.bin").write_bytes(junk)
    said = r"junk\.bin cannot be read as tensors: .*(again|plain state dict)$"
    refused(tmp_path / "junk.bin", said)


@pytest.mark.parametrize(
    ("change", "compression", "message"),
    [
        (lambda _, old: old, zipfile.ZIP_DEFLATED, "is compressed, which torch never does"),
        (
            lambda name, old: b"big" if name.endswith("byteorder") else old,
            zipfile.ZIP_STORED,
            "byte order b'big' is not supported",
        ),
        (
            lambda name, old: old[:4] if "/data/" in name else old,
            zipfile.ZIP_STORED,
            r"it\.pt cannot be read as tensors",
        ),
    ],
)
def test_faults_of_archives(tmp_path: Path, change: Any, compression: int, message: str) -> None:
    archive(tmp_path / "it.pt")
    rewrite(tmp_path / "it.pt", change, compression=compression)
    refused(tmp_path / "it.pt", message)


# --- files that would take all time or memory


def shared_modules(depth: int) -> bytes:
    """Returns the pickle of a module whose two attributes are one module, so many levels deep."""
    opcodes = [b"\x80\x02c__torch__\nM\n)\x81}bq\x00"]
    for level in range(depth):
        child = b"h" + bytes([level])
        attributes = b"}(X\x01\x00\x00\x00a" + child + b"X\x01\x00\x00\x00b" + child + b"u"
        opcodes.append(b"c__torch__\nM\n)\x81" + attributes + b"bq" + bytes([level + 1]))
    return b"".join(opcodes) + b"."


def test_shared_modules_end_in_time(tmp_path: Path) -> None:
    path = tmp_path / "it.pt"
    put(path, "data", shared_modules(8))
    assert read_tensors(path) == {}
    put(path, "data", shared_modules(45))
    start = time.monotonic()
    refused(path, "its modules are nested without end")
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("kind", ["state", "archive"])
@pytest.mark.parametrize(
    ("member", "message"),
    [
        ("data/99", "data/99 is compressed, which torch never does"),
        ("code/x.py", "fill the memory"),
    ],
)
def test_archives_that_grow_are_refused_unread(
    tmp_path: Path, kind: str, member: str, message: str
) -> None:
    path = tmp_path / "it.pt"
    if kind == "archive":
        archive(path)
    else:
        torch.save({"a": torch.zeros(99)}, path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr(f"it/{member}", bytes(70 << 20))
    assert path.stat().st_size < 1 << 20
    refused(path, message)


def test_many_views_of_few_bytes_are_refused(tmp_path: Path) -> None:
    base = torch.zeros(100_000)
    torch.save({f"w{number}": base for number in range(50)}, tmp_path / "w.bin")
    refused(tmp_path / "w.bin", "its tensors claim 20,000,000 bytes, the file has 4")
    torch.save({"a": base, "tied": base}, tmp_path / "w.bin")
    assert set(read_tensors(tmp_path / "w.bin")) == {"a", "tied"}
