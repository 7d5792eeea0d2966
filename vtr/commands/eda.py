"""`vtr eda`: what a dataset, its videos and its cached features look like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vtr.arithmetic import prepare_arithmetic
from vtr.commands.console import print_json, say
from vtr.progress import note, progress

if TYPE_CHECKING:
    from vtr.datasets.base import Dataset, Video
    from vtr.evaluate.eda import TokenLengths
    from vtr.features import FeatureStore
    from vtr.workspace import Workspace

MAX_GAP_PAIRS = 2000


def register(app: typer.Typer) -> None:
    """Adds the command to the app."""
    app.command("eda")(eda)


@dataclass(frozen=True)
class Wishes:
    """What the flags ask for beyond the workspace."""

    probe: int
    bins: str | None
    text_model: bool
    tsne: bool
    device: str


def eda(
    dataset: Annotated[str | None, typer.Option(help="Reader of the annotations.")] = None,
    annotations: Annotated[Path | None, typer.Option(help="Folder of the annotations.")] = None,
    videos: Annotated[Path | None, typer.Option(help="Folder of the videos.")] = None,
    features: Annotated[Path | None, typer.Option(help="Folder of the store.")] = None,
    model: Annotated[str | None, typer.Option(help="Text tower: hub id or folder.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for eda.json, eda.html and plots.")] = Path(
        "eda"
    ),
    bins: Annotated[
        str | None, typer.Option(help="Caption lengths in words. (default: 1-10,11-20,21+)")
    ] = None,
    probe: Annotated[
        int, typer.Option(help="Decode so many videos whole, to count their frame rates.")
    ] = 0,
    text_model: Annotated[
        bool,
        typer.Option("--text/--no-text", help="Count tokens, and embed captions for the gap."),
    ] = True,
    tsne: Annotated[bool, typer.Option("--tsne/--no-tsne", help="Draw t-SNE of the gap.")] = True,
    pictures: Annotated[
        bool, typer.Option("--pictures/--no-pictures", help="Draw PNG and SVG files.")
    ] = True,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print eda.json.")] = False,
) -> None:
    """Look at a dataset before training: captions, duplicates, videos, features.

    Works with the annotations alone; with a feature store it adds durations, failures, feature
    norms and how far captions lie from videos.
    """
    prepare_arithmetic()
    from vtr.evaluate.eda_report import write_eda
    from vtr.files import make_folder
    from vtr.workspace import find_workspace, settings

    workspace = settings(
        find_workspace(Path.cwd()),
        features=features,
        dataset=dataset,
        annotations=annotations,
        videos=videos,
        model=model,
    )
    wishes = Wishes(probe, bins, text_model, tsne, device)
    make_folder(out, option="--out")
    facts = explore(
        workspace, wishes, needs_model=model is not None, needs_store=features is not None
    )
    write_eda(facts, out, pictures=pictures)
    if as_json:
        print_json(facts)
    else:
        _print(facts)
        note()
        note(f"written: {out / 'eda.json'}, {out / 'eda.html'}")


def explore(
    workspace: Workspace,
    wishes: Wishes,
    *,
    needs_model: bool = False,
    needs_store: bool = False,
) -> dict[str, Any]:
    """Returns the document of kind "vtr-eda".

    Args:
        workspace: Where things are.
        wishes: What to do.
        needs_model: Stop where the text model cannot be had, instead of leaving its figures out.
        needs_store: Likewise for the features.
    """
    from vtr.api.stores import meet
    from vtr.datasets.registry import load_dataset
    from vtr.errors import ConfigError
    from vtr.evaluate.eda import KIND, SCHEMA, WORD_BINS, describe_dataset, describe_media
    from vtr.evaluate.eda_features import describe_features
    from vtr.evaluate.reporting.figures import parse_bins

    if workspace.videos is None and workspace.annotations is None:
        raise ConfigError("nothing to look at: give --annotations, --videos, or a workspace")
    folder = workspace.videos or workspace.root
    data = load_dataset(workspace.dataset, annotations=workspace.annotations, videos=folder)
    store = _store(workspace.features, needed=needs_store)
    store = store and meet(store, data.video_ids)
    tokens = _tokens(workspace, data, needs_model=needs_model) if wishes.text_model else None
    facts = describe_dataset(
        data, tokens=tokens, bins=WORD_BINS if wishes.bins is None else parse_bins(wishes.bins)
    )
    rows = _media_rows(workspace, data, store, wishes.probe)
    return {
        "schema": SCHEMA,
        "kind": KIND,
        **facts,
        "media": describe_media(rows) if rows else None,
        "features": describe_features(store) if store is not None and len(store) else None,
        "modality_gap": _gap(workspace, data, store, wishes, needs_model=needs_model)
        if wishes.text_model
        else None,
    }


def _store(folder: Path, *, needed: bool) -> FeatureStore | None:
    from vtr.features import FeatureStore

    there = folder.is_dir() and any(folder.glob("*.h5"))
    return FeatureStore(folder) if there or needed else None


def _tokens(workspace: Workspace, data: Dataset, *, needs_model: bool) -> TokenLengths | None:
    from vtr.clip.configuration import read_config
    from vtr.clip.hub import find_tokeniser
    from vtr.clip.text import load_tokeniser, text_family
    from vtr.errors import ModelError
    from vtr.evaluate.eda import TokenLengths

    if not data.captions:
        return None
    try:
        folder = find_tokeniser(workspace.model)
        config = read_config(folder)
        positions = int((config.get("text_config") or {}).get("max_position_embeddings") or 77)
        family = text_family(folder, str(config.get("model_type")))
        tokeniser = load_tokeniser(folder, family=family, max_length=positions, vocab_size=1 << 31)
    except ModelError as error:
        if needs_model:
            raise
        note(f"tokens are not counted: {error}")
        return None
    lengths = tokeniser_lengths(tokeniser, [caption.text for caption in data.captions])
    name = folder.name if Path(workspace.model).expanduser().is_dir() else workspace.model
    return TokenLengths(name, positions, lengths)


def tokeniser_lengths(tokeniser: Any, texts: Sequence[str]) -> Any:
    """Returns (N,) int64 tokens of each text before truncation, begin and end included."""
    from dataclasses import replace

    import numpy as np

    whole = replace(tokeniser, max_length=1 << 20)
    distinct = list(dict.fromkeys(texts))
    lengths = {
        text: len(ids) for text, ids in zip(distinct, whole.encode(distinct).ids, strict=True)
    }
    return np.array([lengths[text] for text in texts], np.int64)


# ---- videos


def _media_rows(
    workspace: Workspace, data: Dataset, store: FeatureStore | None, probe: int
) -> list[dict[str, Any]]:
    """One row per video: what the ledger or probing says, else whether its file is there."""
    from vtr.datasets.registry import resolve_videos

    found: dict[str, dict[str, Any]] = {}
    expected: tuple[Video, ...] = ()
    if workspace.videos is not None and workspace.videos.is_dir():
        expected = resolve_videos(data, workspace.videos)
        found = {
            video.id: _row(video.id, "present", "")
            if video.path
            else _row(video.id, "missing", "no file")
            for video in expected
        }
    if store is not None:
        for entry in store.ledger:
            size = {"width": entry.width, "height": entry.height}
            length = {"duration_seconds": entry.duration_seconds}
            found[entry.id] = _row(entry.id, entry.status, entry.reason, **length, **size)
    there = [video for video in expected if video.path]
    count = min(max(probe, 0), len(there))
    with progress("probing", quiet=not count) as update:
        for n in range(count):
            video = there[n * len(there) // count]
            found[video.id] = _probed(video)
            update(n + 1, count, video.id)
    return list(found.values())


def _probed(video: Video) -> dict[str, Any]:
    from vtr.errors import DecodeError
    from vtr.extract.probe import probe

    assert video.path is not None
    try:
        info = probe(video.path)
    except DecodeError as error:
        return _row(video.id, "failed", error.kind)
    rate = info.num_frames / info.duration_seconds if info.duration_seconds > 0 else None
    return _row(
        video.id,
        "partial" if info.trouble else "ok",
        "cut or damaged" if info.trouble else "",
        duration_seconds=info.duration_seconds,
        width=info.width,
        height=info.height,
        frames_per_second=rate,
    )


def _row(video_id: str, status: str, reason: str, **facts: Any) -> dict[str, Any]:
    empty = {"duration_seconds": 0.0, "width": 0, "height": 0, "frames_per_second": None}
    return {"id": video_id, "status": status, "reason": reason, **empty, **facts}


# ---- texts beside videos


def _gap(
    workspace: Workspace,
    data: Dataset,
    store: FeatureStore | None,
    wishes: Wishes,
    *,
    needs_model: bool,
) -> dict[str, Any] | None:
    """One caption per video beside the mean of its frames; None where there is nothing to embed."""
    import numpy as np

    from vtr.api.stores import check_same_model
    from vtr.clip.backbone import load_backbone
    from vtr.errors import ModelError
    from vtr.evaluate.eda_features import modality_gap

    pairs = _pairs(data, store)
    if store is None or not pairs:
        return None
    try:
        backbone = load_backbone(workspace.model, device=wishes.device)
    except ModelError as error:
        if needs_model:
            raise
        note(f"the modality gap is not measured: {error}")
        return None
    try:
        check_same_model(backbone, store)
    except ModelError as error:
        note(f"the modality gap is not measured: {error}")
        return None
    texts = backbone.encode_texts([text for _, text in pairs]).embeddings
    frames = [store[video_id].frames.astype(np.float32) for video_id, _ in pairs]
    means = [
        (f / np.maximum(np.linalg.norm(f, axis=1, keepdims=True), 1e-12)).mean(axis=0)
        for f in frames
    ]
    return modality_gap(texts, np.stack(means), tsne=wishes.tsne)


def _pairs(data: Dataset, store: FeatureStore | None) -> list[tuple[str, str]]:
    """The first caption of each video with features, spread evenly over the dataset."""
    first: dict[str, str] = {}
    for caption in data.captions:
        first.setdefault(caption.video_id, caption.text)
    usable = [(i, text) for i, text in first.items() if store is not None and i in store]
    count = min(MAX_GAP_PAIRS, len(usable))
    return [usable[n * len(usable) // count] for n in range(count)]


# ---- printing


def _print(facts: Mapping[str, Any]) -> None:
    from vtr.evaluate.eda_report import tables

    for title, headings, rows in tables(facts):
        _table(title, headings, rows)


def _table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from vtr.foreign import printable

    table = Table(box=None, pad_edge=False, show_header=any(headings))
    for nth, heading in enumerate(headings):
        plain = nth == 0 or not heading
        table.add_column(heading, justify="left" if plain else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    say()
    say(title)
    Console().print(table)
