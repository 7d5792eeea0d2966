"""The demo's own figures: what the store shows against what the world's construction says."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vtr.demo.events import read_events
from vtr.demo.summary import known_uniform_share, sights, wilson_interval
from vtr.features import FeatureSpec, LedgerRow, VideoRow
from vtr.features.shard import write_shard

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


def test_sights_count_the_events_that_chosen_frames_show(tmp_path: Path, spec: FeatureSpec) -> None:
    annotations = make_annotations(tmp_path / "demo.json", [0.0, 0.0, 5.0, 9.6, 3.3])
    rows = []
    for video_id in read_events(annotations):
        chosen = {"uniform": np.linspace(0, FRAMES - 1, 3).astype(int), "head": np.arange(3)}
        frames = np.ones((FRAMES, 4), np.float32)
        pts_seconds = np.arange(FRAMES) / FPS
        rows.append(VideoRow(LedgerRow(video_id, "ok"), frames, pts_seconds, chosen))
    store = tmp_path / "store"
    store.mkdir()
    write_shard(store, rows, spec=spec, slot=(1, 1, 0), revision=0, pad_embedding=np.zeros(4))
    head, uniform = sights(store, annotations)
    # Of the four test events uniform (0.0, 4.9, 9.9 s) shows those at 0.0 and at 9.6 s.
    assert (head.sampler, head.seen, head.events) == ("head", 1, 4)
    assert (uniform.sampler, uniform.seen, uniform.frames_per_video) == ("uniform", 2, 3.0)
    assert uniform.low < 0.5 < uniform.high
    assert known_uniform_share(annotations, num_frames=3) == 0.5


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
    assert first["world"]["num_rendered"] == first["extract"]["ok"] == 480
    assert second["world"]["num_rendered"] == second["extract"]["done_now"] == 0
    uniform = next(s for s in first["sees_brief_events"] if s["sampler"] == "uniform")
    assert uniform["seen"] / uniform["events"] == first["uniform_sees_by_construction"]
    assert first["sees_brief_events"] == second["sees_brief_events"]
