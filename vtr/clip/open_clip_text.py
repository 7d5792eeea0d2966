"""The text rules of open_clip's folders: which vocabulary, cleaned how, ended and padded by what.

Ids are checked against those that the family was trained with: another vocabulary has ids for
every text, too. Source: open_clip 3.3.0 tokenizer.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vtr.clip.configuration import Section
from vtr.clip.hub import ModelFolder, has_vocabulary
from vtr.clip.open_clip import read_sections
from vtr.clip.text import (
    BERT,
    TEXT_RULES,
    Tokeniser,
    build_tokeniser,
    clean_canonical,
    clean_clip,
    clean_whitespace,
    text_family,
)
from vtr.errors import CheckpointError

_CLEAN = {"lower": clean_clip, "canonicalize": clean_canonical, "whitespace": clean_whitespace}
# Its separator becomes 0, which is BERT's padding.
_CLIPA = replace(BERT, end=BERT.pad)
_IDS: Mapping[str, Mapping[str, int]] = {
    "siglip": {"end": 1, "padding": 1},
    "siglip2": {"end": 1, "padding": 0},
    "clipa": {"end": 0, "padding": 0},
}


def open_clip_tokeniser(folder: ModelFolder) -> Tokeniser:
    """Returns the vocabulary that lies in the folder, under the rules of its configuration.

    Raises:
        CheckpointError: No vocabulary, or not that of the weights.
    """
    sections = read_sections(folder)
    text, family = sections.text, sections.family
    kwargs = _kwargs(text)
    strips = bool(kwargs.get("strip_sep_token"))
    foreign = text.values["hf_tokenizer_name"] or strips
    clean = kwargs.get("clean", "whitespace" if foreign else "lower")
    if not isinstance(clean, str) or clean not in _CLEAN:
        raise text.refusal("tokenizer_kwargs", f"a clean of {', '.join(_CLEAN)}")
    kind = "clipa" if strips else "clip"
    if not has_vocabulary(folder.path):
        named = text.values["hf_tokenizer_name"]
        whose = f"its configuration names {named!r:.80}" if named else "open_clip brings CLIP's"
        raise CheckpointError(
            f"{folder.model_id}: {folder.path} has no vocabulary (tokenizer.json, or vocab.json "
            f"and merges.txt). {whose}: copy the files from "
            f"{named or 'openai/clip-vit-base-patch32'}"
        )
    if family == "siglip":
        kind = text_family(folder.path, "siglip")
    rules = replace(
        _CLIPA if strips else TEXT_RULES[kind],
        clean=_CLEAN[clean],
        # CLIP's text tower sees nothing behind the end; the others see padding.
        pads_to_full_length=family in ("siglip", "clipa", "coca"),
        name=f"open_clip {clean}",
    )
    vocabulary = text.number("vocab_size")
    tokeniser = build_tokeniser(
        folder.path, rules, max_length=text.number("context_length"), vocab_size=vocabulary
    )
    found = {"begin": tokeniser.bos_id, "end": tokeniser.eos_id, "padding": tokeniser.pad_id}
    plain = {"begin": vocabulary - 2, "end": vocabulary - 1, "padding": 0}
    for name, wanted in _IDS.get(kind, plain).items():
        if found[name] != wanted:
            raise CheckpointError(
                f"{folder.model_id}: the tokeniser's id for {name} is {found[name]}, the weights "
                f"were trained with {wanted}: another vocabulary. Copy the tokeniser's files from "
                "the model's repository"
            )
    return tokeniser


def _kwargs(text: Section) -> Mapping[str, Any]:
    """Returns the tokeniser's settings, all of them known."""
    kwargs = text.values["tokenizer_kwargs"] or {}
    if not isinstance(kwargs, Mapping) or kwargs.keys() - {"clean", "strip_sep_token"}:
        raise text.refusal("tokenizer_kwargs", "clean and strip_sep_token alone")
    return kwargs
