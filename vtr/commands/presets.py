"""`vtr presets`: the named settings of a training, every value of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vtr.api.training import AUTO_CHUNK
from vtr.commands.console import print_json

if TYPE_CHECKING:
    from vtr.api.training_job import Job
    from vtr.train.presets import Preset

LAST_BATCH = "incomplete batch"
_ADAPTED = ("lr", "batch_size")
_FOOTNOTE = (
    "* adapted to the data: the rate grows up to 0.003 as features are narrower than 512, a batch "
    "takes at most a tenth of the training videos, 16 or more. A flag wins over its preset."
)


def register(app: typer.Typer) -> None:
    """Adds the command to the app."""
    app.command("presets")(presets)


def presets(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List the presets of `vtr train`: every option each of them sets, and where it comes from."""
    from vtr.commands.tables import echo_wrapped, new_table, print_table
    from vtr.train.presets import PRESETS

    if as_json:
        print_json(
            {
                name: {
                    "summary": preset.summary,
                    "source": preset.source,
                    "adapts": list(_ADAPTED) if preset.adapts else [],
                    "values": preset_values(preset),
                }
                for name, preset in PRESETS.items()
            }
        )
        return
    for name, preset in PRESETS.items():
        echo_wrapped(name, f"{preset.summary}\n{preset.source}", width=12)
    table = new_table("", ("option", *PRESETS))
    shown = [shown_values(preset) for preset in PRESETS.values()]
    for option in shown[0]:
        table.add_row(flag(option), *(values[option] for values in shown))
    print_table(table)
    echo_wrapped("", _FOOTNOTE, width=0)


def preset_values(preset: Preset) -> dict[str, Any]:
    """Returns the value of every option of `vtr train` that a preset sets, as it sets it."""
    settings = preset.settings
    return {
        "head": preset.head,
        "text": preset.text,
        "tune_layers": preset.tune_layers,
        "batches": settings.batch.mode,
        "batch_size": settings.batch.size,
        "captions": settings.batch.captions or "all",
        "optimiser": settings.optimiser,
        "lr": settings.lr,
        "coef_lr": settings.coef_lr,
        "warmup": settings.warmup,
        "weight_decay": settings.weight_decay,
        "clip_norm": settings.clip_norm,
        "epochs": settings.epochs,
        "patience": settings.patience,
        "loss": "reference" if settings.loss.reference else "all",
        "temperature": preset.temperature or "learned",
        "hard_negatives": settings.loss.hard_negatives,
        "mine": settings.mine,
        "chunk": settings.chunk or (AUTO_CHUNK if preset.text == "tune" else 0),
        LAST_BATCH: "left out" if settings.batch.drop_last else "kept",
    }


def shown_values(preset: Preset) -> dict[str, str]:
    """Returns `preset_values` as text; a star where the data at hand change the value."""
    values = {key: _shown(value) for key, value in preset_values(preset).items()}
    adapted = _ADAPTED if preset.adapts else ()
    return {key: f"{value} *" if key in adapted else value for key, value in values.items()}


def resolved_values(job: Job) -> dict[str, Any]:
    """Returns what a training comes to: flags over its preset, adapted to the data."""
    from vtr.train.presets import Preset

    spec = job.spec
    made = Preset(
        "", job.settings, spec.text.mode, spec.text.layers, spec.temperature, head=spec.head
    )
    return preset_values(made)


def flag(option: str) -> str:
    """Returns an option as it is typed; what no flag sets as it is."""
    return option if option == LAST_BATCH else f"--{option.replace('_', '-')}"


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def default_texts() -> dict[str, str]:
    """Returns, for every option that presets set, its default and what other presets make of it.

    >>> default_texts()["epochs"]
    '20; clip4clip, clip-video: 5; two-tower: 10'
    """
    from vtr.train.presets import DEFAULT_PRESET, PRESETS

    shown = {name: shown_values(preset) for name, preset in PRESETS.items()}
    own = shown.pop(DEFAULT_PRESET)
    return {
        option: "; ".join([value.replace(" *", ", adapted to the data"), *_others(value, {
            name: values[option] for name, values in shown.items()
        })])
        for option, value in own.items()
    }  # fmt: skip


def _others(default: str, values: Mapping[str, str]) -> Iterable[str]:
    """Yields "clip4clip, clip-video: 5" for the values that differ from the default."""
    for value in dict.fromkeys(values.values()):
        if value != default:
            yield f"{', '.join(name for name, v in values.items() if v == value)}: {value}"
