"""Annotation files as they come: marks, line ends, cuts, wrong columns, hostile pickles."""

import json
import os
import pickle
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from builders import put as write

from vtr.datasets.annotations import Annotations, CaptionList
from vtr.datasets.captions import paragraph, sentences
from vtr.datasets.documents import (
    find_documents,
    read_json,
    read_json_lines,
    read_list,
    read_plain_pickle,
    read_table,
    require_documents,
)
from vtr.errors import DatasetError

BOM = b"\xef\xbb\xbf"


# ---- finding


def test_files_are_found_by_preference_then_depth_whatever_their_case(tmp_path: Path) -> None:
    for name in ("b/train_list.txt", "a/deep/train_list.txt", "A.JSON", "z.json", ".x/h.json"):
        write(tmp_path / name, "")
    write(tmp_path / "1/2/3/4/too-deep.json", "")
    found = find_documents(tmp_path, ("train_list.txt", "*.json"))
    assert found == [tmp_path / "b/train_list.txt", tmp_path / "A.JSON", tmp_path / "z.json"]


def test_a_folder_without_the_files_is_named_with_what_it_holds(tmp_path: Path) -> None:
    write(tmp_path / "notes.txt", "")
    with pytest.raises(
        DatasetError,
        match=r"x: no table in .*\. Looked for a\.csv or b\.csv, .*; found notes\.txt\. Name the",
    ):
        require_documents(tmp_path, ("a.csv", "b.csv"), dataset="x", what="table")
    (tmp_path / "notes.txt").unlink()
    with pytest.raises(DatasetError, match="found no files at all"):
        require_documents(tmp_path, ("a.csv",), dataset="x", what="table")


def test_the_folder_of_a_named_file_is_searched_and_beside_the_videos_by_default(
    tmp_path: Path,
) -> None:
    file = write(tmp_path / "annotations" / "a.json", "")
    videos = tmp_path / "videos"
    for named in (file, None):
        assert Annotations("x", named, videos, ["a*"], what="file").folder == file.parent
    with pytest.raises(DatasetError, match=r"no folder .*gone with annotation files.*a\.json"):
        Annotations("x", tmp_path / "gone", videos, ["a.json"], what="file")


# ---- reading


@pytest.mark.parametrize("mark", [b"", BOM])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_byte_order_marks_and_line_ends_do_not_matter(
    tmp_path: Path, mark: bytes, end: bytes
) -> None:
    table = write(tmp_path / "t.csv", mark + end.join([b"video_id,sentence", b'v1,"a, b"', b""]))
    assert read_table(table, columns=["video_id"]) == [(2, {"video_id": "v1", "sentence": "a, b"})]
    ids = write(tmp_path / "l.txt", mark + end.join([b"v1 ", b"", b"v2"]))
    assert read_list(ids) == ("v1", "v2")
    document = write(tmp_path / "d.json", mark + b'{"a":' + end + b" NaN}")
    assert str(read_json(document)["a"]) == "nan"
    lines = write(tmp_path / "d.jsonl", mark + end.join([b"[1]", b"", b"[2]"]))
    assert list(read_json_lines(lines)) == [(1, [1]), (3, [2])]


def test_quoted_line_ends_and_long_fields_are_kept(tmp_path: Path) -> None:
    long = "word " * 60_000  # longer than the csv module takes by itself
    table = write(tmp_path / "t.csv", f'a,b\n1,"two\nlines"\n2,{long}\n')
    rows = read_table(table, columns=["a", "b"])
    assert rows == [(3, {"a": "1", "b": "two\nlines"}), (4, {"a": "2", "b": long})]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,text\nv1,x\n", r"expected the columns video_id, sentence; found id, text$"),
        ("", r"t\.csv is empty: nothing is annotated in it.*fetch it again"),
        (
            "video_id,sentence\nv1,a man, a dog\n",
            r"line 2: 3 fields, but the header names 2 \(video_id, sentence\)\. A text with",
        ),
        ("video_id,sentence\nv1\n", r"line 2: 1 field, but the header names 2"),
        ('video_id,sentence\nv1,"open\n', r"line \d: not CSV \(unexpected end of data\)"),
        ("video_id,sentence, sentence\nv1,a,b\n", r"names the column 'sentence' twice; rename"),
        (b"video_id,sentence\nv1,\xff\n", r"is not UTF-8 text: .* at byte 21\. Save it"),
    ],
)
def test_wrong_tables_say_what_is_wrong(tmp_path: Path, content: bytes | str, message: str) -> None:
    path = write(tmp_path / "t.csv", content)
    with pytest.raises(DatasetError, match=message):
        read_table(path, columns=["video_id", "sentence"])


def test_a_cut_json_says_so(tmp_path: Path) -> None:
    whole = json.dumps({"videos": [1, 2, 3]})
    for length in range(1, len(whole)):
        path = write(tmp_path / "d.json", whole[:length])
        with pytest.raises(DatasetError, match=r"d\.json is not whole JSON .*fetch it again"):
            read_json(path)
    path = write(tmp_path / "deep.json", "[" * 200_000)
    with pytest.raises(DatasetError, match="is not whole JSON"):
        read_json(path)
    path = write(tmp_path / "d.jsonl", "{}\n{")
    with pytest.raises(DatasetError, match=r"line 2: not one JSON document"):
        list(read_json_lines(path))


def test_a_key_given_twice_is_refused_before_a_caption_is_lost(tmp_path: Path) -> None:
    path = write(tmp_path / "d.json", '{"v1": {"a": 1}, "v2": {"a": 1}, "v1": "second"}')
    with pytest.raises(DatasetError, match=r"d\.json has the key 'v1' twice in one object; one of"):
        read_json(path)
    path = write(tmp_path / "d.jsonl", '{"a": 1}\n{"a": 1, "b": 2, "b": 3}\n')
    with pytest.raises(DatasetError, match=r"line 2: the key 'b' occurs twice in one object"):
        list(read_json_lines(path))


