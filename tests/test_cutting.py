"""Clips cut out of videos, and lists of them for editing programs."""

import csv
import io
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import av
import numpy as np
import pytest
from builders import ramp, write_clip

from vtr.errors import ConfigError, DecodeError
from vtr.extract.cutting import Clip, Cut, cut
from vtr.searching.cut_list import Moment, check_suffix, cut_list, timecode
from vtr.searching.library import Hit

FPS = 10


def level(picture: np.ndarray) -> float:
    return float(picture.mean())


def write(path: Path, num_frames: int = 40, *, gop: int = 10, **more: Any) -> Path:
    options = {"crf": "4", "g": str(gop), "sc_threshold": "0", "bf": "2"}
    return write_clip(path, ramp(num_frames, step=4), fps=FPS, options=options, **more)


def shown(clip: Clip) -> list[tuple[float, float]]:
    """(seconds, brightness) of every frame."""
    with av.open(clip.path) as container:
        frames = list(container.decode(video=0))
        return [(float(f.time), level(f.to_ndarray(format="gray"))) for f in frames]


@pytest.mark.parametrize(("start", "copied"), [(1.0, True), (1.3, False), (0.0, True)])
def test_the_part_begins_with_its_frame(tmp_path: Path, start: float, copied: bool) -> None:
    source = write(tmp_path / "v.mp4")
    clip = cut(Cut(source, tmp_path, "clip", start, start + 0.8))
    frames = shown(clip)
    assert clip.copied is copied
    assert clip.start_seconds == pytest.approx(start, abs=1e-6)
    assert frames[0][0] == pytest.approx(0, abs=0.051)
    grey = write_clip(tmp_path / "g.mp4", [ramp(40, step=4)[round(start * FPS)]], fps=FPS)
    with av.open(str(grey)) as container:
        first = level(next(container.decode(video=0)).to_ndarray(format="gray"))
    assert frames[0][1] == pytest.approx(first, abs=4)
    assert 8 <= len(frames) <= (11 if copied else 8)
    assert np.all(np.diff([seconds for seconds, _ in frames]) > 0)


@pytest.mark.parametrize(("gop", "suffix"), [("1", ".mkv"), ("20", ".mp4")])
def test_codecs_that_mp4_refuses_go_into_matroska_or_are_encoded(
    tmp_path: Path, gop: str, suffix: str
) -> None:
    coding: dict[str, Any] = {"codec": "libvpx", "options": {"g": gop, "auto-alt-ref": "0"}}
    source = write_clip(tmp_path / "v.webm", ramp(20, step=4), fps=FPS, **coding)
    clip = cut(Cut(source, tmp_path, "clip", 0.5, 1.0))
    assert (Path(clip.path).suffix, clip.copied) == (suffix, gop == "1")
    assert len(shown(clip)) >= 5


@pytest.mark.parametrize("start", [0.0, 1.3, 2.5])
def test_where_a_seek_lands_behind_the_key_frame_all_is_there(tmp_path: Path, start: float) -> None:
    source = write(tmp_path / "v.ts", 40, gop=40)  # a transport stream is sought by its packets
    clip = cut(Cut(source, tmp_path, "clip", start, start + 0.8))
    frames = shown(clip)
    assert 8 <= len(frames) <= 11
    assert frames[0][1] == pytest.approx(shown_at(source, start), abs=4)


def shown_at(source: Path, seconds: float) -> float:
    with av.open(str(source)) as container:
        frames = list(container.decode(video=0))
    return level(frames[round(seconds * FPS)].to_ndarray(format="gray"))


def test_a_still_is_shown_until_the_end_and_from_the_start_though_it_began_before(
    tmp_path: Path,
) -> None:
    source = write(tmp_path / "v.mp4", 4, pts=[0, 30, 70, 100], time_base=Fraction(1, 10), gop=9)
    clip = cut(Cut(source, tmp_path, "clip", 5.0, 9.0))
    with av.open(clip.path) as container:
        assert container.duration == pytest.approx(4e6, abs=1e5)
    (first, dark), (second, light) = shown(clip)
    assert (first, second) == pytest.approx((0.0, 2.0), abs=0.01)
    assert light > dark + 2


