"""`vtr train` and `vtr features import` from a workspace with rendered features."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from builders import (
    contents,
    edit_json,
    kill_when,
    make_demo_workspace,
    put,
    random_store,
    run_app,
    run_json,
    run_process,
    run_python,
    same_tensors,
    spoil,
    start_python,
)
from typer.testing import CliRunner

from vtr.clip.backbone import Backbone, load_backbone
from vtr.commands.train import print_result
from vtr.demo import demo_model_folder
from vtr.errors import (
    CheckpointError,
    ConfigError,
    ModelError,
    ShardError,
    StoreError,
    StoreWriteError,
)
from vtr.features import FeatureStore
from vtr.features.importing import import_arrays
from vtr.files import TEMPORARY_PREFIX, UNFINISHED, beside
from vtr.train.loop import Trainer, read_metrics
from vtr.train.run import BEST, LAST, list_runs, load_run, recency
from vtr.train.run_folders import (
    Target,
    advising,
    find_interrupted,
    holding,
    summarise,
    take_places,
)
from vtr.train.texts import embed_texts
from vtr.verbs.train import Options

SPLITS = (("train", 12), ("val", 4), ("test", 4))


@pytest.fixture
def workspace(here: Path) -> Path:
    """A demo-shaped workspace whose features are random: one training video failed."""
    ids = [f"{split}{n:02}" for split, count in SPLITS for n in range(count)]
    words = ("red", "blue", "green", "small", "large")
    return make_demo_workspace(here, ids, words=words, failed=["train03"])


def outcome(run: str | Path, name: str = "training.json") -> dict[str, Any]:
    """What a training wrote into its folder."""
    return json.loads((Path(run) / name).read_text())


def trained(*arguments: str) -> Any:
    return run_json("train", "--epochs", "2", *arguments)


def test_one_line_trains_skips_what_failed_and_keeps_a_run(workspace: Path) -> None:
    result = run_app("train", "--head", "seqTransf:layers=1", "--epochs", "2", "-q")
    assert "skipped 1 training video without" in result.stderr
    assert "train03 (not-a-video: moov atom not found)" in result.stderr
    assert "on the 4 videos of the validation split" in " ".join(result.stdout.split())
    run = load_run(workspace / "runs" / "seqTransf-layers=1")
    assert run.train_ids == {f"train{n:02}" for n in range(12) if n != 3}
    assert run.sampler == "uniform"
    assert run.text_model == str(demo_model_folder())
    assert run.config["data"]["train_captions"] == 55
    run.check_store(FeatureStore(workspace / "features"))
    assert (workspace / "runs" / "seqTransf-layers=1" / "curve.png").stat().st_size > 500


def test_a_second_run_of_the_same_name_gets_a_number(workspace: Path) -> None:
    first, second = (trained("--head", "seqLSTM") for _ in range(2))
    assert [Path(d["run"]).name for d in (first, second)] == ["seqLSTM", "seqLSTM-2"]
    with pytest.raises(ConfigError, match=r"exists: continue it with --resume, replace it"):
        trained("--head", "seqLSTM", "--name", "seqLSTM")
    assert Path(trained("--name", "seqLSTM", "--overwrite")["run"]).name == "seqLSTM"


def test_a_head_without_parameters_gets_a_projection(workspace: Path) -> None:
    document = trained("--head", "meanP")
    assert document["text"] == "projection"
    assert Path(document["run"]).name == "meanP-projection"


def test_the_sigmoid_loss_is_the_runs_own(workspace: Path) -> None:
    folder = Path(trained("--head", "seqLSTM", "--loss", "sigmoid")["run"])
    config = json.loads((folder / "config.json").read_text())
    assert config["settings"]["loss"]["sigmoid"]
    assert load_run(folder).model.logit_bias is not None
    (folder / "training.json").unlink()
    with pytest.raises(ConfigError, match=r"--loss all \(was sigmoid\)"):
        run_app("train", "--resume", "--name", folder.name, "--loss", "all")
    assert run_json("train", "--resume", "--name", folder.name)["epochs"] == 2


def test_the_test_of_a_head_that_compares_videos_says_how_many(workspace: Path) -> None:
    done = run_app("train", "--head", "tokenbinder", "--epochs", "1", "-q")
    command = next(line for line in done.stdout.splitlines() if line.startswith("test: vtr "))
    assert command.endswith("--rerank 50")
    run_app(*shlex.split(command.removeprefix("test: vtr ")))


def test_several_seeds_give_mean_and_spread(workspace: Path) -> None:
    document = trained("--head", "seqLSTM", "--seeds", "2", "--seed", "5")
    assert document["seeds"] == [5, 6]
    assert {"mean", "sd", "min", "max"} == set(document["metrics"]["t2v/R@1"])
    assert len({Path(run).name for run in document["runs"]}) == 2
    assert summarise([{"x": 1.0}, {"x": 3.0}])["x"] == {
        "mean": 2.0,
        "sd": pytest.approx(2**0.5),
        "min": 1.0,
        "max": 3.0,
    }


def test_resumed_seeds_are_of_one_kind(workspace: Path) -> None:
    """Seeds of two heads, or of two numbers of epochs, must never be averaged."""
    flags = ("--seeds", "2", "--name", "x", "-q")
    begun = trained("--head", "meanP", "--seed", "3", *flags)
    (workspace / "runs" / "x-seed4" / "training.json").unlink()
    again = json.loads(run_app("train", "--resume", "--json", *flags).stdout)
    assert again == begun
    heads = [outcome(run)["head"] for run in again["runs"]]
    assert heads == ["meanP", "meanP"]
    for changed, message in ((("--head", "seqLSTM"), "was meanP"), (("--epochs", "7"), "was 2")):
        with pytest.raises(ConfigError, match=message):
            run_app("train", "--resume", *changed, *flags)
    config = workspace / "runs" / "x-seed4" / "config.json"
    config.write_text(config.read_text().replace('"head": "meanP"', '"head": "maxP"'))
    with pytest.raises(
        ConfigError, match=r"x-seed4 cannot go on: model.head is not what .* \(maxP, now"
    ):
        run_app("train", "--resume", *flags)


def test_one_of_several_seeds_resumes_alone(workspace: Path) -> None:
    begun = trained("--head", "seqLSTM", "--seeds", "2")
    folder = Path(begun["runs"][1])
    before = outcome(folder)
    (folder / "training.json").unlink()
    after = json.loads(run_app("train", "--resume", "--json").stdout)
    assert (after["seed"], after["run"]) == (1, str(folder))
    assert after["metrics"] == before["metrics"]


def test_an_interrupted_run_goes_on_with_its_own_settings(workspace: Path) -> None:
    document = trained("--head", "seqLSTM", "--lr", "0.01")
    folder = Path(document["run"])
    (folder / "training.json").unlink()
    with pytest.raises(ConfigError, match=r"--lr 0\.5 \(was 0\.01\)"):
        run_app("train", "--resume", "--lr", "0.5")
    with pytest.raises(ConfigError, match=r"other settings: --lora 2 \(was not given\)"):
        run_app("train", "--resume", "--lora", "2")
    resumed = json.loads(run_app("train", "--resume", "--json").stdout)
    assert resumed["run"] == document["run"]
    assert resumed["metrics"] == document["metrics"]
    (folder / "training.json").rename(folder / "result.json")  # as runs before #13 have it
    with pytest.raises(ConfigError, match="nothing to resume"):
        run_app("train", "--resume")


@pytest.mark.parametrize("preset", ["clip4clip", "clip-video", "two-tower"])
def test_the_presets_train(workspace: Path, preset: str) -> None:
    document = trained("--preset", preset)
    assert document["head"] == "meanP"
    config = outcome(document["run"], "config.json")
    assert config["preset"] == preset
    assert document["text"] == ("projection" if preset == "two-tower" else "tune")


def test_a_dry_run_says_what_it_takes_and_leaves_nothing(workspace: Path) -> None:
    result = run_app("train", "--head", "seqTransf:layers=1", "--dry-run")
    for what in ("parameters", "memory", "steps per epoch", "time in all", "time to embed"):
        assert what in result.stdout
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert {"preset vtr", "--epochs 20", "--head seqTransf:layers=1 (given)"} <= set(lines)
    assert {"--batch-size 16", "--temperature learned"} <= set(lines)  # adapted to 11 videos
    assert not (workspace / "runs").exists()


def test_a_dry_run_counts_seeds_and_validations_in_plain_numbers(workspace: Path) -> None:
    flags = ("train", "--head", "tightTransf:layers=2", "--dry-run", "--json", "--epochs", "7")
    plan = json.loads(run_app(*flags, "--seeds", "3").stdout)
    assert (plan["train_videos"], plan["train_captions"], plan["skipped_videos"]) == (11, 55, 1)
    assert (plan["steps_per_epoch"], plan["batch_size"], plan["seeds"]) == (1, 11, 3)
    validation = plan["seconds_per_epoch"] - plan["seconds_per_step"]
    assert validation > 0, "a pair costs a transformer"
    whole = 3 * (7 * plan["seconds_per_epoch"] + validation)
    assert plan["seconds_in_all_at_most"] == pytest.approx(whole)
    trained_model = load_run(trained(*flags[1:3], "--epochs", "0")["run"]).model
    assert plan["parameters"] == sum(p.numel() for p in trained_model.parameters())


@pytest.mark.parametrize(
    "words",
    [
        ("train", "--head", "meanP"),
        ("eval", "--zero-shot"),
        ("simulate",),
        ("samplers", "study"),
        ("eda", "--out", "eda"),
        ("inspect",),
        ("extract", "--dry-run"),
    ],
)
def test_no_command_uses_a_damaged_shard(workspace: Path, words: tuple[str, ...]) -> None:
    (shard,) = (workspace / "features").glob("shard-*.h5")
    spoil(shard, shard.stat().st_size // 2)
    for n in range(20):  # extract wants to see videos
        (workspace / "videos" / f"train{n:02}.mp4").touch()
    with pytest.raises(ShardError, match=r"is damaged: its bytes .* --retry damaged puts"):
        run_app(*words)


def test_arrays_of_others_need_a_projection_and_train_with_one(workspace: Path) -> None:
    source, rng = workspace / "arrays", np.random.default_rng(0)
    source.mkdir()
    for split, count in SPLITS:
        for n in range(count):
            np.save(source / f"{split}{n:02}.npy", rng.normal(size=(n % 3 + 1, 24)))
    (source / "broken.npy").write_bytes(b"not an array")
    np.save(source / "nan.npy", np.full((2, 24), np.nan))
    np.save(source / "narrow.npy", np.ones((2, 7)))
    report = run_json("features", "import", str(source), "--out", str(workspace / "h14"), code=3)
    assert (report["ok"], report["dim"]) == (20, 24)
    assert sorted(report["failed"]) == ["broken", "nan", "narrow"]
    store = FeatureStore(workspace / "h14")
    assert store.spec.backbone == "imported:arrays"
    assert store["train01"].frames.shape == (2, 24)
    arguments = ("--features", str(workspace / "h14"), "--sampler", "dense", "--head", "meanP")
    with pytest.raises(ConfigError, match=r"--text projection"):
        trained(*arguments, "--text", "frozen")
    document = trained(*arguments, "--text", "projection")
    assert document["text"] == "projection"
    with pytest.raises(ConfigError, match="is a store already"):
        import_arrays(source, workspace / "h14")


def test_text_of_another_model_is_refused_without_a_projection(
    workspace: Path, backbone: Backbone
) -> None:
    source, rng = workspace / "arrays", np.random.default_rng(0)
    source.mkdir()
    for n in range(12):
        np.save(source / f"train{n:02}.npy", rng.normal(size=(2, backbone.embedding_dim)))
    import_arrays(source, workspace / "same-size")
    with pytest.raises(ModelError, match=r"their spaces have nothing in common.*projection"):
        trained("--features", str(workspace / "same-size"), "--text", "frozen", "--head", "seqLSTM")


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        *(
            ("captions", text, "all, one, or a number from 1")
            for text in ("0", "-1", "some", "1.5", "")
        ),
        ("captions", 0, "all, one, or a number from 1"),
        ("lr", 0.0, "a number, above 0"),
        ("lr", float("nan"), "a number, above 0"),
        ("warmup", 1.0, "a number, 0 or more and below 1"),
        ("seed", -1, "a whole number, 0 or more"),
        ("batch_size", 1, "a whole number, 2 or more"),
        ("hard_negatives", -1, "a whole number, 0 or more"),
        ("temperature", 0.0, "a number, 0.0001 or more and 100 or less"),
        ("optimiser", "sgd", '"adamw" or "bertadam"'),
    ],
)
def test_values_that_no_training_can_have_are_refused(
    option: str, value: object, allowed: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{option} is .*; it must be {allowed}$"):
        Options.of(**{option: value})


def test_captions_may_be_a_number() -> None:
    assert Options.of(captions=2).recipe() == Options.of(captions="2").recipe() == {"captions": "2"}


def test_two_trainings_never_share_a_folder(workspace: Path) -> None:
    folder = Path(trained("--head", "seqLSTM", "--name", "one")["run"])
    before = (folder / "metrics.jsonl").read_bytes()
    (folder / "training.json").unlink()
    for flags in (("--resume", "--name", "one"), ("--resume",), ("--name", "one", "--overwrite")):
        with (
            holding(folder),
            pytest.raises(ConfigError, match=r"another training is writing .*/runs/one: wait"),
        ):
            run_app("train", "--head", "seqLSTM", "--epochs", "2", "-q", *flags)
        assert (folder / "metrics.jsonl").read_bytes() == before
    run_app("train", "--resume", "-q")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--name", "../up"), r"--name is '\.\./up'; it must be one folder name"),
        (("--name", "/tmp/up"), "--name is '/tmp/up'; it must be"),
        (("--name", "a/b"), "--name is 'a/b'; it must be"),
        (("--name", ""), "--name is ''; it must be"),
        (("--name", ".."), r"--name is '\.\.'; it must be"),
        (("--name", "x" * 300), "at most 200 bytes"),
        (("--resume", "--overwrite"), "--resume and --overwrite exclude each other"),
        (("--dropout", "0.5"), r"--dropout 0\.5 needs --text projection; the text side is frozen"),
        (("--text", "tune", "--dropout", "0.5"), "needs --text projection; the text side is tune"),
        (("--tune-layers", "1"), "--tune-layers 1 needs --text tune; the text side is frozen"),
        (("--coef-lr", "0.5"), r"--coef-lr 0\.5 needs --text tune; the text side is frozen"),
        (("--preset", "two-tower", "--coef-lr", "0.5"), "needs --text tune; .* projection here"),
        (("--hold-out", "2"), r"--hold-out is 2\.0; it must be a number, above 0 and below 1"),
        (("--hold-out", "0"), r"--hold-out is 0\.0; it must be"),
        (("--head", "meanP", "--text", "frozen", "--temperature", "0.07"), "nothing to train"),
    ],
)
@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_flags_that_cannot_be_followed_are_refused_before_a_run_begins(
    workspace: Path, flags: tuple[str, ...], message: str, dry: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError, match=message):
        run_app("train", "--epochs", "0", *flags, *dry)
    assert not (workspace / "runs").exists()
    assert {path.name for path in workspace.iterdir()} == {
        "annotations",
        "features",
        "videos",
        "vtr.toml",
    }


def test_a_chunk_that_is_given_is_the_one_that_holds(workspace: Path) -> None:
    flags = ("train", "--text", "tune", "--dry-run", "--json")
    shown = [run_app(*flags, *more).stdout for more in ((), ("--chunk", "0"))]
    assert [json.loads(text)["settings"]["chunk"] for text in shown] == [256, 0]


def test_hard_negatives_that_leave_nothing_out_are_told(workspace: Path) -> None:
    flags = ("train", "--head", "seqLSTM", "--dry-run", "--hard-negatives")
    told = run_app(*flags, "50").stderr  # 11 videos with 5 captions each
    assert "--hard-negatives 50 leaves nothing out: in batches of 11 videos there are at" in told
    assert "leaves nothing out" not in run_app(*flags, "49").stderr
    told = run_app(*flags, "7", "--batches", "pairs", "--batch-size", "8").stderr
    assert "in batches of 8 pairs there are at most 7 wrong answers, and all count" in told
    assert "leaves nothing out" not in run_app("train", "--preset", "two-tower", "--dry-run").stderr


def test_results_are_told_in_sentences(workspace: Path) -> None:
    flags = ("train", "--head", "seqLSTM", "-q", "--batch-size", "500")
    told = run_app(*flags, "--epochs", "0").stdout
    words = " ".join(told.split())
    assert "seqLSTM: no epoch is better than the untrained model, after 0 epochs; chosen" in words
    assert "note: a batch of 500 is larger than the data; each step took all 11\n" in told
    document = {
        **outcome(workspace / "runs" / "seqLSTM"),
        "best_epoch": 2,
        "epochs": 3,
        "events": [{"event": "out of memory: batch halved", "epoch": 2, "batch_size": 64}],
    }
    made = typer.Typer()
    made.command()(lambda: print_result(document))
    told = CliRunner().invoke(made).stdout
    assert "seqLSTM: best is epoch 2 of 3; chosen by: " in " ".join(told.split())
    assert "note: memory did not hold the batch in epoch 2; from there on it was 64\n" in told


def test_a_missing_tensorboard_is_said_before_a_run_begins(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tensorboard", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match="--tensorboard needs the package tensorboard"):
        run_app("train", "--tensorboard")
    assert not (workspace / "runs").exists()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("request", {"colour": "red"}, "config.json: request: no option named 'colour'"),
        ("request", {"epochs": "x"}, "request: epochs is 'x'; it must be a whole number, 0 or"),
        ("features", None, r"cannot go on: features\.fingerprint is not what it was \(None"),
        ("settings", None, "cannot go on: settings is not what it was"),
    ],
)
def test_a_config_changed_by_hand_is_refused(
    workspace: Path, key: str, value: object, message: str
) -> None:
    folder = Path(trained("--head", "seqTransf:layers=1", "--name", "one")["run"])
    edit_json(folder / "config.json", **{key: value})
    with pytest.raises(ConfigError, match=message):
        run_app("train", "--resume", "--name", "one")
    assert load_run(folder).seed == 0


def test_only_summaries_of_replaced_seeds_go(tmp_path: Path) -> None:
    """A name is no pattern: of runs a* those of ab are others."""
    for name in ("a*-seeds-demo.json", "ab-seeds-demo.json", "a*-seed0-to-1.json"):
        (tmp_path / name).touch()
    folders = [tmp_path / f"a*-seed{seed}" for seed in (0, 1)]
    for folder in folders:
        (beside(folder)).mkdir(parents=True)
    documents = [{"run": str(folder), "seed": seed} for seed, folder in enumerate(folders)]
    take_places([Target(folder, beside(folder), True) for folder in folders], documents)
    assert [path.name for path in tmp_path.glob("*.json")] == ["ab-seeds-demo.json"]
    assert all(folder.is_dir() for folder in folders)


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), StoreWriteError("disk full")])
def test_a_stopped_training_says_how_to_go_on(
    tmp_path: Path, stop: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(type(stop)), advising(tmp_path, "vtr train --resume"):
        raise stop
    assert capsys.readouterr().err == "", "nothing to resume yet"
    (tmp_path / "config.json").touch()
    with pytest.raises(type(stop)), advising(tmp_path, "vtr train --resume"):
        raise stop
    assert "to go on with this training: vtr train --resume\n" in capsys.readouterr().err


def stopped(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> list[str]:
    """Stops `vtr train` in its second epoch; returns the words of the command it recommends."""
    whole = Trainer._one_epoch

    def stop_in_the_second(self: Trainer, epoch: int) -> None:
        if epoch > 1:
            raise KeyboardInterrupt
        whole(self, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_one_epoch", stop_in_the_second)
        result = run_app("train", "--epochs", "2", "-q", *arguments, code=130)
    told = result.stderr.partition("to go on with this training: ")[2]
    words = shlex.split(told.splitlines()[0])
    assert words[:2] == ["vtr", "train"]
    return words[1:]


@pytest.mark.parametrize("name", [("--name", "my run"), ()], ids=["named", "unnamed"])
def test_stopped_seeds_all_go_on_by_the_command_that_is_told(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, name: tuple[str, ...]
) -> None:
    trained("--head", "seqLSTM", "--seeds", "2")  # takes the names that an unnamed one would get
    (workspace / "features").rename(workspace / "h 14")
    flags = ("--head", "seqLSTM", "--seeds", "2", "--features", "h 14", *name)
    words = stopped(monkeypatch, *flags)
    base = name[1] if name else "seqLSTM-2"
    assert words[:6] == ["train", "--seeds", "2", "--name", base, "--resume"]
    assert not (workspace / "runs" / f"{base}-seed1").exists()
    run_app(*words, "-q")
    for seed in (0, 1):
        result = outcome(workspace / "runs" / f"{base}-seed{seed}")
        assert (result["seed"], result["epochs"]) == (seed, 2)


def test_a_stopped_training_goes_on_by_the_command_that_is_told(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = stopped(monkeypatch, "--head", "seqLSTM", "--runs", "elsewhere")
    assert words[:4] == ["train", "--name", "seqLSTM", "--resume"]
    run_app(*words, "-q")
    assert (workspace / "elsewhere" / "seqLSTM" / "training.json").exists()


def test_the_test_that_is_told_names_what_the_training_was_given(workspace: Path) -> None:
    flags = ("train", "--epochs", "1", "-q", "--head", "seqLSTM")
    run = workspace / "runs" / "seqLSTM"
    assert run_app(*flags).stdout.splitlines()[-1] == f"test: vtr eval --run {run}"
    (workspace / "features").rename(workspace / "h 14")
    told = run_app(*flags, "--features", "h 14", "--protocol", "demo", "--videos", "videos").stdout
    assert told.splitlines()[-1] == (
        f"test: vtr eval --run {run}-2 --protocol demo --features '{workspace / 'h 14'}'"
    )


def test_a_run_that_exists_is_told_before_anything_is_embedded(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained("--head", "seqLSTM", "--name", "one")
    trained("--head", "seqLSTM", "--seeds", "2", "--seed", "3", "--name", "two")

    def embed(*_arguments: Any) -> None:
        raise AssertionError("embedded first")

    monkeypatch.setattr("vtr.api.train_inputs.embed_for", embed)
    monkeypatch.setattr("vtr.api.train_model.load_backbone", embed)
    for name, flags in (
        ("one", ()),
        ("one", ("--dry-run",)),
        ("two-seed4", ("--name", "two", "--seeds", "2", "--seed", "4")),
        ("two-seed4", ()),
    ):
        with pytest.raises(ConfigError, match=f"the run .*runs/{name} exists: continue it with"):
            run_app("train", "--head", "seqLSTM", "--name", name, *flags)


def test_a_run_that_cannot_be_is_told_before_anything_is_embedded(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(trained("--head", "seqLSTM", "--name", "one")["run"])
    edit_json(folder / "config.json", settings=None)
    monkeypatch.setattr("vtr.api.train_inputs.embed_for", lambda *_: pytest.fail("embedded first"))
    with pytest.raises(ConfigError, match="cannot go on: settings is not what it was"):
        run_app("train", "--resume", "--name", "one")
    with pytest.raises(StoreWriteError, match=r"cannot write into .* /proc: .*another with --runs"):
        run_app("train", "--runs", "/proc")


def test_too_few_videos_are_told_before_a_run_begins(workspace: Path) -> None:
    path = workspace / "annotations" / "demo.json"
    document = json.loads(path.read_text())
    for count, reason in ((2, r" \(1 has no features\)"), (1, "")):
        few = ["train00", "train03"][:count]
        videos = [v for v in document["videos"] if v["split"] != "train" or v["id"] in few]
        known = {v["id"] for v in videos}
        captions = [c for c in document["captions"] if c["video_id"] in known]
        path.write_text(json.dumps({"videos": videos, "captions": captions}))
        for flags in ((), ("--dry-run",), ("--seeds", "2")):
            with pytest.raises(
                ConfigError, match=rf"at least 2 videos; there are captions of 1{reason}\. Caption"
            ):
                run_app("train", "--epochs", "1", *flags)
    assert not (workspace / "runs").exists()


def test_videos_held_out_are_named_where_too_few_are_left(here: Path) -> None:
    """Two captioned videos of a folder of one's own: one is kept to validate on."""
    (here / "videos").mkdir()
    ids = [f"{n}.mp4" for n in range(3)]
    for name in ids:
        (here / "videos" / name).touch()
    rows = [f"{n}.mp4,a thing,{split}" for n, split in enumerate(("train", "train", "test"))]
    (here / "captions.csv").write_text("\n".join(["video,caption,split", *rows]) + "\n")
    random_store(here / "features", ids)
    with pytest.raises(
        ConfigError, match=r"captions of 1 \(1 of 2 was held out for validation\)\. Caption and"
    ):
        run_app("train", "--videos", "videos", "--annotations", "captions.csv")
    assert not (here / "runs").exists()


