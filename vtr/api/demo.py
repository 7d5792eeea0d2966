"""`vtr demo`: the whole pipeline on a small world that ships with the package.

The product in one file: render videos, extract their features, train heads, evaluate, report. Every
step is the public call that a user of the library makes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import vtr
from vtr.api.stores import read_dataset
from vtr.datasets.base import Caption, split_queries
from vtr.demo import DEMO_FPS, DEMO_FRAMES, DEMO_SAMPLER, demo_model_folder
from vtr.demo.events import events_shown, known_uniform_share
from vtr.demo.scenes import CLIPS_PER_GROUP
from vtr.demo.words import Part
from vtr.demo.world import WorldSummary, render_world
from vtr.progress import progress
from vtr.result_schema import RESULT_FILE
from vtr.verbs.demo import Options
from vtr.workspace import FILE_NAME, Workspace, read_workspace, settings, write_workspace

SAMPLERS = ("uniform", "motion", "diversity")
# The text tower has read single frames only: to it, both sentences of a twin are nearly one (cosine
# 0.995). So it must be trained, and twins must meet in a batch, which `mine` sees to.
_TUNED: Mapping[str, Any] = {
    "text": "tune", "tune_layers": 2, "coef_lr": 0.5, "captions": "2", "batch_size": 40,
    "mine": "global", "patience": 0,
}  # fmt: skip
_FROZEN: Mapping[str, Any] = {
    "text": "projection", "captions": "2", "batch_size": 40, "mine": "global", "patience": 0,
    "epochs": 12,
}  # fmt: skip
# Both towers end to end: three seeds of it found the order of events in 45 to 48 % of the queries,
# the text tower alone in 34 to 35 %.
_TOWERS: Mapping[str, Any] = {
    "vision": "tune", "lr": 1e-3, "coef_lr": 0.5, "captions": "2", "batch_size": 40,
    "mine": "global", "patience": 0, "epochs": 10,
}  # fmt: skip
_RERANKED = 50
# A transformer over every pair: an epoch takes half a minute even here.
_SHORTER: Mapping[str, Mapping[str, Any]] = {"tightTransf": {"epochs": 3}}


@dataclass(frozen=True)
class Trial:
    """One row of the table: a head with a sampler's frames."""

    head: str
    sampler: str
    options: Mapping[str, Any] | None = None  # of the training; None is zero-shot

    @property
    def name(self) -> str:
        """Of the run, and in the report."""
        text = "zero-shot" if self.options is None else str(self.options.get("text", "towers"))
        return f"{self.head.partition(':')[0]}-{text}-{self.sampler}"


def short_trials() -> list[Trial]:
    """Returns the rows of `vtr demo`: what can be measured in a minute."""
    # Two of CLIP4Clip's four layers, and small batches: more steps for the same time. Which epoch
    # the rule of the twins is found in is chance (within twins, four runs of 30 or 36 epochs: 92,
    # 92, 88, 93 %; four layers, batches of 40, 40 epochs: 94, 80, 89 %).
    small: Mapping[str, Any] = {"epochs": 30, "batch_size": 24}
    tuned = {"meanP": {"epochs": 10}, "seqLSTM": {"epochs": 24}, "seqTransf:layers=2": small}
    return [
        *[Trial("meanP", sampler) for sampler in SAMPLERS],
        *[Trial(head, "uniform", {**_TUNED, **own}) for head, own in tuned.items()],
    ]


def full_trials() -> list[Trial]:
    """Returns the rows of `vtr demo --full`: every head with three samplers, and the tuned ones."""
    from vtr.train.headlist import head_names

    every = [
        Trial(head, sampler, {**_FROZEN, **_SHORTER.get(head, {})})
        for head in head_names()
        for sampler in SAMPLERS
    ]
    heads = ("maxP", "clip2video", "xpool", "wti")
    tuned = [Trial(head, "uniform", {**_TUNED, "epochs": 40}) for head in heads]
    return [*short_trials(), Trial("meanP", "uniform", _TOWERS), *tuned, *every]


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
    with _one_encoder_thread():
        report = vtr.extract_features(workspace, device="cpu", quiet=quiet)
    budget = {"num_frames": workspace.frames}
    shown = events_shown(workspace.features, world.annotations, seed=workspace.seed, **budget)
    return workspace, {
        "world": {k: str(v) if isinstance(v, Path) else v for k, v in asdict(world).items()},
        "extract": vars(report),
        "sees_brief_events": [asdict(one) for one in shown],
        "uniform_sees_by_construction": known_uniform_share(world.annotations, **budget),
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


@contextmanager
def _one_encoder_thread() -> Iterator[None]:
    """Gives the encoder one thread: with two the tiny CLIP takes 1.3 times as long (measured)."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def measure_heads(
    workspace: Workspace, trials: Sequence[Trial], *, quiet: bool = False
) -> tuple[list[dict[str, Any]], Path]:
    """Trains and evaluates every trial in turn.

    Returns:
        The documents of the results, each with its "path", and the page that shows them.
    """
    results = []
    with progress("measuring", quiet=quiet) as update:
        for number, trial in enumerate(trials):
            update(number, len(trials), trial.name)
            results.append(_measure(workspace, trial))
        update(len(trials), len(trials), "heads")
    out, title = workspace.root / "report", "The vtr demo world"
    page = vtr.make_report([r.folder for r in results], out, title=title, pictures=False)
    return [{**r.document, "path": str(r.folder / RESULT_FILE)} for r in results], page


def _measure(workspace: Workspace, trial: Trial) -> vtr.Result:
    run = None
    if trial.options is not None and "vision" in trial.options:
        workspace = _with_pictures(workspace, trial.sampler)
    if trial.options is not None:
        own = {"name": trial.name, "sampler": trial.sampler, "seed": 0, **trial.options}
        run = vtr.train_head(workspace, trial.head, device="cpu", **own)
    together = run is not None and run.model.head.info.together
    return vtr.evaluate_run(
        workspace,
        run,
        protocol="demo",
        sampler=trial.sampler,
        rerank=_RERANKED if together else None,
        out=workspace.root / "results" / trial.name,
        device="cpu",
    )


def _with_pictures(workspace: Workspace, sampler: str) -> Workspace:
    """Returns the workspace with a store of its own that keeps the pictures of one sampler."""
    kept = settings(workspace, features=workspace.root / "features-pictures", sampler=sampler)
    with _one_encoder_thread():
        vtr.extract_features(kept, device="cpu", crops="raw")
    return kept
