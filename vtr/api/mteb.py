"""vtr in mteb (the Massive Text Embedding Benchmark, 2.x): runs as models, protocols as tasks.

mteb's own way to videos is a collator that takes a fixed number of frames at even distances: vtr's
samplers have no say in it, and the model's name tells. With a store, videos are found by their id.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vtr.arithmetic import prepare_arithmetic
from vtr.counts import counted
from vtr.errors import ConfigError
from vtr.evaluate.mteb import LANGUAGE, MAIN_SCORE, larger_first, task_name
from vtr.extract.choose import FeatureStore
from vtr.extras import require_extra
from vtr.features import PackedFrames
from vtr.foreign import first_few
from vtr.progress import note
from vtr.workspace import Workspace

if TYPE_CHECKING:
    from vtr.clip.backbone import Backbone
    from vtr.train.model import RetrievalModel
    from vtr.train.run import Run
    from vtr.train.scoring import Scorer
    from vtr.train.texts import TextFeatures

Scores = NDArray[np.float32]
Results = dict[str, dict[str, float]]


class _Side(NamedTuple):
    """Queries or documents."""

    ids: list[str]
    items: TextFeatures | PackedFrames  # Distinct texts, or videos
    rows: NDArray[np.int64]  # (N,) which of them each id is


def mteb_model(
    run: Run | str | Path | None = None,
    store: FeatureStore | None = None,
    *,
    frames: int | None = None,
    model: str | None = None,
    rerank: int | None = None,
    device: str = "auto",
) -> SearchModel:
    """Returns a run as a model for `mteb.evaluate`: any head searches, one-vector heads encode.

    >>> import vtr  # then: mteb.evaluate(made, vtr.mteb_task(world))
    >>> made = vtr.mteb_model("demo-world/runs/meanP", device="cpu")
    >>> made.mteb_model_meta.name
    'vtr/meanP-uniform'

    Args:
        run: A trained run or its folder; None is CLIP as it is, the mean of the frames.
        store: Where videos are looked up by the ids of the task; by default the run's own. Those
            that it lacks are not found.
        frames: Instead of a store: so many frames of the videos that mteb hands over, at even
            distances (mteb decodes them with torchcodec).
        model: Hub id or folder of both towers; by default the run's, or that of the store.
        rerank: Score by mean pooling or as the head recalls first, see `vtr eval --rerank`.
        device: Where to compute: auto, cpu, cuda, cuda:1.

    Raises:
        ConfigError: mteb is not installed; neither a store nor `frames`; a head that needs
            `rerank`.
        ModelError: A store of another model.
    """
    require_mteb("vtr.mteb_model")
    if frames is not None and (store is not None or not 1 <= frames <= 4096):
        raise ConfigError(f"frames={frames}: allowed are 1 to 4096, and then no store")
    if rerank is not None and rerank < 1:
        raise ConfigError(f"rerank={rerank}; it must be 1 or more, such as 50")
    prepare_arithmetic()
    from vtr.clip.backbone import load_backbone
    from vtr.train.run import Run, load_run

    trained = run if run is None or isinstance(run, Run) else load_run(Path(run))
    if frames is None and store is None:
        folder = None if trained is None else trained.features_folder
        if trained is None or folder is None or not folder.is_dir():
            raise ConfigError(
                "the videos' features are not known: give mteb_model a store, such as "
                "vtr.open_features(workspace), or frames=12 to embed the videos that mteb brings"
            )
        held = FeatureStore(folder).spec.samplers
        budget = None if trained.sampler in held else trained.config["features"].get("frames")
        store = FeatureStore(folder, sampler=trained.sampler, frames=budget)
    named = model or (trained.text_model if trained else store.spec.backbone if store else None)
    if named is None:
        raise ConfigError("frames of a model that nobody named: give mteb_model a run or a model")
    backbone = load_backbone(named, device=device)
    encodes = trained is None or trained.model.head.info.indexable
    made = EncodingModel if encodes else SearchModel
    return made(trained, backbone, store, frames=frames, rerank=rerank)


def require_mteb(what: str) -> Any:
    """Returns mteb."""
    require_extra("mteb", ["mteb"], what, needs="the package mteb")
    import mteb

    return mteb


class SearchModel:
    """mteb's `SearchProtocol`: texts search videos, or videos texts; made by `mteb_model`."""

    def __init__(
        self,
        run: Run | None,
        backbone: Backbone,
        store: FeatureStore | None,
        *,
        frames: int | None,
        rerank: int | None,
    ) -> None:
        from vtr.api.stores import check_same_model
        from vtr.train.model import zero_shot_model

        self.run, self.backbone, self.store = run, backbone, store
        self.frames, self.rerank = frames, rerank
        if run is not None:
            run.check_text_model(backbone)
            if store is not None:
                run.check_store(store)
        elif store is not None:
            check_same_model(backbone, store)
        self.model: RetrievalModel = (
            zero_shot_model(backbone.logit_scale) if run is None else run.model
        )
        if self.model.head.info.together and rerank is None:
            raise ConfigError(
                "this head compares a text's best videos with one another: say how many with "
                "rerank=N, such as rerank=50"
            )
        self.mteb_model_meta = _meta(self)
        self._documents: _Side | None = None

    def index(self, corpus: Any, *, task_metadata: Any, **_: Any) -> None:
        """Reads the documents of a task."""
        self._documents = self._read(corpus, task_metadata, "document")

    def search(
        self,
        queries: Any,
        *,
        task_metadata: Any,
        top_k: int,
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        **_: Any,
    ) -> Results:
        """Returns query id to the ids and scores of its best documents; to those of `top_ranked`.

        Raises:
            ConfigError: Nothing was indexed, or the task does not ask texts for videos or videos
                for texts.
        """
        if self._documents is None:
            raise ConfigError("index a corpus before searching it")
        asked, held = self._read(queries, task_metadata, "query"), self._documents
        matrix = self._matrix(asked.items, held.items)
        place = {name: n for n, name in enumerate(held.ids)}
        by_id = np.argsort(larger_first(held.ids))  # of equal scores mteb wants the larger id
        results: Results = {}
        for query, row in zip(asked.ids, asked.rows.tolist(), strict=True):
            chosen, scores = by_id, matrix[row][held.rows]
            if top_ranked is not None and query in top_ranked:
                wanted = [place[name] for name in top_ranked[query] if name in place]
                chosen = by_id[np.isin(by_id, wanted)]
            best = chosen[np.argsort(-scores[chosen], kind="stable")[:top_k]]
            results[query] = {held.ids[n]: float(scores[n]) for n in best}
        return results

    def _matrix(
        self, asked: TextFeatures | PackedFrames, held: TextFeatures | PackedFrames
    ) -> Scores:
        """Returns the scores of distinct queries with distinct documents."""
        if isinstance(held, PackedFrames) and not isinstance(asked, PackedFrames):
            return self._scores(asked, held)[0]
        if isinstance(asked, PackedFrames) and not isinstance(held, PackedFrames):
            return self._scores(held, asked)[1].T
        raise ConfigError(
            "vtr compares texts with videos; this task has the same kind on both sides"
        )

    def _scores(self, texts: TextFeatures, videos: PackedFrames) -> tuple[Scores, Scores]:
        """Returns (T, V) scores to be ranked along rows, and along columns."""
        from vtr.evaluate.rerank import rerank
        from vtr.train.model import zero_shot_model

        scorer = self._scorer(self.model, texts, videos)
        scorer.candidates = self.rerank or 0
        if self.rerank is None:
            matrix = scorer.matrix()
            return matrix, matrix
        if self.model.head.info.recalls:
            found = scorer.recall()
        else:
            cheap = self._embedded(texts.ids, zero_shot=True)
            mean = zero_shot_model(self.backbone.logit_scale)
            found = self._scorer(mean, cheap, videos).matrix()
        ordered = rerank(found, self.rerank, scorer.score_pairs)
        return ordered.t2v, ordered.v2t

    def _scorer(self, model: RetrievalModel, texts: TextFeatures, videos: PackedFrames) -> Scorer:
        from vtr.train.scoring import Scorer

        return Scorer(model, texts, videos, pad=self._pad(model), device=self.backbone.device)

    def _pad(self, model: RetrievalModel) -> Scores | None:
        if not model.head.info.needs_pad:
            return None
        pad: Scores = (
            self.backbone.pad_embedding() if self.store is None else self.store.pad_embedding
        )
        return pad

    # ---- what mteb hands over

    def _read(self, dataset: Any, task_metadata: Any, side: str) -> _Side:
        kinds = task_metadata.get_modalities(side)
        if "video" in kinds:
            videos = self._videos(dataset)
            return _Side(list(videos.ids), videos, np.arange(len(videos.ids)))
        if kinds != ["text"]:
            raise ConfigError(f"vtr knows texts and videos; the task's {side} side is {kinds}")
        row: dict[str, int] = {}  # equal words are scored once, so that they tie exactly
        rows = [row.setdefault(text, len(row)) for text in _texts(dataset)]
        ids = [str(name) for name in dataset["id"]]
        return _Side(ids, self._embedded(list(row)), np.array(rows, np.int64))

    def _embedded(self, texts: Sequence[str], *, zero_shot: bool = False) -> TextFeatures:
        """Returns texts as the model reads them; their ids are the texts."""
        from vtr.train.texts import embed_for, embed_texts

        if self.run is None or zero_shot:
            return embed_texts(self.backbone, texts, ids=texts)
        return embed_for(self.run.spec, self.backbone, texts, ids=texts)

    def _videos(self, dataset: Any) -> PackedFrames:
        known = dataset.column_names
        names = [str(name) for name in dataset["id"]]
        if self.store is None:
            if "video" not in known:
                raise ConfigError(
                    "this task brings no videos but their ids: give mteb_model a store and no "
                    "frames"
                )
            return self._pictures(names, (dataset[n]["video"] for n in range(len(names))))
        there = [name for name in names if name in self.store]
        if not there:
            raise ConfigError(
                f"{self.store.folder} holds none of the task's {counted(len(names), 'video')} "
                f"({first_few(names, 3)}): give mteb_model frames=12 to embed what mteb brings"
            )
        if len(there) < len(names):
            are = "is" if len(names) - len(there) == 1 else "are"
            videos = f"{len(names) - len(there):,} of {counted(len(names), 'video')}"
            note(f"{videos} of the task {are} not there")
        return self.store.packed(there, dtype="float32")

    def _pictures(self, names: Sequence[str], videos: Iterable[Any]) -> PackedFrames:
        """Embeds frames of the videos at even distances."""
        from vtr.clip.preprocess import resize_crop

        assert self.frames is not None
        vectors = []
        for video in videos:
            pictures = even_frames(video, self.frames)
            crops = np.stack([resize_crop(p, self.backbone.preprocessing) for p in pictures])
            vectors.append(self.backbone.encode_clip(crops))
        offsets = np.cumsum([0, *map(len, vectors)], dtype=np.int64)
        rows = np.concatenate(vectors)
        return PackedFrames(tuple(names), rows, np.zeros(len(rows)), offsets)


