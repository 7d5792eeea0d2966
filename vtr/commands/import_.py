"""`vtr import`: checkpoints of the reference systems and of OpenAI's CLIP."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vtr.commands.console import print_json, say
from vtr.counts import counted
from vtr.progress import note

if TYPE_CHECKING:
    from vtr.clip.openai_names import ClipShape
    from vtr.datasets.base import Dataset
    from vtr.train.importing import Imported, System
    from vtr.workspace import Workspace

DEFAULT_CLIP = "openai/clip-vit-base-patch32"

group = typer.Typer(no_args_is_help=True)

FileArgument = Annotated[Path, typer.Argument(help="The checkpoint file.", show_default=False)]
OutOption = Annotated[
    Path, typer.Option(help="Folder to make.", show_default=False, file_okay=False)
]
ClipOption = Annotated[
    str,
    typer.Option(
        help="Hub id or folder of the CLIP it came from, for the vocabulary alone: checkpoints "
        "hold none."
    ),
]
SplitOption = Annotated[
    str | None,
    typer.Option(
        help="Split of the dataset that it was trained on, so that `vtr eval` can refuse to test "
        "on it. Without it the run says that nobody knows.",
        show_default=False,
    ),
]
DatasetOption = Annotated[
    str | None, typer.Option(help="Dataset of --train-split.", show_default=False)
]
AnnotationsOption = Annotated[
    Path | None,
    typer.Option(help="Its annotation files; the videos need not be here.", show_default=False),
]
VisionHeadsOption = Annotated[
    int | None,
    typer.Option(help="Attention heads of the vision tower. (default: width / 64)", min=1),
]
TextHeadsOption = Annotated[
    int | None,
    typer.Option(help="Attention heads of the text tower. (default: width / 64)", min=1),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def register(app: typer.Typer) -> None:
    """Adds the commands to the app."""
    app.add_typer(
        group, name="import", help="Read checkpoints of CLIP4Clip, CLIP2Video and OpenAI's CLIP."
    )


@group.command()
def clip4clip(
    file: FileArgument,
    head: Annotated[
        str,
        typer.Option(
            help="The sim_header it was trained with: meanP, maxP, seqLSTM, seqTransf or "
            "tightTransf. Sizes are read from the file.",
            show_default=False,
        ),
    ],
    out: OutOption,
    clip: ClipOption = DEFAULT_CLIP,
    train_split: SplitOption = None,
    dataset: DatasetOption = None,
    annotations: AnnotationsOption = None,
    vision_heads: VisionHeadsOption = None,
    text_heads: TextHeadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read CLIP4Clip's pytorch_model.bin.N into OUT/clip (vtr extract) and OUT/run (vtr eval).

    Nothing in the file is run; whatever is not a tensor is an error. Parameters that are missing,
    too many or of another shape are listed, and nothing is written.
    """
    _import(
        "clip4clip", file, out, head=head, clip=clip, split=train_split,
        dataset=dataset, annotations=annotations, heads=(vision_heads, text_heads), as_json=as_json,
    )  # fmt: skip


