"""torch's antialiased resize without Python's torch: through the stable C interface of its library.

`import torch` takes a second of CPU and 70 MB, which a process that only decodes and resizes has
no other use for; the library alone loads in 0.2 s, and a call takes half the time. The functions
are of torch/csrc/stable/c/shim.h and torch/csrc/inductor/aoti_torch/c/shim.h @ v2.10, which later
versions keep. The pixels are those of `torch.nn.functional.interpolate`: it is the same operator.
"""

from __future__ import annotations

import ctypes
import importlib.util
from ctypes import POINTER, byref, c_int32, c_int64, c_size_t, c_uint64, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_VERSION = (2 << 56) | (10 << 48)  # Of the operators' signatures as called here: 2.10
_Four = c_int64 * 4
_ARGUMENTS: dict[str, list[Any]] = {
    "aoti_torch_dtype_uint8": [],
    "aoti_torch_device_type_cpu": [],
    "aoti_torch_create_tensor_from_blob": [
        c_void_p, c_int64, _Four, _Four, c_int64, c_int32, c_int32, c_int32, c_void_p
    ],
    "torch_new_list_reserve_size": [c_size_t, c_void_p],
    "torch_list_push_back": [c_void_p, c_uint64],
    "torch_call_dispatcher": [ctypes.c_char_p, ctypes.c_char_p, c_void_p, c_uint64],
    "aoti_torch_get_data_ptr": [c_void_p, c_void_p],
    "aoti_torch_get_strides": [c_void_p, c_void_p],
    "aoti_torch_delete_tensor_object": [c_void_p],
}  # fmt: skip
"""The functions in use; each returns an int32, and those that can fail 0 where they did not."""


@cache
def library() -> ctypes.CDLL | None:
    """Returns torch's library; None where it is not laid out as on Linux, or lacks a function."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return None
    try:
        held = ctypes.CDLL(str(Path(found.origin).parent / "lib" / "libtorch_cpu.so"))
        for name, arguments in _ARGUMENTS.items():
            getattr(held, name).argtypes = arguments
            getattr(held, name).restype = c_int32
    except (OSError, AttributeError):
        return None
    return held


def resize(
    held: ctypes.CDLL, picture: NDArray[np.uint8], size: tuple[int, int], *, resample: str
) -> NDArray[np.uint8]:
    """Returns a picture (H, W, 3), contiguous, at another size (h, w, 3): a view, to be copied.

    Raises:
        MemoryError: torch refused, which with sound arguments has no other cause.
    """
    height, width, _ = picture.shape
    channels_last = _Four(1, 3, height, width), _Four(height * width * 3, 1, width * 3, 3)
    kind, device = held.aoti_torch_dtype_uint8(), held.aoti_torch_device_type_cpu()
    source, sizes = c_void_p(), c_void_p()
    data = c_void_p(picture.ctypes.data)
    _must(
        held.aoti_torch_create_tensor_from_blob(
            data, 4, *channels_last, 0, kind, device, 0, byref(source)
        )
    )
    _must(held.torch_new_list_reserve_size(2, byref(sizes)))
    for side in size:
        _must(held.torch_list_push_back(sizes, side))
    # self, output_size, align_corners, scales_h, scales_w: it takes all that it is given, and
    # leaves its answer in the first place.
    stack = (c_uint64 * 5)(source.value or 0, sizes.value or 0, 0, 0, 0)
    operator = f"aten::_upsample_{resample}2d_aa".encode()
    _must(held.torch_call_dispatcher(operator, b"", stack, _VERSION))
    return np.asarray(_Resized(held, stack[0], size))


class _Resized:
    """A tensor (1, 3, h, w) of bytes that lives as long as any array, (h, w, 3), of them."""

    def __init__(self, held: ctypes.CDLL, handle: int, size: tuple[int, int]) -> None:
        self._library, self._handle = held, c_void_p(handle)
        strides, data = POINTER(c_int64)(), c_void_p()
        _must(held.aoti_torch_get_strides(self._handle, byref(strides)))
        _must(held.aoti_torch_get_data_ptr(self._handle, byref(data)))
        self.__array_interface__ = {
            "version": 3,
            "typestr": "|u1",
            "shape": (*size, 3),
            "data": (data.value, True),
            "strides": (strides[2], strides[3], strides[1]),
        }

    def __del__(self) -> None:
        self._library.aoti_torch_delete_tensor_object(self._handle)


def _must(status: int) -> None:
    if status:
        raise MemoryError("torch could not resize a picture")
