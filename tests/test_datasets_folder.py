"""Listing a folder, matching files to ids, and ids that are always one to one."""

import os
import unicodedata
from pathlib import Path

import pytest
from builders import touch
from hypothesis import given
from hypothesis import strategies as st

from vtr.datasets.base import Dataset, Video
from vtr.datasets.files import VideoMatch, find_videos, match_videos
from vtr.datasets.registry import load_dataset, resolve_videos, survey_videos, unique_videos
from vtr.errors import ConfigError
from vtr.foreign import escape_undecodable, is_undecodable
from vtr.names import video_id

NFC = unicodedata.normalize("NFC", "café.mp4")
NFD = unicodedata.normalize("NFD", "café.mp4")


def match(root: Path, *ids: str) -> VideoMatch:
    return match_videos(find_videos(root), ids)


# ---- listing


def test_lists_nested_videos_sorted_by_raw_bytes(tmp_path: Path) -> None:
    touch(tmp_path, "b.mp4", "a/z.MKV", "a/b/c.WebM", "Z.mov", "é.mp4", "a.mp4", "notes.txt", "x")
    listing = find_videos(tmp_path)
    assert listing.names == ("Z.mov", "a.mp4", "a/b/c.WebM", "a/z.MKV", "b.mp4", "é.mp4")
    assert list(listing.names) == sorted(listing.names, key=os.fsencode)
    assert listing.others == {".txt": 1, "": 1}
    assert listing.path("a/z.MKV") == tmp_path / "a" / "z.MKV"


def test_a_folder_whose_dataset_is_its_listing_is_listed_once(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b/c.mp4", "notes.txt")
    dataset = load_dataset("folder", videos=tmp_path)
    survey = survey_videos(dataset, tmp_path)
    assert survey.listing is dataset.listing
    assert [video.path for video in survey.videos] == [tmp_path / "a.mp4", tmp_path / "b/c.mp4"]
    touch(tmp_path / "other", "a.mp4")
    elsewhere = survey_videos(dataset, tmp_path / "other")
    assert [video.path for video in elsewhere.videos] == [tmp_path / "other/a.mp4", None]


def test_folders_of_network_disks_and_desktops_are_skipped_and_counted(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "trip/b.mp4", "@eaDir/a.mp4/SYNOVIDEO_VIDEO_SCREENSHOT.jpg",
          "trip/@eaDir/b.mp4/SYNOINDEX_MEDIA_INFO", "#recycle/c.mp4", ".Trash-1000/files/d.mp4",
          "Thumbs.db", "$RECYCLE.BIN/e.mp4", "__MACOSX/._a.mp4", "._a.mp4", ".DS_Store",
          ".git/b.mp4", ".tmp-1-c.mp4", "trip/.d.mp4", "cover.webp", "notes.txt",
          "list.txt")  # fmt: skip
    listing = find_videos(tmp_path)
    assert listing.names == ("a.mp4", "trip/b.mp4")
    assert listing.skipped == ("3 other files (2 .txt, 1 .webp), 12 hidden or system entries")


def test_what_a_name_does_not_tell_the_content_does(tmp_path: Path) -> None:
    packet = b"G\x40\x11\x10" + bytes(184)
    for name, content in {
        "src/index.ts": b"export const x = 1;\n",
        "src/types.mts": "// Größe: Übung\nexport type Größe = number;\n".encode(),
        "translations.ts": b'<?xml version="1.0"?>\n<TS version="2.1">',
        "clip.ts": packet * 3,
        "damaged.ts": bytes(600),
        "empty.ts": b"",
        "noext": b"\0\0\0\x20ftypisom" + bytes(20),
        "music": b"\0\0\0\x20ftypM4A " + bytes(20),
        "MAKEFILE": b"all:\n\ttrue\n",
        "README": b"",
        "stream": packet * 3,
    }.items():
        touch(tmp_path, name)
        (tmp_path / name).write_bytes(content)
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "pipe.ts")
    listing = find_videos(tmp_path)
    assert listing.names == (
        "clip.ts", "damaged.ts", "empty.ts", "noext", "pipe.ts", "stream")  # fmt: skip
    assert listing.others == {".ts": 2, ".mts": 1, "": 4}


