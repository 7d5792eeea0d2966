"""`vtr eval`: numbers by a protocol, of a run or without any training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vtr.arithmetic import prepare_arithmetic
from vtr.commands.console import near, print_json, say
from vtr.commands.flags import Only, with_options
from vtr.commands.simulate import ASKED_OF, run_simulation
from vtr.counts import counted
from vtr.errors import ConfigError
from vtr.progress import note
from vtr.settings import flag_of
from vtr.verbs import simulate as simulation
from vtr.verbs.eval import Options
from vtr.workspace import Workspace


@with_options("eval")
def evaluate(
    options: Options,
    workspace: Annotated[
        Workspace, Only(*ASKED_OF, model="Text tower. (default: the workspace's, or the run's)")
    ],
    *,
    simulate: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="'maxpool': compare pooling rules and frame counts, as vtr simulate.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print result.json.")] = False,
) -> None:
    """Evaluate a run, or CLIP without training, on cached features.

    Writes result.json, a table per query and TREC files, and prints every number with its 95 %
    interval. Videos without features stay in the denominator as misses unless you say otherwise.
    """
    if simulate is not None:
        run_simulation(workspace, _simulation(options), simulate, as_json=as_json)
        return None
    prepare_arithmetic()
    workspace.require_videos()
    note("evaluating: reading the captions and the features, then loading the model")
    if options.moments:
        return _moments(workspace, options, as_json=as_json)
    from vtr.api import evaluate as api
    from vtr.commands.tables import print_result

    run = api.evaluate_seeds if options.seeds else api.evaluate
    document, path = run(workspace, options)
    if as_json:
        return print_json(document)
    if options.seeds:
        return _print_seeds(document, path)
    print_result(document)
    note()
    return note(f"written: {near(path)}")


def _moments(workspace: Workspace, options: Options, *, as_json: bool) -> None:
    from vtr.api.moments import evaluate_moments
    from vtr.commands.tables import print_moments

    document, path = evaluate_moments(workspace, options)
    if as_json:
        return print_json(document)
    print_moments(document)
    return note(f"written: {near(path)}")


def _simulation(options: Options) -> simulation.Options:
    """Returns the options of a simulation, which must have been given no others."""
    shared = simulation.Options.model_fields
    given = [
        flag_of(name, field)
        for name, field in Options.model_fields.items()
        if name not in shared and name != "zero_shot" and getattr(options, name) != field.default
    ]
    if given:
        raise ConfigError(
            f"--simulate has no use for {', '.join(given)}: it compares pooling rules on the "
            "cached frames and trains nothing. Leave them out; its own options: vtr simulate --help"
        )
    asked = {name: value for name, value in options.given.items() if name in shared}
    return simulation.Options.of(**asked)


def _print_seeds(summary: dict[str, Any], path: Path) -> None:
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
    note(f"written: {near(path)}, and a result below each of {', '.join(summary['runs'])}")
