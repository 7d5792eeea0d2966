"""mteb: our numbers in its schema are those it finds itself, for any head and both directions."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import demo_backbone, make_folder_workspace, make_run, run_app
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

import vtr
from vtr.api.mteb import EncodingModel
from vtr.api.stores import read_dataset
from vtr.clip.preprocess import resize_crop
from vtr.errors import ConfigError
from vtr.evaluate.coverage import cover
from vtr.evaluate.evaluator import evaluate, plan
from vtr.evaluate.metrics import ndcg
from vtr.evaluate.mteb import DEPTHS, larger_first, retrieval_scores, task_result
from vtr.evaluate.ranks import Ranks, rank_rows

WORDS = ("red", "blue", "green", "white", "black")
CAPTIONS = [
    (f"clip {n:02}.mp4", f"a {WORDS[n % 5]} thing number {n % 9}", "test") for n in range(18)
] + [(f"clip {n:02}.mp4", f"{WORDS[n % 5]} again", "test") for n in range(0, 18, 2)]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Eighteen videos of made-up features, some captions of the same words, names with blanks."""
    return make_folder_workspace(tmp_path, CAPTIONS, num_frames=4)


def written(workspace: Path, *words: str) -> dict[str, Any]:
    run_app("eval", "--mteb", "--out", "o", *words, cwd=workspace)
    return json.loads((workspace / "o" / "mteb.json").read_text())


# ---- without the package


@given(st.integers(1, 12), st.integers(1, 14), st.integers(0, 999))
def test_ndcg_is_the_mean_over_all_orders_of_ties(num_items: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 3, (1, num_items)).astype(np.float64)
    target = int(rng.integers(num_items))
    own = scores[0, target]
    better, tied = int((scores > own).sum()), int((scores == own).sum())
    places = [better + 1 + n for n in range(tied)]
    expected = np.mean([1 / np.log2(1 + p) if p <= k else 0 for p in places])
    found = ndcg(rank_rows(scores, np.array([target])), k)
    assert found.tolist() == [pytest.approx(expected)]


def test_ndcg_of_a_miss_is_nothing_and_of_several_is_refused() -> None:
    missed = Ranks(np.array([3]), np.array([1]), 3)
    assert ndcg(missed, 1000).tolist() == [0.0]
    several = Ranks(np.array([0]), np.array([2]), 3, np.array([2]))
    with pytest.raises(ValueError, match="needs the scores"):
        ndcg(several)


def test_the_file_is_in_the_schema(workspace: Path) -> None:
    document = written(workspace, "--zero-shot")
    result = json.loads((workspace / "o" / "result.json").read_text())
    assert result["files"]["mteb"] == "mteb.json"
    assert document["task_name"] == "vtr-folder-t2v"
    assert document["dataset_revision"] == result["protocol"]["digest"]
    assert list(document["scores"]) == ["test"]
    (scores,) = document["scores"]["test"]
    assert scores["main_score"] == scores["ndcg_at_10"]
    assert (scores["hf_subset"], scores["languages"]) == ("default", ["eng-Latn"])
    assert {f"recall_at_{k}" for k in DEPTHS} < scores.keys()
    assert scores["recall_at_10"] == pytest.approx(
        result["metrics"]["t2v/R@10"]["value"] / 100, abs=1e-5
    )
    run_app("eval", "--zero-shot", "--out", "o", cwd=workspace)
    assert not (workspace / "o" / "mteb.json").exists(), "it is of an earlier result"


def test_without_the_package_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mteb", None)
    for call in (vtr.mteb_model, vtr.mteb_task):
        with pytest.raises(ConfigError, match=r"needs the package mteb: pip install 'vtr\[mteb\]'"):
            call(None)  # type: ignore[arg-type]


def test_larger_ids_come_first_by_bytes() -> None:
    ids = ["a", "b c", "b", "\u00e9", "z", "Z"]
    order = sorted(ids, key=lambda text: text.encode(), reverse=True)
    assert [order.index(name) for name in ids] == larger_first(ids).tolist()


