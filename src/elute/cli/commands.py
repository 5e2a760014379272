"""How a command is made: one place decides spelling, settings, JSON and messages for all groups.

A command's settings are the fields of its stage's own section: each becomes an option, its docstring the help. The
values come from `--config`, then `--set section.key=value`, then the options themselves.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, get_args, get_origin

import click

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from elute.base.recipe import Section
    from elute.base.run import Artifact


class Lazy(NamedTuple):
    """A command or group that is imported when it is asked for."""

    name: str
    target: str
    line: str


def imported(target: str) -> Any:
    """Import what stands at `module:name`."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


class Face:
    """What holds for every command: how names are spelt, and how much is said."""

    debug: ClassVar[bool] = False

    @staticmethod
    def normalise(name: str) -> str:
        """Spell with - what may be spelt with _."""
        return name.replace("_", "-")

    @staticmethod
    def louder(_context: click.Context, _option: click.Parameter, times: int) -> None:
        """Say more."""
        Face._level(times)

    @staticmethod
    def quieter(_context: click.Context, _option: click.Parameter, times: int) -> None:
        """Say less."""
        Face._level(-times)

    @staticmethod
    def debugging(_context: click.Context, _option: click.Parameter, value: bool) -> None:
        """Keep tracebacks."""
        Face.debug = Face.debug or value

    @staticmethod
    def _level(level: int) -> None:
        if level:
            from elute.base import console

            console.set_level(level)


# Every command has them itself: click keeps the first form that it makes of a command's help option.
SETTINGS: dict[str, Any] = {"token_normalize_func": Face.normalise, "help_option_names": ["-h", "--help"]}


class LazyGroup(click.Group):
    """A group whose members are named in a table, under headings, and imported on demand."""

    def __init__(self, *args: Any, sections: Mapping[str, Sequence[Lazy]], **settings: Any) -> None:
        super().__init__(*args, **{"context_settings": SETTINGS, **settings})
        self.sections = sections
        self.lazies = {lazy.name: lazy for lazies in sections.values() for lazy in lazies}

    def list_commands(self, _context: click.Context) -> list[str]:
        """Names in the order of the table."""
        return list(self.lazies)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        """Import a member."""
        lazy = self.lazies.get(Face.normalise(name))
        if lazy is None:
            return None
        command: click.Command = imported(lazy.target)
        return command

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a member, or name the near ones."""
        if args and self.get_command(context, args[0]) is None and not args[0].startswith("-"):
            from elute.base.errors import near

            raise click.UsageError(f"There is no command {args[0]!r}. {near(args[0], self.lazies)}", context)
        return super().resolve_command(context, args)

    def format_commands(self, _context: click.Context, formatter: click.HelpFormatter) -> None:
        """List the members under their headings, from the table alone."""
        for heading, lazies in self.sections.items():
            with formatter.section(heading):
                formatter.write_dl([(lazy.name, lazy.line) for lazy in lazies])


class Headed(click.Command):
    """A command whose options stand under the headings of the sections that they come from."""

    headings: Mapping[str, str] = MappingProxyType({})

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """List the options, those of one section together."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for option in self.get_params(context):
            if record := option.get_help_record(context):
                groups.setdefault(self.headings.get(option.name or "", "Options"), []).append(record)
        for heading, records in groups.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def command(
    name: str,
    section: type[Section] | Mapping[str, type[Section]] | None = None,
    *,
    recipe: Mapping[str, type[Section]] | None = None,
    show: Callable[[dict[str, Any]], str] | str | None = None,
) -> Callable[[Callable[..., Artifact]], click.Command]:
    """Make a command of a function that returns an Artifact; with a section, it is given as `config`.

    `show` says the answer for people; as `module:name` it is imported when there is one. With several sections,
    `config` is a dict of them. `recipe` is the table of all sections of the group: one file may hold settings for
    several commands.
    """
    asked = dict(section) if isinstance(section, Mapping) else {} if section is None else {name: section}

    def wrap(function: Callable[..., Artifact]) -> click.Command:
        def call(settings: tuple[Path, ...], overrides: tuple[str, ...], as_json: bool, **given: Any) -> None:
            from elute.base.env import load_env
            from elute.base.recipe import resolve

            load_env()
            flags = {part: _flags(model, given) for part, model in asked.items()}
            given = {
                key: value for key, value in given.items() if not any(key in m.model_fields for m in asked.values())
            }
            sections = resolve({**(recipe or {}), **asked}, settings, overrides, flags=flags, needed=set(flags))
            mine: Any = {part: sections[part] for part in asked}
            config = mine if isinstance(section, Mapping) else mine.get(name)
            artifact = function(**given, **({} if section is None else {"config": config}))
            answer = {"kind": artifact.kind, "path": str(artifact.path), **artifact.summary}
            said = imported(show) if isinstance(show, str) else show or _plain
            text = json.dumps(answer, ensure_ascii=False, default=str) if as_json else said(answer)
            if os.environ.get("RANK", "0") == "0":  # of the processes that torchrun starts, one answers
                click.echo(text)

        own = list(getattr(function, "__click_params__", []))[::-1]
        options = _options(asked.values())
        shared = _shared()
        params = [*own, *options, *shared]
        made = Headed(name, callback=call, help=function.__doc__, params=params, context_settings=SETTINGS)
        if isinstance(section, Mapping):
            titles = {part: (model.__doc__ or part).strip().rstrip(".") for part, model in asked.items()}
            made.headings = {f: titles[part] for part, model in [*asked.items()][::-1] for f in model.model_fields}
            made.headings |= {option.name or "": "Every command" for option in shared}
        return made

    return wrap


