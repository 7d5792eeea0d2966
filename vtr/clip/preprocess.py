"""From a decoded picture to what the vision tower sees: resize, crop, scale, normalise.

Two routes, both with the model's own numbers:

- `exact`: Pillow, equal to the reference transform of OpenAI's CLIP bit for bit;
- `fast`: torch's antialiased resize of uint8 pictures in place (channels last), a few times faster,
  within two grey levels of `exact` everywhere and 0.01 on average for natural pictures.

Worker processes import this module: it needs numpy and Pillow only, torch when `fast` first runs.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from vtr.clip.hub import OPEN_CLIP_CONFIG, PROCESSOR_FILES, is_open_clip, read_if_there
from vtr.clip.resize import FILTERS, Filter, resize_window
from vtr.clip.text import require_family
from vtr.errors import CheckpointError, ModelError
from vtr.json_files import as_fields, read_json

if TYPE_CHECKING:
    import torch

Route = Literal["fast", "exact"]
_Triple = tuple[float, float, float]
ROUTES: tuple[Route, ...] = ("fast", "exact")

_MOST_PATCHES = 1 << 12
_MOST_FRAMES = 1 << 10
# By `model_type`: pictures of a window where config.json does not say.
_WINDOWS = {"xclip": 8, "videoprism": 16}

# Keys that say nothing about pixels, or only how transformers moves them about.
_HARMLESS_KEYS = frozenset(
    {
        "image_processor_type", "feature_extractor_type", "processor_class", "default_to_square",
        "do_convert_rgb", "data_format", "input_data_format", "return_tensors", "device",
        "disable_grouping", "_valid_processor_keys", "transformers_version",
        "video_processor_type", "do_sample_frames", "num_frames", "fps", "return_metadata",
    }
)  # fmt: skip
_KNOWN_KEYS = frozenset(
    {
        "do_resize", "do_center_crop", "do_rescale", "do_normalize", "size", "crop_size",
        "resample", "rescale_factor", "image_mean", "image_std",
        "rescale_offset", "include_top", "patch_size", "max_num_patches",
    }
)  # fmt: skip
# Classes of transformers that cut unless they are told not to, and to how many pixels.
_CUTTING = ("CLIP", "ChineseCLIP", "VideoMAE")
_USUAL_CROP = 224
_BILINEAR = ("VideoMAE", "Siglip2")
# OpenAI's transform; the same numbers for all its models.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
# What open_clip makes of a missing key.
_OPEN_CLIP: dict[str, Any] = {
    "mean": CLIP_MEAN, "std": CLIP_STD, "interpolation": "bicubic", "resize_mode": "shortest",
    "size": None, "mode": "RGB", "fill_color": 0,
}  # fmt: skip
_PILLOW_FILTER_NAMES: dict[int, Filter] = {2: "bilinear", 3: "bicubic"}


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the model's input; part of the store's fingerprint."""

    route: Route  # `exact` (Pillow) or `fast` (torch, within two grey levels of it)
    size: tuple[int, int]  # (height, width) in pixels of what the model sees
    # `shortest-edge` keeps the shape of the picture, `squash` stretches it; both crop the centre.
    # `patches` keeps the shape as nearly as whole patches allow: see `to_patches`.
    resize: Literal["shortest-edge", "squash", "patches"]
    # For `shortest-edge` the length in pixels the shorter side gets, for `squash` (height, width);
    # for `patches` (most patches, side of one in pixels).
    resize_to: int | tuple[int, int]
    resample: Filter  # The filter, antialiased in both routes
    mean: tuple[float, float, float]  # Per channel (R, G, B), for values scaled to 0..1
    std: tuple[float, float, float]  # Per channel, above 0
    frames: int = 1  # Pictures that make one embedding: above 1 the model sees windows of a video

    def __post_init__(self) -> None:
        _require(self.route in ROUTES, f"route {self.route!r} is not one of {', '.join(ROUTES)}")
        _require(1 <= self.frames <= _MOST_FRAMES, f"windows of {self.frames} pictures")
        _require(self.resample in FILTERS, f"unknown resample {self.resample!r}")
        _require(
            len(self.size) == 2 and min(self.size) >= 1,
            f"size {self.size} is not (height, width) in pixels",
        )
        _require(len(self.mean) == len(self.std) == 3, "mean and std need three values each")
        _require(min(self.std) > 0, f"std {self.std} must be above 0")
        if self.resize == "squash":
            _require(
                isinstance(self.resize_to, tuple)
                and all(map(int.__ge__, self.resize_to, self.size)),
                f"pictures are resized to {self.resize_to}, less than the crop {self.size}",
            )
        elif self.resize == "patches":
            most, side = self.resize_to if isinstance(self.resize_to, tuple) else (0, 0)
            _require(
                0 < most <= _MOST_PATCHES and self.size == ((most + 1) * side, side),
                f"{self.resize_to} is not (patches up to {_MOST_PATCHES}, pixels)",
            )
        else:
            _require(self.resize == "shortest-edge", f"unknown resize {self.resize!r}")
            _require(
                isinstance(self.resize_to, int) and self.resize_to >= max(self.size),
                f"the shorter side is resized to {self.resize_to}, less than the crop {self.size}",
            )

    def as_dict(self) -> dict[str, Any]:
        """Returns the fields in JSON types (lists for tuples); `frames` where it is not 1."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
            if (name, value) != ("frames", 1)
        }

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Preprocessing:
        """Rebuilds what `as_dict` gave."""
        return as_fields(cls, record, source="the record of the preprocessing", error=ModelError)


def resize_crop(picture: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Returns a picture (H, W, 3) uint8 RGB at the model's size (h, w, 3), still in grey levels.

    It is contiguous, and `picture` itself where nothing changes. The longer side is
    `int(long * resize_to / short)` (truncated) before the crop, the crop's offset is rounded half
    to even: torchvision's rules, which CLIP was trained and is used with.

    Raises:
        ValueError: Not an (H, W, 3) uint8 array, or empty.
    """
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise ValueError(f"need a uint8 picture (H, W, 3), got {picture.dtype} {picture.shape}")
    height, width = picture.shape[:2]
    target = preprocessing.resize_to
    if preprocessing.resize == "patches":
        return to_patches(picture, preprocessing)
    if isinstance(target, tuple):
        resized = target
    elif width <= height:
        resized = int(target * height / width), target
    else:
        resized = target, int(target * width / height)
    rows, columns = preprocessing.size
    top, left = round((resized[0] - rows) / 2), round((resized[1] - columns) / 2)
    window = top, left, rows, columns
    fast = preprocessing.route == "fast"
    return resize_window(picture, resized, window, resample=preprocessing.resample, fast=fast)


