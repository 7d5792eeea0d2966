"""Training the vision tower: caches, chunks, memory, precision and what a run leaves behind."""

import copy
import fcntl
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import (
    demo_backbone,
    edit_json,
    full_disk,
    in_two_processes,
    require_same_model,
    same_tensors,
)
from numpy.typing import NDArray

from vtr.clip.backbone import load_backbone
from vtr.demo import demo_model_folder
from vtr.errors import ConfigError, ModelError, WorkersLostError
from vtr.json_files import as_fields
from vtr.train.batches import BatchPlan
from vtr.train.data import PairedData, PictureRows, Resident
from vtr.train.distributed import World, joined_processes
from vtr.train.gradients import BatchGradient
from vtr.train.loop import Trainer
from vtr.train.memory import fitting_videos, free_bytes, saved_bytes
from vtr.train.model import ModelSpec, RetrievalModel, build_model
from vtr.train.optim import make_optimiser
from vtr.train.picture_inputs import read_rows
from vtr.train.presets import BatchOptions, LossOptions, TrainSettings
from vtr.train.run import LAST, load_run, start_run
from vtr.train.scoring import Scorer, Validation
from vtr.train.text_tower import text_spec
from vtr.train.texts import embed_for
from vtr.train.towers import merged, write_towers
from vtr.train.vision_tower import EVERYTHING, PictureBatch, vision_spec

VIDEOS = 16
SETTINGS = TrainSettings(
    lr=1e-3, epochs=2, patience=0, batch=BatchOptions(size=3), vision_chunk=0, seed=1
)
WORDS = ("red", "blue", "green", "small", "large", "square")


def pictures(num_videos: int = VIDEOS, *, seed: int = 0) -> PictureRows:
    """Noise of 1 to 3 frames a video."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 4, num_videos)
    offsets = np.concatenate(([0], lengths.cumsum())).astype(np.int64)
    rows = rng.integers(0, 256, (offsets[-1], 48, 48, 3), dtype=np.uint8)
    return PictureRows(tuple(f"v{v}" for v in range(num_videos)), rows, offsets)


def spec_of(
    head: str = "meanP", *, frozen: int = 0, temporal: bool = False, text: Any = "tune"
) -> ModelSpec:
    backbone = demo_backbone()
    lower = frozen if text == "tune" else None
    return ModelSpec(
        head,
        96,
        text_spec(backbone, text, video_dim=96, frozen=lower),
        vision=vision_spec(backbone, frozen=frozen, temporal=temporal),
    )


def data_of(
    spec: ModelSpec, *, kept: Any = "float32", cache: Path | None = None, captions: int = 2
) -> PairedData:
    backbone, found = demo_backbone(), pictures()
    if spec.choice.info.needs_pad:
        found = replace(found, pad=True)
    owner = np.repeat(np.arange(VIDEOS), captions)
    words = [
        " ".join(WORDS[(n + k) % len(WORDS)] for k in range(1 + n % 3)) for n in range(len(owner))
    ]
    rows = read_rows(spec.vision, backbone, found, kept=kept, cache=cache)
    return PairedData(embed_for(spec, backbone, words), rows, owner)


def gradients(
    spec: ModelSpec,
    *,
    data: PairedData | None = None,
    mode: Any = "videos",
    change: Callable[[RetrievalModel], None] = lambda model: None,
    **how: Any,
) -> dict[str, torch.Tensor]:
    """Of the first batch, of all videos."""
    model = build_model(spec, backbone=demo_backbone()).train()
    change(model)
    data = data or data_of(spec)
    size = VIDEOS if mode == "videos" else 2 * VIDEOS
    step = BatchPlan(data.text_video, BatchOptions(mode, size)).epoch(1)[0]
    BatchGradient(model, Resident(data, torch.device("cpu")), LossOptions(), **how)(step)
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def differ(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest difference, relative to the largest gradient."""
    assert one.keys() == other.keys()
    largest = max(float(value.abs().max()) for value in one.values())
    return max(float((one[name] - other[name]).abs().max()) for name in one) / largest


def trainer(
    folder: Path, settings: TrainSettings = SETTINGS, *, spec: Any = None, **more: Any
) -> Trainer:
    spec = spec or spec_of()
    data = data_of(spec)
    if not (folder / "config.json").exists():
        start_run(folder, config={"model": asdict(spec)}, train_ids=data.videos.ids)
    model = build_model(spec, backbone=demo_backbone(), seed=settings.seed)
    return Trainer(model, data, settings, folder=folder, validation=judged(data), **more)


