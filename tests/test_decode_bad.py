"""Bad input to the decoder: every file ends in a class and one line, or in the frames it has."""

import ctypes
import gc
import io
import os
import pickle
import re
import signal
import struct
import sys
import threading
import uuid
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from builders import sampled, write_clip, write_silence

from vtr.errors import DecodeError
from vtr.extract.container import FFMPEG_ERRORS, DecoderLog, failure, open_video
from vtr.extract.limits import FAILURES, Limits
from vtr.extract.probe import probe
from vtr.extract.samplers.base import SamplerChoice

NUM_FRAMES = 60


def encode(path, *, codec="libx264", size=(96, 64), num_frames=NUM_FRAMES, **more):
    noise = (np.random.default_rng(index).integers(0, 99, (*size[::-1], 3), np.uint8)
             for index in range(num_frames))  # fmt: skip
    h264 = {"preset": "ultrafast", "crf": "20", "g": "12"}
    coding = {"codec": codec, "options": h264 if codec == "libx264" else {}}
    return write_clip(path, noise, **{"fps": 25, **coding, **more})


@pytest.fixture(scope="module")
def mp4(tmp_path_factory):
    """The bytes of a sound clip whose index comes first."""
    path = tmp_path_factory.mktemp("sound") / "clip.mp4"
    return encode(path, container_options={"movflags": "faststart"}).read_bytes()


@pytest.fixture(scope="module")
def mkv(tmp_path_factory):
    return encode(tmp_path_factory.mktemp("sound") / "clip.mkv").read_bytes()


def run(path, **settings):
    return sampled(path, "dense", transform=lambda image: image[:1, :1], **settings)


def refusal(path, **settings):
    """Runs and returns the error that must come, after checking its form."""
    with pytest.raises(DecodeError) as caught:
        run(path, **settings)
    error = caught.value
    assert error.kind in FAILURES
    assert error.detail
    assert error.detail.isprintable()
    assert len(error.detail) <= 400
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    return error


@contextmanager
def at_most(seconds):
    """Fails instead of hanging."""

    def give_up(*_):
        raise KeyboardInterrupt(f"still running after {seconds} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# ---- no file ------------------------------------------------------------------------------------


def test_missing_file(tmp_path):
    error = refusal(tmp_path / "nothing.mp4")
    assert (error.kind, error.detail) == ("not-found", "No such file or directory")


def test_dangling_link_and_loop(tmp_path):
    (tmp_path / "dangling.mp4").symlink_to(tmp_path / "nothing.mp4")
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    assert refusal(tmp_path / "dangling.mp4").kind == "not-found"
    assert "symbolic links" in refusal(tmp_path / "loop.mp4").detail


def test_directory_pipe_device(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    with at_most(5):
        for path, what in [
            (tmp_path, "a directory"),
            (tmp_path / "pipe.mp4", "a named pipe"),
            ("/dev/zero", "a character device"),
        ]:
            error = refusal(path)
            assert error.kind == "not-a-file"
            assert what in error.detail


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_permission(tmp_path, mp4):
    path = tmp_path / "clip.mp4"
    path.write_bytes(mp4)
    path.chmod(0)
    assert refusal(path).kind == "permission"


@pytest.mark.parametrize("opening", [True, False])
def test_what_ffmpeg_may_not_read_is_no_matter_of_the_files_permission(opening):
    """The file itself was opened before: a ledger row must not send anyone to chmod."""
    error = av.error.PermissionError(1, "Operation not permitted")
    assert failure(error, DecoderLog([]), opening=opening).kind == "encrypted"


@pytest.mark.parametrize("name", ["a\0b.mp4", "x" * 300 + ".mp4", "\ud800.mp4"])
def test_names_that_no_file_can_have(tmp_path, name):
    assert refusal(f"{tmp_path}/{name}").kind == "bad-name"


@pytest.mark.parametrize(
    "name",
    [
        "http://example.org/a.mp4",
        "rtsp://example.org/a",
        "concat:a.mp4|b.mp4",
        "subfile,,start,0,end,9,,:a.mp4",
        "pipe:0",
        "data:video/mp4;base64,AAAA",
    ],
)
def test_urls_are_never_opened(name):
    with at_most(5):
        assert refusal(name).kind == "refused"


@pytest.mark.parametrize(
    "name",
    [
        "-i.mp4",
        "concat:a|b.mp4",
        "http:",
        "a\nb.mp4",
        "'\"$(x)`.mp4",
        "ünï-😀.mp4",
        " .mp4",
        "%d.mp4",
    ],
)
def test_any_name_of_a_real_file_works(tmp_path, monkeypatch, mp4, name):
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(mp4)
    assert run(name).num_candidates == NUM_FRAMES
    assert run(tmp_path / name).num_candidates == NUM_FRAMES


def test_bytes_that_are_no_text_in_a_name(tmp_path, mp4):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.mp4")
    Path(path).write_bytes(mp4)
    assert run(path).num_candidates == NUM_FRAMES


# ---- no video -----------------------------------------------------------------------------------


def test_empty_file(tmp_path):
    (tmp_path / "x.mp4").touch()
    error = refusal(tmp_path / "x.mp4")
    assert (error.kind, error.detail) == ("empty-file", "the file has 0 bytes")


@pytest.mark.parametrize(
    "content",
    [
        b"x",
        b"These are only words.\n" * 99,
        b"<!DOCTYPE html><html><body><h1>404</h1></body></html>",
        np.random.default_rng(0).bytes(5000),
    ],
    ids=["one byte", "text", "html", "noise"],
)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".txt"])
def test_other_content(tmp_path, content, suffix):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    assert refusal(path).kind == "not-a-video"


