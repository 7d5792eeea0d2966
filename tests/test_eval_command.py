"""`vtr eval` and `vtr simulate` as a user meets them, on a small store of made-up features."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import (
    contents,
    edit_json,
    full_disk,
    make_folder_workspace,
    make_run,
    run_app,
    run_process,
    write_captions,
)

import vtr as package
from vtr.errors import ConfigError, StoreWriteError, VtrError
from vtr.evaluate.metrics import hits
from vtr.evaluate.ranks import rank_rows
from vtr.evaluate.reporting.results import load_result, read_ranks
from vtr.evaluate.rerank import rerank

NUM_VIDEOS, NUM_FRAMES = 6, 4
CAPTIONS = [(f"v{n}.mp4", f"a red square number {n}", "test") for n in range(NUM_VIDEOS)]


def vtr(folder: Path, *words: str) -> Any:
    return run_app(*words, cwd=folder)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A folder of six videos with features that nobody extracted; the texts are the model's."""
    return make_folder_workspace(tmp_path, CAPTIONS, num_frames=NUM_FRAMES)


def test_a_simulation_writes_its_numbers_and_their_plot(workspace: Path) -> None:
    vtr(workspace, "eval", "--simulate", "maxpool", "--out", "s")
    document = json.loads((workspace / "s" / "simulation.json").read_text())
    assert [row["frames"] for row in document["rows"] if row["rule"] == "maxP"] == [1, 2, 4]
    assert (workspace / "s" / "recall_by_frames.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((workspace / "s" / "simulate.json").read_text())["top"] == 3


def test_a_simulation_counts_absent_videos_as_asked(workspace: Path) -> None:
    write_captions(workspace / "captions.json", [*CAPTIONS, ("gone.mp4", "a blue ball", "test")])
    found = {}
    for policy in ("miss", "restrict"):
        for words in (("simulate",), ("eval", "--simulate", "maxpool")):
            done = vtr(workspace, *words, "--missing", policy, "--json")
            found.setdefault(json.loads(done.stdout)["num_queries"], []).append(policy)
    assert found == {7: ["miss", "miss"], 6: ["restrict", "restrict"]}


def test_no_command_counts_an_absent_video_as_found(workspace: Path) -> None:
    write_captions(workspace / "captions.json", [*CAPTIONS, ("gone.mp4", "a blue ball", "test")])
    most = pytest.approx(600 / 7)
    vtr(workspace, "eval", "--zero-shot", "--k", "1,50", "--out", "a", "--dual-softmax")
    document = json.loads((workspace / "a" / "result.json").read_text())
    for metrics in (document["metrics"], document["postprocessed"]["dual-softmax"]["metrics"]):
        assert metrics["t2v/R@50"]["value"] == metrics["v2t/R@50"]["value"] == most
        assert metrics["t2v/R@50"]["optimistic"] == most
    simulated = json.loads(vtr(workspace, "simulate", "-q", "--json").stdout)
    assert all(row["metrics"]["t2v/R@10"]["value"] == most for row in simulated["rows"])
    assert document["rank_histogram"]["counts"][-1] == 1
    # The tables of an earlier version give a miss the last rank; it is no hit to compare either.
    table = workspace / "a" / "per_query.csv"
    *rows, last = table.read_text().splitlines()
    assert ",7,1,8.0," in last
    table.write_text("\n".join([*rows, last.replace(",7,1,8.0,", ",6,1,7.0,")]) + "\n")
    result = load_result(workspace / "a")
    assert hits(read_ranks(result, "t2v").ranks, 50).mean() * 100 == most


def test_videos_that_nobody_described_are_ranked_too(workspace: Path) -> None:
    (workspace / "captions.json").write_text(json.dumps({"v1.mp4": "a red", "v4.mp4": ["b", "c"]}))
    found = {}
    for gallery, videos in ((None, 6), ("folder", 6), ("captioned", 2)):
        flag = () if gallery is None else ("--gallery", gallery)
        done = vtr(workspace, "eval", "--zero-shot", "--json", *flag)
        document = json.loads(done.stdout)
        assert document["protocol"]["num_videos"] == document["coverage"]["videos"] == videos
        assert document["protocol"]["gallery"] == ("split" if videos == 2 else "folder")
        assert document["protocol"]["published"]
        numbers = document["metrics"]
        assert {key: numbers[f"{key}/MeanR"]["n"] for key in ("t2v", "v2t", "v2t_groups")} == {
            "t2v": 3, "v2t": 2, "v2t_groups": 2
        }  # fmt: skip
        found[videos] = numbers["t2v/MeanR"]["value"]
        rows = (workspace / "features/zero-shot").glob("*/per_video.csv")
        assert all(len(path.read_text().splitlines()) in (3, 7) for path in rows)
    assert found[6] > found[2]
    shown = vtr(workspace, "eval", "--zero-shot").stdout
    assert shown.startswith("folder: 3 queries over 6 videos \u00b7 coverage 6/6 ")
    document = json.loads(vtr(workspace, "simulate", "--gallery", "captioned", "--json").stdout)
    assert document["num_videos"] == 2


@pytest.mark.parametrize("width", [30, 80])
def test_tables_are_whole_at_any_width(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    shown = vtr(workspace, "eval", "--zero-shot").stdout + vtr(workspace, "simulate", "-q").stdout
    assert "\u2026" not in shown
    for name in ("t2v ", "v2t ", "v2t_groups ", "mean ", "maxP ", "max-sim ", "attention "):
        assert f"\n{name}" in shown
    rows = [line for line in shown.splitlines() if line.startswith(("t2v ", "v2t ", "v2t_groups "))]
    assert [len(row.split()) for row in rows] == [8, 8, 8]


def test_the_legend_is_printed_once_and_the_line_names_head_and_selection(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = vtr(workspace, "eval", "--zero-shot", "--dual-softmax").stdout
    line = " ".join(shown.partition("\n\n")[0].split())
    assert " \u00b7 zero-shot \u00b7 head meanP \u00b7 text frozen \u00b7 " in line
    assert line.endswith(" \u00b7 selection none")
    assert max(map(len, shown.splitlines())) <= 80
    assert " ".join(shown.split()).count("R@k and MRR in %, with 95 % intervals") == 1


def test_another_way_of_asking_does_not_replace_a_result(workspace: Path) -> None:
    for words in ((), ("--sampler", "uniform"), ("--missing", "restrict"), ("--k", "2")):
        vtr(workspace, "eval", "--zero-shot", *words)
    found = {path.parent.name for path in workspace.glob("features/zero-shot/*/result.json")}
    assert found == {"folder", "folder-uniform", "folder-restrict"}


def test_no_scores_of_an_earlier_result_stay_beside_a_later_one(workspace: Path) -> None:
    out = workspace / "o"
    tables = {"per_query.csv", "per_video.csv", "run.trec", "qrels.trec", "eval.json"}
    for words, more in ((("--save-similarity",), {"similarity.npz"}), ((), set[str]())):
        vtr(workspace, "eval", "--zero-shot", "--out", "o", *words)
        files = json.loads((out / "result.json").read_text())["files"]
        there = {path.name for path in out.iterdir()} - {"result.json"}
        assert set(files.values()) == there == tables | more
        used = json.loads((out / "eval.json").read_text())
        assert (used["save_similarity"], used["missing"], used["k"]) == (
            "similarity.npz" in more, "miss", [1, 5, 10]
        )  # fmt: skip
    (out / "similarity.npz").mkdir()
    with pytest.raises(
        StoreWriteError, match=r"cannot delete .*o/similarity\.npz.*Delete it yourse"
    ):
        vtr(workspace, "eval", "--zero-shot", "--out", "o")


def test_long_work_is_announced_at_once(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = [("v0.mp4", f"thing {n}", "train") for n in range(3)]
    write_captions(workspace / "captions.json", [*CAPTIONS[1:], *train])
    monkeypatch.setattr("vtr.progress.MANY_TEXTS", 1)
    monkeypatch.setattr("vtr.api.evaluate.MANY_TEXTS", 1)
    told = vtr(workspace, "eval", "--zero-shot", "--qb-norm").stderr.splitlines()
    assert told[0].startswith("evaluating: reading the captions")
    for line in (
        "embedding captions: 0 of 5",
        "embedding captions: 0 of 3",
        "embedding captions: 3 of 3",
        "scoring the bank: 3 of 3 captions",
    ):
        assert line in told
    told = vtr(workspace, "simulate").stderr.splitlines()
    assert told[0].startswith("simulating: reading the captions")


def test_depths_are_asked_for_by_k_and_by_their_former_name(workspace: Path) -> None:
    opened = package.open_workspace(workspace)
    for asked in ({"k": 2}, {"k": [2, 2]}, {"ks": (2,)}):
        found = package.evaluate_run(opened, **asked, out=workspace / "o")  # type: ignore[arg-type]
        assert [key for key in found.metrics if "t2v/R@" in key] == ["t2v/R@2"]
    for words in (("report", "--out", "r"), ("compare", "o")):
        vtr(workspace, *words, "o", "--k", "2")


def test_re_ranking_finds_no_absent_video(workspace: Path) -> None:
    write_captions(workspace / "captions.json", [*CAPTIONS, ("gone.mp4", "a blue ball", "test")])
    make_run(workspace / "runs" / "one")
    done = vtr(workspace, "eval", "--rerank", "9", "--k", "1,50", "--out", "o", "--json")
    metrics = json.loads(done.stdout)["metrics"]
    for key in ("t2v/R@50", "v2t/R@50", "v2t_groups/R@50"):
        for side in ("value", "optimistic", "pessimistic"):
            assert metrics[key][side] == pytest.approx(600 / 7)
    assert "gone.mp4" not in (workspace / "o" / "run.trec").read_text().split()
    assert "gone.mp4" in (workspace / "o" / "qrels.trec").read_text()


def test_a_head_that_recalls_finds_what_it_reorders(workspace: Path) -> None:
    run = make_run(workspace / "runs" / "one", head="eercf:layers=1", moved=0.5)
    words = ("--rerank", "2", "--save-similarity", "--out", "o")
    vtr(workspace, "eval", *words)
    opened = package.open_workspace(workspace)
    store = package.open_features(opened)
    texts = [text for _, text, _ in CAPTIONS]
    backbone = package.load_backbone(opened.model, device="cpu")
    embedded = package.embed_texts(backbone, texts)
    ids = [name for name, _, _ in CAPTIONS]
    scorer = package.Scorer(package.load_run(run).model, embedded, store.packed(ids))
    with np.load(workspace / "o" / "similarity.npz") as file:
        found = dict(file)
    columns = [file.index(name) for file in [found["video_ids"].tolist()] for name in ids]
    orders = []
    for recall in (
        scorer.recall(),
        package.score_matrix(texts, store, model=opened.model, ids=ids),
    ):
        wanted = rerank(recall, 2, lambda rows, places: scorer.matrix()[rows, places])
        orders.append(np.argsort(-wanted.t2v, axis=1).tolist())
    assert np.argsort(-found["scores"][:, columns], axis=1).tolist() == orders[0] != orders[1]


@pytest.mark.parametrize("way", ["--dual-softmax", "--qb-norm"])
def test_reordered_lists_are_not_weighed_against_one_another(workspace: Path, way: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{way} weighs scores.*--rerank.*Leave out one"):
        vtr(workspace, "eval", "--rerank", "3", way)


def test_post_processing_reads_logits_as_cosines_times_the_scale_of_clip(workspace: Path) -> None:
    rows = [*CAPTIONS, ("t.mp4", "a blue ball", "train"), ("u.mp4", "a blue ball", "train")]
    (workspace / "videos/t.mp4").touch()
    (workspace / "videos/u.mp4").touch()
    write_captions(workspace / "captions.json", rows)
    make_run(workspace / "runs" / "r", head="tightTransf:layers=1", moved=0.5)
    flags = ("--dual-softmax", "--qb-norm", "--save-similarity", "--out", "o")
    done = vtr(workspace, "eval", "--run", "r", "--json", *flags)
    document = json.loads(done.stdout)
    logits = np.load(workspace / "o" / "similarity.npz")["scores"].astype(np.float64)
    weights = np.exp(logits - logits.max(axis=0))
    changed = logits * weights / weights.sum(axis=0)
    ranks = rank_rows(changed, np.arange(NUM_VIDEOS))
    found = document["postprocessed"]["dual-softmax"]["metrics"]
    assert found["t2v/MeanR"]["value"] == pytest.approx(ranks.expected.mean())


def test_a_head_that_compares_candidates_is_asked_with_rerank_alone(workspace: Path) -> None:
    run = make_run(workspace / "runs" / "one", head="tokenbinder", moved=0.3)
    with pytest.raises(ConfigError, match=r"runs/one: the head tokenbinder.*such as --rerank 50"):
        vtr(workspace, "eval")
    vtr(workspace, "eval", "--rerank", "3", "--save-similarity", "--out", "o")
    vtr(workspace, "eval", "--rerank", "2", "--save-similarity", "--out", "p")
    opened = package.open_workspace(workspace)
    loaded = package.load_run(run)
    texts = [text for _, text, _ in CAPTIONS]
    backbone = package.load_backbone(opened.model, device="cpu")
    embedded = package.embed_texts(backbone, texts, tokens=True)
    for out, count in (("o", 3), ("p", 2)):
        with np.load(workspace / out / "similarity.npz") as file:
            found = dict(file)
        ids = found["video_ids"].tolist()
        scorer = package.Scorer(loaded.model, embedded, package.open_features(opened).packed(ids))
        scorer.candidates = count
        matrix = scorer.matrix()
        wanted = rerank(scorer.recall(), count, lambda rows, places, m=matrix: m[rows, places])
        for ours, theirs in ((wanted.t2v, "scores"), (wanted.v2t, "v2t_scores")):
            np.testing.assert_allclose(ours, found[theirs], atol=1e-5)


def test_figures_of_other_weights_are_marked_and_not_exported(workspace: Path) -> None:
    def train(scale: float) -> None:
        make_run(workspace / "runs" / "one", scale=scale)

    train(2.0)
    told = "measured on other weights than"
    vtr(workspace, "eval", "--run", "runs/one")
    vtr(workspace, "eval", "--zero-shot")
    setup = json.loads((workspace / "runs/one/eval/folder/result.json").read_text())["setup"]
    weights = (workspace / "runs/one/best.safetensors").read_bytes()
    assert setup["weights_sha256"] == hashlib.sha256(weights).hexdigest()
    pair = ("features/zero-shot/folder", "runs/one/eval/folder")
    done = vtr(workspace, "compare", *pair)
    assert told not in done.stderr
    assert "sha256" not in done.stdout
    train(3.0)
    assert told in vtr(workspace, "compare", *pair).stderr
    done = vtr(workspace, "report", "--out", "r", "--no-pictures")
    assert told in done.stderr
    assert told in (workspace / "r" / "report.html").read_text()
    done = vtr(workspace, "export", "--run", "runs/one", "--out", "given")
    card = (workspace / "given" / "README.md").read_text()
    assert "Left out: folder was measured on other weights than these" in card
    assert "### folder" not in card
    vtr(workspace, "eval", "--run", "runs/one")
    assert told not in vtr(workspace, "compare", *pair).stderr


def test_features_extracted_anew_are_told_from_those_measured(workspace: Path) -> None:
    for out in "ab":
        vtr(workspace, "eval", "--zero-shot", "--out", out)
    edit_json(workspace / "b" / "result.json", setup__frames_sha256="0" * 64)
    told = vtr(workspace, "compare", "a", "b").stderr
    assert "measured on other features than zero-shot, uniform, of the same settings" in told
    vtr(workspace, "report", "a", "b", "--out", "r", "--no-pictures")
    assert "measured on other features than" in (workspace / "r" / "report.html").read_text()


def test_a_result_that_cannot_be_written_leaves_the_earlier_one(workspace: Path) -> None:
    vtr(workspace, "eval", "--zero-shot", "--out", "o")
    before = contents(workspace / "o")
    for out, words, what in (
        ("o", (), "run.trec"),
        ("new", (), "run.trec"),
        ("new", ("--save-similarity",), "the scores into .*new"),
    ):
        flags = ("--zero-shot", "--out", out, "--k", "2", *words)
        with full_disk(100), pytest.raises(StoreWriteError, match=f"cannot write .*{what}.*: File"):
            vtr(workspace, "eval", *flags)
    assert contents(workspace / "o") == before
    assert not list((workspace / "new").iterdir())


def test_a_terminal_without_unicode_gets_its_numbers(workspace: Path) -> None:
    done = run_process("eval", "--zero-shot", cwd=workspace, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("folder: 6 queries over 6 videos")
    assert "\nv2t_groups " in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ("--run", "runs/one"),
        ("--k", "1,3"),
        ("--dual-softmax",),
        ("--qb-norm",),
        ("--rerank", "3"),
        ("--save-similarity",),
        ("--force",),
        ("--device", "cpu"),
    ],
)
def test_a_simulation_leaves_no_flag_unheard(workspace: Path, words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=rf"--simulate has no use for {words[0]}: it compares"):
        vtr(workspace, "eval", "--simulate", "maxpool", *words)


@pytest.mark.parametrize(
    ("words", "kind", "message"),
    [
        (("--k", "1" + "0" * 30), ConfigError, r"--k is '10+.*whole numbers from 1 to 999999999"),
        (("--rerank", "3"), ConfigError, r"--rerank lets the head of a run.*Leave out one"),
        (("--out", "captions.json"), StoreWriteError, r"cannot make the folder .*captions\.json"),
        (("--out", "/proc"), StoreWriteError, r"cannot write into .* /proc: .*another with --out"),
        (
            ("--simulate", "maxpool", "--out", "captions.json"),
            StoreWriteError,
            r"cannot make the folder .*captions\.json: File exists\. Choose another with --out",
        ),
    ],
)
def test_bad_requests_are_answered(
    workspace: Path, words: tuple[str, ...], kind: type[VtrError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        vtr(workspace, "eval", "--zero-shot", *words)


def test_a_bank_without_training_captions_is_refused_before_the_model_is_loaded(
    workspace: Path,
) -> None:
    toml = workspace / "vtr.toml"
    lines = [
        'model = "gone"' if line.startswith("model") else line
        for line in toml.read_text().splitlines()
    ]
    toml.write_text("\n".join(lines))
    with pytest.raises(ConfigError, match=r"--qb-norm compares.*needs the split 'train'.*Leave it"):
        vtr(workspace, "eval", "--zero-shot", "--qb-norm")


@pytest.mark.parametrize("words", [(), ("--rerank", "2"), ("--missing", "restrict")])
def test_saved_scores_are_those_that_were_ranked(workspace: Path, words: tuple[str, ...]) -> None:
    """Rows are written as they stream past, in the order of the queries, equal words twice."""
    captions = [*CAPTIONS[:2], ("v4.mp4", CAPTIONS[0][1], "test"), *CAPTIONS[2:5]]
    write_captions(workspace / "captions.json", captions)
    make_run(workspace / "runs" / "one")
    vtr(workspace, "eval", "--out", "o", "--save-similarity", *words)
    with np.load(workspace / "o" / "similarity.npz") as saved:
        arrays = dict(saved)
    result = load_result(workspace / "o")
    ranks, owners = read_ranks(result, "t2v"), np.array(read_ranks(result, "t2v").clusters)
    assert arrays["query_ids"].tolist() == list(ranks.ids)
    own = arrays["video_ids"][None, :] == owners[:, None]
    scores = arrays["scores"]
    better = (scores > scores[own][:, None]).sum(axis=1)
    assert better.tolist() == ranks.ranks.better.tolist()
    columns = arrays.get("v2t_scores", scores)
    by_video = read_ranks(result, "v2t")
    place = {video: v for v, video in enumerate(arrays["video_ids"].tolist())}
    for video, count in zip(by_video.ids, by_video.ranks.better.tolist(), strict=True):
        column = columns[:, place[video]]
        assert (column > column[owners == video].max()).sum() == count
