"""`vtr train`: a head and the text side, trained on cached features."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vtr.commands.console import note, prepare_arithmetic, print_json
from vtr.commands.training import Request
from vtr.commands.watching import print_plan, print_result, watching

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from vtr.clip.backbone import Backbone
    from vtr.commands.teaching import Teaching
    from vtr.commands.training import Material
    from vtr.train.distributed import World
    from vtr.train.model import ModelSpec, RetrievalModel
    from vtr.train.presets import TrainSettings
    from vtr.train.teacher import Teacher
    from vtr.train.texts import TextFeatures
    from vtr.train.validation import Validation


def register(app: typer.Typer) -> None:
    """Adds the command to the app."""
    app.command("train")(train)


@dataclass(frozen=True)
class Place:
    """Where runs go and how the command behaves."""

    name: str | None
    overwrite: bool
    resume: bool
    quiet: bool
    tensorboard: bool


def train(
    head: Annotated[
        str | None,
        typer.Option(help="Head with options, such as seqTransf:layers=2. (default: seqTransf)"),
    ] = None,
    sampler: Annotated[
        str | None, typer.Option(help="Whose frames; on a dense store any sampler.")
    ] = None,
    text: Annotated[
        str | None, typer.Option(help="Text side: frozen, projection, or tune. (default: frozen)")
    ] = None,
    tune_layers: Annotated[
        int | None, typer.Option(help="With tune: the last N text layers; 0 is all.")
    ] = None,
    dropout: Annotated[float | None, typer.Option(help="With projection: dropout in it.")] = None,
    preset: Annotated[
        str | None, typer.Option(help="Named settings: vtr, clip4clip, clip-video, two-tower.")
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="Whose training split. (default: the dataset's most used)")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="At most so many.")] = None,
    patience: Annotated[
        int | None, typer.Option(help="Stop after so many epochs without a better one; 0: never.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Videos or pairs per step.")] = None,
    batches: Annotated[
        str | None, typer.Option(help="videos: each encoded once a step; pairs: the reference's.")
    ] = None,
    captions: Annotated[
        str | None, typer.Option(help="Captions of each video and epoch: all, one, or a number.")
    ] = None,
    optimiser: Annotated[str | None, typer.Option(help="adamw or bertadam.")] = None,
    lr: Annotated[float | None, typer.Option(help="Rate of the head and of new layers.")] = None,
    coef_lr: Annotated[
        float | None, typer.Option(help="Factor on it for pretrained text layers.")
    ] = None,
    warmup: Annotated[float | None, typer.Option(help="Share of the training, 0 to 1.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Of matrices.")] = None,
    clip_norm: Annotated[
        float | None, typer.Option(help="Largest norm of all gradients; 0: no limit.")
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(help="all: each caption of a video is right; reference: the diagonal only."),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Fixed temperature, such as 0.07. (default: learned)")
    ] = None,
    hard_negatives: Annotated[
        int | None, typer.Option(help="Only the k most confusing negatives count; 0: all.")
    ] = None,
    mine: Annotated[
        str | None,
        typer.Option(help="batch, or global: confusable videos of the whole set share a batch."),
    ] = None,
    chunk: Annotated[
        int | None, typer.Option(help="Encode large batches in parts of so many; 0: whole.")
    ] = None,
    teacher: Annotated[
        Path | None,
        typer.Option(help="Folder of a run whose ranking is learned too, such as one of xpool."),
    ] = None,
    hold_out: Annotated[
        float | None,
        typer.Option(help="Share of training videos to validate on where there is no such split."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, shuffling, dropout.")] = None,
    seeds: Annotated[int, typer.Option(help="Train so many times; reports mean and spread.")] = 1,
    name: Annotated[str | None, typer.Option(help="Folder of the run within runs/.")] = None,
    runs: Annotated[Path | None, typer.Option(help="Folder of all runs. (default: runs)")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with --name, or with the latest unfinished run.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run --name.")] = False,
    features: Annotated[Path | None, typer.Option(help="Folder of the store.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Reader of the annotations.")] = None,
    annotations: Annotated[Path | None, typer.Option(help="Folder of the annotations.")] = None,
    videos: Annotated[Path | None, typer.Option(help="Folder of the videos.")] = None,
    model: Annotated[str | None, typer.Option(help="Text tower: hub id or folder.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")] = "auto",
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write TensorBoard events into the run.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say parameters, memory, steps and time; train not.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Train a head, and the text side if asked, on cached features.

    The best epoch is chosen on validation data, never on test. Interrupted, it loses at most the
    current epoch: go on with --resume. Several processes: torchrun --nproc-per-node N -m vtr train.
    """
    prepare_arithmetic()
    request = Request(
        head=head,
        sampler=sampler,
        protocol=protocol,
        preset=preset,
        text=text,
        tune_layers=tune_layers,
        dropout=dropout,
        temperature=temperature,
        optimiser=optimiser,
        lr=lr,
        coef_lr=coef_lr,
        weight_decay=weight_decay,
        warmup=warmup,
        clip_norm=clip_norm,
        epochs=epochs,
        patience=patience,
        batches=batches,
        batch_size=batch_size,
        captions=captions,
        loss=loss,
        hard_negatives=hard_negatives,
        mine=mine,
        chunk=chunk,
        teacher=None if teacher is None else str(teacher.absolute()),
        hold_out=hold_out,
        seed=seed,
    )
    from vtr.commands.extract import resolve

    workspace = resolve(
        features=features,
        dataset=dataset,
        annotations=annotations,
        videos=videos,
        model=model,
        runs=runs,
    )
    place = Place(name, overwrite, resume, quiet or as_json, tensorboard)
    document = train_workspace(
        workspace, request, place, seeds=seeds, device=device, dry_run=dry_run
    )
    if document is None:
        return
    if as_json:
        print_json(document)
    elif dry_run:
        from vtr.commands.dry_run import described

        print_plan(described(document))
    else:
        print_result(document)


