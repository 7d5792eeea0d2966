"""`vtr import`: checkpoints of the reference systems and of OpenAI's CLIP."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vtr.commands.console import AsJson, print_json, say
from vtr.commands.flags import Only, with_options
from vtr.counts import counted
from vtr.verbs.import_ import Options

if TYPE_CHECKING:
    from vtr.api.importing import Imported

group = typer.Typer(no_args_is_help=True)

FileArgument = Annotated[Path, typer.Argument(help="The checkpoint file.")]
OutOption = Annotated[Path, typer.Option(help="Folder to make.", file_okay=False)]


@group.command()
@with_options("import")
def clip4clip(
    file: FileArgument,
    head: Annotated[
        str,
        typer.Option(
            metavar="HEAD",
            help="The sim_header it was trained with: meanP, maxP, seqLSTM, seqTransf or "
            "tightTransf. Sizes are read from the file.",
        ),
    ],
    out: OutOption,
    options: Options,
    as_json: AsJson = False,
) -> None:
    """Read CLIP4Clip's pytorch_model.bin.N into OUT/clip (vtr extract) and OUT/run (vtr eval).

    Nothing in the file is run; whatever is not a tensor is an error. Parameters that are missing,
    too many or of another shape are listed, and nothing is written.
    """
    from vtr.api.importing import import_checkpoint

    _print(import_checkpoint(file, out, "clip4clip", head, options), as_json=as_json)


@group.command()
@with_options("import")
def clip2video(
    file: FileArgument,
    out: OutOption,
    options: Options,
    head: Annotated[
        str,
        typer.Option(
            metavar="HEAD",
            help="Options that the file does not hold, such as pad_to (the reference's "
            "max_frames) and weight; the rest is read from the file.",
        ),
    ] = "clip2video:pad_to=12",
    as_json: AsJson = False,
) -> None:
    """Read CLIP2Video's pytorch_model.bin.N into OUT/clip (vtr extract) and OUT/run (vtr eval).

    Nothing in the file is run; whatever is not a tensor is an error. Parameters that are missing,
    too many or of another shape are listed, and nothing is written.
    """
    from vtr.api.importing import import_checkpoint

    _print(import_checkpoint(file, out, "clip2video", head, options), as_json=as_json)


@group.command()
@with_options("import")
def openai(
    file: FileArgument,
    out: OutOption,
    options: Annotated[Options, Only("clip", "vision_heads", "text_heads")],
    as_json: AsJson = False,
) -> None:
    """Read OpenAI's own file (ViT-B-32.pt) into a folder for --model.

    A TorchScript archive is taken apart without running or compiling its code.
    """
    from vtr.api.importing import import_openai

    _print(import_openai(file, out, options), as_json=as_json)


def _print(made: Imported, *, as_json: bool) -> None:
    shape, size = made.shape, made.shape.image_size
    if as_json:
        sizes = {"embedding_dim": shape.dim, "image_size": size, "patch": shape.patch}
        run = {"run": str(made.run_folder), "head": made.head, "notes": list(made.notes)}
        patches = "3d" if made.temporal else "2d"
        facts = {"clip": str(made.clip_folder), **sizes, "linear_patch": patches}
        print_json(facts if made.run_folder is None else facts | run)
        return
    time = ", patches over time (linear_patch 3d)" if made.temporal else ""
    about = f"at {counted(size, 'pixel')}, {shape.dim} dimensions{time}"
    say(f"CLIP ViT/{shape.patch} {about} -> {made.clip_folder}")
    clip = shlex.quote(str(made.clip_folder))
    # A store of its own: the workspace's holds the features of another model.
    store = shlex.quote(str(made.store_folder))
    if made.run_folder is None:
        say(f"use it: vtr extract --model {clip} --features {store}")
        return
    say(f"head {made.head} -> {made.run_folder}")
    say(f"use them: vtr extract --model {clip} --features {store}")
    say(f"          vtr eval --run {shlex.quote(str(made.run_folder))} --features {store}")