def _shared() -> list[click.Parameter]:
    """The options that every command has."""
    file = click.Path(path_type=Path, dir_okay=False)
    return [
        click.Option(
            ["--config", "settings"],
            type=file,
            multiple=True,
            help="Settings in YAML; options given here win over it. Of several files the last one wins.",
        ),
        click.Option(["--set", "overrides"], multiple=True, metavar="a.b=c", help="Set one key of a section."),
        click.Option(["--json", "as_json"], is_flag=True, help="Print one JSON object on standard output."),
        click.Option(["-v", "--verbose"], count=True, expose_value=False, callback=Face.louder, help="Say more."),
        click.Option(["-q", "--quiet"], count=True, expose_value=False, callback=Face.quieter, help="Say less."),
        click.Option(["--debug"], is_flag=True, expose_value=False, callback=Face.debugging, help="Show tracebacks."),
    ]


def _options(sections: Iterable[type[Section]]) -> list[click.Option]:
    """One option a field; a name that several sections have, as `seed`, is one option that all of them get."""
    fields: dict[str, list[FieldInfo]] = {}
    for model in sections:
        for name, field in model.model_fields.items():
            fields.setdefault(name, []).append(field)
    return [_option(name, *same) for name, same in fields.items()]


def _option(name: str, field: FieldInfo, *others: FieldInfo) -> click.Option:
    """Turn a field into an option; nothing is passed on unless it was given."""
    from pydantic_core import PydanticUndefined

    flag = "--" + Face.normalise(name)
    kind, many = _kind(field.annotation)
    default = field.get_default(call_default_factory=True)
    text = " ".join(dict.fromkeys(each.description or "" for each in (field, *others)))
    if default is PydanticUndefined:
        text += " [required]"
    elif default not in (None, (), False):
        shown = ",".join(f"{k}={v}" for k, v in default.items()) if isinstance(default, dict) else default
        text += f" [default: {shown}]"
    if kind is bool:
        return click.Option([f"{flag}/--no-{flag[2:]}", name], default=None, help=text)
    if kind is dict:
        return click.Option([flag, name], metavar="NAME=NUMBER,…", default=None, callback=_pairs, help=text)
    value: Any = click.Choice(get_args(kind)) if get_origin(kind) is Literal else kind
    return click.Option([flag, name], type=value, multiple=many, default=None, help=text)


def _kind(annotation: Any) -> tuple[Any, bool]:
    """Return the plain type behind an annotation, and whether it may be given several times."""
    parts = [part for part in get_args(annotation) if part is not type(None)]
    if get_origin(annotation) is tuple:
        return parts[0], True
    if get_origin(annotation) is dict:
        return dict, False
    if get_origin(annotation) is not Literal and parts:
        return _kind(parts[0])
    return annotation, False


def _pairs(_context: click.Context, option: click.Parameter, value: str | None) -> dict[str, float] | None:
    if value is None:
        return None
    try:
        return {name.strip(): float(share) for name, _, share in (p.partition("=") for p in value.split(","))}
    except ValueError:
        raise click.BadParameter(
            "write it as train=0.8,test=0.2: name=number, with commas between", param=option
        ) from None


def _flags(model: type[Section], given: Mapping[str, Any]) -> dict[str, Any]:
    """Choose of a command's values those of one section that were really given."""
    values = {name: given[name] for name in model.model_fields}
    return {name: value for name, value in values.items() if value is not None and value != ()}


def _plain(answer: Mapping[str, Any]) -> str:
    """Show a result as lines of name and value."""
    return "\n".join(f"{name}: {value}" for name, value in answer.items())
