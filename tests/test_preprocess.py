"""Preprocessing: bit-exact on the exact route, within two grey levels on the fast one."""

import importlib.util
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from builders import run_python
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vtr.clip import aten, resize
from vtr.clip.preprocess import Preprocessing, normalise, preprocessing_from_config, resize_crop
from vtr.errors import CheckpointError, ModelError

GOLDEN = Path(__file__).parent / "golden" / "preprocess.npz"
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}

CLIP_CONFIG = {
    "crop_size": 224,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": list(CLIP_MEAN),
    "image_std": list(CLIP_STD),
    "resample": 3,
    "size": 224,
}
CLIP_CONFIG_NEW = CLIP_CONFIG | {
    "crop_size": {"height": 224, "width": 224},
    "do_convert_rgb": True,
    "do_rescale": True,
    "image_processor_type": "CLIPImageProcessor",
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 224},
    "do_pad": None,
    "device": None,
}
SIGLIP2_CONFIG = {
    "do_convert_rgb": None,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "SiglipImageProcessor",
    "image_std": [0.5, 0.5, 0.5],
    "processor_class": "SiglipProcessor",
    "resample": 2,
    "rescale_factor": 1 / 255,
    "size": {"height": 256, "width": 256},
}


def clip_like(size: int, route: str = "exact", resample: str = "bicubic") -> Preprocessing:
    return Preprocessing(
        route=route,  # type: ignore[arg-type]
        size=(size, size),
        resize="shortest-edge",
        resize_to=size,
        resample=resample,  # type: ignore[arg-type]
        mean=CLIP_MEAN,
        std=CLIP_STD,
    )


def squashed(height: int, width: int, route: str = "exact") -> Preprocessing:
    return Preprocessing(
        route=route,  # type: ignore[arg-type]
        size=(height, width),
        resize="squash",
        resize_to=(height, width),
        resample="bilinear",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )


