"""`vtr search`: a folder or a workspace, a query, the moments that show it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vtr.datasets.files import require_folder
from vtr.errors import ConfigError
from vtr.progress import note
from vtr.remote import OF_URL, as_path, require_local
from vtr.searching.folder import FolderSource, Source, StoreSource
from vtr.searching.library import Answer, Hit, Library
from vtr.searching.query import Query, read_like
from vtr.settings import takes
from vtr.verbs.search import Options
from vtr.workspace import FILE_NAME, Workspace, find_workspace, need_workspace, read_workspace

if TYPE_CHECKING:
    from vtr.train.run import Run

_USAGE = 'Name the folder of the videos first: vtr search FOLDER "a sentence"'
__all__ = ["Answer", "Library", "Query", "find", "make_query", "open_library", "search", "split"]


@takes(Options)
def search(folder: str | Path | None, *texts: str, **options: Any) -> Answer:
    """Returns the moments of videos that show what is asked for; `vtr search`.

    >>> import vtr
    >>> answer = vtr.search("demo-world", "a large yellow star moves left", top=3, device="cpu")
    >>> moment = (answer.hits or answer.nearest)[0]
    >>> moment.video_id.startswith("t"), moment.start_seconds < moment.end_seconds
    (True, True)

    Args:
        folder: Of the videos, whose new ones are embedded first; or of a workspace, whose features
            are searched. None is the workspace around us.
        texts: Sentences; all parts of the query are averaged.
        options: Those of `vtr search` with `_` for `-`; files that they name are written.

    Returns:
        `hits`, best first: video, start, end and best second, score, level. Where nothing like it
        is there they are empty, and `nearest` has what comes nearest.

    Raises:
        ConfigError: No such folder, no videos in it, or a query that cannot be read.
        ModelError: The model cannot be had, or is another than the features were made with.
        StoreWriteError: A file that is asked for cannot be written.
    """
    from vtr.api.search_output import check_outputs, write_outputs

    if folder is not None and not isinstance(folder, str | Path):
        raise ConfigError(f"folder is {folder!r:.60}; it must be the folder of the videos")
    asked = Options.of(**options)
    check_outputs(asked)
    query = make_query(texts, asked)
    place = None if folder is None else as_path(str(folder))
    answer = find(place, query, asked)[1]
    write_outputs(texts, answer.hits, asked)
    return answer


def split(words: Sequence[str]) -> tuple[Path | None, tuple[str, ...]]:
    """Returns the folder that the first word names, if it does, and the sentences.

    Without a folder the workspace around us is searched.
    """
    if words:
        first = as_path(words[0])
        if os.path.isdir(first):  # noqa: PTH112  (a sentence is longer than any name)
            return first, tuple(words[1:])
        if find_workspace(Path.cwd()) is None or os.sep in words[0]:
            require_local(first, verb="search", instead=OF_URL)
            what = "is no folder" if os.path.exists(first) else "does not exist"  # noqa: PTH110
            raise ConfigError(
                f"{words[0]!r} {what}, and there is no {FILE_NAME} in {Path.cwd()} or above it. "
                f"{_USAGE}"
            )
    else:
        need_workspace(_USAGE)
    return None, tuple(words)


def make_query(texts: Sequence[str], options: Options) -> Query:
    """Returns the query of sentences and options."""
    at, clips = options.at, options.video
    if at and len(at) != len(clips):
        raise ConfigError(
            f"--at is given {len(at)} times and --video {len(clips)} times: name a second for each"
        )
    for file in (*options.image, *clips):
        if not file.is_file():
            what = "is no file" if file.exists() else "does not exist"
            raise ConfigError(f"{file} {what}; --image and --video take a file each")
    return Query(
        texts=tuple(texts),
        images=options.image,
        clips=tuple(zip(clips, at or [None] * len(clips), strict=True)),
        like=tuple(map(read_like, options.like)),
        without=options.without,
    )


def find(folder: Path | None, query: Query, options: Options) -> tuple[Library, Answer]:
    """Opens what is to be searched, and searches it; with a run its head decides the order."""
    workspace = _workspace_of(folder)
    run = None
    if options.run is None:
        options.refuse_typed(["rerank"], "orders what a head looks at, and no --run is named")
    else:
        if workspace is None:
            raise ConfigError(
                f"--run names a run of a workspace, and {folder} is none: name a workspace, or "
                "leave the folder out within one"
            )
        run = _load(workspace, options.run)
    library = open_library(folder, workspace, options)
    if run is None:
        return library, _search(library, query, options)
    return library, _ordered_by_run(workspace, run, library, query, options)


def num_failed(library: Library) -> int:
    """Returns how many videos could not be read at all."""
    return sum(video.status == "failed" for video in library.videos)


def as_document(answer: Answer, library: Library) -> dict[str, Any]:
    """Returns an answer, and how many videos it comes from, as JSON values."""

    def plain(hits: Sequence[Hit]) -> list[dict[str, Any]]:
        return [{**asdict(h), "path": None if h.path is None else str(h.path)} for h in hits]

    return {
        **asdict(answer),
        "hits": plain(answer.hits),
        "nearest": plain(answer.nearest),
        "num_videos": len(library.videos),
        "num_failed": num_failed(library),
    }


def _workspace_of(folder: Path | None) -> Workspace | None:
    if folder is None:
        return need_workspace(_USAGE)
    file = require_folder(folder, what="the folder of videos") / FILE_NAME
    return read_workspace(file) if file.is_file() else None


def open_library(folder: Path | None, workspace: Workspace | None, options: Options) -> Library:
    """Opens a folder of videos, or the store of a workspace."""
    source: Source
    if workspace is None:
        assert folder is not None
        source = FolderSource(
            folder,
            home=options.index,
            model=options.model,
            device=options.device,
            workers=options.workers,
        )
    else:
        from vtr.api.stores import videos_here

        source = StoreSource(
            workspace.features,
            {video.id: video.path for video in videos_here(workspace)},
            model=options.model or workspace.model,
            device=options.device,
            place=options.index,
        )
    return Library(source, rebuild=options.rebuild)


def _search(library: Library, query: Query, options: Options, **more: Any) -> Answer:
    return library.search(
        query,
        min_length=options.min_length,
        max_length=options.max_length,
        **{
            "top": options.top,
            "inside": options.inside,
            "all_moments": options.all_moments,
            **more,
        },
    )


def _load(workspace: Workspace, name: str) -> Run:
    from vtr.train.run import load_run
    from vtr.train.run_folders import find_run

    return load_run(find_run(workspace.runs, name))


def _ordered_by_run(
    workspace: Workspace | None, run: Run, library: Library, query: Query, options: Options
) -> Answer:
    """Returns the answer in the order of a run's head.

    A head that an index can serve scores all videos, one that `recalls` the best `rerank` by
    that, others the best `rerank` by their frames. Moments within a video are those of the
    frames, as without a run.
    """
    assert workspace is not None
    if not query.texts or query.has_pictures:
        raise ConfigError("--run orders by sentences alone: leave out --image, --video and --like")
    info = run.model.head.info
    many = options.rerank if info.index == "no" else len(library.videos)
    first = _search(library, query, options, top=max(many, options.top), all_moments=False)
    ids = [hit.video_id for hit in (*first.hits, *first.nearest)]
    if not ids:
        return first
    scores = _head_scores(workspace, run, query, ids, options)
    order = np.argsort(-scores, kind="stable").tolist()
    rank = {ids[place]: (n, float(scores[place])) for n, place in enumerate(order)}
    chosen = set(list(rank)[: options.top])
    every = len(library.index.pts_seconds)  # moments of the chosen, in no order that counts yet
    again = _search(library, query, options, inside=chosen, top=max(every, options.top))
    hits = sorted(
        (replace(hit, score=rank[hit.video_id][1]) for hit in (*again.hits, *again.nearest)),
        key=lambda hit: rank[hit.video_id][0],
    )
    found = tuple(hits[: options.top])
    return replace(first, hits=found if first.match else (), nearest=() if first.match else found)


def _of_sentences(matrix: NDArray[np.float32], num_wanted: int) -> NDArray[np.float32]:
    scores: NDArray[np.float32] = matrix[:num_wanted].mean(axis=0)
    if len(matrix) > num_wanted:
        scores -= matrix[num_wanted:].mean(axis=0) / 2
    return scores


def _head_scores(
    workspace: Workspace, run: Run, query: Query, ids: Sequence[str], options: Options
) -> NDArray[np.float32]:
    """(V,) the head's scores of videos: the mean over the sentences, less half of `without`'s."""
    from vtr.api.stores import open_store, text_backbone
    from vtr.api.tuned import own_features
    from vtr.evaluate.rerank import rerank
    from vtr.train.scoring import Scorer
    from vtr.train.texts import embed_for

    stored = open_store(workspace, run.sampler)
    store = own_features(workspace, run, stored, ids, device=options.device)
    run.check_store(store)
    backbone = text_backbone(run, instead=workspace.model, device=options.device)
    features = embed_for(run.spec, backbone, [*query.texts, *query.without])
    packed = store.packed(ids, dtype="float32")
    pad = store.pad_embedding if run.model.head.info.needs_pad else None
    scorer = Scorer(run.model, features, packed, pad=pad, device=backbone.device)
    scorer.candidates = options.rerank
    scores = _of_sentences(scorer.matrix(), len(query.texts))
    if run.model.head.info.recalls:
        found = _of_sentences(scorer.recall(), len(query.texts))
        scores = rerank(found[None], options.rerank, lambda _, places: scores[places]).t2v[0]
    note(f"ordered by {run.folder.name}, {len(ids):,} of the videos")
    return scores
