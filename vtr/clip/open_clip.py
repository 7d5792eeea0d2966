"""open_clip's folders: open_clip_config.json and open_clip_model.safetensors, without open_clip.

A configuration names a tower of timm's and holds none of its sizes: those that weights show are
read from the weights, the others from the table below. What of a configuration may change numbers
and is not understood is refused, never ignored.

Source: open_clip 3.3.0 (model.py, factory.py), timm 1.0.31 (eva.py, vision_transformer.py).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from vtr.clip.configuration import MOST_LAYERS, MOST_PIXELS, Section, object_of
from vtr.clip.encoders import Contents
from vtr.clip.hub import OPEN_CLIP_CONFIG, ModelFolder, read_if_there
from vtr.clip.open_clip_names import open_clip_state
from vtr.clip.towers import Architecture, Rope, Sizes
from vtr.errors import CheckpointError, ModelError
from vtr.json_files import read_json


@dataclass(frozen=True)
class Trunk:
    """What neither weights nor configuration say of a tower of timm's."""

    family: str
    width: int  # Of the published weights: what follows is theirs
    layers: int
    heads: int
    reference: int = 0  # Side of the grid of `Rope`; 0: no rotations
    activation: str = "gelu"


_TRUNKS = {
    "vit_pe_core_tiny_patch16_384": Trunk("pe", 192, 12, 3, 24),
    "vit_pe_core_small_patch16_384": Trunk("pe", 384, 12, 6, 24),
    "vit_pe_core_base_patch16_224": Trunk("pe", 768, 12, 12, 14),
    "vit_pe_core_large_patch14_336": Trunk("pe", 1024, 24, 16, 24),
    "vit_pe_core_gigantic_patch14_448": Trunk("pe", 1536, 50, 16, 32),
    "eva02_base_patch16_clip_224": Trunk("eva", 768, 12, 12, 16),
    "eva02_large_patch14_clip_224": Trunk("eva", 1024, 24, 16, 16),
    "eva02_large_patch14_clip_336": Trunk("eva", 1024, 24, 16, 16),
    "eva02_enormous_patch14_clip_224": Trunk("eva", 1792, 64, 16),
}
_SIGLIP = re.compile(r"vit_(base|large|so400m|giantopt)_patch(14|16|32)_siglip_\d+")
_SIGLIP_SIZES = {
    "base": (768, 12, 12), "large": (1024, 24, 16), "so400m": (1152, 27, 16),
    "giantopt": (1536, 40, 16),
}  # fmt: skip
_SIGLIP_TANH = re.compile(r"vit_(base_patch32|large_patch16_siglip_512|so400m_patch16|giantopt)")
_EPSILONS = {"pe": 1e-5, "eva": 1e-6, "siglip": 1e-6}
_SIGLIP_TEXT = {32_000: "gelu", 250_000: "gelu", 256_000: "gelu_pytorch_tanh"}
_POOL_HEADS = 8  # of Perception Encoder, whatever its blocks have

