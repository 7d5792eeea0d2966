"""`vtr compress`: which frames, what pictures, and a folder that survives anything."""

import json
import os
import re
import shutil
import struct
import threading
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import builders
import numpy as np
import pytest
from builders import (
    full_disk,
    grey,
    kill_when,
    patchwork,
    run_app,
    run_json,
    sampled,
    start_python,
    write_clip,
)
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from vtr.errors import ConfigError, DecodeError, StoreError, StoreLockedError, StoreWriteError
from vtr.extract.compress import (
    CompressedVideo,
    CompressSettings,
    compress_video,
    place_frames,
    put_in_order,
)
from vtr.extract.compress_folder import (
    LEDGER_NAME,
    CompressMode,
    CompressReport,
    CompressRow,
    assign_targets,
    compress_folder,
)
from vtr.extract.h264 import scaled_size
from vtr.features.lock import write_lock
from vtr.verbs.compress import Options

Pictures = Sequence[NDArray[np.uint8]]

# (a, b, u, c, d, v, x, y, w) of the MP4 track header, for quarter turns clockwise.
MATRICES = {
    90: (0, 1, 0, -1, 0, 0, 0, 0, 1),
    180: (-1, 0, 0, 0, -1, 0, 0, 0, 1),
    270: (0, -1, 0, 1, 0, 0, 0, 0, 1),
}


def ramp(count: int) -> list[NDArray[np.uint8]]:
    """Frames whose brightness tells their number: frame i is 20 + 3 i."""
    return builders.ramp(count, step=3)


def write_video(path: Path, pictures: Pictures, **coding: Any) -> Path:
    lossless = {"crf": "1"} if coding.get("codec", "libx264") == "libx264" else {"qscale": "1"}
    rate = coding.get("fps", 25)
    defaults = {"fps": rate, "time_base": Fraction(1, rate), "options": lossless}
    return write_clip(path, pictures, **{"pts": range(len(pictures)), **defaults, **coding})


def turn_by_metadata(path: Path, clockwise: int) -> Path:
    """Writes a rotation into the track header of an MP4 file."""
    content = bytearray(path.read_bytes())
    scale = [1 << 30 if place in (2, 5, 8) else 1 << 16 for place in range(9)]
    matrix = [entry * unit for entry, unit in zip(MATRICES[clockwise], scale, strict=True)]
    struct.pack_into(">9i", content, content.index(b"tkhd") + 44, *matrix)
    path.write_bytes(content)
    return path


def read_video(path: Path) -> tuple[list[float], list[NDArray[np.uint8]]]:
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        return [frame.time or 0.0 for frame in frames], [
            frame.to_ndarray(format="rgb24") for frame in frames
        ]


def numbers(pictures: Pictures) -> list[int]:
    """Which frames of a `ramp` these are."""
    return [round((float(picture.mean()) - 20) / 3) for picture in pictures]


def shrink(source: Path, **settings: Any) -> tuple[CompressedVideo, Path]:
    target = source.parent / "copies" / f"{source.stem}.mp4"
    return compress_video(source, target, CompressSettings(**settings)), target


def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


# ---- which frames


def nearest_by_trying(times: list[float], end: float, fps: int) -> dict[int, int]:
    """{instant: frame}: every instant asks every frame; then every frame asks its instants."""
    asked: dict[int, list[int]] = {}
    for instant in range(int(end * fps) + 2):
        at = instant / fps
        if at > end + 1e-6:
            break
        distances = [round(abs(seconds - at), 6) for seconds in times]
        asked.setdefault(distances.index(min(distances)), []).append(instant)
    return {
        min(instants, key=lambda k: (round(abs(k / fps - times[frame]), 6), k)): frame
        for frame, instants in asked.items()
    }


@given(
    steps=st.lists(st.integers(1, 150), max_size=30),
    last=st.integers(1, 150),
    fps=st.integers(1, 12),
)
def test_the_nearest_frame_once_each_as_trying_all_gives(
    steps: list[int], last: int, fps: int
) -> None:
    times = [sum(steps[:number]) / 60 for number in range(len(steps) + 1)]
    half = min([last, *steps[-1:]]) / 120
    placed = place_frames([(t, last / 60, n) for n, t in enumerate(times)], fps=Fraction(fps))
    assert dict(placed) == nearest_by_trying(times, times[-1] + half, fps)


