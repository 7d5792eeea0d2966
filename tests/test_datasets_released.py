"""Published layouts beside the usual ones: as authors released them, as mirrors pass them on."""

import json
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path

import builders
import pytest

import vtr
from vtr.datasets.base import Dataset
from vtr.datasets.registry import load_dataset, survey_videos
from vtr.errors import DatasetError

CLIPS = ("video7020", "video7021", "video7024", "video0")
FILM = "0001_American_Beauty_00.00.51.926-00.00.54.129"
OTHER_FILM = "1005_Signs_00.01.04.123-00.01.06.000"
touch = partial(builders.touch, content=b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41")


def texts(dataset: Dataset) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for caption in dataset.captions:
        found.setdefault(caption.video_id, []).append(caption.text)
    return found


@pytest.fixture
def frozen(tmp_path: Path) -> Path:
    """The folder MSRVTT of Frozen in Time."""
    lists = tmp_path / "frozen" / "structured-symlinks"
    notes = tmp_path / "frozen" / "annotation"
    lists.mkdir(parents=True)
    notes.mkdir()
    owners = [clip for clip in CLIPS for _ in range(20)]
    coco = {
        "info": {},
        "images": [{"id": clip, "file_name": f"{clip}.mp4"} for clip in CLIPS],
        "annotations": [
            {"image_id": clip, "id": number, "caption": f"caption {number}"}
            for number, clip in enumerate(owners)
        ],
    }
    (notes / "MSR_VTT.json").write_text(json.dumps(coco))
    (lists / "val_list_jsfusion.txt").write_text("\n".join(CLIPS[:3]))
    (lists / "train_list_jsfusion.txt").write_text(CLIPS[3])
    write_places(lists, dict.fromkeys(CLIPS[:3], 3))
    (lists / "raw-captions.pkl").write_bytes(pickle.dumps({clip: [["a"]] for clip in CLIPS}))
    return tmp_path / "frozen"


def write_places(folder: Path, places: object) -> None:
    (folder / "jsfusion_val_caption_idx.pkl").write_bytes(pickle.dumps(places))


def test_msrvtt_of_frozen_in_time(frozen: Path) -> None:
    videos = touch(frozen / "videos", *(f"{clip}.mp4" for clip in CLIPS))
    dataset = load_dataset("msrvtt", annotations=frozen, videos=videos)
    assert dataset.video_ids == CLIPS
    assert len(dataset.captions) == 80
    assert dataset.splits == {"1kA-train": CLIPS[3:], "1kA-test": CLIPS[:3]}
    assert [(query.video_id, query.id, query.text) for query in dataset.queries["1kA-test"]] == [
        (clip, str(20 * place + 3), f"caption {20 * place + 3}")
        for place, clip in enumerate(CLIPS[:3])
    ]
    assert survey_videos(dataset, videos).missing == ()


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ({CLIPS[0]: 20}, r"caption 20 of video7020 is asked for, which has 20"),
        ({CLIPS[0]: "3"}, r"'video7020' must be the place of a caption, is '3'"),
        ({CLIPS[0]: -1}, r"must be the place of a caption, is -1"),
        ([3], r"holds a list; expected an object \{video: place\}"),
        (dict.fromkeys(CLIPS[1:3], 3), r"list different videos for '1kA-test'"),
        (print, r"wants to build builtins\.print.*nothing of it was run"),
    ],
)
def test_places_of_captions_that_cannot_be_are_refused(
    frozen: Path, places: object, message: str
) -> None:
    lists = frozen / "structured-symlinks"
    write_places(lists, places)
    if isinstance(places, dict) and len(places) == 1:
        (lists / "val_list_jsfusion.txt").write_text(CLIPS[0])
    with pytest.raises(DatasetError, match=message):
        load_dataset("msrvtt", annotations=frozen, videos=frozen)


def msvd_text(folder: Path) -> None:
    lines = [
        "# one a line",
        "",
        "-4wsuPCjDBc_5_15 a bird sings",
        "vtt_1_10_20  it's  two \u2028 blanks",
    ]
    (folder / "AllVideoDescriptions.txt").write_text("\n".join([*lines, lines[2] + " again", ""]))


def msvd_table(folder: Path) -> None:
    rows = [
        ("-4wsuPCjDBc", "5", "15", "English", "a bird sings"),
        ("-4wsuPCjDBc", "5", "15", "Slovene", "ptica poje"),
        ("vtt_1", "10", "20", "English", "it's  two \u2028 blanks"),
        ("-4wsuPCjDBc", "5", "15", "english", "a bird sings again"),
    ]
    header = "VideoID,Start,End,WorkerID,Source,AnnotationTime,Language,Description\n"
    (folder / "video_corpus.csv").write_text(
        header + "".join(f"{i},{a},{b},7,clean,55,{lang},{text}\n" for i, a, b, lang, text in rows)
    )


