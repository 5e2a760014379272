"""Settings: YAML and overrides become frozen sections, one a stage; each stage's own model checks its own section.

    file (YAML)  <  --set section.key=value  <  flags

An unknown section or key, a value of the wrong kind or out of range, a key given twice: one line that names the place
and, for a name, the nearest one that exists.
"""

from __future__ import annotations

import reprlib
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from elute.base.errors import ConfigError, near
from elute.base.files import write_atomically


class Section(BaseModel):
    """The settings of one stage: frozen, closed to names it does not know, and without NaN, which no record holds."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


S = TypeVar("S", bound=Section)

# What PyYAML's constructors let through for values such as `2024-13-45`, `0x_`, `!!bool maybe` or deep nesting.
_BAD_YAML = (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError)

# Values in messages are cut: a few aliases of aliases in a YAML file stand for gigabytes of text.
_shown = reprlib.Repr()
_shown.maxstring = _shown.maxother = 120
_shown.maxlevel = 3


def resolve(
    sections: Mapping[str, type[Section]],
    file: Path | Sequence[Path] | None = None,
    overrides: Iterable[str] = (),
    *,
    flags: Mapping[str, Mapping[str, Any]] | None = None,
    needed: Collection[str] | None = None,
) -> dict[str, Section]:
    """Read a recipe and return its sections, checked; `flags` hold what the command line gave, by section.

    All sections are returned, or those that are needed or given: one file may serve several commands. Of several files
    that give the same key the last one wins.
    """
    merged: dict[str, dict[str, Any]] = {name: {} for name in sections}
    said: dict[str, Path] = {}
    for path in [] if file is None else [file] if isinstance(file, Path) else file:
        for name, value in _sections_of(path, sections).items():
            merged[name].update(value)
            said[name] = path
    for text in overrides:
        section, key, value = _override(text, sections)
        merged[section][key] = value
    for name, given in (flags or {}).items():
        merged[name].update(given)
    wanted = [name for name in sections if needed is None or name in needed or merged[name]]
    return {name: build(sections[name], merged[name], where=_place(name, said.get(name))) for name in wanted}


def _sections_of(path: Path, sections: Mapping[str, type[Section]]) -> dict[str, dict[str, Any]]:
    """Read one file's sections."""
    values = read_yaml(path)
    for name, value in values.items():
        if name not in sections:
            raise ConfigError(f"unknown section {name!r}", where=path, remedy=near(str(name), sections))
        if value is not None and not isinstance(value, dict):
            raise ConfigError(
                f"section {name!r} must hold keys and values, not {_shown.repr(value)}",
                where=path,
                remedy=f"Write `{name}:` and its keys indented below it.",
            )
    # YAML reads the key `null` as nothing; there is a setting of that name.
    return {name: {"null" if k is None else k: v for k, v in (value or {}).items()} for name, value in values.items()}


def build(model: type[S], values: Mapping[str, Any], where: str) -> S:
    """Check the values of one section; the first fault becomes one line."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise _one_line(model, error, where) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; a key that is given twice is an error, since one of the two would be lost."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            "there is no such configuration file", where=path, remedy="Check the path given to --config."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read as YAML: {error}", where=path) from None
    try:
        value = yaml.load(text, Loader=_OnceLoader)  # noqa: S506  # a safe loader that also refuses duplicates
    except _BAD_YAML as error:
        reason = str(error).replace('in "<unicode string>", ', "at ")
        raise ConfigError(
            f"is not valid YAML: {reason}", where=path, remedy="Check the indentation and the colons there."
        ) from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError("must hold sections, each with its keys", where=path)
    return value


def save(path: Path, sections: Mapping[str, Section]) -> None:
    """Write the resolved settings beside the other sections that the file already has."""
    kept = read_yaml(path) if path.exists() else {}
    kept.update(plain(sections))
    data = yaml.safe_dump(kept, sort_keys=True, allow_unicode=True).encode()
    write_atomically(path, lambda handle: handle.write(data))


def plain(sections: Mapping[str, Section]) -> dict[str, dict[str, Any]]:
    """Sections as JSON holds them."""
    return {name: section.model_dump(mode="json") for name, section in sections.items()}


class _OnceLoader(yaml.SafeLoader):
    """YAML's safe loader, which refuses a key that is given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        if not isinstance(node, yaml.MappingNode):  # `!!map text` comes this way
            return super().construct_mapping(node, deep)
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            if isinstance(key, Hashable):
                seen.add(key)
        return super().construct_mapping(node, deep)


def _place(section: str, file: Path | None) -> str:
    return section if file is None else f"{file}, {section}"


def _override(text: str, sections: Mapping[str, type[Section]]) -> tuple[str, str, Any]:
    """Split `section.key=value`; the value is read as YAML."""
    name, equals, raw = text.partition("=")
    section, dot, key = (part.strip() for part in name.partition("."))
    if not equals or not dot or not key:
        raise ConfigError(
            f"--set {text!r} is not of the form section.key=value", remedy="For example: --set split.seed=7"
        )
    if section not in sections:
        raise ConfigError(f"--set {text!r}: unknown section {section!r}", remedy=near(section, sections))
    try:
        return section, key, yaml.load(raw, Loader=_OnceLoader)  # noqa: S506  # as in read_yaml
    except _BAD_YAML:
        return section, key, raw


def first_fault(error: ValidationError) -> tuple[str, str]:
    """Return the key and the message of the first fault, without what pydantic puts before a message of ours."""
    first = error.errors(include_url=False)[0]
    return ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")


def _one_line(model: type[Section], error: ValidationError, where: str) -> ConfigError:
    first = error.errors(include_url=False)[0]
    key, message = first_fault(error)
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        return ConfigError(f"unknown key {key!r}{more}", where=where, remedy=near(key, model.model_fields))
    if first["type"] == "missing":
        flag = "--" + key.replace("_", "-")
        return ConfigError(
            f"{key} is missing{more}", where=where, remedy=f"Give {flag}, or {key} in the configuration file."
        )
    if key:
        message = f"{key} = {_shown.repr(first['input'])}: {message}"
    return ConfigError(message + more, where=where)
