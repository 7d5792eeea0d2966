"""The text side of a run as one ONNX graph: token ids in, the vector that the head compares out.

Needs the extra `vtr[onnx]`. The graph is checked against torch with onnxruntime before it is kept.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vtr.clip.backbone import Backbone
from vtr.clip.engines import write_onnx
from vtr.errors import CheckpointError
from vtr.extras import require_extra
from vtr.train.heads.base import TextBatch
from vtr.train.model import RetrievalModel
from vtr.train.text_tower import FrozenText, TunedText
from vtr.train.towers import merged

GRAPH = "text.onnx"
OUTPUT = "text_vector"
TOLERANCE = 1e-4
_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
# Two texts of unequal length: what a graph with frozen sizes would get wrong.
_EXAMPLES = (("a man is cooking", "two"), ("a", "a dog runs over the field", "b"))


class _TextSide(nn.Module):
    """Ids to pooled vectors."""

    def __init__(self, backbone: Backbone, model: RetrievalModel) -> None:
        super().__init__()
        self.text, self.tower = backbone.model.text, model.text_tower
        if isinstance(self.tower, TunedText):
            self.text, self.tower = merged(model, backbone).model.text, FrozenText()

    def forward(self, input_ids: Tensor) -> Tensor:
        """Returns (B, D) float32 from (B, L) int64."""
        result: Tensor = self.tower(TextBatch(self.text(input_ids))).pooled
        return result


def require_onnx() -> None:
    """Refuses to begin without the packages of the extra."""
    require_extra("onnx", _PACKAGES, "ONNX", instead=", or export without --onnx")


def export_text_side(backbone: Backbone, model: RetrievalModel, path: Path) -> float:
    """Writes the graph: `input_ids` (batch, length) int64 -> `text_vector` (batch, D) float32.

    Ids are those of the tokeniser: start token, words, end token, then padding. The embedding is
    not normalised. The backbone is in float32 on the CPU.

    Returns:
        The largest difference from torch over batches of other sizes than that of the export.
    """
    require_onnx()
    backbone.require_towers("--onnx")
    module = _TextSide(backbone, model).eval()
    batches = [backbone.tokeniser.pad(backbone.tokeniser.encode(t).ids) for t in _EXAMPLES]
    ids = torch.from_numpy(batches[0])
    length = torch.export.Dim("length", min=2, max=backbone.tokeniser.max_length)
    sizes = (torch.export.Dim("batch", min=1), length)
    write_onnx(module, ids, path, names=("input_ids", OUTPUT), sizes=sizes)
    difference = max(_difference(module, path, batch) for batch in batches)
    if not difference <= TOLERANCE:
        path.unlink()
        raise CheckpointError(
            f"the ONNX graph differs from torch by {difference:.3g}, more than {TOLERANCE:g}; it "
            "was removed. Another version of torch or onnxscript may do better"
        )
    return difference


def _difference(module: nn.Module, path: Path, ids: np.ndarray) -> float:
    runtime: Any = import_module("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = session.run([OUTPUT], {"input_ids": ids})
    with torch.inference_mode():
        expected = module(torch.from_numpy(ids)).numpy()
    return float(np.abs(found - expected).max())
