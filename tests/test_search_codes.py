"""8-bit codes of very many frames: what they find, when they are made, kept and left alone."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders import demo_spec, random_rows, write_store

from vtr.demo import demo_model_folder
from vtr.searching.codes import CodedScanner
from vtr.searching.folder import StoreSource
from vtr.searching.index import read_index
from vtr.searching.library import Library
from vtr.searching.query import Query
from vtr.searching.scan import Scanner

pytest.importorskip("faiss", reason="needs the extra `index`")
MODEL = str(demo_model_folder())
SPEC = demo_spec(num_frames=40)
SENTENCES = ("a red circle spins", "two squares", "nothing moves on stripes", "a star")


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vtr.searching.codes.LEAST_ROWS", 4000)
    monkeypatch.setattr("vtr.searching.codes._TOP_ROWS", 1024)


def add(store: Path, first: int, count: int, *, sequence: int) -> None:
    names = [f"v{n:04}" for n in range(first, first + count)]
    rows = random_rows(names, SPEC, num_frames=40, seed=sequence)
    shots = [np.repeat(row.frames[::8], 8, axis=0) + row.frames / 4 for row in rows]
    rows = [replace(row, frames=shot) for row, shot in zip(rows, shots, strict=True)]
    write_store(store, rows, SPEC, sequence=sequence)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    add(tmp_path / "features", 0, 150, sequence=0)
    return tmp_path / "features"


def open_it(store: Path) -> Library:
    return Library(StoreSource(store, {}, model=MODEL, device="cpu"))


def answers(library: Library, **how: object) -> list[list[tuple[str, float, float]]]:
    found = [library.search(Query((s,)), top=5, **how) for s in SENTENCES]  # type: ignore[arg-type]
    return [[(h.video_id, round(h.score, 3), h.level) for h in a.hits or a.nearest] for a in found]


def test_codes_answer_as_an_exact_scan_does_and_say_what_they_find(store: Path) -> None:
    library = open_it(store)
    answer = library.search(Query(("a red circle spins",)))
    assert answer.recall is not None
    assert answer.recall >= 0.98
    assert answer.recall == library.index.facts["recall"]
    coded = answers(library)
    assert isinstance(library.scanner, CodedScanner)
    library.scanner = Scanner(library.index.frames, library.scanner.starts, library.scanner.stops)
    assert coded == answers(library)


def test_only_where_there_are_many_frames(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vtr.searching.codes.LEAST_ROWS", 1_000_000)
    library = open_it(store)
    assert type(library.scanner) is Scanner
    assert library.search(Query(("a star",))).recall is None


def test_what_is_filtered_or_spread_thin_is_scanned_exactly(store: Path) -> None:
    library = open_it(store)
    answer = library.search(Query(("a star",)), inside="*7")
    assert answer.recall is None
    assert len(answer.hits or answer.nearest) == 10
    everything = library.search(Query(("a star",)), top=150)
    assert len(everything.hits or everything.nearest) == 150


def test_few_new_frames_keep_the_codes_and_are_found(store: Path) -> None:
    first = open_it(store).index.facts["codes"]
    add(store, 900, 5, sequence=1)
    library = open_it(store)
    assert library.index.facts["codes"] == first
    frame = library.search(Query(like=(("v0902", 0.0),)), top=1)
    assert (frame.hits[0].video_id, round(frame.hits[0].score, 3)) == ("v0902", 1.0)
    add(store, 1000, 30, sequence=2)
    facts = open_it(store).index.facts
    assert facts["codes"] != first
    assert facts["coded_rows"] == 185 * 40
    assert [path.name for path in library.index.folder.glob("codes-*")] == [facts["codes"]]


@pytest.mark.parametrize("damage", ["gone", "cut", "noise"])
def test_damaged_codes_are_told_and_the_scan_is_exact(
    store: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    library = open_it(store)
    expected = answers(library)
    path = library.index.folder / library.index.facts["codes"]
    if damage == "gone":
        path.unlink()
    else:
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2] if damage == "cut" else b"noise" * 100)
    library = open_it(store)
    assert type(library.scanner) is Scanner
    assert answers(library) == expected


def test_faiss_that_comes_later_is_used(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "faiss", None)
        library = open_it(store)
        assert type(library.scanner) is Scanner
    assert isinstance(open_it(store).scanner, CodedScanner)


def test_codes_that_find_too_little_are_not_used(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vtr.searching.codes.LEAST_RECALL", 1.01)
    library = open_it(store)
    assert type(library.scanner) is Scanner
    index = read_index(library.index.folder)
    assert "codes" not in index.facts
    assert index.facts["recall"] <= 1
    assert not list(library.index.folder.glob("codes-*"))
