"""Weights into a model, and everything that could be silently wrong with them.

transformers starts training from random values wherever a checkpoint does not fit, and says so in
a log line; two published papers were computed with the wrong activation (open_clip #771, #915).
Here each of these stops.
"""

from __future__ import annotations

import contextlib
import hashlib
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open

from vtr.clip.hub import ModelFolder
from vtr.clip.openai_names import BENIGN_HUGGINGFACE, TEMPORAL_WEIGHT, not_finite
from vtr.clip.temporal import make_temporal
from vtr.clip.text import text_family
from vtr.errors import CheckpointError
from vtr.files import read_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# What the owners of these repositories trained with.
_ACTIVATION_OF_OWNER = {"openai": "quick_gelu", "laion": "gelu"}


def read_config(folder: Path) -> dict[str, Any]:
    """Returns config.json.

    Raises:
        CheckpointError: Not a JSON object, or it names no model_type.
    """
    path = folder / "config.json"
    record = read_json(path, needed="a transformers model", error=CheckpointError)
    if not isinstance(record.get("model_type"), str):
        raise CheckpointError(f"{path} names no model_type: it is not a transformers model")
    return record


def load_model(found: ModelFolder) -> tuple[PreTrainedModel, str]:
    """Loads a dual encoder in float32 on the CPU and proves that it is whole.

    Args:
        found: The folder and what it is called.

    Returns:
        The model in evaluation mode and its family (a key of `vtr.clip.text.TEXT_RULES`).

    Raises:
        CheckpointError: A key is missing, unexpected or of another shape; a file is damaged; an
            activation contradicts the others or the weights' origin.
        ModelError: A family whose text rules are not known.
    """
    record = read_config(found.path)
    family = text_family(found.path, record["model_type"])
    model, report = _read_weights(found)
    temporal_weight = _take_temporal_weight(found, report)
    _check_keys(found, report)
    if temporal_weight is not None:
        make_temporal(model, temporal_weight)
    bad = [name for name, value in model.state_dict().items() if not_finite(value)]
    if bad:
        raise CheckpointError(
            f"{found.model_id}: the weights {', '.join(bad[:3])} ({len(bad)} in all) are NaN or "
            "infinite: the file is damaged. Get it anew"
        )
    check_activation(found, model.config, record)
    _check_dimensions(found, model.config)
    model.eval()
    model.requires_grad_(False)
    return model, family


def weights_digest(model: torch.nn.Module) -> str:
    """Returns the SHA-256 of the weights: names, dtypes, shapes and bytes, sorted by name.

    Taken in float32 before any cast, so the same weights give the same digest whether they come
    from safetensors or `.bin`, in one file or many, in whatever order. Measured: 0.4 s for the
    605 MB of ViT-B/32 on a processor with SHA instructions.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def check_activation(found: ModelFolder, config: Any, record: dict[str, Any]) -> None:
    """Compares the activation with everything that is known about it.

    Args:
        found: The folder; its open_clip_config.json is read if present.
        config: The loaded model's configuration.
        record: config.json as written.

    Raises:
        CheckpointError: Two sources disagree.
    """
    text, vision = config.text_config.hidden_act, config.vision_config.hidden_act
    if text != vision:
        raise CheckpointError(
            f"{found.model_id}: config.json says hidden_act {text!r} for text and {vision!r} for "
            "vision; no known model mixes them. Copy config.json from the original repository"
        )
    for expected, reason in _known_activations(found, record):
        if text != expected:
            raise CheckpointError(
                f"{found.model_id}: config.json says hidden_act {text!r}, but {reason} was trained "
                f"with {expected!r}; with the wrong one the numbers are silently worse. Set "
                "hidden_act in text_config and vision_config"
            )


def _known_activations(found: ModelFolder, record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    origins = [found.model_id if found.revision != "local" else "", record.get("_name_or_path")]
    for origin in origins:
        owner = str(origin or "").split("/", maxsplit=1)[0].lower()
        if owner in _ACTIVATION_OF_OWNER:
            yield _ACTIVATION_OF_OWNER[owner], str(origin)
    if record["model_type"] == "siglip":
        yield "gelu_pytorch_tanh", "SigLIP"
    path = found.path / "open_clip_config.json"
    if path.is_file():
        needed = "an open_clip configuration"
        model = read_json(path, needed=needed, error=CheckpointError).get("model_cfg", {})
        if not isinstance(model, dict):
            raise CheckpointError(f"{path}: model_cfg is {model!r:.80}; needed: {needed}")
        if record["model_type"] == "clip":
            act = "quick_gelu" if model.get("quick_gelu") else "gelu"
            yield act, "the model of open_clip_config.json"


def _read_weights(found: ModelFolder) -> tuple[PreTrainedModel, dict[str, Any]]:
    from safetensors import SafetensorError
    from transformers import AutoModel

    try:
        with _quiet_transformers():
            model, report = AutoModel.from_pretrained(
                found.path,
                dtype=torch.float32,
                attn_implementation="sdpa",
                local_files_only=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,  # reported below instead of raised half-way
                output_loading_info=True,
            )
    except (
        OSError,
        ValueError,
        RuntimeError,
        KeyError,
        TypeError,
        EOFError,
        pickle.UnpicklingError,
        SafetensorError,
    ) as error:
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{found.model_id}: cannot load {found.path}: {first_line}") from None
    return model, report


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No bars and no load report while we load; the settings are put back afterwards."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _take_temporal_weight(found: ModelFolder, report: dict[str, Any]) -> torch.Tensor | None:
    """Reads the weight that `vtr import` adds for linear_patch 3d; transformers knows none."""
    if TEMPORAL_WEIGHT not in report["unexpected_keys"]:
        return None
    for path in found.path.glob("model*.safetensors"):
        with safe_open(path, framework="pt") as file:
            if TEMPORAL_WEIGHT in file.keys():  # noqa: SIM118  (not a mapping)
                report["unexpected_keys"] = set(report["unexpected_keys"]) - {TEMPORAL_WEIGHT}
                weight: torch.Tensor = file.get_tensor(TEMPORAL_WEIGHT)
                return weight
    return None


def _check_keys(found: ModelFolder, report: dict[str, Any]) -> None:
    missing = sorted(report["missing_keys"])
    unexpected = sorted(set(report["unexpected_keys"]) - BENIGN_HUGGINGFACE)
    wrong_shape = [
        f"{name} (file {tuple(file)}, model {tuple(wanted)})"
        for name, file, wanted in sorted(report["mismatched_keys"])
    ]
    problems = [
        f"{kind}: {_some(names)}"
        for kind, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", wrong_shape),
            ("errors", list(report.get("error_msgs") or [])),
        )
        if names
    ]
    if problems:
        raise CheckpointError(
            f"{found.model_id}: the weights do not fit the architecture in config.json. "
            f"{'; '.join(problems)}. Fetch the folder again, or use the config.json that was "
            "saved with these weights"
        )


def _some(names: list[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _check_dimensions(found: ModelFolder, config: Any) -> None:
    if config.model_type != "siglip":
        return
    vision, text = config.vision_config.hidden_size, config.text_config.projection_size
    if vision != text:
        raise CheckpointError(
            f"{found.model_id}: vision embeddings have {vision} dimensions, text ones {text}"
        )
