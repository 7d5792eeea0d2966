"""`vtr demo`: the whole pipeline on a small world that ships with the package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vtr.arithmetic import prepare_arithmetic
from vtr.commands.console import print_json, say
from vtr.counts import counted, human_bytes, human_seconds
from vtr.progress import note, progress

if TYPE_CHECKING:
    from vtr.workspace import Workspace


def register(app: typer.Typer) -> None:
    """Adds the command to the app."""
    app.command("demo")(demo)


def demo(
    path: Annotated[Path, typer.Option(help="Folder for the demo world.")] = Path("demo-world"),
    workers: Annotated[
        int | None, typer.Option(help="Processes. (default: one per core)", show_default=False)
    ] = None,
    train: Annotated[
        bool, typer.Option(help="Train and evaluate heads, and write the report.")
    ] = True,
    full: Annotated[
        bool, typer.Option("--full", help="Every head with three samplers (about 20 minutes).")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Render the demo world, extract it, train heads on it, and show what each can and cannot do.

    Needs no network and no data: clips, captions and model come with the package. A second call
    reuses what is there.
    """
    import time
    from dataclasses import asdict

    prepare_arithmetic()
    from vtr.commands.extract import PARTLY_FAILED
    from vtr.demo.summary import known_uniform_share, sights
    from vtr.demo.world import render_world

    start = time.perf_counter()
    silent = quiet or as_json
    with progress("rendering", quiet=silent) as update:
        world = render_world(path, workers=workers, progress=lambda d, n: update(d, n, "clips"))
    workspace = _workspace(path, world.videos, world.annotations, workers=workers)
    report = _extract(workspace, quiet=silent)
    found = sights(
        workspace.features, world.annotations, num_frames=workspace.frames, seed=workspace.seed
    )
    facts = {
        "world": {key: _plain(value) for key, value in asdict(world).items()},
        "extract": vars(report),
        "sees_brief_events": [asdict(sight) for sight in found],
        "uniform_sees_by_construction": known_uniform_share(
            world.annotations, num_frames=workspace.frames
        ),
        "workspace": str(workspace.root),
    }
    if not as_json:
        _print(facts, num_frames=workspace.frames)
    results, page = _heads(workspace, full=full, quiet=silent) if train else ([], None)
    facts["results"], facts["report"] = results, None if page is None else str(page)
    facts["seconds"] = time.perf_counter() - start
    if as_json:
        print_json(facts)
    else:
        _print_heads(facts)
    if report.failed or report.partial:
        raise typer.Exit(PARTLY_FAILED)


def _workspace(path: Path, videos: Path, annotations: Path, *, workers: int | None) -> Workspace:
    """Returns the demo's workspace; writes it the first time, keeps what people edited."""
    from vtr.demo import DEMO_FPS, DEMO_FRAMES, DEMO_SAMPLER, demo_model_folder
    from vtr.workspace import FILE_NAME, Workspace, read_workspace, settings, write_workspace

    if not (path / FILE_NAME).exists():
        made = settings(
            Workspace.at(path),
            dataset="demo",
            videos=videos,
            annotations=annotations.parent,
            model=str(demo_model_folder()),
            fps=DEMO_FPS,
            frames=DEMO_FRAMES,
            sampler=DEMO_SAMPLER,
        )
        write_workspace(made)
    return settings(read_workspace(path / FILE_NAME), workers=workers)


def _extract(workspace: Workspace, *, quiet: bool) -> Any:
    from vtr.api import extract
    from vtr.verbs.extract import Options

    with _one_encoder_thread():
        inputs = extract.find_inputs(workspace)
        return extract.run(workspace, inputs, Options.of(device="cpu"), quiet=quiet)


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


def _heads(workspace: Workspace, *, full: bool, quiet: bool) -> tuple[list[dict[str, Any]], Path]:
    """Trains and evaluates; returns the results and the page that shows them."""
    from vtr.commands import demo_table

    trials = demo_table.full_trials() if full else demo_table.short_trials()
    results = demo_table.measure(workspace, trials, quiet=quiet)
    return results, demo_table.write_page(workspace, results)


def _print_heads(facts: dict[str, Any]) -> None:
    from vtr.commands.demo_table import print_trials

    if facts["results"]:
        print_trials(facts["results"])
        say(f"report     {facts['report']}")
    say(f"workspace  {facts['workspace']}  (cd there; try: vtr simulate)")
    note(f"done in {human_seconds(facts['seconds'])}")


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Path) else value


def _print(facts: dict[str, Any], *, num_frames: int) -> None:
    world, report = facts["world"], facts["extract"]
    splits = ", ".join(f"{name} {count}" for name, count in world["clips_by_split"].items())
    groups = ", ".join(f"{name} {count}" for name, count in world["clips_by_group"].items())
    made = f"{world['num_rendered']} rendered now" if world["num_rendered"] else "found there"
    say(
        f"world      {counted(world['num_videos'], 'clip')} ({made}), "
        f"{counted(world['num_captions'], 'caption')}, "
        f"{human_bytes(world['num_bytes'])}: {splits}; {groups}"
    )
    counts = f"{report['ok']} ok + {report['partial']} partial + {report['failed']} failed"
    say(
        f"features   {counted(report['inputs'], 'video')} = {counts}; "
        f"{counted(report['frames_now'], 'frame')} embedded "
        f"now, in {human_seconds(report['seconds'])}"
    )
    _print_sights(facts, num_frames=num_frames)


def _print_sights(facts: dict[str, Any], *, num_frames: int) -> None:
    known = facts["uniform_sees_by_construction"]
    say()
    say(
        f"Which samplers see the brief events? ({counted(num_frames, 'frame')} of each test "
        "clip, chosen "
        "from all of them; share with 95 % interval)"
    )
    for sight in facts["sees_brief_events"]:
        aside = f"   {100 * known:.1f} % by construction" if sight["sampler"] == "uniform" else ""
        say(
            f"  {sight['sampler']:<20}{100 * sight['seen'] / sight['events']:5.1f} %  "
            f"[{100 * sight['low']:4.1f}, {100 * sight['high']:5.1f}]  "
            f"{sight['seen']:>2} of {sight['events']}{aside}"
        )