def judged(data: PairedData) -> Validation:
    def measure(scorer: Scorer) -> dict[str, float]:
        best = scorer.matrix().argmax(axis=1)
        return {"t2v/R@1": 100 * float((best == data.text_video).mean())}

    return Validation(data.texts, data.videos, measure)


# ---- what is trained


def test_each_tower_learns_at_its_own_rate() -> None:
    model = build_model(spec_of("seqTransf:layers=1"), backbone=demo_backbone())
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for reference, scale in ((False, 1e-3), (True, 2e-4)):
        settings = replace(
            SETTINGS,
            coef_lr=0.2,
            coef_lr_vision=0.5,
            optimiser="bertadam" if reference else "adamw",
        )
        rates: dict[str, set[float]] = {}
        for group in make_optimiser(model, settings)[0].param_groups:
            for parameter in group["params"]:
                part = names[id(parameter)].split(".")[0]
                rates.setdefault(part, set()).add(group["lr"])
        assert rates == {
            "head": {1e-3},
            "text_tower": {2e-4},
            "vision": {5e-4},
            "logit_scale": {scale},
        }


@pytest.mark.parametrize(
    ("frozen", "temporal", "trained", "still"),
    [
        (0, False, "vision.tower.blocks.0.", "vision.tower.patches.weight"),
        (0, True, "vision.tower.patches.temporal_weight", "vision.tower.positions"),
        (EVERYTHING, False, "vision.tower.patches.weight", ""),
        (2, False, "vision.tower.projection.weight", ""),
    ],
)
def test_what_lies_below_the_frozen_layers_is_not_trained(
    frozen: int, temporal: bool, trained: str, still: str
) -> None:
    found = gradients(spec_of(frozen=frozen, temporal=temporal))
    assert any(name.startswith(trained) for name in found)
    assert not still or not any(name.startswith(still) for name in found)
    texts = {name.split(".")[1] for name in found if name.startswith("text_tower.")}
    assert ("token_embedding" in texts) == (frozen == EVERYTHING)
    assert ("layers" in texts) == (frozen < 2), "the text tower has two layers"


def test_a_video_is_encoded_once_a_step_however_often_it_is_there() -> None:
    seen = []

    def count(model: RetrievalModel) -> None:
        model.vision.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0].rows.shape))

    spec = spec_of()
    gradients(spec, mode="pairs", change=count)
    assert [shape[0] for shape in seen] == [pictures().num_rows], "12 pairs of 6 videos"


@pytest.mark.parametrize(
    "head", ["seqTransf:layers=1", "clip2video:pad_to=4", "tightTransf:layers=1"]
)
def test_every_kind_of_head_learns_from_pictures(head: str) -> None:
    found = gradients(spec_of(head))
    assert float(found["vision.tower.blocks.0.ln_1.weight"].abs().sum()) > 0
    assert all(bool(value.isfinite().all()) for value in found.values())


def test_the_spec_comes_back_from_json() -> None:
    spec = spec_of(frozen=1)
    values = json.loads(json.dumps(asdict(spec)))
    assert as_fields(ModelSpec, values, source="spec") == spec
    assert as_fields(ModelSpec, {**values, "vision": None}, source="spec").vision is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frozen": 4}, r"--freeze-layers is 4; the vision tower of model has 3.*0 to 3, or -1"),
        ({"frozen": 1, "temporal": True}, r"--linear-patch 3d has new weights.*--freeze-layers 0"),
    ],
)
def test_what_the_tower_cannot_freeze_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        vision_spec(demo_backbone(), **options)


# ---- activations of frozen layers


@pytest.mark.parametrize("head", ["meanP", "clip2video:pad_to=4"])
@pytest.mark.parametrize("frozen", [1, 2, 3])
def test_activations_give_what_pictures_do(frozen: int, head: str, tmp_path: Path) -> None:
    codes = {}
    for kept in ("float32", "float16"):
        spec = spec_of(head, frozen=frozen)
        data = data_of(spec, kept=kept, cache=tmp_path)
        model = build_model(spec, backbone=demo_backbone()).eval()
        batch = Resident(data, torch.device("cpu")).videos.batch(np.arange(VIDEOS))
        with torch.no_grad():
            codes[kept] = model.embed_videos(batch)
    spec = spec_of(head)
    model = build_model(spec, backbone=demo_backbone()).eval()
    batch = Resident(data_of(spec), torch.device("cpu")).videos.batch(np.arange(VIDEOS))
    with torch.no_grad():
        wanted = model.embed_videos(batch)
    assert torch.equal(codes["float32"].frames, wanted.frames), "bit for bit"
    if head != "meanP":
        assert torch.equal(codes["float32"].pad, wanted.pad)
    gap = (codes["float16"].frames - wanted.frames).norm() / wanted.frames.norm()
    assert 0 < float(gap) < 5e-4


