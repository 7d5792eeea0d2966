"""`vtr data`: which datasets there are, what their files say, which videos are really there."""

from __future__ import annotations

from typing import Annotated

import typer

from vtr.commands.console import AsJson, print_json
from vtr.commands.data_table import print_datasets, print_description, print_verdict
from vtr.commands.flags import Only, with_options
from vtr.errors import SOME_FAILED
from vtr.verbs._scale import OnRay
from vtr.workspace import Workspace

group = typer.Typer(no_args_is_help=True)

DatasetName = Annotated[
    str | None, typer.Argument(help="Which dataset; in a workspace its own.", show_default=False)
]


@group.command("list")
def list_datasets(as_json: AsJson = False) -> None:
    """List the datasets: splits, captions, the files they are read from and where to get them."""
    from vtr.api import data

    facts = data.list_datasets()
    print_json(facts) if as_json else print_datasets(facts)


@group.command()
@with_options("data")
def show(
    dataset: DatasetName = None,
    *,
    workspace: Annotated[Workspace, Only("videos", "annotations")],
    as_json: AsJson = False,
) -> None:
    """Show what the annotation files say: files, splits, captions, first ids, remarks."""
    from vtr.api import data

    facts = data.show_dataset(data.of_dataset(workspace, dataset))
    print_json(facts) if as_json else print_description(facts)


@group.command()
@with_options("data")
def verify(
    dataset: DatasetName = None,
    *,
    workspace: Annotated[Workspace, Only("videos", "annotations", "workers")],
    scale: OnRay,
    fast: Annotated[
        bool, typer.Option("--fast", help="Only look for the files; decode nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check every video that the annotations expect: present, missing, undecodable, duplicate.

    Every file is decoded whole, unless --fast. Exit code 3 if a video is missing or undecodable.
    """
    from vtr.api import data

    workspace = data.of_dataset(workspace, dataset)
    facts = data.verify_dataset(workspace, fast=fast, quiet=as_json, scale=scale)
    print_json(facts) if as_json else print_verdict(facts)
    if facts["missing"] or facts["undecodable"]:
        raise typer.Exit(SOME_FAILED)
