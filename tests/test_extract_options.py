"""Every option of `vtr extract` may stand in [extract] of vtr.toml, but those of a single run."""

import json
from pathlib import Path
from typing import Any

import pytest
from builders import ramp, run_json, write_clip

from vtr.demo import demo_model_folder
from vtr.errors import ConfigError
from vtr.settings import fact
from vtr.verbs.extract import Options

FILE = {
    "device": "cpu", "dtype": "bfloat16", "engine": "torch", "memory": 2.5, "max_pixels": 90_000,
    "thumbnails": False, "hash": True,
    "crops": "raw",
    "crops_budget": 1.5,
}  # fmt: skip


@pytest.fixture
def workspace(here: Path) -> Path:
    write_clip(here / "videos" / "a.mp4", ramp(3))
    return here


def write_file(folder: Path, **options: object) -> None:
    lines = [f"{name} = {json.dumps(value)}" for name, value in options.items()]
    head = f'[data]\nvideos = "videos"\n[model]\nid = "{demo_model_folder()}"\n[extract]\n'
    (folder / "vtr.toml").write_text(head + "\n".join(lines))


def extract(*words: str) -> Any:
    return run_json("extract", *words)


def test_options_stand_in_the_file_and_a_flag_wins(workspace: Path) -> None:
    assert set(FILE) == {n for n, f in Options.model_fields.items() if fact(f, "file_key") != "-"}
    write_file(workspace, **FILE, frames=2)
    settings = extract("--dry-run", "--memory", "3", "--no-hash")["settings"]
    assert {name: settings[name] for name in FILE} == {**FILE, "memory": 3.0, "hash": False}
    assert settings["frames"] == 2
    assert extract()["ok"] == 1
    record = json.loads((workspace / "features" / "extract.json").read_text())
    assert (record["dtype"], record["hash"], record["max_pixels"]) == (
        "bfloat16", True, 90_000,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["shard", "retry", "overwrite", "dry_run"])
def test_what_belongs_to_one_run_is_no_files(workspace: Path, name: str) -> None:
    write_file(workspace, **{name: True})
    with pytest.raises(ConfigError, match=rf"vtr.toml:6: no key in \[extract\] named '{name}'"):
        extract("--dry-run")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("device", "gpu", r"vtr.toml:6: device in \[extract\]: no device named 'gpu'"),
        ("memory", -1, r"memory in \[extract\] is -1; it must be GiB from 0.001 to 1000000, or 0"),
        ("memory", 1e300, r"memory in \[extract\] is 1e\+300; it must be GiB from 0.001"),
        ("memory", 1e-300, r"memory in \[extract\] is 1e-300; it must be GiB from 0.001"),
        ("crops_budget", 1e300, r"is 1e\+300; it must be GB above 0, at most 1000000000"),
        ("max_pixels", 2**31, "is 2147483648; it must be a whole number from 1 to 2147483647"),
        (
            "dtype",
            "int4",
            r"is 'int4'; it must be \"float32\", \"float16\", \"bfloat16\" or \"int8\"",
        ),
        ("dtype", "int8", r"engine torch does not compute in int8: .* Use --engine openvino, or"),
        ("hash", "yes", r"hash in \[extract\] is 'yes'; it must be true or false"),
        (
            "max_pixels",
            0,
            r"max_pixels in \[extract\] is 0; it must be a whole number from 1 to 2147",
        ),
    ],
)
def test_a_wrong_value_is_refused_with_its_line(
    workspace: Path, name: str, value: object, message: str
) -> None:
    write_file(workspace, **{name: value})
    with pytest.raises(ConfigError, match=message):
        extract("--dry-run")


def test_the_largest_cap_and_memory_are_no_refusal(workspace: Path) -> None:
    write_file(workspace)
    assert extract("--max-pixels", str(2**31 - 1), "--memory", "1000000")["ok"] == 1