@pytest.mark.parametrize(
    ("rate", "count", "expected"),
    [
        (25, 50, {0: 0, 1: 8, 2: 17, 3: 25, 4: 33, 5: 42}),
        (3, 6, {k: k for k in range(6)}),  # a copy of a copy is the same
        (6, 6, {0: 0, 1: 2, 2: 4}),
        (1, 3, {0: 0, 3: 1, 6: 2}),  # slower than asked: nothing is repeated
        (2, 4, {0: 0, 1: 1, 3: 2, 4: 3}),
        (25, 1, {0: 0}),
        (25, 0, {}),
    ],
)
def test_steady_videos(rate: int, count: int, expected: dict[int, int]) -> None:
    frames = [(number / rate, 1 / rate, number) for number in range(count)]
    assert dict(place_frames(frames, fps=Fraction(3))) == expected


@given(st.permutations(range(12)), st.booleans())
def test_times_are_put_in_order(order: list[int], relabel: bool) -> None:
    given_frames = [(float(seconds), f"frame {seconds}") for seconds in order]
    ordered = list(put_in_order(given_frames, relabel=relabel))
    frames = [frame for _, frame in given_frames]
    assert [seconds for seconds, _ in ordered] == sorted(map(float, order))
    expected = frames if relabel else [f"frame {number}" for number in range(12)]
    assert [frame for _, frame in ordered] == expected


def test_order_is_kept_up_within_the_lookahead() -> None:
    late = [(3.0, "d"), (1.0, "b"), (0.0, "a"), (2.0, "c")]
    assert list(put_in_order(late, relabel=False, lookahead=2)) == sorted(late)


