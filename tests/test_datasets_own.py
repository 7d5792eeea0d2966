"""A person's own folder with captions: CSV, TSV, JSONL and JSON."""

import json
import time
from pathlib import Path

import pytest
from builders import put, touch

from vtr.datasets.base import Caption, Dataset, split_queries
from vtr.datasets.registry import load_dataset, survey_videos
from vtr.errors import DatasetError

FULL = [
    {"video": "a", "caption": "one", "category": "pets", "split": "train"},
    {"video": "sub/b.webm", "caption": "two, three", "category": "food", "split": "test"},
    {"video": "a.mp4", "caption": "one", "category": "pets", "split": "train"},
]


@pytest.fixture
def films(tmp_path: Path) -> Path:
    return touch(tmp_path / "films", "a.mp4", "sub/b.webm", "c.avi")


def write(folder: Path, name: str, text: str) -> Path:
    return put(folder / "notes" / name, text.encode("utf-8-sig"))


def load(films: Path, path: Path) -> Dataset:
    return load_dataset("folder", annotations=path, videos=films)


def as_table(delimiter: str) -> str:
    quoted = [{**row, "caption": f'"{row["caption"]}"'} for row in FULL]
    rows = [delimiter.join(row.values()) for row in quoted]
    return "\r\n".join([delimiter.join(FULL[0]), *rows, ""])


