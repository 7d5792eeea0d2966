"""The command line before it does anything: names, completion, help, commands of other programs."""

import ast
import re
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from builders import run_app, run_json, run_python
from typer.main import get_command
from typer.testing import CliRunner

import vtr
from vtr.choices import CHOICES, check_names, head_options
from vtr.cli import app
from vtr.errors import ConfigError, VtrError

# Runs vtr where torch cannot be imported.
WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
from vtr.cli import main
main()
"""


def all_commands(command: Any, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from all_commands(child, *path, name)


COMMANDS = dict(all_commands(get_command(app)))
NAMED = [
    (*path, parameter.opts[0] if parameter.param_type_name == "option" else "")
    for path, command in COMMANDS.items()
    for parameter in command.params
    if parameter.name in CHOICES and parameter.name not in ("run", "teacher")
    if not getattr(parameter, "is_flag", False)
]


def words(*arguments: str) -> list[str]:
    return [argument for argument in arguments if argument]


def test_the_options_that_name_something_are_all_checked() -> None:
    flags = {option for *_, option in NAMED}
    assert flags >= {"--protocol", "--head", "--text", "--preset", "--sampler", "--device"}
    assert flags >= {"--dataset", "--model", "--missing", "--clip", ""}
    assert len(NAMED) > 30


PYTHON_TYPOS = {
    "train_head(w, 'seqTrnsf')": "no head named 'seqTrnsf'. Did you mean 'seqTransf'?",
    "train_head(w, 'seqTransf:layrs=2')": "named 'layrs'. Did you mean 'layers'?",
    "train_head(w, preset='clip4clp')": "no preset named 'clip4clp'",
    "train_head(w, epoch=2)": "no option named 'epoch'. Did you mean 'epochs'?",
    "evaluate_run(w, protocol='msrvtt1kA')": "Did you mean 'msrvtt-1kA'?",
    "evaluate_run(w, protocol='msrvt')": "no protocol named 'msrvt'",
    "extract_features(w, device='gpu')": "no device named 'gpu'",
    "train_head(w, device='gpu')": "no device named 'gpu'",
    "evaluate_run(w, zero_shot=True)": "no option of vtr eval named 'zero_shot'",
}


def test_python_refuses_names_without_torch(tmp_path: Path) -> None:
    lines = ["import sys; sys.modules['torch'] = None; import vtr; w = vtr.open_workspace()"]
    for call in PYTHON_TYPOS:
        lines.append(f"try: vtr.{call}\nexcept vtr.VtrError as error: print(error)")
    done = run_python("-c", "\n".join(lines), cwd=tmp_path)
    assert len(done.stdout.splitlines()) == len(PYTHON_TYPOS), done.stderr
    for message, line in zip(PYTHON_TYPOS.values(), done.stdout.splitlines(), strict=True):
        assert message in line


@pytest.mark.parametrize("arguments", NAMED, ids=" ".join)
def test_a_typo_in_any_of_them_is_refused_while_flags_are_read(
    arguments: tuple[str, ...], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr("vtr.datasets.registry.load_dataset", lambda *_, **__: pytest.fail("read"))
    typo = "ViT-B/32" if arguments[-1] in ("--model", "--clip") else "sequenceTransf"
    with pytest.raises(VtrError, match=f"{typo!r}(.|\n)*(Known: |Did you mean)"):
        run_app(*words(*arguments), typo)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--head", "seqTrnsf"], "no head named 'seqTrnsf'. Did you mean 'seqTransf'?"),
        (
            ["train", "--head", "seqTransf:layrs=2"],
            "of head 'seqTransf' named 'layrs'. Did you mea",
        ),
        (["train", "--head", "seqTransf:layers"], "'layers' has no value; write layers=VALUE"),
        (["train", "--head", ""], "--head is empty. Known: afa, "),
        (
            ["eval", "--sampler", "motion:globalshare=1"],
            "named 'globalshare'. Did you mean 'global_",
        ),
        (["eval", "--protocol", "msrvtt-1ka"], "Did you mean 'msrvtt-1kA'?"),
        (["eval", "--device", "cuda:x"], "Did you mean 'cuda:1'? Known: auto, cpu, cuda, "),
        (["eval", "--missing", "restricted"], "Did you mean 'restrict'?"),
    ],
)
def test_what_is_said_of_a_typo_without_torch(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    done = run_python("-c", WITHOUT_TORCH, *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr


def test_options_read_from_the_source_are_those_of_the_heads() -> None:
    from vtr.train.headlist import head_names, head_presets
    from vtr.train.headlist import head_options as imported

    for name in head_names():
        preset = ["preset"] if head_presets(name) else []
        assert list(head_options(name)) == [*imported(name), *preset]
    check_names({"head": "clip2video:preset=x", "run": "nowhere", "epochs": "x", "text": None})
    with pytest.raises(ConfigError, match="--sampler is empty"):
        check_names({"sampler": " , "})


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("train --head seq", ["seqLSTM", "seqTransf"]),
        ("import clip4clip x --head mean", ["meanP"]),
        ("extract --sampler uniform,seg", ["uniform,segment", "uniform,segment-random"]),
        ("eval --protocol msrvtt-1kA", ["msrvtt-1kA", "msrvtt-1kA-7k"]),
        ("train --preset cl", ["clip4clip", "clip-video"]),
        ("train --text ", ["frozen", "projection", "tune"]),
        ("init ms", ["msrvtt", "msvd"]),
        ("eval --dataset v", ["vatex"]),
        ("eval --run ru", ["runs/first", "runs/second"]),
        ("eval --model google/x", []),
        ("eval --model pe-core-b", ["pe-core-b16"]),
        ("eval --model openai/clip-vit-l", None),
        ("samplers study --sampler al", ["all"]),
        ("tr", ["train"]),
    ],
)
def test_the_shell_completes_values_without_torch(
    line: str, values: list[str] | None, tmp_path: Path
) -> None:
    for name in ("first", "second", "no run"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        if name != "no run":
            (tmp_path / "runs" / name / "config.json").touch()
    typed = f"vtr {line}"
    asked = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split(" ")) - 1)}
    asked |= {"_VTR_COMPLETE": "complete_bash"}
    done = run_python("-c", WITHOUT_TORCH, cwd=tmp_path, **asked)
    found = done.stdout.split()
    assert not done.stderr
    if values is None:
        assert found == ["openai/clip-vit-large-patch14", "openai/clip-vit-large-patch14-336"]
    else:
        assert found == values


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_says_what_to_write(path: tuple[str, ...]) -> None:
    shown = run_app(*path, "--help").stdout
    assert "Usage: vtr" in shown
    for placeholder in (
        "<bool>",
        "<str>",
        "<int>",
        "<float>",
        "<path>",
        "<list",
        "TEXT",
        "INTEGER",
    ):
        assert placeholder not in shown
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize(
    ("word", "advice"),
    [
        ("find", "vtr search"),
        ("index", "vtr serve"),
        ("Find", "vtr search"),
        ("predict", "vtr eval"),
        ("test", "vtr eval"),
        ("evaluate", "vtr eval"),
        ("embed", "vtr extract"),
        ("model", "vtr heads"),
        ("trian", "Did you mean 'train'"),
    ],
)
def test_commands_of_other_programs_are_answered_with_ours(word: str, advice: str) -> None:
    outcome = run_app(word, width=300, code=2)
    assert f"No such command {word!r}" in outcome.stderr
    assert advice in " ".join(outcome.stderr.split())


# --- defaults

ABSENT = {  # what is not done where the option is absent
    "--annotations", "--dataset", "--simulate", "--rerank", "--teacher", "--probe", "--plot",
    "--out", "--frames", "--videos", "--train-split", "--version", "--config", "--dim",
    "--image", "--video", "--at", "--like", "--not", "--in", "--min-length", "--max-length",
    "--install-completion", "--show-completion", "--query",
}  # fmt: skip


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_option_says_what_it_is_where_it_is_not_given(path: tuple[str, ...]) -> None:
    for parameter in COMMANDS[path].params:
        if parameter.param_type_name == "argument":
            continue
        silent = parameter.default is None and not parameter.required
        if silent and not getattr(parameter, "is_flag", False) and parameter.opts[0] not in ABSENT:
            assert "(default" in parameter.help, parameter.opts


def test_help_and_reference_give_every_value_of_the_presets() -> None:
    shown = run_app("train", "--help").stdout
    words = " ".join(shown.replace("│", " ").split())
    assert "(default: 20; clip4clip, clip-video: 5; two-tower: 10)" in words
    assert "(default: frozen; clip4clip, clip-video: tune; two-tower: projection)" in words
    assert "(default: 0; clip4clip, clip-video: 256)" in words
    assert "(default: the workspace's, or features)" in words
    page = Path(__file__).parents[1] / "docs" / "cli.md"
    assert "(default: 0.1; clip4clip, clip-video: 0.001)" in page.read_text(encoding="utf-8")


def test_presets_are_listed_with_every_value_and_source() -> None:
    shown = run_app("presets").stdout
    assert max(map(len, shown.splitlines())) <= 80
    rows = {line.split()[0]: line.split()[1:] for line in shown.splitlines() if "--" in line}
    assert rows["--epochs"] == ["20", "5", "5", "10"]
    assert rows["--tune-layers"] == ["0", "0", "6", "0"]
    assert rows["--temperature"] == ["learned", "learned", "learned", "0.07"]
    assert rows["--batch-size"] == ["128", "*", "128", "64", "256"]
    assert "ArrowLuo/CLIP4Clip@508ffa3" in shown
    document = run_json("presets")
    assert set(document) == {"vtr", "clip4clip", "clip-video", "two-tower"}
    assert document["vtr"]["adapts"] == ["lr", "batch_size"]
    assert document["two-tower"]["values"]["hard_negatives"] == 8
    assert document["vtr"]["with_vision_tune"] == {"text": "tune", "epochs": 5, "coef_lr": 0.01}
    told = [line for line in shown.splitlines() if line.startswith("With --vision tune")]
    assert told == ["With --vision tune vtr has --coef-lr 0.01, --epochs 5, --text tune."]
    assert all(preset["source"] for preset in document.values())


# --- "1 files" never

PLURALS = re.compile(
    r"^ (?:training |new )?(videos|frames|queries|captions|files|rows|shards|samplers|results|ids|"
    r"seeds|embeddings|clips|names|words|fields|columns|settings|texts|runs|predictions|pairs|have|"
    r"frame embeddings|absent ones|more are|more have)\b(?!/)"
)


def bare_plurals(path: Path) -> Iterator[str]:
    """Yields the places where a number stands before a plural that is always one."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.JoinedStr):
            continue
        for value, after in pairwise(node.values):
            if isinstance(value, ast.FormattedValue) and isinstance(after, ast.Constant):
                number = ast.unparse(value.value)
                is_count = re.search(r"len\(|num_|\[|count|total|frames|videos|ok$", number)
                form = ast.unparse(value.format_spec) if value.format_spec else ""
                whole = "!r" not in ast.unparse(value) and not form.endswith("f'")
                if PLURALS.match(str(after.value)) and is_count and whole:
                    yield f"{path.name}:{node.lineno}: {number}{after.value:.20}"