def test_the_reason_is_the_decoders_last_line_each_time(tmp_path):
    """FFmpeg's log drops repeated lines unless told not to."""
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(b"x" * 99)
        assert refusal(tmp_path / name).detail.endswith("moov atom not found")


@pytest.mark.parametrize(("codec", "name"), [("png", "x.png"), ("mjpeg", "x.jpg")])
@pytest.mark.parametrize("suffix", ["", ".mp4"])
def test_pictures(tmp_path, codec, name, suffix):
    context = av.CodecContext.create(codec, "w")
    context.width, context.height, context.time_base = 32, 32, Fraction(1, 25)
    context.pix_fmt = "rgb24" if codec == "png" else "yuvj420p"
    frame = av.VideoFrame(32, 32, context.pix_fmt)
    path = tmp_path / f"{name}{suffix}"
    path.write_bytes(b"".join(bytes(p) for p in [*context.encode(frame), *context.encode(None)]))
    assert refusal(path).kind == "not-a-video"


def test_sound_only(tmp_path):
    with av.open(str(tmp_path / "x.mp4"), "w") as out:
        write_silence(out, out.add_stream("aac", rate=8000))
    error = refusal(tmp_path / "x.mp4")
    assert (error.kind, error.detail) == ("no-video-stream", "the file holds only: audio")


def test_cover_art_is_no_video(tmp_path):
    path = tmp_path / "x.mp4"
    with av.open(str(path), "w") as out:
        track = out.add_stream("aac", rate=8000)
        art = out.add_stream("mjpeg", rate=25)
        art.width = art.height = 32
        art.pix_fmt = "yuvj420p"
        art.disposition = av.stream.Disposition.attached_pic
        out.mux(art.encode(av.VideoFrame(32, 32, "yuvj420p")))
        out.mux(art.encode(None))
        write_silence(out, track)
    with av.open(str(path)) as container:
        assert container.streams.video[0].disposition & av.stream.Disposition.attached_pic
    assert refusal(path).kind == "no-video-stream"


def test_unknown_codec(tmp_path, mp4):
    assert mp4.count(b"avc1") >= 1
    (tmp_path / "x.mp4").write_bytes(mp4.replace(b"avc1", b"q7z9").replace(b"avcC", b"q7zC"))
    error = refusal(tmp_path / "x.mp4")
    assert (error.kind, "no decoder" in error.detail) == ("decode-error", True)


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile '{}'\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns={}\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n",
}


