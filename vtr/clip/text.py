"""From a caption to token ids, by the rules each family of models was trained with.

The rules are written out here instead of being left to each repository's tokeniser settings,
because those have been wrong in ways nobody saw: SigLIP without padding to its full length loses
most of its accuracy (mteb #1424), SigLIP 2 wants lower case (transformers #43101), and CLIP's
embedding is read at the end-of-text token, which naive truncation cuts off (torchmetrics #2883).
Only the vocabulary and its merges come from the folder.
"""

from __future__ import annotations

import html
import json
import re
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Regex, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as BackendTokenizer

from vtr.errors import CheckpointError, ModelError
from vtr.json_files import read_json

_PUNCTUATION = str.maketrans("", "", string.punctuation)
# Special tokens, contractions, words, single digits, the rest. Source: openai/CLIP
# clip/simple_tokenizer.py.
_CLIP_WORDS = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d"
    r"|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)


def clean_clip(text: str) -> str:
    r"""Returns the text as OpenAI's CLIP cleaned it before splitting into tokens.

    ftfy repairs (mojibake, curly quotes, ligatures), HTML entities resolved twice, white space
    collapsed, lower case. Source: openai/CLIP clip/simple_tokenizer.py; Hugging Face's tokeniser
    leaves the first two out.

    >>> clean_clip("  A man&amp;amp;woman \u201cdance\u201d ")
    'a man&woman "dance"'
    """
    return clean_whitespace(text).lower()


def clean_siglip(text: str) -> str:
    """Returns the text without ASCII punctuation, white space collapsed, in lower case.

    Source: google-research/big_vision, `canonicalize_text` in evaluators/proj/image_text.

    >>> clean_siglip(" Hello, World! ")
    'hello world'
    """
    return re.sub(r"\s+", " ", text.lower().translate(_PUNCTUATION)).strip()


def clean_siglip2(text: str) -> str:
    """Returns the text in lower case, nothing else (transformers #43101, big_vision #157).

    >>> clean_siglip2("A man, running")
    'a man, running'
    """
    return text.lower()


def clean_whitespace(text: str) -> str:
    """Returns the text as `clean_clip` does, in its own case (open_clip's "whitespace")."""
    from ftfy import fix_text

    return re.sub(r"\s+", " ", html.unescape(html.unescape(fix_text(text)))).strip()


def clean_canonical(text: str) -> str:
    """Returns the text as open_clip gives it to SigLIP (its "canonicalize").

    >>> clean_canonical("A snow_man &amp; a  dog!")
    'a snow man a dog'
    """
    return clean_siglip(clean_whitespace(text).replace("_", " "))


@dataclass(frozen=True)
class TextRules:
    """How one family turns a text into token ids."""

    clean: Callable[[str], str]  # Applied to the raw text
    starts_with_bos: bool  # Whether a begin-of-text token leads
    # SigLIP reads its embedding at the last position, whatever stands there; CLIP at the
    # end-of-text token, behind which nothing counts.
    pads_to_full_length: bool
    name: str = ""  # Of rules that the family does not tell


TEXT_RULES = {
    "clip": TextRules(clean_clip, starts_with_bos=True, pads_to_full_length=False),
    "siglip": TextRules(clean_siglip, starts_with_bos=False, pads_to_full_length=True),
    "siglip2": TextRules(clean_siglip2, starts_with_bos=False, pads_to_full_length=True),
}


@dataclass(frozen=True)
class Tokens:
    """Token ids of some texts."""

    ids: list[list[int]]  # One list per text, with begin and end tokens, not padded
    num_truncated: int  # How many texts did not fit and lost their tail


@dataclass(frozen=True)
class Tokeniser:
    """A vocabulary with its family's rules."""

    backend: BackendTokenizer  # Splits cleaned text into ids; adds no special tokens itself
    rules: TextRules  # The family's
    max_length: int  # The model's text length in tokens, begin and end included
    bos_id: int | None  # Begin of text, or None where the family has none
    eos_id: int  # End of text; always kept under truncation
    pad_id: int  # Fills a batch
    largest_id: int  # Of the whole vocabulary

    def encode(self, texts: Sequence[str]) -> Tokens:
        """Returns the ids of each text; an empty text is begin and end alone."""
        # A lone surrogate (half an emoji, from broken JSON) is not Unicode: it becomes "?".
        cleaned = [
            self.rules.clean(text.encode("utf-8", "replace").decode("utf-8")) for text in texts
        ]
        encodings = self.backend.encode_batch(cleaned, add_special_tokens=False)
        head = [] if self.bos_id is None else [self.bos_id]
        room = self.max_length - len(head) - 1
        ids = [[*head, *encoding.ids[:room], self.eos_id] for encoding in encodings]
        return Tokens(ids, sum(len(encoding.ids) > room for encoding in encodings))

    def pad(self, ids: Sequence[Sequence[int]]) -> np.ndarray:
        """Returns ids padded on the right: (B, L) int64, L the longest or what the family needs."""
        length = max(len(row) for row in ids)
        if self.rules.pads_to_full_length:
            length = self.max_length
        array = np.full((len(ids), length), self.pad_id, dtype=np.int64)
        for row, values in enumerate(ids):
            array[row, : len(values)] = values
        return array


