"""Videos on other file systems: listed and fetched whole by fsspec."""

import html
import pickle
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote

import fsspec
import pytest
from builders import full_disk, patchwork, run_app, write_clip
from fsspec.implementations.memory import MemoryFileSystem

import vtr
from vtr.datasets.files import find_videos
from vtr.demo import demo_model_folder
from vtr.errors import ConfigError, DecodeError
from vtr.extract.resume import file_facts
from vtr.remote import _escaped, _plain, fetched, uri_of, url_of
from vtr.workspace import Workspace, read_workspace


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
            "--device", "cpu", code=3,
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
        ("memory://nothing/here", "the folder of videos is memory://nothing/here, but there is no"),
    ],
)
def test_what_cannot_be_listed_is_one_clear_line(url: str, message: str) -> None:
    if url.startswith("s3:"):
        with pytest.raises(ImportError):
            __import__("s3fs")
    with pytest.raises(ConfigError, match=message):
        find_videos(Path(url))


class Stubborn(MemoryFileSystem):  # type: ignore[misc]
    """A file system one of whose folders nobody may list."""

    protocol = "stubborn"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return f"/{path.removeprefix('stubborn://').strip('/')}"

    def ls(self, path: str, detail: bool = True, **more: Any) -> Any:
        if path.rstrip("/").endswith("closed"):
            raise PermissionError("403 Forbidden")
        return super().ls(path, detail=detail, **more)


class Unreachable(MemoryFileSystem):  # type: ignore[misc]
    """A file system that connects at once, to nothing."""

    protocol = "unreachable"

    def __init__(self, **more: Any) -> None:
        raise ConnectionRefusedError("Connection refused")


def test_a_folder_that_cannot_be_listed_is_told_and_does_not_hide_the_others() -> None:
    fsspec.register_implementation("stubborn", Stubborn, clobber=True)
    memory = fsspec.filesystem("memory")
    for name in ("open/a.mp4", "closed/b.mp4", "c.mp4"):
        memory.pipe(f"/stubborn-root/{name}", b"x")
    listing = find_videos(Path("stubborn:///stubborn-root"))
    assert listing.names == ("c.mp4", "open/a.mp4")
    assert listing.unreadable == (("closed", "403 Forbidden"),)


def test_a_server_that_is_not_there_is_said_with_its_address() -> None:
    fsspec.register_implementation("unreachable", Unreachable, clobber=True)
    with pytest.raises(ConfigError, match="unreachable://host/x cannot be reached: Connection re"):
        find_videos(Path("unreachable://host/x"))


@pytest.mark.parametrize("url", ["ftp://me:secret@host/x", "https://secret@host/x"])
def test_a_password_in_a_url_is_refused_and_not_repeated(url: str, tmp_path: Path) -> None:
    for words in (("init", "--path", tmp_path), ("extract",), ("data", "verify", "folder")):
        with pytest.raises(ConfigError, match="has a password in it, which would be p") as found:
            run_app(*words, "--videos", url)
        assert "secret" not in str(found.value)
    for words in (("search", url, "a cat"), ("serve", url), ("compress", url, "small")):
        with pytest.raises(ConfigError, match="has a password in it") as found:
            run_app(*words)
        assert "secret" not in str(found.value)
        assert "--videos" not in str(found.value)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("a%20b.mp4", "a b.mp4"),
        ("%C3%A9%231.mp4", "é#1.mp4"),
        ("a&amp;b.mp4", "a&b.mp4"),
        ("100%25.mp4", "100%.mp4"),
        ("a%2520b.mp4", "a%2520b.mp4"),  # decoded it would be asked for as "a b"
    ],
)
def test_names_of_web_pages_are_those_of_the_files(name: str, plain: str) -> None:
    assert _plain(name, "https://host/videos") == plain
    assert _plain(name, "s3://bucket") == name
    assert unquote(_escaped(plain)) == unquote(html.unescape(name))


