"""`vtr train`: from captions and cached features to a trained run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy
import torch

from vtr import __version__
from vtr.api.dry_run import estimate
from vtr.api.next_commands import resume_command
from vtr.api.stores import check_same_model
from vtr.api.train_begun import of_begun_run
from vtr.api.train_data import TrainingData, read_training_data
from vtr.api.train_inputs import Inputs, Reader
from vtr.api.train_model import Base, begin_from, check_start, load_base, model_spec
from vtr.clip.backbone import Backbone
from vtr.errors import ConfigError, ModelError
from vtr.files import begin_beside, make_folder
from vtr.progress import note
from vtr.train.batches import BatchPlan
from vtr.train.distributed import World, joined_processes, torch_device
from vtr.train.loop import AstrayError, Trainer, TrainResult
from vtr.train.model import ModelSpec, RetrievalModel, build_model, count_parameters
from vtr.train.presets import DEFAULT_PRESET, TrainSettings, listed_values
from vtr.train.run import (
    BEST,
    CONFIG,
    OUTCOME,
    OUTCOME_ONCE,
    TOWERS,
    Run,
    load_run,
    load_weights,
    next_number,
    read_config,
    read_outcome,
    read_tensors,
    remove_files,
    renumber_run,
    start_run,
    write_json,
)
from vtr.train.run_folders import (
    Target,
    advising,
    begun_settings,
    check_resumable,
    default_name,
    find_run,
    free_name,
    holding,
    names_of,
    summarise,
    summary_file,
    take_places,
    targets_of,
)
from vtr.train.teacher import describe_teacher, load_teacher
from vtr.train.text_tower import TextSpec
from vtr.train.towers import merged, write_towers
from vtr.train.tracking import draw_curve, require_tensorboard, tensorboard
from vtr.verbs.train import OF_VISION, Options
from vtr.workspace import Workspace

HEAD_FIRST = "head-first"
"""Folder in a run and name in its outcome of the training of the head alone that came before."""
_OF_STAGES = ("run", "best_epoch", "epochs", "metrics", "seconds")


def train(workspace: Workspace, options: Options, *, quiet: bool = False) -> dict[str, Any] | None:
    """Trains one model, or one for each of several seeds.

    Returns:
        What `training.json` holds, the summary of several seeds, or what a dry run says; None in
        all but the first of several processes.
    """
    if options.tensorboard:
        require_tensorboard()
    options = of_begun_run(workspace, options)
    data = read_training_data(workspace, options, quiet=quiet)
    data.check_enough()
    device = torch_device(options.device)
    if not quiet:
        tuned = options.resolve()["vision"] == "tune"
        which = "towers" if tuned else "text tower"
        whose = options.start and find_run(workspace.runs, options.start)
        note(f"loading the {which} of {whose or workspace.model}")
    training = Training.prepare(workspace, options, data, load_base(workspace, options, device))
    if options.dry_run:
        return training.dry_run()
    if data.skipped_line:
        note(data.skipped_line)
    with joined_processes(torch.device(device)) as world:
        document = training.run(world, quiet=quiet)
    return document if world.is_first else None


@dataclass(frozen=True)
class Training:
    """One training, or several that differ in their seed alone."""

    workspace: Workspace  # Where everything is
    options: Options  # What was asked for
    data: TrainingData  # Captions and features
    base: Base  # Towers, and perhaps a head
    spec: ModelSpec  # What is trained
    values: Mapping[str, Any]  # Every option that presets set, as it came to be
    settings: TrainSettings  # The same for the loop, with the first seed
    teacher: Run | None  # Whose ranking is learned as well

    @classmethod
    def prepare(
        cls, workspace: Workspace, options: Options, data: TrainingData, base: Base
    ) -> Training:
        """Resolves model and settings."""
        dim = data.store.spec.embedding_dim
        values = options.resolve(dim=dim, num_videos=len(data.train.video_ids))
        backbone, values = base.backbone, values | base.kept(options)
        spec = model_spec(options, values, backbone, data.store)
        if base.start is not None:
            check_start(spec, base.start)
        if values["precision"] == "auto":
            short = spec.vision is not None and backbone.device.type == "cuda"
            values["precision"] = "bfloat16" if short else "float32"
        seed = workspace.seed if options.seed is None else options.seed
        if options.resume:
            name = options.name or default_name(spec, options.preset)
            first = names_of(name, range(seed, seed + options.seeds))[0]
            if begun := begun_settings(workspace.runs / first):
                values |= begun.as_values()
        settings = TrainSettings.of(values, seed=seed)
        plan = BatchPlan(data.train.query_video, settings.batch)
        if options.hard_negatives is not None and options.hard_negatives >= plan.most_wrong > 0:
            note(
                f"--hard-negatives {options.hard_negatives:,} leaves nothing out: in batches of "
                f"{plan.size:,} {settings.batch.mode} there are at most {plan.most_wrong:,} wrong "
                "answers, and all count, as with 0"
            )
        teacher = None
        if options.teacher is not None:
            teacher = load_teacher(find_run(workspace.runs, options.teacher), data.store, backbone)
        values |= {"head": spec.head, "text": spec.text.mode, "tune_layers": spec.text.layers}
        if spec.vision is not None:
            values["freeze_layers"] = spec.vision.frozen
            if options.tune_layers is not None and (
                spec.vision.frozen or options.freeze_layers == 0
            ):
                note(
                    f"--tune-layers {options.tune_layers} decides for the text tower; "
                    f"--freeze-layers {spec.vision.frozen} holds for the vision tower alone"
                )
            if options.freeze_layers not in (None, spec.vision.frozen):
                note(
                    f"--freeze-layers {options.freeze_layers} is undone by --linear-patch 3d, as "
                    f"in the code that --preset {options.preset} follows: every layer is trained"
                )
        return cls(workspace, options, data, base, spec, values, settings, teacher)

    @property
    def backbone(self) -> Backbone:
        """Both towers."""
        return self.base.backbone

    @property
    def reader(self) -> Reader:
        """Reads what the loop is given."""
        kept = self.options.activations or "float16"
        return Reader(self.data, self.spec, self.backbone, kept)

    def head_first(self) -> Training | None:
        """Returns the training of the head alone on stored features that comes before.

        None where the towers are not trained, the head has no parameters, or it comes from a run.
        """
        vision, epochs = self.spec.vision, self.values["head_epochs"]
        if vision is None or self.base.start is not None or not epochs:
            return None
        text = self.spec.text
        if text.mode == "tune":
            text = TextSpec("frozen", text.text_dim, text.video_dim)
        spec = replace(self.spec, vision=None, text=text, lora=0)
        if text.mode == "frozen" and not any(True for _ in build_model(spec).head.parameters()):
            if self.options.head_epochs:
                raise ConfigError(
                    f"--head-epochs {epochs} trains the head alone first, and {spec.head} has no "
                    "parameters. Leave it out"
                )
            return None
        try:
            check_same_model(self.backbone, self.data.store)
        except ModelError as error:
            raise ModelError(
                f"{error}. --head-epochs 0 trains no head on them before the towers"
            ) from None
        settings = replace(self.settings, epochs=epochs, chunk=self.options.chunk or 0)
        return replace(self, spec=spec, settings=settings)

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
        earlier = self.head_first()
        before = None if earlier is None else (earlier, earlier.reader.inputs())
        inputs = self.reader.inputs(self.teacher, chunk=self.settings.chunk)
        with ExitStack() as stack:
            command = resume_command(self.workspace, name, seeds=options.seeds)
            stack.enter_context(advising(targets[0].work, command))
            for target in targets if world.is_first else ():
                if target.replaces:
                    stack.enter_context(holding(target.folder))
            documents = [
                self._train(target, seed, inputs, world, before=before, quiet=quiet)
                for seed, target in zip(seeds, targets, strict=True)
            ]
            if world.is_first:
                take_places(targets, documents)
        return documents[0] if options.seeds == 1 else self._summary(documents, world)

    def _check_target(self, target: Target, seed: int) -> None:
        """Refuses a run of something else, the teacher's folder, and one that cannot be written."""
        if self.teacher is not None and target.folder.resolve() == self.teacher.folder.resolve():
            raise ConfigError(
                f"{target.folder} is the teacher itself: give the student another --name"
            )
        if target.begun:
            check_resumable(target.work, self.config(seed))
        make_folder(target.work if target.begun else self.workspace.runs, option="--runs")

    def _train(
        self,
        target: Target,
        seed: int,
        inputs: Inputs,
        world: World,
        *,
        before: tuple[Training, Inputs] | None = None,
        quiet: bool,
    ) -> dict[str, Any]:
        """Trains one model into its folder; returns what training.json holds."""
        outcome = read_outcome(target.work) if target.begun else None
        if outcome is not None:  # of a seed that had finished
            read_tensors(target.work / BEST)  # it may be lost since
            return {**outcome, "run": str(target.folder)}
        with ExitStack() as stack:
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
            first = None
            if before is not None:
                first = before[0]._within(target, seed, before[1], world, quiet=quiet)
            start = self.base.start if first is None else load_run(target.work / HEAD_FIRST)
            if start is not None:
                begin_from(model, self.spec, start)
            with self._keeping_towers(target, model, world):
                result = self._loop(target, seed, model, inputs, world, quiet=quiet)
            document = {**self._outcome(target, seed), **result.as_dict(), **facts}
            document["selection"] = self.data.selection
            if first is not None:
                document[HEAD_FIRST] = {key: first[key] for key in _OF_STAGES}
            if world.is_first:
                self._finish(target, model, document)
        return document

    def _loop(
        self,
        target: Target,
        seed: int,
        model: RetrievalModel,
        inputs: Inputs,
        world: World,
        *,
        quiet: bool,
    ) -> TrainResult:
        shown = world.is_first and self.options.tensorboard
        with tensorboard(target.work) if shown else nullcontext() as on_epoch:
            return Trainer(
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

    def _finish(self, target: Target, model: RetrievalModel, document: dict[str, Any]) -> None:
        """Writes what a finished training leaves; training.json, which says that it is, last."""
        if self.spec.vision is not None:
            document["towers"] = self._write_towers(target, model)
        draw_curve(target.work)
        write_json(target.work / OUTCOME, document)

    def _within(
        self, target: Target, seed: int, inputs: Inputs, world: World, *, quiet: bool
    ) -> dict[str, Any]:
        """Trains the head alone in a folder of its own within that of the run."""
        folder, work = target.folder / HEAD_FIRST, target.work / HEAD_FIRST
        inner = Target(work, work, begun=(work / CONFIG).is_file())
        document = self._train(inner, seed, inputs, world, quiet=quiet)
        world.wait()
        return {**document, "run": str(folder)}

    def _write_towers(self, target: Target, model: RetrievalModel) -> dict[str, Any]:
        """Writes the best epoch's towers as a model of their own; config.json gets their digest."""
        tensors, metadata = read_tensors(target.work / BEST)
        load_weights(model, tensors, what=str(target.work))
        towers = merged(model, self.backbone)
        write_towers(target.work / TOWERS, towers, like=self.base.model)
        record = {
            "folder": TOWERS,
            "epoch": int(metadata["epoch"]),
            "weights_sha256": towers.weights_sha256,
        }
        write_json(target.work / CONFIG, {**read_config(target.work), "towers": record})
        return record

    @contextmanager
    def _keeping_towers(
        self, target: Target, model: RetrievalModel, world: World
    ) -> Iterator[None]:
        """Writes the best epoch's towers of a training whose numbers went astray.

        Resumed it would go astray again: without them what was kept were of no use.
        """
        try:
            yield
        except ModelError as error:
            kept = (target.work / BEST).is_file() and self.spec.vision is not None
            if world.is_first and kept:
                epoch = self._write_towers(target, model)["epoch"]
                note(
                    f"the towers of the best epoch, {epoch}, are in {target.work / TOWERS}: vtr "
                    f"eval --run {target.work} tests them, vtr train --start {target.work} goes "
                    "on from them"
                )
            if isinstance(error, AstrayError):
                world.wait()  # torchrun ends all processes where one has ended
            raise

    def _begin_folder(self, target: Target, config: dict[str, Any]) -> None:
        """Writes config.json; of a run that goes on only that it is the latest at work."""
        number = next_number(self.workspace.runs)
        if target.begun:
            renumber_run(target.work, number)
            return
        known: frozenset[str] | None = frozenset(self.data.train.video_ids)
        for other in (self.teacher, self.base.start):
            if other is not None:  # what it knows is learned here; unknown where imported
                theirs = other.train_ids
                known = None if theirs is None or known is None else theirs | known
        start_run(target.work, config={**config, "number": number}, train_ids=known)
        remove_files(target.work, OUTCOME, OUTCOME_ONCE)

    def _outcome(self, target: Target, seed: int) -> dict[str, Any]:
        return {
            "run": str(target.folder),
            "head": self.spec.head,
            "text": self.spec.text.mode,
            "seed": seed,
            "teacher": None if self.teacher is None else str(self.teacher.folder),
            "start": None if self.base.start is None else str(self.base.start.folder),
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
            write_json(summary_file(documents, self.workspace.runs), document)
        return document

    def config(self, seed: int) -> dict[str, Any]:
        """Returns `config.json`: everything resolved that is known before the model is built."""
        data, backbone = self.data, self.backbone
        request = self.options.recipe()
        versions = {"vtr": __version__, "torch": torch.__version__, "numpy": numpy.__version__}
        if self.options.seeds > 1:
            request["seed"] = seed
        document = {
            "model": asdict(self.spec),
            "text_model": {
                "id": self.base.model,
                "revision": backbone.revision,
                "weights_sha256": backbone.weights_sha256,
                "settings": backbone.text_settings,
            },
            **data.as_config(self.workspace),
            "settings": asdict(replace(self.settings, seed=seed)),
            "preset": self.options.preset,
            "request": request,
            "selection": data.selection,
            "versions": versions,
            "device": str(backbone.device),
        }
        if self.teacher is not None:
            document["teacher"] = describe_teacher(self.teacher)
        if self.base.start is not None:
            document["start"] = {"run": str(self.base.start.folder)}
        return document

    def dry_run(self) -> dict[str, Any]:
        """Returns what the training would take, as plain numbers."""
        data, settings, seeds = self.data, self.settings, self.options.seeds
        measured = estimate(self.reader, settings)
        epoch, validation = measured["seconds_per_epoch"], measured.pop("seconds_to_validate")
        earlier, before = self.head_first(), 0.0
        if earlier is not None:
            first = estimate(earlier.reader, earlier.settings)
            before = (
                first["seconds_per_epoch"] * earlier.settings.epochs + first["seconds_to_validate"]
            )
        return {
            "head": self.spec.head,
            "text": self.spec.text.mode,
            "vision": self.values["vision"],
            "teacher": None if self.teacher is None else self.teacher.name,
            "train_videos": len(data.train.video_ids),
            "train_captions": len(data.train.texts),
            "selection": data.selection,
            "skipped_videos": len(data.skipped),
            "batches": settings.batch.mode,
            "epochs_at_most": settings.epochs,
            "seeds": seeds,
            **measured,
            "seconds_head_first_at_most": seeds * before,
            "seconds_in_all_at_most": seeds * (before + epoch * settings.epochs + validation),
            "device": str(self.backbone.device),
            "preset": self.options.preset or DEFAULT_PRESET,
            "settings": {
                name: value
                for name, value in listed_values(
                    {
                        **self.values,
                        "captions": settings.batch.captions or "all",
                        "head_epochs": 0 if earlier is None else earlier.settings.epochs,
                    }
                ).items()
                if self.spec.vision is not None or name not in OF_VISION
            },
            "given": sorted(self.options.recipe()),
        }
