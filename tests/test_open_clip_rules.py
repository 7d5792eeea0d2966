"""Every rule of open_clip's towers got wrong on purpose: the goldens see each of them."""

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from open_clip_goldens import (
    FEATURES,
    HELD,
    either,
    golden,
    golden_folder,
    ids,
    load,
    pixels,
    write_resized,
)
from torch import Tensor, nn
from torch.nn import functional

from vtr.clip import towers

pytestmark = pytest.mark.usefixtures("one_thread")


def halves(vectors: Tensor, rope: Tensor) -> Tensor:
    sines, cosines = rope.chunk(2, dim=-1)
    still = vectors.shape[-2] - len(rope)
    patches = vectors[..., still:, :]
    low, high = patches.chunk(2, dim=-1)
    across = torch.cat([-high, low], dim=-1)
    return torch.cat([vectors[..., :still, :], patches * cosines + across * sines], dim=-2)


def class_token_turned(vectors: Tensor, rope: Tensor) -> Tensor:
    return TURN(vectors, torch.cat([rope[:1], rope]))


TURN = towers.turn
Patch = pytest.MonkeyPatch
Wrong = Callable[[Any, Patch], object]


def patch_turn(patch: Patch, other: Callable[[Tensor, Tensor], Tensor]) -> None:
    patch.setattr(towers, "turn", other)
    patch.setattr("vtr.clip.eva.turn", other)


def patch_pool(model: Any, pool: Callable[[Tensor], Tensor]) -> None:
    model.visual.pool = pool


def set_epsilon(tower: nn.Module, epsilon: float) -> None:
    for module in tower.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = epsilon


def set_activation(tower: nn.Module, name: str) -> None:
    for module in tower.modules():
        if isinstance(module, towers.Mlp):
            module.activation = name


def turn_by(model: Any, **changes: Any) -> None:
    model.visual.rope = replace(model.visual.rope, **changes)


def last_end(model: Any) -> None:
    end = model.text.end_id
    model.text._ends = lambda ids: ids.shape[1] - 1 - (ids == end).flip(1).int().argmax(1)


def hide_padding(model: Any, token: int) -> None:
    bias = None

    def run(tokens: Tensor) -> Tensor:
        for block in model.text.blocks:
            tokens = block(tokens, bias=bias)
        return tokens

    def embed(ids: Tensor, before: Callable[[Tensor], Tensor] = model.text.embed) -> Tensor:
        nonlocal bias
        bias = torch.where(ids == token, -1e9, 0.0)[:, None, None, :]
        return before(ids)

    model.text.embed, model.text.run = embed, run


def right_mask(model: Any) -> None:
    def mask(ids: Tensor) -> Tensor:
        length = ids.shape[1] + 1
        seen = torch.ones(length, length, dtype=torch.bool).tril().expand(len(ids), -1, -1).clone()
        seen[:, -1] = functional.pad(ids != 0, (0, 1), value=True)
        return torch.where(seen, 0.0, -torch.inf)[:, None]

    model.text._mask = mask


PERCEPTION: dict[str, tuple[Wrong, float, float]] = {
    "rope by halves": (lambda m, p: patch_turn(p, halves), 0.2, 0),
    "no rope": (lambda m, p: setattr(m.visual, "rope", None), 0.2, 0),
    "rope y before x": (lambda m, p: turn_by(m, columns_first=False), 0.3, 0),
    "no norm before the blocks": (lambda m, p: setattr(m.visual, "ln_pre", nn.Identity()), 0.5, 0),
    "no norm behind them": (lambda m, p: setattr(m.visual, "ln_post", nn.Identity()), 0.5, 0),
    "heads of the pool as of the blocks": (
        lambda m, p: setattr(m.visual.attention_pool.attention, "num_heads", m.visual.sizes.heads),
        0.3,
        0,
    ),
    "latent added": (
        lambda m, p: patch_pool(
            m,
            lambda t: m.visual.projection(
                m.visual.attention_pool(m.visual.ln_post(t)) + m.visual.attention_pool.probe[0]
            ),
        ),
        0.9,
        0,
    ),
    "no bias of the head": (lambda m, p: m.visual.projection.bias.zero_(), 0.2, 0),
    "epsilon of pictures": (lambda m, p: set_epsilon(m.visual, 1e-6), 1e-5, 0),
    "epsilon of texts": (lambda m, p: set_epsilon(m.text, 1e-6), 0, 1e-5),
    "quick GELU of pictures": (lambda m, p: set_activation(m.visual, "quick_gelu"), 5e-3, 0),
    "quick GELU of texts": (lambda m, p: set_activation(m.text, "quick_gelu"), 0, 5e-3),
    "tanh GELU of pictures": (lambda m, p: set_activation(m.visual, "gelu_pytorch_tanh"), 1e-4, 0),
    "tanh GELU of texts": (lambda m, p: set_activation(m.text, "gelu_pytorch_tanh"), 0, 1e-4),
    "texts not causal": (
        lambda m, p: setattr(m.text, "run", functools.partial(towers.Tower.run, Uncausal(m.text))),
        0,
        2,
    ),
    "last end token": (lambda m, p: last_end(m), 0, 1),
}
WITH_CLASS_TOKEN: dict[str, tuple[Wrong, float, float]] = {
    "rope without offset": (lambda m, p: turn_by(m, offset=0), 0.05, 0),
    "class token turned": (lambda m, p: patch_turn(p, class_token_turned), 0.05, 0),
    "pool without the class token": (
        lambda m, p: patch_pool(
            m, lambda t: m.visual.projection(m.visual.attention_pool(m.visual.ln_post(t)[:, 1:]))
        ),
        0.1,
        0,
    ),
    "class token instead of the pool": (
        lambda m, p: patch_pool(m, lambda t: m.visual.projection(m.visual.ln_post(t)[:, 0])),
        1,
        0,
    ),
}
OTHER: dict[str, dict[str, tuple[Wrong, float, float]]] = {
    "eva02_b": {
        "no rope": (lambda m, p: setattr(m.visual, "rope", None), 1, 0),
        "reference ignored": (lambda m, p: turn_by(m, reference=5), 0.3, 0),
        "halves": (lambda m, p: patch_turn(p, halves), 0.5, 0),
        "x before y": (lambda m, p: turn_by(m, columns_first=True), 0.1, 0),
        "epsilon": (lambda m, p: set_epsilon(m.visual, 1e-5), 3e-5, 0),
        "no bias of the head": (lambda m, p: m.visual.projection.bias.zero_(), 0.1, 0),
    },
    "eva02_e": {
        "epsilon": (lambda m, p: set_epsilon(m.visual, 1e-5), 5e-5, 0),
        "norms before": (
            lambda m, p: [setattr(block, "forward", pre_norm(block)) for block in m.visual.blocks],
            0.1,
            0,
        ),
    },
    "siglip": {
        "padding hidden": (lambda m, p: hide_padding(m, 1), 0, 1),
        "epsilon": (lambda m, p: [set_epsilon(t, 1e-5) for t in (m.visual, m.text)], 1e-5, 1e-5),
        "tanh GELU of pictures": (
            lambda m, p: set_activation(m.visual, "gelu_pytorch_tanh"),
            5e-5,
            0,
        ),
        "tanh GELU of texts": (lambda m, p: set_activation(m.text, "gelu_pytorch_tanh"), 0, 5e-5),
    },
    "clipa": {
        "class token in the mean": (
            lambda m, p: patch_pool(m, lambda t: m.visual.projection(m.visual.ln_post(t.mean(1)))),
            0.1,
            0,
        ),
        "norm before the mean": (
            lambda m, p: patch_pool(
                m, lambda t: m.visual.projection(m.visual.ln_post(t)[:, 1:].mean(1))
            ),
            0.5,
            0,
        ),
        "causal": (lambda m, p: setattr(m.text, "run", causal_run(m.text)), 0, 0.5),
    },
    "coca": {"the mask as it was meant": (lambda m, p: right_mask(m), 0, 1)},
}


