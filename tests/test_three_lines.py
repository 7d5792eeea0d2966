"""The three lines of the README, in a workspace shaped like MSR-VTT, and what they say when asked
in the wrong order or for the wrong thing.

Twelve generated clips, annotations in the layout that the dataset is published in, the tiny model
that ships with the package: real decoders, real workers, real files.
"""

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import grey, make_run, run_app, run_json, run_process, unit, write_clip, write_store

from vtr.clip.backbone import load_backbone
from vtr.counts import counted
from vtr.demo import demo_model_folder
from vtr.errors import ConfigError, DatasetError, ModelError, StoreError, UnknownNameError, VtrError
from vtr.features import FeatureStore, LedgerRow, VideoRow
from vtr.train.run import load_run

LINES = (
    ("extract", "--sampler", "motion"),
    ("train", "--head", "seqTransf"),
    ("eval", "--protocol", "msrvtt-1kA"),
)
NUM_TRAIN, NUM_TEST = 8, 4
COLOURS = ("red", "green", "blue", "grey")


def square_clip(path: Path, number: int) -> None:
    """Three seconds in one colour; a bright square crosses it at its own height."""
    pictures = [grey(40, (64, 64)) for _ in range(12)]
    for i, picture in enumerate(pictures):
        picture[..., number % 3] = 200
        picture[4 * number : 4 * number + 12, 4 * i : 4 * i + 12] = 255
    write_clip(path, pictures)


def write_annotations(folder: Path, *, num_train: int = NUM_TRAIN) -> None:
    """The published files; the first `num_train` videos are to train on, the others to test."""
    total, per_video = NUM_TRAIN + NUM_TEST, 5
    folder.mkdir(exist_ok=True)
    document = {
        "info": {"year": "2016", "version": "1.0"},
        "videos": [
            {
                "video_id": f"video{n}",
                "category": n % 20,
                "split": "train" if n < num_train else "test",
                "start time": 137.72,
                "end time": 140.72,
                "url": f"https://example.org/watch?v={n}",
                "id": n,
            }
            for n in range(total)
        ],
        "sentences": [
            {
                "caption": f"a square crosses {COLOURS[n % 3]} at height {n}, told {k} times",
                "video_id": f"video{n}",
                "sen_id": per_video * n + k,
            }
            for n in range(total)
            for k in range(per_video)
        ],
    }
    (folder / "MSRVTT_data.json").write_text(json.dumps(document))
    trained = [f"video{n}" for n in range(num_train)]
    (folder / "MSRVTT_train.9k.csv").write_text("\n".join(["video_id", *trained]) + "\n")
    asked = [
        f"ret{r},msr{n},video{n},a square crosses {COLOURS[n % 3]} at height {n} told 0 times"
        for r, n in enumerate(range(num_train, total))
    ]
    header = "key,vid_key,video_id,sentence"
    (folder / "MSRVTT_JSFUSION_test.csv").write_text("\n".join([header, *asked]) + "\n")


def vtr(folder: Path, *words: str) -> Any:
    return run_app(*words, cwd=folder)