def test_sound_comes_along(tmp_path: Path) -> None:
    path = tmp_path / "s.mp4"
    with av.open(str(path), "w") as out:
        video: Any = out.add_stream("libx264", rate=FPS, options={"g": "10"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound: Any = out.add_stream("aac", rate=16_000, layout="mono")
        for picture in ramp(30, step=4):
            out.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(video.encode(None))
        for n in range(47):
            wave = np.sin(np.arange(1024) / 10 + n).astype(np.float32)[None]
            frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16_000, n * 1024
            out.mux(sound.encode(frame))
        out.mux(sound.encode(None))
    for start in (1.0, 1.25):
        clip = cut(Cut(path, tmp_path, f"c{start}", start, start + 1))
        assert clip.sound
        with av.open(clip.path) as container:
            assert container.streams.audio[0].duration
            length = sum(f.samples for f in container.decode(audio=0)) / 16_000
        assert length == pytest.approx(1, abs=0.15)


def test_a_turned_video_is_upright_where_it_is_encoded(tmp_path: Path) -> None:
    source = write_clip(
        tmp_path / "wide.mp4", ramp(20, (96, 48), step=4), fps=FPS, options={"g": "20", "crf": "8"},
        prepare=lambda stream: stream.set_display_rotation(90, False, False),
    )  # fmt: skip
    clip = cut(Cut(source, tmp_path, "clip", 0.5, 1.0))
    assert not clip.copied
    with av.open(clip.path) as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == (48, 96)
        assert next(container.decode(video=0)).rotation == 0


def test_what_cannot_be_cut_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(DecodeError):
        cut(Cut(tmp_path / "bad.mp4", out, "clip", 0, 1))
    source = write(tmp_path / "v.mp4")
    with pytest.raises(DecodeError, match=r"no frame from 90\.3 s on"):
        cut(Cut(source, out, "clip", 90.3, 91))
    assert list(out.iterdir()) == []
    with pytest.raises(OSError, match="No such file"):
        cut(Cut(source, tmp_path / "nowhere", "clip", 0, 1))


# ---- lists

MOMENTS = [
    Moment(
        Hit("a & <b>.mp4", Path("/v/a & <b>.mp4"), 1.0, 3.5, 2.0, 0.31, 0.99),
        Fraction(30000, 1001),
    ),
    Moment(Hit("gone", None, 0.0, 0.01, 0.0, 0.2, 0.5)),
    Moment(
        Hit("a & <b>.mp4", Path("/v/a & <b>.mp4"), 5.0, 6.0, 5.5, 0.3, 0.9),
        Fraction(30000, 1001), 24.02,
    ),
]  # fmt: skip


def test_a_table_has_the_seconds() -> None:
    rows = list(csv.DictReader(io.StringIO(cut_list(MOMENTS, ".CSV", title="t").decode())))
    assert [row["start_seconds"] for row in rows] == ["1.0", "0.0", "5.0"]
    assert rows[0]["path"] == "/v/a & <b>.mp4"


def test_an_edl_has_source_and_record_times() -> None:
    lines = cut_list(MOMENTS, ".edl", title="my\nclips").decode().splitlines()
    assert lines[0] == r"TITLE: my\nclips"
    assert "00:00:01:00 00:00:03:15 00:00:00:00 00:00:02:15" in lines[3]
    assert "* FROM CLIP NAME: a & <b>.mp4" in lines
    assert any(line.startswith("002  AX") for line in lines)
    assert timecode(30 * 60 * 60, Fraction(30000, 1001)) == "01:00:00:00"


def test_an_fcpxml_is_whole_and_its_times_are_whole_frames() -> None:
    root = ElementTree.fromstring(cut_list(MOMENTS, ".fcpxml", title="t").split(b"\n", 2)[2])
    first, second, third = root.iter("asset-clip")
    assert (first.get("start"), first.get("duration")) == ("30030/30000s", "75075/30000s")
    assert second.get("duration") == "1/25s"
    assets = {asset.get("id"): asset for asset in root.iter("asset")}
    assert first.get("ref") == third.get("ref")
    assert len(assets) == 2
    assert assets[first.get("ref")].get("duration") == f"{720 * 1001}/30000s"
    assert assets[second.get("ref")].get("duration") == "1/25s"
    media = assets[first.get("ref")].find("media-rep")
    assert media.get("src") == "file:///v/a%20%26%20%3Cb%3E.mp4"


def test_an_otio_is_read_by_its_library() -> None:
    otio = pytest.importorskip("opentimelineio")
    timeline = otio.adapters.read_from_string(
        cut_list(MOMENTS, ".otio", title="t").decode(), "otio_json"
    )
    first, second, _ = timeline.find_clips()
    assert first.source_range.start_time.to_seconds() == pytest.approx(1.0, abs=0.02)
    assert first.media_reference.target_url.startswith("file:///v/")
    assert second.media_reference.is_missing_reference


def test_other_endings_and_a_missing_library_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"must end in \.csv, \.edl, \.fcpxml or \.otio"):
        check_suffix(Path("cuts.txt"))
    monkeypatch.setitem(sys.modules, "opentimelineio", None)
    with pytest.raises(ConfigError, match=r"pip install 'vtr\[otio\]'"):
        cut_list(MOMENTS, ".otio", title="t")
    with pytest.raises(ConfigError, match=r"pip install 'vtr\[otio\]'"):
        check_suffix(Path("cuts.otio"))
