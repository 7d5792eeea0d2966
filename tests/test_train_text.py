"""Text towers on the demo's CLIP: tuning starts from the frozen text and leaves it alone."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vtr.clip.backbone import Backbone
from vtr.errors import ConfigError
from vtr.train.data import ResidentTexts
from vtr.train.heads.base import TextBatch
from vtr.train.heads.blocks import Transformer, key_bias
from vtr.train.model import ModelSpec, build_model
from vtr.train.text_tower import TextMode, TunedText, build_text_tower, load_text_layers, text_spec
from vtr.train.texts import TextFeatures, embed_for, embed_texts

TEXTS = [
    "a red circle moves to the left",
    "the blue square",
    "",
    "a green star grows, then a white triangle falls and the screen goes dark",
]


def spec_of(backbone: Backbone, layers: int, head: str = "meanP") -> ModelSpec:
    dim = backbone.embedding_dim
    return ModelSpec(head, dim, text_spec(backbone, "tune", video_dim=dim, layers=layers))


def pooled(model: torch.nn.Module, features: TextFeatures) -> torch.Tensor:
    batch = ResidentTexts(features, torch.device("cpu")).batch(np.arange(len(features)))
    return model.text_tower(batch).pooled


@pytest.mark.parametrize("layers", [1, 0])
def test_tuning_starts_from_the_frozen_text(
    backbone: Backbone, layers: int, tmp_path: Path
) -> None:
    spec = spec_of(backbone, layers)
    model = build_model(spec, backbone=backbone)
    frozen = embed_texts(backbone, TEXTS)
    for _ in range(2):  # computed, then read from the cache
        features = embed_for(spec, backbone, TEXTS, cache=tmp_path)
        with torch.no_grad():
            found = pooled(model, features).numpy()
        assert np.allclose(found, frozen.pooled, atol=2e-5, rtol=1e-4)
    (file,) = (tmp_path / "texts").glob("*.float32")
    whole = file.read_bytes()
    file.unlink()  # not written over: it is mapped
    file.write_bytes(whole[:99] + bytes([whole[99] ^ 64]) + whole[100:])
    again = embed_for(spec, backbone, TEXTS, cache=tmp_path)
    assert np.array_equal(again.tokens, features.tokens), "damaged ones are made anew"
    assert file.read_bytes() == whole


def test_a_caption_alone_is_what_it_is_among_others(backbone: Backbone) -> None:
    spec = spec_of(backbone, 1)
    model = build_model(spec, backbone=backbone)
    with torch.no_grad():
        together = pooled(model, embed_for(spec, backbone, TEXTS))
        alone = torch.cat([pooled(model, embed_for(spec, backbone, [text])) for text in TEXTS])
    assert torch.allclose(together, alone, atol=1e-5)


def test_gradients_stay_in_the_trained_layers(backbone: Backbone) -> None:
    spec = spec_of(backbone, 1)
    model = build_model(spec, backbone=backbone)
    before = {name: p.clone() for name, p in backbone.model.named_parameters()}
    features = embed_for(spec, backbone, TEXTS)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    pooled(model, features).square().sum().backward()
    optimiser.step()
    assert all(p.grad is not None for p in model.text_tower.parameters())
    after = dict(backbone.model.named_parameters())
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(p.grad is None for p in after.values())
    with torch.no_grad():
        changed = pooled(model, features).numpy()
    assert not np.allclose(changed, embed_texts(backbone, TEXTS).pooled, atol=1e-3)


def test_more_layers_than_there_are_is_refused(backbone: Backbone) -> None:
    with pytest.raises(ConfigError, match=r"--tune-layers is 99; .* allowed are 1 to"):
        spec_of(backbone, 99)


def test_text_of_another_size_is_refused(backbone: Backbone) -> None:
    spec = ModelSpec("meanP", 512, text_spec(backbone, "projection", video_dim=512, dropout=0.1))
    assert embed_for(spec, backbone, TEXTS).pooled.shape[1] == backbone.embedding_dim
    wrong = replace(spec, text=replace(spec.text, text_dim=5))
    with pytest.raises(ConfigError, match=r"the model was trained on 5"):
        embed_for(wrong, backbone, TEXTS)


@pytest.mark.parametrize("mode", ["frozen", "projection", "tune"])
def test_every_text_tower_gives_the_same_numbers_in_double_precision(
    backbone: Backbone, mode: TextMode
) -> None:
    """A causal mask of another type than the query's was silently wrong from 16 tokens on."""
    spec = text_spec(backbone, mode, video_dim=backbone.embedding_dim, layers=2)
    tower = build_text_tower(spec).eval()
    if isinstance(tower, TunedText):
        load_text_layers(tower, backbone)
    width = spec.width or spec.text_dim
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(3, 77, width, generator=generator)
    mask = torch.arange(77) < torch.tensor([77, 30, 2])[:, None]
    texts = TextBatch(torch.randn(3, spec.text_dim, generator=generator), tokens, mask)
    with torch.no_grad():
        expected = tower(texts).pooled
        twice = copy.deepcopy(tower).double()
        for given in (texts, texts.to(torch.float64)):
            found = twice(given).pooled.float()
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        for kind, bound in ((torch.float16, 0.02), (torch.bfloat16, 0.15)):
            half = copy.deepcopy(tower).to(kind)(texts.to(kind)).pooled.float()
            scale = float(expected.abs().max())
            torch.testing.assert_close(half, expected, rtol=0, atol=bound * scale)


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16])
def test_the_backbones_towers_compute_in_every_type(backbone: Backbone, kind: torch.dtype) -> None:
    model = backbone.model
    generator = torch.Generator().manual_seed(1)
    length = backbone.tokeniser.max_length
    ids = torch.randint(3, 50, (2, length), generator=generator)
    ids[0, 9], ids[1, -1] = backbone.tokeniser.eos_id, backbone.tokeniser.eos_id
    size = model.visual.image_size
    pixels = torch.randn(2, 3, size, size, generator=generator)
    other = copy.deepcopy(model).to(kind)
    with torch.no_grad():
        for expected, found in (
            (model.text(ids), other.text(ids)),
            (model.visual(pixels), other.visual(pixels.to(kind))),
        ):
            cosine = torch.nn.functional.cosine_similarity(expected.float(), found.float())
            assert float(cosine.min()) > (1 - 1e-6 if kind == torch.float64 else 0.999)


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("whole", [True, False])
def test_attention_takes_a_mask_of_any_type(kind: torch.dtype, whole: bool) -> None:
    """One row has no valid key at all: its softmax runs over all of them."""
    generator = torch.Generator().manual_seed(1)
    stack = Transformer(32, num_layers=2, num_heads=4).eval()
    tokens = torch.randn(3, 40, 32, generator=generator)
    mask = torch.arange(40) < torch.tensor([40, 17, 40 if whole else 0])[:, None]
    attention: Any = stack.resblocks[0].attn
    with torch.no_grad():
        expected = stack(tokens, mask)
        given = tokens.to(kind)
        found = copy.deepcopy(stack).to(kind)(given, mask).float()
        bias = key_bias(mask[:2])  # float32
        alone = copy.deepcopy(attention).to(kind)(given[:2], bias=bias).float()
    bound = 1e-4 if kind == torch.float64 else 0.3
    assert bool(found.isfinite().all())
    torch.testing.assert_close(found, expected, rtol=0, atol=max(bound, 0.15 * (not whole)))
    torch.testing.assert_close(alone, attention(tokens[:2], bias=bias), rtol=0, atol=bound)