def train_workspace(
    workspace: Any,
    request: Request,
    place: Place,
    *,
    seeds: int = 1,
    device: str = "auto",
    dry_run: bool = False,
) -> dict[str, Any] | None:
    """Trains what the flags ask for; what `vtr train` and `vtr demo` share.

    Returns:
        The result for JSON; None in all but the first of several processes.
    """
    from vtr.clip.backbone import load_backbone
    from vtr.commands import run_folders, training
    from vtr.errors import ConfigError
    from vtr.train.tracking import require_tensorboard

    if not 1 <= seeds <= 1000:
        raise ConfigError(f"--seeds is {seeds}; allowed: 1 to 1000")
    run_folders.check_place(place.name, resume=place.resume, overwrite=place.overwrite)
    if place.tensorboard:
        require_tensorboard()
    interrupted = None
    if place.resume and seeds == 1:
        interrupted = run_folders.find_interrupted(workspace.runs, place.name)
        request = run_folders.resumed_request(interrupted, request)
    elif place.resume and place.name:
        begun = run_folders.seed_folders(workspace.runs, place.name)
        request = run_folders.resumed_request(begun[0], request) if begun else request
    material = training.gather(workspace, request)
    chosen = training.torch_device(device)
    backbone = load_backbone(workspace.model, device=chosen)
    job = Job.prepare(material, request, backbone, device=chosen)
    if dry_run:
        from vtr.commands.dry_run import estimate

        return estimate(job, seeds=seeds)
    if material.skipped.line:
        note(material.skipped.line)
    with job.world() as world:
        if not world.is_first:
            # The first process decides on the folder; what it makes there must not stop the others.
            place = replace(place, overwrite=True, quiet=True)
        job.embed()
        if seeds > 1:
            document = _train_seeds(job, place, world, seeds=seeds)
        else:
            folder = interrupted or job.new_folder(place)
            document = job.train(folder, place, world, resume=interrupted is not None)
    return document if world.is_first else None


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
        seed = material.workspace.seed if request.seed is None else request.seed
        settings = training.resolve_settings(
            request,
            preset,
            seed=seed,
            dim=material.store.spec.embedding_dim,
            num_videos=len(material.train.video_ids),
        )
        spec = training.model_spec(request, preset, backbone, material.store)
        settings = training.with_chunk(settings, spec)
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

    def new_folder(self, place: Place, *, seed: int | None = None) -> Path:
        """Returns where a new run goes."""
        from vtr.commands.run_folders import default_name, run_folder

        name = place.name or default_name(self.spec, self.request.preset)
        if seed is not None:
            name = f"{name}-seed{seed}"
        return run_folder(
            self.material.workspace.runs,
            name,
            chosen=place.name is not None,
            overwrite=place.overwrite or (seed is not None and place.resume),
        )

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

        from vtr.commands.run_folders import holding, telling

        with telling(folder), holding(folder) if world.is_first else nullcontext():
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
        """Writes config.json, or compares it when resuming; returns how many parameters."""
        from vtr.commands.run_folders import check_resumable
        from vtr.train.model import count_parameters
        from vtr.train.run import RESULT, remove_files, start_run

        material = self.material
        total, trained = count_parameters(model)
        facts = {"parameters": total, "trained": trained}
        config = {**self.config, "head_origin": model.head.origin, **facts}
        known: Collection[str] | None = material.train.video_ids
        if self.teaching is not None:
            self.teaching.refuse_itself(folder)
            known = self.teaching.seen(material.train.video_ids)
        if resume:
            check_resumable(folder, config)
        elif world.is_first:
            start_run(folder, config=config, train_ids=known)
            remove_files(folder, RESULT)
        world.wait()
        return facts


def _share_trained(facts: Mapping[str, int]) -> str:
    return f"{facts['trained']:,} of {facts['parameters']:,}"


def _train_seeds(job: Job, place: Place, world: World, *, seeds: int) -> dict[str, Any]:
    """Trains several times; a finished one is not repeated when resuming."""
    import json

    from vtr.commands.run_folders import check_resumable
    from vtr.train.run import CONFIG, LAST, RESULT, write_json

    first, planned, documents = job.settings.seed, [], []
    for seed in range(first, first + seeds):
        request, settings = replace(job.request, seed=seed), replace(job.settings, seed=seed)
        one = replace(job, request=request, settings=settings)
        folder = one.new_folder(place, seed=seed)
        begun = place.resume and (folder / CONFIG).exists()
        if begun:  # before any is trained: all of them must be of one kind to be averaged
            check_resumable(folder, one.config)
        planned.append((one, folder, begun))
    for one, folder, begun in planned:
        if begun and (folder / RESULT).exists():
            documents.append(json.loads((folder / RESULT).read_text(encoding="utf-8")))
            continue
        going = begun and (folder / LAST).exists()
        documents.append(one.train(folder, place, world, resume=going))
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