# ---- with it


def evaluated(model: Any, task: Any) -> dict[str, Any]:
    mteb = pytest.importorskip("mteb", reason="needs the extra mteb")
    result = mteb.evaluate(model, task, cache=None, show_progress_bar=False)
    (scores,) = result.task_results[0].scores["test"]
    return dict(scores)


def differing(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    numbers = {name: value for name, value in ours.items() if isinstance(value, float)}
    assert len(numbers) > 40
    return {n: (v, theirs[n]) for n, v in numbers.items() if abs(v - theirs[n]) > 1e-6}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "rerank"),
    [("meanP", None), ("meanP", 3), ("xpool", 3), ("eercf:layers=1", 3), ("tokenbinder", 4)],
)
def test_mteb_finds_our_numbers(workspace: Path, head: str, rerank: int | None) -> None:
    mteb = pytest.importorskip("mteb", reason="needs the extra mteb")
    run = make_run(workspace / "runs" / "one", head=head, moved=0.3)
    document = written(workspace, *(() if rerank is None else ("--rerank", str(rerank))))
    world = vtr.open_workspace(workspace)
    model = vtr.mteb_model(run, vtr.open_features(world), rerank=rerank, device="cpu")
    assert isinstance(model, mteb.SearchProtocol)
    task = vtr.mteb_task(world)
    theirs = evaluated(model, task)
    assert differing(document["scores"]["test"][0], theirs) == {}
    read = mteb.TaskResult.from_disk(workspace / "o" / "mteb.json")
    assert read.get_score() == document["scores"]["test"][0]["ndcg_at_10"]
    assert (read.task_name, read.dataset_revision) == (task.metadata.name, task.metadata.revision)
    assert "torchvision" not in sys.modules


def test_unrounded_it_is_our_ndcg(workspace: Path) -> None:
    """Where nothing ties, to 1e-12; where videos tie, as mteb orders them."""
    pytrec_eval = pytest.importorskip("pytrec_eval")
    pytest.importorskip("mteb", reason="needs the extra mteb")
    world = vtr.open_workspace(workspace)
    model = vtr.mteb_model(None, vtr.open_features(world), model=world.model, device="cpu")
    task = vtr.mteb_task(world)
    task.load_data()
    split = task.dataset["default"]["test"]
    model.index(split["corpus"], task_metadata=task.metadata)
    found = model.search(split["queries"], task_metadata=task.metadata, top_k=1000)
    measured = pytrec_eval.RelevanceEvaluator(split["relevant_docs"], {"ndcg_cut.10"})
    theirs = {q: row["ndcg_cut_10"] for q, row in measured.evaluate(found).items()}
    texts = [str(text) for text in split["queries"]["text"]]
    ids = [str(name) for name in split["corpus"]["id"]]
    matrix = vtr.score_matrix(texts, vtr.open_features(world), model=world.model, ids=ids)
    owners = [next(iter(split["relevant_docs"][q])) for q in split["queries"]["id"]]
    ours = ndcg(rank_rows(matrix, np.array([ids.index(name) for name in owners])))
    np.testing.assert_allclose(ours, [theirs[q] for q in split["queries"]["id"]], atol=1e-12)


def test_ties_stand_as_mteb_orders_them(workspace: Path) -> None:
    """All videos alike: the largest id is first, whatever the text."""
    opened = vtr.open_workspace(workspace)
    test = vtr.queries(vtr.load_protocol("folder"), read_dataset(opened))
    task = plan(test, cover(test, vtr.open_features(opened), policy="miss"))

    def blocks() -> list[tuple[int, Any]]:
        return [(0, np.zeros((len(task.texts), len(task.video_ids)), np.float32))]

    evaluation = evaluate(task, blocks)
    (scores,) = task_result(evaluation, blocks)["scores"]["test"]
    order = sorted(test.video_ids, reverse=True)
    ranks = np.array([order.index(test.video_ids[v]) for v in test.query_video])
    expected = retrieval_scores(Ranks(ranks, np.ones_like(ranks), len(order)))
    assert {name: scores[name] for name in expected} == expected


