"""Queries into the space of the frames: sentences, pictures, clips."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtr.clip.backbone import Backbone, TextEncoder, load_backbone, load_text_encoder
from vtr.clip.hub import SMALL_FILES, ModelFolder, find_model, weight_files
from vtr.errors import (
    ConfigError,
    DecodeError,
    HubOfflineError,
    ModelNotFoundError,
    StoreWriteError,
    VtrError,
)
from vtr.files import publish
from vtr.foreign import printable
from vtr.json_files import read_json
from vtr.remote import as_path
from vtr.searching.index import Bank

Vectors = NDArray[np.float32]
RECORD = "model.json"
_CLIP_FRAMES = 8
_CLIP_FPS = 4.0
_CLIP_SECONDS = 60.0  # a query is answered while somebody waits
_MOST_PIXELS = 1 << 27


def unit(vectors: NDArray[np.floating[Any]]) -> Vectors:
    """Returns vectors (..., D) of length 1."""
    rows = np.asarray(vectors, np.float32)
    made: Vectors = rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
    return made


def unrelated_sentences() -> str:
    """Returns the 200 sentences that ship, one a line."""
    return (files("vtr.searching") / "unrelated.txt").read_text(encoding="utf-8")


class QueryEncoder:
    """A model as far as a query needs it: its parts are loaded when they are first used.

    Where the record in `folder` says what the model's files are, and they are still those, a
    sentence takes the text tower alone, and neither the hub nor a digest of all weights. `model` is
    a hub id or folder; None is the one of the record, or `default` where there is none.
    """

    def __init__(
        self, model: str | None, folder: Path, *, default: str, device: str = "auto"
    ) -> None:
        self.folder, self.device = folder, device
        record = _read_record(folder)
        given = None if model is None else _absolute(model)
        self.model = given or record.get("model") or default
        self._is_chosen = given is not None or not record
        self._record = record if record.get("model") == self.model else {}
        if self._record and self._record["files"] != _file_facts(Path(self._record["path"])):
            self._record = {}

    @cached_property
    def backbone(self) -> Backbone:
        """Both towers."""
        try:
            return load_backbone(self._record.get("path", self.model), device=self.device)
        except HubOfflineError as error:
            raise HubOfflineError(f"{error}, with --model FOLDER") from None
        except ModelNotFoundError:
            if self._is_chosen:
                raise
            raise ModelNotFoundError(
                f"the features in {self.folder} were made with {self.model}, which is not there "
                "any more. Say with --model where it lies now; for another model, --rebuild too"
            ) from None

    @cached_property
    def _text_encoder(self) -> TextEncoder:
        if not self._record:
            made = self.backbone
            return TextEncoder(made.embedding_dim, made.device, made.model.text, made.tokeniser)
        path = Path(self._record["path"])
        return load_text_encoder(ModelFolder(self.model, path, "local"), device=self.device)

    @property
    def weights_sha256(self) -> str:
        """The digest of the model's weights."""
        return str(self._record.get("weights_sha256") or self.backbone.weights_sha256)

    def remember(self) -> None:
        """Keeps what the model's files are; a folder that cannot be written keeps nothing."""
        if self._record:
            return
        path = find_model(self.model).path
        self._record = {
            "model": self.model,
            "path": str(path),
            "files": _file_facts(path),
            "weights_sha256": self.backbone.weights_sha256,
        }
        with suppress(StoreWriteError):
            publish(self.folder / RECORD, json.dumps(self._record, indent=2).encode())

    def texts(self, texts: Sequence[str]) -> tuple[Vectors, int]:
        """Returns (N, D) unit vectors, and how many texts lost their tail."""
        made = self._text_encoder.encode(texts)
        return unit(made.embeddings), made.num_truncated

    def bank(self) -> Bank:
        """Returns the unrelated sentences that ship, as this model sees them."""
        content = unrelated_sentences()
        digest = hashlib.sha256(content.encode()).hexdigest()
        version = f"{digest[:16]}-{self.weights_sha256[:16]}"
        return Bank(version, self.texts(content.splitlines())[0])

    def picture(self, picture: Path | bytes) -> Vectors:
        """Returns (D,) the unit vector of a picture."""
        from vtr.clip.preprocess import resize_crop

        crop = resize_crop(_read_picture(picture), self.backbone.preprocessing)
        still = crop if self.backbone.window == 1 else np.stack([crop] * self.backbone.window)
        return unit(self.backbone.encode_frames(still[None])[0])

    def clip(self, clip: Path, *, at_seconds: float | None = None) -> Vectors:
        """Returns (D,) the unit vector of a clip: the mean of its frames, or the one at a time.

        It is decoded in a process of its own, which is ended where it takes a minute.
        """
        crops = _decode(clip, at_seconds, self.backbone)
        return unit(unit(self.backbone.encode_frames(crops)).mean(axis=0))


