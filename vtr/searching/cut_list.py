"""Hits as a list that an editing program reads: EDL, FCPXML, OTIO, or a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from vtr.errors import ConfigError
from vtr.extras import require_extra
from vtr.foreign import csv_table, printable
from vtr.remote import uri_of
from vtr.searching.library import Hit

SUFFIXES = (".csv", ".edl", ".fcpxml", ".otio")
_USUAL_RATE = Fraction(25)


@dataclass(frozen=True)
class Moment:
    """One entry: a part of a file."""

    hit: Hit
    rate: Fraction = _USUAL_RATE  # Frames per second of the file
    file_seconds: float = 0.0  # How long the file is; 0 where it is unknown

    @property
    def uri(self) -> str:
        """The file's address; empty where it is not known."""
        return "" if self.hit.path is None else uri_of(self.hit.path)

    @property
    def frames(self) -> tuple[int, int]:
        """First frame and the one after the last; at least one frame long."""
        first = round(self.hit.start_seconds * self.rate)
        return first, max(first + 1, round(self.hit.end_seconds * self.rate))


def check_suffix(path: Path) -> None:
    """Refuses a file that is no cut list by its name, and one that lacks its library."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(
            f"--cut-list is {path}; its name must end in {', '.join(SUFFIXES[:-1])} or "
            f"{SUFFIXES[-1]}"
        )
    if path.suffix.lower() == ".otio":
        _require_otio()


def cut_list(moments: Sequence[Moment], suffix: str, *, title: str) -> bytes:
    """Returns the list by one of `SUFFIXES`; `title` is its name in the editing program."""
    makers = {".csv": _csv, ".edl": _edl, ".fcpxml": _fcpxml, ".otio": _otio}
    return makers[suffix.lower()](moments, title)


_COLUMNS = ("video", "path", "start_seconds", "end_seconds", "best_seconds", "score", "level")


def _csv(moments: Sequence[Moment], _title: str) -> bytes:
    rows = [
        (
            h.video_id, str(h.path or ""), round(h.start_seconds, 3), round(h.end_seconds, 3),
            round(h.best_seconds, 3), round(h.score, 4), round(h.level, 3),
        )
        for h in (moment.hit for moment in moments)
    ]  # fmt: skip
    return csv_table(_COLUMNS, rows)


def timecode(frame: int, rate: Fraction) -> str:
    """Returns hours:minutes:seconds:frames, no frame dropped.

    >>> timecode(90_061, Fraction(25))
    '01:00:02:11'
    """
    base = max(1, round(rate))
    seconds, rest = divmod(frame, base)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}:{rest:02d}"


def _edl(moments: Sequence[Moment], title: str) -> bytes:
    """CMX 3600; the record side counts frames of each clip at the rate of the first."""
    rate = moments[0].rate if moments else _USUAL_RATE
    lines = [f"TITLE: {printable(title)[:70]}", "FCM: NON-DROP FRAME", ""]
    place = 0
    for number, moment in enumerate(moments, start=1):
        first, stop = moment.frames
        length = max(1, round((stop - first) / moment.rate * rate))
        codes = [
            timecode(first, moment.rate), timecode(stop, moment.rate),
            timecode(place, rate), timecode(place + length, rate),
        ]  # fmt: skip
        place += length
        lines += [
            f"{number:03d}  AX       V     C        {' '.join(codes)}",
            f"* FROM CLIP NAME: {printable(moment.hit.video_id)}",
        ]
        if moment.hit.path is not None:
            lines.append(f"* SOURCE FILE: {printable(moment.hit.path)}")
        lines.append("")
    return "\n".join(lines).encode()


def _time(frames: int, rate: Fraction) -> str:
    return f"{frames * rate.denominator}/{rate.numerator}s"


def _fcpxml(moments: Sequence[Moment], title: str) -> bytes:
    """Version 1.9; every clip has the length of its own frames."""
    rate = moments[0].rate if moments else _USUAL_RATE
    root = Element("fcpxml", version="1.9")
    resources = SubElement(root, "resources")
    SubElement(resources, "format", id="r1", frameDuration=_time(1, rate))
    event = SubElement(SubElement(root, "library"), "event", name="vtr")
    project = SubElement(event, "project", name=printable(title))
    sequence = SubElement(project, "sequence", format="r1")
    spine, place = SubElement(sequence, "spine"), Fraction(0)
    assets = {
        video_id: _asset(resources, f"r{number}", of_video)
        for number, (video_id, of_video) in enumerate(_by_video(moments), start=2)
    }
    for moment in moments:
        first, stop = moment.frames
        SubElement(
            spine, "asset-clip", ref=assets[moment.hit.video_id],
            name=printable(moment.hit.video_id), offset=_time(round(place * rate), rate),
            start=_time(first, moment.rate), duration=_time(stop - first, moment.rate),
        )  # fmt: skip
        place += Fraction(stop - first) / moment.rate
    sequence.set("duration", _time(round(place * rate), rate))
    indent(root)
    body = tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE fcpxml>\n{body}\n'.encode()


def _by_video(moments: Sequence[Moment]) -> list[tuple[str, list[Moment]]]:
    of_video: dict[str, list[Moment]] = {}
    for moment in moments:
        of_video.setdefault(moment.hit.video_id, []).append(moment)
    return list(of_video.items())


def _asset(resources: Element, key: str, moments: Sequence[Moment]) -> str:
    """Adds the file of some moments, as long as it is, or as its last moment needs; its key."""
    first = moments[0]
    length = round(max(moment.file_seconds for moment in moments) * first.rate)
    stop = max(length, *(moment.frames[1] for moment in moments))
    asset = SubElement(
        resources, "asset", id=key, name=printable(first.hit.video_id), hasVideo="1", start="0s",
        format="r1", duration=_time(stop, first.rate),
    )  # fmt: skip
    SubElement(asset, "media-rep", kind="original-media", src=first.uri)
    return key


def _require_otio() -> None:
    require_extra(
        "otio", ["opentimelineio"], "--cut-list *.otio",
        instead=". The endings .edl, .fcpxml and .csv need nothing",
    )  # fmt: skip


def _otio(moments: Sequence[Moment], title: str) -> bytes:
    _require_otio()
    import opentimelineio as otio

    timeline = otio.schema.Timeline(title)
    track = otio.schema.Track("moments", kind=otio.schema.TrackKind.Video)
    timeline.tracks.append(track)
    for moment in moments:
        first, stop = moment.frames
        rate = float(moment.rate)
        span = otio.opentime.TimeRange(
            otio.opentime.RationalTime(first, rate), otio.opentime.RationalTime(stop - first, rate)
        )
        source = otio.schema.MissingReference()
        if moment.hit.path is not None:
            source = otio.schema.ExternalReference(moment.uri)
        facts = {"vtr": {"score": moment.hit.score, "level": moment.hit.level}}
        track.append(
            otio.schema.Clip(moment.hit.video_id, source, source_range=span, metadata=facts)
        )
    return str(timeline.to_json_string()).encode()