_FOR_ALL = {
    "ls_init_value": None, "act_kwargs": None, "norm_kwargs": None, "output_tokens": False,
    "block_type": None, "qk_norm": False, "scaled_cosine_attn": False, "scale_heads": False,
    "scale_attn_inner": False, "scale_attn": False, "scale_fc": False, "mlp_ratio": 4.0,
    "layers": 12, "final_ln_after_pool": False,
}  # fmt: skip
_VISION: Mapping[str, Any] = {
    **_FOR_ALL, "width": 768, "head_width": 64, "patch_size": 16, "image_size": 224,
    "patch_dropout": 0.0, "attentional_pool": False, "attn_pooler_queries": 256,
    "attn_pooler_heads": 8, "no_ln_pre": False, "pos_embed_type": "learnable",
    "pool_type": "tok", "global_average_pool": False, "input_patchnorm": False,
}  # fmt: skip
_TIMM: Mapping[str, Any] = {
    "image_size": 224, "timm_model_name": None, "timm_model_pretrained": False,
    "timm_pool": "avg", "timm_proj": "linear", "timm_proj_bias": False, "timm_drop": 0.0,
    "timm_drop_path": None, "patch_dropout": 0.0, "output_tokens": False, "timm_overrides": None,
    "timm_use_rope": False, "timm_rope_keep_ape": False, "timm_dynamic_img_size": False,
    "timm_norm_pre": False,
}  # fmt: skip
_TEXT: Mapping[str, Any] = {
    **_FOR_ALL, "context_length": 77, "vocab_size": 49408, "hf_tokenizer_name": None,
    "tokenizer_mode": None, "tokenizer_kwargs": None, "width": 512, "heads": 8,
    "embed_cls": False, "pad_id": 0, "no_causal_mask": False, "pool_type": "argmax",
    "proj_bias": False, "proj_type": "linear", "use_pad_mask": False, "correct_cls_mask": False,
    "hf_model_name": None, "hf_model_pretrained": True, "hf_proj_type": "mlp",
    "hf_pooler_type": "mean_pooler",
}  # fmt: skip
_MODEL: Mapping[str, Any] = {
    "embed_dim": None, "vision_cfg": None, "text_cfg": None, "multimodal_cfg": None,
    "quick_gelu": False, "custom_text": False, "init_logit_scale": None, "init_logit_bias": None,
    "nonscalar_logit_scale": False, "cast_dtype": None, "output_dict": False,
}  # fmt: skip
# Read below, or of no effect on an encoder at rest. Every other key must have its default.
_FREE = {
    "image_size", "layers", "width", "head_width", "heads", "mlp_ratio", "patch_size",
    "context_length", "vocab_size", "act_kwargs", "norm_kwargs", "attn_pooler_queries",
    "attn_pooler_heads", "hf_tokenizer_name", "tokenizer_kwargs",
    "pos_embed_type", "patch_dropout", "output_tokens", "timm_model_name", "timm_overrides",
    "timm_model_pretrained", "timm_drop", "timm_drop_path", "timm_dynamic_img_size",
    "hf_model_pretrained", "hf_proj_type", "hf_pooler_type",
}  # fmt: skip
_LAST = {"no_causal_mask": True, "pool_type": "last"}
# What makes a family, beside the defaults: of its picture tower and of its text tower.
_FAMILIES: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "clip": ({}, {}),
    "clipa": ({"no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True}, _LAST),
    "coca": ({"attentional_pool": True}, {"embed_cls": True}),
    "pe": ({"timm_pool": "map", "timm_proj": None}, {}),
    "eva": ({"timm_pool": "token", "timm_proj": None}, {}),
    "siglip": ({"timm_pool": "map", "timm_proj": "none"}, {**_LAST, "proj_bias": True}),
}
_STRAY = {
    f"{text}{name}"
    for text in ("", "text.")
    for name in ("attn_mask", "input_resolution", "context_length", "vocab_size")
}
# What the repositories' names say of native towers; others come with both activations.
_KNOWN_QUICK = {"openai": True, "dfn": True, "laion2b": False}


@dataclass(frozen=True)
class Sections:
    """The parts of open_clip_config.json, every key of them known."""

    family: str
    trunk: Trunk | None  # None: open_clip's own picture tower
    model: Section
    vision: Section
    text: Section
    picture_size: Any  # That of preprocess_cfg


def read_sections(folder: ModelFolder) -> Sections:
    """Reads the configuration alone; refuses a kind of tower, or a setting, that is not read."""
    source = f"{folder.model_id}: {OPEN_CLIP_CONFIG}"
    path = folder.path / OPEN_CLIP_CONFIG
    record = read_json(path, needed="an open_clip configuration", error=CheckpointError)
    model = _section(source, record, "model_cfg", _MODEL)
    text = _section(source, model.values, "text_cfg", _TEXT)
    vision = _section(source, model.values, "vision_cfg", {**_VISION, **_TIMM})
    if text.values["hf_model_name"]:
        raise _not_read(source, f"text tower is transformers' {text.values['hf_model_name']!r:.80}")
    trunk = _find_trunk(vision) if vision.values["timm_model_name"] else None
    family = trunk.family if trunk else _native_family(vision)
    _check_values(vision, _VISION if trunk is None else _TIMM, _FAMILIES[family][0], family)
    _check_values(text, _TEXT, _FAMILIES[family][1], family)
    quick = model.values["quick_gelu"]
    if not isinstance(quick, bool) or (quick and trunk):
        raise model.refusal("quick_gelu", "false" if trunk else "true or false")
    size = object_of(source, record, "preprocess_cfg").get("size")
    return Sections(family, trunk, model, vision, text, size)


def read_open_clip(folder: ModelFolder, weights: dict[str, Tensor]) -> Contents:
    """Returns what a folder of open_clip's holds.

    Raises:
        ModelError: A kind of tower that is not read.
        CheckpointError: Weights or configuration that contradict each other.
    """
    sections = read_sections(folder)
    text, family = sections.text, sections.family
    weights = {name.removeprefix("module."): value for name, value in weights.items()}
    for name in [*weights]:
        if name in _STRAY or (family == "coca" and name.startswith("text_decoder.")):
            del weights[name]
    vision = _trunk_sizes(sections, weights) if sections.trunk else _native_sizes(folder, sections)
    architecture = Architecture(
        family=family,
        text=_sizes(text, text.heads("heads", of="width"), _activation(sections, text)),
        dim=sections.model.number("embed_dim"),
        image_size=sections.vision.number("image_size", most=MOST_PIXELS),
        vocabulary=text.number("vocab_size"),
        context=text.number("context_length"),
        end_id=text.number("vocab_size") - 1,
        **vision,
    )
    if family == "siglip":
        _check_siglip(sections, architecture.text)
    _fit_positions(sections, architecture, weights)
    for name in ("logit_scale", "logit_bias"):
        if name in weights and weights[name].numel() == 1:
            weights[name] = weights[name].reshape(1 if family == "siglip" else ())
    prefix = "text." if any(name.startswith("text.") for name in weights) else ""
    state = partial(open_clip_state, text=prefix)
    return Contents(architecture, family, weights, state, OPEN_CLIP_CONFIG)


def _section(
    source: str, record: Mapping[str, Any], name: str, known: Mapping[str, Any]
) -> Section:
    values = record.get(name)
    if not isinstance(values, Mapping):
        raise CheckpointError(f"{source} has {name} {values!r:.80}; needed: an object")
    unknown = sorted(
        key for key, value in values.items() if key not in known and value not in (None, False)
    )
    if unknown:
        raise ModelError(
            f"{source} has unknown settings {', '.join(unknown)[:200]} in {name}; they may change "
            "numbers, so vtr does not ignore them"
        )
    return Section(source, name, {**known, **values})


def _check_values(
    section: Section, known: Mapping[str, Any], own: Mapping[str, Any], family: str
) -> None:
    """Refuses settings that make another tower than the family's."""
    for key in known.keys() - _FREE:
        wanted = own.get(key, known[key])
        if section.values[key] != wanted and (section.values[key] or wanted):
            raise section.refusal(key, f"{wanted!r}, as every {family} that vtr reads has it")


def _not_read(source: str, what: str) -> ModelError:
    return ModelError(
        f"{source}: the {what}, which vtr does not read. It reads PE-Core (vit_pe_core_*), "
        "EVA02-CLIP (eva02_*_clip_*), SigLIP and SigLIP 2 (vit_*_siglip_*) and open_clip's own "
        "CLIP, CLIPA and CoCa"
    )


def _find_trunk(vision: Section) -> Trunk:
    """Returns a tower of timm's by its published name, with the sizes that replace its own."""
    name = vision.values["timm_model_name"]
    plain = str(name).partition(".")[0]
    match, trunk = _SIGLIP.fullmatch(plain), _TRUNKS.get(plain)
    if match:
        activation = "gelu_pytorch_tanh" if _SIGLIP_TANH.match(plain) else "gelu"
        trunk = Trunk("siglip", *_SIGLIP_SIZES[match[1]], activation=activation)
    if trunk is None:
        raise _not_read(vision.source, f"picture tower is timm's {name!r:.80}")
    return trunk


def _native_family(vision: Section) -> str:
    if isinstance(vision.values["layers"], list):
        raise _not_read(vision.source, f"picture tower is a ResNet of {vision.values['layers']}")
    if vision.values["attentional_pool"]:
        return "coca"
    return "clipa" if vision.values["pool_type"] == "avg" else "clip"


def _sizes(section: Section, heads: int, activation: str) -> Sizes:
    width, ratio = section.number("width"), section.values["mlp_ratio"]
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 < ratio <= 64:
        raise section.refusal("mlp_ratio", "a number above 0, at most 64")
    norm = section.values["norm_kwargs"]
    norm = {"eps": 1e-5} if norm is None else norm
    if not isinstance(norm, Mapping) or set(norm) != {"eps"}:
        raise section.refusal("norm_kwargs", "an eps alone")
    return Sizes(
        width=width,
        layers=section.number("layers", most=MOST_LAYERS),
        heads=heads,
        mlp_width=int(width * ratio),
        activation=activation,
        epsilon=Section(section.source, f"{section.name}.norm_kwargs", dict(norm)).epsilon("eps"),
    )


def _activation(sections: Sections, section: Section) -> str:
    """Returns that of one of open_clip's own towers; `quick_gelu` is said of both at once."""
    kwargs, quick = section.values["act_kwargs"], sections.model.values["quick_gelu"]
    kinds = {"none": "gelu", "tanh": "gelu_pytorch_tanh"}
    if kwargs is None:
        return "quick_gelu" if quick else "gelu"
    found = [kind for name, kind in kinds.items() if kwargs == {"approximate": name}]
    if quick or not found:
        raise section.refusal("act_kwargs", "approximate 'none' or 'tanh' without quick_gelu")
    return found[0]


def _native_sizes(folder: ModelFolder, sections: Sections) -> dict[str, Any]:
    vision, quick = sections.vision, sections.model.values["quick_gelu"]
    check_activation(folder, quick)
    width, head = vision.number("width"), vision.number("head_width")
    if width % head:
        raise vision.refusal("head_width", f"a divisor of width {width}")
    dim = sections.model.number("embed_dim")
    if sections.family == "coca" and dim % vision.number("attn_pooler_heads"):
        raise vision.refusal("attn_pooler_heads", f"a divisor of embed_dim {dim}")
    return {
        "vision": _sizes(vision, width // head, _activation(sections, vision)),
        "patch": vision.number("patch_size"),
        "pool_heads": vision.number("attn_pooler_heads"),
        "pool_queries": vision.number("attn_pooler_queries"),
    }


def check_activation(folder: ModelFolder, quick: bool) -> None:
    """Compares quick_gelu with everything that is known about it."""
    known = {}
    if folder.revision != "local":
        for part, wanted in _KNOWN_QUICK.items():
            if part in folder.model_id.lower():
                known[folder.model_id] = wanted
    record = read_if_there(folder.path / "config.json", needed="a transformers model")
    if record.get("model_type") == "clip":
        text = object_of(f"{folder.model_id}: config.json", record, "text_config")
        known["config.json beside it"] = text.get("hidden_act", "quick_gelu") == "quick_gelu"
    for origin, wanted in known.items():
        if quick != wanted:
            raise CheckpointError(
                f"{folder.model_id}: {OPEN_CLIP_CONFIG} has model_cfg.quick_gelu {quick}, but "
                f"{origin} says {wanted}; with the wrong activation the numbers are silently "
                "worse. Copy the file from the original repository"
            )


def _check_siglip(sections: Sections, sizes: Sizes) -> None:
    """Compares the text tower with what is known of all SigLIPs; their vocabularies tell which."""
    text = sections.text
    if sizes.epsilon != 1e-6:
        raise text.refusal("norm_kwargs", "an eps of 1e-06, as every SigLIP has")
    wanted = _SIGLIP_TEXT.get(text.number("vocab_size"), sizes.activation)
    if sizes.activation != wanted:
        kwargs = {"approximate": "tanh"} if wanted != "gelu" else None
        raise text.refusal("act_kwargs", f"{kwargs}, as every SigLIP of this vocabulary has")


def _trunk_sizes(sections: Sections, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Returns what weights, overrides and the table say of a tower of timm's, in this order."""
    vision, trunk = sections.vision, sections.trunk
    assert trunk is not None
    own = Section(vision.source, "vision_cfg.timm_overrides", _overrides(vision))
    width, _, patch, _ = _shape(weights, "patch_embed.proj.weight", 4)
    blocks = {name.split(".")[3] for name in weights if name.startswith("visual.trunk.blocks.")}
    gated = sections.family == "eva" and trunk.reference > 0
    mlp_width = _shape(weights, f"blocks.0.mlp.{'fc1_x' if gated else 'fc1'}.weight", 2)[0]
    published = width == trunk.width
    if not published and "num_heads" not in own.values:
        raise CheckpointError(
            f"{vision.source}: {vision.values['timm_model_name']} is {trunk.width} wide, its "
            f"weights here {width}, which do not say how many attention heads they are for. Say "
            'it in vision_cfg: "timm_overrides": {"num_heads": N}'
        )
    own.values.setdefault("embed_dim", width)
    for key, value in (
        ("depth", trunk.layers if published else len(blocks)),
        ("num_heads", trunk.heads),
    ):
        own.values.setdefault(key, value)
    for key, found in (("embed_dim", width), ("patch_size", patch)):
        if own.values.get(key, found) != found:
            raise own.refusal(key, f"{found}, which its weights have")
    class_token = "visual.trunk.cls_token" in weights
    reference = own.values.get("ref_feat_shape", [trunk.reference] * 2)
    if not isinstance(reference, list) or len(reference) != 2 or reference[0] != reference[1]:
        raise own.refusal("ref_feat_shape", "two equal whole numbers")
    if trunk.reference:
        own.values["ref_feat_shape"] = reference[0]
        own.number("ref_feat_shape")
        if width // own.heads("num_heads", of="embed_dim") % 4:
            raise own.refusal("num_heads", f"4 or more channels a head, of width {width}")
    perception = sections.family == "pe"
    rope = Rope(reference[0], offset=int(perception and class_token), columns_first=perception)
    return {
        "vision": Sizes(
            width=width,
            layers=own.number("depth", most=MOST_LAYERS),
            heads=own.heads("num_heads", of="embed_dim"),
            mlp_width=mlp_width,
            activation=trunk.activation,
            epsilon=_EPSILONS[sections.family],
        ),
        "patch": patch,
        "class_token": class_token,
        "rope": rope if trunk.reference else None,
        "pool_heads": _POOL_HEADS,
    }


def _overrides(vision: Section) -> dict[str, Any]:
    """Returns the sizes that replace the published ones, under timm's names."""
    given = object_of(vision.source, vision.values, "timm_overrides")
    known = ("img_size", "patch_size", "embed_dim", "depth", "num_heads", "ref_feat_shape")
    if given.keys() - set(known):
        raise vision.refusal("timm_overrides", f"an object of {', '.join(known)}")
    return dict(given)


def _shape(weights: Mapping[str, Tensor], name: str, axes: int) -> tuple[int, ...]:
    """Returns the shape of a weight of timm's that sizes are read from."""
    name = f"visual.trunk.{name}"
    shape = tuple(weights[name].shape) if name in weights else None
    if shape is None or len(shape) != axes or 0 in shape:
        found = "missing" if shape is None else f"of shape {shape}, needs {axes} axes"
        raise CheckpointError(
            f"the weights are not those of {OPEN_CLIP_CONFIG}: {name} is {found}. Fetch the folder "
            "again"
        )
    return shape


def _fit_positions(
    sections: Sections, architecture: Architecture, weights: dict[str, Tensor]
) -> None:
    """Resizes the patches' positions where the configuration asks for another size of pictures."""
    side, patch = architecture.image_size, architecture.patch
    name = "visual.trunk.pos_embed" if sections.trunk else "visual.positional_embedding"
    size = sections.picture_size
    if size not in (None, side, [side, side]):
        raise CheckpointError(
            f"{sections.vision.source} has preprocess_cfg.size {size!r:.80} and "
            f"vision_cfg.image_size {side}: they do not belong together"
        )
    if side < patch:
        raise sections.vision.refusal("image_size", f"at least a patch, {patch} pixels")
    if name not in weights or weights[name].ndim != 2 + bool(sections.trunk):
        return  # the keys are checked later, all at once
    positions = weights[name].float()
    extra = int(architecture.class_token and sections.family != "siglip")
    first, patches = positions[..., :extra, :], positions[..., extra:, :]
    grid, wanted = math.isqrt(patches.shape[-2]), side // patch
    if grid == wanted or grid == 0 or grid**2 != patches.shape[-2]:
        return
    if size is None:
        raise CheckpointError(
            f"{sections.vision.source} has vision_cfg.image_size {side}, but the weights are for "
            f"{grid} x {grid} patches of {patch} pixels: image_size {grid * patch}. To have the "
            f'positions resized to {side} say so in preprocess_cfg, too: "size": {side}'
        )
    picture = patches.reshape(1, grid, grid, -1).permute(0, 3, 1, 2)
    if picture.device.type != "meta":
        picture = functional.interpolate(picture, (wanted, wanted), mode="bicubic", antialias=True)
        patches = picture.permute(0, 2, 3, 1).reshape(*positions.shape[:-2], wanted**2, -1)
        weights[name] = torch.cat([first, patches], dim=-2)