class Facts:
    """What of a task's metadata a model is shown."""

    def __init__(self, query: str, document: str) -> None:
        self.kinds = {"query": [query], "document": [document]}

    def get_modalities(self, side: str) -> Sequence[str]:
        return self.kinds[side]


def rows(**columns: list[Any]) -> Any:
    datasets = pytest.importorskip("datasets")
    return datasets.Dataset.from_dict(columns)


def test_videos_search_texts_and_candidates_can_be_given(workspace: Path) -> None:
    pytest.importorskip("mteb", reason="needs the extra mteb")
    run = make_run(workspace / "runs" / "one", head="xpool", moved=0.3)
    world = vtr.open_workspace(workspace)
    store = vtr.open_features(world)
    model = vtr.mteb_model(run, store, device="cpu")
    ids, texts = [name for name, _, _ in CAPTIONS[:18]], [text for _, text, _ in CAPTIONS]
    keys = [f"t{n}" for n in range(len(texts))]
    matrix = vtr.score_matrix(texts, store, run, ids=ids)
    model.index(rows(id=keys, text=texts), task_metadata=Facts("video", "text"))
    found = model.search(rows(id=ids), task_metadata=Facts("video", "text"), top_k=5)
    for v, name in enumerate(ids):
        assert list(found[name].values()) == pytest.approx(sorted(matrix[:, v])[::-1][:5], abs=1e-6)
    model.index(rows(id=ids), task_metadata=Facts("text", "video"))
    some = {"t1": [ids[3], ids[8], "no such video"], "t2": []}
    found = model.search(
        rows(id=keys[:3], text=texts[:3]),
        task_metadata=Facts("text", "video"),
        top_k=9,
        top_ranked=some,
    )
    assert [len(found[f"t{n}"]) for n in range(3)] == [9, 2, 0]
    assert found["t1"] == pytest.approx({ids[n]: float(matrix[1, n]) for n in (3, 8)}, abs=1e-6)
    assert list(found["t0"]) == [ids[n] for n in np.argsort(-matrix[0])[:9]]


def test_one_vector_heads_encode_what_they_search_with(workspace: Path) -> None:
    mteb = pytest.importorskip("mteb", reason="needs the extra mteb")
    run = make_run(workspace / "runs" / "one", head="seqTransf:layers=1", moved=0.3)
    store = vtr.open_features(vtr.open_workspace(workspace))
    model = vtr.mteb_model(run, store, device="cpu")
    assert isinstance(model, mteb.EncoderProtocol)
    ids, texts = [name for name, _, _ in CAPTIONS[:18]], [text for _, text, _ in CAPTIONS[:7]]
    assert isinstance(model, EncodingModel)
    loader = DataLoader(rows(text=texts, id=texts), batch_size=3)
    one, two = model.encode(loader), model.encode([{"id": ids[:5]}, {"id": ids[5:]}])
    np.testing.assert_allclose(one, model.encode(texts), atol=1e-6)
    matrix = vtr.score_matrix(texts, store, run, ids=ids)
    np.testing.assert_allclose(model.similarity(one, two), matrix, atol=1e-6)
    np.testing.assert_allclose(
        model.similarity_pairwise(one, two[:7]), matrix[:, :7].diagonal(), atol=1e-6
    )
    for batch, message in (
        ({"id": ["nowhere"]}, "no features for nowhere"),
        ({"video": [0]}, "no features for videos without ids"),
        ({"text": ["a"], "video": [0]}, "not for both together"),
    ):
        with pytest.raises(ConfigError, match=message):
            model.encode([batch])
    pairs = vtr.mteb_model(make_run(workspace / "runs" / "two", head="wti"), store, device="cpu")
    assert not isinstance(pairs, mteb.EncoderProtocol)


