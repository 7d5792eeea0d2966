"""`vtr data` and `vtr init` on a dataset in MSR-VTT's layout, through the command line."""

import json
from pathlib import Path

import pytest
from builders import grey, run_app, write_clip

from vtr.datasets.registry import dataset_names
from vtr.errors import ConfigError, UnknownNameError


@pytest.fixture
def msrvtt(here: Path) -> Path:
    """Six videos are annotated; four files are there: two sound, one damaged, one twice."""
    notes = here / "notes"
    notes.mkdir()
    split = ["train", "train", "validate", "test", "test", "test"]
    document = {
        "videos": [{"video_id": f"video{n}", "category": n, "split": split[n]} for n in range(6)],
        "sentences": [
            {"video_id": f"video{n}", "sen_id": 2 * n + turn, "caption": f"clip {n} {turn}"}
            for n in range(6)
            for turn in range(2)
        ],
    }
    (notes / "MSRVTT_data.json").write_text(json.dumps(document))
    rows = ["video_id,sentence", "video4,clip 4 1", "video3,clip 3 0"]
    (notes / "MSRVTT_JSFUSION_test.csv").write_text("\n".join(rows))
    films = here / "films"
    (films / "deep").mkdir(parents=True)
    encode(films / "video0.mp4")
    encode(films / "deep" / "video3.mkv")
    (films / "video3.mp4").write_bytes(b"")
    (films / "video4.avi").write_text("<html>404</html>")
    (films / "other.mp4").touch()
    return here


def encode(path: Path) -> None:
    write_clip(path, [grey(40 * number, (32, 32)) for number in range(4)], codec="mpeg4", fps=5)


PLACES = ("--videos", "films", "--annotations", "notes")


def test_list_names_every_dataset_with_its_files() -> None:
    facts = json.loads(run_app("data", "list", "--json").stdout)
    assert [fact["name"] for fact in facts] == dataset_names()
    text = run_app("data", "list").stdout
    assert max(map(len, text.splitlines())) <= 80
    words = " ".join(text.split())
    for fact in facts:
        assert f"{fact['name']}: {fact['summary']}" in words
        for file in fact["files"]:
            assert f"{file['name']}: {file['what']}" in words
    assert "splits       train 10,009, val_1 4,917, val_2 4,885" in text


def test_show_says_what_the_files_say(msrvtt: Path) -> None:
    result = run_app("data", "show", "msrvtt", "--annotations", "notes")
    assert result.stdout.splitlines() == [
        "dataset      msrvtt",
        "files        2 recognised: MSRVTT_data.json, MSRVTT_JSFUSION_test.csv",
        "videos       6, first video0, video1, video2",
        "captions     12",
        "categories   6",
        "1kA-test     2 videos, 2 captions (fixed by the protocol), 1 a video; first",
        "             video4, video3",
        "train        2 videos, 4 captions, 2 a video; first video0, video1",
        "val          1 video, 2 captions, 2 a video; first video2",
        "test         3 videos, 6 captions, 2 a video; first video3, video4, video5",
        "trainval     3 videos, 6 captions, 2 a video; first video0, video1, video2",
        "note         the annotations hold 6 videos, 6 of the published 10,000; 1kA-test,",
        "             train, val, test come from the files themselves",
    ]
    facts = json.loads(run_app("data", "show", "msrvtt", *PLACES, "--json").stdout)
    assert facts["splits"]["1kA-test"] == {
        "videos": 2,
        "captions": 2,
        "captions_per_video": 1.0,
        "fixed_queries": True,
        "first_ids": ["video4", "video3"],
    }
    assert len(facts["notes"]) == 1