LAYOUTS = {
    "captions.csv": as_table(","),
    "captions.tsv": as_table("\t"),
    "captions.jsonl": "\n".join(map(json.dumps, FULL)),
    "captions.json": json.dumps(FULL),
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("named", ["file", "folder"])
def test_every_format_says_the_same(films: Path, name: str, named: str) -> None:
    path = write(films.parent, name, LAYOUTS[name])
    dataset = load(films, path if named == "file" else path.parent)
    assert dataset.video_ids == ("a.mp4", "c.avi", "sub/b.webm")
    assert dataset.captions == (
        Caption("a.mp4#0", "a.mp4", "one"),
        Caption("sub/b.webm#0", "sub/b.webm", "two, three"),
        Caption("a.mp4#1", "a.mp4", "one"),
    )
    assert dataset.splits == {"train": ("a.mp4",), "test": ("sub/b.webm",)}
    assert dataset.categories == {"a.mp4": "pets", "sub/b.webm": "food"}
    assert dataset.annotation_files == (path,)
    assert dataset.notes == ("1 of 3 videos in the folder have no caption",)
    assert [query.text for query in split_queries(dataset, "test")] == ["two, three"]


@pytest.mark.parametrize(
    "content",
    [
        {"a": "one", "b.webm": "two"},
        {"a.mp4": ["one"], "sub/b.webm": ["two"]},
        {"a": [["one"]], "b": [["two"]]},
        {"a": {"captions": ["one"]}, "b": {"caption": "two", "category": None}},
        [{"file": "a", "sentences": [["one"]]}, {"video_id": "b", "text": "two"}],
    ],
)
def test_json_in_every_shape(films: Path, content: object) -> None:
    dataset = load(films, write(films.parent, "mine.json", json.dumps(content)))
    assert [(item.video_id, item.text) for item in dataset.captions] == [
        ("a.mp4", "one"),
        ("sub/b.webm", "two"),
    ]
    assert (dataset.splits, dataset.categories) == ({}, {})


def test_videos_that_only_the_captions_know_are_missing(films: Path) -> None:
    path = write(films.parent, "captions.json", json.dumps({"gone": "x", "a": ["", "y"]}))
    dataset = load(films, path)
    assert dataset.video_ids == ("a.mp4", "c.avi", "sub/b.webm", "gone")
    assert survey_videos(dataset, films).missing == ("gone",)
    assert [item.id for item in dataset.captions] == ["gone#0", "a.mp4#1"]
    assert "1 caption is empty, dropped (first: a.mp4#0)" in dataset.notes
    assert "1 video of captions.json is not in the folder (first: gone)" in dataset.notes


def test_no_captions_are_no_mistake(films: Path) -> None:
    dataset = load_dataset("folder", videos=films)
    assert (len(dataset.video_ids), dataset.captions, dataset.notes) == (3, (), ())


def test_one_of_several_files_is_read(films: Path) -> None:
    write(films.parent, "captions.json", json.dumps({"a": "json"}))
    path = write(films.parent, "captions.csv", "video,caption\na,csv\n")
    dataset = load(films, path.parent)
    assert [item.text for item in dataset.captions] == ["csv"]
    assert dataset.notes[0] == "captions.json was found as well and not read"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "c.csv",
            "clip,words\na,b\n",
            r"line 1: expected a video \(video, video_id, .*\) and a caption \(caption, .*\); "
            r"found clip, words\. The first line must name",
        ),
        ("c.csv", "video,caption\n", r"has no rows; expected a header with video and caption"),
        ("c.csv", "video,caption\na,b,c\n", r"line 2: 3 fields, but the header names 2"),
        ("c.csv", "video,caption\n,b\n", r"line 2: a video's id must be a text, is ''"),
        (
            "c.csv",
            "video,caption,split\na,x,train\na.mp4,y,test\n",
            r"line 3: the video 'a\.mp4' has the split 'test', but had 'train' before",
        ),
        ("c.jsonl", '{"video": "a", "caption": "x"}\n{"video"', r"line 2: not one JSON document"),
        ("c.jsonl", "[1]", r"line 1 must be an object with video and caption, is \[1\]"),
        ("c.json", "7", r"must hold a list of \{video, caption\} or one object"),
        ("c.json", '{"a": 7}', r"'a': captions must be a text, a list of texts"),
        ("c.txt", "a", r"c\.txt is no caption file; its name must end in \.csv"),
    ],
)
def test_wrong_caption_files_are_explained(films: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        load(films, write(films.parent, name, text))


def test_a_folder_without_captions_and_a_missing_one_are_explained(films: Path) -> None:
    with pytest.raises(DatasetError, match=r"no caption file in .*Looked for captions\.csv or"):
        load(films, films)
    with pytest.raises(DatasetError, match=r"there is no file or folder .*gone; --annotations"):
        load(films, films / "gone")


def test_a_name_that_fits_two_files_is_refused(films: Path) -> None:
    (films / "a.webm").touch()
    path = write(films.parent, "captions.csv", "video,caption\na,x\n")
    with pytest.raises(DatasetError, match=r"'a' may be a\.mp4 or a\.webm; write the path from"):
        load(films, path)
    write(films.parent, "captions.csv", "video,caption\na.webm,x\n")
    assert load(films, path).captions == (Caption("a.webm#0", "a.webm", "x"),)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    names = ("cats/one.mp4", "cats/two.mp4", "dogs/one.mp4", "dogs/three.mp4")
    return touch(tmp_path / "pets", *names)


LOST = "video,caption,split\ncats/one.mp4,a,test\n{},lost,train\ndogs/three.mp4,three dogs,test\n"


@pytest.mark.parametrize(
    "lost", ["cats/three.mp4", "./cats//three.mp4", "cats\\three.mp4", "cats/three.avi"]
)
def test_a_lost_video_is_not_that_of_another_folder(pets: Path, lost: str) -> None:
    dataset = load(pets, write(pets.parent, "captions.csv", LOST.format(lost)))
    identity = "cats/three" + lost[-4:]
    assert [item.video_id for item in dataset.captions] == [
        "cats/one.mp4", identity, "dogs/three.mp4"
    ]  # fmt: skip
    assert dataset.splits == {"test": ("cats/one.mp4", "dogs/three.mp4"), "train": (identity,)}
    assert survey_videos(dataset, pets).missing == (identity,)
    assert f"1 video of captions.csv is not in the folder (first: {identity})" in dataset.notes


def test_spellings_of_one_video_are_one_video_and_contradictions_are_refused(pets: Path) -> None:
    names = ["cats/one.mp4", ".\\cats\\one.mp4", "/srv/pets/cats/one.mp4", "cats/one"]
    rows = "".join(f"{name},text {i}\n" for i, name in enumerate(names))
    path = write(pets.parent, "captions.csv", f"video,caption\n{rows}")
    assert {item.video_id for item in load(pets, path).captions} == {"cats/one.mp4"}
    write(pets.parent, "captions.csv", "video,caption\ncats/one.avi,x\ncats/one.mov,y\n")
    with pytest.raises(DatasetError, match=r"cats/one\.\w+ and cats/one\.\w+ may both be cats"):
        load(pets, path)


def test_case_is_forgiven_with_a_note(pets: Path) -> None:
    path = write(pets.parent, "captions.csv", "video,caption\nCATS/ONE.MP4,x\ndogs/one.mp4,y\n")
    dataset = load(pets, path)
    assert [item.video_id for item in dataset.captions] == ["cats/one.mp4", "dogs/one.mp4"]
    assert (
        "1 of 2 names in captions.csv differ from the file in upper and lower case or blanks "
        "(first: CATS/ONE.MP4 is taken for cats/one.mp4)"
    ) in dataset.notes


def test_a_file_whose_name_begins_with_a_blank_has_its_caption(pets: Path) -> None:
    (pets / "cats/one.mp4").rename(pets / "cats/ one.mp4")
    path = write(pets.parent, "captions.json", '[{"video": "cats/ one.mp4", "caption": "x"}]')
    assert {item.video_id for item in load(pets, path).captions} == {"cats/ one.mp4"}


@pytest.mark.slow
def test_the_time_per_caption_does_not_grow_with_the_folder(tmp_path: Path) -> None:
    def seconds(files: int) -> float:
        films = touch(tmp_path / str(files), *(f"v{number}.mp4" for number in range(files)))
        rows = "".join(f"v{number},x\nlost/{number},y\n" for number in range(2 * files))
        path = write(films, "captions.csv", f"video,caption\n{rows}")
        start = time.process_time()
        dataset = load(films, path)
        survey_videos(dataset, films)
        return (time.process_time() - start) / files

    seconds(10)
    assert seconds(8000) < 4 * seconds(1000)