def _decode(clip: Path, at_seconds: float | None, backbone: Backbone) -> NDArray[np.uint8]:
    from vtr.datasets.base import Video
    from vtr.extract.answers import HANDLER, read_answer
    from vtr.extract.pool import PoolSettings, WorkerPool
    from vtr.extract.samplers.base import parse_samplers
    from vtr.extract.settings import ExtractSettings

    one = at_seconds is not None
    settings = ExtractSettings(
        parse_samplers("head" if one else "uniform"),
        num_frames=1 if one else _CLIP_FRAMES,
        candidate_fps=None if one else _CLIP_FPS,
    )
    config = (settings, backbone.preprocessing.as_dict())
    video = Video(str(clip), clip, at_seconds, None)
    with WorkerPool(PoolSettings(HANDLER, config, 1, timeout_seconds=_CLIP_SECONDS)) as workers:
        outcome = next(iter(workers.run([video])))
    if outcome.failure is not None:
        kind, detail = outcome.failure
        raise DecodeError(kind, f"{printable(clip)}: {detail}")
    return read_answer(video, outcome, backbone.embedding_dim)[1]


def _read_picture(picture: Path | bytes) -> NDArray[np.uint8]:
    """Returns (H, W, 3) as a viewer sees it; transparency lies over black."""
    from PIL import Image

    from vtr.extract.frames import opaque

    name = "the picture" if isinstance(picture, bytes) else printable(picture)
    source = io.BytesIO(picture) if isinstance(picture, bytes) else picture
    try:
        if isinstance(picture, Path) and not picture.is_file():
            raise FileNotFoundError(2, "there is no such file")
        with Image.open(source) as file:
            if file.width * file.height > _MOST_PIXELS:
                raise ConfigError(
                    f"{name} has {file.width} x {file.height} pixels; at most {_MOST_PIXELS:,} are "
                    "read. Make it smaller"
                )
            return np.asarray(opaque(file))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or "it is damaged, or of no kind that is known"
        raise ConfigError(f"{name} cannot be read as a picture: {reason}") from None


def _absolute(model: str) -> str:
    """Returns a folder by its whole path, and a hub id as it is."""
    folder = as_path(model)
    return str(folder.resolve()) if folder.is_dir() else model


def _read_record(folder: Path) -> dict[str, Any]:
    path = folder / RECORD
    try:
        record = read_json(path, needed="which model made the features") if path.is_file() else {}
    except VtrError:
        return {}
    return record if {"model", "path", "files", "weights_sha256"} <= record.keys() else {}


def _file_facts(path: Path) -> list[list[Any]]:
    """Returns name, size and time of the files that decide what a text tower says."""
    try:
        others = [path / name for name in SMALL_FILES]
        named = [*weight_files(path), *(file for file in others if file.is_file())]
        stats = [(file.name, file.stat()) for file in named]
        return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]
    except (OSError, VtrError):
        return []
