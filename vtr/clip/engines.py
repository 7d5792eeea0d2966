"""Other ways than torch of running a vision tower: compiled, by ONNX Runtime, by OpenVINO.

In int8 both weights and what they are multiplied with are whole numbers of 8 bits; sums, norms,
softmax and what lies between stay in float32. Weights are rounded once, by their largest entry per
output; activations while they come, by OpenVINO in groups of 128 of a token, by ONNX Runtime by the
largest of all that it is given, so that it is given one picture at a time: no embedding depends on
what else is in its batch.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vtr.clip.towers import VisionTower
from vtr.errors import ConfigError, ModelError
from vtr.foreign import first_line

Run = Callable[[Tensor], Tensor]
_GROUP = "128"


@dataclass(frozen=True)
class Engine:
    """What runs the vision tower instead of torch."""

    name: str  # "compile", "onnx" or "openvino"
    compute_dtype: str  # What it computes in: "float32", "int8", ...
    run: Run  # (B, 3, h, w) pixels, normalised, to (B, D) on the CPU or where they were


def make_engine(name: str, dtype: str, visual: nn.Module) -> Engine:
    """Prepares a tower that is in its device and type for the first batch.

    Raises:
        ModelError: The tower sees neighbouring frames, or is not one of our own.
        ConfigError: The engine cannot be had here.
    """
    if not isinstance(visual, VisionTower) or visual.temporal:
        raise ModelError(
            f"--engine {name} runs the towers of CLIP, SigLIP and open_clip, one frame at a time; "
            "this one is computed by transformers, or has patches of three frames (linear_patch "
            "3d). Leave --engine out"
        )
    makers = {"compile": _compiled, "onnx": _onnx, "openvino": _openvino}
    with torch.no_grad(), quiet():
        return Engine(name, dtype, makers[name](visual, whole_numbers=dtype == "int8"))


def write_onnx(
    module: nn.Module,
    example: Tensor,
    path: Path,
    *,
    names: tuple[str, str],
    sizes: Sequence[Any],
    external_data: bool = False,
) -> None:
    """Writes the graph of a module of one input and one output.

    Args:
        module: In evaluation mode.
        example: Its input.
        path: The graph.
        names: Of input and output; not "embedding": the exporter itself calls a value so.
        sizes: Of each axis of the input a `torch.export.Dim`, None where it is fixed.
        external_data: Weights beside the graph, which cannot hold more than 2 GB.
    """
    with quiet():
        torch.onnx.export(
            module,
            (example,),
            path,
            input_names=[names[0]],
            output_names=[names[1]],
            dynamic_shapes=({i: size for i, size in enumerate(sizes) if size is not None},),
            dynamo=True,
            external_data=external_data,
            verbose=False,
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Exporters tell of every package that they could use and do not find."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _blank(visual: VisionTower) -> Tensor:
    weight = next(visual.parameters())
    side = visual.image_size
    return torch.zeros(2, 3, side, side, dtype=weight.dtype, device=weight.device)


def _compiled(visual: VisionTower, *, whole_numbers: bool) -> Run:
    assert not whole_numbers
    compiled: Any = torch.compile(visual, dynamic=True)
    try:
        with torch.inference_mode():
            compiled(_blank(visual))
    except (RuntimeError, OSError) as error:
        raise ConfigError(
            f"--engine compile cannot compile the model here: {type(error).__name__}: "
            f"{first_line(error)}. It needs a C++ compiler such as g++; or leave --engine out"
        ) from None

    def run(pixels: Tensor) -> Tensor:
        with quiet():  # of shapes that are compiled anew
            made: Tensor = compiled(pixels)
        return made

    return run


def _onnx(visual: VisionTower, *, whole_numbers: bool) -> Run:
    runtime: Any = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    # Threads that wait by spinning take the cores from the decoders.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    with tempfile.TemporaryDirectory(prefix="vtr-onnx-") as folder:
        path = Path(folder) / "vision.onnx"
        batch = torch.export.Dim("batch", min=1)
        write_onnx(
            visual,
            _blank(visual),
            path,
            names=("pixels", "frame_vector"),
            sizes=[batch, None, None, None],
            external_data=True,
        )
        if whole_numbers:
            path = _quantised(path)
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(pixels: Tensor) -> Tensor:
        parts = list(pixels[:, None]) if whole_numbers else [pixels]
        made = [session.run(None, {"pixels": part.numpy()})[0] for part in parts]
        return torch.from_numpy(np.concatenate(made))

    return run


def _quantised(path: Path) -> Path:
    quantization: Any = import_module("onnxruntime.quantization")
    target = path.with_name("vision-int8.onnx")
    quantization.quantize_dynamic(
        str(path),
        str(target),
        op_types_to_quantize=["MatMul", "Gemm"],
        weight_type=quantization.QuantType.QInt8,
        use_external_data_format=True,
        extra_options={"MatMulConstBOnly": True},
    )
    return target


def _openvino(visual: VisionTower, *, whole_numbers: bool) -> Run:
    openvino: Any = import_module("openvino")
    # By hand what `openvino.convert_model` does, which also reports to its makers.
    decoder: Any = import_module("openvino.frontend.pytorch.ts_decoder")
    frontend = import_module("openvino.frontend").FrontEndManager().load_by_framework("pytorch")
    traced = decoder.TorchScriptPythonDecoder(visual, example_input=(_blank(visual),))
    model = frontend.convert(frontend.load(traced))
    model.reshape([-1, *_blank(visual).shape[1:]])
    if whole_numbers:
        _round_weights(model)
    how = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,  # else its threads wait for cores that decoders have
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": _GROUP if whole_numbers else "0",
    }
    compiled = openvino.Core().compile_model(model, "CPU", how)

    def run(pixels: Tensor) -> Tensor:
        return torch.from_numpy(compiled(pixels.numpy())[0].copy())

    return run


def _round_weights(model: Any) -> None:
    """Replaces the matrices of products by whole numbers and a factor for each output."""
    ops: Any = import_module("openvino.opset13")
    for node in model.get_ordered_ops():
        if node.get_type_name() != "MatMul":
            continue
        constant, turned = node.input_value(1).get_node(), node.get_attributes()["transpose_b"]
        if constant.get_type_name() != "Constant" or constant.get_data().ndim != 2:
            continue
        weights = constant.get_data() if turned else constant.get_data().T
        scale = np.abs(weights).max(axis=1, keepdims=True).astype(np.float32) / 127
        whole = np.rint(weights / np.maximum(scale, 1e-30)).astype(np.int8)
        again = ops.multiply(ops.convert(ops.constant(whole), "f32"), ops.constant(scale))
        node.output(0).replace(ops.matmul(node.input_value(0), again, False, True).output(0))
