"""A trained run that teaches another: what it makes of each batch, and the loss from it.

    total = 0.2 * contrastive + 1.0 * relation + 2.0 * frames
    relation = 1 - Pearson correlation of softmaxes, student against teacher, mean over the rows and
               the columns of the score matrix
    frames   = cross-entropy of the student's frame weights against the teacher's, as softmaxes

All scores are logits: cosines come in times their logit scale, whatever that is for the head. The
teacher's are taken without gradients. Several teachers: add up their terms.

Source: TeachCLIP (ruc-aimc-lab/TeachCLIP), implemented from the formulas.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vtr.clip.backbone import Backbone
from vtr.errors import ConfigError
from vtr.features.store import FeatureStore
from vtr.files import file_sha256
from vtr.train.batches import Step
from vtr.train.data import Resident, ResidentTexts
from vtr.train.heads.base import Code, Head, TextBatch, VideoBatch, check_option, pad_codes
from vtr.train.model import RetrievalModel
from vtr.train.run import BEST, Run, load_run
from vtr.train.texts import TextFeatures

_SMALLEST_VARIANCE = 1e-20
_PARTS = 2  # what `encode_student` adds to a code


@dataclass(frozen=True)
class DistillWeights:
    """Weights of the terms in the loss, each 0 or more."""

    contrastive: float = 0.2  # Of the ordinary loss
    relation: float = 1.0  # Of `relation_term`
    frames: float = 2.0  # Of `frame_term`

    def __post_init__(self) -> None:
        for name in ("contrastive", "relation", "frames"):
            value = getattr(self, name)
            check_option(value >= 0, f"distill {name}", value, "0 or more")


def distillation_loss(
    contrastive: Tensor, relation: Tensor, frames: Tensor | None, weights: DistillWeights
) -> Tensor:
    """Returns the weighted sum of the terms, a scalar."""
    total = weights.contrastive * contrastive + weights.relation * relation
    return total if frames is None else total + weights.frames * frames


def relation_term(student: Tensor, teacher: Tensor) -> Tensor:
    """Returns how unlike two heads' (N, V) logits rank a batch, a scalar from 0 (alike) to 2."""
    teacher = teacher.detach()
    by_text = _correlation(student.softmax(dim=1), teacher.softmax(dim=1))
    by_video = _correlation(student.T.softmax(dim=1), teacher.T.softmax(dim=1))
    return 1 - (by_text.mean() + by_video.mean()) / 2