def test_init_recognises_the_files_and_the_workspace_needs_no_flags(msrvtt: Path) -> None:
    result = run_app("init", "msrvtt", *PLACES)
    rows = {line[:12].strip(): line[13:] for line in result.stdout.splitlines()}
    assert rows["annotations"] == ("2 files recognised: MSRVTT_data.json, MSRVTT_JSFUSION_test.csv")
    assert rows["videos"] == f"3 of 6 present in {msrvtt / 'films'}"
    assert rows["splits"] == "1kA-test 2, train 2, val 1, test 3, trainval 3"
    assert rows["note"].startswith("the annotations hold 6 videos, 6 of the published 10,000;")
    assert rows["missing"] == "3: video1, video2, video5"
    assert run_app("data", "show").stdout.startswith("dataset      msrvtt\n")
    run_app("data", "verify", "--fast", code=3)


def test_init_takes_a_caption_file(msrvtt: Path) -> None:
    (msrvtt / "mine.csv").write_text("video,caption\nvideo0,a clip\n")
    result = run_app("init", "--videos", "films", "--annotations", "mine.csv")
    assert "annotations  1 file recognised: mine.csv" in result.stdout
    assert "captions     1" in result.stdout


def test_verify_decodes_and_counts_by_split(msrvtt: Path) -> None:
    result = run_app("data", "verify", "msrvtt", *PLACES, "--json", "--workers", "1", code=3)
    facts = json.loads(result.stdout)
    assert facts["all"] == {
        "expected": 6,
        "present": 3,
        "missing": 3,
        "undecodable": 1,
        "duplicate": 1,
    }
    assert facts["splits"]["1kA-test"] == {
        "expected": 2,
        "present": 2,
        "missing": 0,
        "undecodable": 1,
        "duplicate": 1,
    }
    assert facts["missing"] == ["video1", "video2", "video5"]
    assert list(facts["undecodable"]) == ["video4"]
    assert facts["undecodable"]["video4"].startswith("not-a-video: ")
    assert facts["duplicates"] == {"video3": [str(msrvtt / "films" / "video3.mp4")]}
    assert (facts["damaged"], facts["unexpected"], facts["decoded"]) == ({}, 1, True)


def test_verify_fast_prints_a_table_and_decodes_nothing(msrvtt: Path) -> None:
    result = run_app("data", "verify", "msrvtt", *PLACES, "--fast", code=3)
    lines = result.stdout.splitlines()
    assert lines[2].split() == ["split", "expected", "present", "missing", "duplicate"]
    assert lines[3].split() == ["all", "6", "3", "3", "1"]
    assert lines[4].split() == ["1kA-test", "2", "2", "0", "1"]
    assert "missing      video1, video2, video5" in lines
    assert "duplicate    video3" in lines
    assert "unexpected   1 more video files belong to no id" in lines
    assert "nothing was decoded" in result.stderr


def test_verify_of_a_sound_folder_leaves_with_zero(here: Path) -> None:
    (here / "films").mkdir()
    encode(here / "films" / "a.mp4")
    result = run_app("data", "verify", "folder", "--videos", "films", "--workers", "1")
    lines = result.stdout.splitlines()
    assert lines[2].split()[-1] == "undecodable"
    assert lines[3].split() == ["all", "1", "1", "0", "0", "0"]
    (here / "films" / "b.mp4").write_text("no video")
    result = run_app("data", "verify", "folder", "--videos", "films", "--workers", "1", code=3)
    assert "undecodable  b.mp4: not-a-video: " in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show"], r"name a dataset \(activitynet, .*\), or run this in a workspace"),
        (["show", "folder"], r"where is the dataset 'folder'\? Name its folder with --videos"),
        (["show", "msvd"], r"where is the dataset 'msvd'\? Name its folder with --annotations"),
        (["verify", "msvd", "--annotations", "x"], r"name the folder of the videos with --videos"),
    ],
)
def test_what_is_not_named_is_asked_for(here: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run_app("data", *arguments)


def test_an_unknown_dataset_gets_a_suggestion(here: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"Did you mean 'msrvtt'"):
        run_app("data", "show", "msrvt")


def test_a_workspace_of_another_dataset_lends_nothing(msrvtt: Path) -> None:
    run_app("init", "msrvtt", *PLACES)
    with pytest.raises(ConfigError, match="where is the dataset 'msvd'"):
        run_app("data", "show", "msvd")
