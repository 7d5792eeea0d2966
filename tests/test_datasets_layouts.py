"""Every published layout, on small generated files: other data in the same shape is read too."""

import csv
import inspect
import io
import pickle
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import put as write

import vtr.datasets
from vtr.datasets import registry
from vtr.datasets.annotations import check_overlap
from vtr.datasets.base import Caption, Dataset, DatasetInfo, Video, split_queries
from vtr.datasets.published import published_pairs, published_splits, split_facts
from vtr.errors import DatasetError
from vtr.options import load_plugin

PUBLISHED = ["activitynet", "didemo", "lsmdc", "msrvtt", "msvd", "vatex"]


def load(name: str, folder: Path) -> Dataset:
    return registry.load_dataset(name, annotations=folder, videos=folder)


def table(header: str, *rows: tuple[object, ...]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows([header.split(","), *rows])
    return text.getvalue()


def texts(dataset: Dataset, split: str) -> list[tuple[str, str]]:
    return [(query.video_id, query.text) for query in split_queries(dataset, split)]


# ---- the contract, for every file in the folder


@pytest.mark.parametrize("name", registry.dataset_names())
def test_every_reader_says_what_it_reads(name: str) -> None:
    module = load_plugin(vtr.datasets, name, kind="dataset")
    summary, info = registry.dataset_info(name)
    assert summary.endswith(".")
    assert isinstance(info, DatasetInfo)
    assert info is module.INFO
    assert info.files
    assert info.captions
    assert info.source
    assert list(inspect.signature(module.load).parameters) == ["annotations", "videos"]
    for split, facts in split_facts(name).items():
        assert info.splits[split] == facts["count"]


@pytest.mark.parametrize("name", [name for name in registry.dataset_names() if name != "folder"])
def test_every_reader_explains_a_folder_without_its_files(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    with pytest.raises(DatasetError, match="--annotations"):
        load(name, folder)
    with pytest.raises(DatasetError, match="--annotations"):
        registry.load_dataset(name, videos=tmp_path / "videos")


def test_the_published_datasets_are_there() -> None:
    assert set(PUBLISHED) <= set(registry.dataset_names())


# ---- MSR-VTT


def msrvtt_video(number: int, **changes: object) -> dict[str, object]:
    split = "train" if number < 6 else "validate" if number < 8 else "test"
    return {
        "category": number % 20,
        "url": "https://example.org",
        "video_id": f"video{number}",
        "start time": 3.5,
        "end time": 9.0,
        "split": split,
        "id": number,
        **changes,
    }


def msrvtt_json(numbers: range, per_video: int = 3) -> dict[str, Any]:
    return {
        "info": {"year": "2016"},
        "videos": [msrvtt_video(number) for number in numbers],
        "sentences": [
            {
                "caption": f"it's clip {number}, told {turn} times",
                "video_id": f"video{number}",
                "sen_id": number * per_video + turn,
            }
            for number in numbers
            for turn in range(per_video)
        ],
    }


CSVS = {
    "MSRVTT_train.9k.csv": table("video_id", *[(f"video{n}",) for n in range(8)]),
    "MSRVTT_train.7k.csv": table("video_id", *[(f"video{n}",) for n in range(7)]),
    "MSRVTT_JSFUSION_test.csv": table(
        "key,vid_key,video_id,sentence",
        ("ret0", "msr9", "video9", "its clip 9 told 2 times"),
        ("ret1", "msr8", "video8", "it's clip 8, told 0 times"),
    ),
}


@pytest.mark.parametrize("joined", [True, False])
def test_msrvtt_with_fewer_videos(tmp_path: Path, joined: bool) -> None:
    if joined:
        write(tmp_path / "MSRVTT_data.json", msrvtt_json(range(10)))
        alone = load("msrvtt", tmp_path)  # by the split field
        sizes = {split: len(ids) for split, ids in alone.splits.items()}
        assert (sizes, alone.queries) == ({"train": 6, "val": 2, "test": 2, "trainval": 8}, {})
    else:
        write(tmp_path / "train_val_videodatainfo.json", msrvtt_json(range(8)))
        write(tmp_path / "deep" / "test_videodatainfo.json", msrvtt_json(range(8, 10)))
    for name, content in CSVS.items():
        write(tmp_path / name, content)
    dataset = load("msrvtt", tmp_path)
    assert dataset.video_ids == tuple(f"video{number}" for number in range(10))
    assert {split: len(ids) for split, ids in dataset.splits.items()} == {
        "train": 6,
        "val": 2,
        "test": 2,
        "trainval": 7,
        "1kA-train": 8,
        "1kA-test": 2,
    }
    # In csv order, with the csv's words and the id of the caption they belong to.
    assert dataset.queries == {
        "1kA-test": (
            Caption("29", "video9", "its clip 9 told 2 times"),
            Caption("24", "video8", "it's clip 8, told 0 times"),
        )
    }
    assert split_queries(dataset, "test") == dataset.captions[24:]
    assert dataset.categories["video3"] == "sports/actions"
    assert (dataset.windows, dataset.file_stems) == ({}, {})
    assert dataset.notes == (
        "the annotations hold 10 videos, 10 of the published 10,000; trainval, 1kA-train, "
        "1kA-test, train, val, test come from the files themselves",
    )


def published_msrvtt(tmp_path: Path) -> dict[str, Any]:
    """The whole of MSR-VTT in shape: every id, and the captions that 1k-A and 1k-B ask for."""
    splits = published_splits("msrvtt")
    of_split = {name: split for split in ("train", "val", "test") for name in splits[split]}
    document: dict[str, Any] = {
        "videos": [{"video_id": name, "split": split} for name, split in of_split.items()],
        "sentences": [
            {"video_id": f"video{number}", "sen_id": number, "caption": f"first of {number}"}
            for number in range(10_000)
        ],
    }
    document["sentences"] += [
        {"video_id": name, "sen_id": int(caption), "caption": f"chosen of {name}"}
        for name, caption in published_pairs("msrvtt", "1kA-test")
    ]
    write(tmp_path / "MSRVTT_data.json", document)
    return document


def test_msrvtt_whole_from_the_json_alone_and_with_csv(tmp_path: Path) -> None:
    document = published_msrvtt(tmp_path)
    alone = load("msrvtt", tmp_path)
    assert dict(alone.splits) == dict(published_splits("msrvtt"))
    assert alone.notes == ()
    first = alone.queries["1kA-test"][0]
    assert first == Caption("143891", "video9770", "chosen of video9770")
    assert alone.queries["1kB-test"][0].text.startswith("first of ")
    rows = [
        (f"ret{n}", "msr", query.video_id, query.text.upper() + "!")
        for n, query in enumerate(alone.queries["1kA-test"])
    ]
    write(tmp_path / "MSRVTT_JSFUSION_test.csv", table("key,vid_key,video_id,sentence", *rows))
    both = load("msrvtt", tmp_path)
    assert [query.id for query in both.queries["1kA-test"]] == [
        query.id for query in alone.queries["1kA-test"]
    ]
    assert both.queries["1kA-test"][0].text == "CHOSEN OF VIDEO9770!"
    rows[0] = (*rows[0][:3], "first of 9770")  # another caption of the same video
    write(tmp_path / "MSRVTT_JSFUSION_test.csv", table("key,vid_key,video_id,sentence", *rows))
    with pytest.raises(DatasetError, match=r"line 2: 'first of 9770' is not the caption 143891"):
        load("msrvtt", tmp_path)
    (tmp_path / "MSRVTT_JSFUSION_test.csv").unlink()
    write(tmp_path / "MSRVTT_train.9k.csv", table("video_id", ("video0",), ("videoX",)))
    with pytest.raises(
        DatasetError,
        match=r"MSRVTT_train\.9k\.csv and the published split '1kA-train' of msrvtt differ: 2 "
        r"videos in the file, 9,000 published, 9,000 in only one of them; only in the file: videoX;"
        r" only in the published list: video1, video2, video3, \.\.\.\. If the file is another",
    ):
        load("msrvtt", tmp_path)
    (tmp_path / "MSRVTT_train.9k.csv").unlink()
    document["sentences"] = document["sentences"][:10_000]
    write(tmp_path / "MSRVTT_data.json", document)
    with pytest.raises(DatasetError, match=r"asks for the caption with sen_id 143891 of video9770"):
        load("msrvtt", tmp_path)


def test_msrvtt_oddities_are_kept_or_noted(tmp_path: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        document["videos"][0]["start time"] = float("nan")
        document["videos"][1].pop("category")
        document["sentences"][0]["caption"] = " "
        document["sentences"][1]["caption"] = document["sentences"][2]["caption"]
        document["sentences"][5]["caption"] = float("nan")
        document["sentences"][6]["caption"] = "word " * 10_000
        document["sentences"].append({"video_id": "video77", "sen_id": 99, "caption": "lost"})

    document = msrvtt_json(range(10))
    change(document)
    write(tmp_path / "MSRVTT_data.json", document)
    dataset = load("msrvtt", tmp_path)
    assert len(dataset.captions) == 28
    assert len(dataset.captions[4].text.split()) == 10_000
    assert dataset.notes[1:] == (
        "2 captions are empty, dropped (first: 0)",
        "1 caption is of videos that are not listed, dropped (first: video77)",
    )
    assert "video1" not in dataset.categories


def test_msrvtt_sentences_alone_and_named_categories(tmp_path: Path) -> None:
    document = msrvtt_json(range(3))
    write(tmp_path / "MSRVTT_data.json", {"sentences": document["sentences"]})
    dataset = load("msrvtt", tmp_path)
    assert dataset.video_ids == ("video0", "video1", "video2")
    write(tmp_path / "MSRVTT_data.json", document)
    write(tmp_path / "category.txt", b"tunes\t0\r\nfolk\t1\r\nplay\t2\r\n")
    assert load("msrvtt", tmp_path).categories["video1"] == "folk"
    write(tmp_path / "category.txt", "tunes\t0\nfolk\t7\n")
    with pytest.raises(DatasetError, match=r"category\.txt, line 2 is .*expected a name, a tab an"):
        load("msrvtt", tmp_path)


def test_msrvtt_list_of_videos_that_are_not_annotated(tmp_path: Path) -> None:
    write(tmp_path / "MSRVTT_data.json", msrvtt_json(range(10)))
    write(tmp_path / "MSRVTT_train.9k.csv", table("video_id", ("video1",), ("video500",)))
    dataset = load("msrvtt", tmp_path)
    assert dataset.splits["1kA-train"] == ("video1",)
    assert dataset.notes[1] == (
        "MSRVTT_train.9k.csv: 1 of 2 videos are not annotated and left out of '1kA-train'"
    )


# ---- MSVD


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("captions_msvd.json", {"a_1_2": ["one", "two"], "b_1_2": ["three"]}),
        ("raw-captions.pkl", {"a_1_2": [["one"], ["two"]], "b_1_2": [["three"]]}),
        ("raw-captions.pkl", {"a_1_2": ["one", "two"], "b_1_2": "three"}),
        ("captions.json", {"a_1_2.mp4": ["one", "two"], "b_1_2.avi": "three"}),
    ],
)
def test_msvd_in_every_layout(tmp_path: Path, name: str, content: dict[str, Any]) -> None:
    write(tmp_path / name, pickle.dumps(content) if name.endswith("pkl") else content)
    write(tmp_path / "train_list.txt", b"\xef\xbb\xbfa_1_2\r\n")
    write(tmp_path / "test_list.txt", "b_1_2")
    dataset = load("msvd", tmp_path)
    assert dataset.splits == {"train": ("a_1_2",), "test": ("b_1_2",)}
    assert texts(dataset, "train") == [("a_1_2", "one"), ("a_1_2", "two")]
    assert texts(dataset, "test") == [("b_1_2", "three")]
    assert [caption.id for caption in dataset.captions] == ["a_1_2#0", "a_1_2#1", "b_1_2#0"]


def test_ids_are_composed_wherever_they_stand(tmp_path: Path) -> None:
    apart = unicodedata.normalize("NFD", "café")
    write(tmp_path / "captions_msvd.json", {apart: ["one"]})
    write(tmp_path / "test_list.txt", "café")
    (tmp_path / f"{apart}.avi").touch()
    dataset = load("msvd", tmp_path)
    assert dataset.splits == {"test": ("café",)}
    assert registry.resolve_videos(dataset, tmp_path)[0].path == tmp_path / f"{apart}.avi"


# ---- VATEX

VATEX = {"aaaaaaaaaaa_000001_000011": ["one", "two"], "bbbbbbbbbbb_000010_000020": ["three"]}


@pytest.mark.parametrize("layout", ["official", "clip2video"])
def test_vatex_in_both_layouts(tmp_path: Path, layout: str) -> None:
    if layout == "official":
        for name, (key, captions) in zip(
            ("vatex_training_v1.0.json", "vatex_validation_v1.0.json"), VATEX.items(), strict=True
        ):
            write(tmp_path / name, [{"videoID": key, "enCap": captions, "chCap": ["x"]}])
        public = [{"videoID": "c_1_2", "enCap": ["four"]}]
        write(tmp_path / "vatex_public_test_english_v1.1.json", public)
    else:
        document = {key: {"enCap": captions, "chCap": []} for key, captions in VATEX.items()}
        write(tmp_path / "vatex_data.json", document)
    one, other = VATEX
    write(tmp_path / "train_list.txt", one)
    write(tmp_path / "test_list.txt", other)
    dataset = load("vatex", tmp_path)
    assert dataset.splits["train"] == (one,)
    assert texts(dataset, "train") == [(one, "one"), (one, "two")]
    assert texts(dataset, "test") == [(other, "three")]
    assert dataset.windows == {}
    if layout == "official":
        assert texts(dataset, "public-test") == [("c_1_2", "four")]


def test_vatex_whole_with_the_second_list_copied_over_the_first(tmp_path: Path) -> None:
    splits = published_splits("vatex")
    ids = [name for split in ("train", "val", "test") for name in splits[split]]
    write(tmp_path / "vatex_data.json", {name: {"enCap": ["x"]} for name in ids})
    assert dict(load("vatex", tmp_path).splits) == dict(splits)
    write(tmp_path / "test_list.txt", "\n".join(splits["test-1k5"]))
    with pytest.raises(
        DatasetError, match=r"test_list\.txt and the published split 'test' of vatex differ: 1,500"
    ):
        load("vatex", tmp_path)


def test_a_part_of_the_published_videos_keeps_its_part_of_the_splits(tmp_path: Path) -> None:
    splits = published_splits("vatex")
    ids = [*splits["test"], *splits["val"][:100]]
    write(tmp_path / "vatex_data.json", {name: {"enCap": ["x"]} for name in ids})
    dataset = load("vatex", tmp_path)
    assert (len(dataset.splits["test"]), len(dataset.splits["val"])) == (1500, 100)
    assert "val: 100 of the published 1,500 videos" in dataset.notes
    assert "train" not in dataset.splits


# ---- LSMDC


def lsmdc_line(clip: str, text: str | None) -> str:
    columns = [clip, "00:00:01", "00:00:02", "00:00:01", "00:00:02"]
    return "\t".join(columns if text is None else [*columns, text])


CLIP = "1001_American_Beauty_00.00.51.926-00.00.54.129"


def test_lsmdc(tmp_path: Path) -> None:
    lines = [
        lsmdc_line(CLIP, 'SOMEONE says "no, thanks" and leaves.'),
        lsmdc_line("b", ""),
        lsmdc_line("c", None),
        lsmdc_line(CLIP, "Again."),
    ]
    write(tmp_path / "LSMDC16_annos_val.csv", "\r\n".join(lines) + "\r\n")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / f"{CLIP}.avi").touch()
    dataset = load("lsmdc", tmp_path)
    assert dataset.splits == {"val": (CLIP, "b", "c")}
    assert [(caption.id, caption.text) for caption in dataset.captions] == [
        (f"{CLIP}#0", 'SOMEONE says "no, thanks" and leaves.'),
        (f"{CLIP}#1", "Again."),
    ]
    assert registry.survey_videos(dataset, tmp_path).missing == ("b", "c")
    assert dataset.notes == (
        "LSMDC16_annos_training.csv was not found; its split is left out",
        "LSMDC16_challenge_1000_publictect.csv was not found; its split is left out",
        "2 captions are empty, dropped (first: b#0)",
        "2 videos have no caption (first: b)",
    )
    write(tmp_path / "LSMDC16_annos_training.csv", "a,b,c\n")
    with pytest.raises(DatasetError, match=r"line 1: 1 column separated by tabs; expected 6: cli"):
        load("lsmdc", tmp_path)
    write(tmp_path / "LSMDC16_annos_training.csv", lsmdc_line("b", "x"))
    with pytest.raises(DatasetError, match="1 video is in 'train' and in 'val'"):
        load("lsmdc", tmp_path)


