"""Frames by time, bit for bit: sparse fetch against full decode on generated clips."""

import functools
import hashlib
from fractions import Fraction
from pathlib import Path

import av
import av.logging
import numpy as np
import pytest
from builders import Clip, number_of, sampled, write_numbered, x265

from vtr.datasets.files import find_videos
from vtr.errors import ConfigError, DecodeError
from vtr.extract import bitstream
from vtr.extract.bitstream import UnprovenError, read_header
from vtr.extract.container import open_video
from vtr.extract.frames import Upright, to_rgb, upright
from vtr.extract.limits import Limits
from vtr.extract.packets import PacketTable, Segment, plan_segments, reorder_depth
from vtr.extract.probe import probe
from vtr.extract.readers import FullReader, SparseReader
from vtr.extract.samplers.base import SamplerChoice
from vtr.extract.timeline import candidate_indices

needs_x265 = pytest.mark.skipif(
    "libx265" not in av.codecs_available, reason="this PyAV has no x265"
)
WIDTH, HEIGHT = 96, 64


@pytest.fixture(scope="session")
def make(tmp_path_factory):
    """Returns a function that writes a clip once per session."""
    folder = tmp_path_factory.mktemp("clips")

    @functools.cache
    def write_once(name):
        clip = CLIPS[name]
        return write_numbered(folder / f"{name}{clip.suffix}", clip)

    return write_once


X264 = {"preset": "ultrafast", "crf": "16"}
PYRAMID = {"preset": "veryfast", "crf": "16", "x264-params": "keyint=12:bframes=4:b-adapt=0"}
OPEN = {**PYRAMID, "x264-params": "keyint=12:bframes=3:b-adapt=0:open-gop=1:scenecut=0"}


CLIPS = {
    "h264": Clip(options=PYRAMID),
    "h264-mkv": Clip(options=PYRAMID, suffix=".mkv"),
    "h264-no-b": Clip(options={**X264, "tune": "zerolatency", "g": "20"}),
    "h264-one-gop": Clip(options={**PYRAMID, "x264-params": "keyint=250:bframes=8:b-adapt=0"}),
    "h264-open": Clip(options=OPEN),
    "h264-444": Clip(options={**PYRAMID, "profile": "high444"}, pix_fmt="yuv444p"),
    "h264-ts": Clip(options=PYRAMID, suffix=".ts"),
    "h264-interlaced": Clip(
        options={**PYRAMID, "x264-params": "keyint=12:interlaced=1"}, size=(96, 64)
    ),
    "h264-2997": Clip(options=PYRAMID, rate=Fraction(30000, 1001), num_frames=120),
    "vfr": Clip(
        options=PYRAMID,
        pts=tuple(np.cumsum([0] + [40, 40, 200, 16, 1500] * 12)[:60].tolist()),
        time_base=Fraction(1, 1000),
    ),
    "late-start": Clip(options=PYRAMID, pts=tuple(range(208, 268))),
    "repeated-pts": Clip(options=X264, rate=3000, suffix=".mkv"),
    "hevc-open": Clip("libx265", options=x265("keyint=12:bframes=4:b-adapt=0:scenecut=0")),
    "hevc-closed": Clip("libx265", options=x265("keyint=12:open-gop=0:bframes=3:b-adapt=0")),
    "hevc-radl": Clip("libx265", options=x265("keyint=12:open-gop=0:radl=2:bframes=3:b-adapt=0")),
    "hevc-layers": Clip("libx265", options=x265("keyint=12:temporal-layers=3:bframes=3")),
    "h264-avi": Clip(options=PYRAMID, suffix=".avi"),
    "h264-raw": Clip(options=PYRAMID, suffix=".h264"),
    "mpeg4-avi": Clip("mpeg4", suffix=".avi", options={"g": "12"}, bframes=2),
    "mpeg4-mp4": Clip("mpeg4", options={"g": "12"}, bframes=2),
    "mpeg2-ps": Clip("mpeg2video", suffix=".mpg", options={"g": "12"}, bframes=2),
    "vp9": Clip("libvpx-vp9", suffix=".webm", options={"cpu-used": "8", "deadline": "realtime"}),
    "vp8-altref": Clip(
        "libvpx", suffix=".webm", options={"auto-alt-ref": "1", "lag-in-frames": "16"}
    ),
    "gif": Clip("gif", suffix=".gif", num_frames=20, rate=10, pix_fmt="rgb8"),
    "one-frame": Clip(options=X264, num_frames=1),
    "two-frames": Clip(options=X264, num_frames=2),
    "tiny": Clip(options=X264, size=(2, 2), num_frames=5),
    "dot": Clip(options=X264, size=(1, 1), pix_fmt="yuv444p", num_frames=5),
    "slow": Clip(options=X264, rate=Fraction(1, 2), num_frames=6),
}
SPARSE = [
    "h264", "h264-mkv", "h264-no-b", "h264-one-gop", "h264-open", "h264-444", "h264-2997", "vfr",
    "late-start", "one-frame", "two-frames", "slow",
    *(pytest.param(name, marks=needs_x265) for name in ("hevc-open", "hevc-closed")),
]  # fmt: skip
FULL = {
    "h264-ts": "H.264 without a codec record",
    "h264-avi": "H.264 without a codec record",
    "h264-raw": "H.264 without a codec record",
    "h264-interlaced": "H.264 with field coding",
    "repeated-pts": "missing or repeated time stamps",
    "mpeg4-avi": "codec mpeg4",
    "mpeg4-mp4": "codec mpeg4",
    "mpeg2-ps": "codec mpeg2video",
    "vp9": "codec vp9",
    "vp8-altref": "codec vp8",
    "gif": "codec gif",
}


