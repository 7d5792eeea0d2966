"""The document for FiftyOne, which is not installed here: its layout is that of fiftyone 1.22.1.

By hand `Dataset.from_json` of that version, with its database, read the document of `world`.
"""

import base64
import io
import json
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import (
    demo_backbone,
    patchwork,
    random_rows,
    random_store,
    run_app,
    write_clip,
    write_config,
    write_store,
)

from vtr.bridges.fiftyone import mean_of_units
from vtr.demo import demo_model_folder
from vtr.errors import ConfigError, ModelError
from vtr.features import FeatureStore

IDS = ("sub/ä.mp4", "b.mp4", "c.mp4", "odd", "bad.mp4")
SENTENCE = "a large red star"
VECTOR = (
    "eJyb7BfqGxDJyFDGUK2eklqcXKRupaBuk2airqOgnpZfVFKUmBefX5SSChJ3S8wpTgWKF2ckFqQC+RrGOpo6CrUKFAAu"
    "BjBosAcSDgCfmhxZ"
)
"""What FiftyOne makes of [0, 1, 2] in float32."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose first video shows the sentence for some seconds, the others noise."""
    folder = tmp_path_factory.mktemp("world")
    random_store(folder / "features", ["x"], num_frames=12)
    spec = FeatureStore(folder / "features").spec
    rows = random_rows(IDS, spec, num_frames=12, failed=["bad.mp4"])
    shown = demo_backbone().encode_texts([SENTENCE]).embeddings[0]
    frames = rows[0].frames.copy()
    frames[4:7] = shown / np.linalg.norm(shown) * 30 + frames[4:7] / 10
    rows[0] = replace(rows[0], frames=frames)
    rows = [
        replace(
            row,
            ledger=replace(row.ledger, duration_seconds=12.0, width=48, height=32, file_bytes=7),
        )
        for row in rows
    ]
    (next((folder / "features").glob("shard-*"))).unlink()
    write_store(folder / "features", rows, spec)
    for name in IDS[:2]:
        write_clip(folder / "videos" / name, patchwork(2) * 24, fps=4)
    (folder / "videos" / "bad.mp4").write_bytes(b"x")
    (folder / "captions.json").write_text(json.dumps({i: ["a thing"] for i in IDS}))
    write_config(folder, data={"dataset": "folder", "videos": "videos"})
    return folder


def document(world: Path, *words: str) -> tuple[dict[str, Any], str]:
    done = run_app("export", "--fiftyone", "deep/it é.json", *words, cwd=world)
    found: dict[str, Any] = json.loads((world / "deep" / "it é.json").read_text())
    return found, done.stderr


def array(value: dict[str, Any]) -> np.ndarray[Any, Any]:
    assert value["$binary"].keys() == {"base64", "subType"}
    content = zlib.decompress(base64.b64decode(value["$binary"]["base64"]))
    return np.load(io.BytesIO(content), allow_pickle=False)


