"""Tensors out of checkpoint files of others, without running anything that is in them.

Three kinds of files: what `torch.save(state_dict)` wrote (read by torch with `weights_only`),
safetensors, and TorchScript archives such as OpenAI's `ViT-B-32.pt`. An archive is never given to
`torch.jit.load`, which compiles its code and calls its `__setstate__` methods: its `data.pkl` is
read here by an unpickler that knows tensors and nothing else, and every class of the archive
becomes a plain holder of attributes.
"""

from __future__ import annotations

import contextlib
import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from vtr.errors import CheckpointError
from vtr.pickled import require_light_keys

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "module")
"""Under which training loops save the weights, beside epochs and optimisers; the first counts."""

# No file of weights comes near these; one that was made to fill the memory goes far beyond.
_MOST_WRAPPERS = 4
_MOST_MODULES = 100_000
_MOST_CODE_BYTES = 64 << 20
_MOST_SHARED = 4  # tensors over the same bytes, such as tied weights

_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Returns the tensors of a checkpoint by name, on the CPU, in their stored dtypes.

    A state dict saved by torch, also within what a training loop saves (`WRAPPERS`), safetensors,
    or the parameters and buffers of a TorchScript archive.

    Raises:
        CheckpointError: Not such a file, damaged, or it holds anything but tensors.
    """
    with _reading(path):
        state = _read(path, {})
        if not isinstance(state, Mapping):
            raise CheckpointError(f"{path} holds a {type(state).__name__}, not a state dict")
        state = _unwrapped(state)
        tensors = {name: _plain(path, name, value) for name, value in state.items()}
        _check_bytes(path, tensors.values())
        return {name: tensor.clone() for name, tensor in tensors.items()}  # own memory for each


def read_content(path: Path, stand_ins: Mapping[str, Callable[..., Any]]) -> Any:
    """Returns what `torch.save` wrote: any nesting of plain values, with arrays for tensors.

    A tensor that is none in plain memory becomes the error that says so. Names in the pickle that
    are not torch's ("numpy.dtype") are called as `stand_ins` says.

    Raises:
        CheckpointError: Not such a file, damaged, or it asks for anything else.
    """
    with _reading(path):
        content = _read(path, stand_ins)
        made: dict[int, Any] = {}
        converted = _as_arrays(content, path, made)
        _check_bytes(path, [one for one in made.values() if isinstance(one, np.ndarray)])
        return converted


def _as_arrays(value: Any, path: Path, made: dict[int, Any]) -> Any:
    """Converts each object once, by its `id`: a small file can name one object very often."""
    if id(value) not in made:
        if isinstance(value, dict):
            made[id(value)] = {n: _as_arrays(inner, path, made) for n, inner in value.items()}
        elif isinstance(value, list | tuple):
            made[id(value)] = [_as_arrays(inner, path, made) for inner in value]
        elif isinstance(value, Tensor):
            made[id(value)] = _as_array(value, path)
        else:
            return value
    return made[id(value)]


def _as_array(tensor: Tensor, path: Path) -> np.ndarray[Any, Any] | Exception:
    try:
        plain = _plain(path, "a tensor", tensor)
        return (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy()
    except (CheckpointError, TypeError) as error:
        return error


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Lets whatever a damaged file raises say which file it is and what to do."""
    require_file(path)
    try:
        yield
    except CheckpointError:
        raise
    # Of what torch, pickle, zipfile and zlib raise at damaged files no list was ever whole.
    except Exception as error:  # noqa: BLE001
        raise CheckpointError(f"{path} cannot be read as tensors: {_reason(error)}") from None


def require_file(path: Path) -> None:
    """Refuses what is no file, before anything else is looked for."""
    if not path.is_file():
        raise CheckpointError(f"no checkpoint file {path}; give the file itself, not its folder")


def _reason(error: Exception) -> str:
    """What went wrong and what to do; torch advises `weights_only=False`, which runs the file."""
    text = str(error).strip()
    if isinstance(error, AssertionError | struct.error | zlib.error | EOFError):
        return (
            f"it is damaged, cut off or no checkpoint ({text or type(error).__name__}). Copy or "
            "download it again"
        )
    what = (text or type(error).__name__).splitlines()[0]
    if "weights_only" in text:
        match = re.search(r"Unsupported (?:global|class)[^\n]*?(?=\. |\s+was not|\n|$)", text)
        what = match[0] if match else "not a file of torch.save, or one of other objects"
    return (
        f"{what}. vtr runs no code from checkpoints: a file that holds other objects than tensors "
        "must be saved again as a plain state dict"
    )


