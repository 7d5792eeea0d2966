"""`vtr features import`: a store from features that somebody else extracted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vtr.features.importing import ImportReport, import_arrays
from vtr.files import publish
from vtr.foreign import escape_undecodable
from vtr.settings import resolved
from vtr.verbs.features import Options

CONFIG_FILE = "import.json"
"""In the store: the options that it was made with."""


def import_features(source: Path, store: Path, options: Options) -> ImportReport:
    """Makes a store of arrays named by video, files of torch too; see `import_arrays`."""
    name, fps, dim = options.name, options.fps, options.dim
    report = import_arrays(source, store, name=name, fps=fps, dim=dim, tensors=read_torch)
    used = {"source": escape_undecodable(str(source)), "dim": report.dim}
    publish(store / CONFIG_FILE, resolved(options, **used))
    return report


def read_torch(path: Path) -> dict[str, Any]:
    """Reads the tensors of a file of torch as arrays; torch is loaded for the first such file."""
    import torch

    from vtr.clip.checkpoint_files import read_tensors

    tensors = read_tensors(path, lone="")
    return {
        name: (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
        for name, tensor in tensors.items()
    }
