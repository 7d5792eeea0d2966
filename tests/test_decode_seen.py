"""Frames as a viewer sees them: pixels that are not square, transparency, interlaced pictures."""

from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
from builders import sampled, write_clip

from vtr.extract.compress import CompressSettings, compress_video
from vtr.extract.container import open_video
from vtr.extract.frames import as_seen
from vtr.extract.limits import DECODING, Limits
from vtr.extract.probe import probe
from vtr.extract.settings import ExtractSettings, chosen_fields
from vtr.features.spec import FeatureSpec

WIDTH, HEIGHT = 96, 64


def bars(width=WIDTH, height=HEIGHT):
    """Four upright bars of grey with smooth edges."""
    across = 110 + 90 * np.sin((np.arange(width) + 0.5) / width * 8 * np.pi)
    return np.repeat(np.repeat(across[None, :, None], height, 0), 3, 2).astype(np.uint8)


def write(path, pictures, *, codec="ffv1", pix_fmt="yuv444p", shape=None, turn=0, **options):
    def prepare(stream):
        if shape:
            stream.codec_context.sample_aspect_ratio = shape
        if turn:
            stream.set_display_rotation(turn, False, False)

    coding = {"codec": codec, "pix_fmt": pix_fmt, "options": options}
    return write_clip(path, pictures, fps=10, **coding, prepare=prepare)


def look(path, samplers="dense", **settings):
    return sampled(path, samplers, 4, **settings)


X264 = {"codec": "libx264", "crf": "1", "preset": "ultrafast"}


# ---- pixels that are not square -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "width"), [(Fraction(2), 192), (Fraction(8, 9), 85), (Fraction(64, 45), 137)]
)
def test_the_shape_on_screen_counts(tmp_path, shape, width):
    path = write(tmp_path / "x.mp4", [bars()] * 3, shape=shape, **X264)
    video = look(path)
    assert (video.width, video.height) == (width, HEIGHT)
    assert video.crops.shape[1:3] == (HEIGHT, width)
    assert (probe(path).width, probe(path).height) == (width, HEIGHT)
    off = np.abs(video.crops[0].astype(int) - bars(width))
    assert off.max() <= 12
    assert off.mean() < 3


def test_a_turned_picture_is_stretched_before_the_turn(tmp_path):
    path = write(tmp_path / "x.mp4", [bars()] * 2, shape=Fraction(2), turn=90, **X264)
    video = look(path)
    assert (video.width, video.height) == (HEIGHT, 2 * WIDTH)
    expected = np.rot90(bars(2 * WIDTH))
    assert np.abs(video.crops[0].astype(int) - expected).mean() < 3


@pytest.mark.parametrize("shape", [None, Fraction(1), Fraction(160, 159), Fraction(1, 100)])
def test_square_pixels_are_left_alone(tmp_path, shape):
    plain = look(write(tmp_path / "plain.mp4", [bars()], **X264))
    video = look(write(tmp_path / "x.mp4", [bars()], shape=shape, **X264))
    np.testing.assert_array_equal(video.crops, plain.crops)


def test_stretched_pictures_heed_the_cap(tmp_path):
    path = write(tmp_path / "x.mp4", [bars()], shape=Fraction(2), **X264)
    with pytest.raises(Exception, match="192x64 is 12,288 pixels, the cap is 6,144"):
        look(path, limits=Limits(max_pixels=WIDTH * HEIGHT))


def test_a_copy_has_the_same_shape_on_screen(tmp_path):
    path = write(tmp_path / "x.mp4", [bars()] * 3, shape=Fraction(3, 2), **X264)
    compress_video(path, tmp_path / "copy.mp4", CompressSettings(fps=10))
    with open_video(tmp_path / "copy.mp4") as source:
        assert source.pixel_shape == Fraction(3, 2)
    assert look(tmp_path / "copy.mp4").width == 144


# ---- transparency -------------------------------------------------------------------------------


