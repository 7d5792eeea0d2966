"""The reference's tiny CLIP as a transformers folder: its features, in 2d and in 3d.

The arrays are outputs of ArrowLuo/CLIP4Clip@508ffa3 in float32 on the CPU.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import edit_weights, golden, tensors, write_words
from safetensors import safe_open
from torch import Tensor
from torch.nn import functional

from vtr.clip.backbone import Backbone, load_backbone
from vtr.clip.folder import write_clip_folder
from vtr.clip.hub import find_model
from vtr.clip.openai_names import TEMPORAL_WEIGHT
from vtr.clip.preprocess import normalise
from vtr.clip.temporal import follows_in_clip
from vtr.errors import CheckpointError

State = dict[str, Tensor]


def write_tokeniser(folder: Path, size: int) -> Path:
    """A vocabulary of words w0, w1, ... whose ids are their numbers; the last two are special."""
    words = [f"w{number}" for number in range(size - 2)] + ["<|startoftext|>", "<|endoftext|>"]
    return write_words(folder, words, unknown="w0")


def spell(ids: np.ndarray) -> list[str]:
    """Texts that this tokeniser turns into these ids (start, words, end, padding)."""
    rows = [row[1 : row.argmax()] for row in ids]
    return [" ".join(f"w{number}" for number in row) for row in rows]


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return golden("clip_tiny")


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokeniser(tmp_path_factory.mktemp("words"), 300)


@pytest.fixture(scope="module")
def flat_folder(
    arrays: dict[str, np.ndarray], words: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("flat") / "clip"
    write_clip_folder(folder, tensors(arrays, "clip/"), tokeniser=words)
    return folder


@pytest.fixture(scope="module")
def flat(flat_folder: Path) -> Backbone:
    return load_backbone(str(flat_folder), device="cpu")


def temporal_state(arrays: dict[str, np.ndarray], *, initial: bool = False) -> State:
    state = tensors(arrays, "clip/")
    weight = torch.from_numpy(arrays["clip_visual_conv2_weight_perturbed"])
    if initial:
        weight = torch.zeros_like(weight)
        weight[:, :, 1] = state["visual.conv1.weight"]
    return state | {"visual.conv2.weight": weight}


@pytest.fixture(scope="module")
def temporal(
    arrays: dict[str, np.ndarray], words: Path, tmp_path_factory: pytest.TempPathFactory
) -> Backbone:
    folder = tmp_path_factory.mktemp("temporal") / "clip"
    write_clip_folder(folder, temporal_state(arrays), tokeniser=words)
    return load_backbone(str(folder), device="cpu")


def image_features(backbone: Backbone, frames: np.ndarray, offsets: list[int]) -> np.ndarray:
    """What the tower makes of pictures that are normalised already."""
    follows = follows_in_clip(offsets, len(frames))
    with torch.no_grad():
        return backbone._image_features(torch.from_numpy(frames).float(), follows).numpy()


# --- 2d


def test_features_equal_the_reference(flat: Backbone, arrays: dict[str, np.ndarray]) -> None:
    frames = image_features(flat, arrays["frames"], [0, 8])
    np.testing.assert_allclose(frames, arrays["frame_features_2d"], atol=1e-5)
    texts = flat.encode_texts(spell(arrays["ids"]))
    np.testing.assert_allclose(texts.embeddings, arrays["text_features"], atol=1e-5)
    np.testing.assert_allclose(flat.pad_embedding(), arrays["zero_frame_features"][0], atol=1e-5)
    assert flat.logit_scale == pytest.approx(float(arrays["clip/logit_scale"]), abs=1e-6)
    assert not flat.temporal
    assert "linear_patch" not in flat.describe()


def test_the_first_of_two_end_tokens_counts(flat: Backbone, arrays: dict[str, np.ndarray]) -> None:
    with torch.no_grad():
        found = flat.model.text(torch.from_numpy(arrays["ids_two_eot"]))
    np.testing.assert_allclose(found.numpy(), arrays["text_features_two_eot"], atol=1e-5)


def test_the_folder_keeps_half_precision_and_the_transform(flat_folder: Path) -> None:
    with safe_open(flat_folder / "model.safetensors", framework="pt") as file:
        dtypes = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    assert dtypes.pop("logit_scale") == "F32"
    assert set(dtypes.values()) == {"F16"}
    config = json.loads((flat_folder / "config.json").read_text())
    assert config["text_config"]["hidden_act"] == "quick_gelu"
    assert config["text_config"]["num_attention_heads"] == 2
    assert config["vision_config"]["num_attention_heads"] == 1
    found = load_backbone(str(flat_folder), device="cpu").preprocessing
    assert found.size == (32, 32)
    assert found.resize == "shortest-edge"
    assert found.resample == "bicubic"
    assert found.mean == (0.48145466, 0.4578275, 0.40821073)
    assert find_model(str(flat_folder)).model_id == "clip"


def test_another_vocabulary_is_refused(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    state = tensors(arrays, "clip/")
    for size, message in ((299, "ids up to 298 .* table has 300 rows"), (301, "only 300 rows")):
        words = write_tokeniser(tmp_path / str(size), size)
        with pytest.raises(CheckpointError, match=message):
            write_clip_folder(tmp_path / "out", state, tokeniser=words)
    assert not (tmp_path / "out").exists()


# --- 3d


def test_temporal_features_equal_the_reference(
    temporal: Backbone, arrays: dict[str, np.ndarray]
) -> None:
    assert temporal.temporal
    features = image_features(temporal, arrays["frames"], [0, 4, 8])
    np.testing.assert_allclose(features, arrays["frame_features_3d_perturbed"], atol=1e-5)
    assert np.abs(features - arrays["frame_features_2d"]).max() > 0.1


def test_temporal_equals_flat_at_initialisation(
    flat: Backbone, arrays: dict[str, np.ndarray], words: Path, tmp_path: Path
) -> None:
    write_clip_folder(tmp_path / "clip", temporal_state(arrays, initial=True), tokeniser=words)
    initial = load_backbone(str(tmp_path / "clip"), device="cpu")
    features = image_features(initial, arrays["frames"], [0, 4, 8])
    np.testing.assert_allclose(features, arrays["frame_features_3d_init"], atol=1e-5)
    crops = random_crops(5)
    np.testing.assert_allclose(initial.encode_clip(crops), flat.encode_frames(crops), atol=2e-6)


def random_crops(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def plain_temporal(backbone: Backbone, crops: np.ndarray) -> np.ndarray:
    """One clip by torch's own convolution over time, as the reference computes it."""
    pixels = normalise(torch.from_numpy(crops), backbone.preprocessing, dtype=torch.float32)
    vision: Any = backbone.model.visual
    patches = vision.patches
    with torch.no_grad():
        volume = functional.conv3d(
            pixels.transpose(0, 1)[None],
            patches.temporal_weight,
            stride=(1, 8, 8),
            padding=(1, 0, 0),
        )[0].transpose(0, 1)
        hidden = volume.flatten(2).transpose(1, 2)
        first = vision.class_embedding.expand(len(crops), 1, -1)
        tokens = vision.ln_pre(torch.cat([first, hidden], 1) + vision.positions)
        features = vision.pool(vision.run(tokens))
    return features.numpy()


