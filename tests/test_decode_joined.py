"""Joined recordings, clocks that wrap, edit lists, damage: each frame in its place, and sound."""

import struct
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
from builders import Clip, number_of, sampled, write_numbered, x265
from hypothesis import given
from hypothesis import strategies as st

from vtr.extract.compress import CompressSettings, compress_video
from vtr.extract.joined import Clock, second_flv
from vtr.extract.limits import Limits
from vtr.extract.probe import probe


def every(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


needs_x265 = pytest.mark.skipif("libx265" not in av.codecs_available, reason="no x265")
H264 = {"preset": "veryfast", "crf": "16", "x264-params": "keyint=12:bframes=2:b-adapt=0"}
FRAMES = 30
JOINED = {
    "h264.ts": Clip(options=H264, num_frames=FRAMES, container="mpegts"),
    "hevc.ts": Clip("libx265", options=x265("bframes=2"), num_frames=FRAMES, container="mpegts"),
    "mpeg2.ts": Clip("mpeg2video", num_frames=FRAMES, bframes=2, container="mpegts"),
    "mpeg2.vob": Clip("mpeg2video", num_frames=FRAMES, container="vob"),
}
WRAP = 2**33


def numbers(video):
    return [number_of(image) for image in video.crops]


def shifted(clip, ticks):
    """The clip with a clock that begins at `ticks` of 1/90000 s."""
    start = ticks // 3600
    return replace(clip, pts=tuple(range(start, start + clip.num_frames)))


def join(path, *parts):
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


@needs_x265
@pytest.mark.parametrize("name", JOINED)
def test_joined_recordings_come_in_file_order(tmp_path, name):
    part = write_numbered(tmp_path / f"part-{name}", JOINED[name])
    path = join(tmp_path / name, part, part, part)
    alone = every(part)
    for samplers in ("dense", "motion"):
        video = sampled(path, samplers, num_frames=3 * FRAMES)
        assert (video.status, video.error) == ("ok", "")
        assert numbers(video) == [*range(FRAMES)] * 3
        np.testing.assert_array_equal(video.crops, alone * 3)
        np.testing.assert_allclose(np.diff(video.pts_seconds), 1 / 25, atol=1e-4)
        assert video.duration_seconds == pytest.approx(3 * FRAMES / 25, abs=0.01)
    info = probe(path)
    assert len(info.pts_seconds) == 3 * FRAMES
    assert info.duration_seconds == pytest.approx(3 * FRAMES / 25, abs=0.01)


@pytest.mark.parametrize("first_later", [False, True])
def test_every_way_through_a_joined_file_sees_the_same(tmp_path, first_later):
    """Whole, by the second, in a window, and copied: also where FFmpeg sees a wrap in the join."""
    clip = Clip(options=H264, num_frames=50, container="mpegts")
    second = write_numbered(tmp_path / "b.ts", clip)
    first = (
        write_numbered(tmp_path / "a.ts", shifted(clip, 100 * 90_000)) if first_later else second
    )
    path = join(tmp_path / "x.ts", first, second)
    by_the_second = sampled(path, "dense", candidate_fps=1)
    assert numbers(by_the_second) == [0, 25, 0, 25]
    window = sampled(path, "dense", start_seconds=1.6, end_seconds=2.4)
    assert numbers(window) == [*range(40, 50), *range(10)]
    compress_video(path, tmp_path / "copy.mp4", CompressSettings(fps=25, crf=1, size=64))
    assert [number_of(image) for image in every(tmp_path / "copy.mp4")] == [*range(50)] * 2


@pytest.mark.parametrize("packet_bytes", [1 << 20, 0], ids=["in memory", "read twice"])
def test_the_clock_goes_on_in_every_pass(tmp_path, packet_bytes):
    part = write_numbered(tmp_path / "a.ts", JOINED["h264.ts"])
    limits = Limits(max_packet_bytes=packet_bytes, max_frame_bytes=0)
    video = sampled(join(tmp_path / "x.ts", part, part), "motion", 60, limits=limits)
    assert numbers(video) == [*range(FRAMES)] * 2


def test_a_wrap_of_33_bits_is_no_gap(tmp_path):
    clip = Clip(options=H264, num_frames=100, container="mpegts")
    for before in (2 * 90_000, 70 * 90_000):
        late = shifted(clip, WRAP - before)
        path = write_numbered(tmp_path / "x.ts", late)
        video = sampled(path, "dense")
        assert numbers(video) == list(range(100))
        assert video.duration_seconds == pytest.approx(4, abs=0.01)


def test_a_second_flv_is_missed_aloud(tmp_path):
    part = write_numbered(tmp_path / "a.flv", Clip(options=H264, num_frames=FRAMES))
    assert second_flv(part) is None
    path = join(tmp_path / "x.flv", part, part)
    assert second_flv(path) == part.stat().st_size
    video = sampled(path, "dense")
    assert numbers(video) == list(range(FRAMES))
    assert video.status == "partial"
    assert f"another FLV file begins at byte {part.stat().st_size}" in video.error
    whole = sampled(part, "dense")
    assert (whole.status, whole.decode_route) == ("ok", "sparse")


def test_slow_pictures_of_a_transport_stream_are_no_new_clock(tmp_path):
    clip = Clip(options=H264, rate=Fraction(1, 20), num_frames=5, container="mpegts")
    info = probe(write_numbered(tmp_path / "x.ts", clip))
    np.testing.assert_allclose(np.diff(info.pts_seconds), 20)


def test_a_picture_that_stands_for_long_is_no_new_clock(tmp_path):
    clip = Clip(options=H264, num_frames=4, pts=(0, 1, 2, 9000))
    assert probe(write_numbered(tmp_path / "x.mkv", clip)).pts_seconds[-1] == pytest.approx(360)


@given(
    lengths=st.lists(st.integers(3, 40), min_size=1, max_size=4),
    starts=st.lists(st.integers(0, WRAP - 1), min_size=4, max_size=4),
)
def test_clock_goes_on_by_a_frame_wherever_the_next_one_starts(lengths, starts):
    clock = Clock(second=90_000, frame=3600, jumps=True)
    seen = []
    for length, start in zip(lengths, starts, strict=False):
        for index in range(length):
            ticks = start + 3600 * index
            seen.append(ticks + clock.see(ticks, ticks, 3600))
    # A start within a quarter of a second before, or ten after, is the clock's own unevenness.
    steps = np.diff(seen)
    assert ((steps >= -22_500) & (steps <= 900_000)).all()
    assert clock.num_restarts < len(lengths)
    assert (steps == 3600).sum() >= len(steps) - (len(lengths) - 1)


def test_packets_without_times_are_left_alone():
    clock = Clock(second=25, frame=1, jumps=True)
    assert [clock.see(None, None, None) for _ in range(3)] == [0, 0, 0]


# ---- edit lists ---------------------------------------------------------------------------------


def cut_head(path, ticks):
    """Writes into the edit list of an MP4 that the first `ticks` of the media are not shown."""
    content = bytearray(path.read_bytes())
    at = content.index(b"elst") + 4
    assert struct.unpack_from(">I", content, at + 4)[0] == 1
    (start,) = struct.unpack_from(">i", content, at + 12)
    struct.pack_into(">i", content, at + 12, start + ticks)
    path.write_bytes(content)
    return path


def test_packets_before_zero_are_no_missing_end(tmp_path):
    """The header counts them, what is shown begins after them."""
    path = write_numbered(tmp_path / "x.mp4", Clip(options=H264, num_frames=60))
    with av.open(str(path)) as container:
        second = container.streams.video[0].time_base.denominator
    cut_head(path, second)
    video = sampled(path, "dense")
    assert (video.status, video.error) == ("ok", "")
    assert numbers(video)[-1] == 59
    content = path.read_bytes()
    assert content.index(b"mdat") < content.index(b"moov")


# ---- what a partial video holds -----------------------------------------------------------------

DAMAGED = {
    "h264.mp4": Clip(options=H264),
    "open.mp4": Clip(options={**H264, "x264-params": "keyint=12:bframes=3:open-gop=1:scenecut=0"}),
    "hevc.mp4": Clip("libx265", options=x265("keyint=12:bframes=3:b-adapt=0:scenecut=0")),
    "mpeg4.mp4": Clip("mpeg4", options={"g": "12"}, bframes=2),
    "mpeg2.ts": Clip("mpeg2video", options={"g": "12"}, bframes=2, container="mpegts"),
    "vp9.webm": Clip("libvpx-vp9", options={"cpu-used": "8", "deadline": "realtime", "g": "12"}),
}


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("position", [2, 14, 29, 30, 31, 58])
def test_frames_that_are_kept_are_those_of_the_sound_file(tmp_path, name, position):
    if DAMAGED[name].codec not in av.codecs_available:
        pytest.skip("this PyAV has no x265")
    path = write_numbered(tmp_path / name, DAMAGED[name])
    sound = sampled(path, "dense")
    with av.open(str(path)) as container:
        packet = [bytes(p) for p in container.demux(video=0) if p.size][position]
    content = bytearray(path.read_bytes())
    # Transport streams split packets: only what is in one piece is found.
    piece = packet[10:100]
    at = content.index(piece)
    content[at : at + len(piece)] = np.random.default_rng(position).bytes(len(piece))
    path.write_bytes(content)
    video = sampled(path, "dense")
    if video.status == "ok":
        pytest.skip("the decoder does not notice")
    expected = dict(zip(sound.pts_seconds.tolist(), sound.crops, strict=True))
    assert 0 < len(video.crops) < len(sound.crops)
    for seconds, image in zip(video.pts_seconds.tolist(), video.crops, strict=True):
        np.testing.assert_array_equal(image, expected[seconds])
    # What was not reached is there: the frames before, and those after the next key frame.
    assert len(video.crops) >= 60 - 2 * 12 - 4
