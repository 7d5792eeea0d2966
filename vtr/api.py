"""The pipeline from Python: each function is one command, with a workspace as its first argument.

A command's settings come from the workspace (`vtr.toml`); keyword arguments stand for its flags and
win over it. Everything lands where the command would put it, so that a notebook and a shell can
work on the same folders.

>>> import vtr
>>> workspace = vtr.open_workspace(".", frames=8)
>>> workspace.frames
8
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vtr.demo.words import Part
    from vtr.evaluate.compare import Comparison
    from vtr.evaluate.reporting.results import Result
    from vtr.extract.pipeline import ExtractReport
    from vtr.features import FeatureStore
    from vtr.train.run import Run
    from vtr.workspace import Workspace


def open_workspace(folder: str | Path = ".", **settings: object) -> Workspace:
    """Returns the settings of the workspace in or above a folder.

    Args:
        folder: Where to look for `vtr.toml`; without one everything starts from the defaults.
        settings: What to change, by the names of `vtr.Workspace`: `videos`, `dataset`, `model`,
            `features`, `sampler`, `frames`, ... Relative paths start at `folder`.

    Raises:
        ConfigError: An unknown name, or a value that is not allowed.
    """
    from vtr.workspace import Workspace, find_workspace
    from vtr.workspace import settings as merged

    _check_names("setting", settings, Workspace)
    place = Path(folder)
    return merged(find_workspace(place), root=place.absolute(), **settings)


def demo_workspace(
    folder: str | Path = "demo-world",
    *,
    clips_per_group: Mapping[Part, int] | None = None,
    workers: int = 1,
) -> Workspace:
    """Renders the demo world, or finds it there, and returns its workspace.

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
    from vtr.demo import DEMO_FPS, DEMO_FRAMES, DEMO_SAMPLER, demo_model_folder
    from vtr.demo.scenes import CLIPS_PER_GROUP
    from vtr.demo.world import render_world
    from vtr.workspace import FILE_NAME, Workspace, write_workspace
    from vtr.workspace import settings as merged

    place = Path(folder)
    world = render_world(place, workers=workers, clips_per_group=clips_per_group or CLIPS_PER_GROUP)
    if not (place / FILE_NAME).exists():
        made = merged(
            Workspace(place),
            dataset="demo",
            videos=world.videos,
            annotations=world.annotations.parent,
            model=str(demo_model_folder()),
            fps=DEMO_FPS,
            frames=DEMO_FRAMES,
            sampler=DEMO_SAMPLER,
        )
        write_workspace(made)
    return open_workspace(place)


def extract_features(
    workspace: Workspace, *, device: str = "auto", quiet: bool = True, **settings: object
) -> ExtractReport:
    """Embeds the frames of all videos that the store does not hold yet; `vtr extract`.

    Args:
        workspace: Where everything is.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        quiet: No progress on stderr.
        settings: As for `open_workspace`, such as `sampler="uniform,head"` and `frames=8`.

    Returns:
        The counts: `ok + partial + failed == inputs`.

    Raises:
        DatasetError: Not one of the videos is there.
        FingerprintError: The store was made with other settings.
        StoreWriteError: The disk refused; what was published is intact.
    """
    from typing import Literal, cast

    from vtr.commands.console import prepare_arithmetic

    prepare_arithmetic()
    from vtr.clip.backbone import load_backbone
    from vtr.commands.extract import extract_settings, find_inputs, run
    from vtr.extract.pipeline import ExtractMode

    changed = _changed(workspace, settings)
    survey = find_inputs(changed)
    route = cast('Literal["fast", "exact"]', changed.route)
    backbone = load_backbone(changed.model, device=device, route=route)
    return run(
        changed,
        survey,
        extract_settings(changed, survey),
        backbone=backbone,
        mode=ExtractMode(),
        quiet=quiet,
    )


def open_features(workspace: Workspace, sampler: str | None = None) -> FeatureStore:
    """Returns the workspace's features with the frames of one sampler.

    Args:
        workspace: Where the store is, and the budget and seed of samplers.
        sampler: One sampler with its options; on a dense store any, without touching the videos.

    Raises:
        ConfigError: Several samplers, or one that the store cannot serve.
        StoreError: No store there.
    """
    from vtr.commands.stores import open_store

    return open_store(workspace, sampler)


