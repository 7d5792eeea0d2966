"""The page in a real browser over a real `vtr serve`: type, see, play, filter, keys, phone."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import Request, urlopen

import pytest
from builders import demo_model_folder, make_demo_workspace, run_app, write_clip
from PIL import Image

from vtr.demo.captions import clip_captions
from vtr.demo.render import clip_frames, encode_clip
from vtr.demo.scenes import FRAMES_PER_SECOND, Clip, plan_world

pytest.importorskip("starlette", reason="the extra `serve` is not installed")
pytest.importorskip("playwright", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]

from playwright.sync_api import Browser, Page, expect, sync_playwright  # noqa: E402

SEED = 2026
MARKUP = "<img src=x onerror=document.title='bad'>.mp4"


def content_clips(number: int) -> list[Clip]:
    clips = [c for c in plan_world(seed=SEED) if c.part == "test" and c.group == "content"]
    return clips[:number]


class World:
    """A folder of clips whose contents are known, in formats that browsers take and refuse."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clips = content_clips(10)
        self.captions = [clip_captions(clip, seed=SEED)[0] for clip in self.clips]
        frames = [list(clip_frames(clip, seed=SEED)) for clip in self.clips]
        for number, pictures in enumerate(frames[:4]):
            write_clip(folder / f"single/{number}.mp4", pictures, fps=FRAMES_PER_SECOND)
        self.joined = [picture for pictures in frames[4:7] for picture in pictures]
        ends = [len(pictures) / FRAMES_PER_SECOND for pictures in frames[4:7]]
        self.second_start = ends[0]
        self.second_end = ends[0] + ends[1]
        write_clip(folder / "joined/three.mp4", self.joined, fps=FRAMES_PER_SECOND)
        write_clip(
            folder / "joined/hevc.mkv", frames[7] * 4, fps=FRAMES_PER_SECOND, codec="libx265",
            options={"crf": "20", "x265-params": "log-level=none"},
        )  # fmt: skip
        self.late_start = len(frames[8]) / FRAMES_PER_SECOND
        write_clip(
            folder / "joined/late.mkv", frames[8] + frames[9], fps=FRAMES_PER_SECOND,
            pts=range(70, 70 + len(frames[8]) + len(frames[9])), time_base=Fraction(1, 10),
        )  # fmt: skip
        write_clip(folder / MARKUP, frames[0][:20], fps=FRAMES_PER_SECOND)
        (folder / "broken.mp4").write_bytes(b"no video" * 100)


class Served(NamedTuple):
    address: str
    process: int


@contextmanager
def serving(folder: Path, *flags: str, cwd: Path | None = None) -> Iterator[Served]:
    """Runs `vtr serve` in a process of its own; yields the page's address and its id."""
    words = [sys.executable, "-m", "vtr", "serve", str(folder), "--port", "0", *flags]
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(
        words, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        yield Served(process.stdout.readline().strip(), process.pid)
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def address(world: World) -> Iterator[str]:
    with serving(world.folder, "--model", str(demo_model_folder()), "--device", "cpu") as served:
        yield served.address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def ask(address: str, path: str, body: Any = None) -> bytes:
    data = None if body is None else json.dumps(body).encode()
    request = Request(address.rstrip("/") + path, data, {"content-type": "application/json"})
    with urlopen(request, timeout=60) as answer:
        content: bytes = answer.read()
        return content


def resident(process: int) -> int:
    fields = Path(f"/proc/{process}/statm").read_text().split()
    return int(fields[1]) * resource.getpagesize()


def wait(page: Page, expression: str, arg: Any = None, *, seconds: float = 30) -> None:
    """Waits until JavaScript says so; playwright's own would need `unsafe-eval`."""
    deadline = time.monotonic() + seconds
    while not page.evaluate(expression, arg):
        assert time.monotonic() < deadline, expression
        page.wait_for_timeout(50)


@contextmanager
def opened(browser: Browser, address: str, **settings: Any) -> Iterator[Page]:
    """Opens the page; nothing may go wrong on it, and nothing may be asked of anybody else."""
    options: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}, **settings}
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"], **options)
    page, faults = context.new_page(), []
    page.set_default_timeout(30_000)
    page.on("pageerror", lambda error: faults.append(f"error: {error}"))
    page.on(
        "console",
        lambda line: (
            faults.append(line.text)
            if line.type == "error" and "Failed to load resource" not in line.text
            else None
        ),
    )
    page.on(
        "request",
        lambda asked: (
            faults.append(f"asked {asked.url}")
            if not asked.url.startswith((address, "blob:", "data:"))
            else None
        ),
    )
    page.goto(address)
    wait(page, "document.querySelector('#some .open')", seconds=90)
    yield page
    context.close()
    assert faults == []


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    with opened(browser, address) as page:
        yield page


