"""CLIP's parameters under OpenAI's names and under those of transformers.

OpenAI's code, and all systems that grew from it (CLIP4Clip, CLIP2Video), join query, key and value
in one matrix and store both projections transposed; transformers splits and turns them. Nothing is
rounded on the way: a round trip gives the same bits, whatever the dtypes.

Source of the names: openai/CLIP clip/model.py, transformers CLIPModel.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vtr.errors import CheckpointError

TEMPORAL_WEIGHT = "vision_model.embeddings.patch_embedding.temporal_weight"
"""CLIP4Clip's `visual.conv2.weight` (linear_patch 3d); transformers itself has no such weight."""

# Attributes that TorchScript archives carry as tensors; the shapes say the same.
BENIGN_OPENAI = frozenset({"input_resolution", "context_length", "vocab_size"})
# Buffers that older versions of transformers stored.
BENIGN_HUGGINGFACE = frozenset(
    {"text_model.embeddings.position_ids", "vision_model.embeddings.position_ids"}
)

_PLAIN = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.conv2.weight": TEMPORAL_WEIGHT,
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "logit_scale": "logit_scale",
}
_TRANSPOSED = {
    "visual.proj": "visual_projection.weight",
    "text_projection": "text_projection.weight",
}
_TOWERS = {
    "visual.transformer.resblocks": "vision_model.encoder.layers",
    "transformer.resblocks": "text_model.encoder.layers",
}
_BLOCK = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "ln_2": "layer_norm2",
}
_HEAD_WIDTH = 64


@dataclass(frozen=True)
class Tower:
    """The sizes of one transformer."""

    width: int  # Its hidden size
    layers: int  # Number of blocks
    mlp: int  # Width inside the blocks' perceptrons (4 times `width` in every released CLIP)


@dataclass(frozen=True)
class ClipShape:
    """All that the shapes of a CLIP's parameters tell; the number of heads is not among it."""

    vision: Tower  # The vision transformer
    text: Tower  # The text transformer
    embed_dim: int  # D of the shared space
    patch: int  # Side of a patch in pixels
    grid: int  # Patches along one side of the picture
    context: int  # Positions of a text
    vocab: int  # Rows of the token table
    temporal: bool  # Whether there is a patch convolution over time (linear_patch 3d)


