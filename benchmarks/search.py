"""Search: what it finds in the demo world, and what it costs beside the bare work.

    python benchmarks/search.py [--frames 100000,1000000] [--world DIR] [--rounds 7]

One JSON line per group. `scan` is a store of random unit vectors (512 dimensions, a minute of
video each); its query takes a vector, so that the text tower stands apart. `first` are whole
processes on an indexed folder. `world` are the shares that issue 15 sets, over the test split.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import av
import common
import numpy as np
import torch

from vtr.clip.backbone import load_backbone, load_text_encoder
from vtr.clip.hub import find_model
from vtr.datasets.base import Video
from vtr.demo import demo_model_folder
from vtr.demo.world import render_world
from vtr.extract.pipeline import extract
from vtr.extract.samplers.base import parse_samplers
from vtr.extract.settings import ExtractSettings
from vtr.features import FeatureSpec, FeatureStore, LedgerRow, VideoRow
from vtr.features.shard import write_shard
from vtr.searching.folder import FolderSource, StoreSource
from vtr.searching.index import Bank, read_index, update_index
from vtr.searching.library import Answer, Library
from vtr.searching.query import Query

MODEL = str(demo_model_folder())
DIM, FRAMES, SHARD_VIDEOS = 512, 120, 256
WORDS = (
    "bottle", "hyper", "tax", "quickly", "theory", "green", "banana", "seven", "parliament",
    "swim", "keyboard", "hope", "mountain", "engine", "doubt", "sugar", "twelve", "orbit",
    "carpet", "laugh", "piano", "wisdom", "rust", "sponge", "committee", "fever", "tango",
    "pixel", "hammer", "yesterday", "cloud", "spoon", "velvet", "anger", "compute", "bread",
    "tiger", "elbow", "jazz", "plastic", "winter", "sister", "lemon", "justice", "radio",
    "cactus", "melt", "soup", "throw", "silence",
)  # fmt: skip


# ---- what it costs


class _Vectors:
    """An encoder whose sentences are random directions."""

    def texts(self, texts: list[str]) -> tuple[np.ndarray, int]:
        vectors = np.random.default_rng(len(texts[0])).standard_normal((len(texts), DIM))
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), 0


class _Store:
    """A store of random vectors as a library's source."""

    encoder = _Vectors()

    def __init__(self, place: Path) -> None:
        self.place = place

    def refresh(self, *, rebuild: bool = False) -> Any:
        return read_index(self.place), None

    def paths(self, ids: list[str]) -> dict[str, None]:
        return dict.fromkeys(ids)


