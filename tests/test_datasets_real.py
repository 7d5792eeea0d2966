"""The published annotation files themselves: counts, pairs, and the lists we ship."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from vtr.datasets.base import Dataset, split_queries
from vtr.datasets.published import ids_sha256, published_splits, split_facts
from vtr.datasets.registry import load_dataset

pytestmark = pytest.mark.real


@pytest.fixture(scope="session")
def annotations(real_data: Path) -> Path:
    folder = real_data / "annotations"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    return folder


def load(name: str, folder: Path) -> Dataset:
    return load_dataset(name, annotations=folder, videos=folder)


def counts(dataset: Dataset) -> dict[str, tuple[int, int]]:
    return {
        split: (len(ids), len(split_queries(dataset, split)))
        for split, ids in dataset.splits.items()
    }


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split()


MSRVTT = {
    "train": (6513, 130_260),
    "val": (497, 9_940),
    "test": (2990, 59_800),
    "trainval": (7010, 140_200),
    "1kA-train": (9000, 180_000),
    "1kA-test": (1000, 1_000),
    "1kB-train": (6656, 133_120),
    "1kB-test": (1000, 1_000),
}


@pytest.mark.parametrize("layout", ["all files", "json alone", "two official files", "json + csv"])
def test_msrvtt_in_every_layout(annotations: Path, tmp_path: Path, layout: str) -> None:
    source = annotations / "msrvtt"
    folder = tmp_path / "msrvtt"
    names = {
        "all files": [],
        "json alone": ["MSRVTT_data.merged.json"],
        "two official files": ["train_val_videodatainfo.json", "test_videodatainfo.json"],
        "json + csv": ["MSRVTT_data.merged.json", "MSRVTT_JSFUSION_test.csv"],
    }[layout]
    folder.mkdir()
    for name in names:
        (folder / name).symlink_to(source / name)
    dataset = load("msrvtt", folder if names else source)
    assert counts(dataset) == MSRVTT
    published = table(source / "MSRVTT_1kA_test_with_sen_id.csv")
    queries = dataset.queries["1kA-test"]
    assert [(query.video_id, query.id) for query in queries] == [
        (row["video_id"], row["sen_id"]) for row in published
    ]
    texts = {caption.id: caption.text for caption in dataset.captions}
    same = sum(texts[query.id] == query.text for query in queries)
    if "csv" in layout or layout == "all files":
        given = table(source / "MSRVTT_JSFUSION_test.csv")
        assert [query.text for query in queries] == [row["sentence"] for row in given]
        assert same == 965
    else:
        assert same == 1000
    assert len(set(dataset.categories.values())) == 20
    assert dataset.windows == {}


def test_msrvtt_test_file_alone_gives_the_splits_that_are_whole(
    annotations: Path, tmp_path: Path
) -> None:
    shutil.copy(annotations / "msrvtt" / "test_videodatainfo.json", tmp_path)
    dataset = load("msrvtt", tmp_path)
    assert counts(dataset) == {
        "test": (2990, 59_800),
        "1kA-test": (1000, 1_000),
        "1kA-train": (1990, 39_800),
        "1kB-train": (1367, 27_340),
        "1kB-test": (896, 896),
    }
    assert "complete are test, 1kA-test" in dataset.notes[0]
    assert "1kA-train: 1,990 of the published 9,000 videos" in dataset.notes


def test_msvd(annotations: Path, tmp_path: Path) -> None:
    expected = {"train": (1200, 48_774), "val": (100, 4_290), "test": (670, 27_763)}
    dataset = load("msvd", annotations / "msvd")
    assert counts(dataset) == expected
    assert (len(dataset.video_ids), len(dataset.captions)) == (1970, 80_827)
    shutil.copy(annotations / "msvd" / "captions_msvd.json", tmp_path)
    assert load("msvd", tmp_path).splits == dataset.splits


def test_activitynet(annotations: Path) -> None:
    dataset = load("activitynet", annotations / "activitynet")
    assert counts(dataset) == {
        "train": (10_009, 10_009),
        "val_1": (4917, 4917),
        "val_2": (4885, 4885),
    }
    assert len(dataset.video_ids) == 14_926
    raw = json.loads((annotations / "activitynet" / "val_1.json").read_bytes())
    for query in dataset.queries["val_1"]:
        assert query.text.split() == " ".join(raw[query.video_id]["sentences"]).split()


def test_didemo(annotations: Path, tmp_path: Path) -> None:
    dataset = load("didemo", annotations / "didemo")
    assert counts(dataset) == {"train": (8362, 8362), "val": (1062, 1062), "test": (1004, 1004)}
    assert dataset.notes == ()  # the csv's paragraphs are the json's
    shutil.copy(annotations / "didemo" / "test_data.json", tmp_path)
    alone = load("didemo", tmp_path)
    assert counts(alone) == {"test": (1004, 1004)}
    texts = {query.video_id: query.text for query in split_queries(dataset, "test")}
    assert {query.video_id: query.text.split() for query in split_queries(alone, "test")} == {
        name: text.split() for name, text in texts.items()
    }


@pytest.mark.parametrize("dataset", ["msrvtt", "msvd", "vatex", "activitynet", "didemo"])
def test_shipped_lists_are_the_published_ones(annotations: Path, dataset: str) -> None:
    folder = annotations / dataset
    ours = published_splits(dataset)
    for split, theirs in PUBLISHED[dataset](folder).items():
        assert len(theirs) == len(set(theirs)), split
        assert set(ours[split]) == set(theirs), split
        assert split_facts(dataset)[split]["sha256"] == ids_sha256(ours[split])


def _msrvtt(folder: Path) -> dict[str, list[str]]:
    def column(name: str) -> list[str]:
        return [row["video_id"] for row in table(folder / name)]

    return {
        "train": column("MSRVTT_train.full.csv"),
        "val": column("MSRVTT_val.full.csv"),
        "test": column("MSRVTT_test.full.csv"),
        "trainval": column("MSRVTT_train.7k.csv"),
        "1kA-train": column("MSRVTT_train.9k.csv"),
        "1kA-test": column("MSRVTT_JSFUSION_test.csv"),
        "1kB-train": lines(folder / "train_list_miech.txt"),
        "1kB-test": lines(folder / "test_list_miech.txt"),
    }


PUBLISHED = {
    "msrvtt": _msrvtt,
    "msvd": lambda folder: {
        split: lines(folder / f"{split}_list.txt") for split in ("train", "val", "test")
    },
    "vatex": lambda folder: {
        "train": lines(folder / "train_list.txt"),
        "val": lines(folder / "val_list.txt"),
        "test": lines(folder / "test_list.txt"),
        "test-1k5": lines(folder / "test1k5_sec_list.txt"),
    },
    "activitynet": lambda folder: {
        "train": list(json.loads((folder / "train_modified.json").read_bytes())),
        "val_1": list(json.loads((folder / "val_1.json").read_bytes())),
        "val_2": list(json.loads((folder / "val_2.json").read_bytes())),
    },
    "didemo": lambda folder: {
        split: [
            row["video_path"].rpartition("/")[2]
            for row in table(folder / f"didemo_{split}_label.csv")
        ]
        for split in ("train", "val", "test")
    },
}
