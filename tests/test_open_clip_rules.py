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


def turning(other: Callable[[Tensor, Tensor], Tensor]) -> Wrong:
    return lambda _, patch: [patch.setattr(f"vtr.clip.{n}.turn", other) for n in ("towers", "eva")]


def visual(**values: Any) -> Wrong:
    return lambda model, _: [setattr(model.visual, name, v) for name, v in values.items()]


def turned_by(**changes: Any) -> Wrong:
    return lambda model, patch: visual(rope=replace(model.visual.rope, **changes))(model, patch)


def pooling(pool: Callable[[Any, Tensor], Tensor]) -> Wrong:
    """Makes `pool(tower, tokens)` the vectors that are projected."""
    return lambda model, _: setattr(
        model.visual, "pool", lambda tokens: model.visual.projection(pool(model.visual, tokens))
    )


def modules(kind: type[nn.Module], tower: str, **values: Any) -> Wrong:
    """Changes all modules of a kind in one tower, or in the whole model ("")."""

    def change(model: Any, _: Patch) -> None:
        for module in model.get_submodule(tower).modules():
            if isinstance(module, kind):
                for name, value in values.items():
                    setattr(module, name, value)

    return change


def epsilon(tower: str, value: float) -> Wrong:
    return modules(nn.LayerNorm, tower, eps=value)


def activation(tower: str, name: str) -> Wrong:
    return modules(towers.Mlp, tower, activation=name)


def last_end(model: Any, _: Patch) -> None:
    end = model.text.end_id
    model.text._ends = lambda ids: ids.shape[1] - 1 - (ids == end).flip(1).int().argmax(1)


def causal(seen: bool) -> Wrong:
    def run(model: Any, tokens: Tensor) -> Tensor:
        for block in model.text.blocks:
            tokens = block(tokens, causal=seen)
        return tokens

    return lambda model, _: setattr(model.text, "run", functools.partial(run, model))


def hide_padding(model: Any, _: Patch) -> None:
    bias = None

    def run(tokens: Tensor) -> Tensor:
        for block in model.text.blocks:
            tokens = block(tokens, bias=bias)
        return tokens

    def embed(ids: Tensor, before: Callable[[Tensor], Tensor] = model.text.embed) -> Tensor:
        nonlocal bias
        bias = torch.where(ids == 1, -1e9, 0.0)[:, None, None, :]
        return before(ids)

    model.text.embed, model.text.run = embed, run


def right_mask(model: Any, _: Patch) -> None:
    def mask(ids: Tensor) -> Tensor:
        length = ids.shape[1] + 1
        seen = torch.ones(length, length, dtype=torch.bool).tril().expand(len(ids), -1, -1).clone()
        seen[:, -1] = functional.pad(ids != 0, (0, 1), value=True)
        return torch.where(seen, 0.0, -torch.inf)[:, None]

    model.text._mask = mask


def norms_before(model: Any, _: Patch) -> None:
    def forward(block: Any, tokens: Tensor, **_: Any) -> Tensor:
        tokens = tokens + block.attn(block.norm1(tokens))
        return tokens + block.mlp(block.norm2(tokens))

    for block in model.visual.blocks:
        block.forward = functools.partial(forward, block)


def heads_of_the_blocks(model: Any, _: Patch) -> None:
    model.visual.attention_pool.attention.num_heads = model.visual.sizes.heads


def no_bias(model: Any, _: Patch) -> None:
    model.visual.projection.bias.zero_()


Rules = dict[str, tuple[Wrong, float, float]]
PERCEPTION: Rules = {
    "rope by halves": (turning(halves), 0.2, 0),
    "no rope": (visual(rope=None), 0.2, 0),
    "rope y before x": (turned_by(columns_first=False), 0.3, 0),
    "no norm before the blocks": (visual(ln_pre=nn.Identity()), 0.5, 0),
    "no norm behind them": (visual(ln_post=nn.Identity()), 0.5, 0),
    "heads of the pool as of the blocks": (heads_of_the_blocks, 0.3, 0),
    "latent added": (
        pooling(lambda v, t: v.attention_pool(v.ln_post(t)) + v.attention_pool.probe[0]), 0.9, 0,
    ),
    "no bias of the head": (no_bias, 0.2, 0),
    "epsilon of pictures": (epsilon("visual", 1e-6), 1e-5, 0),
    "epsilon of texts": (epsilon("text", 1e-6), 0, 1e-5),
    "quick GELU of pictures": (activation("visual", "quick_gelu"), 5e-3, 0),
    "quick GELU of texts": (activation("text", "quick_gelu"), 0, 5e-3),
    "tanh GELU of pictures": (activation("visual", "gelu_pytorch_tanh"), 1e-4, 0),
    "tanh GELU of texts": (activation("text", "gelu_pytorch_tanh"), 0, 1e-4),
    "texts not causal": (causal(False), 0, 2),
    "last end token": (last_end, 0, 1),
}  # fmt: skip
WITH_CLASS_TOKEN: Rules = {
    "rope without offset": (turned_by(offset=0), 0.05, 0),
    "class token turned": (turning(class_token_turned), 0.05, 0),
    "no class token in the pool": (
        pooling(lambda v, t: v.attention_pool(v.ln_post(t)[:, 1:])), 0.1, 0,
    ),
    "class token instead of the pool": (pooling(lambda v, t: v.ln_post(t)[:, 0]), 1, 0),
}  # fmt: skip
TABLES: dict[str, Rules] = {
    "pe_core_b": PERCEPTION | WITH_CLASS_TOKEN,
    "pe_core_g": PERCEPTION,
    "clip_gelu": {"quick GELU": (activation("", "quick_gelu"), 5e-3, 5e-3)},
    "clip_quickgelu": {"GELU": (activation("", "gelu"), 5e-3, 5e-3)},
    "eva02_b": {
        "no rope": (visual(rope=None), 1, 0),
        "reference ignored": (turned_by(reference=5), 0.3, 0),
        "halves": (turning(halves), 0.5, 0),
        "x before y": (turned_by(columns_first=True), 0.1, 0),
        "epsilon": (epsilon("visual", 1e-5), 3e-5, 0),
        "no bias of the head": (no_bias, 0.1, 0),
    },
    "eva02_e": {
        "epsilon": (epsilon("visual", 1e-5), 5e-5, 0),
        "norms before": (norms_before, 0.1, 0),
    },
    "siglip": {
        "padding hidden": (hide_padding, 0, 1),
        "epsilon": (epsilon("", 1e-5), 1e-5, 1e-5),
        "tanh GELU of pictures": (activation("visual", "gelu_pytorch_tanh"), 5e-5, 0),
        "tanh GELU of texts": (activation("text", "gelu_pytorch_tanh"), 0, 5e-5),
    },
    "clipa": {
        "class token in the mean": (pooling(lambda v, t: v.ln_post(t.mean(1))), 0.1, 0),
        "norm before the mean": (pooling(lambda v, t: v.ln_post(t)[:, 1:].mean(1)), 0.5, 0),
        "causal": (causal(True), 0, 0.5),
    },
    "coca": {"the mask as it was meant": (right_mask, 0, 1)},
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
    turned_by(reference=model.visual.grid)(model, monkeypatch)
    assert difference(model) > 0.05
    plain = functional.interpolate
    monkeypatch.setattr(
        functional, "interpolate", lambda *a, **k: plain(*a, **{**k, "antialias": False})
    )
    assert difference(load(folder)) > 0.02