def test_a_workspace_of_a_url(tmp_path: Path) -> None:
    write_clip(tmp_path / "videos/a.mp4", patchwork(6))
    run_app("init", "--path", tmp_path / "w", "--videos", f"file://{tmp_path}/videos")
    work = read_workspace(tmp_path / "w/vtr.toml")
    url = f"file://{tmp_path}/videos"
    assert url_of(work.require_videos()) == url
    assert f'videos = "{url}"' in (tmp_path / "w/vtr.toml").read_text("utf-8")
    assert str(pickle.loads(pickle.dumps(work.require_videos() / "a.mp4"))) == f"{url}/a.mp4"
    assert work.as_dict()["videos"] == url
    plan = run_app(
        "extract", "--config", tmp_path / "w/vtr.toml", "--videos", url, "--dry-run", "--json",
        "--dataset", "folder", "--model", demo_model_folder(),
    )  # fmt: skip
    assert url in plan.stdout
    assert url in plan.stderr
    assert "file:/t" not in plan.output
    with pytest.raises(ConfigError, match="vtr compress reads folders of this machine"):
        run_app("compress", f"file://{tmp_path}/videos", tmp_path / "small")
    assert not (tmp_path / "small").exists()
    assert uri_of(Path("s3://bucket/a b.mp4")) == "s3://bucket/a b.mp4"


class Stumbling(MemoryFileSystem):  # type: ignore[misc]
    """A file system that says nothing, or fails as often as `failures` has something."""

    protocol = "stumbling"
    failures: ClassVar[list[Exception]] = []
    silence = threading.Event()

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/vtr/a.mp4" if "://" in path else path

    def info(self, path: str, **more: Any) -> Any:
        if self.failures:
            raise self.failures.pop(0)
        return super().info("/vtr/a.mp4", **more)

    def modified(self, path: str) -> Any:
        self.silence.wait(30)
        return super().modified("/vtr/a.mp4")


@pytest.fixture
def stumbling(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Stumbling]]:
    monkeypatch.setattr("vtr.remote._PAUSES", (0.0, 0.0))
    fsspec.filesystem("memory").pipe("/vtr/a.mp4", b"x" * 100_000)
    for protocol in ("stumbling", "http"):
        monkeypatch.setitem(sys.modules["fsspec.registry"]._registry, protocol, Stumbling)
    yield Stumbling
    Stumbling.failures, Stumbling.silence = [], threading.Event()


def test_a_file_system_that_says_nothing_does_not_hold_a_run(
    stumbling: type[Stumbling], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger is written by who has no time limit of its own."""
    monkeypatch.setattr("vtr.remote.FACTS_SECONDS", 0.1)
    assert file_facts(Path("stumbling://a.mp4")) == {}
    stumbling.silence.set()
    assert file_facts(Path("stumbling://a.mp4"))["file_bytes"] == 100_000


def refused(status: int) -> Exception:
    """What fsspec makes of a web server's answer."""
    error = FileNotFoundError("http://host/a.mp4")
    error.__cause__ = OSError(f"{status}, message='No'")
    error.__cause__.status = status  # type: ignore[attr-defined]
    return error


def test_a_server_that_stumbles_is_asked_again(stumbling: type[Stumbling]) -> None:
    stumbling.failures[:] = [refused(500), ConnectionResetError("the line broke")]
    with fetched(Path("http://host/a.mp4")) as local:
        assert local.read_bytes() == b"x" * 100_000


@pytest.mark.parametrize(
    ("status", "times", "message"),
    [
        (404, 1, "not-found: nothing at http://host/a.mp4"),
        (403, 1, "not-fetched: http://host/a.mp4: 403, message='No'"),
        (500, 3, "not-fetched: http://host/a.mp4: 500, message='No'"),
    ],
)
def test_what_a_server_answers_stands_in_the_row(
    stumbling: type[Stumbling], status: int, times: int, message: str
) -> None:
    stumbling.failures[:] = [refused(status) for _ in range(times)]
    with pytest.raises(DecodeError, match=message), fetched(Path("http://host/a.mp4")):
        pass
    assert not stumbling.failures


def test_a_full_scratch_folder_is_named(tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe("/vtr/large.mp4", b"x" * 100_000)
    message = r"no room for it in the scratch folder \(.+\); set TMPDIR to a folder on another"
    with full_disk(70_000), pytest.raises(DecodeError, match=message):  # noqa: SIM117
        with fetched(Path("memory://vtr/large.mp4")):
            pass
