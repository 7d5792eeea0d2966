"""Results as tables for people: on stdout, readable with and without colour."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import typer

from vtr.commands.console import say
from vtr.counts import counted, percent
from vtr.foreign import printable, screen
from vtr.progress import note
from vtr.remote import uri_of

_LEGEND = (
    "R@k and MRR in %, with 95 % intervals. t2v: text to video; v2t: video to text (its first "
    "caption); v2t_groups: the same by groups of captions"
)
_COLUMNS = ("R@", "MedR", "MeanR", "MRR")  # the rest stands in result.json
_SMALL_SAMPLE = 30
_NARROWEST = 20  # characters, beside a label
MAX_WIDTH = 1000
_GLUE = "\ue000"  # a blank at which no line is broken: private use, in no line that is `printable`


def echo_wrapped(label: str, text: str, *, width: int) -> None:
    """Prints a label and a text beside it, whose lines end where the terminal does.

    A line is broken between words, and what stands between two " · " only where it is longer.
    """
    room = max(shutil.get_terminal_size().columns - width, _NARROWEST)
    for line in text.split("\n"):
        phrases = [p if len(p) > room - 2 else p.replace(" ", _GLUE) for p in line.split(" · ")]
        joined = f" ·{_GLUE}".join(phrases) if len(phrases) > 1 else line
        wrapped = textwrap.wrap(joined, room, break_long_words=False, break_on_hyphens=False)
        for part in wrapped or [""]:
            say(f"{label:<{width}}{part.replace(_GLUE, ' ')}".rstrip())
            label = ""


def print_result(document: Mapping[str, Any]) -> None:
    """Prints one result: its line, the numbers with intervals, groups, published context."""
    echo_wrapped("", result_line(document), width=0)
    print_table(_numbers(document["metrics"], "as measured"))
    for name, changed in document["postprocessed"].items():
        kind = "sees all test queries at once" if changed["transductive"] else "bank: training"
        print_table(_numbers(changed["metrics"], f"with {name} ({kind})"))
    echo_wrapped("", _LEGEND, width=0)
    if document["groups"]:
        print_table(_groups(document))
    published = _published(document)
    if published is not None:
        print_table(published)


def result_line(document: Mapping[str, Any]) -> str:
    """Returns what a number must never be quoted without."""
    protocol, coverage, setup = document["protocol"], document["coverage"], document["setup"]
    name = protocol["name"] + ("" if protocol["published"] else " (NOT the published lists)")
    queries = counted(protocol["num_queries"], "query")
    parts = [
        f"{name}: {queries} over {counted(protocol['num_videos'], 'video')}",
        f"coverage {coverage['present']:,}/{coverage['videos']:,} ({coverage['policy']})",
        f"sampler {setup['sampler']} ({setup['frames_per_video']:.1f} frames)",
        *(["zero-shot"] if setup["zero_shot"] else []),
        f"head {setup['head']}",
        f"text {setup['text']}",
        f"{setup['backbone']}",
        f"selection {setup['selection']}",
    ]
    if setup["rerank"]:
        parts.append(f"first {setup['rerank']} of mean pooling re-ranked")
    if setup["trained_on_test"]:
        parts.append(f"TRAINED ON {counted(setup['trained_on_test'], 'test video').upper()}")
    if setup["trained_on_test"] is None:
        parts.append("training videos unknown")
    return printable(" · ".join(parts))


def _numbers(metrics: Mapping[str, Any], title: str) -> Any:
    directions = list(dict.fromkeys(key.partition("/")[0] for key in metrics))
    names = [key.partition("/")[2] for key in metrics if key.startswith(f"{directions[0]}/")]
    columns = [name for name in names if name.startswith(_COLUMNS)]
    table = new_table(title, ("", "N", *columns))
    for direction in directions:
        cells = [metrics[f"{direction}/{column}"] for column in columns]
        table.add_row(direction, f"{cells[0]['n']:,}", *[interval_text(cell) for cell in cells])
    return table


def new_table(title: str, columns: Sequence[str], *, caption: str | None = None) -> Any:
    """Returns an empty table, narrow enough for 80 characters."""
    from rich import box
    from rich.table import Table

    class TextTable(Table):
        """A table whose cells are text of anyone and no markup."""

        def add_row(self, *cells: Any, **style: Any) -> None:
            super().add_row(*[screen(c) if isinstance(c, str) else c for c in cells], **style)

    table = TextTable(
        title=screen(title),
        caption=caption,
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
        pad_edge=False,
    )
    for number, column in enumerate(columns):
        if number:
            table.add_column(column, justify="right", no_wrap=True, min_width=len(column))
        else:
            table.add_column(column, justify="left")
    return table


def print_table(table: Any) -> None:
    """Prints a table on stdout, whole: a narrow terminal breaks its lines, but loses no digit.

    Where stdout is not Unicode (LC_ALL=C), typer's echo knows what to do, and rich does not.
    """
    from rich.console import Console

    console = Console(markup=False, emoji=False, highlight=False, soft_wrap=True)
    for column in table.columns:
        if column.no_wrap:  # rich takes the longest word for what a cell needs, and cuts the others
            room = (console.measure(cell).maximum for cell in column.cells)
            column.min_width = max(column.min_width or 0, *room)
    needed = console.measure(table, options=console.options.update_width(MAX_WIDTH)).minimum
    console.width = max(console.width, needed)
    with console.capture() as captured:
        console.print()
        console.print(table)
    typer.echo(captured.get(), nl=False)


def interval_text(cell: Mapping[str, float]) -> str:
    """Returns a value above its interval.

    >>> interval_text({"value": 31.14, "low": 28.2, "high": 34.0}).splitlines()
    ['31.1', '28.2-34.0']
    """
    return f"{cell['value']:.1f}\n{cell['low']:.1f}-{cell['high']:.1f}"


def _groups(document: Mapping[str, Any]) -> Any:
    columns = ("group", "N", "R@1", "R@5", "R@10", "within pairs")
    table = new_table("by group (text to video)", columns)
    for name, group in document["groups"].items():
        pair = document["pairs"].get(name)
        small = " (few)" if group["n"] < _SMALL_SAMPLE else ""
        within = "" if pair is None else interval_text({**pair, "value": pair["accuracy"]})
        cells = [
            interval_text(group["metrics"][key]) if key in group["metrics"] else ""
            for key in ("t2v/R@1", "t2v/R@5", "t2v/R@10")
        ]
        table.add_row(name, f"{group['n']:,}{small}", *cells, within)
    return table


def _published(document: Mapping[str, Any]) -> Any | None:
    from vtr.evaluate.published import published_numbers

    protocol, setup = document["protocol"], document["setup"]
    rows = published_numbers(protocol["name"], setup["backbone"]) if protocol["published"] else []
    if not rows:
        return None
    title = f"published by others for {protocol['name']} with {rows[0].backbone} (context)"
    table = new_table(title, ("method", "R@1", "R@5", "R@10"))
    for row in rows:
        cells = [
            "" if value is None else f"{value:.1f}"
            for value in (row.recall_at_1, row.recall_at_5, row.recall_at_10)
        ]
        table.add_row(f"{row.method} ({row.source})", *cells)
    return table


def print_moments(document: Mapping[str, Any]) -> None:
    """Prints the numbers of moments, with what they must never be quoted without."""
    protocol, coverage, setup = document["protocol"], document["coverage"], document["setup"]
    queries, videos = (
        counted(protocol[name], noun)
        for name, noun in (("num_queries", "query"), ("num_videos", "video"))
    )
    gap = setup["median_gap_seconds"]
    every = "one frame a video" if gap is None else f"a frame every {gap:.2g} s"
    line = (
        f"{protocol['name']}: {queries} over {videos}, {coverage['missing_videos']:,} without "
        f"features ({coverage['policy']}) · sampler "
        f"{setup['sampler']}, {every} · zero-shot · "
        f"{setup['backbone']}"
    )
    echo_wrapped("", line, width=0)
    table = new_table("moments, in percent with 95 % intervals", ("measure", "N", "value", "95 %"))
    for name, cell in document["metrics"].items():
        interval = f"{cell['low']:.1f}-{cell['high']:.1f}"
        table.add_row(name, f"{cell['n']:,}", f"{cell['value']:.1f}", interval)
    print_table(table)


def print_hits(hits: Sequence[Any], *, levels: bool) -> None:
    """Prints moments; in terminals that know links the name opens the file at the moment.

    `levels` say how they stand against unrelated sentences, which those of pictures cannot.
    """
    from rich.style import Style
    from rich.text import Text

    from vtr.searching.sheet import clock

    columns = ("", "start", "end", "best", "score", *["level"] * levels, "video")
    table = new_table("", columns)
    # The name is last: where it is long, the numbers stay where they are.
    table.columns[-1].justify = "left"
    for number, hit in enumerate(hits, start=1):
        name: Any = printable(hit.video_id)
        if hit.path is not None:
            link = f"{uri_of(hit.path)}#t={hit.start_seconds:.1f}"
            name = Text(name, style=Style(link=link))
        times = [clock(t) for t in (hit.start_seconds, hit.end_seconds, hit.best_seconds)]
        scores = [f"{hit.score:.3f}", *[percent(hit.level)] * levels]
        table.add_row(f"{number}", *times, *scores, name)
    print_table(table)


def print_simulation(document: Mapping[str, Any]) -> None:
    """Prints t2v R@1 of every rule at every number of frames."""
    rows: Sequence[Mapping[str, Any]] = document["rows"]
    counts = list(dict.fromkeys(row["frames"] for row in rows))
    title = (
        f"{document['protocol']}: t2v R@1 by pooling rule and frames per video "
        f"({counted(document['num_queries'], 'query')}, {document['coverage']}, sampler "
        f"{document['sampler']}, {document['backbone']}, no training)"
    )
    echo_wrapped("", title, width=0)
    table = new_table("", ("rule", *map(str, counts)), caption="95 % intervals")
    for rule in dict.fromkeys(row["rule"] for row in rows):
        cells = {row["frames"]: row["metrics"]["t2v/R@1"] for row in rows if row["rule"] == rule}
        table.add_row(rule, *[interval_text(cells[count]) for count in counts])
    print_table(table)


_COLUMNS_AT_ONCE = 6  # so many fit beside the longest name into 80 characters


def print_study(facts: dict[str, Any]) -> None:
    """Prints what a study of samplers measured, some columns at a time."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from vtr.api.samplers import columns, ordered

    rows = ordered(facts)
    shown = columns(rows)
    for start in range(0, len(shown), _COLUMNS_AT_ONCE):
        part = shown[start : start + _COLUMNS_AT_ONCE]
        table = Table(box=None, pad_edge=False)
        table.add_column("sampler", no_wrap=True)
        for column in part:
            table.add_column(column.word, justify="right", no_wrap=True)
        for number, row in enumerate(rows):
            table.add_row(
                Text(printable(row["sampler"])), *[_spelled(column, number) for column in part]
            )
        Console().print(table)
        say("")
    for column in shown:
        note(f"  {column.word:<11}{column.title}: {column.note}")


def _spelled(column: Any, number: int) -> str:
    from vtr.extract.study_plot import is_known

    value = column.values[number]
    return "-" if value is None or not is_known(value) else str(column.show(value))


def print_searches(searches: Sequence[Mapping[str, Any]]) -> None:
    """Prints what three captions of the test clips find, each in its best moment."""
    say()
    say("Three sentences of the test clips, and the moment that vtr search finds for each:")
    for one in searches:
        say(f'  "{one["sentence"]}"')
        found = [*one["hits"], *one["nearest"]]
        if found:
            hit, doubt = found[0], "" if one["match"] else ", unsure"
            right = "" if hit["video_id"] == one["video"] else f"; written for {one['video']}"
            times = f"{hit['start_seconds']:.1f} to {hit['end_seconds']:.1f} s"
            say(f"    {hit['video_id']}, {times}{doubt}{right}")
    say()
