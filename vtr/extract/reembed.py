"""The pictures that a store keeps, embedded by another tower without the videos."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from vtr.clip.device import ENGINES
from vtr.datasets.base import Video
from vtr.errors import StoreError
from vtr.extract.choose import DENSE
from vtr.extract.pipeline import ExtractReport, Progress, StoreRun, first_slot, report_of
from vtr.extract.resume import ExtractMode, Input, open_for_writing
from vtr.extract.settings import (
    Encoder,
    ExtractSettings,
    check_selections,
    encoding_libraries,
    library_versions,
)
from vtr.features.lock import write_lock
from vtr.features.pictures import require_same_making
from vtr.features.rows import LedgerRow
from vtr.features.shard import list_shards
from vtr.features.spec import FeatureSpec
from vtr.features.store import FeatureStore


def reembed(
    source: FeatureStore,
    folder: Path,
    encoder: Encoder,
    *,
    batch_size: int | None = None,
    mode: ExtractMode | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> ExtractReport:
    """Embeds the pictures that a store keeps, without the videos: same rows, other numbers.

    The new store has the shards of the old one, each published whole; run again after an
    interruption, it goes on, and what the old one has no more goes. Of `mode` only `check` counts;
    `progress` is called after every video.

    Raises:
        ModelError: The tower sees pictures of another size or made in another way.
        FingerprintError: `folder` holds a store of other settings.
    """
    spec = _spec_of(source, encoder)
    settings = ExtractSettings(batch_size=batch_size)
    check_selections(encoder.describe(), spec.samplers)
    now = Progress(len(source.input_ids))
    with write_lock(folder):
        store = open_for_writing(folder, spec, ExtractMode(), None)
        held = {shard.name.slot: shard for shard in store.shards} if store else {}
        run = StoreRun(folder, encoder, settings, spec, now, progress)
        run.mode = mode or run.mode
        for shard in source.shards:
            old = held.get(shard.name.slot)
            if old is not None and old.ledger() == shard.ledger():
                now.done += len(shard.ids)
                continue
            run.embed(shard, 0 if old is None else old.name.revision + 1)
            if old is not None:  # its videos were done again since
                old.path.unlink(missing_ok=True)
        slots = {shard.name.slot for shard in source.shards}
        parts = {slot[:2] for slot in slots}  # other parts may come from other stores
        for slot, old in held.items():
            if slot[:2] in parts and slot not in slots:  # its videos are in the source no more
                old.path.unlink(missing_ok=True)
    inputs: list[Input] = [(Video(video_id, None), None) for video_id in source.input_ids]
    return report_of(folder, inputs, now, hashed=set())


def embed_view(
    view: FeatureStore,
    ids: Sequence[str],
    folder: Path,
    encoder: Encoder,
    *,
    settings: ExtractSettings,
    progress: Callable[[Progress], None] = lambda _: None,
) -> None:
    """Embeds the frames that a store is seen through, of some videos: their pictures are kept.

    The new store holds that selection alone, and of the videos (failed ones too) those that were
    ever asked for. It is a cache: what is damaged in it, or was done again in the source, is made
    anew. Of the settings the sampler's budget and the size of batches and shards count.

    Raises:
        ModelError: The tower sees pictures of another size or made in another way.
        StoreWriteError: The disk refused; what was published before is intact.
    """
    spec, label = _spec_of(view, encoder), str(view.sampler)
    check_selections(encoder.describe(), [label])
    budget = None if label == DENSE else settings.num_frames
    spec = replace(spec, samplers=(label,), num_frames=budget, thumbnail_side=None)
    ledger = {row.id: row for row in view.ledger}
    with write_lock(folder, option="--run"):
        for path in stale_shards(folder, ledger):
            path.unlink(missing_ok=True)
        store = open_for_writing(folder, spec, ExtractMode(), None)
        held = set(store.input_ids) if store else set()
        new = [video_id for video_id in ids if video_id not in held]
        how = replace(settings, pictures=None)  # none are kept once more
        run = StoreRun(folder, encoder, how, spec, Progress(len(new)), progress)
        run.add(run.kept(view, new), first_slot(store, (1, 1)))


def stale_shards(folder: Path, ledger: Mapping[str, LedgerRow]) -> list[Path]:
    """Returns the shards of a cache that are damaged or hold other rows than those of its source.

    The cache need not be there; `ledger` is that of the source, by id.
    """
    try:
        store = FeatureStore(folder, skip_damaged=True)
    except StoreError:  # none, or nothing sound in it
        return [path for _, path in list_shards(folder)[0]]
    stale = [
        shard.path
        for shard in store.shards
        if any(ledger.get(row.id) != row for row in shard.ledger())
    ]
    return [*store.damaged, *stale]


def _spec_of(source: FeatureStore, encoder: Encoder) -> FeatureSpec:
    """Returns the spec of a source's pictures as another tower embeds them."""
    described = encoder.describe()
    what = f"the pictures in {source.folder} were made for {source.spec.backbone!r}"
    require_same_making(
        source.spec.preprocessing, described["preprocessing"], what=what, by=described["backbone"]
    )
    engine = described.get("engine", "torch")
    engines = {package for packages in ENGINES.values() for package in packages}
    versions = {n: v for n, v in source.spec.versions.items() if n not in engines}
    versions |= library_versions(*encoding_libraries(engine))
    decided = {"linear_patch": "2d", "vision": {}, "engine": engine, **described}
    decided["versions"] = versions
    route = source.spec.preprocessing["route"]  # by which the pictures were made
    decided["preprocessing"] = {**described["preprocessing"], "route": route}
    return replace(source.spec, **decided)