class Brought:
    """A dataset that brings videos as tensors, as torchcodec's decoders give them."""

    column_names = ("id", "video")

    def __init__(self, videos: list[np.ndarray]) -> None:
        self.videos = videos

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, key: Any) -> Any:
        if key == "id":
            return [f"v{n}" for n in range(len(self))]
        return {"id": f"v{key}", "video": self.videos[key]}


def test_videos_that_a_task_brings_are_embedded_at_even_distances() -> None:
    pytest.importorskip("mteb", reason="needs the extra mteb")
    rng = np.random.default_rng(0)
    videos = [rng.integers(0, 256, (n, 3, 40, 56), np.uint8) for n in (9, 2)]
    model = vtr.mteb_model(frames=4, model=str(vtr.demo.demo_model_folder()), device="cpu")
    assert model.mteb_model_meta.name.endswith("-4-even-frames")
    assert isinstance(model, EncodingModel)
    vectors = model.encode([{"video": videos[:1]}, {"video": videos[1:]}])
    model.index(Brought(videos), task_metadata=Facts("text", "video"))
    texts = ["a red star", "a blue heart"]
    found = model.search(
        rows(id=["a", "b"], text=texts), task_metadata=Facts("text", "video"), top_k=9
    )
    backbone = demo_backbone()
    for v, places in enumerate(([0, 3, 5, 8], [0, 0, 1, 1])):
        crops = np.stack(
            [
                resize_crop(videos[v][n].transpose(1, 2, 0).copy(), backbone.preprocessing)
                for n in places
            ]
        )
        frames = backbone.encode_frames(crops)
        mean = (frames / np.linalg.norm(frames, axis=1, keepdims=True)).mean(axis=0)
        np.testing.assert_allclose(vectors[v], mean / np.linalg.norm(mean), atol=1e-5)
        for query, text in zip("ab", backbone.encode_texts(texts).embeddings, strict=True):
            expected = text @ mean / np.linalg.norm(text) / np.linalg.norm(mean)
            assert found[query][f"v{v}"] == pytest.approx(float(expected), abs=1e-5)


def test_what_cannot_be_is_said_in_a_line(workspace: Path) -> None:
    pytest.importorskip("mteb", reason="needs the extra mteb")
    run = make_run(workspace / "runs" / "one", head="tokenbinder")
    store = vtr.open_features(vtr.open_workspace(workspace))
    demo = str(vtr.demo.demo_model_folder())
    for how, message in (
        ({"run": run, "store": store}, r"say how many with rerank=N"),
        ({"run": run, "store": store, "rerank": 0}, "rerank=0; it must be 1 or more"),
        ({"run": run}, r"features are not known: give mteb_model a store"),
        ({"store": store, "frames": 3}, "frames=3: allowed are 1 to 4096, and then no store"),
        ({"frames": 0}, "frames=0: allowed are 1 to 4096"),
        ({"frames": 3}, "a model that nobody named"),
        ({"run": workspace / "nowhere"}, "no run .*nowhere"),
    ):
        with pytest.raises(ConfigError, match=message):
            vtr.mteb_model(**how)  # type: ignore[arg-type]
    model = vtr.mteb_model(None, store, model=demo, device="cpu")
    text, video = rows(id=["a"], text=["x"]), rows(id=["no such video"])
    with pytest.raises(ConfigError, match="index a corpus before"):
        model.search(text, task_metadata=Facts("text", "video"), top_k=1)
    with pytest.raises(ConfigError, match=r"holds none of the task's 1 video \(no such video\)"):
        model.index(video, task_metadata=Facts("text", "video"))
    with pytest.raises(ConfigError, match=r"the task's document side is \['audio'\]"):
        model.index(video, task_metadata=Facts("text", "audio"))
    model.index(text, task_metadata=Facts("text", "text"))
    with pytest.raises(ConfigError, match="the same kind on both sides"):
        model.search(text, task_metadata=Facts("text", "text"), top_k=1)
    bare = vtr.mteb_model(frames=3, model=demo, device="cpu")
    with pytest.raises(ConfigError, match="brings no videos but their ids"):
        bare.index(rows(id=["a"]), task_metadata=Facts("text", "video"))
