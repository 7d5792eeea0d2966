"""What the shell sees of every command: metavars, completed values, advice on commands."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from vtr.errors import ConfigError, VtrError

_METAVARS = {int: "N", float: "X", Path: "DIR", str: "TEXT"}
"""By the type of a value, where its option declares none."""
BARE: Mapping[str, str] = {"--ray": "local"}
"""What a flag means without its value: as the last word, or before another flag."""

ADVICE: Mapping[str, tuple[str, ...]] = {
    "To type a sentence and get its moments: vtr search, and vtr serve in the browser. The numbers "
    "of a search: vtr eval": ("find", "query", "index", "retrieve", "ask", "web", "ui", "app"),
    "To measure a run, or CLIP without training: vtr eval": (
        "test", "evaluate", "predict", "infer", "validate", "val", "score", "benchmark", "metrics",
    ),
    "To train a head: vtr train": ("fit", "finetune", "fine-tune", "learn", "tune"),
    "To embed the frames of videos: vtr extract": (
        "embed", "encode", "cache", "process", "run", "preprocess",
    ),
    "To copy videos small: vtr compress": ("resize", "transcode", "convert"),
    "To look at what there is: vtr data, vtr inspect (a store), vtr eda (a dataset)": (
        "ls", "list", "show", "info", "status", "stats", "datasets", "dataset", "stores",
    ),
    "Models come from the Hugging Face hub by their id (--model); heads: vtr heads": (
        "models", "model", "download",
    ),
    "To give a run or a store to the Hugging Face hub: vtr push. To get one: vtr pull": (
        "upload", "publish", "share", "fetch", "clone", "hub",
    ),
    "To draw results: vtr report": ("plot", "draw", "visualize", "visualise", "results"),
    "To begin a workspace: vtr init": ("new", "create", "setup", "start"),
}  # fmt: skip


class _Loading(dict[str, Any]):
    """The commands by name, in the table's order; each is imported when it is first taken."""

    def __init__(self, table: Mapping[str, tuple[str, str]]) -> None:
        super().__init__(dict.fromkeys(table))
        self.table = table

    def __getitem__(self, name: str) -> Any:
        if super().__getitem__(name) is None:
            (place, line), app = self.table[name], typer.Typer(rich_markup_mode="markdown")
            module, _, function = place.partition(":")
            made = getattr(importlib.import_module(f"vtr.commands.{module}"), function or module)
            if isinstance(made, typer.Typer):
                app.add_typer(made, name=name, help=line)
            else:
                app.command(name)(made)
            command = typer.main.get_group(app).commands[name]
            for each in _all_commands(command):
                context = typer.Context(each, help_option_names=["-h", "--help"])
                for parameter in each.get_params(context):
                    _dress(parameter)
            self[name] = command
        return super().__getitem__(name)

    def items(self) -> Any:
        return [(name, self[name]) for name in self]

    def values(self) -> Any:
        return [self[name] for name in self]


