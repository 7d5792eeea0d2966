"""Synthetic clips for the benchmarks: made once, the same on every machine with these encoders.

What costs a decoder time must look like what cameras record: textures whose power falls with
frequency (1/f), a camera that pans and zooms, discs that move across, sensor noise, hard cuts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

FPS = 30
_VERSION = 1  # part of the file names: another recipe makes other files
_TEXTURE_MARGIN = 1.6  # textures are larger than the picture, for the camera to move on
_X265 = "pools=2:frame-threads=1:log-level=error"  # fixed: threads change the stream


@dataclass(frozen=True)
class Recipe:
    """One kind of clip.

    Args:
        name: Part of the file name.
        width: In pixels.
        height: In pixels.
        seconds: Length.
        codec: FFmpeg's encoder.
        bits_per_second: Target rate.
        cuts: Number of hard cuts.
        options: For the encoder.
    """

    name: str
    width: int
    height: int
    seconds: int
    codec: str
    bits_per_second: int
    cuts: int = 3
    options: dict[str, str] = field(default_factory=dict, hash=False)

    def path(self, folder: Path, index: int) -> Path:
        """Returns where clip `index` is kept."""
        return folder / f"{self.name}-{index}.v{_VERSION}.mp4"


H264_240 = Recipe("h264-240p", 320, 240, 15, "libx264", 440_000, options={"g": "150"})
H264_720 = Recipe("h264-720p", 1280, 720, 10, "libx264", 2_500_000)
# libx265's own default is open GOPs, where fewer places are safe to start at. Both are measured.
HEVC_720 = Recipe(
    "hevc-720p", 1280, 720, 10, "libx265", 1_800_000, options={"x265-params": f"{_X265}:open-gop=0"}
)
HEVC_720_OPEN = Recipe(
    "hevc-720p-open", 1280, 720, 10, "libx265", 1_800_000, options={"x265-params": _X265}
)
TINY = Recipe("tiny", 64, 48, 2, "libx264", 40_000, cuts=0)


def make_clips(recipe: Recipe, folder: Path, count: int) -> list[Path]:
    """Returns `count` clips of one kind; those that exist are not made again.

    Args:
        recipe: What they are like.
        folder: Where they are kept; made where missing.
        count: How many; clip i is the same whatever the count.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [recipe.path(folder, index) for index in range(count)]
    for index, path in enumerate(paths):
        if not path.exists():
            _write(recipe, index, path)
    return paths


def facts(path: Path) -> dict[str, object]:
    """Returns what a clip turned out to be: counted, not asked of its header."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        keys = [i for i, packet in enumerate(packets) if packet.is_keyframe]
        kilobits = sum(packet.size for packet in packets) * 8 / 1000 / (len(packets) / FPS)
        return {
            "codec": stream.codec_context.name,
            "size": [stream.width, stream.height],
            "frames": len(packets),
            "key_frames": len(keys),
            "longest_gop": int(np.diff([*keys, len(packets)]).max()),
            "unreferenced_share": round(1 - _referenced(path) / len(packets), 2),
            "kilobits_per_second": round(kilobits),
        }


def _referenced(path: Path) -> int:
    """Counts the frames that others may need, as the decoder sees it."""
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.skip_frame = "NONREF"
        return sum(1 for _ in container.decode(video=0))


def _write(recipe: Recipe, index: int, path: Path) -> None:
    unfinished = path.with_suffix(".part")
    with av.open(str(unfinished), "w", format="mp4") as container:
        options = {"preset": "medium", "threads": "2", **recipe.options}
        stream = container.add_stream(recipe.codec, rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = recipe.width, recipe.height, "yuv420p"
        stream.bit_rate = recipe.bits_per_second
        for number, picture in enumerate(_pictures(recipe, index)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    os.replace(unfinished, path)  # noqa: PTH105  (an interrupted run leaves no half clip)


def _pictures(recipe: Recipe, index: int) -> Iterator[NDArray[np.uint8]]:
    """Yields the frames of one clip, (H, W, 3) uint8 RGB."""
    rng = np.random.default_rng([_VERSION, index, recipe.width, recipe.seconds])
    total = recipe.seconds * FPS
    jitter = rng.integers(-FPS, FPS + 1, recipe.cuts)
    borders = [round(total * (i + 1) / (recipe.cuts + 1)) for i in range(recipe.cuts)]
    starts = [0, *(int(border + shift) for border, shift in zip(borders, jitter, strict=True))]
    noise = _noise(recipe, rng)
    for start, stop in zip(starts, [*starts[1:], total], strict=True):
        scene = _Scene(recipe, rng)
        for number in range(start, stop):
            picture = scene.picture((number - start) / FPS)
            rows, columns = rng.integers(0, recipe.height), rng.integers(0, recipe.width)
            grain = noise[rows : rows + recipe.height, columns : columns + recipe.width]
            yield np.clip(picture + grain, 0, 255).astype(np.uint8)


def _noise(recipe: Recipe, rng: np.random.Generator) -> NDArray[np.int16]:
    """Noise of twice the picture's size; every frame takes another part of it."""
    shape = (2 * recipe.height, 2 * recipe.width, 1)
    return np.rint(rng.normal(0, 2.5, shape)).astype(np.int16)


