"""Text towers on the demo's CLIP: tuning starts from the frozen text and leaves it alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vtr.clip.backbone import Backbone, load_backbone
from vtr.demo import demo_model_folder
from vtr.errors import ConfigError
from vtr.train.data import ResidentTexts
from vtr.train.inputs import embed_for
from vtr.train.model import ModelSpec, build_model
from vtr.train.text_tower import text_spec
from vtr.train.texts import TextFeatures, embed_texts

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = [
    "a red circle moves to the left",
    "the blue square",
    "",
    "a green star grows, then a white triangle falls and the screen goes dark",
]


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone(str(demo_model_folder()), device="cpu")


def spec_of(backbone: Backbone, layers: int, head: str = "meanP") -> ModelSpec:
    dim = backbone.embedding_dim
    return ModelSpec(head, dim, text_spec(backbone, "tune", video_dim=dim, layers=layers))


def pooled(model: torch.nn.Module, features: TextFeatures) -> torch.Tensor:
    batch = ResidentTexts(features, torch.device("cpu")).batch(np.arange(len(features)))
    found: torch.Tensor = model.text_tower(batch).pooled  # type: ignore[operator,union-attr]
    return found


@pytest.mark.parametrize("layers", [1, 0])
def test_tuning_starts_from_the_frozen_text(
    backbone: Backbone, layers: int, tmp_path: Path
) -> None:
    spec = spec_of(backbone, layers)
    model = build_model(spec, backbone=backbone)
    frozen = embed_texts(backbone, TEXTS)
    for _ in range(2):  # computed, then read from the cache
        features = embed_for(spec, backbone, TEXTS, cache=tmp_path)
        assert features.tokens is not None
        with torch.no_grad():
            found = pooled(model, features).numpy()
        assert np.allclose(found, frozen.pooled, atol=2e-5, rtol=1e-4)
    assert len(list((tmp_path / "texts").glob("*.float32"))) == 1


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
