"""A run's text side in sentence-transformers, as that library loads it: no code of ours in it."""

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import demo_backbone, edit_json, make_run, run_app
from hub_server import TOKEN, serving
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip_goldens import golden_folder

import vtr
from tests.test_backbone import make_siglip
from vtr.clip.backbone import Backbone, load_backbone
from vtr.clip.text import clean_clip, clean_siglip
from vtr.demo import demo_model_folder
from vtr.errors import ConfigError, ModelError
from vtr.train.model import ModelSpec, RetrievalModel, build_model
from vtr.train.run import load_run
from vtr.train.sentences import _CLEANING, export_sentences, text_vectors
from vtr.train.text_tower import TextMode, text_spec

SENTENCES = [
    "a red star", "", "  A BLUE\theart,\nthen a circle! ", "star " * 99,
    "\u201cit\u2019s\u201d &amp;amp; a \ufb01sh", "a cafe\u0301 at 3%",
]  # fmt: skip
needs_library = pytest.mark.skipif(
    importlib.util.find_spec("sentence_transformers") is None,
    reason="needs sentence-transformers: pip install 'vtr[sentence-transformers]'",
)


def trained(
    backbone: Backbone, mode: TextMode, dim: int, *, layers: int = 0, head: str = "meanP"
) -> tuple[ModelSpec, RetrievalModel]:
    spec = ModelSpec(head, dim, text_spec(backbone, mode, video_dim=dim, layers=layers))
    model = build_model(spec, backbone=backbone)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.text_tower.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=generator)
    return spec, model.eval()


def encoded(
    folders: Mapping[Path, list[str]], out: Path, *, hub: str | None = None
) -> list[np.ndarray]:
    """Texts as each folder's model encodes them: in a process without vtr, and without network."""
    program = (
        "import sys, json, numpy\n"
        "from sentence_transformers import SentenceTransformer\n"
        "found = [SentenceTransformer(folder, device='cpu').encode(texts, batch_size=2)\n"
        "         for folder, texts in json.loads(sys.argv[2]).items()]\n"
        "numpy.savez(sys.argv[1], *found)\n"
        "assert 'vtr' not in sys.modules\n"
    )
    asked = json.dumps({str(folder): texts for folder, texts in folders.items()})
    subprocess.run(
        [sys.executable, "-c", program, str(out), asked],
        env={
            "HOME": str(out.parent),
            **({"HF_ENDPOINT": hub, "HF_HUB_DISABLE_XET": "1"} if hub else {"HF_HUB_OFFLINE": "1"}),
        },
        cwd="/",
        check=True,
        capture_output=True,
    )
    return list(np.load(out).values())


@needs_library
@pytest.mark.slow
def test_encode_gives_the_text_vectors(tmp_path: Path) -> None:
    kinds: list[tuple[Backbone, TextMode, int, int]] = [
        (demo_backbone(), "frozen", 96, 0),
        (demo_backbone(), "projection", 96, 0),
        (demo_backbone(), "projection", 40, 0),
        (demo_backbone(), "tune", 96, 1),
    ]
    for words in ("SiglipTokenizer", "GemmaTokenizer"):
        make_siglip(tmp_path / words, words)
        tower = load_backbone(str(tmp_path / words), device="cpu")
        kinds.append((tower, "projection", tower.embedding_dim, 0))
    for name in ("pe_core_b", "siglip"):
        tower = load_backbone(str(golden_folder(name)), device="cpu")
        kinds.append((tower, "projection", tower.embedding_dim, 0))
    folders, expected = {}, []
    for number, (tower, mode, dim, layers) in enumerate(kinds):
        spec, model = trained(tower, mode, dim, layers=layers)
        folder = tmp_path / f"out \u00e9 {number}"
        folder.mkdir()
        assert export_sentences(tower, model, spec, folder) <= 1e-6
        is_clip = tower is demo_backbone()
        folders[folder] = SENTENCES if is_clip else ["w1 w2", "W3, w1!", "", "w2 " * 99]
        expected.append(text_vectors(tower, model, spec, folders[folder]))
        assert expected[-1].shape == (len(folders[folder]), dim)
    for got, wanted in zip(encoded(folders, tmp_path / "found.npz"), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-6)


@needs_library
@pytest.mark.slow
def test_the_exported_folder_is_a_run_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run")
    done = run_app("export", "--run", run, "--out", tmp_path / "out", "--sentence-transformers")
    assert "SentenceTransformer(" in done.stderr
    assert load_run(tmp_path / "out").spec.head == "meanP"
    modules = json.loads((tmp_path / "out" / "modules.json").read_text())
    assert all(entry["type"].startswith("sentence_transformers.") for entry in modules)
    assert not list((tmp_path / "out").rglob("*.py"))
    names = [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with serving() as hub:
        vtr.push(tmp_path / "out", "me/run", hub_url=hub.url)
        (got,) = encoded({Path("me/run"): SENTENCES}, tmp_path / "found.npz", hub=hub.url)
    spec, model = trained(demo_backbone(), "frozen", 96)
    expected = text_vectors(demo_backbone(), model, spec, SENTENCES)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)


@needs_library
def test_texts_without_one_vector_are_refused(tmp_path: Path) -> None:
    backbone = demo_backbone()
    spec, model = trained(backbone, "frozen", 96, head="wti")
    with pytest.raises(ConfigError, match="the head wti compares the words of a text one by one"):
        export_sentences(backbone, model, spec, tmp_path)
    assert not list(tmp_path.iterdir())


@needs_library
def test_towers_that_transformers_lacks_are_refused(tmp_path: Path) -> None:
    backbone = load_backbone(str(golden_folder("clipa")), device="cpu")
    spec, model = trained(backbone, "frozen", backbone.embedding_dim)
    with pytest.raises(ModelError, match=r"is none that transformers runs as it is"):
        export_sentences(backbone, model, spec, tmp_path)


def test_without_the_package_the_line_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ConfigError, match=r"pip install 'vtr\[sentence-transformers\]'"):
        run_app(
            "export", "--run", make_run(tmp_path / "run"), "--out", tmp_path / "out",
            "--sentence-transformers",
        )  # fmt: skip
    assert not (tmp_path / "out").exists()


LETTERS = st.text(  # without those that make mojibake, which vtr alone repairs
    st.sampled_from("aB z1\t\n'\u2019\u201c\u201d.,!-_&;%\ufb01\u00a0\u2028"), max_size=40
)


@given(LETTERS)
@settings(max_examples=200)
def test_texts_are_cleaned_as_vtr_cleans_them(text: str) -> None:
    for clean in (clean_clip, clean_siglip):
        steps = _CLEANING[clean]()
        found = text
        for step in steps:
            found = step.normalize_str(found)
        assert found == clean(text)


def test_runs_from_the_hub_find_the_workspace_s_model(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    known = {"id": "model", "revision": "local"}
    weights = {"weights_sha256": demo_backbone().weights_sha256}
    edit_json(run / "config.json", text_model=known | weights)
    with pytest.raises(ModelError, match=r"was the folder model where it was trained"):
        run_app("export", "--run", run, "--out", tmp_path / "out", "--reference", cwd=tmp_path)
    shutil.copytree(demo_model_folder(), run / "model")
    assert load_run(run).text_model == str(run / "model")