def test_activations_are_kept_by_weights_block_type_and_pictures(tmp_path: Path) -> None:
    found = pictures()
    told: list[int] = []

    def read(
        frozen: int = 1,
        kept: Any = "float16",
        rows: PictureRows = found,
        changed: int | None = None,
    ) -> NDArray[Any]:
        told.clear()
        backbone = demo_backbone()
        if changed is not None:
            backbone = replace(backbone, model=copy.deepcopy(backbone.model))
            backbone.model.visual.blocks[changed].ln_1.bias.data += 1
        spec = vision_spec(backbone, frozen=frozen)
        tell = lambda done, total: told.append(done)  # noqa: E731
        return read_rows(spec, backbone, rows, kept=kept, cache=tmp_path, tell=tell).rows

    first = read()
    (own,) = (tmp_path / "activations").iterdir()
    assert told[-1:] == [len(found.rows)]
    assert np.array_equal(read(), first)
    assert not told, "read again"
    read(changed=1)
    assert not told, "what lies above does not matter"
    changed = found.rows.copy()
    changed[0, 0, 0, 0] ^= 1
    for other in (
        lambda: read(frozen=2),
        lambda: read(changed=0),
        lambda: read(kept="float32"),
        lambda: read(rows=replace(found, rows=changed)),
    ):
        other()
        assert told, "computed anew"
    assert len(list((tmp_path / "activations").iterdir())) == 5
    whole = own.read_bytes()
    own.unlink()  # not cut short: it is mapped
    own.write_bytes(b"half")
    assert np.array_equal(read(), first), "a file of another size is made anew"
    own.unlink()
    own.write_bytes(whole[:99] + bytes([whole[99] ^ 4]) + whole[100:])
    assert np.array_equal(read(), first)
    assert own.read_bytes() == whole, "one with another bit too"


def test_what_an_interrupted_or_killed_training_left_of_activations_goes(tmp_path: Path) -> None:
    backbone, folder = demo_backbone(), tmp_path / "activations"
    spec = vision_spec(backbone, frozen=1)

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_rows(spec, backbone, pictures(), cache=tmp_path, tell=interrupt)
    assert not list(folder.iterdir())
    (folder / ".killed.float16.1").write_bytes(b"half")
    with (folder / ".living.float16.2").open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        read_rows(spec, backbone, pictures(), cache=tmp_path)
    assert [path.name for path in folder.glob(".*")] == [".living.float16.2"]


def test_a_full_disk_keeps_activations_in_memory(tmp_path: Path) -> None:
    spec = vision_spec(demo_backbone(), frozen=1)
    with full_disk(1000):
        rows = read_rows(spec, demo_backbone(), pictures(), cache=tmp_path).rows
    assert not isinstance(rows, np.memmap)
    assert len(rows) == pictures().num_rows
    assert not list((tmp_path / "activations").iterdir()), "nothing half written stays"


# ---- memory


@pytest.mark.parametrize("chunk", [1, 2, 4])
@pytest.mark.parametrize("mode", ["videos", "pairs"])
def test_chunks_give_the_gradients_of_the_whole(chunk: int, mode: Any) -> None:
    spec = spec_of("seqTransf:layers=1")
    whole = gradients(spec, mode=mode)
    parts = gradients(spec, mode=mode, vision_chunk=chunk, chunk=5)
    assert differ(parts, whole) < 1e-5


def test_checkpointing_gives_the_same_gradients_with_less_kept() -> None:
    spec = spec_of()
    keep = lambda model: model.compute(short=False, checkpointing=True)  # noqa: E731
    assert differ(gradients(spec, change=keep), gradients(spec)) < 1e-6
    batch = Resident(data_of(spec), torch.device("cpu")).videos.batch(np.arange(VIDEOS))
    model = build_model(spec, backbone=demo_backbone()).train()
    plain = saved_bytes(model, batch)
    model.compute(short=False, checkpointing=True)
    assert saved_bytes(model, batch) < plain / 4, "of three blocks only"


