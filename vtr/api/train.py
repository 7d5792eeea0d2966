"""`vtr train` and `vtr.train_head`: from captions and cached features to a trained run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import torch

from vtr import __version__
from vtr.api.dry_run import estimate
from vtr.api.next_commands import resume_command
from vtr.api.stores import check_same_model
from vtr.api.train_data import TrainingData, read_training_data
from vtr.arithmetic import prepare_arithmetic
from vtr.choices import check_names
from vtr.clip.backbone import Backbone, load_backbone
from vtr.counts import counted
from vtr.errors import ConfigError, UnknownNameError
from vtr.evaluate.evaluator import Task, evaluate
from vtr.evaluate.metrics import retrieval_metrics
from vtr.features import FeatureStore
from vtr.files import begin_beside, take_place
from vtr.progress import embedding, note
from vtr.settings import Source, merge
from vtr.train.batches import BatchPlan
from vtr.train.data import PairedData
from vtr.train.distributed import World, joined_processes
from vtr.train.headlist import build_head, parse_head
from vtr.train.inputs import embed_for
from vtr.train.loop import NOTHING_TO_TRAIN, Trainer
from vtr.train.model import ModelSpec, build_model, count_parameters
from vtr.train.presets import DEFAULT_PRESET, TrainSettings, listed_values
from vtr.train.run import (
    CONFIG,
    OUTCOME,
    OUTCOME_ONCE,
    Run,
    load_run,
    next_number,
    read_config,
    read_outcome,
    remove_files,
    renumber_run,
    start_run,
    write_json,
)
from vtr.train.run_folders import (
    Target,
    advising,
    check_resumable,
    default_name,
    find_interrupted,
    free_name,
    holding,
    names_of,
    require_free,
    seed_folders,
    summarise,
    targets_of,
    workplace,
)
from vtr.train.scoring import Scorer, Validation
from vtr.train.teacher import Teacher, describe_teacher, load_teacher
from vtr.train.text_tower import text_spec
from vtr.train.texts import TextFeatures
from vtr.train.tracking import draw_curve, require_tensorboard, tensorboard
from vtr.verbs.train import Options, Recipe
from vtr.workspace import Workspace


def train_head(
    workspace: Workspace, head: str | None = None, *, quiet: bool = True, **options: Any
) -> Run:
    """Trains a head on the cached features and returns the run with its best epoch; `vtr train`.

    Args:
        workspace: Where everything is.
        head: Name and options, such as "seqTransf:layers=2"; by default the preset's.
        quiet: No progress.
        options: The options of `vtr train` with `_` for `-`: `text="projection"`, `epochs=5`,
            `batch_size=64`, `seed=1`, `device="cpu"`, ... A run of the given `name` is replaced,
            unless it is to `resume`; without a name one is made that is free.

    Raises:
        ConfigError: An unknown option, or a value that is not allowed.
        DatasetError: No training video has features.
    """
    prepare_arithmetic()
    if not isinstance(workspace, Workspace):
        raise ConfigError(
            f"the workspace is {workspace!r:.60} ({type(workspace).__name__}); it must be what "
            "vtr.open_workspace(FOLDER) returns"
        )
    for name in {"seeds", "dry_run"} & options.keys():
        raise UnknownNameError("option", name, Options.model_fields.keys() - {"seeds", "dry_run"})
    options.setdefault("overwrite", options.get("name") is not None and not options.get("resume"))
    chosen = Options.of(head=head, **options)
    check_names(chosen.given)
    document = train(workspace, chosen, quiet=quiet)
    assert document is not None  # only other processes of torchrun get nothing
    return load_run(document["run"])


def train(workspace: Workspace, options: Options, *, quiet: bool = False) -> dict[str, Any] | None:
    """Trains one model, or one for each of several seeds.

    Args:
        workspace: Where everything is.
        options: What to train and how, where it goes; a resumed run keeps its own.
        quiet: No progress.

    Returns:
        What `training.json` holds, the summary of several seeds, or what a dry run says; None in
        all but the first of several processes.
    """
    if options.tensorboard:
        require_tensorboard()
    options = _of_begun_run(workspace, options)
    data = read_training_data(workspace, options, quiet=quiet)
    data.check_enough()
    device = torch_device(options.device)
    if not quiet:
        note(f"loading the text tower of {workspace.model}")
    backbone = load_backbone(workspace.model, device=device)
    training = Training.prepare(workspace, options, data, backbone)
    if options.dry_run:
        return training.dry_run()
    if data.skipped_line:
        note(data.skipped_line)
    with joined_processes(torch.device(device)) as world:
        document = training.run(world, quiet=quiet)
    return document if world.is_first else None


def _of_begun_run(workspace: Workspace, options: Options) -> Options:
    """Returns the options of the run to resume; refuses a name that is taken."""
    if options.resume and options.seeds == 1:
        interrupted = find_interrupted(workspace.runs, options.name)
        return _resumed(interrupted, options).changed(name=interrupted.name)
    if options.resume and options.name:
        begun = seed_folders(workspace.runs, options.name)
        return _resumed(begun[0], options) if begun else options
    if options.name and not options.overwrite:
        first = workspace.seed if options.seed is None else options.seed
        require_free(workspace.runs, options.name, range(first, first + options.seeds))
    return options


def _resumed(folder: Path, options: Options) -> Options:
    """Returns the options with which an unfinished run was started.

    Raises:
        ConfigError: An option given now says something else.
    """
    folder = workplace(folder)
    source = f"{folder / CONFIG}: request"
    stored = read_config(folder).get("request") or {}
    try:
        recipe = merge(Recipe, [Source(stored, lambda name: f"{source}: {name}")])
    except UnknownNameError as error:
        raise ConfigError(f"{source}: {error}") from None
    before = recipe.recipe()
    changed = [
        f"--{key.replace('_', '-')} {value} (was {before.get(key, 'not given')})"
        for key, value in options.recipe().items()
        if before.get(key) != value
    ]
    if changed:
        raise ConfigError(
            f"{folder} was started with other settings: {', '.join(changed)}. A resumed run keeps "
            "its own: leave the flags out, or start a new run with --name"
        )
    return options.changed(**recipe.given)


@dataclass(frozen=True)
class Training:
    """One training, or several that differ in their seed alone."""

    workspace: Workspace  # Where everything is
    options: Options  # What was asked for
    data: TrainingData  # Captions and features
    backbone: Backbone  # Whose text tower
    spec: ModelSpec  # What is trained
    values: Mapping[str, Any]  # Every option that presets set, as it came to be
    settings: TrainSettings  # The same for the loop, with the first seed
    teacher: Run | None  # Whose ranking is learned as well

    @classmethod
    def prepare(
        cls, workspace: Workspace, options: Options, data: TrainingData, backbone: Backbone
    ) -> Training:
        """Resolves model and settings.

        Raises:
            ConfigError: Sizes or settings that do not fit.
            ModelError: Text of one model against frames of another, without a projection between.
        """
        dim = data.store.spec.embedding_dim
        values, drop_last = options.resolve(dim=dim, num_videos=len(data.train.video_ids))
        spec = _model_spec(options, values, backbone, data.store)
        seed = workspace.seed if options.seed is None else options.seed
        settings = TrainSettings.of(values, seed=seed, drop_last=drop_last)
        plan = BatchPlan(data.train.query_video, settings.batch)
        if options.hard_negatives is not None and options.hard_negatives >= plan.most_wrong > 0:
            note(
                f"--hard-negatives {options.hard_negatives:,} leaves nothing out: in batches of "
                f"{plan.size:,} {settings.batch.mode} there are at most {plan.most_wrong:,} wrong "
                "answers, and all count, as with 0"
            )
        teacher = None
        if options.teacher is not None:
            teacher = load_teacher(options.teacher, data.store, backbone)
        values |= {"head": spec.head, "text": spec.text.mode, "tune_layers": spec.text.layers}
        return cls(workspace, options, data, backbone, spec, values, settings, teacher)

    def run(self, world: World, *, quiet: bool) -> dict[str, Any]:
        """Trains every seed; what can be refused is refused before anything is embedded."""
        runs, options, first = self.workspace.runs, self.options, self.settings.seed
        seeds = range(first, first + options.seeds)
        BatchPlan(self.data.train.query_video, self.settings.batch).check_share(world.size)
        name = options.name or default_name(self.spec, options.preset)
        if not (options.name or options.overwrite or options.resume):
            name = free_name(runs, name, seeds)
        targets = targets_of(
            [runs / one for one in names_of(name, seeds)],
            resume=options.resume,
            overwrite=options.overwrite,
        )
        for seed, target in zip(seeds, targets, strict=True):
            self._check_target(target, seed)
        inputs = self.embed()
        with ExitStack() as stack:
            command = resume_command(self.workspace, name, seeds=options.seeds)
            stack.enter_context(advising(targets[0].work, command))
            for target in targets if world.is_first else ():
                if target.replaces:
                    stack.enter_context(holding(target.folder))
            documents = [
                self._train(target, seed, inputs, world, quiet=quiet)
                for seed, target in zip(seeds, targets, strict=True)
            ]
            if world.is_first:
                _publish(targets, documents)
        return documents[0] if options.seeds == 1 else self._summary(documents, world)

    def _check_target(self, target: Target, seed: int) -> None:
        """Refuses to go on with a run of something else, or to write over the teacher."""
        if self.teacher is not None and target.folder.resolve() == self.teacher.folder.resolve():
            raise ConfigError(
                f"{target.folder} is the teacher itself: give the student another --name"
            )
        if target.begun:
            check_resumable(target.work, self.config(seed))

    def embed(self) -> Inputs:
        """Embeds all captions, or reads them from the cache."""
        data, train = self.data, self.data.train
        note(f"embedding {counted(len(train.texts), 'training caption')}")
        texts = self._embed(self.spec, train.texts, train.text_ids)
        pairs = PairedData(texts, data.frames, train.query_video, data.pad(self.spec))
        validation = None
        if data.task is not None and data.val_frames is not None:
            val_texts = self._embed(self.spec, data.task.texts)
            measure = partial(_validation_metrics, data.task)
            validation = Validation(val_texts, data.val_frames, measure, pairs.pad)
        if self.teacher is None:
            return Inputs(pairs, validation, None)
        note(f"embedding {counted(len(train.texts), 'caption')} for the teacher")
        spec, known = self.teacher.spec, self.teacher.train_ids or frozenset()
        texts = self._embed(spec, train.texts, train.text_ids)
        shared = known.intersection(data.task.video_ids if data.task else ())
        if shared:
            note(
                f"the teacher was trained on {len(shared):,} of the validation videos: the best "
                "epoch is chosen on videos that it has seen"
            )
        chunk, device = self.settings.chunk, self.backbone.device
        pad = data.pad(spec)
        teacher = Teacher(self.teacher.model, texts, pad=pad, chunk=chunk, device=device)
        return Inputs(pairs, validation, teacher)

    def _embed(
        self, spec: ModelSpec, texts: Sequence[str], ids: Sequence[str] | None = None
    ) -> TextFeatures:
        with embedding(len(texts)) as update:
            return embed_for(
                spec, self.backbone, texts, ids=ids, cache=self.data.store.folder, tell=update
            )

    def _train(
        self, target: Target, seed: int, inputs: Inputs, world: World, *, quiet: bool
    ) -> dict[str, Any]:
        """Trains one model into its folder; returns what training.json holds."""
        outcome = read_outcome(target.work) if target.begun else None
        if outcome is not None:  # of a seed that had finished
            return {**outcome, "run": str(target.folder)}
        with ExitStack() as stack:
            on_epoch = None
            if world.is_first:
                if target.replaces and not target.begun:
                    begin_beside(target.folder, option="--runs")
                stack.enter_context(holding(target.work))
            model = build_model(self.spec, backbone=self.backbone, seed=seed)
            total, trained = count_parameters(model)
            facts = {"parameters": total, "trained": trained}
            if world.is_first:
                config = {**self.config(seed), "head_origin": model.head.origin, **facts}
                self._begin_folder(target, config)
            world.wait()
            note(
                f"training {self.spec.head} ({trained:,} of {total:,} parameters) into "
                f"{target.folder}"
                + f", which stays as it is until this is done ({target.work})"
                * target.replaces
            )
            if world.is_first and self.options.tensorboard:
                on_epoch = stack.enter_context(tensorboard(target.work))
            result = Trainer(
                model,
                inputs.pairs,
                replace(self.settings, seed=seed),
                folder=target.work,
                validation=inputs.validation,
                device=self.backbone.device,
                world=world,
                teacher=inputs.teacher,
                on_epoch=on_epoch,
                quiet=quiet,
            ).run(resume=target.begun)
            document = {**self._outcome(target, seed), **result.as_dict(), **facts}
            document["selection"] = self.data.selection
            if world.is_first:
                draw_curve(target.work)
                write_json(target.work / OUTCOME, document)
        return document

    def _begin_folder(self, target: Target, config: dict[str, Any]) -> None:
        """Writes config.json; of a run that goes on only that it is the latest at work."""
        number = next_number(self.workspace.runs)
        if target.begun:
            renumber_run(target.work, number)
            return
        known: frozenset[str] | None = frozenset(self.data.train.video_ids)
        if self.teacher is not None:  # what it knows, its student learns; unknown where imported
            theirs = self.teacher.train_ids
            known = None if theirs is None else theirs | frozenset(self.data.train.video_ids)
        start_run(target.work, config={**config, "number": number}, train_ids=known)
        remove_files(target.work, OUTCOME, OUTCOME_ONCE)

    def _outcome(self, target: Target, seed: int) -> dict[str, Any]:
        return {
            "run": str(target.folder),
            "head": self.spec.head,
            "text": self.spec.text.mode,
            "seed": seed,
            "teacher": None if self.teacher is None else str(self.teacher.folder),
            "train_videos": len(self.data.train.video_ids),
            "train_captions": len(self.data.train.texts),
            "skipped": dict(self.data.skipped),
        }

    def _summary(self, documents: Sequence[dict[str, Any]], world: World) -> dict[str, Any]:
        """Returns mean and spread of several seeds; writes them beside the runs."""
        document = {
            "seeds": [d["seed"] for d in documents],
            "runs": [d["run"] for d in documents],
            "selection": documents[0]["selection"],
            "metrics": summarise([d["metrics"] for d in documents]),
        }
        if world.is_first:
            write_json(_summary_file(documents, self.workspace.runs), document)
        return document

    def config(self, seed: int) -> dict[str, Any]:
        """Returns `config.json`: everything resolved that is known before the model is built."""
        data, backbone = self.data, self.backbone
        request = self.options.recipe()
        versions = {"vtr": __version__, "torch": torch.__version__, "numpy": numpy.__version__}
        if self.options.seeds > 1:
            request["seed"] = seed
        document = {
            "model": self.spec.as_dict(),
            "text_model": {
                "id": self.workspace.model,
                "revision": backbone.revision,
                "weights_sha256": backbone.weights_sha256,
                "settings": backbone.text_settings,
            },
            **data.as_config(self.workspace),
            "settings": replace(self.settings, seed=seed).as_dict(),
            "preset": self.options.preset,
            "request": request,
            "selection": data.selection,
            "versions": versions,
            "device": str(backbone.device),
        }
        if self.teacher is not None:
            document["teacher"] = describe_teacher(self.teacher)
        return document

    def dry_run(self) -> dict[str, Any]:
        """Returns what the training would take, as plain numbers."""
        data, settings, seeds = self.data, self.settings, self.options.seeds
        measured = estimate(data, self.backbone, self.spec, settings)
        epoch, validation = measured["seconds_per_epoch"], measured.pop("seconds_to_validate")
        return {
            "head": self.spec.head,
            "text": self.spec.text.mode,
            "teacher": None if self.teacher is None else self.teacher.name,
            "train_videos": len(data.train.video_ids),
            "train_captions": len(data.train.texts),
            "selection": data.selection,
            "skipped_videos": len(data.skipped),
            "batches": settings.batch.mode,
            "epochs_at_most": settings.epochs,
            "seeds": seeds,
            **measured,
            "seconds_in_all_at_most": seeds * (epoch * settings.epochs + validation),
            "device": str(self.backbone.device),
            "preset": self.options.preset or DEFAULT_PRESET,
            "settings": listed_values(
                {**self.values, "captions": settings.batch.captions or "all"},
                drop_last=settings.batch.drop_last,
            ),
            "given": sorted(self.options.recipe()),
        }


class Inputs(NamedTuple):
    """What the loop is given, captions embedded."""

    pairs: PairedData
    validation: Validation | None
    teacher: Teacher | None


def _model_spec(
    options: Options, values: Mapping[str, Any], backbone: Backbone, store: FeatureStore
) -> ModelSpec:
    """Returns what will be trained.

    A head without parameters leaves nothing to train beside frozen text: unless the user asked for
    just that, it gets a projection.
    """
    choice = parse_head(values["head"])
    dim, mode = store.spec.embedding_dim, values["text"]
    if mode == "frozen":
        head = build_head(choice, dim=dim, clip=None, seed=0)
        bare = not any(True for _ in head.parameters())
        if bare and options.text is None:
            note(f"{choice.name} has no parameters: training a text projection (--text projection)")
            mode = "projection"
        elif bare and values["temperature"] is not None:
            raise ConfigError(NOTHING_TO_TRAIN)
    options.check_text(mode)
    layers = values["tune_layers"]
    if options.tune_layers is None and mode == "tune":
        layers = min(layers, backbone.model.text.sizes.layers)
    text = text_spec(backbone, mode, video_dim=dim, layers=layers, dropout=options.dropout or 0.0)
    if mode != "projection":
        check_same_model(backbone, store)
    return ModelSpec(choice.label, dim, text, values["temperature"])


def _validation_metrics(task: Task, scorer: Scorer) -> dict[str, float]:
    ranks = evaluate(task, scorer.stream, score_pairs=scorer.score_pairs).ranks
    expected = retrieval_metrics(ranks).expected
    return {key: value for key, value in expected.items() if key.startswith(("t2v/", "v2t/"))}


def _publish(targets: Sequence[Target], documents: Sequence[Mapping[str, Any]]) -> None:
    """Puts trainings that replace others in their places, with all that belonged to those gone."""
    for target in targets:
        if target.replaces:
            stem, runs = target.folder.name.rpartition("-seed")[0], target.folder.parent
            for summary in (_summary_file(documents, runs), *runs.glob(f"{stem}-seeds-*.json")):
                summary.unlink(missing_ok=True)
            take_place(target.folder)


def _summary_file(documents: Sequence[Mapping[str, Any]], runs: Path) -> Path:
    return runs / f"{Path(documents[0]['run']).name}-to-{documents[-1]['seed']}.json"


def torch_device(name: str) -> str:
    """Returns the device; under torchrun each process's own GPU."""
    if name in ("auto", "cuda") and torch.cuda.is_available():
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return "cpu" if name == "auto" else name
