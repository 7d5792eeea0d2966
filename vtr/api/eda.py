"""What a dataset, its videos and its cached features look like before training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vtr.api.stores import check_same_model, meet, read_dataset
from vtr.arithmetic import prepare_arithmetic
from vtr.clip.backbone import load_backbone
from vtr.clip.configuration import read_config
from vtr.clip.hub import ModelFolder, find_tokeniser, is_open_clip
from vtr.clip.open_clip_text import open_clip_tokeniser
from vtr.clip.text import Tokeniser, load_tokeniser, text_family
from vtr.datasets.base import Dataset, Video
from vtr.datasets.registry import resolve_videos
from vtr.errors import ConfigError, DecodeError, ModelError
from vtr.evaluate.eda import (
    KIND,
    SCHEMA,
    describe_dataset,
    describe_features,
    describe_media,
    modality_gap,
    norms_and_mean,
    token_lengths,
)
from vtr.evaluate.eda_report import Table, tables, write_eda
from vtr.evaluate.parts import parse_bins
from vtr.extract.probe import probe
from vtr.features import FeatureStore
from vtr.files import make_folder
from vtr.progress import note, progress
from vtr.verbs.eda import Options
from vtr.workspace import Workspace

MAX_GAP_PAIRS = 2000


def explore_dataset(workspace: Workspace, options: Options) -> tuple[dict[str, Any], list[Table]]:
    """Writes eda.json, eda.html and the charts, and returns the document and its tables.

    A model and features that are typed must be there; else their figures are left out where they
    cannot be had.
    """
    prepare_arithmetic()
    make_folder(options.out, option="--out")
    used = {**workspace.as_dict(), **options.as_dict()}
    facts = {**_explore(workspace, options), "options": used}
    write_eda(facts, options.out, pictures=options.pictures)
    return facts, tables(facts)


def _explore(workspace: Workspace, options: Options) -> dict[str, Any]:
    if workspace.videos is None and workspace.annotations is None:
        raise ConfigError("nothing to look at: give --annotations, --videos, or a workspace")
    data = read_dataset(workspace, workspace.videos or workspace.root)
    store = None
    if "features" in workspace.typed or any(workspace.features.glob("*.h5")):
        store = meet(FeatureStore(workspace.features), data.video_ids)
    tokens = gap = None
    is_needed = "model" in workspace.typed
    if options.text:
        tokens = _tokens(workspace.model, data, is_needed=is_needed)
    facts = describe_dataset(data, tokens=tokens, bins=parse_bins(options.bins))
    rows = _video_rows(workspace, data, store, options.probe)
    if options.text and store is not None:
        gap = _gap(workspace.model, data, store, options, is_needed=is_needed)
    return {
        "schema": SCHEMA,
        "kind": KIND,
        **facts,
        "media": describe_media(rows) if rows else None,
        "features": describe_features(store) if store else None,
        "modality_gap": gap,
    }


def _tokens(model: str, data: Dataset, *, is_needed: bool) -> dict[str, Any] | None:
    if not data.captions:
        return None
    try:
        folder = find_tokeniser(model)
        tokeniser = _tokeniser(folder)
    except ModelError as error:
        if is_needed:
            raise
        note(f"tokens are not counted: {error}")
        return None
    lengths = _token_counts(tokeniser, [caption.text for caption in data.captions])
    name = folder.name if Path(model).is_dir() else model
    return token_lengths(name, tokeniser.max_length, lengths)


def _tokeniser(folder: Path) -> Tokeniser:
    if is_open_clip(folder):
        return open_clip_tokeniser(ModelFolder(folder.name, folder, "local"))
    config = read_config(folder)
    positions = int((config.get("text_config") or {}).get("max_position_embeddings") or 77)
    family = text_family(folder, str(config.get("model_type")))
    return load_tokeniser(folder, family=family, max_length=positions, vocab_size=1 << 31)


def _token_counts(tokeniser: Any, texts: Sequence[str]) -> Any:
    """Returns (N,) int64 tokens of each text before truncation, begin and end included."""
    distinct = list(dict.fromkeys(texts))
    ids = replace(tokeniser, max_length=1 << 20).encode(distinct).ids
    lengths = dict(zip(distinct, map(len, ids), strict=True))
    return np.array([lengths[text] for text in texts], np.int64)


def _video_rows(
    workspace: Workspace, data: Dataset, store: FeatureStore | None, num_probed: int
) -> list[dict[str, Any]]:
    """Returns a row per video: what the ledger or decoding says, else whether its file is there."""
    rows: dict[str, dict[str, Any]] = {}
    expected: tuple[Video, ...] = ()
    if workspace.videos is not None and workspace.videos.is_dir():
        expected = resolve_videos(data, workspace.videos)
        for video in expected:
            status = ("present", "") if video.path else ("missing", "no file")
            rows[video.id] = _row(video.id, *status)
    for entry in store.ledger if store is not None else ():
        size = {"width": entry.width, "height": entry.height}
        seconds = {"duration_seconds": entry.duration_seconds}
        rows[entry.id] = _row(entry.id, entry.status, entry.reason, **seconds, **size)
    there = [video for video in expected if video.path]
    count = min(num_probed, len(there))
    with progress("probing", quiet=not count) as update:
        for n in range(count):
            video = there[n * len(there) // count]
            rows[video.id] = _probed(video)
            update(n + 1, count, video.id)
    return list(rows.values())


def _probed(video: Video) -> dict[str, Any]:
    assert video.path is not None
    try:
        info = probe(video.path)
    except DecodeError as error:
        return _row(video.id, "failed", error.kind)
    seconds = info.duration_seconds
    return _row(
        video.id,
        *(("partial", "cut or damaged") if info.trouble else ("ok", "")),
        duration_seconds=seconds,
        width=info.width,
        height=info.height,
        frames_per_second=len(info.pts_seconds) / seconds if seconds > 0 else None,
    )


def _row(video_id: str, status: str, reason: str, **facts: Any) -> dict[str, Any]:
    empty = {"duration_seconds": 0.0, "width": 0, "height": 0, "frames_per_second": None}
    return {"id": video_id, "status": status, "reason": reason, **empty, **facts}


def _gap(
    model: str, data: Dataset, store: FeatureStore, options: Options, *, is_needed: bool
) -> dict[str, Any] | None:
    """Returns one caption per video beside the mean of its frames; None where that cannot be."""
    pairs = _pairs(data, store)
    if not pairs:
        return None
    backbone = None
    try:
        backbone = load_backbone(model, device=options.device)
        check_same_model(backbone, store)
    except ModelError as error:
        if is_needed and backbone is None:
            raise
        note(f"the modality gap is not measured: {error}")
        return None
    texts = backbone.encode_texts([text for _, text in pairs]).embeddings
    means = [norms_and_mean(store, video_id)[1] for video_id, _ in pairs]
    return modality_gap(texts, np.stack(means), tsne=options.tsne)


def _pairs(data: Dataset, store: FeatureStore) -> list[tuple[str, str]]:
    """Returns the first caption of each video with features, spread evenly over the dataset."""
    first: dict[str, str] = {}
    for caption in data.captions:
        first.setdefault(caption.video_id, caption.text)
    usable = [pair for pair in first.items() if pair[0] in store]
    count = min(MAX_GAP_PAIRS, len(usable))
    return [usable[n * len(usable) // count] for n in range(count)]
