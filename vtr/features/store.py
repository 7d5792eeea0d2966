"""The feature cache as a mapping: video id to cached features, over all shards."""

from __future__ import annotations

import contextlib
import copy
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vtr.counts import counted
from vtr.errors import FingerprintError, ShardError, StoreError, UnknownNameError
from vtr.features.digests import WholeShards, is_whole
from vtr.features.pictures import PackedPictures, PictureFormat
from vtr.features.reader import Shard, gather, open_shard
from vtr.features.rows import LedgerRow, VideoFeatures
from vtr.features.shard import ShardName, list_shards
from vtr.features.spec import FeatureSpec
from vtr.foreign import first_few

Index = NDArray[np.int64]


@dataclass(frozen=True)
class PackedFrames:
    """The features of several videos in one array, without padding.

    >>> import vtr
    >>> store = vtr.FeatureStore("demo-world/features", sampler="uniform", frames=8)
    >>> packed = store.packed(["test-order-000a", "test-brief-000"])
    >>> packed.frames.shape, packed.offsets.tolist()
    ((16, 96), [0, 8, 16])
    """

    ids: tuple[str, ...]  # V video ids
    frames: NDArray[np.floating[Any]]  # (R, D) all frames, video after video
    pts_seconds: NDArray[np.float64]  # (R,) float64 presentation times
    offsets: Index  # (V+1,) int64; video v has rows offsets[v] to offsets[v + 1]
    # (R, 2) float64 start and end of each row, where rows are windows; None where frames.
    spans: NDArray[np.float64] | None = None

    def padded(
        self, fill: NDArray[np.floating[Any]] | None = None
    ) -> tuple[NDArray[np.floating[Any]], NDArray[np.bool_]]:
        """Returns (frames (V, T, D), mask (V, T)), left-aligned, T the longest video.

        Args:
            fill: (D,) what stands in padded places; zeros by default.
        """
        lengths = np.diff(self.offsets)
        mask = np.arange(lengths.max(initial=0)) < lengths[:, None]  # (V, T)
        padded = np.zeros((*mask.shape, self.frames.shape[1]), self.frames.dtype)
        if fill is not None:
            padded[:] = fill
        padded[mask] = self.frames
        return padded, mask


@dataclass(frozen=True)
class _Rows:
    """For one sampler: where each video's rows lie. All arrays run over the usable videos."""

    first: Index
    count: Index
    selections: tuple[Index, ...]  # By shard, the frames that are chosen