def test_frames_stand_where_they_are_shown(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", ramp(50), sound=True)
    copy, target = shrink(source)
    times, pictures = read_video(target)
    assert numbers(pictures) == [0, 8, 17, 25, 33, 42]
    assert times == pytest.approx([k / 3 for k in range(6)], abs=1e-4)
    assert copy == CompressedVideo("", 6, pytest.approx(2.0), 64, 48, target.stat().st_size)
    with av.open(str(target)) as container:
        assert [stream.type for stream in container.streams] == ["video"]
        assert container.streams.video[0].codec_context.name == "h264"
        assert float(container.duration or 0) / 1e6 == pytest.approx(2.0, abs=1e-3)
        assert container.streams.video[0].average_rate == 3


def test_a_slow_video_keeps_its_frames_times_and_length(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", ramp(4), fps=1)
    _, target = shrink(source)
    times, pictures = read_video(target)
    assert numbers(pictures) == [0, 1, 2, 3]
    assert times == pytest.approx([0, 1, 2, 3], abs=1e-4)
    with av.open(str(target)) as container:
        assert float(container.duration or 0) / 1e6 == pytest.approx(4.0, abs=1e-3)


def test_a_variable_rate_and_a_late_start(tmp_path: Path) -> None:
    # 25 per second, then a held picture of two seconds, then 25 per second; starts at 4 s.
    ticks = [100 + n for n in range(10)] + [160 + n for n in range(10)]
    source = write_video(tmp_path / "a.mkv", ramp(20), pts=ticks)
    _, target = shrink(source)
    times, pictures = read_video(target)
    # Frame 9 stands for 0.36 s to 2.4 s and is written once, at 1/3 s; 10 begins at 2.4 s.
    assert list(zip(numbers(pictures), times, strict=True)) == [
        (0, 0.0),
        (8, pytest.approx(1 / 3, abs=1e-4)),
        (9, pytest.approx(2 / 3, abs=1e-4)),
        (10, pytest.approx(7 / 3, abs=1e-4)),
        (17, pytest.approx(8 / 3, abs=1e-4)),
    ]


def test_avi_with_b_frames_keeps_the_pictures_in_order(tmp_path: Path) -> None:
    source = write_video(
        tmp_path / "a.avi", ramp(40), options={"crf": "1", "bf": "2", "b-adapt": "0"}
    )
    with av.open(str(source)) as container:
        stored = [frame.pts or 0 for frame in container.decode(video=0)]
    assert stored != sorted(stored), "the file must have the fault this is about"
    _, target = shrink(source, fps=12.5)
    found = numbers(read_video(target)[1])
    assert found == sorted(found)
    assert found == pytest.approx(range(0, 40, 2), abs=1)


@pytest.mark.parametrize("fps", [0.5, 2.5, 29.97, 100.0])
def test_other_rates(tmp_path: Path, fps: float) -> None:
    source = write_video(tmp_path / "a.mp4", ramp(50))
    copy, target = shrink(source, fps=fps)
    times, _ = read_video(target)
    expected = {0.5: 1, 2.5: 5, 29.97: 50, 100.0: 50}[fps]
    assert (len(times), copy.num_frames) == (expected, expected)
    assert times == pytest.approx([round(t * fps) / fps for t in times], abs=1e-3)
    assert copy.duration_seconds == pytest.approx(2.0, abs=1e-3)


# ---- what pictures


@given(
    st.integers(1, 8000), st.integers(1, 8000), st.integers(1, 400).map(lambda n: 2 * n),
    st.booleans(),
)  # fmt: skip
def test_sizes_are_even_and_keep_the_aspect(w: int, h: int, size: int, upscale: bool) -> None:
    width, height = scaled_size(w, h, size=size, upscale=upscale)
    assert width % 2 == height % 2 == 0
    short = min(w, h)
    if upscale or short >= size:
        assert min(width, height) == size
        factor = size / short
    else:
        assert (width, height) == (max(2, w - w % 2), max(2, h - h % 2))
        factor = 1.0
    assert abs(width - w * factor) <= 1
    assert abs(height - h * factor) <= 1


def quadrants(width: int, height: int) -> NDArray[np.uint8]:
    """Red, green, blue, white: upper left, upper right, lower left, lower right."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2] = (230, 20, 20)
    picture[: height // 2, width // 2 :] = (20, 200, 20)
    picture[height // 2 :, : width // 2] = (20, 20, 230)
    picture[height // 2 :, width // 2 :] = (235, 235, 235)
    return picture


def assert_upright(picture: NDArray[np.uint8]) -> None:
    height, width = picture.shape[:2]
    expected = quadrants(width, height)
    away = np.ones((height, width), bool)  # from the edges between the colours
    away[height // 2 - 8 : height // 2 + 8] = False
    away[:, width // 2 - 8 : width // 2 + 8] = False
    difference = np.abs(picture.astype(int) - expected)[away]
    assert difference.max() <= 12, "colours or places are wrong"


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [(640, 360, (398, 224)), (360, 640, (224, 398)), (123, 91, (122, 90))],
)
def test_pictures_keep_aspect_places_and_colours(
    tmp_path: Path, width: int, height: int, expected: tuple[int, int]
) -> None:
    pix_fmt = "yuv444p" if width % 2 else "yuv420p"
    source = write_video(tmp_path / "a.mp4", [quadrants(width, height)] * 3, pix_fmt=pix_fmt)
    copy, target = shrink(source)
    picture = read_video(target)[1][0]
    assert (copy.width, copy.height) == (picture.shape[1], picture.shape[0]) == expected
    assert_upright(picture)


@pytest.mark.parametrize("clockwise", [90, 180, 270])
def test_rotation_goes_into_the_pixels(tmp_path: Path, clockwise: int) -> None:
    upright = quadrants(360, 640)
    stored = np.ascontiguousarray(np.rot90(upright, clockwise // 90))
    source = turn_by_metadata(write_video(tmp_path / "a.mp4", [stored] * 3), clockwise)
    copy, target = shrink(source)
    picture = read_video(target)[1][0]
    assert (copy.width, copy.height) == (224, 398)
    assert_upright(picture)
    with av.open(str(target)) as container:
        assert next(container.decode(video=0)).rotation == 0


@pytest.mark.parametrize("pix_fmt", ["yuvj420p", "yuv444p", "yuv420p10le"])
def test_every_pixel_format_keeps_its_colours(tmp_path: Path, pix_fmt: str) -> None:
    source = write_video(tmp_path / "a.mp4", [quadrants(480, 320)] * 3, pix_fmt=pix_fmt)
    before = read_video(source)[1][0][40, 40]
    _, target = shrink(source, crf=10)
    after = read_video(target)[1][0][28, 28]
    assert np.abs(before.astype(int) - after).max() <= 6


def test_the_processor_does_not_show_in_the_bytes(tmp_path: Path) -> None:
    # x264's routines for one kind of processor are not all exact, one reads beyond its rows.
    for seed in range(3):
        pictures = patchwork(12, seed=seed, size=(112, 64))
        raw = {"codec": "ffv1", "pix_fmt": "yuv420p", "options": {}, "fps": 3}
        source = write_video(tmp_path / "raw.mkv", pictures, **raw)
        plain = {"crf": "23", "preset": "medium", "x264-params": "asm=0", "g": "30"}
        plain |= {"bf": "0", "threads": "1"}
        pts, clock = range(0, 48_000, 4_000), Fraction(1, 12_000)
        slow = write_clip(
            tmp_path / "slow.mp4", pictures, fps=3, options=plain, pts=pts, time_base=clock
        )
        assert packets(shrink(source)[1]) == packets(slow)


def test_small_videos_grow_only_on_request(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", [quadrants(160, 120)] * 3)
    assert shrink(source)[0].width == 160
    copy, target = shrink(source, upscale=True)
    assert (copy.width, copy.height) == (298, 224)
    assert_upright(read_video(target)[1][0])


def test_a_gif(tmp_path: Path) -> None:
    levels = [grey(level) for level in (0, 85, 170, 255)]
    source = write_video(tmp_path / "a.gif", levels, codec="gif", fps=2, pix_fmt="gray")
    copy, target = shrink(source)
    times, pictures = read_video(target)
    assert [round(float(picture.mean()) / 85) for picture in pictures] == [0, 1, 2, 3]
    assert copy.duration_seconds == pytest.approx(2.0, abs=0.01)
    assert times == pytest.approx([0, 1 / 3, 1, 4 / 3], abs=1e-3)


# ---- settings and faults of one video


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fps": 0.0}, r"^fps is 0\.0; it must be from 0\.001 to 1000"),
        ({"fps": 1e-9}, r"^fps is 1e-09; it must be from 0\.001 to 1000"),
        ({"fps": float("nan")}, "^fps is nan"),
        ({"size": 225}, r"^size is 225; it must be an even number, 2 or more"),
        ({"size": 0}, r"^size is 0; it must be an even number, 2 or more"),
        ({"crf": 52}, r"^crf is 52; it must be 0 \(lossless\) to 51"),
        ({"workers": 0}, "^workers is 0; it must be a whole number, 1 or more"),
        ({"timeout": 0}, "^timeout is 0; it must be a number, above 0"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Options.of(**settings)


def test_what_is_no_video_leaves_the_target_alone(tmp_path: Path) -> None:
    source, target = tmp_path / "a.mp4", tmp_path / "copy.mp4"
    source.write_text("<html>404</html>")
    target.write_text("what was there")
    with pytest.raises(DecodeError, match="not-a-video"):
        compress_video(source, target, CompressSettings())
    assert target.read_text() == "what was there"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "copy.mp4"]


def test_a_file_that_is_cut_off_is_partial(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (100, 48, 64, 3), np.uint8)
    source = write_video(tmp_path / "a.mkv", list(noise), options={"g": "10"})
    whole = source.read_bytes()
    source.write_bytes(whole[: len(whole) * 6 // 10])
    copy, target = shrink(source)
    assert copy.error.startswith("damaged: the file ends after ")
    assert 5 <= copy.num_frames <= 9
    assert len(read_video(target)[0]) == copy.num_frames


def test_a_damaged_packet_costs_only_its_frames(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", ramp(50), options={"crf": "1", "g": "1"})
    with av.open(str(source)) as container:
        packets = [p for p in container.demux(video=0) if p.size and p.pos is not None]
        position, size = packets[8].pos, packets[8].size
    content = bytearray(source.read_bytes())
    assert position is not None
    content[position : position + size] = bytes(range(1, 256)) * (size // 255) + bytes(size % 255)
    source.write_bytes(content)
    copy, target = shrink(source)
    assert copy.error.startswith("damaged: packets that do not decode: 1; ")
    assert numbers(read_video(target)[1])[2:] == [17, 25, 33, 42]


def test_damage_is_counted_as_extraction_counts_it(tmp_path: Path) -> None:
    """Of H.264 with a changed byte nearly every packet gives a frame, concealed or not."""
    whole = write_video(tmp_path / "a.mp4", ramp(50), options={"g": "25"}).read_bytes()
    rng = np.random.default_rng(7)
    told = []
    for number in range(12):
        content = bytearray(whole)
        content[rng.integers(48, len(whole) // 2)] ^= 1 << int(rng.integers(8))
        source = tmp_path / f"{number}.mp4"
        source.write_bytes(content)
        try:
            extracted = sampled(source, "dense").error
        except DecodeError as error:
            with pytest.raises(DecodeError, match=re.escape(error.detail)):
                shrink(source)
            continue
        told.append((f"damaged: {extracted}" if extracted else "", shrink(source)[0].error))
    assert [ours for _, ours in told] == [theirs for theirs, _ in told]
    assert sum(bool(ours) for _, ours in told) >= 3


@pytest.mark.parametrize("share", [0.0, 0.5, 0.98])
def test_a_full_disk_is_one_clear_error(tmp_path: Path, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (24, 96, 96, 3), np.uint8)
    source = write_video(tmp_path / "a.mp4", list(noise), fps=3, options={"preset": "ultrafast"})
    copy, target = shrink(source)
    target.unlink()
    with (
        full_disk(int(copy.num_bytes * share)),
        pytest.raises(StoreWriteError, match=r"cannot write .*a\.mp4: File too large\. What is"),
    ):
        shrink(source)
    assert list(target.parent.iterdir()) == []


def test_a_name_too_long_for_the_copy_is_the_videos_fault(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", ramp(3))
    with pytest.raises(DecodeError, match=r"bad-name: the copy's name would be too long"):
        compress_video(source, tmp_path / f"{'n' * 252}.mp4", CompressSettings())


# ---- names of copies


def test_copies_keep_folders_and_never_meet() -> None:
    names = ["a/x.avi", "a/x.mp4", "a/x.MP4", "b.mkv", "b.webm", "d.mov", "d.mp4/in.avi"]
    assert assign_targets(names, held={}) == {
        "a/x.mp4": "a/x.mp4",
        "a/x.MP4": "a/x.MP4.mp4",
        "a/x.avi": "a/x.avi.mp4",
        "b.mkv": "b.mp4",
        "b.webm": "b.webm.mp4",
        "d.mov": "d.mov.mp4",  # d.mp4 is a folder
        "d.mp4/in.avi": "d.mp4/in.mp4",
    }


def test_names_once_given_stay() -> None:
    first = assign_targets(["x.avi"], held={})
    assert first == {"x.avi": "x.mp4"}
    assert assign_targets(["x.avi", "x.mp4"], held=first) == {
        "x.avi": "x.mp4",
        "x.mp4": "x.mp4.mp4",
    }


STEMS = st.sampled_from(["x", "x.avi", "x.mp4", "s/x", "s/x.mp4", "s"])
FILES = st.tuples(STEMS, st.sampled_from([".avi", ".mp4", ".MP4", ".mkv"])).map("".join)


@given(st.lists(FILES, unique=True), st.lists(FILES, unique=True))
def test_every_copy_has_a_name_of_its_own(first: list[str], later: list[str]) -> None:
    held = assign_targets(sorted(first), held={})
    both = sorted({*first, *later})
    targets = assign_targets(both, held=held)
    assert set(targets) == set(both)
    assert len(set(targets.values())) == len(both)
    assert all(target.endswith(".mp4") for target in targets.values())
    assert {name: targets[name] for name in held} == held
    assert assign_targets(sorted(first, reverse=True), held={}) == held


# ---- a folder


def rows(folder: Path) -> dict[str, CompressRow]:
    lines = (folder / LEDGER_NAME).read_text().splitlines()
    return {row["name"]: CompressRow(**row) for row in map(json.loads, lines)}


def run_folder(tmp_path: Path, **mode: Any) -> CompressReport:
    return compress_folder(
        tmp_path / "films", tmp_path / "small", CompressSettings(), mode=CompressMode(**mode)
    )


def stamps(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*.mp4")}


def test_bad_input_costs_one_row_each_and_can_be_retried(tmp_path: Path) -> None:
    films = tmp_path / "films"
    good = write_video(films / "sub" / "good.mkv", ramp(10))
    (films / "empty.mp4").touch()
    (films / "text.mp4").write_text("no video")
    (films / "folder.mp4").mkdir()
    (films / "dangling.mp4").symlink_to("nowhere")
    os.mkfifo(films / "pipe.mp4")
    shutil.copy(good, films / "line\nfeed '\".mkv")
    report = run_folder(tmp_path, workers=2)
    assert {row.name: (row.status, row.reason) for row in report.rows} == {
        "dangling.mp4": ("failed", "not-found"),
        "empty.mp4": ("failed", "empty-file"),
        "folder.mp4": ("failed", "not-a-file"),
        "line\nfeed '\".mkv": ("ok", ""),
        "pipe.mp4": ("failed", "not-a-file"),
        "sub/good.mkv": ("ok", ""),
        "text.mp4": ("failed", "not-a-video"),
    }
    assert {row.name: row for row in report.rows} == rows(tmp_path / "small")
    copies = sorted(p.relative_to(tmp_path / "small") for p in (tmp_path / "small").rglob("*.mp4"))
    assert copies == [Path("line\nfeed '\".mp4"), Path("sub/good.mp4")]

    before = stamps(tmp_path / "small")
    again = run_folder(tmp_path)
    assert (again.done_now, again.rows) == (0, report.rows), "a second run has nothing to do"
    shutil.copy(good, films / "new.mkv")
    assert run_folder(tmp_path).done_now == 1
    (films / "dangling.mp4").unlink()
    shutil.copy(good, films / "dangling.mp4")
    retried = run_folder(tmp_path, retry=frozenset({"failed"}))
    assert (retried.done_now, retried.count("ok"), retried.count("failed")) == (5, 4, 4)
    after = stamps(tmp_path / "small")
    assert {name: after[name] for name in before} == before, "finished copies were not touched"


def test_changes_are_noticed(tmp_path: Path) -> None:
    films, small = tmp_path / "films", tmp_path / "small"
    for name in ("a.mkv", "b.mkv", "c.mkv"):
        write_video(films / name, ramp(5))
    run_folder(tmp_path)
    write_video(films / "a.mkv", ramp(50))
    (small / "b.mp4").unlink()
    report = run_folder(tmp_path)
    assert (report.done_now, report.count("ok")) == (2, 3)
    assert rows(small)["a.mkv"].num_frames == 6
    other = compress_folder(films, small, CompressSettings(fps=1))
    assert other.done_now == 3
    (films / "a.mkv").write_text("spoilt")
    spoilt = compress_folder(films, small, CompressSettings(fps=1))
    assert (spoilt.done_now, spoilt.count("failed")) == (1, 1)
    assert not (small / "a.mp4").exists(), "a failed video has no copy of what it once was"
    assert compress_folder(
        films, small, CompressSettings(fps=1), mode=CompressMode(overwrite=True)
    ).done_now == 3  # fmt: skip


def test_files_that_are_not_ours_are_kept(tmp_path: Path) -> None:
    write_video(tmp_path / "films" / "a.mkv", ramp(5))
    (tmp_path / "small").mkdir()
    mine = tmp_path / "small" / "a.mp4"
    mine.write_text("mine")
    with pytest.raises(ConfigError, match=r"holds 1 file .* did not make, such as a\.mp4"):
        run_folder(tmp_path)
    assert mine.read_text() == "mine"
    assert run_folder(tmp_path, overwrite=True).count("ok") == 1
    assert mine.read_bytes()[4:8] == b"ftyp"


@pytest.mark.parametrize("target", ["films", "films/small", ".", "link/small"])
def test_originals_and_copies_stay_apart(tmp_path: Path, target: str) -> None:
    write_video(tmp_path / "films" / "a.mkv", ramp(3))
    (tmp_path / "link").symlink_to("films")
    with pytest.raises(ConfigError, match="neither may lie in the other"):
        compress_folder(tmp_path / "films", tmp_path / target, CompressSettings())
    assert [path.name for path in (tmp_path / "films").iterdir()] == ["a.mkv"]


def test_a_folder_without_videos_or_none_at_all(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such folder"):
        run_folder(tmp_path)
    (tmp_path / "films").mkdir()
    with pytest.raises(ConfigError, match="no videos in"):
        run_folder(tmp_path)
    assert not (tmp_path / "small").exists()


def test_a_folder_that_cannot_be_made_is_said_in_the_words_of_the_command(tmp_path: Path) -> None:
    write_video(tmp_path / "films" / "a.mkv", ramp(3))
    (tmp_path / "small").symlink_to(tmp_path / "gone" / "below")
    with pytest.raises(StoreWriteError, match=r"cannot make the folder .*small.* with DST$"):
        run_folder(tmp_path)


def test_a_second_run_is_refused(tmp_path: Path) -> None:
    write_video(tmp_path / "films" / "a.mkv", ramp(3))
    with (
        write_lock(tmp_path / "small"),
        pytest.raises(StoreLockedError, match=r"another run is writing to .*small"),
    ):
        run_folder(tmp_path)


def test_a_torn_last_line_is_done_again_and_a_damaged_one_refused(tmp_path: Path) -> None:
    for name in ("a.mkv", "b.mkv"):
        write_video(tmp_path / "films" / name, ramp(3))
    run_folder(tmp_path)
    ledger = tmp_path / "small" / LEDGER_NAME
    whole = ledger.read_bytes()
    ledger.write_bytes(whole[:-30])
    assert run_folder(tmp_path).done_now == 1
    assert run_folder(tmp_path).done_now == 0
    ledger.write_bytes(b"{}\n" + whole)
    with pytest.raises(StoreError, match=r"is damaged in line 1\. Delete it"):
        run_folder(tmp_path)


def test_another_original_of_the_same_size_is_copied_again(tmp_path: Path) -> None:
    source = write_video(tmp_path / "films" / "a.mkv", ramp(3))
    run_folder(tmp_path)
    assert run_folder(tmp_path).done_now == 0
    date = source.stat().st_mtime_ns + 10**9
    os.utime(source, ns=(date, date))
    assert run_folder(tmp_path).done_now == 1
    ledger = tmp_path / "small" / LEDGER_NAME
    row = json.loads(ledger.read_bytes().splitlines()[-1])
    del row["source_mtime_ns"]  # as an older vtr wrote it
    ledger.write_text(json.dumps(row) + "\n")
    assert run_folder(tmp_path).done_now == 0


def test_a_copy_that_cannot_be_made_again_stays(tmp_path: Path) -> None:
    """The original is the same by size and date, and cannot be read this time."""
    film = tmp_path / "films" / "a.mp4"
    film.parent.mkdir()
    write_video(film, ramp(12))
    run_folder(tmp_path)
    target = tmp_path / "small"
    good, (row,) = (target / "a.mp4").read_bytes(), rows(target).values()
    content, times = film.read_bytes(), film.stat()
    film.write_bytes(bytes(len(content)))
    os.utime(film, ns=(times.st_atime_ns, times.st_mtime_ns))
    report = run_folder(tmp_path, overwrite=True)
    assert (report.count("failed"), report.rows[0].reason) == (1, "not-a-video")
    assert (target / "a.mp4").read_bytes() == good
    assert rows(target) == {"a.mp4": row}
    film.write_bytes(bytes(9))  # another original: the copy is of nothing that is there
    assert run_folder(tmp_path).count("failed") == 1
    assert not (target / "a.mp4").exists()


def test_a_video_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    write_video(tmp_path / "films" / "a.mkv", ramp(50))
    report = run_folder(tmp_path, timeout_seconds=1e-3)
    assert [(row.status, row.reason) for row in report.rows] == [("failed", "timeout")]
    assert list((tmp_path / "small").glob("*.mp4")) == []
    assert run_folder(tmp_path, retry=frozenset({"failed"})).count("ok") == 1
    assert list((tmp_path / "small").glob(".tmp-*")) == []


def test_what_another_run_took_for_a_leftover_is_copied_again(tmp_path: Path) -> None:
    """It cannot see our lock, and sweeps when it begins."""
    source = write_clip(tmp_path / "a.mp4", patchwork(300))
    target, swept = tmp_path / "small/a.mp4", []

    def sweep() -> None:
        while not swept:
            for path in target.parent.glob(".tmp-*"):
                path.unlink(missing_ok=True)
                swept.append(path)

    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    copy = compress_video(source, target, CompressSettings(size=32))
    sweeper.join()
    assert target.stat().st_size == copy.num_bytes
    assert list(target.parent.iterdir()) == [target]


def test_a_full_disk_stops_the_run_and_it_resumes(tmp_path: Path) -> None:
    films = tmp_path / "films"
    write_video(films / "a.mkv", ramp(3))
    noise = np.random.default_rng(0).integers(0, 255, (24, 96, 96, 3), np.uint8)
    write_video(films / "b.mkv", list(noise), fps=3, options={"preset": "ultrafast"})
    with full_disk(50_000), pytest.raises(StoreWriteError, match=r"cannot write .*b\.mp4"):
        run_folder(tmp_path)
    assert {name: row.status for name, row in rows(tmp_path / "small").items()} == {
        "a.mkv": "ok",
        "b.mkv": "planned",
    }
    report = run_folder(tmp_path)
    assert (report.done_now, report.count("ok")) == (1, 2)
    assert sorted(path.name for path in (tmp_path / "small").iterdir()) == [
        ".lock", "a.mp4", "b.mp4", LEDGER_NAME]  # fmt: skip


def test_a_killed_run_resumes_to_the_same_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # x264 decides by memory that it never wrote: of one picture for all, 1 copy in 200 differs.
    monkeypatch.setenv("MALLOC_PERTURB_", "85")
    films = tmp_path / "films"
    for number in range(8):
        write_video(films / f"{number:02}.mkv", ramp(20 + number))
    compress_folder(films, tmp_path / "whole", CompressSettings())
    code = (
        "import sys; from pathlib import Path; from vtr.extract.compress import CompressSettings; "
        "from vtr.extract.compress_folder import compress_folder; "
        "compress_folder(Path(sys.argv[1]), Path(sys.argv[2]), CompressSettings())"
    )
    target = tmp_path / "killed"
    for patience in (0, 3):  # early, then amid the work
        enough = lambda n=patience: len(list(target.glob("*.mp4"))) > n  # noqa: E731
        kill_when(enough, start_python("-c", code, films, target))
    report = compress_folder(films, target, CompressSettings())
    assert report.count("ok") == 8
    expected = {path.name: path.read_bytes() for path in (tmp_path / "whole").glob("*.mp4")}
    assert {path.name: path.read_bytes() for path in target.glob("*.mp4")} == expected
    assert list(target.glob(".tmp-*")) == []


# ---- the command


def test_the_command_says_what_it_did(tmp_path: Path) -> None:
    films, small = tmp_path / "films", tmp_path / "small"
    write_video(films / "a.mkv", ramp(10))
    (films / "notes.txt").touch()
    result = run_app("compress", films, small)
    assert result.stderr.splitlines()[0] == f"compressing: looking for the videos in {films}"
    lines = result.stdout.splitlines()
    assert "skipped: 1 other file (1 .txt)" in lines
    assert lines[0] == f"1 video = 1 ok + 0 partial + 0 failed in {small}"
    assert lines[1].startswith("this run: 1 video in ")
    (films / "b\x1b.mp4").touch()
    facts = run_json("compress", films, small, code=3)
    assert (facts["inputs"], facts["ok"], facts["failed"], facts["done_now"]) == (2, 1, 1, 1)
    assert facts["reasons"] == {"empty-file": 1}
    assert facts["failures"][0]["error"] == "empty-file: the file has 0 bytes"
    result = run_app("compress", films, small, "--quiet", code=3)
    assert result.stdout.splitlines()[3] == "  empty-file: 1"
    assert result.stderr == r"failed b\x1b.mp4: empty-file: the file has 0 bytes" + "\n"


# ---- real files


@pytest.mark.real
def test_real_files(tmp_path: Path, real_data: Path) -> None:
    report = compress_folder(
        real_data / "videos", tmp_path / "small", CompressSettings(), mode=CompressMode(workers=2)
    )
    rows = [row for row in report.rows if not row.name.startswith("odd/")]
    failed = {row.name: row.reason for row in rows if row.status == "failed"}
    assert failed == {
        "broken/moviepy_result.webm": "empty-file",
        "broken/mp4parse_chunk_out_of_range.mp4": "not-a-video",
        "broken/mp4parse_invalid_userdata.mp4": "no-frames",
        "broken/mp4parse_sine-3s-xhe-aac-44khz-mono.mp4": "no-video-stream",
        "broken/mp4parse_test_case_1185230.mp4": "decode-error",
    }
    partial = [row.name for row in rows if row.status == "partial"]
    assert partial == ["broken/decord_corrupted.mp4"]
    by_name = {row.name: row for row in rows}
    assert (by_name["decord_video_270.mov"].width, by_name["decord_video_270.mov"].height) == (
        224,
        398,
    )
    # MSR-VTT was made the same way: 3 fps, short side 224; every frame stays.
    kept = by_name["msrvtt_video7500.mp4"]
    assert (kept.num_frames, kept.width, kept.height) == (50, 298, 224)
    for row in report.rows:
        if row.status != "failed":
            times, pictures = read_video(tmp_path / "small" / row.target)
            assert len(times) == row.num_frames
            assert pictures[0].shape == (row.height, row.width, 3)