def test_what_cannot_be_a_video_but_is_named_so_is_listed(tmp_path: Path) -> None:
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "dangling.mp4").symlink_to(tmp_path / "nowhere")
    (tmp_path / "self.mp4").symlink_to("self.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    assert find_videos(tmp_path).names == ("dangling.mp4", "folder.mp4", "pipe.mp4", "self.mp4")


def test_a_folder_with_a_video_name_that_holds_videos_is_only_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "film.mov/deep/a.mp4", "notes.ts/readme.md")
    assert find_videos(tmp_path).names == ("film.mov/deep/a.mp4", "notes.ts")


def test_link_loops_end_and_real_names_win(tmp_path: Path) -> None:
    touch(tmp_path, "real/a.mp4", "real/sub/b.mp4")
    before = find_videos(tmp_path).names
    (tmp_path / "real" / "sub" / "up").symlink_to(tmp_path)
    (tmp_path / "aaa-first-in-order").symlink_to(tmp_path / "real")
    assert find_videos(tmp_path).names == before == ("real/a.mp4", "real/sub/b.mp4")


def test_a_link_to_a_folder_elsewhere_is_entered_once(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    touch(elsewhere, "a.mp4", "deep/b.mp4")
    root.mkdir()
    (root / "one").symlink_to(elsewhere)
    (root / "two").symlink_to(elsewhere / "deep")
    (root / "three.mp4").symlink_to(elsewhere / "a.mp4")
    assert find_videos(root).names == ("one/a.mp4", "one/deep/b.mp4", "three.mp4")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_folder_is_reported(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "locked/b.mp4")
    (tmp_path / "locked").chmod(0)
    try:
        listing = find_videos(tmp_path)
    finally:
        (tmp_path / "locked").chmod(0o700)
    assert listing.names == ("a.mp4",)
    assert listing.unreadable == (("locked", "Permission denied"),)


def test_a_path_too_long_for_the_system_is_reported_and_the_rest_listed(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    where = os.open(tmp_path, os.O_RDONLY)
    for _ in range(30):  # deeper than PATH_MAX, reachable only step by step
        os.mkdir("d" * 200, dir_fd=where)
        where, parent = os.open("d" * 200, os.O_RDONLY, dir_fd=where), where
        os.close(parent)
    os.close(where)
    listing = find_videos(tmp_path)
    assert listing.names == ("a.mp4",)
    assert [reason for _, reason in listing.unreadable] == ["File name too long"]


@pytest.mark.parametrize(
    ("name", "reason"), [("missing", "there is no such folder"), ("file.mp4", "that is a file")]
)
def test_what_is_no_folder_is_refused(tmp_path: Path, name: str, reason: str) -> None:
    touch(tmp_path, "file.mp4")
    with pytest.raises(ConfigError, match=reason):
        find_videos(tmp_path / name)


# ---- ids


def test_ids_keep_extension_and_folder_and_do_not_move_when_files_are_added(tmp_path: Path) -> None:
    touch(tmp_path, "x.mp4", "x.webm", "sub/x.mp4", "new\nline 'quoted' \"twice\".mp4")
    before = load_dataset("folder", videos=tmp_path).video_ids
    assert before == ("new\nline 'quoted' \"twice\".mp4", "sub/x.mp4", "x.mp4", "x.webm")
    touch(tmp_path, "a.mp4", "sub/a.mp4", "x.avi")
    assert set(before) < set(load_dataset("folder", videos=tmp_path).video_ids)


def test_composition_twins_get_ids_of_their_own_and_keep_their_files(tmp_path: Path) -> None:
    touch(tmp_path, NFC, NFD)
    dataset = load_dataset("folder", videos=tmp_path)
    assert dataset.video_ids == (NFC, NFC)
    resolved = unique_videos(resolve_videos(dataset, tmp_path))
    assert [(video.id, problem) for video, problem in resolved] == [
        (NFC, None),
        (f"{NFC}#duplicate-2", "duplicate-id"),
    ]
    assert {video.path for video, _ in resolved} == {tmp_path / NFC, tmp_path / NFD}
    assert survey_videos(dataset, tmp_path).duplicates == {}


def test_a_name_that_is_not_unicode_is_escaped_and_marked(tmp_path: Path) -> None:
    raw = os.fsdecode(b"caf\xe9.mp4")
    try:
        touch(tmp_path, raw, r"caf\xe9.mp4")
    except OSError:
        pytest.skip("this file system takes only Unicode names")
    dataset = load_dataset("folder", videos=tmp_path)
    resolved = unique_videos(resolve_videos(dataset, tmp_path))
    assert [(video.id, video.path, problem) for video, problem in resolved] == [
        (r"caf\xe9.mp4", tmp_path / r"caf\xe9.mp4", None),
        (r"caf\xe9.mp4#duplicate-2", tmp_path / raw, "bad-name"),
    ]


def test_suffixes_never_take_an_id_that_exists() -> None:
    given = [Video(name, None) for name in ["a", "a", "a#duplicate-2", "a", "a#duplicate-2"]]
    assert [(video.id, problem) for video, problem in unique_videos(iter(given))] == [
        ("a", None),
        ("a#duplicate-3", "duplicate-id"),
        ("a#duplicate-2", None),
        ("a#duplicate-4", "duplicate-id"),
        ("a#duplicate-2#duplicate-2", "duplicate-id"),
    ]


NAMES = st.text(st.sampled_from("ae\u0301\u00e9#-2\udce9\0") | st.characters(), max_size=6)


@given(st.lists(NAMES, max_size=8))
def test_unique_ids_are_unique_storable_and_in_order(names: list[str]) -> None:
    result = unique_videos([Video(name, None) for name in names])
    ids = [video.id for video, _ in result]
    assert len(set(ids)) == len(names)
    for name, (video, problem) in zip(names, result, strict=True):
        assert video.id.encode("utf-8").decode() == unicodedata.normalize("NFC", video.id)
        assert "\0" not in video.id
        assert (problem == "bad-name") == is_undecodable(name)
        if problem is None:
            assert video.id == unicodedata.normalize("NFC", name)


def test_windows_travel_with_the_video(tmp_path: Path) -> None:
    touch(tmp_path, "long.mp4")
    dataset = Dataset(name="x", video_ids=("long", "gone"), windows={"long": (1.5, None)})
    assert resolve_videos(dataset, tmp_path) == (
        Video("long", tmp_path / "long.mp4", 1.5, None),
        Video("gone", None),
    )
    assert survey_videos(dataset, tmp_path).missing == ("gone",)


# ---- matching


def test_ids_find_their_files_in_any_folder_and_container(tmp_path: Path) -> None:
    touch(tmp_path, "video1.mp4", "deep/er/video2.webm", "video10.avi", "one.two.mkv", "other.mp4")
    found = match(tmp_path, "video1", "video2", "video3", "one.two", "video10.avi")
    assert found.paths == {
        "video1": tmp_path / "video1.mp4",
        "video2": tmp_path / "deep/er/video2.webm",
        "one.two": tmp_path / "one.two.mkv",
        "video10.avi": tmp_path / "video10.avi",
    }
    assert found.unexpected == (tmp_path / "other.mp4",)
    assert found.duplicates == {}


def test_duplicates_first_in_order_wins_and_regular_files_come_first(tmp_path: Path) -> None:
    touch(tmp_path, "b/v.mp4", "c/v.webm", "d/v.mp4")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "v.mp4").symlink_to("nowhere")
    found = match(tmp_path, "v")
    assert found.paths == {"v": tmp_path / "b/v.mp4"}
    assert found.duplicates == {
        "v": (tmp_path / "c/v.webm", tmp_path / "d/v.mp4", tmp_path / "a/v.mp4")
    }


# ---- the registry and the text helpers


def test_escapes_name_the_byte() -> None:
    assert escape_undecodable(os.fsdecode(b"a\xffb")) == r"a\xffb"
    assert escape_undecodable("\ud83d\0") == r"\ud83d\x00"
    assert video_id("plain/name.mp4") == "plain/name.mp4"