def text_family(folder: Path, model_type: str) -> str:
    """Returns which text rules apply: a key of `TEXT_RULES`.

    SigLIP 2 at a fixed size says `siglip` in config.json; only its tokeniser tells it apart.
    """
    if model_type == "clip":
        return "clip"
    if model_type == "siglip2":
        raise ModelError(
            "this is a SigLIP 2 NaFlex model, which sees every picture at its own shape; vtr "
            "needs one fixed size. Use a fixed-size SigLIP 2, such as "
            "google/siglip2-base-patch16-224"
        )
    if model_type != "siglip":
        raise ModelError(
            f"model_type {model_type!r} is not supported: vtr knows the text rules of "
            f"{', '.join(TEXT_RULES)}"
        )
    tokeniser = str(_settings(folder).get("tokenizer_class", "")).lower()
    if "gemma" in tokeniser or "siglip2" in tokeniser:
        return "siglip2"
    if "siglip" in tokeniser or "t5" in tokeniser:
        return "siglip"
    raise ModelError(
        f"{folder}: tokenizer_class {tokeniser!r} tells neither SigLIP (SiglipTokenizer) nor "
        "SigLIP 2 (GemmaTokenizer), and the two clean text differently. Write the right one into "
        "tokenizer_config.json"
    )


def load_tokeniser(folder: Path, *, family: str, max_length: int, vocab_size: int) -> Tokeniser:
    """Reads tokenizer.json, or CLIP's vocab.json and merges.txt, under the family's rules."""
    rules, special = TEXT_RULES[family], SPECIAL_TOKENS[family]
    return build_tokeniser(folder, rules, special, max_length=max_length, vocab_size=vocab_size)


def build_tokeniser(
    folder: Path,
    rules: TextRules,
    defaults: Mapping[str, str],
    *,
    max_length: int,
    vocab_size: int,
) -> Tokeniser:
    """Reads a vocabulary under given rules; `defaults` are special tokens that no file names."""
    end = defaults["eos_token"]
    backend = _load_backend(folder, has_pair=end == SPECIAL_TOKENS["clip"]["eos_token"])
    backend.no_padding()
    backend.no_truncation()
    largest_id = max(backend.get_vocab().values(), default=-1)
    if largest_id >= vocab_size:
        raise CheckpointError(
            f"{folder}: the tokeniser has ids up to {largest_id}, the model's embedding table only "
            f"{vocab_size} rows: they do not belong together"
        )
    settings = _settings(folder)
    special = {
        name: _special_id(backend, settings.get(name) or defaults[name], name, folder)
        for name in ("bos_token", "eos_token", "pad_token")
        if name != "bos_token" or rules.starts_with_bos
    }
    return Tokeniser(
        backend=backend,
        rules=rules,
        max_length=max_length,
        bos_id=special.get("bos_token"),
        eos_id=special["eos_token"],
        # CLIP reads its embedding at the first end-of-text token, old configurations at the
        # largest id: 0 behind it disturbs neither, whatever the folder's own padding token is.
        pad_id=special["pad_token"] if rules.pads_to_full_length else 0,
        largest_id=largest_id,
    )


SPECIAL_TOKENS: Mapping[str, Mapping[str, str]] = {
    "clip": {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    },
    "siglip": {"eos_token": "</s>", "pad_token": "</s>"},
    "siglip2": {"eos_token": "<eos>", "pad_token": "<pad>"},
}


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        return {}
    return read_json(path, needed="a tokeniser's settings", error=CheckpointError)


def _load_backend(folder: Path, *, has_pair: bool) -> BackendTokenizer:
    path = folder / "tokenizer.json"
    if path.is_file():
        try:
            return BackendTokenizer.from_file(str(path))
        except Exception as error:  # noqa: BLE001  (the Rust library raises bare Exception)
            raise CheckpointError(f"{path} cannot be read: {error}") from None
    if has_pair and (folder / "vocab.json").is_file():
        return _from_vocabulary(folder)
    raise CheckpointError(
        f"{folder} has no tokenizer.json"
        + (" (nor vocab.json and merges.txt)" if has_pair else "")
        + ". Load the tokeniser with transformers and save_pretrained it into the folder"
    )


def _from_vocabulary(folder: Path) -> BackendTokenizer:
    """CLIP's older pair of files: the same splitting as its tokenizer.json has."""
    try:
        vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
        lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
        pairs = [line.split(" ") for line in lines if line and not line.startswith("#ver")]
        merges = [(left, right) for left, right in pairs]
        end = SPECIAL_TOKENS["clip"]["eos_token"]
        backend = BackendTokenizer(
            models.BPE(vocab=vocabulary, merges=merges, end_of_word_suffix="</w>", unk_token=end)
        )
        backend.add_special_tokens([SPECIAL_TOKENS["clip"]["bos_token"], end])
    except Exception as error:  # noqa: BLE001  (the Rust library raises bare Exception)
        raise CheckpointError(f"{folder}: vocab.json or merges.txt is damaged: {error}") from None
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_CLIP_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    return backend


def _special_id(backend: BackendTokenizer, token: Any, name: str, folder: Path) -> int:
    content = token.get("content") if isinstance(token, dict) else token
    found = backend.token_to_id(str(content))
    if found is None:
        raise CheckpointError(f"{folder}: the {name} {content!r} is not in the vocabulary")
    return int(found)