def train_head(
    workspace: Workspace,
    head: str = "seqTransf",
    *,
    name: str | None = None,
    device: str = "auto",
    quiet: bool = True,
    **flags: object,
) -> Run:
    """Trains a head on the cached features and returns the run with its best epoch; `vtr train`.

    Args:
        workspace: Where everything is.
        head: Name and options, such as "seqTransf:layers=2".
        name: Folder of the run within `runs`; a run of that name is replaced. None makes a name
            that is free.
        device: "auto", "cpu", "cuda" or "cuda:1".
        quiet: No progress on stderr.
        flags: The other flags of `vtr train` with `_` for `-`: `text="projection"`, `epochs=5`,
            `batch_size=64`, `seed=1`, ...

    Raises:
        ConfigError: An unknown flag, or a value that is not allowed.
        DatasetError: No training video has features.
    """
    from vtr.commands.console import prepare_arithmetic

    prepare_arithmetic()
    from vtr.commands.train import Place, train_workspace
    from vtr.commands.training import Request
    from vtr.train.run import load_run

    _check_names("flag of vtr train", flags, Request)
    values: dict[str, Any] = {"head": head, **flags}
    place = Place(name, overwrite=name is not None, resume=False, quiet=quiet, tensorboard=False)
    document = train_workspace(workspace, Request(**values), place, device=device)
    assert document is not None  # only other processes of torchrun get nothing
    return load_run(document["run"])


def evaluate_run(
    workspace: Workspace,
    run: Run | str | Path | None = None,
    *,
    protocol: str | None = None,
    out: str | Path | None = None,
    device: str = "auto",
    **flags: object,
) -> Result:
    """Evaluates a run, or CLIP without training, and returns the result; `vtr eval`.

    Args:
        workspace: Where everything is.
        run: From `train_head` or `load_run`, or its folder. None is zero-shot: CLIP's text against
            the mean of the frames.
        protocol: Which queries and videos; None is the dataset's most used one.
        out: Folder for the result; None is where `vtr eval` puts it.
        device: "auto", "cpu", "cuda" or "mps".
        flags: The other flags of `vtr eval` with `_` for `-`: `sampler="uniform"`,
            `missing="restrict"`, `ks=(1, 5, 10)`, `dual_softmax=True`, `qb_norm=True`, `rerank=50`,
            `force=True`.

    Raises:
        ConfigError: An unknown flag; a run that was trained on test videos, without `force`.
        DatasetError: The dataset lacks the split or its captions.
        ModelError: Text and frames of different models.
    """
    from vtr.commands.console import prepare_arithmetic

    prepare_arithmetic()
    from vtr.commands.evaluate import Request, evaluate_workspace
    from vtr.evaluate.metrics import DEFAULT_KS
    from vtr.evaluate.reporting.results import load_result

    _check_names("flag of vtr eval", flags, Request)
    folder = None if run is None else Path(run) if isinstance(run, str | Path) else run.folder
    values: dict[str, Any] = {
        "protocol": protocol,
        "zero_shot": folder is None,
        "run": folder,
        "sampler": None,
        "missing": "miss",
        "ks": DEFAULT_KS,
        "dual_softmax": False,
        "qb_norm": False,
        "rerank": None,
        "force": False,
        "device": device,
        **flags,
    }
    place = None if out is None else Path(out)
    _, path = evaluate_workspace(workspace, Request(**values), out=place)
    return load_result(path)


def compare_results(
    first: Result | str | Path, *others: Result | str | Path, seeds: bool = False, k: int = 1
) -> tuple[Comparison, ...]:
    """Sets every further result against the first, query by query; `vtr compare`.

    Args:
        first: A result, or its folder.
        others: One or more of the same protocol, queries and coverage.
        seeds: Group results that differ in their seed alone.
        k: Depth at which queries are gained or lost.

    Raises:
        ConfigError: Results that cannot be compared; names the first key that differs.
    """
    from vtr.evaluate.compare import CompareOptions, compare, sides_of

    sides = sides_of(_results([first, *others]), by_seed=seeds)
    return compare(sides, options=CompareOptions(k=k))


def make_report(
    results: Sequence[Result | str | Path],
    out: str | Path = "report",
    *,
    title: str = "Video-text retrieval report",
    k: int = 1,
    pictures: bool = True,
) -> Path:
    """Writes one self-contained HTML page about results and returns its path; `vtr report`.

    Args:
        results: Results or their folders.
        out: Folder for `report.html` and the pictures.
        title: Heading.
        k: Recall depth of the breakdowns.
        pictures: Draw PNG files beside the page.

    Raises:
        ConfigError: A number out of range.
        StoreWriteError: The file system refused.
    """
    from vtr.evaluate.report import ReportOptions, write_report

    options = ReportOptions(title=title, k=k, pictures=pictures)
    return write_report(_results(results), Path(out), options=options)


def _results(given: Sequence[Result | str | Path]) -> list[Result]:
    from vtr.evaluate.reporting.results import load_result

    return [load_result(item) if isinstance(item, str | Path) else item for item in given]


def _changed(workspace: Workspace, settings: Mapping[str, object]) -> Workspace:
    from vtr.workspace import Workspace
    from vtr.workspace import settings as merged

    _check_names("setting", settings, Workspace)
    return merged(workspace, root=workspace.root, **settings)


def _check_names(kind: str, given: Mapping[str, object], owner: Any) -> None:
    """Refuses a name that the owner has no field of; suggests the nearest."""
    from vtr.errors import UnknownNameError

    known = [field.name for field in dataclasses.fields(owner) if field.name != "root"]
    for name in given:
        if name not in known:
            raise UnknownNameError(kind, name, known)
