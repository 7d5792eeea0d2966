"""Looking at datasets: plain oracles for the counts, and the known facts of MSR-VTT."""

import itertools
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import (
    demo_spec,
    make_folder_workspace,
    query_set,
    ramp,
    random_rows,
    run_app,
    run_json,
    write_clip,
    write_store,
)
from hypothesis import given
from hypothesis import strategies as st

from vtr.charts import html
from vtr.charts.files import draw
from vtr.datasets.base import Caption, Dataset
from vtr.datasets.registry import load_dataset
from vtr.demo import demo_model_folder
from vtr.errors import ConfigError, StoreError, StoreWriteError
from vtr.evaluate import eda
from vtr.evaluate.eda_report import charts_of
from vtr.evaluate.parts import parse_bins
from vtr.features import FeatureStore
from vtr.searching.index import Bank, update_index

TEXTS = st.sampled_from(["a", "b", "c d", "c d e"])


def dataset(pairs: list[tuple[str, str]], **more: Any) -> Dataset:
    ids = tuple(dict.fromkeys(video for video, _ in pairs))
    captions = tuple(Caption(str(n), v, t) for n, (v, t) in enumerate(pairs))
    return Dataset("folder", ids, captions, **{"splits": {"test": ids}, **more})


@given(st.lists(st.tuples(st.sampled_from("uvw"), TEXTS), max_size=12))
def test_duplicates_against_a_plain_count(pairs: list[tuple[str, str]]) -> None:
    found = eda.duplicates([text for _, text in pairs], [video for video, _ in pairs])
    texts = {text for _, text in pairs}
    assert found["distinct"] == len(texts)
    assert found["repeated_within"] == sum(pairs.count(pair) > 1 for pair in set(pairs))
    shared = {t: len({v for v, text in pairs if text == t}) for t in texts}
    assert found["shared_across"] == sum(count > 1 for count in shared.values())
    assert dict(map(tuple, found["most_shared"])) == {t: n for t, n in shared.items() if n > 1}


@given(st.lists(st.tuples(st.integers(0, 2), TEXTS), min_size=1, max_size=7), st.integers(1, 3))
def test_no_order_of_the_videos_beats_the_ceiling(pairs: list[tuple[int, str]], k: int) -> None:
    """The oracle tries every order of the videos for every text."""
    owners, texts = zip(*sorted(pairs, key=lambda pair: pair[0]), strict=True)
    asked = query_set(owners, 3, texts)
    best = 0
    for text in set(asked.texts):
        wanted = [int(v) for t, v in zip(asked.texts, asked.query_video, strict=True) if t == text]
        orders = itertools.permutations(range(len(asked.video_ids)))
        best += max(sum(video in order[:k] for video in wanted) for order in orders)
    assert eda.ceiling(asked, k) == pytest.approx(100 * best / len(pairs))


def test_captions_and_vocabulary_of_a_small_dataset() -> None:
    data = dataset(
        [("v", "A man runs"), ("v", "a dog"), ("w", "a  dog é"), ("w", "")],
        categories={"v": "sport"},
        splits={"train": ("v",), "test": ("w",)},
    )
    found = eda.describe_dataset(data)
    every = found["captions"]["all"]
    assert (every["num"], every["empty"], every["non_ascii"]) == (4, 1, 1)
    assert (every["min"], every["max"], every["mean"]) == (0, 3, 2.0)
    assert every["counts"] == [[0, 1], [2, 1], [3, 2]]
    assert [b["n"] for b in every["bins"]] == [3, 0, 0]
    assert found["captions"]["test"]["num"] == 2
    assert found["splits"] == [
        {"name": "train", "videos": 1, "captions": 2, "queries": 2},
        {"name": "test", "videos": 1, "captions": 2, "queries": 2},
    ]
    assert found["categories"] == {
        "all": [{"name": "sport", "videos": 1}],
        "train": [{"name": "sport", "videos": 1}],
        "test": [],
    }
    words = found["vocabulary"]
    assert (words["words"], words["size"], words["once"]) == (8, 5, 3)
    assert words["most_frequent"][:2] == [["a", 3], ["dog", 2]]
    assert found["ceilings"][0]["R@1"] == 100


def test_a_bin_of_no_words_holds_empty_captions_alone() -> None:
    found = eda.caption_lengths(["", " ", "a man", "a dog runs"], parse_bins("0,1-2,3+"))
    assert found["bins"] == [{"name": "0", "n": 2}, {"name": "1-2", "n": 1}, {"name": "3+", "n": 1}]


