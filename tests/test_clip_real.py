"""Preprocessing against tensors that OpenAI's own code made from real photographs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vtr.clip.preprocess import Preprocessing, normalise, resize_crop

pytestmark = pytest.mark.real


def vit_b32(route: str) -> Preprocessing:
    return Preprocessing(
        route=route,  # type: ignore[arg-type]
        size=(224, 224),
        resize="shortest-edge",
        resize_to=224,
        resample="bicubic",
        mean=(0.48145466, 0.4578275, 0.40821073),
        std=(0.26862954, 0.26130258, 0.27577711),
    )


@pytest.fixture(scope="module")
def references(real_data: Path) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(name, photograph (H, W, 3) uint8, tensor (3, 224, 224) float32)."""
    folder = real_data / "clip_golden"
    with np.load(folder / "clip_retrieval_vitb32.npz", allow_pickle=False) as golden:
        files = [f"{name}.jpg" for name in golden["names"]]
        tensors = dict(zip(files, golden["image_tensor"], strict=True))
    tensors["franz-kafka.jpg"] = np.load(folder / "expected_preprocessed_image.npy")[0]
    photographs = {name: np.asarray(Image.open(folder / name).convert("RGB")) for name in tensors}
    return [(name, photographs[name], tensor) for name, tensor in tensors.items()]


def test_exact_equals_all_eight_bit_for_bit(
    references: list[tuple[str, np.ndarray, np.ndarray]],
) -> None:
    assert len(references) == 8
    preprocessing = vit_b32("exact")
    for name, photograph, expected in references:
        crop = torch.from_numpy(resize_crop(photograph, preprocessing))
        actual = normalise(crop[None], preprocessing, dtype=torch.float32)[0].numpy()
        np.testing.assert_array_equal(actual, expected, err_msg=name)


def test_fast_is_within_its_bounds_on_photographs(
    references: list[tuple[str, np.ndarray, np.ndarray]],
) -> None:
    differences = []
    for name, photograph, _ in references:
        exact = resize_crop(photograph, vit_b32("exact")).astype(int)
        fast = resize_crop(photograph, vit_b32("fast")).astype(int)
        differences.append(np.abs(fast - exact))
        assert differences[-1].max() <= 2, name
    assert np.mean(differences) <= 0.01
    assert np.max(differences) > 0  # the two routes are not the same code
