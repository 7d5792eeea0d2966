"""Caption files as people have them: encodings, headers, quotes, lists in cells, JSON layouts."""

import json
from pathlib import Path
from typing import Any

import pytest
from builders import put, touch
from hypothesis import given
from hypothesis import strategies as st

from vtr.datasets.captions import listed_captions
from vtr.datasets.records import read_records
from vtr.datasets.registry import load_dataset
from vtr.errors import DatasetError

ROWS = [("cats/one.mp4", "a cat"), ("cats/two.mp4", 'he says "sit"'), ("dogs/one.mp4", "two, run")]


def table(header: str = "video,caption", sep: str = ",", end: str = "\n") -> str:
    rows = [[name, '"{}"'.format(text.replace('"', '""'))] for name, text in ROWS]
    return end.join([header, *(sep.join(row) for row in rows), ""])


def records(video: str, caption: str) -> list[dict[str, Any]]:
    return [{video: name, caption: text} for name, text in ROWS]


def lines(items: list[Any]) -> str:
    return "".join(json.dumps(item) + "\n" for item in items)


COCO = {
    "info": {"year": 2026},
    "images": [{"id": number, "file_name": name} for number, (name, _) in enumerate(ROWS)],
    "annotations": [
        {"id": 9 + number, "image_id": number, "caption": text}
        for number, (_, text) in enumerate(ROWS)
    ],
}
MSRVTT = {
    "videos": [{"video_id": name[:-4], "id": 7 + n} for n, (name, _) in enumerate(ROWS)],
    "sentences": [
        {"video_id": name[:-4], "caption": text, "sen_id": number}
        for number, (name, text) in enumerate(ROWS)
    ],
}
SAME = {
    "plain.csv": table(),
    "bom.csv": table().encode("utf-8-sig"),
    "utf16.csv": table().encode("utf-16"),
    "utf16-be.tsv": b"\xfe\xff" + table("video\tcaption", "\t").encode("utf-16-be"),
    "utf32.csv": table().encode("utf-32"),
    "cr.csv": table(end="\r"),
    "crlf.csv": table(end="\r\n"),
    "capital.csv": table("Video,Caption"),
    "spaced.csv": table(" Video ID , Golden_Caption "),
    "path.csv": table("video_path,caption"),
    "file.csv": table("filepath,title"),
    "webvid.csv": table("videoid,name"),
    "own.csv": table("name,caption"),
    "low.csv": table("id,name"),
    "semicolon.csv": table("video;caption", ";"),
    "tabs.csv": table('"video"\t"caption"', "\t"),
    "commas.tsv": table(),
    "sep.csv": "sep=;\n" + table("video;caption", ";"),
    "sep-crlf.csv": "sep=|\r\n" + table("video|caption", "|", "\r\n"),
    "index.csv": ",video,caption\n" + "".join(f"{i},{r}\n" for i, r in enumerate(
        table().splitlines()[1:])),
    "trailing.csv": table(end=",\n"),
    "raw.tsv": "video\tcaption\n" + "".join(f"{name}\t{text}\n" for name, text in ROWS),
    "clip.jsonl": lines(records("clip_name", "caption")),
    "array.jsonl": json.dumps(records("video", "caption")),
    "lines.json": lines(records("video", "caption")),
    "list.json": json.dumps(records("videoID", "enCap")),
    "beside.json": json.dumps({"version": "1", "data": records("video", "caption")}),
    "columns.json": json.dumps({"video": {"0": "cats/one.mp4", "1": "cats/two.mp4",
        "2": "dogs/one.mp4"}, "caption": {str(i): text for i, (_, text) in enumerate(ROWS)}}),
    "lists.json": json.dumps({"video": [r[0] for r in ROWS], "caption": [r[1] for r in ROWS]}),
    "coco.json": json.dumps(COCO),
    "msrvtt.json": json.dumps(MSRVTT),
    "anet.json": json.dumps({name: {"duration": 9, "timestamps": [[0, 9]], "sentences": [text]}
        for name, text in ROWS}),
}  # fmt: skip


@pytest.fixture
def films(tmp_path: Path) -> Path:
    return touch(tmp_path / "films", *(name for name, _ in ROWS))


