"""`vtr eval`: numbers by a protocol, of a run or without any training."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vtr.arithmetic import prepare_arithmetic
from vtr.commands.console import print_json
from vtr.progress import note

if TYPE_CHECKING:
    from vtr.api.scoring import Scored
    from vtr.evaluate.evaluator import Evaluation
    from vtr.files import Payload
    from vtr.workspace import Workspace


DEFAULT_K = "1,5,10"
_MOST_DIGITS = 9  # more items than any gallery has


def register(app: typer.Typer) -> None:
    """Adds the command to the app."""
    app.command("eval")(evaluate)


@dataclass(frozen=True)
class Request:
    """What the flags ask for beyond the workspace."""

    protocol: str | None
    zero_shot: bool
    run: Path | None
    sampler: str | None
    missing: str
    ks: tuple[int, ...]
    dual_softmax: bool
    qb_norm: bool
    rerank: int | None
    force: bool
    device: str
    gallery: str | None = None


def evaluate(
    protocol: Annotated[
        str | None,
        typer.Option(help="Which queries and videos. (default: the dataset's most used)"),
    ] = None,
    zero_shot: Annotated[
        bool, typer.Option("--zero-shot", help="No training: CLIP's text, mean of the frames.")
    ] = False,
    run: Annotated[
        Path | None, typer.Option(help="Folder or name of a run. (default: the latest)")
    ] = None,
    seeds: Annotated[
        bool, typer.Option("--seeds", help="Every seed of --run NAME, with mean and spread.")
    ] = False,
    simulate: Annotated[
        str | None,
        typer.Option(help="'maxpool': compare pooling rules and frame counts, as vtr simulate."),
    ] = None,
    sampler: Annotated[
        str | None, typer.Option(help="Whose frames; on a dense store any sampler.")
    ] = None,
    missing: Annotated[
        str, typer.Option(help="Videos without features: miss (counted), restrict, or fail.")
    ] = "miss",
    gallery: Annotated[
        str | None,
        typer.Option(help="Of a folder of your own: folder (all its videos) or captioned."),
    ] = None,
    k: Annotated[
        str, typer.Option("--k", "-k", help="Recall depths, separated by commas.")
    ] = DEFAULT_K,
    dual_softmax: Annotated[
        bool,
        typer.Option("--dual-softmax", help="Also with dual softmax: sees all queries at once."),
    ] = False,
    qb_norm: Annotated[
        bool, typer.Option("--qb-norm", help="Also with QB-Norm; bank: training captions.")
    ] = False,
    rerank: Annotated[
        int | None,
        typer.Option(help="Score by mean pooling first; the head re-ranks the first N both ways."),
    ] = None,
    save_similarity: Annotated[
        bool, typer.Option("--save-similarity", help="Also write similarity.npz.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Evaluate a run that was trained on test videos.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the result. (default: eval/ of the run, or zero-shot/)"),
    ] = None,
    features: Annotated[Path | None, typer.Option(help="Folder of the store.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Reader of the annotations.")] = None,
    annotations: Annotated[Path | None, typer.Option(help="Folder of the annotations.")] = None,
    videos: Annotated[Path | None, typer.Option(help="Folder of the videos.")] = None,
    model: Annotated[str | None, typer.Option(help="Text tower: hub id or folder.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print result.json.")] = False,
) -> None:
    """Evaluate a run, or CLIP without training, on cached features.

    Writes result.json, a table per query and TREC files, and prints every number with its 95 %
    interval. Videos without features stay in the denominator as misses unless you say otherwise.
    """
    prepare_arithmetic()
    from vtr.api.stores import resolve
    from vtr.commands.simulate import run_simulation

    workspace = resolve(
        features=features, dataset=dataset, annotations=annotations, videos=videos, model=model
    )
    request = Request(
        protocol=protocol,
        zero_shot=zero_shot,
        run=run,
        sampler=sampler,
        missing=missing,
        gallery=gallery,
        ks=read_ks(k),
        dual_softmax=dual_softmax,
        qb_norm=qb_norm,
        rerank=rerank,
        force=force,
        device=device,
    )
    if simulate is not None:
        _check_simulation(request, save_similarity=save_similarity)
        run_simulation(
            workspace,
            simulate,
            protocol=protocol,
            sampler=sampler,
            missing=missing,
            gallery=gallery,
            out=out,
            as_json=as_json,
        )
        return
    note("evaluating: reading the captions and the features, then loading the model")
    if seeds:
        from vtr.api.evaluate_seeds import evaluate_seeds, print_seeds

        summary, where = evaluate_seeds(
            workspace, request, out=out, save_similarity=save_similarity
        )
        print_json(summary) if as_json else print_seeds(summary, where)
        return
    document, where = evaluate_workspace(
        workspace, request, out=out, save_similarity=save_similarity
    )
    if as_json:
        print_json(document)
        return
    from vtr.commands.tables import print_result

    print_result(document)
    note()
    note(f"written: {where}")


def evaluate_workspace(
    workspace: Workspace,
    request: Request,
    *,
    out: Path | None = None,
    save_similarity: bool = False,
) -> tuple[dict[str, Any], Path]:
    """Evaluates and writes; returns the result and the path of `result.json`."""
    from vtr.api.scoring import prepare
    from vtr.datasets.registry import resolve_videos
    from vtr.evaluate.result import COMPANIONS, build_result, write_result
    from vtr.evaluate.similarity import SimilarityFile
    from vtr.files import make_folder

    if out is not None:
        make_folder(out, option="--out")
    scored = prepare(workspace, request)
    material = scored.material
    folder = out or _default_folder(workspace, request, scored)
    make_folder(folder, option="--out")
    with SimilarityFile(folder, material.task) as similarity:
        evaluation = scored.evaluation(request, similarity if save_similarity else None)
        assert workspace.videos is not None
        paths = {v.id: v.path for v in resolve_videos(material.dataset, workspace.videos) if v.path}
        document = build_result(
            evaluation, material.protocol, scored.setup, packed=material.packed, paths=paths
        )
        companions = _trec_files(evaluation, tag=scored.setup.title)
        if save_similarity:
            companions["similarity"] = similarity.save
        document["files"] |= {key: COMPANIONS[key] for key in companions}
        path = write_result(folder, document, evaluation, companions=companions)
    return document, path


def _check_simulation(request: Request, *, save_similarity: bool) -> None:
    """Refuses flags that a simulation would leave unheard.

    Raises:
        ConfigError: Naming them.
    """
    from vtr.errors import ConfigError

    unheard = {
        "--run": request.run is not None,
        "--k": request.ks != read_ks(DEFAULT_K),
        "--dual-softmax": request.dual_softmax,
        "--qb-norm": request.qb_norm,
        "--rerank": request.rerank is not None,
        "--save-similarity": save_similarity,
        "--force": request.force,
        "--device": request.device != "auto",
    }
    given = [flag for flag, is_given in unheard.items() if is_given]
    if given:
        raise ConfigError(
            f"--simulate has no use for {', '.join(given)}: it compares pooling rules on the "
            "cached frames and trains nothing. Leave them out; its own options: vtr simulate --help"
        )


def _trec_files(evaluation: Evaluation, *, tag: str) -> dict[str, Payload]:
    from vtr.evaluate.trec import qrels_lines, run_lines

    queries, kept = evaluation.task.queries, evaluation.kept
    owners = (queries.video_ids[v] for v in queries.query_video)
    run = run_lines(
        queries.text_ids,
        queries.video_ids,
        rows=evaluation.task.query_text,
        items=kept.listed,
        scores=kept.listed_scores,
        tag=tag,
    )
    return {
        "run": lambda file: file.writelines(run),
        "qrels": qrels_lines(zip(queries.text_ids, owners, strict=True)),
    }


def read_ks(text: str) -> tuple[int, ...]:
    """Reads `--k`.

    >>> read_ks("1,5,10")
    (1, 5, 10)

    Raises:
        ConfigError: Not whole numbers of at least 1.
    """
    from vtr.errors import ConfigError

    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and len(part) <= _MOST_DIGITS and int(part) > 0 for part in parts):
        raise ConfigError(
            f"--k is {text!r:.60}; write whole numbers from 1 to {10**_MOST_DIGITS - 1}, such as "
            "1,5,10"
        )
    return tuple(sorted({int(part) for part in parts}))


def _default_folder(workspace: Workspace, request: Request, scored: Scored) -> Path:
    """Returns the protocol's folder, or one beside it for what was asked in another way.

    So a second sampler, or re-ranking, does not replace the result it is to be compared with.
    """
    setup, run = scored.setup, scored.run
    home = Path(setup.run) / "eval" if setup.run else workspace.features / "zero-shot"
    name = scored.material.protocol.name
    if request.sampler is not None and (run is None or setup.sampler != run.sampler):
        name += f"-{re.sub(r'[^A-Za-z0-9_.=-]+', '-', setup.sampler)}"
    if request.rerank is not None:
        name += f"-rerank-{request.rerank}"
    if request.missing == "restrict":
        name += "-restrict"
    if request.gallery == "captioned":
        name += "-captioned"
    return home / name
