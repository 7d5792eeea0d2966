"""Captions embedded once: the cache beside the features, and the tokens."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import golden, save_quietly, spoil, tensors, write_processor, write_words
from safetensors.numpy import load_file, save_file
from transformers import SiglipConfig, SiglipModel

from tests import test_import_clip_folder as tiny
from vtr.clip.backbone import Backbone, load_backbone
from vtr.clip.folder import write_clip_folder
from vtr.errors import ModelError
from vtr.train.texts import (
    FOLDER,
    TextFeatures,
    _bytes,
    embed_activations,
    embed_texts,
    embed_tokens,
)

GOLDEN = Path(__file__).parent / "golden"
TEXTS = (
    "a red square crosses the picture",
    "nothing",
    "a blue circle " * 30,
    "a red square crosses the picture",
    "",
    "naïve café, 雨",
)
FP16 = 2.0**-10
"""Relative spacing of float16 numbers."""


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """The tiny CLIP that ArrowLuo/CLIP4Clip@508ffa3 was run with, as a folder."""
    folder = tmp_path_factory.mktemp("reference")
    words = tiny.write_tokeniser(folder / "words", 300)
    write_clip_folder(folder / "clip", tensors(golden("clip_tiny"), "clip/"), tokeniser=words)
    return load_backbone(str(folder / "clip"), device="cpu")


def kept(folder: Path) -> list[Path]:
    return sorted((folder / FOLDER).glob("*"))


def same(one: TextFeatures, other: TextFeatures) -> bool:
    return bool(
        one.ids == other.ids
        and one.num_truncated == other.num_truncated
        and one.pooled.dtype == other.pooled.dtype == np.float32
        and np.array_equal(one.pooled, other.pooled)
    )


# ---- the cache


def test_a_store_that_cannot_be_written_costs_time_only(backbone: Backbone, tmp_path: Path) -> None:
    """Stores are shared read-only; here a file stands where the folder would be."""
    (tmp_path / FOLDER).write_text("in the way")
    assert same(embed_texts(backbone, TEXTS, cache=tmp_path), embed_texts(backbone, TEXTS))
    kept = embed_activations(backbone, TEXTS, layers=1, cache=tmp_path)
    assert np.array_equal(kept.tokens, embed_activations(backbone, TEXTS, layers=1).tokens)
    assert (tmp_path / FOLDER).read_text() == "in the way"


def test_a_hit_equals_a_miss_bit_for_bit(backbone: Backbone, tmp_path: Path) -> None:
    plain = embed_texts(backbone, TEXTS)
    assert plain.ids == ("0", "1", "2", "3", "4", "5")
    assert plain.num_truncated == 1
    assert np.array_equal(plain.pooled, backbone.encode_texts(TEXTS).embeddings)
    miss = embed_texts(backbone, TEXTS, cache=tmp_path)
    (path,) = kept(tmp_path)
    written = path.stat().st_mtime_ns
    hit = embed_texts(backbone, TEXTS, cache=tmp_path)
    assert same(plain, miss)
    assert same(plain, hit)
    assert [path.stat().st_mtime_ns] == [p.stat().st_mtime_ns for p in kept(tmp_path)] == [written]


def test_a_hit_is_read_and_not_computed(backbone: Backbone, tmp_path: Path) -> None:
    embed_texts(backbone, TEXTS, cache=tmp_path)
    (path,) = kept(tmp_path)
    arrays = load_file(path)
    path.write_bytes(_bytes(arrays["pooled"] + 1, 1))
    found = embed_texts(backbone, TEXTS, cache=tmp_path)
    assert np.array_equal(found.pooled, embed_texts(backbone, TEXTS).pooled + 1)


def test_ids_name_rows_and_do_not_decide_on_the_file(backbone: Backbone, tmp_path: Path) -> None:
    ids = [f"caption {n}" for n in range(len(TEXTS))]
    embed_texts(backbone, TEXTS, cache=tmp_path)
    found = embed_texts(backbone, TEXTS, ids=ids, cache=tmp_path)
    assert found.ids == tuple(ids)
    assert len(kept(tmp_path)) == 1
    with pytest.raises(ValueError, match="2 ids for pooled texts of shape"):
        embed_texts(backbone, TEXTS, ids=ids[:2])


@pytest.mark.parametrize(
    "texts",
    [
        TEXTS[1:],
        TEXTS[::-1],
        (*TEXTS[:-1], TEXTS[-1] + " "),
        (*TEXTS[:-1], "Nothing"),
        (TEXTS[0] + TEXTS[1], *TEXTS[2:]),
        ("a red square", " crosses the picture", *TEXTS[1:]),
    ],
)
def test_another_wording_misses(backbone: Backbone, tmp_path: Path, texts: tuple[str, ...]) -> None:
    embed_texts(backbone, TEXTS, cache=tmp_path)
    found = embed_texts(backbone, texts, cache=tmp_path)
    assert len(kept(tmp_path)) == 2
    assert np.array_equal(found.pooled, backbone.encode_texts(texts).embeddings)


def test_where_one_text_ends_and_the_next_begins_counts(backbone: Backbone, tmp_path: Path) -> None:
    for texts in (("ab", "c"), ("a", "bc"), ("abc", "")):
        embed_texts(backbone, texts, cache=tmp_path)
    assert len(kept(tmp_path)) == 3


def test_another_model_misses(backbone: Backbone, reference: Backbone, tmp_path: Path) -> None:
    ours = embed_texts(backbone, TEXTS, cache=tmp_path)
    theirs = embed_texts(reference, TEXTS, cache=tmp_path)
    assert len(kept(tmp_path)) == 2
    assert (ours.pooled.shape[1], theirs.pooled.shape[1]) == (96, 128)
    assert np.array_equal(theirs.pooled, reference.encode_texts(TEXTS).embeddings)


def rewrite(path: Path, **arrays: Any) -> None:
    save_file(arrays, path)


def pooled(path: Path) -> Any:
    return load_file(path)["pooled"]


ONE = np.array([1])
DAMAGE = {
    "half": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "garbage": lambda path: path.write_bytes(b"\xff" * 500),
    "a bit": lambda path: spoil(path, path.read_bytes().find(b"}", 8) + 400),
    "fewer rows": lambda path: rewrite(path, pooled=pooled(path)[:-1], num_truncated=ONE),
    "halves": lambda p: rewrite(p, pooled=pooled(p).astype(np.float16), num_truncated=ONE),
    "no count": lambda path: rewrite(path, pooled=pooled(path)),
    "no rows": lambda path: rewrite(path, num_truncated=ONE),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_made_anew(backbone: Backbone, tmp_path: Path, damage: Any) -> None:
    plain = embed_texts(backbone, TEXTS, cache=tmp_path)
    (path,) = kept(tmp_path)
    whole = load_file(path)
    damage(path)
    assert same(embed_texts(backbone, TEXTS, cache=tmp_path), plain)
    assert kept(tmp_path) == [path]
    again = load_file(path)
    assert again.keys() == whole.keys()
    assert all(np.array_equal(again[name], whole[name]) for name in whole)


def test_no_texts_are_no_rows(backbone: Backbone, tmp_path: Path) -> None:
    for _ in range(2):
        found = embed_texts(backbone, (), cache=tmp_path, tokens=True)
        assert found.pooled.shape == (0, 96)
        assert (found.tokens.shape, found.token_offsets.tolist()) == ((0, 96), [0])


# ---- tokens


def test_the_last_token_is_the_pooled_text(backbone: Backbone, tmp_path: Path) -> None:
    found = embed_texts(backbone, TEXTS, cache=tmp_path, tokens=True)
    lengths = [len(row) for row in backbone.tokeniser.encode(TEXTS).ids]
    assert np.diff(found.token_offsets).tolist() == lengths
    assert lengths[4] == 2, "no words: the start token and the end token"
    assert lengths[2] == backbone.tokeniser.max_length, "cut"
    assert found.tokens.dtype == np.float16
    last = found.tokens[found.token_offsets[1:] - 1]
    assert np.allclose(last, found.pooled, rtol=FP16, atol=1e-4)
    others = found.tokens[found.token_offsets[:-1]]
    assert not np.allclose(others, found.pooled, rtol=0.1, atol=0.1), "the first one is not"
    assert len(kept(tmp_path)) == 1, "tokens are never written"


def test_neighbours_never_change_a_text_s_tokens(backbone: Backbone) -> None:
    together, offsets = embed_tokens(backbone, TEXTS)
    for n, text in enumerate(TEXTS):
        alone, _ = embed_tokens(backbone, [text])
        rows = together[offsets[n] : offsets[n + 1]]
        assert rows.shape == alone.shape
        assert np.allclose(rows, alone, rtol=2 * FP16, atol=1e-4), text


def test_tokens_are_those_of_the_reference(reference: Backbone) -> None:
    with np.load(GOLDEN / "clip_tiny.npz") as arrays:
        ids, pooled = arrays["ids"], arrays["text_features"]
    with np.load(GOLDEN / "clip_tiny_tokens.npz") as arrays:
        hidden = arrays["text_hidden"]
    found = embed_texts(reference, tiny.spell(ids), tokens=True)
    assert np.allclose(found.pooled, pooled, atol=1e-5)
    lengths = np.diff(found.token_offsets)
    assert lengths.tolist() == (ids.argmax(axis=1) + 1).tolist()
    assert len(set(lengths.tolist())) > 1, "of several lengths"
    for n, length in enumerate(lengths):
        rows = found.tokens[found.token_offsets[n] : found.token_offsets[n + 1]]
        assert np.allclose(rows, hidden[n, :length], rtol=FP16 / 2, atol=2e-5), "but for rounding"
        assert np.abs(hidden[n, :length]).max() > 0.1, "numbers far above the tolerance"


def test_tokens_of_siglip_are_refused_and_its_pooled_texts_are_not(tmp_path: Path) -> None:
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    small |= {"num_attention_heads": 2}
    words = ["<unk>", "</s>", "a", "man", "runs"]
    config = SiglipConfig(
        text_config=small | {"vocab_size": len(words), "max_position_embeddings": 9},
        vision_config=small | {"image_size": 16, "patch_size": 8},
    )
    folder = save_quietly(SiglipModel(config), tmp_path / "siglip")
    write_words(folder, words, kind="SiglipTokenizer")
    write_processor(folder, {"height": 16, "width": 16}, resample=2)
    siglip = load_backbone(str(folder), device="cpu")
    assert embed_texts(siglip, ["a man runs"]).pooled.shape == (1, 16)
    with pytest.raises(ModelError, match=r"siglip model: its tokens .* need a CLIP text tower"):
        embed_texts(siglip, ["a man runs"], tokens=True)
