"""`vtr demo`: the whole pipeline on a small world that ships with the package.

The product in one file: render videos, extract their features, train heads, evaluate, report. Every
step is the public call that a user of the library makes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import vtr
from vtr.api.demo_trials import one_thread
from vtr.api.stores import read_dataset
from vtr.datasets.base import Caption, split_queries
from vtr.demo import DEMO_FPS, DEMO_FRAMES, DEMO_SAMPLER, demo_model_folder
from vtr.demo.events import brief_test_events, events_shown, known_uniform_share
from vtr.demo.scenes import CLIPS_PER_GROUP
from vtr.demo.words import Part
from vtr.demo.world import WorldSummary, render_world
from vtr.progress import progress
from vtr.verbs.demo import Options
from vtr.workspace import FILE_NAME, Workspace, read_workspace, settings, write_workspace


def demo_workspace(
    folder: str | Path = "demo-world",
    *,
    clips_per_group: Mapping[Part, int] | None = None,
    workers: int = 1,
) -> Workspace:
    """Renders the demo world, or finds it there, and returns its workspace.

    >>> import vtr
    >>> world = vtr.demo_workspace("small", clips_per_group={"train": 2, "val": 2, "test": 2})
    >>> world.dataset, len(list(world.videos.glob("*.mp4")))
    ('demo', 26)

    Args:
        folder: Where it goes.
        clips_per_group: Split ("train", "val", "test") to the clips of each of its groups, even
            numbers: a smaller world than the full one of 680 clips.
        workers: Processes that render. More than 1 import the caller's script again: it then needs
            `if __name__ == "__main__":`.

    Raises:
        ConfigError: Sizes that no world has.
        StoreWriteError: The disk refused.
    """
    options = Options.of(path=folder, workers=workers)
    sizes = clips_per_group or CLIPS_PER_GROUP
    return _workspace(
        options.path, render_world(options.path, workers=workers, clips_per_group=sizes)
    )


def _workspace(folder: Path, world: WorldSummary) -> Workspace:
    """Returns the demo's workspace; writes it the first time, keeps what people edited."""
    if not (folder / FILE_NAME).exists():
        made = settings(
            Workspace.at(folder),
            dataset="demo",
            videos=world.videos,
            annotations=world.annotations.parent,
            model=str(demo_model_folder()),
            fps=DEMO_FPS,
            frames=DEMO_FRAMES,
            sampler=DEMO_SAMPLER,
        )
        write_workspace(made)
    return read_workspace(folder / FILE_NAME)


def prepare_demo(options: Options, *, quiet: bool = False) -> tuple[Workspace, dict[str, Any]]:
    """Renders and extracts the demo world.

    Returns:
        Its workspace, and the facts for JSON: the world, the counts of the extraction, and which
        samplers' frames show the brief events.
    """
    with progress("rendering", quiet=quiet) as update:
        world = render_world(
            options.path, workers=options.workers, progress=lambda d, n: update(d, n, "clips")
        )
    workspace = settings(_workspace(options.path, world), workers=options.workers)
    with one_thread():
        report = vtr.extract_features(workspace, device="cpu", quiet=quiet)
    budget = {"num_frames": workspace.frames}
    shown = events_shown(workspace.features, world.annotations, seed=workspace.seed, **budget)
    return workspace, {
        "world": {k: str(v) if isinstance(v, Path) else v for k, v in asdict(world).items()},
        "extract": vars(report),
        "sees_brief_events": [asdict(one) for one in shown],
        "uniform_sees_by_construction": known_uniform_share(
            brief_test_events(world.annotations), **budget
        ),
        "workspace": str(workspace.root),
    }


def search_demo(workspace: Workspace) -> list[dict[str, Any]]:
    """Asks the demo world for three of its test captions, as `vtr search` does there.

    Returns:
        For each the sentence, the video it describes, and the moments found, best first.
    """
    from vtr.api.search import as_document, open_library
    from vtr.searching.query import Query
    from vtr.verbs.search import Options as SearchOptions

    dataset = read_dataset(workspace)
    asked: dict[str, list[Caption]] = {}
    for caption in split_queries(dataset, "test"):
        asked.setdefault(dataset.groups[caption.video_id], []).append(caption)
    chosen = [asked["content"][0], asked["content"][-1], asked["brief"][0]]
    library = open_library(None, workspace, SearchOptions(device="cpu"))
    return [
        {"sentence": one.text, "video": one.video_id}
        | as_document(library.search(Query((one.text,)), top=3), library)
        for one in chosen
    ]
