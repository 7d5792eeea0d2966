"""The trainings that one `vtr train` asks for: planned, refused or embedded, and run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtr.commands.console import note
from vtr.commands.watching import watching

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from vtr.clip.backbone import Backbone
    from vtr.commands.teaching import Teaching
    from vtr.commands.train import Place
    from vtr.commands.training import Material, Request
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
        from vtr.commands import training
        from vtr.commands.teaching import Teaching
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
        from vtr.commands.training import make_validation
        from vtr.train.inputs import embed_for

        train = self.material.train
        note(f"embedding {len(train.texts):,} training captions")
        self.texts = embed_for(
            self.spec,
            self.backbone,
            train.texts,
            ids=train.text_ids,
            cache=self.material.store.folder,
        )
        self.validation = make_validation(self.material, self.spec, self.backbone)
        if self.teaching is not None:
            self.teacher = self.teaching.prepare(chunk=self.settings.chunk, device=self.device)

    def plan(self, place: Place, *, seeds: int, interrupted: Path | None) -> list[Planned]:
        """Returns which trainings go where; refuses what cannot, before anything is embedded.

        Raises:
            ConfigError: A folder is taken, or holds the run of something else.
        """
        from vtr.commands.run_folders import default_name, run_folder, seeds_name
        from vtr.train.run import CONFIG

        runs, first = self.material.workspace.runs, self.settings.seed
        name = place.name or default_name(self.spec, self.request.preset)
        if interrupted is not None:
            planned = [Planned(self, interrupted, begun=True)]
        elif seeds == 1:
            chosen = place.name is not None
            folder = run_folder(runs, name, chosen=chosen, overwrite=place.overwrite)
            planned = [Planned(self, folder, begun=False)]
        else:
            numbers = range(first, first + seeds)
            if not (place.name or place.overwrite or place.resume):
                name = seeds_name(runs, name, numbers)
            planned = [
                Planned(self.with_seed(seed), folder, place.resume and (folder / CONFIG).exists())
                for seed in numbers
                for folder in [runs / f"{name}-seed{seed}"]
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
        from vtr.commands.training import run_config

        config = run_config(self.material, self.request, self.settings, self.spec, self.backbone)
        return config if self.teaching is None else {**config, "teacher": self.teaching.config}

    def train(
        self, folder: Path, place: Place, world: World, *, resume: bool = False
    ) -> dict[str, Any]:
        """Trains one model into one folder; returns what result.json holds."""
        from contextlib import nullcontext

        from vtr.commands.run_folders import holding

        with holding(folder) if world.is_first else nullcontext():
            return self._train(folder, place, world, resume=resume)

    def _train(self, folder: Path, place: Place, world: World, *, resume: bool) -> dict[str, Any]:
        from vtr.train.curve import draw_curve
        from vtr.train.data import PairedData
        from vtr.train.loop import Trainer
        from vtr.train.model import build_model
        from vtr.train.run import RESULT, write_json

        assert self.texts is not None
        material = self.material
        model = build_model(self.spec, backbone=self.backbone, seed=self.settings.seed)
        facts = self._begin(folder, model, world, resume=resume)
        pad = material.store.pad_embedding if self.spec.choice.info.needs_pad else None
        data = PairedData(self.texts, material.frames, material.train.query_video, pad)
        note(f"training {self.spec.head} ({_share_trained(facts)} parameters) into {folder}")
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
            "run": str(folder),
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
            write_json(folder / RESULT, document)
        return document

    def _begin(
        self, folder: Path, model: RetrievalModel, world: World, *, resume: bool
    ) -> dict[str, int]:
        """Writes config.json unless it is there to be resumed; returns how many parameters."""
        from vtr.train.model import count_parameters
        from vtr.train.run import RESULT, remove_files, start_run

        material = self.material
        total, trained = count_parameters(model)
        facts = {"parameters": total, "trained": trained}
        config = {**self.config, "head_origin": model.head.origin, **facts}
        known: Collection[str] | None = material.train.video_ids
        if self.teaching is not None:
            known = self.teaching.seen(material.train.video_ids)
        if world.is_first and not resume:
            start_run(folder, config=config, train_ids=known)
            remove_files(folder, RESULT)
        world.wait()
        return facts


def _share_trained(facts: Mapping[str, int]) -> str:
    return f"{facts['trained']:,} of {facts['parameters']:,}"


@dataclass(frozen=True)
class Planned:
    """One training and where it goes.

    Args:
        job: With its seed; captions are not embedded yet.
        folder: Of the run.
        begun: Whether to go on with what is there.
    """

    job: Job
    folder: Path
    begun: bool

    def check(self) -> None:
        """Refuses to go on with a run of something else, or to write over the teacher.

        Raises:
            ConfigError: Naming what differs.
        """
        from vtr.commands.run_folders import check_resumable

        if self.job.teaching is not None:
            self.job.teaching.refuse_itself(self.folder)
        if self.begun:
            check_resumable(self.folder, self.job.config)


def run_job(
    job: Job, place: Place, world: World, *, seeds: int, interrupted: Path | None
) -> dict[str, Any]:
    """Trains once or for several seeds; what can be refused is refused first."""
    from vtr.commands.run_folders import resume_command, telling

    job.check_batches(world)
    planned = job.plan(place, seeds=seeds, interrupted=interrupted)
    job.embed()
    folder = planned[0].folder
    name = folder.name.removesuffix(f"-seed{job.settings.seed}") if seeds > 1 else folder.name
    with telling(folder, resume_command(job.material.workspace, name, seeds=seeds)):
        if seeds > 1:
            return _train_seeds(job, planned, place, world)
        return job.train(folder, place, world, resume=planned[0].begun)


def _train_seeds(
    job: Job, planned: Sequence[Planned], place: Place, world: World
) -> dict[str, Any]:
    """Trains several times; a finished one is not repeated when resuming."""
    from vtr.files import read_json
    from vtr.train.run import RESULT, write_json

    documents = []
    for one in planned:
        if one.begun and (one.folder / RESULT).exists():
            documents.append(read_json(one.folder / RESULT, needed="the result of a training"))
            continue
        seeded = job.with_seed(one.job.settings.seed)
        documents.append(seeded.train(one.folder, place, world, resume=one.begun))
    summary = {"seeds": [d["seed"] for d in documents], "runs": [d["run"] for d in documents]}
    spread = summarise([d["metrics"] for d in documents])
    document = {**summary, "selection": documents[0]["selection"], "metrics": spread}
    if world.is_first:
        runs = job.material.workspace.runs
        write_json(
            runs / f"{Path(documents[0]['run']).name}-to-{documents[-1]['seed']}.json", document
        )
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