class FeatureStore(Mapping[str, VideoFeatures]):
    """A folder of shards, read as one mapping from video id to `VideoFeatures`.

    Iteration and `len` cover the videos that have features; `ledger` covers every input. Opening
    reads the ledgers only; features are mapped and read when touched.

    Args:
        folder: The store.
        sampler: Whose frames to return; the only sampler of the store by default. `None` on a
            store of several samplers returns all frames.
        skip_damaged: Leave damaged shards out, naming them in `damaged`, where others are sound.
        part: (i, n): only what part i of n has written.

    Raises:
        StoreError: No store there, or damaged shards.
        FingerprintError: The shards do not belong together.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        sampler: str | None = None,
        skip_damaged: bool = False,
        part: tuple[int, int] | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.shards, self.damaged = _open_shards(self.folder, skip_damaged, part)
        self.spec: FeatureSpec = self.shards[0].spec
        for shard in self.shards[1:]:
            require_same(self.spec, shard.spec, what=f"{shard.path.name} and its neighbours")
        self.sampler = self.spec.samplers[0] if len(self.spec.samplers) == 1 else None
        self._index_videos()
        if sampler is not None:
            self._see_through(sampler)

    def _see_through(self, sampler: str) -> None:
        """Takes the frames of a sampler; `vtr.FeatureStore` knows more of them than are stored."""
        if sampler not in self.spec.samplers:
            raise UnknownNameError(f"selection in {self.folder}", sampler, self.spec.samplers)
        self.sampler = sampler

    def _index_videos(self) -> None:
        """Finds each usable video's shard and place; of an id stored twice the first counts."""
        seen: dict[str, tuple[int, int]] = {}
        usable: list[tuple[str, int, int]] = []
        self.duplicates: list[str] = []
        for s, shard in enumerate(self.shards):
            frames = np.diff(shard.frame_offset).tolist()
            for v, video_id in enumerate(shard.ids):
                if video_id in seen:
                    self.duplicates.append(video_id)
                    continue
                seen[video_id] = (s, v)
                if frames[v]:
                    usable.append((video_id, s, v))
        self._inputs = seen
        self.ids = tuple(video_id for video_id, _, _ in usable)
        self._position = {video_id: i for i, video_id in enumerate(self.ids)}
        self._shard_of = np.array([s for _, s, _ in usable], np.int64)
        self._video_of = np.array([v for _, _, v in usable], np.int64)

    def __repr__(self) -> str:
        return f"FeatureStore({str(self.folder)!r}, videos={len(self)}, sampler={self.sampler!r})"

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __contains__(self, video_id: object) -> bool:
        return video_id in self._position

    def __getitem__(self, video_id: str) -> VideoFeatures:
        packed = self.packed([video_id])
        return VideoFeatures(video_id, packed.frames, packed.pts_seconds, packed.spans)

    @property
    def fingerprint(self) -> str:
        """The fingerprint that all shards share."""
        return self.spec.fingerprint

    @property
    def input_ids(self) -> tuple[str, ...]:
        """The ids of all inputs, failed ones too, in plan order."""
        return tuple(self._inputs)

    def holds_in(self, shard: Shard, input_id: str) -> bool:
        """Returns whether it is this shard that an input is read from."""
        place = self._inputs.get(input_id)
        return place is not None and self.shards[place[0]] is shard

    @property
    def pad_embedding(self) -> NDArray[np.float32]:
        """(D,) the tower's output for an all-zero normalised image."""
        pad: NDArray[np.float32] = self.shards[0].columns["pad_embedding"]
        return pad

    @cached_property
    def ledger(self) -> tuple[LedgerRow, ...]:
        """One row per input, failed ones too, in plan order."""
        rows = [shard.ledger() for shard in self.shards]
        own = ((i, rows[s][v]) for i, (s, v) in self._inputs.items())
        return tuple(row if row.id == i else replace(row, id=i) for i, row in own)

    def thumbnails(self, video_id: str) -> NDArray[np.uint8]:
        """Returns (K, s, s) brightness thumbnails of a video's frames.

        Raises:
            StoreError: The store keeps none, or the video has no features.
        """
        if self.spec.thumbnail_side is None:
            raise StoreError(f"{self.folder} keeps no thumbnails; dense stores do")
        which = self._positions([video_id])
        shard = self.shards[int(self._shard_of[which[0]])]
        luma: NDArray[np.uint8] = shard.columns["frame/luma"]
        return luma[self._shard_rows(int(self._shard_of[which[0]]), which)]

    @cached_property
    def picture_format(self) -> PictureFormat | None:
        """How pictures are kept beside the embeddings; None where (some) shards keep none.

        Parts made in folders of their own may differ: where some are WebP, it is WebP.
        """
        if None in self.picture_formats:
            return None
        return max(self.picture_formats, default=None, key=str)

    @cached_property
    def picture_formats(self) -> frozenset[PictureFormat | None]:
        """Every way in which shards keep pictures, None for those that keep none."""
        return frozenset(shard.picture_format for shard in self.shards if len(shard.frames))

    def require_pictures(self) -> None:
        """Refuses a store that keeps no pictures: says how to make them, and how large they are."""
        if self.picture_format is not None:
            return
        self.require_videos()
        if self.spec.window_frames > 1:
            raise StoreError(
                f"{self.folder} keeps no pictures: its rows are windows of "
                f"{counted(self.spec.window_frames, 'frame')}. Extract with a model that sees "
                "single frames"
            )
        size = self.spec.preprocessing.get("size")
        if not size:
            raise StoreError(
                f"{self.folder} keeps no pictures and cannot: its features were imported. Make a "
                "store with vtr extract --crops raw"
            )
        num_frames = sum(len(shard.frames) for shard in self.shards)
        raw = num_frames * size[0] * size[1] * 3 / 1e9
        bare = [shard.path.name for shard in self.shards if shard.picture_format is None]
        which = "" if len(bare) == len(self.shards) else f" of the videos in {first_few(bare, 2)}"
        raise StoreError(
            f"{self.folder} keeps no pictures{which}. Extract them with `vtr extract --crops raw "
            f"--overwrite`, or into another folder with --features: about {raw:.3g} GB for its "
            f"{counted(num_frames, 'frame')}, a third of that with --crops webp"
        )

    def require_videos(self) -> None:
        """Raises StoreError where every video failed; says where the reasons are."""
        if not len(self):
            failed = counted(len(self.input_ids), "video")
            raise StoreError(
                f"{self.folder} has features of no video: {failed} failed. Which and why: "
                f"vtr inspect {shlex.quote(str(self.folder))} --failures"
            )

    def pictures(self, ids: Sequence[str] | None = None) -> PackedPictures:
        """Returns the kept pictures of several videos, all by default, in the order of `packed`.

        Raises:
            StoreError: The store keeps none, or an id has no features.
        """
        self.require_pictures()
        which = self._positions(ids)
        offsets = self._offsets(which)
        height, width = self.spec.preprocessing["size"]
        pixels = np.empty((int(offsets[-1]), height, width, 3), np.uint8)
        for s, videos in self._runs(which):
            place = slice(int(offsets[videos.start]), int(offsets[videos.stop]))
            self.shards[s].pictures(self._shard_rows(s, which[videos]), pixels[place])
        return PackedPictures(self.ids if ids is None else tuple(ids), pixels, offsets)

    def offsets(self, ids: Sequence[str] | None = None) -> NDArray[np.int64]:
        """Returns (V+1,) where the frames of several videos begin in `packed` and `pictures`."""
        return self._offsets(self._positions(ids))

    def with_selection(self, label: str, picks: Mapping[str, Index]) -> Self:
        """Returns this store with other frames selected, under a label.

        `picks` are, for every video, ascending indices into the frames that `self` returns of it.
        """
        view = copy.copy(self)
        view.sampler = label
        first, count, chosen = [], [], [[np.zeros(0, np.int64)] for _ in self.shards]
        filled = [0] * len(self.shards)
        for v, video_id in enumerate(self.ids):
            s = int(self._shard_of[v])
            rows = self._shard_rows(s, np.array([v]))
            every = np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
            picked = every[picks[video_id]]
            chosen[s].append(picked)
            first.append(filled[s])
            count.append(len(picked))
            filled[s] += len(picked)
        selections = tuple(np.concatenate(parts) for parts in chosen)
        view.__dict__["_rows"] = _Rows(
            np.array(first, np.int64), np.array(count, np.int64), selections
        )
        return view

    def renamed(self, names: Mapping[str, str]) -> Self:
        """Returns this store with other ids, by the stored ones; those that are not named stay.

        Raises:
            StoreError: Two inputs would share an id.
        """
        view = copy.copy(self)
        view.__dict__.pop("ledger", None)
        view._inputs = {names.get(i, i): place for i, place in self._inputs.items()}
        if len(view._inputs) < len(self._inputs):
            raise StoreError(f"two videos of {self.folder} would have one id")
        view.ids = tuple(names.get(i, i) for i in self.ids)
        view._position = {video_id: i for i, video_id in enumerate(view.ids)}
        return view

    @cached_property
    def _rows(self) -> _Rows:
        held = [shard.selection(self.sampler) for shard in self.shards]
        pairs = list(zip(self._shard_of.tolist(), self._video_of.tolist(), strict=True))
        first = np.array([held[s][1][v] for s, v in pairs], np.int64)
        last = np.array([held[s][1][v + 1] for s, v in pairs], np.int64)
        return _Rows(first, last - first, tuple(rows for rows, _ in held))

    def packed(self, ids: Sequence[str] | None = None, *, dtype: str | None = None) -> PackedFrames:
        """Returns the frames of several videos in one array.

        Args:
            ids: Which videos, in this order; repeats allowed. All by default.
            dtype: dtype of `frames`; as stored by default.

        Raises:
            StoreError: An id without features; names it and why.
        """
        which = self._positions(ids)
        offsets = self._offsets(which)
        shape = (int(offsets[-1]), self.spec.embedding_dim)
        frames = np.empty(shape, dtype or self.spec.storage_dtype)
        pts_seconds = np.empty(shape[0])
        spans = np.empty((shape[0], 2)) if self.spec.window_frames > 1 else None
        for s, videos in self._runs(which):
            rows = self._shard_rows(s, which[videos])
            place = slice(int(offsets[videos.start]), int(offsets[videos.stop]))
            gather(self.shards[s].frames, rows, frames[place])
            gather(self.shards[s].columns["frame/pts_seconds"], rows, pts_seconds[place])
            if spans is not None:
                spans[place] = self.shards[s].spans[rows]  # type: ignore[index]
        names = self.ids if ids is None else tuple(ids)
        return PackedFrames(names, frames, pts_seconds, offsets, spans)

    def _positions(self, ids: Sequence[str] | None) -> Index:
        if ids is None:
            return np.arange(len(self.ids))
        try:
            return np.array([self._position[video_id] for video_id in ids], np.int64)
        except KeyError as error:
            raise StoreError(self._absence(error.args[0])) from None

    def _offsets(self, which: Index) -> Index:
        return np.concatenate([[0], np.cumsum(self._rows.count[which])]).astype(np.int64)

    def _absence(self, video_id: str) -> str:
        for row in self.ledger:
            if row.id == video_id:
                return f"video {video_id!r} has no features: {row.error or row.status}"
        return (
            f"video {video_id!r} is not in {self.folder} "
            f"({counted(len(self), 'video is', 'videos are')})"
        )

    def _runs(self, which: Index) -> Iterator[tuple[int, slice]]:
        """Cuts a request into runs of neighbours that lie in one shard."""
        shards = self._shard_of[which]
        cuts = np.flatnonzero(np.diff(shards)) + 1
        edges = [0, *cuts.tolist(), len(which)]
        for start, stop in pairwise(edges):
            if stop > start:
                yield int(shards[start]), slice(start, stop)

    def _shard_rows(self, s: int, videos: Index) -> slice | Index:
        first, count = self._rows.first[videos], self._rows.count[videos]
        total = int(count.sum())
        if bool((first[1:] == first[:-1] + count[:-1]).all()):
            place: slice | Index = slice(int(first[0]), int(first[0]) + total)
        else:
            starts = np.repeat(first - np.concatenate([[0], np.cumsum(count)[:-1]]), count)
            place = starts + np.arange(total)
        rows = self._rows.selections[s][place]
        # A sampler alone in its store chose every row: then a gather is a plain copy.
        if len(rows) and rows[-1] - rows[0] == total - 1 and bool((np.diff(rows) == 1).all()):
            return slice(int(rows[0]), int(rows[-1]) + 1)
        return rows

    def verify(self) -> list[str]:
        """Reads every byte; returns the names of shards whose checksum does not fit."""
        return [shard.path.name for shard in self.shards if not is_whole(shard.path, shard.name)]


