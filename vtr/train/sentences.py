"""The text side of a run as a folder that sentence-transformers loads, built of its own modules.

    Transformer (the text tower) -> Dense (CLIP's projection) -> [Dense, Dense (`--text
    projection`)] -> Normalize

That library imports no classes of others without trust_remote_code, so that none of vtr's are
named. The residual of `--text projection`, u + m(u), goes through its hidden layer: exact GELU has
gelu(u) - gelu(-u) = u. Cleaning before the split into tokens goes into tokenizer.json, as far as
single letters go (`_REPAIRED`): mojibake is repaired by vtr alone.

Needs the extra `vtr[sentence-transformers]`. The folder is compared with vtr before it is kept.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, normalizers, processors
from torch import Tensor, nn

from vtr.clip.backbone import Backbone
from vtr.clip.encoders import huggingface_names
from vtr.clip.families import quiet_transformers
from vtr.clip.text import Tokeniser, clean_canonical, clean_clip, clean_siglip, clean_siglip2
from vtr.clip.text import clean_whitespace as clean_spaces
from vtr.clip.towers import TextTower
from vtr.errors import CheckpointError, ConfigError, ModelError
from vtr.extras import require_extra
from vtr.progress import note
from vtr.train.data import ResidentTexts
from vtr.train.model import ModelSpec, RetrievalModel
from vtr.train.text_tower import ProjectedText
from vtr.train.texts import embed_for
from vtr.train.towers import merged

FOLDER = "text"
SETTINGS = "config_sentence_transformers.json"
FILES = (FOLDER, "modules.json", SETTINGS)
TOLERANCE = 1e-5
_EXAMPLES = (
    "a man is cooking", "", "  Two  DOGS, running!", "\u201cit\u2019s\u201d a \ufb01sh &amp; a cat",
    "word " * 200,
)  # fmt: skip


def require_sentence_transformers() -> None:
    """Refuses to begin without the package of the extra."""
    who = "the export for sentence-transformers"
    require_extra("sentence-transformers", ["sentence_transformers"], who, needs="that package")


def export_sentences(
    backbone: Backbone, model: RetrievalModel, spec: ModelSpec, folder: Path
) -> float:
    """Writes `modules.json` and the modules: `SentenceTransformer(folder).encode(sentences)`.

    The vectors have unit length: their inner products are the cosines that one-vector heads take.
    The backbone is in float32 on the CPU. What is in the folder already stays.

    Returns:
        The largest difference from vtr's own vectors, over sentences that need cleaning too.
    """
    require_sentence_transformers()
    if model.head.info.needs_tokens:
        raise ConfigError(
            f"the head {spec.head} compares the words of a text one by one: it has no text vector "
            "for sentence-transformers. Heads that have one: vtr heads"
        )
    if not model.head.info.indexable:
        note(f"the head {spec.head} does more with these vectors than an inner product")
    tower = merged(model, backbone).model.text if spec.text.mode == "tune" else backbone.model.text
    if type(tower) is not TextTower or backbone.tokeniser.rules.clean not in _CLEANING:
        raise ModelError(
            f"the text tower of {backbone.model_id} ({backbone.architecture.family}) is none that "
            "transformers runs as it is; sentence-transformers gets those of CLIP and SigLIP"
        )
    with quiet_transformers():
        source = folder / FOLDER
        _write_tower(tower, backbone, source)
        library: Any = import_module("sentence_transformers")
        built = library.SentenceTransformer(modules=_modules(tower, model, source), device="cpu")
        shutil.rmtree(source)
        built.save(str(source), create_model_card=False)
        _move(source, folder)
        loaded = library.SentenceTransformer(str(folder), device="cpu")
        found = loaded.encode(list(_EXAMPLES), show_progress_bar=False)
    difference = float(np.abs(found - text_vectors(backbone, model, spec, _EXAMPLES)).max())
    if not difference <= TOLERANCE:
        raise CheckpointError(
            f"sentence-transformers' vectors differ from vtr's by {difference:.3g}, more than "
            f"{TOLERANCE:g}; nothing was kept. Another version of it may do better"
        )
    return difference


def text_vectors(
    backbone: Backbone, model: RetrievalModel, spec: ModelSpec, texts: Sequence[str]
) -> np.ndarray:
    """Returns (N, D) float32: vtr's unit text vectors of a model."""
    features = ResidentTexts(embed_for(spec, backbone, texts), torch.device("cpu"))
    with torch.inference_mode():
        batch = model.text_tower(features.batch(np.arange(len(texts))))
        unit: np.ndarray = nn.functional.normalize(batch.pooled, dim=-1).numpy()
    return unit


