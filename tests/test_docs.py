"""The documentation says what is so: commands, flags, names, links, tables, examples, notebook."""

import ast
import importlib.util
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import script

import vtr
from vtr.errors import UnknownNameError
from vtr.evaluate.protocol import load_protocol
from vtr.extract.samplers.base import Signals, parse_samplers
from vtr.train.headlist import parse_head
from vtr.train.heads.base import TextBatch, VideoBatch
from vtr.train.model import ModelSpec, build_model
from vtr.train.text_tower import TextSpec
from vtr.verbs.train import Options as TrainOptions

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"
THREE_LINES = """\
vtr extract --sampler motion
vtr train --head seqTransf
vtr eval --protocol msrvtt-1kA
"""


REFERENCE = script("docs/make_reference.py")
COMMANDS = dict(REFERENCE.commands())


def named(paths: list[Path]) -> list[Any]:
    return [pytest.param(path, id=path.name) for path in paths]


def code_blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def shell_lines(text: str) -> Iterator[str]:
    """Yields every line of a block, and every piece of inline code, that calls vtr."""
    blocks = "".join(code_blocks(text, "")).replace("\\\n", " ")
    outside = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    for line in [*blocks.splitlines(), *re.findall(r"`([^`\n]+)`", outside)]:
        for part in re.split(r"&&|;|\|\s", line.split("  #")[0]):
            words = part.strip()
            if words.startswith("torchrun") and "-m vtr " in words:
                yield "vtr " + words.partition("-m vtr ")[2]
            elif words == "vtr" or words.startswith("vtr "):
                yield words


def find_command(words: list[str]) -> tuple[str, list[str]]:
    """Returns the longest command that the words begin with, and what follows."""
    path = words[0]
    rest = words[1:]
    while rest and f"{path} {rest[0]}" in COMMANDS:
        path = f"{path} {rest.pop(0)}"
    return path, rest


def check_line(line: str) -> None:
    path, rest = find_command(shlex.split(line, comments=True))
    command = COMMANDS[path]
    options = {name: p for p in command.params for name in (*p.opts, *p.secondary_opts)}
    takes_argument = any(p.param_type_name == "argument" for p in command.params)
    placeholder = re.compile(r"[A-Z\[{(…]|\.\.\.")
    while rest:
        word = rest.pop(0)
        if placeholder.match(word):
            continue
        if not word.startswith("-"):
            assert takes_argument, f"{line!r}: {path!r} has no command or argument {word!r}"
            continue
        flag, equals, value = word.partition("=")
        assert flag in {*options, "--help", "-h"}, f"{line!r}: {path!r} has no flag {flag!r}"
        if flag in options and not getattr(options[flag], "is_flag", False):
            value = value if equals else (rest.pop(0) if rest else "")
            check_value(flag, value)


def check_value(flag: str, value: str) -> None:
    if not value or value.isupper() or "[" in value or "NAME" in value:
        return
    if flag == "--head":
        parse_head(value)
    elif flag == "--sampler" and value != "every-other:step=3":  # the example of adding.md
        parse_samplers(value, embedded=True)
    elif flag == "--protocol":
        load_protocol(value)


@pytest.mark.parametrize("path", named(PAGES))
def test_every_command_line_exists(path: Path) -> None:
    for line in shell_lines(path.read_text(encoding="utf-8")):
        check_line(line)


def test_the_check_of_command_lines_notices() -> None:
    for line, complaint in (
        ("vtr extract --smpler motion", "has no flag '--smpler'"),
        ("vtr evaluate --run x", "has no command or argument 'evaluate'"),
        ("vtr data lst", "has no command or argument 'lst'"),
    ):
        with pytest.raises(AssertionError, match=re.escape(complaint)):
            check_line(line)
    with pytest.raises(UnknownNameError, match="seqTransf"):
        check_line("vtr train --head seqTranfs")
    assert list(shell_lines("`vtr eval` and\n```\nvtr train --head meanP  # why\n```\n")) == [
        "vtr train --head meanP",
        "vtr eval",
    ]


def test_generated_parts_are_up_to_date() -> None:
    pages = REFERENCE.pages()
    assert {path.name for path in pages} == {
        "cli.md",
        "datasets.md",
        "heads.md",
        "protocols.md",
        "samplers.md",
    }
    for path, wanted in pages.items():
        found = path.read_text(encoding="utf-8")
        assert found == wanted, f"{path.name} is stale: run `python docs/make_reference.py`"