@pytest.mark.parametrize("target", ["clip.mp4", "/etc/passwd", "http://127.0.0.1:9/a.mp4"])
@pytest.mark.parametrize("suffix", [".m3u8", ".mp4", ".txt"])
@pytest.mark.parametrize("kind", PLAYLISTS)
def test_playlists_are_refused_under_any_name(tmp_path, mp4, kind, suffix, target):
    (tmp_path / "clip.mp4").write_bytes(mp4)
    path = tmp_path / f"list{suffix}"
    path.write_text(PLAYLISTS[kind].format(target))
    with at_most(5):
        error = refusal(path)
    assert error.kind == "refused"
    assert repr(kind) in error.detail
    assert "root:" not in error.detail


# ---- encrypted ----------------------------------------------------------------------------------


def asf_object(guid, body):
    return uuid.UUID(guid).bytes_le + struct.pack("<Q", 24 + len(body)) + body


def sized(*texts):
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


PROTECTION = {
    "content": asf_object(
        "2211B3FB-BD23-11D2-B4B7-00A0C955FC6E", sized(b"secret", b"DRM\0", b"key\0", b"url\0")
    ),
    "extended": asf_object(
        "298AE614-2622-4C17-B935-DAE07EE9289C", sized("<WRMHEADER/>".encode("utf-16-le"))
    ),
}


@pytest.mark.parametrize("kind", PROTECTION)
def test_windows_media_drm(tmp_path, kind):
    path = encode(tmp_path / "x.wmv", codec="wmv2", num_frames=5)
    content = path.read_bytes()
    assert run(path).status == "ok"
    size, count = struct.unpack_from("<QI", content, 16)
    grown = struct.pack("<QI", size + len(PROTECTION[kind]), count + 1)
    path.write_bytes(content[:16] + grown + content[28:30] + PROTECTION[kind] + content[30:])
    assert refusal(path).kind == "encrypted"


def test_common_encryption(tmp_path):
    """FFmpeg decodes what it cannot decrypt: green pictures under a good name."""
    key = {"encryption_key": "00" * 16, "encryption_kid": "11" * 16}
    protect = {"encryption_scheme": "cenc-aes-ctr", **key}
    path = encode(tmp_path / "x.mp4", container_options=protect)
    with av.open(str(path)) as container:
        assert next(container.demux(video=0)).has_sidedata("encryption_info")
    assert refusal(path).detail == "packet 0 carries encryption information"
    assert refusal(path).kind == "encrypted"


def element(name, body):
    return bytes.fromhex(name) + bytes([0x80 | len(body)]) + body


def grown(content, at, by):
    """Adds to the size of the EBML element whose size stands at `at`; returns where it ends."""
    length = 9 - content[at].bit_length()
    size = int.from_bytes(content[at : at + length]) & (1 << 7 * length) - 1
    content[at : at + length] = (size + by | 1 << 7 * length).to_bytes(length)
    return at + length, at + length + size


def test_webm_with_a_key(tmp_path, mkv):
    cipher, key = element("47E1", b"\5"), element("47E2", b"0123456789abcdef")
    how = element("5033", b"\1") + element("5035", cipher + key)
    encodings = element("6D80", element("6240", how))
    content, tracks = bytearray(mkv), bytes.fromhex("1654AE6B")
    # The first mention is that of the list of contents.
    entry, _ = grown(content, mkv.index(tracks, mkv.index(tracks) + 4) + 4, len(encodings))
    if content[entry] == 0xBF:  # a checksum, which would not fit any more: a gap in its place
        content[entry] = 0xEC
        entry += 6
    assert content[entry] == 0xAE
    _, end = grown(content, entry + 1, len(encodings))
    content[end:end] = encodings
    (tmp_path / "x.mkv").write_bytes(content)
    assert refusal(tmp_path / "x.mkv").kind == "encrypted"


