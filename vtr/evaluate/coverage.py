"""Which videos of a protocol can be scored, why not the others, and whether features are sound."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from vtr.counts import counted
from vtr.errors import DatasetError, StoreError, UnknownNameError
from vtr.evaluate.protocol import QuerySet
from vtr.features import FeatureStore, PackedFrames

MissingPolicy = Literal["miss", "restrict", "fail"]
POLICIES: tuple[str, ...] = get_args(MissingPolicy)
_NAMED = 5
_ROWS_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Coverage:
    """What of a gallery the store holds."""

    # "miss": an absent video is a counted miss, and the protocol's own counts stay the
    # denominators; "restrict": it and its queries are left out; "fail": it is an error.
    policy: MissingPolicy
    present: NDArray[np.bool_]  # (V,) whether the store has frames of the video
    absent: tuple[tuple[str, str], ...]  # (id, reason) of the others

    @property
    def line(self) -> str:
        """Says it in a few words."""
        total, there = len(self.present), int(self.present.sum())
        if there == total:
            return f"all {counted(total, 'video')}"
        one = total - there == 1
        fate = "left out with its queries" if one else "left out with their queries"
        if self.policy == "miss":
            fate = "counted as a miss" if one else "counted as misses"
        return (
            f"{there:,} of {counted(total, 'video')}; {counted(total - there, 'absent one')} {fate}"
        )


def cover(queries: QuerySet, store: FeatureStore, *, policy: str = "miss") -> Coverage:
    """Compares a gallery with a store, as `cover_videos` does."""
    return cover_videos(queries.video_ids, store, protocol=queries.protocol, policy=policy)


def cover_videos(
    video_ids: Sequence[str], store: FeatureStore, *, protocol: str, policy: str
) -> Coverage:
    """Compares the V videos of a protocol with a store; `policy` is one of `POLICIES`.

    Policy "fail" refuses a store that lacks any, every policy one that lacks all.
    """
    if policy not in POLICIES:
        raise UnknownNameError("policy for missing videos", policy, POLICIES)
    present = np.array([video_id in store for video_id in video_ids], dtype=np.bool_)
    lost = [video_id for v, video_id in enumerate(video_ids) if not present[v]]
    wanted = set(lost)
    ledger = {row.id: row.error for row in store.ledger if row.id in wanted} if lost else {}
    reasons = {video_id: ledger.get(video_id, "not in the store") for video_id in lost}
    if lost and (policy == "fail" or not present.any()):
        named = _some([f"{video_id} ({reasons[video_id]})" for video_id in lost])
        some = ", or leave them out with --missing restrict" if present.any() else ""
        have = "has" if len(lost) == 1 else "have"
        raise DatasetError(
            f"{len(lost):,} of the {counted(len(present), 'video')} of {protocol!r} {have} "
            f"no features in {store.folder}: {named}. Extract them, or choose another store with "
            f"--features{some}"
        )
    return Coverage(cast(MissingPolicy, policy), present, tuple(reasons.items()))


def check_features(packed: PackedFrames) -> None:
    """Refuses features that cannot be compared with anything."""
    bad: list[int] = []
    for start in range(0, len(packed.frames), _ROWS_AT_ONCE):
        rows = packed.frames[start : start + _ROWS_AT_ONCE]
        sound = np.isfinite(rows).all(axis=1) & (rows != 0).any(axis=1)
        bad += (start + np.flatnonzero(~sound)).tolist()
    if bad:
        owners = np.searchsorted(packed.offsets, np.array(bad), side="right") - 1
        named = list(dict.fromkeys(packed.ids[v] for v in owners.tolist()))
        raise StoreError(
            f"{counted(len(bad), 'frame embedding is', 'frame embeddings are')} not finite or all "
            f"zeros, in {counted(len(named), 'video')}: {_some(named)}. No similarity can be "
            "computed from them; extract these videos again in float32"
        )


def frames_sha256(packed: PackedFrames) -> str:
    """Returns the SHA-256 of the videos' ids, numbers of frames and embeddings, in hex."""
    digest = hashlib.sha256("\0".join(packed.ids).encode("utf-8", "surrogatepass"))
    for array in (packed.offsets, packed.frames):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _some(names: Sequence[str]) -> str:
    rest = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + rest
