"""Towers laid out for MKL against the towers that they are copies of."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import close
from open_clip_goldens import OTHERS, either, golden_folder, pixels
from open_clip_goldens import load as load_golden
from test_towers import FAMILIES, load, pictures, save, tiny
from torch import Tensor, nn

from vtr.clip.backbone import load_backbone
from vtr.clip.batches import cpu_batch
from vtr.clip.encoders import DualEncoder
from vtr.clip.packed import PackedLinear, Packing, packed_tower
from vtr.clip.towers import Architecture, Sizes
from vtr.demo import demo_model_folder

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(not torch._C.has_mkl, reason="this torch multiplies without MKL"),
]


def same(model: DualEncoder, images: Tensor) -> None:
    visual: Any = model.visual
    with torch.inference_mode():
        expected, packed = visual(images), packed_tower(visual)
        bound = 2e-6 * float(expected.abs().max())
        for count in (len(images), 2, len(images)):  # as laid out for, others, and so again
            close(packed(images[:count]), expected[:count], atol=bound)
        close(visual(images), expected, atol=0)
    assert any(isinstance(module, PackedLinear) for module in packed.modules())


@pytest.mark.parametrize("name", FAMILIES)
def test_packed_towers_embed_as_before(name: str, tmp_path: Path) -> None:
    family, changes = FAMILIES[name]
    model = tiny(family, **changes)
    same(load(save(model, tmp_path)), pictures(model.config.vision_config.image_size))


@pytest.mark.parametrize("name", either("pe_core_b", "pe_core_g", *OTHERS))
def test_packed_towers_of_open_clip_embed_as_before(name: str) -> None:
    images = pixels(name)
    same(load_golden(golden_folder(name)), torch.cat([images, images.flip(0)])[:3])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("scale", [1.0, 1.702, 1 / 1.702])
def test_a_packed_product_is_the_plain_one(bias: bool, scale: float) -> None:
    torch.manual_seed(0)
    layer, values = nn.Linear(96, 160, bias=bias), torch.randn(7, 11, 96)
    with torch.inference_mode():
        packed = PackedLinear(layer.weight, layer.bias, scale)
        expected = values @ layer.weight.t() * scale
        if bias:
            expected = expected + layer.bias
        for given in (values, values[:3], values):
            close(packed(given), expected[: len(given)], atol=2e-6)


def test_full_batches_are_packed_and_anew_when_weights_change() -> None:
    backbone, packing = load_backbone(str(demo_model_folder()), device="cpu"), Packing(0)
    visual: Any = backbone.model.visual
    assert Packing().choose(visual, is_full=True) is visual, "a toy is left as it is"
    packed = packing.choose(visual, is_full=True)
    assert packed is not visual
    assert packing.choose(visual, is_full=False) is visual
    assert packing.choose(visual, is_full=True) is packed
    with torch.no_grad():
        visual.positions.mul_(2)
    assert packing.choose(visual, is_full=True) not in (visual, packed)
    visual.requires_grad_(True)
    assert packing.choose(visual, is_full=True) is visual, "nothing could be trained through it"


def test_what_a_backbone_embeds_does_not_depend_on_how_much_came_before() -> None:
    backbone, other = (load_backbone(str(demo_model_folder()), device="cpu") for _ in range(2))
    backbone._packing, other._packing = Packing(0), Packing(0)
    side = backbone.preprocessing.size[0]
    crops = np.random.default_rng(0).integers(0, 256, (150, side, side, 3), np.uint8)
    made = backbone.encode_frames(crops)
    for start in (0, 48, 96):
        np.testing.assert_array_equal(made[start:], other.encode_frames(crops[start:]))
    np.testing.assert_allclose(made[:5], backbone.encode_frames(crops[:5]), rtol=0, atol=2e-5)
    with torch.no_grad():
        for weight in backbone.model.visual.parameters():
            weight.zero_()
    assert not backbone.encode_frames(crops).any(), "tuned towers are not the ones laid out"


@pytest.mark.parametrize(
    ("side", "patch", "width", "expected"),
    [
        (224, 32, 3072, 16),
        (224, 16, 3072, 10),
        (224, 14, 4096, 6),
        (336, 14, 4096, 2),
        (0, 0, 0, 16),
    ],
)
def test_a_batch_on_a_cpu_fits_its_widest_tensor_into_kept_memory(
    side: int, patch: int, width: int, expected: int
) -> None:
    tower = Sizes(width, 1, 1, width, "gelu", 1e-5)
    assert cpu_batch(Architecture("clip", tower, tower, 8, side, patch, 9, 9, 2)) == expected