class Uncausal:
    """A text tower as it is, whose tokens see all."""

    causal = False

    def __init__(self, tower: Any) -> None:
        self._tower = tower

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tower, name)


def causal_run(tower: Any) -> Callable[[Tensor], Tensor]:
    def run(tokens: Tensor) -> Tensor:
        for block in tower.blocks:
            tokens = block(tokens, causal=True)
        return tokens

    return run


def pre_norm(block: Any) -> Callable[..., Tensor]:
    def forward(tokens: Tensor, **_: Any) -> Tensor:
        tokens = tokens + block.attn(block.norm1(tokens))
        return tokens + block.mlp(block.norm2(tokens))

    return forward


def set_activations(model: Any, name: str) -> None:
    set_activation(model.visual, name)
    set_activation(model.text, name)


TABLES: dict[str, dict[str, tuple[Wrong, float, float]]] = {
    "pe_core_b": PERCEPTION | WITH_CLASS_TOKEN,
    "pe_core_g": PERCEPTION,
    "clip_gelu": {"quick GELU": (lambda m, p: set_activations(m, "quick_gelu"), 5e-3, 5e-3)},
    "clip_quickgelu": {"GELU": (lambda m, p: set_activations(m, "gelu"), 5e-3, 5e-3)},
    **OTHER,
}


@pytest.mark.parametrize(
    ("name", "what"),
    [
        pytest.param(name, what, marks=() if name in HELD else pytest.mark.real)
        for name, table in TABLES.items()
        for what in table
    ],
)
def test_a_wrong_rule_is_seen(name: str, what: str, monkeypatch: Patch) -> None:
    wrong, images, texts = TABLES[name][what]
    model = load(golden_folder(name))
    with torch.inference_mode():
        wrong(model, monkeypatch)
        found = model.visual(pixels(name)), model.text(ids(name))
    for value, key, least in zip(found, ("image", "text"), (images, texts), strict=True):
        difference = (value - torch.from_numpy(golden(name)[f"{key}_features"])).abs().max()
        assert float(difference) >= least
        if not least:
            assert float(difference) < FEATURES


@pytest.mark.parametrize("name", either("pe_core_b", "pe_core_g"))
def test_a_wrong_rule_for_other_sizes_is_seen(
    name: str, tmp_path: Path, monkeypatch: Patch
) -> None:
    def difference(model: Any) -> float:
        crops = torch.from_numpy(golden(name)["resized/image_u8"]).permute(0, 3, 1, 2)
        with torch.inference_mode():
            made = model.visual((crops.float() / 255 - 0.5) / 0.5)
        return float((made - torch.from_numpy(golden(name)["resized/image_features"])).abs().max())

    folder = write_resized(tmp_path, name)
    model: Any = load(folder)
    assert difference(model) < FEATURES
    turn_by(model, reference=model.visual.grid)
    assert difference(model) > 0.05
    plain = functional.interpolate
    monkeypatch.setattr(
        functional, "interpolate", lambda *a, **k: plain(*a, **{**k, "antialias": False})
    )
    assert difference(load(folder)) > 0.02