def frame_term(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Returns how unlike two heads' (V, K) logits weigh the frames of each video, a scalar.

    It is the cross-entropy, so its least value is the teacher's entropy and not 0. The student's
    logits come before any temperature; padded places may hold anything but NaN.
    """
    wanted = teacher.detach().masked_fill(~mask, -torch.inf).softmax(dim=1)
    given = student.masked_fill(~mask, -torch.inf).log_softmax(dim=1)
    # Masked logarithms are -inf, and 0 * -inf is NaN.
    return -(wanted * given.masked_fill(~mask, 0.0)).sum(dim=1).mean()


def matching_frame_scores(head: Head, texts: TextBatch, videos: VideoBatch) -> Tensor:
    """Returns (N, K) what a head makes of each frame alone for its video's own text.

    Each frame is scored as a video of one frame, which any head can do: without logit scale and
    without gradients, 0 in padded places.
    """
    mask = videos.mask
    rows = mask.nonzero()[:, 0]
    frames = videos.frames[mask][:, None]
    single = VideoBatch(frames, torch.ones_like(frames[..., 0], dtype=torch.bool), videos.pad)
    with torch.no_grad():
        scores = head.score_pairs(
            head.encode_texts(texts),
            head.encode_videos(single),
            rows,
            torch.arange(len(rows), device=rows.device),
        )
    filled = scores.new_zeros(mask.shape)
    filled[mask] = scores
    return filled


def _correlation(one: Tensor, other: Tensor) -> Tensor:
    """(R,) Pearson correlations of rows; 0 where a row is constant, which has no direction."""
    one = one - one.mean(dim=1, keepdim=True)
    other = other - other.mean(dim=1, keepdim=True)
    squares = one.square().sum(dim=1) * other.square().sum(dim=1)
    return (one * other).sum(dim=1) * squares.clamp_min(_SMALLEST_VARIANCE).rsqrt()


@runtime_checkable
class WeighsFrames(Protocol):
    """A head that says how it weighs the frames of a video; `afa` does."""

    def encode_with_weights(self, videos: VideoBatch) -> tuple[Code, Tensor]:
        """Returns the code of the videos and (V, K) logits of their frames."""


class Teacher:
    """A trained model that is asked about every batch of a training.

    It stays in evaluation mode and draws no random numbers: a training with a teacher resumes as
    exactly as one without. Its texts are the training captions in their order, as this model reads
    them; `pad` (D,) is what the vision tower makes of padding.
    """

    def __init__(
        self,
        model: RetrievalModel,
        texts: TextFeatures,
        *,
        pad: NDArray[np.float32] | None = None,
        weights: DistillWeights | None = None,
        chunk: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        place = torch.device(device)
        self.model = model.to(place).eval().requires_grad_(False)
        self.weights = weights or DistillWeights()
        self.chunk = chunk
        self._texts = ResidentTexts(texts, place)
        self._pad = None if pad is None else torch.from_numpy(pad.copy()).to(place)

    def __len__(self) -> int:
        return len(self._texts)

    @torch.no_grad()
    def score_batch(
        self, step: Step, data: Resident, *, frames: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Returns its logits of a batch (N, V), and those of frames where they are asked for.

        That is (N, K) of the frames of each text's own video, 0 in padded places.
        """
        head, scale = self.model.head, self.model.scale()
        stored = data.videos.batch(step.videos)
        assert isinstance(stored, VideoBatch)  # `vtr train` refuses a teacher of a trained tower
        videos = replace(stored, pad=self._pad)
        columns = torch.from_numpy(step.columns).to(videos.frames.device)
        codes, liked = [], []
        size = self.chunk or len(step.texts)
        for start in range(0, len(step.texts), size):
            rows = slice(start, start + size)
            texts = self.model.text_tower(self._texts.batch(step.texts[rows]))
            codes.append(head.encode_texts(texts))
            if frames:
                own = columns[rows]
                shown = VideoBatch(videos.frames[own], videos.mask[own], self._pad)
                liked.append(scale * matching_frame_scores(head, texts, shown))
        encoded = head.encode_videos(videos)
        scores = scale * head.score(head.bind_best(pad_codes(codes), encoded), encoded).float()
        return scores, torch.cat(liked) if liked else None

    def loss(
        self, contrastive: Tensor, scores: Tensor, weighed: Code, step: Step, data: Resident
    ) -> Tensor:
        """Returns the student's loss with the terms of this teacher."""
        theirs, liked = self.score_batch(step, data, frames=bool(weighed))
        relation = relation_term(scores.float(), theirs)
        if liked is None:
            return distillation_loss(contrastive, relation, None, self.weights)
        logits, mask = weighed
        own = torch.from_numpy(step.columns).to(mask.device)
        frames = frame_term(logits[own].float(), liked, mask[own])
        return distillation_loss(contrastive, relation, frames, self.weights)


def encode_student(head: Head, videos: VideoBatch) -> Code:
    """Returns the code of the videos, and behind it the logits and the mask of their frames.

    Both count videos along the first axis, as the parts of any code do: they travel through batches
    in parts and between processes like them. `split_student` takes them off again.
    """
    if not isinstance(head, WeighsFrames):
        return head.encode_videos(videos)
    code, logits = head.encode_with_weights(videos)
    return (*code, logits, videos.mask)


def split_student(head: Head, code: Code) -> tuple[Code, Code]:
    """Returns the code that the head scores, and what `encode_student` added; () where nothing."""
    if not isinstance(head, WeighsFrames):
        return code, ()
    return code[:-_PARTS], code[-_PARTS:]


def load_teacher(folder: Path, store: FeatureStore, backbone: Backbone) -> Run:
    """Loads a run that shall teach, of the student's store, sampler and text model.

    What an imported run does not say is not checked, but for the model's weights and sizes.
    """
    try:
        run = load_run(folder)
    except ConfigError as error:
        raise ConfigError(f"--teacher: {error}") from None
    run.check_store(store)
    features = run.section("features")
    for what, theirs, ours in (
        ("frames of the sampler", features.get("sampler"), store.sampler),
        ("a store with the fingerprint", features.get("fingerprint"), store.fingerprint),
        ("a text model with the weights", run.text_sha256, backbone.weights_sha256),
    ):
        if theirs is not None and theirs != ours:
            raise ConfigError(
                f"the teacher {run.folder} was trained on {what} {_short(theirs)}, this training "
                f"uses {_short(ours)}: a teacher must see what its student sees. Train the teacher "
                "from this store and with this model, or give its --features, --sampler and --model"
            )
    return run


def _short(value: object) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text


def describe_teacher(run: Run) -> dict[str, Any]:
    """Returns what the student's `config.json` says of its teacher."""
    return {
        "folder": str(run.folder),
        "head": run.spec.head,
        "text": run.spec.text.mode,
        "epoch": run.epoch,
        "weights_sha256": file_sha256(run.folder / BEST),
        "distill": asdict(DistillWeights()),
    }
