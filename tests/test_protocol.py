"""Protocols: what they declare, and the queries they come to."""

from dataclasses import replace

import pytest
from builders import run_app

from vtr.datasets.base import Caption, Dataset
from vtr.datasets.registry import dataset_names
from vtr.errors import ConfigError, DatasetError, UnknownNameError
from vtr.evaluate.protocol import (
    Protocol,
    default_protocol,
    ids_digest,
    load_protocol,
    protocol_names,
    queries,
    with_gallery,
)


def world(**changes: object) -> Dataset:
    ids = tuple(f"v{i}" for i in range(40))
    captions = tuple(
        Caption(f"{video_id}-{n}", video_id, f"{video_id} caption {n}")
        for n in range(2)
        for video_id in ids
    )
    made = Dataset(
        name="toy",
        video_ids=ids,
        captions=captions,
        splits={"train": ids[:30], "test": ids[30:], "val": ids[28:32]},
        categories={"v31": "sport"},
        groups={"v30": "order"},
        rivals={"v30": "v31", "v32": "v0"},
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def toy(**changes: object) -> Protocol:
    made = Protocol(name="toy", dataset="toy", summary="a toy", val_split=None, captions="all")
    return replace(made, **changes)  # type: ignore[arg-type]


def test_the_list_fits_a_terminal() -> None:
    for columns in (60, 80):
        shown = run_app("protocols", width=columns).stdout
        assert max(map(len, shown.splitlines())) <= columns
        words = " ".join(shown.split())
        for name in protocol_names():
            assert f"{name} {load_protocol(name).summary}" in words


@pytest.mark.parametrize("name", protocol_names())
def test_every_protocol_declares_what_it_needs(name: str) -> None:
    protocol = load_protocol(name)
    assert protocol.name == name
    assert protocol.dataset in dataset_names()
    assert protocol.summary
    assert protocol.source
    assert protocol.test_split != protocol.train_split
    if protocol.ids_sha256 is not None:
        assert len(bytes.fromhex(protocol.ids_sha256)) == 32
        assert protocol.num_videos
        assert protocol.num_queries
    assert default_protocol(protocol.dataset).dataset == protocol.dataset


def test_the_fields_best_known_protocols_are_the_defaults() -> None:
    assert default_protocol("msrvtt").name == "msrvtt-1kA"
    assert default_protocol("demo").name == "demo"
    with pytest.raises(UnknownNameError, match="Did you mean 'msrvtt-1kA'"):
        load_protocol("msrvtt-1ka")
    with pytest.raises(ConfigError, match="no protocol is defined on dataset 'nothing'"):
        default_protocol("nothing")


def test_queries_stand_together_by_video() -> None:
    found = queries(toy(), world())
    assert found.video_ids == tuple(f"v{i}" for i in range(30, 40))
    assert found.text_ids[:4] == ("v30-0", "v30-1", "v31-0", "v31-1")
    assert found.query_video.tolist() == [v for v in range(10) for _ in range(2)]
    assert found.categories == {"v31": "sport"}
    assert found.groups == {"v30": "order"}
    assert found.rivals == {"v30": "v31"}
    assert found.problems == ()


def test_given_queries_replace_all_captions() -> None:
    given = (Caption("x", "v35", "a given one"), Caption("y", "v34", "another"))
    dataset = world(splits={"train": ("v0",), "test": ("v34", "v35")}, queries={"test": given})
    found = queries(toy(captions="one", num_videos=2, num_queries=2), dataset)
    assert found.text_ids == ("y", "x")
    assert found.problems == ()


def test_training_videos_never_meet_the_test_part_nor_the_validation_part() -> None:
    dataset = world(splits={"train": tuple(f"v{i}" for i in range(35)), "test": ("v34", "v36")})
    parts = {part: set(queries(toy(), dataset, part).video_ids) for part in ("train", "val")}
    assert "v34" not in parts["train"] | parts["val"]
    assert len(parts["val"]) == 2
    assert not parts["train"] & parts["val"]
    assert parts["train"] | parts["val"] == {f"v{i}" for i in range(34)}


def test_held_out_videos_do_not_depend_on_the_order_of_the_split() -> None:
    forward = queries(toy(), world(), "val", hold_out=0.2)
    ids = tuple(f"v{i}" for i in range(29, -1, -1))
    backward = queries(toy(), world(splits={"train": ids, "test": ("v39",)}), "val", hold_out=0.2)
    assert forward.held_out
    assert len(forward.video_ids) == 6
    assert set(forward.video_ids) == set(backward.video_ids)


def test_a_named_validation_split_loses_the_test_videos() -> None:
    found = queries(toy(val_split="val"), world(), "val")
    assert found.video_ids == ("v28", "v29")
    assert not found.held_out
    assert set(queries(toy(val_split="val"), world(), "train").video_ids) == {
        f"v{i}" for i in range(28)
    }


def test_a_share_is_held_out_where_the_files_lack_the_named_validation_split() -> None:
    splits = {"train": tuple(f"v{i}" for i in range(30)), "test": ("v39",)}
    found = queries(toy(val_split="val"), world(splits=splits), "val", hold_out=0.2)
    assert found.held_out
    assert len(found.video_ids) == 6


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("toy", {"captions": (), "splits": {}}, r"'toy' has none. They come from the files that"),
        ("folder", {"captions": (), "splits": {}}, r"needs captions.*Write captions\.csv with the"),
        ("toy", {"splits": {"test": ("v1",)}}, "'train'.*Splits found: test; see `vtr data show"),
        ("folder", {"splits": {}}, "needs the split 'train'.*none; add a column split to the"),
    ],
)
def test_what_is_missing_for_training_is_said(
    name: str, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        queries(toy(dataset=name), world(name=name, **changes), "train")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"num_videos": 11}, "10 videos, the protocol has 11"),
        ({"num_videos": 10, "ids_sha256": "0" * 64}, "the video ids are not the published ones"),
        ({"num_queries": 21}, "20 queries, the protocol has 21"),
        ({"num_queries": 20, "pairs_sha256": "0" * 64}, "not the published captions"),
        ({"captions": "one"}, "more than one query for 10 videos"),
    ],
)
def test_what_differs_from_the_declared_protocol_is_said(
    changes: dict[str, object], problem: str
) -> None:
    found = queries(toy(**changes), world())
    assert any(problem in said for said in found.problems)