def search(page: Page, words: str) -> None:
    page.fill("#words", words)
    with page.expect_response("**/api/search"):
        page.press("#words", "Enter")
    wait(page, "!document.querySelector('#grid').classList.contains('stale')")


def names(page: Page) -> list[str]:
    return page.eval_on_selector_all("#grid .card", "cards => cards.map(card => card.hit.name)")


def play(page: Page, name: str) -> tuple[dict[str, Any], float]:
    """Clicks the card of a video; returns its moment and where the player was when it played."""
    page.evaluate(
        "window.played = null; document.querySelector('#video').addEventListener('playing', "
        "event => { window.played ??= event.target.currentTime }, {once: true})"
    )
    card = page.locator("#grid .card", has_text=name).first
    hit = card.evaluate("card => card.hit")
    card.locator(".open").click()
    wait(page, "window.played !== null")
    return hit, page.evaluate("window.played")


def test_type_and_see(page: Page, world: World) -> None:
    for number in (0, 2):
        search(page, world.captions[number])
        assert names(page)[0] in (f"{number}.mp4", MARKUP)
    image = page.locator("#grid .card img").first
    expect(image).to_have_class("there")
    assert image.evaluate("image => image.naturalWidth") > 60
    page.locator("#grid .card").first.hover()
    expect(page.locator("#grid .card .reel").first).to_have_class("reel runs")
    assert page.url.endswith("?q=" + world.captions[2].replace(" ", "+"))
    page.go_back()
    expect(page.locator("#words")).to_have_value(world.captions[0])
    expect(page.locator("#grid .card .name").first).not_to_have_text("2.mp4")


def test_what_is_sure_stands_above_the_line_and_is_counted(page: Page) -> None:
    for words in ("a red circle", "a star", "a blue heart", "a square moves"):
        search(page, words)
        cards = "[...document.querySelectorAll('#grid > li')].map(li => li.hit?.level ?? 'line')"
        levels = page.evaluate(cards)
        if "line" in levels:
            above, below = (levels[: levels.index("line")], levels[levels.index("line") + 1 :])
            assert min(above) >= 0.98 > max(below)
            said = page.locator("#summary").inner_text()
            assert said.startswith(f"{len(above)} moment")
            assert f"{len(below)} less sure" in said


def test_what_is_typed_is_searched_without_enter(page: Page, world: World) -> None:
    page.locator("#words").press_sequentially(world.captions[1], delay=1)
    expect(page.locator("#grid .card .name").first).to_contain_text("1.mp4")


def test_a_click_plays_at_the_moment(page: Page, world: World) -> None:
    search(page, world.captions[5])
    hit, at = play(page, "three.mp4")
    assert abs(at - hit["start"]) < 0.5
    assert abs(hit["start"] - world.second_start) <= 0.75
    assert abs(hit["end"] - world.second_end) <= 0.75
    expect(page.locator("#video")).to_have_js_property("paused", False)
    assert "/video/" in page.locator("#video").evaluate("video => video.src")
    wait(page, "document.querySelector('#line').getAttribute('d')")
    page.keyboard.press("0")  # back to its start
    strip = page.locator("#strip").bounding_box()
    page.mouse.click(strip["x"] + strip["width"] * 0.02, strip["y"] + 20)
    wait(page, "document.querySelector('#video').currentTime < 2")
    page.locator("#found rect.this.shade").click()
    wait(
        page,
        "start => Math.abs(document.querySelector('#video').currentTime - start) < 1.5",
        arg=hit["start"],
    )
    page.keyboard.press("Escape")
    expect(page.locator("#player")).not_to_be_visible()


def test_a_file_whose_clock_begins_late_plays_at_the_moment(page: Page, world: World) -> None:
    search(page, world.captions[9])
    hit, at = play(page, "late.mkv")
    assert abs(hit["start"] - world.late_start) <= 0.75
    assert abs(at - 7.0 - hit["start"]) < 0.5  # the browser's clock is the file's own
    page.locator("#found rect.this.shade").click()
    wait(page, "document.querySelector('#video').currentTime >= 7")


