"""Renders the demo world: short clips, their captions and splits, the same every time.

A folder of it holds `videos/ID.mp4`, `annotations/demo.json` and `world.json` with the digest of
every file: what carries a fitting one is whole and is not rendered again, also after a kill.

What is held out: every (shape, colour, background kind) triple that a test clip shows, as its
sprite, as either half of a twin, as event or as distractor, occurs in no clip of train or val (see
`vtr.demo.words.part_of`), nor in the frames the tiny CLIP was trained on. So no scene of the test
split was seen whole; its colours, shapes, backgrounds and actions all were.

Queries fall into three groups whose ceiling is known by construction:

- `content`: one frame tells a clip from all others of its split.
- `order`: twins of two halves, each a still picture. Their drawn and their decoded frames are the
  same multiset, and so is any choice of frames that takes equally many from both halves, such as
  `uniform` with an even budget, whole seconds, or all frames. Whoever pools these frames without
  regard to order cannot tell which twin is meant: 50 % within pairs. A choice that takes more of
  one half (`head`) sees more of one sprite, which says something about order.
- `brief`: five clips are the same to the last decoded bit but for an event of 0.3 to 0.6 s in
  10 to 12 s. Where no frame of the event is chosen, they cannot be told apart: 1 in 5 by chance.
  `vtr.demo.events.known_uniform_share` says how often one is.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtr.arithmetic import usable_cores
from vtr.demo.captions import clip_captions
from vtr.demo.render import encode_clip
from vtr.demo.scenes import CLIPS_PER_GROUP, FRAMES_PER_SECOND, Clip, plan_world
from vtr.demo.words import Part
from vtr.errors import ConfigError, StoreWriteError, WorkersLostError
from vtr.extract.pool import Outcome, PoolSettings, WorkerPool
from vtr.extract.worker import Answer
from vtr.files import make_folder, publish
from vtr.foreign import escape_undecodable
from vtr.json_files import read_json

WORLD_SEED = 2026
WORLD_VERSION = 3
"""Counted up whenever the same seed gives other pictures or captions."""

_DIGEST_FILE = "world.json"
_RECORD_SECONDS = 1.0  # so much work at most is done again after a kill
_CLIPS_PER_PROCESS = 4
HANDLER = "vtr.demo.world:make_handler"

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class WorldSummary:
    """What `render_world` found or made."""

    folder: Path  # The world
    videos: Path  # Folder of the clips
    annotations: Path  # The annotation file
    num_videos: int  # Clips in all
    num_captions: int  # Captions in all
    num_rendered: int  # Clips drawn by this call; 0 where the world was already there
    num_bytes: int  # Size of all clips together
    clips_by_split: Mapping[str, int]  # Split to its clips
    clips_by_group: Mapping[str, int]  # Group to its clips, over all splits


def render_world(
    folder: Path,
    *,
    seed: int = WORLD_SEED,
    workers: int | None = None,
    clips_per_group: Mapping[Part, int] = CLIPS_PER_GROUP,
    progress: Progress | None = None,
) -> WorldSummary:
    """Makes the demo world in `folder`, or finds it there.

    A whole world with the same seed and size is left alone; files of it that are missing or changed
    are made again; a half-made one is gone on with. Other files are not touched. Without `workers`
    there is one process per core; `clips_per_group` are even numbers; `progress` is called with
    (clips done, clips to do).

    Raises:
        ConfigError: `workers` is below 1.
        StoreWriteError: The disk refused, or `folder` cannot be one.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"workers is {workers}; rendering needs at least 1 process")
    clips = plan_world(seed, clips_per_group=clips_per_group)
    document = describe(clips, seed=seed)
    notes, payload = "annotations/demo.json", _json(document)
    recipe = hashlib.sha256(b"%d\0" % WORLD_VERSION + payload).hexdigest()
    known = _whole_files(folder, recipe)
    todo = [clip for clip in clips if _clip_name(clip) not in known]
    if todo or notes not in known:
        for name in ("", "videos", "annotations"):
            make_folder(folder / name, option="--path")
        publish(folder / notes, payload)
        known[notes] = hashlib.sha256(payload).hexdigest()
        recorded = time.monotonic()
        try:
            for done, (name, digest) in enumerate(_rendered(todo, folder, seed, workers), start=1):
                known[name] = digest
                if time.monotonic() - recorded > _RECORD_SECONDS:
                    _record(folder, recipe, known)
                    recorded = time.monotonic()
                if progress is not None:
                    progress(done, len(todo))
        finally:
            _record(folder, recipe, known)
    return _summary(folder, clips, num_captions=len(document["captions"]), num_rendered=len(todo))


