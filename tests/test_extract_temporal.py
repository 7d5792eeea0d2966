"""Extraction with a backbone that sees neighbouring frames: real files, a real tiny CLIP."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import golden, patchwork, write_clip

from tests import test_import_clip_folder as tiny
from vtr.clip.backbone import Backbone, load_backbone
from vtr.clip.folder import write_clip_folder
from vtr.datasets.base import Video
from vtr.errors import ConfigError
from vtr.extract.pipeline import extract
from vtr.extract.samplers.base import parse_samplers
from vtr.extract.settings import ExtractSettings, feature_spec
from vtr.features import FeatureStore
from vtr.features.spec import FeatureSpec

# The test module beside this one that knows the reference's tiny CLIP.

LENGTHS = {"a": 5, "b": 1, "c": 9, "d": 3}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    folder = tmp_path_factory.mktemp("model")
    words = tiny.write_tokeniser(folder / "words", 300)
    write_clip_folder(folder / "clip", tiny.temporal_state(golden("clip_tiny")), tokeniser=words)
    return load_backbone(str(folder / "clip"), device="cpu")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Video, None]]:
    folder = tmp_path_factory.mktemp("videos")
    for seed, (name, num_frames) in enumerate(LENGTHS.items()):
        write_clip(folder / f"{name}.mp4", patchwork(num_frames, seed=seed), fps=1)
    return [(Video(name, folder / f"{name}.mp4"), None) for name in LENGTHS]


SETTINGS = ExtractSettings(
    samplers=parse_samplers("uniform"), num_frames=4, workers=1, storage_dtype="float32"
)


def features(
    folder: Path, videos: list[tuple[Video, None]], backbone: Backbone, **settings: Any
) -> dict[str, np.ndarray]:
    extract(videos, folder, backbone, replace(SETTINGS, **settings))
    store = FeatureStore(folder)
    assert store.spec.linear_patch == "3d"
    return {video_id: np.array(store[video_id].frames) for video_id in store}


@pytest.fixture(scope="module")
def alone(
    videos: list[tuple[Video, None]], backbone: Backbone, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, np.ndarray]:
    """Each video in a shard, and so in a batch, of its own."""
    folder = tmp_path_factory.mktemp("alone")
    return features(folder, videos, backbone, batch_size=64, shard_videos=1)


def test_videos_are_encoded_whole_whatever_the_batches(
    tmp_path: Path,
    videos: list[tuple[Video, None]],
    backbone: Backbone,
    alone: dict[str, np.ndarray],
) -> None:
    counts = {name: len(frames) for name, frames in alone.items()}
    assert counts == {"a": 4, "b": 1, "c": 4, "d": 3}
    together = features(tmp_path, videos, backbone, batch_size=3)
    assert together.keys() == alone.keys()
    for name, frames in alone.items():
        np.testing.assert_allclose(together[name], frames, atol=1e-5, err_msg=name)


def test_frames_encoded_one_by_one_would_be_seen(
    tmp_path: Path,
    videos: list[tuple[Video, None]],
    backbone: Backbone,
    alone: dict[str, np.ndarray],
) -> None:
    class Forgetful:
        """Treats every frame as a clip of its own."""

        device, describe = backbone.device, backbone.describe
        pad_embedding = backbone.pad_embedding

        def encode_frames(self, crops: np.ndarray, *, offsets: Any = None) -> np.ndarray:
            return backbone.encode_frames(crops, offsets=list(range(len(crops) + 1)))

    extract(videos, tmp_path, Forgetful(), SETTINGS)
    single = FeatureStore(tmp_path)["c"].frames
    assert np.abs(alone["c"] - single).max() > 1e-2


@pytest.mark.parametrize("samplers", ["uniform,head", "dense"])
def test_features_fit_one_selection_only(backbone: Backbone, samplers: str) -> None:
    settings = replace(SETTINGS, samplers=parse_samplers(samplers))
    with pytest.raises(ConfigError, match=r"clip \(linear_patch 3d\) sees each frame together"):
        feature_spec(backbone, settings)


def test_the_fingerprint_says_so_and_those_of_other_stores_stay(
    backbone: Backbone, spec: FeatureSpec
) -> None:
    temporal = feature_spec(backbone, SETTINGS)
    assert '"linear_patch":"3d"' in temporal.to_json()
    assert FeatureSpec.from_json(temporal.to_json()) == temporal
    flat = replace(temporal, linear_patch="2d")
    assert flat.fingerprint != temporal.fingerprint
    assert temporal.differences(flat) == [("linear_patch", "3d", "2d")]
    assert "linear_patch" not in spec.to_json()
    assert FeatureSpec.from_json(spec.to_json()) == spec