class EncodingModel(SearchModel):
    """mteb's `EncoderProtocol` as well: one vector for each text and each video."""

    def encode(self, inputs: Any, **_: Any) -> Scores:
        """Returns (N, D) vectors of what a loader's batches hold, or of a list of texts.

        Raises:
            ConfigError: Neither texts nor videos, both at once, or a video without features.
        """
        if isinstance(inputs, list | tuple) and all(isinstance(one, str) for one in inputs):
            inputs = [{"text": inputs}]
        vectors: Scores = np.concatenate([self._encoded(batch) for batch in inputs])
        return vectors

    def _encoded(self, batch: Mapping[str, Any]) -> Scores:
        from vtr.train.data import ResidentTexts, resident_videos
        from vtr.train.scoring import evaluating

        model, device = self.model.to(self.backbone.device), self.backbone.device
        if "text" in batch and "video" in batch:
            raise ConfigError("vtr has a vector for a text or a video, not for both together")
        with evaluating(model):
            if "text" in batch:
                texts = self._embedded([str(text) for text in batch["text"]])
                held = ResidentTexts(texts, device).batch(np.arange(len(texts)))
                return np.asarray(model.encode_texts(held)[0].float().cpu())
            videos = self._of_batch(batch)
            shown = resident_videos(videos, device, self._pad(model))
            code = model.encode_videos(shown.batch(np.arange(len(videos.ids))))
            return np.asarray(code[0].float().cpu())

    def _of_batch(self, batch: Mapping[str, Any]) -> PackedFrames:
        if self.store is None and "video" in batch:
            videos = batch["video"]
            return self._pictures([str(n) for n in range(len(videos))], videos)
        names = [str(name) for name in batch.get("id", ())]
        lacking = [name for name in names if self.store is None or name not in self.store]
        if self.store is None or lacking or not names:
            raise ConfigError(
                f"no features for {first_few(lacking, 3) or 'videos without ids'}: fill the store "
                "first, or give mteb_model frames=12 to embed what mteb brings"
            )
        return self.store.packed(names, dtype="float32")

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Scores:
        """Returns (N, V) inner products."""
        scores: Scores = np.atleast_2d(embeddings1) @ np.atleast_2d(embeddings2).T
        return scores

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Scores:
        """Returns (N,) inner products of rows."""
        return np.asarray(np.einsum("nd,nd->n", *map(np.atleast_2d, (embeddings1, embeddings2))))


