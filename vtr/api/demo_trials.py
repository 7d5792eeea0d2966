"""The rows of `vtr demo`: what is trained and evaluated in the demo world, and what each costs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import vtr
from vtr.counts import counted, human_seconds
from vtr.errors import VtrError
from vtr.evaluate.reporting.results import Result, load_result
from vtr.files import file_sha256, publish
from vtr.json_files import read_json
from vtr.progress import Listener, listening, note
from vtr.result_schema import RESULT_FILE
from vtr.train.headlist import head_names, parse_head
from vtr.workspace import Workspace, settings

SAMPLERS = ("uniform", "motion", "diversity")
TRIAL_FILE = "trial.json"
"""Beside a result, written last: what was asked, and the CPU seconds that it took."""
# The text tower has read single frames only: to it, both sentences of a twin are nearly one (cosine
# 0.995). So it must be trained, and twins must meet in a batch, which `mine` sees to.
_TUNED: Mapping[str, Any] = {
    "text": "tune", "tune_layers": 2, "coef_lr": 0.5, "captions": "2", "batch_size": 40,
    "mine": "global", "patience": 0,
}  # fmt: skip
_FROZEN: Mapping[str, Any] = {
    "text": "projection", "captions": "2", "batch_size": 40, "mine": "global", "patience": 0,
    "epochs": 12,
}  # fmt: skip
# Both towers end to end: three seeds of it found the order of events in 45 to 48 % of the queries,
# the text tower alone in 34 to 35 %.
_TOWERS: Mapping[str, Any] = {
    "vision": "tune", "lr": 1e-3, "coef_lr": 0.5, "captions": "2", "batch_size": 40,
    "mine": "global", "patience": 0, "epochs": 10,
}  # fmt: skip
# It starts at chance and pays for every pair: small batches give more steps for fewer pairs (loss
# 3.9 after 10 steps of 40 videos, 0.4 after 100 of 16 in the same time), and hard negatives say
# nothing to what knows nothing. Two layers cost a third of four: the last reads one token only.
_OWN: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "tightTransf": ("tightTransf:layers=2", {"mine": "batch", "batch_size": 16, "epochs": 8})
}
_RERANKED = 50
# CPU seconds of an epoch of `_FROZEN`, measured; they only say how much is left.
_EPOCH_SECONDS: Mapping[str, float] = {
    "clip2video": 0.66, "eercf": 0.41, "maxsim": 0.63, "seqTransf": 0.26, "tightTransf": 3.7,
    "tokenbinder": 0.44, "wti": 0.43, "xpool": 0.31,
}  # fmt: skip
_TRUSTED = 20.0
"""Of these so many are believed before the clock counts more."""
# Where heads are held against meanP: text, sampler, other texts that stand beside it.
_HELD: Sequence[tuple[str, str, Sequence[str]]] = (
    ("projection", "uniform", ()),
    ("projection", "diversity", ()),
    ("tune", "uniform", ("towers",)),
)
_RESAMPLES = 2000  # of a difference: p no smaller than 0.0005


@dataclass(frozen=True)
class Trial:
    """One row of the table: a head with a sampler's frames."""

    head: str
    sampler: str
    options: Mapping[str, Any] | None = None  # of the training; None is zero-shot
    seed: int = 0

    @property
    def name(self) -> str:
        """Of the run, and in the report."""
        text = "zero-shot" if self.options is None else str(self.options.get("text", "towers"))
        seed = f"-seed{self.seed}" * bool(self.seed)
        return f"{self.head.partition(':')[0]}-{text}-{self.sampler}{seed}"

    @property
    def rerank(self) -> int | None:
        """How many of each list are scored where a pair costs a forward pass; None: all."""
        info = parse_head(self.head).info
        costly = self.options is not None and (info.together or not info.scaled)
        return _RERANKED if costly else None

    @property
    def expected_seconds(self) -> float:
        """About how long it takes, to say how much is left."""
        if self.options is None:
            return 1.0
        epoch = _EPOCH_SECONDS.get(self.head.partition(":")[0], 0.08)
        if "vision" in self.options:
            epoch += 4.5
        elif self.options["text"] == "tune":
            epoch += 0.5
        return 1.5 + epoch * float(self.options["epochs"])


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
    """Returns the rows of `vtr demo --full`.

    Beside the short ones: meanP's text tower and both towers with three seeds, more heads with a
    tuned text tower, and every head with three samplers on a projection of the text.
    """
    seeds = [
        Trial("meanP", "uniform", options, seed)
        for options in ({**_TUNED, "epochs": 10}, _TOWERS)
        for seed in range(3)
    ]
    heads = ("maxP", "clip2video", "xpool", "wti", "maxsim", "eercf")
    tuned = [Trial(head, "uniform", {**_TUNED, "epochs": 40}) for head in heads]
    every = [
        Trial(head, sampler, {**_FROZEN, **own})
        for head, own in (_OWN.get(name, (name, {})) for name in head_names())
        for sampler in SAMPLERS
    ]
    return list({one.name: one for one in [*short_trials(), *seeds, *tuned, *every]}.values())