@pytest.mark.parametrize("name", SAME)
def test_every_layout_says_the_same(films: Path, name: str) -> None:
    path = put(films.parent / name, SAME[name])
    dataset = load_dataset("folder", annotations=path, videos=films)
    assert [(item.video_id, item.text) for item in dataset.captions] == ROWS
    assert dataset.video_ids == tuple(name for name, _ in ROWS)
    assert dataset.notes == ()


@pytest.mark.parametrize(
    "content",
    [
        {"train": records("video", "caption")[:2], "Validation": records("video", "caption")[2:]},
        {"train": {n: [t] for n, t in ROWS[:2]}, "validate": dict(ROWS[2:])},
    ],
)
def test_json_by_splits(films: Path, content: object) -> None:
    path = put(films.parent / "c.json", json.dumps(content))
    dataset = load_dataset("folder", annotations=path, videos=films)
    assert dataset.splits == {"train": ("cats/one.mp4", "cats/two.mp4"), "val": ("dogs/one.mp4",)}
    assert [item.text for item in dataset.captions] == [text for _, text in ROWS]


def test_sentences_of_parts_are_one_paragraph_and_starts_that_differ_are_refused(
    films: Path,
) -> None:
    spoken = {"cats/one": {"timestamps": [[0, 4], [4, 9]], "sentences": ["it sits.", " it runs."]}}
    path = put(films.parent / "c.json", json.dumps(spoken))
    dataset = load_dataset("folder", annotations=path, videos=films)
    assert [item.text for item in dataset.captions] == ["it sits. it runs."]
    rows = "YoutubeID,Start_timestamp,End_timestamp,Caption\ncats/one,0,4,sits\n"
    path = put(films.parent / "c.csv", rows)
    dataset = load_dataset("folder", annotations=path, videos=films)
    assert dataset.notes[0].startswith("the captions' start and end are not read")
    path = put(films.parent / "c.csv", rows + "cats/one.mp4,4,9,runs\n")
    with pytest.raises(DatasetError, match=r"line 3: a caption of 'cats/one\.mp4' starts at '4'"):
        load_dataset("folder", annotations=path, videos=films)


@pytest.mark.parametrize(
    ("cell", "captions"),
    [
        ("['a cat jumps', 'the cat is on a sofa']", ["a cat jumps", "the cat is on a sofa"]),
        ("""['a dog', "it's fast"]""", ["a dog", "it's fast"]),
        ('["a cat", "caf\\u00e9"]', ["a cat", "café"]),
        ("['two\\nlines \\x41 \\'q\\' \\\\d']", ["two\nlines A 'q' \\d"]),
        ("['a cat' 'a dog'\n 'a cow']", ["a cat", "a dog", "a cow"]),  # as NumPy prints
        ("array(['a', 'b'], dtype=object)", ["a", "b"]),
        ("('a cat', 'a dog')", ["a cat", "a dog"]),
        ("[['a', 'cat'], ['b']]", [["a", "cat"], ["b"]]),
        ("['one', None, nan]", ["one", None, None]),
        ("[]", []),
        ("[u'a cat', u\"it's\"]", ["a cat", "it's"]),
        ("{'a cat', 'a dog'}", ["a cat", "a dog"]),
        ("[music] a man sings", "[music] a man sings"),
        ("{laughs} a man sings", "{laughs} a man sings"),
        ("[SOMEONE] walks [slowly]", "[SOMEONE] walks [slowly]"),
        ("(\"hello\", he says) a man", "(\"hello\", he says) a man"),
        ("['tis the season] a man", "['tis the season] a man"),
        ("a 'quoted' caption", "a 'quoted' caption"),
    ],
)  # fmt: skip
def test_a_list_in_a_cell_is_a_list(cell: str, captions: object) -> None:
    assert listed_captions(cell, place="here") == captions


@pytest.mark.parametrize(
    "cell",
    [
        "['a' + 'b']",
        "['a', 'b cut sho",
        "{'a': 'b'}",
        "[b'a', b'b']",
        "[\u2018a\u2019, \u2018b\u2019]",
        "['a''b']",
        "['a', 7]",
        "['a'",
        "[__import__('os')]",
        "['a']]",
    ],
)
def test_what_only_begins_as_a_list_is_never_one_caption_of_brackets(cell: str) -> None:
    try:
        found = listed_captions(cell, place="c.csv, line 2")
    except DatasetError as error:
        assert str(error).startswith("c.csv, line 2: ")  # noqa: PT017 - both ways are right
    else:
        assert found == cell
        assert not (cell.startswith("['") and cell.endswith(("']", "sho")))


