"""`vtr features import`: a store from features that somebody else extracted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vtr.features.importing import ImportReport, import_arrays
from vtr.verbs.features import Options


def import_features(source: Path, store: Path, options: Options) -> ImportReport:
    """Makes a store of arrays named by video, files of torch too; see `import_arrays`."""
    name, fps, dim = options.name, options.fps, options.dim
    return import_arrays(source, store, name=name, fps=fps, dim=dim, tensors=read_torch)


def read_torch(path: Path) -> dict[str, Any]:
    """Reads the tensors of a file of torch as arrays; torch is loaded for the first such file."""
    import torch

    from vtr.clip.checkpoint_files import read_tensors

    tensors = read_tensors(path, lone="")
    return {
        name: (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
        for name, tensor in tensors.items()
    }