def test_what_the_browser_refuses_is_shown_as_a_preview(page: Page, world: World) -> None:
    search(page, world.captions[7])
    hit, at = play(page, "hevc.mkv")
    video = page.locator("#video")
    source = video.evaluate("video => video.src")
    assert "/window/" in source
    part = int(source.rsplit("/", 1)[1])
    assert abs(10 * part + at - hit["start"]) < 0.5
    assert video.evaluate("video => video.videoWidth") > 60
    expect(page.locator("#waiting")).not_to_be_visible()
    strip = page.locator("#strip").bounding_box()
    page.mouse.click(strip["x"] + strip["width"] * 0.97, strip["y"] + 20)  # another part
    wait(page, "part => !document.querySelector('#video').src.endsWith(part)", arg=f"/{part}")


def test_what_cannot_be_shown_says_why(page: Page, world: World, tmp_path: Path) -> None:
    file = world.folder / "single" / "3.mp4"
    content = file.read_bytes()
    search(page, world.captions[3])
    try:
        file.write_bytes(b"it was replaced " * 99)
        page.locator("#grid .card", has_text="3.mp4").first.locator(".open").click()
        expect(page.locator("#sorry")).to_contain_text("This video cannot be shown.")
    finally:
        file.write_bytes(content)
    broken = page.locator("#broken")
    page.keyboard.press("Escape")
    expect(broken).to_contain_text("1 video of")
    broken.locator("summary").click()
    expect(broken).to_contain_text("broken.mp4")


def test_more_like_this_and_not_like_this(page: Page, world: World) -> None:
    search(page, world.captions[0])
    page.locator("#grid .card", has_text="0.mp4").locator(".open").focus()
    with page.expect_response("**/api/search"):
        page.keyboard.press("n")
    expect(page.locator(".chip.not")).to_have_count(1)
    expect(page.locator("#grid .card", has_text="0.mp4")).to_have_count(0)
    with page.expect_response("**/api/search"):
        page.locator(".chip.not button").click()
    page.locator("#grid .card", has_text="2.mp4").locator(".open").first.click()
    with page.expect_response("**/api/search"):
        page.keyboard.press("m")
    expect(page.locator(".chip img")).to_have_count(1)
    expect(page.locator("#grid .card .name").first).to_have_text(re.compile("2.mp4"))
    expect(page.locator("#words")).to_have_value("")


def test_a_picture_is_searched_by(page: Page, world: World, tmp_path: Path) -> None:
    picture = tmp_path / "frame.png"
    Image.fromarray(next(iter(clip_frames(world.clips[1], seed=SEED)))).save(picture)
    with page.expect_response("**/api/search"):
        page.set_input_files("#file", picture)
    expect(page.locator("#grid .card .name").first).to_contain_text("1.mp4")
    nothing = tmp_path / "nothing.png"
    nothing.write_bytes(b"no picture")
    page.set_input_files("#file", nothing)
    expect(page.locator(".toast.bad")).to_be_visible()


_DROP = """(bytes) => {
  const held = new DataTransfer();
  held.items.add(new File([new Uint8Array(bytes)], "clip.mp4", { type: "video/mp4" }));
  for (const type of ["dragenter", "dragover", "drop"])
    document.querySelector("#grid").dispatchEvent(
      new DragEvent(type, { dataTransfer: held, bubbles: true, cancelable: true }));
}"""


def test_a_clip_that_is_dropped_is_searched_by(page: Page, world: World) -> None:
    clip = encode_clip(world.clips[1], seed=SEED)
    with page.expect_response("**/api/search"):
        page.evaluate(_DROP, list(clip))
    expect(page.locator("#grid .card .name").first).to_contain_text("1.mp4")
    expect(page.locator("#drop")).to_be_hidden()


def test_filters(page: Page, world: World) -> None:
    search(page, world.captions[4])
    with page.expect_response("**/api/search"):
        page.select_option("#inside", "single")
    wait(
        page, "[...document.querySelectorAll('#grid .card')].every(c => c.hit.folder === 'single')"
    )
    with page.expect_response("**/api/search"):
        page.select_option("#inside", "")
    with page.expect_response("**/api/search"):
        page.select_option("#length", "10-60")
    wait(page, "[...document.querySelectorAll('#grid .card')].every(c => c.hit.duration >= 10)")
    assert "three.mp4" in names(page)
    with page.expect_response("**/api/search"):
        page.locator(".switch").click()
    assert "all=1" in page.url
    page.reload()
    expect(page.locator("#length")).to_have_value("10-60")
    expect(page.locator("#grid .card").first).to_be_visible()


