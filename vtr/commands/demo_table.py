"""The demo's table: heads and samplers against the three groups whose ceilings are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vtr.workspace import Workspace

SAMPLERS = ("uniform", "motion", "diversity")
_TUNED: Mapping[str, Any] = {
    "text": "tune",
    "tune_layers": 2,
    "coef_lr": 0.5,
    "captions": "2",
    "batch_size": 40,
    "mine": "global",
    "patience": 0,
}
"""The text tower has read single frames only: to it, both sentences of a twin are nearly one
(cosine 0.995). So it must be trained, and twins must meet in a batch, which `mine` sees to."""
_FROZEN: Mapping[str, Any] = {
    "text": "projection",
    "captions": "2",
    "batch_size": 40,
    "mine": "global",
    "patience": 0,
    "epochs": 12,
}
_SHORTER: Mapping[str, Mapping[str, Any]] = {"tightTransf": {"epochs": 3}}
"""A transformer over every pair: an epoch takes half a minute even here."""


@dataclass(frozen=True)
class Trial:
    """One row of the table."""

    head: str  # Label of the head
    sampler: str  # Whose frames
    settings: Mapping[str, Any] | None = None  # Of the training; None is zero-shot

    @property
    def name(self) -> str:
        """Of the run, and in the report."""
        text = "zero-shot" if self.settings is None else str(self.settings["text"])
        return f"{self.head.partition(':')[0]}-{text}-{self.sampler}"


def short_trials() -> list[Trial]:
    """Returns the rows of `vtr demo`: what can be measured in a minute."""
    # Two of CLIP4Clip's four layers, and small batches: more steps for the same time. Which epoch
    # the rule of the twins is found in is chance (within twins, four runs of 30 or 36 epochs: 92,
    # 92, 88, 93 %; four layers, batches of 40, 40 epochs: 94, 80, 89 %).
    small: Mapping[str, Any] = {"epochs": 30, "batch_size": 24}
    tuned = {"meanP": {"epochs": 10}, "seqLSTM": {"epochs": 24}, "seqTransf:layers=2": small}
    return [
        *[Trial("meanP", sampler) for sampler in SAMPLERS],
        *[Trial(head, "uniform", {**_TUNED, **own}) for head, own in tuned.items()],
    ]


def full_trials() -> list[Trial]:
    """Returns the rows of `vtr demo --full`: every head with three samplers, and the tuned ones."""
    from vtr.train.headlist import head_names

    every = [
        Trial(head, sampler, {**_FROZEN, **_SHORTER.get(head, {})})
        for head in head_names()
        for sampler in SAMPLERS
    ]
    heads = ("maxP", "clip2video", "xpool", "wti")
    tuned = [Trial(head, "uniform", {**_TUNED, "epochs": 40}) for head in heads]
    return [*short_trials(), *tuned, *every]


def measure(workspace: Workspace, trials: Sequence[Trial], *, quiet: bool) -> list[dict[str, Any]]:
    """Trains and evaluates every trial in turn; returns their results, as in `result.json`."""
    from vtr.progress import progress

    results = []
    with progress("measuring", quiet=quiet) as update:
        for number, trial in enumerate(trials):
            update(number, len(trials), trial.name)
            results.append(_measured(workspace, trial))
        update(len(trials), len(trials), "heads")
    return results


def _measured(workspace: Workspace, trial: Trial) -> dict[str, Any]:
    from vtr.api.training import Request
    from vtr.commands import evaluate, train

    folder = workspace.root / "results" / trial.name
    run = None
    if trial.settings is not None:
        request = Request(head=trial.head, sampler=trial.sampler, seed=0, **trial.settings)
        place = train.Place(
            name=trial.name, overwrite=True, resume=False, quiet=True, tensorboard=False
        )
        train.train_workspace(workspace, request, place, device="cpu")
        run = workspace.runs / trial.name
    asked = evaluate.Request(
        protocol="demo",
        zero_shot=run is None,
        run=run,
        sampler=trial.sampler,
        missing="miss",
        ks=(1, 5, 10),
        dual_softmax=False,
        qb_norm=False,
        rerank=None,
        force=False,
        device="cpu",
    )
    document, path = evaluate.evaluate_workspace(workspace, asked, out=folder)
    return {**document, "path": str(path)}


def write_page(workspace: Workspace, results: Sequence[Mapping[str, Any]]) -> Path:
    """Writes the HTML report over all results; returns its path."""
    from vtr.api.report import make_report

    paths = [str(result["path"]) for result in results]
    return make_report(paths, workspace.root / "report", title="The vtr demo world", pictures=False)


def print_trials(results: Sequence[Mapping[str, Any]]) -> None:
    """Prints one row per result: R@1 by group with 95 % intervals, and the choice within twins."""
    from vtr.commands.tables import interval_text, new_table, print_table

    first = results[0]["groups"]
    counts = ", ".join(f"{name} {group['n']}" for name, group in first.items())
    table = new_table(
        f"t2v R@1 by group, and order within twins (chance 50 %); queries: {counts}; seed 0",
        ("head, text, frames", *first, "within twins"),
        caption="95 % intervals; the best epoch was chosen on the validation split",
    )
    for result in results:
        setup, pair = result["setup"], result["pairs"]["order"]
        cells = [interval_text(result["groups"][name]["metrics"]["t2v/R@1"]) for name in first]
        text = "zero-shot" if setup["zero_shot"] else setup["text"]
        table.add_row(
            f"{setup['head']}\n{text}, {setup['sampler']}",
            *cells,
            interval_text({**pair, "value": pair["accuracy"]}),
        )
    print_table(table)
