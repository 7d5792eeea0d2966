"""Datasets of moments, in their published layouts: parts of videos with their sentences."""

import json
from pathlib import Path

import pytest

from vtr.datasets.base import Dataset, split_queries
from vtr.datasets.registry import load_dataset
from vtr.errors import DatasetError


def load(name: str, folder: Path, **files: str) -> Dataset:
    for file, content in files.items():
        (folder / file.replace("__", ".")).write_text(content)
    return load_dataset(name, annotations=folder, videos=folder)


def test_charades_sta_lines_give_windows(tmp_path: Path) -> None:
    dataset = load(
        "charades-sta",
        tmp_path,
        charades_sta_test__txt="3MSZA 24.3 30.4##person turn a light on.\r\n"
        "3MSZA 0.0 9.9##he opens a ## door\n\nA0 9 9##nothing lasts\n",
        charades_sta_train__txt="B1 0.5 3##a person sits.\n",
    )
    queries = split_queries(dataset, "test")
    assert dataset.splits == {"train": ("B1",), "test": ("3MSZA", "A0")}
    assert [(q.id, q.text, q.windows) for q in queries] == [
        ("3MSZA#test-0", "person turn a light on.", ((24.3, 30.4),)),
        ("3MSZA#test-1", "he opens a ## door", ((0.0, 9.9),)),
        ("A0#test-0", "nothing lasts", ()),
    ]
    told = "1 window ends no later than it begins, dropped (first: A0#test-0)"
    assert told in dataset.notes


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("3MSZA 24.3##a light", r"line 1: expected VIDEO START END##SENTENCE, found '3MSZA 24"),
        ("3MSZA a 3##light", r"line 1: expected starts and ends in seconds, found \[\['a', 3"),
        ("3MSZA -1 3##light", r"in seconds, found \[\[-1.0, 3"),
        ("3MSZA nan 3##light", r"in seconds, found \[\['nan', 3"),
        ("3MSZA 1_0 3##light", r"in seconds, found \[\['1_0', 3"),
        ("3MSZA \u0661 3##light", r"in seconds, found \[\['\u0661', 3"),
        ("\r\n \n", r"test\.txt holds 4 bytes, all blank: nothing is annotated in it"),
        ("", r"charades_sta_test\.txt is empty: nothing is annotated in it"),
        ("3MSZA 1 3 light", r"expected VIDEO START END##SENTENCE"),
    ],
)
def test_a_line_of_another_form_is_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        load("charades-sta", tmp_path, charades_sta_test__txt=line)


RECORD = {
    "qid": 2579, "query": "A girl sits", "duration": 150, "vid": "NUsG9BgSes0_210.0_360.0",
    "relevant_windows": [[82, 150]], "relevant_clip_ids": [41, 42],
    "saliency_scores": [[4, 2, 4], [1, 3, 2]],
}  # fmt: skip


def test_qvhighlights_has_windows_and_ratings_but_for_test(tmp_path: Path) -> None:
    plain = {key: RECORD[key] for key in ("query", "duration", "vid")} | {"qid": 9}
    dataset = load(
        "qvhighlights",
        tmp_path,
        highlight_val_release__jsonl=json.dumps(RECORD) + "\n",
        highlight_test_release__jsonl=json.dumps(plain) + "\n",
    )
    (val,), (test,) = (split_queries(dataset, split) for split in ("val", "test"))
    assert (val.id, val.windows) == ("2579", ((82.0, 150.0),))
    assert val.ratings == ((41, (4, 2, 4)), (42, (1, 3, 2)))
    assert (test.id, test.windows, test.ratings) == ("9", (), ())
    assert dataset.video_ids == ("NUsG9BgSes0_210.0_360.0",)  # a video may be in two splits


def test_windows_without_length_among_others_are_dropped_and_counted(tmp_path: Path) -> None:
    record = RECORD | {"relevant_windows": [[9, 9], [82, 150], [5, 4]]}
    lines = json.dumps(record)
    dataset = load("qvhighlights", tmp_path, highlight_val_release__jsonl=lines)
    (query,) = split_queries(dataset, "val")
    assert query.windows == ((82.0, 150.0),)
    assert "2 windows end no later than they begin, dropped (first: 2579)" in dataset.notes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"saliency_scores": [[4]]}, "line 1: expected in saliency_scores a list of ratings"),
        ({"saliency_scores": [[5], [1]]}, "ratings from 0 to 4"),
        ({"relevant_clip_ids": ["a", 1]}, "relevant_clip_ids"),
        ({"relevant_windows": [[1]]}, r"expected starts and ends in seconds, found \[\[1\]\]"),
        ({"relevant_windows": [["3", "4"]]}, "expected starts and ends in seconds, found"),
        ({"relevant_windows": 3}, "expected starts and ends in seconds, found 3"),
        ({"relevant_windows": [[0, 10**400]]}, "expected starts and ends in seconds"),
        ({"relevant_windows": [[False, True]]}, "expected starts and ends in seconds"),
        ({"relevant_windows": ["35"]}, "expected starts and ends in seconds"),
        ({"relevant_clip_ids": [41, 41]}, "none of which twice"),
        ({"vid": None}, "a video's id must be a text"),
        ({"qid": None}, "line 1: qid must be a text, is None"),
    ],
)
def test_a_record_of_another_form_is_named(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        load("qvhighlights", tmp_path, highlight_val_release__jsonl=json.dumps(RECORD | change))
