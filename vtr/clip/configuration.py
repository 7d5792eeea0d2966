"""config.json of a Hugging Face folder: the sizes of a dual encoder, and what must agree in it.

Files leave out what equals the library's default, and the defaults differ between families. Two
published papers were computed with the wrong activation (open_clip #771, #915): it is compared
with everything that is known about it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtr.clip.hub import OPEN_CLIP_CONFIG, ModelFolder
from vtr.clip.towers import ACTIVATIONS, Architecture, Sizes
from vtr.errors import CheckpointError
from vtr.foreign import shown
from vtr.json_files import read_json

# What the owners of these repositories trained with.
_ACTIVATION_OF_OWNER = {"openai": "quick_gelu", "laion": "gelu"}

# Far beyond any model, and no product of them overflows.
MOST_LAYERS = 1_000
MOST_PIXELS = 1 << 14
_MOST = 1 << 20

_WIDE = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
_NARROW = {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8}
_CLIP = {"num_hidden_layers": 12, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
_SIGLIP = _CLIP | _WIDE | {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6}
_TEXT = {"vocab_size": 49408, "max_position_embeddings": 77, "eos_token_id": 49407}
_CLIP_VISION = _CLIP | _WIDE | {"image_size": 224, "patch_size": 32}
_CLIP_TEXT = _CLIP | _NARROW | _TEXT
# transformers' configuration classes; SigLIP's towers are alike.
_DEFAULTS: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("clip", "vision"): _CLIP_VISION,
    ("clip", "text"): _CLIP_TEXT,
    ("metaclip_2", "vision"): _CLIP_VISION,
    ("metaclip_2", "text"): _CLIP_TEXT,
    ("siglip", "vision"): _SIGLIP | {"image_size": 224, "patch_size": 16},
    ("siglip", "text"): _SIGLIP | _TEXT | {"vocab_size": 32000, "max_position_embeddings": 64},
}


def read_config(folder: Path) -> dict[str, Any]:
    """Returns config.json."""
    path = folder / "config.json"
    record = read_json(path, needed="a transformers model", error=CheckpointError)
    if not isinstance(record.get("model_type"), str):
        kind = record.get("architecture")
        what = f"; timm's {shown(kind, 80)!r} is a picture tower alone" if kind else ""
        raise CheckpointError(f"{path} names no model_type: it is not a transformers model{what}")
    return record


def read_architecture(folder: ModelFolder, record: Mapping[str, Any]) -> Architecture:
    """Returns the sizes in config.json of a CLIP or SigLIP; refuses those that cannot be."""
    family = record["model_type"]
    vision, text = (_section(folder, record, name) for name in ("vision", "text"))
    image_size, patch = vision.number("image_size", most=MOST_PIXELS), vision.number("patch_size")
    if patch > image_size:
        raise CheckpointError(
            f"{folder.model_id}: config.json has patches of {patch} pixels in pictures of "
            f"{image_size}"
        )
    if vision.values.get("vision_use_head") is False:
        raise CheckpointError(
            f"{folder.model_id}: config.json says vision_use_head false: this vision tower makes "
            "no embedding of a picture. Use a whole SigLIP"
        )
    end = text.values["eos_token_id"]
    architecture = Architecture(
        family=family,
        vision=_sizes(vision),
        text=_sizes(text),
        dim=_dimension(folder, record, text, vision),
        image_size=image_size,
        patch=patch,
        vocabulary=text.number("vocab_size"),
        context=text.number("max_position_embeddings"),
        end_id=end if isinstance(end, int) and not isinstance(end, bool) else -1,
    )
    check_activation(folder, architecture, record)
    return architecture


@dataclass(frozen=True)
class Section:
    """One object of a configuration, whose values are checked as they are read."""

    source: str  # The model and its file
    name: str
    values: dict[str, Any]

    def number(self, key: str, *, most: int = _MOST) -> int:
        """Returns a whole number of at least 1."""
        value = self.values[key]
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            raise self.refusal(key, f"a whole number from 1 to {most}")
        return value

    def refusal(self, key: str, needed: str) -> CheckpointError:
        """Returns what to raise for a value."""
        value = self.values.get(key)
        return CheckpointError(
            f"{self.source} has {self.name}.{key} {value!r:.80}; needed: {needed}"
        )

    def heads(self, key: str, *, of: str) -> int:
        """Returns a number of attention heads, which divides a width."""
        heads, width = self.number(key), self.number(of)
        if width % heads:
            raise CheckpointError(
                f"{self.source} has {self.name}.{key} {heads}, which does not divide {of} {width}"
            )
        return heads

    def epsilon(self, key: str) -> float:
        """Returns that of the layer norms."""
        epsilon = self.values[key]
        if (
            isinstance(epsilon, bool)
            or not isinstance(epsilon, int | float)
            or not 0 <= epsilon < 1
        ):
            raise self.refusal(key, "a number from 0 to below 1")
        return float(epsilon)


def _section(folder: ModelFolder, record: Mapping[str, Any], name: str) -> Section:
    """Returns text_config or vision_config, with the defaults of its family."""
    source = f"{folder.model_id}: config.json"
    defaults = _DEFAULTS[record["model_type"], name]
    values = {**defaults, **object_of(source, record, f"{name}_config")}
    # Early CLIPs hold it twice; what is given here counts, and what it lacks is the default.
    if record["model_type"] == "clip" and record.get(f"{name}_config_dict") is not None:
        values |= {**defaults, **object_of(source, record, f"{name}_config_dict")}
    return Section(source, f"{name}_config", values)


def object_of(source: str, record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Returns the object under a key, empty where there is none."""
    values = record.get(key)
    if values is not None and not isinstance(values, Mapping):
        raise CheckpointError(f"{source} has {key} {values!r:.80}; needed: an object")
    return values or {}


