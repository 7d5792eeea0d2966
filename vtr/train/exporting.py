"""A run as a folder to give away: weights, configuration and a model card.

The folder is itself a run (`vtr eval --run OUT` takes it). Its card says of every number what it
was measured on: protocol, N, interval, coverage, seed, features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vtr.clip.backbone import load_backbone
from vtr.counts import counted
from vtr.errors import ConfigError
from vtr.files import file_sha256, publish, read_json, replacing, require_empty
from vtr.train.model import count_parameters
from vtr.train.onnx import GRAPH, export_text_side, require_onnx
from vtr.train.run import BEST, CONFIG, TRAIN_IDS, Run, load_run

CARD = "README.md"
RESULT_NAME = "result.json"
_SHOWN = ("R@1", "R@5", "R@10", "MedR", "MeanR")


def export_run(folder: Path, out: Path, *, onnx: bool = False) -> Path:
    """Writes `config.json`, `best.safetensors`, `train_ids.txt` (where known) and a model card.

    Args:
        folder: The run; results below it (`vtr eval` writes them to RUN/eval) go onto the card.
        out: Folder to make, or an empty one.
        onnx: Also write the text side as `text.onnx`, see `vtr.train.onnx`.

    Returns:
        The card.

    Raises:
        ConfigError: No run, or `out` is in use; a result that is not valid JSON.
        CheckpointError: The run's weights are missing or damaged.
        StoreWriteError: The disk refused.
    """
    run = load_run(folder)
    require_empty(out)
    if onnx:
        require_onnx()
    results, left_out = read_results(folder)
    card = model_card(run, results, left_out)
    with replacing(out, option="--out") as made:
        if onnx:
            backbone = load_backbone(run.text_model, device="cpu")
            run.check_text_model(backbone)
            export_text_side(backbone, run.model.text_tower, made / GRAPH)
        for name in (BEST, TRAIN_IDS, CONFIG):
            if (folder / name).is_file():
                publish(made / name, (folder / name).read_bytes())
        publish(made / CARD, card.encode())
    return out / CARD


def read_results(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Returns the evaluations of a run's weights, and the names of those of other weights.

    Raises:
        ConfigError: A file that is no result.
    """
    weights, found, others = file_sha256(folder / BEST), [], []
    for path in sorted(folder.glob(f"eval/*/{RESULT_NAME}")):
        document = read_json(path, needed="a result of `vtr eval`")
        if document.get("kind") != "vtr-result":
            raise ConfigError(f"{path} is no result of vtr eval; move it away and export again")
        # Results of before #12 do not say which weights they measured.
        measured = (document.get("setup") or {}).get("weights_sha256")
        if measured not in (None, weights):
            others.append(path.parent.name)
        else:
            found.append(document)
    return found, others


def model_card(run: Run, results: Sequence[Mapping[str, Any]], left_out: Sequence[str] = ()) -> str:
    """Returns the card in Markdown."""
    total, trained = count_parameters(run.model)
    lines = [
        f"# {run.name}",
        "",
        "Video-text retrieval on cached features, made with vtr. This folder is a run: "
        "`vtr eval --run FOLDER`.",
        "",
        *_table(("", ""), _facts(run, total, trained)),
        "",
        "## Results",
        "",
    ]
    if not results and not left_out:
        lines.append("None: this run was never evaluated with `vtr eval` before it was exported.")
    for name in left_out:
        lines += [f"Left out: {name} was measured on other weights than these. Evaluate again.", ""]
    for document in results:
        lines += [*_result(document), ""]
    return "\n".join(lines).rstrip() + "\n"


def _facts(run: Run, total: int, trained: int) -> list[tuple[str, str]]:
    config = run.config
    features, data = config.get("features") or {}, config.get("data") or {}
    imported, text = config.get("imported") or {}, config.get("text_model") or {}
    known = "unknown" if run.train_ids is None else f"{len(run.train_ids):,} (train_ids.txt)"
    source = f"{imported.get('system')}, file {imported.get('file')}" if imported else ""
    facts = {
        "head": f"`{run.spec.head}`",
        "text side": run.spec.text.mode,
        "dimensions": str(run.spec.dim),
        "parameters": f"{total:,} ({trained:,} trained)",
        "imported from": source,
        "sha256 of that file": imported.get("sha256", ""),
        # A folder's path on the maker's machine says nothing elsewhere.
        "text model": Path(str(text.get("id", ""))).name if _is_local(text) else text.get("id", ""),
        "sha256 of its weights": text.get("weights_sha256", ""),
        "features of": features.get("backbone", ""),
        "sha256 of the vision weights": features.get("weights_sha256", ""),
        "fingerprint of the features": features.get("fingerprint", ""),
        "sampler": f"{run.sampler or ''} {_frames(features)}".strip(),
        "dataset": data.get("dataset", ""),
        "training split": data.get("train_split", ""),
        "videos trained on": known,
        "best epoch": f"{run.epoch}, chosen by: {run.selection}",
        "seed": str(run.seed) if "seed" in (config.get("settings") or {}) else "unknown",
    }
    return [(name, str(value)) for name, value in facts.items() if value]


def _is_local(text: Mapping[str, Any]) -> bool:
    return Path(str(text.get("id", ""))).is_absolute()


def _frames(features: Mapping[str, Any]) -> str:
    return f"({counted(features['frames'], 'frame')})" if features.get("frames") else ""


def _result(document: Mapping[str, Any]) -> list[str]:
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
        f"re-ranked the first {setup['rerank']} of mean pooling" if setup["rerank"] else "",
        warning,
    ]
    directions = list(dict.fromkeys(key.partition("/")[0] for key in document["metrics"]))
    rows = [
        (way, f"{document['metrics'][f'{way}/{_SHOWN[0]}']['n']:,}", *_cells(document, way))
        for way in directions
    ]
    return [
        f"### {protocol['name']}",
        "",
        "; ".join(remark for remark in remarks if remark) + ". 95 % intervals in brackets.",
        "",
        *_table(("", "N", *_SHOWN), rows),
    ]


def _cells(document: Mapping[str, Any], way: str) -> list[str]:
    cells = (document["metrics"].get(f"{way}/{name}") for name in _SHOWN)
    return [
        f"{cell['value']:.1f} [{cell['low']:.1f}, {cell['high']:.1f}]" if cell else ""
        for cell in cells
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows),
    ]