def picture_of(kind: str, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Pictures from friendly to vicious; `binary` has the strongest overshoot there is."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    if kind == "noise":
        return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if kind == "binary":
        return (rng.integers(0, 2, (height, width, 3)) * 255).astype(np.uint8)
    if kind == "checks":
        return np.repeat(((rows + columns) % 2 * 255)[..., None], 3, axis=2).astype(np.uint8)
    if kind == "edges":
        return np.stack([rows > height // 2, columns > width // 2, rows == columns], 2) * np.uint8(
            255
        )
    waves = [np.sin(rows / 17 + columns / (11 + k) + k) + np.sin(columns / 5) for k in range(3)]
    noise = rng.normal(0, 4, (height, width, 3))
    return np.clip(np.stack(waves, 2) * 60 + 128 + noise, 0, 255).astype(np.uint8)


def whole_then_crop(picture: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Oracle: resize all of it, horizontally and then vertically, and only then crop."""
    height, width = picture.shape[:2]
    target, kernel = preprocessing.resize_to, FILTERS[preprocessing.resample]
    new_width = target if width <= height else int(target * width / height)
    new_height = target if height <= width else int(target * height / width)
    image = Image.fromarray(picture).resize((new_width, height), kernel)
    whole = np.asarray(image.resize((new_width, new_height), kernel))
    top = int(np.round((new_height - preprocessing.size[0]) / 2))  # numpy rounds half to even
    left = int(np.round((new_width - preprocessing.size[1]) / 2))
    return whole[top : top + preprocessing.size[0], left : left + preprocessing.size[1]]


def difference(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.abs(left.astype(int) - right.astype(int))


SIZES = [
    (240, 320), (360, 640), (640, 360), (97, 131), (131, 97), (224, 224), (225, 224), (33, 65),
    (3, 5), (5, 3), (1, 1), (2, 1), (1, 7), (60, 470), (480, 61), (223, 1001),
]  # fmt: skip
KINDS = ["noise", "binary", "checks", "edges", "natural"]


def test_exact_equals_the_reference_transform_bit_for_bit() -> None:
    with np.load(GOLDEN, allow_pickle=False) as golden:
        names = sorted({name.rsplit("/", 1)[0] for name in golden.files})
        assert len(names) == 5
        for name in names:
            picture, expected = golden[f"{name}/rgb"], golden[f"{name}/out"]
            preprocessing = clip_like(expected.shape[-1])
            crop = torch.from_numpy(resize_crop(picture, preprocessing))
            actual = normalise(crop[None], preprocessing, dtype=torch.float32)[0].numpy()
            np.testing.assert_array_equal(actual, expected, err_msg=name)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("resample", ["bicubic", "bilinear"])
def test_exact_equals_resizing_everything_and_cropping(
    height: int, width: int, resample: str
) -> None:
    preprocessing = clip_like(56, resample=resample)
    for kind in KINDS:
        picture = picture_of(kind, height, width)
        actual = resize_crop(picture, preprocessing)
        np.testing.assert_array_equal(actual, whole_then_crop(picture, preprocessing), kind)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    size=st.integers(1, 48),
    kind=st.sampled_from(KINDS),
    resample=st.sampled_from(["bicubic", "bilinear"]),
)
def test_exact_holds_for_any_size(
    height: int, width: int, size: int, kind: str, resample: str
) -> None:
    preprocessing = clip_like(size, resample=resample)
    picture = picture_of(kind, height, width, seed=height * 91 + width)
    actual = resize_crop(picture, preprocessing)
    np.testing.assert_array_equal(actual, whole_then_crop(picture, preprocessing))


@pytest.mark.parametrize("resample", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("height", "width"), [(1, 4096), (4096, 1), (2, 3000), (3000, 3)])
def test_slender_pictures_are_exact_on_both_routes(height: int, width: int, resample: str) -> None:
    picture = picture_of("binary", height, width)
    expected = whole_then_crop(picture, clip_like(24, resample=resample))
    for route in ("exact", "fast"):
        actual = resize_crop(picture, clip_like(24, route, resample))
        np.testing.assert_array_equal(actual, expected)


def test_a_tall_line_needs_little_memory() -> None:
    # Resized as a whole it would be 224 x 917,504: 0.8 GB.
    tracemalloc.start()
    crop = resize_crop(np.full((4096, 1, 3), 77, dtype=np.uint8), clip_like(224))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 50e6
    np.testing.assert_array_equal(crop, np.full((224, 224, 3), 77, dtype=np.uint8))


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("resample", ["bicubic", "bilinear"])
def test_fast_stays_within_two_grey_levels(height: int, width: int, resample: str) -> None:
    for kind in KINDS:
        picture = picture_of(kind, height, width, seed=1)
        exact = resize_crop(picture, clip_like(224, "exact", resample))
        fast = resize_crop(picture, clip_like(224, "fast", resample))
        assert fast.shape == exact.shape == (224, 224, 3)
        assert difference(fast, exact).max() <= 2, kind


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    size=st.sampled_from([16, 32, 96, 224]),
    kind=st.sampled_from(KINDS),
)
def test_fast_stays_within_two_grey_levels_for_any_size(
    height: int, width: int, size: int, kind: str
) -> None:
    picture = picture_of(kind, height, width, seed=height * 301 + width)
    exact = resize_crop(picture, clip_like(size, "exact"))
    assert difference(resize_crop(picture, clip_like(size, "fast")), exact).max() <= 2


@pytest.mark.parametrize(("height", "width"), [(240, 320), (720, 1280), (1280, 720), (360, 480)])
@pytest.mark.parametrize("kind", ["natural", "noise"])
def test_fast_is_within_a_hundredth_of_a_level_on_average(
    height: int, width: int, kind: str
) -> None:
    picture = picture_of(kind, height, width)
    exact = resize_crop(picture, clip_like(224, "exact"))
    assert difference(resize_crop(picture, clip_like(224, "fast")), exact).mean() <= 0.01


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_squash_stretches_to_the_size(height: int, width: int) -> None:
    picture = picture_of("noise", height, width)
    image = Image.fromarray(picture).resize((40, height), Image.Resampling.BILINEAR)
    expected = np.asarray(image.resize((40, 24), Image.Resampling.BILINEAR))
    exact = resize_crop(picture, squashed(24, 40))
    np.testing.assert_array_equal(exact, expected)
    assert difference(resize_crop(picture, squashed(24, 40, "fast")), exact).max() <= 2


def test_the_crop_may_be_smaller_than_the_resize() -> None:
    preprocessing = Preprocessing(
        "exact", (20, 28), "shortest-edge", 33, "bicubic", CLIP_MEAN, CLIP_STD
    )
    picture = picture_of("noise", 50, 70)
    expected = whole_then_crop(picture, preprocessing)
    assert expected.shape == (20, 28, 3)
    np.testing.assert_array_equal(resize_crop(picture, preprocessing), expected)


@pytest.mark.parametrize("route", ["exact", "fast"])
def test_any_memory_layout_is_taken_and_left_alone(route: str) -> None:
    picture = picture_of("noise", 61, 83)
    expected = resize_crop(picture, clip_like(32, route))
    read_only = picture.copy()
    read_only.flags.writeable = False
    view = np.zeros((61, 166, 4), dtype=np.uint8)
    view[:, ::2, :3] = picture
    backwards = picture[:, ::-1].copy()[:, ::-1]
    for variant in (read_only, view[:, ::2, :3], backwards):
        before = variant.copy()
        result = resize_crop(variant, clip_like(32, route))
        np.testing.assert_array_equal(result, expected)
        np.testing.assert_array_equal(variant, before)
        assert result.flags.c_contiguous
        assert result.dtype == np.uint8


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((4, 4, 3), dtype=np.float32),
        np.zeros((4, 4), dtype=np.uint8),
        np.zeros((4, 4, 4), dtype=np.uint8),
        np.zeros((0, 4, 3), dtype=np.uint8),
    ],
    ids=["float", "grey", "alpha", "empty"],
)
def test_other_arrays_are_refused(picture: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"need a uint8 picture \(H, W, 3\)"):
        resize_crop(picture, clip_like(8))


def test_normalise_is_the_reference_arithmetic() -> None:
    levels = np.arange(256, dtype=np.uint8)
    crops = np.stack([levels, levels[::-1], np.roll(levels, 9)], axis=-1).reshape(1, 16, 16, 3)
    mean, std = np.float32(CLIP_MEAN), np.float32(CLIP_STD)
    expected = ((crops.astype(np.float32) / np.float32(255)) - mean) / std
    actual = normalise(torch.from_numpy(crops), clip_like(16), dtype=torch.float32)
    assert actual.is_contiguous()
    np.testing.assert_array_equal(actual.numpy(), expected.transpose(0, 3, 1, 2))
    half = normalise(torch.from_numpy(crops), clip_like(16), dtype=torch.float16)
    torch.testing.assert_close(half, actual.to(torch.float16), rtol=0, atol=0)


def test_worker_imports_stay_light() -> None:
    """Neither route needs Python's torch, nor makes threads of its own in a worker."""
    code = """
import sys
import numpy as np
from vtr.clip.preprocess import Preprocessing, resize_crop
third = (0.5, 0.5, 0.5)
made = {r: Preprocessing(r, (32, 32), "shortest-edge", 32, "bicubic", third, third)
        for r in ("exact", "fast")}
picture = np.zeros((480, 640, 3), dtype=np.uint8)
def threads():
    return [l for l in open("/proc/self/status") if l.startswith("Threads:")][0].split()[1]
before = threads()
for one in made.values():
    resize_crop(picture, one)
assert threads() == before, (threads(), before)
assert not {"torch", "transformers", "huggingface_hub"} & set(sys.modules)
"""
    assert run_python("-c", code).returncode == 0


@given(
    shape=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    resample=st.sampled_from(["bicubic", "bilinear"]),
    seed=st.integers(0, 99),
)
def test_the_c_interface_gives_the_pixels_of_interpolate(
    shape: tuple[int, int], size: tuple[int, int], resample: str, seed: int
) -> None:
    picture = np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)
    held = aten.library()
    found = aten.resize(held, picture, size, resample=resample)
    np.testing.assert_array_equal(found, resize.interpolate(picture, size, resample))


def test_without_the_c_interface_torch_itself_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    expected = resize_crop(picture, clip_like(24, "fast"))
    elsewhere = aten.library.__wrapped__
    with monkeypatch.context() as patched:
        patched.setattr(importlib.util, "find_spec", lambda _: None)  # laid out in another way
        aten.library.cache_clear()
        assert elsewhere() is None
        np.testing.assert_array_equal(resize_crop(picture, clip_like(24, "fast")), expected)
    aten.library.cache_clear()


def test_lack_of_memory_for_a_resized_picture_is_told_as_such() -> None:
    code = """
import resource
import numpy as np
from vtr.clip import aten
held, picture = aten.library(), np.zeros((4000, 4000, 3), np.uint8)
aten.resize(held, picture[:8, :8].copy(), (4, 4), resample="bicubic")
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (8 << 20), used + (8 << 20)))
try:
    aten.resize(held, picture, (3999, 3999), resample="bicubic")
except MemoryError as error:
    print(error)
"""
    done = run_python("-c", code)
    assert done.stdout.strip() == "torch could not resize a picture", done


SPREAD = {"image_mean": [0.48, 0.45, 0.4], "image_std": [0.26, 0.27, 0.28]}


def write_config(folder: Path, record: object, name: str = "preprocessor_config.json") -> Path:
    (folder / name).write_text(json.dumps(record))
    return folder


@pytest.mark.parametrize("record", [CLIP_CONFIG, CLIP_CONFIG_NEW], ids=["old", "new"])
def test_reads_clip_configs(tmp_path: Path, record: dict[str, object]) -> None:
    preprocessing = preprocessing_from_config(write_config(tmp_path, record), route="exact")
    assert preprocessing == clip_like(224)


def test_reads_siglip2_config(tmp_path: Path) -> None:
    assert preprocessing_from_config(write_config(tmp_path, SIGLIP2_CONFIG)) == squashed(
        256, 256, "fast"
    )


def test_reads_the_processor_config_of_transformers_5(tmp_path: Path) -> None:
    record = {"image_processor": CLIP_CONFIG_NEW, "processor_class": "CLIPProcessor"}
    write_config(tmp_path, record, "processor_config.json")
    assert preprocessing_from_config(tmp_path, route="exact") == clip_like(224)


@pytest.mark.parametrize(
    ("kind", "record"),
    [
        # As microsoft/xclip-* has it.
        ("VideoMAE", {"size": 224, "do_center_crop": True, "resample": 2}),
        ("VideoMAE", {"size": {"shortest_edge": 224}}),
        ("CLIP", {"size": 224, "do_center_crop": True}),
        ("CLIP", {"size": {"shortest_edge": 256}}),
        ("CLIP", {"size": {"height": 240, "width": 256}, "do_center_crop": True}),
        ("ChineseCLIP", {"size": {"height": 224, "width": 224}, "do_center_crop": False}),
        ("Siglip", {"size": {"height": 64, "width": 96}}),
    ],
)
def test_what_a_file_does_not_say_is_as_in_transformers(
    tmp_path: Path, kind: str, record: dict[str, object]
) -> None:
    record = {"feature_extractor_type": f"{kind}FeatureExtractor", **SPREAD, **record}
    preprocessing = preprocessing_from_config(write_config(tmp_path, record), route="exact")
    theirs = getattr(transformers, f"{kind}ImageProcessorPil").from_pretrained(tmp_path)
    picture = np.random.default_rng(4).integers(0, 256, (300, 525, 3), np.uint8)
    seen = [[picture]] if kind == "VideoMAE" else picture
    expected = theirs(images=seen, return_tensors="pt")["pixel_values"]
    crop = torch.from_numpy(resize_crop(picture, preprocessing)[None])
    made = normalise(crop, preprocessing, dtype=torch.float32)
    torch.testing.assert_close(made, expected.reshape(made.shape), atol=1e-5, rtol=0)


def test_what_is_cut_of_pictures_of_another_size_before_files_said_so(tmp_path: Path) -> None:
    """X-CLIP of 336 pixels: transformers of today would cut 224 out of them."""
    record = {"size": 336, "do_center_crop": True, "resample": 2, **SPREAD}
    preprocessing = preprocessing_from_config(write_config(tmp_path, record))
    assert (preprocessing.size, preprocessing.resize_to) == ((336, 336), 336)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"do_pad": True}, "unknown settings do_pad; they may change pixels"),
        ({"max_num_patches": 256}, "missing or malformed setting: KeyError\\('patch_size'"),
        ({"max_num_patches": 0, "patch_size": 16}, r"\(0, 16\) is not \(patches up to 4096"),
        ({"max_num_patches": 1 << 20, "patch_size": 16}, "is not .patches up to 4096"),
        ({"do_resize": False}, "do_resize is False; only true"),
        ({"rescale_factor": 1 / 127.5}, "only 1/255 is supported"),
        ({"rescale_factor": 0.0, "rescale_offset": True}, "allowed: a number above 0"),
        ({"resample": 1}, r"resample is 1; supported: 3 \(bicubic\), 2 \(bilinear\)"),
        ({"do_center_crop": False}, "nothing cropped: no fixed size"),
        ({"size": {"longest_edge": 224}}, "is not understood"),
        ({"crop_size": 256}, "shorter side is resized to 224, less than the crop"),
        ({"image_mean": [0.5, 0.5]}, "missing or malformed setting"),
        ({"image_std": None}, "missing or malformed setting"),
        ({"image_std": [0.0, 1.0, 1.0]}, "must be above 0"),
        ({"size": {"height": 200, "width": 256}}, "less than the crop"),
    ],
)
def test_refuses_what_it_cannot_do(tmp_path: Path, change: dict[str, object], message: str) -> None:
    write_config(tmp_path, CLIP_CONFIG_NEW | change)
    with pytest.raises(ModelError, match=message):
        preprocessing_from_config(tmp_path)


def test_missing_and_damaged_configs_say_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no preprocessor_config\.json"):
        preprocessing_from_config(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(CheckpointError, match="is not whole JSON"):
        preprocessing_from_config(tmp_path)
    write_config(tmp_path, [1])
    with pytest.raises(CheckpointError, match="holds a list; needed: an image processor"):
        preprocessing_from_config(tmp_path)


@pytest.mark.parametrize("preprocessing", [clip_like(224, "fast"), squashed(24, 40)])
def test_the_record_survives_json(preprocessing: Preprocessing) -> None:
    record = json.loads(json.dumps(preprocessing.as_dict()))
    assert Preprocessing.from_dict(record) == preprocessing
    with pytest.raises(ModelError, match="record of the preprocessing has unknown 'gamma'"):
        Preprocessing.from_dict(record | {"gamma": 2.2})


def test_the_record_is_checked() -> None:
    with pytest.raises(ModelError, match="route 'quick' is not one of fast, exact"):
        clip_like(8, "quick")
    with pytest.raises(ModelError, match="unknown resample 'nearest'"):
        clip_like(8, resample="nearest")
