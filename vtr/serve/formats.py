"""What kind a file is, in the words in which a page asks its browser whether it can play it."""

from __future__ import annotations

from av.container import InputContainer
from av.video.stream import VideoStream

# MP4 and QuickTime are one format to browsers, though they deny the second name.
_CONTAINERS = {
    "mov,mp4,m4a,3gp,3g2,mj2": "video/mp4",
    "matroska,webm": "video/webm",
    "ogg": "video/ogg",
}
_PLAIN = {"yuv420p", "yuvj420p"}  # 8 bits, as every browser's decoder takes them
_DEEP = {"yuv420p10le"}
_VIDEO = {
    ("h264", False): "avc1.640028",
    ("hevc", False): "hvc1.1.6.L120.B0",
    ("hevc", True): "hvc1.2.4.L120.B0",
    ("vp8", False): "vp8",
    ("vp9", False): "vp09.00.10.08",
    ("vp9", True): "vp09.02.10.10",
    ("av1", False): "av01.0.08M.08",
    ("av1", True): "av01.0.08M.10",
    ("theora", False): "theora",
}
_SOUND = {
    "aac": "mp4a.40.2",
    "mp3": "mp3",
    "mp3float": "mp3",
    "opus": "opus",
    "vorbis": "vorbis",
    "flac": "flac",
    "ac3": "ac-3",
    "eac3": "ec-3",
}
_OF_WEBM = {"vp8", "vp9", "av1", "opus", "vorbis"}


def media_type(container: InputContainer, video: VideoStream) -> str:
    """Returns a MIME type with codecs, or "" for what no browser plays."""
    kind = _CONTAINERS.get(container.format.name)
    context = video.codec_context
    depth = context.pix_fmt in _DEEP
    if kind is None or not (depth or context.pix_fmt in _PLAIN):
        return ""
    names = [_VIDEO.get((_name(context), depth))]
    used = {_name(context)}
    if container.streams.audio:
        sound = _name(container.streams.audio[0].codec_context)
        names.append(_SOUND.get(sound))
        used.add(sound)
    if None in names:
        return ""
    if kind == "video/webm" and not used <= _OF_WEBM:
        kind = "video/x-matroska"
    return f'{kind}; codecs="{", ".join(str(name) for name in names)}"'


def _name(context: object) -> str:
    """Returns a codec's name, whichever decoder was found for it; "" where there is none."""
    codec = getattr(context, "codec", None)
    return str(codec.canonical_name) if codec is not None else ""