@pytest.mark.parametrize("batch", [1, 2, 3, 16])
def test_clips_never_see_each_other_however_they_are_batched(
    temporal: Backbone, batch: int
) -> None:
    lengths = [3, 1, 0, 5, 2]
    clips = [random_crops(length, seed) for seed, length in enumerate(lengths)]
    expected = [plain_temporal(temporal, clip) for clip in clips if len(clip)]
    offsets = np.cumsum([0, *lengths]).tolist()
    temporal._frames_per_batch, kept = batch, temporal._frames_per_batch
    together = temporal.encode_frames(np.concatenate(clips), offsets=offsets)
    temporal._frames_per_batch = kept
    np.testing.assert_allclose(together, np.concatenate(expected), atol=1e-5)
    alone = temporal.encode_clip(clips[3])
    np.testing.assert_allclose(alone, plain_temporal(temporal, clips[3]), atol=1e-5)


def test_order_and_neighbours_matter(temporal: Backbone) -> None:
    crops = random_crops(3)
    forward, backward = temporal.encode_clip(crops), temporal.encode_clip(crops[::-1])[::-1]
    assert np.abs(forward - backward).max() > 1e-2
    assert np.abs(forward[0] - temporal.encode_clip(crops[:1])[0]).max() > 1e-2


def test_clips_must_be_told_apart(temporal: Backbone, flat: Backbone) -> None:
    crops = random_crops(3)
    with pytest.raises(ValueError, match="say where clips begin"):
        temporal.encode_frames(crops)
    for offsets in ([0, 2], [1, 3], [0, 4, 3], []):
        with pytest.raises(ValueError, match="offsets must rise from 0 to 3"):
            temporal.encode_frames(crops, offsets=offsets)
    assert temporal.encode_clip(crops[:0]).shape == (0, 128)
    np.testing.assert_array_equal(
        flat.encode_frames(crops, offsets=[0, 1, 3]), flat.encode_frames(crops)
    )


def test_a_temporal_store_is_another_store(temporal: Backbone, flat: Backbone) -> None:
    assert temporal.describe()["linear_patch"] == "3d"
    assert temporal.weights_sha256 != flat.weights_sha256


def test_a_misshapen_temporal_weight_is_refused(
    arrays: dict[str, np.ndarray], words: Path, tmp_path: Path
) -> None:
    folder, name = tmp_path / "clip", TEMPORAL_WEIGHT
    write_clip_folder(folder, temporal_state(arrays), tokeniser=words)
    edit_weights(folder, lambda w: w.update({name: w[name][:, :, :2].contiguous()}))
    with pytest.raises(
        CheckpointError,
        match=r"another shape: \S+temporal_weight \(file \(64, 3, 2, 8, 8\), needed \(64, 3, 3,",
    ):
        load_backbone(str(folder), device="cpu")