def every(path):
    """The oracle: PyAV's own loop over the file, in presentation order."""
    with av.open(str(path)) as container:
        frames = [
            (frame.pts, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)
        ]
    return [image for _, image in frames]


def read_all(reader):
    images = {}
    reader.read(
        np.arange(len(reader.pts_seconds)),
        lambda key, frame: images.__setitem__(key, to_rgb(frame, Upright())),
    )
    keys = reader.keys(np.arange(len(reader.pts_seconds)))
    return [images[key] for key in keys.tolist()]


def target_sets(num_frames):
    rng = np.random.default_rng(num_frames)
    return {
        "uniform": np.unique(np.linspace(0, num_frames - 1, 7).astype(int)),
        "one": np.array([num_frames * 2 // 3]),
        "tail": np.arange(max(0, num_frames - 3), num_frames),
        "random": np.flatnonzero(rng.random(num_frames) < 0.2),
        "all": np.arange(num_frames),
    }


@pytest.mark.parametrize("name", SPARSE)
@pytest.mark.parametrize("packet_bytes", [1 << 20, 0], ids=["in memory", "read twice"])
def test_sparse_fetch_is_the_full_decode_bit_for_bit(make, name, packet_bytes):
    path, expected = make(name), every(make(name))
    with open_video(path, limits=Limits(max_packet_bytes=packet_bytes)) as source:
        reader = SparseReader(PacketTable(source))
        assert len(reader.pts_seconds) == len(expected) == CLIPS[name].num_frames
        for targets in target_sets(len(expected)).values():
            got = {}
            reader.read(targets, lambda i, f, got=got: got.__setitem__(i, to_rgb(f, Upright())))
            assert sorted(got) == targets.tolist()
            for index, image in got.items():
                np.testing.assert_array_equal(image, expected[index])
                assert number_of(image) == index % 256


@pytest.mark.parametrize("name", SPARSE)
def test_sparse_and_full_agree_on_the_timeline(make, name):
    with open_video(make(name)) as source:
        table = PacketTable(source)
        sparse, full = SparseReader(table), FullReader(table)
        read_all(full)
        np.testing.assert_array_equal(sparse.pts_seconds, full.pts_seconds)


@pytest.mark.parametrize(("name", "why"), FULL.items())
def test_everything_else_is_decoded_in_full(make, name, why):
    path, expected = make(name), every(make(name))
    video = sampled(path, num_frames=60)
    assert video.decode_route == f"full: {why}"
    assert (video.status, video.error) == ("ok", "")
    assert video.num_candidates == len(expected) == CLIPS[name].num_frames
    if name != "h264-interlaced":  # of which one field is shown
        np.testing.assert_array_equal(video.crops, expected)
    assert [number_of(image) for image in video.crops] == list(range(len(expected)))


@needs_x265
@pytest.mark.parametrize(
    ("name", "why"), [("hevc-layers", "HEVC temporal sub-layers"), ("hevc-radl", None)]
)
def test_hevc_with_layers_or_leading_pictures(make, name, why):
    video = sampled(make(name), num_frames=60)
    assert video.decode_route == (f"full: {why}" if why else "sparse")
    assert [number_of(image) for image in video.crops] == list(range(60))


def test_sparse_leaves_packets_out(make):
    """The point of it all: fewer frames come out of the decoder."""
    with open_video(make("h264")) as source:
        table = PacketTable(source)
        reader = SparseReader(table)
        decoded = []
        decode = source.decode
        object.__setattr__(source, "decode", lambda p: decoded.extend(out := decode(p)) or out)
        reader.read(np.array([30]), lambda key, frame: None)
    assert 1 <= len(decoded) < 8
    # With the first packet, its group only, and none of the pictures nothing refers to.
    starts = table.pts[table.is_entry]
    assert len(starts) >= 5
    groups = np.searchsorted(starts, [frame.pts for frame in decoded], side="right") - 1
    wanted = np.searchsorted(starts, np.sort(table.pts)[30], side="right") - 1
    assert set(groups) == {0, wanted}
    assert (groups == 0).sum() == 1


@needs_x265
def test_open_groups_of_hevc_are_entered(make):
    with open_video(make("hevc-open")) as source:
        table = PacketTable(source)
        assert table.is_entry.sum() == 5
        position = int(np.flatnonzero(table.is_entry)[2])
        leading = position + 1 + int(np.argmin(table.pts[position + 1 : position + 5]))
        assert table.pts[leading] < table.pts[position]
        entries = np.flatnonzero(table.is_entry)
        # A leading picture is decoded from the entry before, its successor from the one at hand.
        assert plan_segments(table.pts, entries, np.array([leading]))[-1].first == entries[1]
        assert plan_segments(table.pts, entries, np.array([position]))[-1].first == position


def test_plan_merges_what_overlaps():
    pts = np.array([0, 3, 1, 2, 6, 4, 5, 9, 7, 8])
    entries = np.array([0, 4, 7])
    assert plan_segments(pts, entries, np.array([7])) == [Segment(0, 0), Segment(7, 7)]
    # 5 is on screen before 4, the entry it follows in the file.
    assert plan_segments(pts, entries, np.array([5, 4])) == [Segment(0, 5)]
    assert plan_segments(pts, entries, np.array([9, 2])) == [Segment(0, 2), Segment(4, 9)]
    assert plan_segments(pts, entries, np.array([9])) == [Segment(0, 0), Segment(4, 9)]


def naive_depth(pts):
    return max(sum(earlier > now for earlier in pts[:i]) for i, now in enumerate(pts))


def test_reorder_depth_against_the_definition():
    rng = np.random.default_rng(0)
    for size in range(1, 30):
        pts = np.arange(size) + rng.integers(0, 6, size) * 1.01
        pts = np.argsort(np.argsort(pts))
        assert reorder_depth(pts) == naive_depth(pts.tolist())


# ---- what is in the file ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["h264", "vfr", "mpeg4-avi", "vp9", "gif", "one-frame"])
def test_probe_counts(make, name):
    clip, info = CLIPS[name], probe(make(name))
    assert len(info.pts_seconds) == clip.num_frames
    assert (info.width, info.height, info.rotation_degrees) == (*clip.size, 0)
    assert (np.diff(info.pts_seconds) >= 0).all()
    assert info.trouble == ""


def test_probe_times(make):
    vfr = probe(make("vfr"))
    steps = [0.04, 0.04, 0.2, 0.016, 1.5] * 12
    np.testing.assert_allclose(np.diff(vfr.pts_seconds), steps[:59], atol=1e-9)
    late = probe(make("late-start"))
    assert late.pts_seconds[0] == pytest.approx(8.32)
    assert late.duration_seconds == pytest.approx(60 / 25)
    assert probe(make("one-frame")).duration_seconds == pytest.approx(1 / 25)
    exact = probe(make("h264-2997")).pts_seconds
    assert exact.tolist() == [float(Fraction(i * 1001, 30000)) for i in range(120)]


def test_avi_frames_are_in_the_order_they_are_shown(make):
    """PyAV's pts go back and forth there; the pictures must not."""
    with av.open(str(make("h264-avi"))) as container:
        raw = [frame.pts for frame in container.decode(video=0)]
    assert raw != sorted(raw)
    video = sampled(make("h264-avi"), num_frames=60)
    assert [number_of(image) for image in video.crops] == list(range(60))
    np.testing.assert_allclose(np.diff(video.pts_seconds), 1 / 25)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_rotation_is_applied(tmp_path, degrees, mirrored):
    clip = Clip(options=X264, num_frames=3, rotation=(degrees, mirrored, False))
    turned = write_numbered(tmp_path / "turned.mp4", clip)
    plain = write_numbered(tmp_path / "plain.mp4", Clip(options=X264, num_frames=3))
    shown = sampled(turned)
    stored = sampled(plain)
    # The display matrix turns counter-clockwise, then mirrors.
    expected = np.rot90(stored.crops, degrees // 90, axes=(1, 2))
    expected = expected[:, :, ::-1] if mirrored else expected
    np.testing.assert_array_equal(shown.crops, expected)
    assert (shown.width, shown.height) == expected.shape[2:0:-1]
    assert all(crop.flags.c_contiguous for crop in shown.crops)


class UnknownBeside:
    """A frame with data of a kind that PyAV cannot name, as in Apple's spatial video."""

    def __init__(self, frame):
        self.rotation = frame.rotation

    @property
    def side_data(self):
        raise ValueError("29 is not a valid Type")


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_rotation_beside_unknown_data(tmp_path, degrees):
    clip = Clip(options=X264, num_frames=1, rotation=(degrees, False, False))
    with av.open(str(write_numbered(tmp_path / "x.mp4", clip))) as container:
        frame = next(container.decode(video=0))
    assert upright(UnknownBeside(frame)) == upright(frame)
    assert upright(frame).degrees == degrees


def test_turn_that_is_not_a_right_angle_is_ignored(tmp_path):
    path = write_numbered(
        tmp_path / "x.mp4", Clip(options=X264, num_frames=2, rotation=(30, False, False))
    )
    info = probe(path)
    assert (info.width, info.height, info.rotation_degrees) == (WIDTH, HEIGHT, 0)


def test_size_may_change_midway(tmp_path):
    """Two raw streams in one file: no pts at all, then another picture size."""
    path = tmp_path / "both.h264"
    for size in ((96, 64), (160, 96)):
        part = write_numbered(tmp_path / "part.h264", Clip(options=X264, num_frames=10, size=size))
        with path.open("ab") as file:
            file.write(part.read_bytes())
    shapes = []

    def look(image):
        shapes.append(image.shape)
        return image[:2, :2]

    video = sampled(path, num_frames=20, transform=look)
    assert shapes == [(64, 96, 3)] * 10 + [(96, 160, 3)] * 10
    assert (np.diff(video.pts_seconds) > 0).all()


# ---- sampling -----------------------------------------------------------------------------------


def test_candidates_go_by_time(make):
    video = sampled(make("h264-2997"), candidate_fps=1, num_frames=99)
    assert [number_of(image) for image in video.crops] == [0, 30, 60, 90]
    assert video.num_candidates == 4
    np.testing.assert_allclose(video.pts_seconds, np.arange(4) * 1.001)


def test_window(make):
    for name in ("h264", "vp9"):
        video = sampled(make(name), start_seconds=0.4, end_seconds=0.8, num_frames=99)
        assert [number_of(image) for image in video.crops] == list(range(10, 20))
        assert video.duration_seconds == pytest.approx(2.4, abs=0.01)
        assert video.start_seconds == 0


def test_window_outside_the_video(make):
    with pytest.raises(DecodeError, match=r"window 30 s to 40 s holds no frame.*lasts 2.40 s") as e:
        sampled(make("h264"), start_seconds=30, end_seconds=40)
    assert e.value.kind == "no-frames"
    with pytest.raises(DecodeError, match=r"window from 30 s holds no frame.*lasts 2.40 s"):
        sampled(make("h264"), start_seconds=30)


@pytest.mark.parametrize("name", ["h264", "vp9", "h264-avi"])
def test_one_pass_for_all_samplers(make, name):
    calls = []

    def count(image):
        calls.append(number_of(image))
        return np.full((2, 2), number_of(image))

    video = sampled(make(name), "uniform,head,tail", num_frames=5, transform=count)
    union = sorted({*range(5), *range(55, 60), 15, 30, 44} | {0, 59})
    told = {label: video.crops[rows, 0, 0].tolist() for label, rows in video.selections.items()}
    assert told["head"] == [0, 1, 2, 3, 4]
    assert told["tail"] == [55, 56, 57, 58, 59]
    assert told["uniform"][0] == 0
    assert told["uniform"][-1] == 59
    assert calls == video.crops[:, 0, 0].tolist() == sorted(set(calls))
    assert set(calls) == set().union(*map(set, told.values()))
    assert len(union) - 3 <= len(calls) <= len(union)
    np.testing.assert_allclose(video.pts_seconds, np.array(calls) / 25, atol=0.041)


class Brightest(SamplerChoice):
    """Chooses the candidates whose thumbnails are brightest."""

    @property
    def needs(self):
        return frozenset({"luma"})

    def select(self, signals, num_frames, *, seed, video_id):
        assert signals.luma.shape == (len(signals), 32, 32)
        assert signals.luma.dtype == np.uint8
        brightness = signals.luma[:, :16].mean((1, 2))
        return np.sort(np.argsort(-brightness, kind="stable")[:num_frames])


@pytest.mark.parametrize("frame_bytes", [1 << 30, 40_000, 0], ids=["kept", "some kept", "none"])
@pytest.mark.parametrize("name", ["h264", "vp9", "h264-avi", "hevc-open"])
def test_samplers_that_look(make, name, frame_bytes):
    if CLIPS[name].codec not in av.codecs_available:
        pytest.skip("this PyAV has no x265")
    choices = (Brightest("brightest"), SamplerChoice("uniform"))
    video = sampled(make(name), choices, 4, limits=Limits(max_frame_bytes=frame_bytes))
    # Below 60 the most bits are set in 31 and 47, 55, 59.
    rows = video.selections["brightest"]
    assert [number_of(image) for image in video.crops[rows]] == [31, 47, 55, 59]
    expected = every(make(name))
    for image in video.crops:
        np.testing.assert_array_equal(image, expected[number_of(image)])


@pytest.mark.parametrize("name", ["h264", "vp9", "mpeg4-mp4", "mpeg2-ps", "gif"])
def test_kept_frames_are_not_overwritten_by_the_decoder(make, name):
    kept = []

    def digest(frame):
        return hashlib.sha256(to_rgb(frame, Upright())).hexdigest()

    with open_video(make(name)) as source:
        reader = FullReader(PacketTable(source))
        reader.read(
            np.arange(CLIPS[name].num_frames),
            lambda key, frame: kept.append((frame, digest(frame))),
        )
    assert len(kept) == CLIPS[name].num_frames
    assert [digest(frame) for frame, _ in kept] == [before for _, before in kept]


@pytest.mark.parametrize("name", ["tiny", "dot", "two-frames", "one-frame"])
def test_smallest_videos(make, name):
    clip = CLIPS[name]
    video = sampled(make(name))
    assert video.crops.shape == (clip.num_frames, *clip.size[::-1], 3)
    assert video.status == "ok"
    assert len(sampled(make(name), [Brightest("brightest")]).crops) == clip.num_frames


def test_request_is_checked():
    for wrong, message in (
        ({"candidate_fps": 0}, "candidate rate is 0"),
        ({"start_seconds": 5, "end_seconds": 3}, "window 5 s to 3 s is empty"),
        ({"num_frames": 0}, "--frames is 0"),
        ({"samplers": []}, "no sampler"),
    ):
        with pytest.raises(ConfigError, match=message):
            sampled("x", **wrong)


def test_candidates_of_a_request_are_those_of_the_timeline(make):
    pts = probe(make("vfr")).pts_seconds
    video = sampled(make("vfr"), "dense", candidate_fps=2)
    np.testing.assert_array_equal(video.pts_seconds, pts[candidate_indices(pts, fps=2)])


# ---- bit streams --------------------------------------------------------------------------------


class Writer:
    """Writes bits and Exp-Golomb numbers: the opposite of what is tested."""

    def __init__(self):
        self.bits = ""

    def u(self, count, value):
        self.bits += format(value, f"0{count}b")
        return self

    def ue(self, *values):
        for value in values:
            word = format(value + 1, "b")
            self.bits += "0" * (len(word) - 1) + word
        return self

    def se(self, *values):
        return self.ue(*(2 * v - 1 if v > 0 else -2 * v for v in values))

    def unit(self):
        bits = self.bits + "1"
        bits += "0" * (-len(bits) % 8)
        data = int(bits, 2).to_bytes(len(bits) // 8, "big")
        # Emulation prevention as the standard has it, byte by byte.
        out, zeros = bytearray(b"\x67"), 0
        for byte in data:
            if zeros >= 2 and byte <= 3:
                out.append(3)
                zeros = 0
            out.append(byte)
            zeros = zeros + 1 if byte == 0 else 0
        return bytes(out)


@pytest.mark.parametrize("frames_only", [0, 1])
@pytest.mark.parametrize("order_type", [0, 1, 2])
@pytest.mark.parametrize("profile", [66, 77, 100, 244])
@pytest.mark.parametrize("scaling", [0, 1])
def test_frame_coding_is_read_from_any_sequence_set(profile, order_type, frames_only, scaling):
    w = Writer().u(8, profile).u(8, 0).u(8, 40).ue(0)
    if profile in (100, 244):
        w.ue(3 if profile == 244 else 1)
        if profile == 244:
            w.u(1, 0)
        w.ue(0, 0).u(1, 0).u(1, scaling)
        for index in range((12 if profile == 244 else 8) if scaling else 0):
            w.u(1, index % 2)
            if index % 2:
                # A list that stops early for 16 values, or runs to its end for 64.
                w.se(*([-8] if index < 6 else [1, *[0] * 63]))
    w.ue(4, order_type)
    if order_type == 0:
        w.ue(2)
    elif order_type == 1:
        w.u(1, 0).se(-3, 5).ue(3).se(1, -1, 700)
    w.ue(4).u(1, 0).ue(19, 14).u(1, frames_only)
    assert bitstream._frame_mbs_only(w.unit()) is bool(frames_only)


@pytest.mark.parametrize(
    ("codec", "record", "why"),
    [
        ("vp9", b"", "codec vp9"),
        ("h264", None, "codec record that cannot be read"),
        ("h264", b"\0\0\0\1\x67abc", "without a codec record"),
        ("h264", b"\1\x64\0\x28\xff\xe1\0\x40\x67", "codec record that cannot be read"),
        ("h264", b"\1\x64\0\x28\xff\xe0\0", "field coding"),
        ("hevc", b"\0\0\0\1", "without a codec record"),
        ("hevc", b"\1" + b"\0" * 22, "parameter sets in the packets only"),
        ("hevc", b"\1" + b"\0" * 5, "codec record that cannot be read"),
    ],
)
def test_records_that_prove_nothing(codec, record, why):
    with pytest.raises(UnprovenError, match=why):
        read_header(codec, record)


def one(data):
    return len(data).to_bytes(4, "big") + data


@pytest.mark.parametrize(
    ("packet", "why"),
    [
        (one(b"\x65\x80")[:-1], "do not add up"),
        (b"\0\0\0\0", "do not add up"),
        (one(b"\x06\x05"), "packets without a picture"),
        (one(b"\x65\x80") + one(b"\x65\x80"), "one picture each"),
        (one(b"\x65\x40"), "one picture each"),
        (one(b"\x67new set"), "units of type 7"),
        (one(b"\x62\x80"), "units of type 2"),
        (one(b"\x6e\x80"), "units of type 14"),
    ],
)
def test_packets_that_prove_nothing(make, packet, why):
    with open_video(make("h264")) as source:
        header = read_header("h264", source.stream.codec_context.extradata)
    with pytest.raises(UnprovenError, match=why):
        header.is_entry(memoryview(packet))


def test_known_parameter_sets_in_packets_are_fine(make):
    with open_video(make("h264")) as source:
        header = read_header("h264", source.stream.codec_context.extradata)
    known = b"".join(map(one, header.parameter_sets))
    assert len(header.parameter_sets) == 2
    assert header.is_entry(memoryview(known + one(b"\x65\x80") + one(b"\x65\x40")))
    assert not header.is_entry(memoryview(one(b"\x09\x10") + one(b"\x41\x80")))


@pytest.mark.parametrize(
    ("unit", "why"),
    [
        (b"\x27\x01\x80", "HEVC layers"),
        (b"\x26\x02\x80", "HEVC layers"),
        (b"\x26", "without a header"),
        (b"\x20\x01\x80", "units of type 16"),
        (b"\x48\x01\x00", "units of type 36"),
        (b"\x42\x01new", "units of type 33"),
    ],
)
def test_hevc_packets_that_prove_nothing(unit, why):
    header = bitstream.StreamHeader("hevc", 4, frozenset())
    with pytest.raises(UnprovenError, match=why):
        header.is_entry(memoryview(one(unit)))


def test_hevc_entries():
    header = bitstream.StreamHeader("hevc", 4, frozenset())
    kinds = {19: True, 20: True, 21: True, 0: False, 1: False, 9: False}
    for kind, is_entry in kinds.items():
        assert header.is_entry(memoryview(one(bytes([kind << 1, 1, 0x80])))) is is_entry
        # no_output_of_prior_pics_flag
        assert not header.is_entry(memoryview(one(bytes([kind << 1, 1, 0xC0]))))


# ---- what stays behind --------------------------------------------------------------------------


def test_logging_is_left_as_it_was(make):
    before = av.logging.get_level(), av.logging.get_skip_repeated()
    with open_video(make("h264")), open_video(make("vp9")):
        assert av.logging.get_level() == av.logging.ERROR
    assert (av.logging.get_level(), av.logging.get_skip_repeated()) == before


def test_files_are_closed(make):
    def open_files():
        return {p.resolve() for p in Path("/proc/self/fd").iterdir()} & {make("h264")}

    with open_video(make("h264")):
        assert open_files()
    sampled(make("h264"))
    assert not open_files()


@pytest.mark.parametrize(
    ("suffix", "clip"),
    [
        (".y4m", Clip("wrapped_avframe", num_frames=4)),
        (".dv", Clip("dvvideo", num_frames=4, size=(720, 576))),
        (".ivf", Clip("libvpx", num_frames=4)),
        (".nut", Clip("ffv1", num_frames=4)),
        (".apng", Clip("apng", num_frames=4, pix_fmt="rgb24")),
    ],
    ids=lambda value: value if isinstance(value, str) else value.codec,
)
def test_what_is_listed_is_opened_with_its_extension_or_without(tmp_path, suffix, clip):
    named = write_numbered(tmp_path / f"clip{suffix}", clip)
    (tmp_path / "clip").write_bytes(named.read_bytes())
    assert find_videos(tmp_path).names == ("clip", named.name)
    for path in (named, tmp_path / "clip"):
        video = sampled(path, "dense")
        assert [number_of(image) for image in video.crops] == [0, 1, 2, 3]
        assert video.status == "ok"