def _read(path: Path, stand_ins: Mapping[str, Callable[..., Any]]) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    with path.open("rb") as file:
        start = file.read(9)
    if path.suffix == ".safetensors" or start[8:] == b"{":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise CheckpointError(f"{path} is not a whole safetensors file: {error}") from None
    if not start.startswith((b"PK", b"\x80")):
        raise CheckpointError(
            f"{path} cannot be read as tensors: it is no checkpoint (it begins with {start!r}); "
            "needed is a file of torch.save, a safetensors file or a TorchScript archive. Look "
            "what it is, or download it again"
        )
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            _check_members(archive, path.stat().st_size)
            for name in archive.namelist():
                if name.endswith("data.pkl"):
                    require_light_keys(archive.read(name))
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                return dict(_ScriptArchive(archive).tensors())
    names: list[Any] = [(function, name) for name, function in stand_ins.items()]
    with warnings.catch_warnings(), torch.serialization.safe_globals(names):
        # It warns of unusual pickles; what it cannot read it refuses anyway.
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True)


def _check_members(archive: zipfile.ZipFile, size: int) -> None:
    """Refuses an archive that grows when it is read: torch compresses nothing but code."""
    total = 0
    for info in archive.infolist():
        total += info.file_size
        if info.compress_type != zipfile.ZIP_STORED and "/code/" not in info.filename:
            raise CheckpointError(
                f"{archive.filename}: {info.filename} is compressed, which torch never does"
            )
    if total > size + _MOST_CODE_BYTES:
        raise CheckpointError(
            f"{archive.filename} has {size:,} bytes, its members claim {total:,}: it is damaged "
            "or made to fill the memory. Download it again from where you trust it"
        )


