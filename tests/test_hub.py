"""Finding models: a real HTTP server of our own stands in for the hub."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server import serving

from vtr.clip.hub import check_model_name, find_model
from vtr.errors import CheckpointError, ModelNotFoundError

COMMIT = f"{2:040x}"  # the second of each repository
SMALL = ["config.json", "preprocessor_config.json", "tokenizer.json", "README.md"]
REPOSITORIES = {
    "tiny/both": [*SMALL, "model.safetensors", "pytorch_model.bin", "tf_model.h5",
                  "open_clip_pytorch_model.bin", "open_clip_model.safetensors", "onnx/model.onnx"],
    "tiny/pickled": [*SMALL, "pytorch_model.bin", "flax_model.msgpack"],
    "tiny/open_clip": ["open_clip_config.json", "tokenizer.json", "README.md", "model.safetensors",
                       "open_clip_model.safetensors", "open_clip_pytorch_model.bin"],
    "tiny/empty": SMALL,
    "tiny/words": ["config.json", "video_preprocessor_config.json", "vocab.txt", "spiece.model",
                   "model.safetensors"],
    "tiny/gated": [*SMALL, "model.safetensors"],
}  # fmt: skip

# Prints, as JSON, what `find_model` does with each name it is given.
PROGRAM = """
import json, sys, time
from vtr.clip.hub import ModelFolder, find_model, find_tokeniser
from vtr.errors import VtrError
results = {}
for name in sys.argv[1:]:
    start = time.monotonic()
    try:
        if name.startswith("vocabulary of "):
            folder = find_tokeniser(name.removeprefix("vocabulary of "))
            found = ModelFolder(name, folder, folder.name)
        else:
            found = find_model(name)
    except VtrError as error:
        result = {"error": type(error).__name__, "message": str(error)}
    else:
        files = sorted(str(p.relative_to(found.path)) for p in found.path.rglob("*") if p.is_file())
        result = {"id": found.model_id, "revision": found.revision, "files": files}
    results[name] = result | {"seconds": time.monotonic() - start}
assert "torch" not in sys.modules and "transformers" not in sys.modules
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with serving() as hub:
        for name, files in REPOSITORIES.items():
            hub.add("models", name, {file: file.encode() for file in files})
        hub.fail = {"GET /api/models/tiny/broken.*": [503]}
        hub.gated.add("tiny/gated")
        yield hub.url


def find(names: list[str], home: Path, **settings: str) -> dict[str, dict[str, Any]]:
    """Runs `find_model` in a fresh process, because the hub library reads its settings once."""
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGINGFACE", "TRANS"))
    }
    environment = kept | {"HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"} | settings
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, *names],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    results: dict[str, dict[str, Any]] = json.loads(process.stdout)
    for name, result in results.items():
        assert result["seconds"] < 30, name  # not minutes of retries
        assert "\n" not in result.get("message", "")
    return results


@pytest.fixture(scope="module")
def online(endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    home = tmp_path_factory.mktemp("hub")
    names = [*REPOSITORIES, "tiny/absent", "tiny/broken", "not an id", "-/-"]
    return home, find(names, home, HF_ENDPOINT=endpoint)


def test_fetches_what_is_needed_and_the_weights_once(online: tuple[Path, dict[str, Any]]) -> None:
    _, results = online
    common = ["config.json", "preprocessor_config.json", "tokenizer.json"]
    both, pickled = results["tiny/both"], results["tiny/pickled"]
    assert both["files"] == sorted([*common, "model.safetensors"])
    assert pickled["files"] == sorted([*common, "pytorch_model.bin"])
    wanted = ["open_clip_config.json", "open_clip_model.safetensors", "tokenizer.json"]
    assert results["tiny/open_clip"]["files"] == wanted
    assert results["tiny/words"]["files"] == [
        "config.json", "model.safetensors", "video_preprocessor_config.json", "vocab.txt"
    ]  # fmt: skip
    assert both["id"] == "tiny/both"
    assert both["revision"] == pickled["revision"] == COMMIT


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("tiny/absent", "ModelNotFoundError", "the hub has no such public repository"),
        ("not an id", "ModelNotFoundError", "such as openai/clip-vit-base-patch32"),
        ("-/-", "ModelNotFoundError", "it is not a valid hub id"),
        ("tiny/gated", "ModelError", "accept its terms at https://huggingface.co/tiny/gated"),
        ("tiny/empty", "CheckpointError", "has no model.safetensors (or pytorch_model.bin)"),
        ("tiny/broken", "HubOfflineError", "cannot be reached (Server error '503"),
    ],
)
def test_says_what_is_wrong(
    online: tuple[Path, dict[str, Any]], name: str, error: str, message: str
) -> None:
    result = online[1][name]
    assert result.get("error") == error, result
    assert message in result["message"]


