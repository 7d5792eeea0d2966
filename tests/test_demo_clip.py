import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModel, AutoTokenizer, CLIPModel, CLIPTokenizer

from tools.demo_clip.frames import FrameScene, caption_frames, draw_scenes, frame_scenes, truths_of
from tools.demo_clip.grammar import ORDER_WORDS, vocabulary
from tools.demo_clip.measure import ZeroShot, measure_zero_shot, top_hits
from tools.demo_clip.parts import (
    CONTEXT_LENGTH,
    build_config,
    build_tokenizer,
    learn_merges,
    preprocessor_record,
)
from tools.demo_clip.train import Recipe, info_nce, main, train
from vtr.clip.backbone import Backbone, load_backbone
from vtr.clip.preprocess import Preprocessing, preprocessing_from_config
from vtr.demo import demo_model_folder
from vtr.demo.captions import clip_captions
from vtr.demo.scenes import plan_world, stream
from vtr.demo.words import COLOURS, SHAPES, part_of
from vtr.demo.world import WORLD_SEED, render_world

FOLDER = demo_model_folder()
_SCENES = frame_scenes(300, seed=11, name="tests")


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone(str(FOLDER), device="cpu", route="exact")


# The folder that ships


def test_folder_is_small_and_complete() -> None:
    sizes = {path.name: path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()}
    assert sum(sizes.values()) <= 4 * 1024 * 1024
    assert set(sizes) == {
        "README.md",
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_it_is_a_genuine_transformers_clip() -> None:
    model, report = AutoModel.from_pretrained(FOLDER, dtype=torch.float32, output_loading_info=True)
    assert isinstance(model, CLIPModel)
    assert not any(report.values())
    assert isinstance(AutoTokenizer.from_pretrained(FOLDER), CLIPTokenizer)
    config = model.config
    assert config.text_config.hidden_act == config.vision_config.hidden_act == "quick_gelu"
    assert 0.0 < float(model.logit_scale.detach()) <= math.log(100.0) + 1e-2


def test_config_tokenizer_and_preprocessor_are_those_of_the_script() -> None:
    made = build_config(build_tokenizer()).to_dict()
    shipped = json.loads((FOLDER / "config.json").read_text())
    for part in ("text_config", "vision_config"):
        assert all(
            made[part].get(key) == value or key == "dtype" for key, value in shipped[part].items()
        )
    assert shipped["projection_dim"] == made["projection_dim"]
    assert json.loads((FOLDER / "preprocessor_config.json").read_text()) == preprocessor_record()
    tokenizer = json.loads(build_tokenizer().backend_tokenizer.to_str())
    assert json.loads((FOLDER / "tokenizer.json").read_text())["model"] == tokenizer["model"]


def test_readme_records_the_digest_of_the_weights(backbone: Backbone) -> None:
    recorded = re.findall(r"\b[0-9a-f]{64}\b", (FOLDER / "README.md").read_text())
    assert recorded == [backbone.weights_sha256]


def test_readme_records_the_recipe_that_is_the_default() -> None:
    text = (FOLDER / "README.md").read_text()
    assert "python -m tools.demo_clip.train" in text
    for value in (Recipe().steps, Recipe().batch_size, Recipe().num_frames):
        assert f"{value:,}" in text


# The tokenizer


def test_every_word_of_the_captions_is_one_token() -> None:
    tokenizer = build_tokenizer()
    for word in vocabulary():
        assert len(tokenizer(word)["input_ids"]) == 3, word


def test_no_caption_is_cut(backbone: Backbone) -> None:
    clips = plan_world(WORLD_SEED)
    texts = [text for clip in clips for text in clip_captions(clip, seed=WORLD_SEED)]
    tokens = backbone.tokeniser.encode(texts)
    assert tokens.num_truncated == 0
    assert max(map(len, tokens.ids)) < CONTEXT_LENGTH


@given(st.sets(st.text("abcde", min_size=1, max_size=6), min_size=1, max_size=12))
@settings(max_examples=50, deadline=None)
def test_merges_applied_in_order_leave_one_symbol_per_word(words: set[str]) -> None:
    merges = learn_merges(sorted(words))
    assert len(set(merges)) == len(merges)
    for word in words:
        symbols = [*word[:-1], word[-1] + "</w>"]
        for left, right in merges:
            place = 0
            while place < len(symbols) - 1:
                if symbols[place : place + 2] == [left, right]:
                    symbols[place : place + 2] = [left + right]
                place += 1
        assert symbols == [word + "</w>"]


@pytest.mark.parametrize(
    "text",
    ["", "   ", "ein roter Stern \u2605 \U0001f600", "\x00\x01", "star " * 10_000, "<|endoftext|>"],
)
def test_any_text_has_an_embedding(backbone: Backbone, text: str) -> None:
    embedding = backbone.encode_texts([text]).embeddings
    assert embedding.shape == (1, backbone.embedding_dim)
    assert np.isfinite(embedding).all()
    assert np.abs(embedding).max() > 0


# What it is trained on


def _is_true(text: str, scene: FrameScene) -> bool:
    """A plain reading of a caption, word by word."""
    for new, old in (("disc", "circle"), ("plus", "cross"), ("violet", "purple"), ("big", "large"),
                     ("little", "small"), ("crescent", "moon"), ("dots", "dotted"),
                     ("checkerboard", "checkered"), ("stripes", "striped"), ("clouds", "cloudy"),
                     ("gradient", "shaded"), ("bare", "plain")):  # fmt: skip
        text = re.sub(rf"\b{new}\b", old, text)
    words = text.replace(",", "").split()
    for word in ("dark", "pale"):
        if word in words and scene.tone != word:
            return False
    for word in ("plain", "shaded", "striped", "checkered", "dotted", "cloudy"):
        if word in words and scene.background != word:
            return False
    colours, shapes = "|".join(COLOURS), "|".join(SHAPES)
    named = re.findall(
        rf"\ban? (?:(small|large) )?(?:({colours}) )?(shape|{shapes})\b", text.replace(",", "")
    )
    shown = [(s.size, s.look.colour, s.look.shape) for s in scene.sprites]
    for size, colour, shape in named:
        if not any(
            size in ("", z) and colour in ("", c) and shape in ("shape", s) for z, c, s in shown
        ):
            return False
    alone = re.search(r"nothing|only|empty", text) is not None
    return not (alone and len(shown) != len(named))


def test_scenes_are_of_the_training_part_alone() -> None:
    assert {len(scene.sprites) for scene in _SCENES} == {0, 1, 2}
    for scene in _SCENES:
        for sprite in scene.sprites:
            assert part_of(sprite.look, scene.background) == "train"
    other = frame_scenes(50, seed=11, name="tests", part="val")
    looks = [(s.look, scene.background) for scene in other for s in scene.sprites]
    assert {part_of(look, background) for look, background in looks} == {"val"}


def test_captions_are_true_of_their_frame_and_truths_agree_with_a_plain_reading() -> None:
    texts, claims = caption_frames(_SCENES, stream(5, "captions"))
    truths = claims.hold_in(truths_of(_SCENES))
    plain = np.array([[_is_true(text, scene) for scene in _SCENES] for text in texts])
    assert truths.diagonal().all()
    assert truths.sum() > 1.5 * len(texts), "some captions must be true of several frames"
    np.testing.assert_array_equal(truths, plain)


def test_no_caption_of_a_frame_tells_an_order_and_all_words_are_known() -> None:
    texts, _ = caption_frames(_SCENES * 5, stream(6, "captions"))
    words = {word for text in texts for word in text.replace(",", "").split()}
    assert not words & ORDER_WORDS
    assert words <= set(vocabulary())
    assert {"flashes", "nothing", "violet", "spins", "beside"} <= words


@pytest.fixture(scope="module")
def preprocessing() -> Preprocessing:
    return preprocessing_from_config(FOLDER, route="exact")


def test_pictures_are_the_same_every_time(preprocessing: Preprocessing) -> None:
    first, again, other = (
        draw_scenes(_SCENES[:5], seed=seed, name="x", preprocessing=preprocessing)
        for seed in (1, 1, 2)
    )
    assert first.shape == (5, 48, 48, 3)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


# Training


def test_loss_is_the_mean_of_both_directions_with_shared_positives() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    truths = torch.eye(4, dtype=torch.bool)
    truths[0, 2] = truths[3, 1] = True
    expected = 0.0
    for scores, target in ((logits, truths), (logits.T, truths.T)):
        for row, wanted in zip(scores.tolist(), target.tolist(), strict=True):
            total = math.log(sum(map(math.exp, row)))
            positives = [
                total - score for score, is_true in zip(row, wanted, strict=True) if is_true
            ]
            expected += sum(positives) / len(positives) / 8
    assert info_nce(logits, truths).item() == pytest.approx(expected, rel=1e-12)


def test_script_writes_the_same_weights_twice(tmp_path: Path) -> None:
    recipe = Recipe(text_steps=2, steps=3, batch_size=12, num_frames=20, warmup_steps=1, threads=1)
    outcomes = [train(tmp_path / name, recipe) for name in ("one", "two")]
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert files[0] == files[1]
    assert outcomes[0].loss == outcomes[1].loss
    assert load_backbone(str(tmp_path / "one"), device="cpu").embedding_dim > 0


@pytest.mark.slow
def test_script_takes_its_recipe_from_the_command_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    main(
        [
            str(tmp_path),
            "--text-steps",
            "1",
            "--steps",
            "1",
            "--batch-size",
            "4",
            "--num-frames",
            "4",
            "--threads",
            "1",
        ]
    )
    assert "text_steps=1, steps=1, " in caplog.text
    assert re.search(r"weights_sha256 [0-9a-f]{64}", caplog.text)


# What it can do


def test_top_hits_share_ties_and_count_misses() -> None:
    scores = np.float32([[0.9, 0.1, 0.1], [0.5, 0.5, 0.1], [0.3, 0.2, 0.1], [0.5, 0.5 + 1e-7, 0]])
    hits = top_hits(scores, np.array([0, 1, 1, 0]))
    np.testing.assert_allclose(hits, [1.0, 0.5, 0.0, 0.5])


def _measured(folder: Path, backbone: Backbone, **sizes: int) -> ZeroShot:
    world = render_world(folder, clips_per_group=sizes) if sizes else render_world(folder)  # type: ignore[arg-type]
    return measure_zero_shot(world.annotations, world.videos, backbone)


def test_zero_shot_on_a_small_world(tmp_path: Path, backbone: Backbone) -> None:
    result = _measured(tmp_path, backbone, test=6)
    assert result.num_videos == 18
    assert result.recall_at_1["content"] >= 0.5
    assert result.twin_accuracy == 0.5
    assert result.event_frame_wins >= 0.5


@pytest.mark.slow
def test_zero_shot_on_the_test_split(tmp_path: Path, backbone: Backbone) -> None:
    result = _measured(tmp_path, backbone)
    assert result.num_videos == 180
    assert result.recall_at_1["content"] >= 0.5
    assert result.twin_accuracy == 0.5
    assert result.event_frame_wins >= 0.9
    assert result.recall_with_event_frames >= 2 * result.recall_at_1["brief"]