def test_bfloat16_trains_in_float32_weights_and_judges_in_float32() -> None:
    spec = spec_of()
    short = lambda model: model.compute(short=True, checkpointing=False)  # noqa: E731
    found, exact = gradients(spec, change=short), gradients(spec)
    assert {value.dtype for value in found.values()} == {torch.float32}
    assert 1e-4 < differ(found, exact) < 0.2
    model = build_model(spec, backbone=demo_backbone()).eval()
    batch = Resident(data_of(spec), torch.device("cpu")).videos.batch(np.arange(2))
    with torch.no_grad():
        wanted = model.embed_videos(batch).frames
        short(model)
        assert torch.equal(model.embed_videos(batch).frames, wanted)


def test_the_chunk_follows_the_memory_that_is_free() -> None:
    spec = spec_of()
    model = build_model(spec, backbone=demo_backbone()).train()
    batch = Resident(data_of(spec), torch.device("cpu")).videos.batch(np.arange(2))
    free = free_bytes(torch.device("cpu"))
    assert 1 << 20 < free < 1 << 45
    each = saved_bytes(model, batch) / 2
    fits = fitting_videos(model, batch)
    assert 0.1 < fits / (free / each) < 0.6
    assert fits & (fits - 1) == 0, "a power of two"


def test_memory_that_runs_out_halves_the_chunk_then_the_batch(tmp_path: Path) -> None:
    one = trainer(tmp_path, replace(SETTINGS, epochs=1, batch=BatchOptions(size=6)))
    vision = one.model.vision
    forward = vision.forward

    def small(batch: PictureBatch) -> Any:
        if vision.training and len(batch) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")
        return forward(batch)

    vision.forward = small  # type: ignore[method-assign]
    result = one.run()
    assert [event["vision_chunk"] for event in result.events] == [3, 1]
    assert one.progress.vision_chunk == 1
    assert result.epochs == 1


# ---- resume, several processes, faults


@pytest.mark.parametrize(("frozen", "lora"), [(0, 0), (1, 0), (0, 2)])
def test_a_resumed_training_ends_bit_for_bit_as_an_unbroken_one(
    frozen: int, lora: int, tmp_path: Path
) -> None:
    spec = replace(spec_of("seqTransf:layers=1", frozen=frozen), lora=lora)
    whole = replace(SETTINGS, epochs=3)
    trainer(tmp_path / "whole", whole, spec=spec).run()
    broken = trainer(tmp_path / "broken", whole, spec=spec)
    one_epoch, stop = broken._one_epoch, KeyboardInterrupt()

    def interrupted(epoch: int) -> None:
        if epoch == 2:
            broken._step(broken.plan.epoch(2)[0], 1.0)  # part of an epoch is lost
            raise stop
        one_epoch(epoch)

    broken._one_epoch = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        broken.run()
    trainer(tmp_path / "broken", whole, spec=spec).run(resume=True)
    assert same_tensors(tmp_path / "whole" / LAST, tmp_path / "broken" / LAST)


def _work(world: World, folder: Path, settings: TrainSettings) -> None:
    trainer(folder, settings, world=world).run()


def _left_alone(world: World) -> None:
    if world.is_first:
        with pytest.raises(WorkersLostError, match=r"another of the processes .* and --resume"):
            world.wait()


@pytest.mark.slow
def test_a_process_that_is_left_alone_ends_with_one_message() -> None:
    in_two_processes(_left_alone)