def _open_shards(
    folder: Path, skip_damaged: bool, part: tuple[int, int] | None
) -> tuple[tuple[Shard, ...], dict[Path, ShardError]]:
    """Opens the shards that count; returns them and the damaged ones."""
    names = _require_shards(folder, part)
    whole = WholeShards(folder)
    opened: dict[Path, Shard] = {}
    specs: dict[str, FeatureSpec] = {}  # read once: they are the same
    while True:
        damaged = {}
        for name, path in names:
            try:
                if path not in opened:
                    whole.check(path, name)
                    opened[path] = open_shard(path, name, specs=specs)
            except ShardError as error:
                damaged[path] = error
        # A retry that runs meanwhile replaces shards: then another look finds the new ones, those
        # too of which the old one went before a large folder was read as far as its name.
        before, names = names, _require_shards(folder, part)
        slots = {name.slot for name, _ in before}
        missed = any(name.revision and name.slot not in slots for name, _ in names)
        if names == before or not (damaged or missed):
            break
    if damaged and not (skip_damaged and opened):
        raise next(iter(damaged.values()))
    whole.remember(others=part is not None)
    return tuple(opened[path] for _, path in before if path in opened), damaged


def _require_shards(folder: Path, part: tuple[int, int] | None) -> list[tuple[ShardName, Path]]:
    """Returns the shards that count; refuses a folder without any."""
    if names := list_shards(folder, part=part)[0]:
        return names
    if (folder / ".lock").exists():
        raise StoreError(
            f"no features yet: {folder} holds no shards. If `vtr extract` is at work there, wait "
            "for its first one; else run it (again)"
        )
    if folder.is_dir():
        what = "holds no shards"
    else:
        what = "is not a folder" if folder.exists() else "does not exist"
    raise StoreError(f"no features: {folder} {what}. Run `vtr extract` first")


def stored_picture_format(folder: Path) -> PictureFormat | None:
    """Returns how a store keeps pictures, by its first sound shard with frames; None if not."""
    for name, path in list_shards(folder)[0]:
        with contextlib.suppress(ShardError):
            shard = open_shard(path, name)
            if len(shard.frames):
                return shard.picture_format
    return None


_OF_VERSION = ("decoding", "vision.", "versions.")
"""Fields of a spec that no option sets."""


def require_same(stored: FeatureSpec, asked: FeatureSpec, *, what: str) -> None:
    """Raises FingerprintError naming every field in which two specs differ."""
    differences = stored.differences(asked)
    if differences:
        lines = "; ".join(
            f"{name} is {ours!r}, asked {theirs!r}" for name, ours, theirs in differences
        )
        of_version = all(name.startswith(_OF_VERSION) for name, _, _ in differences)
        advice = (
            "No option brings that back: another version of vtr or its libraries made it. Evaluate "
            "and train on it as it is; to extract, use"
            if of_version
            else "Use the same settings,"
        )
        raise FingerprintError(
            f"{what}: made with other {'versions' if of_version else 'settings'}: {lines}. "
            f"{advice} another folder (--features DIR), or --overwrite to start it anew"
        )