def test_deep_brackets_are_no_crash() -> None:
    for cell in ("[" * 5000, "[" * 5000 + "'a'" + "]" * 5000, "['a', " * 3000 + "'b'" + "]" * 3000):
        try:
            assert listed_captions(cell, place="here") == cell
        except DatasetError as error:
            assert "begins as a list of captions and is none" in str(error)  # noqa: PT017


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=9), max_size=4))
def test_lists_come_back_as_python_and_json_write_them(texts: list[str]) -> None:
    assert listed_captions(repr(texts), place="here") == texts
    assert listed_captions(json.dumps(texts), place="here") == texts


def test_lists_in_cells_become_captions(films: Path) -> None:
    text = 'video,caption\ncats/one,"[\'a\', ""it\'s b""]"\ndogs/one,"[""c""]"\n'
    path = put(films.parent / "captions.csv", text)
    dataset = load_dataset("folder", annotations=path, videos=films)
    assert [(item.id, item.text) for item in dataset.captions] == [
        ("cats/one.mp4#0", "a"),
        ("cats/one.mp4#1", "it's b"),
        ("dogs/one.mp4#0", "c"),
    ]
    path = put(films.parent / "captions.jsonl", lines([{"video": "cats/one", "text": "['a', b]"}]))
    with pytest.raises(DatasetError, match=r"line 1: .* begins as a list of captions and is none"):
        load_dataset("folder", annotations=path, videos=films)


def test_a_quote_opens_a_field_in_tabs_only_where_it_closes_it(tmp_path: Path) -> None:
    text = 'video\tcaption\na\t"hello" says a man\nb\t"said ""sit"""\nc\ta 6" dog\nd\t"\n'
    found = [record.captions for record in read_records(put(tmp_path / "c.tsv", text))]
    assert found == ['"hello" says a man', 'said "sit"', 'a 6" dog', '"']
    text = 'video\tcaption\ra\t"one\u2028" two\r'
    found = [record.captions for record in read_records(put(tmp_path / "c.tsv", text))]
    assert found == ['"one\u2028" two']
    text = 'video\tcaption\na\t"one\ttwo\nthree"\n'
    found = [record.captions for record in read_records(put(tmp_path / "c.tsv", text))]
    assert found == ["one\ttwo\nthree"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.csv", "cats/one.mp4,a cat\n", r"a cat\. The first line must name the columns"),
        ("c.csv", table().encode("utf-16")[2:], r"expected a video|is not UTF-8"),
        ("c.csv", "video,caption\nx,café\n".encode("cp1252"), r"not UTF-8 .* Save it as UTF"),
        ("c.csv", b"\xff\xfeabc", r"is not UTF-8 text"),
        ("c.xlsx", b"PK\x03\x04", r"no caption file; .*save a spreadsheet as CSV"),
        ("c.json", json.dumps({**COCO, "annotations": [{"image_id": 8, "caption": "x"}]}),
         r"entry 0 of 'annotations' is of the video '8', which the file does not list"),
        ("c.json", json.dumps({**COCO, "images": [{"id": 0, "file_name": "a"}] * 2}),
         r"video 1: the video '0' is listed twice"),
        ("c.json", '[{"video": "cats/one", "caption": "x"}, {"video": "dogs/one"}]',
         r"c\.json: entry 1: expected a video \(.* and a caption \(.*; found video$"),
        ("c.jsonl", '{"video": "a", "text": "x"}\n{"clip": "a"}', r"line 2: .*; found clip$"),
        ("c.json", '{"a": {"words": "x"}}', r"c\.json: 'a': .*; found words, video$"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_explained(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        list(read_records(put(tmp_path / name, content)))


@pytest.mark.parametrize("cell", ["['a dog', 'it runs']", '[""a dog""]'])
def test_no_reader_takes_a_list_for_one_caption(tmp_path: Path, cell: str) -> None:
    put(tmp_path / "didemo_test_label.csv", f'video_path,text\nx.mp4,"{cell}"\n')
    with pytest.raises(DatasetError, match=r"spells a list of captions where one is expected"):
        load_dataset("didemo", annotations=tmp_path, videos=tmp_path)
