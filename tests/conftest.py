"""Shared fixtures: small stores made through the real writer."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from builders import NO_VIDEO, demo_backbone, write_store
from hypothesis import settings

from vtr.commands.console import Terminal
from vtr.features.rows import LedgerRow, VideoRow
from vtr.features.spec import FeatureSpec
from vtr.progress import listening

if TYPE_CHECKING:
    from vtr.clip.backbone import Backbone

# Threads cost small models more than they bring; processes that tests start take this over.
os.environ["OMP_NUM_THREADS"] = "1"

# A loaded machine is slow, not wrong; no test asserts a time.
settings.register_profile("vtr", deadline=None, print_blob=True)
settings.load_profile("vtr")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with real videos and reference numbers; tests marked `real` only."""
    folder = os.environ.get("VTR_REAL_DATA")
    if not folder:
        pytest.skip("VTR_REAL_DATA is not set")
    return Path(folder).resolve()  # tests link to its files from elsewhere


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps what vtr remembers for a user out of the home of who runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def terminal() -> Iterator[None]:
    """Prints remarks and progress to stderr, as under `vtr`: many tests call commands directly."""
    with listening(Terminal()):
        yield


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    """The model that ships, on the CPU."""
    return demo_backbone()


@pytest.fixture
def spec() -> FeatureSpec:
    return FeatureSpec(
        backbone="tiny",
        revision="local",
        weights_sha256="0" * 64,
        embedding_dim=4,
        compute_dtype="float32",
        storage_dtype="float16",
        preprocessing={"route": "fast", "size": [8, 8]},
        candidate_fps=1.0,
        num_frames=3,
        samplers=("head", "uniform"),
        seed=0,
        versions={"av": "18"},
    )


def make_row(video_id: str, num_frames: int, spec: FeatureSpec, seed: int = 0) -> VideoRow:
    """A row with random features; `head` takes the first two frames, `uniform` all."""
    rng = np.random.default_rng([seed, num_frames])
    if not num_frames:
        return VideoRow.failed(LedgerRow(video_id, "failed", NO_VIDEO), spec.embedding_dim)
    chosen = {label: np.arange(num_frames) for label in spec.samplers}
    if "head" in chosen:
        chosen["head"] = np.arange(min(2, num_frames))
    return VideoRow(
        LedgerRow(video_id, "ok", "", 1000 + seed, num_frames, num_frames / 2, 0.5, 320, 240),
        rng.standard_normal((num_frames, spec.embedding_dim)).astype(np.float32),
        np.arange(num_frames) / 2 + 0.5,
        chosen,
    )


@pytest.fixture
def build_store(tmp_path: Path, spec: FeatureSpec) -> Callable[..., Path]:
    """Writes a store from frame counts per video, one list per shard."""

    def build(shards: Sequence[Sequence[int]], **changes: object) -> Path:
        folder = tmp_path / "features"
        ours = replace(spec, **changes)  # type: ignore[arg-type]
        number = 0
        for sequence, counts in enumerate(shards):
            rows = []
            for count in counts:
                rows.append(make_row(f"vidéo {number}", count, ours, seed=number))
                number += 1
            pad = np.arange(ours.embedding_dim, dtype=np.float32)
            write_store(folder, rows, ours, sequence=sequence, pad=pad)
        return folder

    return build


@pytest.fixture
def row_factory(spec: FeatureSpec) -> Callable[..., VideoRow]:
    return lambda video_id, count, seed=0: make_row(video_id, count, spec, seed)
