"""The options of a training that goes on: those it was started with."""

from __future__ import annotations

from pathlib import Path

from vtr.errors import ConfigError, UnknownNameError
from vtr.settings import Source, merge
from vtr.train.run import CONFIG, read_config
from vtr.train.run_folders import find_interrupted, require_free, seed_folders, workplace
from vtr.verbs.train import Options, Recipe
from vtr.workspace import Workspace


def of_begun_run(workspace: Workspace, options: Options) -> Options:
    """Returns the options of the run to resume; refuses a name that is taken."""
    if options.resume and options.seeds == 1:
        interrupted = find_interrupted(workspace.runs, options.name)
        return _resumed(interrupted, options).changed(name=interrupted.name)
    if options.resume and options.name:
        begun = seed_folders(workspace.runs, options.name)
        return _resumed(begun[0], options) if begun else options
    if options.name and not options.overwrite:
        first = workspace.seed if options.seed is None else options.seed
        require_free(workspace.runs, options.name, range(first, first + options.seeds))
    return options


def _resumed(folder: Path, options: Options) -> Options:
    """Returns the options with which an unfinished run was started."""
    folder = workplace(folder)
    source = f"{folder / CONFIG}: request"
    stored = read_config(folder).get("request") or {}
    try:
        recipe = merge(Recipe, [Source(stored, lambda name: f"{source}: {name}")])
    except UnknownNameError as error:
        raise ConfigError(f"{source}: {error}") from None
    before = recipe.recipe()
    changed = [
        f"--{key.replace('_', '-')} {value} (was {before.get(key, 'not given')})"
        for key, value in options.recipe().items()
        if before.get(key) != value
    ]
    if changed:
        raise ConfigError(
            f"{folder} was started with other settings: {', '.join(changed)}. A resumed run keeps "
            "its own: leave the flags out, or start a new run with --name"
        )
    return options.changed(**recipe.given)
