"""Which devices and engines models run on; the one place that says so.

Apple's GPUs (mps) are not among them: nothing here was ever run on one, and they compute no
float64, which scores and losses use.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, get_args

from vtr.errors import ConfigError, UnknownNameError
from vtr.extras import require_extra

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda", "cuda:1")
DTypeName = Literal["float32", "float16", "bfloat16", "int8"]
EngineName = Literal["torch", "compile", "onnx", "openvino"]
# What each needs, and the package whose version its numbers depend on, first.
ENGINES: dict[str, tuple[str, ...]] = {
    "torch": (),
    "compile": (),
    "onnx": ("onnxruntime", "onnx", "onnxscript"),
    "openvino": ("openvino",),
}


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


def runs_on_cpu(engine: str) -> bool:
    """Returns whether an engine is none of torch's: those run on the CPU alone here."""
    return bool(ENGINES[engine])


def check_engine(engine: str, dtype: str, device: str) -> None:
    """Refuses what cannot run together or is not installed, before torch is imported."""
    for kind, name, known in (("engine", engine, ENGINES), ("dtype", dtype, get_args(DTypeName))):
        if name not in known:
            raise ConfigError(f"no {kind} {name!r}; allowed: {', '.join(known)}")
    if not runs_on_cpu(engine):
        if dtype == "int8":
            raise ConfigError(
                f"engine {engine} does not compute in int8: torch was no faster so. Use --engine "
                "openvino, or onnx"
            )
        return
    if dtype not in ("float32", "int8"):
        raise ConfigError(f"engine {engine} computes in float32 or int8, not in {dtype}")
    if device.startswith("cuda"):
        raise ConfigError(
            f"engine {engine} runs on the CPU here, not on {device}; leave --device out, or "
            "--engine"
        )
    require_extra(engine, ENGINES[engine], f"engine {engine}")


def find_devices(name: str, *, num_gpus: int | None = None) -> list[str]:
    """Returns the devices that a run may use at once: "cuda" is every GPU, "cuda:1" one.

    "auto" is every GPU if there is one; those of this machine are counted unless given.
    """
    if num_gpus is None:
        import torch

        num_gpus = torch.cuda.device_count()
    check_device_name(name)
    if name == "auto":
        name = "cuda" if num_gpus else "cpu"
    kind, _, index = name.partition(":")
    if kind == "cuda" and int(index or 0) >= num_gpus:
        raise ConfigError(f"device {name!r} asked for, but this machine has {num_gpus} GPUs")
    return [f"cuda:{i}" for i in range(num_gpus)] if name == "cuda" else [name]


def find_device(name: str) -> torch.device:
    """Returns a device of this machine; "auto" is a GPU if there is one."""
    import torch

    found = find_devices(name)[0]
    return torch.device("cuda" if name in ("auto", "cuda") and found != "cpu" else found)
