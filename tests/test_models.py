"""Models by short name: what each resolves to, what is told of them, and names that are none."""

import re
from pathlib import Path

import pytest
from builders import run_app, run_json

from vtr.choices import CHOICES
from vtr.clip.hub import check_model_name, find_model
from vtr.clip.models import known_models, resolve_model
from vtr.errors import ModelNotFoundError
from vtr.workspace import Workspace


def test_each_name_has_a_hub_id_of_its_own_and_sound_facts() -> None:
    known = known_models()
    assert len({model.hub for model in known.values()}) == len(known)
    for name, model in known.items():
        assert re.fullmatch(r"[a-z0-9-]+", name), name
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", model.hub), name
        assert (model.r1 is None) == (model.source is None), name
        assert all(fact is None or fact >= 0 for fact in (model.dim, model.pixels, model.context))


def test_open_clip_says_every_dimension_and_meta_that_of_its_smallest() -> None:
    """From open_clip 3.3.0's model_configs, and the published config.json of MetaCLIP 2's S/16."""
    dims = {name: m.dim for name, m in known_models().items() if m.family == "open_clip"}
    perception = {name: dim for name, dim in dims.items() if name.startswith("pe-core-")}
    assert list(perception.values()) == [512, 512, 1024, 1024, 1280]
    readme = [known_models()[name].r1 for name in perception]  # VTT-T2V of its table
    assert readme == [28.8, 39.3, 47.6, 50.3, 51.2]
    assert {name: dim for name, dim in dims.items() if name not in perception} == {
        "eva02-b16": 512, "eva02-l14": 768, "eva02-l14-336": 768, "eva02-e14": 1024,
        "clipa-l14": 768, "coca-b32": 512,
    }  # fmt: skip
    assert known_models()["metaclip2-s16"].dim == 384


def test_the_list_is_read_by_people_and_by_programs() -> None:
    told, facts = run_app("models").stdout, run_json("models")
    assert [fact["name"] for fact in facts] == list(known_models())
    for fact in facts:
        line = next(line for line in told.splitlines() if line.startswith(f"{fact['name']} "))
        assert fact["hub"] in line
        assert ("unknown" in line) == (None in {fact[k] for k in ("dim", "pixels", "r1")})
    row = next(fact for fact in facts if fact["name"] == "pe-core-b16")
    assert (row["hub"], row["dim"], row["r1"]) == ("timm/PE-Core-B-16", 1024, 47.6)
    assert re.search(r"pe-core-b16.*: PE README", told)


def test_init_writes_the_hub_id(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    run_app("init", "--videos", tmp_path, "--path", tmp_path, "--model", "PE-Core-B16")
    assert 'id = "timm/PE-Core-B-16"' in (tmp_path / "vtr.toml").read_text()


def test_a_folder_of_that_name_comes_first(here: Path) -> None:
    assert Workspace.at(here, model="siglip2-b16").model == "google/siglip2-base-patch16-224"
    (here / "siglip2-b16").mkdir()
    assert resolve_model("siglip2-b16") == "siglip2-b16"


@pytest.mark.parametrize(
    ("name", "near"), [("pe-core-b17", "pe-core-b16"), ("siglip2-b-16", "siglip2-b16")]
)
def test_an_unknown_short_name_suggests_the_nearest(name: str, near: str) -> None:
    hub = known_models()[near].hub
    with pytest.raises(ModelNotFoundError, match=rf"Did you mean '{near}' \({re.escape(hub)}\)\?"):
        find_model(name)  # the hub is not asked
    check_model_name(near)


def test_the_shell_completes_names_and_hub_ids() -> None:
    assert CHOICES["model"].complete("pe-core-b") == ["pe-core-b16"]
    assert "timm/PE-Core-B-16" in CHOICES["clip"].complete("timm/")
