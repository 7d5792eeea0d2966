"""The models that are known by a short name: `models.toml`, beside this file."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class KnownModel:
    """What is known of a published model; None where no source at hand says it."""

    hub: str
    """OWNER/NAME."""
    family: str
    """`model_type` of its config.json, or `open_clip`."""
    dim: int | None = None
    """D of the shared space."""
    pixels: int | None = None
    """Side of the pictures; 0 where each keeps its shape."""
    context: int | None = None
    """Tokens of a text."""
    languages: str | None = None
    licence: str | None = None
    r1: float | None = None
    """Text to video R@1 in % of MSR-VTT 1k-A, without training."""
    source: str | None = None
    """Where `r1` stands."""
    frames: int = 1
    """Pictures that make a vector: above 1, rows of a store are windows of a video."""


@cache
def known_models() -> dict[str, KnownModel]:
    """Returns the models by short name, in the order of `vtr models`.

    >>> known_models()["pe-core-b16"].hub
    'timm/PE-Core-B-16'
    """
    table = tomllib.loads(files("vtr.clip").joinpath("models.toml").read_text(encoding="utf-8"))
    rows: dict[str, dict[str, Any]] = table["models"]
    sources = {None: None, **table["sources"]}
    return {
        name: KnownModel(**{**row, "source": sources[row.get("source")]})
        for name, row in rows.items()
    }


def resolve_model(model: str) -> str:
    """Returns the hub id of a short name; a folder or any other name as it is.

    >>> resolve_model("siglip2-b16"), resolve_model("openai/clip-vit-base-patch32")
    ('google/siglip2-base-patch16-224', 'openai/clip-vit-base-patch32')
    """
    known = known_models().get(model.lower())
    return model if known is None or Path(model).is_dir() else known.hub


def nearest_name(model: str) -> str | None:
    """Returns the short name that is most like another, or None where none is."""
    near = difflib.get_close_matches(model.lower(), known_models(), n=1, cutoff=0.6)
    return near[0] if near else None
