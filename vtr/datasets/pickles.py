"""Pickled captions, read without ever building an object or calling a function.

MSVD's `raw-captions.pkl` is a pickle, and a pickle is a program. This reader can make numbers,
texts, lists, tuples and dictionaries; the first thing that asks for more ends the reading.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any, NoReturn

from vtr.errors import DatasetError
from vtr.foreign import printable
from vtr.pickled import require_light_keys

_MOST_BYTES = 1 << 30  # MSVD's, the largest that is published, has 5 MB

# What a damaged or hostile stream makes the interpreter of opcodes raise.
_BROKEN = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    TypeError,
    ValueError,
)


class _ForbiddenError(Exception):
    """The stream asks for something that is not plain data."""


class _PlainUnpickler(pickle.Unpickler):
    """Refuses the two doors through which a pickle reaches code."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise _ForbiddenError(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise _ForbiddenError(f"the outside object {pid!r:.60}")


def read_plain_pickle(path: Path) -> Any:
    """Returns the plain data in a pickle.

    Args:
        path: The file; texts of Python 2 must be UTF-8.

    Raises:
        DatasetError: It asks for anything but plain data (nothing of it is run), or is damaged.
    """
    try:
        size = path.stat().st_size
        if size > _MOST_BYTES:
            raise DatasetError(f"{printable(str(path))} has {size:,} bytes: too many for captions")
        stream = io.BytesIO(path.read_bytes())
    except OSError as error:
        raise DatasetError(
            f"cannot read {printable(str(path))}: {error.strerror or error}"
        ) from None
    try:
        require_light_keys(stream.getvalue())
        return _PlainUnpickler(stream, encoding="utf-8").load()
    except _ForbiddenError as error:
        raise DatasetError(
            f"{printable(str(path))} wants to build {printable(str(error))}, which captions do "
            "not need; nothing of it was run. Only pickles of dictionaries, lists, tuples, texts "
            "and numbers are read: convert it to JSON, or distrust it"
        ) from None
    except _BROKEN as error:
        raise DatasetError(
            f"{printable(str(path))} is no whole pickle ({type(error).__name__}: {error})"
        ) from None
