"""CLIP's parameters under OpenAI's names and under those of transformers.

OpenAI's code, and all systems that grew from it (CLIP4Clip, CLIP2Video), join query, key and value
in one matrix and store both projections transposed; transformers splits and turns them. Nothing is
rounded on the way: a round trip gives the same bits, whatever the dtypes.

Source of the names: openai/CLIP clip/model.py, transformers CLIPModel.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from vtr.clip.encoders import blank_encoder, huggingface_state
from vtr.clip.open_clip_names import renamed
from vtr.clip.towers import Architecture, Sizes
from vtr.errors import CheckpointError
from vtr.foreign import first_few

TEMPORAL_WEIGHT = "vision_model.embeddings.patch_embedding.temporal_weight"
"""CLIP4Clip's `visual.conv2.weight` (linear_patch 3d); transformers itself has no such weight."""

# Attributes that TorchScript archives carry as tensors; the shapes say the same.
BENIGN_OPENAI = frozenset({"input_resolution", "context_length", "vocab_size"})
# Buffers that older versions of transformers stored.
BENIGN_HUGGINGFACE = frozenset(
    {"text_model.embeddings.position_ids", "vision_model.embeddings.position_ids"}
)

# Where our towers, whose blocks are packed like OpenAI's, have other names.
_OPENAI = {
    "visual.blocks.": "visual.transformer.resblocks.",
    "visual.patches.temporal_weight": "visual.conv2.weight",
    "visual.patches.": "visual.conv1.",
    "visual.positions": "visual.positional_embedding",
    "text.blocks.": "transformer.resblocks.",
    "text.token_embedding.": "token_embedding.",
    "text.positions": "positional_embedding",
    "text.ln_final.": "ln_final.",
    "visual.projection.weight": "visual.proj",
    "text.projection.weight": "text_projection",
}
_TRANSPOSED = ("visual.proj", "text_projection")
# In which order OpenAI's modules, and CLIP4Clip's, register their parameters.
_ORDER = (
    "positional_embedding", "text_projection", "logit_scale", "visual.class_embedding",
    "visual.positional_embedding", "visual.proj", "visual.conv1.", "visual.ln_pre.",
    "visual.transformer.", "visual.ln_post.", "visual.conv2.", "transformer.", "token_embedding.",
    "ln_final.",
)  # fmt: skip
# What CLIP's `convert_weights` makes float16 outside of the blocks, and leaves within them.
_HALVED = ("text_projection", "visual.proj", "visual.conv")
_WHOLE = re.compile(r"resblocks\.\d+\.ln_")
_HEAD_WIDTH = 64


def to_huggingface(openai_state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns copies of a CLIP's parameters, of the same dtypes, under transformers' names."""
    temporal = "visual.conv2.weight" in openai_state
    network = blank_encoder(read_shape(openai_state), temporal=temporal)
    ours = {renamed(name, _OPENAI): name for name in network.state_dict()}
    wanted = {
        name: tuple(value.T.shape if name in _TRANSPOSED else value.shape)
        for name, value in zip(ours, network.state_dict().values(), strict=True)
    }
    require_keys(openai_state, wanted, what="this CLIP (OpenAI's names)", benign=BENIGN_OPENAI)
    given = {ours[name]: openai_state[name] for name in wanted}
    for name in _TRANSPOSED:
        given[ours[name]] = given[ours[name]].T
    network.load_state_dict(given, assign=True)
    # Own memory for each: safetensors refuses tensors that share it.
    return {
        name: value.clone(memory_format=torch.contiguous_format)
        for name, value in huggingface_state(network).items()
    }


def to_openai(state: Mapping[str, Tensor], *, halved: bool = False) -> dict[str, Tensor]:
    """Returns weights of a CLIP of ours under OpenAI's names, in the order of its modules.

    They need not be all; `halved` rounds to float16 what CLIP's own code keeps so.
    """
    named: dict[str, Tensor] = {}
    for ours, value in state.items():
        name = renamed(ours, _OPENAI)
        half = name.startswith(_HALVED) or (".resblocks." in name and not _WHOLE.search(name))
        turned = value.T if name in _TRANSPOSED else value
        named[name] = turned.half() if halved and half else turned
    order = {
        name: next(i for i, one in enumerate(_ORDER) if name.startswith(one)) for name in named
    }
    return dict(sorted(named.items(), key=lambda item: order[item[0]]))


def read_shape(openai_state: Mapping[str, Tensor]) -> Architecture:
    """Returns what the shapes of a CLIP's parameters, under OpenAI's names, say of its sizes.

    They do not say the number of heads: one per 64 dimensions, as in every released CLIP.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in openai_state.items()}
    if any(name.startswith("visual.layer1.") for name in shapes):
        raise CheckpointError(
            "the vision tower is a ResNet (visual.layer1...), which transformers' CLIP does not "
            "have; only the ViT variants can be converted"
        )
    telling = {
        "visual.conv1.weight": 4,
        "visual.positional_embedding": 2,
        "text_projection": 2,
        "token_embedding.weight": 2,
        "positional_embedding": 2,
    }
    faults = [
        f"{name} ({found})"
        for name, axes in telling.items()
        if (found := _fault(shapes.get(name), axes))
    ]
    if faults:
        raise CheckpointError(
            f"these are not the parameters of a CLIP with a ViT: {', '.join(faults)}"
        )
    vision, _, patch, _ = shapes["visual.conv1.weight"]
    vocab, text = shapes["token_embedding.weight"]
    # A damaged file may give a patch of 0 pixels, which `require_keys` tells.
    patch = max(patch, 1)
    return Architecture(
        family="clip",
        vision=_sizes(shapes, "visual.transformer.resblocks", vision),
        text=_sizes(shapes, "transformer.resblocks", text),
        dim=shapes["text_projection"][1],
        image_size=patch * math.isqrt(max(shapes["visual.positional_embedding"][0] - 1, 0)),
        patch=patch,
        vocabulary=vocab,
        context=shapes["positional_embedding"][0],
        end_id=vocab - 1,
    )


