"""Writes what the documentation says about commands, datasets, protocols, heads and samplers.

`docs/cli.md` is made whole from the help texts; in the other pages the blocks between
`<!-- generated: NAME -->` and `<!-- end -->` are replaced. A test compares the answer with the
files, so that they cannot go stale. Run it as `python docs/make_reference.py`.
"""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from typer.main import get_command

from vtr.cli import app

FOLDER = Path(__file__).parent
CLI_PAGE = "cli.md"
_BLOCK = re.compile(r"<!-- generated: (\w+) -->\n.*?<!-- end -->", re.DOTALL)
_HIDDEN = {"--help", "--install-completion", "--show-completion"}


def commands(command: Any = None, path: str = "vtr") -> Iterator[tuple[str, Any]]:
    """Yields ("vtr data list", command) for the root and everything below it, in order."""
    command = get_command(app) if command is None else command
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(child, f"{path} {name}")


def cli_page() -> str:
    """Returns `cli.md`."""
    parts = [
        "# Commands\n\n"
        "Made from the help texts by `docs/make_reference.py`; `vtr COMMAND --help` says the same. "
        "Every command also takes `--help` (`-h`).\n"
    ]
    parts += [_section(path, command) for path, command in commands()]
    return "\n".join(parts)


def _section(path: str, command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if _is_shown(p)]
    usage = [path, *(["[OPTIONS]"] if options else []), *map(_placeholder, arguments)]
    if getattr(command, "commands", None):
        usage.append("COMMAND")
    parts = [f"## {path}\n", f"{_text(command.help)}\n", f"```\n{' '.join(usage)}\n```\n"]
    if arguments:
        rows = [("`" + _placeholder(p).replace("|", "\\|") + "`", _meaning(p)) for p in arguments]
        parts.append(_table(("argument", "meaning"), rows))
    if options:
        rows = [(_names(p), _meaning(p)) for p in options]
        parts.append(_table(("option", "meaning"), rows))
    return "\n".join(parts)


def _is_shown(parameter: Any) -> bool:
    return parameter.param_type_name == "option" and not _HIDDEN & set(parameter.opts)


def _placeholder(parameter: Any) -> str:
    name = (parameter.metavar or parameter.name).strip("[]{}").upper()
    name += "..." if parameter.nargs != 1 else ""
    return name if parameter.required else f"[{name}]"


def _names(parameter: Any) -> str:
    names = ", ".join(f"`{name}`" for name in parameter.opts)
    if parameter.secondary_opts:
        names += " / " + ", ".join(f"`{name}`" for name in parameter.secondary_opts)
    kind = "" if getattr(parameter, "is_flag", False) else f" {_kind(parameter)}"
    return names + kind


def _kind(parameter: Any) -> str:
    annotation = parameter.type_descriptor.annotation
    if get_origin(annotation) is Literal:
        return " \\| ".join(map(str, get_args(annotation)))
    return str(parameter.metavar).replace("|", "\\|")


def _meaning(parameter: Any) -> str:
    words = _text(parameter.help or "")
    if parameter.required:
        return f"{words} Required."
    default = parameter.default
    if parameter.param_type_name == "option" and parameter.secondary_opts:
        if not parameter.show_default:
            return words
        return f"{words} Default: `{(parameter.opts if default else parameter.secondary_opts)[0]}`."
    plain = isinstance(default, str | int | float | Path) and not isinstance(default, bool)
    if plain and str(default) and "(default" not in words:
        words += f" Default: `{default}`."
    return words


def _text(help_text: str | None) -> str:
    """Returns help as Markdown: paragraphs kept, lines joined, bars escaped."""
    paragraphs = re.split(r"\n\s*\n", (help_text or "").split("\f")[0].strip())
    return "\n\n".join(" ".join(p.split()) for p in paragraphs).replace("|", "\\|")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def datasets_block() -> str:
    """Returns what each reader says of its dataset."""
    from vtr.datasets.registry import dataset_info, dataset_names

    parts = []
    for name in dataset_names():
        summary, info = dataset_info(name)
        splits = ", ".join(
            key if size is None else f"{key} {size:,}" for key, size in info.splits.items()
        )
        files = "".join(f"    - {_files(names)}: {what}\n" for names, what in info.files)
        parts.append(
            f"### {name}\n\n{summary}\n\n- splits: {splits or 'those you give'}\n"
            f"- queries: {info.captions}\n- files:\n{files}- from: {info.source}\n"
        )
    return "\n".join(parts)


def _files(names: str) -> str:
    return ", ".join(f"`{name}`" for name in names.split(", "))


def protocols_block() -> str:
    """Returns the table of protocols and their sources."""
    from vtr.evaluate.protocol import load_protocol, protocol_names

    found = [load_protocol(name) for name in protocol_names()]
    rows = [
        (
            f"`{p.name}`",
            p.dataset,
            "yours" if p.num_videos is None else f"{p.num_videos:,}",
            "yours" if p.num_queries is None else f"{p.num_queries:,}",
            p.captions,
            str(p.train_split),
            p.val_split or "held out",
        )
        for p in found
    ]
    head = ("protocol", "dataset", "videos", "queries", "captions", "trains on", "best epoch on")
    sources = "".join(f"- `{p.name}`: {p.source}\n" for p in found)
    return f"{_table(head, map(_escaped, rows))}\nSources:\n\n{sources}"


