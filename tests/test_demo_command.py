"""The demo's own figures: what the store shows against what the world's construction says."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders import write_store

from vtr.api.demo import demo_workspace, full_trials, measure_heads
from vtr.demo.events import events_shown, known_uniform_share, read_events
from vtr.evaluate.intervals import wilson_interval
from vtr.extract.samplers.base import sampler_names
from vtr.features import FeatureSpec, LedgerRow, VideoRow

FPS, FRAMES = 10, 100


def make_annotations(path: Path, starts: list[float]) -> Path:
    videos = [
        {
            "id": f"v{n}",
            "split": "test" if n else "train",
            "num_frames": FRAMES,
            "event_start_seconds": start,
            "event_end_seconds": start + 0.4,
        }
        for n, start in enumerate(starts)
    ]
    path.write_text(json.dumps({"frames_per_second": FPS, "videos": videos}))
    return path


def event_store(folder: Path, annotations: Path, spec: FeatureSpec, **chosen: list[int]) -> Path:
    """All clips look the same but for their event, which brightens the thumbnails."""
    rows = []
    for event in read_events(annotations).values():
        pts_seconds = np.arange(FRAMES) / FPS
        luma = np.full((FRAMES, 8, 8), 90, np.uint8)
        luma[[event.is_caught([t]) for t in pts_seconds]] = 200
        frames = np.ones((FRAMES, 4), np.float32)
        frames[:, 0] += luma[:, 0, 0] > 90
        picks = {label: np.array(rows) for label, rows in chosen.items()}
        keep = luma if spec.thumbnail_side else None
        rows.append(VideoRow(LedgerRow(event.video_id, "ok"), frames, pts_seconds, picks, keep))
    return write_store(folder, rows, spec)


def test_events_that_chosen_frames_show_are_counted(tmp_path: Path, spec: FeatureSpec) -> None:
    annotations = make_annotations(tmp_path / "demo.json", [0.0, 0.0, 5.0, 9.6, 3.3])
    store = event_store(tmp_path / "s", annotations, spec, uniform=[0, 49, 99], head=[0, 1, 2])
    uniform, head = events_shown(store, annotations, num_frames=3)
    # Of the four test events uniform (0.0, 4.9, 9.9 s) shows those at 0.0 and at 9.6 s.
    assert (head.sampler, head.seen, head.events, head.share) == ("head", 1, 4, 0.25)
    assert (uniform.sampler, uniform.seen) == ("uniform", 2)
    assert uniform.low < 0.5 < uniform.high
    assert known_uniform_share(annotations, num_frames=3) == 0.5


def test_every_sampler_is_applied_to_a_dense_store(tmp_path: Path, spec: FeatureSpec) -> None:
    """Those that compare pictures see all events, the others what falls in their places."""
    annotations = make_annotations(tmp_path / "demo.json", [0.0, 2.0, 5.1, 8.5, 3.3])
    dense = replace(spec, samplers=("dense",), num_frames=None, thumbnail_side=8)
    store = event_store(tmp_path / "s", annotations, dense, dense=list(range(FRAMES)))
    found = {one.sampler: one.seen for one in events_shown(store, annotations, num_frames=8)}
    assert set(found) == set(sampler_names()) - {"dense"}
    assert {name for name, seen in found.items() if seen == 4} >= {
        "scene",
        "diversity",
        "activity",
        "shot",
        "embedding-diversity",
    }
    assert found["uniform"] / 4 == known_uniform_share(annotations, num_frames=8)
    assert found["head"] == found["tail"] == 0
    assert list(found.values()) == sorted(found.values(), reverse=True)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_wilson_interval_covers_as_often_as_it_says(share: float) -> None:
    chances = [math.comb(60, k) * share**k * (1 - share) ** (60 - k) for k in range(61)]
    ends = [wilson_interval(k, 60) for k in range(61)]
    covered = sum(
        chance for chance, (low, high) in zip(chances, ends, strict=True) if low <= share <= high
    )
    assert 0.93 < covered < 0.97
    assert wilson_interval(0, 60)[0] == 0.0
    assert wilson_interval(60, 60)[1] == pytest.approx(1.0)


@pytest.mark.slow
def test_demo_runs_offline_and_again(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vtr", "demo", "--path", str(tmp_path / "w"), "--json"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    facts = []
    for _ in range(2):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        facts.append(json.loads(done.stdout))
    first, second = facts
    assert first["world"]["num_rendered"] == first["extract"]["ok"] == 680
    assert second["world"]["num_rendered"] == second["extract"]["done_now"] == 0
    uniform = next(s for s in first["sees_brief_events"] if s["sampler"] == "uniform")
    assert uniform["seen"] / uniform["events"] == first["uniform_sees_by_construction"]
    low = {s["sampler"]: s["low"] for s in first["sees_brief_events"]}
    for name in ("motion", "scene", "diversity", "hybrid"):
        assert low[name] > uniform["high"], name
    assert first["sees_brief_events"] == second["sees_brief_events"]


@pytest.mark.slow
def test_the_full_demo_trains_both_towers(tmp_path: Path) -> None:
    """On a world of a few clips, for one epoch; what it finds on the whole one: docs/speed.md."""
    world = demo_workspace(tmp_path / "world", clips_per_group={"train": 4, "val": 2, "test": 2})
    trial = next(one for one in full_trials() if one.options and "vision" in one.options)
    results, _ = measure_heads(world, [replace(trial, options={**trial.options, "epochs": 1})])
    assert results[0]["setup"]["text"] == "towers"
    assert set(results[0]["groups"]) == {"brief", "content", "order"}
    assert trial.name == "meanP-towers-uniform"