def measure_heads(
    workspace: Workspace, trials: Sequence[Trial], *, quiet: bool = False
) -> tuple[list[dict[str, Any]], Path]:
    """Trains and evaluates every trial in turn; keeps those that were measured before.

    Returns:
        The documents of the results, each with its "path" and its "cost" (`trial.json`), and the
        page that shows them.
    """
    results = _Results(workspace)
    found = {trial.name: results.read(trial) for trial in trials}
    missing = [trial for trial in trials if found[trial.name] is None]
    if not quiet:
        for line in _plan_lines(trials, missing, results.folder):
            note(line)
    start, done = time.perf_counter(), 0.0
    with one_thread(), _advice(found):
        for trial in missing:
            found[trial.name] = document = results.measure(trial)
            done += trial.expected_seconds
            left = sum(one.expected_seconds for one in missing) - done
            left *= (time.perf_counter() - start + _TRUSTED) / (done + _TRUSTED)
            if not quiet:
                number = sum(one is not None for one in found.values())
                note(_line(number, len(found), trial, document, left))
    documents = [found[trial.name] or {} for trial in trials]
    folders, title = [results.folder / trial.name for trial in trials], "The vtr demo world"
    page = vtr.make_report(folders, workspace.root / "report", title=title, pictures=False)
    return documents, page


@dataclass(frozen=True)
class _Results:
    """The results of a workspace, and whether they are what is asked for now."""

    workspace: Workspace

    @property
    def folder(self) -> Path:
        return self.workspace.root / "results"

    def read(self, trial: Trial) -> dict[str, Any] | None:
        """Returns what was measured before on the same world with the same options, if it was."""
        folder = self.folder / trial.name
        try:
            record = read_json(folder / TRIAL_FILE, needed="what a row of vtr demo was asked")
            result = load_result(folder)
        except VtrError:
            return None
        if record.get("asked") != self._asked(trial) or result.outdated:
            return None
        return self._document(result, record)

    def measure(self, trial: Trial) -> dict[str, Any]:
        """Trains and evaluates, and says so in the folder of the result when all is done."""
        folder, workspace = self.folder / trial.name, self.workspace
        (folder / TRIAL_FILE).unlink(missing_ok=True)
        start, run = time.process_time(), None
        with listening(Listener()):  # the row's own line says it all
            if trial.options is not None and "vision" in trial.options:
                workspace = _with_pictures(workspace, trial.sampler)
            if trial.options is not None:
                own: dict[str, Any] = {
                    "name": trial.name,
                    "sampler": trial.sampler,
                    "seed": trial.seed,
                }
                run = vtr.train_head(workspace, trial.head, device="cpu", **own, **trial.options)
            trained = time.process_time()
            result = vtr.evaluate_run(
                workspace, run, protocol="demo", sampler=trial.sampler, rerank=trial.rerank,
                out=folder, device="cpu",
            )  # fmt: skip
        record = {
            "asked": self._asked(trial),
            "train_cpu_seconds": trained - start if run is not None else 0.0,
            "evaluate_cpu_seconds": time.process_time() - trained,
        }
        publish(folder / TRIAL_FILE, json.dumps(record, indent=2).encode())
        return self._document(result, record)

    @cached_property
    def _ground(self) -> dict[str, Any]:
        """What all rows stand on."""
        import torch

        assert self.workspace.annotations is not None  # a demo workspace has them
        return {
            "frames": self.workspace.frames,
            "workspace_seed": self.workspace.seed,
            "features": vtr.open_features(self.workspace).fingerprint,
            "annotations": file_sha256(self.workspace.annotations / "demo.json"),
            "versions": {"vtr": vtr.__version__, "torch": torch.__version__},
        }

    def _asked(self, trial: Trial) -> dict[str, Any]:
        """Everything that a row's numbers come from, in JSON types."""
        return {
            "head": trial.head,
            "sampler": trial.sampler,
            "options": None if trial.options is None else dict(trial.options),
            "seed": trial.seed,
            "rerank": trial.rerank,
            **self._ground,
        }

    @staticmethod
    def _document(result: Result, record: Mapping[str, Any]) -> dict[str, Any]:
        cost = {key: value for key, value in record.items() if key != "asked"}
        return {**result.document, "path": str(result.folder / RESULT_FILE), "cost": cost}