def answer(folder: Path, *words: str) -> Any:
    return run_json(*words, cwd=folder)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which nothing has been run."""
    folder = tmp_path_factory.mktemp("msrvtt")
    for n in range(NUM_TRAIN + NUM_TEST):
        square_clip(folder / "clips" / f"video{n}.mp4", n)
    write_annotations(folder / "annotations")
    done = vtr(
        folder,
        *("init", "msrvtt", "--videos", "clips", "--annotations", "annotations"),
        *("--model", str(demo_model_folder())),
    )
    assert done.exit_code == 0, done.stderr
    assert "12 of 12 present" in done.stdout
    return folder


@pytest.fixture(scope="module")
def extracted(bare: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """After the first line."""
    folder = shutil.copytree(bare, tmp_path_factory.mktemp("one") / "w")
    vtr(folder, *LINES[0])
    return folder


@pytest.fixture(scope="module")
def trained(extracted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """After the second line."""
    folder = shutil.copytree(extracted, tmp_path_factory.mktemp("two") / "w")
    vtr(folder, *LINES[1])
    return folder


def check_result(folder: Path) -> dict[str, Any]:
    """What a result of these twelve clips must say, whatever it scores."""
    document: dict[str, Any] = json.loads(
        (folder / "runs/seqTransf/eval/msrvtt-1kA/result.json").read_text()
    )
    protocol, setup = document["protocol"], document["setup"]
    assert (protocol["num_videos"], protocol["num_queries"]) == (NUM_TEST, NUM_TEST)
    assert not protocol["published"]
    assert protocol["problems"] == [
        "4 videos, the protocol has 1,000",
        "4 queries, the protocol has 1,000",
    ]
    assert document["coverage"] == {"present": 4, "videos": 4, "policy": "miss", "absent": []}
    assert (setup["head"], setup["sampler"], setup["text"]) == ("seqTransf", "motion", "frozen")
    assert setup["trained_on_test"] == 0
    assert "held out of the training split" in setup["selection"]
    for key, cell in document["metrics"].items():
        assert cell["n"] == 4, key
        assert cell["low"] <= cell["value"] <= cell["high"], key
    assert document["metrics"]["t2v/R@5"]["value"] == 100, "of four videos all are in the first 5"
    return document


def test_the_three_lines(trained: Path) -> None:
    done = vtr(trained, *LINES[2])
    assert "msrvtt-1kA (NOT the published lists): 4 queries over 4 videos" in done.stdout
    assert "coverage 4/4 (miss)" in " ".join(done.stdout.split())
    assert "sampler motion" in done.stdout
    assert "not the published protocol msrvtt-1kA: 4 videos" in done.stderr
    document = check_result(trained)
    store = FeatureStore(trained / "features")
    assert document["setup"]["fingerprint"] == store.fingerprint
    assert store.spec.samplers == ("motion",)
    assert sorted(store) == sorted(f"video{n}" for n in range(12))
    run = load_run(trained / "runs" / "seqTransf")
    assert run.train_ids < {f"video{n}" for n in range(NUM_TRAIN)}, "one is held out"
    assert len(run.train_ids) == NUM_TRAIN - 1
    with (trained / "runs/seqTransf/eval/msrvtt-1kA/per_query.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 4


@pytest.mark.slow
def test_the_three_lines_as_typed(bare: Path, tmp_path: Path) -> None:
    """Real processes, offline, no flag beyond the three lines."""
    folder = shutil.copytree(bare, tmp_path / "w")
    for line in LINES:
        done = run_process(*line, cwd=folder)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
    assert "msrvtt-1kA (NOT the published lists): 4 queries over 4 videos" in done.stdout
    check_result(folder)


# ---- the same from Python


def snippet(start: str, changes: dict[str, str]) -> str:
    """Returns the block of docs/python.md in which a line begins so, its names changed."""
    text = (Path(__file__).parent.parent / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    (block,) = [block for block in blocks if f"\n{start}" in block]
    for old, new in changes.items():
        assert old in block
        block = block.replace(old, new)
    return str(block)


def test_the_first_snippet_of_the_python_page_runs(bare: Path, here: Path) -> None:
    """Clips and captions in the current folder; the workspace, beside them, names the model."""
    (here / "clips").symlink_to(bare / "clips")
    rows = [
        f"video{n},a square at height {n},{'train' if n < NUM_TRAIN else 'test'}"
        for n in range(NUM_TRAIN + NUM_TEST)
    ]
    (here / "captions.csv").write_text("\n".join(["video,caption,split", *rows]) + "\n")
    (here / "my-workspace").mkdir()
    (here / "my-workspace" / "vtr.toml").write_text(f'[model]\nid = "{demo_model_folder()}"\n')
    names: dict[str, Any] = {}
    exec(snippet("workspace = ", {"epochs=5": "epochs=1"}), names)
    assert names["trained"].metrics["t2v/R@1"]["n"] == NUM_TEST
    assert names["page"].resolve() == here / "report" / "report.html"
    assert {path.name for path in here.iterdir()} == {
        "clips",
        "captions.csv",
        "my-workspace",
        "report",
    }
    assert (here / "my-workspace" / "runs" / "seqTransf" / "training.json").exists()


def test_the_second_snippet_of_the_python_page_runs(
    extracted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(extracted, tmp_path / "w")
    vtr(folder, "extract", "--sampler", "dense", "--features", "dense")
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    changes = {
        'sampler="uniform"': 'sampler="motion"',
        "video7020": "video7",
        'Path("videos")': 'Path("clips")',
        "openai/clip-vit-base-patch32": str(demo_model_folder()),
        "runs/seqTransf": str(make_run(tmp_path / "run")),
    }
    exec(snippet("store = ", changes), names)
    assert names["scores"].shape == (NUM_TEST, NUM_TRAIN + NUM_TEST)


# ---- in the wrong order


def test_training_before_extracting_says_what_to_do(bare: Path) -> None:
    with pytest.raises(VtrError, match=r"features.*vtr extract"):
        vtr(bare, *LINES[1])
    assert not (bare / "runs").exists()


def test_evaluating_before_extracting_says_what_to_do(bare: Path) -> None:
    with pytest.raises(VtrError, match=r"vtr extract"):
        vtr(bare, *LINES[2], "--zero-shot")


def test_evaluating_before_training_says_what_to_do(extracted: Path) -> None:
    with pytest.raises(ConfigError, match=r"no trained run in .*vtr train.*--run DIR.*--zero-shot"):
        vtr(extracted, *LINES[2])


def test_zero_shot_needs_no_training(extracted: Path, tmp_path: Path) -> None:
    document = answer(extracted, *LINES[2], "--zero-shot", "--out", str(tmp_path))
    setup = document["setup"]
    assert setup["zero_shot"]
    assert (setup["run"], setup["head"], setup["selection"]) == (None, "meanP", "none")
    assert document["metrics"]["t2v/R@1"]["n"] == 4
    # Against scores computed here from the store and the text tower.
    store = FeatureStore(extracted / "features", sampler="motion")
    backbone = load_backbone(str(demo_model_folder()), device="cpu")
    ids = [f"video{n}" for n in range(NUM_TRAIN, NUM_TRAIN + NUM_TEST)]
    texts = [f"a square crosses {COLOURS[n % 3]} at height {n} told 0 times" for n in range(8, 12)]
    videos = np.stack([unit(unit(store[i].frames.astype(float)).mean(axis=0)) for i in ids])
    scores = unit(backbone.encode_texts(texts).embeddings.astype(float)) @ videos.T
    own = np.diag(scores)
    gaps = np.abs(scores - own[:, None])[~np.eye(4, dtype=bool)]
    assert gaps.min() > 1e-6, "no ties to break"
    first = (scores > own[:, None]).sum(axis=1) == 0
    assert document["metrics"]["t2v/R@1"]["value"] == pytest.approx(100 * first.mean())


# ---- asked for the wrong thing


@pytest.mark.parametrize(
    ("words", "kind", "message"),
    [
        (
            ("--protocol", "msrvtt-1ka"),
            UnknownNameError,
            r"no protocol named 'msrvtt-1ka'\. Did you mean 'msrvtt-1kA'\?",
        ),
        (("--protocol", "msvd"), ConfigError, r"'msvd' is defined on dataset 'msvd'.*'msrvtt'"),
        (("--k", "0"), ConfigError, r"--k is '0'; it must be whole numbers from 1"),
        (("--k", "1,five"), ConfigError, r"--k is '1,five'; it must be whole numbers from 1"),
        (
            ("--missing", "ignore"),
            UnknownNameError,
            r"no policy for missing videos named 'ignore'\. Known: fail, miss",
        ),
        (("--run", "runs/nowhere"), ConfigError, r"no run runs/nowhere.* Runs in runs: seqTransf"),
        (("--run", "nowhere"), ConfigError, r"no run .*runs/nowhere.* Runs in .*runs: seqTransf"),
        (("--run", "features"), ConfigError, r"features is not a run"),
        (("--run", "runs"), ConfigError, r"runs is not a run: .* In it are: .*runs/seqTransf"),
        (("--run", "runs/seqTransf", "--zero-shot"), ConfigError, "exclude each other"),
        (("--sampler", "uniform"), VtrError, r"uniform"),
        (("--features", "nowhere"), VtrError, r"nowhere.*vtr extract"),
    ],
)
def test_bad_requests_are_answered(
    trained: Path, words: tuple[str, ...], kind: type[VtrError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        vtr(trained, "eval", *words)


def rewrite_store(
    source: Path,
    target: Path,
    *,
    zero: str = "",
    failed: str = "",
    absent: str = "",
    **changes: Any,
) -> None:
    """Copies a store of one sampler, with faults in the named videos and changes to its spec."""
    store = FeatureStore(source, sampler="motion")
    rows = []
    for ledger in store.ledger:
        if ledger.id == absent:
            continue
        if ledger.id == failed:
            reason = "not-a-video: moov atom not found"
            row = LedgerRow(ledger.id, "failed", reason)
            rows.append(VideoRow.failed(row, store.spec.embedding_dim))
            continue
        found = store[ledger.id]
        frames = found.frames.astype(np.float32)
        if ledger.id == zero:
            frames[0] = 0
        chosen = {"motion": np.arange(len(frames))}
        rows.append(VideoRow(ledger, frames, found.pts_seconds, chosen))
    spec = replace(store.spec, **changes)
    write_store(target, rows, spec, pad=store.pad_embedding)


@pytest.mark.parametrize("words", [("--zero-shot",), ()])
def test_features_of_another_model_are_refused_by_both_names(
    trained: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    other = tmp_path / "other"
    sha = "ab" * 32
    rewrite_store(trained / "features", other, backbone="someone/clip", weights_sha256=sha)
    ours = FeatureStore(trained / "features").spec.weights_sha256[:12]
    with pytest.raises(ModelError) as caught:
        vtr(trained, "eval", "--features", str(other), *words)
    message = str(caught.value)
    assert "someone/clip (weights abababababab)" in message
    assert f"model (weights {ours})" in message
    assert ("--model" in message) if words else ("--features" in message)


def test_zero_rows_are_refused_by_name(trained: Path, tmp_path: Path) -> None:
    rewrite_store(trained / "features", tmp_path / "zero", zero="video9")
    with pytest.raises(
        StoreError, match=r"1 frame embedding is .* all zeros, in 1 video: video9\."
    ):
        vtr(trained, "eval", "--features", str(tmp_path / "zero"))


def test_videos_without_features_are_counted_misses(trained: Path, tmp_path: Path) -> None:
    """One test clip could not be read, one was never extracted: both stay in the denominator."""
    store, result = str(tmp_path / "store"), str(tmp_path / "result")
    rewrite_store(trained / "features", tmp_path / "store", failed="video9", absent="video10")
    words = ("eval", "--features", store, "--out", result, "--k", "1,3")
    assert "coverage 2/4 (miss)" in vtr(trained, *words).stdout
    document = answer(trained, *words)
    assert document["coverage"]["present"] == 2
    assert document["coverage"]["absent"] == [
        {"id": "video9", "reason": "not-a-video: moov atom not found"},
        {"id": "video10", "reason": "not in the store"},
    ]
    found = document["metrics"]["t2v/R@3"]
    assert (found["n"], found["value"]) == (4, 50), "the absent ones are last"
    restricted = answer(trained, *words, "--missing", "restrict")
    found = restricted["metrics"]["t2v/R@3"]
    assert (found["n"], found["value"]) == (2, 100)
    with pytest.raises(DatasetError, match=r"2 of the 4 videos.*video9 \(.*--missing restrict"):
        vtr(trained, *words, "--missing", "fail")


def test_a_run_trained_on_test_videos_is_refused_or_stamped(
    extracted: Path, tmp_path: Path
) -> None:
    """Trained with two of the test videos in the training list, judged by the real list."""
    folder = shutil.copytree(extracted, tmp_path / "w")
    write_annotations(folder / "annotations", num_train=NUM_TRAIN + 2)
    done = vtr(folder, *LINES[1], "--epochs", "1", "--hold-out", "0.1")
    ids = load_run(folder / "runs" / "seqTransf").train_ids
    leaked = sorted(ids & {"video8", "video9"})
    assert leaked, "not both are held out"
    write_annotations(folder / "annotations")
    with pytest.raises(
        ConfigError, match=rf"trained on {len(leaked)} of the 4 videos.*{leaked[0]}.*--force"
    ):
        vtr(folder, *LINES[2])
    done = vtr(folder, *LINES[2], "--force")
    number = counted(len(leaked), "test video")
    assert f"TRAINED ON {number.upper()}" in done.stdout
    document = json.loads((folder / "runs/seqTransf/eval/msrvtt-1kA/result.json").read_text())
    assert document["setup"]["trained_on_test"] == len(leaked)
    assert document["setup"]["title"] == f"seqTransf, trained on {number}"


def test_titles_say_what_was_asked_in_another_way(trained: Path, tmp_path: Path) -> None:
    """A report of them would else show two results of one name."""
    config = tmp_path / "w" / "runs" / "seqTransf" / "config.json"
    folder = shutil.copytree(trained, tmp_path / "w")
    assert answer(folder, "eval")["setup"]["title"] == "seqTransf"
    reranked = answer(folder, "eval", "--rerank", "2")
    assert reranked["setup"]["title"] == "seqTransf, first 2 re-ranked"
    config.write_text(config.read_text().replace('"sampler": "motion"', '"sampler": "uniform"'))
    other = answer(folder, "eval", "--sampler", "motion")
    assert other["setup"]["title"] == "seqTransf, motion"


def test_the_saved_scores_give_the_printed_numbers(trained: Path, tmp_path: Path) -> None:
    """Re-ranking scores the directions apart: each is in similarity.npz under its own name."""
    document = answer(
        trained, "eval", "--rerank", "1", "--save-similarity", "--out", str(tmp_path / "o")
    )
    with np.load(tmp_path / "o" / "similarity.npz") as saved:
        t2v, v2t = saved["scores"], saved["v2t_scores"]
    own = np.arange(NUM_TEST)
    for name, ahead in (
        ("t2v", (t2v > t2v[own, own][:, None]).sum(axis=1)),
        ("v2t", (v2t > v2t[own, own]).sum(axis=0)),
    ):
        assert document["metrics"][f"{name}/R@1"]["value"] == 100 * np.mean(ahead == 0)
        assert document["metrics"][f"{name}/MeanR"]["value"] == np.mean(ahead + 1)