def test_videos_without_captions_are_counted() -> None:
    data = Dataset("folder", ("v", "w", "x"), (Caption("0", "v", "a"), Caption("1", "v", "b")))
    found = eda.captions_per_video(data)
    assert (found["min"], found["max"], found["without"]) == (0, 2, 2)
    assert found["counts"] == [[0, 2], [2, 1]]
    assert eda.describe_dataset(Dataset("folder", ()))["captions"]["all"] == {"num": 0}


def test_truncated_captions_are_counted_at_every_limit() -> None:
    found = eda.token_lengths("m", 40, np.array([10, 32, 33, 40, 41, 90]))
    assert found["truncated"] == [
        {"at": 32, "n": 4, "percent": pytest.approx(100 * 4 / 6)},
        {"at": 40, "n": 2, "percent": pytest.approx(100 * 2 / 6)},
        {"at": 77, "n": 1, "percent": pytest.approx(100 / 6)},
    ]


@given(st.lists(st.floats(-1e6, 1e6), max_size=60))
def test_histograms_hold_every_number(values: list[float]) -> None:
    found = eda.histogram(values)
    assert sum(found.get("counts", [])) == len(values)
    assert eda.describe_numbers(values)["n"] == len(values)


def test_media_are_summed_up_by_status() -> None:
    def row(name: str, status: str, reason: str = "", seconds: float = 0.0) -> dict[str, Any]:
        size = {"width": 320, "height": 240, "frames_per_second": 25.0 if seconds else None}
        return {"id": name, "status": status, "reason": reason, "duration_seconds": seconds, **size}

    rows = [
        row("a", "ok", seconds=2.0),
        row("b", "partial", "cut", 4.0),
        row("c", "failed", "not-a-video"),
        row("d", "missing", "no file"),
        row("e", "present"),
    ]
    found = eda.describe_media(rows)
    assert found["status"] == {"ok": 1, "partial": 1, "failed": 1, "missing": 1, "present": 1}
    assert [failure["id"] for failure in found["failures"]] == ["b", "c", "d"]
    assert found["duration_seconds"]["total"] == 6
    assert found["duration_seconds"]["mean"] == 3
    assert found["sizes"] == [["320x240", 2]]
    assert found["rates"] == [[25.0, 2]]


def test_features_against_plain_loops(build_store: Callable[..., Path]) -> None:
    store = FeatureStore(build_store([[3, 1], [0, 4]]), sampler="uniform")
    found = eda.describe_features(store)
    norms, within, means = [], [], []
    for video_id in store:
        frames = store[video_id].frames.astype(np.float64)
        norms += [float(np.sqrt((f**2).sum())) for f in frames]
        units = [f / np.sqrt((f**2).sum()) for f in frames]
        pairs = [float(a @ b) for a, b in itertools.combinations(units, 2)]
        within += [np.mean(pairs)] if pairs else []
        means.append(np.mean(units, axis=0))
    between = [
        float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        for a, b in itertools.combinations(means, 2)
    ]
    assert (found["videos"], found["norms"]["n"]) == (3, 8)
    assert found["norms"]["mean"] == pytest.approx(np.mean(norms), rel=1e-5)
    assert found["norms"]["sd"] == pytest.approx(np.std(norms), rel=1e-4)
    assert found["cosine_within_video"]["mean"] == pytest.approx(np.mean(within), abs=1e-5)
    assert found["cosine_between_videos"]["mean"] == pytest.approx(np.mean(between), abs=1e-5)
    assert eda.describe_features(store, max_videos=2)["sampled"] == 2


def test_features_that_are_no_numbers_are_named(tmp_path: Path) -> None:
    spec = demo_spec()
    rows = random_rows(("a", "b"), spec)
    rows[1].frames[2, 5] = np.nan
    store = FeatureStore(write_store(tmp_path / "store", rows, spec))
    with pytest.raises(StoreError, match=r"1 frame embedding is not finite .* in 1 video: b\."):
        eda.describe_features(store)
    with pytest.raises(StoreError, match=r"in 1 video: b\."):
        update_index(tmp_path / "index", store, Bank("none", np.eye(96, dtype=np.float32)))


def test_effective_dimensions_of_known_clouds() -> None:
    assert eda.effective_dimensions(np.concatenate([np.eye(5), -np.eye(5)])) == pytest.approx(5)
    line = np.linspace(-1, 1, 9)[:, None] * np.array([[1.0, 2.0, 3.0]])
    assert eda.effective_dimensions(line) == pytest.approx(1)
    assert eda.effective_dimensions(np.ones((4, 3))) == 0


