"""Queries into the space of the frames: sentences, pictures, clips."""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Sequence
from functools import cached_property
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vtr.clip.backbone import Backbone, load_backbone
from vtr.clip.preprocess import resize_crop
from vtr.datasets.base import Video
from vtr.errors import ConfigError, DecodeError
from vtr.extract.pool import PoolSettings, WorkerPool
from vtr.extract.sample import HANDLER, read_answer
from vtr.extract.samplers.base import parse_samplers
from vtr.extract.settings import ExtractSettings
from vtr.search.index import Bank

Vectors = NDArray[np.float32]
_CLIP_FRAMES = 8
_CLIP_SECONDS = 60.0  # a query is answered while somebody waits
_MOST_PIXELS = 1 << 27


def unit(vectors: NDArray[np.floating]) -> Vectors:
    """Returns vectors (..., D) of length 1."""
    rows = np.asarray(vectors, np.float32)
    made: Vectors = rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
    return made


class QueryEncoder:
    """A model as far as a query needs it; loaded when first used.

    Args:
        model: Hub id or folder.
        device: Where it runs.
    """

    def __init__(self, model: str, *, device: str = "auto") -> None:
        self.model, self.device = model, device

    @cached_property
    def backbone(self) -> Backbone:
        """Both towers."""
        return load_backbone(self.model, device=self.device)

    def texts(self, texts: Sequence[str]) -> tuple[Vectors, int]:
        """Returns (N, D) unit vectors, and how many texts lost their tail."""
        made = self.backbone.encode_texts(texts)
        return unit(made.embeddings), made.num_truncated

    def bank(self) -> Bank:
        """Returns the unrelated sentences that ship, as this model sees them."""
        content = (files("vtr.search") / "unrelated.txt").read_bytes()
        version = f"{hashlib.sha256(content).hexdigest()[:16]}-{self.backbone.weights_sha256[:16]}"
        return Bank(version, self.texts(content.decode().splitlines())[0])

    def picture(self, picture: Path | bytes) -> Vectors:
        """Returns (D,) the unit vector of a picture.

        Raises:
            ConfigError: No picture that can be read.
        """
        from PIL import Image, ImageOps

        name = "the picture" if isinstance(picture, bytes) else str(picture)
        try:
            with Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture) as file:
                if file.width * file.height > _MOST_PIXELS:
                    raise ConfigError(
                        f"{name} has {file.width} x {file.height} pixels; at most "
                        f"{_MOST_PIXELS:,} are read"
                    )
                rgb = np.asarray(ImageOps.exif_transpose(file).convert("RGB"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise ConfigError(f"{name} is no picture that can be read: {reason}") from None
        crop = resize_crop(rgb, self.backbone.preprocessing)
        return unit(self.backbone.encode_frames(crop[None])[0])

    def clip(self, clip: Path | bytes, *, at_seconds: float | None = None) -> Vectors:
        """Returns (D,) the unit vector of a clip: the mean of its frames, or the one at a time.

        Raises:
            DecodeError: No frame can be had; says why.
        """
        if isinstance(clip, bytes):
            with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
                file.write(clip)
                file.flush()
                return self.clip(Path(file.name), at_seconds=at_seconds)
        one = at_seconds is not None
        settings = ExtractSettings(
            parse_samplers("head" if one else "uniform"),
            num_frames=1 if one else _CLIP_FRAMES,
            candidate_fps=None if one else 4.0,
            workers=1,
            timeout_seconds=_CLIP_SECONDS,
        )
        config = (settings, self.backbone.preprocessing.as_dict())
        pool = PoolSettings(HANDLER, config, workers=1, timeout_seconds=_CLIP_SECONDS)
        video = Video(str(clip), clip, at_seconds, None)
        with WorkerPool(pool) as workers:
            outcome = next(iter(workers.run([video])))
        if outcome.failure is not None:
            raise DecodeError(outcome.failure[0], f"{clip}: {outcome.failure[1]}")
        crops = read_answer(video, outcome, self.backbone.embedding_dim)[1]
        return unit(unit(self.backbone.encode_frames(crops)).mean(axis=0))