def test_everything_by_keys(page: Page, world: World) -> None:
    page.locator("body").click(position={"x": 5, "y": 5})
    for _ in range(2):  # the second one is no letter of the search
        page.keyboard.press("/")
        expect(page.locator("#words")).to_be_focused()
    page.keyboard.type(world.captions[0])
    with page.expect_response("**/api/search"):
        page.keyboard.press("Enter")
    expect(page.locator("#grid .card").first).to_be_visible()
    page.keyboard.press("ArrowDown")
    cards = page.locator("#grid .open")
    expect(cards.nth(0)).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(cards.nth(1)).to_be_focused()
    page.keyboard.press("c")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert Path(copied).is_file()
    page.keyboard.press("x")
    lines = page.evaluate("navigator.clipboard.readText()").splitlines()
    assert lines[0] == "video,start_seconds,end_seconds,score"
    assert len(lines) == 1 + cards.count()


def test_the_player_by_keys(page: Page, world: World) -> None:
    search(page, world.captions[0])
    cards = page.locator("#grid .open")
    cards.nth(1).focus()
    page.keyboard.press("Enter")
    expect(page.locator("#player")).to_be_visible()
    wait(page, "!document.querySelector('#video').paused")
    page.keyboard.press("Space")
    wait(page, "document.querySelector('#video').paused")
    second = page.locator("#player-name").text_content()
    page.keyboard.press("k")
    expect(page.locator("#player-name")).not_to_have_text(str(second))
    page.keyboard.press("j")
    expect(page.locator("#player-name")).to_have_text(str(second))
    with page.expect_download() as download:
        page.keyboard.press("d")
    assert download.value.suggested_filename.endswith(".mp4")
    page.keyboard.press("Escape")
    expect(cards.nth(1)).to_be_focused()
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("t")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.keyboard.press("/")
    page.keyboard.press("Escape")
    expect(page.locator("#words")).to_have_value("")
    page.keyboard.press("ArrowDown")  # the searches before
    expect(page.locator("#history li").first).to_contain_text(world.captions[0])
    page.keyboard.press("Enter")
    expect(page.locator("#words")).to_have_value(world.captions[0])


def test_nothing_found_and_the_nearest_all_the_same(page: Page) -> None:
    search(page, "quarterly tax form spreadsheet lawyer")
    expect(page.locator("#panel h2")).to_have_text("No match")
    assert names(page) == []
    page.locator("#nearest").click()
    expect(page.locator("#grid .card").first).to_be_visible()
    expect(page.locator("#grid .open").first).to_be_focused()


def test_a_query_that_only_avoids_is_asked_for_more(page: Page) -> None:
    page.fill("#words", "-snow")
    page.press("#words", "Enter")
    expect(page.locator("#panel h2")).to_have_text("What should be seen?")
    expect(page.locator("#sampler")).not_to_be_visible()


def test_a_query_without_end_can_be_gone_back_to(page: Page) -> None:
    search(page, "ring " * 18_000)
    page.reload()  # longer addresses than some ten thousand letters are refused
    expect(page.locator("#grid .card, #nearest").first).to_be_visible()


def test_names_are_text(page: Page, world: World) -> None:
    search(page, world.captions[0])
    assert MARKUP in names(page)
    assert page.title() != "bad"
    assert page.locator("main img[onerror]").count() == 0
    expect(page.locator("#grid .card", has_text="onerror")).to_be_visible()


def test_phone(browser: Browser, address: str, world: World) -> None:
    phone = {
        "viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True,
        "device_scale_factor": 2,
    }  # fmt: skip
    with opened(browser, address, **phone) as page:
        search(page, world.captions[5])
        width = "document.documentElement.scrollWidth"
        assert page.evaluate(width) == 390
        told, cut_list = (page.locator(name).bounding_box() for name in ("#summary", "#cut-list"))
        assert abs(told["y"] + told["height"] / 2 - cut_list["y"] - cut_list["height"] / 2) < 4
        page.locator("#grid .card .open").first.tap()
        wait(page, "!document.querySelector('#video').paused")
        box = page.locator("#player").bounding_box()
        assert (box["x"], box["width"]) == (0, 390)
        for button in page.locator("#actions > *").all():
            size = button.bounding_box()
            assert size["height"] >= 40
            assert size["x"] + size["width"] <= 390
        page.locator("#close").tap()
        expect(page.locator("#player")).not_to_be_visible()


def test_dark_and_light(browser: Browser, address: str) -> None:
    for scheme, is_dark in (("dark", True), ("light", False)):
        with opened(browser, address, color_scheme=scheme) as page:
            colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
            levels = [int(level) for level in re.findall(r"\d+", colour)]
            assert (max(levels) < 60) == is_dark


