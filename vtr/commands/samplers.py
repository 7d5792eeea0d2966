"""`vtr samplers`: what samplers there are, what they choose, what that does to a store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vtr.commands.console import AsJson, near, print_json, say
from vtr.commands.flags import with_options
from vtr.verbs.samplers import Options

group = typer.Typer(invoke_without_command=True, no_args_is_help=False)


@group.callback()
def samplers(context: typer.Context, as_json: AsJson = False) -> None:
    """List the frame samplers; `show` draws what they choose, `study` measures it on a store."""
    if context.invoked_subcommand is not None:
        return
    from vtr.extract.samplers.base import describe_samplers

    facts = describe_samplers()
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
    sampler: Annotated[
        str, typer.Option(metavar="SAMPLER", help="Which samplers, as for `vtr extract`.")
    ] = "all",
    frames: Annotated[int, typer.Option(help="Frames per sampler.")] = 8,
    fps: Annotated[
        str, typer.Option(metavar="RATE", help="Candidates per second, or 'native'.")
    ] = "native",
    seed: Annotated[int, typer.Option(help="Seed of the random samplers.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A .png or .html file. (default: VIDEO's name + .png)"),
    ] = None,
) -> None:
    """Draw one contact sheet: the curve of change with the picks, and the frames they are."""
    from vtr.api.samplers import show as draw

    say(draw(video, sampler=sampler, frames=frames, fps=fps, seed=seed, out=out))


@group.command()
@with_options("samplers")
def study(
    options: Options,
    store: Annotated[
        Path | None,
        typer.Argument(
            help="A store made with --sampler dense. (default: the workspace's, or features)",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare samplers on a dense store: spread, coverage, repetition, cost.

    In a workspace with captions also zero-shot R@1 of the heads without parameters, on the demo
    world the share of brief events seen. Costs need the videos and the model of
    the store's workspace.
    """
    from vtr.arithmetic import prepare_arithmetic

    prepare_arithmetic()
    from vtr.api.samplers import study as compare  # with torch: not before the line above

    facts = compare(store, options)
    if as_json:
        print_json(facts)
        return
    from vtr.commands.tables import print_study

    print_study(facts)
    if options.plot is not None:
        say(near(options.plot))
