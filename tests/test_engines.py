"""Faster ways of embedding: each is judged by float32 before it counts, and named in the store."""

import functools
import json
import shutil
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import open_clip_goldens
import pytest
import torch
from builders import patchwork, run_app, run_python, write_clip

from vtr.api.inspect import inspect
from vtr.clip.backbone import Backbone, load_backbone
from vtr.clip.device import ENGINES
from vtr.clip.encoders import blank_encoder
from vtr.clip.engines import make_engine
from vtr.clip.fidelity import LIMITS, check, compare
from vtr.demo import demo_model_folder
from vtr.errors import ConfigError, FingerprintError, ModelError, StoreError
from vtr.features import FeatureSpec, FeatureStore
from vtr.features.engine_check import EngineCheck, read_engine_check
from vtr.searching.encoder import unrelated_sentences
from vtr.verbs.extract import Options

# The fingerprint of the fixture `spec`, computed by e6d78ac.
OLD = "3ed9859f90dc46de827a744eea3cfc0e7e3a4ddec5ec61e7abe86a5155a9e74f"
SENTENCES = unrelated_sentences().splitlines()


def frames_of(backbone: Backbone, count: int) -> Any:
    side = backbone.preprocessing.size[0]
    squares = np.random.default_rng(0).integers(0, 256, (count, 4, 4, 3), np.uint8)
    return np.kron(squares, np.ones((1, side // 4, side // 4, 1), np.uint8))


@pytest.fixture
def vectors() -> tuple[Any, Any]:
    """Embeddings around a common mean, as CLIP's are, and texts."""
    rng = np.random.default_rng(1)
    common = 3 * rng.standard_normal(16)
    return common + rng.standard_normal((20, 16)), rng.standard_normal((7, 16))


def plain_figures(found: Any, right: Any, texts: Any) -> tuple[float, float, float]:
    """The same, one frame and one pair at a time."""

    def cosine(a: Any, b: Any) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    mean = right.mean(0)
    each = [cosine(f - mean, r - mean) for f, r in zip(found, right, strict=True)]
    kept = []
    for text in texts:
        for i in range(len(right)):
            for j in range(i):
                gap = cosine(right[i], text) - cosine(right[j], text)
                if abs(gap) > 0.005:
                    kept.append((cosine(found[i], text) > cosine(found[j], text)) == (gap > 0))
    return min(each), float(np.mean(each)), float(np.mean(kept))


def test_the_figures_are_those_of_a_plain_count(vectors: tuple[Any, Any]) -> None:
    right, texts = vectors
    found = right + 0.3 * np.random.default_rng(2).standard_normal(right.shape)
    worst, mean, order = plain_figures(found, right, texts)
    assert 0.5 < worst < mean < 1
    assert 0.8 < order < 1
    assert list(compare(found, right, texts).values()) == pytest.approx([worst, mean, order])
    assert list(compare(right, right, texts).values()) == pytest.approx([1, 1, 1])
    # A common part that all frames share hides nothing: without centring this is above 0.9.
    assert list(compare(right[::-1], right, texts).values())[1] < 0.5


@pytest.mark.parametrize("count", [1, 5])
def test_frames_that_are_all_alike_are_not_centred(count: int, vectors: tuple[Any, Any]) -> None:
    right, texts = np.repeat(vectors[0][:1], count, axis=0), vectors[1]
    noise = 1e-4 * np.random.default_rng(3).standard_normal(right.shape)
    assert list(compare(right + noise, right, texts).values()) == pytest.approx([1, 1, 1])


def test_what_is_not_finite_counts_against_the_engine_alone(vectors: tuple[Any, Any]) -> None:
    right, texts = vectors
    found = right.copy()
    found[3] = np.nan
    assert compare(found, right, texts)["worst_cosine"] == -1
    assert compare(found, found, texts)["worst_cosine"] == pytest.approx(1)
    assert compare(found * np.nan, right * np.nan, texts) == dict.fromkeys(LIMITS, 1.0)


class Blurred:
    """The backbone with noise on what it gives."""

    def __init__(self, inner: Backbone, noise: float) -> None:
        self.inner, self.noise, self.describe = inner, noise, inner.describe

    def encode_frames(self, crops: Any, *, offsets: Any) -> Any:
        made = self.inner.encode_frames(crops, offsets=offsets)
        deviation = (made - made.mean(0)).std() * self.noise
        return made + deviation * np.random.default_rng(0).standard_normal(made.shape)


@pytest.mark.parametrize(("noise", "short"), [(0.0, False), (0.11, True), (0.5, None)])
def test_an_engine_passes_is_stamped_or_refused(
    backbone: Backbone, noise: float, short: bool | None, capsys: pytest.CaptureFixture[str]
) -> None:
    engine: Any = Blurred(backbone, noise)
    frames = frames_of(backbone, 12)
    if short is None:
        with pytest.raises(
            ModelError, match=r"first 12 frames .* worst cosine 0\.\d+, mean .* needed at least: "
            r"worst cosine 0.95, mean cosine 0.98, same order 0.97\. Nothing was written",
        ):  # fmt: skip
            check(engine, backbone, frames, SENTENCES)
        return
    measured = check(engine, backbone, frames, SENTENCES)
    assert (measured["falls_short"], measured["frames"], measured["sentences"]) == (short, 12, 200)
    assert ("warning" in capsys.readouterr().err) == short


def test_the_worst_of_all_runs_is_what_a_store_says(tmp_path: Path) -> None:
    good = EngineCheck("f" * 64, 64, 200, 0.999, 0.9999, 1.0, falls_short=False)
    bad = replace(good, frames=5, mean_cosine=0.99, falls_short=True)
    assert read_engine_check(tmp_path, "f" * 64) is None
    good.write(tmp_path, (1, 2))
    bad.write(tmp_path, (2, 2))
    replace(bad, fingerprint="0" * 64, worst_cosine=0.1).write(tmp_path, (1, 1))
    assert read_engine_check(tmp_path, "f" * 64) == replace(bad, worst_cosine=0.999)
    (tmp_path / "engine-001of002.json").write_text("{")
    with pytest.raises(StoreError, match="engine-001of002"):
        read_engine_check(tmp_path, "f" * 64)


def extract(folder: Path, *words: str) -> str:
    command = ["extract", "--videos", str(folder / "videos"), "--model", str(demo_model_folder())]
    command += ["--features", str(folder / "f"), "--frames", "5", "--device", "cpu", "--fps", "4"]
    return run_app(*command, *words).stderr


def test_a_store_of_another_dtype_says_how_far_it_is(tmp_path: Path) -> None:
    for name in "ab":
        write_clip(tmp_path / "videos" / f"{name}.mp4", patchwork(6, seed=ord(name)))
    told = extract(tmp_path, "--dtype", "bfloat16")
    assert "torch in bfloat16 on the first 10 frames against torch in float32: worst cosine" in told
    facts, _ = inspect(tmp_path / "f")
    assert facts["engine_check"]["frames"] == 10
    assert 0.99 < facts["engine_check"]["worst_cosine"] < 1
    shown = run_app("inspect", tmp_path / "f").stdout
    assert "against float32 worst cosine 0.99" in " ".join(shown.split())
    # Nothing new: nothing is measured. Anew in float32: the note goes with what it was about.
    assert "worst cosine" not in extract(tmp_path, "--dtype", "bfloat16")
    extract(tmp_path, "--overwrite")
    assert inspect(tmp_path / "f")[0]["engine_check"] is None
    assert not list((tmp_path / "f").glob("engine-*"))


def test_pictures_embedded_anew_are_judged_too(tmp_path: Path) -> None:
    write_clip(tmp_path / "videos" / "a.mp4", patchwork(6))
    extract(tmp_path, "--crops", "raw")
    extract(
        tmp_path, "--from-crops", str(tmp_path / "f"), "--features", str(tmp_path / "g"),
        "--dtype", "float16",
    )  # fmt: skip
    assert json.loads((tmp_path / "g" / "engine-001of001.json").read_text())["frames"] == 5
    right, half = (FeatureStore(tmp_path / name) for name in "fg")
    np.testing.assert_allclose(half["a.mp4"].frames, right["a.mp4"].frames, atol=0.05)
    assert load_backbone(str(demo_model_folder()), device="cpu").is_exact


# ---- engines


def needs(engine: str) -> Any:
    missing = [name for name in ENGINES[engine] if find_spec(name) is None]
    if engine == "compile" and shutil.which("g++") is None:
        missing = ["a C++ compiler"]
    marks = [pytest.mark.skipif(bool(missing), reason=f"needs {missing}: 'vtr[{engine}]'")]
    return pytest.param(engine, marks=marks + [pytest.mark.slow] * (engine != "openvino"))


@pytest.fixture(scope="module")
def made() -> Any:
    """The model that ships in an engine, made once each."""

    @functools.cache
    def load(engine: Any, dtype: Any) -> Backbone:
        return load_backbone(str(demo_model_folder()), device="cpu", engine=engine, dtype=dtype)

    return load


@pytest.mark.parametrize("engine", [needs("onnx"), needs("openvino"), needs("compile")])
def test_an_engine_in_float32_computes_what_torch_does(
    backbone: Backbone, made: Any, engine: str
) -> None:
    ours, frames = made(engine, "float32"), frames_of(backbone, 7)
    expected = backbone.encode_frames(frames)
    for count in (7, 1, 0):
        given = ours.encode_frames(frames[:count])
        np.testing.assert_allclose(given, expected[:count], atol=1e-4)
    np.testing.assert_allclose(ours.pad_embedding(), backbone.pad_embedding(), atol=1e-4)
    assert not ours.is_exact
    described = ours.describe()
    assert described == {**backbone.describe(), "engine": engine}
    texts = ["a red ball", ""]
    np.testing.assert_array_equal(
        ours.encode_texts(texts).embeddings, backbone.encode_texts(texts).embeddings
    )


@pytest.mark.parametrize("engine", [needs("onnx"), needs("openvino")])
def test_whole_numbers_are_near_and_do_not_depend_on_the_batch(
    backbone: Backbone, made: Any, engine: str
) -> None:
    ours, frames = made(engine, "int8"), frames_of(backbone, 24)
    measured = check(ours, backbone, frames, SENTENCES)
    assert measured["worst_cosine"] < 1 - 1e-5, "nothing was rounded"
    assert ours.describe()["compute_dtype"] == "int8"
    together = ours.encode_frames(frames)
    one_by_one = np.concatenate([ours.encode_frames(frame[None]) for frame in frames])
    # A rounding of float32 may move an activation by one step of 8 bits.
    np.testing.assert_allclose(together, one_by_one, atol=2e-3)


@pytest.mark.slow
def test_no_compiler_is_one_clear_line() -> None:
    code = (
        "from vtr.clip.backbone import load_backbone; from vtr.demo import demo_model_folder\n"
        "load_backbone(str(demo_model_folder()), device='cpu', engine='compile')"
    )
    environment = {"CXX": "/no/such/compiler", "TORCHINDUCTOR_CACHE_DIR": "/tmp/none"}
    done = run_python("-c", code, **environment)
    assert "ConfigError: --engine compile cannot compile the model here" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int8"}, "engine torch does not compute in int8: .* Use --engine openvino"),
        ({"dtype": "int8", "engine": "compile"}, "engine compile does not compute in int8"),
        ({"engine": "onnx", "dtype": "float16"}, "onnx computes in float32 or int8, not in float"),
        ({"engine": "openvino", "device": "cuda"}, "openvino runs on the CPU here, not on cuda"),
        ({"engine": "tensorrt"}, "no engine 'tensorrt'; allowed: torch, compile, onnx, openvino"),
        ({"dtype": "int4"}, "no dtype 'int4'; allowed: float32, float16, bfloat16, int8"),
    ],
)
def test_what_does_not_go_together_is_refused_at_once(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_backbone("no/such", **options)
    if "no " not in message[:3]:
        with pytest.raises(ConfigError, match=message):
            Options.of(**options)


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_a_missing_extra_names_the_line_that_installs_it(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENGINES, engine, ("no_such_package",))
    line = rf"engine {engine} needs no_such_package: pip install 'vtr\[{engine}\]'"
    with pytest.raises(ConfigError, match=line):
        Options.of(engine=engine)


def test_a_tower_that_sees_neighbours_is_torchs_alone() -> None:
    architecture = load_backbone(str(demo_model_folder()), device="cpu").architecture
    visual = blank_encoder(architecture, temporal=True).visual
    with pytest.raises(ModelError, match=r"--engine openvino .* \(linear_patch 3d\)"):
        make_engine("openvino", "float32", visual)


def test_the_fingerprint_of_torch_in_float32_is_what_it_was(spec: FeatureSpec) -> None:
    assert spec.fingerprint == OLD
    assert replace(spec, engine="torch").fingerprint == OLD
    assert replace(spec, candidate_jitter=0.0).fingerprint == OLD
    assert replace(spec, candidate_jitter=0.5).fingerprint != OLD
    assert len({replace(spec, engine=name).fingerprint for name in ENGINES}) == len(ENGINES)
    assert FeatureSpec.from_json(replace(spec, engine="onnx").to_json()).engine == "onnx"


@pytest.mark.parametrize("engine", [needs("openvino")])
def test_a_store_of_an_engine_is_another_store(tmp_path: Path, engine: str) -> None:
    write_clip(tmp_path / "videos" / "a.mp4", patchwork(6))
    how = ("--engine", engine, "--dtype", "int8")
    assert "openvino in int8 on the first 5 frames" in extract(tmp_path, *how)
    store = FeatureStore(tmp_path / "f")
    assert (store.spec.engine, store.spec.compute_dtype) == ("openvino", "int8")
    assert "openvino" in store.spec.versions
    again = json.loads((tmp_path / "f" / "extract.json").read_text())
    assert (again["engine"], again["dtype"]) == ("openvino", "int8")
    extract(tmp_path, *how, "--dry-run")
    for words in ((), ("--dry-run",)):
        with pytest.raises(FingerprintError, match="engine is 'openvino', asked 'torch'"):
            extract(tmp_path, *words)


@pytest.mark.slow
@pytest.mark.parametrize("engine", [needs("onnx"), needs("openvino")])
@pytest.mark.parametrize("name", open_clip_goldens.HELD)
def test_towers_of_every_kind_are_run(name: str, engine: str, tmp_path: Path) -> None:
    folder = open_clip_goldens.write_folder(tmp_path / "model", name)
    visual: Any = open_clip_goldens.load(folder).visual
    pixels = torch.randn(9, 3, visual.image_size, visual.image_size)
    with torch.inference_mode():
        expected = visual(pixels).numpy()
    texts = np.random.default_rng(0).standard_normal((20, expected.shape[1]))
    given = make_engine(engine, "float32", visual).run(pixels).numpy()
    np.testing.assert_allclose(given, expected, atol=1e-5)
    whole = make_engine(engine, "int8", visual).run(pixels).numpy()
    assert 0.99 < compare(whole, expected, texts)["worst_cosine"] < 1 - 1e-7
