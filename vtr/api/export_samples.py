"""`vtr export --fiftyone`: the videos of a store with what `vtr search` finds in them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vtr.api.stores import videos_here
from vtr.bridges.fiftyone import Moment, has_video_ending, make_sample, write_dataset
from vtr.bridges.rows import input_rows
from vtr.counts import counted
from vtr.extract.container import read_rate
from vtr.features import FeatureStore
from vtr.files import make_folder, publishing
from vtr.foreign import shown
from vtr.progress import note, progress
from vtr.verbs.export import Options
from vtr.workspace import Workspace

Moments = Mapping[str, list[Moment]]


def write_samples(
    store: FeatureStore, videos: Path | None, workspace: Workspace, options: Options
) -> Path:
    """Writes the inputs of a store as samples to `options.fiftyone`; returns it.

    `videos` is the folder that `vtr search` made the store of; None for other stores, whose videos
    are the workspace's.
    """
    assert options.fiftyone is not None
    make_folder(options.fiftyone.parent, option="--fiftyone")
    files = _files(store, videos, workspace)
    moments = _moments(store, files, workspace, videos, options) if options.query else {}
    info = {"store": str(store.folder), "fingerprint": store.fingerprint,
            "backbone": store.spec.backbone}  # fmt: skip
    with publishing(alone=True) as create:
        samples = _samples(store, files, moments)
        write_dataset(create(options.fiftyone), options.fiftyone.stem, info, samples)
    return options.fiftyone


def _files(store: FeatureStore, videos: Path | None, workspace: Workspace) -> dict[str, Path]:
    """Returns the file of each video that is here."""
    if videos is not None:
        return {i: videos / i for i in store.input_ids if (videos / i).is_file()}
    return {video.id: video.path for video in videos_here(workspace) if video.path is not None}


def _moments(
    store: FeatureStore,
    files: Mapping[str, Path],
    workspace: Workspace,
    videos: Path | None,
    options: Options,
) -> Moments:
    """Searches for every sentence; says which show nothing."""
    from vtr.searching.encoder import QueryEncoder
    from vtr.searching.folder import StoreSource
    from vtr.searching.library import Library
    from vtr.searching.query import Query

    model = workspace.model
    if videos is not None:
        model = QueryEncoder(None, store.folder, default=store.spec.backbone).model
    library = Library(StoreSource(store.folder, files, model=model))
    found: dict[str, list[Moment]] = defaultdict(list)
    for text in options.query:
        answer = library.search(Query(texts=(text,)), top=options.top, all_moments=True)
        if not answer.hits:
            note(f"no moment for {shown(text, 80)!r}: nothing in these videos stands out")
        for hit in answer.hits:
            times = (hit.start_seconds, hit.end_seconds)
            found[hit.video_id].append(Moment(text, *times, hit.score, hit.level))
    return found


def _samples(
    store: FeatureStore, files: Mapping[str, Path], moments: Moments
) -> Iterator[dict[str, Any]]:
    """Yields the samples; says at the end what FiftyOne cannot show."""
    absent = unknown = lost = 0
    with progress("writing samples") as update:
        for done, row in enumerate(input_rows(store), start=1):
            path, video_id = files.get(row.ledger.id), row.ledger.id
            rate = read_rate(path) if len(row.frames) else None
            absent += path is None
            unknown += path is not None and not has_video_ending(path.name)
            lost += len(moments.get(video_id, ())) if rate is None else 0
            yield make_sample(row, path, rate, moments.get(video_id, ()))
            update(done, len(store.input_ids), "videos")
    if absent:
        note(f"{counted(absent, 'video')} whose file is not known here: name --videos")
    if unknown:
        note(f"{counted(unknown, 'file')} that FiftyOne takes for no video by its ending")
    if lost:
        note(f"{counted(lost, 'moment')} left out: no file tells how many frames a second has")
