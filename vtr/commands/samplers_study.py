"""`vtr samplers study`: what every sampler does to a dense store, and what it costs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vtr.api.samplers_recall import HEADS, recalls
from vtr.arithmetic import prepare_arithmetic
from vtr.commands.console import print_json, say
from vtr.counts import counted
from vtr.progress import note, progress

if TYPE_CHECKING:
    from vtr.extract.sample import FrameRequest
    from vtr.extract.samplers.base import Indices, SamplerChoice
    from vtr.extract.study import SamplerCost
    from vtr.extract.study_plot import Column
    from vtr.features import FeatureStore
    from vtr.workspace import Workspace


def study(
    store: Annotated[
        Path | None,
        typer.Argument(
            help="A store made with --sampler dense. (default: the workspace's, or features)",
            show_default=False,
        ),
    ] = None,
    sampler: Annotated[str, typer.Option(help="Which samplers.")] = "all",
    frames: Annotated[
        int | None,
        typer.Option(help="Frames per sampler. (default: the workspace's)", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the random samplers.")] = 0,
    costs: Annotated[
        int,
        typer.Option(help="Videos to decode and embed for the cost columns; 0 leaves them out."),
    ] = 3,
    plot: Annotated[Path | None, typer.Option(help="Also draw the figures, a .png file.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Also write the figures to this .json file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Compare samplers on a dense store: spread, coverage, repetition, cost.

    In a workspace with captions also zero-shot R@1 of the heads without parameters, on the demo
    world the share of brief events seen. Costs need the videos and the model of
    the store's workspace.
    """
    prepare_arithmetic()
    from vtr.api.stores import store_folder
    from vtr.errors import ConfigError
    from vtr.extract.samplers.base import parse_samplers
    from vtr.extract.study import open_dense
    from vtr.features import FeatureStore
    from vtr.files import publish

    if plot is not None and plot.suffix != ".png":
        raise ConfigError(f"--plot is {plot}; its name must end in .png")
    if costs < 0:
        raise ConfigError(f"--costs is {costs}; it must be 0 or more videos")
    choices = parse_samplers(sampler, embedded=True)
    folder = store_folder(store)
    dense = open_dense(FeatureStore(folder))
    workspace = _workspace_of(folder)
    budget = frames if frames is not None else workspace.frames if workspace else 12
    note(
        f"{counted(len(dense), 'video')}, {counted(len(choices), 'sampler')}, "
        f"{counted(budget, 'frame')} each"
    )
    facts = gather(dense, choices, budget, seed=seed, workspace=workspace, costs=costs)
    if out is not None:
        publish(out, json.dumps(facts, indent=2).encode())
    if plot is not None:
        publish(plot, draw(facts))
    if as_json:
        print_json(facts)
        return
    _print(facts)
    if plot is not None:
        say(plot)


def _workspace_of(store: Path) -> Workspace | None:
    """Returns the workspace whose store this is."""
    from vtr.workspace import find_workspace

    workspace = find_workspace(store)
    if workspace is None or workspace.features.resolve() != store.resolve():
        return None
    return workspace


def gather(
    dense: FeatureStore,
    choices: Sequence[SamplerChoice],
    num_frames: int,
    *,
    seed: int,
    workspace: Workspace | None,
    costs: int,
) -> dict[str, Any]:
    """Returns all figures as JSON values, one row per sampler in the order asked for."""
    from vtr.extract.study import study as compare

    with progress("choosing frames") as update:
        figures, chosen = compare(dense, choices, num_frames, seed=seed, progress=update)
    rows = [asdict(figure) for figure in figures]
    brief = _brief_events(dense, chosen, workspace)
    worth = recalls(dense, chosen, workspace)
    for row in rows:
        row["brief"] = brief.get(row["sampler"])
        row["recall_at_1"] = worth.get(row["sampler"])
        row["cost"] = None
    if costs and workspace is not None:
        requests = _requests(dense, workspace, num_frames, seed=seed, count=costs)
        for row, cost in zip(rows, _costs(dense, choices, requests, workspace), strict=False):
            row["cost"] = asdict(cost)
    elif costs:
        note(f"no costs: {dense.folder} is not the store of a workspace, so its videos are unknown")
    return {
        "store": str(dense.folder),
        "fingerprint": dense.fingerprint,
        "videos": len(dense),
        "frames": num_frames,
        "seed": seed,
        "samplers": rows,
    }


def _brief_events(
    dense: FeatureStore, chosen: Mapping[str, Mapping[str, Indices]], workspace: Workspace | None
) -> dict[str, dict[str, Any]]:
    """Returns per sampler which brief test events it saw; nothing outside of the demo world."""
    if workspace is None or workspace.dataset != "demo" or workspace.annotations is None:
        return {}
    from vtr.demo.summary import brief_test_events, count_shown

    events = brief_test_events(workspace.annotations / "demo.json")
    events = [event for event in events if event.video_id in dense]
    if not events:
        return {}
    times = {event.video_id: dense[event.video_id].pts_seconds for event in events}
    return {
        label: asdict(count_shown(label, events, {i: times[i][picks[i]] for i in times}))
        for label, picks in chosen.items()
    }


