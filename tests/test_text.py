"""Text rules: the reference's own ids, the end token under truncation, SigLIP's padding."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import write_words
from tokenizers import Tokenizer as BackendTokenizer
from tokenizers import normalizers

from vtr.clip.text import Tokeniser, clean_clip, load_tokeniser, text_family
from vtr.errors import CheckpointError, ModelError

GOLDEN = json.loads((Path(__file__).parent / "golden" / "clip_tokens.json").read_text())


def byte_characters() -> list[str]:
    """The 256 characters CLIP writes bytes with, in the order of its vocabulary."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(code) for code in printable] + [chr(256 + k) for k in range(256 - len(printable))]


@pytest.fixture(scope="module")
def openai_part(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The part of OpenAI's vocabulary that the golden texts use, in the older pair of files."""
    folder = tmp_path_factory.mktemp("openai")
    characters = byte_characters()
    vocabulary = {
        token: k for k, token in enumerate([*characters, *(c + "</w>" for c in characters)])
    }
    vocabulary |= {left + right: 512 + rank for rank, left, right in GOLDEN["merges"]}
    vocabulary |= {"<|startoftext|>": 49406, "<|endoftext|>": 49407}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    merges = [f"{left} {right}" for _, left, right in GOLDEN["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), "utf-8")
    return folder


def openai_tokeniser(folder: Path, max_length: int) -> Tokeniser:
    return load_tokeniser(folder, family="clip", max_length=max_length, vocab_size=49408)


def siglip_folder(folder: Path, tokeniser_class: str) -> Path:
    """A word-level stand-in for SigLIP's (</s> pads) and SigLIP 2's (<pad> pads) vocabularies."""
    special = (
        ["<pad>", "<eos>", "<bos>", "<unk>"] if "Gemma" in tokeniser_class else ["<unk>", "</s>"]
    )
    words = ["a", "man", "runs", "it", "s", "Man", "runs!", "runs,"]
    settings: dict[str, Any] = {"padding_side": "left"}
    if "Gemma" not in tokeniser_class:
        settings |= {"pad_token": {"content": "</s>"}, "eos_token": "</s>"}
    write_words(folder, special + words, kind=tokeniser_class, **settings)
    backend = BackendTokenizer.from_file(str(folder / "tokenizer.json"))
    backend.normalizer = normalizers.NFC()
    backend.enable_padding(length=3)  # what a folder says about padding must not count
    backend.enable_truncation(2)
    backend.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("max_length", [20, 77])
def test_ids_equal_the_reference(openai_part: Path, max_length: int) -> None:
    tokeniser = openai_tokeniser(openai_part, max_length)
    golden = GOLDEN["texts"]
    tokens = tokeniser.encode([record["text"] for record in golden])
    for record, ids in zip(golden, tokens.ids, strict=True):
        assert ids == record[f"ids_{max_length}"], record["text"]
    longer = sum(record["ids_20"] != record["ids_77"] for record in golden)
    assert longer >= 2
    if max_length == 20:
        assert tokens.num_truncated == longer


def test_the_end_token_survives_any_truncation(openai_part: Path) -> None:
    text = "1 2 3 4 5 6 7 8 9"
    whole = openai_tokeniser(openai_part, 77).encode([text]).ids[0]
    assert len(whole) == 11
    for max_length in range(3, 14):
        tokens = openai_tokeniser(openai_part, max_length).encode([text, ""])
        kept = min(max_length, 11)
        assert tokens.ids[0] == [*whole[: kept - 1], 49407]
        assert tokens.ids[1] == [49406, 49407]
        assert tokens.num_truncated == (max_length < 11)


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("  Two\t words\n", "two words"),
        ("caf&eacute; &amp;amp; bar", "café & bar"),
        ("â€œquotesâ€\x9d", '"quotes"'),
        ("ﬁne", "fine"),
        ("it\u2019s", "it's"),
        ("\u00a0", ""),
        ("", ""),
    ],
)
def test_cleaning_is_openai_s(raw: str, clean: str) -> None:
    assert clean_clip(raw) == clean


@pytest.mark.parametrize("text", ["\ud83d", "a\udc80b", "\x00", "\u202e", "x" * 100_000])
def test_no_text_breaks_it(openai_part: Path, text: str) -> None:
    ids = openai_tokeniser(openai_part, 77).encode([text]).ids[0]
    assert ids[0] == 49406
    assert ids[-1] == 49407
    assert len(ids) <= 77


def test_clip_pads_to_the_longest_behind_the_end(openai_part: Path) -> None:
    tokeniser = openai_tokeniser(openai_part, 77)
    array = tokeniser.pad(tokeniser.encode(["1 2 3", ""]).ids)
    assert array.dtype == np.int64
    assert array.tolist() == [[49406, 272, 273, 274, 49407], [49406, 49407, 0, 0, 0]]


def test_siglip_canonicalises_and_pads_to_the_full_length(tmp_path: Path) -> None:
    folder = siglip_folder(tmp_path, "SiglipTokenizer")
    assert text_family(folder, "siglip") == "siglip"
    tokeniser = load_tokeniser(folder, family="siglip", max_length=6, vocab_size=10)
    # vocabulary: <unk> 0, </s> 1, a 2, man 3, runs 4
    tokens = tokeniser.encode(["A  MAN, runs!", "", "a man runs a man runs"])
    assert tokens.ids == [[2, 3, 4, 1], [1], [2, 3, 4, 2, 3, 1]]
    assert tokens.num_truncated == 1
    assert tokeniser.pad(tokens.ids[:1]).tolist() == [[2, 3, 4, 1, 1, 1]]


def test_siglip2_lowers_only_and_pads_on_the_right(tmp_path: Path) -> None:
    folder = siglip_folder(tmp_path, "GemmaTokenizerFast")
    assert text_family(folder, "siglip") == "siglip2"
    tokeniser = load_tokeniser(folder, family="siglip2", max_length=5, vocab_size=12)
    # vocabulary: <pad> 0, <eos> 1, <bos> 2, <unk> 3, a 4, man 5, ..., runs! 10
    tokens = tokeniser.encode(["a Man runs!", ""])
    assert tokens.ids == [[4, 5, 10, 1], [1]]
    assert tokeniser.pad(tokens.ids).tolist() == [[4, 5, 10, 1, 0], [1, 0, 0, 0, 0]]


def test_unknown_families_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"'blip' is not supported; vtr knows clip, .*open_clip"):
        text_family(tmp_path, "blip")
    with pytest.raises(ModelError, match=r"'clip_vision_model' \(one tower alone\) is not"):
        text_family(tmp_path, "clip_vision_model")
    with pytest.raises(ModelError, match="tells neither SigLIP"):
        text_family(siglip_folder(tmp_path, "PreTrainedTokenizerFast"), "siglip")


def test_damaged_vocabularies_say_so(tmp_path: Path, openai_part: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no tokenizer.json \(nor vocab.json"):
        load_tokeniser(tmp_path, family="clip", max_length=77, vocab_size=9)
    with pytest.raises(CheckpointError, match=r"ids up to 49407.*only 400 rows"):
        load_tokeniser(openai_part, family="clip", max_length=77, vocab_size=400)
    folder = siglip_folder(tmp_path / "word", "SiglipTokenizer")
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(CheckpointError, match="the eos_token '<eos>' is not in the vocabulary"):
        load_tokeniser(folder, family="siglip2", max_length=7, vocab_size=99)
    (folder / "tokenizer.json").write_text('{"model": 3}')
    with pytest.raises(CheckpointError, match=r"tokenizer\.json cannot be read"):
        load_tokeniser(folder, family="siglip", max_length=7, vocab_size=99)
    (folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json is not whole JSON"):
        text_family(folder, "siglip")
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"merges\.txt is damaged"):
        load_tokeniser(tmp_path, family="clip", max_length=77, vocab_size=9)