# ---- ActivityNet


def test_activitynet(tmp_path: Path) -> None:
    def record(*sentences: str) -> dict[str, Any]:
        return {"duration": float("nan"), "timestamps": [[0, 1]], "sentences": list(sentences)}

    write(tmp_path / "train.json", {"v_aaa": record("One.", "  Two.")})
    write(tmp_path / "val_1.json", {"v_bbb": record("Three."), "v_ccc": record("Four.")})
    write(tmp_path / "val_2.json", {"v_ccc": record("Five."), "v_bbb": record(" ")})
    write(tmp_path / "val_ids.json", ["v_ccc", "v_bbb"])
    for name in ("aaa.mp4", "x/v_bbb.mkv", "bbb.webm", "other.mp4"):
        write(tmp_path / "videos" / name, "")
    dataset = load("activitynet", tmp_path)
    assert dataset.splits == {
        "train": ("v_aaa",),
        "val_1": ("v_bbb", "v_ccc"),
        "val_2": ("v_ccc", "v_bbb"),
    }
    assert texts(dataset, "train") == [("v_aaa", "One. Two.")]
    assert split_queries(dataset, "val_1") == (
        Caption("v_bbb#val_1", "v_bbb", "Three."),
        Caption("v_ccc#val_1", "v_ccc", "Four."),
    )
    assert split_queries(dataset, "val_2") == (Caption("v_ccc#val_2", "v_ccc", "Five."),)
    assert "1 caption is empty, dropped (first: v_bbb#val_2)" in dataset.notes
    survey = registry.survey_videos(dataset, tmp_path / "videos")
    # A file with the whole id is the better fit; the bare YouTube id is taken otherwise.
    assert survey.videos == (
        Video("v_aaa", tmp_path / "videos/aaa.mp4"),
        Video("v_bbb", tmp_path / "videos/x/v_bbb.mkv"),
        Video("v_ccc", None),
    )
    assert {path.name for path in survey.unexpected} == {"bbb.webm", "other.mp4"}
    write(tmp_path / "val_ids.json", ["v_ccc"])
    with pytest.raises(DatasetError, match=r"val_1\.json and .*val_ids\.json list different vid"):
        load("activitynet", tmp_path)
    write(tmp_path / "train.json", {"v_aaa": {"duration": 1}})
    with pytest.raises(DatasetError, match=r"'v_aaa' must be an object with a list of sentences"):
        load("activitynet", tmp_path)