@pytest.mark.parametrize(
    ("size", "rank", "why"),
    [("x", "0", "invalid literal"), ("2", "7", "RANK is 7"), ("2", "-1", "RANK is -1")],
)
def test_an_environment_of_no_process_is_refused_at_once(
    size: str, rank: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", size)
    monkeypatch.setenv("RANK", rank)
    refused = pytest.raises(ConfigError, match=f"WORLD_SIZE is {size}, .*{why}.* with: torchrun")
    with refused, joined_processes(torch.device("cpu")):
        pass


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    settings = replace(SETTINGS, batch=BatchOptions(size=5))
    trainer(tmp_path / "one", settings).run()
    spec = spec_of()
    start_run(tmp_path / "two", config={"model": asdict(spec)}, train_ids=[])
    in_two_processes(_work, tmp_path / "two", settings)
    # Keys' biases change no softmax: what gradient they have is rounding noise, which Adam makes as
    # large as any other.
    require_same_model(tmp_path / "one" / LAST, tmp_path / "two" / LAST, but="in_proj_bias")


def test_a_loss_that_is_no_number_names_the_batch_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    one = trainer(tmp_path, replace(SETTINGS, epochs=1))
    one.run()
    before = (tmp_path / LAST).read_bytes()
    again = trainer(tmp_path, replace(SETTINGS, epochs=2))
    restore = again._restore

    def broken() -> None:
        restore()
        again.model.vision.tower.blocks[1].ln_1.weight.data[0] = torch.nan

    again._restore = broken  # type: ignore[method-assign]
    with pytest.raises(ModelError, match=r"epoch 2.*vision\.tower\.blocks\.1\.ln_1.*v\d"):
        again.run(resume=True)
    assert (tmp_path / LAST).read_bytes() == before
    assert json.loads((tmp_path / "failure.json").read_text())["videos"]


# ---- updates of low rank


def test_only_updates_of_query_and_value_are_trained_and_begin_as_nothing() -> None:
    spec = replace(spec_of("seqTransf:layers=1"), lora=2)
    model = build_model(spec, backbone=demo_backbone(), seed=1)
    plain = build_model(replace(spec, lora=0), backbone=demo_backbone(), seed=1)
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    towers = {n for n in trained if n.startswith(("vision.", "text_tower."))}
    assert len(towers) == (3 + 2) * 2 * 2, "A and B of two matrices of five blocks"
    assert all(".lora_" in name and ("q_proj" in name or "v_proj" in name) for name in towers)
    batch = Resident(data_of(spec), torch.device("cpu")).videos.batch(np.arange(VIDEOS))
    with torch.no_grad():
        wanted, found = (m.embed_videos(batch).frames for m in (plain, model))
    assert torch.allclose(found, wanted, atol=1e-5)
    rates = {g["lr"] for g in make_optimiser(model, SETTINGS)[0].param_groups}
    assert rates == {SETTINGS.lr}, "updates are new"


# ---- what a run leaves behind


@pytest.mark.parametrize(
    ("frozen", "temporal", "lora"),
    [
        (0, False, 0),
        (1, False, 0),
        (EVERYTHING, False, 0),
        (0, True, 0),
        (0, False, 4),
        (1, False, 4),
    ],
)
def test_the_towers_of_a_run_are_a_model_that_gives_its_scores(
    frozen: int, temporal: bool, lora: int, tmp_path: Path
) -> None:
    spec = spec_of("seqTransf:layers=1", frozen=frozen, temporal=temporal)
    spec = replace(spec, lora=lora)
    one = trainer(tmp_path / "run", spec=spec)
    one.run()
    towers = merged(one.model, demo_backbone())
    write_towers(tmp_path / "run" / "towers", towers, like=str(demo_model_folder()))
    loaded = load_backbone(str(tmp_path / "run" / "towers"), device="cpu")
    assert loaded.weights_sha256 == towers.weights_sha256
    assert loaded.weights_sha256 != demo_backbone().weights_sha256
    found = pictures()
    frames = loaded.encode_frames(found.rows, offsets=found.offsets.tolist())
    batch = Resident(one.data.data, torch.device("cpu")).videos.batch(np.arange(VIDEOS))
    with torch.no_grad():
        embedded = one.model.embed_videos(batch)
    assert np.allclose(frames, embedded.frames[embedded.mask].numpy(), atol=1e-5)


def test_a_run_is_read_as_a_head_on_features_of_its_own_towers(tmp_path: Path) -> None:
    one = trainer(tmp_path / "run", spec=spec_of("seqTransf:layers=1"))
    one.run()
    with pytest.raises(ConfigError, match="has not finished: its towers are written at the end"):
        load_run(tmp_path / "run")
    (tmp_path / "run" / "towers").mkdir()
    edit_json(tmp_path / "run" / "config.json", towers={"weights_sha256": "abc"})
    run = load_run(tmp_path / "run")
    assert run.towers == tmp_path / "run" / "towers"
    assert run.text_model == str(run.towers)
    assert run.spec.vision is None
    assert run.spec.text.mode == "frozen"
    assert run.config["features"]["weights_sha256"] == "abc"
    names = {name.split(".")[0] for name in run.model.state_dict()}
    assert names == {"head", "logit_scale"}
