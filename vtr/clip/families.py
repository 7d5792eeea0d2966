"""Families whose towers transformers computes: what its classes and files are held to.

Nothing of it is drawn at random: keys, shapes and numbers are checked as for our own towers, and
code of a repository is never run. transformers is imported when such a model is loaded, and only
then.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vtr.clip.encoders import DualEncoder, undrawn
from vtr.clip.hub import ModelFolder
from vtr.clip.openai_names import require_fit
from vtr.clip.towers import Architecture, Sizes
from vtr.errors import CheckpointError

_SETTINGS = ("hidden_act", "layer_norm_eps", "num_attention_heads")
_RMS = ("hidden_act", "rms_norm_eps", "num_attention_heads", "qkv_bias", "mlp_bias")
_PRISM = (*_SETTINGS, "attn_logit_softcapping", "apply_l2norm")


@dataclass(frozen=True)
class Family:
    """What is known of one `model_type`."""

    model: str
    """The class of transformers."""
    vision_act: str
    """`hidden_act` of its vision tower: published models know no other."""
    text_act: str
    vision: tuple[str, ...] = _SETTINGS
    """What of `vision_config` decides numbers and does not show in weights."""
    text: tuple[str, ...] = _SETTINGS
    mask: str = ""
    """What a text tower is told to look at: "" nothing, "words" no padding, "causal"."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Patterns of names in published files, and what transformers calls them now."""
    pixels: str = ""
    """What a model that sees windows calls them; "" where it sees pictures."""
    sizes: str = "image_size"
    """What of `vision_config` says the side of a picture; "" where any is seen."""


# AIMv2's names as Apple publishes them (transformers' own conversion script knows the pairs).
_APPLE = {
    r"^image_encoder\.": "vision_model.", r"^text_encoder\.": "text_model.",
    r"^image_projector\.": "visual_projection.", r"^text_projector\.": "text_projection.",
    r"^log_logit_scale$": "logit_scale",
    r"\.preprocessor\.patchifier\.proj\.": ".embeddings.patch_embed.",
    r"\.preprocessor\.patchifier\.norm\.": ".embeddings.rms_norm.",
    r"\.preprocessor\.pos(ition)?(al)?_embed(ding)?$": ".embeddings.position_embedding.weight",
    r"\.preprocessor\.text_embedding\.": ".embeddings.token_embedding.",
    r"\.trunk\.post_trunk_norm\.": ".rms_norm.", r"\.trunk\.blocks\.": ".encoder.layers.",
    r"\.attn\.proj\.": ".attention.out_proj.", r"\.attn\.qkv\.": ".attention.qkv.",
    r"\.mlp\.fc1\.": ".ffn.gate_proj.", r"\.mlp\.fc2\.": ".ffn.down_proj.",
    r"\.mlp\.fc3\.": ".ffn.up_proj.", r"\.norm_([12])\.": r".rms_norm\1.",
    r"\.head\.([kv])\.": r".head.\1_proj.", r"\.head\.linear\.": ".head.output_proj.",
}  # fmt: skip
FAMILIES: Mapping[str, Family] = {
    "chinese_clip": Family("ChineseCLIPModel", "quick_gelu", "gelu", mask="words"),
    "altclip": Family(
        "AltCLIPModel", "quick_gelu", "gelu", mask="words", renamed={r"\.layer\.": ".layers."}
    ),
    "align": Family(
        "AlignModel", "swish", "gelu", mask="words", sizes="",
        vision=("hidden_act", "batch_norm_eps", "pooling_type", "strides", "depthwise_padding"),
    ),
    "aimv2": Family(
        "Aimv2Model", "silu", "silu", mask="causal", vision=(*_RMS, "is_native"), text=_RMS,
        renamed=_APPLE,
    ),
    "siglip2": Family("Siglip2Model", "gelu_pytorch_tanh", "gelu_pytorch_tanh", sizes=""),
    "xclip": Family(
        "XCLIPModel", "quick_gelu", "quick_gelu", pixels="pixel_values",
        vision=(*_SETTINGS, "mit_num_attention_heads", "num_frames"),
    ),
    "videoprism": Family(
        "VideoPrismClipModel", "gelu_python", "relu", mask="words", pixels="pixel_values_videos",
        vision=(*_PRISM, "num_frames", "tubelet_size"), text=_PRISM,
    ),
}  # fmt: skip


class _Part(nn.Module):
    def __init__(self, network: Any, settings: dict[str, Any]) -> None:
        super().__init__()
        self.network, self.settings = network, settings


