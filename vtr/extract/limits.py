"""What one video may cost, how it may fail, and by which rules it becomes pictures."""

from __future__ import annotations

from dataclasses import dataclass

THUMBNAIL_SIZE = 32
# Counts the rules by which a decoded frame becomes a picture. 1: pixels as stored. 2: square
# pixels, alpha over black, one field of interlaced pictures, only sound frames, joined clocks.
DECODING = 2

FAILURES: dict[str, str] = {
    "not-found": "no file of this name",
    "not-fetched": "another file system did not give the whole file",
    "not-a-file": "a directory, pipe, socket or device",
    "permission": "the file may not be read",
    "encrypted": "protected pictures (CENC, DRM), which cannot be seen without their key",
    "bad-name": "the name is not valid Unicode, or none that a file can have; rename the file",
    "empty-file": "zero bytes",
    "refused": "a playlist, URL or other thing that would open further files",
    "not-a-video": "no video container is recognised: cut before its index, damaged, or no video",
    "no-video-stream": "sound or subtitles only, or cover art",
    "no-frames": "a video stream from which no frame (of the window) comes",
    "decode-error": "the decoder gave up",
    "damaged": "cut off or damaged, but some frames decode (a partial video)",
    "too-large": "more pixels per frame than the cap",
    "too-long": "more frames than the cap",
    "timeout": "more wall-clock time than the limit",
    "out-of-memory": "more memory than the limit",
    "crashed": "the decoding process died",
    "duplicate-id": "another input has the same id",
    "bad-features": "the encoder gave a row that is not finite",
    "encode-error": "the copy's encoder gave up",
}


@dataclass(frozen=True)
class Limits:
    """What one video may cost."""

    max_pixels: int = 8192 * 4320  # Largest picture, width x height; the default admits 8K
    max_frames: int = 2_000_000  # Most frames of one file; the default is 18 hours at 30 per second
    max_packet_bytes: int = 64 << 20  # Of packets held in memory; longer files are read twice
    max_frame_bytes: int = 256 << 20  # Of frames held in memory; more are decoded twice
