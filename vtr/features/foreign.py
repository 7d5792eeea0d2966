"""Arrays in files of others, read without running what is in them or believing their headers."""

from __future__ import annotations

import io
import math
import os
import pickle
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from vtr.errors import VtrError
from vtr.files import open_regular
from vtr.foreign import first_line
from vtr.pickled import require_light_keys

Array = NDArray[Any]
TensorReader = Callable[[Path], Any]
"""Reads what torch saved, with arrays for tensors: this package imports no torch."""

EXTENSIONS = (".h5", ".hdf5", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth", ".safetensors")
MOST_BYTES = 1 << 30
"""Of one array: a day of video at one frame per second has 86,400 rows, 0.4 GB at D = 1280."""
NO_ARRAY = "not-an-array: a "
_DEEPEST_GROUP = 8
_MOST_SHARED = 4  # views of the same bytes, or one array under several names
_LEAST_ENTRY = 8

# Of what damaged files raise; RuntimeError is an encrypted zip member, KeyError a lost HDF5 object.
BROKEN = (
    ArithmeticError, AttributeError, EOFError, KeyError, MemoryError, NotImplementedError, OSError,
    RuntimeError, SyntaxError, TypeError, ValueError, pickle.UnpicklingError, struct.error,
    tokenize.TokenError, zipfile.BadZipFile, zlib.error, VtrError,
)  # fmt: skip


class UnusableError(Exception):
    """An array, or a file, that cannot be used; the text is "class: detail" of a ledger row."""


def read_arrays(path: Path, *, tensors: TensorReader) -> Iterator[tuple[str, Array | str]]:
    """Yields what a file holds, one array at a time: its name, and the array or why it is unusable.

    The name is that within the file, "" where the file is one array.

    The file ends in one of `EXTENSIONS`, in capitals too; `tensors` reads those of torch.

    Raises:
        UnusableError: The file as a whole cannot be used.
    """
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            yield from _READERS.get(path.suffix.lower(), _torch)(file, path, tensors)
    except UnusableError:
        raise
    except OSError as error:
        kind = "not-a-file" if error.strerror == "not a regular file" else "not-an-array"
        raise UnusableError(f"{kind}: {error.strerror or first_line(error)[:200]}") from None
    except BROKEN as error:
        raise UnusableError(f"not-an-array: {first_line(error)[:200]}") from None


def _npy(file: IO[bytes], path: Path, _: TensorReader) -> Iterator[tuple[str, Array | str]]:
    yield "", read_npy(file, path.stat().st_size)


def read_npy(file: IO[bytes], size: int) -> Array:
    """Reads one array whose header must not promise more than there is."""
    start = file.read(8)
    if len(start) < 8 or not start.startswith(np.lib.format.MAGIC_PREFIX):
        what = "a zip archive; name it .npz" if start[:2] == b"PK" else "no .npy file"
        raise UnusableError(f"not-an-array: {what}")
    formats = np.lib.format
    readers = {1: formats.read_array_header_1_0, 2: formats.read_array_header_2_0}
    read_header = readers.get(start[6])
    if read_header is None:
        raise UnusableError(f"not-an-array: .npy of version {start[6]}")
    shape, fortran, dtype = read_header(file)
    _require_numbers(dtype)
    _require_size(shape, dtype, size - file.tell())
    content = file.read(math.prod(shape) * dtype.itemsize)
    array = np.frombuffer(content, dtype)
    return array.reshape(shape[::-1]).T if fortran else array.reshape(shape)


def _require_numbers(dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "iuf":
        what = "Python objects, which only running code could read" if dtype.hasobject else dtype
        raise UnusableError(f"not-an-array: it holds {what}, not numbers")


def _require_size(shape: tuple[int, ...], dtype: np.dtype[Any], there: int) -> None:
    size = math.prod(shape) * dtype.itemsize
    if size > MOST_BYTES:
        raise UnusableError(f"too-large: {size:,} bytes; allowed: {MOST_BYTES:,} per array")
    if min(shape, default=0) < 0 or size > there:
        raise UnusableError(f"not-an-array: {dtype} {shape} needs {size:,} bytes, it has {there:,}")


def _npz(file: IO[bytes], _: Path, __: TensorReader) -> Iterator[tuple[str, Array | str]]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            try:
                with archive.open(info) as member:
                    array: Array | str = read_npy(member, info.file_size)
            except UnusableError as error:
                array = str(error)
            yield info.filename.removesuffix(".npy"), array


def _hdf5(_: IO[bytes], path: Path, __: TensorReader) -> Iterator[tuple[str, Array | str]]:
    with h5py.File(path, "r", locking=False) as file:
        yield from _group(file, "", _DEEPEST_GROUP)


def _group(group: h5py.Group, prefix: str, deeper: int) -> Iterator[tuple[str, Array | str]]:
    for name in group:
        hard = isinstance(group.get(name, getlink=True), h5py.HardLink)
        inner = group.get(name) if hard else None
        if isinstance(inner, h5py.Group) and deeper:
            yield from _group(inner, f"{prefix}{name}/", deeper - 1)
            continue
        try:
            yield f"{prefix}{name}", _dataset(inner)
        except UnusableError as error:
            yield f"{prefix}{name}", str(error)


def _dataset(dataset: Any) -> Array:
    if not isinstance(dataset, h5py.Dataset):
        raise UnusableError("not-an-array: a link to elsewhere, or a group too deep")
    if dataset.is_virtual or dataset.external:
        raise UnusableError("not-an-array: its values lie in another file")
    _require_numbers(dataset.dtype)
    _require_size(dataset.shape or (), dataset.dtype, MOST_BYTES)
    array: Array = dataset[()]
    return np.asarray(array)


class _PickledType:
    """What a pickle says of an array's type; numpy's own would let the pickle change it."""

    def __init__(self, text: Any, *_: Any) -> None:
        self.dtype = np.dtype(str(text))
        _require_numbers(self.dtype)

    def __setstate__(self, state: Any) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _PickledArray:
    """An array in a pickle, as plain values."""

    def __init__(self, *_: Any) -> None:
        self.array: Array = np.zeros(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, content = state
        self.array = _from_buffer(content, kind, shape, "F" if fortran else "C").array


def _from_buffer(content: Any, kind: Any, shape: Any, order: Any) -> _PickledArray:
    held = _PickledArray()
    held.array = np.frombuffer(content, kind.dtype).reshape(shape, order=order)
    return held


def _latin(text: Any, _: Any = None) -> bytes:
    return str(text).encode("latin1")


_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")
_PICKLED = {
    ("numpy", "ndarray"): _PickledArray,
    ("numpy", "dtype"): _PickledType,
    ("_codecs", "encode"): _latin,
    ("collections", "OrderedDict"): dict,
    ("collections", "defaultdict"): lambda *_: {},
    ("builtins", "list"): list,  # the default of a defaultdict
    ("__builtin__", "list"): list,
    **dict.fromkeys([(module, "_reconstruct") for module in _MULTIARRAY], _PickledArray),
    **dict.fromkeys([(module, "_frombuffer") for module in _NUMERIC], _from_buffer),
}


STAND_INS: dict[str, Any] = {f"{module}.{name}": made for (module, name), made in _PICKLED.items()
             if module.startswith("numpy")}  # fmt: skip
"""By its name in a pickle: what is called for a part of an array."""


class _ArrayUnpickler(pickle.Unpickler):
    """Knows arrays of numbers; any other name in the pickle ends the reading."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _PICKLED:
            raise UnusableError(f"not-an-array: it wants {module}.{name}, which is not run")
        return _PICKLED[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise UnusableError(f"not-an-array: it wants the outside object {pid!r:.60}")


def _pickle(file: IO[bytes], path: Path, _: TensorReader) -> Iterator[tuple[str, Array | str]]:
    size = path.stat().st_size
    _require_size((size,), np.dtype(np.uint8), MOST_BYTES)
    program = file.read(size)
    require_light_keys(program)
    yield from _named(_ArrayUnpickler(io.BytesIO(program)).load(), len(program))


def _named(content: Any, size: int) -> Iterator[tuple[str, Array | str]]:
    """Yields what is in nested dictionaries of a file of so many bytes; one alone is called ""."""
    alone = content if isinstance(content, dict) else {"": content}
    if alone is not content and isinstance(reason := _as_array(content), str):
        raise UnusableError(reason.replace("a ", "it holds a ", 1))
    claimed = 0
    for name, array in _entries(alone, "", _DEEPEST_GROUP):
        claimed += _LEAST_ENTRY if isinstance(array, str) else max(_LEAST_ENTRY, array.nbytes)
        if claimed > _MOST_SHARED * size:
            raise UnusableError(f"too-large: {claimed:,} bytes of arrays in a file of {size:,}")
        yield name, array


def _entries(
    content: Mapping[Any, Any], prefix: str, deeper: int
) -> Iterator[tuple[str, Array | str]]:
    for key, value in content.items():
        name = prefix + (key.decode(errors="replace") if isinstance(key, bytes) else str(key))
        if isinstance(value, dict) and value and deeper:
            yield from _entries(value, f"{name}/", deeper - 1)
        else:
            yield name, _as_array(value)


def _as_array(value: Any) -> Array | str:
    """Returns an array, a number as one without axes, a list of alike rows as one of them all."""
    if isinstance(value, list) and value:
        rows = [row.array if isinstance(row, _PickledArray) else row for row in value]
        if all(isinstance(row, np.ndarray) and row.shape == rows[0].shape for row in rows):
            size = sum(row.nbytes for row in rows)
            return np.stack(rows) if size <= MOST_BYTES else f"too-large: {size:,} bytes"
    if isinstance(value, int | float):
        return np.asarray(value)
    if isinstance(value, Exception):
        return f"not-an-array: {value}"
    array = value.array if isinstance(value, _PickledArray) else value
    if isinstance(array, np.ndarray):
        return array if array.dtype.kind in "iuf" else f"not-an-array: it holds {array.dtype}"
    return f"{NO_ARRAY}{type(value).__name__}"


def _torch(_: IO[bytes], path: Path, tensors: TensorReader) -> Iterator[tuple[str, Array | str]]:
    _require_size((path.stat().st_size,), np.dtype(np.uint8), MOST_BYTES)
    yield from _named(tensors(path), path.stat().st_size)


_READERS = {
    ".npy": _npy, ".npz": _npz, ".h5": _hdf5, ".hdf5": _hdf5, ".pkl": _pickle, ".pickle": _pickle
}  # fmt: skip