@group.command()
def clip2video(
    file: FileArgument,
    out: OutOption,
    head: Annotated[
        str,
        typer.Option(
            help="Options that the file does not tell, such as pad_to (the reference's "
            "max_frames) and weight; the rest is read from the file."
        ),
    ] = "clip2video:pad_to=12",
    clip: ClipOption = DEFAULT_CLIP,
    train_split: SplitOption = None,
    dataset: DatasetOption = None,
    annotations: AnnotationsOption = None,
    vision_heads: VisionHeadsOption = None,
    text_heads: TextHeadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read CLIP2Video's pytorch_model.bin.N into OUT/clip (vtr extract) and OUT/run (vtr eval).

    Nothing in the file is run; whatever is not a tensor is an error. Parameters that are missing,
    too many or of another shape are listed, and nothing is written.
    """
    _import(
        "clip2video", file, out, head=head, clip=clip, split=train_split,
        dataset=dataset, annotations=annotations, heads=(vision_heads, text_heads), as_json=as_json,
    )  # fmt: skip


@group.command()
def openai(
    file: FileArgument,
    out: OutOption,
    clip: ClipOption = DEFAULT_CLIP,
    vision_heads: VisionHeadsOption = None,
    text_heads: TextHeadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read OpenAI's own file (ViT-B-32.pt) into a folder for --model.

    A TorchScript archive is taken apart without running or compiling its code.
    """
    from vtr.clip.checkpoint_files import require_file
    from vtr.files import require_empty
    from vtr.train.importing import import_openai

    require_file(file)
    require_empty(out)
    shape = import_openai(
        file,
        out,
        clip=clip,
        vision_heads=vision_heads,
        text_heads=text_heads,
    )
    if as_json:
        print_json({"clip": str(out), **_sizes(shape)})
        return
    say(f"{_described(shape)} -> {out}")
    store = shlex.quote(str(out.with_name(f"{out.name}-features")))
    say(f"use it: vtr extract --model {shlex.quote(str(out))} --features {store}")


def _import(
    system: System,
    file: Path,
    out: Path,
    *,
    head: str,
    clip: str,
    split: str | None,
    dataset: str | None,
    annotations: Path | None,
    heads: tuple[int | None, int | None],
    as_json: bool,
) -> None:
    from vtr.clip.checkpoint_files import require_file
    from vtr.files import require_empty
    from vtr.train.importing import ImportRequest, check_head, import_checkpoint

    check_head(system, head)  # all that can be refused, before anything is fetched
    require_file(file)
    require_empty(out)
    ids = _train_ids(split, dataset, annotations)
    request = ImportRequest(file, system, head, clip, *heads)
    made = import_checkpoint(request, out, train_ids=ids, train_split=split or "unknown")
    for told in made.notes:
        note(told)
    if ids is None:
        note("nobody knows which videos it was trained on; results will say so (--train-split)")
    _finish(made, as_json=as_json)


def _train_ids(
    split: str | None, dataset: str | None, annotations: Path | None
) -> tuple[str, ...] | None:
    """Returns the ids of a split of the dataset named by the flags or by the workspace.

    Raises:
        ConfigError: No dataset and no annotations to find the split in.
        UnknownNameError: The dataset has no such split.
    """
    from vtr.errors import ConfigError, UnknownNameError
    from vtr.workspace import find_workspace, settings

    if split is None:
        if dataset is not None or annotations is not None:
            raise ConfigError("--dataset and --annotations say nothing without --train-split NAME")
        return None
    workspace = settings(find_workspace(Path.cwd()), dataset=dataset, annotations=annotations)
    if workspace.annotations is None and workspace.dataset == "folder":
        raise ConfigError(
            f"--train-split is {split!r}, but no annotations say which videos that is: name them "
            "with --dataset NAME --annotations DIR, or run this in the dataset's workspace"
        )
    found = _dataset(workspace)
    if split not in found.splits:
        raise UnknownNameError(f"split of dataset {found.name!r}", split, found.splits)
    return found.splits[split]


def _dataset(workspace: Workspace) -> Dataset:
    """Returns the dataset, from its annotations alone where its videos are elsewhere."""
    import tempfile

    from vtr.datasets.registry import load_dataset

    read = partial(load_dataset, workspace.dataset, annotations=workspace.annotations)
    videos = workspace.videos or workspace.root / "videos"
    if videos.is_dir() or workspace.dataset != "folder":
        return read(videos=videos)
    note(
        f"no folder of videos is known here: they are called as {workspace.annotations} calls "
        "them. To compare with `vtr eval`, these must be paths with extensions, such as a/b.mp4"
    )
    with tempfile.TemporaryDirectory() as empty:
        return read(videos=Path(empty))


def _finish(made: Imported, *, as_json: bool) -> None:
    if as_json:
        facts = {"clip": str(made.clip_folder), "run": str(made.run_folder), "head": made.head}
        print_json({**facts, **_sizes(made.shape), "notes": list(made.notes)})
        return
    say(f"{_described(made.shape)} -> {made.clip_folder}")
    say(f"head {made.head} -> {made.run_folder}")
    # A store of its own: the workspace's holds the features of another model.
    store = shlex.quote(str(made.clip_folder.parent / "features"))
    clip, run = shlex.quote(str(made.clip_folder)), shlex.quote(str(made.run_folder))
    say(f"use them: vtr extract --model {clip} --features {store}")
    say(f"          vtr eval --run {run} --features {store}")


def _sizes(shape: ClipShape) -> dict[str, Any]:
    return {
        "embedding_dim": shape.embed_dim,
        "image_size": shape.patch * shape.grid,
        "patch": shape.patch,
        "linear_patch": "3d" if shape.temporal else "2d",
    }


def _described(shape: ClipShape) -> str:
    size = shape.patch * shape.grid
    time = ", patches over time (linear_patch 3d)" if shape.temporal else ""
    return f"CLIP ViT/{shape.patch} at {counted(size, 'pixel')}, {shape.embed_dim} dimensions{time}"