class Commands(TyperGroup):
    """The root: imports a command when it is called, and advises on commands there are not."""

    table: Mapping[str, tuple[str, str]]
    """Of each command its module in `vtr.commands`, with ":NAME" where what it calls there has
    another name, and its line in the root's help."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = _Loading(self.table)

    def list_commands(self, ctx: Any) -> list[str]:
        """Returns the names of all commands."""
        return list(self.table)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Returns a command that has nothing but its name and line, or None."""
        if cmd_name not in self.table:
            return None
        return TyperCommand(cmd_name, help=self.table[cmd_name][1], rich_help_panel=None)

    def invoke(self, ctx: Any) -> Any:
        """Runs the command; Typer takes any EOFError for Ctrl-D at a prompt: "Aborted." alone."""
        try:
            return super().invoke(ctx)
        except EOFError as error:
            if "marshal" not in str(error):
                raise RuntimeError("a file ends too early") from error
            raise VtrError(
                f"a module that Python has compiled is cut off ({error}), as after a full disk. "
                f"Delete the folders __pycache__ below {Path(__file__).parents[1]} and of the "
                "packages beside it, then run the same command again"
            ) from error

    def get_params(self, ctx: Any) -> list[Any]:
        """Returns the root's options; those of the completion come after everything else."""
        found = super().get_params(ctx)
        for parameter in found:
            _dress(parameter)
        return found

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Returns the command that is called; one that other programs have is answered."""
        if args and not ctx.resilient_parsing and self.get_command(ctx, args[0]) is None:
            for advice, names in ADVICE.items():
                if args[0].lower() in names:
                    ctx.fail(f"No such command '{args[0]}'. {advice}")
        name, command, rest = super().resolve_command(ctx, args)
        return name, command and self.commands[str(name)], _with_bare_values(rest)


def _with_bare_values(words: list[str]) -> list[str]:
    """Returns the words of a command, `BARE` put after flags that have no value.

    >>> _with_bare_values(["--ray", "--parts", "3", "--ray", "auto", "--ray"])
    ['--ray', 'local', '--parts', '3', '--ray', 'auto', '--ray', 'local']
    """
    complete = []
    for word, after in zip(words, [*words[1:], "-"], strict=False):
        complete += [word, BARE[word]] if word in BARE and after.startswith("-") else [word]
    return complete


def _all_commands(group: Any) -> Iterator[Any]:
    yield group
    for command in getattr(group, "commands", {}).values():
        yield from _all_commands(command)


def _dress(parameter: Any) -> None:
    """Gives a parameter its metavar, a name its check and its completion, a path its check."""
    if parameter.param_type_name == "argument":
        parameter.metavar = parameter.metavar or parameter.name.upper()
        parameter.display_type_rich = lambda ctx: None  # the name says it
    elif parameter.metavar is None:
        is_flag = getattr(parameter, "is_flag", False)
        annotation = parameter.type_descriptor.annotation
        parameter.metavar = "" if is_flag else _METAVARS.get(annotation)
    from vtr.choices import CHOICES

    choice = CHOICES.get(parameter.name)
    _refuse_in_our_words(parameter)
    if "Path" in str(parameter.type_descriptor.annotation):
        _read_paths(parameter)
    if choice is None or getattr(parameter, "is_flag", False):
        return
    former = parameter.callback

    def checked(context: Any, checked_parameter: Any, value: Any) -> Any:
        if isinstance(value, str) and not context.resilient_parsing:
            choice.check(value)
        return value if former is None else former(context, checked_parameter, value)

    parameter.callback = checked
    parameter._custom_shell_complete = lambda _context, _parameter, part: choice.complete(part)


def _refuse_in_our_words(parameter: Any) -> None:
    """Says of a wrong value what is allowed; Typer says what pydantic thought of it."""
    convert = parameter.process_value

    def process(context: Any, value: Any) -> Any:
        try:
            return convert(context, value)
        except typer.BadParameter as error:
            errors = getattr(error.__cause__, "errors", None)
            if errors is not None:
                from vtr.settings import type_in_words

                words = type_in_words(parameter.type_descriptor.annotation)
                error.message = f"{errors()[0]['input']!r}; it must be {words}"
            raise

    parameter.process_value = process


def _read_paths(parameter: Any) -> None:
    """Lets a path refuse the empty text of an unset variable: it would be the current folder.

    The home folder is expanded as in vtr.toml: shells leave `--videos=~/clips` as it is.
    """
    convert = parameter.process_value

    def read(text: Any, resilient: bool) -> Any:
        if not isinstance(text, str) or resilient:
            return text
        if not text.strip():
            name = next((o for o in parameter.opts if o.startswith("-")), parameter.metavar)
            raise ConfigError(f"{name} is {text!r}; it must be a path; the current folder is .")
        from vtr.remote import as_path

        return str(as_path(text)) if text.startswith("~") else text

    def process(context: Any, value: Any) -> Any:
        several = isinstance(value, list | tuple)
        texts = [read(text, context.resilient_parsing) for text in (value if several else (value,))]
        return convert(context, type(value)(texts) if several else texts[0])

    parameter.process_value = process
