"""`vtr export`: a run as a folder to give away: weights, configuration and a model card.

The folder is itself a run (`vtr eval --run OUT` takes it). Its card says of every number what it
was measured on: protocol, N, interval, coverage, seed, features.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vtr.clip.backbone import load_backbone
from vtr.errors import ConfigError
from vtr.files import file_sha256, publish, replacing, require_empty
from vtr.json_files import read_json
from vtr.result_schema import RESULT_FILE, require_result
from vtr.train.card import model_card
from vtr.train.onnx import GRAPH, export_text_side, require_onnx
from vtr.train.run import BEST, CONFIG, TRAIN_IDS, load_run
from vtr.verbs.export import Options

CARD = "README.md"


def export_run(folder: Path, out: Path, options: Options) -> Path:
    """Writes `config.json`, `best.safetensors`, `train_ids.txt` (where known) and a model card.

    Args:
        folder: The run; results below it (`vtr eval` writes them to RUN/eval) go onto the card.
        out: Folder to make, or an empty one.
        options: `onnx` also writes the text side as `text.onnx`, see `vtr.train.onnx`.

    Returns:
        The card.

    Raises:
        ConfigError: No run, or `out` is in use; a result that is not valid JSON.
        CheckpointError: The run's weights are missing or damaged.
        StoreWriteError: The disk refused.
    """
    run = load_run(folder)
    require_empty(out)
    if options.onnx:
        require_onnx()
    results, left_out = read_results(folder)
    card = model_card(run, results, left_out)
    with replacing(out, option="--out") as made:
        if options.onnx:
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
    for path in sorted(folder.glob(f"eval/*/{RESULT_FILE}")):
        document = read_json(path, needed="a result of `vtr eval`")
        if document.get("kind") != "vtr-result":
            raise ConfigError(f"{path} is no result of vtr eval; move it away and export again")
        require_result(document, source=path, for_card=True)
        # Results of before #12 do not say which weights they measured.
        measured = (document.get("setup") or {}).get("weights_sha256")
        if measured not in (None, weights):
            others.append(path.parent.name)
        else:
            found.append(document)
    return found, others
