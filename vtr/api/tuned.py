"""Features by the towers of a run: once they are trained, those of other weights are stale."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from vtr.clip.backbone import load_backbone
from vtr.counts import counted
from vtr.errors import ModelError, StoreError
from vtr.extract.reembed import embed_view, stale_shards
from vtr.extract.settings import ExtractSettings
from vtr.features import FeatureStore
from vtr.progress import note, progress
from vtr.train.run import Run
from vtr.workspace import Workspace

FOLDER = "features"
"""In the folder of a run: what its towers made of pictures."""


def own_features(
    workspace: Workspace, run: Run, store: FeatureStore, ids: Sequence[str], *, device: str
) -> FeatureStore:
    """Returns some videos of a store as the run's own towers see them.

    A run that kept the towers as they were, and features that its towers have made, stay as they
    are. Else the pictures are embedded, once: they are kept in the run's folder by the digest of
    the towers and what was selected. Videos that the store lacks stay missing.
    """
    towers = run.own_towers
    if towers is None or store.spec.weights_sha256 == run.weights_sha256:
        return store
    if store.picture_format is None:
        raise ModelError(
            f"{run.folder} has trained its vision tower, so that the features in {store.folder} "
            "are stale, and the pictures to make them anew are not kept. Keep them (vtr extract "
            f"--crops raw --overwrite), or extract by its towers: vtr extract --model {towers} "
            "--features DIR"
        )
    stored = store.spec.num_frames if store.sampler in store.spec.samplers else None
    frames = stored or workspace.frames
    folder = _cache(workspace, run, store, frames)
    known = set(store.input_ids)
    needed = [video_id for video_id in dict.fromkeys(ids) if video_id in known]
    if not _holds(folder, store, needed):
        backbone = load_backbone(towers, device=device)
        run.check_text_model(backbone)
        note(
            f"embedding the pictures of {counted(len(needed), 'video')} with the towers of "
            f"{run.folder}, into {folder}"
        )
        with progress("embedding pictures") as update:
            embed_view(
                store,
                needed,
                folder,
                backbone,
                settings=ExtractSettings(num_frames=frames, batch_size=workspace.batch_size),
                progress=lambda now: update(now.done, now.total, ""),
            )
    return FeatureStore(folder)


def _cache(workspace: Workspace, run: Run, store: FeatureStore, frames: int) -> Path:
    """Returns the folder of what the towers make of a selection."""
    parts = (run.weights_sha256, store.fingerprint, store.sampler, frames, workspace.seed)
    text = "\n".join(map(str, (*parts, store.folder.resolve())))
    return run.folder / FOLDER / hashlib.sha256(text.encode()).hexdigest()[:24]


def _holds(folder: Path, store: FeatureStore, needed: Sequence[str]) -> bool:
    """Whether everything that is needed is there, sound and as it is in the source."""
    if stale_shards(folder, {row.id: row for row in store.ledger}):
        return False
    try:
        return set(needed) <= set(FeatureStore(folder).input_ids)
    except StoreError:
        return False