def test_the_gap_of_two_clouds() -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 0.1, (40, 6))
    texts = shared + np.array([1.0, 0, 0, 0, 0, 0])
    videos = shared + np.array([0, 1.0, 0, 0, 0, 0])
    found = eda.modality_gap(texts, videos)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (texts, videos)]
    assert found["distance"] == pytest.approx(
        float(np.linalg.norm(unit[0].mean(axis=0) - unit[1].mean(axis=0)))
    )
    assert found["separable"] == 100
    assert found["matching_cosine"]["mean"] == pytest.approx(
        float((unit[0] * unit[1]).sum(axis=1).mean())
    )
    for plane in (found["pca"], found["tsne"]):
        assert np.array(plane["texts"]).shape == (40, 2)
        assert np.isfinite(plane["videos"]).all()
    same = eda.modality_gap(texts, texts, tsne=False)
    assert same["distance"] == pytest.approx(0)
    assert "tsne" not in same
    assert eda.separability(texts, texts) == 0  # nobody is on a right side where there are no sides
    with pytest.raises(ConfigError, match="same rows"):
        eda.modality_gap(texts, videos[:3])


def test_charts_hold_the_figures() -> None:
    data = dataset(
        [("v", "a man runs"), ("v", "a dog"), ("w", "a dog")], categories={"v": "sport", "w": "<b>"}
    )
    facts = eda.describe_dataset(data, tokens=eda.token_lengths("m", 77, np.array([5, 4, 4])))
    charts = {chart.head.name: chart for chart in charts_of(facts)}
    named = {"caption_lengths", "caption_tokens", "captions_per_video"}
    assert set(charts) == named | {"video_category_distribution_test"}
    assert charts["caption_lengths"].series == (("", (2, 1)),)
    assert charts["caption_lengths"].edges == (1.5, 2.5, 3.5)
    assert charts["video_category_distribution_test"].counts == (1, 1)


def test_every_chart_can_be_drawn(build_store: Callable[..., Path]) -> None:
    store = FeatureStore(build_store([[3, 2]]), sampler="uniform")
    rng = np.random.default_rng(0)
    gap = eda.modality_gap(rng.normal(size=(5, 4)), rng.normal(size=(5, 4)), tsne=False)
    rows = [
        {"id": "a", "status": "ok", "reason": "", "duration_seconds": s, "width": 4, "height": 3}
        for s in (1.0, 2.0)
    ]
    facts = {
        **eda.describe_dataset(dataset([("v", "a man")])),
        "media": eda.describe_media(rows),
        "features": eda.describe_features(store),
        "modality_gap": gap,
    }
    charts = charts_of(facts)
    named = {"caption_lengths", "video_durations", "feature_norms", "feature_similarity"}
    assert {chart.head.name for chart in charts} == named | {"modality_gap_pca"}
    for chart in charts:
        assert draw(chart)[:4] == b"\x89PNG"
        assert b"<svg" in draw(chart, kind="svg")
        assert html.draw(chart).startswith('<figure class="chart"')


# ---- the command


@pytest.fixture
def annotated(tmp_path: Path) -> Path:
    (tmp_path / "videos").mkdir()
    folder = tmp_path / "annotations"
    folder.mkdir()
    videos = [
        {"id": f"vidéo {n}", "split": "test", "group": "content", "category": f"kind{n % 2}"}
        for n in range(3)
    ]
    texts = ["a red ball"] * 2 + [f"word {n}" for n in range(2, 6)]
    captions = [
        {"id": f"c{n}", "video_id": f"vidéo {n % 3}", "text": text} for n, text in enumerate(texts)
    ]
    (folder / "demo.json").write_text(json.dumps({"videos": videos, "captions": captions}))
    return tmp_path


