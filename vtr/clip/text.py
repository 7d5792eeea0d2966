"""From a caption to token ids, by the rules each family of models was trained with.

The rules are written out here instead of being left to each repository's tokeniser settings,
because those have been wrong in ways nobody saw: SigLIP without padding to its full length loses
most of its accuracy (mteb #1424), SigLIP 2 wants lower case (transformers #43101), and CLIP's
embedding is read at the end-of-text token, which naive truncation cuts off (torchmetrics #2883).
Only the vocabulary and its merges come from the folder.
"""

from __future__ import annotations

import html
import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Regex, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as BackendTokenizer

from vtr.clip.hub import read_if_there
from vtr.errors import CheckpointError, ModelError
from vtr.foreign import shown

_BLANKS = str.maketrans(string.punctuation, " " * len(string.punctuation))
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


def clean_videoprism(text: str) -> str:
    """Returns the text in lower case, blanks for ASCII punctuation, and a period at its end.

    Source: google-deepmind/videoprism, `canonicalize_text` in utils.py, which its `tokenize_texts`
    calls; transformers' tokeniser leaves it out.

    >>> clean_videoprism("  Hello,World.. ")
    'hello world.'
    """
    return f"{' '.join(text.translate(_BLANKS).lower().split())}."


def keep_text(text: str) -> str:
    """Returns the text as it is: such vocabularies bring their own normalisation."""
    return text


@dataclass(frozen=True)
class TextRules:
    """How one family turns a text into token ids."""

    clean: Callable[[str], str]  # Applied to the raw text
    begin: str | None  # The token that leads a text, where the folder names none
    end: str | None  # The token that ends a text
    pad: str  # The token that fills a batch
    # SigLIP reads its embedding at the last position, whatever stands there; CLIP at the
    # end-of-text token, behind which nothing counts.
    pads_to_full_length: bool = False
    # CLIP reads its embedding at the first end-of-text token, old configurations at the largest
    # id: 0 behind it disturbs neither, whatever the folder's own padding token is.
    pads_with_zero: bool = False
    most_tokens: int | None = None  # That it was trained with, where there are more positions
    name: str = ""  # Of rules that the family does not tell


_CLIP = TextRules(
    clean_clip, "<|startoftext|>", "<|endoftext|>", "<|endoftext|>", pads_with_zero=True
)
BERT = TextRules(keep_text, "[CLS]", "[SEP]", "[PAD]")
_XLM_R = TextRules(keep_text, "<s>", "</s>", "<pad>")
TEXT_RULES = {
    "clip": _CLIP,
    "siglip": TextRules(clean_siglip, None, "</s>", "</s>", pads_to_full_length=True),
    "siglip2": TextRules(clean_siglip2, None, "<eos>", "<pad>", pads_to_full_length=True),
    "metaclip_2": _XLM_R,
    "chinese_clip": replace(BERT, most_tokens=52),
    "altclip": replace(_XLM_R, most_tokens=77),
    "align": replace(BERT, most_tokens=64),
    "aimv2": _CLIP,
    "xclip": _CLIP,
    "videoprism": TextRules(
        clean_videoprism, None, None, "<pad>", pads_to_full_length=True, name="canonical"
    ),
}
"""By family: `model_type` of config.json, but for SigLIP 2, whose fixed sizes say `siglip`.

Sources of the lengths: Chinese-CLIP's and AltCLIP's own code, transformers' AlignProcessor.
"""


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
    eos_id: int | None  # End of text, always kept under truncation; likewise
    pad_id: int  # Fills a batch
    largest_id: int  # Of the whole vocabulary

    def encode(self, texts: Sequence[str]) -> Tokens:
        """Returns the ids of each text; an empty text is begin and end alone."""
        # A lone surrogate (half an emoji, from broken JSON) is not Unicode: it becomes "?".
        cleaned = [
            self.rules.clean(text.encode("utf-8", "replace").decode("utf-8")) for text in texts
        ]
        encodings = self.backend.encode_batch(cleaned, add_special_tokens=False)
        head, tail = ([] if one is None else [one] for one in (self.bos_id, self.eos_id))
        room = self.max_length - len(head) - len(tail)
        ids = [[*head, *encoding.ids[:room], *tail] for encoding in encodings]
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


def require_family(folder: Path, model_type: str) -> None:
    """Raises ModelError where a `model_type` is none of ours; says which are."""
    if model_type in (*TEXT_RULES, "siglip"):
        return
    alone = " (one tower alone)" if model_type.endswith(("_vision_model", "_text_model")) else ""
    raise ModelError(
        f"{folder}: model_type {shown(model_type, 60)!r}{alone} is not supported; vtr knows "
        f"{', '.join(TEXT_RULES)}, and folders of open_clip. `vtr models` lists models of each"
    )