def test_command_page_lists_every_command_and_flag() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (vtr.*?)\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE))
    assert sections.keys() == COMMANDS.keys()
    for path, command in COMMANDS.items():
        for parameter in command.params:
            for name in parameter.opts if parameter.param_type_name == "option" else ():
                if name not in ("--help", "-h", "--install-completion", "--show-completion"):
                    assert f"`{name}`" in sections[path], (path, name)


def test_readme_names_every_command_and_the_three_lines() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"```\n{THREE_LINES}```" in text
    listed = re.findall(r"^\| `(vtr [a-z-]+)` \|", text, re.MULTILINE)
    assert sorted(listed) == sorted(path for path in COMMANDS if path.count(" ") == 1)


def anchors(path: Path) -> set[str]:
    text = re.sub(r"^```.*?^```", "", path.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", named([*PAGES, ROOT / "CHANGELOG.md"]))
def test_every_relative_link_resolves(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        place = path.parent / name if name else path
        assert place.exists(), f"{path.name} links to {target}"
        assert not anchor or anchor in anchors(place), f"{path.name}: no heading for {target}"


def test_site_lists_every_page() -> None:
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = re.findall(r"^  - .+: (\S+\.md)$", config, re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def test_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir"]
    subprocess.run([*command, str(tmp_path)], cwd=ROOT, check=True)
    page = (tmp_path / "protocols.html").read_text(encoding="utf-8")
    assert "<td><code>msrvtt-1kA</code></td>" in page  # the generated block is a table there too
    for page_path in tmp_path.glob("*.html"):
        assert not re.search(r'<(script|link)[^>]+(src|href)="https?:', page_path.read_text())


# ---- Python


def used_names(source: str) -> set[str]:
    """Returns NAME of every vtr.NAME and `from vtr.x import NAME` (as "vtr.x:NAME")."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == "vtr":
                found.add(node.attr)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vtr"):
            found |= {f"{node.module}:{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("folder", ["benchmarks", "tools", "docs"])
def test_scripts_import_what_exists(folder: str) -> None:
    """No other test runs most of them."""
    for path in sorted((ROOT / folder).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vtr"):
                module = importlib.import_module(node.module or "")
                for alias in node.names:
                    held = hasattr(module, alias.name)
                    inner = f"{node.module}.{alias.name}"
                    assert held or importlib.util.find_spec(inner), f"{path.name}: {inner}"


def check_names(source: str) -> None:
    for name in used_names(source):
        module, _, attribute = name.rpartition(":")
        if module not in ("", "vtr"):
            assert hasattr(importlib.import_module(module), attribute), name
        else:
            assert attribute in vtr.__all__, name


@pytest.mark.parametrize("path", named(PAGES))
def test_python_blocks_use_what_exists(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for block in code_blocks(text, "python"):
        check_names(block)
    for name in re.findall(r"`vtr\.(?!toml|json)([a-zA-Z_]+)[(`]", text):
        assert name in vtr.__all__ or importlib.util.find_spec(f"vtr.{name}"), name


def test_example_of_own_scores_is_right() -> None:
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    (block,) = [b for b in code_blocks(text, "python") if "vtr.recall" in b]
    names: dict[str, Any] = {}
    for line in block.splitlines():
        code, _, answer = line.partition("  # ")
        if not answer:
            exec(code, names)
        else:
            assert f"{eval(code, names)}" == answer.partition(";")[0]


def run_example(start: str) -> dict[str, Any]:
    """Runs the block of adding.md whose docstring begins so."""
    text = (ROOT / "docs" / "adding.md").read_text(encoding="utf-8")
    (block,) = [b for b in code_blocks(text, "python") if b.startswith(f'"""{start}')]
    names: dict[str, Any] = {"__name__": "example"}
    sys.modules["example"] = type(sys)("example")  # dataclasses look their module up
    try:
        exec(compile(block, "adding.md", "exec"), names)
    finally:
        del sys.modules["example"]
    return names


def test_example_sampler_keeps_the_contract() -> None:
    select = run_example("Every other candidate")["select"]
    for count, budget in ((2, 1), (7, 3), (7, 6), (30, 12)):
        rng = np.random.default_rng(0)
        chosen = select(Signals(np.arange(count, dtype=np.float64)), budget, rng)
        assert len(chosen) == budget
        assert sorted(set(chosen.tolist())) == chosen.tolist()
        assert 0 <= chosen[0] <= chosen[-1] < count


def test_example_head_ignores_padding() -> None:
    example = run_example("The median of the normalised frames")
    head = example["MedianPooling"](8)
    generator = torch.Generator().manual_seed(0)
    texts = TextBatch(torch.randn(3, 8, generator=generator))
    frames = torch.randn(2, 3, 8, generator=generator)
    mask = torch.ones(2, 3, dtype=torch.bool)
    padded = torch.cat([frames, torch.full((2, 2, 8), float("nan"))], dim=1)
    wider = torch.cat([mask, torch.zeros(2, 2, dtype=torch.bool)], dim=1)
    scores = head.similarity(texts, VideoBatch(frames, mask))
    assert scores.shape == (3, 2)
    torch.testing.assert_close(head.similarity(texts, VideoBatch(padded, wider)), scores)


def test_example_protocol_is_one() -> None:
    found = run_example("Every tenth video")["PROTOCOL"]
    assert isinstance(found, vtr.Protocol)
    assert found.dataset in vtr.dataset_names()


# ---- the public names


def test_what_type_checkers_see_is_what_there_is() -> None:
    stub = (ROOT / "vtr" / "__init__.pyi").read_text(encoding="utf-8")
    assert stub == REFERENCE.stub(), "stale: run `python docs/make_reference.py`"
    tree = ast.parse(stub)
    declared = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    keywords = {arg.arg for arg in declared["train_head"].args.kwonlyargs}
    assert keywords >= set(TrainOptions.model_fields) - {"head", "seeds", "dry_run"}
    assert all(node.args.kwarg is None for node in declared.values())
    imported = {
        alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert set(vtr._HOMES) <= imported | declared.keys()
    assert set(vtr.__all__) <= set(dir(vtr))


def test_signatures_show_every_keyword_with_its_default() -> None:
    keywords = inspect.signature(vtr.evaluate_run).parameters
    assert keywords["k"].default == (1, 5, 10)
    assert "zero_shot" not in keywords
    assert all(p.kind is not p.VAR_KEYWORD for p in keywords.values())


def test_unknown_names_are_refused_with_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"setting.*smapler.*sampler"):
        vtr.open_workspace(tmp_path, smapler="uniform")
    workspace = vtr.open_workspace(tmp_path, videos=tmp_path, frames=4)
    assert (workspace.videos, workspace.frames) == (tmp_path, 4)
    with pytest.raises(UnknownNameError, match=r"no option named 'epoch'.*epochs"):
        vtr.train_head(workspace, epoch=3)
    with pytest.raises(UnknownNameError, match=r"option of vtr eval.*dualsoftmax.*dual_softmax"):
        vtr.evaluate_run(workspace, dualsoftmax=True)
    with pytest.raises(UnknownNameError, match=r"setting.*frame.*frames"):
        vtr.extract_features(workspace, frame=3)
    with pytest.raises(AttributeError, match="no attribute 'extrct'"):
        _ = vtr.extrct


def test_paths_given_in_python_start_at_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As flags do; those of the file start at the file."""
    for name in ("here/clips", "here/w", "w/clips"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "here" / "captions.csv").touch()
    (tmp_path / "w" / "vtr.toml").write_text('[data]\nvideos = "clips"\n')
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "w" / "below").mkdir()
    assert vtr.open_workspace("../w/below").videos == tmp_path / "w" / "clips"
    for folder in ("../w", "w", "new"):
        opened = vtr.open_workspace(folder, videos="clips", annotations="captions.csv", model="./m")
        assert opened.videos == tmp_path / "here" / "clips"
        assert opened.annotations == tmp_path / "here" / "captions.csv"
        assert opened.model == str(tmp_path / "here" / "m")
        assert opened.features.parent.resolve() == (tmp_path / "here" / folder).resolve()
    assert not Path("new").exists()


@pytest.mark.parametrize(
    ("folder", "settings", "message"),
    [
        ("nowhere", {}, r"no workspace nowhere: there is no such folder below .*videos=FOLDER"),
        ("file", {"videos": "."}, "no workspace file"),
        (".", {"videos": "nowhere"}, r"videos is /.*/nowhere; there is no such folder"),
        (".", {"videos": "file"}, r"videos is /.*/file; there is no such folder"),
        (".", {"videos": ".", "annotations": "x.csv"}, r"annotations is /.*x\.csv; there is no"),
        (".", {"frames": "3"}, "frames is '3'; it must be a whole number"),
        (3, {}, r"folder is 3 \(int\); it must be a path"),
    ],
)
def test_settings_given_in_python_are_checked(
    here: Path, folder: Any, settings: dict[str, Any], message: str
) -> None:
    (here / "file").touch()
    with pytest.raises(vtr.VtrError, match=message):
        vtr.open_workspace(folder, **settings)


ONE_WORD: Any = "x"
WRONG_CALLS = {
    "the workspace is 'x' (str); it must be what vtr.open_workspace": [
        lambda _: vtr.train_head(ONE_WORD, "meanP"),
        lambda _: vtr.evaluate_run(ONE_WORD),
        lambda _: vtr.extract_features(ONE_WORD),
        lambda _: vtr.open_features(ONE_WORD),
    ],
    "epochs is '3'; it must be a whole number, 0 or more": [
        lambda w: vtr.train_head(w, "meanP", epochs="3")
    ],
    "batch_size is True; it must be a whole number, 2 or more": [
        lambda w: vtr.train_head(w, "meanP", batch_size=True)
    ],
    "lr is [1]; it must be a number, above 0": [lambda w: vtr.train_head(w, lr=[1])],
    "teacher is 3; it must be a path, as text": [lambda w: vtr.train_head(w, teacher=3)],
    "head is 3; it must be a text": [lambda w: vtr.train_head(w, ONE_WORD and 3)],
    "name is 3; it must be one folder name": [lambda w: vtr.train_head(w, name=3)],
    "sampler is 3 (int); it must be a text, or None": [lambda w: vtr.open_features(w, 3)],
    "sampler is 3; it must be a text that is not empty": [lambda w: vtr.evaluate_run(w, sampler=3)],
    "run is 3; it must be a run, the path of one, or None": [lambda w: vtr.evaluate_run(w, 3)],
    "k is (1, 'x'); it must be whole numbers from 1 to 999999999, such as 1,5,10": [
        lambda w: vtr.evaluate_run(w, ks=[1, "x"])
    ],
    "k is 0; it must be whole numbers from 1": [lambda w: vtr.evaluate_run(w, k=0)],
    "k and ks are two names of one setting": [lambda w: vtr.evaluate_run(w, k=1, ks=(5,))],
    "force is 1; it must be true or false": [lambda w: vtr.evaluate_run(w, force=1)],
    "out is 3; it must be a path, as text": [lambda w: vtr.evaluate_run(w, out=3)],
    "results is [] (list); it must be a list of at least one": [lambda w: vtr.make_report([], "r")],
    "results is 'x' (str); it must be a list of at least one": [lambda w: vtr.make_report("x")],
    "a result is 3 (int); it must be what vtr.evaluate_run returns": [
        lambda w: vtr.make_report([3]),
        lambda w: vtr.compare_results(3, 4),
    ],
    "k is '1'; it must be a whole number": [lambda w: vtr.compare_results("a", "b", k="1")],
    "title is 3; it must be a text": [lambda w: vtr.make_report(["a"], title=3)],
}


@pytest.mark.parametrize("message", WRONG_CALLS)
def test_calls_with_wrong_types_are_told_what_is_allowed(here: Path, message: str) -> None:
    calls: list[Any] = WRONG_CALLS[message]
    for call in calls:
        with pytest.raises(vtr.VtrError, match=re.escape(message)):
            call(vtr.open_workspace(here))
    assert not list(here.iterdir())


def test_text_features_and_runs_are_short_in_print(tmp_path: Path) -> None:
    many = vtr.TextFeatures(tuple(map(str, range(5000))), np.zeros((5000, 8), np.float32))
    assert repr(many) == "<TextFeatures of 5,000 captions, 8 dimensions>"
    tokens, offsets = np.zeros((9, 8), np.float16), np.array([0, 4, 9])
    with_tokens = vtr.TextFeatures(("a", "b"), np.zeros((2, 8), np.float32), 0, tokens, offsets)
    assert repr(with_tokens) == "<TextFeatures of 2 captions, 8 dimensions, 9 token rows>"
    spec = ModelSpec("meanP", 8, TextSpec("projection", 8, 8))
    ids = frozenset(f"video{n}" for n in range(5000))
    run = vtr.Run(tmp_path, {"x": ["y"] * 5000}, spec, build_model(spec), ids, 3)
    assert repr(run) == f"<Run meanP, projection, epoch 3, in {tmp_path}>"


# ---- the notebook


def notebook_cells() -> list[str]:
    document = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return ["".join(c["source"]) for c in document["cells"] if c["cell_type"] == "code"]


def test_notebook_is_clean_and_uses_what_exists() -> None:
    document = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (document["nbformat"], document["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in document["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in document["cells"]:
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
    source = "\n".join(notebook_cells())
    assert len(used_names(source)) >= 8
    check_names(source)


def check_described(result: vtr.Result) -> None:
    """Compares a written result with what docs/format.md says of it."""
    text = (ROOT / "docs" / "format.md").read_text(encoding="utf-8")
    table = text.partition("### result.json, schema 1\n")[2].partition("\n### ")[0]
    keys = re.findall(r"^\| (.+?) \| ", table, re.MULTILINE)[1:]
    listed = {name for key in keys for name in re.findall(r"`(\w+)`", key)}
    assert listed == result.document.keys()
    for key in ("protocol", "coverage", "setup", "similarity"):
        (row,) = re.findall(rf"^\| `{key}` \| (.+) \|$", table, re.MULTILINE)
        assert set(re.findall(r"`(\w+)`", row)) == result.part(key).keys(), key
    for path in (result.per_query, result.per_video):
        described = text.partition(f"### {path.name}\n")[2].partition("\n### ")[0]
        header = path.read_text(encoding="utf-8").partition("\n")[0].split(",")
        assert [n for n in re.findall(r"`(\w+)`", described) if n in header][
            : len(header)
        ] == header


RUN_CELLS = """
import ast, json, sys
cells, changes = json.load(sys.stdin)
names = {"__name__": "__main__"}
for number, cell in enumerate(cells):
    body = ast.parse(cell).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), f"cell {number}", "exec"), names)
    if last is not None:
        shown = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names)
        if shown is not None:
            print(repr(shown))
    if number == 0:
        unknown = changes.keys() - names.keys()
        assert not unknown, f"the first cell no longer sets {unknown}"
        names.update(changes)
