"""What tests are made of, written through the real writers: clips, captions, stores, runs.

Each builder stands here once; `from builders import write_store` works in every test file. Fixtures
(`backbone`, `spec`, `build_store`) are in conftest.py.
"""

from __future__ import annotations

import functools
import importlib
import json
import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from vtr.demo import demo_model_folder
from vtr.features import FeatureSpec, LedgerRow, VideoRow
from vtr.features.shard import write_shard

if TYPE_CHECKING:
    from click.testing import Result
    from torch import Tensor

    from vtr.clip.backbone import Backbone
    from vtr.clip.encoders import DualEncoder
    from vtr.evaluate.protocol import QuerySet
    from vtr.extract.answers import SampledVideo
    from vtr.extract.samplers.base import Signals
    from vtr.train.data import PairedData
    from vtr.train.heads.base import Head, TextBatch, VideoBatch

Picture = NDArray[np.uint8]
NO_VIDEO = "not-a-video: moov atom not found"


# ---- clips


def grey(level: int, size: tuple[int, int] = (64, 48)) -> Picture:
    """A picture of one brightness; `size` is (width, height)."""
    return np.full((size[1], size[0], 3), level, np.uint8)


def ramp(num_frames: int, size: tuple[int, int] = (64, 48), *, step: int = 8) -> list[Picture]:
    """Pictures that show their number: frame i has brightness 20 + step i."""
    return [grey(20 + step * i % 220, size) for i in range(num_frames)]