def test_the_published_lists_pass_their_own_digest() -> None:
    ids = [f"v{i}" for i in range(30, 40)]
    pairs = [f"{i} {i}-{n}" for i in ids for n in range(2)]
    protocol = toy(
        num_videos=10, num_queries=20, ids_sha256=ids_digest(ids), pairs_sha256=ids_digest(pairs)
    )
    assert queries(protocol, world()).problems == ()


def test_videos_without_a_query_are_counted() -> None:
    dataset = world()
    spoken = tuple(c for c in dataset.captions if c.video_id != "v33")
    assert "1 video has no query" in queries(toy(), replace(dataset, captions=spoken)).problems


def test_digest_changes_with_the_wording_the_owner_and_the_gallery() -> None:
    base = queries(toy(), world())
    worded = replace(base, texts=("other", *base.texts[1:]))
    shorter = replace(base, video_ids=base.video_ids[:-1])
    owned = replace(base, query_video=base.query_video[::-1].copy())
    assert len({q.digest for q in (base, worded, shorter, owned)}) == 4
    assert replace(base).digest == base.digest


def test_wrong_datasets_and_missing_splits_are_named() -> None:
    with pytest.raises(ConfigError, match="is defined on dataset 'toy'; this workspace holds 'x'"):
        queries(toy(), world(name="x"))
    with pytest.raises(DatasetError, match=r"needs the split 'paper' .* Splits found: test, train"):
        queries(toy(test_split="paper"), world())
    with pytest.raises(DatasetError, match="no caption describes any of the 10 videos"):
        queries(toy(), world(captions=()))
    with pytest.raises(DatasetError, match=r"'toy'; 3 captions are empty\. Captions come from"):
        queries(toy(), world(captions=(), notes=("3 captions are empty",)))
    with pytest.raises(ConfigError, match="names no training videos"):
        queries(toy(train_split=None), world(), "train")


def test_captions_without_any_split_are_all_asked_for() -> None:
    dataset = world(splits={}, captions=(Caption("a", "v3", "x"), Caption("b", "v1", "y")))
    assert queries(toy(), dataset).video_ids == ("v1", "v3")
    with pytest.raises(DatasetError, match="needs the split 'train'"):
        queries(toy(), dataset, "train")


def test_a_video_that_nobody_described_is_a_distractor_of_a_folder() -> None:
    spoken = (Caption("a", "v3", "x"), Caption("b", "v1", "y"), Caption("c", "v1", "z"))
    own = toy(gallery="folder")
    found = queries(own, world(splits={}, captions=spoken))
    assert found.video_ids == ("v1", "v3", "v0", "v2", *(f"v{i}" for i in range(4, 40)))
    assert found.query_video.tolist() == [0, 0, 1]
    assert found.problems == ()
    kept = queries(with_gallery(own, "captioned"), world(splits={}, captions=spoken))
    assert kept.video_ids == ("v1", "v3")
    assert kept.digest != found.digest
    # Videos of other splits are not ranked: a run may have been trained on them.
    splits = {"train": tuple(f"v{i}" for i in range(30)), "test": ("v34", "v36")}
    assert queries(own, world(splits=splits)).video_ids == (
        "v34", "v36", "v30", "v31", "v32", "v33", "v35", "v37", "v38", "v39"
    )  # fmt: skip
    assert set(queries(own, world(splits=splits), "val").video_ids) <= set(splits["train"])


def test_only_a_folder_has_a_choice_of_galleries() -> None:
    assert load_protocol("folder").gallery == "folder"
    assert with_gallery(load_protocol("msvd"), None) is load_protocol("msvd")
    with pytest.raises(ConfigError, match=r"--gallery is for a folder .*'msvd' says itself"):
        with_gallery(load_protocol("msvd"), "folder")
    with pytest.raises(UnknownNameError, match=r"no gallery named 'captoned'\. Did you mean 'capt"):
        with_gallery(load_protocol("folder"), "captoned")
