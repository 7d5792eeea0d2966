"""`vtr eval`: from a workspace and options to `result.json`, read from top to bottom."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vtr.api.stores import check_same_model, meet, open_store, read_dataset, text_backbone
from vtr.api.tuned import own_features
from vtr.clip.backbone import Backbone, load_backbone
from vtr.counts import counted, human_seconds
from vtr.datasets.base import Dataset
from vtr.datasets.registry import resolve_videos
from vtr.errors import ConfigError, ModelError, StoreError, UnknownNameError, VtrError
from vtr.evaluate.counting import Rows, Scores, computed
from vtr.evaluate.coverage import check_features, cover, frames_sha256
from vtr.evaluate.evaluator import Evaluation, PairScores, PostProcess, Task, plan
from vtr.evaluate.evaluator import evaluate as rank_all
from vtr.evaluate.mteb import task_result
from vtr.evaluate.postprocess import dual_softmax, querybank_norm
from vtr.evaluate.protocol import (
    Protocol,
    QuerySet,
    default_protocol,
    load_protocol,
    queries,
    with_gallery,
)
from vtr.evaluate.ranks import Blocks
from vtr.evaluate.reporting.results import marked
from vtr.evaluate.rerank import rerank
from vtr.evaluate.result import COMPANIONS, Setup, build_result, write_result
from vtr.evaluate.similarity import SimilarityFile
from vtr.evaluate.trec import qrels_lines, run_lines
from vtr.features import FeatureStore, PackedFrames
from vtr.files import Payload, file_sha256, make_folder
from vtr.progress import MANY_TEXTS, PLAIN_EVERY_SECONDS, embedding, note, progress
from vtr.settings import resolved
from vtr.train.model import RetrievalModel, zero_shot_model
from vtr.train.run import BEST, Run, load_run, recency, write_json
from vtr.train.run_folders import find_run, seed_folders, summarise
from vtr.train.scoring import Scorer
from vtr.train.texts import embed_for, embed_texts
from vtr.verbs.eval import Options
from vtr.verbs.simulate import Asked
from vtr.workspace import Workspace

_LONG_SECONDS = 60.0
_LOGITS_PER_COSINE = 100.0  # CLIP's scale: what a head that gives logits has in them already


def evaluate(workspace: Workspace, options: Options) -> tuple[dict[str, Any], Path]:
    """Evaluates and writes; returns the result and the path of `result.json`."""
    if options.out is not None:
        make_folder(options.out, option="--out")
    run = None if options.zero_shot else _load_run(workspace, options.run)
    if run is not None and run.model.head.info.together and options.rerank is None:
        raise ConfigError(
            f"{run.folder}: the head {run.spec.choice.name} compares a text's best videos with one "
            "another: say how many with --rerank N, such as --rerank 50"
        )
    inputs = _read_inputs(workspace, options, run)
    bank = _bank(inputs) if options.qb_norm else None
    leaked = None if run is None else _leak(run, inputs.task.queries, force=options.force)
    if run is None:
        backbone = load_backbone(workspace.model, device=options.device)
        check_same_model(backbone, inputs.store)
    else:
        backbone = text_backbone(run, instead=workspace.model, device=options.device)
    score = partial(_scorer, run, backbone, inputs, candidates=options.rerank or 0)
    scorer = score(inputs.task.texts)
    setup = _setup(inputs, run, backbone, options, trained_on_test=leaked, seed=workspace.seed)
    folder = options.out or _default_folder(workspace, options, setup, run, inputs.protocol.name)
    make_folder(folder, option="--out")
    with SimilarityFile(folder, inputs.task) as similarity:
        blocks, v2t_blocks, score_pairs = _scores(scorer, backbone, inputs, options)
        if options.save_similarity:
            blocks = similarity.watch("scores", blocks)
            v2t_blocks = v2t_blocks and similarity.watch("v2t_scores", v2t_blocks)
        evaluation = rank_all(
            inputs.task,
            blocks,
            score_pairs=score_pairs,
            v2t_blocks=v2t_blocks,
            ks=options.k,
            postprocess=_postprocess(options, bank, scorer, score),
        )
        assert workspace.videos is not None
        found = resolve_videos(inputs.dataset, workspace.videos)
        paths = {video.id: video.path for video in found if video.path}
        document = build_result(
            evaluation, inputs.protocol, setup, packed=inputs.packed, paths=paths
        )
        companions = _trec_files(evaluation, tag=setup.title)
        companions["options"] = resolved(workspace, options, device=setup.device)
        if options.save_similarity:
            companions["similarity"] = similarity.save
        if options.mteb:
            companions["mteb"] = json.dumps(task_result(evaluation, blocks), indent=2).encode()
        document["files"] |= {key: COMPANIONS[key] for key in companions}
        path = write_result(folder, document, evaluation, companions=companions)
    return document, path


def evaluate_seeds(workspace: Workspace, options: Options) -> tuple[dict[str, Any], Path]:
    """Evaluates each seed into its own run; returns the summary and the file it is written to."""
    run = Path(str(options.run))
    for base in (run, workspace.runs / run):
        if folders := [f for f in seed_folders(base.parent, base.name) if (f / BEST).exists()]:
            break
    else:
        raise ConfigError(
            f"no run {run}-seedN, neither here nor in {workspace.runs}. --run takes the name "
            "without -seedN"
        )
    documents = []
    for number, folder in enumerate(folders, start=1):
        note(f"evaluating {folder} ({number} of {len(folders)})")
        one = options.changed(run=str(folder), seeds=False)
        documents.append(evaluate(workspace, one)[0])
    first = documents[0]
    summary = {
        "runs": [str(folder) for folder in folders],
        "seeds": [document["setup"]["seed"] for document in documents],
        "protocol": first["protocol"]["name"],
        "num_queries": first["protocol"]["num_queries"],
        "num_videos": first["protocol"]["num_videos"],
        "metrics": summarise(
            [{k: cell["value"] for k, cell in d["metrics"].items()} for d in documents]
        ),
    }
    path = base.with_name(f"{base.name}-seeds-{summary['protocol']}.json")
    write_json(path, summary)
    return summary, path


# ---- what is asked of what


class Inputs(NamedTuple):
    """What is asked and what is there, before any model."""

    dataset: Dataset
    protocol: Protocol
    store: FeatureStore  # Seen through one sampler
    task: Task  # The queries over the present videos
    packed: PackedFrames  # The frames of `task.video_ids`


def read_inputs(
    workspace: Workspace,
    asked: Asked,
    *,
    sampler: str | None = None,
    seen: Callable[[FeatureStore, Sequence[str]], FeatureStore] = lambda store, _: store,
) -> Inputs:
    """Reads the dataset, the protocol's queries and the features.

    `sampler` says whose frames where `asked` names none; `seen` makes of the store and the
    gallery's ids the store to read.
    """
    dataset = read_dataset(workspace)
    protocol = load_protocol(asked.protocol) if asked.protocol else default_protocol(dataset.name)
    protocol = with_gallery(protocol, asked.gallery)
    test = queries(protocol, dataset, "test")
    store = meet(open_store(workspace, asked.sampler or sampler), dataset.video_ids)
    store = seen(store, test.video_ids)
    task = plan(test, cover(test, store, policy=asked.missing))
    packed = store.packed(task.video_ids, dtype="float32")
    check_features(packed)
    for problem in test.problems:
        note(f"not the published protocol {protocol.name}: {problem}")
    return Inputs(dataset, protocol, store, task, packed)


def _read_inputs(workspace: Workspace, options: Options, run: Run | None) -> Inputs:
    """Reads the inputs; where the store does not fit the run, names the run's own."""
    if run is None:
        return read_inputs(workspace, options)
    seen = partial(own_features, workspace, run, device=options.device)
    try:
        inputs = read_inputs(workspace, options, sampler=run.sampler, seen=seen)
        run.check_store(inputs.store)
    except (ConfigError, ModelError, StoreError) as error:
        own = run.features_folder
        if own is None or isinstance(error, UnknownNameError):
            raise
        if not own.is_dir() or own == workspace.features.resolve():
            raise
        raise type(error)(
            f"{error}. {run.folder} was trained on the features in {own}: name them with --features"
        ) from None
    return inputs


