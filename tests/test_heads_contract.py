"""What every head owes its callers, checked on every file of the folder; and that defects show.

Each contract is a function of a head. Planted defects must fail the contracts named beside them,
or parity with the golden arrays where no contract can know better (positions, residuals).
"""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import golden, head_batches, make_head, perturbed, tensors
from safetensors.torch import load_file, save_file
from torch import Tensor

from vtr.clip.towers import Attention
from vtr.errors import ConfigError
from vtr.train.dropout import RowDropout, keyed
from vtr.train.headlist import head_names
from vtr.train.heads import attentionP, base, meanP, seqLSTM, seqTransf, tokenbinder
from vtr.train.heads.base import (
    Code,
    Head,
    TextBatch,
    VideoBatch,
    masked_frames,
    masked_mean,
    normalise,
    pad_codes,
    select_code,
)

DIM = 64
LENGTHS = (5, 3, 1, 4, 2, 5)
WORDS = (4, 7, 3, 5, 6, 4)
TOLERANCE = 2e-5

Contract = Callable[[Head], None]
CONTRACTS: dict[str, Contract] = {}


def contract(function: Contract) -> Contract:
    CONTRACTS[function.__name__] = function
    return function


def make_texts(rows: int = 6, *, fill: float = torch.nan) -> TextBatch:
    texts, _ = head_batches(DIM, words=WORDS)
    tokens = texts.tokens.masked_fill(~texts.token_mask[..., None], fill)
    return TextBatch(texts.pooled[:rows], tokens[:rows], texts.token_mask[:rows])


def make_videos(*, fill: float | None = torch.nan, extra: int = 0) -> VideoBatch:
    """Six ragged videos; padding holds `fill`, or random vectors where that is None."""
    _, videos = head_batches(DIM, lengths=LENGTHS, extra=extra)
    noise = torch.randn(videos.frames.shape, generator=torch.Generator().manual_seed(12))
    padding = noise if fill is None else torch.full_like(noise, fill)
    return replace(videos, frames=videos.frames.where(videos.mask[..., None], padding))


def take(videos: VideoBatch, rows: list[int]) -> VideoBatch:
    return VideoBatch(videos.frames[rows], videos.mask[rows], videos.pad)


def take_texts(texts: TextBatch, rows: list[int]) -> TextBatch:
    return TextBatch(texts.pooled[rows], texts.tokens[rows], texts.token_mask[rows])


def score(head: Head, texts: TextBatch, videos: VideoBatch) -> Tensor:
    with torch.no_grad():
        return head.similarity(texts, videos)


def same(got: Tensor, expected: Tensor) -> None:
    bound = TOLERANCE * max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(got, expected, rtol=0, atol=bound)


@contract
def scores_are_finite_float32_of_the_right_shape(head: Head) -> None:
    scores = score(head, make_texts(5), make_videos())
    assert scores.shape == (5, 6)
    assert scores.dtype == torch.float32
    assert bool(scores.isfinite().all())
    assert all(parameter.dtype == torch.float32 for parameter in head.parameters())
    if head.info.scaled:
        assert float(scores.abs().max()) <= 1 + 1e-5, "a cosine"


@contract
def padding_may_hold_anything(head: Head) -> None:
    texts = make_texts()
    expected = score(head, texts, make_videos(fill=0.0))
    for fill in (torch.nan, None, torch.inf, 1e4):
        same(score(head, texts, make_videos(fill=fill)), expected)
    same(score(head, make_texts(fill=7.0), make_videos()), expected)


@contract
def more_padding_changes_nothing(head: Head) -> None:
    texts = make_texts()
    expected = score(head, texts, make_videos())
    for extra in (1, 4):
        same(score(head, texts, make_videos(extra=extra)), expected)
        same(score(head, texts, make_videos(extra=extra, fill=None)), expected)
    assert texts.tokens is not None
    assert texts.token_mask is not None
    wider = TextBatch(
        texts.pooled,
        torch.cat([texts.tokens, torch.full((6, 2, DIM), torch.nan)], dim=1),
        torch.cat([texts.token_mask, torch.zeros(6, 2, dtype=torch.bool)], dim=1),
    )
    same(score(head, wider, make_videos()), expected)