def _plan_lines(trials: Sequence[Trial], missing: Sequence[Trial], folder: Path) -> Iterator[str]:
    kept = len(trials) - len(missing)
    if kept:
        yield (
            f"kept {kept} of {counted(len(trials), 'row')}, measured before with the same options "
            f"(remove {folder} to measure them anew)"
        )
    if missing:
        seconds = human_seconds(sum(one.expected_seconds for one in missing))
        yield f"measuring {counted(len(missing), 'row')}: about {seconds} on a quiet core"


def _line(number: int, total: int, trial: Trial, document: Mapping[str, Any], left: float) -> str:
    """Says what came out of a row, and how much is left."""
    groups = ", ".join(
        f"{name} {group['metrics']['t2v/R@1']['value']:.1f}"
        for name, group in document["groups"].items()
    )
    seconds = human_seconds(sum(document["cost"].values()))
    more = f"; about {human_seconds(left)} left" if left > 0 else ""
    return f"{number:>2} of {total}  {trial.name}: R@1 {groups}, in {seconds} of CPU{more}"


@contextmanager
def _advice(found: Mapping[str, object]) -> Iterator[None]:
    """Says what is kept where the measuring is stopped."""
    try:
        yield
    except KeyboardInterrupt:
        done = sum(one is not None for one in found.values())
        note(
            f"stopped: {done} of {counted(len(found), 'row')} are measured and kept; the same "
            "command goes on"
        )
        raise


@contextmanager
def one_thread() -> Iterator[None]:
    """Lets torch compute in one thread.

    With two the tiny CLIP takes 1.3 times as long, training heads of this size twice the CPU time
    and no less by the clock (measured), and the numbers would depend on how many cores there are.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _with_pictures(workspace: Workspace, sampler: str) -> Workspace:
    """Returns the workspace with a store of its own that keeps the pictures of one sampler."""
    kept = settings(workspace, features=workspace.root / "features-pictures", sampler=sampler)
    vtr.extract_features(kept, device="cpu", crops="raw")
    return kept


# ---- what the rows say together


def gains(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns what each head gives over meanP, where both read the same frames and text.

    With a tuned text tower that is meanP with both towers tuned too. Nothing of frames and text for
    which meanP is missing or alone.

    Returns:
        Rows of "text", "sampler", "head", "r1" (t2v R@1 in percent), "difference" with "low",
        "high" (95 %) and "p" (paired, Holm's correction; None for meanP itself), and "cost"; the
        best first.
    """
    found = []
    for text, sampler, others in _HELD:
        rows = [
            row
            for row in results
            if row["setup"]["sampler"] == sampler
            and row["setup"]["text"] in (text, *others)
            and not row["setup"]["seed"]
        ]
        bases = [one for one in rows if _label(one, text) == "meanP"]
        if bases and len(rows) > 1:
            rows.remove(bases[0])
            held = ({"text": text, "sampler": sampler, **r} for r in _against(bases[0], rows, text))
            found += sorted(held, key=lambda row: -row["r1"])
    return found


def _label(row: Mapping[str, Any], text: str) -> str:
    setup = row["setup"]
    return str(setup["head"]) if setup["text"] == text else f"{setup['head']}, {setup['text']}"


def _against(
    base: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], text: str
) -> Iterator[dict[str, Any]]:
    folders = [Path(row["path"]).parent for row in (base, *rows)]
    compared = vtr.compare_results(*folders, resamples=_RESAMPLES)
    for row, one in zip(rows, compared, strict=True):
        metric = next(m for m in one.metrics if m.metric == "t2v/R@1")
        yield {
            "head": _label(row, text), "r1": metric.b, "difference": metric.difference,
            "low": metric.low, "high": metric.high, "p": metric.p_adjusted, "cost": row["cost"],
        }  # fmt: skip
    zero = {"difference": 0.0, "low": 0.0, "high": 0.0, "p": None}
    yield {"head": "meanP", "r1": _r1(base)["value"], **zero, "cost": base["cost"]}


def warnings(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Says of which rows nothing can be learned: no better than chance, or than no training."""
    untrained = {r["setup"]["sampler"]: _r1(r) for r in results if r["setup"]["zero_shot"]}
    lines = []
    for result in results:
        setup, cell = result["setup"], _r1(result)
        chance = 100 / result["protocol"]["num_videos"]
        floor = untrained.get(setup["sampler"])
        name = f"{setup['head']}, {setup['text']}, {setup['sampler']}"
        if cell["low"] <= chance:
            lines.append(f"{name}: no better than chance ({chance:.1f} %)")
        elif floor is not None and not setup["zero_shot"] and cell["high"] < floor["value"]:
            lines.append(f"{name}: R@1 {cell['value']:.1f}, below {floor['value']:.1f} untrained")
    return lines


def _r1(result: Mapping[str, Any]) -> Mapping[str, float]:
    cell: Mapping[str, float] = result["metrics"]["t2v/R@1"]
    return cell