def _load_run(workspace: Workspace, name: str | None) -> Run:
    if name is None:
        finished = [path.parent for path in workspace.runs.glob(f"*/{BEST}")]
        if not finished:
            raise ConfigError(
                f"no trained run in {workspace.runs}: run `vtr train --head seqTransf` first, name "
                "one with --run DIR, or evaluate CLIP as it is with --zero-shot"
            )
        latest = max(finished, key=recency)
        note(f"run: {latest} (the latest; another one with --run DIR)")
        return load_run(latest)
    return load_run(find_run(workspace.runs, name))


def _bank(inputs: Inputs) -> QuerySet:
    """Returns the training captions, before anything costly is done."""
    try:
        return queries(inputs.protocol, inputs.dataset, "train")
    except VtrError as error:
        raise ConfigError(
            f"--qb-norm compares with training captions, and has none: {error}. Leave it out"
        ) from error


def _leak(run: Run, test: QuerySet, *, force: bool) -> int | None:
    """Returns how many of the gallery's videos the run was trained on; None where unknown."""
    if run.train_ids is None:
        note("it is not known which videos this run was trained on; the result says so")
        return None
    shared = sorted(set(run.train_ids) & set(test.video_ids))
    if shared and not force:
        raise ConfigError(
            f"{run.folder} was trained on {len(shared):,} of the "
            f"{counted(len(test.video_ids), 'video')} "
            f"that {test.protocol!r} tests on ({', '.join(shared[:3])}, ...): its numbers would "
            "mean nothing. Train by this protocol, or evaluate anyway with --force: the result "
            "then says so"
        )
    return len(shared)


