"""The chosen frames of one video: every sampler asked for, one pass over the file.

This is the job of a decoding worker (`make_handler`): one video in, its frames out as uint8 crops.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from vtr.clip.preprocess import Preprocessing, resize_crop, windows
from vtr.datasets.base import Video
from vtr.errors import ConfigError, DecodeError
from vtr.extract.answers import SampledVideo, answer
from vtr.extract.bitstream import UnprovenError
from vtr.extract.container import (
    FFMPEG_ERRORS,
    VideoSource,
    check_size,
    failure,
    header_rate,
    open_video,
)
from vtr.extract.frames import Picture, Upright, to_luma, to_rgb, upright
from vtr.extract.limits import Limits
from vtr.extract.packets import PacketTable
from vtr.extract.readers import FullReader, SparseReader
from vtr.extract.resume import file_facts
from vtr.extract.samplers.base import SamplerChoice, Signals
from vtr.extract.settings import ExtractSettings
from vtr.extract.timeline import (
    Indices,
    Seconds,
    candidate_indices,
    check_rate,
    check_window,
    duration_seconds,
    window_spans,
)
from vtr.extract.worker import Answer
from vtr.foreign import shown
from vtr.remote import fetched

Reader = SparseReader | FullReader
Transform = Callable[[Picture], NDArray[Any]]


@dataclass(frozen=True)
class FrameRequest:
    """Which frames of which video."""

    path: Path | str  # The file
    video_id: str  # The video's name; with the seed it fixes random samplers
    choices: tuple[SamplerChoice, ...]  # The samplers, each of which gets its own selection
    num_frames: int  # The budget K of each sampler, at least 1
    candidate_fps: float | None = 1.0  # Candidates per second; None is the native rate, every frame
    candidate_jitter: float = 0.0  # See `candidate_indices`
    start_seconds: float | None = None  # Start of the window after the first frame, if not that
    end_seconds: float | None = None  # Its end, exclusive, if not that of the video
    seed: int = 0  # Run seed
    limits: Limits = field(default_factory=Limits)  # What the video may cost
    keep_luma: bool = False  # Make thumbnails even where no sampler asks for them
    window: int = 1  # Candidates that make what is chosen, one after the other

    def __post_init__(self) -> None:
        check_rate(self.candidate_fps)
        check_window(self.start_seconds, self.end_seconds)
        if not self.choices:
            raise ConfigError("no sampler was asked for; name at least one, such as 'uniform'")
        if self.num_frames < 1:
            raise ConfigError(f"--frames is {self.num_frames}; at least 1 frame is needed")

    @property
    def needs_luma(self) -> bool:
        """Whether thumbnails are made: a sampler compares pictures, or they are to be kept."""
        return self.keep_luma or any("luma" in choice.needs for choice in self.choices)

    @property
    def takes_all(self) -> bool:
        """Whether every candidate is chosen, whatever the other samplers say."""
        return any(choice.name == "dense" for choice in self.choices)

    def candidates(self, pts_seconds: Seconds) -> Indices:
        """Returns the (N,) candidates of a timeline as indices into it."""
        return candidate_indices(
            pts_seconds,
            fps=self.candidate_fps,
            jitter=self.candidate_jitter,
            start_seconds=self.start_seconds,
            end_seconds=self.end_seconds,
        )

    def select(self, signals: Signals) -> dict[str, Indices]:
        """Returns each sampler's choice among the candidates, by its label."""
        drawn: dict[str, Any] = {"seed": self.seed, "video_id": self.video_id}
        return {one.label: one.select(signals, self.num_frames, **drawn) for one in self.choices}


