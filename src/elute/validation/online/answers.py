"""What an answer of a service can be: right, absent, to come later, or of no use; and how its parts are looked at.

    field(answer, "page.totalPages", int)       the value at a dotted path, of the kind that is expected
    items(answer, "_embedded.associations")     the list there, each item an object

Both raise `Unusable` with the path at which the answer differs from what is known of the service.
"""

from __future__ import annotations

from typing import Any, TypeVar, cast

from elute.base.errors import ServiceError

T = TypeVar("T")
_KINDS = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    list: "list",
    dict: "object",
}


class Unusable(ServiceError):  # noqa: N818
    """An answer that is not of the form, or not about the matter, that was asked for; it is asked for once more."""


class Later(ServiceError):  # noqa: N818
    """An answer that says to ask again later; `seconds` if it says when."""

    def __init__(self, what: str, *, seconds: float | None = None) -> None:
        super().__init__(what)
        self.seconds = seconds


class Absent(ServiceError):  # noqa: N818
    """The service says that there is no such thing (404)."""


class Resting(ServiceError):  # noqa: N818
    """The service failed so often that it is left alone for a while."""


def field(answer: Any, path: str, kind: type[T]) -> T:
    """Return the value at a dotted path; a whole number is a number too, and true is none."""
    return _of_kind(_at(answer, path), path, kind)


def maybe(answer: Any, path: str, kind: type[T]) -> T | None:
    """Return the value at a dotted path; None where it, or what it lies in, is absent or null."""
    here = answer
    for step in path.split("."):
        if here is None:
            return None
        if not isinstance(here, dict):
            raise Unusable(f"has no object around {path}")
        here = here.get(step)
    return None if here is None else _of_kind(here, path, kind)


def items(answer: Any, path: str = "") -> list[dict[str, Any]]:
    """Return the list of objects at a dotted path; with no path the answer itself."""
    found = answer if not path else _at(answer, path)
    if not isinstance(found, list):
        raise Unusable(f"has no list at {path or 'its top'}")
    for place, item in enumerate(found):
        if not isinstance(item, dict):
            raise Unusable(f"has no object at {path}[{place}]")
    return cast("list[dict[str, Any]]", found)


def _at(answer: Any, path: str) -> Any:
    if isinstance(answer, dict) and path in answer:  # most paths have one step, and there are very many
        return answer[path]
    here, gone = answer, ""
    for step in path.split("."):
        if not isinstance(here, dict) or step not in here:
            raise Unusable(
                f"lacks {gone}{step}" if isinstance(here, dict) else f"has no object at {gone[:-1] or 'its top'}"
            )
        here, gone = here[step], f"{gone}{step}."
    return here


def _of_kind(value: Any, path: str, kind: type[T]) -> T:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return cast("T", float(value))
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise Unusable(f"has no {_KINDS.get(kind, kind.__name__)} at {path}")
    return value