def even_frames(video: Any, count: int) -> list[NDArray[np.uint8]]:
    """Returns frames (H, W, 3) of a decoder of torchcodec's, or of a (T, 3, H, W) uint8 tensor."""
    from mteb.models.modality_collators import FramesCollator, frame_indices

    if hasattr(video, "get_frames_at"):
        taken = FramesCollator.resample_video(video, num_frames=count)
    else:
        taken = np.asarray(video)[frame_indices(len(video), count)]
    return [np.ascontiguousarray(np.moveaxis(np.asarray(one), 0, -1)) for one in taken]


def mteb_task(workspace: Workspace, protocol: str | None = None) -> Any:
    """Returns the test part of a protocol as a retrieval task of mteb, text to video.

    >>> import vtr
    >>> vtr.mteb_task(vtr.open_workspace("demo-world")).metadata.name
    'vtr-demo-t2v'

    Its documents are ids of videos, for models that know where these are (`mteb_model`); its name
    and revision are those that `vtr eval --mteb` writes.

    Args:
        workspace: Of the dataset.
        protocol: By default the dataset's most used.

    Raises:
        ConfigError: mteb is not installed.
        DatasetError: The annotations cannot be read.
    """
    mteb = require_mteb("vtr.mteb_task")
    from datasets import Dataset
    from mteb.abstasks import AbsTaskRetrieval

    from vtr.api.stores import read_dataset
    from vtr.evaluate.protocol import default_protocol, load_protocol, queries

    dataset = read_dataset(workspace)
    chosen = load_protocol(protocol) if protocol else default_protocol(dataset.name)
    test = queries(chosen, dataset, "test")
    owners = [test.video_ids[v] for v in test.query_video]
    facts = mteb.TaskMetadata(
        name=task_name(chosen.name),
        description=f"{chosen.name}, as vtr reads it: {chosen.source}",
        dataset={"path": str(workspace.annotations or workspace.root), "revision": test.digest},
        type="Any2AnyRetrieval",
        category="t2v",
        modalities=["text", "video"],
        eval_splits=[test.part],
        eval_langs=[LANGUAGE],
        main_score=MAIN_SCORE,
    )

    class Task(AbsTaskRetrieval):  # type: ignore[misc]
        """The task; mteb keeps a task's facts on its class."""

        metadata = facts

        def load_data(self, **_: Any) -> None:
            """Puts the data where mteb looks for them."""
            split = {
                "queries": Dataset.from_dict({"id": list(test.text_ids), "text": list(test.texts)}),
                "corpus": Dataset.from_dict({"id": list(test.video_ids)}),
                "relevant_docs": {
                    name: {video: 1} for name, video in zip(test.text_ids, owners, strict=True)
                },
                "top_ranked": None,
            }
            self.dataset = {"default": {test.part: split}}
            self.data_loaded = True

    return Task()


