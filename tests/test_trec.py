"""TREC files: read back by pytrec-eval and by hand."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from vtr.errors import ConfigError
from vtr.evaluate.metrics import retrieval_metrics
from vtr.evaluate.observe import Observer
from vtr.evaluate.ranks import Layout, rank_rows
from vtr.evaluate.trec import later_first, qrels_lines, run_lines
from vtr.foreign import escape_id

MEASURES = {"success.1,5,10"}


def write_run(
    path: Path,
    scores: NDArray[Any],
    query_ids: Sequence[str],
    item_ids: Sequence[str],
    *,
    top_k: int = 50,
    **options: Any,
) -> None:
    rows = np.arange(len(scores))
    ties = later_first(item_ids)
    no_rivals = np.full(len(item_ids), -1)
    observer = Observer(rows * 0, rows, no_rivals, ties=ties, num_listed=top_k)
    Layout(rows * 0, len(item_ids), rows).ranks(
        lambda: ((a, scores[a : a + 64]) for a in range(0, len(scores), 64)),
        both=False,
        look=observer.look,
    )
    kept = observer.kept()
    best = {"rows": rows, "items": kept.listed, "scores": kept.listed_scores}
    path.write_bytes(b"".join(run_lines(query_ids, item_ids, **best, **options)))


def words_of(path: Path) -> list[list[str]]:
    return [[unquote(word) for word in line.split()] for line in path.read_text().splitlines()]


def write_qrels(path: Path, relevant: Iterable[tuple[str, str]]) -> None:
    path.write_bytes(qrels_lines(relevant))


@given(st.text(st.characters(), max_size=30))
def test_ids_come_back(name: str) -> None:
    word = escape_id(name)
    read = "" if word == "%" else unquote(word, errors="surrogatepass")
    assert read == name
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
    write_run(tmp_path / "run.trec", scores, queries, videos, top_k=10)
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
    assert words_of(tmp_path / "qrels.trec") == [[q, "0", video, "1"] for q, video in correct]
    lines = iter(words_of(tmp_path / "run.trec"))
    for query, row in zip(queries, scores, strict=True):
        for rank, video in enumerate(np.argsort(-row)[:10], start=1):
            assert next(lines)[:4] == [query, "Q0", videos[video], str(rank)]


def test_ties_stand_in_the_tools_own_order(tmp_path: Path) -> None:
    """Equal scores: later ids first, also where the cut falls among them."""
    scores = np.array([[0.5, 0.5, 0.9, 0.5, 0.1]])
    write_run(tmp_path / "run", scores, ["q"], ["b", "d", "a", "c", "e"], top_k=3)
    assert (tmp_path / "run").read_text() == (
        "q Q0 a 1 0.9 vtr\nq Q0 d 2 0.5 vtr\nq Q0 c 3 0.5 vtr\n"
    )


def test_scores_keep_every_bit(tmp_path: Path) -> None:
    scores = np.array([[0.1, np.nextafter(np.float32(0.1), np.float32(1))]], np.float32)
    write_run(tmp_path / "run", scores, ["q"], ["x", "y"])
    read = {words[2]: np.float32(words[4]) for words in words_of(tmp_path / "run")}
    assert [read[name] for name in "xy"] == scores[0].tolist()


def test_recorded_misses_are_not_retrieved(tmp_path: Path) -> None:
    scores = np.array([[0.5, -np.inf], [-np.inf, -np.inf]])
    write_run(tmp_path / "run", scores, ["q", "r"], ["x", "y"], tag="my run")
    assert (tmp_path / "run").read_text() == "q Q0 x 1 0.5 my%20run\n"


def test_bad_input(tmp_path: Path) -> None:
    path = tmp_path / "run"
    scores = np.zeros((1, 2))
    with pytest.raises(ConfigError, match="item id 'x' occurs twice"):
        write_run(path, scores, ["q"], ["x", "x"])
    with pytest.raises(ConfigError, match="a run needs a tag"):
        write_run(path, scores, ["q"], ["x", "y"], tag="")
