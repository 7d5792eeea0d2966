"""Text of others on its way to a terminal, a spreadsheet and a page."""

import contextlib
import csv
import io
import json
import unicodedata
from pathlib import Path

import pytest
from builders import demo_spec, put, random_rows, touch, write_store
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from vtr.cli import app, main
from vtr.commands.tables import new_table, print_table
from vtr.demo import demo_model_folder
from vtr.errors import VtrError
from vtr.evaluate.reporting.results import read_rows
from vtr.features import LedgerRow, VideoRow
from vtr.foreign import csv_table, csv_text, printable, screen
from vtr.progress import progress
from vtr.train.card import model_card
from vtr.train.heads.meanP import MeanPooling
from vtr.train.model import ModelSpec, RetrievalModel
from vtr.train.run import load_run, write_run
from vtr.train.text_tower import FrozenText, TextSpec

HOSTILE = [
    "a\x1b[31mred.mp4",
    "two\nlines.mp4",
    "turned\u202egnp.mp4",
    "[bold]loud.mp4",
    '=HYPERLINK("x","y").mp4',
    "@sum.mp4",
    ":smile:\x9b1m.mp4",
]
MARKS = "\u200c\u200d\u200e\u200f"


def is_harmless(text: str) -> bool:
    return all(c.isprintable() or c in MARKS or unicodedata.category(c) == "Zs" for c in text)


@given(st.text(st.characters() | st.sampled_from("\0\n\x1b\udcff\ud800")))
def test_printable_is_one_harmless_line(text: str) -> None:
    line = printable(text)
    assert is_harmless(line)
    line.encode("utf-8")
    assert (line == text) == is_harmless(text)
    assert printable(line) == line
    assert screen(f"{text}\n{text}").replace("\n", "").isprintable() == line.isprintable()


@given(st.lists(st.text(st.characters() | st.sampled_from("=+-@'\t\r\n|")), min_size=1))
def test_no_cell_begins_as_a_formula_and_every_text_comes_back(texts: list[str]) -> None:
    table = csv_table(["text", "number", "scores"], [[t, -1.5, [-0.5, 2.0]] for t in texts])
    rows = list(csv.reader(io.StringIO(table.decode(), newline="")))[1:]
    assert [row[1:] for row in rows] == [["-1.5", "-0.5|2.0"]] * len(texts)
    for text, (cell, *_) in zip(texts, rows, strict=True):
        assert not cell.lstrip().startswith(tuple("=+-@\t\r\uff1d\uff0b\uff0d\uff20"))
        assert is_harmless(cell)
        assert csv_text(cell) == printable(text)


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A workspace whose names, captions, categories and model folder are orders to someone."""
    touch(tmp_path / "videos", *HOSTILE)
    made = demo_spec(backbone=str(demo_model_folder()), num_frames=2)
    bad = LedgerRow("bad\x1b[2J", "failed", "x: \x1b[2J")
    rows = [*random_rows(HOSTILE, made, num_frames=2), VideoRow.failed(bad, made.embedding_dim)]
    write_store(tmp_path / "features", rows, made)
    records = [{"video": n, "caption": f"{n} moves", "split": "test"} for n in HOSTILE]
    put(tmp_path / "captions.json", records)
    return tmp_path


def test_no_command_prints_an_order_to_the_terminal(hostile: Path) -> None:
    put(hostile / "arrays" / "x\x1b[2J\n.npy", b"no array")
    (hostile / "videos" / "spare\x1b[2J\n.mp4").touch()
    model = ("--model", str(demo_model_folder()))
    commands = [
        ("init", "folder", "--videos", "videos", "--annotations", "captions.json", *model),
        ("data", "show"),
        ("data", "show", "--json"),
        ("data", "verify", "--fast"),
        ("eda",),
        ("inspect", "features", "--failures"),
        ("inspect", "features", "--json"),
        ("features", "import", "arrays", "--out", "f"),
        ("eval", "--zero-shot", "--out", "A\u202e"),
        ("eval", "--zero-shot", "--out", "B", "--json"),
        ("compare", "A\u202e", "B"),
        ("report", "A\u202e", "B", "--out", "report\x1b[2J"),
        ("simulate", "-q"),
    ]
    for words in commands:
        with contextlib.chdir(hostile):
            done = CliRunner().invoke(app, list(words))
        shown = done.stdout + done.stderr
        assert done.exit_code in (0, 3) or isinstance(done.exception, VtrError), shown
        assert all(map(is_harmless, shown.split("\n"))), (words, ascii(shown))
        if "--json" in words:
            json.loads(done.stdout)
        if words[:2] == ("inspect", "features") and "--failures" in words:
            assert r"x: \x1b[2J" in shown
    rows = list(read_rows(hostile / "B" / "per_query.csv", ("video_id", "text")))
    assert {row["video_id"] for row in rows} == set(map(printable, HOSTILE))
    with (hostile / "B" / "per_query.csv").open(newline="") as stream:
        for row in csv.DictReader(stream):
            for column in ("query_id", "video_id", "top_ids", "text"):
                assert not row[column].startswith(("=", "+", "-", "@"))
    assert "\x1b" not in (hostile / "B" / "per_query.csv").read_text()


def test_markup_in_a_group_is_only_text(capsys: pytest.CaptureFixture[str]) -> None:
    table = new_table("[red]title\x1b[2J", ("group", "N"))
    table.add_row("[bold]a[/bold] :smile: \x1b[31m", "1")
    print_table(table)
    shown = capsys.readouterr().out
    assert r"[bold]a[/bold] :smile: \x1b[31m" in shown
    assert r"[red]title\x1b[2J" in shown


def test_one_bar_at_a_time_and_lines_from_the_first_moment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress("outer") as outer:
        outer(0, 2, "\x1b[2J")
        outer(2, 2, "")
    assert capsys.readouterr().err.splitlines() == [r"outer: \x1b[2J", "outer: 2 of 2"]
    with progress("outer") as outer:
        for done, remark in ((2, "clips"), (1, ""), (2, "clips"), (2, "9 clips/s")):
            outer(done, 2, remark)  # a second pass over the same says nothing new
    told = capsys.readouterr().err.splitlines()
    assert told == ["outer: 2 of 2 clips", "outer: 2 of 2, 9 clips/s"]
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with progress("outer") as outer:
        outer(1, 2, "[bold]x")
        with progress("inner") as inner:
            inner(1, 2, "y")
    with progress("later") as later:
        later(1, 1, "")
    shown = capsys.readouterr().err
    assert "inner" not in shown
    assert "later" in shown
    assert "[bold]x" in shown


def test_a_model_card_holds_no_orders(tmp_path: Path) -> None:
    head = RetrievalModel(FrozenText(), MeanPooling(), 2.0)
    spec = ModelSpec("meanP", 8, TextSpec("frozen", 8, 8))
    name = "a\x1b[31m\n# b\u202e"
    write_run(tmp_path / name, head, spec, config={"data": {"dataset": name}}, train_ids=["x"])
    card = model_card(load_run(tmp_path / name), [])
    assert all(map(is_harmless, card.split("\n")))
    assert "\n# b" not in card


def test_an_error_that_names_a_file_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["vtr", "check-table", str(tmp_path / "x\x1b[2J\n.csv")])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert is_harmless(told.rstrip("\n"))