def patchwork(num_frames: int, *, seed: int = 0, size: tuple[int, int] = (48, 32)) -> list[Picture]:
    """Pictures of random squares, 8 pixels wide."""
    rng = np.random.default_rng(seed)
    squares = rng.integers(0, 256, (num_frames, size[1] // 8, size[0] // 8, 3), np.uint8)
    return [np.kron(picture, np.ones((8, 8, 1), np.uint8)) for picture in squares]


def numbered(index: int, size: tuple[int, int] = (96, 64)) -> Picture:
    """A picture that tells its number: 8 bars, most significant left, over a moving texture."""
    width, height = size
    image = np.full((height, width, 3), 90, np.uint8)
    across = (np.arange(width) * 5 + index * 7) % 160
    image[height // 2 :, :, 0] = across
    image[height // 2 :, :, 1] = across[::-1] // 2 + index % 50
    for bit in range(8):
        left, right = bit * width // 8, (bit + 1) * width // 8
        image[: height // 2, left:right] = 235 if index >> (7 - bit) & 1 else 20
    return image


def number_of(image: Picture) -> int:
    """Reads the number of a `numbered` picture back."""
    top = image[: image.shape[0] // 2].astype(float).mean((0, 2))
    bars = enumerate(np.array_split(top, 8))
    return sum(int(bar.mean() > 128) << (7 - bit) for bit, bar in bars)


def write_clip(
    path: Path,
    pictures: Iterable[Picture],
    *,
    fps: int | Fraction = 4,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: Mapping[str, str] | None = None,
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    sound: bool = False,
    prepare: Callable[[Any], object] = lambda _stream: None,
    **container: Any,
) -> Path:
    """Encodes pictures, RGB or RGBA (H, W, C), in a container named by the suffix.

    Args:
        path: The file.
        pictures: Of one size.
        fps: Of the stream.
        codec: One of FFmpeg's encoders.
        pix_fmt: As stored.
        options: Of the encoder.
        pts: Of each picture, in ticks of `time_base`; one after the other by default.
        time_base: Seconds of a tick; that of the encoder (1 / fps) by default.
        sound: Add a second of silence.
        prepare: Called with the stream before the first picture.
        container: For `av.open`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", **container) as out:
        stream: Any = out.add_stream(codec, rate=fps)
        stream.options = dict(
            ({"crf": "8", "threads": "1"} if "264" in codec else {}) if options is None else options
        )
        stream.pix_fmt = pix_fmt
        track: Any = out.add_stream("aac", rate=8000) if sound else None
        for number, picture in enumerate(pictures):
            if not number:
                stream.height, stream.width = picture.shape[:2]
                prepare(stream)
            frame = av.VideoFrame.from_ndarray(
                picture, "rgba" if picture.shape[2] == 4 else "rgb24"
            )
            if pts is not None:
                frame.pts = pts[number]
            if time_base is not None:
                stream.codec_context.time_base = frame.time_base = time_base
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if track:
            write_silence(out, track)
    return path


@dataclass(frozen=True)
class Clip:
    """Numbered pictures, and how they are written."""

    codec: str = "libx264"
    suffix: str = ".mp4"
    num_frames: int = 60
    rate: int | Fraction = 25
    options: dict[str, str] = field(default_factory=dict)
    pts: tuple[int, ...] | None = None
    time_base: Fraction | None = None
    size: tuple[int, int] = (96, 64)
    pix_fmt: str = "yuv420p"
    rotation: tuple[float, bool, bool] = (0, False, False)
    bframes: int | None = None
    container: str | None = None


def write_numbered(path: Path, clip: Clip) -> Path:
    """Encodes a clip of `numbered` pictures."""

    def prepare(stream: Any) -> None:
        stream.codec_context.thread_count = 1
        if clip.bframes is not None:
            stream.codec_context.max_b_frames = clip.bframes
        if clip.rotation != (0, False, False):
            stream.set_display_rotation(*clip.rotation)

    return write_clip(
        path,
        (numbered(index, clip.size) for index in range(clip.num_frames)),
        fps=clip.rate,
        codec=clip.codec,
        pix_fmt=clip.pix_fmt,
        options=clip.options,
        pts=clip.pts or range(clip.num_frames),
        time_base=clip.time_base,
        prepare=prepare,
        format=clip.container,
    )


def sampled(
    path: Path | str,
    samplers: str | Sequence[Any] = "uniform",
    num_frames: int = 12,
    *,
    transform: Callable[[Any], Any] = lambda image: image,
    **settings: Any,
) -> SampledVideo:
    """What samplers, by name or made, choose of all frames of a file."""
    from vtr.extract.sample import FrameRequest, sample_video
    from vtr.extract.samplers.base import parse_samplers

    choices = parse_samplers(samplers) if isinstance(samplers, str) else tuple(samplers)
    how = {"candidate_fps": None, **settings}
    return sample_video(FrameRequest(path, "an id", choices, num_frames, **how), transform)


def changing(absolute: NDArray[np.float64], squared: NDArray[np.float64]) -> Signals:
    """Candidates that are said to change so from one to the next; their thumbnails do not."""
    from vtr.extract.samplers.base import Signals

    count = len(absolute)
    signals = Signals(np.arange(float(count)), np.zeros((count, 1, 1), np.uint8))
    vars(signals).update(absolute_change=absolute, squared_change=squared)
    return signals


def x265(parameters: str) -> dict[str, str]:
    """Options of the encoder of that name."""
    quiet = "log-level=none:pools=none:frame-threads=1:crf=14"
    return {"preset": "ultrafast", "x265-params": f"{quiet}:{parameters}"}


def write_silence(out: Any, track: Any) -> None:
    """Adds a second of silence."""
    wave = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
    wave.rate, wave.pts = 8000, 0
    out.mux(track.encode(wave))
    out.mux(track.encode(None))


@contextmanager
def full_disk(num_bytes: int) -> Iterator[None]:
    """No file grows beyond so many bytes, as on a full disk; nothing of ours is compiled."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
        # A compiled module that is cut off breaks whatever imports it afterwards.
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONDONTWRITEBYTECODE", "1")
            patch.setattr(sys, "dont_write_bytecode", True)
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


# ---- captions and workspaces


def put(path: Path, content: Any = b"") -> Path:
    """Writes bytes, a text, or a list or object as JSON, into folders that are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, list | dict):
        content = json.dumps(content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """The files below a folder, by their places in it."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def spoil(path: Path, at: int = -1) -> None:
    """Turns a bit of the byte at a place of a file round."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def touch(folder: Path, *names: str, content: bytes = b"") -> Path:
    """Makes files of one content below a folder; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        put(folder / name, content)
    return folder


def write_captions(path: Path, rows: Iterable[Sequence[str]]) -> Path:
    """Captions of a folder of videos: (video, caption) or (video, caption, split) each."""
    records = [dict(zip(("video", "caption", "split"), row, strict=False)) for row in rows]
    path.write_text(json.dumps(records))
    return path


def write_demo_annotations(folder: Path, ids: Iterable[str], words: Sequence[str]) -> Path:
    """Annotations of the `demo` dataset: a caption per word; `val03` is in the split `val`."""
    videos = [
        {"id": i, "split": i.rstrip("0123456789"), "group": "content", "category": "plain"}
        for i in ids
    ]
    captions = [
        {"id": f"{v['id']}-{k}", "video_id": v["id"], "text": f"a {word} thing number {n}"}
        for n, v in enumerate(videos)
        for k, word in enumerate(words)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "demo.json").write_text(json.dumps({"videos": videos, "captions": captions}))
    return folder


def write_config(folder: Path, **sections: Mapping[str, object]) -> Path:
    """A vtr.toml of these sections; [model] is the one that ships unless given."""
    sections = {"model": {"id": str(demo_model_folder())}, **sections}
    lines = [
        line
        for name, keys in sections.items()
        for line in (f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items()))
    ]
    path = folder / "vtr.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def make_demo_workspace(
    folder: Path, ids: Sequence[str], *, words: Sequence[str] = ("red", "blue"), **store: Any
) -> Path:
    """A workspace shaped as the demo's whose features are random; see `random_store`."""
    write_demo_annotations(folder / "annotations", ids, words)
    (folder / "videos").mkdir()
    write_config(
        folder,
        data={"dataset": "demo", "videos": "videos", "annotations": "annotations"},
        extract={"frames": 3, "sampler": "uniform"},
    )
    random_store(folder / "features", ids, **store)
    return folder


def make_folder_workspace(folder: Path, captions: Sequence[Sequence[str]], **store: Any) -> Path:
    """A workspace of the dataset `folder` whose features are random; see `random_store`."""
    ids = list(dict.fromkeys(row[0] for row in captions))
    (folder / "videos").mkdir(parents=True)
    for video_id in ids:
        (folder / "videos" / video_id).touch()
    write_captions(folder / "captions.json", captions)
    write_config(
        folder, data={"dataset": "folder", "videos": "videos", "annotations": "captions.json"}
    )
    random_store(folder / "features", ids, **store)
    return folder


# ---- stores


def write_store(
    folder: Path,
    rows: Sequence[VideoRow],
    spec: FeatureSpec,
    *,
    sequence: int = 0,
    pad: NDArray[Any] | None = None,
) -> Path:
    """Writes one shard; a zero pad embedding unless given."""
    folder.mkdir(parents=True, exist_ok=True)
    pad = np.zeros(spec.embedding_dim, np.float32) if pad is None else pad
    write_shard(folder, rows, spec=spec, slot=(1, 1, sequence), revision=0, pad_embedding=pad)
    return folder


def shards(store: Path) -> list[str]:
    """Returns the names of a store's shards, which hold the digests of all bytes."""
    return sorted(path.name for path in store.glob("shard-*"))


def random_rows(
    ids: Iterable[str],
    spec: FeatureSpec,
    *,
    num_frames: int = 3,
    failed: Sequence[str] = (),
    seed: int = 0,
    pictures: bool = False,
) -> list[VideoRow]:
    """Rows of normal noise at 1 frame/s; `head` takes the first two frames, the others all."""
    rng = np.random.default_rng(seed)
    shape = (num_frames, *spec.preprocessing.get("size", ()), 3)
    rows = []
    for video_id in ids:
        if video_id in failed:
            ledger = LedgerRow(video_id, "failed", NO_VIDEO)
            rows.append(VideoRow.failed(ledger, spec.embedding_dim))
            continue
        frames = rng.normal(size=(num_frames, spec.embedding_dim)).astype(np.float32)
        chosen = {
            name: np.arange(min(2, num_frames) if name == "head" else num_frames)
            for name in spec.samplers
        }
        kept = rng.integers(0, 256, shape, np.uint8) if pictures else None
        times = np.arange(num_frames) * 1.0
        rows.append(VideoRow(LedgerRow(video_id, "ok"), frames, times, chosen, pictures=kept))
    return rows


def demo_spec(tower: Backbone | None = None, **changes: Any) -> FeatureSpec:
    """What a store of a tower (default: the one that ships) says of itself."""
    facts: dict[str, Any] = {
        **(tower or demo_backbone()).describe(),
        "storage_dtype": "float16",
        "candidate_fps": 1.0,
        "num_frames": 3,
        "samplers": ("uniform",),
        "seed": 0,
        **changes,
    }
    return FeatureSpec(**facts)


def random_store(
    folder: Path,
    ids: Iterable[str],
    *,
    tower: Backbone | None = None,
    num_frames: int = 3,
    failed: Sequence[str] = (),
    pictures: bool = False,
    **changes: Any,
) -> Path:
    """A store of noise that a tower (default: the one that ships) might have written."""
    spec = demo_spec(tower, num_frames=num_frames, **changes)
    rows = random_rows(ids, spec, num_frames=num_frames, failed=failed, pictures=pictures)
    return write_store(folder, rows, spec)


def query_set(
    owners: Sequence[int], num_videos: int, texts: Sequence[str] | None = None
) -> QuerySet:
    """A query for each owner, among others of two videos that their order tells apart."""
    from vtr.evaluate.protocol import QuerySet

    return QuerySet(
        protocol="toy",
        part="test",
        video_ids=tuple(f"v{v}" for v in range(num_videos)),
        texts=tuple(texts or [f"text {q}" for q in range(len(owners))]),
        text_ids=tuple(f"q{q}" for q in range(len(owners))),
        query_video=np.array(owners, np.int64),
        categories={"v0": "cats", "v1": "dogs"},
        groups={"v0": "order", "v1": "order"},
        rivals={"v0": "v1", "v1": "v0"},
    )


# ---- models and runs


@functools.cache
def demo_backbone() -> Backbone:
    """The model that ships, on the CPU, loaded once; tests do not change it."""
    from vtr.clip.backbone import load_backbone

    return load_backbone(str(demo_model_folder()), device="cpu")


def make_run(
    folder: Path,
    *,
    dim: int | None = None,
    scale: float = 2.0,
    head: str = "meanP",
    moved: float = 0.0,
    train_ids: Sequence[str] = ("x",),
    config: Mapping[str, Any] | None = None,
) -> Path:
    """A run on frozen text, of meanP one that scores as CLIP does; `dim` the shipped model's.

    `moved` is how far the head's weights are `perturbed`.
    """
    from vtr.train.model import ModelSpec, build_model
    from vtr.train.run import write_run
    from vtr.train.text_tower import TextSpec

    dim = demo_backbone().embedding_dim if dim is None else dim
    spec = ModelSpec(head, dim, TextSpec("frozen", dim, dim))
    model = build_model(spec)
    model.logit_scale.data.fill_(scale)
    perturbed(model.head, moved)
    write_run(
        folder,
        model,
        spec,
        config={"text_model": {"id": str(demo_model_folder())}} if config is None else config,
        train_ids=list(train_ids),
    )
    return folder


def made_up_pairs(
    num_videos: int,
    captions: int | Sequence[int],
    *,
    dim: int = 16,
    longest: int = 5,
    shows: str = "mean",
    words: bool = False,
) -> PairedData:
    """Ragged videos of noise with captions, in no order, near the mean or the first frame of each.

    `captions` is how many each video has; with `words` there are several tokens of each.
    """
    from vtr.features.store import PackedFrames
    from vtr.train.data import PairedData
    from vtr.train.texts import TextFeatures

    rng = np.random.default_rng(0)

    def noise(counts: NDArray[Any]) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
        offsets = np.concatenate(([0], counts.cumsum())).astype(np.int64)
        return rng.normal(size=(int(offsets[-1]), dim)).astype(np.float16), offsets

    frames, offsets = noise(rng.integers(1, longest + 1, num_videos))
    owner = rng.permutation(np.repeat(np.arange(num_videos), captions))
    firsts = frames[offsets[:-1]]
    means = np.add.reduceat(frames.astype(np.float32), offsets[:-1]) / np.diff(offsets)[:, None]
    shown = {"mean": means, "first": firsts}[shows][owner]
    pooled = (shown + 0.3 * rng.normal(size=shown.shape)).astype(np.float32)
    tokens = noise(rng.integers(2, 6, len(owner))) if words else ()
    return PairedData(
        TextFeatures(tuple(f"c{n}" for n in range(len(owner))), pooled, 0, *tokens),
        PackedFrames(
            tuple(f"v{v}" for v in range(num_videos)), frames, np.arange(len(frames)) * 1.0, offsets
        ),
        owner,
        rng.normal(size=dim).astype(np.float32),
    )


class Corners:
    """A real encoder, only a simple one: two corner pixels, scaled. Remembers what it saw."""

    device = "cpu"

    def __init__(self, factor: float = 1.0, **preprocessing: Any) -> None:
        self.factor = factor
        self.seen: list[NDArray[np.uint8]] = []
        self.preprocessing = {
            "route": "exact", "size": [8, 8], "resize": "shortest-edge", "resize_to": 8,
            "resample": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3, **preprocessing,
        }  # fmt: skip

    def describe(self) -> dict[str, Any]:
        """As a `Backbone` does."""
        return {
            "backbone": f"corners-{self.factor:g}", "revision": "local",
            "weights_sha256": f"{self.factor:064.3f}", "embedding_dim": 6,
            "compute_dtype": "float32", "preprocessing": self.preprocessing,
        }  # fmt: skip

    def encode_frames(self, crops: NDArray[Any]) -> NDArray[Any]:
        """(B, 6) of (B, 8, 8, 3) crops."""
        self.seen.append(crops.copy())
        corners = np.concatenate([crops[:, 0, 0], crops[:, -1, -1]], axis=1)
        return (corners.astype(np.float32) + 1) * self.factor

    def pad_embedding(self) -> NDArray[Any]:
        """(6,) ones."""
        return np.ones(6, np.float32)


# ---- folders of models


def save_quietly(model: Any, folder: Path, **options: Any) -> Path:
    """`save_pretrained` of transformers without its progress bars."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    model.save_pretrained(folder, **options)
    logging.enable_progress_bar()
    return folder


def write_words(
    folder: Path, words: Sequence[str], *, unknown: str = "<unk>", kind: str = "", **settings: Any
) -> Path:
    """A tokeniser of whole words, each with its place as its id; `kind` is its class, if any."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {word: number for number, word in enumerate(words)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=unknown))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    folder.mkdir(exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    if kind:
        record = {"tokenizer_class": kind, **settings}
        (folder / "tokenizer_config.json").write_text(json.dumps(record))
    return folder


def edit_json(path: Path, change: Callable[[dict[str, Any]], object] = len, **values: Any) -> None:
    """Changes a file of JSON; `a__b=1` sets b in its object a."""
    record = json.loads(path.read_text())
    for key, value in values.items():
        section, _, name = key.rpartition("__")
        (record[section] if section else record)[name] = value
    change(record)
    path.write_text(json.dumps(record))


def edit_weights(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Changes the weights of a folder."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def write_processor(folder: Path, size: Any, **more: Any) -> None:
    """The settings of an image processor, as its model folder holds them."""
    third = {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}
    steps = dict.fromkeys(("do_resize", "do_rescale", "do_normalize"), True)
    record = {**steps, **third, "rescale_factor": 1 / 255, "resample": 3, "size": size, **more}
    (folder / "preprocessor_config.json").write_text(json.dumps(record))


# ---- heads

LENGTHS = (5, 1, 3, 4)
WORDS = (3, 6, 2, 4)


def head_batches(
    dim: int,
    *,
    lengths: Sequence[int] = LENGTHS,
    words: Sequence[int] = WORDS,
    shift: float = 0.0,
    extra: int = 0,
) -> tuple[TextBatch, VideoBatch]:
    """Ragged texts and videos, NaN in padding; `shift` moves them apart: their cosines fall."""
    import torch

    from vtr.train.heads.base import TextBatch, VideoBatch

    def ragged(counts: Sequence[int], seed: int, more: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        vectors = torch.randn(len(counts), max(counts), dim, generator=generator)
        vectors = torch.cat([vectors, torch.zeros(len(counts), more, dim)], dim=1)
        mask = torch.arange(max(counts) + more) < torch.tensor(counts)[:, None]
        return vectors + (shift if seed == 2 else -shift), mask

    (frames, mask), (tokens, word_mask) = ragged(lengths, 1, extra), ragged(words, 2, 0)
    pad = torch.randn(dim, generator=torch.Generator().manual_seed(3))
    pooled = tokens[torch.arange(len(words)), torch.tensor(words) - 1]
    tokens = tokens.masked_fill(~word_mask[..., None], torch.nan)
    frames = frames.masked_fill(~mask[..., None], torch.nan)
    return TextBatch(pooled, tokens, word_mask), VideoBatch(frames, mask, pad)


def doubles(module: Any) -> dict[str, NDArray[np.float64]]:
    """Weights by their names."""
    return {name: value.double().numpy() for name, value in module.state_dict().items()}


def rows_of(batch: TextBatch | VideoBatch) -> list[NDArray[np.float64]]:
    """What is there of each text's tokens, or of each video's frames."""
    given: Any = batch
    is_video = hasattr(batch, "frames")
    pair = (given.frames, given.mask) if is_video else (given.tokens, given.token_mask)
    return [rows[kept].double().numpy() for rows, kept in zip(*pair, strict=True)]


def make_head(label: str, *, dim: int = 64, clip: DualEncoder | None = None, seed: int = 0) -> Head:
    """Returns the untrained head that `--head LABEL` asks for."""
    from vtr.train.headlist import build_head, parse_head

    return build_head(parse_head(label), dim=dim, clip=clip, seed=seed)


def perturbed(head: Any, amount: float = 0.1) -> Any:
    """Moves every parameter away from zeros, ones and identities, which would hide defects."""
    import torch

    generator = torch.Generator().manual_seed(13)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter += amount * torch.randn(parameter.shape, generator=generator)
    return head


def random_clip(dim: int, *, num_layers: int = 3) -> Any:
    """Noise of the shapes of what heads start from in CLIP's towers."""
    import torch

    from vtr.clip.towers import Block

    generator = torch.Generator().manual_seed(8)

    def draw(module: torch.nn.Module) -> torch.nn.Module:
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.3, generator=generator)
        return module

    blocks = torch.nn.ModuleList(Block(dim, 2, 4 * dim) for _ in range(num_layers))
    text = SimpleNamespace(
        clips=True, blocks=draw(blocks), positions=draw(torch.nn.Embedding(77, dim)).weight.detach()
    )
    visual = torch.nn.Module()
    visual.projection = draw(torch.nn.Linear(dim + 8, dim, bias=False))
    return SimpleNamespace(text=text, visual=visual)


def same_tensors(one: Path, other: Path) -> bool:
    """Whether two safetensors files hold the same numbers under the same names."""
    import torch
    from safetensors.torch import load_file

    first, second = load_file(one), load_file(other)
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def require_same_model(one: Path, other: Path, *, but: str, atol: float = 2e-5) -> None:
    """Compares the weights of two checkpoints, but for those whose names end so."""
    import torch
    from safetensors.torch import load_file

    second = load_file(other)
    for key, value in load_file(one).items():
        if key.startswith("model.") and not key.endswith(but):
            assert torch.allclose(value, second[key], atol=atol), key


def stop_at(epoch: int) -> Callable[[Mapping[str, Any]], None]:
    """Returns an `on_epoch` that stops a training as its user would, before it is saved."""

    def stop(row: Mapping[str, Any]) -> None:
        if row["epoch"] == epoch:
            raise KeyboardInterrupt

    return stop


def golden(name: str) -> dict[str, Any]:
    """Returns the arrays of golden/NAME.npz."""
    with np.load(Path(__file__).parent / "golden" / f"{name}.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def tensors(arrays: Mapping[str, Any], prefix: str = "param/") -> dict[str, Tensor]:
    """Returns those whose names begin so, without that."""
    import torch

    return {
        name.removeprefix(prefix): torch.from_numpy(array)
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


def same(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> None:
    """Asserts that two state dicts have the same names, types and bits."""
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert tensor.dtype == right[name].dtype, name
        assert tensor.equal(right[name]), name


def without(name: str) -> Callable[[dict[str, Any]], object]:
    """An edit of a state dict."""
    return lambda state: state.pop(name)


def with_zeros(name: str, *shape: int) -> Callable[[dict[str, Any]], object]:
    """An edit of a state dict."""
    import torch

    return lambda state: state.update({name: torch.zeros(shape)})


def unit(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Rows of length 1."""
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True))


def close(got: Tensor, expected: Any, *, atol: float = 1e-5) -> None:
    """Asserts that numbers agree, whatever their size."""
    np.testing.assert_allclose(got.detach().numpy(), expected, rtol=0, atol=atol)


def in_two_processes(work: Callable[..., object], *given: Any) -> None:
    """Calls `work(World(rank, 2), *given)` in both; `work` is a function of a test file."""
    context, port = multiprocessing.get_context("spawn"), free_port()
    workers = [context.Process(target=_as_rank, args=(n, port, work, given)) for n in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0]


def _as_rank(rank: int, port: int, work: Callable[..., object], given: tuple[Any, ...]) -> None:
    import torch

    from vtr.train.distributed import World

    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    try:
        work(World(rank, 2), *given)
    finally:
        torch.distributed.destroy_process_group()


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# ---- the command line


def run_app(
    *words: str | Path, cwd: Path | None = None, width: int = 80, code: int | None = 0
) -> Result:
    """Runs `vtr` in this process, to this exit code (None: any); our errors are raised."""
    from typer.testing import CliRunner

    from vtr.cli import app

    with chdir(cwd or Path.cwd()):
        runner = CliRunner(env={"COLUMNS": str(width)})
        done = runner.invoke(app, [*map(str, words)], catch_exceptions=False)
    assert code in (None, done.exit_code), done.output
    return done


def run_json(*words: str | Path, cwd: Path | None = None, code: int = 0) -> Any:
    """Runs `vtr ... --json` as `run_app` does, and returns its document."""
    return json.loads(run_app(*words, "--json", cwd=cwd, code=code).stdout)


def run_process(
    *words: str | Path, cwd: Path | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """Runs `vtr` in a process of its own, without network; output is no terminal."""
    return run_python("-m", "vtr", *words, cwd=cwd, **env)


def run_python(
    *words: str | Path, cwd: Path | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """Runs Python with these words as `run_process` does: `-c CODE ARGUMENT...`, `-m MODULE`."""
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=cwd,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "100", **env},
        capture_output=True,
        text=True,
        check=False,
    )


def start_python(*words: str | Path, cwd: Path | None = None, **env: str) -> subprocess.Popen[str]:
    """Starts what `run_python` runs, whose output nobody reads but what it says to stderr."""
    return subprocess.Popen(
        [sys.executable, *map(str, words)],
        cwd=cwd,
        env={**os.environ, "HF_HUB_OFFLINE": "1", **env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until(happens: Callable[[], Any], process: subprocess.Popen[Any] | None = None) -> Any:
    """Waits for something true and returns it; no longer than a process lives, nor two minutes."""
    limit = time.monotonic() + 120
    while not (found := happens()) and (process is None or process.poll() is None):
        assert time.monotonic() < limit
        time.sleep(0.005)
    return found


def kill_when(
    happens: Callable[[], Any], process: subprocess.Popen[str], number: int = signal.SIGKILL
) -> str:
    """Sends a signal as soon as something is true; returns what the process said to stderr."""
    wait_until(happens, process)
    process.send_signal(number)
    return process.communicate(timeout=60)[1]


def script(name: str) -> Any:
    """Imports a Python file of the repository, such as benchmarks/search.py."""
    path = Path(__file__).parents[1] / name
    sys.path.insert(0, str(path.parent))
    try:
        return importlib.import_module(path.stem)
    finally:
        sys.path.remove(str(path.parent))