def test_what_a_finished_training_wrote_is_looked_at_when_it_is_resumed(workspace: Path) -> None:
    folder = Path(trained("--head", "meanP", "--text", "projection", "--name", "one")["run"])
    document = outcome(folder)
    del document["best_epoch"]
    (folder / "training.json").write_text(json.dumps(document))
    with pytest.raises(ConfigError, match=r"training\.json lacks 'best_epoch', which a training"):
        run_app("train", "--resume", "--name", "one")
    assert load_run(folder).folder == folder, "its weights are sound"
    (folder / "training.json").unlink()
    (folder / "metrics.jsonl").write_bytes(b"")
    done = run_app("export", "--run", "one", "--out", workspace / "given")
    assert "one has not finished training: this is what it has come to so far" in done.stderr
    assert "| training | not finished |" in (workspace / "given" / "README.md").read_text()
    done = run_app("train", "--resume", "--name", "one")
    assert "metrics.jsonl is cut off: the numbers of 3 epochs are lost, no weights" in done.stderr
    (folder / "best.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"best\.safetensors does not exist: .*Restore it"):
        run_app("train", "--resume", "--name", "one")


@pytest.mark.parametrize("garbage", [b"[1]\n", b"\xff\xfe", b'{"loss": 1}\n', b"3\n"])
def test_damaged_metrics_do_not_stop_a_resume(workspace: Path, garbage: bytes) -> None:
    folder = Path(trained("--head", "seqTransf:layers=1", "--name", "one")["run"])
    rows = read_metrics(folder)
    lines = (folder / "metrics.jsonl").read_bytes()
    (folder / "metrics.jsonl").write_bytes(lines + garbage)
    run_app("train", "--resume", "--name", "one", "-q")
    assert read_metrics(folder) == rows


# ---- killed


def start(*arguments: str) -> subprocess.Popen[str]:
    return start_python("-m", "vtr", "train", *arguments)


def finish(*arguments: str) -> None:
    done = run_process("train", *arguments)
    assert done.returncode == 0, done.stderr


def kill_after(process: subprocess.Popen[str], folder: Path, *, epoch: int) -> int:
    """Sends SIGKILL once an epoch is recorded; returns the last epoch that was recorded then."""
    error = kill_when(lambda: [r for r in read_metrics(folder) if r["epoch"] >= epoch], process)
    assert process.returncode == -signal.SIGKILL, f"it ended by itself: {error}"
    return int(read_metrics(folder)[-1]["epoch"])


def timeless(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what depends on the clock."""
    clock = ("seconds", "pairs_per_second")
    return [{k: v for k, v in row.items() if k not in clock} for row in read_metrics(folder)]


@pytest.mark.slow
def test_a_run_killed_twice_ends_as_if_it_never_was(workspace: Path) -> None:
    """SIGKILL to real processes, wherever in an epoch or a file it falls; then --resume."""
    epochs = 90
    rates = ("--lr", "0.003", "--batch-size", "4", "--epochs", str(epochs), "--patience", "0")
    flags = ("--head", "tightTransf:layers=1", *rates, "-q", "--name")
    whole, cut = workspace / "runs" / "whole", workspace / "runs" / "cut"
    finish(*flags, "whole")
    assert [row["epoch"] for row in read_metrics(whole)] == list(range(epochs + 1))
    first = kill_after(start(*flags, "cut"), cut, epoch=25)
    assert not (cut / "training.json").exists()
    second = kill_after(start("--resume", "--name", "cut"), cut, epoch=first + 25)
    assert 25 <= first < first + 25 <= second < epochs, "killed on the way, twice"
    finish("--resume", "--name", "cut")
    for name in (BEST, LAST):
        assert same_tensors(whole / name, cut / name), name
    assert timeless(whole) == timeless(cut)
    results = [outcome(folder) for folder in (whole, cut)]
    changing = ("run", "seconds")
    one, two = ({k: v for k, v in r.items() if k not in changing} for r in results)
    assert one == two
    left = {path.name for path in cut.iterdir()} ^ {path.name for path in whole.iterdir()}
    assert all(name.startswith(TEMPORARY_PREFIX) for name in left), left


def test_evaluating_a_run_of_another_store_names_that_store(workspace: Path) -> None:
    (workspace / "features").rename(workspace / "elsewhere")
    trained("--head", "seqLSTM", "--features", "elsewhere", "--name", "away")
    with pytest.raises(StoreError, match=r"does not exist.*away was trained on.*elsewhere: name"):
        run_app("eval", "--run", "runs/away")
    run_app("eval", "--run", "runs/away", "--features", "elsewhere")


def _weights(runs: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in runs.glob(f"*/{BEST}")}


def test_a_replaced_run_stays_whole_until_the_new_one_is(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = workspace / "runs"
    folder = Path(trained("--head", "seqLSTM", "--name", "one")["run"])
    (folder / "eval" / "demo").mkdir(parents=True)
    (folder / "eval" / "demo" / "result.json").write_text("{}")  # of the weights that go
    old = _weights(runs)
    changed = ("--head", "seqLSTM", "--name", "one", "--lr", "0.01")
    words = stopped(monkeypatch, *changed, "--overwrite")
    assert words[:4] == ["train", "--name", "one", "--resume"]
    assert _weights(runs) == old
    assert load_run(folder).config["settings"]["lr"] != 0.01
    result = json.loads(run_app(*words, "--json").stdout)
    assert (result["run"], result["epochs"]) == (str(folder), 2)
    assert load_run(folder).config["settings"]["lr"] == 0.01
    assert _weights(runs) != old
    assert not (folder / "eval").exists(), "a result of other weights is none of these"
    assert [path.name for path in runs.iterdir()] == ["one"]


def test_replaced_seeds_take_their_places_together(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resumed, an old seed must not be averaged with new ones."""
    runs = workspace / "runs"
    flags = ("--head", "seqLSTM", "--name", "x", "--seeds", "3")
    trained(*flags)
    old = _weights(runs)
    one_epoch = Trainer._one_epoch

    def stop_in_the_second_seed(self: Trainer, epoch: int) -> None:
        if self.settings.seed == 1:
            raise KeyboardInterrupt
        one_epoch(self, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_one_epoch", stop_in_the_second_seed)
        run_app("train", "--epochs", "1", "--overwrite", "-q", *flags, code=130)
    assert _weights(runs) == old
    result = json.loads(run_app("train", "--resume", "--json", *flags).stdout)
    assert [load_run(Path(run)).config["settings"]["epochs"] for run in result["runs"]] == [1, 1, 1]
    assert not (runs / UNFINISHED).exists()


def test_seeds_killed_while_they_take_their_places_all_arrive(workspace: Path) -> None:
    runs = workspace / "runs"
    flags = ("--head", "seqLSTM", "--name", "x", "--seeds", "2")
    trained(*flags)
    (runs / UNFINISHED).mkdir()
    (runs / "x-seed1").rename(runs / UNFINISHED / "x-seed1")  # seed 0 has arrived
    before = (runs / "x-seed0" / BEST).stat().st_ino
    run_app("train", "--resume", "--json", *flags)
    assert (runs / "x-seed0" / BEST).stat().st_ino == before
    assert (runs / "x-seed1" / BEST).exists()
    assert not (runs / UNFINISHED).exists()


def test_a_full_disk_leaves_the_run_that_was_to_be_replaced(workspace: Path) -> None:
    folder = Path(trained("--head", "seqLSTM", "--name", "one")["run"])
    before = contents(folder)
    size = (folder / LAST).stat().st_size // 2
    command = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))\n"
        "from vtr.cli import main; main()"
    )
    words = ("train", "--head", "seqLSTM", "--name", "one", "--overwrite", "--epochs", "1", "-q")
    done = run_python("-c", command, *words)
    assert done.returncode == 1
    assert "What was written before is intact" in done.stderr
    assert contents(folder) == before
    assert load_run(folder).epoch >= 0


