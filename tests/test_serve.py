"""The page's server over HTTP: what it answers, whom it turns away, and that nothing stalls it."""

import asyncio
import io
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from builders import (
    demo_model_folder,
    demo_spec,
    full_disk,
    grey,
    patchwork,
    ramp,
    random_rows,
    wait_until,
    write_clip,
    write_store,
)
from PIL import Image

pytest.importorskip("starlette", reason="the extra `serve` is not installed")

from starlette.testclient import TestClient

from vtr.api.serve import serve
from vtr.errors import ConfigError
from vtr.extract.pool import Outcome
from vtr.features.shard import ShardName
from vtr.features.spec import FeatureSpec
from vtr.progress import progress
from vtr.searching.folder import StoreSource
from vtr.searching.library import Library
from vtr.serve.app import create_app
from vtr.serve.catalog import RefusedError, VideoFile, key_of, signature, store_signature
from vtr.serve.librarian import Librarian
from vtr.serve.media import Media, window_times
from vtr.serve.pictures import Still
from vtr.serve.security import Doors
from vtr.serve.server import bind
from vtr.serve.workshop import BusyError, Shelf, Workshop
from vtr.verbs.serve import Options

HERE = "http://127.0.0.1:8642"
MARKUP = "<img src=x onerror=alert(1)>.mp4"
LONG = "dogs/long.mkv"
IDS = ("cats/one.mp4", "cats/two.mp4", LONG, MARKUP, "broken.mp4", "away.mp4")
LENGTHS = {LONG: 26.0}


def video_folder(folder: Path) -> Path:
    """Plain videos, an MKV, a name with markup, no video at all, a link that leads out."""
    for name in ("cats/one.mp4", "cats/two.mp4", MARKUP):
        write_clip(folder / name, ramp(12), sound=name == "cats/one.mp4")
    write_clip(folder / LONG, patchwork(26), fps=1, codec="mpeg4", options={})
    (folder / "broken.mp4").write_bytes(b"no video at all" * 99)
    outside = write_clip(folder.parent / "outside" / "secret.mp4", ramp(12))
    (folder / "away.mp4").symlink_to(outside)
    return folder


def make_library(folder: Path, spec: FeatureSpec) -> Library:
    """Random features of these videos, as a store of every frame."""
    rows = random_rows(IDS, spec, failed=("broken.mp4",))
    rows = [
        replace(row, ledger=replace(row.ledger, duration_seconds=LENGTHS.get(row.ledger.id, 3.0)))
        for row in rows
    ]
    store = write_store(folder.parent / "store", rows, spec)
    files = {name: folder / name for name in IDS}
    return Library(StoreSource(store, files, model=str(demo_model_folder()), device="cpu"))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, backbone: Any) -> Library:
    folder = video_folder(tmp_path_factory.mktemp("world") / "videos")
    return make_library(folder, demo_spec(backbone))


def looking(librarian: Librarian) -> TestClient:
    """A client of what is served, also before it is ready."""
    return TestClient(create_app(librarian, Doors.of(None, 8642), title="x"), base_url=HERE)


@contextmanager
def serving(
    open_library: Callable[[], Library], root: Path, *, host: str | None = None, **settings: Any
) -> Iterator[TestClient]:
    librarian = Librarian(open_library, root, look=lambda: "fixed", **settings)
    doors = Doors.of(host, 8642)
    app = create_app(librarian, doors, title="videos")
    with TestClient(app, base_url=HERE, raise_server_exceptions=False) as client:
        client.token = doors.token  # type: ignore[attr-defined]
        headers = {"authorization": f"Bearer {doors.token}"} if host else {}
        wait_until(lambda: client.get("/api/state", headers=headers).json()["phase"] != "indexing")
        yield client


@pytest.fixture(scope="module")
def root(library: Library) -> Path:
    path = library.source.files["cats/one.mp4"]
    return path.parent.parent


@pytest.fixture(scope="module")
def client(library: Library, root: Path) -> Iterator[TestClient]:
    with serving(lambda: library, root) as client:
        yield client