# ---- DiDeMo


def didemo_csv(*rows: tuple[str, str]) -> str:
    return table(
        "success,video_path,starts,ends,text,formatted_data",
        *[("True", f"/data/all/{name}", "tensor([[0]])", "tensor([[31]])", text, "x")
          for name, text in rows],
    )  # fmt: skip


def test_didemo(tmp_path: Path) -> None:
    moments = [
        {"video": name, "description": text, "times": [[0, 0]], "num_segments": 6}
        for name, text in (("a.avi", "one."), ("b.", "two."), ("a.avi", "three"))
    ]
    write(tmp_path / "test_data.json", moments)
    write(tmp_path / "didemo_train_label.csv", didemo_csv(("c.mov", "four, five")))
    for name in ("a.avi.mp4", "b.mp4", "c.webm"):
        write(tmp_path / "videos" / name, "")
    dataset = load("didemo", tmp_path)
    assert dataset.splits == {"train": ("c.mov",), "test": ("a.avi", "b.")}
    assert texts(dataset, "test") == [("a.avi", "one. three"), ("b.", "two.")]
    assert texts(dataset, "train") == [("c.mov", "four, five")]
    assert {(video.id, video.path and video.path.name, video.end_seconds)
            for video in registry.resolve_videos(dataset, tmp_path / "videos")} == {
        ("a.avi", "a.avi.mp4", 30.0), ("b.", "b.mp4", 30.0), ("c.mov", "c.webm", 30.0),
    }  # fmt: skip
    write(tmp_path / "test_list.txt", "a.avi\n")
    write(tmp_path / "didemo_test_label.csv", didemo_csv(("a.avi", "other words")))
    dataset = load("didemo", tmp_path)
    assert texts(dataset, "test") == [("a.avi", "other words")]
    assert "test_data.json has other words for 1 video than the csv" in " ".join(dataset.notes)
    write(tmp_path / "didemo_train_label.csv", didemo_csv(("a.avi", "again")))
    with pytest.raises(DatasetError, match=r"'a\.avi' is in two splits"):
        load("didemo", tmp_path)


