"""The list of heads: what users may write after `--head`, and the module it stands for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import nn

from vtr.clip.encoders import DualEncoder
from vtr.errors import ConfigError, UnknownNameError
from vtr.options import (
    NamedChoice,
    OptionValue,
    load_plugin,
    plugin_names,
    read_options,
    split_choice,
    types_of,
)
from vtr.train import heads
from vtr.train.heads.base import Head, HeadInfo

REFERENCE_DIM = 512
"""D at which `describe_heads` counts parameters: that of ViT-B/32."""

_PRESET = "preset"


@dataclass(frozen=True)
class NoOptions:
    """The options of a head that has none."""


class HeadChoice(NamedChoice):
    """One head with its options, as typed by a user."""

    @property
    def info(self) -> HeadInfo:
        """What this head needs and offers with these options."""
        return _class(self.name).info_with(self.resolve())

    def resolve(self) -> Any:
        """Returns the head's `Options`, every field filled in."""
        try:
            return _options(self.name)(**self.options)
        except ConfigError as error:
            raise ConfigError(f"head {self.name!r}: {error}") from None


def head_names() -> list[str]:
    """Returns the names of all heads, sorted."""
    return plugin_names(heads)


def parse_head(text: str) -> HeadChoice:
    """Reads `--head`: a name, then options separated by colons.

    `preset=NAME`, where a head has presets, sets many options at once; others override it.

    >>> parse_head("seqTransf:heads=8:layers=2").label
    'seqTransf:heads=8:layers=2'

    Raises:
        UnknownNameError: No such head, option or preset; the nearest is suggested.
        ConfigError: A value of the wrong type or out of range, or nothing named.
    """
    name, pairs = split_choice(text, head_names(), kind="head")
    defaults, presets = head_options(name), head_presets(name)
    types = types_of(defaults) | ({_PRESET: "str"} if presets else {})
    typed = read_options(pairs, types, owner=("head", name))
    given: dict[str, OptionValue] = {}
    for key, value in typed:
        if key == _PRESET and value not in presets:
            raise UnknownNameError(f"preset of head {name!r}", str(value), presets)
        given |= presets[str(value)] if key == _PRESET else {}
    given |= {key: value for key, value in typed if key != _PRESET}
    changed = {key: value for key, value in given.items() if value != defaults[key]}
    choice = HeadChoice(name, changed)
    choice.resolve()
    return choice


def head_options(name: str) -> dict[str, OptionValue]:
    """Returns the options of a head with their defaults."""
    return _values(_options(name)())


def head_presets(name: str) -> dict[str, dict[str, OptionValue]]:
    """Returns the presets of a head with the options that each sets away from the defaults."""
    defaults = head_options(name)
    presets = getattr(_module(name), "PRESETS", {})
    return {
        preset: {k: v for k, v in _values(options).items() if v != defaults[k]}
        for preset, options in presets.items()
    }


def build_head(
    choice: HeadChoice, *, dim: int, clip: DualEncoder | None = None, seed: int = 0
) -> Head:
    """Returns the untrained head, in evaluation mode on the CPU.

    The global random state stays as it was. `Head.origin` says what the weights were drawn or
    copied from. ConfigError for an option that does not fit D.
    """
    options = choice.resolve()
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would also reset the generators of the GPUs, which are not forked.
        torch.default_generator.manual_seed(seed)
        try:
            head = _class(choice.name)(dim, options)
        except ConfigError as error:
            raise ConfigError(f"head {choice.name!r}: {error}") from None
        head.draw_weights()
    head.origin = _initialise(head, dim, clip)
    return head.eval()


def _initialise(head: Head, dim: int, clip: DualEncoder | None) -> str:
    """Copies what the reference copies from CLIP, if it fits; returns what was done."""
    if not any(True for _ in head.parameters()):
        return "no parameters"
    if type(head).start_from is Head.start_from:
        return "random weights, as in the reference"
    if clip is None or not has_clip_layers(clip):
        return "random weights: no CLIP text layers to start from"
    width = clip.text.positions.shape[1]
    if width != dim:
        return f"random weights: CLIP's text layers are {width} wide, the frames' features {dim}"
    return head.start_from(clip)


def has_clip_layers(model: DualEncoder) -> bool:
    """Returns whether both towers are CLIP's, so that heads may start from the text layers."""
    return bool(model.text.clips) and isinstance(model.visual.projection, nn.Linear)


@dataclass(frozen=True)
class HeadFacts:
    """What `vtr heads` says of one head with its default options."""

    name: str  # Option name
    summary: str  # First line of its docstring
    # Of "tokens" (text token embeddings), "order" (of the frames), "pad", "rerank" (`--rerank N`)
    needs: tuple[str, ...]
    num_parameters: int  # At D = 512
    cost: str  # Of one text-video pair
    indexable: bool  # Whether a video becomes one vector
    index: str  # What of a video an index can hold: `HeadInfo.index`
    scaled: bool  # Whether the learned logit scale multiplies the score
    options: Mapping[str, OptionValue]  # With their defaults
    presets: Mapping[str, Mapping[str, OptionValue]]  # Name to the options it changes
    source: str  # Paper or repository


def describe_heads() -> list[HeadFacts]:
    """Returns the facts of every head, by name."""
    return [_describe(name) for name in head_names()]


def _describe(name: str) -> HeadFacts:
    module = _module(name)
    info = HeadChoice(name).info
    needs = {
        "tokens": info.needs_tokens,
        "order": info.needs_order,
        "pad": info.needs_pad,
        "rerank": info.together,
    }
    # On the meta device this takes longer: its first random draw imports half of the compiler.
    with torch.random.fork_rng(devices=[]):
        head = _class(name)(REFERENCE_DIM, _options(name)())
    return HeadFacts(
        name=name,
        summary=(module.__doc__ or "").splitlines()[0],
        needs=tuple(need for need, needed in needs.items() if needed),
        num_parameters=sum(parameter.numel() for parameter in head.parameters()),
        cost=info.cost,
        indexable=info.indexable,
        index=info.index,
        scaled=info.scaled,
        options=head_options(name),
        presets=head_presets(name),
        source=info.source,
    )


def _values(options: Any) -> dict[str, OptionValue]:
    return {item.name: getattr(options, item.name) for item in dataclasses.fields(options)}


def _class(name: str) -> type[Head]:
    module = _module(name)
    made = [
        one for one in vars(module).values() if getattr(one, "__module__", "") == module.__name__
    ]
    return next(one for one in made if isinstance(one, type) and issubclass(one, Head))


def _options(name: str) -> Any:
    return getattr(_module(name), "Options", NoOptions)


def _module(name: str) -> ModuleType:
    return load_plugin(heads, name, kind="head")
