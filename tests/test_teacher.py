"""A run that teaches another: its scores, the loss with it, what the student learns, the flag."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import (
    made_up_pairs,
    make_demo_workspace,
    random_store,
    run_json,
    same_tensors,
    stop_at,
)
from safetensors.torch import load_file
from torch import Tensor

from vtr.errors import ConfigError, ModelError
from vtr.train.batches import BatchPlan, Step
from vtr.train.data import PairedData, Resident
from vtr.train.gradients import BatchGradient
from vtr.train.heads.base import TextBatch, VideoBatch
from vtr.train.loop import Trainer
from vtr.train.model import ModelSpec, RetrievalModel, build_model
from vtr.train.presets import BatchOptions, LossOptions, TrainSettings
from vtr.train.run import BEST, LAST, load_run, start_run
from vtr.train.scoring import Scorer
from vtr.train.teacher import (
    DistillWeights,
    Teacher,
    WeighsFrames,
    encode_student,
    relation_term,
    split_student,
)
from vtr.train.text_tower import TextSpec

DIM = 16
CPU = torch.device("cpu")
FAST = TrainSettings(lr=1e-2, epochs=12, patience=0, warmup=0.0, batch=BatchOptions(size=8), seed=1)


def made_up(num_videos: int = 16, *, captions: int = 2, tokens: bool = False) -> PairedData:
    """Each caption shows one frame of its video, and not the others."""
    return made_up_pairs(num_videos, captions, longest=4, shows="first", words=tokens)


def model_of(head: str, *, text: str = "frozen", seed: int = 0) -> RetrievalModel:
    spec = ModelSpec(head, DIM, TextSpec(text, DIM, DIM), temperature=0.1)  # type: ignore[arg-type]
    return build_model(spec, seed=seed)


def first_step(data: PairedData, size: int = 6) -> Step:
    return BatchPlan(data.text_video, BatchOptions(size=size), seed=1).epoch(1)[0]


# ---- what it says


@pytest.mark.parametrize("head", ["meanP", "xpool", "wti", "tightTransf:layers=1"])
@pytest.mark.parametrize("chunk", [0, 5])
def test_its_score_is_what_it_scores_text_by_text(head: str, chunk: int) -> None:
    data, model = made_up(tokens=True), model_of(head)
    teacher = Teacher(model, data.texts, chunk=chunk)
    step, resident = first_step(data), Resident(data, CPU)
    scored, liked = teacher.score_batch(step, resident, frames=True)
    assert not scored.requires_grad
    assert not liked.requires_grad
    scale = 10.0  # of the temperature
    if not model.scaled:
        scale = 1.0
    videos = resident.videos.batch(step.videos)
    for row, text in enumerate(step.texts):
        texts = resident.texts.batch(np.array([text]))
        with torch.no_grad():
            scores = scale * model.head.similarity(texts, videos)[0]
        assert torch.allclose(scored[row], scores, atol=1e-5)
        own = int(step.columns[row])
        for place in range(int(videos.mask[own].sum())):
            single = VideoBatch(videos.frames[own, place][None, None], torch.ones(1, 1).bool())
            with torch.no_grad():
                alone = scale * model.head.similarity(texts, single)[0, 0]
            assert liked[row, place].item() == pytest.approx(alone.item(), abs=1e-5)
        assert not liked[row, int(videos.mask[own].sum()) :].any()


def test_without_frames_only_scores_are_computed() -> None:
    data = made_up()
    teacher = Teacher(model_of("xpool"), data.texts)
    scores, liked = teacher.score_batch(first_step(data), Resident(data, CPU), frames=False)
    assert liked is None
    assert scores.shape == (12, 6)


def test_a_code_comes_apart_as_it_was_put_together() -> None:
    data = made_up()
    videos = Resident(data, CPU).videos.batch(np.arange(5))
    for name, weighs in (("afa", True), ("meanP", False), ("xpool", False)):
        head = model_of(name).head
        assert isinstance(head, WeighsFrames) is weighs
        code, more = split_student(head, encode_student(head, videos))
        expected = head.encode_videos(videos)
        assert len(code) == len(expected)
        assert all(torch.equal(a, b) for a, b in zip(code, expected, strict=True))
        assert len(more) == (2 if weighs else 0)
        assert all(part.shape == videos.mask.shape for part in more)


# ---- the loss


def pearson(one: Tensor, other: Tensor) -> float:
    rows = [
        np.corrcoef(a, b)[0, 1]
        for a, b in zip(one.softmax(1).numpy(), other.softmax(1).numpy(), strict=True)
    ]
    return float(np.mean(rows))


def test_the_loss_is_the_weighted_sum_of_its_terms() -> None:
    data, weights = made_up(captions=1), DistillWeights(0.5, 3.0, 0.25)
    student, teacher = model_of("afa"), model_of("xpool")
    torch.nn.init.normal_(student.head.frame_weight_fc[-1].weight, std=0.5)  # type: ignore[union-attr,index]
    step, resident = first_step(data), Resident(data, CPU)
    taught = Teacher(teacher, data.texts, weights=weights)
    loss = BatchGradient(student, resident, LossOptions(), teacher=taught)(step)
    plain = BatchGradient(model_copy(student), resident, LossOptions())(step)
    texts = TextBatch(torch.from_numpy(data.texts.pooled[step.texts]))
    videos = resident.videos.batch(step.videos)
    with torch.no_grad():
        mine = 10 * student.head.similarity(texts, videos)
        theirs = 10 * teacher.head.similarity(texts, videos)
        logits = student.head.encode_with_weights(videos)[1]  # type: ignore[operator]
    relation = 1 - (pearson(mine, theirs) + pearson(mine.T, theirs.T)) / 2
    frames, liked = 0.0, taught.score_batch(step, resident, frames=True)[1]
    for n, v in enumerate(step.columns):
        count = int(videos.mask[v].sum())
        wanted, given = liked[n, :count].softmax(0), logits[v, :count].log_softmax(0)
        frames -= float((wanted * given).sum()) / len(step.texts)
    expected = 0.5 * plain.total.item() + 3 * relation + 0.25 * frames
    assert loss.total.item() == pytest.approx(expected, abs=1e-4)
    assert loss.t2v.item() == pytest.approx(plain.t2v.item()), "the halves stay the ordinary ones"


def model_copy(model: RetrievalModel) -> RetrievalModel:
    twin = model_of("afa")
    twin.load_state_dict(model.state_dict())
    return twin


@pytest.mark.parametrize("head", ["afa", "seqTransf:layers=1"])
@pytest.mark.parametrize("chunk", [1, 4, 5])
def test_gradients_in_parts_equal_the_whole_ones(head: str, chunk: int) -> None:
    data = made_up()
    student = model_of(head, text="projection")
    for parameter in student.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(1))
    found = []
    for size in (0, chunk):
        student.zero_grad()
        taught = Teacher(model_of("xpool"), data.texts, chunk=size)
        gradient = BatchGradient(student, Resident(data, CPU), LossOptions(), size, teacher=taught)
        total = gradient(first_step(data, 10)).total.detach()
        found.append([total, *(p.grad for p in student.parameters() if p.grad is not None)])
    assert len(found[0]) == len(found[1]) > 5
    for whole, parts in zip(*found, strict=True):
        assert torch.allclose(whole, parts, atol=1e-6, rtol=1e-4)
    assert all(p.grad is None for p in taught.model.parameters())


# ---- what is learned


def train(
    folder: Path,
    data: PairedData,
    *,
    student: str = "afa",
    weights: DistillWeights | None = None,
    settings: TrainSettings = FAST,
    resume: bool = False,
    on_epoch: Any = None,
) -> RetrievalModel:
    spec = ModelSpec(student, DIM, TextSpec("projection", DIM, DIM), temperature=0.1)
    if not resume:
        start_run(folder, config={"model": asdict(spec)}, train_ids=data.videos.ids)
    model = build_model(spec, seed=0)
    taught = Teacher(model_of("xpool"), data.texts, weights=weights)
    Trainer(model, data, settings, folder=folder, on_epoch=on_epoch, teacher=taught).run(
        resume=resume
    )
    return model


def agreement(model: RetrievalModel, data: PairedData) -> float:
    """1 - relation over all texts and videos: the mean Pearson correlation with the teacher."""
    mine, theirs = (
        torch.from_numpy(Scorer(m, data.texts, data.videos).matrix())
        for m in (model, model_of("xpool"))
    )
    return 1 - relation_term(10 * mine, 10 * theirs).item()


@pytest.mark.parametrize("student", ["afa", "seqTransf:layers=1", "tightTransf:layers=1"])
def test_the_ranking_of_the_student_comes_to_that_of_the_teacher(
    tmp_path: Path, student: str
) -> None:
    """By the relation term alone: nothing else pulls."""
    data = made_up()
    spec = ModelSpec(student, DIM, TextSpec("projection", DIM, DIM), temperature=0.1)
    before = agreement(build_model(spec, seed=0), data)
    only = DistillWeights(contrastive=0, relation=1, frames=0)
    after = agreement(train(tmp_path / "run", data, student=student, weights=only), data)
    assert before < 0.85
    assert after > before + 0.1


def test_the_student_learns_which_frames_the_teacher_likes(tmp_path: Path) -> None:
    data = made_up(captions=1)
    only = DistillWeights(contrastive=0, relation=0, frames=1)
    settings = replace(FAST, epochs=25)
    model = train(tmp_path / "run", data, weights=only, settings=settings)
    videos = Resident(data, CPU).videos.batch(np.arange(16))
    with torch.no_grad():
        logits = model.head.encode_with_weights(videos)[1]  # type: ignore[operator]
    several = videos.mask.sum(1) > 1
    assert int(several.sum()) > 8
    assert float((logits.argmax(1) == 0)[several].float().mean()) > 0.9, "captions show frame 0"


def test_resuming_with_a_teacher_gives_the_same_weights(tmp_path: Path) -> None:
    data, settings = made_up(), replace(FAST, epochs=5)
    train(tmp_path / "whole", data, settings=settings)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", data, settings=settings, on_epoch=stop_at(3))
    train(tmp_path / "cut", data, settings=settings, resume=True)
    assert same_tensors(tmp_path / "whole" / LAST, tmp_path / "cut" / LAST)
    train(tmp_path / "alone", data, settings=settings, weights=DistillWeights(1, 0, 0))
    assert not same_tensors(tmp_path / "whole" / LAST, tmp_path / "alone" / LAST)


def test_a_teacher_of_other_captions_is_refused(tmp_path: Path) -> None:
    data = made_up()
    with pytest.raises(ValueError, match="32 captions, the teacher has 20"):
        Trainer(
            model_of("afa"),
            data,
            FAST,
            folder=tmp_path,
            teacher=Teacher(model_of("xpool"), made_up(10).texts),
        )


# ---- the flag


@pytest.fixture
def workspace(here: Path) -> Path:
    """Twelve training videos and four to validate on, with random features of two samplers."""
    ids = [f"train{n:02}" for n in range(12)] + [f"val{n:02}" for n in range(4)] + ["test00"]
    return make_demo_workspace(here, ids, samplers=("head", "uniform"))


def vtr_train(*arguments: str) -> Any:
    return run_json("train", "--epochs", "2", *arguments)


def test_a_run_teaches_another(workspace: Path) -> None:
    """The teacher reads tokens, the student does not; what both have seen is kept."""
    vtr_train("--head", "wti", "--name", "teacher", "--hold-out", "0.2")
    (workspace / "runs/teacher/train_ids.txt").write_text("test00\ntrain00\n")
    document = vtr_train("--head", "afa", "--teacher", "runs/teacher", "--name", "student")
    assert document["teacher"] == str(workspace / "runs" / "teacher")
    run = load_run(workspace / "runs" / "student")
    told = run.config["teacher"]
    assert (told["folder"], told["head"]) == (document["teacher"], "wti")
    assert told["distill"] == {"contrastive": 0.2, "relation": 1.0, "frames": 2.0}
    assert run.train_ids == {f"train{n:02}" for n in range(12)} | {"test00"}
    alone = vtr_train("--head", "afa", "--name", "alone")
    assert alone["teacher"] is None
    runs = workspace / "runs"
    assert not same_tensors(runs / "student" / LAST, runs / "alone" / LAST)


def test_a_resumed_student_keeps_its_teacher(workspace: Path) -> None:
    vtr_train("--head", "xpool", "--name", "teacher")
    flags = ("--teacher", "runs/teacher", "--name", "student")
    document = vtr_train("--head", "afa", *flags)
    student = workspace / "runs" / "student"
    before = load_file(student / BEST)
    (student / "training.json").unlink()
    resumed = vtr_train("--resume", *flags)
    assert resumed["teacher"] == document["teacher"]
    assert resumed["metrics"] == document["metrics"]
    assert all(torch.equal(value, before[key]) for key, value in load_file(student / BEST).items())
    (student / "training.json").unlink()
    vtr_train("--head", "xpool", "--name", "teacher", "--overwrite", "--seed", "5", "--lr", "0.01")
    with pytest.raises(ConfigError, match=r"student cannot go on: teacher\.\S+ is not what it was"):
        vtr_train("--resume", "--name", "student")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", r"--teacher: no run .*nowhere: there is no such folder\. Runs in .*: teacher"),
        ("itself", r"teacher is the teacher itself: give the student another --name"),
        ("sampler", r"trained on frames of the sampler uniform, this training uses head"),
        ("text_model", r"trained on a text model with the weights 777777777777, this training"),
        ("fingerprint", r"trained on a store with the fingerprint 777777777777, this training"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(workspace: Path, change: str, message: str) -> None:
    vtr_train("--head", "xpool", "--name", "teacher")
    flags = {
        "missing": ("--teacher", "runs/nowhere"),
        "itself": ("--teacher", "runs/teacher", "--name", "teacher", "--overwrite"),
        "sampler": ("--teacher", "runs/teacher", "--sampler", "head"),
    }.get(change, ("--teacher", "runs/teacher"))
    path = workspace / "runs/teacher/config.json"
    config = json.loads(path.read_text())
    if change == "text_model":
        config["text_model"]["weights_sha256"] = "7" * 64
    if change == "fingerprint":
        config["features"]["fingerprint"] = "7" * 64
    path.write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=message):
        vtr_train("--head", "afa", *flags)
    assert load_run(workspace / "runs" / "teacher").spec.head == "xpool"
    assert not (workspace / "runs" / "afa").exists()


def test_a_teacher_of_another_vision_tower_is_refused(workspace: Path) -> None:
    vtr_train("--head", "xpool", "--name", "teacher")
    ids = [f"train{n:02}" for n in range(12)]
    changes = {"backbone": "someone/clip", "weights_sha256": "7" * 64}
    random_store(workspace / "other", ids, samplers=("head", "uniform"), **changes)
    with pytest.raises(ModelError, match=r"teacher was trained on .*someone/clip"):
        vtr_train(
            *("--head", "afa", "--teacher", "runs/teacher", "--features", "other"),
            *("--text", "projection"),
        )