def test_a_train_list_of_didemo_may_name_more(tmp_path: Path) -> None:
    ids = published_splits("didemo")["val"]
    write(tmp_path / "val_data.json", [{"video": name, "description": "x"} for name in (*ids, "z")])
    write(tmp_path / "val_list.txt", "\n".join((*ids, "z")))
    assert load("didemo", tmp_path).splits == {"val": ids}
    write(tmp_path / "val_list.txt", "\n".join(ids[1:]))
    with pytest.raises(DatasetError, match=r"val_list\.txt and the published split 'val' of didem"):
        load("didemo", tmp_path)


# ---- splits


def test_overlap_is_only_looked_for_where_both_splits_are() -> None:
    dataset = Dataset("x", ("a", "b"), splits={"train": ("a",), "test": ("a", "b")})
    check_overlap(dataset, [("train", "val")])
    with pytest.raises(DatasetError, match=r"x: 1 video is in 'train' and in 'test' \(first: a"):
        check_overlap(dataset, [("train", "val"), ("train", "test")])


# ---- damage


def broken(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    document = msrvtt_json(range(10))
    change(document)
    return {"MSRVTT_data.json": document}


def beside_csvs(name: str, content: str) -> dict[str, Any]:
    return {"MSRVTT_data.json": msrvtt_json(range(10)), **CSVS, name: content}


SPLIT_TWICE = {"captions_msvd.json": {"a": "one", "b": "two"}, "train_list.txt": "a\nb",
               "test_list.txt": "b"}  # fmt: skip
JSFUSION = "MSRVTT_JSFUSION_test.csv"
DAMAGED: list[tuple[str, dict[str, Any], str]] = [
    ("msrvtt", broken(lambda d: d["videos"][4].update(category=20)),
     r"entry 4 of 'videos': the category of 'video4' is 20; allowed: 0 to 19"),
    ("msrvtt", broken(lambda d: d["videos"][4].update(category=-1)), r"is -1; allowed: 0 to 19"),
    ("msrvtt", broken(lambda d: d["videos"][4].update(category=np.nan)), r"is nan; allowed"),
    ("msrvtt", broken(lambda d: d["videos"][4].update(category=True)), r"is True; allowed"),
    ("msrvtt", broken(lambda d: d["videos"].append(msrvtt_video(4))), r"'video4' is listed twice"),
    ("msrvtt", broken(lambda d: d["videos"].append({})),
     r"entry 10 of 'videos': a video's id must be a text"),
    ("msrvtt", broken(lambda d: d["videos"].append(5)),
     r"entry 10 of 'videos' must be an object, is 5"),
    ("msrvtt", broken(lambda d: d.pop("sentences")), r"has no list 'sentences'; expected"),
    ("msrvtt", broken(lambda d: d["sentences"][3].pop("caption")),
     r"entry 3 of 'sentences' must be an object with video_id and caption"),
    ("msrvtt", broken(lambda d: d["sentences"][3].update(sen_id=2)), r"id '2' occurs twice"),
    ("msrvtt", broken(lambda d: d["sentences"][3].update(caption=7)), r"must be a text, is 7"),
    ("msrvtt", beside_csvs(JSFUSION, "id,text\n1,x\n"), "expected the columns video_id; found id,"),
    ("msrvtt", beside_csvs(JSFUSION, table("video_id,sentence", ("video8", " "))),
     "line 2: the sentence of video8 is empty"),
    ("msrvtt", beside_csvs(JSFUSION, table("video_id,sentence", ("video8", "x"), ("video8", "y"))),
     "lists 'video8' 2 times"),
    ("msrvtt", beside_csvs("val_list_jsfusion.txt", "video1\n"),
     r"MSRVTT_JSFUSION_test\.csv and .*val_list_jsfusion\.txt list different videos for '1kA-tes"),
    ("msvd", {"captions_msvd.json": ["a"]},
     r"holds a list; expected an object \{video: \[captions"),
    ("msvd", {"captions_msvd.json": {"a": ["one"], "b": 5}},
     r"captions_msvd\.json: 'b': captions must be a text, a"),
    ("msvd", SPLIT_TWICE, r"1 video is in 'train' and in 'test' \(first: b\)"),
    ("vatex", {"vatex_data.json": "5"}, r"must hold \[\{videoID, enCap\}\] or"),
    ("vatex", {"vatex_data.json": [{"videoID": "a"}]}, r"entry 0 must be an object with enCap"),
    ("vatex", {"vatex_data.json": [{"enCap": ["x"]}]},
     r"entry 0: a video's id must be a text, is None"),
    ("vatex", {"vatex_data.json": {"a": ["x"]}}, r"'a' must be an object with enCap"),
    ("vatex", {"vatex_data.json": [{"videoID": "a", "enCap": []}] * 2},
     r"entry 1: the video 'a' is listed twice"),
    ("didemo", {"test_data.json": {}}, r"must hold a list of \{video, description\} moments"),
    ("didemo", {"test_data.json": [{"video": "a"}]},
     r"entry 0 must be an object with video and description"),
    ("didemo", {"test_data.json": [{"video": "a", "description": 5}]},
     r"a sentence must be a text, not 5"),
    ("didemo", {"didemo_val_label.csv": "video,text\na,b\n"},
     r"expected the columns video_path, text; found"),
    ("didemo", {"didemo_val_label.csv": didemo_csv(("a", "x"), ("a", "y"))}, r"lists 'a' 2 times"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "files", "message"), DAMAGED)
def test_damage_is_named(tmp_path: Path, name: str, files: dict[str, Any], message: str) -> None:
    for file, content in files.items():
        write(tmp_path / file, content)
    with pytest.raises(DatasetError, match=message):
        load(name, tmp_path)
