"""The split lists that ship with the package, and how they are packed."""

import hashlib
import lzma
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.pack_splits import pack_splits
from vtr.datasets import published
from vtr.datasets.published import (
    ids_sha256,
    published_pairs,
    published_splits,
    split_facts,
    unpack_splits,
)
from vtr.errors import DatasetError

SHIPPED = ["activitynet", "didemo", "msrvtt", "msvd", "vatex"]

IDS = st.one_of(
    st.integers(0, 30).map("video{}".format),
    st.sampled_from(["a", "a08", "a09", "a10", "08", "9", "10", "x.", "x..3", "-7", "v_9", "v_10"]),
    st.from_regex(r"[A-Za-z0-9_@.-]{1,8}", fullmatch=True).filter(lambda text: text[0] != "["),
)
ROWS = st.lists(st.tuples(IDS, st.sampled_from(["", "", "", "17"])), max_size=12)


@settings(max_examples=25)  # xz at its strongest is slow to start
@given(st.dictionaries(st.sampled_from(["train", "val_1", "1kA-test"]), ROWS))
def test_unpacking_gives_what_was_packed(splits: dict[str, list[tuple[str, str]]]) -> None:
    # An id that reads like a range cannot be written; no published one does.
    clean = {name: [row for row in rows if ".." not in row[0]] for name, rows in splits.items()}
    assert unpack_splits(pack_splits(clean)) == clean


def test_runs_are_written_as_ranges() -> None:
    rows = [(f"video{number}", "") for number in (7, 8, 9, 10, 12)]
    text = lzma.decompress(pack_splits({"train": rows})).decode()
    assert text == "[train]\nvideo7..10\nvideo12\n"


@pytest.mark.parametrize("dataset", SHIPPED)
def test_shipped_lists_are_whole_and_small(dataset: str) -> None:
    splits = published_splits(dataset)
    assert splits.keys() == split_facts(dataset).keys() != set()
    for split, ids in splits.items():
        plain = hashlib.sha256("".join(name + "\n" for name in ids).encode()).hexdigest()
        assert ids_sha256(ids) == plain
        assert split_facts(dataset)[split] == {"count": len(ids), "sha256": plain}
        assert len(set(ids)) == len(ids)
    file = Path(published.__file__).parent / "data" / f"{dataset}.txt.xz"
    assert file.stat().st_size < 15 * sum(map(len, splits.values()))


@pytest.mark.parametrize(
    ("dataset", "one", "other", "shared"),
    [
        ("msrvtt", "train", "val", 0),
        ("msrvtt", "trainval", "test", 0),
        ("msrvtt", "1kA-train", "1kA-test", 0),
        ("msrvtt", "1kB-train", "1kB-test", 0),
        ("msrvtt", "1kA-test", "test", 1000),
        ("msrvtt", "1kA-train", "test", 1990),
        ("msrvtt", "1kA-test", "1kB-test", 296),
        ("msrvtt", "1kB-test", "1kA-train", 704),
        ("msrvtt", "1kB-test", "trainval", 104),
        ("msvd", "train", "test", 0),
        ("msvd", "val", "test", 0),
        ("msvd", "train", "val", 0),
        ("vatex", "train", "val", 0),
        ("vatex", "train", "test", 0),
        ("vatex", "val", "test", 0),
        ("vatex", "test-1k5", "test", 724),
        ("vatex", "test-1k5", "val", 776),
        ("activitynet", "train", "val_1", 0),
        ("activitynet", "val_2", "val_1", 4885),
        ("didemo", "train", "val", 0),
        ("didemo", "train", "test", 0),
        ("didemo", "val", "test", 0),
    ],
)
def test_splits_share_as_many_videos_as_published(
    dataset: str, one: str, other: str, shared: int
) -> None:
    splits = published_splits(dataset)
    assert len(set(splits[one]) & set(splits[other])) == shared


def test_only_1k_a_fixes_a_caption() -> None:
    pairs = published_pairs("msrvtt", "1kA-test")
    assert pairs[0] == ("video9770", "143891")
    assert [video for video, _ in pairs] == list(published_splits("msrvtt")["1kA-test"])
    assert len({caption for _, caption in pairs}) == 1000
    assert all(140_200 <= int(caption) < 200_000 for _, caption in pairs)
    assert published_pairs("msrvtt", "test") == ()
    assert published_pairs("msvd", "test") == ()


def test_a_dataset_without_lists_has_no_splits() -> None:
    assert dict(published_splits("lsmdc")) == {}
    assert dict(split_facts("folder")) == {}


def test_a_damaged_list_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = published._resource("msvd.txt.xz")
    rows = unpack_splits(whole)
    rows["val"] = rows["val"][:-1]

    def resource(name: str, payload: bytes) -> bytes:
        return payload if name.endswith(".xz") else real(name)

    real = published._resource
    for payload, message in (
        (pack_splits(rows), r"list of msvd 'val' that ships with vtr is damaged"),
        (whole[:100], r"splits of msvd that ship with vtr cannot be read"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(published, "_resource", lambda name, p=payload: resource(name, p))
            for function in (published._rows, published_splits):
                function.cache_clear()
            with pytest.raises(DatasetError, match=message):
                published_splits("msvd")
    for function in (published._rows, published_splits):
        function.cache_clear()
    assert len(published_splits("msvd")["val"]) == 100