def describe(clips: Sequence[Clip], *, seed: int) -> dict[str, Any]:
    """Returns the content of `demo.json`; `vtr.datasets.demo` reads it."""
    return {
        "name": "vtr demo world",
        "version": WORLD_VERSION,
        "seed": seed,
        "frames_per_second": FRAMES_PER_SECOND,
        "videos": [_video_entry(clip) for clip in clips],
        "captions": [
            {"id": f"{clip.id}#{number}", "video_id": clip.id, "text": text}
            for clip in clips
            for number, text in enumerate(clip_captions(clip, seed=seed))
        ],
    }


def _video_entry(clip: Clip) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "id": clip.id,
        "split": clip.part,
        "group": clip.group,
        "category": clip.background,
        "num_frames": clip.num_frames,
    }
    if clip.twin is not None:
        entry["twin"] = clip.twin
    if clip.event is not None:
        entry["stage"] = clip.stage
        entry["event_start_seconds"] = clip.event.start_seconds
        entry["event_end_seconds"] = clip.event.end_seconds
    return entry


def make_handler(config: tuple[str, int]) -> Callable[[Clip], Answer]:
    """Returns the job of a worker: it writes a clip and answers with its name and digest."""
    folder, seed = config

    def handle(clip: Clip) -> Answer:
        payload = encode_clip(clip, seed=seed)
        name = _clip_name(clip)
        try:
            publish(Path(folder) / name, payload)
        except StoreWriteError as error:
            return {"store_error": escape_undecodable(str(error))}, b""
        return {"name": name, "digest": hashlib.sha256(payload).hexdigest()}, b""

    return handle


def _rendered(
    clips: Sequence[Clip], folder: Path, seed: int, workers: int | None
) -> Iterator[tuple[str, str]]:
    """Yields name and digest of every clip once it is written."""
    processes = min(workers or usable_cores(), -(-len(clips) // _CLIPS_PER_PROCESS))
    config = (str(folder), seed)
    with ExitStack() as stack:
        if processes <= 1:
            answers: Iterable[Outcome] = (Outcome(h) for h, _ in map(make_handler(config), clips))
        else:
            settings = PoolSettings(HANDLER, config, processes, memory_bytes=0)
            answers = stack.enter_context(WorkerPool(settings)).run(clips)
        for clip, answer in zip(clips, answers, strict=True):
            if answer.failure is not None:
                told = ": ".join(answer.failure)
                raise WorkersLostError(f"clip {clip.id} could not be made: {told}. Run it again")
            if "store_error" in answer.header:
                raise StoreWriteError(answer.header["store_error"])
            yield answer.header["name"], answer.header["digest"]


def _record(folder: Path, recipe: str, known: Mapping[str, str]) -> None:
    """Writes down what is whole, so that a run that is stopped is gone on with."""
    publish(folder / _DIGEST_FILE, _json({"recipe": recipe, "sha256": dict(sorted(known.items()))}))


def _whole_files(folder: Path, recipe: str) -> dict[str, str]:
    """Returns name and digest of the files that runs of this recipe left intact."""
    try:
        record = read_json(folder / _DIGEST_FILE, needed="digests")
        files: dict[str, str] = dict(record["sha256"]) if record["recipe"] == recipe else {}
    except (ConfigError, ValueError, TypeError, KeyError):
        return {}
    return {name: digest for name, digest in files.items() if _digest(folder / name) == digest}


def _digest(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def _summary(
    folder: Path, clips: Sequence[Clip], *, num_captions: int, num_rendered: int
) -> WorldSummary:
    parts, groups = [clip.part for clip in clips], [clip.group for clip in clips]
    return WorldSummary(
        folder=folder,
        videos=folder / "videos",
        annotations=folder / "annotations" / "demo.json",
        num_videos=len(clips),
        num_captions=num_captions,
        num_rendered=num_rendered,
        num_bytes=sum((folder / _clip_name(clip)).stat().st_size for clip in clips),
        clips_by_split={part: parts.count(part) for part in dict.fromkeys(parts)},
        clips_by_group={group: groups.count(group) for group in dict.fromkeys(groups)},
    )


def _clip_name(clip: Clip) -> str:
    return f"videos/{clip.id}.mp4"


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()
