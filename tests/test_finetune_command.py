"""`vtr train --vision tune` from a workspace whose store keeps pictures."""

import itertools
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import (
    demo_backbone,
    free_port,
    make_demo_workspace,
    random_rows,
    require_same_model,
    run_app,
    run_python,
    same_tensors,
    write_store,
)
from test_backbone import make_siglip
from test_import_command import imported, published
from test_train_command import finish, kill_after, start

from tests.test_import_clip_folder import write_tokeniser
from vtr.clip.backbone import load_backbone
from vtr.errors import ConfigError, ModelError, StoreError
from vtr.features import FeatureStore
from vtr.features.pictures import to_webp
from vtr.train import loop
from vtr.train.loop import Trainer
from vtr.train.run import LAST, load_run
from vtr.verbs.train import Options

SPLITS = (("train", 8), ("val", 3), ("test", 3))
IDS = [f"{split}{n:02}" for split, count in SPLITS for n in range(count)]
BRIEF = ("--vision", "tune", "--vision-chunk", "0", "--batch-size", "4")


@pytest.fixture
def workspace(here: Path) -> Path:
    words = ("red", "blue", "green")
    return make_demo_workspace(here, IDS, words=words, pictures=True)


def trained(*arguments: str) -> dict[str, Any]:
    brief = () if "--resume" in arguments else BRIEF
    epochs = () if {"--resume", "--epochs"} & set(arguments) else ("--epochs", "1")
    result = run_app("train", *brief, *epochs, "--json", *arguments)
    return json.loads(result.stdout)