@dataclass(frozen=True)
class _Entry:
    """One OpenAI parameter and what transformers makes of it."""

    openai: str
    huggingface: tuple[str, ...]
    shape: tuple[int, ...]
    transposed: bool = False

    def split(self, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
        turned = tensor.T if self.transposed else tensor
        parts = turned.chunk(len(self.huggingface)) if len(self.huggingface) > 1 else (turned,)
        for name, part in zip(self.huggingface, parts, strict=True):
            # Own memory for each: safetensors refuses tensors that share it.
            yield name, part.clone(memory_format=torch.contiguous_format)

    def join(self, state: Mapping[str, Tensor]) -> Tensor:
        parts = [state[name] for name in self.huggingface]
        whole = torch.cat(parts) if len(parts) > 1 else parts[0]
        turned = whole.T if self.transposed else whole
        return turned.clone(memory_format=torch.contiguous_format)

    def huggingface_shape(self) -> tuple[int, ...]:
        shape = self.shape[::-1] if self.transposed else self.shape
        count = len(self.huggingface)
        return shape if count == 1 else (shape[0] // count, *shape[1:])


def to_huggingface(openai_state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns a CLIP's parameters under the names of transformers' CLIPModel.

    Args:
        openai_state: Parameters under OpenAI's names, no prefix. `visual.conv2.weight`
            (linear_patch 3d) becomes `TEMPORAL_WEIGHT`.

    Returns:
        Copies of the same dtypes, each contiguous with memory of its own.

    Raises:
        CheckpointError: Keys are missing, unexpected or of a shape that contradicts the others;
            all are listed.
    """
    entries = _entries(read_shape(openai_state))
    wanted = {entry.openai: entry.shape for entry in entries}
    require_keys(openai_state, wanted, what="this CLIP (OpenAI's names)", benign=BENIGN_OPENAI)
    return {
        name: part for entry in entries for name, part in entry.split(openai_state[entry.openai])
    }


def to_openai(hf_state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns a CLIP's parameters under OpenAI's names: the inverse of `to_huggingface`.

    Args:
        hf_state: The state dict of a transformers CLIPModel.

    Raises:
        CheckpointError: As in `to_huggingface`.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in hf_state.items()}
    entries = _entries(_shape(_openai_shapes(shapes), named=dict(_PLAIN) | _TRANSPOSED))
    wanted = {name: entry.huggingface_shape() for entry in entries for name in entry.huggingface}
    require_keys(hf_state, wanted, what="this CLIP (transformers)", benign=BENIGN_HUGGINGFACE)
    return {entry.openai: entry.join(hf_state) for entry in entries}


def read_shape(openai_state: Mapping[str, Tensor]) -> ClipShape:
    """Returns the sizes of a CLIP from the shapes of its parameters under OpenAI's names.

    Raises:
        CheckpointError: A parameter that tells a size is missing or has another number of axes,
            or the vision tower is a ResNet.
    """
    return _shape({name: tuple(tensor.shape) for name, tensor in openai_state.items()})


def huggingface_config(
    shape: ClipShape, *, vision_heads: int | None = None, text_heads: int | None = None
) -> dict[str, Any]:
    """Returns config.json of the transformers CLIP with these sizes.

    Args:
        shape: The sizes.
        vision_heads: Attention heads of the vision tower; by default its width // 64, as in every
            released CLIP (the parameters do not tell).
        text_heads: The same for the text tower.

    Raises:
        CheckpointError: The width is not a multiple of the number of heads.
    """
    # The end token is the largest id, the start token the one before it: so in OpenAI's
    # vocabulary, and the reference reads a text at its largest id.
    text = _tower_config(shape.text, text_heads, "text") | {
        "projection_dim": shape.embed_dim,
        "model_type": "clip_text_model",
        "vocab_size": shape.vocab,
        "max_position_embeddings": shape.context,
        "bos_token_id": shape.vocab - 2,
        "eos_token_id": shape.vocab - 1,
        "pad_token_id": shape.vocab - 1,
    }
    vision = _tower_config(shape.vision, vision_heads, "vision") | {
        "projection_dim": shape.embed_dim,
        "model_type": "clip_vision_model",
        "image_size": shape.patch * shape.grid,
        "patch_size": shape.patch,
        "num_channels": 3,
    }
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": shape.embed_dim,
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
    """Compares loaded weights with what they must be: each there, of its shape, finite.

    Args:
        state: What there is.
        wanted: Name to shape of what there must be.
        what: Whose parameters these are, for the message.
        benign: Names that may be there besides.

    Raises:
        CheckpointError: Lists every key that is missing, unexpected, of another shape, no
            floating-point numbers, or NaN or infinite.
    """
    shared = [name for name in wanted if name in state]
    misshapen = [
        f"{name} (file {tuple(state[name].shape)}, needed {shape})"
        for name, shape in wanted.items()
        if name in state and tuple(state[name].shape) != shape
    ]
    typed = [f"{n} ({state[n].dtype})" for n in shared if not state[n].is_floating_point()]
    problems = [
        f"{kind}: {', '.join(names)}"
        for kind, names in (
            ("missing", [name for name in wanted if name not in state]),
            ("unexpected", sorted(set(state) - set(wanted) - set(benign))),
            ("of another shape", misshapen),
            ("no floating-point numbers", typed),
            ("NaN or infinite", [name for name in shared if not_finite(state[name])]),
        )
        if names
    ]
    if problems:
        raise CheckpointError(f"the parameters do not fit {what}. {'; '.join(problems)}")


def not_finite(weights: Tensor) -> bool:
    """Returns whether a number among weights is NaN or infinite."""
    return weights.is_floating_point() and not bool(weights.isfinite().all())


def _tower_config(tower: Tower, heads: int | None, name: str) -> dict[str, Any]:
    count = max(tower.width // _HEAD_WIDTH, 1) if heads is None else heads
    if count < 1 or tower.width % count:
        raise CheckpointError(
            f"the {name} tower is {tower.width} wide, which {count} attention heads do not divide; "
            "say how many heads it has"
        )
    return {
        "hidden_size": tower.width,
        "intermediate_size": tower.mlp,
        "num_hidden_layers": tower.layers,
        "num_attention_heads": count,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
        "attention_dropout": 0.0,
    }


def _entries(shape: ClipShape) -> list[_Entry]:
    vision, text, patch = shape.vision.width, shape.text.width, shape.patch
    sizes: dict[str, tuple[int, ...]] = {
        "visual.class_embedding": (vision,),
        "visual.positional_embedding": (shape.grid**2 + 1, vision),
        "visual.conv1.weight": (vision, 3, patch, patch),
        "visual.conv2.weight": (vision, 3, 3, patch, patch),
        "visual.ln_pre.weight": (vision,),
        "visual.ln_pre.bias": (vision,),
        "visual.ln_post.weight": (vision,),
        "visual.ln_post.bias": (vision,),
        "token_embedding.weight": (shape.vocab, text),
        "positional_embedding": (shape.context, text),
        "ln_final.weight": (text,),
        "ln_final.bias": (text,),
        "logit_scale": (),
        "visual.proj": (vision, shape.embed_dim),
        "text_projection": (text, shape.embed_dim),
    }
    if not shape.temporal:
        del sizes["visual.conv2.weight"]
    names = _PLAIN | _TRANSPOSED
    entries = [_Entry(n, (names[n],), size, n in _TRANSPOSED) for n, size in sizes.items()]
    for (ours, theirs), tower in zip(_TOWERS.items(), (shape.vision, shape.text), strict=True):
        for layer in range(tower.layers):
            entries += _block_entries(f"{ours}.{layer}", f"{theirs}.{layer}", tower)
    return entries


def _block_entries(openai: str, huggingface: str, tower: Tower) -> Iterator[_Entry]:
    width, mlp = tower.width, tower.mlp
    weights: dict[str, tuple[int, ...]] = {
        "attn.out_proj": (width, width),
        "ln_1": (width,),
        "mlp.c_fc": (mlp, width),
        "mlp.c_proj": (width, mlp),
        "ln_2": (width,),
    }
    joined: dict[str, tuple[int, ...]] = {"weight": (3 * width, width), "bias": (3 * width,)}
    for kind, shape in joined.items():
        names = tuple(f"{huggingface}.self_attn.{part}_proj.{kind}" for part in "qkv")
        yield _Entry(f"{openai}.attn.in_proj_{kind}", names, shape)
    for name, shape in weights.items():
        other = f"{huggingface}.{_BLOCK[name]}"
        yield _Entry(f"{openai}.{name}.weight", (f"{other}.weight",), shape)
        yield _Entry(f"{openai}.{name}.bias", (f"{other}.bias",), shape[:1])


def _openai_shapes(hf_shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The shapes that tell sizes, under OpenAI's names."""
    known: dict[str, tuple[int, ...]] = {}
    for ours, theirs in _PLAIN.items():
        if theirs in hf_shapes:
            known[ours] = hf_shapes[theirs]
    for ours, theirs in _TRANSPOSED.items():
        if theirs in hf_shapes:
            known[ours] = hf_shapes[theirs][::-1]
    for ours, theirs in _TOWERS.items():
        for name, size in hf_shapes.items():
            if match := re.fullmatch(rf"{re.escape(theirs)}\.(\d+)\.(.+)", name):
                # Which parameter it is matters only for the perceptron's width.
                part = match[2].replace("mlp.fc1", "mlp.c_fc")
                known[f"{ours}.{match[1]}.{part}"] = size
    return known


def _shape(
    shapes: Mapping[str, tuple[int, ...]], *, named: Mapping[str, str] | None = None
) -> ClipShape:
    """Reads the sizes; `named` maps OpenAI's names to those of the caller's file."""
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
        f"{(named or {}).get(name, name)} ({found})"
        for name, axes in telling.items()
        if (found := _fault(shapes.get(name), axes))
    ]
    if faults:
        raise CheckpointError(
            f"these are not the parameters of a CLIP with a ViT: {', '.join(faults)}"
        )
    vision, _, patch, _ = shapes["visual.conv1.weight"]
    vocab, text = shapes["token_embedding.weight"]
    return ClipShape(
        vision=_tower(shapes, "visual.transformer.resblocks", vision),
        text=_tower(shapes, "transformer.resblocks", text),
        embed_dim=shapes["text_projection"][1],
        patch=patch,
        grid=math.isqrt(max(shapes["visual.positional_embedding"][0] - 1, 0)),
        context=shapes["positional_embedding"][0],
        vocab=vocab,
        temporal="visual.conv2.weight" in shapes,
    )


def _fault(shape: tuple[int, ...] | None, axes: int) -> str:
    if shape is None:
        return "missing"
    return "" if len(shape) == axes else f"shape {shape}, needs {axes} axes"


def _tower(shapes: Mapping[str, tuple[int, ...]], prefix: str, width: int) -> Tower:
    pattern = re.compile(rf"{re.escape(prefix)}\.(\d+)\.")
    numbers = [int(match[1]) for name in shapes if (match := pattern.match(name))]
    # Counted, not the largest: a gap or a damaged block is for `require_keys` to tell.
    mlp = shapes.get(f"{prefix}.0.mlp.c_fc.weight", ())
    layers = max(len(set(numbers)), 1)
    return Tower(width=width, layers=layers, mlp=mlp[0] if len(mlp) == 2 else 4 * width)
