"""The demo's own figures: what the store shows against what the world's construction says."""

import json
import math
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import kill_when, make_demo_workspace, start_python, write_store

import vtr
from vtr.api.demo import demo_workspace
from vtr.api.demo_trials import (
    TRIAL_FILE,
    Trial,
    full_trials,
    gains,
    measure_heads,
    short_trials,
    warnings,
)
from vtr.demo.events import brief_test_events, events_shown, known_uniform_share, read_events
from vtr.evaluate.intervals import wilson_interval
from vtr.extract.samplers.base import sampler_names
from vtr.features import FeatureSpec, LedgerRow, VideoRow
from vtr.train.headlist import head_names
from vtr.workspace import Workspace

FPS, FRAMES = 10, 100
SPLITS = (("train", 8), ("val", 3), ("test", 3))


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
    assert known_uniform_share(brief_test_events(annotations), num_frames=3) == 0.5


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
    assert found["uniform"] / 4 == known_uniform_share(brief_test_events(annotations), num_frames=8)
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


@pytest.fixture
def world(tmp_path: Path) -> Workspace:
    """Shaped as the demo's, of random features."""
    ids = [f"{split}{n:02}" for split, count in SPLITS for n in range(count)]
    return vtr.open_workspace(make_demo_workspace(tmp_path, ids))


@pytest.mark.slow
def test_the_full_demo_trains_both_towers(tmp_path: Path) -> None:
    """On a world of a few clips, for one epoch; what it finds on the whole one: docs/heads.md."""
    world = demo_workspace(tmp_path / "world", clips_per_group={"train": 4, "val": 2, "test": 2})
    vtr.extract_features(world, device="cpu")
    trial = next(one for one in full_trials() if one.options and "vision" in one.options)
    once = replace(trial, options={**(trial.options or {}), "epochs": 1})
    results, _ = measure_heads(world, [once])
    assert results[0]["setup"]["text"] == "towers"
    assert set(results[0]["groups"]) == {"brief", "content", "order"}
    assert trial.name == "meanP-towers-uniform"


def test_the_full_demo_has_every_head_with_three_samplers() -> None:
    trials = full_trials()
    assert len({trial.name for trial in trials}) == len(trials)
    frozen = {
        (trial.head.partition(":")[0], trial.sampler)
        for trial in trials
        if trial.options and trial.options.get("text") == "projection"
    }
    samplers = ("uniform", "motion", "diversity")
    assert frozen == {(head, sampler) for head in head_names() for sampler in samplers}
    towers = [t for t in trials if t.options and "vision" in t.options]
    alone = [t for t in trials if t.name.startswith("meanP-tune-")]
    assert [t.seed for t in towers] == [t.seed for t in alone] == [0, 1, 2]
    assert {t.head.partition(":")[0] for t in trials if t.rerank} == {"tightTransf", "tokenbinder"}
    assert {t.name for t in short_trials()} <= {t.name for t in trials}


def test_rows_that_were_measured_are_kept(
    world: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the same options alone, and only whole ones; the line says so."""
    asked = {"text": "projection", "epochs": 1, "batch_size": 4}
    heads = [Trial(head, "uniform", asked) for head in ("meanP", "maxP")]
    trials = [Trial("meanP", "uniform"), *heads]
    first, _ = measure_heads(world, trials)
    told = capsys.readouterr().err
    assert "measuring 3 rows: about" in told
    assert re.search(r" 2 of 3  meanP-projection-uniform: R@1 content .* left\n", told)
    assert all(row["cost"]["evaluate_cpu_seconds"] > 0 for row in first)
    again, page = measure_heads(world, trials)
    assert again == first
    assert page.is_file()
    told = capsys.readouterr().err
    assert "kept 3 of 3 rows, measured before with the same options (remove " in told
    assert "measuring" not in told

    changed = [trials[0], replace(heads[0], options={**asked, "epochs": 2}), heads[1]]
    Path(first[2]["path"]).with_name(TRIAL_FILE).unlink()  # killed before its last line
    measure_heads(world, changed)
    assert re.search("kept 1 of 3 rows.*\nmeasuring 2 rows", capsys.readouterr().err)
    retrained = world.runs / "meanP-projection-uniform"
    vtr.train_head(world, "maxP", name=retrained.name, sampler="uniform", epochs=1)
    results, _ = measure_heads(world, changed)
    assert "kept 2 of 3 rows" in capsys.readouterr().err, "the run holds another head now"
    table = gains(results)
    assert {(row["head"], row["text"], row["sampler"]) for row in table} == {
        (head, "projection", "uniform") for head in ("meanP", "maxP")
    }
    r1 = {row["head"]: row["r1"] for row in table}
    gain = next(row for row in table if row["head"] == "maxP")
    assert gain["difference"] == pytest.approx(r1["maxP"] - r1["meanP"])


_STOPPED = """
import sys, vtr
from vtr.api.demo_trials import Trial, measure_heads
if __name__ == "__main__":
    world = vtr.open_workspace(sys.argv[1])
    short, long = ({"text": "projection", "epochs": n, "batch_size": 4} for n in (1, 100_000))
    measure_heads(world, [Trial("afa", "uniform", short), Trial("wti", "uniform", long)])
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_demo_that_is_stopped_keeps_its_rows(
    world: Workspace, number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    done = world.root / "results" / "afa-projection-uniform" / TRIAL_FILE
    begun = world.runs / "wti-projection-uniform" / "metrics.jsonl"
    process = start_python("-c", _STOPPED, world.root)
    kill_when(lambda: done.exists() and begun.exists(), process, number)
    assert process.returncode
    asked = {"text": "projection", "epochs": 1, "batch_size": 4}
    results, _ = measure_heads(world, [Trial(head, "uniform", asked) for head in ("afa", "wti")])
    assert "kept 1 of 2 rows" in capsys.readouterr().err
    assert [row["setup"]["head"] for row in results] == ["afa", "wti"]


def row(head: str, text: str, value: float, low: float, high: float) -> dict[str, Any]:
    return {
        "setup": {
            "head": head, "text": text, "sampler": "uniform", "zero_shot": text == "frozen",
        },
        "protocol": {"num_videos": 180},
        "metrics": {"t2v/R@1": {"value": value, "low": low, "high": high}},
    }  # fmt: skip


def test_rows_from_which_nothing_is_learned_are_named() -> None:
    rows = [
        row("meanP", "frozen", 43.0, 40.0, 46.0),
        row("tightTransf", "projection", 2.2, 0.55, 5.4),
        row("wti", "projection", 35.0, 31.0, 39.0),
        row("xpool", "projection", 42.0, 39.0, 45.0),
    ]
    assert warnings(rows) == [
        "tightTransf, projection, uniform: no better than chance (0.6 %)",
        "wti, projection, uniform: R@1 35.0, below 43.0 untrained",
    ]
