"""What samplers choose of a video, what they do to a dense store, and what that costs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vtr.api.stores import check_same_model, read_dataset, store_folder, videos_here
from vtr.clip.backbone import load_backbone
from vtr.clip.preprocess import Preprocessing, resize_crop
from vtr.counts import counted
from vtr.demo.events import brief_test_events, count_shown
from vtr.errors import ConfigError, DecodeError, VtrError
from vtr.evaluate.coverage import cover
from vtr.evaluate.evaluator import Task, evaluate, plan
from vtr.evaluate.intervals import cell, retrieval_intervals
from vtr.evaluate.metrics import retrieval_metrics
from vtr.evaluate.protocol import default_protocol, queries
from vtr.extract.answers import SampledVideo
from vtr.extract.sample import FrameRequest, sample_video
from vtr.extract.samplers.base import Indices, SamplerChoice, parse_samplers
from vtr.extract.sheet import Sheet, SheetRow, draw_html, draw_png
from vtr.extract.study import SamplerCost, measure_costs, open_dense
from vtr.extract.study import study as compare
from vtr.extract.study_plot import Column, StudyPicture, draw_study
from vtr.features import FeatureStore
from vtr.files import publish
from vtr.progress import note, progress
from vtr.train.headlist import build_head, parse_head
from vtr.train.model import RetrievalModel
from vtr.train.scoring import Scorer
from vtr.train.text_tower import FrozenText
from vtr.train.texts import TextFeatures, embed_texts
from vtr.verbs.samplers import Options
from vtr.workspace import Workspace, find_workspace

THUMBNAIL_HEIGHT = 108

HEADS = ("meanP", "maxP", "attentionP")
"""The heads without parameters: what they score is CLIP's and the sampler's doing alone."""


def study(store: Path | None, options: Options) -> dict[str, Any]:
    """Returns the figures of every sampler on a dense store as JSON values, one row per sampler.

    Without a store that of the workspace around us is studied.
    """
    plot = options.plot
    if plot is not None and plot.suffix != ".png":
        here = Path.cwd()
        typed = plot.relative_to(here) if plot.is_relative_to(here) else plot
        raise ConfigError(f"--plot is {typed}; its name must end in .png")
    choices = parse_samplers(options.sampler, embedded=True)
    folder = store_folder(store)
    dense = open_dense(FeatureStore(folder))
    workspace = _workspace_of(folder)
    budget = options.frames
    if budget is None:
        budget = workspace.frames if workspace else 12
    note(
        f"{counted(len(dense), 'video')}, {counted(len(choices), 'sampler')}, "
        f"{counted(budget, 'frame')} each"
    )
    facts = _figures(dense, choices, budget, options=options, workspace=workspace)
    if options.out is not None:
        record = {**facts, "options": options.as_dict()}
        publish(options.out, json.dumps(record, indent=2).encode())
    if plot is not None:
        publish(plot, draw(facts))
    return facts


def _workspace_of(store: Path) -> Workspace | None:
    """Returns the workspace whose store this is."""
    workspace = find_workspace(store)
    if workspace is None or workspace.features.resolve() != store.resolve():
        return None
    return workspace


def _figures(
    dense: FeatureStore,
    choices: Sequence[SamplerChoice],
    num_frames: int,
    *,
    options: Options,
    workspace: Workspace | None,
) -> dict[str, Any]:
    seed, costs = options.seed, options.costs
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
    found = [video for video in videos_here(workspace) if video.id in dense]
    step = max(1, len(found) // count)
    return [
        FrameRequest(
            path=video.path,
            video_id=video.id,
            choices=(SamplerChoice("uniform"),),
            num_frames=num_frames,
            candidate_fps=dense.spec.candidate_fps,
            candidate_jitter=dense.spec.candidate_jitter,
            window=dense.spec.window_frames,
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


def ordered(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the rows, the best first: by brief events seen if known, then by coverage."""
    return sorted(
        facts["samplers"],
        key=lambda row: (-(row["brief"] or {"seen": 0})["seen"], -row["content_coverage"]),
    )


def columns(rows: Sequence[dict[str, Any]]) -> list[Column]:
    """Returns what table and plot show; columns without any figure are left out."""

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
    rows = ordered(facts)
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


