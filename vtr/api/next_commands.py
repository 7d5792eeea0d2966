"""What to type after a training: the test of its run, or what goes on with it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from vtr.train.headlist import parse_head
from vtr.train.run import read_config
from vtr.workspace import Workspace, workspace_here

_RERANKED = 50


def eval_command(workspace: Workspace, runs: Sequence[str]) -> str:
    """Returns the command that tests a run just trained, or the runs of several seeds."""
    config = read_config(Path(runs[0]))
    protocol = (config.get("request") or {}).get("protocol")
    named, several = runs[0], ""
    if len(runs) > 1:
        named, several = named.rpartition("-seed")[0], " --seeds"
    asked = f" --protocol {shlex.quote(protocol)}" if protocol else ""
    if parse_head(config["model"]["head"]).info.together:
        asked += f" --rerank {_RERANKED}"
    flags = _flags_from_here(workspace, "features", "dataset", "annotations", "videos")
    return f"vtr eval --run {shlex.quote(named)}{several}{asked}{flags}"


def _flags_from_here(workspace: Workspace, *names: str) -> str:
    """Returns the flags without which a command typed here would use other settings than these.

    Such as " --features /data/h14"; empty where the workspace around us says the same.
    """
    here = workspace_here()
    pairs = [(name, getattr(workspace, name)) for name in names]
    return "".join(
        f" --{name} {shlex.quote(str(value))}"
        for name, value in pairs
        if value is not None and value != getattr(here, name)
    )


def resume_command(workspace: Workspace, name: str, *, seeds: int) -> str:
    """Returns the command that goes on with a training, or with all of several seeds."""
    several = f" --seeds {seeds}" if seeds > 1 else ""
    flags = _flags_from_here(
        workspace, "runs", "features", "dataset", "annotations", "videos", "model"
    )
    return f"vtr train{several} --name {shlex.quote(name)} --resume{flags}"
