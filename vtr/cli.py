"""The `vtr` command: the names of its commands; the module of one is imported when it is called."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import typer

from vtr import __version__
from vtr.commands.console import Terminal, say
from vtr.commands.shell import Commands
from vtr.errors import INTERRUPTED, VtrError
from vtr.foreign import printable
from vtr.progress import listening

COMMANDS: Mapping[str, tuple[str, str]] = {
    "init": (
        "init", "Make a workspace: write vtr.toml and report which videos are present and missing."
    ),
    "data": ("data:group", "List, show and verify datasets."),
    "eda": ("eda", "Look at a dataset before training: captions, duplicates, videos, features."),
    "protocols": (
        "protocols",
        "List the evaluation protocols: videos, queries, captions, training videos, source.",
    ),
    "extract": (
        "extract", "Decode videos, choose frames, embed them with CLIP and cache the features."
    ),
    "inspect": (
        "inspect", "Show what is in a feature store: settings, counts, failures by reason, sizes."
    ),
    "compress": (
        "compress",
        "Copy videos as small silent H.264 files: 3 frames a second, shorter side 224 pixels.",
    ),
    "features": ("features:group", "Bring features of others into a store."),
    "samplers": ("samplers:group", "List, show and compare frame samplers."),
    "heads": ("heads", "List the heads: each makes one score of a text and the frames of a video."),
    "models": (
        "models",
        "List the models that have a short name: what they take, their licence, known figures.",
    ),
    "presets": (
        "presets",
        "List the presets of `vtr train`: every option each of them sets, and where it comes from.",
    ),
    "search": ("search", "Find the moments that show what a sentence, a picture or a clip says."),
    "serve": ("serve", "Search in the browser: a page that finds moments and plays them."),
    "train": ("train", "Train a head on cached features, and the towers if asked."),
    "eval": ("evaluate", "Evaluate a run, or CLIP without training, on cached features."),
    "simulate": (
        "simulate",
        "Compare pooling rules at 1, 2, 4, ... frames on cached features; nothing is trained.",
    ),
    "check-table": (
        "check_table",
        "Check that R@K times N is a whole number, within the rounding of the printed digits.",
    ),
    "report": ("report", "Draw results as one self-contained HTML page, and as PNG files."),
    "compare": (
        "compare",
        "Compare results query by query: difference, 95 % interval, paired permutation test.",
    ),
    "import": ("import_:group", "Read checkpoints of CLIP4Clip, CLIP2Video and OpenAI's CLIP."),
    "export": (
        "export",
        "Export a run with its model card, or a feature store in forms that other tools read.",
    ),
    "push": (
        "push", "Push a run (a model) or a feature store (a data set) to the Hugging Face hub."
    ),
    "pull": ("push:pull", "Pull a run or a feature store from the Hugging Face hub."),
    "demo": (
        "demo",
        "Render the demo world, extract it, train heads on it, and show what each can and cannot "
        "do.",
    ),
}  # fmt: skip
"""By name as typed: the module in `vtr.commands`, what of it is called where that has another name,
and the first paragraph of its help."""


class _Root(Commands):
    table = COMMANDS


app = typer.Typer(
    name="vtr",
    cls=_Root,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # else lines of a docstring break where they do in the code
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
        Terminal().note(f"error: {printable(error)}")
        sys.exit(1)
    except OSError as error:  # such as a full disk under `vtr inspect > FILE`
        where = "the output" if error.filename is None else str(error.filename)
        Terminal().note(f"error: {printable(where)}: {error.strerror or error}")
        sys.exit(1)
    except SystemExit as leaving:
        if leaving.code == INTERRUPTED:
            Terminal().note("interrupted: what was published is safe; run it again to go on")
        raise