def recalls(
    dense: FeatureStore, chosen: Mapping[str, Mapping[str, Indices]], workspace: Workspace | None
) -> dict[str, dict[str, dict[str, float]]]:
    """Returns sampler -> head -> zero-shot t2v R@1 with its interval, by the default protocol.

    Nothing where the store belongs to no workspace, or nobody says what its videos show.
    """
    if workspace is None:
        return {}
    note("embedding the captions for R@1, where there are any")
    try:
        task = _task(dense, read_dataset(workspace))
        backbone = load_backbone(workspace.model)
        check_same_model(backbone, dense)
    except VtrError as reason:
        note(f"no R@1: {reason}")
        return {}
    texts = embed_texts(backbone, task.texts, cache=dense.folder)
    return {
        label: _by_head(task, texts, dense.with_selection(label, picks))
        for label, picks in chosen.items()
    }


def _task(dense: FeatureStore, dataset: Any) -> Task:
    asked = queries(default_protocol(dataset.name), dataset)
    return plan(asked, cover(asked, dense))


def _by_head(task: Task, texts: TextFeatures, store: FeatureStore) -> dict[str, dict[str, float]]:
    packed = store.packed(task.video_ids, dtype="float32")
    found = {}
    for name in HEADS:
        head = build_head(parse_head(name), dim=packed.frames.shape[1], clip=None, seed=0)
        scorer = Scorer(RetrievalModel(FrozenText(), head), texts, packed)
        ranks = evaluate(task, scorer.stream, score_pairs=scorer.score_pairs, ks=(1,)).ranks
        ends = retrieval_intervals(ranks, (1,), seed=0)["t2v/R@1"]
        found[name] = cell(retrieval_metrics(ranks, (1,)).expected["t2v/R@1"], ends)
    return found


def show(video: Path, *, sampler: str, frames: int, fps: str, seed: int, out: Path | None) -> Path:
    """Draws the contact sheet of a video; returns its path (default: VIDEO's name + .png)."""
    target = out or Path(video.stem + ".png")
    if target.suffix not in (".png", ".html"):
        raise ConfigError(f"--out is {target}; its name must end in .png or .html")
    sheet = make_sheet(video, sampler=sampler, frames=frames, fps=fps, seed=seed)
    publish(target, draw_png(sheet) if target.suffix == ".png" else draw_html(sheet))
    return target


def make_sheet(video: Path, *, sampler: str, frames: int, fps: str, seed: int) -> Sheet:
    """Decodes a video once and returns what the contact sheet shows."""
    request = FrameRequest(
        path=video,
        video_id=video.name,
        choices=parse_samplers(sampler),
        num_frames=frames,
        candidate_fps=_rate(fps),
        seed=seed,
        keep_luma=True,
    )
    try:
        return _sheet(video.name, sample_video(request, _thumbnail))
    except DecodeError as error:
        raise DecodeError(error.kind, f"{video}: {error.detail}") from None


def _rate(fps: str) -> float | None:
    if fps == "native":
        return None
    try:
        return float(fps)
    except ValueError:
        raise ConfigError(f"--fps is {fps!r}; write a number above 0, or 'native'") from None


def _thumbnail(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """One height for all; a change of shape within a video is squeezed into the first's."""
    height, width = picture.shape[:2]
    wide = min(max(round(width * THUMBNAIL_HEIGHT / height), 40), 4 * THUMBNAIL_HEIGHT)
    size = (wide, THUMBNAIL_HEIGHT)
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))


def _sheet(name: str, sampled: SampledVideo) -> Sheet:
    rows = [
        SheetRow(label, sampled.pts_seconds[picks], [sampled.crops[row] for row in picks])
        for label, picks in sampled.selections.items()
    ]
    facts = (
        f"{sampled.width}x{sampled.height}, {sampled.duration_seconds:.2f} s, "
        f"{counted(sampled.num_candidates, 'candidate')}"
    )
    if sampled.error:
        facts += f"; partial: {sampled.error}"
    signals = sampled.signals
    return Sheet(name, facts, signals.pts_seconds, signals.absolute_change, rows)