@pytest.mark.parametrize("write", [msvd_text, msvd_table])
def test_msvd_as_released(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path)
    videos = touch(tmp_path / "videos", "-4wsuPCjDBc_5_15.avi", "sub/vtt_1_10_20.mp4")
    dataset = load_dataset("msvd", annotations=tmp_path, videos=videos)
    assert texts(dataset) == {
        "-4wsuPCjDBc_5_15": ["a bird sings", "a bird sings again"],
        "vtt_1_10_20": ["it's  two \u2028 blanks"],
    }
    assert survey_videos(dataset, videos).missing == ()


def test_msvd_lines_without_a_caption_are_refused(tmp_path: Path) -> None:
    (tmp_path / "AllVideoDescriptions.txt").write_text("# x\nclip\n")
    with pytest.raises(DatasetError, match=r"line 2: expected a video, a blank and a caption"):
        load_dataset("msvd", annotations=tmp_path, videos=tmp_path)


@pytest.mark.parametrize("end", ["_someone.csv", ".csv"])
@pytest.mark.parametrize("test", ["publictect", "publictest"])
def test_lsmdc_under_every_name(tmp_path: Path, end: str, test: str) -> None:
    def write(name: str, clip: str, text: str) -> None:
        (tmp_path / name).write_text("\t".join([clip, "0", "1", "0", "1", text]) + "\n")

    write(f"LSMDC16_annos_training{end}", FILM, "SOMEONE walks.")
    write(f"LSMDC16_challenge_1000_{test}{end}", OTHER_FILM, "SOMEONE runs.")
    dataset = load_dataset("lsmdc", annotations=tmp_path, videos=tmp_path)
    assert dataset.splits == {"train": (FILM,), "test": (OTHER_FILM,)}
    assert dataset.notes == ("LSMDC16_annos_val.csv was not found; its split is left out",)
    write("LSMDC16_annos_training.csv", FILM, "Lester walks.")
    write("LSMDC16_annos_training_someone.csv", FILM, "SOMEONE walks.")
    dataset = load_dataset("lsmdc", annotations=tmp_path, videos=tmp_path)
    assert texts(dataset)[FILM] == ["Lester walks."]
    assert "LSMDC16_annos_training_someone.csv was found as well and not read" in dataset.notes


@pytest.mark.parametrize(
    "kept",
    [
        lambda name: name,
        lambda name: name.rpartition(".")[0],
        lambda name: name.rpartition(".")[0] + ".mp4",
        lambda name: "train/" + name.rpartition(".")[0] + ".webm",
    ],
)
def test_didemo_ids_that_end_in_a_dot(tmp_path: Path, kept: Callable[[str], str]) -> None:
    names = ["1@N00_1_aa.avi", "2@N02_2_bb.mov", "3@N08_3_cc."]
    for split, name in zip(("train", "val", "test"), names, strict=True):
        moment = {"video": name, "description": "a dog walks", "times": [[0, 0]]}
        (tmp_path / f"{split}_data.json").write_text(json.dumps([moment]))
    videos = touch(tmp_path / "videos", *map(kept, names))
    dataset = load_dataset("didemo", annotations=tmp_path, videos=videos)
    found = survey_videos(dataset, videos)
    assert [(video.id, video.path) for video in found.videos] == [
        (name, videos / kept(name)) for name in names
    ]
    assert (found.unexpected, found.duplicates) == ((), {})


def test_vatex_files_may_have_the_youtube_id_alone_where_one_clip_has_it(tmp_path: Path) -> None:
    names = ["-_hbPLsZvvo_000010_000020", "abcDEFghij1_000010_000020", "abcDEFghij1_000030_000040"]
    records = [{"videoID": name, "enCap": ["a man"]} for name in names]
    (tmp_path / "vatex_validation_v1.0.json").write_text(json.dumps(records))
    videos = touch(tmp_path / "videos", "-_hbPLsZvvo.mp4", "abcDEFghij1.mp4")
    dataset = load_dataset("vatex", annotations=tmp_path, videos=videos)
    found = survey_videos(dataset, videos)
    assert found.missing == tuple(names[1:])
    assert found.unexpected == (videos / "abcDEFghij1.mp4",)


def test_paths_may_be_text(tmp_path: Path) -> None:
    msvd_text(tmp_path)
    read = vtr.load_dataset("msvd", annotations=str(tmp_path), videos=str(tmp_path / "videos"))
    assert read == vtr.load_dataset("msvd", annotations=tmp_path, videos=tmp_path / "videos")
    videos = touch(tmp_path / "videos", "-4wsuPCjDBc_5_15.avi")
    assert survey_videos(read, str(videos)) == survey_videos(read, videos)


def test_a_list_of_a_split_may_spell_the_videos_otherwise(tmp_path: Path) -> None:
    msvd_text(tmp_path)
    (tmp_path / "train_list.txt").write_text("./YouTubeClips/-4wsuPCjDBc_5_15.avi\n")
    (tmp_path / "test_list.txt").write_text("vtt_1_10_20.mp4\ngone.mp4\n")
    dataset = load_dataset("msvd", annotations=tmp_path, videos=tmp_path)
    assert dataset.splits == {"train": ("-4wsuPCjDBc_5_15",), "test": ("vtt_1_10_20",)}
    assert any("test_list.txt: 1 of 2 videos are not annotated" in note for note in dataset.notes)
