"""What other libraries call models that the hub has: answered with the hub's name."""

from __future__ import annotations

import re

_OPENAI = {
    "vit-b-32": "openai/clip-vit-base-patch32",
    "vit-b-16": "openai/clip-vit-base-patch16",
    "vit-l-14": "openai/clip-vit-large-patch14",
    "vit-l-14-336": "openai/clip-vit-large-patch14-336",
}
_LAION = {
    "vit-b-32": "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
    "vit-b-16": "laion/CLIP-ViT-B-16-laion2B-s34B-b88K",
    "vit-l-14": "laion/CLIP-ViT-L-14-laion2B-s32B-b82K",
    "vit-h-14": "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
    "vit-g-14": "laion/CLIP-ViT-g-14-laion2B-s34B-b88K",
    "vit-bigg-14": "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k",
}
_DATACOMP = {name: f"laion/CLIP-ViT-{name[4:].upper()}-DataComp.XL-s13B-b90K" for name in _OPENAI}
HUB_NAMES = (*_OPENAI.values(), *_LAION.values())
"""Models to choose from, for the shell."""
_WEIGHTS = {"": _LAION | _OPENAI, "openai": _OPENAI, "laion": _LAION, "datacomp": _DATACOMP}
_SIGLIP = re.compile(
    r"vit-(?P<size>b|l|so400m|gopt)-(?P<patch>\d\d)-(?P<kind>siglip2?)(-(?P<side>\d{3}))?"
)
_SIZES = {"b": "base", "l": "large", "so400m": "so400m", "gopt": "giant-opt"}
_SIDES = {"l": "256", "gopt": "256"}  # where a name has no size; 224 for the others
_OWNERS = {"clip-vit-": "openai", "siglip": "google"}


def hub_name(name: str) -> str | None:
    """Returns the hub id of a model that OpenAI's package or open_clip calls so, or None.

    >>> hub_name("ViT-B/32"), hub_name("ViT-H-14 laion2b_s32b_b79k")
    ('openai/clip-vit-base-patch32', 'laion/CLIP-ViT-H-14-laion2B-s32B-b79K')
    >>> hub_name("ViT-B-16-SigLIP-384"), hub_name("openai/clip-vit-base-patch32")
    ('google/siglip-base-patch16-384', 'openai/clip-vit-base-patch32')
    """
    name = re.sub(r"^(hf-hub|open_clip|timm):/*", "", name.strip())
    plain = re.sub(r"^(openai|laion|google|clip)[:/]+", "", name.lower())
    listed = [*_OPENAI.values(), *_LAION.values(), *_DATACOMP.values()]
    same = [known for known in listed if plain == known.partition("/")[2].lower()]
    start = next((start for start in _OWNERS if plain.startswith(start)), None)
    if same or (start and "patch" in plain):
        return same[0] if same else f"{_OWNERS[str(start)]}/{plain}"
    words = re.sub(r"[\s,:@]+|/(?!\d)", " ", plain).replace("_", "-").split()
    model, weights = "-".join(re.split(r"[/-]", words[0])) if words else "", " ".join(words[1:])
    if weights in ("336px", "336"):
        model, weights = f"{model}-336", ""
    model = model.removesuffix("px").replace("-quickgelu", "")
    found = _SIGLIP.fullmatch(model)
    if found is not None:
        side = found["side"] or _SIDES.get(found["size"], "224")
        side = "384" if side == "378" else side  # the hub's name of the same weights
        return f"google/{found['kind']}-{_SIZES[found['size']]}-patch{found['patch']}-{side}"
    known = next((_WEIGHTS[key] for key in _WEIGHTS if key and weights.startswith(key)), None)
    return (_WEIGHTS[""] if not weights else known or {}).get(model)