def build(folder: Path, num_frames: int) -> float:
    """Writes and indexes a store; returns the seconds of indexing."""
    spec = FeatureSpec(
        "random", "local", "0" * 64, DIM, "float32", "float16", {}, 2.0, None, ("dense",), 0
    )
    rng, pts, every = np.random.default_rng(0), np.arange(FRAMES) / 2, {"dense": np.arange(FRAMES)}
    videos = num_frames // FRAMES
    for sequence, first in enumerate(range(0, videos, SHARD_VIDEOS)):
        rows = []
        for v in range(first, min(first + SHARD_VIDEOS, videos)):
            shots = rng.standard_normal((FRAMES // 12, DIM), np.float32).repeat(12, axis=0)
            frames = shots + 0.3 * rng.standard_normal((FRAMES, DIM), np.float32)
            ledger = LedgerRow(f"video{v:07}", "ok", duration_seconds=FRAMES / 2)
            rows.append(VideoRow(ledger, frames.astype(np.float16), pts, every))
        pad = np.zeros(DIM, np.float32)
        write_shard(folder, rows, spec=spec, slot=(1, 1, sequence), revision=0, pad_embedding=pad)
    bank = rng.standard_normal((200, DIM)).astype(np.float32)
    bank /= np.linalg.norm(bank, axis=1, keepdims=True)
    start = time.perf_counter()
    update_index(folder / "index", FeatureStore(folder), Bank("random", bank))
    return time.perf_counter() - start


def query_seconds(folder: Path, rounds: int) -> list[float]:
    """Returns the seconds of each query but the first on a store that `build` made."""
    library = Library(_Store(folder / "index"))  # type: ignore[arg-type]
    library.search(Query(("x",)))
    words = [("x" * (2 + n),) for n in range(rounds)]
    return [common.timed(lambda w=word: library.search(Query(w))).wall for word in words]  # type: ignore[misc]


def scan(folder: Path, rounds: int) -> None:
    """Measures queries on a store that `build` made; a process of its own, for its peak memory."""
    start = time.perf_counter()
    library = Library(_Store(folder / "index"))  # type: ignore[arg-type]
    opened = time.perf_counter() - start
    frames = torch.from_numpy(np.asarray(library.index.frames))
    words = frames.view(torch.int16).view(-1).numpy().view(np.uint64)
    vector = torch.from_numpy(_Vectors().texts(["x"])[0][0]).half()
    encoder = load_text_encoder(find_model(MODEL), device="cpu")
    library.search(Query(("x",)))
    encoder.encode(["x"])
    # Before the bare work maps all frames for itself.
    peak = _peak_bytes() / 1e9
    times = common.in_turn(
        rounds,
        query=lambda: common.timed(lambda: library.search(Query(("x" * 7,)))).wall,
        product=lambda: common.timed(lambda: torch.mv(frames, vector)).wall,
        memory=lambda: common.timed(lambda: words.max()).wall,
        text=lambda: common.timed(lambda: encoder.encode(["a red circle spins on dots"])).wall,
    )
    best = {name: 1e3 * common.median(values) for name, values in times.items()}
    ratio = (best["query"] + best["text"]) / (best["product"] + best["text"])
    common.emit(
        "scan",
        frames=len(frames),
        milliseconds=best,
        query_and_text_over_product_and_text=common.goal(ratio, at_most=1.5),
        query_over_memory=common.goal(best["query"] / best["memory"], at_most=3),
        open_seconds=common.goal(opened, at_most=2),
        peak_gb=common.goal(peak, at_most=1.3),
        threads=torch.get_num_threads(),
    )


def _peak_bytes() -> int:
    """Returns this program's peak; getrusage would count what started it too."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def first_answer(videos: Path, rounds: int) -> None:
    """Measures `vtr search` on an indexed folder beside importing torch and the text weights."""
    bare = (
        "import torch; from safetensors import safe_open\n"
        f"with safe_open({MODEL + '/model.safetensors'!r}, 'pt') as f:\n"
        "    [f.get_tensor(n).clone() for n in f.keys() if n.startswith('text')]"
    )
    command = [sys.executable, "-m", "vtr", "search", str(videos), "a red circle", "--json"]

    def run(words: list[str]) -> float:
        return common.timed(lambda: subprocess.run(words, check=True, capture_output=True)).wall

    times = common.in_turn(
        rounds, search=lambda: run(command), bare=lambda: run([sys.executable, "-c", bare])
    )
    seconds = {name: common.median(values) for name, values in times.items()}
    ratio = common.goal(seconds["search"] / seconds["bare"], at_most=2)
    common.emit("first", seconds=seconds, search_over_torch_and_weights=ratio)


# ---- what it finds


def overlap(hit: Any, start: float, end: float) -> float:
    """Returns the IoU of a hit and a span."""
    both = max(0.0, min(hit.end_seconds, end) - max(hit.start_seconds, start))
    return both / (max(hit.end_seconds, end) - min(hit.start_seconds, start))


def first(answer: Answer) -> Any:
    """Returns the best moment, whatever its level."""
    return (answer.hits or answer.nearest)[0]


class World:
    """The test split of the demo world: its clips, captions and events."""

    def __init__(self, folder: Path) -> None:
        render_world(folder, workers=1)
        document = json.loads((folder / "annotations" / "demo.json").read_text())
        self.videos = {v["id"]: v for v in document["videos"] if v["split"] == "test"}
        self.captions: dict[str, list[str]] = {i: [] for i in self.videos}
        for caption in document["captions"]:
            if caption["video_id"] in self.captions:
                self.captions[caption["video_id"]].append(caption["text"])
        self.folder = folder

    def of(self, group: str) -> list[str]:
        """Returns the clips of a group."""
        return [i for i, video in self.videos.items() if video["group"] == group]

    def copy(self, ids: list[str], folder: Path) -> Path:
        """Copies clips into a folder."""
        folder.mkdir()
        for i in ids:
            shutil.copy(self.folder / "videos" / f"{i}.mp4", folder)
        return folder

    def frames(self, video_id: str) -> list[np.ndarray]:
        """Returns the pictures of a clip."""
        with av.open(str(self.folder / "videos" / f"{video_id}.mp4")) as container:
            return [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]


def in_library(world: World, library: Library) -> dict[str, float]:
    """Measures captions, nonsense and frames against the whole test split."""
    rng = random.Random(5)
    asked = [(i, text) for i in world.of("content") for text in world.captions[i]]
    answers = [library.search(Query((text,)), top=1) for _, text in asked]
    right = [first(a).video_id == f"{i}.mp4" for (i, _), a in zip(asked, answers, strict=True)]
    nonsense = [" ".join(rng.sample(WORDS, rng.randint(3, 8))) for _ in range(100)]
    refused = [not library.search(Query((text,)), top=1).match for text in nonsense]
    asked = [(i, text) for i in world.of("brief") for text in world.captions[i][:2]]
    brief = [
        _in_event(world, i, library.search(Query((t,)), inside={f"{i}.mp4"})) for i, t in asked
    ]
    return {
        "content_first": float(np.mean(right)),
        "content_no_match": float(np.mean([not a.match for a in answers])),
        "nonsense_no_match": float(np.mean(refused)),
        "brief_found_at_2_fps": float(np.mean([share > 0 for share in brief])),
    }


def _in_event(world: World, video_id: str, answer: Answer) -> float:
    video = world.videos[video_id]
    return overlap(first(answer), video["event_start_seconds"], video["event_end_seconds"])


def of_frames(world: World, library: Library, count: int) -> float:
    """Returns the share of frames that, as queries, return their video within half a second."""
    rng, right = random.Random(7), []
    with tempfile.TemporaryDirectory() as scratch:
        from PIL import Image

        for video_id in rng.choices(world.of("content"), k=count):
            pictures = world.frames(video_id)
            at = rng.randrange(len(pictures))
            path = Path(scratch) / "frame.png"
            Image.fromarray(pictures[at]).save(path)
            hit = first(library.search(Query(images=(path,)), top=1))
            right.append(
                hit.video_id == f"{video_id}.mp4"
                and hit.start_seconds - 0.5 <= at / 10 <= hit.end_seconds + 0.5
            )
    return float(np.mean(right))


def joined(world: World, folder: Path, count: int) -> dict[str, float]:
    """Joins 3 to 6 clips into one file each, and looks for each clip by its captions."""
    folder.mkdir()
    rng, spans = random.Random(0), []
    for number in range(count):
        path, at = folder / f"{number:03}.mp4", 0
        with av.open(str(path), "w") as container:
            stream: Any = container.add_stream("libx264", rate=10)
            stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
            stream.options = {"crf": "18", "threads": "1"}
            for i in rng.sample(world.of("content"), rng.randint(3, 6)):
                pictures = world.frames(i)
                for picture in pictures:
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
                spans.append((path.name, i, at / 10, (at + len(pictures)) / 10))
                at += len(pictures)
            container.mux(stream.encode(None))
    library = Library(FolderSource(folder, model=MODEL, device="cpu"))
    ious = [
        overlap(first(library.search(Query((text,)), inside={name})), start, end)
        for name, i, start, end in spans
        for text in world.captions[i][:2]
    ]
    return {f"joined_R1@{at}": float(np.mean(np.array(ious) >= at)) for at in (0.5, 0.7)}


def absent(world: World, scratch: Path) -> float:
    """AUC of the best score: captions of the half in the folder against those of the other half."""
    ids = world.of("content")
    random.Random(1).shuffle(ids)
    half = ids[: len(ids) // 2]
    library = Library(FolderSource(world.copy(half, scratch / "half"), model=MODEL, device="cpu"))
    best = {
        i: [first(library.search(Query((t,)), top=1)).score for t in world.captions[i][:2]]
        for i in ids
    }
    there = np.concatenate([best[i] for i in half])
    not_there = np.concatenate([best[i] for i in ids[len(half) :]])
    return float((there[:, None] > not_there[None]).mean())


def brief_at_native_rate(world: World, place: Path) -> float:
    """Returns the share of captions of brief events whose moment has an IoU of 0.7 or more."""
    ids = world.of("brief")
    files: dict[str, Path | None] = {i: world.folder / "videos" / f"{i}.mp4" for i in ids}
    inputs = [(Video(i, files[i]), None) for i in ids]
    how = ExtractSettings(parse_samplers("dense"), candidate_fps=None, thumbnails=False, workers=1)
    extract(inputs, place, load_backbone(MODEL, device="cpu"), how)
    library = Library(StoreSource(place, files, model=MODEL, device="cpu"))
    asked = [(i, text) for i in ids for text in world.captions[i]]
    ious = [_in_event(world, i, library.search(Query((t,)), inside={i})) for i, t in asked]
    return float(np.mean(np.array(ious) >= 0.7))


def measure_world(folder: Path, scratch: Path, *, num_joined: int = 40) -> dict[str, float]:
    """Returns all shares by name."""
    world = World(folder)
    videos = world.copy(list(world.videos), scratch / "videos")
    library = Library(FolderSource(videos, model=MODEL, device="cpu"))
    found = in_library(world, library)
    found["frame_returns_its_video"] = of_frames(world, library, 600)
    found |= joined(world, scratch / "joined", num_joined)
    found["brief_R1@0.7_native"] = brief_at_native_rate(world, scratch / "native")
    found["absent_auc"] = absent(world, scratch)
    return found


GOALS: dict[str, dict[str, float]] = {
    "content_first": {"at_least": 0.85},
    "content_no_match": {"at_most": 0.05},
    "nonsense_no_match": {"at_least": 0.95},
    "brief_found_at_2_fps": {"at_least": 0.6},
    "brief_R1@0.7_native": {"at_least": 0.9},
    "frame_returns_its_video": {"at_least": 0.99},
    "joined_R1@0.5": {"at_least": 0.9},
    "joined_R1@0.7": {"at_least": 0.8},
    "absent_auc": {"at_least": 0.92},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", default="100000,1000000")
    parser.add_argument("--world", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--scan", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.scan is not None:
        scan(given.scan, given.rounds)
        return
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        found = measure_world(given.world or place / "world", place)
        figures = {name: common.goal(value, **GOALS[name]) for name, value in found.items()}
        common.emit("world", **figures)
        first_answer(place / "videos", given.rounds)
        for count in map(int, given.frames.split(",")):
            store = place / str(count)
            store.mkdir()
            seconds = build(store, count)
            common.emit("build", frames=count, index_seconds=seconds)
            words = [__file__, "--scan", str(store), "--rounds", str(given.rounds)]
            subprocess.run([sys.executable, *words], check=True)
            shutil.rmtree(store)


if __name__ == "__main__":
    main()
