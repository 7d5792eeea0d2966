"""`--loss sigmoid`: formula, bias, and every head under it, whole, in parts, in two processes."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import in_two_processes, made_up_pairs, perturbed, stop_at

from vtr.errors import ConfigError
from vtr.train.batches import BatchPlan
from vtr.train.data import PairedData, Resident
from vtr.train.distributed import ALONE, World
from vtr.train.gradients import BatchGradient
from vtr.train.headlist import head_names
from vtr.train.loop import NOTHING_TO_TRAIN, Trainer, read_metrics
from vtr.train.losses import best_bias, weighted_loss
from vtr.train.model import ModelSpec, RetrievalModel, build_model
from vtr.train.presets import BatchOptions, LossOptions, TrainSettings
from vtr.train.run import load_run, start_run
from vtr.train.text_tower import TextSpec
from vtr.verbs.train import Options

DIM = 16
SIGMOID = LossOptions(sigmoid=True)
NUM_VIDEOS = 7


@pytest.mark.parametrize("hard", [0, 2])
def test_the_best_bias_leaves_the_loss_no_slope(hard: int) -> None:
    owner = torch.tensor([0, 1, 2, 3, 4, 0, 2, 2, 3])
    right = owner[:, None] == torch.arange(5)
    scores = 6 * torch.randn(9, 5, generator=torch.Generator().manual_seed(1)).double()
    options = LossOptions(hard_negatives=hard, sigmoid=True)
    terms = [(0.5, scores + 900), (0.5, scores * 2 - 40)]
    best = best_bias(terms, right, options)
    losses = [
        float(weighted_loss([(w, t + best + shift) for w, t in terms], right, options).total)
        for shift in (-0.2, 0.0, 0.2)
    ]
    assert losses[1] < min(losses[0], losses[2])
    assert float(best_bias([(1.0, 1e30 * scores)], right, options)) < 1e33, "finite whatever comes"


# ---- every head


def made_up() -> PairedData:
    return made_up_pairs(NUM_VIDEOS, [1, 2, 3, 1, 2, 3, 1], longest=4, words=True)


def spec_of(head: str, text: str = "frozen", **more: Any) -> ModelSpec:
    return ModelSpec(head, DIM, TextSpec(text, DIM, DIM), bias=True, **more)  # type: ignore[arg-type]


def gradients(
    head: str,
    *,
    chunk: int = 0,
    world: World = ALONE,
    options: LossOptions = SIGMOID,
    dropout: bool = False,
) -> dict[str, torch.Tensor]:
    """Loss and gradients of one step of a head, after its bias was set."""
    data = made_up()
    model = build_model(spec_of(head), seed=3)
    perturbed(model.head)
    model.logit_scale.data.fill_(1.5)
    torch.manual_seed(3)
    step = BatchPlan(data.text_video, BatchOptions(size=NUM_VIDEOS), seed=1).epoch(1)[0]
    resident = Resident(data, torch.device("cpu"))
    gradient = BatchGradient(model, resident, options, chunk, world=world)
    gradient.start_bias(step)
    model.train(dropout)
    found = {"bias": model.logit_bias.detach().clone(), "loss": gradient(step).total.detach()}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            found[name] = parameter.grad.clone()
    return found


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    for name in one.keys() | two.keys():
        zero = torch.zeros(())
        first, second = one.get(name, zero), two.get(name, zero)
        assert bool(first.isfinite().all()), name
        bound = 1e-5 * max(1.0, float(first.abs().max()))
        torch.testing.assert_close(
            first, second.expand_as(first), rtol=1e-4, atol=bound, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("head", head_names())
@pytest.mark.parametrize("hard", [0, 2])
def test_every_head_has_the_same_loss_and_gradients_in_parts(head: str, hard: int) -> None:
    options = LossOptions(hard_negatives=hard, sigmoid=True)
    whole = gradients(head, options=options)
    assert abs(float(whole["logit_bias"])) < 1e-4, "it starts where the loss has no slope"
    same(whole, gradients(head, chunk=3, options=options))


def _work(world: World, folder: Path) -> None:
    found = {head: gradients(head, world=world, dropout=True) for head in head_names()}
    torch.save(found, folder / f"{world.rank}.pt")


@pytest.mark.slow
def test_every_head_has_the_same_loss_and_gradients_in_two_processes(tmp_path: Path) -> None:
    in_two_processes(_work, tmp_path)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        for head in head_names():
            same(gradients(head, dropout=True), found[head])


# ---- a training


def trainer(folder: Path, *, spec: ModelSpec, epochs: int = 2, **more: Any) -> Trainer:
    settings = TrainSettings(
        lr=3e-3, epochs=epochs, patience=0, batch=BatchOptions(size=4), loss=SIGMOID, seed=1
    )
    if not (folder / "config.json").exists():
        start_run(folder, config={"model": asdict(spec)}, train_ids=["v0"])
    model = build_model(spec, seed=1)
    return Trainer(model, made_up(), settings, folder=folder, quiet=True, **more)


def test_a_run_keeps_its_bias_and_resumes_with_it(tmp_path: Path) -> None:
    spec = spec_of("seqTransf:layers=1")
    result = trainer(tmp_path / "whole", spec=spec, epochs=3).run()
    assert result.epochs == 3
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path / "cut", spec=spec, epochs=3, on_epoch=stop_at(2)).run()
    trainer(tmp_path / "cut", spec=spec, epochs=3).run(resume=True)
    rows = [read_metrics(tmp_path / name) for name in ("whole", "cut")]
    assert [r.get("bias") for r in rows[0]] == [r.get("bias") for r in rows[1]]
    assert rows[0][3]["loss"] == rows[1][3]["loss"]
    model: RetrievalModel = load_run(tmp_path / "cut").model
    assert model.logit_bias.item() == rows[0][3]["bias"]
    assert model.logit_bias.item() not in (0.0, rows[0][1]["bias"]), "it is learned"


def test_the_scale_is_not_held_below_100() -> None:
    """SigLIP's own is 118."""
    model = build_model(spec_of("meanP"))
    model.logit_scale.data.fill_(5.0)
    model.clamp_scale()
    assert model.logit_scale.item() == 5.0


def test_a_bias_alone_is_nothing_to_train(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=NOTHING_TO_TRAIN[:30]):
        trainer(tmp_path, spec=spec_of("meanP", temperature=0.07))


def test_options_of_the_loss() -> None:
    for preset in ("vtr", "clip4clip"):
        values = Options.of(loss="sigmoid", preset=preset).resolve()
        assert TrainSettings.of(values).loss == SIGMOID
    with pytest.raises(ConfigError, match="sigmoid"):
        Options.of(loss="sigmoids")
