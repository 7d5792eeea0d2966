"""The options of `vtr export`."""

from __future__ import annotations

from vtr.settings import Settings, option


class Options(Settings):
    """What the folder holds beside the run and its card."""

    onnx: bool = option(False, "Also the text side as text.onnx; needs the extra vtr[onnx].")
    reference: bool = option(
        False,
        "Also pytorch_model.bin for CLIP4Clip's own code, with its optimiser's state where the "
        "run was trained with it.",
    )