"""


def test_notebook_runs_from_videos_to_report(tmp_path: Path) -> None:
    """All cells in order in a fresh process; only the world is smaller and the training shorter."""
    changes = {"CLIPS": {"train": 4, "val": 2, "test": 10}, "EPOCHS": 1}
    ran = subprocess.run(
        [sys.executable, "-c", RUN_CELLS],
        input=json.dumps([notebook_cells(), changes]),
        cwd=tmp_path,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert "60 videos = 60 ok + 0 partial + 0 failed" in ran.stdout
    assert ran.stdout.count("N = 150") == 4  # two results of 30 test clips with five captions each
    assert "'accuracy': 50.0" in ran.stdout  # a mean of frames cannot tell twins apart
    page = tmp_path / "quickstart-world" / "report" / "report.html"
    assert str(page.relative_to(tmp_path)) in ran.stdout
    html = page.read_text(encoding="utf-8")
    assert "Quickstart" in html
    first, second = (
        vtr.load_result(tmp_path / "quickstart-world" / place)
        for place in ("features/zero-shot/demo", "runs/quickstart/eval/demo")
    )
    (found,) = vtr.compare_results(str(first.folder), second)
    for metric in found.metrics:
        a, b = (r.metrics[metric.metric]["value"] for r in (first, second))
        assert metric.difference == pytest.approx(b - a)
    for folder in ("features/zero-shot/demo", "runs/quickstart/eval/demo"):
        result = vtr.load_result(tmp_path / "quickstart-world" / folder)
        check_described(result)
        assert f"{result.metrics['t2v/R@1']['value']:.1f}" in html


# --- the walks through the code


def definitions(path: Path) -> set[str]:
    """The functions and classes of a file, methods as Class.method."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            methods = [item.name for item in node.body if isinstance(item, ast.FunctionDef)]
            found |= {f"{node.name}.{method}" for method in methods}
    return found


WALKS = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").split("\n## ")[1:]


@pytest.mark.parametrize(("walk", "before"), list(zip(WALKS, (31, 21, 18), strict=True)))
def test_a_walk_names_what_is_there_in_half_the_files_of_before(walk: str, before: int) -> None:
    rows = re.findall(r"^\| [^|`]+ \| (`[^|]+`) \| (`[^|]+`) \|$", walk, re.MULTILINE)
    assert len(rows) == len(re.findall(r"^\| (?!step|---)", walk, re.MULTILINE))
    visited = []
    for files, names in rows:
        paths = [ROOT / name for name in re.findall("`([^`]+)`", files)]
        known = set().union(*map(definitions, paths))
        assert set(re.findall("`([^`]+)`", names)) <= known, files
        visited += paths
    assert len(set(visited)) <= before // 2 + before % 2


def test_every_folder_of_the_architecture_exists() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for name in re.findall(r"`(vtr/[^`]*)`", page):
        assert (ROOT / name).exists(), name
