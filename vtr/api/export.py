"""`vtr export`: a run as a folder to give away: weights, configuration and a model card.

The folder is itself a run (`vtr eval --run OUT` takes it). Its card says of every number what it
was measured on: protocol, N, interval, coverage, seed, features.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from vtr.api.stores import text_backbone
from vtr.clip.backbone import Backbone
from vtr.errors import ConfigError
from vtr.files import file_sha256, make_folder, publish, replacing, require_empty
from vtr.json_files import read_json
from vtr.progress import note
from vtr.result_schema import RESULT_FILE, require_result
from vtr.settings import resolved
from vtr.train.card import model_card
from vtr.train.onnx import GRAPH, export_text_side, require_onnx
from vtr.train.reference_files import (
    MODEL_FILE,
    OPTIMISER_FILE,
    check_exportable,
    differences,
    last_epoch,
    reference_state,
)
from vtr.train.run import BEST, CONFIG, TOWERS, TRAIN_IDS, Run, load_run
from vtr.train.sentences import export_sentences, require_sentence_transformers
from vtr.verbs.export import Options
from vtr.workspace import workspace_here

CARD = "README.md"
CONFIG_FILE = "export.json"
"""The options that it was made with."""


def export_run(folder: Path, out: Path, options: Options) -> Path:
    """Writes what a run consists of, what the options ask for, and a model card; returns the card.

    A run that has trained its vision tower brings `towers/`, a Hugging Face folder of both towers.
    Results below the run (`vtr eval` writes them to RUN/eval) go onto the card.
    """
    run = load_run(folder)
    require_empty(out)
    if options.onnx:
        require_onnx()
    if options.sentence_transformers:
        require_sentence_transformers()
    if options.reference:
        check_exportable(run.spec)
    results, left_out = read_results(folder)
    card = model_card(run, results, left_out)
    with replacing(out, option="--out") as made:
        if options.onnx or options.reference or options.sentence_transformers:
            _write_extras(made, out, run, options)
        if run.towers is not None:
            make_folder(made / TOWERS, option="--out")
            for path in sorted(run.towers.iterdir()):
                publish(made / TOWERS / path.name, path.read_bytes())
        for name in (BEST, TRAIN_IDS, CONFIG):
            if (folder / name).is_file():
                publish(made / name, (folder / name).read_bytes())
        publish(made / CARD, card.encode())
        publish(made / CONFIG_FILE, resolved(options, run=str(folder.resolve())))
    return out / CARD


def _write_extras(made: Path, out: Path, run: Run, options: Options) -> None:
    here = workspace_here().model
    backbone = text_backbone(run, instead=here, device="cpu")
    if options.onnx:
        export_text_side(backbone, run.model, made / GRAPH)
    if options.sentence_transformers:
        difference = export_sentences(backbone, run.model, run.spec, made)
        note(f"SentenceTransformer({str(out)!r}) differs from vtr by {difference:.1g}")
    if options.reference:
        _write_reference(made, run, backbone)


def _write_reference(made: Path, run: Run, backbone: Backbone) -> None:
    """Writes the best epoch as CLIP4Clip's code loads it, and the last one to train on from."""
    for line in differences(backbone):
        note(f"warning: CLIP4Clip's own code computes otherwise with these weights: {line}")
    files: dict[str, Any] = {MODEL_FILE: reference_state(run.model, run.spec, backbone)}
    last = last_epoch(run.folder, backbone)
    if last is None:
        note(f"no {OPTIMISER_FILE}: the run keeps no state of BertAdam (--preset clip4clip has it)")
    else:
        files |= {
            f"{MODEL_FILE}.{last.number}": last.weights,
            f"{OPTIMISER_FILE}.{last.number}": last.optimiser,
        }
    for name, content in files.items():
        buffer = io.BytesIO()
        torch.save(content, buffer)
        publish(made / name, buffer.getbuffer())


def read_results(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Returns the evaluations of a run's weights, and the names of those of other weights."""
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