def _sizes(section: Section) -> Sizes:
    width, activation = section.number("hidden_size"), section.values["hidden_act"]
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise CheckpointError(
            f"{section.source} has {section.name}.hidden_act {activation!r:.80}; "
            f"vtr knows {', '.join(ACTIVATIONS)}"
        )
    return Sizes(
        width=width,
        layers=section.number("num_hidden_layers", most=MOST_LAYERS),
        heads=section.heads("num_attention_heads", of="hidden_size"),
        mlp_width=section.number("intermediate_size"),
        activation=activation,
        epsilon=section.epsilon("layer_norm_eps"),
    )


def _dimension(
    folder: ModelFolder, record: Mapping[str, Any], text: Section, vision: Section
) -> int:
    """Returns D: CLIP projects both towers, SigLIP maps the text to the width of its vision."""
    if record["model_type"] != "siglip":
        text.values["projection_dim"] = record.get("projection_dim", 512)
        return text.number("projection_dim")
    if text.values.get("projection_size") is None:
        text.values["projection_size"] = text.values["hidden_size"]
    dim, width = text.number("projection_size"), vision.number("hidden_size")
    if width != dim:
        raise CheckpointError(
            f"{folder.model_id}: vision embeddings have {width} dimensions, text ones {dim}"
        )
    return dim


def check_activation(
    folder: ModelFolder, architecture: Architecture, record: Mapping[str, Any]
) -> None:
    """Compares the activation with everything that is known about it."""
    text, vision = architecture.text.activation, architecture.vision.activation
    if text != vision:
        raise CheckpointError(
            f"{folder.model_id}: config.json says hidden_act {text!r} for text and {vision!r} for "
            "vision; no known model mixes them. Copy config.json from the original repository"
        )
    for expected, reason in _known_activations(folder, record):
        if text != expected:
            raise CheckpointError(
                f"{folder.model_id}: config.json says hidden_act {text!r}, but {reason} was "
                f"trained with {expected!r}; with the wrong one the numbers are silently worse. "
                "Set hidden_act in text_config and vision_config"
            )


def _known_activations(folder: ModelFolder, record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    origins = [folder.model_id if folder.revision != "local" else "", record.get("_name_or_path")]
    for origin in origins:
        owner = str(origin or "").split("/", maxsplit=1)[0].lower()
        if owner in _ACTIVATION_OF_OWNER:
            yield _ACTIVATION_OF_OWNER[owner], str(origin)
        if str(origin or "").lower().endswith("quickgelu"):
            yield "quick_gelu", str(origin)
    if record["model_type"] == "siglip":
        yield "gelu_pytorch_tanh", "SigLIP"
    path = folder.path / OPEN_CLIP_CONFIG
    if path.is_file():
        needed = "an open_clip configuration"
        model = read_json(path, needed=needed, error=CheckpointError).get("model_cfg", {})
        if not isinstance(model, dict):
            raise CheckpointError(f"{path}: model_cfg is {model!r:.80}; needed: {needed}")
        if record["model_type"] == "clip":
            act = "quick_gelu" if model.get("quick_gelu") else "gelu"
            yield act, f"the model of {OPEN_CLIP_CONFIG}"
