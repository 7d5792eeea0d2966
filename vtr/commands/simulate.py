"""`vtr simulate`: what pooling and the number of frames buy, on cached frames, without training."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vtr.arithmetic import prepare_arithmetic
from vtr.commands.console import print_json
from vtr.progress import embedding, note, progress

if TYPE_CHECKING:
    from vtr.api.scoring import Material
    from vtr.workspace import Workspace

KINDS = ("maxpool",)


def register(app: typer.Typer) -> None:
    """Adds the command to the app."""
    app.command("simulate")(simulate)


def simulate(
    kind: Annotated[str, typer.Argument(help="What to simulate: maxpool.")] = "maxpool",
    protocol: Annotated[str | None, typer.Option(help="Which queries and videos.")] = None,
    sampler: Annotated[
        str | None, typer.Option(help="Whose frames; on a dense store any sampler.")
    ] = None,
    missing: Annotated[
        str, typer.Option(help="Videos without features: miss (counted), restrict, or fail.")
    ] = "miss",
    gallery: Annotated[
        str | None,
        typer.Option(help="Of a folder of your own: folder (all its videos) or captioned."),
    ] = None,
    top: Annotated[int, typer.Option(help="k of the rule top-k.")] = 3,
    temperature: Annotated[float, typer.Option(help="Of the rule attention.")] = 0.1,
    out: Annotated[Path | None, typer.Option(help="Folder for the result.")] = None,
    features: Annotated[Path | None, typer.Option(help="Folder of the store.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Reader of the annotations.")] = None,
    annotations: Annotated[Path | None, typer.Option(help="Folder of the annotations.")] = None,
    videos: Annotated[Path | None, typer.Option(help="Folder of the videos.")] = None,
    model: Annotated[str | None, typer.Option(help="Text tower: hub id or folder.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Compare pooling rules at 1, 2, 4, ... frames on cached features; nothing is trained.

    Writes simulation.json with every number and its 95 % interval, and their plot.
    """
    prepare_arithmetic()
    from vtr.api.stores import resolve

    workspace = resolve(
        features=features, dataset=dataset, annotations=annotations, videos=videos, model=model
    )
    run_simulation(
        workspace,
        kind,
        protocol=protocol,
        sampler=sampler,
        missing=missing,
        gallery=gallery,
        options={"top": top, "temperature": temperature},
        out=out,
        quiet=quiet,
        as_json=as_json,
    )


def run_simulation(
    workspace: Workspace,
    kind: str,
    *,
    protocol: str | None,
    sampler: str | None,
    missing: str = "miss",
    gallery: str | None = None,
    options: dict[str, Any] | None = None,
    out: Path | None = None,
    quiet: bool = False,
    as_json: bool = False,
) -> None:
    """Simulates, writes `simulation.json` and the plot, prints the table.

    Raises:
        UnknownNameError: Another kind than `maxpool`.
        StoreWriteError: The file system refused.
    """
    if not quiet:
        note("simulating: reading the captions and the features, then loading the model")
    from vtr.api.scoring import gather
    from vtr.errors import UnknownNameError
    from vtr.evaluate.simulate import PoolingOptions
    from vtr.files import make_folder, publish

    if kind not in KINDS:
        raise UnknownNameError("simulation", kind, KINDS)
    settings = PoolingOptions(**(options or {}))
    material = gather(workspace, protocol, sampler=sampler, missing=missing, gallery=gallery)
    folder = out or workspace.features / "simulations" / material.protocol.name
    make_folder(folder, option="--out")
    document = _simulated(material, settings, quiet=quiet or as_json)
    path = folder / "simulation.json"
    publish(path, json.dumps(document, indent=1).encode())
    _plot(document, folder)
    if as_json:
        print_json(document)
        return
    from vtr.commands.tables import print_simulation

    print_simulation(document)
    note()
    note(f"written: {path}")


def _plot(document: dict[str, Any], folder: Path) -> None:
    """Draws t2v R@1 against the number of frames, one line with intervals per rule."""
    from vtr.charts.files import save
    from vtr.evaluate.reporting.figures import recall_by_frames

    chart = recall_by_frames(document)
    save(chart, folder / f"{chart.head.name}.png")


def _simulated(material: Material, options: Any, *, quiet: bool) -> dict[str, Any]:
    from vtr.api.stores import check_same_model
    from vtr.clip.backbone import load_backbone
    from vtr.evaluate.simulate import simulate as simulate_pooling
    from vtr.train.texts import embed_texts

    backbone = load_backbone(material.workspace.model)
    check_same_model(backbone, material.store)
    asked, cache = material.task.texts, material.store.folder
    with embedding(len(asked), quiet=quiet) as tell:
        texts = embed_texts(backbone, asked, cache=cache, tell=tell)
    with progress("simulating", quiet=quiet) as update:
        rows = simulate_pooling(
            material.task,
            texts.pooled,
            material.packed,
            options=options,
            seed=material.workspace.seed,
            tell=lambda done, total: update(done, total, "combinations"),
        )
    return {
        "schema": 1,
        "kind": "vtr-simulation",
        "protocol": material.protocol.name,
        "digest": material.task.queries.digest,
        "num_videos": len(material.task.queries.video_ids),
        "num_queries": len(material.task.queries.texts),
        "coverage": material.task.coverage.line,
        "sampler": str(material.store.sampler),
        "backbone": material.store.spec.backbone,
        "fingerprint": material.store.fingerprint,
        "options": asdict(options),
        "rows": [asdict(row) for row in rows],
    }
