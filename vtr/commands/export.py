"""`vtr export`: a run as a folder to give away, a store in forms of others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vtr.commands.console import AsJson, near, print_json, say
from vtr.commands.flags import Only, with_options
from vtr.errors import ConfigError
from vtr.verbs.export import FORMS, Options
from vtr.workspace import Workspace


@with_options("export")
def export(
    options: Options,
    workspace: Annotated[
        Workspace,
        Only(
            "dataset",
            "annotations",
            features="The store to export, or a folder that `vtr search` has embedded.",
            videos="With --fiftyone: where the videos are.",
            model="With --query: the store's own model.",
        ),
    ],
    *,
    run: Annotated[
        Path | None,
        typer.Option(
            help="Folder or name of the run to export. (default: none, a store is)",
            rich_help_panel="A run",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to make of the run.", rich_help_panel="A run")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Export a run with its model card, or a feature store in forms that other tools read.

    A run becomes safetensors, configuration and a card, which gives every number with its protocol,
    N and interval, as `vtr eval --run` measured it: evaluate first. A store becomes
    parquet, WebDataset or Lance, which `vtr features import` reads back bit by bit, or a document
    for FiftyOne.
    """
    if run is None and out is None:
        _export_store(workspace, options, as_json=as_json)
        return
    if run is None or out is None or FORMS & options.given.keys():
        raise ConfigError(
            "a run is exported with --run RUN --out DIR; a store with --parquet, --webdataset, "
            "--lance or --fiftyone, and --features DIR where it is not the workspace's"
        )
    workspace.refuse_typed(
        ("dataset", "annotations", "features", "videos", "model"),
        "is about the export of a store, and --run exports a run. Leave it out",
    )
    from vtr.api.export import export_run
    from vtr.train.run_folders import find_run

    run = find_run(workspace.runs, run)
    card = export_run(run, out, options)
    files = sorted(path.name for path in out.iterdir())
    if as_json:
        print_json({"out": str(out), "files": files})
        return
    say(f"{run} -> {out}: {', '.join(files)}")
    say(f"read {card} before giving it away")


def _export_store(workspace: Workspace, options: Options, *, as_json: bool) -> None:
    from vtr.api.export_store import export_store

    files = export_store(workspace.features, options, workspace)
    if as_json:
        print_json({"features": str(workspace.features), "files": list(map(str, files))})
        return
    for path in files:
        say(f"written: {near(path)}")
