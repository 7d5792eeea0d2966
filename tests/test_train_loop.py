"""The loop: what it learns, what it keeps, where it stops."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from builders import full_disk, in_two_processes, require_same_model, same_tensors, stop_at
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from vtr.errors import CheckpointError, ConfigError, ModelError, StoreWriteError
from vtr.features.store import PackedFrames
from vtr.json_files import as_fields
from vtr.train.data import PairedData
from vtr.train.distributed import World
from vtr.train.heads.base import Code, VideoBatch
from vtr.train.loop import Trainer, TrainResult, read_metrics
from vtr.train.model import ModelSpec, RetrievalModel, build_model
from vtr.train.presets import PRESETS, BatchOptions, LossOptions, TrainSettings, find_preset
from vtr.train.run import (
    BEST,
    LAST,
    METRICS,
    append_line,
    load_run,
    save_model,
    start_run,
    write_run,
)
from vtr.train.scoring import Scorer, Validation, selection_value
from vtr.train.text_tower import TextSpec
from vtr.train.texts import TextFeatures
from vtr.train.tracking import draw_curve, tensorboard

DIM = 16
SETTINGS = TrainSettings(lr=3e-3, epochs=4, patience=0, batch=BatchOptions(size=6), seed=1)


def made_up(num_videos: int = 16, *, captions: int = 2, seed: int = 0) -> PairedData:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 4, num_videos)
    offsets = np.concatenate(([0], lengths.cumsum())).astype(np.int64)
    frames = rng.normal(size=(offsets[-1], DIM)).astype(np.float32)
    owner = np.repeat(np.arange(num_videos), captions)
    turn = np.linalg.qr(np.random.default_rng(99).normal(size=(DIM, DIM)))[0]
    means = np.stack([frames[offsets[v] : offsets[v + 1]].mean(0) for v in range(num_videos)])
    # The text space is turned against the frames': nothing fits before training.
    pooled = (means[owner] @ turn + rng.normal(size=(len(owner), DIM)) * 0.1).astype(np.float32)
    videos = PackedFrames(
        tuple(f"v{v}" for v in range(num_videos)), frames, np.zeros(len(frames)), offsets
    )
    return PairedData(
        TextFeatures(tuple(f"c{n}" for n in range(len(owner))), pooled), videos, owner
    )


def spec_of(head: str = "seqTransf:layers=1", **text: Any) -> ModelSpec:
    return ModelSpec(head, DIM, TextSpec("projection", DIM, DIM, **text))


def recalls(data: PairedData, scorer: Scorer) -> dict[str, float]:
    scores = scorer.matrix()
    own = scores[np.arange(len(scores)), data.text_video]
    rank = (scores > own[:, None]).sum(axis=1)
    return {f"t2v/R@{k}": 100 * float((rank < k).mean()) for k in (1, 5, 10)}


def judged(data: PairedData) -> Validation:
    return Validation(data.texts, data.videos, lambda scorer: recalls(data, scorer))


def trainer(
    folder: Path,
    settings: TrainSettings = SETTINGS,
    *,
    spec: ModelSpec | None = None,
    data: PairedData | None = None,
    validate: bool = True,
    **more: Any,
) -> Trainer:
    spec, data = spec or spec_of(), data or made_up()
    if not (folder / "config.json").exists():
        start_run(folder, config={"model": asdict(spec)}, train_ids=data.videos.ids)
    model = build_model(spec, seed=settings.seed)
    validation = judged(data) if validate else None
    return Trainer(model, data, settings, folder=folder, validation=validation, **more)


def test_training_learns_what_zero_shot_cannot_and_keeps_the_best_epoch(tmp_path: Path) -> None:
    data = made_up()
    settings = replace(SETTINGS, epochs=25, lr=1e-2)
    result = trainer(tmp_path / "run", settings, data=data).run()
    rows = read_metrics(tmp_path / "run")
    assert [row["epoch"] for row in rows] == list(range(26))
    assert rows[0]["t2v/R@1"] < 40
    assert result.metrics["t2v/R@1"] > 80
    values = [selection_value(row) for row in rows]
    assert result.best_epoch == int(np.argmax(values)), "the first of the best"
    run = load_run(tmp_path / "run")
    assert run.epoch == result.best_epoch
    assert recalls(data, Scorer(run.model, data.texts, data.videos)) == pytest.approx(
        {k: v for k, v in rows[run.epoch].items() if k.startswith("t2v/")}
    )
    assert run.train_ids == set(data.videos.ids)
    draw_curve(tmp_path / "run")
    with Image.open(tmp_path / "run" / "curve.png") as picture:
        colours = picture.convert("RGB").getcolors(1 << 20) or []
        assert (0, 114, 178) in {colour for _, colour in colours}


def test_a_projection_starts_from_zero_shot(tmp_path: Path) -> None:
    data, spec = made_up(), ModelSpec("meanP", DIM, TextSpec("projection", DIM, DIM))
    plain = ModelSpec("meanP", DIM, TextSpec("frozen", DIM, DIM))
    scores = [
        Scorer(build_model(one, seed=0), data.texts, data.videos).matrix() for one in (spec, plain)
    ]
    assert np.array_equal(*scores)
    result = trainer(tmp_path / "run", replace(SETTINGS, epochs=0), spec=spec, data=data).run()
    assert (result.best_epoch, result.epochs) == (0, 0)
    assert load_run(tmp_path / "run").epoch == 0


@pytest.mark.parametrize("preset", ["vtr", "clip4clip"])
def test_resuming_gives_the_same_weights_bit_for_bit(tmp_path: Path, preset: str) -> None:
    base = TrainSettings.of(find_preset(preset).values)
    settings = replace(
        base, lr=1e-2, epochs=4, patience=0, seed=2, batch=replace(base.batch, size=6)
    )
    spec = ModelSpec("tightTransf:layers=1", DIM, TextSpec("projection", DIM, DIM, dropout=0.3))
    whole = trainer(tmp_path / "whole", settings, spec=spec).run()
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path / "cut", settings, spec=spec, on_epoch=stop_at(3)).run()
    assert len(read_metrics(tmp_path / "cut")) == 4, "epoch 3 was recorded, not yet saved"
    resumed = trainer(tmp_path / "cut", settings, spec=spec).run(resume=True)
    for name in (BEST, LAST):
        assert same_tensors(tmp_path / "whole" / name, tmp_path / "cut" / name), name
    assert any(key.startswith("optimiser.") for key in load_file(tmp_path / "cut" / LAST))
    assert resumed.best_epoch == whole.best_epoch
    losses = [
        [row.get("loss") for row in read_metrics(tmp_path / name)] for name in ("whole", "cut")
    ]
    assert losses[0] == losses[1]


def test_resuming_drops_a_half_written_line(tmp_path: Path) -> None:
    trainer(tmp_path / "run", replace(SETTINGS, epochs=2)).run()
    with (tmp_path / "run" / METRICS).open("a") as file:
        file.write('{"epoch": 3, "lo')
    trainer(tmp_path / "run", replace(SETTINGS, epochs=3)).run(resume=True)
    assert [row["epoch"] for row in read_metrics(tmp_path / "run")] == [0, 1, 2, 3]


def test_the_same_seed_trains_the_same_model_and_another_another(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        trainer(tmp_path / name, replace(SETTINGS, seed=seed, epochs=2)).run()
    a, b, c = (tmp_path / name / LAST for name in "abc")
    assert same_tensors(a, b)
    assert not same_tensors(a, c)


def test_training_leaves_the_global_generator_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    trainer(tmp_path / "run", replace(SETTINGS, epochs=1)).run()
    assert torch.equal(before, torch.get_rng_state())


def test_patience_stops_early(tmp_path: Path) -> None:
    settings = replace(SETTINGS, epochs=30, patience=2, lr=1e-9)
    result = trainer(tmp_path / "run", settings).run()
    assert result.stopped_early
    assert (result.best_epoch, result.epochs) == (0, 2)


def test_without_validation_the_last_epoch_counts_and_the_result_says_so(tmp_path: Path) -> None:
    result = trainer(tmp_path / "run", replace(SETTINGS, epochs=2), validate=False).run()
    assert (result.best_epoch, result.selection) == (2, "last epoch: no validation data")
    assert load_run(tmp_path / "run").epoch == 2


def test_the_scale_never_exceeds_100(tmp_path: Path) -> None:
    one = trainer(tmp_path / "run", replace(SETTINGS, lr=0.5, epochs=2))
    one.run()
    assert float(one.model.scale().detach()) <= 100.001


def test_a_fixed_temperature_is_not_trained(tmp_path: Path) -> None:
    spec = replace(spec_of(), temperature=0.07)
    one = trainer(tmp_path / "run", spec=spec)
    one.run()
    assert float(one.model.scale().detach()) == pytest.approx(1 / 0.07, rel=1e-5)


@pytest.mark.parametrize("mine", ["batch", "global"])
def test_hard_negatives_and_mining_train(tmp_path: Path, mine: str) -> None:
    settings = replace(SETTINGS, epochs=15, lr=1e-2, mine=mine, loss=LossOptions(hard_negatives=3))
    result = trainer(tmp_path / "run", settings).run()
    assert result.metrics["t2v/R@5"] > read_metrics(tmp_path / "run")[0]["t2v/R@5"] + 20


def test_a_batch_larger_than_the_data_is_reduced_and_recorded(tmp_path: Path) -> None:
    settings = replace(SETTINGS, epochs=1, batch=BatchOptions(size=500))
    result = trainer(tmp_path / "run", settings).run()
    assert result.events == ({"event": "batch larger than the data", "asked": 500, "used": 16},)


def test_a_nan_stops_names_its_origin_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    data = made_up()

    def poison(row: Any) -> None:
        if row["epoch"] == 1:
            data.videos.frames[data.videos.offsets[4]] = np.nan

    one = trainer(tmp_path / "run", data=data, on_epoch=poison, validate=False)
    with pytest.raises(ModelError, match=r"became nan in epoch 2\. First tensor .* of video 'v4'"):
        one.run()
    failure = json.loads((tmp_path / "run" / "failure.json").read_text())
    assert "v4" in failure["videos"]
    kept = load_run(tmp_path / "run", last=True)
    assert kept.epoch == 1
    assert all(bool(p.isfinite().all()) for p in kept.model.parameters())


def test_a_nan_weight_is_named(tmp_path: Path) -> None:
    one = trainer(tmp_path / "run", validate=False)
    with torch.no_grad():
        one.model.text_tower.inner.bias[0] = torch.nan  # type: ignore[union-attr,index]
    with pytest.raises(ModelError, match=r"not finite: weight text_tower\.inner\.bias"):
        one.run()


@pytest.mark.parametrize("validate", [True, False])
def test_weights_that_overflow_in_the_last_step_are_never_kept(
    tmp_path: Path, validate: bool
) -> None:
    """The loss of a step is judged before its weights change: the epoch's end looks at these."""
    one = trainer(tmp_path / "run", replace(SETTINGS, epochs=2), validate=validate)
    real = one.optimiser.step

    def overflow(*arguments: Any) -> Any:
        real(*arguments)
        if one.progress.epoch == 1:
            with torch.no_grad():
                one.model.text_tower.inner.bias[0] = torch.inf  # type: ignore[union-attr,index]

    one.settings = replace(one.settings, batch=BatchOptions(size=16))
    one.plan = one._make_plan(16)  # one step per epoch: no later one meets the bad weight
    one.optimiser.step = overflow  # type: ignore[assignment]
    message = (
        r"weight text_tower\.inner\.bias is not finite after epoch 2: the weights after epoch 1"
    )
    with pytest.raises(ModelError, match=message):
        one.run()
    for last in (True, False):
        kept = load_run(tmp_path / "run", last=last)
        assert all(bool(p.isfinite().all()) for p in kept.model.parameters())


