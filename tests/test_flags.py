"""Options declared once: a model becomes flags, keywords, sections of vtr.toml."""

import importlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import typer
from builders import put
from pydantic_core import to_jsonable_python
from typer.testing import CliRunner

from vtr.commands.flags import Only, resolve, with_options
from vtr.errors import ConfigError, UnknownNameError
from vtr.settings import Settings, allowed_values, meaning, option
from vtr.verbs import verb_names, verb_options
from vtr.workspace import Workspace, file_keys


class Options(Settings):
    """Of a verb that exists in this test only."""

    lr: float = option(1e-3, group="Optimisation", gt=0, le=1)
    """Rate."""
    epochs: int | None = option(None, unset="the preset's", ge=1, short="-e")
    """At most so many."""
    mode: Literal["all", "one", "none"] = option("all")
    """Which."""
    shuffle: bool = option(True)
    """In random order."""
    teacher: Path | None = option(None, metavar="DIR")
    """Folder of a run."""
    force: bool = option(False, file_key="-")
    """Whatever happens."""


@pytest.fixture
def go(here: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the verb `train` with these options in `here`; returns (options, workspace)."""
    seen: list[Any] = []
    app = typer.Typer()

    @app.command()
    @with_options("train")
    def train(
        words: Annotated[list[str] | None, typer.Argument()] = None,
        *,
        options: Options,
        workspace: Annotated[Workspace, Only("videos", sampler="Whose frames.")],
        as_json: Annotated[bool, typer.Option("--json")] = False,
    ) -> None:
        """Train."""
        seen[:] = [options, workspace, words, as_json]

    module = type("verbs", (), {"Options": Options})
    real = importlib.import_module

    def found(name: str, *package: str) -> Any:
        return module if name == "vtr.verbs.train" else real(name, *package)

    monkeypatch.setattr(importlib, "import_module", found)
    monkeypatch.setattr("vtr.workspace.verb_names", lambda: ["train"])

    def run(*words: str) -> Any:
        done = CliRunner().invoke(app, list(words), env={"COLUMNS": "160"})
        if isinstance(done.exception, Exception):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.output if "--help" in words else tuple(seen)

    return run


def test_defaults_flags_and_what_stays_as_declared(go: Any, tmp_path: Path) -> None:
    options, workspace, words, as_json = go()
    assert options == Options()
    assert workspace == Workspace.at(tmp_path)
    assert not words
    assert not as_json
    options, workspace, words, as_json = go(
        "a", "b", "--lr", "0.5", "--no-shuffle", "--teacher", "t", "--videos", "v", "--json",
        "--force", "-e", "2",
    )  # fmt: skip
    assert options.given == {
        "epochs": 2, "force": True, "lr": 0.5, "shuffle": False, "teacher": tmp_path / "t"
    }  # fmt: skip
    assert workspace.videos == tmp_path / "v"
    assert words == ["a", "b"]
    assert as_json


def test_a_flag_wins_over_the_config_over_the_workspace(go: Any, tmp_path: Path) -> None:
    (tmp_path / "vtr.toml").write_text(
        '[train]\nlr = 0.1\nepochs = 3\nmode = "one"\nteacher = "here"\n[extract]\nframes = 7\n'
    )
    other = tmp_path / "other"
    put(other / "run.toml", '[train]\nepochs = 4\nlr = 0.2\nteacher = "there"\n')
    options, workspace, *_ = go("--config", "other/run.toml", "--lr", "0.3")
    assert (options.lr, options.epochs, options.mode) == (0.3, 4, "one")
    assert options.teacher == other / "there"
    assert workspace.frames == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[train]\nlr = 0\n",
            r"vtr.toml:2: lr in \[train\] is 0; it must be a number, above 0 and",
        ),
        ("[train]\nlr = inf\n", r"lr in \[train\] is inf; it must be a number"),
        ("[train]\nepochs = 2.5\n", "is 2.5; it must be a whole number, 1 or more"),
        ("[train]\nepochs = true\n", "is True; it must be a whole number, 1 or more"),
        ('[train]\nmode = "two"\n', 'is \'two\'; it must be "all", "one" or "none"'),
        ("[train]\nepoch = 2\n", r"vtr.toml:2: no key in \[train\] named 'epoch'. Did you mean"),
        ("[train]\nforce = true\n", r"vtr.toml:2: no key in \[train\] named 'force'"),
        ("[trian]\nlr = 1\n", "vtr.toml:1: no section named 'trian'. Did you mean 'train'"),
        ('[train]\nteacher = ""\n', "is ''; it must be a path, as text"),
    ],
)
def test_a_file_is_refused_with_its_line(go: Any, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "vtr.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        go()


def test_a_flag_out_of_range_is_named(go: Any) -> None:
    with pytest.raises(ConfigError, match=r"--lr is 2.0; it must be a number, above 0 and 1 or"):
        go("--lr", "2")


def test_a_number_that_no_array_holds_is_refused(go: Any) -> None:
    with pytest.raises(ConfigError, match=f"--epochs is 1{'0' * 19}; .*, at most {2**63 - 1}"):
        go("--epochs", f"1{'0' * 19}")


@pytest.mark.parametrize("line", ['[data]\nvideos = "a\\u0000b"', '[train]\nteacher = "a\\u0000b"'])
def test_a_path_with_a_null_byte_is_refused(go: Any, tmp_path: Path, line: str) -> None:
    (tmp_path / "vtr.toml").write_text(line)
    with pytest.raises(ConfigError, match=r"vtr.toml:2: .*a\\x00b'; it must be a path"):
        go()


def test_a_text_that_is_no_path_stays_as_it_was_typed() -> None:
    title = verb_options("report").of(title="../2026: results")
    assert title.given == {"title": "../2026: results"}
    assert verb_options("eval").of(run="./a").given == {"run": str(Path.cwd() / "a")}


def test_help_groups_the_options_and_says_their_defaults(go: Any) -> None:
    text = " ".join(go("--help").split())
    assert "Optimisation" in text
    assert "Rate. (default: 0.001)" in text
    assert "(default: the preset's)" in text
    assert "Whose frames." in text
    assert "--no-force" not in text


@pytest.mark.parametrize("verb", verb_names())
def test_every_option_of_every_verb_may_stand_in_a_file(verb: str, here: Path) -> None:
    model = verb_options(verb)
    assert all(meaning(field).endswith((".", ")")) for field in model.model_fields.values())
    lines, names = [], set()
    for section, keys in file_keys(model, verb).items():
        lines.append(f"[{section}]")
        for key, name in keys.items():
            default = getattr(model(), name)
            if default not in (None, ()):
                names.add(name)
                lines.append(f"{key} = {json.dumps(to_jsonable_python(default))}")
    (here / "own.toml").write_text("\n".join(lines))
    given = resolve(model, {}, verb=verb, config=here / "own.toml")
    (here / "own.toml").rename(here / "vtr.toml")
    around = resolve(model, {}, verb=verb)
    assert given == around
    assert names <= given.given.keys()


def test_python_keywords_are_checked_the_same_way(tmp_path: Path) -> None:
    assert Options.of(lr=np.float32(0.5), epochs=np.int64(3)).given == {"epochs": 3, "lr": 0.5}
    assert Options.of(lr=1).lr == 1.0
    assert Options.of(teacher="t").teacher == Path.cwd() / "t"
    assert Options(epochs=3).changed(lr=0.5).given == {"epochs": 3, "lr": 0.5}
    with pytest.raises(ConfigError, match=r"^epochs is '3'; it must be a whole number, 1 or more$"):
        Options.of(epochs="3")
    with pytest.raises(UnknownNameError, match="Did you mean 'epochs'"):
        Options.of(epoch=3)
    assert allowed_values(Options.model_fields["shuffle"]) == "true or false"
    assert Options().as_dict()["teacher"] is None
