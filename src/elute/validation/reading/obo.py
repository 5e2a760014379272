"""An ontology in OBO format: its terms, what each is a kind or a part of, and what became of those that were given up.

1. The lines before the first `[Term]` say the version and the name space; other stanzas (`[Typedef]`) are passed over.
2. A value ends before an unescaped ` ! comment` and `{modifiers}`; quoted texts end at their own quotation mark.
3. A term that is obsolete has no parents. `replaced` and `alternative` lead from ids of old to those of now.
4. A term below one that the file lacks, though its id is of the file's own kind, says that the file was cut short.

Format: https://owlcollab.github.io/oboformat/doc/GO.format.obo-1_4.html. Ontologies are not trusted to be free of
cycles; a term is never its own ancestor.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from elute.base.errors import DamagedError, DataError
from elute.validation.reading.columns import lines

if TYPE_CHECKING:
    import polars as pl

_TAG = re.compile(r"([A-Za-z][\w-]*):(?:\s+(.*))?$")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ENDS = re.compile(r"(?<!\\)(?:\s!(?:\s.*)?$|\{[^{}]*\}\s*(?:!.*)?$)")
_ESCAPED = re.compile(r"\\(.)")
_SPACES = {"n": " ", "t": " ", "W": " "}
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_MOST = 2**28  # bytes: several times the largest ontology that is read here
_PART_OF = ("part_of", "BFO:0000050")
_ANEW = "Download it anew."
_TAGS = frozenset(
    (
        *("id", "name", "namespace", "def", "synonym", "alt_id", "is_a", "relationship"),
        *("is_obsolete", "replaced_by", "default-namespace", "data-version", "date"),
    )
)


@dataclass(frozen=True, eq=False)
class Ontology:
    """The terms of an ontology by their ids; obsolete ones have names and no parents."""

    version: str
    names: dict[str, str]
    parents: dict[str, tuple[str, ...]]  # by is_a
    part_of: dict[str, tuple[str, ...]]  # only of terms that are a part of another
    namespace: dict[str, str]
    replaced: dict[str, str]  # from an obsolete id to the one to use, where there is exactly one
    alternative: dict[str, str]  # from an id that was merged away
    obsolete: frozenset[str]
    definitions: dict[str, str]
    synonyms: dict[str, tuple[str, ...]]
    _known: dict[tuple[str, bool], frozenset[str]] = field(default_factory=dict, init=False, repr=False)

    def current(self, term: str) -> str | None:
        """Return the id that a term has now; None if there is none, or it was given up without one in its place."""
        seen = set()
        while term not in seen:
            seen.add(term)
            if term in self.names and term not in self.obsolete:
                return term
            term = self.replaced.get(term) or self.alternative.get(term) or term
        return None

    def ancestors(self, term: str, *, parts: bool = False) -> frozenset[str]:
        """Return all terms above one, itself not among them; with `parts` also through what it is a part of."""
        key = (term, parts)
        if key in self._known:
            return self._known[key]
        above: set[str] = set()
        left = [*self._above(term, parts=parts)]
        while left:
            other = left.pop()
            if other in above:
                continue
            above.add(other)
            if (known := self._known.get((other, parts))) is not None:
                above |= known
            else:
                left += self._above(other, parts=parts)
        self._known[key] = frozenset(above - {term})
        return self._known[key]

    def _above(self, term: str, *, parts: bool) -> tuple[str, ...]:
        above = self.parents.get(term, ())
        return (*above, *self.part_of.get(term, ())) if parts else above

    def unknown(self, terms: Iterable[str]) -> tuple[str, ...]:
        """Return those of some terms that have no id of now, each once and in order."""
        return tuple(term for term in dict.fromkeys(terms) if self.current(term) is None)

    def propagate(self, pairs: pl.DataFrame, *, parts: bool = False) -> pl.DataFrame:
        """Give each row's `term` and, in rows of their own, all terms above it; rows that are the same become one.

        Ids of old become those of now; a term that the ontology does not know (`unknown`) stays as it is.
        """
        import polars as pl

        below: list[str] = []
        above: list[str] = []
        for term in pairs["term"].drop_nulls().unique(maintain_order=True).to_list():
            now = self.current(term) or term
            terms = (now, *sorted(self.ancestors(now, parts=parts)))
            below += [term] * len(terms)
            above += terms
        order = pairs.columns
        links = pl.DataFrame({"term": below, "_above": above}, schema={"term": pl.String, "_above": pl.String})
        joined = pairs.join(links, on="term", how="inner", maintain_order="left_right")
        return joined.drop("term").rename({"_above": "term"}).select(order).unique(maintain_order=True)


class _Stanza(NamedTuple):
    line: int
    kind: str  # "" for the lines at the beginning of the file
    tags: dict[str, list[str]]

    def one(self, tag: str) -> str:
        return next(iter(self.tags.get(tag, ())), "")


@dataclass
class _Terms:
    """What the stanzas said so far."""

    path: Path
    names: dict[str, str] = field(default_factory=dict)
    parents: dict[str, tuple[str, ...]] = field(default_factory=dict)
    part_of: dict[str, tuple[str, ...]] = field(default_factory=dict)
    namespace: dict[str, str] = field(default_factory=dict)
    replaced: dict[str, str] = field(default_factory=dict)
    merged: list[tuple[str, str]] = field(default_factory=list)
    obsolete: set[str] = field(default_factory=set)
    definitions: dict[str, str] = field(default_factory=dict)
    synonyms: dict[str, tuple[str, ...]] = field(default_factory=dict)


def read_obo(path: Path) -> Ontology:
    """Read an ontology; what is no whole OBO file is refused."""
    path, terms, version, space = Path(path), _Terms(Path(path)), "", ""
    for stanza in _stanzas(path):
        if not stanza.kind:
            version = stanza.one("data-version") or stanza.one("date")
            space = stanza.one("default-namespace")
        elif stanza.kind == "Term":
            _add(terms, stanza, space)
    if not terms.names:
        raise DataError("holds no terms: is it an OBO file?", where=path)
    _check_whole(terms)
    dated = _DATE.search(version)
    alternative = _unambiguous(terms.merged, terms.names)
    return Ontology(
        version=dated[0] if dated else version,
        names=terms.names,
        parents=terms.parents,
        part_of=terms.part_of,
        namespace=terms.namespace,
        replaced=terms.replaced,
        alternative=alternative,
        obsolete=frozenset(terms.obsolete),
        definitions=terms.definitions,
        synonyms=terms.synonyms,
    )


def _stanzas(path: Path) -> Iterator[_Stanza]:
    now = _Stanza(0, "", {})
    for number, line in lines(path, most=_MOST):
        text = line.strip()
        if number == 1 and text[:1] in ("<", "{"):
            raise DataError(
                "is another format of an ontology", where=path, remedy="Download the file that ends in .obo."
            )
        if not text or text.startswith("!"):
            continue
        if text[0] == "[" and text[-1] == "]":
            yield now
            now = _Stanza(number, text[1:-1], {})
        elif found := _TAG.match(text):
            if found[1] in _TAGS:
                now.tags.setdefault(found[1], []).append(found[2] or "")
        elif now.kind:
            raise DamagedError(f"line {number:,} is no `tag: value`", where=path, remedy=_ANEW)
    yield now


def _add(terms: _Terms, stanza: _Stanza, space: str) -> None:
    ids, names = stanza.tags.get("id", []), stanza.tags.get("name", [])
    if len(ids) != 1 or len(names) > 1 or not _value(ids[0]):
        raise DamagedError(
            f"the term at line {stanza.line:,} has no id of its own, or two names", where=terms.path, remedy=_ANEW
        )
    term = _value(ids[0])
    if term in terms.names:
        raise DamagedError(f"line {stanza.line:,} begins the term {term} again", where=terms.path, remedy=_ANEW)
    terms.names[term] = _value(names[0]) if names else term
    terms.namespace[term] = _value(stanza.one("namespace")) or space
    terms.merged += [(_value(old), term) for old in stanza.tags.get("alt_id", [])]
    if found := _QUOTED.match(stanza.one("def")):
        terms.definitions[term] = _plain(found[1])
    quoted = (_QUOTED.match(text) for text in stanza.tags.get("synonym", []))
    if synonyms := tuple(dict.fromkeys(_plain(found[1]) for found in quoted if found)):
        terms.synonyms[term] = synonyms
    if _value(stanza.one("is_obsolete")).lower() == "true":
        terms.obsolete.add(term)
        terms.parents[term] = ()
        if len(new := {_value(text) for text in stanza.tags.get("replaced_by", [])}) == 1:
            terms.replaced[term] = new.pop()
        return
    terms.parents[term] = tuple(dict.fromkeys(_value(text) for text in stanza.tags.get("is_a", [])))
    related = (_value(text).split() for text in stanza.tags.get("relationship", []))
    if wholes := tuple(dict.fromkeys(words[1] for words in related if len(words) == 2 and words[0] in _PART_OF)):
        terms.part_of[term] = wholes


def _value(text: str) -> str:
    """Return an unquoted value without what may follow it."""
    while found := _ENDS.search(text):
        text = text[: found.start()].rstrip()
    return _plain(text).strip()


def _plain(text: str) -> str:
    return _ESCAPED.sub(lambda found: _SPACES.get(found[1], found[1]), text) if "\\" in text else text


def _check_whole(terms: _Terms) -> None:
    """Refuse a file whose terms lie below terms of the same kind that it does not hold."""
    kind = Counter(term.partition(":")[0] for term in terms.names).most_common(1)[0][0] + ":"
    above = (other for parents in (terms.parents, terms.part_of) for each in parents.values() for other in each)
    lacking = sorted({other for other in above if other not in terms.names and other.startswith(kind)})
    if lacking:
        raise DamagedError(
            f"is cut short or a part: terms lie below {len(lacking):,} that it lacks ({', '.join(lacking[:3])}, …)",
            where=terms.path,
            remedy=_ANEW,
        )


def _unambiguous(merged: list[tuple[str, str]], names: Mapping[str, str]) -> dict[str, str]:
    """Return where each id of old leads; one that is an id of now, or that two terms claim, leads nowhere."""
    often = Counter(old for old, _ in set(merged))
    return {old: new for old, new in merged if often[old] == 1 and old not in names}
