"""`vtr train`: a head and the text side, trained on cached features."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vtr.api.training import Request
from vtr.arithmetic import prepare_arithmetic
from vtr.commands.console import print_json
from vtr.commands.watching import print_plan, print_result
from vtr.progress import note

if TYPE_CHECKING:
    from vtr.workspace import Workspace


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
    from vtr.api.stores import resolve

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
        from vtr.api.dry_run import described

        print_plan(described(document))
    else:
        from vtr.api.run_folders import eval_command

        command = eval_command(workspace, document.get("runs") or [document["run"]])
        print_result(document, command=command)


def train_workspace(
    workspace: Workspace,
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
    from vtr.api import run_folders, training
    from vtr.errors import ConfigError

    if not 1 <= seeds <= 1000:
        raise ConfigError(f"--seeds is {seeds}; allowed: 1 to 1000")
    run_folders.check_place(place.name, resume=place.resume, overwrite=place.overwrite)
    training.check_settings(request)
    tell = (lambda _: None) if place.quiet else note
    tell(f"reading the annotations of dataset {workspace.dataset!r}")
    from vtr.api.training_job import Job, first_seed, run_job
    from vtr.clip.backbone import load_backbone  # with torch: what can be refused is refused
    from vtr.train.tracking import require_tensorboard

    if place.tensorboard:
        require_tensorboard()
    interrupted = None
    if place.resume and seeds == 1:
        interrupted = run_folders.find_interrupted(workspace.runs, place.name)
        request = run_folders.resumed_request(interrupted, request)
    elif place.resume and place.name:
        begun = run_folders.seed_folders(workspace.runs, place.name)
        request = run_folders.resumed_request(begun[0], request) if begun else request
    elif place.name and not place.overwrite:
        seed = first_seed(workspace, request)
        run_folders.require_free(workspace.runs, place.name, range(seed, seed + seeds))
    material = training.gather(workspace, request, tell=tell)
    training.check_enough(material)
    chosen = training.torch_device(device)
    tell(f"loading the text tower of {workspace.model}")
    backbone = load_backbone(workspace.model, device=chosen)
    job = Job.prepare(material, request, backbone, device=chosen)
    if dry_run:
        from vtr.api.dry_run import estimate

        return estimate(job, seeds=seeds)
    if material.skipped.line:
        note(material.skipped.line)
    with job.world() as world:
        if not world.is_first:
            # The first process decides on the folder; what it makes there must not stop the others.
            place = replace(place, overwrite=True, quiet=True)
        document = run_job(job, place, world, seeds=seeds, interrupted=interrupted)
    return document if world.is_first else None
