"""TREC files: read back by pytrec-eval and by ourselves."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given
from hypothesis import strategies as st

from vtr.errors import ConfigError, DatasetError
from vtr.evaluate.metrics import retrieval_metrics
from vtr.evaluate.ranks import rank_rows
from vtr.evaluate.trec import qrels_lines, read_qrels, read_run, run_lines
from vtr.foreign import escape_id, unescape_id

MEASURES = {"success.1,5,10"}


def write_run(path: Path, *given: Any, **options: Any) -> None:
    path.write_bytes(run_lines(*given, **options))


def write_qrels(path: Path, relevant: Iterable[tuple[str, str]]) -> None:
    path.write_bytes(qrels_lines(relevant))


@given(st.text(st.characters(), max_size=30))
def test_ids_come_back(name: str) -> None:
    word = escape_id(name)
    assert unescape_id(word) == name
    assert word.isascii()
    assert word.split() == [word]


def test_unlike_ids_stay_unlike() -> None:
    names = ["", " ", "%", "%20", "a/b", "a b", "e\u0301", "\u00e9", "\ud800", "\x00", "A", "a"]
    assert len({escape_id(name) for name in names}) == len(names)


def test_pytrec_eval_reads_the_files_and_agrees(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((200, 50)).astype(np.float32)
    targets = rng.integers(0, 50, 200)
    scores[np.arange(200), targets] += 1.5
    queries = [f"query {q} é" for q in range(200)]
    videos = [f"vidéo {v}" for v in range(50)]
    write_run(
        tmp_path / "run.trec",
        ((a, scores[a : a + 64]) for a in range(0, 200, 64)),
        queries,
        videos,
        top_k=10,
    )
    correct = [(queries[q], videos[targets[q]]) for q in range(200)]
    write_qrels(tmp_path / "qrels.trec", correct)
    with (tmp_path / "run.trec").open() as run, (tmp_path / "qrels.trec").open() as qrels:
        evaluator = pytrec_eval.RelevanceEvaluator(pytrec_eval.parse_qrel(qrels), MEASURES)
        theirs = evaluator.evaluate(pytrec_eval.parse_run(run))
    assert len(theirs) == 200
    ours = retrieval_metrics({"t2v": rank_rows(scores, targets)}).expected
    for k in (1, 5, 10):
        mean = np.mean([row[f"success_{k}"] for row in theirs.values()])
        assert 100 * mean == pytest.approx(ours[f"t2v/R@{k}"])
    assert read_qrels(tmp_path / "qrels.trec") == {query: {video} for query, video in correct}
    read = read_run(tmp_path / "run.trec")
    for query, row in zip(queries, scores, strict=True):
        best = np.argsort(-row)[:10]
        assert read[query] == {videos[v]: pytest.approx(row[v], rel=1e-7) for v in best}


def test_ties_stand_in_the_tools_own_order(tmp_path: Path) -> None:
    """Equal scores: later ids first, also where the cut falls among them."""
    scores = np.array([[0.5, 0.5, 0.9, 0.5, 0.1]])
    write_run(tmp_path / "run", [(0, scores)], ["q"], ["b", "d", "a", "c", "e"], top_k=3)
    assert (tmp_path / "run").read_text() == (
        "q Q0 a 1 0.9 vtr\nq Q0 d 2 0.5 vtr\nq Q0 c 3 0.5 vtr\n"
    )


def test_scores_keep_every_bit(tmp_path: Path) -> None:
    scores = np.array([[0.1, np.nextafter(np.float32(0.1), np.float32(1))]], np.float32)
    write_run(tmp_path / "run", [(0, scores)], ["q"], ["x", "y"])
    read = read_run(tmp_path / "run")["q"]
    assert [np.float32(read[name]) for name in "xy"] == scores[0].tolist()


def test_recorded_misses_are_not_retrieved(tmp_path: Path) -> None:
    scores = np.array([[0.5, -np.inf], [-np.inf, -np.inf]])
    write_run(tmp_path / "run", [(0, scores)], ["q", "r"], ["x", "y"], tag="my run")
    assert (tmp_path / "run").read_text() == "q Q0 x 1 0.5 my%20run\n"


def test_several_correct_items_and_grades(tmp_path: Path) -> None:
    write_qrels(tmp_path / "qrels", [("v", "a"), ("v", "b"), ("w", "a")])
    assert read_qrels(tmp_path / "qrels") == {"v": {"a", "b"}, "w": {"a"}}
    (tmp_path / "qrels").write_text("v 0 a 0\r\nv 0 b 2\r\n")
    assert read_qrels(tmp_path / "qrels") == {"v": {"b"}}


def test_bad_input(tmp_path: Path) -> None:
    path = tmp_path / "run"
    scores = np.zeros((1, 2))
    with pytest.raises(ConfigError, match="item id 'x' occurs twice"):
        write_run(path, [(0, scores)], ["q"], ["x", "x"])
    with pytest.raises(ConfigError, match="top_k >= 1"):
        write_run(path, [(0, scores)], ["q"], ["x", "y"], top_k=0)
    assert not path.exists()
    path.write_text("q Q0 x 1 0.5 vtr\nq Q0 x\n")
    with pytest.raises(DatasetError, match="line 2 has 3 words, expected 6"):
        read_run(path)
    path.write_text("q Q0 x 1 high vtr\n")
    with pytest.raises(DatasetError, match="line 1: 'high' is no score"):
        read_run(path)
    with pytest.raises(DatasetError, match="cannot read"):
        read_qrels(tmp_path / "nothing")