class _Vision(_Part):
    temporal = False
    projection = None

    def __init__(self, network: Any, settings: dict[str, Any], *, windows: str) -> None:
        super().__init__(network, settings)
        self.windows = windows

    def forward(self, pixels: Tensor, beside: Tensor | None = None) -> Tensor:
        """Returns (B, D) from pixels (B, 3, h, w), windows (B, k, 3, h, w), or patches (B, P, C).

        Of patches `beside` are the grids (B, 2): rows and columns.
        """
        if self.windows:
            made = self.network.get_video_features(**{self.windows: pixels})
        elif beside is None:
            made = self.network.get_image_features(pixel_values=pixels)
        else:
            places = torch.arange(pixels.shape[1], device=pixels.device)
            made = self.network.get_image_features(
                pixel_values=pixels,
                pixel_attention_mask=(places < beside.prod(1)[:, None]).long(),
                spatial_shapes=beside,
            )
        embeddings: Tensor = made.pooler_output.flatten(1)  # VideoPrism pools to one token
        return embeddings


class _Text(_Part):
    clips = False

    def __init__(self, network: Any, settings: dict[str, Any], *, mask: str, pad: Any) -> None:
        super().__init__(network, settings)
        self.mask, self.pad = mask, pad

    def forward(self, ids: Tensor) -> Tensor:
        """Returns (B, D), not normalised, from (B, L) int64 ids."""
        length, mask = ids.shape[1], None
        if self.mask == "words":
            mask = torch.ne(ids, self.pad).long()
        elif self.mask == "causal":
            # Whole: of texts without padding transformers 5.23 drops AIMv2's mask, and with it
            # that a token sees none behind it.
            mask = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()
            mask = mask.expand(len(ids), 1, length, length)
        made = self.network.get_text_features(input_ids=ids, attention_mask=mask)
        embeddings: Tensor = made.pooler_output
        return embeddings


class FamilyEncoder(DualEncoder):
    """A model of transformers as two towers that can be run, and not be taken apart."""

    def __init__(self, model_type: str, network: Any) -> None:
        nn.Module.__init__(self)  # nothing of what `DualEncoder` builds
        family, config = FAMILIES[model_type], network.config
        vision, text = config.vision_config, config.text_config
        self.family, self.network = model_type, network
        self.visual: Any = _Vision(
            network, {k: getattr(vision, k) for k in family.vision}, windows=family.pixels
        )
        settings = {key: getattr(text, key) for key in family.text}
        self.text: Any = _Text(
            network, settings, mask=family.mask, pad=getattr(text, "pad_token_id", None)
        )
        self.logit_scale = nn.Parameter(_scale(network))

    def named_weights(self) -> dict[str, Tensor]:
        """Returns the weights under transformers' names."""
        state: dict[str, Tensor] = self.network.state_dict()
        return {name: value for name, value in state.items() if value.is_floating_point()}


def _scale(network: Any) -> Tensor:
    state: dict[str, Tensor] = network.state_dict()
    if "temperature" in state:
        return -state["temperature"].log()
    if "logit_scale" not in state:  # VideoPrism's files have none; heads start from CLIP's
        return torch.tensor(math.log(100.0))
    most = math.log(getattr(network.config, "max_logit_scale", math.inf))
    return state["logit_scale"].reshape(()).clamp(max=most)


def load_family(
    folder: ModelFolder, record: Mapping[str, Any], weights: Mapping[str, Tensor]
) -> tuple[FamilyEncoder, Architecture, str]:
    """Builds the model of a folder and fills it with weights; in float32, in evaluation mode.

    Raises:
        CheckpointError: Weights or configuration that contradict each other or what is known.
    """
    model_type = record["model_type"]
    family = FAMILIES[model_type]
    network = _build(folder, family, record, device="meta")
    _check_activation(folder, model_type, network.config)
    named = _renamed(weights, family)
    _check_keys(folder, network, named)
    network = _build(folder, family, record, device="cpu")
    network.load_state_dict(named, strict=False)
    encoder = FamilyEncoder(model_type, network)
    if not bool(encoder.logit_scale.isfinite()):
        raise CheckpointError(f"{folder.model_id}: the temperature is not above 0")
    return encoder.eval().requires_grad_(False), _architecture(folder, network), model_type


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keeps transformers from drawing bars and from warning of ids that a family does not use."""
    from transformers.utils import logging

    was_on, before = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if was_on:
            logging.enable_progress_bar()


def _build(folder: ModelFolder, family: Family, record: Mapping[str, Any], *, device: str) -> Any:
    """Returns the model of a configuration: without memory on "meta", else undrawn."""
    import transformers

    kind = getattr(transformers, family.model)
    try:
        with quiet_transformers(), torch.device(device), undrawn():
            return kind(kind.config_class.from_dict(_without_dtypes(record))).float()
    except Exception as error:  # noqa: BLE001  (whatever transformers says of sizes that do not fit)
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise CheckpointError(
            f"{folder.model_id}: transformers makes no {family.model} of config.json: "
            f"{' '.join(lines)[:300] or type(error).__name__}"
        ) from None


def _without_dtypes(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a configuration by which everything is made in float32, on this machine's ways."""
    return {
        key: _without_dtypes(value) if isinstance(value, Mapping) else value
        for key, value in record.items()
        if key not in ("dtype", "torch_dtype", "auto_map", "_attn_implementation")
    }