def test_the_latest_run_is_told_by_what_it_recorded(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dates of files change with every copy; a clock may be set back."""
    runs = workspace / "runs"
    for name in ("a", "b", "c"):
        trained("--head", "seqLSTM", "--name", name)
        (runs / name / "training.json").unlink()
        monkeypatch.setattr(time, "time", lambda: 1e9)
    assert max(list_runs(runs), key=recency) == runs / "c"
    for path in (runs / "a").iterdir():
        os.utime(path, (2e9, 2e9))
    assert max(list_runs(runs), key=recency) == runs / "c"
    assert find_interrupted(runs, None) == runs / "c"
    assert json.loads(run_app("train", "--resume", "--json").stdout)["run"] == str(runs / "c")
    assert json.loads(run_app("train", "--resume", "--json").stdout)["run"] == str(runs / "b")
    assert max(list_runs(runs), key=recency) == runs / "b", "the last one at work"


def test_runs_that_record_nothing_are_older_than_those_that_do(tmp_path: Path) -> None:
    documents: dict[str, dict[str, Any]] = {
        "tomorrow": {},
        "word": {"number": "7"},
        "new": {"number": 1, "started": 0},
        "same": {"number": 1, "started": 0},
        "same, later": {"number": 1, "started": 1},
    }
    for name, document in documents.items():
        put(tmp_path / name / "config.json", {"schema": 1, **document})
        os.utime(tmp_path / name / "config.json", (4e9, 4e9) if name == "tomorrow" else None)
    names = [folder.name for folder in sorted(list_runs(tmp_path), key=recency)]
    assert names == ["tomorrow", "word", "new", "same", "same, later"]


def test_the_text_towers_activation_is_the_stores(workspace: Path, tmp_path: Path) -> None:
    """The same weights with another activation give other numbers; no shape or digest tells."""
    run = Path(trained("--head", "seqLSTM")["run"])
    projected = Path(trained("--head", "seqLSTM", "--text", "projection")["run"])
    other = tmp_path / "gelu"
    shutil.copytree(demo_model_folder(), other)
    for side in ("text_config", "vision_config"):
        edit_json(other / "config.json", **{f"{side}__hidden_act": "gelu"})
    with pytest.raises(ModelError, match=r"hidden_act 'quick_gelu', gelu is run with 'gelu'"):
        trained("--head", "seqLSTM", "--model", str(other))
    backbone = load_backbone(str(other), device="cpu")
    for folder in (run, projected):
        with pytest.raises(ModelError, match="trained with text made with hidden_act 'quick_gelu'"):
            load_run(folder).check_text_model(backbone)
    cache, texts = workspace / "features", ["a dog", "a cat"]
    usual = load_backbone(str(demo_model_folder()), device="cpu")
    kept = [embed_texts(model, texts, cache=cache).pooled for model in (usual, backbone)]
    assert not np.array_equal(*kept), "kept texts are those of one activation"


def test_seeds_end_with_the_command_that_evaluates_them(workspace: Path) -> None:
    flags = ("train", "--head", "seqLSTM", "--seeds", "2", "--epochs", "1", "--name", "my lstm")
    told = run_app(*flags)
    assert "mean recall" in told.stderr, "lines of epochs show what the best one is chosen by"
    assert "(the best epoch has most)" in told.stderr
    command = shlex.split(told.stdout.splitlines()[-1])
    runs = workspace / "runs"
    assert command == ["test:", "vtr", "eval", "--run", str(runs / "my lstm"), "--seeds"]
    for run in (command[4], "my lstm"):
        summary = run_json("eval", "--run", run, "--seeds")
        assert summary["seeds"] == [0, 1]
    recall = summary["metrics"]["t2v/R@1"]
    results = [
        json.loads((runs / f"my lstm-seed{seed}" / "eval" / "demo" / "result.json").read_text())
        for seed in (0, 1)
    ]
    values = [result["metrics"]["t2v/R@1"]["value"] for result in results]
    assert recall["mean"] == pytest.approx(sum(values) / 2)
    assert (recall["min"], recall["max"]) == (min(values), max(values))
    assert json.loads((runs / "my lstm-seeds-demo.json").read_text()) == summary
    printed = run_app("eval", "--run", "my lstm", "--seeds").stdout
    assert "2 seeds: mean +- standard deviation" in printed
    run_app(*flags, "--overwrite", "-q")
    assert not (runs / "my lstm-seeds-demo.json").exists(), "it spoke of other weights"
    for words, message in (
        (("--seeds",), "--seeds needs --run NAME"),
        (("--run", "none", "--seeds"), "no run none-seedN"),
        (("--run", "my lstm", "--seeds", "--out", "x"), "--out is one folder"),
    ):
        with pytest.raises(ConfigError, match=message):
            run_app("eval", *words)


def test_a_training_tells_at_once_what_it_is_doing(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vtr.progress.MANY_TEXTS", 10)
    told = run_app("train", "--head", "seqLSTM", "--epochs", "1").stderr.splitlines()
    beginnings = [
        "reading the annotations of dataset 'demo'",
        f"loading the features in {workspace / 'features'}",
        "loading the text tower of ",
        "skipped 1 training video",
        "embedding 55 training captions",
        "embedding captions: 0 of 55",
        "embedding captions: 55 of 55",
        "embedding captions: 0 of 20",
    ]
    places = [next(i for i, line in enumerate(told) if line.startswith(b)) for b in beginnings]
    assert places[0] == 0
    assert places == sorted(places)


@pytest.mark.slow
def test_a_killed_replacement_leaves_the_old_run_and_goes_on(workspace: Path) -> None:
    """SIGKILL to a real `vtr train --overwrite`, then --resume."""
    folder = Path(trained("--head", "seqLSTM", "--name", "one")["run"])
    before = contents(folder)
    rates = ("--batch-size", "4", "--epochs", "60", "--patience", "0")
    process = start("--head", "tightTransf:layers=1", *rates, "-q", "--name", "one", "--overwrite")
    kill_after(process, beside(folder), epoch=5)
    assert contents(folder) == before
    finish("--resume", "-q")
    assert [row["epoch"] for row in read_metrics(folder)] == list(range(61))
    assert load_run(folder).spec.head == "tightTransf:layers=1"
    assert [path.name for path in folder.parent.iterdir()] == ["one"]
