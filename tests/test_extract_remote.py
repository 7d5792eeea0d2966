"""Videos on other file systems: listed and fetched whole by fsspec."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest
from builders import patchwork, run_app, write_clip

import vtr
from vtr.datasets.files import find_videos
from vtr.demo import demo_model_folder
from vtr.errors import ConfigError, DecodeError
from vtr.extract.resume import file_facts
from vtr.remote import fetched, url_of
from vtr.workspace import Workspace


def test_videos_of_a_url_give_the_bytes_of_the_same_folder(tmp_path: Path) -> None:
    videos = tmp_path / "vidéos and more"
    for n in range(3):
        write_clip(videos / f"sub/clip {n}.mp4", patchwork(6, seed=n))
    (videos / "no video.mp4").write_bytes(b"nothing")
    (videos / "notes.txt").touch()
    (videos / ".hidden.mp4").touch()
    names = {}
    for name, place in (("here", str(videos)), ("there", f"file://{videos}")):
        done = run_app(
            "extract", "--videos", place, "--dataset", "folder", "--model", demo_model_folder(),
            "--features", tmp_path / name, "--frames", "3", "--fps", "native", "--quiet",
            "--device", "cpu",
        )  # fmt: skip
        assert "4 videos = 3 ok + 0 partial + 1 failed" in done.stdout
        assert "skipped: 1 other file (1 .txt), 1 hidden or system entry" in done.stderr
        names[name] = vtr.FeatureStore(tmp_path / name)
    here, there = names["here"], names["there"]
    assert here.ids == there.ids
    assert here.packed().frames.tobytes() == there.packed().frames.tobytes()
    assert [row.file_bytes for row in here.ledger] == [row.file_bytes for row in there.ledger]
    again = run_app(
        "extract", "--videos", f"file://{videos}", "--dataset", "folder", "--features",
        tmp_path / "there", "--model", demo_model_folder(), "--frames", "3", "--fps", "native",
        "--dry-run",
    )  # fmt: skip
    assert "would extract 0 new videos and 0 again" in again.stdout
    assert "warning" not in again.stderr


def test_memory_is_listed_and_fetched_whole() -> None:
    memory = fsspec.filesystem("memory")
    for name, size in (("a b.mp4", 10), ("sub/é.MKV", 5), ("x.txt", 1), (".b.mp4", 1)):
        memory.pipe(f"/vtr/{name}", b"x" * size)
    listing = find_videos(Path("memory://vtr"))
    assert listing.names == ("a b.mp4", "sub/é.MKV")
    assert listing.skipped == "1 other file (1 .txt), 1 hidden or system entry"
    path = listing.path("a b.mp4")
    assert url_of(path) == "memory://vtr/a b.mp4"
    assert file_facts(path)["file_bytes"] == 10
    with fetched(path) as local:
        assert local.read_bytes() == b"x" * 10
    with pytest.raises(DecodeError, match="not-found"), fetched(listing.path("gone.mp4")):
        pass
    assert file_facts(listing.path("gone.mp4")) == {}


def test_a_url_is_joined_to_no_folder_of_this_machine(tmp_path: Path) -> None:
    workspace = Workspace.at(tmp_path, videos="s3://bucket/some videos", dataset="folder")
    changed = workspace.changed(frames=3)
    assert url_of(changed.require_videos()) == "s3://bucket/some videos"
    assert url_of("C:/x") is None
    assert url_of(tmp_path / "s3:" / "x") is None


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://bucket/x", r"s3:// needs a package that is not installed .*: pip install s3fs"),
        ("nope://x", r"nope:// is no protocol that fsspec knows"),
        ("memory://nothing/here", r"--videos is memory://nothing/here, but there are no files"),
    ],
)
def test_what_cannot_be_listed_is_one_clear_line(url: str, message: str) -> None:
    if url.startswith("s3:"):
        with pytest.raises(ImportError):
            __import__("s3fs")
    with pytest.raises(ConfigError, match=message):
        find_videos(Path(url))
