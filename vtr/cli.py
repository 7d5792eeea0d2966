"""The `vtr` command: parse, call one function, print. Heavy imports live inside the commands."""

from __future__ import annotations

import sys

import typer

from vtr import __version__
from vtr.errors import VtrError

app = typer.Typer(
    name="vtr",
    help="Video-text retrieval: cached CLIP features, light heads, numbers you can trust.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"vtr {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and leave."
    ),
) -> None:
    """Video-text retrieval: cached CLIP features, light heads, numbers you can trust."""


def main() -> None:
    """Runs the command line; a user's mistake is one message, never a traceback."""
    try:
        app()
    except VtrError as error:
        typer.secho(f"error: {error}", err=True, fg=None)
        sys.exit(1)
    except KeyboardInterrupt:
        typer.echo("interrupted: what was published is safe; run the same command again.", err=True)
        sys.exit(130)