def huggingface_config(
    shape: Architecture, *, vision_heads: int | None = None, text_heads: int | None = None
) -> dict[str, Any]:
    """Returns config.json of the transformers CLIP with these sizes."""
    # The end token is the largest id, the start token the one before it: so in OpenAI's
    # vocabulary, and the reference reads a text at its largest id.
    text = _tower_config(shape.text, text_heads, "text") | {
        "projection_dim": shape.dim,
        "model_type": "clip_text_model",
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": shape.context,
        "bos_token_id": shape.vocabulary - 2,
        "eos_token_id": shape.vocabulary - 1,
        "pad_token_id": shape.vocabulary - 1,
    }
    vision = _tower_config(shape.vision, vision_heads, "vision") | {
        "projection_dim": shape.dim,
        "model_type": "clip_vision_model",
        "image_size": shape.image_size,
        "patch_size": shape.patch,
        "num_channels": 3,
    }
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": shape.dim,
        "logit_scale_init_value": 2.6592,
        "text_config": text,
        "vision_config": vision,
    }


def require_keys(
    state: Mapping[str, Tensor],
    wanted: Mapping[str, tuple[int, ...]],
    *,
    what: str,
    benign: Iterable[str] = (),
) -> None:
    """Refuses weights that are missing, unexpected, misshapen, whole numbers or not finite."""
    problems = find_problems(state, wanted, benign=benign)
    if problems:
        told = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in problems.items())
        raise CheckpointError(f"the parameters do not fit {what}. {told}")


def require_fit(
    model_id: str,
    weights: Mapping[str, Tensor],
    wanted: Mapping[str, tuple[int, ...]],
    *,
    source: str,
    benign: Iterable[str],
) -> None:
    """Refuses as `require_keys` does, for a folder whose `source` says the sizes: some of each."""
    problems = find_problems(weights, wanted, benign=benign)
    if problems:
        told = "; ".join(f"{kind}: {first_few(names, 5)}" for kind, names in problems.items())
        raise CheckpointError(
            f"{model_id}: the weights do not fit the architecture in {source}. {told}. "
            f"Fetch the folder again, or use the {source} that was saved with these weights"
        )


def find_problems(
    state: Mapping[str, Tensor],
    wanted: Mapping[str, tuple[int, ...]],
    *,
    benign: Iterable[str] = (),
) -> dict[str, list[str]]:
    """Returns what `require_keys` complains of: kinds of problems and the names that have each."""
    shared = [name for name in wanted if name in state]
    problems = {
        "missing": [name for name in wanted if name not in state],
        "unexpected": sorted(set(state) - set(wanted) - set(benign)),
        "of another shape": [
            f"{n} (file {tuple(state[n].shape)}, needed {wanted[n]})"
            for n in shared
            if tuple(state[n].shape) != wanted[n]
        ],
        "no floating-point numbers": [
            f"{n} ({state[n].dtype})" for n in shared if not state[n].is_floating_point()
        ],
        "NaN or infinite": [name for name in shared if not_finite(state[name])],
    }
    return {kind: names for kind, names in problems.items() if names}


def not_finite(weights: Tensor) -> bool:
    """Returns whether a number among weights is NaN or infinite."""
    if not weights.is_floating_point():
        return False
    # A tenth of the time of looking at each; what the sum doubts is read again.
    is_sound = bool(weights.sum(dtype=torch.float32).isfinite())
    return not is_sound and not bool(weights.isfinite().all())


def _tower_config(tower: Sizes, heads: int | None, name: str) -> dict[str, Any]:
    count = tower.heads if heads is None else heads
    if count < 1 or tower.width % count:
        raise CheckpointError(
            f"the {name} tower is {tower.width} wide, which {count} attention heads do not divide; "
            "say how many heads it has"
        )
    return {
        "hidden_size": tower.width,
        "intermediate_size": tower.mlp_width,
        "num_hidden_layers": tower.layers,
        "num_attention_heads": count,
        "hidden_act": tower.activation,
        "layer_norm_eps": tower.epsilon,
        "attention_dropout": 0.0,
    }


def _fault(shape: tuple[int, ...] | None, axes: int) -> str:
    if shape is None:
        return "missing"
    return "" if len(shape) == axes else f"shape {shape}, needs {axes} axes"


def _sizes(shapes: Mapping[str, tuple[int, ...]], prefix: str, width: int) -> Sizes:
    pattern = re.compile(rf"{re.escape(prefix)}\.(\d+)\.")
    # Counted, not the largest: a gap or a damaged block is for `require_keys` to tell.
    layers = max(len({match[1] for name in shapes if (match := pattern.match(name))}), 1)
    mlp = shapes.get(f"{prefix}.0.mlp.c_fc.weight", ())
    mlp_width = mlp[0] if len(mlp) == 2 else 4 * width
    heads = max(width // _HEAD_WIDTH, 1)
    return Sizes(width, layers, heads, mlp_width, activation="quick_gelu", epsilon=1e-5)