def _check_activation(folder: ModelFolder, model_type: str, config: Any) -> None:
    family = FAMILIES[model_type]
    for name, wanted in (("vision_config", family.vision_act), ("text_config", family.text_act)):
        found = getattr(config, name).hidden_act
        if found != wanted:
            raise CheckpointError(
                f"{folder.model_id}: config.json says {name}.hidden_act {found!r}, but "
                f"{model_type} was trained with {wanted!r}; with the wrong one the numbers are "
                "silently worse. Copy config.json from the original repository"
            )


def _renamed(weights: Mapping[str, Tensor], family: Family) -> dict[str, Tensor]:
    named: dict[str, Tensor] = {}
    for name, value in weights.items():
        for pattern, target in family.renamed.items():
            name = re.sub(pattern, target, name)
        if family.renamed is _APPLE and name.endswith("position_embedding.weight"):
            value = value.flatten(0, -2)  # has an axis of one more
        if family.renamed is _APPLE and ".qkv." in name and len(value) % 3 == 0:
            parts = zip("qkv", value.chunk(3), strict=True)
            named |= {name.replace(".qkv.", f".{one}_proj."): part for one, part in parts}
            continue
        named[name] = value
    return named


def _check_keys(folder: ModelFolder, network: Any, weights: Mapping[str, Tensor]) -> None:
    """Refuses weights that are missing, left over, misshapen or no numbers; names them all."""
    state = {n: tuple(v.shape) for n, v in network.state_dict().items() if v.is_floating_point()}
    counters = set(network.state_dict()) - set(state)  # of batches seen: no weights
    ignored = [*(network._keys_to_ignore_on_load_unexpected or ()), "position_ids$"]
    benign = [name for name in weights if any(re.search(one, name) for one in ignored)]
    known = [*counters, *benign]
    require_fit(folder.model_id, weights, state, source="config.json", benign=known)


def _architecture(folder: ModelFolder, network: Any) -> Architecture:
    """Returns the sizes of the model, of its towers those that both kinds have."""
    config, family = network.config, FAMILIES[network.config.model_type]
    vision, text = config.vision_config, config.text_config
    side = getattr(vision, family.sizes) if family.sizes else 0
    if isinstance(side, list | tuple) and len(set(side)) == 1:
        side = side[0]
    if not isinstance(side, int):
        raise CheckpointError(
            f"{folder.model_id}: config.json has vision_config.{family.sizes} {side!r:.80}; "
            "needed: one side of a square"
        )
    positions = text.max_position_embeddings
    if config.model_type == "altclip":  # RoBERTa's begin behind the padding
        positions -= text.pad_token_id + 1
    # X-CLIP reads its texts at the largest id, whatever the configuration says.
    end = 2 if config.model_type == "xclip" else text.eos_token_id
    return Architecture(
        family=config.model_type,
        vision=_sizes(folder, vision),
        text=_sizes(folder, text),
        dim=_dimension(folder, network),
        image_size=side,
        patch=getattr(vision, "patch_size", 0) or 0,
        vocabulary=text.vocab_size,
        context=positions,
        end_id=end if isinstance(end, int) else -1,
        pad_id=text.pad_token_id if family.mask == "words" else None,
    )


def _dimension(folder: ModelFolder, network: Any) -> int:
    """Returns D; refuses towers that end in another each."""
    config = network.config
    text = getattr(config.text_config, "projection_size", None)
    dim = vision = int(text or getattr(config, "projection_dim", config.text_config.hidden_size))
    if config.model_type == "align":
        vision = network.vision_model.encoder.blocks[-1].projection.project_bn.num_features
    elif config.model_type == "xclip":
        vision = config.vision_config.mit_hidden_size
    elif config.model_type in ("siglip2", "videoprism"):
        vision = config.vision_config.hidden_size
    if vision != dim:
        raise CheckpointError(
            f"{folder.model_id}: vision embeddings have {vision} dimensions, text ones {dim}"
        )
    return dim


def _sizes(folder: ModelFolder, tower: Any) -> Sizes:
    def number(name: str) -> int:
        return int(getattr(tower, name, 0) or 0)

    width, heads = number("hidden_size"), number("num_attention_heads")
    if hasattr(tower, "num_attention_heads") and (heads < 1 or width % heads):
        raise CheckpointError(
            f"{folder.model_id}: config.json has {tower.base_config_key}.num_attention_heads "
            f"{heads}, which does not divide hidden_size {width}"
        )

    epsilon = next((getattr(tower, k) for k in tower.to_dict() if k.endswith("_eps")), 0.0)
    return Sizes(
        width=width,
        layers=number("num_hidden_layers"),
        heads=heads,
        mlp_width=number("intermediate_size"),
        activation=tower.hidden_act,
        epsilon=float(epsilon),
    )
