"""Features that somebody else extracted, as a store: one `{video_id}.npy` per video.

Such sets (clip-features-vit-h14 among them) hold an (n, D) array per video and say nothing of how
it was made. The store's spec says that: its backbone is "imported:NAME", its weights digest is that
of the files. No text tower shares that digest, so training on it needs a text projection.
"""

from __future__ import annotations

import contextlib
import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vtr.errors import ConfigError, StoreError
from vtr.features.rows import LedgerRow, VideoRow
from vtr.features.shard import list_shards, write_shard
from vtr.features.spec import FeatureSpec
from vtr.files import replacing, require_empty

SHARD_VIDEOS = 256
SAMPLER = "dense"
"""What the files hold is all there is to choose from: any sampler can be applied to it later."""

BACKBONE_PREFIX = "imported:"


@dataclass(frozen=True)
class ImportReport:
    """What was imported.

    Args:
        ok: Videos with features.
        failed: Id to reason of the files that could not be used.
        frames: Rows in all.
        dim: D.
    """

    ok: int
    failed: dict[str, str]
    frames: int
    dim: int


def import_arrays(
    source: Path, store: Path, *, name: str | None = None, fps: float = 1.0
) -> ImportReport:
    """Makes a store of a folder of `{video_id}.npy` files.

    Args:
        source: The folder; sub-folders are not searched.
        store: To be made; must hold no shards yet.
        name: What to call the backbone; the folder's name by default.
        fps: Frames per second that the rows stand for; time stamps are row / fps. The files do not
            say, so these times are nominal.

    Raises:
        ConfigError: No such files there, or the store holds something already.
        StoreWriteError: The file system refused.
    """
    paths = sorted(source.glob("*.npy")) if source.is_dir() else []
    if not paths:
        raise ConfigError(f"{source} holds no .npy files; expected one per video, {{video_id}}.npy")
    if not fps > 0:
        raise ConfigError(f"--fps is {fps}; allowed: above 0")
    if list_shards(store)[0]:
        raise ConfigError(f"{store} is a store already: import into another folder")
    require_empty(store)
    dim = _dimension(paths)
    spec = FeatureSpec(
        backbone=BACKBONE_PREFIX + (name or source.name),
        revision="imported",
        weights_sha256=_digest(paths),
        embedding_dim=dim,
        compute_dtype="unknown",
        storage_dtype="float16",
        preprocessing={"route": "unknown"},
        candidate_fps=fps,
        num_frames=None,
        samplers=(SAMPLER,),
        seed=0,
        versions={"numpy": np.__version__},
    )
    report = ImportReport(0, {}, 0, dim)
    with replacing(store, option="--out") as place:
        for sequence, part in enumerate(_cut(paths)):
            rows = [_row(path, dim, fps) for path in part]
            write_shard(
                place,
                rows,
                spec=spec,
                slot=(1, 1, sequence),
                revision=0,
                pad_embedding=np.zeros(dim, np.float32),
            )
            failed = {
                row.ledger.id: row.ledger.error for row in rows if row.ledger.status == "failed"
            }
            report = ImportReport(
                report.ok + len(rows) - len(failed),
                report.failed | failed,
                report.frames + sum(len(row.frames) for row in rows),
                dim,
            )
    return report


def _cut(paths: Sequence[Path]) -> Iterator[Sequence[Path]]:
    for start in range(0, len(paths), SHARD_VIDEOS):
        yield paths[start : start + SHARD_VIDEOS]


def _row(path: Path, dim: int, fps: float) -> VideoRow:
    video_id = unicodedata.normalize("NFC", path.stem)
    frames, problem = _read(path)
    if frames is not None and frames.shape[1] != dim:
        problem = f"wrong-shape: {frames.shape[1]} dimensions, the other files have {dim}"
    if frames is None or problem:
        return VideoRow.failed(LedgerRow(video_id, "failed", problem, path.stat().st_size), dim)
    count = len(frames)
    ledger = LedgerRow(
        video_id,
        "ok",
        file_bytes=path.stat().st_size,
        num_candidates=count,
        duration_seconds=count / fps,
    )
    return VideoRow(ledger, frames, np.arange(count) / fps, {SAMPLER: np.arange(count)})


def _read(path: Path) -> tuple[NDArray[np.floating] | None, str]:
    """Returns ((n, D), "") or (None, "class: detail")."""
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        # NumPy's own words for both recommend allow_pickle, which would run code from the file.
        if "pickle" in str(error):
            return None, "not-an-array: neither a whole .npy file nor one of plain numbers"
        return None, f"not-an-array: {str(error).splitlines()[0] if str(error) else error!r}"
    if array.ndim == 1:
        array = array[None]
    if array.ndim != 2 or not len(array) or array.dtype.kind != "f":
        return None, f"wrong-shape: {array.dtype} {array.shape}; expected floats (n, D) with n >= 1"
    if not np.isfinite(array.astype(np.float16)).all():
        return None, "not-finite: a value is NaN, infinite, or too large for float16"
    if not (array != 0).any(axis=1).all():
        return None, "all-zero: a row is all zeros"
    return array, ""


def _dimension(paths: Sequence[Path]) -> int:
    """Returns the D that most files have, from their headers.

    Raises:
        StoreError: None is an array.
    """
    counts: Counter[int] = Counter()
    for path in paths:
        with contextlib.suppress(OSError, ValueError, EOFError):
            shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
            counts.update(shape[-1:])
    if not counts:
        raise StoreError(f"none of the {len(paths)} .npy files holds an array of numbers")
    return counts.most_common(1)[0][0]


def _digest(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode("utf-8", "surrogatepass"))
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()
