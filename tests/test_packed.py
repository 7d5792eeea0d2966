"""Towers laid out for MKL and for oneDNN against the towers that they are copies of."""

from functools import partial
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
from vtr.clip.packed import Linear, OneDnnLinear, PackedLinear, Packing, packed_tower
from vtr.clip.products import has_onednn, laid_out, multiplied
from vtr.clip.towers import Architecture, Sizes, Tower
from vtr.demo import demo_model_folder

LINEARS: dict[str, tuple[bool, Linear]] = {
    "mkl": (torch._C.has_mkl, PackedLinear),
    "onednn": (has_onednn(), OneDnnLinear),
    "onednn, not laid out": (has_onednn(), partial(OneDnnLinear, lays_out=False)),
}
linears = pytest.mark.parametrize("linear", [made for has, made in LINEARS.values() if has])


def same(model: DualEncoder, images: Tensor, linear: Linear) -> None:
    ids = torch.arange(2 * 5).view(2, 5) % 7
    for tower, given in ((model.visual, images), (model.text, ids)):
        assert isinstance(tower, Tower)
        with torch.inference_mode():
            expected, packed = tower(given), packed_tower(tower, linear)
            bound = 2e-6 * float(expected.abs().max())
            for count in (len(given), 1, len(given)):  # as laid out for, others, and so again
                close(packed(given[:count]), expected[:count], atol=bound)
            close(tower(given), expected, atol=0)
        kinds = {type(module) for module in packed.modules()}
        assert kinds & {PackedLinear, OneDnnLinear}
        assert nn.Linear not in kinds


@pytest.mark.parametrize("name", FAMILIES)
@linears
def test_packed_towers_embed_as_before(name: str, linear: Linear, tmp_path: Path) -> None:
    family, changes = FAMILIES[name]
    model = tiny(family, **changes)
    images = pictures(model.config.vision_config.image_size)
    same(load(save(model, tmp_path)), images, linear)


@pytest.mark.parametrize("name", either("pe_core_b", "pe_core_g", *OTHERS))
@linears
def test_packed_towers_of_open_clip_embed_as_before(name: str, linear: Linear) -> None:
    images = pixels(name)
    same(load_golden(golden_folder(name)), torch.cat([images, images.flip(0)])[:3], linear)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("scale", [1.0, 1.702, 1 / 1.702])
@linears
def test_a_packed_product_is_the_plain_one(linear: Linear, bias: bool, scale: float) -> None:
    torch.manual_seed(0)
    layer, values = nn.Linear(96, 160, bias=bias), torch.randn(7, 11, 96)
    with torch.inference_mode():
        packed = linear(layer.weight, layer.bias, scale)
        expected = values @ layer.weight.t() * scale
        if bias:
            expected = expected + layer.bias
        for given in (values, values[:3], values):
            close(packed(given), expected[: len(given)], atol=2e-6)


@pytest.mark.skipif(not has_onednn(), reason="this torch was built without oneDNN")
@pytest.mark.parametrize("num_rows", [16, 100, 256])
@pytest.mark.parametrize("num_columns", [2, 5, 17, 100, 333])
def test_equal_rows_and_columns_have_equal_products(num_rows: int, num_columns: int) -> None:
    torch.manual_seed(0)
    values, matrix = torch.randn(num_rows, 96), torch.randn(num_columns, 96)
    values[num_rows // 2 :], matrix[num_columns // 2 :] = values[0].clone(), matrix[0].clone()
    with torch.inference_mode():
        made = multiplied(values, laid_out(matrix))
        close(made, values.double() @ matrix.double().t(), atol=1e-4)
    for rows in (made, made.t()):
        same = rows[len(rows) // 2 :]
        assert (same == rows[0]).all()


@pytest.mark.skipif(not torch._C.has_mkl, reason="this torch multiplies without MKL")
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
