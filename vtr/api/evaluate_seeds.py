"""`vtr eval --run NAME --seeds`: every seed of a training, and mean and spread of their numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtr.commands.console import say
from vtr.counts import counted
from vtr.progress import note

if TYPE_CHECKING:
    from vtr.commands.evaluate import Request
    from vtr.workspace import Workspace


def evaluate_seeds(
    workspace: Workspace, request: Request, *, out: Path | None, save_similarity: bool
) -> tuple[dict[str, Any], Path]:
    """Evaluates each seed into its own run; returns the summary and the file it is written to.

    Raises:
        ConfigError: No name, no such runs, or one folder for the results of all.
    """
    from vtr.commands.evaluate import evaluate_workspace
    from vtr.train.run import write_json
    from vtr.train.run_folders import summarise

    base, folders = _seeds_of(workspace, request, out)
    documents = []
    for number, folder in enumerate(folders, start=1):
        note(f"evaluating {folder} ({number} of {len(folders)})")
        one = replace(request, run=folder)
        documents.append(evaluate_workspace(workspace, one, save_similarity=save_similarity)[0])
    first = documents[0]
    summary = {
        "runs": [str(folder) for folder in folders],
        "seeds": [document["setup"]["seed"] for document in documents],
        "protocol": first["protocol"]["name"],
        "num_queries": first["protocol"]["num_queries"],
        "num_videos": first["protocol"]["num_videos"],
        "metrics": summarise(
            [{k: cell["value"] for k, cell in d["metrics"].items()} for d in documents]
        ),
    }
    path = base.with_name(f"{base.name}-seeds-{summary['protocol']}.json")
    write_json(path, summary)
    return summary, path


def print_seeds(summary: dict[str, Any], where: Path) -> None:
    """Prints mean, standard deviation, least and greatest of every metric."""
    say(
        f"{summary['protocol']}: {counted(summary['num_queries'], 'query', 'queries')} over "
        f"{counted(summary['num_videos'], 'video')}; {counted(len(summary['runs']), 'seed')}: mean "
        "+- standard deviation (least to greatest)"
    )
    for key, spread in summary["metrics"].items():
        say(
            f"  {key:<18} {spread['mean']:6.1f} +- {spread['sd']:.1f} "
            f"({spread['min']:.1f} to {spread['max']:.1f})"
        )
    note(f"written: {where}, and a result below each of {', '.join(summary['runs'])}")


def _seeds_of(workspace: Workspace, request: Request, out: Path | None) -> tuple[Path, list[Path]]:
    from vtr.errors import ConfigError
    from vtr.train.run import BEST
    from vtr.train.run_folders import seed_folders

    if request.run is None or request.zero_shot:
        raise ConfigError("--seeds needs --run NAME, the name that vtr train --seeds N --name had")
    if out is not None:
        raise ConfigError(
            "--out is one folder, and --seeds writes a result for each seed: leave it out; they go "
            "below the runs"
        )
    for base in (request.run, workspace.runs / request.run):
        found = [
            folder for folder in seed_folders(base.parent, base.name) if (folder / BEST).exists()
        ]
        if found:
            return base, found
    raise ConfigError(
        f"no run {request.run}-seedN, neither here nor in {workspace.runs}. --run takes the name "
        "without -seedN"
    )
