"""The backbone: a dual encoder that turns frames and captions into one space."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from vtr.clip.batches import CPU_BATCH, GPU_BATCH, cpu_batch, run_in_batches
from vtr.clip.device import DTypeName, EngineName, check_engine, find_device, runs_on_cpu
from vtr.clip.encoders import KINDS, DualEncoder
from vtr.clip.engines import Engine, make_engine
from vtr.clip.families import FamilyEncoder
from vtr.clip.hub import ModelFolder, find_model, is_open_clip
from vtr.clip.loading import load_model, load_text_tower
from vtr.clip.open_clip_text import open_clip_tokeniser
from vtr.clip.packed import Packing, quickest_text_tower
from vtr.clip.preprocess import (
    Preprocessing,
    Route,
    normalise,
    preprocessing_from_config,
    read_patches,
    windows,
)
from vtr.clip.temporal import follows_in_clip
from vtr.clip.text import Tokeniser, load_tokeniser
from vtr.clip.towers import Architecture, TextTower
from vtr.errors import CheckpointError, ModelError

_HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class TextEmbeddings:
    """Embeddings of N texts."""

    embeddings: np.ndarray  # (N, D) float32, not normalised
    num_tokens: np.ndarray  # (N,) int64, begin and end tokens included, after truncation
    num_truncated: int  # How many of the N texts lost their tail


@dataclass(eq=False)
class TextEncoder:
    """The text side of a dual encoder, alone: what a search needs of it."""

    embedding_dim: int  # D
    device: torch.device  # Where it runs
    tower: TextTower
    tokeniser: Tokeniser

    def encode(
        self,
        texts: Sequence[str],
        *,
        batch_size: int | None = None,
        tell: Callable[[int, int], None] | None = None,
    ) -> TextEmbeddings:
        """Returns the embeddings of texts; see `Backbone.encode_texts`."""
        tell = tell or (lambda _done, _total: None)
        tell(0, len(texts))
        tokens = self.tokeniser.encode(texts)
        lengths = np.array([len(row) for row in tokens.ids], dtype=np.int64)
        # Texts of one length together: padding to the longest of a mixed batch costs up to 2.6x.
        order = np.argsort(lengths, kind="stable")

        tower = quickest_text_tower(self.tower)

        def encode(start: int, stop: int) -> torch.Tensor:
            ids = self.tokeniser.pad([tokens.ids[row] for row in order[start:stop]])
            embeddings: torch.Tensor = tower(torch.from_numpy(ids).to(self.device))
            tell(stop, len(texts))
            return embeddings

        default = GPU_BATCH if self.device.type == "cuda" else 2 * CPU_BATCH
        with torch.inference_mode():
            chunks, _ = run_in_batches(encode, len(texts), batch_size or default)
            embeddings = np.empty((len(texts), self.embedding_dim), dtype=np.float32)
            if chunks:
                embeddings[order] = torch.cat(chunks).to(torch.float32).cpu().numpy()
        return TextEmbeddings(embeddings, lengths, tokens.num_truncated)


@dataclass(eq=False)
class Backbone:
    """A loaded dual encoder with its own preprocessing and text rules.

    >>> import vtr
    >>> backbone = vtr.load_backbone(vtr.open_workspace("demo-world").model, device="cpu")
    >>> backbone.embedding_dim, backbone.family
    (96, 'clip')

    Made by `load_backbone`. Not safe for use from several threads at once.
    """

    model_id: str  # Hub id, or the name of the local folder
    revision: str  # Commit on the hub, or "local"
    weights_sha256: str  # See `vtr.clip.loading.weights_digest`
    family: str  # A key of `TEXT_RULES`, such as "clip": whose text rules apply
    architecture: Architecture  # Sizes of both towers
    embedding_dim: int  # D, the size of the shared space
    preprocessing: Preprocessing  # What `resize_crop` must be called with for this model
    device: torch.device  # Where it runs
    dtype: torch.dtype  # Of its weights and of the pixels it is given
    logit_scale: float  # The model's learned scale as stored, a natural logarithm (CLIP: ln 100)
    model: DualEncoder  # The two towers
    tokeniser: Tokeniser  # Its vocabulary and text rules
    engine: Engine | None = None  # What runs the vision tower instead of torch
    stream: torch.cuda.Stream | None = None  # Where it works beside others of its GPU; see `lanes`

    def __post_init__(self) -> None:
        self._pinned: torch.Tensor | None = None
        pictures = GPU_BATCH if self.device.type == "cuda" else cpu_batch(self.architecture)
        self._frames_per_batch = max(1, pictures // self.window)
        self._packing = Packing()

    @property
    def is_exact(self) -> bool:
        """Whether it computes as the weights are meant: torch, in float32."""
        return self.engine is None and self.dtype == torch.float32

    @property
    def window(self) -> int:
        """How many pictures make one embedding: above 1 its rows are windows of a video."""
        return self.preprocessing.frames

    @property
    def _window_shape(self) -> tuple[int, ...]:
        return (self.window,) if self.window > 1 else ()

    @property
    def temporal(self) -> bool:
        """Whether a frame's embedding also depends on its neighbours (linear_patch 3d)."""
        return self.model.visual.temporal

    def lanes(self) -> list[Backbone]:
        """Returns what one thread each may use at once: on a GPU two.

        They share the weights. Each has its own stream and its own pinned memory, so that the
        pictures of one are copied while those of the other are computed.
        """
        if self.device.type != "cuda":
            return [self]
        torch.cuda.synchronize(self.device)  # the weights are there
        new_stream: Any = torch.cuda.Stream
        return [replace(self, stream=new_stream(self.device)) for _ in range(2)]

    def encode_frames(
        self, crops: np.ndarray, *, offsets: Sequence[int] | None = None
    ) -> np.ndarray:
        """Returns the embeddings of pictures.

        How the caller splits the pictures into calls changes nothing beyond float rounding; only a
        `temporal` backbone needs each clip whole in one call.

        Args:
            crops: (B, h, w, 3) uint8 from `resize_crop`, at the model's size; B may be 0. For a
                model that sees windows (B, k, h, w, 3).
            offsets: Where each clip's frames begin, and B at the end. A `temporal` backbone must
                be told, others do not mind.

        Returns:
            (B, D) float32, not normalised.

        Raises:
            ValueError: Not uint8, or another size; offsets missing or not rising from 0 to B.
            ModelError: The GPU's memory does not hold a single picture.
        """
        wanted = (*self._window_shape, *self.preprocessing.size, 3)
        if crops.dtype != np.uint8 or crops.shape[1:] != wanted:
            raise ValueError(f"need uint8 crops (B, {wanted}), got {crops.dtype} {crops.shape}")
        follows = None
        if self.temporal:
            if offsets is None:
                raise ValueError("this backbone sees neighbouring frames: say where clips begin")
            follows = follows_in_clip(offsets, len(crops))

        def encode(start: int, stop: int) -> torch.Tensor:
            # One frame more at both ends, where a batch cuts a clip; its own embedding is dropped.
            margin = int(follows is not None)
            first, last = max(start - margin, 0), min(stop + margin, len(crops))
            pixels, shapes = self._pixels(staged[first:last])
            beside = shapes if follows is None else follows[first:last]
            return self._image_features(pixels, beside)[start - first : stop - first]

        with torch.inference_mode(), torch.cuda.stream(self.stream):
            staged = self._staged(crops)
            chunks, self._frames_per_batch = run_in_batches(
                encode, len(crops), self._frames_per_batch
            )
            return self._gather(chunks)

    def encode_clip(self, crops: np.ndarray) -> np.ndarray:
        """Returns (T, D): the embeddings of one video's chosen frames (T, h, w, 3) uint8, in order.

        A model that sees windows gives (W, D), of one window after the other (see `windows`).

        A `temporal` backbone sees nothing before the first and after the last frame: the reference
        pads short clips with frames of zeros, which add exactly nothing to their neighbours.
        """
        if self._window_shape and len(crops):
            crops = crops[windows(len(crops), self.window)]
        return self.encode_frames(crops, offsets=[0, len(crops)])

    def pad_embedding(self) -> np.ndarray:
        """Returns (D,) float32: the tower's output for a picture of zeros *after* normalising.

        That is what the reference systems feed for padding (a picture of the mean colour);
        CLIP2Video's head sees it.
        """
        blank = np.zeros((1, *self._window_shape, *self.preprocessing.size, 3), np.uint8)
        if self.preprocessing.resize == "patches":  # one of them
            blank.reshape(-1)[[0, 2]] = 1
        with torch.inference_mode():
            pixels, shapes = self._pixels(self._staged(blank))
            zeros = torch.zeros_like(pixels)
            embedding: np.ndarray = self._gather([self._image_features(zeros, shapes)])[0]
        return embedding

    def encode_texts(
        self,
        texts: Sequence[str],
        *,
        batch_size: int | None = None,
        tell: Callable[[int, int], None] | None = None,
    ) -> TextEmbeddings:
        """Returns the embeddings of captions.

        Args:
            texts: N texts, raw; an empty text is allowed, as is N = 0.
            batch_size: Texts per forward pass; by default what suits the device.
            tell: Called with (done, N) before the first pass and after each.

        Raises:
            ModelError: The GPU's memory does not hold a single text.
        """
        encoder = TextEncoder(self.embedding_dim, self.device, self.model.text, self.tokeniser)
        return encoder.encode(texts, batch_size=batch_size, tell=tell)

    def require_towers(self, purpose: str, *, but: Sequence[str] = ()) -> None:
        """Refuses a model whose towers transformers computes, where they must be taken apart.

        `but` are families whose towers do not serve that purpose either.
        """
        if isinstance(self.model, FamilyEncoder):
            others = ", ".join(kind for kind in KINDS if kind not in but)
            raise ModelError(
                f"{self.model_id}: transformers computes the towers of the family {self.family}; "
                f"{purpose} needs one of {others}. Heads and --text projection train on "
                "its features"
            )

    def describe(self) -> dict[str, Any]:
        """Returns the fields of a store's fingerprint that the backbone decides, in JSON types."""
        patches = {"linear_patch": "3d"} if self.temporal else {}
        engine = {}
        if self.engine is not None:
            engine = {"engine": self.engine.name, "compute_dtype": self.engine.compute_dtype}
        return {
            "backbone": self.model_id,
            "revision": self.revision,
            "weights_sha256": self.weights_sha256,
            "embedding_dim": self.embedding_dim,
            "compute_dtype": str(self.dtype).removeprefix("torch."),
            "preprocessing": self.preprocessing.as_dict(),
            "vision": self.model.visual.settings,
            **patches,
            **engine,
        }

    @property
    def text_settings(self) -> dict[str, Any]:
        """What of the text tower's configuration decides numbers and does not show in weights."""
        rules = self.tokeniser.rules.name
        return self.model.text.settings | ({"text_rules": rules} if rules else {})

    def _image_features(
        self, pixels: torch.Tensor, beside: torch.Tensor | None = None
    ) -> torch.Tensor:
        if self.engine is not None:
            return self.engine.run(pixels)
        is_full = len(pixels) == self._frames_per_batch
        visual = self._packing.choose(self.model.visual, is_full=is_full)
        embeddings: torch.Tensor = visual(pixels, beside)
        return embeddings

    def _pixels(self, crops: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Returns what the vision tower sees of crops, and their grids of patches, if any."""
        if self.device.type == "cuda" and not crops.is_pinned():
            crops = crops.pin_memory()
        # uint8: a quarter of the bytes of float32.
        there = crops.to(self.device, non_blocking=True)
        if self._window_shape:
            pixels = normalise(there.flatten(0, 1), self.preprocessing, dtype=self.dtype)
            return pixels.view(*there.shape[:2], *pixels.shape[1:]), None
        if self.preprocessing.resize != "patches":
            return normalise(there, self.preprocessing, dtype=self.dtype), None
        patches, shapes = read_patches(there, self.preprocessing)
        return patches.to(self.dtype), shapes

    def _staged(self, crops: np.ndarray) -> torch.Tensor:
        """Returns crops as a tensor, for a lane in memory from which its GPU fetches by itself."""
        # torch warns about read-only arrays and refuses negative strides: those are copied.
        tensor = torch.from_numpy(np.require(crops, requirements=["C", "W"]))
        if self.stream is None:
            return tensor
        # Used again for the next batch: `_gather` has waited for all that was fetched from it.
        if self._pinned is None or len(self._pinned) < len(crops):
            self._pinned = torch.empty(crops.shape, dtype=torch.uint8, pin_memory=True)
        return self._pinned[: len(crops)].copy_(tensor)

    def _gather(self, chunks: list[torch.Tensor]) -> np.ndarray:
        if not chunks:
            return np.empty((0, self.embedding_dim), dtype=np.float32)
        array: np.ndarray = torch.cat(chunks).to(torch.float32).cpu().numpy()
        return array


def load_backbone(
    model: str,
    *,
    device: str = "auto",
    dtype: DTypeName = "float32",
    route: Route = "fast",
    engine: EngineName = "torch",
) -> Backbone:
    """Loads a dual encoder by hub id or from a local folder.

    >>> import vtr
    >>> backbone = vtr.load_backbone(vtr.open_workspace("demo-world").model, device="cpu")
    >>> backbone.embedding_dim
    96

    Args:
        model: Hub id ("openai/clip-vit-base-patch32") or folder.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1".
        dtype: What the towers compute in; embeddings come back as float32 always.
        route: Preprocessing implementation, see `vtr.clip.preprocess`.
        engine: What runs the vision tower: "torch", "compile" (torch.compile), or on the CPU
            "onnx" or "openvino", which alone know the dtype "int8".

    Raises:
        ModelNotFoundError: Neither a folder nor a repository.
        HubOfflineError: Not in the cache, and the hub cannot be reached.
        CheckpointError: Weights, configuration or vocabulary do not fit together.
        ModelError: A family or a preprocessing setting that is not supported.
        ConfigError: No such device, dtype or engine here.
    """
    check_engine(engine, dtype, device)
    target = find_device("cpu" if runs_on_cpu(engine) else device)
    compute_dtype = _HALVES.get(dtype, torch.float32)
    folder = find_model(model)
    network, architecture, family, digest = load_model(folder)
    preprocessing = preprocessing_from_config(folder.path, route=route)
    _check_pictures(folder.model_id, preprocessing, architecture)
    tokeniser = _tokeniser(folder, architecture, family)
    network = network.to(device=target, dtype=compute_dtype)
    made = None if engine == "torch" else make_engine(engine, dtype, network.visual)
    return Backbone(
        model_id=folder.model_id,
        revision=folder.revision,
        weights_sha256=digest,
        family=family,
        architecture=architecture,
        embedding_dim=architecture.dim,
        preprocessing=preprocessing,
        device=target,
        dtype=compute_dtype,
        logit_scale=float(network.logit_scale),
        model=network,
        tokeniser=tokeniser,
        engine=made,
    )


def load_text_encoder(folder: ModelFolder, *, device: str = "auto") -> TextEncoder:
    """Loads the text side alone, in float32: a fraction of the weights is read.

    Args:
        folder: A model on this disk.
        device: As for `load_backbone`.

    Raises:
        CheckpointError: Weights, configuration or vocabulary do not fit together.
        ModelError: A family that is not supported.
    """
    target = find_device(device)
    tower, architecture, family = load_text_tower(folder)
    tokeniser = _tokeniser(folder, architecture, family)
    return TextEncoder(architecture.dim, target, tower.to(target), tokeniser)


def _tokeniser(folder: ModelFolder, architecture: Architecture, family: str) -> Tokeniser:
    if is_open_clip(folder.path):
        return open_clip_tokeniser(folder)
    tokeniser = load_tokeniser(
        folder.path,
        family=family,
        max_length=architecture.context,
        vocab_size=architecture.vocabulary,
    )
    if family in ("clip", "metaclip_2", "aimv2", "xclip"):
        old = family in ("clip", "xclip")
        _check_end_of_text(folder.model_id, tokeniser, architecture.end_id, legacy=old)
    _check_padding(folder.model_id, tokeniser, architecture.pad_id)
    return tokeniser


def _check_pictures(
    model_id: str, preprocessing: Preprocessing, architecture: Architecture
) -> None:
    """Refuses a picture size, or a size of patches, that is not the model's."""
    side, patch = architecture.image_size, architecture.patch
    whole = preprocessing.resize != "patches"
    if architecture.family == "siglip2":
        fits = not whole and preprocessing.size[1] == patch
        wanted: object = f"patches of {patch} pixels, each picture at its own shape"
    else:
        fits = whole and (not side or preprocessing.size == (side, side))
        wanted = (side, side) if side else "whole pictures"
    if not fits:
        raise CheckpointError(
            f"{model_id}: preprocessor_config.json makes pictures of {preprocessing.size}, the "
            f"model sees {wanted} (height, width): they do not belong together"
        )


def _check_padding(model_id: str, tokeniser: Tokeniser, configured: int | None) -> None:
    if configured not in (None, tokeniser.pad_id):
        raise CheckpointError(
            f"{model_id}: the tokeniser pads with id {tokeniser.pad_id}, the text tower passes "
            f"over {configured} (text_config.pad_token_id): the vocabulary is another model's"
        )


def _check_end_of_text(
    model_id: str, tokeniser: Tokeniser, configured: int, *, legacy: bool
) -> None:
    """CLIP reads its embedding at this token; elsewhere it would silently be a wrong vector."""
    if legacy and configured == 2:
        # Configurations before transformers #24773: the position of the largest id is taken.
        largest = tokeniser.largest_id
        fits, wanted = tokeniser.eos_id == largest, f"the largest id, {largest}"
    else:
        fits, wanted = tokeniser.eos_id == configured, f"{configured} (text_config.eos_token_id)"
    if not fits:
        raise CheckpointError(
            f"{model_id}: the tokeniser ends texts with id {tokeniser.eos_id}, the text tower "
            f"looks for {wanted}: embeddings would be read at the wrong place. Set eos_token_id in "
            "text_config"
        )
