"""Batches, optimisers, gradients in parts, scoring: each against its plain form."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import made_up_pairs, perturbed
from hypothesis import given, settings
from hypothesis import strategies as st

from vtr.errors import ConfigError, ModelError
from vtr.evaluate.counting import computed
from vtr.features.store import PackedFrames
from vtr.train.ahead import Ahead
from vtr.train.batches import BatchPlan, Step, halve
from vtr.train.data import Packed, PairedData, Resident
from vtr.train.dropout import RowDropout, keyed
from vtr.train.gradients import BatchGradient
from vtr.train.mining import confusable_groups, nearest_wrong_videos
from vtr.train.model import ModelSpec, RetrievalModel, build_model, zero_shot_model
from vtr.train.optim import BertAdam, Schedule, cosine_factor, make_optimiser, reference_factor
from vtr.train.presets import BatchOptions, LossOptions, TrainSettings
from vtr.train.scoring import Scorer
from vtr.train.text_tower import TextSpec

GOLDEN = Path(__file__).parent / "golden"
DIM = 16


def model_of(head: str = "seqTransf:layers=1", text: str = "projection") -> RetrievalModel:
    tower = TextSpec(text, DIM, DIM)  # type: ignore[arg-type]
    return build_model(ModelSpec(head, DIM, tower), seed=3)


# ---- gathering


@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=8), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_a_gather_gives_each_item_its_own_rows(lengths: list[int], seed: int) -> None:
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    rows = np.arange(offsets[-1] * 2, dtype=np.float32).reshape(-1, 2)
    packed = Packed(rows, offsets, torch.device("cpu"))
    index = np.random.default_rng(seed).integers(0, len(lengths), 5)
    found, mask = packed.gather(index)
    for place, item in enumerate(index.tolist()):
        own = rows[offsets[item] : offsets[item + 1]]
        assert mask[place].tolist() == [k < len(own) for k in range(mask.shape[1])]
        assert np.array_equal(found[place][mask[place]].numpy(), own)
    assert mask.shape[1] == max(lengths[item] for item in index.tolist())


def test_a_caption_of_no_video_is_refused() -> None:
    data = made_up_pairs(3, 3)
    with pytest.raises(ConfigError, match=r"caption 'c0' belongs to video number 9; there are 3"):
        PairedData(data.texts, data.videos, np.full(9, 9))


def test_a_video_without_frames_is_refused_by_name() -> None:
    data = made_up_pairs(3, 3)
    offsets = data.videos.offsets.copy()
    offsets[1] = 0
    videos = PackedFrames(data.videos.ids, data.videos.frames, data.videos.pts_seconds, offsets)
    with pytest.raises(ConfigError, match="1 video has no frames, such as 'v0'"):
        PairedData(data.texts, videos, data.text_video)


# ---- batches


def check_step(step: Step, owner: np.ndarray) -> None:
    assert np.array_equal(owner[step.texts], step.videos[step.columns])


@given(
    mode=st.sampled_from(["videos", "pairs"]),
    size=st.integers(2, 12),
    captions=st.integers(0, 4),
    counts=st.lists(st.integers(0, 5), min_size=2, max_size=15),
    seed=st.integers(0, 50),
)
@settings(max_examples=60, deadline=None)
def test_an_epoch_meets_what_it_should(
    mode: str, size: int, captions: int, counts: list[int], seed: int
) -> None:
    owner = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    options = BatchOptions(mode, size, captions)  # type: ignore[arg-type]
    if sum(count > 0 for count in counts) < 2:
        with pytest.raises(ConfigError, match="captions of at least 2 videos"):
            BatchPlan(owner, options)
        return
    plan = BatchPlan(owner, options, seed=seed)
    steps = plan.epoch(1)
    for step in steps:
        check_step(step, owner)
        assert (np.diff(step.columns) >= 0).all()
        assert len(step.videos) <= size
    met = np.concatenate([step.texts for step in steps])
    assert len(np.unique(met)) == len(met), "no caption twice in an epoch"
    wanted = [min(count, captions) if captions else count for count in counts]
    assert np.bincount(owner[met], minlength=len(counts)).tolist() == wanted
    assert len(met) == plan.num_pairs
    assert len(steps) == plan.num_steps
    if mode == "videos":
        seen = np.concatenate([step.videos for step in steps])
        assert sorted(seen.tolist()) == [v for v, count in enumerate(counts) if count]


def test_epochs_depend_on_seed_and_number_and_on_nothing_else() -> None:
    owner = np.repeat(np.arange(20), 4)
    one, two = (BatchPlan(owner, BatchOptions(size=6, captions=1), seed=5) for _ in range(2))
    same = zip(one.epoch(3), two.epoch(3), strict=True)
    assert all(np.array_equal(a.texts, b.texts) for a, b in same)
    assert not np.array_equal(one.epoch(3)[0].texts, one.epoch(4)[0].texts)
    other = BatchPlan(owner, BatchOptions(size=6, captions=1), seed=6)
    assert not np.array_equal(one.epoch(3)[0].texts, other.epoch(3)[0].texts)


def test_steps_are_equal_in_size_or_the_last_is_dropped() -> None:
    owner = np.arange(10)
    even = BatchPlan(owner, BatchOptions(size=4)).epoch(1)
    assert [len(step.videos) for step in even] == [4, 3, 3]
    dropped = BatchPlan(owner, BatchOptions("pairs", 4, drop_last=True)).epoch(1)
    assert [len(step.videos) for step in dropped] == [4, 4]


def test_a_batch_larger_than_the_data_is_all_of_it() -> None:
    plan = BatchPlan(np.arange(5), BatchOptions(size=128))
    assert (plan.size, plan.num_steps, len(plan.epoch(1)[0].videos)) == (5, 1, 5)


def test_halved_steps_hold_the_same_pairs() -> None:
    owner = np.repeat(np.arange(9), 3)
    steps = BatchPlan(owner, BatchOptions(size=9)).epoch(1)
    halves = halve(steps)
    assert [len(step.videos) for step in halves] == [4, 5]
    for step in halves:
        check_step(step, owner)
    assert sorted(np.concatenate([s.texts for s in halves])) == list(range(27))
    tiny = BatchPlan(np.arange(2), BatchOptions(size=2)).epoch(1)
    assert len(halve(tiny)) == 1, "one video alone has nothing to contrast with"


# ---- optimisers


@pytest.mark.parametrize("clip", [1.0, 0.0])
def test_bertadam_does_the_references_steps(clip: float) -> None:
    golden = np.load(GOLDEN / "bertadam.npz")
    config = json.loads(str(golden["config"]))
    parameters = {n: torch.nn.Parameter(torch.from_numpy(golden[f"init/{n}"])) for n in "abs"}
    rates = (("a", 1e-4, 0.2), ("bs", 1e-2, 0.0))
    groups = [
        {"params": [parameters[n] for n in names], "lr": lr, "weight_decay": decay}
        for names, lr, decay in rates
    ]
    optimiser = BertAdam([{**group, "max_grad_norm": clip} for group in groups])
    total, worst = config["t_total"], 0.0
    schedule = Schedule(optimiser, lambda x: reference_factor(x, 0.1))
    for k in range(12):
        for name, parameter in parameters.items():
            parameter.grad = torch.from_numpy(golden[f"grad/{k}/{name}"])
        schedule.set(k / total)
        optimiser.step()
        for name, parameter in parameters.items():
            wanted = torch.from_numpy(golden[f"after/{k}/{name}"])
            worst = max(worst, float((parameter.detach() - wanted).abs().max()))
    assert worst < 1e-6 if clip else worst > 1e-4, "the clip of single tensors shows here"


def test_the_cosine_begins_and_ends_at_zero_and_peaks_after_the_warm_up() -> None:
    values = [cosine_factor(x, 0.1) for x in np.linspace(0, 1, 101)]
    assert values[0] == 0.0
    assert values[-1] == pytest.approx(0.0, abs=1e-9)
    assert int(np.argmax(values)) == 10
    assert cosine_factor(0.0, 0.0) == 1.0


def test_pretrained_layers_learn_slower_and_biases_and_the_scale_are_not_decayed() -> None:
    model = model_of()
    model.text_tower.pretrained = True
    settings = TrainSettings(lr=1e-3, coef_lr=0.1, weight_decay=0.2)

    def rates_of(settings: TrainSettings) -> dict[int, tuple[float, float]]:
        optimiser, schedule = make_optimiser(model, settings)
        schedule.set(settings.warmup)  # where adamw's rates peak
        return {
            id(p): (group["lr"], group["weight_decay"])
            for group in optimiser.param_groups
            for p in group["params"]
        }

    found = rates_of(settings)
    assert found[id(model.logit_scale)] == (1e-3, 0.0)
    tower = dict(model.text_tower.named_parameters())
    assert found[id(tower["inner.weight"])] == (pytest.approx(1e-4), 0.2)
    assert found[id(tower["inner.bias"])] == (pytest.approx(1e-4), 0.0)
    block = dict(model.head.named_parameters())
    assert found[id(block["transformerClip.resblocks.0.ln_1.weight"])] == (1e-3, 0.0)
    assert found[id(block["transformerClip.resblocks.0.mlp.c_fc.weight"])] == (1e-3, 0.2)
    assert len(found) == sum(1 for p in model.parameters() if p.requires_grad)
    reference = rates_of(replace(settings, optimiser="bertadam", warmup=0.0))
    assert reference[id(model.logit_scale)] == (pytest.approx(1e-4), 0.2), "a part of CLIP"
    assert reference[id(tower["inner.bias"])] == (pytest.approx(1e-4), 0.0)
    assert reference[id(block["transformerClip.resblocks.0.ln_1.weight"])] == (1e-3, 0.2)


# ---- rows of fixed codes


@pytest.mark.parametrize("begins", [True, False])
def test_rows_fetched_ahead_are_those_of_the_step(begins: bool) -> None:
    rng = np.random.default_rng(0)
    texts, videos = (torch.from_numpy(rng.normal(size=(n, DIM))) for n in (40, 10))
    steps = BatchPlan(np.arange(40) // 4, BatchOptions(size=3)).epoch(1)
    for codes in (((texts,), (videos,)), ((texts, texts[:, 0]), None), (None, None)):
        ahead = Ahead(*codes, begins=begins)
        order = [steps[0], steps[1], steps[1], steps[0], steps[2]]  # one again, one not as told
        for step, following in zip(order, [steps[1], steps[2], None, steps[1], None], strict=True):
            for table, index, found in zip(
                codes, (step.texts, step.videos), ahead.rows(step, following), strict=True
            ):
                assert (found is None) == (table is None)
                for part, got in zip(table or (), found or (), strict=True):
                    assert torch.equal(got, part[torch.from_numpy(index)])


# ---- gradients in parts


def gradients(
    model: RetrievalModel, data: PairedData, *, chunk: int, mode: Any = "videos"
) -> list[torch.Tensor]:
    model.zero_grad()
    step = BatchPlan(data.text_video, BatchOptions(mode, 10), seed=1).epoch(1)[0]
    gradient = BatchGradient(model, Resident(data, torch.device("cpu")), LossOptions(), chunk)
    total = gradient(step).total.detach()
    found = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]
    return [total, *found]


@pytest.mark.parametrize("head", ["meanP", "seqTransf:layers=1", "tightTransf:layers=1"])
@pytest.mark.parametrize("chunk", [1, 4, 7])
def test_gradients_in_parts_equal_the_whole_ones(head: str, chunk: int) -> None:
    data = made_up_pairs(10, 3)
    model = model_of(head).eval()  # without dropout
    model.logit_scale.data.fill_(1.0)  # else these easy pairs leave nothing to learn
    for parameter in model.text_tower.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(1))
    whole, parts = gradients(model, data, chunk=0), gradients(model, data, chunk=chunk)
    for (name, _), one, two in zip(
        [("loss", None), *model.named_parameters()], whole, parts, strict=True
    ):
        assert torch.allclose(one, two, atol=1e-6, rtol=1e-4), name
    assert any(float(g.abs().max()) > 1e-4 for g in whole[1:])


@pytest.mark.parametrize("mode", ["videos", "pairs"])
@pytest.mark.parametrize("text", ["frozen", "projection"])
@pytest.mark.parametrize("head", ["meanP", "maxP"])
def test_codes_that_no_training_changes_are_those_of_each_batch(
    head: str, text: str, mode: Any
) -> None:
    data, model = made_up_pairs(40, 3), model_of(head, text).train()
    assert len(set(np.diff(data.videos.offsets).tolist())) > 1, "padding differs by batch"
    resident = Resident(data, torch.device("cpu"))
    gradient = BatchGradient(model, resident, LossOptions())
    plan = BatchPlan(data.text_video, BatchOptions(mode=mode, size=7, captions=2))
    torch.manual_seed(0)
    for step in plan.epoch(1):
        videos = model.encode_videos(resident.videos.batch(step.videos))[0]
        assert torch.equal(gradient._encode_videos(step.videos)[0], videos)
        if text == "frozen":
            texts = model.encode_texts(resident.texts.batch(step.texts))[0]
            assert torch.equal(gradient._encode_texts(step.texts)[0], texts)
            loss = gradient.loss((texts,), (videos,), step)
            assert torch.equal(gradient(step).total, loss.total)
    assert gradient.videos is not None
    assert (gradient.texts is None) == (text == "projection")


@pytest.mark.parametrize("head", ["seqTransf:layers=1", "multivector", "attentionP"])
def test_codes_that_change_or_are_many_vectors_are_not_kept(head: str) -> None:
    resident = Resident(made_up_pairs(5, 3), torch.device("cpu"))
    assert BatchGradient(model_of(head, "frozen"), resident, LossOptions()).videos is None


@pytest.mark.parametrize(
    ("head", "text"),
    [
        ("meanP", "projection"),
        ("seqTransf:layers=1:dropout=0.5", "frozen"),
        ("seqLSTM:dropout=0.5", "frozen"),
        ("xpool", "projection"),
        ("tightTransf:layers=1", "projection"),
    ],
)
@pytest.mark.parametrize("mode", ["videos", "pairs"])
def test_dropout_draws_the_same_however_a_batch_is_cut(head: str, text: Any, mode: Any) -> None:
    """Parts of the size of free memory, and shares of processes, take the steps of the whole."""
    dropout = 0.5 if text == "projection" else 0.0
    model = build_model(ModelSpec(head, DIM, TextSpec(text, DIM, DIM, dropout=dropout)), seed=0)
    perturbed(model.text_tower)  # type: ignore[arg-type]
    data, found = made_up_pairs(10, 3), []
    for chunk, seed in ((0, 11), (6, 11), (1, 11), (0, 12)):
        torch.manual_seed(seed)
        found.append(gradients(model.train(), data, chunk=chunk, mode=mode))
    whole, *parts, other = found
    for one in parts:
        assert all(
            torch.allclose(a, b, atol=1e-6, rtol=1e-4) for a, b in zip(whole, one, strict=True)
        )
    assert not torch.equal(whole[0], other[0]), "another seed draws otherwise"


def test_what_is_dropped_is_a_share_of_each_item_and_its_own() -> None:
    module, items = RowDropout(0.25), torch.ones(64, 5, 40)
    places = np.arange(64)
    with keyed([module], places * 0, places, side=1):
        once, again = module(items), module(items)
    assert torch.equal(once, again)
    assert torch.equal(once.unique(), torch.tensor([0.0, 1 / 0.75]))
    gone = (once == 0).flatten(1).float()
    assert abs(float(gone.mean()) - 0.25) < 0.02
    alike = torch.corrcoef(gone).fill_diagonal_(0.0)
    assert float(alike.abs().max()) < 0.4, "200 numbers each: 0.07 is one deviation"
    with keyed([module], places * 0, places, side=0):
        assert not torch.equal(module(items), once), "texts draw for themselves"
    assert not torch.equal(module(items), module(items)), "without keys the generator draws"


# ---- mining


def test_the_nearest_wrong_videos_are_those_of_a_loop() -> None:
    data = made_up_pairs(12, 3)
    model = zero_shot_model()
    resident = Resident(data, torch.device("cpu"))
    near = nearest_wrong_videos(model, resident, 3)
    scores = Scorer(model, data.texts, data.videos).matrix()
    for video in range(12):
        best: dict[int, float] = {}
        for caption in np.flatnonzero(data.text_video == video):
            row = scores[caption].copy()
            row[video] = -np.inf
            for other in np.argsort(-row)[:3]:
                best[int(other)] = max(best.get(int(other), -2.0), float(row[other]))
        wanted = sorted(best, key=lambda other: (-best[other], other))[:3]
        assert near[video].tolist() == wanted


def test_mined_batches_hold_every_video_once_and_put_rivals_together() -> None:
    data = made_up_pairs(40, 2, dim=2)
    model = zero_shot_model()
    plan = BatchPlan(data.text_video, BatchOptions(size=8), seed=0)
    resident = Resident(data, torch.device("cpu"))
    groups = confusable_groups(model, resident, plan, 1)
    assert sorted(np.concatenate(groups).tolist()) == list(range(40))
    near = nearest_wrong_videos(model, resident, 3)

    def rivals(batches: list[np.ndarray]) -> int:
        return sum(int(np.isin(near[batch], batch).sum()) for batch in batches)

    random = [step.videos for step in plan.epoch(1)]
    assert rivals(groups) > 1.5 * rivals(random)
    for step in plan.epoch(1, groups=groups):
        check_step(step, data.text_video)


# ---- scoring


def slow_scores(model: RetrievalModel, data: PairedData) -> np.ndarray:
    resident = Resident(data, torch.device("cpu"))
    with torch.no_grad():
        return np.array(
            [
                [
                    model.head.score(
                        model.encode_texts(resident.texts.batch(np.array([n]))),
                        model.encode_videos(resident.videos.batch(np.array([v]))),
                    ).item()
                    for v in range(len(data.videos.ids))
                ]
                for n in range(len(data.texts))
            ]
        )


@pytest.mark.parametrize("head", ["meanP", "seqLSTM", "tightTransf:layers=1"])
@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_scores_in_blocks_are_those_of_single_pairs(head: str, batch_size: int) -> None:
    data, model = made_up_pairs(6, 2), model_of(head)
    scorer = Scorer(model, data.texts, data.videos, batch_size=batch_size)
    wanted = slow_scores(model, data)
    assert scorer.shape == (12, 6)
    assert np.allclose(scorer.matrix(), wanted, atol=1e-5)
    again = dict(scorer.blocks())
    assert np.allclose(np.concatenate(list(again.values())), wanted, atol=1e-5)
    num_threads = torch.get_num_threads()
    passing = {start: computed(rows).copy() for start, rows in scorer.stream()}
    assert all(np.array_equal(passing[start], block) for start, block in again.items())
    assert torch.get_num_threads() == num_threads
    texts, videos = np.array([3, 0, 11, 3]), np.array([5, 1, 0, 2])
    assert np.allclose(scorer.score_pairs(texts, videos), wanted[texts, videos], atol=1e-5)
    assert model.training is False


def test_mined_batches_are_never_larger_than_asked() -> None:
    data = Resident(made_up_pairs(11, 3), torch.device("cpu"))
    for drop_last, sizes in ((True, [6]), (False, [6, 5])):
        plan = BatchPlan(data.data.text_video, BatchOptions(size=6, drop_last=drop_last))
        groups = confusable_groups(model_of(), data, plan, 1)
        assert [len(group) for group in groups] == sizes
        assert len(np.unique(np.concatenate(groups))) == sum(sizes)


def test_the_scorer_puts_the_model_back_into_training_mode() -> None:
    data, model = made_up_pairs(3, 3), model_of().train()
    Scorer(model, data.texts, data.videos).matrix()
    assert model.training


def test_zero_shot_is_the_cosine_with_the_mean_of_unit_frames() -> None:
    data = made_up_pairs(5, 3)
    frames, offsets = data.videos.frames.astype(np.float64), data.videos.offsets
    units = frames / np.linalg.norm(frames, axis=1, keepdims=True)
    means = np.stack([units[offsets[v] : offsets[v + 1]].mean(0) for v in range(5)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    texts = data.texts.pooled / np.linalg.norm(data.texts.pooled, axis=1, keepdims=True)
    scorer = Scorer(zero_shot_model(), data.texts, data.videos)
    assert np.allclose(scorer.matrix(), texts @ means.T, atol=1e-5)
    assert scorer.scale == pytest.approx(100.0, rel=1e-4)


def test_a_score_that_is_not_finite_names_text_and_video() -> None:
    """Re-ranking asks for pairs: a NaN among them would be sorted somewhere."""
    data = made_up_pairs(10, 3)
    data.texts.pooled[1] = np.nan
    scorer = Scorer(zero_shot_model(), data.texts, data.videos)
    texts, videos = np.array([0, 1, 2]), np.array([0, 2, 1])
    assert np.isfinite(scorer.score_pairs(texts[[0, 2]], videos[[0, 2]])).all()
    for ask, video in ((scorer.matrix, 0), (lambda: scorer.score_pairs(texts, videos), 2)):
        with pytest.raises(ModelError, match=f"of text 'c1' and video 'v{video}' is nan"):
            ask()


def test_the_time_of_a_costly_head_is_foretold() -> None:
    data = made_up_pairs(64, 3)
    assert Scorer(model_of(), data.texts, data.videos).expected_seconds() == 0
    scorer = Scorer(model_of("tightTransf:layers=4:pairs=4"), data.texts, data.videos)
    expected = min(scorer.expected_seconds() for _ in range(3))
    start = time.perf_counter()
    scorer.matrix()
    took = time.perf_counter() - start
    assert expected / 20 < took < expected * 20 + 0.5  # forgetting the 192 texts would be more