def sample_video(request: FrameRequest, transform: Transform) -> SampledVideo:
    """Decodes a video once for all samplers of the request.

    `transform` is called once per chosen frame with its upright (H, W, 3) uint8 RGB picture; it
    must give one shape and dtype, whatever the size of the picture.

    Raises:
        DecodeError: No frame could be had; see `vtr.extract.limits.FAILURES`.
    """
    with open_video(request.path, limits=request.limits) as source:
        table = PacketTable(source)
        try:
            return _sample(request, transform, source, SparseReader(table))
        except UnprovenError as reason:
            # The sparse reader may have left the open decoder anywhere in the file.
            fresh = not source.stream.codec_context.is_open
            reader = FullReader(table, why=str(reason), fresh=fresh)
            return _sample(request, transform, source, reader)


def _sample(
    request: FrameRequest, transform: Transform, source: VideoSource, reader: Reader
) -> SampledVideo:
    """Runs the passes over the file: mostly one, a second for what the first did not keep."""
    look_first = request.needs_luma and not request.takes_all
    visitor = _Visitor(source, transform, luma=request.needs_luma, keep_frames=look_first)
    guess = request.candidates(reader.pts_seconds)
    if not request.needs_luma and len(guess):
        groups = windows(len(guess), request.window)
        seen = Signals(reader.pts_seconds[guess[_middle(groups)]])
        guess = guess[np.unique(groups[_union(request.select(seen))])]
    reader.read(guess, visitor)

    pts = reader.pts_seconds
    candidates = request.candidates(pts)
    if not len(candidates):
        raise DecodeError("no-frames", _empty_window(request, pts))
    groups = windows(len(candidates), request.window)
    shown_by = candidates[_middle(groups)]
    luma = visitor.all_luma(reader, shown_by) if request.needs_luma else None
    signals = Signals(pts[shown_by], luma)
    chosen = request.select(signals)
    union = _union(chosen)
    rows, place = np.unique(candidates[groups[union]], return_inverse=True)
    crops = visitor.all_crops(reader, rows)
    trouble = reader.damage or (reader.cut if _reaches_end(request, pts) else "")
    width, height = visitor.size
    lasts = duration_seconds(pts, rate=header_rate(source.stream))
    times, spans = pts[rows], None
    if request.window > 1:
        end = pts[0] + min(lasts, request.end_seconds or math.inf)
        spans = window_spans(pts[candidates], groups[union], end_seconds=float(end))
        times, crops = spans.mean(axis=1), crops[place.reshape(len(union), -1)]
    return SampledVideo(
        crops=crops,
        pts_seconds=times,
        selections={label: np.searchsorted(union, picks) for label, picks in chosen.items()},
        signals=signals,
        status="partial" if trouble else "ok",
        error=shown(trouble),
        width=width,
        height=height,
        duration_seconds=lasts,
        start_seconds=float(pts[0]),
        decode_route=reader.route,
        spans=spans,
    )


class _Visitor:
    """Turns visited frames into what is needed of them, once each.

    With `luma` that is a thumbnail of each. With `keep_frames` frames are kept while the budget
    lasts, for samplers that look before they choose; else crops are made at once.
    """

    def __init__(
        self, source: VideoSource, transform: Transform, *, luma: bool, keep_frames: bool
    ) -> None:
        self._source = source
        self._transform = transform
        self._makes_luma = luma
        self._looking = keep_frames
        self._budget = source.limits.max_frame_bytes
        self._turn: Upright | None = None
        self._luma: dict[int, Picture] = {}
        self._frames: dict[int, VideoFrame] = {}
        self._crops: dict[int, NDArray[Any]] = {}
        self.size = (0, 0)

    def __call__(self, key: int, frame: VideoFrame) -> None:
        if self._turn is None:
            self._turn = upright(frame, self._source.pixel_shape)
            self.size = self._turn.size(frame)
            check_size(*self.size, self._source.limits)
        if self._makes_luma and key not in self._luma:
            self._luma[key] = self._converted(to_luma, frame)
        if not self._looking:
            self._crops[key] = self._transform(self._converted(to_rgb, frame))
            return
        size = sum(plane.buffer_size for plane in frame.planes)
        if size <= self._budget:
            # PyAV counts references: the decoder takes a new buffer instead of reusing this one.
            self._budget -= size
            self._frames[key] = frame

    def all_luma(self, reader: Reader, indices: Indices) -> Picture:
        """Returns the (N, 32, 32) thumbnails, decoding again for those not seen yet."""
        keys = reader.keys(indices)
        missing = [index for index, key in zip(indices, keys, strict=True) if key not in self._luma]
        if missing:
            reader.read(np.array(missing), self)
        return _stacked(self._luma, keys.tolist())

    def all_crops(self, reader: Reader, indices: Indices) -> NDArray[Any]:
        """Returns the (R, ...) crops, decoding again for frames neither cropped nor kept."""
        self._looking = False
        keys = reader.keys(indices).tolist()
        missing = []
        for index, key in zip(indices.tolist(), keys, strict=True):
            if key in self._frames:
                self(key, self._frames.pop(key))
            elif key not in self._crops:
                missing.append(index)
        self._frames.clear()
        if missing:
            reader.read(np.array(missing), self)
        return _stacked(self._crops, keys)

    def _converted(
        self, convert: Callable[[VideoFrame, Upright], Picture], frame: VideoFrame
    ) -> Picture:
        assert self._turn is not None
        try:
            return convert(frame, self._turn)
        except FFMPEG_ERRORS as error:
            raise failure(error, self._source.log) from None


