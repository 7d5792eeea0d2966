"""The `vtr` command: parse, call one function, print. Heavy imports live inside the commands."""

from __future__ import annotations

import sys

import typer

from vtr import __version__
from vtr.commands import (
    check_table,
    compare,
    compress,
    data,
    demo,
    eda,
    evaluate,
    export,
    extract,
    features,
    heads,
    import_,
    init,
    inspect,
    presets,
    protocols,
    report,
    samplers,
    simulate,
    train,
)
from vtr.commands.console import Terminal, say
from vtr.commands.shell import Commands
from vtr.errors import VtrError
from vtr.foreign import printable
from vtr.progress import listening

INTERRUPTED = 130

app = typer.Typer(
    name="vtr",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # else lines of a docstring break where they do in the code
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    init,
    data,
    eda,
    protocols,
    extract,
    inspect,
    compress,
    features,
    samplers,
    heads,
    presets,
    train,
    evaluate,
    simulate,
    check_table,
    report,
    compare,
    import_,
    export,
    demo,
):
    command.register(app)


def _version(value: bool) -> None:
    if value:
        say(f"vtr {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and leave."
    ),
) -> None:
    """Video-text retrieval: cached CLIP features, light heads, numbers you can trust."""
    context.with_resource(listening(Terminal()))


def main() -> None:
    """Runs the command line; a user's mistake is one message, never a traceback.

    Exit codes: 0 all well; 1 an error the message explains; 2 wrong usage; 3 finished, but some
    inputs failed; 130 interrupted.
    """
    try:
        app(prog_name="vtr")
    except VtrError as error:
        Terminal().note(f"error: {printable(str(error))}")
        sys.exit(1)
    except OSError as error:  # such as a full disk under `vtr inspect > FILE`
        where = "the output" if error.filename is None else str(error.filename)
        Terminal().note(f"error: {printable(where)}: {error.strerror or error}")
        sys.exit(1)
    except SystemExit as leaving:
        if leaving.code == INTERRUPTED:
            Terminal().note("interrupted: what was published is safe; run it again to go on")
        raise