def test_the_head_is_trained_first_then_all_of_it_and_both_are_told(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = itertools.count()  # each epoch is better than the one before
    monkeypatch.setattr(loop, "selection_value", lambda metrics: next(values))
    document = trained("--head", "seqTransf:layers=1", "--head-epochs", "2")
    first = document["head-first"]
    assert first["epochs"] == 2
    assert {"t2v/R@1", "v2t/R@1"} <= first["metrics"].keys()
    assert document["epochs"] == 1
    folder = Path(document["run"])
    inner = load_run(folder / "head-first")
    assert inner.spec.text.mode == "frozen"
    run = load_run(folder)
    assert run.towers == folder / "towers"
    assert document["towers"]["epoch"] == document["best_epoch"] == run.epoch == 1
    towers = load_backbone(str(run.towers), device="cpu")
    assert towers.weights_sha256 == document["towers"]["weights_sha256"]
    run.check_text_model(towers)
    with pytest.raises(ModelError, match="was trained on features of"):
        run.check_store(FeatureStore(workspace / "features"))
    shown = run_app(
        "train", *BRIEF, "--epochs", "1", "--head", "seqTransf:layers=1", "--head-epochs", "2", "-q"
    )
    assert "the head alone, trained first" in " ".join(shown.stdout.split())


def test_a_head_without_parameters_begins_with_the_towers(workspace: Path) -> None:
    document = trained("--head", "meanP")
    assert "head-first" not in document
    assert document["text"] == "tune"


def test_the_reference_s_recipe(workspace: Path) -> None:
    document = trained("--preset", "clip4clip", "--linear-patch", "3d", "--freeze-layers", "1")
    config = json.loads((Path(document["run"]) / "config.json").read_text())
    assert config["model"]["vision"]["frozen"] == -1, "its patches undo all freezing"
    assert config["settings"]["coef_lr"] == 1e-3
    assert not config["settings"]["short"]
    assert "head-first" not in document


@pytest.mark.parametrize("stage", ["head-first", "towers"])
def test_a_stopped_training_goes_on_bit_for_bit(
    workspace: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = ("--head", "seqTransf:layers=1", "--head-epochs", "2", "--epochs", "2")
    whole = Path(trained(*how, "--name", "whole")["run"])
    one_epoch = Trainer._one_epoch

    def stopped(self: Trainer, epoch: int) -> None:
        if epoch == 2 and (self.model.vision is not None) == (stage == "towers"):
            raise KeyboardInterrupt
        one_epoch(self, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_one_epoch", stopped)
        run_app("train", *BRIEF, *how, "--name", "broken", code=130)
    broken = Path(trained("--resume", "--name", "broken")["run"])
    assert same_tensors(whole / LAST, broken / LAST)
    for name in ("best.safetensors", "head-first/best.safetensors", "towers/model.safetensors"):
        assert (whole / name).read_bytes() == (broken / name).read_bytes(), (
            "the digest is equal too"
        )


@pytest.mark.parametrize("kept", ["raw", "webp"])
def test_pictures_that_memory_does_not_hold_are_read_batch_by_batch(
    workspace: Path, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kept == "webp":
        folder = workspace / "features"
        spec = FeatureStore(folder).spec
        rows = random_rows(IDS, spec, pictures=True)
        rows = [replace(row, pictures=to_webp(row.pictures)) for row in rows]
        shutil.rmtree(folder)
        write_store(folder, rows, spec)
    how = ("--epochs", "2")
    whole, said = trained(*how, "--name", "whole"), trained(*how, "--dry-run")
    monkeypatch.setattr("vtr.train.memory.SHARE", 0.0)
    result = run_app("train", *BRIEF, *how, "--name", "parts", "--json")
    assert "GB of pictures stay on the disk" in result.stderr
    assert ("decoded each time" in result.stderr) == (kept == "webp")
    parts = json.loads(result.stdout)
    assert parts["metrics"] == whole["metrics"]
    assert same_tensors(*(Path(run["run"]) / LAST for run in (whole, parts)))
    assert trained(*how, "--dry-run")["data_bytes"] < said["data_bytes"]


@pytest.mark.slow
def test_a_killed_training_goes_on_bit_for_bit(workspace: Path) -> None:
    """SIGKILL to a real process once towers have been trained for an epoch, then --resume."""
    how = ("--head", "seqTransf:layers=1", "--head-epochs", "1", "--patience", "0", "-q", "--name")
    flags = (*BRIEF, "--epochs", "12", *how)
    whole, cut = workspace / "runs" / "whole", workspace / "runs" / "cut"
    finish(*flags, "whole")
    last = kill_after(start(*flags, "cut"), cut, epoch=1)
    assert 1 <= last < 12
    finish("--resume", "--name", "cut")
    assert same_tensors(whole / LAST, cut / LAST)


def in_two_processes(*flags: str) -> subprocess.CompletedProcess[str]:
    """`vtr train` under torchrun."""
    how = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port")
    return run_python(*how, str(free_port()), "-m", "vtr", "train", *flags)


@pytest.mark.slow
def test_two_processes_gone_astray_leave_whole_towers(workspace: Path) -> None:
    """Where one of them ends, torchrun ends the other, which may be writing."""
    how = ("--head", "meanP", "--epochs", "3", "--lr", "1e20", "--coef-lr", "1", "-q")
    done = in_two_processes(*BRIEF, *how, "--batches", "pairs", "--name", "astray")
    assert "error: the loss became nan in epoch 1" in done.stderr
    run = load_run("runs/astray")
    run.check_text_model(load_backbone(str(run.towers), device="cpu"))


@pytest.mark.slow
def test_two_processes_train_the_towers_of_one(workspace: Path) -> None:
    head = "seqTransf:layers=1:dropout=0.3"
    flags = (*BRIEF, "--epochs", "1", "--head", head, "--head-epochs", "1", "-q")
    alone = Path(trained(*flags[:-1], "--name", "one")["run"])
    done = in_two_processes(*flags, "--name", "two")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("parameters) into") == 2, "of the head alone and of the towers"
    other = workspace / "runs" / "two" / LAST
    require_same_model(alone / LAST, other, but="in_proj_bias", atol=5e-5)


@pytest.mark.parametrize(
    "how",
    [
        ("--mine", "global", "--hard-negatives", "2"),
        ("--batches", "pairs", "--captions", "1"),
        ("--lora", "2", "--checkpointing", "--precision", "bfloat16"),
        ("--text", "projection", "--freeze-layers", "3"),
        ("--text", "frozen", "--activations", "float32", "--freeze-layers", "1"),
        ("--freeze-layers", "-1", "--vision-chunk", "1", "--coef-lr-vision", "0.5"),
        ("--linear-patch", "3d", "--preset", "clip4clip"),
    ],
)
def test_options_go_together(workspace: Path, how: tuple[str, ...]) -> None:
    document = trained("--head", "meanP", *how)
    assert np.isfinite(document["metrics"]["t2v/R@1"])
    assert load_run(document["run"]).towers is not None


def test_a_run_starts_from_another_one(workspace: Path) -> None:
    first = trained("--head", "seqTransf:layers=1", "--head-epochs", "1", "--name", "first")
    document = trained("--head", "seqTransf:layers=1", "--start", "runs/first", "--name", "second")
    assert "head-first" not in document
    config = json.loads((Path(document["run"]) / "config.json").read_text())
    assert config["start"] == {"run": first["run"]}
    assert config["text_model"]["id"] == str(Path(first["run"]) / "towers")
    assert config["text_model"]["weights_sha256"] == first["towers"]["weights_sha256"]
    with pytest.raises(ConfigError, match=r"has head seqTransf:layers=1, this training meanP"):
        trained("--head", "meanP", "--start", "runs/first")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--linear-patch", "2d"), "--linear-patch 2d: .* look at three frames"),
        (("--head", "maxP"), "has head meanP, this training maxP: start with --head meanP$"),
    ],
)
def test_what_a_start_decides_is_not_asked_for_again(
    workspace: Path, words: tuple[str, ...], message: str
) -> None:
    trained("--head", "meanP", "--linear-patch", "3d", "--epochs", "0", "--name", "first")
    with pytest.raises(ConfigError, match=message):
        trained("--start", "first", *words, "--name", "next")
    assert not (workspace / "runs" / "next").exists(), "refused before anything is begun"


def test_a_checkpoint_of_the_reference_goes_on_training(here: Path) -> None:
    words = write_tokeniser(here / "words", 300)
    done = imported(here, published("seqTransf"), "--clip", words, head="seqTransf")
    tower = load_backbone(str(here / "out" / "clip"), device="cpu")
    make_demo_workspace(here, IDS, tower=tower, pictures=True)
    before = load_run(done["run"])
    document = trained("--preset", "clip4clip", "--start", done["run"], "--epochs", "0")
    run = load_run(document["run"])
    assert run.spec.head == before.spec.head, "that of the run, not the preset's"
    assert run.train_ids is None, "nobody knows what it has seen"
    for name, value in before.model.head.state_dict().items():
        assert torch.equal(run.model.head.state_dict()[name], value), name
    towers = load_backbone(str(run.towers), device="cpu").model.state_dict()
    assert all(torch.equal(towers[name], value) for name, value in tower.model.state_dict().items())
    assert trained("--preset", "clip4clip", "--start", done["run"])["epochs"] == 1


def test_a_siglip_trains_its_vision_tower_beside_a_projection(here: Path) -> None:
    make_siglip(here / "siglip", "T5Tokenizer")
    tower = load_backbone(str(here / "siglip"), device="cpu")
    make_demo_workspace(here, IDS, tower=tower, pictures=True)
    own = ("--head", "meanP", "--model", str(here / "siglip"))
    with pytest.raises(ConfigError, match=r"--text tune knows CLIP's text tower.*siglip"):
        trained(*own)
    with pytest.raises(ConfigError, match="--linear-patch 3d is CLIP4Clip's"):
        trained(*own, "--text", "projection", "--linear-patch", "3d")
    for more in ((), ("--freeze-layers", "1"), ("--lora", "2")):
        run = load_run(trained(*own, "--text", "projection", *more)["run"])
        assert load_backbone(str(run.towers), device="cpu").family == "siglip"


def test_what_was_kept_of_a_training_gone_astray_can_be_used(workspace: Path) -> None:
    how = ("--head", "meanP", "--name", "astray", "--epochs", "3")
    with pytest.raises(
        ModelError, match=r"after epoch 1 .* is nan.* weights after epoch 0 are kept"
    ):
        trained(*how, "--lr", "1e20", "--coef-lr", "1")
    run = load_run("runs/astray")
    assert (run.epoch, run.towers) == (0, Path("runs/astray/towers"))
    run.check_text_model(load_backbone(str(run.towers), device="cpu"))
    run_app("eval", "--run", "astray")
    further = trained("--head", "meanP", "--start", "astray", "--epochs", "0", "--name", "further")
    assert further["start"] == str(workspace / "runs" / "astray")
    shown = run_app("train", *BRIEF, "--start", "astray", "--head", "meanP", "--epochs", "0", "-q")
    assert "no epoch is better than what it began with, after 0 epochs" in " ".join(
        shown.stdout.split()
    )
    with pytest.raises(ModelError, match=r"after epoch 1 .* is nan"):
        trained("--resume", "--name", "astray")


def test_a_training_that_goes_on_has_no_towers_until_it_ends(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of its best epoch so far would stand beside the head of a later one."""
    with pytest.raises(ModelError, match="is nan"):
        trained("--head", "meanP", "--name", "astray", "--lr", "1e20", "--coef-lr", "1")

    def stopped(self: Trainer, epoch: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "_one_epoch", stopped)
    run_app("train", "--resume", "--name", "astray", code=130)
    with pytest.raises(ConfigError, match="has not finished"):
        load_run("runs/astray")


def test_an_early_stop_is_told(workspace: Path) -> None:
    how = ("train", *BRIEF, "--head", "meanP", "--lr", "1e-9", "--patience", "2", "--epochs", "9")
    words = " ".join(run_app(*how, "-q").stdout.split())
    assert "after 2 epochs, stopped early: none of the last 2 was better; chosen by" in words


def test_frozen_layers_are_run_once(workspace: Path) -> None:
    trained("--head", "meanP", "--freeze-layers", "2")
    kept = list((workspace / "features" / "activations").iterdir())
    assert {path.suffix for path in kept} == {".float16"}
    assert len(kept) == 2, "of the training and of the validation videos"


def test_a_dry_run_tells_memory_and_time(workspace: Path) -> None:
    document = trained("--dry-run", "--head", "seqTransf:layers=1")
    assert document["vision"] == "tune"
    assert document["seconds_in_all_at_most"] > document["seconds_head_first_at_most"] > 0
    assert document["peak_bytes"] > document["model_bytes"] > 0
    assert not list((workspace / "runs").glob("*/config.json"))


def test_a_store_without_pictures_is_refused(here: Path) -> None:
    make_demo_workspace(here, IDS)
    with pytest.raises(StoreError, match=r"keeps no pictures.*vtr extract --crops raw.*GB"):
        trained("--head", "meanP")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"freeze_layers": 2}, "--freeze-layers needs --vision tune"),
        ({"freeze_layers": 0}, "--freeze-layers needs --vision tune"),
        ({"coef_lr_vision": 0.0}, "--coef-lr-vision needs --vision tune"),
        ({"vision": "tune", "lora": 2, "coef_lr_vision": 0.0}, "--coef-lr-vision is a factor"),
        ({"checkpointing": True}, "--checkpointing needs --vision tune"),
        ({"start": Path("x")}, "--start needs --vision tune"),
        ({"vision": "tune", "teacher": Path("x")}, "--teacher reads stored features"),
        ({"vision": "tune", "activations": "float32"}, "--activations .* needs --freeze-layers"),
        ({"vision": "tune", "start": Path("x"), "head_epochs": 2}, "--head-epochs trains a new"),
        ({"vision": "tune", "lora": 2, "coef_lr": 0.1}, "--coef-lr is .* with --lora they stay"),
        ({"vision": "tune", "lora": 2, "coef_lr_vision": 0.1}, "--coef-lr-vision is a factor"),
        ({"vision": "tune", "lora": 2, "freeze_layers": -1}, "--freeze-layers -1 .* --lora"),
        (
            {"vision": "tune", "text": "frozen", "coef_lr": 1.0, "coef_lr_vision": 0.5},
            r"--coef-lr 1\.0 needs --text tune",
        ),
    ],
)
def test_what_would_not_be_heeded_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Options.of(**options)


def test_options_that_off_values_leave_alone_are_no_fault() -> None:
    assert Options.of(head_epochs=0, lora=0, checkpointing=False).vision is None


@pytest.mark.parametrize(
    ("frozen", "told"), [("0", "0 holds"), ("2", "2 holds"), ("-1", "-1 holds"), (None, "")]
)
def test_layers_of_the_text_tower_are_told_from_those_of_both(
    workspace: Path, frozen: str | None, told: str
) -> None:
    how = ("train", *BRIEF, "--head", "meanP", "--tune-layers", "1", "--epochs", "0", "--json")
    done = run_app(*how, *(() if frozen is None else ("--freeze-layers", frozen)))
    assert ("--tune-layers 1 decides for the text tower" in done.stderr) == bool(told)
    assert told in done.stderr
    spec = json.loads((Path(json.loads(done.stdout)["run"]) / "config.json").read_text())["model"]
    assert (spec["text"]["layers"], spec["vision"]["frozen"]) == (1, int(frozen or 0))
    assert not spec["text"]["vocabulary"], "its embeddings stay"


def test_a_dry_run_lists_what_happens(workspace: Path) -> None:
    shown = run_app("train", *BRIEF, "--head", "meanP", "--dry-run").stdout
    rows = {line.split()[0]: line.split()[1:] for line in shown.splitlines() if "  --" in line}
    assert rows["--head-epochs"] == ["0"], "it has no parameters"
    assert len(rows["--lr"][0]) < 12
    timed = run_app("train", *BRIEF, "--head-epochs", "2", "--dry-run").stdout
    assert "time of the head alone " in timed


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"size": (32, 32), "resize_to": 32}, r"size \[32, 32\] against \[48, 48\], resize_to"),
        ({"resize": "squash", "resize_to": (48, 48)}, "resize squash against shortest-edge"),
        ({"resample": "bilinear"}, "others: resample bilinear against bicubic"),
    ],
)
def test_pictures_that_the_tower_would_make_otherwise_are_refused(
    made: dict[str, Any], message: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run trained on them could be tested neither on them nor on its own."""
    seen = replace(demo_backbone().preprocessing, **made)
    make_demo_workspace(here, IDS, pictures=True, preprocessing=seen.as_dict())
    with pytest.raises(ModelError, match=message):
        trained("--head", "meanP")


def test_updates_of_layers_that_are_all_frozen_are_refused(workspace: Path) -> None:
    with pytest.raises(ConfigError, match=r"--lora 2 .*--freeze-layers 3 leaves none.*0 to 2"):
        trained("--head", "meanP", "--lora", "2", "--freeze-layers", "3")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--lora", "2", "--linear-patch", "3d"), "--linear-patch 3d begins .* --lora 2 trains no"),
        (("--head", "tightTransf:layers=1", "--temperature", "0.1"), "--temperature divides"),
        (("--head-epochs", "2"), "--head-epochs 2 .* meanP has no parameters"),
        (("--preset", "clip-video"), "of --preset clip-video: --freeze-layers is 6; .* 0 to 3"),
        (("--checkpointing", "--freeze-layers", "3", "--text", "frozen"), "--checkpointing spares"),
    ],
)
def test_what_this_model_would_not_heed_is_refused(
    workspace: Path, words: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        trained(*(() if "--head" in words else ("--head", "meanP")), *words)
    assert not list((workspace / "runs").glob("*"))


_LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
from vtr.cli import app
from vtr.train.loop import Trainer
run = Trainer.run
def limited(self, **how):
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + (80 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, -1))
    try:
        return run(self, **how)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
Trainer.run = limited
app(sys.argv[1:], standalone_mode=False)
"""


@pytest.mark.slow
def test_a_machine_of_little_memory_trains_in_parts(here: Path) -> None:
    """A real process that the system refuses memory."""
    ids = [f"{split}{n:02}" for split in ("train", "val", "test") for n in range(20)]
    make_demo_workspace(here, ids, pictures=True, num_frames=8)
    how = ("train", "--vision", "tune", "--head", "meanP", "--epochs", "1", "--batch-size", "20")
    how += ("--vision-chunk", "0", "--json")
    # Each thread's first allocation may reserve 64 MB of addresses, most of what there is.
    done = run_python("-c", _LITTLE_MEMORY, *how, MALLOC_ARENA_MAX="1")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    halved = [event["vision_chunk"] for event in document["events"]]
    assert halved[0] == 10, document["events"]
    assert halved == [10, 5, 2, 1][: len(halved)]
    kept = json.loads((Path(document["run"]) / "training.json").read_text())
    assert kept["events"] == document["events"]