# ---- scores


def _scorer(
    run: Run | None,
    backbone: Backbone,
    inputs: Inputs,
    texts: tuple[str, ...],
    *,
    candidates: int = 0,
) -> Scorer:
    """Embeds texts as the run (None: CLIP as it is) wants them, to be scored with all videos."""
    cache = inputs.store.folder
    with embedding(len(texts)) as tell:
        features = (
            embed_texts(backbone, texts, cache=cache, tell=tell)
            if run is None
            else embed_for(run.spec, backbone, texts, cache=cache, tell=tell)
        )
    if features.num_truncated:
        note(
            f"{features.num_truncated:,} of {counted(len(texts), 'caption was', 'captions were')} "
            "cut to what the text tower reads"
        )
    model: RetrievalModel = zero_shot_model(backbone.logit_scale) if run is None else run.model
    pad = inputs.store.pad_embedding if model.head.info.needs_pad else None
    scorer = Scorer(model, features, inputs.packed, pad=pad, device=backbone.device)
    scorer.candidates = candidates
    return scorer


def _scores(
    scorer: Scorer, backbone: Backbone, inputs: Inputs, options: Options
) -> tuple[Blocks, Blocks | None, PairScores | None]:
    """Returns the scores, those of video to text where they are others, and single pairs."""
    if options.rerank is not None:
        if scorer.model.head.info.recalls:
            found = scorer.recall()
        else:
            found = _scorer(None, backbone, inputs, inputs.task.texts).matrix()
        ordered = rerank(found, options.rerank, scorer.score_pairs)
        pairs = counted(found.size, "pair")
        note(f"re-ranked {ordered.num_pairs:,} of {pairs}")
        return partial(_one_block, ordered.t2v), partial(_one_block, ordered.v2t), None
    seconds = scorer.expected_seconds()
    if seconds > _LONG_SECONDS:
        texts, videos = scorer.shape
        note(
            f"scoring all {texts:,} x {counted(videos, 'pair')} takes about "
            f"{human_seconds(seconds)} here; "
            "--rerank 50 scores only the best 50 of each list, and the result says so"
        )
    told = partial(_with_progress, scorer, quiet=seconds < PLAIN_EVERY_SECONDS)
    if options.dual_softmax or options.qb_norm:  # they need the whole matrix
        matrix = np.concatenate([computed(rows) for _, rows in told(scorer.blocks, "scoring")])
        return partial(_one_block, matrix), None, scorer.score_pairs
    return partial(told, scorer.stream, "scoring"), None, scorer.score_pairs


def _one_block(matrix: Scores) -> list[tuple[int, Scores]]:
    return [(0, matrix)]