def frames_of(content: bytes) -> tuple[int, set[str]]:
    with av.open(io.BytesIO(content)) as video:
        kinds = {stream.type for stream in video.streams}
        return sum(1 for _ in video.decode(video=0)), kinds


# ---- what it answers


def test_the_page_and_its_files(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert "<script type=" in page.text
    assert "style=" not in page.text  # the policy would not let it act
    for name in ("main.js", "style.css", "icon.svg", "inter.otf"):
        assert client.get(f"/page/{name}").status_code == 200, name
    for name in ("nothing.js", "..%2fapp.py", "%2e%2e/app.py", "../app.py", "__init__.py", ".env"):
        assert client.get(f"/page/{name}").status_code == 404, name
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy


def test_the_library_as_the_page_sees_it(client: TestClient) -> None:
    state = client.get("/api/state").json()
    assert (state["phase"], state["videos"], state["title"]) == ("ready", 6, "videos")
    overview = client.get("/api/library").json()
    assert overview["folders"] == ["cats", "dogs"]
    assert [video["name"] for video in overview["failed"]] == ["broken.mp4"]
    assert "not-a-video" in overview["failed"][0]["error"]


def test_a_search_returns_moments(client: TestClient, root: Path) -> None:
    found = client.post("/api/search", json={"texts": ["a red circle"], "top": 3}).json()
    hits = found["hits"] or found["nearest"]
    assert len(hits) == 3
    hit = hits[0]
    assert hit["path"] == str(root / hit["folder"] / hit["name"])
    assert 0 <= hit["start"] <= hit["best"] <= hit["end"] <= hit["duration"]
    like = client.post("/api/search", json={"like": [[hit["key"], hit["best"]]]}).json()
    assert like["hits"][0]["key"] == hit["key"]
    away = {"like": [[hit["key"], hit["best"]]], "unlike": [[hit["key"], hit["best"]]]}
    left = client.post("/api/search", json=away).json()["hits"]
    assert hit["key"] not in [other["key"] for other in left]
    beside = {"like": [[hit["key"], hit["best"]]], "unlike": [[hits[1]["key"], hits[1]["best"]]]}
    kept = client.post("/api/search", json=beside).json()["hits"]
    assert kept[0]["key"] == hit["key"]  # what is asked for stays
    shown = [other for other in kept if other["key"] == hits[1]["key"]]
    assert not any(h["start"] <= hits[1]["best"] <= h["end"] for h in shown)  # that moment is gone
    curve = client.post("/api/curve", json={"texts": ["a red circle"], "video": hit["key"]}).json()
    assert len(curve["seconds"]) == len(curve["scores"]) == 3
    assert curve["pieces"]


def test_filters_narrow_a_search(client: TestClient) -> None:
    def folders(**options: Any) -> set[str]:
        found = client.post("/api/search", json={"texts": ["x"], **options}).json()
        return {hit["folder"] for hit in found["hits"] + found["nearest"]}

    assert folders() == {"cats", "dogs", ""}
    assert folders(inside="cats") == {"cats"}
    assert folders(min_length=10) == {"dogs"}
    assert folders(max_length=10) == {"cats", ""}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"texts": [""]}, 400),
        ({"texts": ["a\0b"]}, 400),
        ({"texts": "no list"}, 400),
        ({"texts": [1]}, 400),
        ({"texts": ["x"], "top": "many"}, 400),
        ({"texts": ["x"], "min_length": float("1e400")}, 400),
        ({"texts": ["x"], "top": 10**400}, 400),
        ({"texts": ["x"], "max_length": 10**400}, 400),
        ({"texts": ["x"], "min_length": 5, "max_length": 1}, 400),
        ({"texts": ["x"] * 21}, 400),
        ({"like": [["nobody", 0]]}, 404),
        ({"like": [["../../etc/passwd", 0]]}, 404),
        ({"like": [[key_of("cats/one.mp4"), -1]]}, 400),
        ({"like": [[key_of("broken.mp4"), 0]]}, 400),
        ({"examples": ["gone"]}, 404),
        ([1], 400),
    ],
    ids=str,
)
def test_a_question_that_is_none_gets_one_sentence(
    client: TestClient, body: Any, status: int
) -> None:
    text = json.dumps(body)
    answer = client.post("/api/search", content=text, headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text
    assert len(answer.json()["error"]) > 5
    assert "Traceback" not in answer.text
    assert "--" not in answer.text  # options are of the terminal


def test_bodies_that_are_too_long_or_no_json(client: TestClient) -> None:
    kind = {"content-type": "application/json"}
    assert client.post("/api/search", content=b"{" * 5000, headers=kind).status_code == 400
    assert client.post("/api/search", content=b"\xff\xfe", headers=kind).status_code == 400
    assert client.post("/api/search", content=b" " * (2 << 20), headers=kind).status_code == 413
    assert client.post("/api/search", content=b"{}").status_code == 415  # as a form of others


def test_who_falls_silent_while_sending_gives_its_place_back(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vtr.serve.api._SILENT_SECONDS", 0.05)
    sent: list[Any] = []

    async def silence() -> Any:
        await asyncio.sleep(60)

    async def keep(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
    for path in ("/api/examples", "/api/search"):
        scope = {
            "type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b"",
        }  # fmt: skip
        asyncio.run(client.app(scope, silence, keep))  # type: ignore[arg-type]
    assert [m["status"] for m in sent if m["type"] == "http.response.start"] == [408, 408]


@pytest.mark.parametrize("text", ["\ud800 dog", "🐕" * 3, "word " * 10_000])
def test_odd_sentences_are_answered(client: TestClient, text: str) -> None:
    answer = client.post(
        "/api/search",
        content=json.dumps({"texts": [text]}),
        headers={"content-type": "application/json"},
    )
    assert answer.status_code == (400 if "\ud800" in text else 200)
    if "word" in text:
        assert answer.json()["num_truncated"] == 1


# ---- pictures and videos


def test_a_video_is_served_by_range(client: TestClient, root: Path) -> None:
    content = (root / "cats/one.mp4").read_bytes()
    address = f"/video/{key_of('cats/one.mp4')}"
    whole = client.get(address)
    assert (whole.status_code, whole.content) == (200, content)
    assert whole.headers["content-type"] == "video/mp4"
    part = client.get(address, headers={"range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, content[10:20])
    tail = client.get(address, headers={"range": "bytes=-7"})
    assert (tail.status_code, tail.content) == (206, content[-7:])
    preview = f"/window/{key_of('cats/one.mp4')}/0"
    for at in (address, preview):
        assert client.get(at, headers={"range": "bytes=99999999-"}).status_code == 416
        # What is no list of ranges is as if it were not there.
        for odd in ("items=0-1", "bytes=5-2", "bytes=a-b", "bytes=-", "bytes=" + "9" * 5000 + "-"):
            assert client.get(at, headers={"range": odd}).status_code == 200, odd


def test_pictures_of_moments(client: TestClient) -> None:
    key = key_of("cats/two.mp4")
    still = client.get(f"/still/{key}?at=1.5")
    assert still.headers["content-type"] == "image/jpeg"
    level = np.asarray(Image.open(io.BytesIO(still.content))).mean()
    assert abs(level - (20 + 8 * 6)) <= 4  # frame 6, of 4 in a second
    film = Image.open(io.BytesIO(client.get(f"/film/{key}?start=0&end=3&best=1").content))
    assert film.width == 8 * 64
    levels = np.asarray(film.convert("L")).reshape(48, 8, 64).mean(axis=(0, 2))
    assert (np.diff(levels) > 0).all()
    for bad in ("at=-1", "at=x", "", "at=nan"):
        assert client.get(f"/still/{key}?{bad}").status_code == 400
    assert client.get(f"/still/{key}?at=1000").status_code == 200  # the last one


def test_what_no_browser_plays_becomes_a_preview(client: TestClient) -> None:
    facts = client.get(f"/api/facts/{key_of(LONG)}").json()
    assert facts["type"] == ""  # MPEG-4 part 2
    assert "avc1" in client.get(f"/api/facts/{key_of('cats/two.mp4')}").json()["type"]
    address = f"/window/{key_of(LONG)}"
    first = client.get(f"{address}/0")
    assert first.headers["content-type"] == "video/mp4"
    assert frames_of(first.content) == (12, {"video"})
    last = client.get(f"{address}/2", headers={"range": "bytes=0-99"})
    assert last.status_code == 206
    assert len(last.content) == 100
    assert client.get(f"{address}/2", headers={"range": "bytes=99999999-"}).status_code == 416
    assert client.get(f"{address}/3").status_code == 404
    assert client.get(f"{address}/-1").status_code == 404
    assert frames_of(client.get(f"/window/{key_of('cats/one.mp4')}/0").content)[1] == {
        "video", "audio",
    }  # fmt: skip


def test_a_clip_is_cut_out(client: TestClient) -> None:
    answer = client.get(f"/clip/{key_of(MARKUP)}?start=1&end=2")
    assert answer.status_code == 200
    disposition = answer.headers["content-disposition"]
    assert disposition == 'attachment; filename="img_src_x_onerror_alert_1_1.0-2.0.mp4"'
    assert frames_of(answer.content)[0] == 4
    assert client.get(f"/clip/{key_of(MARKUP)}?start=2&end=1").status_code == 422
    assert client.get(f"/clip/{key_of(MARKUP)}?start=0&end=9999").status_code == 422


def test_a_broken_video_says_why(client: TestClient) -> None:
    key = key_of("broken.mp4")
    for address in (f"/api/facts/{key}", f"/still/{key}?at=0", f"/window/{key}/0"):
        answer = client.get(address)
        assert answer.status_code == 422, address
        assert "No video container is recognised" in answer.json()["error"]


def test_examples_are_searched_by(client: TestClient, tmp_path: Path) -> None:
    picture = io.BytesIO()
    Image.fromarray(grey(90)).save(picture, "PNG")
    clip = write_clip(tmp_path / "clip.mp4", ramp(12)).read_bytes()
    for content, kind in ((picture.getvalue(), "picture"), (clip, "clip")):
        taken = client.post("/api/examples", content=content).json()
        assert taken["kind"] == kind
        shown = client.get(f"/api/examples/{taken['key']}")
        assert shown.headers["content-type"] == "image/png"
        found = client.post("/api/search", json={"examples": [taken["key"]]}).json()
        assert found["hits"]
    for content, status in (
        (b"", 400),
        (b"nothing of the kind", 422),
        (picture.getvalue()[:60], 422),
    ):
        answer = client.post("/api/examples", content=content)
        assert answer.status_code == status
        assert answer.json()["error"]


def test_an_example_that_a_full_disk_does_not_take_says_so(client: TestClient) -> None:
    with full_disk(1000):
        answer = client.post("/api/examples", content=b"x" * 100_000)
    assert answer.status_code == 507
    assert "No room is left for files in" in answer.json()["error"]


# ---- who is let in


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "10.0.0.7:8642", "", "a@127.0.0.1", "[::2]"]
)
def test_a_foreign_host_is_turned_away(client: TestClient, host: str) -> None:
    for address in ("/", "/api/state", f"/video/{key_of('cats/one.mp4')}"):
        assert client.get(address, headers={"host": host}).status_code == 400


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:9", "https://127.0.0.1:8642"]
)
def test_a_foreign_origin_is_turned_away(client: TestClient, origin: str) -> None:
    answer = client.post("/api/search", json={"texts": ["x"]}, headers={"origin": origin})
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers


def test_pages_of_others_embed_nothing(client: TestClient) -> None:
    cross = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
    assert client.get(f"/still/{key_of('cats/one.mp4')}?at=0", headers=cross).status_code == 403
    visit = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert client.get("/", headers=visit).status_code == 200  # a link to the page
    assert client.get("/api/library", headers=visit).status_code == 403
    assert client.get("/", headers={"origin": HERE}).status_code == 200
    assert client.get("/", headers={"host": "localhost:8642"}).status_code == 200
    assert client.put("/api/search", json={}).status_code == 405
    assert client.request("DELETE", f"/video/{key_of('cats/one.mp4')}").status_code == 405


def test_no_path_but_by_key(client: TestClient) -> None:
    for name in (
        "cats/one.mp4",
        "..%2f..%2fetc%2fpasswd",
        "%2fetc%2fpasswd",
        "../store",
        "//etc/passwd",
    ):
        for kind in ("video", "api/facts", "still"):
            assert client.get(f"/{kind}/{name}").status_code in (404, 403), name


def test_a_link_that_leads_out_is_not_followed(
    client: TestClient, library: Library, root: Path
) -> None:
    key = key_of("away.mp4")
    for address in (f"/video/{key}", f"/still/{key}?at=0", f"/window/{key}/0", f"/api/facts/{key}"):
        answer = client.get(address)
        assert answer.status_code == 403
        assert "--follow-links" in answer.json()["error"]
    with serving(lambda: library, root, follow_links=True) as other:
        assert other.get(f"/video/{key}").status_code == 200


def test_a_host_of_others_needs_the_token(library: Library, root: Path) -> None:
    with serving(lambda: library, root, host="0.0.0.0") as client:
        token = client.token  # type: ignore[attr-defined]
        client.cookies.clear()
        assert client.get("/").status_code == 401
        assert client.get("/?token=wrong").status_code == 401
        assert client.get("/?token=%ff").status_code == 401
        assert client.get("/", headers={"cookie": "vtr-8642=wrong; $"}).status_code == 401
        assert client.get(f"/?token={token}", headers={"host": "evil.example"}).status_code == 400
        client.cookies.clear()
        entered = client.get(f"/?token={token}", headers={"host": "10.0.0.7:8642"})
        assert entered.status_code == 200
        cookie = entered.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        plain = {"cookie": f"vtr-8642={token}"}
        assert client.get("/api/state", headers=plain).status_code == 200


# ---- nothing stalls it


def test_the_page_is_there_while_videos_are_indexed_and_queries_wait(
    library: Library, root: Path
) -> None:
    going = threading.Event()

    def slowly() -> Library:
        assert going.wait(30)
        return library

    with looking(Librarian(slowly, root, look=lambda: "fixed")) as client:
        assert client.get("/api/state").json()["phase"] == "indexing"
        assert client.get("/").status_code == 200
        assert client.post("/api/search", json={"texts": ["x"]}).status_code == 409
        going.set()
        wait_until(lambda: client.get("/api/state").json()["phase"] == "ready")
        assert client.post("/api/search", json={"texts": ["x"]}).status_code == 200


def test_a_query_that_waits_is_answered_though_the_folder_is_emptied(
    library: Library, tmp_path: Path
) -> None:
    librarian, held = Librarian(lambda: library, tmp_path, look=lambda: "fixed"), threading.Event()
    librarian.start()
    try:
        wait_until(lambda: librarian.state()["phase"] == "ready")
        librarian.ask(lambda _: held.wait(30))
        asked = librarian.ask(lambda library: len(library.videos))
        librarian._renew(is_empty=True)
        held.set()
        assert asked.result(30) == 6
        with pytest.raises(RefusedError, match="There are no videos in this folder yet"):
            librarian.ask(lambda library: library)
    finally:
        librarian.close()


def test_what_is_being_indexed_is_shown_and_left_with_the_server(root: Path) -> None:
    def slowly() -> Library:
        with progress("indexing") as update:
            for done in range(10_000):
                update(done, 10_000, "7 frames/s")
                time.sleep(0.01)
        raise AssertionError

    librarian = Librarian(slowly, root, look=lambda: "fixed")
    with looking(librarian) as client:
        work = wait_until(lambda: client.get("/api/state").json()["work"])
        assert (work["what"], work["total"], work["remark"]) == ("indexing", 10_000, "7 frames/s")
        assert librarian.is_at_work
    assert not librarian.is_at_work


def test_a_library_that_cannot_be_opened_says_why(root: Path) -> None:
    def refuse() -> Library:
        raise ConfigError("the model is not there; name one with --model")

    with serving(refuse, root) as client:
        state = client.get("/api/state").json()
        assert (state["phase"], state["error"]) == (
            "failed", "the model is not there; name one with --model",
        )  # fmt: skip
        answer = client.post("/api/search", json={"texts": ["x"]})
        assert answer.status_code == 409
        assert answer.json()["error"] == state["error"]


def test_what_failed_is_tried_again(
    library: Library,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tries: list[int] = []

    def refuse_twice() -> Library:
        tries.append(1)
        if len(tries) < 3:
            raise ConfigError("no space left on the disk")
        return library

    monkeypatch.setattr("vtr.serve.librarian._LOOK_SECONDS", 0.05)
    monkeypatch.setattr("vtr.serve.librarian._AGAIN_SECONDS", 0.05)
    with looking(Librarian(refuse_twice, root)) as client:
        wait_until(lambda: client.get("/api/state").json()["phase"] == "ready")
    assert capsys.readouterr().err.count("no space left") == 1  # told once


def test_the_folder_is_followed(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []

    def count() -> Library:
        opened.append(1)
        return library

    assert signature(tmp_path) == ""
    monkeypatch.setattr("vtr.serve.librarian._LOOK_SECONDS", 0.05)
    with looking(Librarian(count, tmp_path)) as client:
        wait_until(lambda: client.get("/api/state").json()["phase"] == "empty")
        assert client.post("/api/search", json={"texts": ["x"]}).status_code == 409
        (tmp_path / ".vtr").mkdir()
        (tmp_path / ".vtr" / "hidden.mp4").touch()
        assert not opened
        (tmp_path / "new.mp4").touch()
        wait_until(lambda: client.get("/api/state").json()["phase"] == "ready")
        before = client.get("/api/state").json()["version"]
        (tmp_path / "newer.mp4").touch()
        wait_until(lambda: client.get("/api/state").json()["version"] > before)


def test_a_store_that_another_process_writes_into_is_followed(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "features"
    seen = [store_signature(store)]
    monkeypatch.setattr("vtr.serve.librarian._LOOK_SECONDS", 0.05)
    look = partial(store_signature, store)
    with looking(Librarian(lambda: library, tmp_path, look=look)) as client:
        for sequence in (0, 1):
            wait_until(lambda: client.get("/api/state").json()["phase"] == "ready")
            before = client.get("/api/state").json()["version"]
            store.mkdir(exist_ok=True)
            name = str(ShardName(1, 1, sequence, 0, "0" * 64))
            (store / name).write_bytes(b"of one that writes")
            wait_until(lambda b=before: client.get("/api/state").json()["version"] > b)
            seen.append(store_signature(store))
    (store / ".tmp-of-a-writer").touch()
    assert store_signature(store) == seen[-1]
    assert len(set(seen)) == 3


def test_whatever_the_index_takes_is_followed(tmp_path: Path) -> None:
    """Folders that links lead to, videos without an ending, files of the same size and time."""
    root, linked = tmp_path / "root", tmp_path / "linked"
    linked.mkdir()
    root.mkdir()
    (root / "link").symlink_to(linked)
    seen = [signature(root)]
    for step in (
        lambda: (linked / "a.mp4").write_bytes(b"one"),
        lambda: (root / "noname").write_bytes(bytes(4) + b"ftypisom"),
        lambda: shutil.copy2(linked / "a.mp4", tmp_path / "b.mp4"),
        lambda: (tmp_path / "b.mp4").replace(linked / "a.mp4"),
    ):
        step()
        seen.append(signature(root))
    assert len(set(seen)) == 4  # a copy elsewhere is nothing to us
    assert signature(tmp_path / "gone") == ""


def test_many_at_once_are_answered_or_told_to_wait(client: TestClient) -> None:
    key = key_of("cats/two.mp4")

    def one(number: int) -> int:
        if number % 2:
            return client.get(f"/still/{key}?at={number / 50}").status_code
        return client.post("/api/search", json={"texts": [f"a thing number {number}"]}).status_code

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(one, range(60)))
    assert set(answers) <= {200, 503}
    assert answers.count(200) >= 40


def test_a_file_that_hangs_costs_only_its_own_answers(tmp_path: Path) -> None:
    pipe, sound = tmp_path / "pipe.mp4", write_clip(tmp_path / "sound.mp4", ramp(4))
    os.mkfifo(pipe)  # no writer ever comes
    shop = Workshop(workers=1, room=1, seconds=20)
    try:
        assert shop.submit(Still(sound, 0)).result(30).payload
        assert shop.submit(Still(pipe, 0)).result(30).failure is not None
        first = shop.submit(Still(sound, 0.25))
        assert shop.submit(Still(sound, 0.25)) is first or first.done()  # not made twice
        assert first.result(30).payload
    finally:
        shop.close()
    assert shop.submit(Still(sound, 0.5)) is not None  # waits for nobody any more
    with pytest.raises(BusyError):
        shop.submit(Still(sound, 0.75))


def test_what_failed_once_is_tried_again_after_a_while(
    tmp_path: Path, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_clip(tmp_path / "a.mp4", ramp(4))
    media = Media(Librarian(lambda: library, tmp_path))

    def made() -> bytes:
        still, file = Still(path, 0.0), VideoFile(path, "first")
        return bytes(asyncio.run(media._made(still, file)).payload)

    patient, media._quick = media._quick, Workshop(workers=1, room=1, seconds=0.0005)
    try:
        monkeypatch.setattr("vtr.serve.media._FAILED_SECONDS", 1e9)
        with pytest.raises(RefusedError, match="More wall-clock time than the limit"):
            made()
        media._quick.close()
        media._quick = patient
        with pytest.raises(RefusedError, match="More wall-clock time"):  # for some time
            made()
        monkeypatch.setattr("vtr.serve.media._FAILED_SECONDS", 1e-6)
        assert made()
    finally:
        media.close()


def test_who_leaves_while_a_job_is_done_stops_no_worker(tmp_path: Path) -> None:
    sound = write_clip(tmp_path / "sound.mp4", ramp(4))
    shop = Workshop(workers=1, room=4, seconds=20)
    try:
        first, second = shop.submit(Still(sound, 0)), shop.submit(Still(sound, 0.25))
        wait_until(first.running)
        assert not first.cancel()  # else its answer, which nobody takes, would end the thread
        assert second.cancel()
        assert shop.submit(Still(sound, 0.5)).result(30).payload
    finally:
        shop.close()


def test_the_shelf_has_an_end() -> None:
    shelf = Shelf(10_000)
    for number in range(100):
        shelf.put(number, Outcome({}, bytes(2000)))
    assert [number for number in range(100) if shelf.get(number)] == [97, 98, 99]
    assert shelf._num_bytes <= 10_000


@pytest.mark.parametrize("length", [0.4, 5.0, 14.9, 15.0, 15.1, 104.0, 3600.0])
def test_previews_cover_the_whole_video(length: float) -> None:
    spans = [window_times(number, length) for number in range(max(1, round(length / 10 - 0.01)))]
    with pytest.raises(RefusedError, match="no such part"):
        window_times(len(spans), length)
    assert spans[0][0] == 0
    assert spans[-1][1] == length
    assert all(start <= before[1] for before, (start, _) in pairwise(spans))
    assert max(end - start for start, end in spans) <= 15


# ---- where it listens


def test_a_port_in_use_is_one_line() -> None:
    with bind(None, 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=r"in use; choose .* --port"):
            bind(None, port)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.77", "\udc80", "a" * 300])
def test_a_host_that_is_not_ours_is_one_line(host: str) -> None:
    with pytest.raises(ConfigError, match="--host"):
        bind(host, 0)


def test_what_cannot_be_served_is_one_line(here: Path) -> None:
    with pytest.raises(ConfigError, match="vtr serve FOLDER"):
        serve()
    with pytest.raises(ConfigError, match="does not exist"):
        serve("nowhere")
    with pytest.raises(ConfigError, match="A workspace of it is needed"):
        serve("s3://bucket/x")
    (here / "file").touch()
    with pytest.raises(ConfigError, match="is no folder"):
        serve(here / "file", Options(port=0))


def test_it_listens_on_this_machine_only() -> None:
    with bind(None, 0) as ours:
        port = ours.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), 5):
            pass
        assert ours.getsockname()[0] == "127.0.0.1"