def _texts(dataset: Any) -> list[str]:
    """Returns the texts as mteb has them read: a document's title first, then an instruction."""
    known = dataset.column_names
    columns = [name for name in ("title", "text", "instruction") if name in known]
    rows: Iterable[tuple[Any, ...]] = zip(*(dataset[name] for name in columns), strict=True)
    return [" ".join(str(part).strip() for part in row if part) for row in rows]


def _meta(made: SearchModel) -> Any:
    """Returns mteb's `ModelMeta`; its name says whose frames are seen."""
    from mteb.models import ModelMeta

    from vtr.files import file_sha256
    from vtr.train.model import count_parameters
    from vtr.train.run import BEST

    run, store, backbone = made.run, made.store, made.backbone
    seen = f"{made.frames}-even-frames" if store is None else str(store.sampler)
    parts = [Path(backbone.model_id).name if run is None else run.name, seen]
    if made.rerank is not None:
        parts.append(f"rerank-{made.rerank}")
    name = re.sub(r"[^A-Za-z0-9._=-]+", "-", "-".join(parts))
    indexable = made.model.head.info.indexable
    return ModelMeta(
        loader=None,
        name=f"vtr/{name}",
        revision=backbone.weights_sha256 if run is None else file_sha256(run.folder / BEST),
        release_date=None,
        languages=None,
        n_parameters=count_parameters(made.model)[0] + count_parameters(backbone.model)[0],
        memory_usage_mb=None,
        max_tokens=None,
        embed_dim=backbone.embedding_dim if indexable else None,
        license=None,
        open_weights=None,
        public_training_code=None,
        public_training_data=None,
        framework=["PyTorch"],
        similarity_fn_name="dot" if indexable else None,
        use_instructions=False,
        training_datasets=None,
        modalities=["text", "video"],
        model_type=["dense" if indexable else "late-interaction"],
    )
