"""`vtr eval --moments` on frames that are made to show their sentence at known times."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import demo_backbone, demo_spec, run_app, run_json, write_config, write_store

from vtr.errors import ConfigError, DatasetError
from vtr.features import FeatureStore
from vtr.features.rows import LedgerRow, VideoRow
from vtr.searching.moments import ranked_runs

SENTENCES = {"red": "a red square", "blue": "a blue circle"}
GAP = 0.5  # seconds between frames


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Two videos of ten seconds: A shows red from 3 to 6 s and blue from 8 s, B only noise."""
    (tmp_path / "videos").mkdir()
    for name in "AB":
        (tmp_path / "videos" / f"{name}.mp4").touch()
    lines = [f"A 3.0 6.0##{SENTENCES['red']}", f"A 8.0 10.0##{SENTENCES['blue']}"]
    (tmp_path / "charades_sta_test.txt").write_text("\n".join(lines) + "\n")
    write_config(tmp_path, data={"dataset": "charades-sta", "videos": "videos", "annotations": "."})
    tower = demo_backbone()
    texts = tower.encode_texts(list(SENTENCES.values())).embeddings
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2, texts.shape[1]))
    frames = np.repeat(noise[:1], 20, axis=0) * 0.1
    frames[6:12], frames[16:20] = 10 * texts[0], 10 * texts[1]
    frames += 0.01 * rng.normal(size=frames.shape)
    spec = demo_spec(candidate_fps=2.0, num_frames=None, samplers=("dense",))
    rows = [
        VideoRow(
            LedgerRow(i, "ok", duration_seconds=10.0), picture.astype(np.float32),
            np.arange(20) * GAP, {"dense": np.arange(20)},
        )
        for i, picture in (("A", frames), ("B", rng.normal(size=frames.shape)))
    ]  # fmt: skip
    write_store(tmp_path / "features", rows, spec)
    return tmp_path


def evaluate(workspace: Path, *words: str) -> Any:
    return run_json("eval", "--moments", *words, cwd=workspace)


def test_moments_are_found_to_half_a_frame(workspace: Path) -> None:
    document = evaluate(workspace, "--out", "m")
    values = {name: cell["value"] for name, cell in document["metrics"].items()}
    assert values["R1@0.7"] == values["mAP@0.75"] == 100
    assert values["mIoU"] == pytest.approx(100 * (3 / 3.25 * 0.5 + 2 / 2.25 * 0.5), abs=4)
    assert document["protocol"] == {
        "name": "charades-sta", "num_queries": 2, "num_videos": 1, "published": False
    }  # fmt: skip
    lines = (workspace / "m" / "predictions.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    assert (first["qid"], first["vid"]) == ("A#test-0", "A")
    start, end, score = first["pred_relevant_windows"][0]
    assert (start, end, score) == (pytest.approx(2.75), pytest.approx(5.75), 0)
    assert json.loads((workspace / "m" / "moments.json").read_text()) == document
    assert json.loads((workspace / "m" / "eval.json").read_text())["moments"] is True
    table = run_app("eval", "--moments", cwd=workspace)
    assert "2 queries over 1 video, 0 without features (miss)" in " ".join(table.stdout.split())
    assert "a frame every 0.5 s" in " ".join(table.stdout.split())


def test_a_video_without_features_is_a_miss_or_left_out(workspace: Path) -> None:
    with (workspace / "charades_sta_test.txt").open("a") as file:
        file.write("C 0 5##a red square\n")
    (workspace / "videos" / "C.mp4").touch()
    missed = evaluate(workspace)
    assert missed["metrics"]["R1@0.5"]["value"] == pytest.approx(200 / 3)
    assert missed["coverage"] == {"missing_videos": 1, "policy": "miss"}
    assert evaluate(workspace, "--missing", "restrict")["metrics"]["R1@0.5"]["value"] == 100
    kept = workspace / "features" / "zero-shot" / "charades-sta-moments" / "moments.json"
    assert json.loads(kept.read_text()) == missed  # the other lies beside it
    with pytest.raises(DatasetError, match=r"1 of the 2 videos .* C \(not in the store\)"):
        run_app("eval", "--moments", "--missing", "fail", cwd=workspace)


def test_a_store_of_none_of_the_videos_is_refused(workspace: Path) -> None:
    (workspace / "charades_sta_test.txt").write_text("C 0 5##a red square\n")
    with pytest.raises(DatasetError, match=r"1 of the 1 video .* has no features"):
        run_app("eval", "--moments", cwd=workspace)


def test_one_frame_a_video_gives_a_document_of_json(workspace: Path) -> None:
    store = workspace / "features"
    spec = FeatureStore(store).spec
    row = VideoRow(
        LedgerRow("A", "ok", duration_seconds=10.0), np.ones((1, 96), np.float32),
        np.zeros(1), {"dense": np.arange(1)},
    )  # fmt: skip
    write_store(workspace / "one", [row], spec)
    document = evaluate(workspace, "--features", "one")
    assert document["setup"]["median_gap_seconds"] is None
    table = run_app("eval", "--moments", "--features", "one", cwd=workspace)
    assert "one frame a video" in " ".join(table.stdout.split())


def test_what_begins_after_the_end_is_said(workspace: Path) -> None:
    (workspace / "charades_sta_test.txt").write_text(
        "A 3 6##a red square\nA 3 60##a red square\nA 10.5 11##a red square\n"
    )
    said = " ".join(run_app("eval", "--moments", cwd=workspace).stderr.split())
    assert "1 caption of what begins after the video's end" in said
    assert "(first: 'A#test-2' at 10.5 s of a video of 10 s)" in said


def test_predictions_call_queries_as_qvhighlights_does(workspace: Path) -> None:
    (workspace / "charades_sta_test.txt").unlink()
    lines = [
        {"qid": qid, "query": SENTENCES["red"], "vid": "A", "relevant_windows": [[3, 6]]}
        for qid in (7, "007", "x")
    ]
    path = workspace / "highlight_val_release.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_config(
        workspace, data={"dataset": "qvhighlights", "videos": "videos", "annotations": "."}
    )
    evaluate(workspace, "--out", "m")
    said = (workspace / "m" / "predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["qid"] for line in said] == [7, "007", "x"]


def test_what_is_about_whole_videos_is_refused(workspace: Path) -> None:
    for words in (("--run", "x"), ("--rerank", "5"), ("--dual-softmax",), ("--k", "1")):
        with pytest.raises(ConfigError, match=f"{words[0]} is about whole videos"):
            run_app("eval", "--moments", *words, cwd=workspace)


def test_captions_without_times_are_refused(workspace: Path) -> None:
    (workspace / "charades_sta_test.txt").write_text("A 3 3##a red square\n")
    with pytest.raises(DatasetError, match="no caption of 'charades-sta' says which part"):
        run_app("eval", "--moments", cwd=workspace)


def test_runs_cover_every_piece_once_the_best_first() -> None:
    means = np.array([0.1, 0.9, 0.8, 0.1, 0.5, 0.1])
    runs = [(run.first, run.stop) for run in ranked_runs(means, np.ones(6))]
    assert runs[:2] == [(1, 3), (4, 5)]
    assert sorted(i for first, stop in runs for i in range(first, stop)) == list(range(6))
    assert list(ranked_runs(np.zeros(0), np.zeros(0))) == []
    assert [tuple(run)[:2] for run in ranked_runs(np.full(4, 0.3), np.ones(4))]
