"""`vtr simulate`: what pooling and the number of frames buy, on cached frames, without training."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vtr.api.evaluate import Inputs, read_inputs
from vtr.api.stores import check_same_model
from vtr.charts.files import save
from vtr.clip.backbone import load_backbone
from vtr.errors import UnknownNameError
from vtr.evaluate.reporting.figures import recall_by_frames
from vtr.evaluate.simulate import RULES, PoolingOptions
from vtr.evaluate.simulate import simulate as simulate_pooling
from vtr.files import make_folder, publish
from vtr.progress import embedding, progress
from vtr.settings import resolved
from vtr.train.texts import embed_texts
from vtr.verbs.simulate import Options
from vtr.workspace import Workspace

KINDS = ("maxpool",)


def simulate(
    workspace: Workspace, options: Options, *, kind: str = "maxpool", quiet: bool = False
) -> tuple[dict[str, Any], Path]:
    """Simulates, writes `simulation.json` and its plot; returns the document and its path."""
    if kind not in KINDS:
        raise UnknownNameError("simulation", kind, KINDS)
    inputs = read_inputs(workspace, options)
    folder = options.out or workspace.features / "simulations" / inputs.protocol.name
    make_folder(folder, option="--out")
    rules = PoolingOptions(top=options.top, temperature=options.temperature)
    document = _simulated(workspace, inputs, rules, quiet=quiet)
    path = folder / "simulation.json"
    publish(path, json.dumps(document, indent=1).encode())
    publish(folder / "simulate.json", resolved(workspace, options))
    chart = recall_by_frames(document)
    save(chart, folder / f"{chart.head.name}.png")
    return document, path


def _simulated(
    workspace: Workspace, inputs: Inputs, rules: PoolingOptions, *, quiet: bool
) -> dict[str, Any]:
    task, store = inputs.task, inputs.store
    backbone = load_backbone(workspace.model)
    check_same_model(backbone, store)
    with embedding(len(task.texts), quiet=quiet) as tell:
        texts = embed_texts(backbone, task.texts, cache=store.folder, tell=tell)
    with progress("simulating", quiet=quiet) as update:
        rows = simulate_pooling(
            task,
            texts.pooled,
            inputs.packed,
            options=rules,
            seed=workspace.seed,
            tell=lambda done, total: update(done, total, "combinations"),
        )
    return {
        "schema": 1,
        "kind": "vtr-simulation",
        "protocol": inputs.protocol.name,
        "digest": task.queries.digest,
        "num_videos": len(task.queries.video_ids),
        "num_queries": len(task.queries.texts),
        "coverage": task.coverage.line,
        "sampler": str(store.sampler),
        "backbone": store.spec.backbone,
        "fingerprint": store.fingerprint,
        "options": {"rules": list(RULES), **asdict(rules)},
        "rows": rows,
    }