@pytest.mark.parametrize(
    "settings",
    [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}],
    ids=["offline mode", "no network"],
)
def test_without_network_the_cache_serves_and_the_rest_says_how(
    online: tuple[Path, dict[str, Any]], settings: dict[str, str]
) -> None:
    home, before = online
    cached = ["tiny/both", "tiny/pickled", "tiny/open_clip"]
    results = find([*cached, "openai/clip-vit-base-patch32"], home, **settings)
    for name in cached:
        assert results[name]["revision"] == COMMIT
        assert results[name]["files"] == before[name]["files"]
    missing = results["openai/clip-vit-base-patch32"]
    assert missing["error"] == "HubOfflineError"
    assert "run `hf download openai/clip-vit-base-patch32`" in missing["message"]
    assert "HF_HOME" in missing["message"]


def test_a_tokeniser_comes_without_the_weights(endpoint: str, tmp_path: Path) -> None:
    names = ["vocabulary of tiny/both", "vocabulary of tiny/gated"]
    results = find(names, tmp_path, HF_ENDPOINT=endpoint)
    assert results[names[0]]["files"] == ["tokenizer.json"]
    assert results[names[1]]["error"] == "ModelError"
    names = [names[0], "vocabulary of openai/clip-vit-base-patch32", f"vocabulary of {tmp_path}"]
    offline = find(names, tmp_path, HF_HUB_OFFLINE="1")
    assert offline[names[0]]["files"] == ["tokenizer.json"]
    assert offline[names[1]]["error"] == "HubOfflineError"
    assert "run `hf download openai/clip-vit-base-patch32`" in offline[names[1]]["message"]
    assert "has no vocabulary (tokenizer.json, or vocab.json" in offline[names[2]]["message"]


@pytest.mark.parametrize(
    ("name", "suggested"),
    [
        ("ViT-B/32", "openai/clip-vit-base-patch32"),
        ("ViT-B-32", "openai/clip-vit-base-patch32"),
        ("openai/ViT-B-32", "openai/clip-vit-base-patch32"),
        ("ViT-B-32-quickgelu", "openai/clip-vit-base-patch32"),
        ("ViT-L/14@336px", "openai/clip-vit-large-patch14-336"),
        ("ViT-L-14-336", "openai/clip-vit-large-patch14-336"),
        ("clip-vit-base-patch16", "openai/clip-vit-base-patch16"),
        ("ViT-H-14", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"),
        ("ViT-H-14 laion2b_s32b_b79k", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"),
        ("ViT-B-32/laion2b_s34b_b79k", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"),
        ("ViT-B-16,datacomp_xl_s13b_b90k", "laion/CLIP-ViT-B-16-DataComp.XL-s13B-b90K"),
        ("hf-hub:laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"),
        ("hf-hub:timm/PE-Core-B-16", "timm/PE-Core-B-16"),
        ("ViT-bigG-14", "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k"),
        ("ViT-B-16-SigLIP", "google/siglip-base-patch16-224"),
        ("ViT-SO400M-14-SigLIP-384 webli", "google/siglip-so400m-patch14-384"),
        ("ViT-L-16-SigLIP2-384", "google/siglip2-large-patch16-384"),
        ("facebook/PE-Core-B16-224", "timm/PE-Core-B-16"),
        ("PE-Core-bigG-14-448", "timm/PE-Core-bigG-14-448"),
        ("siglip-base-patch16-224", "google/siglip-base-patch16-224"),
    ],
)
def test_names_of_other_libraries_are_answered_with_the_hubs(name: str, suggested: str) -> None:
    with pytest.raises(ModelNotFoundError, match=rf"Did you mean '{re.escape(suggested)}'\?$"):
        find_model(name)  # the hub is not asked
    check_model_name(suggested)


def test_what_can_be_no_model_is_refused_without_the_hub(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="CLIPs with a ResNet are not read"):
        check_model_name("RN50x4")
    (tmp_path / "ViT-B-32.pt").touch()
    with pytest.raises(CheckpointError, match="made into such a folder by `vtr import openai`"):
        check_model_name(str(tmp_path / "ViT-B-32.pt"))
    for name in (
        "ViT-B-32 dfn2b",
        "tiny/both",
        "somebody/clip-vit-base-patch32",
        "timm/ViT-B-16-SigLIP2",
        "timm/vit_base_patch32_clip_224.openai",
        "laion/CoCa-ViT-B-32-laion2B-s13B-b90k",
        "UCSC-VLAA/ViT-L-14-CLIPA-datacomp1B",
    ):
        check_model_name(name)  # the hub must say