@contract
def neighbours_change_nothing(head: Head) -> None:
    texts, videos = make_texts(), make_videos()
    expected = score(head, texts, videos)
    for row in range(6):
        same(score(head, texts, take(videos, [row])), expected[:, [row]])
        same(score(head, take_texts(texts, [row]), videos), expected[[row]])
    order = [3, 0, 5, 2, 2, 1, 4]
    same(score(head, take_texts(texts, order), take(videos, order)), expected[order][:, order])


@contract
def a_video_alone_needs_no_padding(head: Head) -> None:
    texts, videos = make_texts(), make_videos()
    expected = score(head, texts, videos)
    for row, length in enumerate(LENGTHS):
        trimmed = VideoBatch(videos.frames[[row], :length], videos.mask[[row], :length], videos.pad)
        same(score(head, texts, trimmed), expected[:, [row]])


@contract
def order_counts_exactly_where_the_head_says_so(head: Head) -> None:
    texts, videos = make_texts(), make_videos(fill=0.0)
    frames = videos.frames.clone()
    for row, length in enumerate(LENGTHS):
        frames[row, :length] = videos.frames[row, :length].flip(0)
    change = score(head, texts, replace(videos, frames=frames)) - score(head, texts, videos)
    several = torch.tensor(LENGTHS) > 1
    if head.info.needs_order:
        assert float(change.abs().amax(0)[several].min()) > 1e-4
    else:
        assert float(change.abs().max()) < TOLERANCE
    assert float(change[:, ~several].abs().max()) < TOLERANCE


@contract
def indexable_means_an_inner_product(head: Head) -> None:
    with torch.no_grad():
        texts, videos = head.encode_texts(make_texts(5)), head.encode_videos(make_videos())
        scores = head.score(texts, videos)
    same(score(head, make_texts(5), make_videos()), scores)
    assert all(len(part) == 5 for part in texts)
    assert all(len(part) == 6 for part in videos)
    if head.info.indexable:
        assert texts[0].ndim == videos[0].ndim == 2
        expected = texts[0].double().numpy() @ videos[0].double().numpy().T
        np.testing.assert_allclose(scores.numpy(), expected, rtol=0, atol=TOLERANCE)


@contract
def what_an_index_can_hold_is_told(head: Head) -> None:
    """A vector, rows of which the best counts, or a recall that needs no more than a product."""
    info = head.info
    assert info.indexable + info.rows + info.recalls <= 1
    texts, videos = make_texts(5), make_videos(extra=2)
    with torch.no_grad():
        queries, codes = head.encode_texts(texts), head.encode_videos(videos)
        scores = head.score(queries, codes)
    if info.rows:
        rows, mask = codes
        assert bool((mask.int().diff(dim=1) <= 0).all()), "left aligned"
        for v in range(6):
            same((queries[0] @ rows[v][mask[v]].T).amax(dim=1), scores[:, v])
    if info.recalls:
        for part in (queries[0], codes[0]):
            assert part.ndim == 2
            same(part.norm(dim=1), torch.ones(len(part)))


@contract
def codes_of_batches_with_other_lengths_join(head: Head) -> None:
    videos = make_videos()
    with torch.no_grad():
        codes = [
            head.encode_videos(VideoBatch(videos.frames[:2], videos.mask[:2], videos.pad)),
            head.encode_videos(
                VideoBatch(videos.frames[2:3, :2], videos.mask[2:3, :2], videos.pad)
            ),
            head.encode_videos(VideoBatch(videos.frames[3:], videos.mask[3:], videos.pad)),
        ]
        scores = head.score(head.encode_texts(make_texts()), pad_codes(codes))
    same(scores, score(head, make_texts(), videos))


