"""What `vtr search` makes of its hits: clips, a contact sheet, a cut list."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from vtr.charts.drawing import Picture
from vtr.counts import counted, human_bytes
from vtr.errors import ConfigError, StoreWriteError, VtrError
from vtr.evaluate.reporting.examples import read_strip
from vtr.extract.container import header_rate, open_video
from vtr.extract.cutting import HANDLER, Cut
from vtr.extract.pool import PoolSettings, WorkerPool
from vtr.extract.seeking import origin_seconds
from vtr.files import make_folder, publish
from vtr.foreign import shown
from vtr.progress import note, progress
from vtr.remote import absolute
from vtr.searching.cut_list import Moment, check_suffix, cut_list
from vtr.searching.library import Hit
from vtr.searching.player import play
from vtr.searching.sheet import contact_sheet
from vtr.verbs.search import Options

_SECONDS = 300.0
_UNSAFE = re.compile(r"[^\w.-]+")


def check_outputs(options: Options) -> None:
    """Refuses what cannot be written, before anything is searched."""
    if options.cut_list is not None:
        check_suffix(options.cut_list)
        make_folder(options.cut_list.parent, option="--cut-list")
    if options.contact_sheet is not None:
        if options.contact_sheet.suffix != ".png":
            raise ConfigError(f"--contact-sheet is {options.contact_sheet}; it must end in .png")
        make_folder(options.contact_sheet.parent, option="--contact-sheet")
    if options.export is not None:
        make_folder(options.export, option="--export")


def write_outputs(texts: Sequence[str], hits: Sequence[Hit], options: Options) -> list[Path]:
    """Writes what the options ask for; returns the files."""
    written: list[Path] = []
    title = " + ".join(texts) or "search"
    if options.cut_list is not None:
        moments = [_moment(hit) for hit in hits]
        publish(options.cut_list, cut_list(moments, options.cut_list.suffix, title=title))
        written.append(options.cut_list)
    if options.contact_sheet is not None:
        levels = not (options.image or options.video or options.like)
        sheet = contact_sheet(title, hits, [_picture(hit) for hit in hits], levels=levels)
        publish(options.contact_sheet, sheet)
        written.append(options.contact_sheet)
    if options.export is not None:
        written += export_clips(hits, options.export)
    return written


def export_clips(hits: Sequence[Hit], folder: Path) -> list[Path]:
    """Cuts every hit out of its video into a folder; says how each was made.

    A video that cannot be cut costs its own clip alone. Names begin with the hit's number, so that
    they sort by score.
    """
    there = [(n, hit) for n, hit in enumerate(hits, start=1) if hit.path is not None]
    jobs = [
        Cut(hit.path, folder, clip_name(n, hit), hit.start_seconds, hit.end_seconds)
        for n, hit in there
        if hit.path is not None
    ]
    if not jobs:
        if hits:
            note(f"none of the {counted(len(hits), 'hit')} can be cut: their files are not here")
        return []
    settings = PoolSettings(HANDLER, None, workers=min(2, len(jobs)), timeout_seconds=_SECONDS)
    written = []
    with progress("cutting") as update, WorkerPool(settings) as pool:
        for count, ((_, hit), outcome) in enumerate(
            zip(there, pool.run(jobs), strict=True), start=1
        ):
            update(count, len(jobs), "clips")
            if outcome.failure is not None:
                note(f"not cut: {shown(hit.video_id)}: {': '.join(outcome.failure)}")
                continue
            clip = outcome.header
            if refused := clip.get("refused"):
                raise StoreWriteError(
                    f"cannot write clips into {folder}: {refused}. Those that are there are whole"
                )
            how = "copied" if clip["copied"] else "encoded anew (no key frame at its start)"
            sound = "" if clip["sound"] else ", without sound"
            note(f"{shown(clip['path'])}: {how}{sound}, {human_bytes(clip['num_bytes'])}")
            written.append(Path(clip["path"]))
    if len(written) < len(hits):
        note(f"{counted(len(hits) - len(written), 'hit')} could not be cut")
    return written


def play_first(hits: Sequence[Hit]) -> str:
    """Plays the first hit at its moment; returns what to say about it."""
    for hit in hits:
        if hit.path is not None:
            return play(hit.path, hit.start_seconds)
    why = (
        "no hit whose file is here" if hits else "nothing matches; --nearest has what comes nearest"
    )
    raise ConfigError(f"--open has nothing to play: {why}")


def clip_name(number: int, hit: Hit) -> str:
    """Returns a file name without ending: number, video, start.

    >>> from vtr.searching.library import Hit
    >>> clip_name(3, Hit("a b/c.mp4", None, 1.25, 2.0, 1.5, 0.3, 0.9))
    '003-a_b_c-1.2s'
    """
    stem = _UNSAFE.sub("_", hit.video_id.rpartition(".")[0] or hit.video_id)
    return f"{number:03d}-{stem[-80:]}-{hit.start_seconds:.1f}s"


def _moment(hit: Hit) -> Moment:
    if hit.path is None:
        return Moment(hit)
    moment = Moment(replace(hit, path=absolute(hit.path)))  # the list is read from elsewhere
    with suppress(VtrError), open_video(hit.path) as video:
        seconds = (video.container.duration or 0) / 1_000_000  # FFmpeg counts microseconds
        if rate := header_rate(video.stream):
            moment = replace(moment, rate=Fraction(rate).limit_denominator(1001))
        moment = replace(moment, file_seconds=seconds)
    return moment


def _picture(hit: Hit) -> Picture | None:
    if hit.path is None:
        return None
    origin = 0.0
    with suppress(VtrError), open_video(hit.path) as video:
        origin = origin_seconds(video)
    frames = read_strip(hit.video_id, hit.path, [hit.best_seconds + origin]).frames
    return frames[0].picture if frames else None