# ---- the tower


def _write_tower(tower: TextTower, backbone: Backbone, folder: Path) -> None:
    """Writes the tower alone as a folder of transformers, its projection not among it for CLIP."""
    import transformers

    sizes, words = tower.sizes, backbone.tokeniser
    common = {
        "vocab_size": tower.token_embedding.num_embeddings,
        "hidden_size": sizes.width,
        "intermediate_size": sizes.mlp_width,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "max_position_embeddings": len(tower.positions),
        "hidden_act": sizes.activation,
        "layer_norm_eps": sizes.epsilon,
        "bos_token_id": words.bos_id,
        "eos_token_id": tower.end_id if tower.causal else words.eos_id,
        "pad_token_id": words.eos_id if tower.causal else words.pad_id,
    }
    size = tower.projection.out_features
    network: Any
    if tower.causal:
        network = inside = transformers.CLIPTextModel(
            transformers.CLIPTextConfig(**common, projection_dim=size)
        )
    else:
        # Its AutoModel knows SigLIP's text tower only beside a vision tower: here one of a pixel.
        speck = dict.fromkeys(("hidden_size", "intermediate_size", "num_attention_heads"), 1)
        speck |= dict.fromkeys(("num_hidden_layers", "image_size", "patch_size"), 1)
        text = {**common, "projection_size": size}
        network = transformers.SiglipModel(
            transformers.SiglipConfig(text_config=text, vision_config=speck)
        )
        inside = network.text_model
        folder.mkdir()
        names = {
            "image_processor_type": "SiglipImageProcessor",
            "processor_class": "SiglipProcessor",
        }
        (folder / "preprocessor_config.json").write_text(json.dumps(names))
    state = {f"text.{name}": value for name, value in tower.state_dict().items()}
    named = huggingface_names(state, causal=tower.causal)
    inside.load_state_dict(
        {n.removeprefix("text_model."): v for n, v in named.items() if "text_model." in n}
    )
    network.save_pretrained(folder)
    _words(words, causal=tower.causal).save_pretrained(folder)


def _modules(tower: TextTower, model: RetrievalModel, source: Path) -> list[Any]:
    library: Any = import_module("sentence_transformers.sentence_transformer.modules")
    kwargs: dict[str, Any] = {} if tower.causal else {"text": {"padding": "max_length"}}
    method = "forward" if tower.causal else "get_text_features"
    first = library.Transformer(
        str(source),
        modality_config={"text": {"method": method, "method_output_name": "pooler_output"}},
        module_output_name="sentence_embedding",
        processing_kwargs=kwargs,
    )
    modules = [first]
    if tower.causal:
        modules.append(_dense(tower.projection.weight, None, nn.Identity()))
    if isinstance(text := model.text_tower, ProjectedText):
        modules += [library.Normalize(), *_projection(text)]
    return [*modules, library.Normalize()]


def _projection(text: ProjectedText) -> list[Any]:
    """Returns u + m(u) of a unit vector u / sqrt(d) as two layers; see the module."""
    size = text.inner.in_features
    weights: Tensor = text.inner.weight
    bias: Tensor = text.inner.bias
    outer: Tensor = text.outer.weight
    if text.residual:
        one = torch.eye(size)
        weights = torch.cat([weights, one, -one])
        bias = torch.cat([bias, torch.zeros(2 * size)])
        outer = torch.cat([outer, one, -one], dim=1)
    return [
        _dense(weights * math.sqrt(size), bias, nn.GELU()),
        _dense(outer, text.outer.bias, nn.Identity()),
    ]