def _with_progress(
    scorer: Scorer, blocks: Blocks, what: str, *, quiet: bool
) -> Iterator[tuple[int, Rows]]:
    with progress(what, quiet=quiet) as update:
        for start, rows in blocks():
            update(start, scorer.shape[0], "captions")
            yield start, rows
        update(scorer.shape[0], scorer.shape[0], "captions")


def _postprocess(
    options: Options, bank: QuerySet | None, scorer: Scorer, score: Any
) -> Mapping[str, PostProcess]:
    """Returns what was asked for; the constants of both are of cosines."""
    chosen: dict[str, PostProcess] = {}
    unit = np.float32(1 if scorer.model.scaled else _LOGITS_PER_COSINE)
    if options.dual_softmax:
        chosen["dual-softmax"] = lambda s: (dual_softmax(s / unit), dual_softmax(s.T / unit).T)
    if bank is not None:
        note(f"bank of QB-Norm: {counted(len(bank.texts), 'training caption')}")
        quiet = len(bank.texts) < MANY_TEXTS
        other = score(bank.texts)
        blocks = _with_progress(other, other.blocks, "scoring the bank", quiet=quiet)
        scores = np.concatenate([computed(rows) for _, rows in blocks]) / unit
        chosen["qb-norm"] = lambda s: (querybank_norm(s / unit, scores), None)
    return chosen


# ---- the result


def _setup(
    inputs: Inputs,
    run: Run | None,
    backbone: Backbone,
    options: Options,
    *,
    trained_on_test: int | None,
    seed: int,
) -> Setup:
    store, packed = inputs.store, inputs.packed
    sampler = str(store.sampler)
    title = f"zero-shot, {sampler}"
    if run is not None:
        other = sampler if sampler != run.sampler else None
        title = marked(
            run.folder.name, sampler=other, rerank=options.rerank, trained_on_test=trained_on_test
        )
    return Setup(
        title=title,
        head="meanP" if run is None else run.spec.head,
        text="frozen" if run is None else run.trained,
        sampler=sampler,
        backbone=store.spec.backbone,
        fingerprint=store.fingerprint,
        zero_shot=run is None,
        run=None if run is None else str(run.folder),
        selection="none" if run is None else run.selection,
        seed=seed if run is None else run.seed,
        trained_on_test=0 if run is None else trained_on_test,
        rerank=options.rerank,
        device=str(backbone.device),
        frames_per_video=len(packed.frames) / len(packed.ids),
        weights_sha256=None if run is None else file_sha256(run.folder / BEST),
        frames_sha256=frames_sha256(packed),
    )


def _trec_files(evaluation: Evaluation, *, tag: str) -> dict[str, Payload]:
    test, kept = evaluation.task.queries, evaluation.kept
    owners = (test.video_ids[v] for v in test.query_video)
    run = run_lines(
        test.text_ids, test.video_ids, rows=evaluation.task.query_text,
        items=kept.listed, scores=kept.listed_scores, tag=tag,
    )  # fmt: skip
    return {
        "run": lambda file: file.writelines(run),
        "qrels": qrels_lines(zip(test.text_ids, owners, strict=True)),
    }


def _default_folder(
    workspace: Workspace, options: Options, setup: Setup, run: Run | None, protocol: str
) -> Path:
    home = Path(setup.run) / "eval" if setup.run else workspace.features / "zero-shot"
    other = options.sampler is not None and (run is None or setup.sampler != run.sampler)
    return result_folder(home, protocol, options, sampler=setup.sampler if other else None)


def result_folder(home: Path, name: str, options: Options, *, sampler: str | None) -> Path:
    """Returns the folder `name` in `home`, or one beside it for what was asked in another way.

    So a second sampler, or re-ranking, does not replace the result it is to be compared with.
    """
    sampler = re.sub(r"[^A-Za-z0-9_.=-]+", "-", sampler) if sampler else None
    rerank_marks = ["rerank", str(options.rerank)] if options.rerank is not None else []
    policy = "restrict" if options.missing == "restrict" else None
    gallery = "captioned" if options.gallery == "captioned" else None
    return home / "-".join(filter(None, [name, sampler, *rerank_marks, policy, gallery]))
