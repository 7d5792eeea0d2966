"""Beside what a command makes stand the options that it was made with."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from builders import golden, patchwork, run_app, tensors, write_clip

from tests import test_import_clip_folder as tiny


def options(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def test_copies_and_imported_features_say_how_they_were_made(tmp_path: Path) -> None:
    write_clip(tmp_path / "films" / "a.mp4", patchwork(2))
    run_app("compress", tmp_path / "films", tmp_path / "small", "--crf", "30")
    made = options(tmp_path / "small" / "compress.json")
    assert (made["crf"], made["fps"], made["source"]) == (30, 3.0, str(tmp_path / "films"))
    (tmp_path / "arrays").mkdir()
    np.save(tmp_path / "arrays" / "a.npy", np.ones((3, 8), np.float32))
    words = ("features", "import", tmp_path / "arrays", "--out", tmp_path / "store", "--fps", "2")
    run_app(*words)
    made = options(tmp_path / "store" / "import.json")
    assert (made["fps"], made["dim"], made["source"]) == (2.0, 8, str(tmp_path / "arrays"))


def test_an_imported_checkpoint_says_how_it_was_made(tmp_path: Path) -> None:
    torch.save(tensors(golden("clip_tiny"), "clip/"), tmp_path / "m.pt")
    words = tiny.write_tokeniser(tmp_path / "words", 300)
    run_app("import", "openai", tmp_path / "m.pt", "--out", tmp_path / "c", "--clip", words)
    made = options(tmp_path / "c" / "import.json")
    assert (made["file"], made["clip"]) == ("m.pt", str(words))
