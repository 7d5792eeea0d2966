"""Draws the frames of a clip and encodes them.

Order and brief clips are encoded with every frame a key frame at a constant quantiser, so that a
decoded frame depends on the drawn frame alone: twins decode to exactly the same frames in another
order, and the clips of one stage to exactly the same frames outside their events. Content clips
are ordinary H.264 with predicted frames.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator

import av
import numpy as np
from numpy.typing import NDArray

from vtr.demo.drawing import HEIGHT, WIDTH, Pose, draw, paint
from vtr.demo.scenes import FRAMES_PER_SECOND, Clip, stream
from vtr.demo.words import SIZES
from vtr.extract.h264 import repeatable

Frame = NDArray[np.uint8]

STILL_OPTIONS = {"preset": "veryfast", "qp": "24", "g": "1", "x264-params": "aq-mode=0:ipratio=1"}
"""Options of libx264 with which a decoded frame depends on the drawn frame alone."""
PREDICTED_OPTIONS = {"preset": "veryfast", "crf": "20", "g": "25"}


def clip_frames(clip: Clip, *, seed: int) -> Iterator[Frame]:
    """Yields the frames of a clip, each (HEIGHT, WIDTH, 3) uint8 RGB, not to be written to."""
    if clip.group == "content":
        return _content_frames(clip, seed)
    if clip.group == "order":
        return _order_frames(clip, seed)
    return _brief_frames(clip, seed)


def encode_clip(clip: Clip, *, seed: int) -> bytes:
    """Returns the clip as an MP4 file: H.264 4:2:0, one encoder thread."""
    options = PREDICTED_OPTIONS if clip.group == "content" else STILL_OPTIONS
    return encode(clip_frames(clip, seed=seed), options)


def encode(frames: Iterable[Frame], options: dict[str, str]) -> bytes:
    """Returns RGB frames as an MP4 file with these options of libx264."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options=repeatable(options))
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        video.codec_context.thread_count = 1
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = index
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    return file.getvalue()


def to_pixels(canvas: NDArray[np.float32]) -> Frame:
    """Rounds a drawing to 8 bits."""
    pixels: Frame = np.clip(canvas + np.float32(0.5), 0.0, 255.0).astype(np.uint8)
    return pixels


def _content_frames(clip: Clip, seed: int) -> Iterator[Frame]:
    rng = stream(seed, clip.stage)
    pan = float(rng.choice([0.0, 0.0, 2.0]))
    background = paint(clip.background, clip.tone, rng, pan=pan)
    x, y = rng.uniform(54, 74), rng.uniform(42, 54)
    lean = rng.uniform(-0.15, 0.15)
    for index in range(clip.num_frames):
        progress = index / (clip.num_frames - 1)
        radius = SIZES[clip.size] if clip.size else 18.0
        canvas = background.at(index / FRAMES_PER_SECOND)
        resting = Pose(x, y, radius, lean)
        draw(canvas, clip.looks[0], acting(clip.action, resting, progress, index))
        yield to_pixels(canvas)


def acting(action: str, rest: Pose, progress: float, index: int) -> Pose:
    """Returns the pose of a sprite in the middle of an action."""
    swing = 2 * progress - 1
    seconds = index / FRAMES_PER_SECOND
    x, y, radius, angle, opacity = rest.x, rest.y, rest.radius, rest.angle, rest.opacity
    room_x, room_y = 46.0 - radius, 45.0 - radius
    if action in ("moves left", "moves right"):
        x = 64 + swing * room_x * (1 if action.endswith("right") else -1)
    elif action in ("moves up", "moves down"):
        y = 48 + swing * room_y * (1 if action.endswith("down") else -1)
    elif action in ("grows", "shrinks"):
        radius = 18.0 + 8.0 * swing * (1 if action == "grows" else -1)
    elif action == "spins":
        angle += 4 * np.pi * progress
    elif action == "blinks":
        opacity = 1.0 if index % 6 < 4 else 0.3
    elif action == "bounces":
        y = 93 - radius - abs(np.sin(1.25 * np.pi * seconds)) * room_y * 1.4
    elif action == "shakes":
        x += 3.5 * np.sin(4.4 * np.pi * seconds)
    return Pose(x, y, radius, angle, opacity)


def _order_frames(clip: Clip, seed: int) -> Iterator[Frame]:
    rng = stream(seed, clip.stage)
    background = paint(clip.background, clip.tone, rng)
    half = clip.num_frames // 2
    for look in clip.looks:
        place = stream(seed, clip.stage, str(look))
        canvas = background.at(0)
        pose = Pose(
            place.uniform(54, 74),
            place.uniform(44, 52),
            place.uniform(19, 24),
            place.uniform(-0.2, 0.2),
        )
        draw(canvas, look, pose)
        pixels = to_pixels(canvas)
        for _ in range(half):
            yield pixels


def _brief_frames(clip: Clip, seed: int) -> Iterator[Frame]:
    rng = stream(seed, clip.stage)
    background = paint(clip.background, clip.tone, rng, pan=rng.uniform(0.6, 1.2))
    side = float(rng.choice([-1.0, 1.0]))
    centre_y, phase = rng.uniform(40, 56), rng.uniform(0, 2 * np.pi)
    own = stream(seed, clip.id)
    flash = Pose(
        64 - side * own.uniform(18, 22),
        own.uniform(40, 56),
        SIZES["large"],
        own.uniform(-0.15, 0.15),
    )
    event, distractor = clip.looks
    shown = clip.event.frames if clip.event else range(0)
    for index in range(clip.num_frames):
        turn = 0.4 * index / FRAMES_PER_SECOND + phase
        canvas = background.at(index / FRAMES_PER_SECOND)
        drift = Pose(
            64 + side * (27 + 5 * np.sin(turn)),
            centre_y + 14 * np.cos(turn),
            SIZES["small"],
            0.3 * turn,
        )
        draw(canvas, distractor, drift)
        if index in shown:
            draw(canvas, event, flash)
        yield to_pixels(canvas)