def to_patches(picture: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Returns ((patches + 1) * side, side, 3) uint8: a picture's patches, one below the other.

    The first patch says how many rows and columns of patches follow, row by row, as two numbers of
    two bytes; the rest is 0. The grid is the largest of the picture's shape: SigLIP 2 NaFlex, after
    big_vision's `get_image_size_for_seq`.
    """
    assert isinstance(preprocessing.resize_to, tuple)
    most, side = preprocessing.resize_to
    rows, columns = _grid(picture.shape[0], picture.shape[1], most=most, side=side)
    shape, fast = (rows * side, columns * side), preprocessing.route == "fast"
    resized = resize_window(
        picture, shape, (0, 0, *shape), resample=preprocessing.resample, fast=fast
    )
    canvas = np.zeros((most + 1, side, side, 3), np.uint8)
    canvas[0].reshape(-1)[:4] = np.array([rows, columns], "<u2").view(np.uint8)
    patches = resized.reshape(rows, side, columns, side, 3).swapaxes(1, 2)
    canvas[1 : 1 + rows * columns] = patches.reshape(-1, side, side, 3)
    return canvas.reshape(-1, side, 3)


def _grid(height: int, width: int, *, most: int, side: int) -> tuple[int, int]:
    """Returns the rows and columns of patches: the scale is halved down to 0.00001."""
    low, high = 1e-6, 100.0

    def at(scale: float) -> tuple[int, int]:
        rows, columns = (max(1, math.ceil(length * scale / side)) for length in (height, width))
        return rows, columns

    while high - low >= 1e-5:
        middle = (low + high) / 2
        low, high = (middle, high) if math.prod(at(middle)) <= most else (low, middle)
    return at(low)


def read_patches(
    crops: torch.Tensor, preprocessing: Preprocessing
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns what `to_patches` made, apart: of crops (B, (patches + 1) * side, side, 3) uint8.

    (B, patches, side * side * 3) float32, normalised and 0 behind the last; and (B, 2) int64
    rows and columns.
    """
    import torch

    flat = crops.reshape(len(crops), -1, 3 * preprocessing.size[1] ** 2)
    low, high = (flat[:, 0, start:4:2].to(torch.int64) for start in (0, 1))
    shapes = low + 256 * high
    pixels = normalise(crops[:, preprocessing.size[1] :], preprocessing, dtype=torch.float32)
    patches = pixels.permute(0, 2, 3, 1).reshape(len(crops), -1, flat.shape[2])
    places = torch.arange(patches.shape[1], device=crops.device)
    return patches * (places < shapes.prod(1)[:, None])[..., None], shapes


def windows(count: int, frames: int) -> NDArray[np.int64]:
    """Returns (W, k) which of `count` candidates make each window of k: they cover all of them.

    One window after the other; the last begins earlier where the rest is shorter, and a video of
    fewer candidates is one window that repeats its last.

    >>> windows(5, 3).tolist(), windows(2, 3).tolist()
    ([[0, 1, 2], [2, 3, 4]], [[0, 1, 1]])
    """
    starts = np.arange(0, count, frames)
    starts = np.maximum(np.minimum(starts, count - frames), 0)
    places: NDArray[np.int64] = np.minimum(starts[:, None] + np.arange(frames), count - 1)
    return places


def normalise(
    crops: torch.Tensor, preprocessing: Preprocessing, *, dtype: torch.dtype
) -> torch.Tensor:
    """Returns crops (B, h, w, 3) uint8 as (B, 3, h, w): scaled to 0..1, minus mean, over std.

    The arithmetic is float32 in the order of torchvision's ToTensor and Normalize, and equal to
    them bit for bit; only the result is cast to `dtype`.
    """
    import torch

    pixels = crops.permute(0, 3, 1, 2).contiguous().to(torch.float32).div_(255)
    shape = (1, 3, 1, 1)
    mean = torch.tensor(preprocessing.mean, dtype=torch.float32, device=crops.device).view(shape)
    std = torch.tensor(preprocessing.std, dtype=torch.float32, device=crops.device).view(shape)
    return pixels.sub_(mean).div_(std).to(dtype)


def preprocessing_from_config(folder: Path, *, route: Route = "fast") -> Preprocessing:
    """Reads a folder's `preprocessor_config.json` (transformers 5: `processor_config.json`).

    Of open_clip's folders `preprocess_cfg` in open_clip_config.json decides, whatever the family.
    Old spellings are understood (`size: 224`); a key that could change pixels and is not understood
    is refused, never ignored.

    Raises:
        CheckpointError: The file is missing or not JSON.
        ModelError: The file asks for something this package does not do.
    """
    if is_open_clip(folder):
        return _from_open_clip(folder / OPEN_CLIP_CONFIG, route)
    config = read_if_there(folder / "config.json", needed="a transformers model")
    if "model_type" in config:  # before a file is asked for that would help nobody
        require_family(folder, str(config["model_type"]))
    record, path = _read_processor(folder)
    unknown = sorted(
        key
        for key, value in record.items()
        if key not in _KNOWN_KEYS | _HARMLESS_KEYS and value not in (None, False)
    )
    if unknown:
        raise ModelError(
            f"{path}: unknown settings {', '.join(unknown)}; they may change pixels, so vtr does "
            f"not ignore them. Understood: {', '.join(sorted(_KNOWN_KEYS))}"
        )
    for key in ("do_resize", "do_rescale"):
        if record.get(key, True) is not True:
            raise ModelError(f"{path}: {key} is {record[key]!r}; only true is supported")
    try:
        return replace(_from_record(record, route), frames=_window(folder, config))
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: missing or malformed setting: {error!r}") from None
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None


def _window(folder: Path, config: dict[str, Any]) -> int:
    """Returns how many pictures make one embedding: what config.json says of such a family."""
    default = _WINDOWS.get(str(config.get("model_type")))
    vision = config.get("vision_config") or {}
    if default is None:
        return 1
    frames = vision.get("num_frames", default) if isinstance(vision, dict) else vision
    if not isinstance(frames, int) or isinstance(frames, bool):
        raise CheckpointError(
            f"{folder / 'config.json'} has vision_config.num_frames {frames!r:.80}"
        )
    return frames


def _from_open_clip(path: Path, route: Route) -> Preprocessing:
    """Reads `preprocess_cfg`; what it lacks is CLIP's, and the size is that of the tower."""
    record = read_json(path, needed="an open_clip configuration", error=CheckpointError)
    given = record.get("preprocess_cfg") or {}
    model = record.get("model_cfg") or {}
    vision = model.get("vision_cfg") if isinstance(model, dict) else None
    if not isinstance(given, dict) or not isinstance(vision, dict):
        raise CheckpointError(f"{path}: preprocess_cfg or vision_cfg is no object")
    unknown = sorted(given.keys() - _OPEN_CLIP.keys())
    settings = {**_OPEN_CLIP, "size": vision.get("image_size", 224), **given}
    size, resize = settings["size"], settings["resize_mode"]
    size = [size, size] if isinstance(size, int) and not isinstance(size, bool) else size
    for name, fault in (
        (", ".join(unknown), bool(unknown)),
        ("mode", settings["mode"] != "RGB"),
        ("resize_mode", resize not in ("shortest", "squash")),
        ("size", not (isinstance(size, list) and all(isinstance(n, int) for n in size))),
        ("interpolation", settings["interpolation"] not in list(FILTERS)),
        ("mean", not _is_triple(settings["mean"])),
        ("std", not _is_triple(settings["std"])),
    ):
        if fault:
            raise ModelError(
                f"{path}: preprocess_cfg.{name} is {settings.get(name, given)!r:.80}; understood "
                "are mode RGB, resize_mode shortest or squash, interpolation bicubic or bilinear, "
                "mean and std of three numbers, and a size in pixels"
            )
    try:
        return Preprocessing(
            route=route,
            size=(size[0], size[1]),
            resize="squash" if resize == "squash" else "shortest-edge",
            resize_to=(size[0], size[1]) if resize == "squash" else max(size),
            resample=settings["interpolation"],
            mean=_triple(settings["mean"]),
            std=_triple(settings["std"]),
        )
    except (IndexError, TypeError, ValueError, ModelError) as error:
        raise ModelError(f"{path}: preprocess_cfg has a malformed setting: {error}") from None


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ModelError(message)


def _read_processor(folder: Path) -> tuple[dict[str, Any], Path]:
    """The image processor's settings and the file they came from."""
    for name in PROCESSOR_FILES:
        path = folder / name
        if not path.is_file():
            continue
        record = read_json(path, needed="an image processor's settings", error=CheckpointError)
        record = record.get("image_processor") or record.get("video_processor") or record
        if not isinstance(record, dict):
            raise CheckpointError(f"{path} does not hold a JSON object")
        return record, path
    raise CheckpointError(
        f"{folder} has no preprocessor_config.json, so the size, mean and std of its pictures are "
        "unknown. Copy that file from the model's repository"
    )


def _from_record(record: dict[str, Any], route: Route) -> Preprocessing:
    resample = record.get("resample", 2 if _kind(record).startswith(_BILINEAR) else 3)
    if resample not in _PILLOW_FILTER_NAMES:
        raise ModelError(f"resample is {resample!r}; supported: 3 (bicubic), 2 (bilinear)")
    if "max_num_patches" in record:
        return _patches(record, _PILLOW_FILTER_NAMES[resample], route)
    size, crop = record["size"], _crop(record)
    resize: Literal["shortest-edge", "squash"]
    resize_to: int | tuple[int, int]
    if isinstance(size, int) and crop is not None:
        size = {"shortest_edge": size}
    if isinstance(size, dict) and set(size) == {"shortest_edge"}:
        if crop is None:
            raise ModelError("the shorter side is resized but nothing cropped: no fixed size")
        resize, resize_to, final = "shortest-edge", int(size["shortest_edge"]), _pair(crop)
    else:
        resize, resize_to, final = "squash", _pair(size), _pair(size if crop is None else crop)
    mean, std = _scaling(record)
    return Preprocessing(
        route=route,
        size=final,
        resize=resize,
        resize_to=resize_to,
        resample=_PILLOW_FILTER_NAMES[resample],
        mean=mean,
        std=std,
    )


def _kind(record: dict[str, Any]) -> str:
    """Returns transformers' class, whose settings stand where the file says nothing."""
    return str(record.get("image_processor_type") or record.get("feature_extractor_type") or "")


def _crop(record: dict[str, Any]) -> Any:
    """Returns the size that is cut out of a resized picture; None where nothing is cut off.

    What a file does not say is what transformers takes for it. Files from before transformers knew
    a size of the crop (X-CLIP's) resize to one number and cut to the same.
    """
    if not record.get("do_center_crop", _kind(record).startswith(_CUTTING)):
        return None
    size = record["size"]
    return record.get("crop_size", size if isinstance(size, int) else _USUAL_CROP)


def _scaling(record: dict[str, Any]) -> tuple[_Triple, _Triple]:
    """Returns mean and std as if values were scaled to 0..1, whatever the folder scales to.

    ALIGN's and EfficientNet's pictures are scaled by 1/127.5 and moved by -1 before (or instead of)
    mean and std, and may be divided by std once more (`include_top`).
    """
    factor = record.get("rescale_factor", 1 / 255)
    if not isinstance(factor, float) or not 0 < factor <= 1:
        raise ModelError(f"rescale_factor is {factor!r}; allowed: a number above 0, such as 1/255")
    scale = 255 * factor
    if record.get("rescale_offset") is not True and abs(scale - 1) > 1e-6:
        raise ModelError(
            f"rescale_factor is {factor!r}; only 1/255 is supported without rescale_offset"
        )
    if record.get("do_normalize", True):
        mean, std = _triple(record["image_mean"]), _triple(record["image_std"])
    else:
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if not record.get("rescale_offset"):
        return mean, std
    twice = _triple(record["image_std"]) if record.get("include_top", True) else (1.0, 1.0, 1.0)
    moved = [(value + 1) / scale for value in mean]
    return _triple(moved), _triple([a * b / scale for a, b in zip(std, twice, strict=True)])


def _patches(record: dict[str, Any], resample: Filter, route: Route) -> Preprocessing:
    most, side = int(record["max_num_patches"]), int(record["patch_size"])
    mean, std = _scaling(record)
    size = (most + 1) * side, side
    return Preprocessing(route, size, "patches", (most, side), resample, mean, std)


def _pair(size: Any) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    if not isinstance(size, dict) or set(size) != {"height", "width"}:
        raise ModelError(f"size {size!r} is not understood")
    return int(size["height"]), int(size["width"])


def _is_triple(values: Any) -> bool:
    numbers = isinstance(values, list | tuple) and all(type(one) in (int, float) for one in values)
    return numbers and len(values) == 3


def _triple(values: Any) -> _Triple:
    red, green, blue = values
    return float(red), float(green), float(blue)