def scramble(content, first_packet):
    """Sets transport_scrambling_control and makes noise of the payload, as a broadcaster does."""
    out, rng = bytearray(content), np.random.default_rng(0)
    for at in range(first_packet * 188, len(out), 188):
        if (out[at + 1] & 31) << 8 | out[at + 2] == 256:
            payload = at + 4 + (1 + out[at + 4] if out[at + 3] & 0x20 else 0)
            out[at + 3] |= 0x80
            out[payload : at + 188] = rng.bytes(max(0, at + 188 - payload))
    return bytes(out)


@pytest.mark.parametrize("clear_share", [0, 0.5, 0.9])
def test_scrambled_broadcasts(tmp_path, clear_share):
    path = encode(tmp_path / "x.ts")
    assert run(path).status == "ok"
    content = path.read_bytes()
    path.write_bytes(scramble(content, int(len(content) // 188 * clear_share)))
    assert refusal(path).kind == "encrypted"


def test_damage_is_no_scrambling(tmp_path):
    path = encode(tmp_path / "x.ts", size=(192, 128))
    content = bytearray(path.read_bytes())
    packets = [at for at in range(0, len(content), 188) if content[at + 2] == 0]
    content[packets[len(packets) // 2] + 3] |= 0x80
    path.write_bytes(content)
    assert run(path).status in ("ok", "partial")


# ---- what PyAV raises ---------------------------------------------------------------------------


def spoil_free_memory():
    """Fills the small blocks that malloc hands out next: PyAV reads past the end of one."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    blocks = [libc.malloc(24) for _ in range(50)]
    for block in blocks:
        libc.memset(block, 255, 24)
    for block in blocks:
        libc.free(block)


@pytest.mark.skipif(sys.platform != "linux", reason="needs glibc's malloc")
@pytest.mark.parametrize("all_streams", [False, True])
def test_sound_that_begins_midway_in_a_stream(tmp_path, all_streams):
    silent = encode(tmp_path / "a.ts", codec="mpeg2video").read_bytes()
    talking = encode(tmp_path / "b.ts", codec="mpeg2video", sound=True).read_bytes()
    times = (6 << 20) // len(silent)  # FFmpeg looks for streams in the first 5 MB, and at the end
    (tmp_path / "x.ts").write_bytes(silent * times + talking + silent * times)
    with open_video(tmp_path / "x.ts") as source:
        assert len(source.container.streams) == 1
        spoil_free_memory()
        # PyAV raises IndexError when all packets have been given.
        num_packets = sum(1 for _ in source.demux(all_streams=all_streams))
    assert num_packets == NUM_FRAMES * (2 * times + 1)


def test_whatever_pyav_raises_of_a_file_is_that_files_fault():
    for error in (ValueError("29 is not a valid Type"), AttributeError("x"), RuntimeError("y")):
        assert failure(error, DecoderLog([])).kind == "decode-error"
        assert failure(error, DecoderLog([]), opening=True).kind == "not-a-video"
        assert isinstance(error, FFMPEG_ERRORS)
    assert not isinstance(KeyboardInterrupt(), FFMPEG_ERRORS)


# ---- too much -----------------------------------------------------------------------------------


def test_huge_picture_in_a_small_file(tmp_path):
    header = b"GIF89a" + struct.pack("<HH", 16000, 16000) + b"\x80\0\0" + b"\0\0\0\xff\xff\xff"
    image = b"\x2c" + struct.pack("<HHHH", 0, 0, 1, 1) + b"\0\x02\x02\x44\x01\0"
    (tmp_path / "x.gif").write_bytes(header + image + b"\x3b")
    error = refusal(tmp_path / "x.gif")
    assert error.kind == "too-large"
    assert "16000x16000" in error.detail


def test_pixel_cap_is_the_users(tmp_path, mp4):
    (tmp_path / "x.mp4").write_bytes(mp4)
    assert run(tmp_path / "x.mp4", limits=Limits(max_pixels=96 * 64)).width == 96
    error = refusal(tmp_path / "x.mp4", limits=Limits(max_pixels=96 * 64 - 1))
    assert str(error) == "too-large: 96x64 is 6,144 pixels, the cap is 6,143"


@pytest.mark.parametrize("size", [(160, 96), (1600, 900)], ids=["ours", "the decoder's"])
def test_pictures_that_grow_past_the_cap_midway(tmp_path, size):
    """Rows are rounded up inside FFmpeg, so its own cap is a little higher."""
    small = encode(tmp_path / "small.h264", num_frames=3).read_bytes()
    large = encode(tmp_path / "large.h264", size=size, num_frames=3).read_bytes()
    (tmp_path / "x.h264").write_bytes(small + large)
    assert run(tmp_path / "x.h264").num_candidates == 6
    error = refusal(tmp_path / "x.h264", limits=Limits(max_pixels=96 * 64))
    assert error.kind == "too-large"


def test_8k_is_allowed():
    assert Limits().max_pixels >= 7680 * 4320


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_too_many_frames(tmp_path, mp4, mkv, suffix):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(mp4 if suffix == ".mp4" else mkv)
    error = refusal(path, limits=Limits(max_frames=NUM_FRAMES - 1))
    assert error.kind == "too-long"
    assert "more than 59 frames" in error.detail
    assert run(path, limits=Limits(max_frames=NUM_FRAMES)).status == "ok"


def test_lack_of_memory_is_told_apart():
    assert failure(MemoryError(), DecoderLog([])).kind == "out-of-memory"
    error = av.error.MemoryError(12, "Cannot allocate memory")
    assert failure(error, DecoderLog([]), opening=True).kind == "out-of-memory"


# ---- damaged and cut off ------------------------------------------------------------------------


def test_index_missing(tmp_path, mp4):
    path = encode(tmp_path / "whole.mp4")
    content = path.read_bytes()
    assert content.rindex(b"moov") > len(content) // 2
    path.write_bytes(content[: len(content) // 2])
    error = refusal(path)
    assert error.kind == "not-a-video"
    assert error.detail.endswith("[mov,mp4,m4a,3gp,3g2,mj2] moov atom not found")


def test_only_the_first_bytes(tmp_path, mp4):
    (tmp_path / "x.mp4").write_bytes(mp4[:32])
    assert refusal(tmp_path / "x.mp4").kind == "not-a-video"


def test_mp4_cut_off_keeps_the_frames_before(tmp_path, mp4):
    (tmp_path / "x.mp4").write_bytes(mp4[: len(mp4) * 6 // 10])
    video = run(tmp_path / "x.mp4")
    assert video.status == "partial"
    assert 0.4 * NUM_FRAMES < video.num_candidates < 0.7 * NUM_FRAMES
    assert video.error
    assert video.error.isprintable()
    assert video.decode_route.startswith("full: ")


def test_mkv_cut_off_ends_without_an_error_but_is_seen(tmp_path, mkv):
    path = tmp_path / "x.mkv"
    path.write_bytes(mkv[: len(mkv) * 6 // 10])
    with av.open(str(path)) as container:
        decoded = sum(1 for _ in container.decode(video=0))
    assert decoded < 0.7 * NUM_FRAMES
    video = run(path)
    assert video.status == "partial"
    assert video.num_candidates == decoded
    assert "before its header says" in video.error
    assert probe(path).trouble == video.error


def test_cut_after_the_window_does_not_matter(tmp_path, mkv):
    path = tmp_path / "x.mkv"
    path.write_bytes(mkv[: len(mkv) * 6 // 10])
    assert run(path, start_seconds=0.2, end_seconds=0.8).status == "ok"
    assert run(path, start_seconds=0.2, end_seconds=2.0).status == "partial"


def test_sound_that_ends_early_or_late_is_no_damage(tmp_path):
    for suffix in (".mp4", ".mkv"):
        path = encode(tmp_path / f"x{suffix}", sound=True)
        assert run(path).status == "ok"
        slow = encode(tmp_path / f"short{suffix}", sound=True, fps=120)
        assert run(slow).status == "ok"


def test_header_that_claims_hours(tmp_path, mkv):
    mark = mkv.index(b"\x44\x89\x88") + 3
    assert struct.unpack(">d", mkv[mark : mark + 8])[0] == pytest.approx(2400, abs=50)
    (tmp_path / "x.mkv").write_bytes(mkv[:mark] + struct.pack(">d", 3.6e7) + mkv[mark + 8 :])
    video = run(tmp_path / "x.mkv")
    assert video.num_candidates == NUM_FRAMES
    assert video.status == "partial"
    assert video.error.startswith("the file ends after 2.4")


def zero(content, packets):
    """Overwrites whole packets of a clip with zeros."""
    damaged = bytearray(content)
    with av.open(io.BytesIO(content)) as container:
        found = [p for p in container.demux(video=0) if p.size]
        for packet in found[packets]:
            at = content.index(bytes(packet))
            damaged[at : at + packet.size] = bytes(packet.size)
    return bytes(damaged)


def test_one_damaged_packet_costs_the_frames_up_to_the_next_key_frame(tmp_path, mp4):
    (tmp_path / "x.mp4").write_bytes(zero(mp4, slice(30, 31)))
    video = run(tmp_path / "x.mp4")
    assert video.status == "partial"
    assert video.num_candidates == NUM_FRAMES - 6  # of 36, the next key frame
    assert video.error.startswith(
        "5 frames left out that may not be sound: packets that do not decode: 1; Invalid data"
    )
    assert "[h264]" in video.error
    # Damage counts even where the window ends before the file does.
    assert run(tmp_path / "x.mp4", end_seconds=0.5).status == "partial"


def test_pictures_in_which_the_decoder_conceals_damage_are_left_out(tmp_path, mp4):
    """Bytes inside a picture: every packet gives a frame, none of this group is sound."""
    damaged = bytearray(mp4)
    with av.open(io.BytesIO(mp4)) as container:
        packet = next(p for i, p in enumerate(container.demux(video=0)) if i == 24)
        at = mp4.index(bytes(packet)) + packet.size // 3
    damaged[at : at + 60] = np.random.default_rng(1).bytes(60)
    (tmp_path / "x.mp4").write_bytes(damaged)
    video = run(tmp_path / "x.mp4")
    assert video.num_candidates == NUM_FRAMES - 12
    assert video.status == "partial"
    assert video.error.startswith(
        "12 frames left out that may not be sound: errors the decoder tells of: "
    )
    assert "[h264]" in video.error
    assert video.decode_route.startswith("full: ")


def test_gives_up_after_eight_in_a_row(tmp_path, mp4):
    (tmp_path / "x.mp4").write_bytes(zero(mp4, slice(30, 38)))
    video = run(tmp_path / "x.mp4")
    assert video.num_candidates == 30
    assert "packets that do not decode: 8;" in video.error
    (tmp_path / "y.mp4").write_bytes(zero(mp4, slice(29, 36)))
    assert run(tmp_path / "y.mp4").num_candidates == NUM_FRAMES - 7


def test_nothing_decodes(tmp_path, mp4):
    (tmp_path / "x.mp4").write_bytes(zero(mp4, slice(0, None)))
    error = refusal(tmp_path / "x.mp4")
    assert error.kind == "decode-error"
    assert "header claims 60 frames, 60 packets are there, none decodes" in error.detail


def test_file_deleted_while_open(tmp_path, mp4):
    path = tmp_path / "x.mp4"
    path.write_bytes(mp4)
    with open_video(path) as source:
        path.unlink()
        frames = sum(len(source.decode(packet)) for packet in source.demux())
        assert frames + len(source.decode(None)) == NUM_FRAMES


class Vandal(SamplerChoice):
    """A sampler during whose work somebody changes the file."""

    @property
    def needs(self):
        return frozenset({"luma"})

    def select(self, signals, num_frames, *, seed, video_id):
        self.options["change"]()
        return np.arange(len(signals))


@pytest.mark.parametrize(
    ("suffix", "changed", "kind"),
    [
        (".h264", "shortened", "decode-error"),
        (".h264", "deleted", "not-found"),
        (".mp4", "deleted", "not-found"),
    ],
)
def test_file_changed_between_two_passes(tmp_path, suffix, changed, kind):
    """Nothing kept in memory: the second pass reads the file again."""
    path = encode(tmp_path / f"x{suffix}")
    shorter = encode(tmp_path / f"shorter{suffix}", num_frames=9).read_bytes()
    change = path.unlink if changed == "deleted" else lambda: path.write_bytes(shorter)
    limits = Limits(max_packet_bytes=0, max_frame_bytes=0)
    with pytest.raises(DecodeError) as caught:
        sampled(path, [Vandal("vandal", {"change": change})], limits=limits)
    assert caught.value.kind == kind


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_flipped_bits_end_in_frames_or_a_class(tmp_path, mp4, mkv, suffix):
    content = mp4 if suffix == ".mp4" else mkv
    path, outcomes = tmp_path / f"x{suffix}", set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        damaged = bytearray(content)
        # Half of them in the headers, where most of the damage is done.
        end = len(damaged) if seed % 2 else 2000
        for position in rng.integers(0, end, rng.integers(1, 20)):
            damaged[position] ^= 1 << rng.integers(0, 8)
        path.write_bytes(damaged)
        with at_most(20):
            try:
                outcomes.add(run(path).status)
            except DecodeError as error:
                outcomes.add(error.kind)
    assert outcomes <= {"ok", "partial", *FAILURES}
    assert len(outcomes) >= 3


# ---- form and leftovers -------------------------------------------------------------------------


def test_every_class_is_explained():
    root = Path(__file__).parent.parent
    sources = "".join(path.read_text() for path in (root / "vtr").rglob("*.py"))
    raised = set(re.findall(r'(?:DecodeError\(|failure=\()\s*"([a-z-]+)"', sources))
    assert {"encode-error", "not-fetched", "timeout", "too-large"} <= raised <= set(FAILURES)
    guide = (root / "docs" / "guide.md").read_text()
    assert [kind for kind in FAILURES if f"`{kind}`" not in guide] == []
    assert all(text and text[0].islower() for text in FAILURES.values())


def test_log_keeps_the_last_lines_and_counts_all():
    lines = [(16, "part", f"line {i}\n") for i in range(1000)]
    log = DecoderLog(lines)
    log.trim()
    assert log.num_lines == 1000
    assert len(lines) == 20
    assert log.last_line == "[part] line 999"
    lines.append((16, "part", "\n"))
    assert log.last_line == "[part] line 999"
    assert DecoderLog([]).last_line == ""


def test_threads_keep_their_logs_apart(tmp_path, mp4):
    (tmp_path / "good.mp4").write_bytes(mp4)
    (tmp_path / "bad.mp4").write_bytes(zero(mp4, slice(5, 6)))
    told = {}

    def work(name):
        told[name] = [run(tmp_path / name).error for _ in range(5)]

    threads = [threading.Thread(target=work, args=(name,)) for name in ("good.mp4", "bad.mp4")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(told["good.mp4"]) == {""}
    assert all(error.endswith("units.") or "[h264]" in error for error in told["bad.mp4"])
    assert av.logging.get_level() is None


@pytest.mark.slow
def test_memory_and_files_stay_flat(tmp_path, mp4):
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    (tmp_path / "good.mp4").write_bytes(mp4)
    (tmp_path / "bad.mp4").write_bytes(zero(mp4, slice(5, None)))

    def rounds(count):
        for _ in range(count):
            run(tmp_path / "good.mp4")
            run(tmp_path / "bad.mp4")
        gc.collect()
        return resident(), len(list(Path("/proc/self/fd").iterdir()))

    memory_before, files_before = rounds(100)
    memory_after, files_after = rounds(400)
    assert memory_after - memory_before < 8 << 20
    assert files_after == files_before
