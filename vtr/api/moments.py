"""`vtr eval --moments`: where in its own video is what a sentence describes."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtr.api.evaluate import result_folder
from vtr.api.stores import check_same_model, meet, open_store, read_dataset
from vtr.clip.backbone import Backbone, load_backbone
from vtr.counts import counted
from vtr.datasets.base import Caption, split_queries
from vtr.errors import ConfigError, DatasetError
from vtr.evaluate.coverage import cover_videos
from vtr.evaluate.moments import (
    MOST_PREDICTIONS,
    MomentPrediction,
    MomentQuery,
    moment_metrics,
    query_values,
)
from vtr.evaluate.protocol import Protocol, default_protocol, load_protocol
from vtr.evaluate.result import COMPANIONS
from vtr.extract.choose import DENSE
from vtr.features import FeatureStore
from vtr.features.rows import VideoFeatures
from vtr.files import make_folder, publish_all
from vtr.foreign import printable
from vtr.progress import embedding, note, progress
from vtr.searching.moments import find_cuts, piece_means, ranked_runs, row_edges
from vtr.settings import resolved
from vtr.train.texts import embed_texts
from vtr.verbs.eval import Options
from vtr.workspace import Workspace

RESULT = "moments.json"
PREDICTIONS = "predictions.jsonl"
_WIDEST_GAP_SECONDS = 1.0  # frames farther apart cannot tell ends of moments

Vectors = NDArray[np.float32]


def evaluate_moments(workspace: Workspace, options: Options) -> tuple[dict[str, Any], Path]:
    """Predicts up to ten moments per query from the frames' scores, and counts them.

    Every query is asked of its own video; `missing` says what becomes of one without features.
    The predictions are written in the layout that QVHighlights takes.

    Returns:
        The document and the path of `moments.json`.
    """
    dataset = read_dataset(workspace)
    protocol = load_protocol(options.protocol or default_protocol(dataset.name).name)
    queries = _queries(protocol, dataset)
    every = DENSE if DENSE in FeatureStore(workspace.features).spec.samplers else None
    store = meet(open_store(workspace, options.sampler or every), dataset.video_ids)
    asked_of = tuple(dict.fromkeys(query.video_id for query in queries))
    there = cover_videos(asked_of, store, protocol=protocol.name, policy=options.missing)
    if options.missing == "restrict":
        queries = [query for query in queries if query.video_id in store]
    backbone = load_backbone(workspace.model, device=options.device)
    check_same_model(backbone, store)
    with embedding(len(queries)) as tell:
        texts = embed_texts(backbone, [q.text for q in queries], cache=store.folder, tell=tell)
    asked = [MomentQuery(q.id, q.video_id, np.array(q.windows), dict(q.ratings)) for q in queries]
    predictions, gap = predict(store, queries, texts.pooled)
    _tell_doubts(store, queries, gap)
    document = {
        "schema": 1,
        "protocol": {
            "name": protocol.name,
            "num_queries": len(queries),
            "num_videos": len({query.video_id for query in queries}),
            "published": len(queries) == protocol.num_queries,
        },
        "coverage": {"missing_videos": len(there.absent), "policy": options.missing},
        "setup": _setup(store, backbone, gap=gap, seed=workspace.seed),
        "metrics": moment_metrics(asked, predictions, seed=workspace.seed),
        "files": {"predictions": PREDICTIONS},
    }
    folder = options.out or result_folder(
        workspace.features / "zero-shot", f"{protocol.name}-moments", options,
        sampler=store.sampler if options.sampler else None,
    )  # fmt: skip
    make_folder(folder, option="--out")
    rows = query_values(asked, predictions)
    lines = (_line(*row) for row in zip(queries, predictions, rows["mIoU"].tolist(), strict=True))
    files = {PREDICTIONS: "".join(lines), RESULT: json.dumps(document, indent=1) + "\n"}
    made = {folder / name: text.encode() for name, text in files.items()}
    used = resolved(workspace, options, device=str(backbone.device))
    publish_all({**made, folder / COMPANIONS["options"]: used})
    return document, folder / RESULT


def _setup(
    store: FeatureStore, backbone: Backbone, *, gap: float | None, seed: int
) -> dict[str, Any]:
    return {
        "backbone": backbone.model_id,
        "weights_sha256": backbone.weights_sha256,
        "fingerprint": store.fingerprint,
        "sampler": store.sampler,
        "median_gap_seconds": gap,
        "seed": seed,
    }


def _queries(protocol: Protocol, dataset: Any) -> list[Caption]:
    if protocol.dataset != dataset.name:
        raise ConfigError(
            f"protocol {protocol.name!r} is defined on dataset {protocol.dataset!r}; this "
            f"workspace holds {dataset.name!r}"
        )
    if protocol.test_split not in dataset.splits:
        raise DatasetError(
            f"protocol {protocol.name!r} needs the split {protocol.test_split!r} of "
            f"{dataset.name!r}, which the annotation files do not give"
        )
    queries = split_queries(dataset, protocol.test_split)
    described = [caption for caption in queries if caption.windows]
    if not described:
        raise DatasetError(
            f"no caption of {protocol.name!r} says which part of its video it describes, from a "
            "start to an end after it, so there are no moments to count. Datasets that do: "
            "charades-sta, qvhighlights"
        )
    if len(described) < len(queries):
        left_out = counted(len(queries) - len(described), "caption")
        note(f"{left_out} without a start and an end after it left out")
    return described


def _tell_doubts(store: FeatureStore, queries: Sequence[Caption], gap: float | None) -> None:
    """Says where frames are too far apart, and where what is described cannot be in the video."""
    if gap is not None and gap > _WIDEST_GAP_SECONDS:
        note(
            f"the frames of a video lie {gap:.1f} s apart in the median: ends of moments cannot be "
            "more exact. For these figures extract with --sampler dense --fps 2"
        )
    ends = {row.id: row.duration_seconds or math.inf for row in store.ledger}
    firsts = ((query, min(query.windows)[0]) for query in queries)
    beyond = [(q, start) for q, start in firsts if start >= ends.get(q.video_id, math.inf)]
    if beyond:
        query, start = beyond[0]
        note(
            f"{counted(len(beyond), 'caption')} of what begins after the video's end, which cannot "
            f"be found (first: {printable(query.id)!r} at {start:g} s of a video of "
            f"{ends[query.video_id]:g} s). Are these the videos that the annotations are of?"
        )


def predict(
    store: FeatureStore, queries: Sequence[Caption], vectors: Vectors
) -> tuple[list[MomentPrediction], float | None]:
    """Returns up to ten moments for each query, the surest first; none where a video is absent.

    `vectors`, (Q, D), are the embeddings of the Q queries.

    Returns:
        Q predictions, and the median time between neighbouring frames in seconds; None where no
        video has two.
    """
    lasts = {row.id: row.duration_seconds for row in store.ledger}
    of_video: Mapping[str, list[int]] = defaultdict(list)
    for number, query in enumerate(queries):
        of_video[query.video_id].append(number)
    predictions = [MomentPrediction(np.zeros((0, 2)))] * len(queries)
    gaps: list[float] = []
    with progress("finding moments") as update:
        for done, (video_id, numbers) in enumerate(of_video.items(), start=1):
            if video_id in store:
                video = store[video_id]
                gaps += np.diff(video.pts_seconds).tolist()
                found = _in_video(video, vectors[numbers], lasts.get(video_id, 0.0))
                for number, prediction in zip(numbers, found, strict=True):
                    predictions[number] = prediction
            update(done, len(of_video), "videos")
    return predictions, float(np.median(gaps)) if gaps else None


def _in_video(
    video: VideoFeatures, vectors: Vectors, duration_seconds: float
) -> list[MomentPrediction]:
    frames = np.asarray(video.frames, np.float32)
    frames = frames / np.maximum(np.linalg.norm(frames, axis=1, keepdims=True), 1e-12)
    starts, ends = row_edges(video.pts_seconds, video.spans, duration_seconds)
    pieces = np.append(find_cuts(frames), len(frames))
    weights = np.diff(pieces).astype(np.float64)
    found = []
    for scores in vectors @ frames.T:
        runs = islice(ranked_runs(piece_means(scores, pieces), weights), MOST_PREDICTIONS)
        windows = [(starts[pieces[run.first]], ends[pieces[run.stop] - 1]) for run in runs]
        best = float(video.pts_seconds[int(np.argmax(scores))])
        found.append(MomentPrediction(np.array(windows), best))
    return found


def _line(query: Caption, said: MomentPrediction, iou: float) -> str:
    """Returns one line as QVHighlights' own evaluation reads it, with our IoU beside."""
    windows = [
        [round(float(start), 3), round(float(end), 3), -rank]
        for rank, (start, end) in enumerate(said.windows)
    ]
    # QVHighlights' ids are numbers, and its evaluation takes "7" for another id than 7.
    number = re.fullmatch("0|[1-9][0-9]{0,17}", query.id)
    row = {"qid": int(query.id) if number else query.id, "query": query.text, "vid": query.video_id}
    return json.dumps(row | {"pred_relevant_windows": windows, "iou": round(iou, 4)}) + "\n"
