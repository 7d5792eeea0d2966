"""The options of every verb, one file each: the command line, Python and `vtr.toml` share them."""

from __future__ import annotations

import importlib
from keyword import iskeyword

from vtr import verbs
from vtr.options import plugin_names
from vtr.settings import Settings


def verb_names() -> list[str]:
    """Returns the verbs whose options may stand in a section of `vtr.toml`."""
    return [name.removesuffix("-") for name in plugin_names(verbs)]


def verb_options(verb: str) -> type[Settings]:
    """Returns the model of a verb's options."""
    name = verb.replace("-", "_") + ("_" if iskeyword(verb) else "")
    options: type[Settings] = importlib.import_module(f"vtr.verbs.{name}").Options
    return options