def _stacked(found: Mapping[int, NDArray[Any]], keys: list[int]) -> NDArray[Any]:
    if any(key not in found for key in keys):
        raise DecodeError("decode-error", "the file changed while it was read")
    return np.stack([found[key] for key in keys])


def _middle(groups: Indices) -> Indices:
    """Returns (W,) the candidate that stands for each window."""
    return groups[:, groups.shape[1] // 2]


def _union(chosen: Mapping[str, Indices]) -> Indices:
    return np.unique(np.concatenate(list(chosen.values())))


def _empty_window(request: FrameRequest, pts_seconds: Seconds) -> str:
    start, end = check_window(request.start_seconds, request.end_seconds)
    length = duration_seconds(pts_seconds)
    window = f"{start:g} s to {end:g} s" if request.end_seconds is not None else f"from {start:g} s"
    return f"the window {window} holds no frame; the video lasts {length:.2f} s"


def _reaches_end(request: FrameRequest, pts_seconds: Seconds) -> bool:
    """Whether the window goes on to where the frames end, so that missing ones matter to it."""
    end = request.end_seconds
    return end is None or float(pts_seconds[-1] - pts_seconds[0]) < end


# ---- the job of a worker


def make_handler(config: tuple[ExtractSettings, Mapping[str, Any]]) -> Callable[[Video], Answer]:
    """Returns the job handler of a worker, of settings and preprocessing as JSON values."""
    settings, preprocessing = config[0], Preprocessing.from_dict(dict(config[1]))
    # Loads and allocates what the first resize does before the memory limit is set.
    resize_crop(np.zeros((8, 8, 3), np.uint8), preprocessing)

    def handle(video: Video) -> Answer:
        # The facts first: the file may be replaced meanwhile.
        facts = file_facts(video.path, hashed=settings.hash_files)
        request = _request(video, settings, window=preprocessing.frames)
        with fetched(request.path) as path:
            here = replace(request, path=path)
            sampled = sample_video(here, lambda p: resize_crop(p, preprocessing))
        return answer(sampled, facts, settings)

    return handle


def _request(video: Video, settings: ExtractSettings, *, window: int) -> FrameRequest:
    assert video.path is not None
    return FrameRequest(
        path=video.path,
        video_id=video.id,
        choices=settings.samplers,
        num_frames=settings.num_frames,
        candidate_fps=settings.candidate_fps,
        candidate_jitter=settings.candidate_jitter,
        start_seconds=video.start_seconds,
        end_seconds=video.end_seconds,
        seed=settings.seed,
        limits=settings.limits,
        keep_luma=settings.keeps_thumbnails,
        window=window,
    )
