"""`vtr simulate`: what pooling and the number of frames buy, on cached frames, without training."""

from __future__ import annotations

from typing import Annotated

import typer

from vtr.arithmetic import prepare_arithmetic
from vtr.commands.console import AsJson, Quiet, near, print_json
from vtr.commands.flags import Only, with_options
from vtr.progress import note
from vtr.verbs.simulate import Options
from vtr.workspace import Workspace

ASKED_OF = ("features", "dataset", "annotations", "videos")
"""Settings of a workspace that an evaluation follows."""


@with_options("simulate")
def simulate(
    kind: Annotated[str, typer.Argument(help="What to simulate: maxpool.")] = "maxpool",
    *,
    options: Options,
    workspace: Annotated[
        Workspace, Only(*ASKED_OF, model="Text tower. (default: the workspace's)")
    ],
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Compare pooling rules at 1, 2, 4, ... frames on cached features; nothing is trained.

    Writes simulation.json with every number and its 95 % interval, and their plot.
    """
    run_simulation(workspace, options, kind, quiet=quiet, as_json=as_json)


def run_simulation(
    workspace: Workspace, options: Options, kind: str, *, quiet: bool = False, as_json: bool = False
) -> None:
    """Simulates and prints the table."""
    prepare_arithmetic()
    workspace.require_videos()
    if not quiet:
        note("simulating: reading the captions and the features, then loading the model")
    from vtr.api import simulate as api
    from vtr.commands.tables import print_simulation

    document, path = api.simulate(workspace, options, kind=kind, quiet=quiet or as_json)
    if as_json:
        print_json(document)
        return
    print_simulation(document)
    note()
    note(f"written: {near(path)}")