class _Scene:
    """What is between two cuts."""

    def __init__(self, recipe: Recipe, rng: np.random.Generator) -> None:
        self._size = recipe.width, recipe.height
        width, height = (round(_TEXTURE_MARGIN * side) for side in self._size)
        self._texture = Image.fromarray(_texture(height, width, rng))
        self._zoom = rng.uniform(0.7, 0.95), rng.uniform(0.7, 0.95)
        self._path = rng.uniform(0, 1, (2, 2))  # from, to: shares of the room there is
        self._discs = [_Disc(recipe, rng) for _ in range(4)]

    def picture(self, seconds: float) -> NDArray[np.int16]:
        """Returns the frame at a time after the cut; the camera takes 5 s along its path."""
        share = min(seconds / 5, 1.0)
        zoom = self._zoom[0] + share * (self._zoom[1] - self._zoom[0])
        width, height = self._size[0] * zoom * 1.4, self._size[1] * zoom * 1.4
        x, y = self._path[0] + share * (self._path[1] - self._path[0])
        left, top = x * (self._texture.width - width), y * (self._texture.height - height)
        box = (left, top, left + width, top + height)
        view = self._texture.resize(self._size, Image.Resampling.BILINEAR, box=box)
        picture = np.array(view)
        for disc in self._discs:
            disc.paint(picture, seconds)
        return picture.astype(np.int16)


class _Disc:
    """A disc that moves in a straight line and comes back on the other side."""

    def __init__(self, recipe: Recipe, rng: np.random.Generator) -> None:
        self._radius = rng.uniform(0.05, 0.15) * recipe.height
        self._start = rng.uniform(0, 1, 2) * (recipe.width, recipe.height)
        self._speed = rng.uniform(-0.3, 0.3, 2) * recipe.width  # pixels per second
        self._colour = rng.integers(0, 256, 3, dtype=np.uint8)

    def paint(self, picture: NDArray[np.uint8], seconds: float) -> None:
        """Draws itself onto an (H, W, 3) picture."""
        height, width = picture.shape[:2]
        x, y = (self._start + seconds * self._speed) % (width, height)
        reach = int(self._radius) + 1
        rows = slice(max(0, int(y) - reach), int(y) + reach + 1)
        columns = slice(max(0, int(x) - reach), int(x) + reach + 1)
        window = picture[rows, columns]
        down, across = np.ogrid[
            rows.start : rows.start + len(window), columns.start : columns.start + window.shape[1]
        ]
        window[(down - y) ** 2 + (across - x) ** 2 <= self._radius**2] = self._colour


def _texture(height: int, width: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A coloured picture whose amplitude falls as 1/frequency, as in photographs."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    grey, *colours = (
        np.fft.irfft2(
            np.fft.rfft2(rng.standard_normal((height, width))) / frequency, (height, width)
        )
        for _ in range(4)
    )
    layers = [grey / grey.std() + 0.5 * colour / colour.std() for colour in colours]
    return np.clip(128 + 45 * np.stack(layers, axis=-1), 0, 255).astype(np.uint8)


if __name__ == "__main__":
    for kind in (H264_240, H264_720, HEVC_720, HEVC_720_OPEN, TINY):
        (clip,) = make_clips(kind, Path("bench-data"), 1)
        print(json.dumps({"clip": clip.name, **facts(clip)}))