def _requests(
    dense: FeatureStore, workspace: Workspace, num_frames: int, *, seed: int, count: int
) -> list[FrameRequest]:
    """Returns `count` videos of the store, evenly spaced, as they were decoded for it."""
    from vtr.api.extract import find_inputs
    from vtr.extract.sample import FrameRequest
    from vtr.extract.samplers.base import SamplerChoice

    found = [v for v in find_inputs(workspace).videos if v.path is not None and v.id in dense]
    step = max(1, len(found) // count)
    return [
        FrameRequest(
            path=video.path,
            video_id=video.id,
            choices=(SamplerChoice("uniform"),),
            num_frames=num_frames,
            candidate_fps=dense.spec.candidate_fps,
            start_seconds=video.start_seconds,
            end_seconds=video.end_seconds,
            seed=seed,
        )
        for video in found[::step][:count]
        if video.path is not None
    ]


def _costs(
    dense: FeatureStore,
    choices: Sequence[SamplerChoice],
    requests: Sequence[FrameRequest],
    workspace: Workspace,
) -> list[SamplerCost]:
    if not requests:
        note(f"no costs: none of the store's videos is in {workspace.videos}")
        return []
    from vtr.clip.backbone import load_backbone
    from vtr.clip.preprocess import Preprocessing, resize_crop
    from vtr.extract.study import measure_costs

    preprocessing = Preprocessing.from_dict(dict(dense.spec.preprocessing))
    backbone = load_backbone(workspace.model, route=preprocessing.route)
    note(
        f"decoding {counted(len(requests), 'video')} for each sampler; the encoder runs on "
        f"{backbone.device}"
    )
    return measure_costs(
        requests,
        choices,
        lambda picture: resize_crop(picture, preprocessing),
        backbone.encode_frames,
    )


def _ordered(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the rows, the best first: by brief events seen if known, then by coverage."""
    return sorted(
        facts["samplers"],
        key=lambda row: (-(row["brief"] or {"seen": 0})["seen"], -row["content_coverage"]),
    )


def columns(rows: Sequence[dict[str, Any]]) -> list[Column]:
    """Returns what table and plot show; columns without any figure are left out."""
    from vtr.extract.study_plot import Column

    def values(key: str, group: str | None = None) -> list[float | None]:
        places = [row[group] if group else row for row in rows]
        return [None if place is None else place[key] for place in places]

    every = [
        Column("cover", "content coverage", "cosine to the nearest pick",
               values("content_coverage"), _decimals(4), "high", from_zero=False),
        Column("repeat", "repetition", "mean cosine of two picks", values("repetition"),
               _decimals(4), "low", from_zero=False),
        Column("gap", "largest gap", "share of the video", values("largest_gap"), _percent, "low"),
        Column("uneven", "unevenness", "deviation of the gaps / mean", values("spacing_variation"),
               _decimals(2)),
        Column("choose", "choosing", "ms per 1,000 candidates", values("select_ms_per_1000"),
               _decimals(1), "low"),
    ]  # fmt: skip
    briefs = [row["brief"] for row in rows]
    if all(briefs):
        shares = [brief["seen"] / brief["events"] for brief in briefs]
        ends = [(brief["low"], brief["high"]) for brief in briefs]
        every.insert(
            0,
            Column("brief", "brief events", "seen, 95 % interval", shares, _percent, "high", ends),
        )
    if all(row["recall_at_1"] for row in rows):
        every[1:1] = [_recall_column(name, rows) for name in HEADS]
    if any(row["cost"] for row in rows):
        decode, embed = values("decode_cpu_ms", "cost"), values("embed_ms", "cost")
        every.append(Column("decode", "decoding", "CPU ms per video", decode, _decimals(1), "low"))
        every.append(Column("embed", "embedding", "ms per video", embed, _decimals(1), "low"))
    return every


def _recall_column(head: str, rows: Sequence[dict[str, Any]]) -> Column:
    from vtr.extract.study_plot import Column

    cells = [row["recall_at_1"][head] for row in rows]
    shares = [cell["value"] / 100 for cell in cells]
    ends = [(cell["low"] / 100, cell["high"] / 100) for cell in cells]
    return Column(
        head, f"R@1 {head}", "zero-shot t2v, 95 % interval", shares, _percent, "high", ends
    )


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def _decimals(places: int) -> Any:
    return lambda value: f"{value:.{places}f}"


def draw(facts: dict[str, Any]) -> bytes:
    """Returns the plot, a PNG."""
    from vtr.extract.study_plot import StudyPicture, draw_study

    rows = _ordered(facts)
    how = (
        f"{counted(facts['videos'], 'video')}, {counted(facts['frames'], 'frame')} of each, "
        f"seed {facts['seed']}"
    )
    return draw_study(
        StudyPicture(
            title=f"Frame samplers on {facts['store']}",
            subtitle=f"{how}; means over videos",
            samplers=[row["sampler"] for row in rows],
            columns=columns(rows),
        )
    )


_COLUMNS_AT_ONCE = 6  # so many fit beside the longest name into 80 characters


def _print(facts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from vtr.foreign import printable

    rows = _ordered(facts)
    shown = columns(rows)
    for start in range(0, len(shown), _COLUMNS_AT_ONCE):
        part = shown[start : start + _COLUMNS_AT_ONCE]
        table = Table(box=None, pad_edge=False)
        table.add_column("sampler", no_wrap=True)
        for column in part:
            table.add_column(column.word, justify="right", no_wrap=True)
        for number, row in enumerate(rows):
            table.add_row(
                Text(printable(row["sampler"])), *[_spelled(column, number) for column in part]
            )
        Console().print(table)
        say("")
    for column in shown:
        note(f"  {column.word:<11}{column.title}: {column.note}")


def _spelled(column: Column, number: int) -> str:
    from vtr.extract.study_plot import is_known

    value = column.values[number]
    return "-" if value is None or not is_known(value) else column.show(value)