def _unwrapped(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the weights within what a training loop saved."""
    for _ in range(_MOST_WRAPPERS):
        inner = [state[name] for name in WRAPPERS if isinstance(state.get(name), Mapping)]
        if not inner:
            break
        state = inner[0]
    return state


def _check_bytes(path: Path, tensors: Iterable[Tensor | np.ndarray[Any, Any]]) -> None:
    """Refuses a small file whose many tensors are all views of the same bytes."""
    total = sum(tensor.nbytes for tensor in tensors)
    size = path.stat().st_size
    if total > _MOST_SHARED * size:
        raise CheckpointError(f"{path}: its tensors claim {total:,} bytes, the file has {size:,}")


def _plain(path: Path, name: Any, value: Any) -> Tensor:
    if not isinstance(name, str) or not isinstance(value, Tensor):
        # Not repr: that of an unknown object can be as long as its maker likes.
        what = repr(name[:80]) if isinstance(name, str) else f"a name of type {type(name).__name__}"
        raise CheckpointError(
            f"{path}: {what} is of type {type(value).__name__}; a state dict holds tensors only. "
            f"Of whole training states the weights are read where they lie under "
            f"{', '.join(WRAPPERS)}; an optimiser's file holds none"
        )
    tensor = value.detach()
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        raise CheckpointError(f"{path}: {name} is not an ordinary dense tensor")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise CheckpointError(f"{path}: {name} claims {tensor.numel()} values, the file has fewer")
    return tensor.contiguous()


class _Holder:
    """What stands for an object of the archive: its attributes, and what class it had."""

    qualified_name = ""


class _ScriptArchive:
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise CheckpointError(f"{archive.filename}: {len(pickles)} files data.pkl, need one")
        self._root = pickles[0].removesuffix("data.pkl")
        self._storages: dict[tuple[str, torch.dtype], Tensor] = {}
        self._modules = 0
        self._state_names = self._declared_state()

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        if self._root + "byteorder" in self._archive.namelist():
            order = self._member("byteorder")
            if order != b"little":
                raise CheckpointError(f"byte order {order!r} is not supported, only little")
        with self._archive.open(self._root + "data.pkl") as file:
            root = _ScriptUnpickler(file, self._storage).load()
        if not isinstance(root, _Holder):
            raise CheckpointError(f"data.pkl holds a {type(root).__name__}, not a module")
        yield from self._walk(root, "", depth=0)

    def _walk(self, module: _Holder, prefix: str, *, depth: int) -> Iterator[tuple[str, Tensor]]:
        self._modules += 1  # one that is shared counts wherever it is met: 2 ** depth times
        if depth > 64 or self._modules > _MOST_MODULES:
            raise CheckpointError(
                f"{self._archive.filename}: its modules are nested without end, at {prefix[:80]}"
            )
        # Plain tensor attributes (masks, say) are pickled too, but are not in a state dict.
        declared = self._state_names.get(type(module).qualified_name)
        for name, value in vars(module).items():
            if isinstance(value, _Holder):
                yield from self._walk(value, f"{prefix}{name}.", depth=depth + 1)
            elif isinstance(value, Tensor) and (declared is None or name in declared):
                yield f"{prefix}{name}", value

    def _storage(self, key: str, dtype: torch.dtype) -> Tensor:
        """Returns all values of one storage, (n,)."""
        if (key, dtype) not in self._storages:
            payload = bytearray(self._member(f"data/{key}"))
            values = torch.frombuffer(payload, dtype=dtype) if payload else torch.empty(0)
            self._storages[key, dtype] = values.to(dtype)
        return self._storages[key, dtype]

    def _member(self, name: str) -> bytes:
        return self._archive.read(self._root + name)

    def _declared_state(self) -> dict[str, frozenset[str]]:
        """Returns class name to the names of its parameters and buffers, from the code's text.

        Classes of old versions, which list no buffers, are left out.
        """
        declared = {}
        code = self._root + "code/"
        for name in self._archive.namelist():
            if not (name.startswith(code) and name.endswith(".py")):
                continue
            module = name.removeprefix(code).removesuffix(".py").replace("/", ".")
            text = self._archive.read(name).decode("utf-8", "replace")
            for block in re.split(r"^class ", text, flags=re.MULTILINE)[1:]:
                names = _declared_names(block)
                if names is not None:
                    declared[f"{module}.{re.split('[^A-Za-z0-9_]', block)[0]}"] = names
        return declared


def _declared_names(block: str) -> frozenset[str] | None:
    """The parameters and buffers that one class of an archive's code lists."""
    names: list[str] = []
    for kind in ("parameters", "buffers"):
        match = re.search(rf"^  __{kind}__ = \[(.*?)\]", block, flags=re.MULTILINE)
        if match is None:
            return None
        names += re.findall(r'"(\w+)"', match[1])
    return frozenset(names)


class _ScriptUnpickler(pickle.Unpickler):
    """Knows tensors, lists and holders; any other name in the pickle is an error.

    What it hands to the pickle machine is made anew for each file: whatever a pickle does to those
    objects ends with it.
    """

    def __init__(self, file: IO[bytes], storage: Callable[[str, torch.dtype], Tensor]) -> None:
        super().__init__(file)
        self._storage = storage
        self._classes: dict[str, type[_Holder]] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Returns a harmless stand-in for a name, or refuses it."""
        if module == "__torch__" or module.startswith("__torch__."):
            full = f"{module}.{name}"
            if full not in self._classes:
                self._classes[full] = type("Holder", (_Holder,), {"qualified_name": full})
            return self._classes[full]
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        stand_ins: dict[tuple[str, str], Callable[..., Any]] = {
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
            ("collections", "OrderedDict"): dict,
            ("torch.jit._pickle", "restore_type_tag"): lambda value, _: value,
            **{
                ("torch.jit._pickle", f"build_{kind}list"): lambda values: values
                for kind in ("int", "tensor", "double", "bool")
            },
        }
        if (module, name) not in stand_ins:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no tensor")
        # A fresh function object each time, also for the one defined below.
        target = stand_ins[module, name]
        return lambda *arguments: target(*arguments)

    def persistent_load(self, pid: Any) -> Tensor:
        kind, dtype, key, _, _ = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not isinstance(key, str):
            raise pickle.UnpicklingError(f"unknown kind of stored object {kind!r}")
        return self._storage(key, dtype)


def _rebuild_tensor(storage: Tensor, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    """Returns a view of a storage; torch refuses one that leaves it."""
    if not isinstance(storage, Tensor):
        raise pickle.UnpicklingError("a tensor without a storage")
    return storage.as_strided(tuple(size), tuple(stride), offset)