@contract
def chosen_pairs_score_as_in_the_matrix(head: Head) -> None:
    rows, columns = torch.tensor([4, 0, 4, 2, 0, 4, 1]), torch.tensor([5, 0, 2, 2, 3, 5, 0])
    with torch.no_grad():
        texts, videos = head.encode_texts(make_texts(5)), head.encode_videos(make_videos())
        expected = head.score(texts, videos)[rows, columns]
        same(head.score_pairs(texts, videos, rows, columns), expected)
        none = head.score_pairs(texts, videos, rows[:0], columns[:0])
        picked = head.score(select_code(texts, rows), select_code(videos, columns)).diagonal()
    same(picked, expected)
    assert none.shape == (0,)


@contract
def gradients_are_finite_and_never_touch_padding(head: Head) -> None:
    texts, videos = make_texts(), make_videos()
    for held in (videos.frames, texts.pooled, texts.tokens):
        held.requires_grad_()
    head.train()
    try:
        torch.manual_seed(0)
        loss = training_loss(head, texts, videos)
    finally:
        head.eval()
    head.zero_grad()
    loss.backward()
    gradient = videos.frames.grad
    assert bool(gradient.isfinite().all())
    assert float(gradient[~videos.mask].abs().max()) == 0
    assert float(gradient[videos.mask].abs().max()) > 0
    for other in (texts.pooled.grad, texts.tokens.grad, *(p.grad for p in head.parameters())):
        assert other is None or bool(other.isfinite().all())


def training_loss(head: Head, texts: TextBatch, videos: VideoBatch) -> Tensor:
    codes = head.encode_texts(texts), head.encode_videos(videos)
    terms = head.training_terms(*codes)
    assert terms
    assert all(weight > 0 and term.shape == (6, 6) for weight, term in terms)
    own = torch.arange(6)
    losses = [weight * torch.nn.functional.cross_entropy(10 * term, own) for weight, term in terms]
    extra = head.regulariser(*codes)
    assert extra is None or extra.shape == ()
    return torch.stack(losses).sum() + (0 if extra is None else extra)


@contract
def vectors_of_zeros_give_no_nan(head: Head) -> None:
    texts, videos = make_texts(), make_videos()
    frames = torch.where(videos.mask[..., None], videos.frames, 0.0)
    frames[0] = 0
    frames[1, 0] = 0
    frames.requires_grad_()
    scores = head.similarity(texts, replace(videos, frames=frames))
    assert bool(scores.isfinite().all())
    scores.sum().backward()
    assert bool(frames.grad.isfinite().all())


@contract
def evaluation_is_deterministic_and_leaves_its_input_alone(head: Head) -> None:
    texts, videos = make_texts(), make_videos(fill=3.0)
    assert not head.training
    before = videos.frames.clone()
    first = score(head, texts, videos)
    assert torch.equal(first, score(head, texts, videos))
    assert torch.equal(before, videos.frames)


@contract
def codes_in_training_draw_by_their_items_alone(head: Head) -> None:
    """A batch in parts is encoded twice: what torch's generator drew would not be drawn again."""
    dropouts = [module for module in head.modules() if isinstance(module, RowDropout)]
    before, index = torch.get_rng_state(), np.arange(6)
    head.train()
    try:
        with torch.no_grad(), keyed(dropouts, index, index, side=0):
            head.encode_texts(make_texts())
            head.encode_videos(make_videos())
    finally:
        head.eval()
    assert torch.equal(torch.get_rng_state(), before)


@contract
def an_empty_video_is_named(head: Head) -> None:
    videos = make_videos()
    mask = videos.mask.clone()
    mask[3] = False
    with pytest.raises(ConfigError, match="row 3 of the batch has no frames"):
        score(head, make_texts(), replace(videos, mask=mask))


@contract
def tokens_are_asked_for_only_where_needed(head: Head) -> None:
    pooled = TextBatch(make_texts().pooled)
    if head.info.needs_tokens:
        with pytest.raises(ConfigError, match="token"):
            score(head, pooled, make_videos())
    else:
        same(score(head, pooled, make_videos()), score(head, make_texts(), make_videos()))