def test_every_count_goes_through_the_one_helper() -> None:
    home = Path(vtr.__file__).parent
    spoken = ("api", "bridges", "commands", "datasets", "evaluate", "features", "searching")
    folders = [home / name for name in spoken]
    found = [
        place for folder in folders for path in folder.rglob("*.py") for place in bare_plurals(path)
    ]
    assert not found


@pytest.mark.parametrize(
    "words",
    [
        ("extract", "--sampler", "motoin"),
        ("extract", "--sampler", "scene:threshold=x"),
        ("extract", "--model", "./x"),
        ("extract", "--retry", "faild"),
        ("extract", "--shard", "3/2"),
        ("extract", "--device", "gpu"),
        ("train", "--head", "seqTranf"),
        ("train", "--head", "seqTransf:layrs=2"),
        ("train", "--head", "seqTransf:layers=x"),
        ("train", "--text", "forzen"),
        ("train", "--preset", "clip4clp"),
        ("train", "--protocol", "msrvt"),
        ("train", "--batches", "pars"),
        ("train", "--optimiser", "adm"),
        ("train", "--captions", "x"),
        ("train", "--loss", "refrence"),
        ("train", "--mine", "globl"),
        ("train", "--lr", "-1"),
        ("train", "--hold-out", "2"),
        ("train", "--seeds", "0"),
        ("train", "--text", "frozen", "--tune-layers", "2"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_is_refused_without_torch_or_annotations(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    """The annotations do not exist: whoever reads them says so."""
    code = (
        "import sys; sys.argv[0] = 'vtr'\n"
        "from vtr.cli import main\n"
        "try: main()\n"
        "finally: print(sorted({'torch', 'h5py', 'av', 'transformers'} & set(sys.modules)))"
    )
    place = ("--annotations", tmp_path / "none", "--dataset", "msrvtt", "--videos", tmp_path)
    done = run_python("-c", code, words[0], *place, *words[1:], cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert done.stdout.strip() == "[]", done.stderr
    assert re.split("[:=]", words[-1].removeprefix("seqTransf:"))[0] in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert f"{tmp_path}/none" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("check-table", "--n", "60", "43.1"),
        ("heads",),
        ("protocols",),
        ("samplers",),
        ("data", "list"),
        ("presets",),
    ],
    ids=" ".join,
)
def test_what_commands_print_fits_80_columns(arguments: tuple[str, ...]) -> None:
    shown = run_app(*arguments, code=3 if arguments[-1] == "43.1" else 0).stdout
    assert shown
    assert max(map(len, shown.splitlines())) <= 80
    assert " ? " not in shown  # a count that is no number


def test_words_about_a_training_and_a_result_are_folded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vtr.commands.train import print_result

    monkeypatch.setenv("COLUMNS", "80")
    chosen = "mean of R@1, R@5 and R@10 in both directions on the 20 videos of the validation split"
    document = {"run": "runs/a", "best_epoch": 1, "epochs": 1, "metrics": {}}
    document |= {"events": [], "stopped_early": False}
    print_result({**document, "selection": chosen})
    print_result({"seeds": [0], "selection": chosen, "metrics": {}, "runs": ["runs/a"]})
    shown = capsys.readouterr().out
    assert "1 seed; mean of R@1" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert " ".join(shown.split()).count(chosen) == 2


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["report", "--out", ""], "--out"),
        (["report", "a", ""], "RESULTS"),
        (["extract", "--videos", " "], "--videos"),
        (["compress", "", "copies"], "SRC"),
        (["samplers", "study", ""], "STORE"),
        (["eval", "--config", ""], "--config"),
    ],
)
def test_an_unset_variable_is_not_the_current_folder(arguments: list[str], what: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{what} is ' ?'; it must be a path"):
        run_app(*arguments)


def test_the_home_folder_is_expanded_where_no_shell_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips/a.mp4").touch()
    assert run_app("init", "--videos=~/clips", "--path=~/work").exit_code == 0
    assert (tmp_path / "work" / "vtr.toml").is_file()
    for words in (["report", "~/res"], ["inspect", "~/res"], ["eval", "--run=~/res"]):
        with pytest.raises(VtrError, match=f"{tmp_path}/res"):
            run_app(*words, cwd=tmp_path / "work")


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_a_value_of_another_type_is_answered_in_our_words(path: tuple[str, ...]) -> None:
    """Typer hands on what pydantic says: "Value error, ..." and "Input should be ..."."""
    for parameter in COMMANDS[path].params:
        declared = str(parameter.type_descriptor.annotation)
        if parameter.param_type_name == "argument" or getattr(parameter, "is_flag", False):
            continue
        if parameter.name in CHOICES or not re.search(r"int|float|Literal", declared):
            continue
        refused = CliRunner().invoke(app, [*path, parameter.opts[0], "zz"])
        said = " ".join(refused.output.replace("│", " ").split())
        assert refused.exit_code == 2
        assert re.search(r"'zz'; it must be (a (whole )?number|\"\w)", said), said