def test_samples_moments_and_embeddings(world: Path) -> None:
    """Names, classes and encodings are those that FiftyOne's own `to_dict` gives."""
    found, said = document(world, "--query", SENTENCE, "--query", "a b c")
    assert (found["name"], found["media_type"]) == ("it é", "video")
    field = "fiftyone.core.fields."
    assert found["sample_fields"]["filepath"] == f"{field}StringField"
    assert found["sample_fields"]["embedding"] == f"{field}VectorField"
    assert found["sample_fields"]["moments"] == (
        f"{field}EmbeddedDocumentField(fiftyone.core.labels.TemporalDetections)"
    )
    assert found["sample_fields"]["metadata"] == (
        f"{field}EmbeddedDocumentField(fiftyone.core.metadata.VideoMetadata)"
    )
    store = FeatureStore(world / "features")
    assert found["info"]["fingerprint"] == store.fingerprint
    samples = {sample["video_id"]: sample for sample in found["samples"]}
    assert list(samples) == list(IDS)
    first, bad = samples["sub/ä.mp4"], samples["bad.mp4"]
    assert first["filepath"] == str(world / "videos" / "sub/ä.mp4")
    assert first["metadata"] == {
        "_cls": "VideoMetadata", "size_bytes": 7, "frame_width": 48, "frame_height": 32,
        "frame_rate": 4.0, "total_frame_count": 48, "duration": 12.0,
    }  # fmt: skip
    np.testing.assert_array_equal(array(first["embedding"]), mean_of_units(store[IDS[0]].frames))
    assert first["moments"]["_cls"] == "TemporalDetections"
    moment = first["moments"]["detections"][0]
    assert (moment["_cls"], moment["label"], moment["tags"]) == ("TemporalDetection", SENTENCE, [])
    start, end = moment["support"]  # the sentence is seen from 4 s to 7 s, of 48 frames in 12 s
    assert 14 <= start <= 18
    assert 26 <= end <= 30
    assert 0.5 < moment["confidence"] <= 1
    assert (bad["tags"], bad["embedding"], bad["moments"]) == (["failed"], None, None)
    assert bad["error"].startswith("not-a-video: ")
    assert samples["odd"]["filepath"] == "odd.mp4"
    assert samples["odd"]["metadata"]["frame_rate"] is None
    assert "2 videos whose file is not known here: name --videos" in said
    assert "no moment for 'a b c': nothing in these videos stands out" in said


def test_frames_that_are_no_numbers_have_no_mean() -> None:
    assert np.isnan(mean_of_units(np.zeros((0, 3), np.float16))).all()
    assert np.isnan(mean_of_units(np.array([[np.inf, 1, 2]], np.float16))).any()
    np.testing.assert_allclose(mean_of_units(np.array([[0, 3], [0, 5]], np.float16)), [0, 1])


def test_vectors_are_written_as_fiftyone_writes_them() -> None:
    expected = array({"$binary": {"base64": VECTOR, "subType": "00"}})
    assert (expected.tolist(), expected.dtype) == ([0.0, 1.0, 2.0], np.float32)


def test_a_folder_that_was_searched(tmp_path: Path) -> None:
    """Its hidden store is found by the folder's name, in every form."""
    write_clip(tmp_path / "films" / "a.mp4", patchwork(2) * 4)
    run_app("search", tmp_path / "films", "a dog", "--model", demo_model_folder())
    out = tmp_path / "it.json"
    words = ("export", "--features", tmp_path / "films", "--fiftyone", out, "--query", "a dog")
    run_app(*words, cwd=tmp_path)
    sample = json.loads(out.read_text())["samples"][0]
    assert sample["filepath"] == str(tmp_path / "films" / "a.mp4")
    assert sample["metadata"]["frame_rate"] == 4.0
    tar = tmp_path / "it.tar"
    run_app("export", "--features", tmp_path / "films", "--webdataset", tar)
    run_app("features", "import", tar, "--out", tmp_path / "back")
    assert FeatureStore(tmp_path / "back").ids == ("a.mp4",)


def test_what_is_refused(world: Path, tmp_path: Path) -> None:
    for words, reason in (
        (("--fiftyone", "it.txt"), r"it\.txt; it must end in \.json"),
        (("--webdataset", "a.tar", "--query", "x"), "--query says nothing without --fiftyone"),
        (("--fiftyone", "a.json", "--query", ""), "the sentence '' is empty"),
        (("--webdataset", "a.tar", "--onnx"), "--onnx is about a run: name it with --run"),
        (("--webdataset", "a.tar", "--reference"), "--reference is about a run"),
    ):
        with pytest.raises(ConfigError, match=reason):
            run_app("export", *words, cwd=world)
    random_store(tmp_path / "other", ["a"], weights_sha256="1" * 64)
    with pytest.raises(ModelError, match=r"is another model: .* Name the store's own with --model"):
        run_app(
            "export", "--features", tmp_path / "other", "--fiftyone", tmp_path / "a.json",
            "--query", "x", cwd=world,
        )  # fmt: skip
    assert not (tmp_path / "a.json").exists()