@contract
def pad_is_asked_for_only_where_needed(head: Head) -> None:
    bare = replace(make_videos(), pad=None)
    if head.info.needs_pad:
        with pytest.raises(ConfigError, match="pad"):
            score(head, make_texts(), bare)
    else:
        same(score(head, make_texts(), bare), score(head, make_texts(), make_videos()))


@contract
def masks_may_be_whole_numbers(head: Head) -> None:
    texts, videos = make_texts(), make_videos()
    for kind in (torch.uint8, torch.int64):
        given = TextBatch(texts.pooled, texts.tokens, texts.token_mask.to(kind))
        shown = VideoBatch(videos.frames, videos.mask.to(kind), videos.pad)
        assert torch.equal(score(head, given, shown), score(head, texts, videos))


@contract
def a_mask_with_a_hole_is_refused(head: Head) -> None:
    """A position or a state would be counted for what is not there."""
    texts, videos = make_texts(), make_videos(fill=0.0)
    mask = videos.mask.clone()
    mask[3, 1] = False
    with pytest.raises(ConfigError, match="row 3 of the video batch has a hole"):
        score(head, texts, VideoBatch(videos.frames, mask, videos.pad))
    words = texts.token_mask.clone()
    words[2, 0] = False
    with pytest.raises(ConfigError, match="row 2 of the text batch has a hole"):
        score(head, TextBatch(texts.pooled, texts.tokens, words), videos)


@contract
def features_of_every_type_score_alike(head: Head) -> None:
    """A store holds float16: a head computes in the type of its weights, not in that."""
    texts, videos = make_texts().to(torch.float16), make_videos().to(torch.float16)
    expected = score(head, texts.to(torch.float32), videos.to(torch.float32))
    for kind in (torch.float16, torch.float32, torch.float64):
        same(score(head, texts.to(kind), videos.to(kind)).float(), expected)


@contract
def nothing_gives_no_scores(head: Head) -> None:
    texts, videos = make_texts(), make_videos()
    no_text, no_video = take_texts(texts, []), take(videos, [])
    assert score(head, no_text, videos).shape == (0, 6)
    assert score(head, texts, no_video).shape == (6, 0)
    assert score(head, no_text, no_video).shape == (0, 0)
    bare = VideoBatch(torch.zeros(0, 0, DIM), torch.zeros(0, 0, dtype=torch.bool), videos.pad)
    assert score(head, texts, bare).shape == (6, 0)


def long_batches() -> tuple[TextBatch, VideoBatch]:
    """77 tokens and 32 frames, where attention takes its vectorised way."""
    generator = torch.Generator().manual_seed(14)
    tokens = torch.randn(3, 77, DIM, generator=generator)
    words = torch.arange(77) < torch.tensor([77, 60, 2])[:, None]
    frames = torch.randn(3, 32, DIM, generator=generator)
    mask = torch.arange(32) < torch.tensor([32, 20, 1])[:, None]
    pad = torch.randn(DIM, generator=generator)
    return TextBatch(tokens[:, 0], tokens, words), VideoBatch(frames, mask, pad)


@contract
def double_precision_gives_the_same_numbers(head: Head) -> None:
    texts, videos = long_batches()
    expected = score(head, texts, videos)
    twice = copy.deepcopy(head).double()
    same(score(twice, texts.to(torch.float64), videos.to(torch.float64)).float(), expected)


@contract
def half_precision_gives_nearly_the_same_numbers(head: Head) -> None:
    texts, videos = long_batches()
    expected = score(head, texts, videos)
    for kind, bound in ((torch.float16, 0.01), (torch.bfloat16, 0.06)):
        found = score(copy.deepcopy(head).to(kind), texts.to(kind), videos.to(kind)).float()
        scale = max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(found, expected, rtol=0, atol=bound * scale)


def broken_contracts(head: Head) -> set[str]:
    broken = set()
    for name, check in CONTRACTS.items():
        try:
            check(head)
        except (AssertionError, RuntimeError, ConfigError, pytest.fail.Exception):
            broken.add(name)
    return broken


