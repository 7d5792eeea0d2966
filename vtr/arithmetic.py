"""The process: two settings that tensor work needs, one for very many rows, and its cores."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def prepare_arithmetic() -> None:
    """Readies the process for tensor work; call before torch is imported.

    Two defaults of the platform cost much and change no result:

    - The arithmetic library's threads spin at barriers, and take time from the decoders they wait
      for. Threads that sleep at once make small training steps take twice as long (measured with
      2 threads on 2 cores). Spinning for about 0.1 ms serves both.
    - Tensors of some megabytes are given back to the system and mapped anew at every use, page by
      page (measured: a quarter of a training step of 2,540 captions, a sixth of embedding with
      ViT-B/32). The C library is told to keep up to 512 MB for the next one.

    What the user has set stands, and other C libraries than glibc stay as they are.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the largest that glibc takes
        mallopt(_M_TRIM_THRESHOLD, 512 << 20)


def usable_cores() -> int:
    """Returns the number of cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def uncollected() -> Iterator[None]:
    """Builds very many objects, in no cycles, without the collector walking through all of them.

    Of a million rows it took a third of the time, of importing torch a tenth (measured), and found
    nothing.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.freeze()
            gc.unfreeze()  # they are old at once: else the next collection walks through them all
            gc.enable()