def hidden(side=32):
    """Red behind transparency on the left, red at half strength, red on the right."""
    picture = np.zeros((side, 3 * side, 4), np.uint8)
    picture[..., 0] = 200
    for part, alpha in enumerate((0, 128, 255)):
        picture[:, part * side : (part + 1) * side, 3] = alpha
    return picture


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("x.mov", "qtrle", "argb"),
        ("x.mov", "png", "rgba"),
        ("x.mkv", "ffv1", "yuva420p"),
        ("x.mov", "prores_ks", "yuva444p10le"),
    ],
)
def test_transparency_lies_over_black(tmp_path, name, codec, pix_fmt):
    path = write(tmp_path / name, [hidden()] * 3, codec=codec, pix_fmt=pix_fmt)
    shown = look(path).crops[0][16, [16, 48, 80], 0]
    assert np.abs(shown.astype(int) - [0, 100, 200]).max() <= 12
    thumbnail = look(path, "motion").signals.luma[0].astype(int)
    assert thumbnail[16, 4] < 25  # grey of red at 200 is 60
    assert thumbnail[16, 27] > thumbnail[16, 15] > thumbnail[16, 4]


def test_a_copy_shows_no_hidden_colours(tmp_path):
    path = write(tmp_path / "x.mov", [hidden()] * 3, codec="qtrle", pix_fmt="argb")
    compress_video(path, tmp_path / "copy.mp4", CompressSettings(fps=10, crf=1))
    shown = look(tmp_path / "copy.mp4").crops[0][16, [16, 48, 80], 0]
    assert np.abs(shown.astype(int) - [0, 100, 200]).max() <= 12


def test_opaque_pictures_are_as_they_were(tmp_path):
    picture = np.dstack([bars(), np.full((HEIGHT, WIDTH), 255, np.uint8)])
    path = write(tmp_path / "x.mov", [picture], codec="qtrle", pix_fmt="argb")
    np.testing.assert_array_equal(look(path).crops[0], bars())


# ---- interlaced pictures ------------------------------------------------------------------------


def moving(at, side=16):
    """A white square on black, `at` pixels from the left."""
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[16:48, at : at + side] = 255
    return picture


def woven(index):
    """Two fields: the square moves on between them, as a camera of fields sees it."""
    picture = moving(8 + 8 * index)
    picture[1::2] = moving(16 + 8 * index)[1::2]
    return picture


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_fields_are_not_shown_as_a_comb(tmp_path, codec):
    options = {
        "libx264": {"crf": "1", "x264-params": "interlaced=1:bframes=0"},
        "mpeg2video": {"flags": "+ildct+ilme", "qmin": "1", "qmax": "1"},
    }[codec]
    pictures = [woven(index) for index in range(5)]
    path = write(tmp_path / "x.mkv", pictures, codec=codec, pix_fmt="yuv420p", **options)
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).interlaced_frame
    video = look(path)
    for index, image in enumerate(video.crops):
        combed = np.abs(woven(index).astype(int) - moving(8 + 8 * index)).mean()
        off = np.abs(image.astype(int) - moving(8 + 8 * index)).mean()
        assert off < combed / 4
    compress_video(path, tmp_path / "copy.mp4", CompressSettings(fps=10, crf=1))
    copy = look(tmp_path / "copy.mp4").crops[0].astype(int)
    assert np.abs(np.diff(copy[20:44, 60:], axis=0)).max() < 60


def test_ten_bits_and_odd_heights_are_deinterlaced_too(tmp_path):
    for pix_fmt, height in (("yuv420p10le", 63), ("yuv422p", 1), ("uyvy422", 5)):
        # Wide: into rows of 16 bytes swscale writes beyond their ends, and the frame is not black.
        frame = av.VideoFrame.from_ndarray(np.zeros((height, 64, 3), np.uint8), "rgb24")
        frame = frame.reformat(format=pix_fmt)

        class Interlaced:
            interlaced_frame = True

            def __getattr__(self, name, frame=frame):
                return getattr(frame, name)

        np.testing.assert_array_equal(
            as_seen(Interlaced()).to_ndarray(format="rgb24"), frame.to_ndarray(format="rgb24")
        )


# ---- the fingerprint ----------------------------------------------------------------------------


def test_the_rules_are_part_of_the_fingerprint(spec):
    assert chosen_fields(ExtractSettings())["decoding"] == DECODING > 1
    newer = replace(spec, decoding=DECODING)
    assert newer.fingerprint != spec.fingerprint
    assert spec.differences(newer) == [("decoding", 1, DECODING)]
    assert FeatureSpec.from_json(newer.to_json()) == newer


def test_older_stores_keep_their_fingerprints_and_are_read(spec):
    assert "decoding" not in spec.to_json()
    assert FeatureSpec.from_json(spec.to_json()).decoding == 1
