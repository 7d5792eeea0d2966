"""Stores whose rows are windows of frames: read, written again, selected, damaged, searched."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from builders import number_of, numbered, random_rows, sampled, write_clip, write_store

import vtr
from vtr.api.moments import predict
from vtr.datasets.base import Caption
from vtr.errors import ShardError, StoreError
from vtr.features import FeatureSpec, VideoRow
from vtr.features.reader import open_shard
from vtr.features.shard import ShardName, list_shards
from vtr.searching.moments import row_edges


@pytest.fixture
def windows(spec: FeatureSpec) -> FeatureSpec:
    return replace(spec, preprocessing={**spec.preprocessing, "frames": 8}, samplers=("dense",))


def window_rows(spec: FeatureSpec) -> list[VideoRow]:
    """Two videos of three windows; the last overlaps the second, as where a rest is shorter."""
    spans = np.array([[0.0, 8.0], [8.0, 16.0], [12.0, 20.0]])
    return [
        replace(row, spans=spans, pts_seconds=spans.mean(axis=1), ledger=ledger)
        for row in random_rows(["a", "b"], spec)
        for ledger in [replace(row.ledger, duration_seconds=20.0)]
    ]


def test_windows_are_read_as_they_were_written(tmp_path: Path, windows: FeatureSpec) -> None:
    rows = window_rows(windows)
    store = vtr.FeatureStore(write_store(tmp_path / "s", rows, windows), sampler="head", frames=2)
    assert store.spec.window_frames == 8
    np.testing.assert_array_equal(store["b"].spans, rows[1].spans[:2])
    np.testing.assert_array_equal(
        store.packed(["b", "a"]).spans, np.tile(rows[0].spans[:2], (2, 1))
    )
    again = write_store(tmp_path / "again", list(store.shards[0].rows()), windows)
    assert list_shards(again)[0][0][0].sha256 == store.shards[0].name.sha256


def test_stores_of_frames_have_none(tmp_path: Path, spec: FeatureSpec) -> None:
    store = vtr.FeatureStore(write_store(tmp_path / "s", random_rows(["a"], spec), spec))
    assert store.spec.window_frames == 1
    assert store.packed().spans is store["a"].spans is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file["frame/end_seconds"].write_direct(np.zeros(6)), "frame/end_seconds"),
        (lambda file: file["frame/start_seconds"].write_direct(np.full(6, np.nan)), "inconsistent"),
        (lambda file: file.pop("frame/start_seconds"), "'frame/start_seconds' is absent"),
    ],
)
def test_windows_that_do_not_last_are_refused(
    tmp_path: Path, windows: FeatureSpec, change: object, message: str
) -> None:
    folder = write_store(tmp_path / "s", window_rows(windows), windows)
    path = next(folder.glob("*.h5"))
    with h5py.File(path, "r+") as file:
        change(file)  # type: ignore[operator]
    name = ShardName.parse(path.name)
    with pytest.raises(ShardError, match=message):
        open_shard(path, name)


def test_moments_begin_and_end_where_windows_do(tmp_path: Path, windows: FeatureSpec) -> None:
    rows = window_rows(windows)
    rows = [replace(row, frames=np.eye(4, dtype=np.float32)[:3]) for row in rows]
    store = vtr.FeatureStore(write_store(tmp_path / "s", rows, windows))
    asked = [Caption("1", "a", "x"), Caption("2", "b", "y")]
    found, _ = predict(store, asked, np.eye(4, dtype=np.float32)[1:3])
    np.testing.assert_allclose(found[0].windows[0], [8, 16])
    np.testing.assert_allclose(found[1].windows[0], [12, 20])
    starts, ends = row_edges(np.array([1.0, 3.0]), None, 4.0)
    assert (starts.tolist(), ends.tolist()) == ([0, 2], [2, 4])


def test_windows_and_frames_do_not_mix(
    tmp_path: Path, spec: FeatureSpec, windows: FeatureSpec
) -> None:
    folder = write_store(tmp_path / "s", window_rows(windows), windows)
    plain = replace(spec, samplers=("dense",))
    write_store(folder, random_rows(["c"], plain), plain, sequence=1)
    with pytest.raises(StoreError, match=r"preprocessing\.frames is 8, asked None"):
        vtr.FeatureStore(folder)


@pytest.mark.parametrize("label", ["uniform", "motion", "dense", "head"])
@pytest.mark.parametrize(("start", "end"), [(None, None), (1.0, 3.5)])
def test_a_window_holds_the_frames_of_its_span(
    tmp_path: Path, label: str, start: float | None, end: float | None
) -> None:
    clip = write_clip(tmp_path / "c.mp4", [numbered(n) for n in range(23)], fps=4)
    part = {"start_seconds": start, "end_seconds": end}
    found = sampled(clip, label, 2, candidate_fps=2.0, window=3, **part)
    seen = np.array([[number_of(picture) for picture in window] for window in found.crops])
    assert seen.shape == (len(found.spans), 3)
    assert (np.diff(seen, axis=1) == 2).all(), "every second frame"
    np.testing.assert_allclose(found.spans[:, 0], seen[:, 0] / 4)
    stop = 23 / 4 if end is None else end
    np.testing.assert_allclose(found.spans[:, 1], np.minimum((seen[:, -1] + 2) / 4, stop))
    np.testing.assert_allclose(found.pts_seconds, found.spans.mean(axis=1))
    if label in ("dense", "head"):
        assert found.spans[0, 0] == (start or 0.0)
    if label == "dense":
        assert found.spans[-1, 1] == stop
        assert (found.spans[1:, 0] <= found.spans[:-1, 1]).all()
