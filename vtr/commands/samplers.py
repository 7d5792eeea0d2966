"""`vtr samplers`: what samplers there are, what they choose, what that does to a store."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vtr.commands.console import print_json, say
from vtr.commands.samplers_study import study
from vtr.counts import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vtr.extract.sample import SampledVideo
    from vtr.extract.sheet import Sheet

THUMBNAIL_HEIGHT = 108

group = typer.Typer(invoke_without_command=True, no_args_is_help=False)


def register(app: typer.Typer) -> None:
    """Adds the commands to the app."""
    app.add_typer(group, name="samplers", help="List, show and compare frame samplers.")


@group.callback()
def samplers(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List the frame samplers; `show` draws what they choose, `study` measures it on a store."""
    if context.invoked_subcommand is not None:
        return
    from vtr.extract.samplers.base import describe_samplers

    facts = [asdict(sampler) for sampler in describe_samplers()]
    if as_json:
        print_json(facts)
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("sampler", no_wrap=True)
    table.add_column("what it keeps, options with their defaults, cost")
    for fact in facts:
        options = " ".join(f"{key}={value}" for key, value in fact["options"].items())
        remark = escape(f"{options}; {fact['cost']}" if options else fact["cost"])
        table.add_row(fact["name"], f"{escape(fact['summary'])}\n[dim]{remark}[/dim]")
    Console().print(table)


@group.command()
def show(
    video: Annotated[Path, typer.Argument(help="The video file.")],
    sampler: Annotated[str, typer.Option(help="Which samplers, as for `vtr extract`.")] = "all",
    frames: Annotated[int, typer.Option(help="Frames per sampler.")] = 8,
    fps: Annotated[str, typer.Option(help="Candidates per second, or 'native'.")] = "native",
    seed: Annotated[int, typer.Option(help="Seed of the random samplers.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="A .png or .html file. (default: VIDEO's name + .png)")
    ] = None,
) -> None:
    """Draw one contact sheet: the curve of change with the picks, and the frames they are."""
    from vtr.errors import ConfigError
    from vtr.extract.sheet import draw_html, draw_png
    from vtr.files import publish

    target = out or Path(video.stem + ".png")
    if target.suffix not in (".png", ".html"):
        raise ConfigError(f"--out is {target}; its name must end in .png or .html")
    sheet = make_sheet(video, sampler=sampler, frames=frames, fps=fps, seed=seed)
    publish(target, draw_png(sheet) if target.suffix == ".png" else draw_html(sheet))
    say(target)


def make_sheet(video: Path, *, sampler: str, frames: int, fps: str, seed: int) -> Sheet:
    """Decodes a video once and returns what the contact sheet shows.

    Raises:
        DecodeError: The video cannot be read.
    """
    from vtr.errors import DecodeError
    from vtr.extract.sample import FrameRequest, sample_video
    from vtr.extract.samplers.base import parse_samplers

    request = FrameRequest(
        path=video,
        video_id=video.name,
        choices=parse_samplers(sampler),
        num_frames=frames,
        candidate_fps=_rate(fps),
        seed=seed,
        keep_luma=True,
    )
    try:
        return _sheet(video.name, sample_video(request, _thumbnail))
    except DecodeError as error:
        raise DecodeError(error.kind, f"{video}: {error.detail}") from None


def _rate(fps: str) -> float | None:
    from vtr.errors import ConfigError

    if fps == "native":
        return None
    try:
        return float(fps)
    except ValueError:
        raise ConfigError(f"--fps is {fps!r}; write a number above 0, or 'native'") from None


def _thumbnail(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """One height for all; a change of shape within a video is squeezed into the first's."""
    import numpy as np
    from PIL import Image

    height, width = picture.shape[:2]
    wide = min(max(round(width * THUMBNAIL_HEIGHT / height), 40), 4 * THUMBNAIL_HEIGHT)
    size = (wide, THUMBNAIL_HEIGHT)
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))


def _sheet(name: str, sampled: SampledVideo) -> Sheet:
    from vtr.extract.sheet import Sheet, SheetRow

    rows = [
        SheetRow(label, sampled.pts_seconds[picks], [sampled.crops[row] for row in picks])
        for label, picks in sampled.selections.items()
    ]
    facts = (
        f"{sampled.width}x{sampled.height}, {sampled.duration_seconds:.2f} s, "
        f"{counted(sampled.num_candidates, 'candidate')}"
    )
    if sampled.error:
        facts += f"; partial: {sampled.error}"
    signals = sampled.signals
    return Sheet(name, facts, signals.pts_seconds, signals.absolute_change, rows)


group.command()(study)