def test_indexing_is_shown_and_the_query_waits(
    browser: Browser, world: World, tmp_path: Path
) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    with serving(folder, "--model", str(demo_model_folder()), "--device", "cpu") as (address, _):
        page = browser.new_page()
        page.goto(address)
        expect(page.locator("#panel h2")).to_have_text("No videos yet")
        page.fill("#words", world.captions[0])
        shutil.copy(world.folder / "single" / "0.mp4", folder)
        expect(page.locator("#panel h2")).to_contain_text("One moment", timeout=30_000)
        expect(page.locator("#grid .card, #nearest").first).to_be_visible(timeout=90_000)
        page.close()


def test_a_folder_that_changes_while_the_page_is_used(
    browser: Browser, world: World, tmp_path: Path
) -> None:
    folder, linked = tmp_path / "videos", tmp_path / "linked"
    shutil.copytree(world.folder / "single", folder)
    linked.mkdir()
    (folder / "link").symlink_to(linked)
    flags = ("--model", str(demo_model_folder()), "--device", "cpu")
    with serving(folder, *flags) as (address, process), opened(browser, address) as page:
        page.fill("#words", "quarterly tax form spreadsheet lawyer")
        page.locator("#nearest").click()
        first = page.locator("#grid .open").first
        expect(first).to_be_focused()
        shutil.copy(world.folder / "joined" / "three.mp4", linked)
        expect(page.locator("#grid .card")).to_have_count(
            5, timeout=30_000
        )  # a link's videos come, too
        expect(page.locator("#grid .open:focus")).to_have_count(1)
        page.locator("#grid .card", has_text="1.mp4").locator(".open").click()
        (folder / "1.mp4").unlink()
        expect(page.locator(".toast")).to_contain_text("4 videos", timeout=30_000)
        expect(page.locator("#player")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator("#grid .card")).to_have_count(4)
        for path in (*folder.glob("*.mp4"), folder / "link"):
            path.unlink()
        expect(page.locator("#panel h2")).to_have_text("No videos yet", timeout=30_000)
        expect(page.locator("#grid .card")).to_have_count(0)
        os.kill(process, signal.SIGTERM)
        expect(page.locator("#panel h2")).to_have_text("vtr serve does not answer", timeout=30_000)


def test_a_workspace_shows_its_results(browser: Browser, tmp_path: Path) -> None:
    ids = [f"test{n:02d}" for n in range(6)]
    make_demo_workspace(tmp_path, ids)
    for video_id in ids:
        write_clip(tmp_path / "videos" / f"{video_id}.mp4", list(clip_frames(content_clips(1)[0], seed=SEED))[:40])  # fmt: skip  # noqa: E501
    run_app("eval", "--protocol", "demo", "--zero-shot", cwd=tmp_path)
    with serving(tmp_path) as (address, _):
        page = browser.new_page()
        page.goto(address)
        page.locator("#to-results").click()
        expect(page.locator("#runs table")).to_be_visible()
        with page.expect_popup() as popup:
            page.locator("#runs td a").first.click()
        expect(popup.value.locator("h1")).to_have_text("Video-text retrieval report")
        page.close()


def test_the_address_with_the_token_opens_the_page(browser: Browser, world: World) -> None:
    flags = ("--host", "127.0.0.1", "--model", str(demo_model_folder()), "--device", "cpu")
    with serving(world.folder, *flags) as (address, _):
        assert "?token=" in address
        context = browser.new_context()
        page = context.new_page()
        answer = page.goto(address.partition("?")[0])
        assert answer.status == 401
        page.goto(address)
        wait(page, "document.querySelector('#some .open')", seconds=60)
        assert "token" not in page.url
        page.reload()  # the browser remembers
        expect(page.locator("#some .open").first).to_be_visible()
        context.close()


def test_memory_is_flat_over_many_requests(world: World) -> None:
    flags = ("--model", str(demo_model_folder()), "--device", "cpu")
    with serving(world.folder, *flags) as (address, own):
        while json.loads(ask(address, "/api/state"))["phase"] != "ready":
            time.sleep(0.1)
        found = json.loads(ask(address, "/api/search", {"texts": world.captions}))
        hits = found["hits"] or found["nearest"]

        def one(number: int) -> None:
            key = hits[number % len(hits)]["key"]
            for path in (f"/still/{key}?at=1", f"/video/{key}", "/api/library"):
                ask(address, path)
            ask(address, "/api/search", {"texts": [world.captions[number % 8]]})
            ask(address, "/api/curve", {"texts": ["a star"], "video": key})

        with ThreadPoolExecutor(20) as pool:
            list(pool.map(one, range(100)))
            before = resident(own)
            list(pool.map(one, range(200)))
        assert resident(own) - before < 16 << 20
