"""The shape, the tokenizer and the files of the tiny CLIP; `train` fills in the weights.

A genuine `transformers.CLIPModel` with CLIP's own kind of tokenizer (byte-level byte-pair encoding,
learned from the words of the captions), so whatever works with it works with the large ones.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from transformers import CLIPConfig, CLIPTokenizer

from tools.demo_clip.grammar import vocabulary

IMAGE_SIZE = 48
CONTEXT_LENGTH = 32
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
_BOS, _EOS = "<|startoftext|>", "<|endoftext|>"


def build_tokenizer() -> CLIPTokenizer:
    """Returns the tokenizer: every word of the captions is one token, any other text is bytes."""
    merges = learn_merges(vocabulary())
    letters = _byte_letters()
    symbols = [*letters, *(letter + "</w>" for letter in letters)]
    symbols += ["".join(pair) for pair in merges]
    vocab = {symbol: index for index, symbol in enumerate([*symbols, _BOS, _EOS])}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=CONTEXT_LENGTH)


def learn_merges(words: Sequence[str]) -> list[tuple[str, str]]:
    """Returns byte-pair merges, in order, after which each of `words` is a single symbol.

    The most frequent pair first, ties in the alphabetical order of the pairs (Sennrich et al.
    2016, algorithm 1, each word counted once).

    >>> learn_merges(["ab", "b"])
    [('a', 'b</w>')]
    """
    splits = {word: [*word[:-1], word[-1] + "</w>"] for word in words}
    merges = []
    while pairs := Counter(pair for s in splits.values() for pair in pairwise(s)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        splits = {word: _merged(symbols, best) for word, symbols in splits.items()}
    return merges


def _merged(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    result: list[str] = []
    for symbol in symbols:
        if result and (result[-1], symbol) == pair:
            result[-1] += symbol
        else:
            result.append(symbol)
    return result


def _byte_letters() -> list[str]:
    """Returns the 256 printable letters that stand for bytes, in CLIP's order.

    Printable Latin-1 characters stand for themselves; the rest are shifted to 256 and up.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + rank) for rank in range(len(others))]


def build_config(tokenizer: CLIPTokenizer) -> CLIPConfig:
    """Returns the architecture."""
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    width = {"hidden_size": 96, "intermediate_size": 384, "num_attention_heads": 3}
    common: dict[str, Any] = {**width, "hidden_act": "quick_gelu", "projection_dim": 96}
    return CLIPConfig(
        text_config={
            **common,
            **special,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": CONTEXT_LENGTH,
            "num_hidden_layers": 2,
        },
        vision_config={
            **common,
            "image_size": IMAGE_SIZE,
            "patch_size": 8,
            "num_hidden_layers": 3,
        },
        projection_dim=common["projection_dim"],
    )


def preprocessor_record() -> dict[str, Any]:
    """Returns `preprocessor_config.json`: CLIP's own, at our size."""
    return {
        "crop_size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": list(_MEAN),
        "image_processor_type": "CLIPImageProcessor",
        "image_std": list(_STD),
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"shortest_edge": IMAGE_SIZE},
    }


def write_preprocessor(folder: Path) -> None:
    """Writes `preprocessor_config.json` into `folder`."""
    text = json.dumps(preprocessor_record(), indent=2) + "\n"
    (folder / "preprocessor_config.json").write_text(text, encoding="utf-8")