def test_ids_are_in_nfc_and_listed_once(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "café")
    assert read_list(write(tmp_path / "l.txt", decomposed)) == ("café",)
    with pytest.raises(DatasetError, match=r"l\.txt lists 'café' 2 times"):
        read_list(write(tmp_path / "l.txt", f"café\n{decomposed}\n"))
    with pytest.raises(DatasetError, match=r"cannot read .*gone\.txt: No such file"):
        read_list(tmp_path / "gone.txt")


# ---- captions


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        ("a cat", ["a cat"]),
        (["a cat", "a dog"], ["a cat", "a dog"]),
        ([["a", "cat"], ["a", "dog"]], ["a cat", "a dog"]),
        ([("a", "cat"), "a dog"], ["a cat", "a dog"]),
        ([], []),
        (None, [None]),
    ],
)
def test_captions_are_taken_in_every_spelling(value: object, texts: list[object]) -> None:
    assert sentences(value, place="here") == texts


@pytest.mark.parametrize("value", [7, {"a": 1}, [7], [["a", 7]], [{"a": "b"}], True])
def test_other_captions_are_refused(value: object) -> None:
    with pytest.raises(DatasetError, match="here: "):
        sentences(value, place="here")


def test_empty_captions_are_dropped_and_counted_and_the_others_kept_as_they_are() -> None:
    captions = CaptionList()
    long = " ".join(["word"] * 10_000)
    texts = ["a cat", "", " \t\n", None, float("nan"), "a cat", long, "  spaced  ", "bad \ud800"]
    captions.add_all("v", texts, place="here")
    assert [item.text for item in captions.items] == [
        "a cat", "a cat", long, "  spaced  ", r"bad \ud800",
    ]  # fmt: skip
    assert [item.id for item in captions.items] == ["v#0", "v#5", "v#6", "v#7", "v#8"]
    assert list(captions.notes(["v", "w"])) == [
        "4 captions are empty, dropped (first: v#1)",
        "1 video has no caption (first: w)",
    ]
    captions.restrict(["w"])
    assert list(captions.notes())[1] == (
        "5 captions are of videos that are not listed, dropped (first: v)"
    )
    with pytest.raises(DatasetError, match="here: the caption id 'v#0' occurs twice"):
        captions.add("v#0", "v", "again", place="here")
    with pytest.raises(DatasetError, match="here: a caption must be a text, is 7"):
        captions.add("v#9", "v", 7, place="here")


def test_a_paragraph_joins_what_is_there() -> None:
    assert paragraph(["One.", "  Two. ", "", None, "Three."], place="x") == "One. Two. Three."
    with pytest.raises(DatasetError, match="x: a sentence must be a text, not 3"):
        paragraph(["One.", 3], place="x")


# ---- pickles


class Payload:
    """Runs a command when an ordinary reader loads it."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_is_read_whatever_the_protocol(tmp_path: Path, protocol: int) -> None:
    data = {"v1": [["a", "cat"], ["été"]], "v2": ("x", 1, 2.5, None, True)}
    path = write(tmp_path / "p.pkl", pickle.dumps(data, protocol=protocol))
    assert read_plain_pickle(path) == data


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_hostile_pickle_runs_nothing(tmp_path: Path, protocol: int) -> None:
    canary = tmp_path / "canary"
    payload = pickle.dumps({"v1": [Payload(f"touch {canary}")]}, protocol=protocol)
    path = write(tmp_path / "p.pkl", payload)
    with pytest.raises(DatasetError, match=r"wants to build .*\.system, which captions do not"):
        read_plain_pickle(path)
    assert not canary.exists()
    pickle.loads(payload)  # the canary does sing where it is let
    assert canary.exists()


@pytest.mark.parametrize(
    "payload",
    [
        b"cos\nsystem\n(S'touch CANARY'\ntR.",  # GLOBAL + REDUCE
        b"(S'touch CANARY'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'touch CANARY'\no.",  # OBJ
        b"\x80\x02cos\nsystem\nX\x0c\x00\x00\x00touch CANARY\x85\x81.",  # NEWOBJ
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0ctouch CANARY\x85R.",  # STACK_GLOBAL
        b"\x80\x02\x82\x01.",  # EXT1
        b"S'x'\nQ.",  # BINPERSID
        b"Px\n.",  # PERSID
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"ccollections\nOrderedDict\n(tR.",
    ],
)
def test_every_door_to_code_is_shut(here: Path, payload: bytes) -> None:
    path = write(here / "p.pkl", payload)
    with pytest.raises(DatasetError, match=r"wants to build|is no whole pickle"):
        read_plain_pickle(path)
    assert not (here / "CANARY").exists()


def test_a_damaged_pickle_is_an_error_whatever_the_cut(tmp_path: Path) -> None:
    whole = pickle.dumps({"v1": [["a", "cat"]], "v2": [["a"]]})
    for length in range(len(whole)):
        path = write(tmp_path / "p.pkl", whole[:length])
        why = r"p\.pkl is no whole pickle" if length else r"p\.pkl is empty"
        with pytest.raises(DatasetError, match=why):
            read_plain_pickle(path)
    huge = b"\x80\x04\x8d" + (1 << 62).to_bytes(8, "little") + b"x."
    with pytest.raises(DatasetError, match="is no whole pickle"):
        read_plain_pickle(write(tmp_path / "p.pkl", huge))