@pytest.mark.parametrize("name", head_names())
@pytest.mark.parametrize("rule", CONTRACTS)
def test_every_head_keeps_every_contract(name: str, rule: str) -> None:
    CONTRACTS[rule](perturbed(make_head(name)))


@pytest.mark.parametrize("label", [*head_names(), "wti:masking=zero"])
def test_chunks_change_neither_scores_nor_gradients(
    label: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for elements in (1 << 23, 2000, 300, 1):
        for module in (base, tokenbinder):
            monkeypatch.setattr(module, "_ELEMENTS_AT_ONCE", elements)
        head, texts, videos = perturbed(make_head(label)), make_texts(), make_videos()
        scores = [score(head, texts, videos)]
        videos.frames.requires_grad_()
        head.similarity(texts, videos).square().sum().backward()
        training_loss(head, texts, videos).backward()
        leaves = [videos.frames, *head.parameters()]
        found.append([*scores, *(leaf.grad for leaf in leaves if leaf.grad is not None)])
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            bound = 1e-5 * max(1.0, float(one.abs().max()))
            torch.testing.assert_close(one, two, rtol=1e-4, atol=bound)


@pytest.mark.parametrize("elements", [1, 30, 200, 1000])
def test_a_chunk_holds_no_more_than_it_may(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_ELEMENTS_AT_ONCE", elements)
    sizes = []

    def score_chunk(texts: Code, videos: Code) -> Tensor:
        sizes.append(len(texts[0]) * len(videos[0]))
        return texts[0] @ videos[0].T

    texts, videos = torch.rand(7, 3), torch.rand(4, 3)
    got = base.score_in_chunks(score_chunk, (texts,), (videos,), elements_per_pair=24)
    same(got, texts @ videos.T)
    assert sum(sizes) == 28
    assert max(sizes) <= max(elements // 24, 1)


@pytest.mark.parametrize("name", head_names())
def test_weights_survive_a_round_trip(name: str, tmp_path: Path) -> None:
    head = perturbed(make_head(name, seed=1))
    save_file(head.state_dict() | {"none": torch.zeros(1)}, tmp_path / "head.safetensors")
    state = load_file(tmp_path / "head.safetensors")
    del state["none"]
    other = make_head(name, seed=2)
    other.load_state_dict(state, strict=True)
    texts, videos = make_texts(), make_videos()
    assert torch.equal(score(other, texts, videos), score(head, texts, videos))


@pytest.mark.parametrize("name", head_names())
def test_the_seed_decides_the_weights_and_nothing_else(name: str) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = make_head(name, seed=1).state_dict()
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(3)
    same_seed = make_head(name, seed=1).state_dict()
    assert one.keys() == same_seed.keys()
    assert all(torch.equal(value, same_seed[key]) for key, value in one.items())


@pytest.mark.parametrize("name", ["seqLSTM", "seqTransf", "tightTransf"])
def test_another_seed_gives_other_weights(name: str) -> None:
    heads = (make_head(name, dim=8, seed=seed) for seed in (1, 2))
    one, two = (torch.nn.utils.parameters_to_vector(head.parameters()) for head in heads)
    assert not torch.equal(one, two)


# --- planted defects ---


class Spoilt(seqTransf.TransformerPooling):
    """Takes rows of the table from `first` on, keeps no mask from attention, adds no residual."""

    def __init__(self, dim: int, *, first: int = 0, masked: bool = True, residual: int = 1) -> None:
        super().__init__(dim, TRANSFORMER)
        self.spoilt = first, masked, residual

    def encode_videos(self, videos: VideoBatch) -> Code:
        first, masked, residual = self.spoilt
        frames = masked_frames(videos)
        placed = frames + self.frame_position_embeddings.weight[first : frames.shape[1] + first]
        mixed = self.transformerClip(placed, videos.mask if masked else None)
        return (normalise(masked_mean(normalise(residual * frames + mixed), videos.mask)),)


class SoftmaxOverQueries(Attention):
    def forward(  # type: ignore[override]
        self, tokens: Tensor, *, bias: Tensor, **_: object
    ) -> Tensor:
        packed = torch.nn.functional.linear(tokens, self.in_proj_weight, self.in_proj_bias)
        query, key, value = (self._split(part) for part in packed.chunk(3, dim=-1))
        scores = query @ key.mT / query.shape[-1] ** 0.5
        mixed = (scores.softmax(dim=-2) * (bias == 0)) @ value
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


def softmax_over_queries(dim: int, options: seqTransf.Options) -> Head:
    head = seqTransf.TransformerPooling(dim, options)
    for block in head.transformerClip.resblocks:
        block.attn.__class__ = SoftmaxOverQueries
    return head


class SpoiltLstm(seqLSTM.LstmPooling):
    """Reads from the wrong end with the residual, or from the right one without it."""

    def __init__(self, dim: int, *, backwards: bool) -> None:
        super().__init__(dim, LSTM)
        self.backwards = backwards

    def encode_videos(self, videos: VideoBatch) -> Code:
        frames = masked_frames(videos)
        states = self.lstm_visual(frames.flip(1) if self.backwards else frames)[0]
        mixed = frames + states.flip(1) if self.backwards else states
        return (normalise(masked_mean(normalise(mixed), videos.mask)),)


class MaskIgnoredInMean(meanP.MeanPooling):
    def encode_videos(self, videos: VideoBatch) -> Code:
        return (normalise(normalise(videos.frames).mean(dim=1)),)


class CentredOnTheBatch(meanP.MeanPooling):
    def encode_videos(self, videos: VideoBatch) -> Code:
        (code,) = super().encode_videos(videos)
        return (normalise(code - code.mean(dim=0)),)


class NormWithoutGuard(meanP.MeanPooling):
    def encode_videos(self, videos: VideoBatch) -> Code:
        frames = masked_frames(videos)
        unit = frames / frames.norm(dim=-1, keepdim=True)
        return (normalise(masked_mean(unit, videos.mask)),)


class AttentionSoftmax(attentionP.AttentionPooling):
    def __init__(self, axis: int) -> None:
        super().__init__(options=attentionP.Options())
        self.axis = axis

    def _pool(self, products: Tensor, gram: Tensor, mask: Tensor) -> Tensor:
        norms = gram.diagonal(dim1=-2, dim2=-1).clamp_min(1e-16).sqrt()
        logits = (products / (norms * self.options.tau)).masked_fill(~mask, -1e6)
        weights = logits.softmax(dim=self.axis)
        squares = torch.einsum("...j,...jk,...k->...", weights, gram, weights)
        return (weights * products).sum(dim=-1) / squares.clamp_min(1e-16).sqrt()


class MaskIgnoredInSoftmax(attentionP.AttentionPooling):
    # On zeroed frames it would be no defect: padding then only scales v, which is normalised.
    def encode_videos(self, videos: VideoBatch) -> Code:
        frames = videos.frames
        return frames, frames @ frames.mT, torch.ones_like(videos.mask)


class DropoutInEvaluation(meanP.MeanPooling):
    def encode_videos(self, videos: VideoBatch) -> Code:
        frames = torch.nn.functional.dropout(masked_frames(videos), 0.5)
        return (normalise(masked_mean(normalise(frames), videos.mask)),)


TRANSFORMER = seqTransf.Options(layers=2)
LSTM = seqLSTM.Options()
GOLDEN = "parity with the golden arrays"
PADDING = "more_padding_changes_nothing"
NEIGHBOURS = "neighbours_change_nothing"
ALONE = "a_video_alone_needs_no_padding"
ANYTHING = "padding_may_hold_anything"
GRADIENTS = "gradients_are_finite_and_never_touch_padding"
ZEROS = "vectors_of_zeros_give_no_nan"
DRAWS = "codes_in_training_draw_by_their_items_alone"
DETERMINISTIC = "evaluation_is_deterministic_and_leaves_its_input_alone"
Build = Callable[[int], Head]
DEFECTS: dict[str, tuple[str, Build, set[str]]] = {
    "mask ignored in attention": (
        "seqTransf",
        lambda dim: Spoilt(dim, masked=False),
        {PADDING, ALONE, GOLDEN},
    ),
    "mask ignored in the mean": (
        "meanP",
        lambda _: MaskIgnoredInMean(),
        {ANYTHING, GRADIENTS, GOLDEN},
    ),
    "mask ignored in the softmax": (
        "attentionP",
        lambda _: MaskIgnoredInSoftmax(options=attentionP.Options()),
        {ANYTHING, PADDING, ALONE},
    ),
    "position off by one": ("seqTransf", lambda dim: Spoilt(dim, first=1), {GOLDEN}),
    "missing residual": ("seqTransf", lambda dim: Spoilt(dim, residual=0), {GOLDEN}),
    "LSTM without residual": ("seqLSTM", lambda d: SpoiltLstm(d, backwards=False), {GOLDEN}),
    "LSTM from the end": ("seqLSTM", lambda d: SpoiltLstm(d, backwards=True), {PADDING, GOLDEN}),
    "softmax over queries": (
        "seqTransf",
        lambda dim: softmax_over_queries(dim, TRANSFORMER),
        {PADDING, GOLDEN},
    ),
    "softmax over texts": ("attentionP", lambda _: AttentionSoftmax(0), {NEIGHBOURS}),
    "softmax over videos": ("attentionP", lambda _: AttentionSoftmax(1), {NEIGHBOURS}),
    "centred on the batch": ("meanP", lambda _: CentredOnTheBatch(), {NEIGHBOURS, GOLDEN}),
    "norm without guard": ("meanP", lambda _: NormWithoutGuard(), {ZEROS}),
    "dropout in evaluation": ("meanP", lambda _: DropoutInEvaluation(), {DETERMINISTIC, DRAWS}),
}


def golden_difference(name: str, build: Build) -> float:
    """Largest difference from the reference's similarities; NaN counts as infinite."""
    arrays, head = golden(f"clip4clip_{name}"), build(128).eval()
    wanted = head.state_dict()
    state = {key: value for key, value in tensors(arrays).items() if key in wanted}
    head.load_state_dict(state, strict=True)
    frames, mask = torch.from_numpy(arrays["video"]), torch.from_numpy(arrays["video_mask"]).bool()
    texts = TextBatch(torch.from_numpy(arrays["text"]))
    differences = []
    for padded in (frames, frames * mask[..., None]):
        scores = score(head, texts, VideoBatch(padded, mask)).numpy()
        scores = scores * np.exp(arrays["logit_scale"])
        differences.append(np.nan_to_num(np.abs(scores - arrays["sim_eval"]), nan=np.inf).max())
    return float(max(differences))


@pytest.mark.parametrize("defect", DEFECTS)
def test_planted_defects_are_caught(defect: str) -> None:
    name, build, catchers = DEFECTS[defect]
    broken = broken_contracts(perturbed(build(DIM).eval()))
    if GOLDEN in catchers and golden_difference(name, build) > 1e-3:
        broken.add(GOLDEN)
    assert catchers <= broken, f"not caught by {catchers - broken}"
    if catchers == {GOLDEN}:
        assert broken == {GOLDEN}, f"the list beside this defect lacks {broken - catchers}"


@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("meanP", lambda _: meanP.MeanPooling()),
        ("seqLSTM", lambda dim: seqLSTM.LstmPooling(dim, LSTM)),
        ("seqTransf", lambda dim: seqTransf.TransformerPooling(dim, TRANSFORMER)),
    ],
)
def test_the_parity_check_passes_without_a_defect(name: str, build: Build) -> None:
    assert golden_difference(name, build) < 1e-5
    assert broken_contracts(perturbed(build(DIM).eval())) == set()


def test_the_stand_in_for_attention_without_a_defect_passes() -> None:
    assert broken_contracts(AttentionSoftmax(-1).eval()) == set()
