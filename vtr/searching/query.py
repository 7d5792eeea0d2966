"""What is looked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vtr.errors import ConfigError
from vtr.foreign import is_undecodable, shown

_MOST_CHARACTERS = 1_000_000


@dataclass(frozen=True)
class Query:
    """What is looked for: the unit vectors of all parts are averaged.

    >>> Query(("a dog jumps into water",), without=("snow",)).texts
    ('a dog jumps into water',)
    """

    texts: tuple[str, ...] = ()
    images: tuple[Path | bytes, ...] = ()  # files or their content
    # Each a file and the second to look at; None is the whole of it.
    clips: tuple[tuple[Path, float | None], ...] = ()
    like: tuple[tuple[str, float], ...] = ()  # (id, seconds) of frames of the library itself
    without: tuple[str, ...] = ()  # Sentences; half of their mean is subtracted
    unlike: tuple[tuple[str, float], ...] = ()
    """(id, seconds) of frames to turn away from, by half as much as the rest tells frames apart."""

    def __post_init__(self) -> None:
        if not (self.texts or self.images or self.clips or self.like):
            raise ConfigError(
                "nothing to search for: write a sentence, or name a picture, a clip or a moment"
            )
        for text in (*self.texts, *self.without):
            if not isinstance(text, str):
                raise ConfigError(f"a sentence is {shown(repr(text), 60)}; it must be a text")
            if fault := _fault(text):
                raise ConfigError(
                    f"the sentence '{shown(text, 40)}' {fault}. Write in some words what is to be "
                    "seen"
                )

    @property
    def has_pictures(self) -> bool:
        """Whether something beside sentences is asked for."""
        return bool(self.images or self.clips or self.like or self.unlike)


def read_like(text: str) -> tuple[str, float]:
    """Returns the video and the second of an ID@SECONDS.

    >>> read_like("cats/one.mp4@12.5")
    ('cats/one.mp4', 12.5)
    """
    video_id, _, seconds = text.rpartition("@")
    try:
        at = float(seconds)
    except ValueError:
        at = -1.0
    if not video_id or not 0 <= at < float("inf"):
        raise ConfigError(
            f"--like is '{shown(text, 60)}'; it must be a video and a second of it, such as "
            "cats/one.mp4@12.5"
        )
    return video_id, at


def _fault(text: str) -> str:
    if not text.strip():
        return "is empty"
    if "\0" in text:
        return "has a NUL character in it"
    if is_undecodable(text):
        return "is not valid Unicode"
    if len(text) > _MOST_CHARACTERS:
        return f"has {len(text):,} characters"
    return ""
