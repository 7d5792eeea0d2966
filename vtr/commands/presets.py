"""`vtr presets`: the named settings of a training, every value of each."""

from __future__ import annotations

from vtr.commands.console import AsJson, print_json
from vtr.commands.tables import echo_wrapped, new_table, print_table
from vtr.train.presets import ADAPTED, LAST_BATCH, PRESETS, listed_values, shown_values, with_chunk

_FOOTNOTE = (
    "* adapted to the data: the rate grows up to 0.003 as features are narrower than 512, a batch "
    "takes at most a tenth of the training videos, 16 or more. A flag wins over its preset."
)


def presets(as_json: AsJson = False) -> None:
    """List the presets of `vtr train`: every option each of them sets, and where it comes from."""
    if as_json:
        print_json(
            {
                name: {
                    "summary": preset.summary,
                    "source": preset.source,
                    "adapts": list(ADAPTED) if preset.adapts else [],
                    "values": listed_values(with_chunk(preset.values)),
                    "with_vision_tune": dict(preset.tuned),
                }
                for name, preset in PRESETS.items()
            }
        )
        return
    for name, preset in PRESETS.items():
        echo_wrapped(name, f"{preset.summary}\n{preset.source}", width=12)
    table = new_table("", ("option", *PRESETS))
    columns = [shown_values(preset) for preset in PRESETS.values()]
    for option in columns[0]:
        flag = option if option == LAST_BATCH else f"--{option.replace('_', '-')}"
        table.add_row(flag, *(values[option] for values in columns))
    print_table(table)
    echo_wrapped("", _FOOTNOTE, width=0)
    for name, preset in PRESETS.items():
        given = preset.values.items()
        changed = [f"--{k.replace('_', '-')} {v}" for k, v in (preset.tuned.items() - given)]
        if changed:
            echo_wrapped(
                "", f"With --vision tune {name} has {', '.join(sorted(changed))}.", width=0
            )
