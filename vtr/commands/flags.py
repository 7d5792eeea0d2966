"""From a verb's model to its command line: the fields of `Settings` become flags."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic.fields import FieldInfo

from vtr.settings import Settings, Source, fact, flag_of, flags, meaning, merge, plain_types

Command = Callable[..., None]
Parameter = inspect.Parameter

_CONFIG = Parameter(
    "config",
    Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="TOML file of options; flags win over it."),
    ],
)


class Only:
    """Says in a command's signature which fields of a model are its flags, and what they mean.

    `workspace: Annotated[Workspace, Only("videos", sampler="Whose frames.")]`.
    """

    def __init__(self, *names: str, **helps: str) -> None:
        self.names = (*names, *helps)
        self.helps = helps


def with_options(verb: str) -> Callable[[Command], Command]:
    """Returns a decorator: the command's `Settings` parameters are filled from its flags.

    What the user typed wins over `--config FILE`, that over the sections of `vtr.toml`, those over
    the model's defaults. Other parameters (`--json`, arguments) stay as they are declared. `verb`
    is the section of `vtr.toml` in which the options may stand.
    """

    def decorate(function: Command) -> Command:
        declared = inspect.signature(function, eval_str=True).parameters.values()
        models = {p.name: m for p in declared if (m := _model(p.annotation)) is not None}
        others = [p for p in declared if p.name not in models]

        def run(**given: Any) -> None:
            config = given.pop("config")
            filled = {
                name: resolve(model, _taken(given, only), verb=verb, config=config)
                for name, (model, only) in models.items()
            }
            function(**filled, **{p.name: given[p.name] for p in others})

        fields = {
            name: _parameter(name, model, only)
            for model, only in models.values()
            for name in only.names
        }
        listed = [
            *(p for p in others if _comes_first(p)),
            *fields.values(),
            _CONFIG,
            *(p for p in others if not _comes_first(p)),
        ]
        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [p.replace(kind=Parameter.KEYWORD_ONLY) for p in listed]
        )
        run.__name__, run.__doc__ = function.__name__, function.__doc__
        return run

    return decorate


def _model(annotation: Any) -> tuple[type[Settings], Only] | None:
    """Returns the model that a parameter takes and the fields that are flags; None for others."""
    kind, *facts = [annotation.__origin__, *annotation.__metadata__] if hasattr(
        annotation, "__metadata__"
    ) else [annotation]  # fmt: skip
    if not (isinstance(kind, type) and issubclass(kind, Settings)):
        return None
    return kind, next((f for f in facts if isinstance(f, Only)), Only(*kind.model_fields))


def _taken(given: Mapping[str, Any], only: Only) -> dict[str, Any]:
    return {name: None if given[name] == [] else given[name] for name in only.names}


def _comes_first(parameter: Parameter) -> bool:
    """Returns whether help lists it above the options: an argument, or what must be given."""
    facts = getattr(parameter.annotation, "__metadata__", ())
    is_argument = any(isinstance(fact, typer.models.ArgumentInfo) for fact in facts)
    return is_argument or parameter.default is Parameter.empty


def resolve(
    model: type[Settings], given: Mapping[str, Any], *, verb: str, config: Path | None = None
) -> Any:
    """Returns the options of a command typed in the current folder."""
    from vtr.workspace import Workspace, find_file, read_source, workspace_here

    sources: list[Source] = [flags(given)]
    if config is not None:
        sources.append(read_source(config, model, verb=verb))
    if model is Workspace:
        sources.append(Source(dict(workspace_here()), str))
    elif file := find_file(Path.cwd()):
        sources.append(read_source(file, model, verb=verb))
    return merge(model, sources)


def _parameter(name: str, model: type[Settings], only: Only) -> Parameter:
    field = model.model_fields[name]
    kind, flag = _typed(field), flag_of(name, field)
    if field.default == ():  # a flag that may be given several times
        kind = list[typing.get_args(field.annotation)[0]]  # type: ignore[misc]
    if kind is bool and fact(field, "file_key") != "-":
        flag = f"{flag}/--no-{flag.removeprefix('--')}"
    info = typer.Option(
        *filter(None, (flag, fact(field, "short"))),
        help=_help(model, name, only.helps.get(name)),
        show_default=False,
        metavar=fact(field, "metavar") or _choices(field) or None,
        rich_help_panel=fact(field, "group") or None,
    )
    return Parameter(
        name, Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, info]
    )


def _typed(field: FieldInfo) -> Any:
    """Returns the type that the shell's text is read as; the model checks the rest."""
    kinds = plain_types(field.annotation)
    if typing.get_origin(field.annotation) is Literal:  # a wrong word is wrong usage: exit code 2
        return field.annotation
    return kinds[0] if len(kinds) == 1 and kinds[0] in (bool, int, float, str, Path) else str


def _choices(field: FieldInfo) -> str:
    """Returns "exact|fast" where a few words are allowed; the model refuses others."""
    kind = plain_types(field.annotation)[0]
    return "|".join(typing.get_args(kind)) if typing.get_origin(kind) is Literal else ""


def _help(model: type[Settings], name: str, text: str | None) -> str:
    """Returns what `--help` says: the meaning, a command's own or the model's, and the default."""
    from vtr.workspace import Workspace

    field = model.model_fields[name]
    default = default_text(field)
    if model is Workspace:
        default = f"the workspace's, or {default}" if default else "the workspace's"
    text = text or meaning(field)
    return f"{text} (default: {default})" if default and "(default" not in text else text


def default_text(field: FieldInfo) -> str:
    """Returns a default in words; empty for a switch that is off."""
    default = field.default
    if default is None:
        return fact(field, "unset")
    if isinstance(default, bool):
        return "yes" if default else ""
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    return str(default)