@pytest.mark.parametrize("damage", ["removed", "cut"])
def test_a_lost_best_epoch_is_said_when_resuming(tmp_path: Path, damage: str) -> None:
    trainer(tmp_path / "run", replace(SETTINGS, epochs=1)).run()
    best = tmp_path / "run" / BEST
    if damage == "removed":
        best.unlink()
    else:
        best.write_bytes(best.read_bytes()[:1000])
    message = {
        "removed": r"does not exist: the file was removed\. Restore it, or train it anew",
        "cut": r"best\.safetensors cannot be read",
    }
    with pytest.raises(CheckpointError, match=message[damage]):
        trainer(tmp_path / "run", SETTINGS).run(resume=True)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": None}, "model is None; allowed: an object"),
        ({"model": {"head": None, "dim": 1, "text": {}}}, "model: head is None; allowed: str"),
        ({"settings": {"seed": "x"}}, "settings.seed is 'x'"),
        ({"settings": 1}, "settings is 1; allowed: an object"),
        ({"request": [1]}, r"request is \[1\]; allowed: an object"),
    ],
)
def test_a_field_of_another_type_in_a_run_is_named(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    trainer(tmp_path / "run", replace(SETTINGS, epochs=1)).run()
    place = tmp_path / "run" / "config.json"
    place.write_text(json.dumps({**json.loads(place.read_text()), **changes}))
    with pytest.raises(ConfigError, match=f"config.json: {reason}"):
        load_run(tmp_path / "run")


def test_an_epoch_that_is_no_number_is_said(tmp_path: Path) -> None:
    trained = trainer(tmp_path / "run", replace(SETTINGS, epochs=1))
    trained.run()
    save_model(tmp_path / "run" / BEST, trained.model, {"epoch": "x"})
    with pytest.raises(CheckpointError, match="the epoch of the weights is 'x'"):
        load_run(tmp_path / "run")


@pytest.mark.parametrize(("name", "what"), [(METRICS, "remove"), ("failure.json", "remove")])
def test_a_folder_that_refuses_is_said(tmp_path: Path, name: str, what: str) -> None:
    (tmp_path / "run" / name / "inside").mkdir(parents=True)
    with pytest.raises(StoreWriteError, match=f"cannot {what} .*{name}"):
        trainer(tmp_path / "run", SETTINGS).run()


def test_a_full_disk_for_the_metrics_is_said(tmp_path: Path) -> None:
    with (
        full_disk(0),
        pytest.raises(StoreWriteError, match=r"cannot write .*metrics\.jsonl: File too large"),
    ):
        append_line(tmp_path / METRICS, "{}")
    (tmp_path / METRICS).unlink()
    (tmp_path / METRICS).symlink_to("/dev/null")
    with pytest.raises(StoreWriteError, match=r"cannot write .*metrics\.jsonl: it is a link"):
        append_line(tmp_path / METRICS, "{}")


def small_memory(encode: Any, model: RetrievalModel) -> Any:
    """Returns an encoder that has no memory for more than four videos, as a GPU would."""

    def encode_few(videos: VideoBatch) -> Code:
        if model.training and len(videos) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        code: Code = encode(videos)
        return code

    return encode_few


def test_out_of_memory_halves_the_batch_and_says_so(tmp_path: Path) -> None:
    one = trainer(tmp_path / "run", replace(SETTINGS, epochs=2, batch=BatchOptions(size=16)))
    head = one.model.head
    head.encode_videos = small_memory(head.encode_videos, one.model)  # type: ignore[method-assign]
    result = one.run()
    halved = [event["batch_size"] for event in result.events]
    assert halved == [8, 4]
    rows = read_metrics(tmp_path / "run")
    assert rows[1]["steps"] == 4
    assert rows[2]["steps"] == 4, "the next epoch begins with what fits"


@pytest.mark.parametrize("mine", ["batch", "global"])
def test_memory_that_runs_out_between_steps_is_said(
    tmp_path: Path, mine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While pictures, rivals or scores are computed no batch can be halved."""
    one = trainer(tmp_path / "run", replace(SETTINGS, mine=mine))
    encode, seen = one.model.head.encode_videos, []

    def refuse(videos: Any) -> Code:
        seen.append(videos)
        if not one.model.training and len(seen) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        code: Code = encode(videos)
        return code

    monkeypatch.setattr(one.model.head, "encode_videos", refuse)
    kept = "; the weights after epoch 0 are kept" if mine == "batch" else ""
    told = f"memory does not hold what is scored at once: .* --device cpu{kept}$"
    with pytest.raises(ModelError, match=told):
        one.run()
    assert load_run(tmp_path / "run").epoch == 0
    data = made_up()
    monkeypatch.setattr(one.model.eval(), "to", refuse)
    with pytest.raises(ModelError, match="memory does not hold the model with all texts and"):
        Scorer(one.model, data.texts, data.videos)


def test_nothing_to_train_is_said(tmp_path: Path) -> None:
    spec = ModelSpec("meanP", DIM, TextSpec("frozen", DIM, DIM), temperature=0.05)
    with pytest.raises(ConfigError, match=r"nothing to train.*--text projection"):
        trainer(tmp_path / "run", spec=spec)


def test_dimensions_that_differ_ask_for_a_projection() -> None:
    with pytest.raises(ConfigError, match=r"512 dimensions.*1024.*--text projection"):
        TextSpec("frozen", 512, 1024)
    assert build_model(ModelSpec("meanP", 1024, TextSpec("projection", 512, 1024))) is not None


def test_a_run_of_other_weights_is_refused(tmp_path: Path) -> None:
    spec = spec_of()
    write_run(tmp_path / "run", build_model(spec), spec, config={})
    other = replace(spec, head="seqTransf:layers=2")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["model"] = asdict(other)
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"missing: head\.transformerClip\.resblocks\.1"):
        load_run(tmp_path / "run")
    (tmp_path / "run" / BEST).write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_run(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"no run .*nowhere.* Runs in .*: run"):
        load_run(tmp_path / "nowhere")


def test_an_imported_run_knows_no_training_videos(tmp_path: Path) -> None:
    spec, model = spec_of(), build_model(spec_of(), seed=4)
    write_run(tmp_path / "run", model, spec, config={"text_model": {"id": "x/y"}})
    run = load_run(tmp_path / "run")
    assert run.train_ids is None
    assert run.text_model == "x/y"
    data = made_up(3)
    pairs = [Scorer(m, data.texts, data.videos).matrix() for m in (model, run.model)]
    assert np.array_equal(*pairs)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_settings_come_back_from_json(name: str) -> None:
    settings = TrainSettings.of(find_preset(name).values)
    values = json.loads(json.dumps(asdict(settings)))
    assert as_fields(TrainSettings, values, source="settings") == settings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"loss": LossOptions(reference=True)}, "needs --batches pairs"),
        ({"mine": "global", "batch": BatchOptions("pairs")}, "use --batches videos"),
    ],
)
def test_bad_settings_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainSettings(**values)


def test_tensorboard_is_handed_every_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, float, int]] = []

    class SummaryWriter:
        """What of TensorBoard's own is called; the package is an extra."""

        def __init__(self, folder: str) -> None:
            seen.append((folder, 0.0, 0))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            seen.append((name, value, step))

        def close(self) -> None:
            seen.append(("closed", 0.0, 0))

    module = type("tensorboard", (), {"SummaryWriter": SummaryWriter})
    installed = ModuleType("tensorboard")
    installed.__spec__ = ModuleSpec("tensorboard", None)
    monkeypatch.setitem(sys.modules, "tensorboard", installed)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)  # type: ignore[arg-type]
    with tensorboard(tmp_path) as record:
        record({"epoch": 2, "loss": 1.5, "t2v/R@1": 40.0})
    assert seen == [
        (str(tmp_path), 0.0, 0),
        ("loss", 1.5, 2),
        ("t2v/R@1", 40.0, 2),
        ("closed", 0.0, 0),
    ]


# ---- several processes


def _work(world: World, folder: Path, settings: TrainSettings, head: str) -> None:
    trainer(folder, settings, spec=spec_of(head), world=world).run()


@pytest.mark.slow
@pytest.mark.parametrize("head", ["seqTransf:layers=1:dropout=0.3", "tightTransf:layers=1"])
@pytest.mark.parametrize("mode", ["videos", "pairs"])
def test_two_processes_take_the_steps_of_one(tmp_path: Path, head: str, mode: str) -> None:
    batch = BatchOptions(mode, 7)  # type: ignore[arg-type]
    settings = replace(SETTINGS, epochs=2, batch=batch)
    spec = spec_of(head)
    trainer(tmp_path / "one", settings, spec=spec).run()
    start_run(tmp_path / "two", config={"model": asdict(spec)}, train_ids=[])
    in_two_processes(_work, tmp_path / "two", settings, head)
    losses = [[r.get("loss") for r in read_metrics(tmp_path / name)] for name in ("one", "two")]
    assert losses[0][1:] == pytest.approx(losses[1][1:], rel=1e-5)
    # A constant on every score changes no loss: what gradient this bias has is rounding noise,
    # which Adam makes as large as any other.
    noise = "similarity_dense.bias"
    require_same_model(tmp_path / "one" / LAST, tmp_path / "two" / LAST, but=noise)


def test_the_result_is_json(tmp_path: Path) -> None:
    result = trainer(tmp_path / "run", replace(SETTINGS, epochs=1)).run()
    assert isinstance(result, TrainResult)
    assert json.loads(json.dumps(result.as_dict()))["epochs"] == 1
    assert isinstance(load_run(tmp_path / "run").model, RetrievalModel)


# ---- weights as they are read


def _change(path: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata=metadata)


WEIGHT = "model.text_tower.outer.bias"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.full((DIM,), torch.nan), "NaN or infinite: text_tower.outer.bias"),
        (torch.full((DIM,), torch.inf), "NaN or infinite: text_tower.outer.bias"),
        (torch.zeros(DIM, dtype=torch.int64), r"no floating-point .*outer.bias \(torch.int64\)"),
        (torch.zeros(DIM, dtype=torch.bool), r"no floating-point .*outer.bias \(torch.bool\)"),
        (torch.zeros(DIM + 1), "of another shape: text_tower.outer.bias"),
        (None, "missing: text_tower.outer.bias"),
    ],
)
def test_unsound_weights_are_refused_wherever_they_are_read(
    tmp_path: Path, value: torch.Tensor | None, message: str
) -> None:
    folder = tmp_path / "run"
    trainer(folder, replace(SETTINGS, epochs=1)).run()

    def change(tensors: dict[str, torch.Tensor]) -> None:
        del tensors[WEIGHT]
        if value is not None:
            tensors[WEIGHT] = value

    for name in (BEST, LAST):
        _change(folder / name, change)
    with pytest.raises(CheckpointError, match=message):
        load_run(folder)
    with pytest.raises(CheckpointError, match=message):
        trainer(folder, replace(SETTINGS, epochs=2)).run(resume=True)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("0.exp_avg", torch.full((), torch.nan), "optimiser.0.exp_avg is NaN or infinite"),
        ("0.exp_avg", torch.zeros(2, 2, 2), r"optimiser.0.exp_avg has shape \(2, 2, 2\), its"),
        ("x.exp_avg", torch.zeros(1), "holds the optimiser of another model"),
    ],
)
def test_an_unsound_optimiser_is_not_resumed(
    tmp_path: Path, name: str, value: torch.Tensor, message: str
) -> None:
    trainer(tmp_path, replace(SETTINGS, epochs=1)).run()
    _change(tmp_path / LAST, lambda tensors: tensors.update({f"optimiser.{name}": value}))
    with pytest.raises(CheckpointError, match=message):
        trainer(tmp_path, replace(SETTINGS, epochs=2)).run(resume=True)


def test_a_wrong_dimension_is_refused_where_no_weight_tells(tmp_path: Path) -> None:
    spec = ModelSpec("meanP", DIM, TextSpec("frozen", DIM, DIM))
    write_run(tmp_path, build_model(spec), spec, config={})
    config = json.loads((tmp_path / "config.json").read_text())
    config["model"]["dim"] = DIM + 1
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=f"frames have {DIM + 1} dimensions"):
        load_run(tmp_path)
