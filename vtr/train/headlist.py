"""The list of heads: what users may write after `--head`, and the module it stands for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch

from vtr.errors import ConfigError, UnknownNameError
from vtr.plugins import load_plugin, plugin_names
from vtr.train import heads
from vtr.train.clip_text import ClipText
from vtr.train.heads.base import Head, HeadInfo
from vtr.train.options import OptionValue, read_option

REFERENCE_DIM = 512
"""D at which `describe_heads` counts parameters: that of ViT-B/32."""

_PRESET = "preset"


@dataclass(frozen=True)
class HeadChoice:
    """One head with its options, as typed by a user."""

    name: str  # Option name ("seqTransf")
    # Only the options whose value is not the default.
    options: Mapping[str, OptionValue] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The canonical spelling, which `parse_head` reads back to the same choice.

        >>> HeadChoice("seqTransf", {"layers": 2}).label
        'seqTransf:layers=2'
        """
        pairs = [f"{key}={value}" for key, value in sorted(self.options.items())]
        return ":".join([self.name, *pairs])

    @property
    def info(self) -> HeadInfo:
        """What this head needs and offers with these options.

        Where they change it, the head's `Options` have an attribute `info`.
        """
        info: HeadInfo = getattr(self.resolve(), "info", _module(self.name).INFO)
        return info

    def resolve(self) -> Any:
        """Returns the head's `Options`, every field filled in.

        Raises:
            UnknownNameError: No such head.
            ConfigError: A value out of range.
        """
        try:
            return _module(self.name).Options(**self.options)
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
    name, *pairs = text.strip().split(":")
    if not name:
        raise ConfigError(f"--head is empty. Known: {', '.join(head_names())}")
    defaults = head_options(name)
    given: dict[str, OptionValue] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if key != _PRESET and key not in defaults:
            raise UnknownNameError(f"option of head {name!r}", key, [*defaults, *_preset_key(name)])
        if not equals:
            raise ConfigError(f"head option {pair!r} has no value; write {key}=VALUE")
        given |= _preset(name, value) if key == _PRESET else {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        if key != _PRESET:
            given[key] = read_option(name, key, value, type(defaults[key]).__name__)
    changed = {key: value for key, value in given.items() if value != defaults[key]}
    choice = HeadChoice(name, changed)
    choice.resolve()
    return choice


def head_options(name: str) -> dict[str, OptionValue]:
    """Returns the options of a head with their defaults.

    Raises:
        UnknownNameError: No such head.
    """
    return _values(_module(name).Options())


def head_presets(name: str) -> dict[str, dict[str, OptionValue]]:
    """Returns the presets of a head with the options that each sets away from the defaults."""
    defaults = head_options(name)
    presets = getattr(_module(name), "PRESETS", {})
    return {
        preset: {k: v for k, v in _values(options).items() if v != defaults[k]}
        for preset, options in presets.items()
    }


def build_head(choice: HeadChoice, *, dim: int, clip: ClipText | None, seed: int) -> Head:
    """Returns the untrained head, in evaluation mode on the CPU.

    The global random state stays as it was. `Head.origin` says what the weights were drawn or
    copied from.

    Args:
        choice: Head and options.
        dim: D, of the frames' features.
        clip: Weights to start from as the reference does, or None.
        seed: Fixes the random weights.

    Raises:
        UnknownNameError: No such head.
        ConfigError: An option out of range, or one that does not fit D.
    """
    module, options = _module(choice.name), choice.resolve()
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would also reset the generators of the GPUs, which are not forked.
        torch.default_generator.manual_seed(seed)
        try:
            head: Head = module.build(dim, options)
        except ConfigError as error:
            raise ConfigError(f"head {choice.name!r}: {error}") from None
    head.origin = _initialise(module, head, dim, clip)
    return head.eval()


def _initialise(module: ModuleType, head: Head, dim: int, clip: ClipText | None) -> str:
    """Copies what the reference copies from CLIP, if it fits; returns what was done."""
    if not any(True for _ in head.parameters()):
        return "no parameters"
    if not hasattr(module, "initialise"):
        return "random weights, as in the reference"
    if clip is None:
        return "random weights: no CLIP text layers to start from"
    if clip.dim != dim:
        return f"random weights: CLIP's text layers are {clip.dim} wide, the frames' features {dim}"
    note: str | None = module.initialise(head, clip)
    return note or "CLIP's text layers"


@dataclass(frozen=True)
class HeadFacts:
    """What `vtr heads` says of one head with its default options."""

    name: str  # Option name
    summary: str  # First line of its docstring
    needs: tuple[str, ...]  # Of "tokens" (text token embeddings), "order" (of the frames), "pad"
    num_parameters: int  # At D = 512
    cost: str  # Of one text-video pair
    indexable: bool  # Whether a video becomes one vector
    scaled: bool  # Whether the learned logit scale multiplies the score
    options: Mapping[str, OptionValue]  # With their defaults
    presets: Mapping[str, Mapping[str, OptionValue]]  # Name to the options it changes
    source: str  # Paper or repository


def describe_heads() -> list[HeadFacts]:
    """Returns the facts of every head, by name."""
    return [_describe(name) for name in head_names()]


def _describe(name: str) -> HeadFacts:
    module = _module(name)
    info: HeadInfo = module.INFO
    needs = {"tokens": info.needs_tokens, "order": info.needs_order, "pad": info.needs_pad}
    # On the meta device this takes longer: its first random draw imports half of the compiler.
    with torch.random.fork_rng(devices=[]):
        head: Head = module.build(REFERENCE_DIM, module.Options())
    return HeadFacts(
        name=name,
        summary=(module.__doc__ or "").splitlines()[0],
        needs=tuple(need for need, needed in needs.items() if needed),
        num_parameters=sum(parameter.numel() for parameter in head.parameters()),
        cost=info.cost,
        indexable=info.indexable,
        scaled=info.scaled,
        options=head_options(name),
        presets=head_presets(name),
        source=info.source,
    )


def _preset_key(name: str) -> list[str]:
    return [_PRESET] if head_presets(name) else []


def _preset(name: str, preset: str) -> dict[str, OptionValue]:
    presets = head_presets(name)
    if preset not in presets:
        raise UnknownNameError(f"preset of head {name!r}", preset, presets)
    return presets[preset]


def _values(options: Any) -> dict[str, OptionValue]:
    return {item.name: getattr(options, item.name) for item in dataclasses.fields(options)}


def _module(name: str) -> ModuleType:
    return load_plugin(heads, name, kind="head")