def test_the_command_works_with_annotations_alone(
    annotated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(annotated)
    given = ("--dataset", "demo", "--annotations", "annotations", "--videos", "videos")
    done = run_app("eda", *given, "--no-text", "--no-pictures", "--bins", "1-2,3+")
    facts = json.loads((annotated / "eda" / "eda.json").read_text())
    assert facts["captions"]["all"]["bins"] == [{"name": "1-2", "n": 4}, {"name": "3+", "n": 2}]
    assert facts["duplicates"]["test"]["shared_across"] == 1
    assert facts["ceilings"][0]["R@1"] == pytest.approx(100 * 5 / 6)
    assert facts["media"]["status"] == {"missing": 3}
    assert (facts["options"]["bins"], facts["options"]["dataset"]) == ("1-2,3+", "demo")
    assert "83.33" in done.output
    assert b"<script" not in (annotated / "eda" / "eda.html").read_bytes()
    with pytest.raises(StoreError, match="no features"):
        run_app("eda", *given, "--features", "nowhere")
    with pytest.raises(StoreWriteError, match=r"cannot make the folder .*Choose another with"):
        run_app("eda", *given, "--features", "nowhere", "--out", "annotations/demo.json")
    monkeypatch.chdir(annotated / "videos")
    with pytest.raises(ConfigError, match="nothing to look at"):
        run_app("eda", "--no-text")


def test_the_command_takes_a_store_and_a_model(
    annotated: Path, build_store: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(annotated)
    store = build_store([[3, 2, 0]], samplers=("uniform",))
    given = ("--dataset", "demo", "--annotations", "annotations", "--videos", "videos")
    model = demo_model_folder()
    words = (*given, "--features", store, "--model", model, "--no-pictures", "--json")
    done = run_app("eda", *words)
    facts = json.loads(done.stdout)
    assert facts["features"]["videos"] == 2
    assert facts["media"]["status"] == {"ok": 2, "failed": 1}
    assert facts["media"]["reasons"] == {"not-a-video": 1}
    assert facts["tokens"]["max_length"] == 32
    assert facts["tokens"]["counts"][0][0] >= 4  # begin, end and two words
    assert facts["modality_gap"] is None  # the store is of another model
    assert "not measured: the features in" in done.stderr
    assert "come from tiny" in done.stderr


def test_one_video_alone_has_no_spread(tmp_path: Path) -> None:
    make_folder_workspace(tmp_path, [("a.mp4", "a cat")])
    shown = run_app("eda", "--no-pictures", "--no-text", cwd=tmp_path).stdout
    assert "feature norms" in shown
    assert "feature spread" not in shown
    assert "nan" not in shown


def test_probing_decodes_some_videos(annotated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(annotated)
    write_clip(annotated / "videos" / "vidéo 0.mp4", ramp(20), fps=10, codec="mpeg4")
    (annotated / "videos" / "vidéo 1.mp4").write_bytes(b"no video")
    given = ("--dataset", "demo", "--annotations", "annotations", "--videos", "videos")
    quick = ("eda", *given, "--no-text", "--no-pictures")
    unread = run_json(*quick)["media"]
    assert unread["status"] == {"present": 2, "missing": 1}
    media = run_json(*quick, "--probe", "5")["media"]
    assert media["status"] == {"ok": 1, "failed": 1, "missing": 1}
    assert media["rates"] == [[10.0, 1]]
    assert media["sizes"] == [["64x48", 1]]
    assert media["duration_seconds"]["total"] == pytest.approx(2.0)


# ---- known facts


@pytest.mark.real
def test_the_facts_of_msrvtt(real_data: Path) -> None:
    folder = real_data / "annotations" / "msrvtt"
    if not folder.is_dir():
        pytest.skip(f"no annotations in {folder}")
    data = load_dataset("msrvtt", annotations=folder, videos=real_data / "videos")
    facts = eda.describe_dataset(data)
    test = {row["name"]: row["videos"] for row in facts["categories"]["test"]}
    assert test == {
        "sports/actions": 324, "movie/comedy": 301, "vehicles/autos": 244, "music": 226,
        "food/drink": 185, "howto": 173, "kids/family": 171, "animals/pets": 170, "gaming": 141,
        "science/technology": 139, "news/events/politics": 137, "beauty/fashion": 137,
        "animation": 122, "cooking": 110, "people": 79, "tv shows": 77, "travel": 75,
        "education": 74, "advertisement": 58, "documentary": 47,
    }  # fmt: skip
    assert [b["n"] for b in facts["captions"]["test"]["bins"]] == [41_352, 17_044, 1_404]
    every = facts["captions"]["all"]
    assert (every["num"], every["min"], every["max"]) == (200_000, 2, 72)
    assert (every["empty"], every["non_ascii"]) == (0, 10)
    assert every["mean"] == pytest.approx(9.28, abs=0.005)
    assert facts["captions"]["test"]["max"] == 59
    assert facts["duplicates"]["all"]["distinct"] == 166_919
    assert facts["duplicates"]["test"]["repeated_within"] == 3_969
    assert facts["duplicates"]["test"]["shared_across"] == 1_457
    shared = facts["duplicates"]["test"]["most_shared"][0]
    assert (Counter(shared[0].split())["video"], shared[1]) == (1, 116)
    assert [b["n"] for b in facts["captions"]["1kA-test"]["bins"]] == [673, 304, 23]
    ceilings = {row["protocol"]: row for row in facts["ceilings"]}
    assert ceilings["msrvtt-1kA"]["distinct"] == 995
    assert ceilings["msrvtt-1kA"]["R@1"] == pytest.approx(99.5)
    assert facts["captions_per_video"]["counts"] == [[20, 10_000]]
