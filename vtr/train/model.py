"""What is trained: a text tower, a head, a scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vtr.clip.backbone import Backbone
from vtr.errors import ConfigError
from vtr.train.headlist import HeadChoice, build_head, parse_head
from vtr.train.heads.base import Code, Head, TextBatch, VideoBatch
from vtr.train.heads.meanP import MeanPooling
from vtr.train.lora import adapt
from vtr.train.text_tower import (
    FrozenText,
    TextSpec,
    TextTower,
    TunedText,
    build_text_tower,
    load_text_layers,
)
from vtr.train.vision_tower import PictureBatch, TunedVision, VisionSpec, load_vision_layers

CLIP_LOGIT_SCALE = math.log(100.0)
MAX_LOGIT_SCALE = math.log(100.0)


@dataclass(frozen=True)
class ModelSpec:
    """Everything needed to build a model again, up to its weights."""

    head: str  # Label of the head, as `--head` takes it
    dim: int  # D, size of the frames' features
    text: TextSpec  # The text tower
    temperature: float | None = None  # Fixed temperature of the loss; None learns the scale
    vision: VisionSpec | None = None  # The trained vision tower; None reads stored features
    lora: int = 0  # Rank of the updates that are trained in the towers' place; 0 trains them
    bias: bool = False  # Whether training adds a learned bias to its logits: `--loss sigmoid`

    def __post_init__(self) -> None:
        if self.temperature is not None and not 1e-4 <= self.temperature <= 100:
            raise ConfigError(
                f"the temperature is {self.temperature}; allowed: 0.0001 to 100, such as 0.07"
            )
        if self.text.video_dim != self.dim:
            raise ConfigError(
                f"the model's frames have {self.dim} dimensions (dim), its texts are mapped to "
                f"{self.text.video_dim} (text.video_dim): they must be equal"
            )

    @property
    def choice(self) -> HeadChoice:
        """The head with its options."""
        return parse_head(self.head)


class RetrievalModel(nn.Module):
    """Scores texts against videos; `logit_scale` is the logarithm of a factor (CLIP: ln 100).

    >>> import vtr
    >>> run = vtr.load_run("demo-world/runs/meanP")
    >>> run.model.head.info.cost
    'one inner product'
    """

    def __init__(
        self,
        text_tower: TextTower,
        head: Head,
        logit_scale: float = CLIP_LOGIT_SCALE,
        *,
        learn_scale: bool = True,
        vision: TunedVision | None = None,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.text_tower = text_tower
        self.vision = vision
        self.head = head
        self.logit_scale = nn.Parameter(torch.tensor(float(logit_scale)), requires_grad=learn_scale)
        self.logit_bias = nn.Parameter(torch.zeros(())) if bias else None
        if not head.info.scaled:
            self.logit_scale.requires_grad_(False)

    @property
    def scaled(self) -> bool:
        """Whether the scale multiplies the head's scores."""
        return self.head.info.scaled

    def encode_texts(self, texts: TextBatch) -> Code:
        """Returns the texts' part of the score."""
        return self.head.encode_texts(self.text_tower(texts))

    def encode_videos(self, videos: VideoBatch | PictureBatch) -> Code:
        """Returns the videos' part of the score."""
        return self.head.encode_videos(self.embed_videos(videos))

    def embed_videos(self, videos: VideoBatch | PictureBatch) -> VideoBatch:
        """Returns videos as the head reads them; those that are embedded already as they are."""
        if isinstance(videos, VideoBatch):
            return videos
        assert self.vision is not None  # pictures come from data made for a vision tower
        embedded: VideoBatch = self.vision(videos)
        return embedded

    def compute(self, *, short: bool, checkpointing: bool) -> None:
        """Says how trained towers compute in training: see `TextTower`."""
        self.text_tower.short, self.text_tower.checkpointing = short, checkpointing
        if self.vision is not None:
            self.vision.short, self.vision.tower.checkpointing = short, checkpointing

    def scale(self) -> Tensor:
        """Returns the factor on the head's scores; 1 for heads whose scores are logits."""
        return self.logit_scale.exp() if self.scaled else torch.ones_like(self.logit_scale)

    def training_logits(self, texts: Code, videos: Code) -> Sequence[tuple[float, Tensor]]:
        """Returns weighted (N, V) float32 logits: `Head.training_terms` with scale and bias."""
        terms = [
            (weight, scores.float()) for weight, scores in self.head.training_terms(texts, videos)
        ]
        if self.scaled:
            scale = self.logit_scale.exp()
            terms = [(weight, scale * scores) for weight, scores in terms]
        if self.logit_bias is None:
            return terms
        return [(weight, scores + self.logit_bias) for weight, scores in terms]

    @torch.no_grad()
    def clamp_scale(self) -> None:
        """Keeps the scale at 100 or below, as CLIP does after every step; SigLIP does not."""
        if self.logit_bias is None:
            self.logit_scale.clamp_(max=MAX_LOGIT_SCALE)


def zero_shot_model(logit_scale: float = CLIP_LOGIT_SCALE) -> RetrievalModel:
    """Returns the model that has nothing to train: frozen text against the mean of the frames.

    >>> import vtr
    >>> vtr.zero_shot_model().head.info.indexable
    True
    """
    return RetrievalModel(FrozenText(), MeanPooling(), logit_scale).eval()


def build_model(
    spec: ModelSpec, *, backbone: Backbone | None = None, seed: int = 0
) -> RetrievalModel:
    """Returns the untrained model, in evaluation mode on the CPU.

    Without the backbone whose weights it starts from, a tuned text tower and heads that copy CLIP's
    layers hold random values: a checkpoint is loaded next.
    """
    clip = None if backbone is None else backbone.model
    head = build_head(spec.choice, dim=spec.dim, clip=clip, seed=seed)
    tower = build_text_tower(spec.text, seed=seed)
    if backbone is not None and isinstance(tower, TunedText):
        load_text_layers(tower, backbone)
    scale = CLIP_LOGIT_SCALE
    if spec.temperature is not None:
        scale = -math.log(spec.temperature)
    elif backbone is not None:
        scale = backbone.logit_scale
    vision = None if spec.vision is None else TunedVision(spec.vision)
    if backbone is not None and vision is not None:
        load_vision_layers(vision, backbone)
    for part in (tower, vision):
        if spec.lora and isinstance(part, TunedText | TunedVision):
            adapt(part, spec.lora, seed=seed)
    return RetrievalModel(
        tower, head, scale, learn_scale=spec.temperature is None, vision=vision, bias=spec.bias
    ).eval()


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Returns (all parameters, those that are trained)."""
    parameters = list(model.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    return sum(p.numel() for p in parameters), trained