def text_family(folder: Path, model_type: str) -> str:
    """Returns which text rules apply: a key of `TEXT_RULES`.

    SigLIP 2 at a fixed size says `siglip` in config.json; only its tokeniser tells it apart.
    """
    require_family(folder, model_type)
    if model_type != "siglip":
        return model_type
    if not (folder / "tokenizer.json").is_file():
        raise _no_vocabulary(folder)
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
    rules = TEXT_RULES[family]
    return build_tokeniser(folder, rules, max_length=max_length, vocab_size=vocab_size)


def build_tokeniser(
    folder: Path, rules: TextRules, *, max_length: int, vocab_size: int
) -> Tokeniser:
    """Reads a vocabulary under given rules."""
    backend = _load_backend(folder, rules)
    backend.no_padding()
    backend.no_truncation()
    plain = backend.get_vocab(with_added_tokens=False)
    # Sentencepiece vocabularies of T5 bring <extra_id_0> and so on, which no cleaned text holds.
    reachable = {
        token: number
        for token, number in backend.get_vocab().items()
        if number < vocab_size or token in plain or rules.clean(token) == token
    }
    largest_id = max(reachable.values(), default=-1)
    if largest_id >= vocab_size:
        raise CheckpointError(
            f"{folder}: the tokeniser has ids up to {largest_id}, the model's embedding table only "
            f"{vocab_size} rows: they do not belong together"
        )
    settings = _settings(folder)
    defaults = {"bos_token": rules.begin, "eos_token": rules.end, "pad_token": rules.pad}
    special = {
        name: _special_id(backend, settings.get(name) or default, name, folder)
        for name, default in defaults.items()
        if default is not None
    }
    return Tokeniser(
        backend=backend,
        rules=rules,
        max_length=min(max_length, rules.most_tokens or max_length),
        bos_id=special.get("bos_token"),
        eos_id=special.get("eos_token"),
        pad_id=0 if rules.pads_with_zero else special["pad_token"],
        largest_id=largest_id,
    )


def _settings(folder: Path) -> dict[str, Any]:
    return read_if_there(folder / "tokenizer_config.json", needed="a tokeniser's settings")


def _load_backend(folder: Path, rules: TextRules) -> BackendTokenizer:
    path = folder / "tokenizer.json"
    if path.is_file():
        try:
            return BackendTokenizer.from_file(str(path))
        except Exception as error:  # noqa: BLE001  (the Rust library raises bare Exception)
            raise CheckpointError(f"{path} cannot be read: {error}") from None
    if rules.end == _CLIP.end and (folder / "vocab.json").is_file():
        return _from_vocabulary(folder)
    if rules.begin == BERT.begin and (folder / "vocab.txt").is_file():
        return _from_words(folder)
    raise _no_vocabulary(
        folder, " (nor vocab.json and merges.txt)" if rules.end == _CLIP.end else ""
    )


def _no_vocabulary(folder: Path, others: str = "") -> CheckpointError:
    slow = sorted(path.name for path in folder.glob("*.model"))
    return CheckpointError(
        f"{folder} has no tokenizer.json{others}"
        + (f" but {slow[0]}, which needs sentencepiece" if slow else "")
        + f". Make it once, with transformers{' and sentencepiece' if slow else ''} installed: "
        'python -c "from transformers import AutoTokenizer as T; '
        "T.from_pretrained('DIR').save_pretrained('DIR')\""
    )


def _from_words(folder: Path) -> BackendTokenizer:
    """BERT's list of word pieces, one a line, split as its tokenizer.json would have it."""
    settings = _settings(folder)
    try:
        lines = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
        vocabulary = {line.rstrip("\r"): number for number, line in enumerate(lines) if line}
        backend = BackendTokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    except Exception as error:  # noqa: BLE001  (the Rust library raises bare Exception)
        raise CheckpointError(f"{folder}: vocab.txt is damaged: {error}") from None
    backend.add_special_tokens(
        [t for t in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if t in vocabulary]
    )
    backend.normalizer = normalizers.BertNormalizer(
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
        strip_accents=settings.get("strip_accents"),
        lowercase=settings.get("do_lower_case", True),
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return backend


def _from_vocabulary(folder: Path) -> BackendTokenizer:
    """CLIP's older pair of files: the same splitting as its tokenizer.json has."""
    end, files = str(_CLIP.end), [str(folder / name) for name in ("vocab.json", "merges.txt")]
    try:
        pairs = models.BPE.from_file(*files, end_of_word_suffix="</w>", unk_token=end)
        backend = BackendTokenizer(pairs)
        backend.add_special_tokens([str(_CLIP.begin), end])
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
