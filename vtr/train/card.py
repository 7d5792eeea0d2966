"""The model card of an exported run: what it is, how to use it, what was measured on what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vtr.counts import counted
from vtr.foreign import printable
from vtr.pages import render
from vtr.train.model import count_parameters
from vtr.train.run import Run, is_local, is_unfinished

_SHOWN = ("R@1", "R@5", "R@10", "MedR", "MeanR")


def model_card(run: Run, results: Sequence[Mapping[str, Any]], left_out: Sequence[str] = ()) -> str:
    """Returns the card in Markdown, as the Hugging Face hub reads model cards."""
    text = run.section("text_model")
    model = Path(str(text.get("id", "MODEL"))).name if is_local(text) else text.get("id", "MODEL")
    card = render(
        "card.md",
        front_matter="\n".join(map(printable, _front_matter(run, results).splitlines())),
        name=run.name,
        facts=_facts(run),
        model=repr(model),
        command="vtr extract" if run.towers is None else "vtr extract --model FOLDER/towers",
        sampler=f", sampler={run.sampler!r}" if run.sampler else "",
        pad=", pad=store.pad_embedding" if run.spec.choice.info.needs_pad else "",
        left_out=left_out,
        metrics=_SHOWN,
        results=[
            {"name": r["protocol"]["name"], "remarks": _remarks(r), "rows": _rows(r)}
            for r in results
        ],
    )
    return card.decode().rstrip() + "\n"


def _front_matter(run: Run, results: Sequence[Mapping[str, Any]]) -> str:
    """Returns the YAML of the card; of the licence only its owner can say more."""
    from huggingface_hub import EvalResult, ModelCardData

    text = run.section("text_model")
    head = run.spec.head.partition(":")[0]
    dataset = run.section("data").get("dataset", "folder")
    return ModelCardData(
        license="unknown",
        library_name="vtr",
        pipeline_tag="feature-extraction",
        tags=["video-text-retrieval", "video", "clip", head],
        base_model=_base_model(text),
        datasets=None if dataset == "folder" else [dataset],
        metrics=["recall"] if results else None,
        model_name=run.name if results else None,
        eval_results=[
            EvalResult(
                task_type="video-text-retrieval",
                dataset_type=document["protocol"].get("dataset") or document["protocol"]["name"],
                dataset_name=document["protocol"]["name"],
                metric_type="recall",
                metric_name=key.replace("/", " ") + _apart(document, results),
                metric_value=round(cell["value"], 2),
            )
            for document in results
            for key, cell in document["metrics"].items()
            if key.partition("/")[2] in _SHOWN[:3]
        ]
        or None,
    ).to_yaml()


def _apart(document: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> str:
    """Returns what tells a result from the others of its protocol; the hub joins them all."""
    named = document["protocol"]["name"]
    others = [_how(one) for one in results if one["protocol"]["name"] == named]
    how = _how(document)
    told = [
        f"{name} {value}" for name, value in how.items() if any(o[name] != value for o in others)
    ]
    return f", {', '.join(told)}" if told else ""


def _how(document: Mapping[str, Any]) -> dict[str, Any]:
    protocol, setup = document["protocol"], document["setup"]
    return {
        "part": protocol.get("part"),
        "gallery": protocol.get("gallery"),
        "sampler": setup["sampler"],
        "features": setup["fingerprint"][:8],
        "coverage": document["coverage"]["policy"],
        "re-ranked": setup["rerank"] or "nothing",
    }


def _facts(run: Run) -> list[tuple[str, str]]:
    total, trained = count_parameters(run.model)
    features, data, imported, text = map(
        run.section, ("features", "data", "imported", "text_model")
    )
    known = "unknown" if run.train_ids is None else f"{len(run.train_ids):,} (train_ids.txt)"
    frames = f"({counted(features['frames'], 'frame')})" if features.get("frames") else ""
    source = f"{imported.get('system')}, file {imported.get('file')}" if imported else ""
    facts = {
        "head": f"`{run.spec.head}`",
        "text side": run.trained,
        "dimensions": str(run.spec.dim),
        "parameters": f"{total:,} ({trained:,} trained)",
        "imported from": source,
        "sha256 of that file": imported.get("sha256", ""),
        # A folder's path on the maker's machine says nothing elsewhere.
        "text model": Path(str(text.get("id", ""))).name if is_local(text) else text.get("id", ""),
        "sha256 of its weights": text.get("weights_sha256", ""),
        "features of": features.get("backbone", ""),
        "sha256 of the vision weights": features.get("weights_sha256", ""),
        "fingerprint of the features": features.get("fingerprint", ""),
        "sampler": f"{run.sampler or ''} {frames}".strip(),
        "dataset": data.get("dataset", ""),
        "training split": data.get("train_split", ""),
        "videos trained on": known,
        "training": "not finished" if is_unfinished(run.folder) else "",
        "best epoch": f"{run.epoch}, chosen by: {run.selection}",
        "seed": str(run.seed) if "seed" in run.section("settings") else "unknown",
    }
    return [(name, str(value)) for name, value in facts.items() if value]


def _base_model(text: Mapping[str, Any]) -> str | None:
    """Returns the hub id that training began with; None where it was a folder."""
    base = text.get("base")
    if base is None:
        return None if is_local(text) else text.get("id")
    return None if is_local({**text, "id": base}) else base


def _remarks(document: Mapping[str, Any]) -> list[str]:
    protocol, coverage, setup = document["protocol"], document["coverage"], document["setup"]
    leaked = setup["trained_on_test"]
    warning = "" if leaked == 0 else f"**trained on {leaked:,} of these videos**" if leaked else ""
    if leaked is None:
        warning = "it is not known whether it was trained on these videos"
    remarks = [
        "the published lists" if protocol["published"] else "NOT the published lists",
        f"{counted(protocol['num_queries'], 'query')}, {counted(protocol['num_videos'], 'video')}",
        f"coverage {coverage['present']:,} of {coverage['videos']:,} ({coverage['policy']})",
        f"sampler {setup['sampler']}",
        f"features {setup['fingerprint'][:16]}",
        f"seed {setup['seed']}",
        "" if setup.get("weights_sha256") else "which weights were measured is not recorded",
        f"re-ranked the first {setup['rerank']} of each list" if setup["rerank"] else "",
        warning,
    ]
    return [remark for remark in remarks if remark]


def _rows(document: Mapping[str, Any]) -> list[list[str]]:
    ways = dict.fromkeys(key.partition("/")[0] for key in document["metrics"])
    return [
        [way, f"{document['metrics'][f'{way}/{_SHOWN[0]}']['n']:,}", *_cells(document, way)]
        for way in ways
    ]


def _cells(document: Mapping[str, Any], way: str) -> list[str]:
    cells = (document["metrics"].get(f"{way}/{name}") for name in _SHOWN)
    return [
        f"{cell['value']:.1f} [{cell['low']:.1f}, {cell['high']:.1f}]" if cell else ""
        for cell in cells
    ]
