"""The options of `vtr export`."""

from __future__ import annotations

from vtr.settings import Settings, option


class Options(Settings):
    """What the folder holds beside the run and its card."""

    onnx: bool = option(False, "Also the text side as text.onnx; needs the extra vtr[onnx].")