def heads_block() -> str:
    """Returns the table of heads, their options and sources."""
    from vtr.train.headlist import describe_heads

    found = describe_heads()
    head = ("head", "what it does", "parameters", "needs", "a pair costs", "index")
    rows = [
        (
            f"`{facts.name}`",
            facts.summary,
            f"{facts.num_parameters:,}",
            ", ".join(facts.needs) or "-",
            facts.cost,
            facts.index,
        )
        for facts in found
    ]
    more = ("head", "options with their defaults", "presets", "source")
    details = [
        (
            f"`{facts.name}`",
            _options(facts.options),
            ", ".join(f"`preset={preset}`" for preset in facts.presets) or "-",
            facts.source,
        )
        for facts in found
    ]
    return f"{_table(head, map(_escaped, rows))}\n{_table(more, map(_escaped, details))}"


def samplers_block() -> str:
    """Returns the table of samplers."""
    from vtr.extract.samplers.base import describe_samplers

    rows = [
        (f"`{info['name']}`", info["summary"], _options(info["options"]), info["cost"])
        for info in describe_samplers()
    ]
    return _table(("sampler", "what it keeps", "options", "cost"), map(_escaped, rows))


def _options(options: Mapping[str, object]) -> str:
    words = " ".join(f"{key}={value}" for key, value in options.items())
    return f"`{words}`" if words else "-"


def _escaped(row: Sequence[str]) -> list[str]:
    return [cell.replace("|", "\\|").replace("\n", " ") for cell in row]


BLOCKS: Mapping[str, Callable[[], str]] = {
    "datasets": datasets_block,
    "protocols": protocols_block,
    "heads": heads_block,
    "samplers": samplers_block,
}


def pages(folder: Path = FOLDER) -> dict[Path, str]:
    """Returns every page that holds something generated, as it should be."""
    made = {folder / CLI_PAGE: cli_page()}
    for path in sorted(folder.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        if path.name != CLI_PAGE and _BLOCK.search(text):
            made[path] = _BLOCK.sub(_filled, text)
    return made


def _filled(block: re.Match[str]) -> str:
    name = block.group(1)
    return f"<!-- generated: {name} -->\n\n{BLOCKS[name]()}\n<!-- end -->"


STUB = FOLDER.parent / "vtr" / "__init__.pyi"


def stub() -> str:
    """Returns `vtr/__init__.pyi`: where each public name comes from, and its keywords."""
    import vtr

    signatures = {
        name: inspect.signature(value)
        for name in vtr._HOMES
        if hasattr(value := getattr(vtr, name), "__signature__") and inspect.isfunction(value)
    }
    homes: dict[str, set[str]] = {
        "collections.abc": {"Sequence"}, "pathlib": {"Path"}, "typing": {"Literal"},
    }  # fmt: skip
    for name, home in vtr._HOMES.items():
        if name not in signatures:
            homes.setdefault(home, set()).add(name)
    for signature in signatures.values():
        for word in set(re.findall(r"[A-Z]\w+", _declared(signature))) - {
            *vtr._HOMES, "Sequence", "Path", "Literal", "None", "True", "False"
        }:  # fmt: skip
            homes.setdefault(_RETURNED[word], set()).add(word)
    lines = ["# Made by docs/make_reference.py from the functions and the models of their options."]
    lines += [
        f"from {home} import {', '.join(sorted(names))}" for home, names in sorted(homes.items())
    ]
    lines += [f"def {name}{_declared(value)}: ..." for name, value in signatures.items()]
    lines += ["__version__: str", f"__all__ = {sorted(vtr.__all__)!r}"]
    source = "\n".join(lines)
    for step in (["check", "--select", "I", "--fix", "--quiet"], ["format"]):
        source = subprocess.run(
            [sys.executable, "-m", "ruff", *step, "--stdin-filename", str(STUB), "-"],
            input=source, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
    return source


_RETURNED = {
    "Answer": "vtr.searching.library",
    "Comparison": "vtr.evaluate.compare",
    "ExtractReport": "vtr.extract.pipeline",
    "Push": "vtr.api.push",
}


def _declared(signature: inspect.Signature) -> str:
    """Returns a signature as source; annotations are texts, and defaults stay out of a stub."""
    parts, bare = [], True
    for p in signature.parameters.values():
        if p.kind is p.KEYWORD_ONLY and bare:
            parts.append("*")
        bare &= p.kind in (p.POSITIONAL_OR_KEYWORD, p.POSITIONAL_ONLY)
        star = "*" if p.kind is p.VAR_POSITIONAL else ""
        default = "" if p.default is p.empty else " = ..."
        parts.append(f"{star}{p.name}: {p.annotation}{default}")
    return f"({', '.join(parts)}) -> {signature.return_annotation}"


if __name__ == "__main__":
    for page, content in (pages() | {STUB: stub()}).items():
        page.write_text(content, encoding="utf-8")
