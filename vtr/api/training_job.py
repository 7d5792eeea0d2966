"""The trainings that one `vtr train` asks for: planned, refused or embedded, and run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtr.commands.watching import watching
from vtr.counts import counted
from vtr.progress import embedding, note

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from vtr.api.teaching import Teaching
    from vtr.api.training import Material, Request
    from vtr.clip.backbone import Backbone
    from vtr.commands.train import Place
    from vtr.train.distributed import World
    from vtr.train.model import ModelSpec, RetrievalModel
    from vtr.train.presets import TrainSettings
    from vtr.train.teacher import Teacher
    from vtr.train.texts import TextFeatures
    from vtr.train.validation import Validation
    from vtr.workspace import Workspace


def first_seed(workspace: Workspace, request: Request) -> int:
    """Returns the seed of a training, or the first of several."""
    return workspace.seed if request.seed is None else request.seed


@dataclass
class Job:
    """One training, or several that differ in their seed only."""

    material: Material
    request: Request
    settings: TrainSettings
    spec: ModelSpec
    backbone: Backbone
    device: str
    teaching: Teaching | None = None
    texts: TextFeatures | None = None
    validation: Validation | None = None
    teacher: Teacher | None = None

    @classmethod
    def prepare(
        cls, material: Material, request: Request, backbone: Backbone, *, device: str
    ) -> Job:
        """Resolves model and settings."""
        from vtr.api import training
        from vtr.api.teaching import Teaching
        from vtr.train.presets import DEFAULT_PRESET, find_preset

        preset = find_preset(request.preset or DEFAULT_PRESET)
        seed = first_seed(material.workspace, request)
        settings = training.resolve_settings(
            request,
            preset,
            seed=seed,
            dim=material.store.spec.embedding_dim,
            num_videos=len(material.train.video_ids),
        )
        spec = training.model_spec(request, preset, backbone, material.store)
        settings = training.with_chunk(settings, spec)
        training.tell_unheeded(request, settings, material)
        taught = request.teacher and Teaching.load(request.teacher, material, backbone)
        return cls(material, request, settings, spec, backbone, device, taught or None)

    def world(self) -> Any:
        """Returns a context in which the processes of torchrun are joined."""
        import contextlib

        import torch

        from vtr.train.distributed import join_world, leave_world

        @contextlib.contextmanager
        def joined() -> Any:
            try:
                yield join_world(torch.device(self.device))
            finally:
                leave_world()

        return joined()

    def check_batches(self, world: World) -> None:
        """Refuses a batch that the processes cannot share, before anything is embedded.

        Raises:
            ConfigError: Says how many each needs.
        """
        from vtr.train.batches import BatchPlan

        train = self.material.train
        plan = BatchPlan(train.query_video, self.settings.batch, seed=self.settings.seed)
        plan.check_share(world.size)

    def embed(self) -> None:
        """Embeds all captions, or reads them from the cache."""
        from vtr.api.training import make_validation
        from vtr.train.inputs import embed_for

        train = self.material.train
        note(f"embedding {counted(len(train.texts), 'training caption')}")
        with embedding(len(train.texts)) as tell:
            self.texts = embed_for(
                self.spec,
                self.backbone,
                train.texts,
                ids=train.text_ids,
                cache=self.material.store.folder,
                tell=tell,
            )
        self.validation = make_validation(self.material, self.spec, self.backbone)
        if self.teaching is not None:
            self.teacher = self.teaching.prepare(chunk=self.settings.chunk, device=self.device)

    def plan(self, place: Place, *, seeds: int, interrupted: Path | None) -> list[Planned]:
        """Returns which trainings go where; refuses what cannot, before anything is embedded.

        Raises:
            ConfigError: A folder is taken, or holds the run of something else.
        """
        from vtr.api.run_folders import default_name, run_folder, seeds_name, workplaces

        runs, first = self.material.workspace.runs, self.settings.seed
        name = place.name or default_name(self.spec, self.request.preset)
        numbers = range(first, first + seeds)
        if interrupted is not None:
            folders = [interrupted]
        elif seeds == 1:
            chosen = place.name is not None
            folders = [run_folder(runs, name, chosen=chosen, overwrite=place.overwrite)]
        else:
            if not (place.name or place.overwrite or place.resume):
                name = seeds_name(runs, name, numbers)
            folders = [runs / f"{name}-seed{seed}" for seed in numbers]
        jobs = [self] if seeds == 1 else [self.with_seed(seed) for seed in numbers]
        places = workplaces(folders, resume=place.resume, overwrite=place.overwrite)
        planned = [
            Planned(job, folder, work, begun)
            for job, folder, (work, begun) in zip(jobs, folders, places, strict=True)
        ]
        for one in planned:  # before any is trained: seeds of two kinds must not be averaged
            one.check()
        return planned

    def with_seed(self, seed: int) -> Job:
        """Returns the same training with another seed."""
        request, settings = replace(self.request, seed=seed), replace(self.settings, seed=seed)
        return replace(self, request=request, settings=settings)

    @property
    def config(self) -> dict[str, Any]:
        """What `config.json` says, as far as it is known before the model is built."""
        from vtr.api.training import run_config

        config = run_config(self.material, self.request, self.settings, self.spec, self.backbone)
        return config if self.teaching is None else {**config, "teacher": self.teaching.config}

    def train(self, planned: Planned, place: Place, world: World) -> dict[str, Any]:
        """Trains one model into its folder; returns what training.json holds."""
        from contextlib import nullcontext

        from vtr.api.run_folders import holding
        from vtr.files import begin_beside

        if world.is_first and planned.replaces and not planned.begun:
            begin_beside(planned.folder, option="--runs")
        with holding(planned.work) if world.is_first else nullcontext():
            return self._train(planned, place, world)

    def _train(self, planned: Planned, place: Place, world: World) -> dict[str, Any]:
        from vtr.train.curve import draw_curve
        from vtr.train.data import PairedData
        from vtr.train.loop import Trainer
        from vtr.train.model import build_model
        from vtr.train.run import OUTCOME, write_json

        assert self.texts is not None
        material, folder, resume = self.material, planned.work, planned.begun
        model = build_model(self.spec, backbone=self.backbone, seed=self.settings.seed)
        facts = self._begin(folder, model, world, resume=resume)
        pad = material.store.pad_embedding if self.spec.choice.info.needs_pad else None
        data = PairedData(self.texts, material.frames, material.train.query_video, pad)
        note(
            f"training {self.spec.head} ({_share_trained(facts)} parameters) into "
            f"{planned.folder}"
            + (f", which stays as it is until this is done ({folder})" * planned.replaces)
        )
        silent, events = place.quiet or not world.is_first, place.tensorboard and world.is_first
        with watching(folder, silent=silent, tensorboard=events) as hooks:
            result = Trainer(
                model,
                data,
                self.settings,
                folder=folder,
                validation=self.validation,
                device=self.device,
                world=world,
                hooks=hooks,
                teacher=self.teacher,
            ).run(resume=resume)
        document = {
            "run": str(planned.folder),
            **result.as_dict(),
            "selection": material.selection,
            "head": self.spec.head,
            "text": self.spec.text.mode,
            "seed": self.settings.seed,
            "teacher": None if self.teaching is None else self.teaching.config["folder"],
            **facts,
            "train_videos": len(material.train.video_ids),
            "train_captions": len(material.train.texts),
            "skipped": dict(material.skipped.videos),
        }
        if world.is_first:
            draw_curve(folder)
            write_json(folder / OUTCOME, document)
        return document

    def _begin(
        self, folder: Path, model: RetrievalModel, world: World, *, resume: bool
    ) -> dict[str, int]:
        """Writes config.json unless it is there to be resumed; returns how many parameters."""
        from vtr.train.model import count_parameters
        from vtr.train.run import (
            OUTCOME,
            OUTCOME_ONCE,
            next_number,
            remove_files,
            renumber_run,
            start_run,
        )

        material = self.material
        total, trained = count_parameters(model)
        facts = {"parameters": total, "trained": trained}
        config = {**self.config, "head_origin": model.head.origin, **facts}
        known: Collection[str] | None = material.train.video_ids
        if self.teaching is not None:
            known = self.teaching.seen(material.train.video_ids)
        if world.is_first:
            config["number"] = next_number(material.workspace.runs)
            if resume:
                renumber_run(folder, config["number"])
            else:
                start_run(folder, config=config, train_ids=known)
                remove_files(folder, OUTCOME, OUTCOME_ONCE)
        world.wait()
        return facts


def _share_trained(facts: Mapping[str, int]) -> str:
    return f"{facts['trained']:,} of {facts['parameters']:,}"


@dataclass(frozen=True)
class Planned:
    """One training and where it goes."""

    job: Job
    """With its seed; captions are not embedded yet."""
    folder: Path
    """Of the run."""
    work: Path
    """Where it is trained: its folder, or beside it where that holds a run to be replaced."""
    begun: bool
    """Whether to go on with what is there."""

    @property
    def replaces(self) -> bool:
        """Whether it takes its place at the end."""
        return self.work != self.folder

    def check(self) -> None:
        """Refuses to go on with a run of something else, or to write over the teacher.

        Raises:
            ConfigError: Naming what differs.
        """
        from vtr.api.run_folders import check_resumable

        if self.job.teaching is not None:
            self.job.teaching.refuse_itself(self.folder)
        if self.begun:
            check_resumable(self.work, self.job.config)


def run_job(
    job: Job, place: Place, world: World, *, seeds: int, interrupted: Path | None
) -> dict[str, Any]:
    """Trains once or for several seeds; what can be refused is refused first."""
    from contextlib import ExitStack

    from vtr.api.run_folders import holding, resume_command, telling

    job.check_batches(world)
    planned = job.plan(place, seeds=seeds, interrupted=interrupted)
    job.embed()
    first = planned[0]
    name = first.folder.name
    if seeds > 1:
        name = name.removesuffix(f"-seed{job.settings.seed}")
    with ExitStack() as stack:
        stack.enter_context(
            telling(first.work, resume_command(job.material.workspace, name, seeds=seeds))
        )
        for one in planned:
            if one.replaces and world.is_first:
                stack.enter_context(holding(one.folder))
        documents = [_trained(job, one, place, world) for one in planned]
        if world.is_first:
            _publish(planned, documents)
    return documents[0] if seeds == 1 else _summary(job, documents, world)


def _trained(job: Job, one: Planned, place: Place, world: World) -> dict[str, Any]:
    """Trains one of the runs, with the captions embedded; a finished one is not repeated."""
    from vtr.train.run import read_outcome

    outcome = read_outcome(one.work) if one.begun else None
    if outcome is not None:
        return {**outcome, "run": str(one.folder)}
    ready = replace(job, request=one.job.request, settings=one.job.settings)
    return ready.train(one, place, world)


def _publish(planned: Sequence[Planned], documents: Sequence[Mapping[str, Any]]) -> None:
    """Puts trainings that replace others in their places, with all that belonged to those gone."""
    from vtr.files import take_place

    for one in planned:
        if one.replaces:
            stem, runs = one.folder.name.rpartition("-seed")[0], one.folder.parent
            for summary in (_summary_file(documents, runs), *runs.glob(f"{stem}-seeds-*.json")):
                summary.unlink(missing_ok=True)
            take_place(one.folder)


def _summary_file(documents: Sequence[Mapping[str, Any]], runs: Path) -> Path:
    return runs / f"{Path(documents[0]['run']).name}-to-{documents[-1]['seed']}.json"


def _summary(job: Job, documents: Sequence[dict[str, Any]], world: World) -> dict[str, Any]:
    """Returns mean and spread of several seeds; writes them beside the runs."""
    from vtr.train.run import write_json

    document = {
        "seeds": [d["seed"] for d in documents],
        "runs": [d["run"] for d in documents],
        "selection": documents[0]["selection"],
        "metrics": summarise([d["metrics"] for d in documents]),
    }
    if world.is_first:
        write_json(_summary_file(documents, job.material.workspace.runs), document)
    return document


def summarise(rows: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Returns mean, standard deviation (n - 1), least and greatest of every metric.

    >>> summarise([{"t2v/R@1": 40.0}, {"t2v/R@1": 44.0}])["t2v/R@1"]["mean"]
    42.0
    """
    import statistics

    names = [name for name in rows[0] if all(name in row for row in rows)]
    return {
        name: {
            "mean": statistics.fmean(values),
            "sd": statistics.stdev(values) if len(values) > 1 else 0.0,
            "min": min(values),
            "max": max(values),
        }
        for name in names
        for values in [[float(row[name]) for row in rows]]
    }
