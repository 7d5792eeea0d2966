"""The feature store of a command: opened, seen through the sampler that was asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vtr.counts import counted
from vtr.datasets.base import Dataset, Video
from vtr.datasets.registry import load_dataset, resolve_videos
from vtr.errors import ConfigError, ModelError, VtrError
from vtr.extract.choose import DENSE, FeatureStore, single_sampler
from vtr.extract.samplers.base import parse_samplers
from vtr.features import FeatureStore as StoredFeatures
from vtr.features.importing import BACKBONE_PREFIX
from vtr.names import match_names, normal_path, without_extension
from vtr.progress import note
from vtr.remote import as_path
from vtr.workspace import Workspace, workspace_here

if TYPE_CHECKING:
    from vtr.clip.backbone import Backbone
    from vtr.train.run import Run


def open_store(workspace: Workspace, sampler: str | None = None) -> FeatureStore:
    """Returns the workspace's store with the frames of one sampler.

    Args:
        workspace: Where the store is, and the budget and seed of samplers.
        sampler: One sampler, with options; on a dense store any, without touching the videos. None
            takes the store's own where it has one, else the workspace's if the store holds it; of
            a store with every candidate, `uniform`.

    Raises:
        ConfigError: Several samplers, or one that the store cannot serve.
        StoreError: No store there.
    """
    held = FeatureStore(workspace.features).spec.samplers
    if sampler is None and held == (DENSE,):
        sampler = "uniform"
    if sampler is None:
        choices = [choice.label for choice in parse_samplers(workspace.sampler)]
        fitting = [label for label in choices if label in held]
        wanted = held[0] if len(held) == 1 else fitting[0] if len(fitting) == 1 else None
        if wanted is None:
            raise ConfigError(
                f"{workspace.features} holds the frames of several samplers ({', '.join(held)}); "
                "choose one with --sampler"
            )
        return _as_extracted(workspace, wanted)
    chosen = single_sampler(sampler)
    if chosen.label in held:
        return _as_extracted(workspace, chosen.label)
    return FeatureStore(
        workspace.features, sampler=chosen.label, frames=workspace.frames, seed=workspace.seed
    )


def _as_extracted(workspace: Workspace, sampler: str) -> FeatureStore:
    """Returns the store with a selection of its own; says if it has other frames than asked for."""
    store = FeatureStore(workspace.features, sampler=sampler)
    held = store.spec.num_frames
    if sampler != DENSE and held not in (None, workspace.frames):
        note(
            f"note: the selection {sampler!r} in {store.folder} was extracted with "
            f"{counted(held, 'frame')} a video and is used as it is, although frames is "
            f"{workspace.frames} here. For that many, extract into another folder: "
            f"vtr extract --frames {workspace.frames} --features DIR"
        )
    return store


def meet(store: StoredFeatures, video_ids: Sequence[str]) -> StoredFeatures:
    """Returns a store of others' features by the names that a dataset gives its videos.

    What vtr extracted has them already.
    """
    if not store.spec.backbone.startswith(BACKBONE_PREFIX):
        return store
    found = match_names(video_ids, store.input_ids)
    files = {name: list(fits) for name, fits in found.files.items()}
    # Extractors write sub-folders flat: then only a name that no other folder has is clear.
    stems = {name: without_extension(normal_path(name).rpartition("/")[2]) for name in video_ids}
    times = Counter(stems.values())
    flat = {without_extension(file): file for file in found.free if "/" not in file}
    for name, stem in stems.items():
        if stem in flat and name not in files:
            files[name] = [flat[stem]] * times[stem]
    unclear = [name for name, fits in files.items() if len(fits) > 1] + [*found.contested]
    if unclear:
        note(
            f"warning: {counted(len(unclear), 'video')} may be several of {store.folder}, such as "
            f"{unclear[0]!r}, and so none of them"
        )
    return store.renamed({fits[0]: name for name, fits in files.items() if len(fits) == 1})


def store_folder(named: Path | None) -> Path:
    """Returns the store that was named, by default that of the workspace around us."""
    return named or workspace_here().features


def read_dataset(workspace: Workspace, videos: Path | None = None) -> Dataset:
    """Returns the workspace's dataset, with its videos in another folder where one is given."""
    videos = videos or workspace.require_videos()
    return load_dataset(workspace.dataset, annotations=workspace.annotations, videos=videos)


def videos_here(workspace: Workspace) -> list[Video]:
    """Returns the dataset's videos whose files are here: features can do much without them."""
    if workspace.videos is None:
        return []
    try:
        expected = resolve_videos(read_dataset(workspace), workspace.videos)
    except VtrError as error:
        note(f"the files of the videos are not known: {error}")
        return []
    return [video for video in expected if video.path is not None]


def check_same_model(backbone: Backbone, store: StoredFeatures) -> None:
    """Refuses text of one model against frames of another, or of one that computes otherwise."""
    from vtr.train.run import require_same_settings  # torch, which opening a store does without

    spec = store.spec
    if backbone.weights_sha256 != spec.weights_sha256:
        raise ModelError(
            f"the features in {store.folder} come from {spec.backbone} (weights "
            f"{spec.weights_sha256[:12]}), the text tower is {backbone.model_id} (weights "
            f"{backbone.weights_sha256[:12]}): their spaces have nothing in common. Name the "
            "store's own model with --model, or train with --text projection"
        )
    require_same_settings(
        spec.vision,
        backbone.describe()["vision"],
        what=f"{store.folder} was extracted with",
        other=f"{backbone.model_id} is run with",
    )


def text_backbone(run: Run, *, instead: str, device: str) -> Backbone:
    """Returns the text model of a run, from here or pulled from the hub.

    Where it was a folder that is not here, `instead` is taken if the weights are the same.
    """
    from vtr.clip.backbone import load_backbone

    named = run.text_model
    if run.lacks_text_model:
        wanted = run.text_sha256 or "unknown"
        if wanted == "unknown" or not as_path(instead).is_dir():
            raise ModelError(
                f"the text model of {run.folder} was the folder {named} where it was trained, "
                f"and is not here (weights {wanted[:12]}): name a folder with these weights with "
                "--model, or as id in [model] of vtr.toml"
            )
        named = instead
    backbone = load_backbone(named, device=device)
    run.check_text_model(backbone)
    return backbone
