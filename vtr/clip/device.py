"""Which devices models run on; the one place that says so.

Apple's GPUs (mps) are not among them: nothing here was ever run on one, and they compute no
float64, which scores and losses use.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vtr.errors import ConfigError, UnknownNameError

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda", "cuda:1")


def check_device_name(name: str) -> str:
    """Returns the name; refuses what can be no device, before torch is imported."""
    if name.partition(":")[0] == "mps":
        raise ConfigError(
            f"device {name!r} is not supported: vtr was never run on Apple's GPUs. Use cpu, which "
            "is what auto takes there"
        )
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", name):
        raise UnknownNameError("device", name, DEVICES)
    return name


def find_device(name: str) -> torch.device:
    """Returns a device of this machine; "auto" is a GPU if there is one."""
    import torch

    check_device_name(name)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ConfigError(f"device {name!r} asked for, but this machine has {count} GPUs")
    return device