def _dense(weight: Tensor, bias: Tensor | None, activation: nn.Module) -> Any:
    library: Any = import_module("sentence_transformers.sentence_transformer.modules")
    return library.Dense(
        weight.shape[1],
        weight.shape[0],
        bias=bias is not None,
        activation_function=activation,
        init_weight=weight.detach().clone().float(),
        init_bias=None if bias is None else bias.detach().clone().float(),
    )


def _move(source: Path, folder: Path) -> None:
    """Moves what says how to load the modules up: the folder's config.json is the run's."""
    modules = json.loads((source / "modules.json").read_text())
    for entry in modules:
        entry["path"] = f"{FOLDER}/{entry['path']}".rstrip("/")
    (source / "modules.json").unlink()
    (folder / "modules.json").write_text(json.dumps(modules, indent=2))
    (source / SETTINGS).rename(folder / SETTINGS)


# ---- the words


def _words(tokeniser: Tokeniser, *, causal: bool) -> Any:
    """Returns the tokeniser as transformers', which cleans texts as vtr does."""
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer.from_str(tokeniser.backend.to_str())
    clean = _CLEANING[tokeniser.rules.clean]()
    backend.normalizer = normalizers.Sequence(
        [*clean, *([backend.normalizer] if backend.normalizer else [])]
    )
    ends = {
        "bos_token": tokeniser.bos_id,
        "eos_token": tokeniser.eos_id,
        # CLIP's is looked up as a word of its own in every text: its 0 would be a letter.
        "pad_token": tokeniser.eos_id if causal else tokeniser.pad_id,
    }
    names = {key: backend.id_to_token(i) for key, i in ends.items() if i is not None}
    begin = f"{names['bos_token']} " if "bos_token" in names else ""
    backend.post_processor = processors.TemplateProcessing(
        single=f"{begin}$A {names['eos_token']}",
        special_tokens=[(names[k], ends[k]) for k in ("bos_token", "eos_token") if k in names],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=tokeniser.max_length,
        # SigLIP was trained without a mask: padding is seen.
        model_input_names=["input_ids", "attention_mask"] if causal else ["input_ids"],
        **names,
    )


_ENTITIES = (
    ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&#39;", "'"), ("&nbsp;", " "),
)  # fmt: skip
# Of what ftfy does to single letters: quotes, ligatures, controls, line ends.
_REPAIRED = (
    *range(0x20), 0x7F, 0x132, 0x133, 0x149, *range(0x1C4, 0x1CD), *range(0x1F1, 0x1F4), 0x2BC,
    *range(0x2018, 0x2020), 0x2028, 0x2029, *range(0xFB00, 0xFB07), 0xFEFF,
)  # fmt: skip


@cache
def _repairs() -> tuple[tuple[str, str], ...]:
    """Returns (letters as a class, what ftfy makes of each of them)."""
    from ftfy import fix_text

    made: dict[str, str] = defaultdict(str)
    for letter in map(chr, _REPAIRED):
        fixed = fix_text(f"a{letter}b")[1:-1]
        if fixed != unicodedata.normalize("NFC", letter):
            made[fixed] += re.escape(letter)
    return tuple((f"[{letters}]", fixed) for fixed, letters in made.items())


def _spaces() -> list[Any]:
    return [
        *(normalizers.Replace(Regex(letters), fixed) for letters, fixed in _repairs()),
        *(normalizers.Replace(*pair) for pair in (*_ENTITIES, *_ENTITIES)),  # as CLIP does: twice
        normalizers.NFC(),
        *_blanks(),
    ]


def _blanks() -> list[Any]:
    return [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]


def _plain() -> list[Any]:
    punctuation = normalizers.Replace(Regex(r"[!-/:-@\[-`{-~]"), "")
    return [normalizers.Lowercase(), punctuation, *_blanks()]


_CLEANING: dict[Callable[[str], str], Callable[[], list[Any]]] = {
    clean_clip: lambda: [*_spaces(), normalizers.Lowercase()],
    clean_spaces: _spaces,
    clean_siglip: _plain,
    clean_siglip2: lambda: [normalizers.Lowercase()],
    clean_canonical: lambda: [*_spaces(), normalizers.Replace("_", " "), *_plain()],
}
