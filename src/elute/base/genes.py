"""Gene identifiers: what kind a list holds, what each one is called elsewhere, and what was lost on the way.

The table is HGNC's complete set (https://www.genenames.org/download/): human genes alone. A symbol means the gene
that is called so now, else the one that was (SEPT2 is SEPTIN2, though SEPTIN6 has it as an alias), else the one
with that alias. What names two genes in the same way, and a gene with two identifiers of the wanted kind, are
ambiguous and never settled by a guess. Case does not matter, nor does white space around an identifier.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from elute.base.errors import ConfigError, DamagedError, DataError, near

if TYPE_CHECKING:
    import polars as pl

Kind = Literal["hgnc", "symbol", "ensembl", "entrez", "uniprot"]
Species = Literal["human", "mouse", "other", "unknown"]

_KINDS = {
    "hgnc": "hgnc_id",
    "symbol": "symbol",
    "ensembl": "ensembl_gene_id",
    "entrez": "entrez_id",
    "uniprot": "uniprot_ids",
}
_COLUMNS = {**_KINDS, "previous": "prev_symbol", "alias": "alias_symbol", "locus_group": "locus_group"}
_GET = "Download hgnc_complete_set.txt anew from https://www.genenames.org/download/."

_MOST_BYTES = 2**29  # thirty times the size of today's table: what is larger is something else
_BLANK = frozenset({"", "nan", "NaN", "None", "<NA>"})  # as text, what pandas and numpy write for nothing

_ENSEMBL = re.compile(r"(ENS[A-Z]*)(\d{11})(\.\d+)?(_PAR_Y)?", re.IGNORECASE)
_PATTERNS = {
    "ensembl": re.compile(r"ENS(?:[A-Z]{3,4})?G\d{11}(?:\.\d+)?(?:_PAR_Y)?", re.IGNORECASE),
    "hgnc": re.compile(r"HGNC:\d+", re.IGNORECASE),
    "entrez": re.compile(r"\d+(?:\.0)?"),  # pandas makes a column of numbers with a gap into floats
    # https://www.uniprot.org/help/accession_numbers, with an isoform's number
    "uniprot": re.compile(r"(?:[OPQ]\d[A-Z\d]{3}\d|[A-NR-Z]\d(?:[A-Z][A-Z\d]{2}\d){1,2})(?:-\d+)?", re.IGNORECASE),
    # Ensembl transcripts and proteins are no genes, and would otherwise pass for symbols.
    "symbol": re.compile(r"(?!ENS[A-Z]*\d{11})(?=.*[A-Z])[A-Z\d][\w.@/()+:'-]*", re.IGNORECASE),
}
_READING_FRAME = re.compile(r"(?<=\d)orf(?=\d)")  # C1orf21: human, in spite of its small letters
_TITLE = re.compile(r"[A-Z\d](?=.*[a-z])|mt-")


@dataclass(frozen=True)
class Guess:
    """What a list of identifiers looks like; `share` of those that are not blank look like `kind`."""

    kind: Kind | Literal["unknown"]
    share: float
    species: Species


@dataclass(frozen=True)
class GeneMapping:
    """What became of a list of identifiers; each is named as it was given, as text, in the order given."""

    to: Kind
    kind: Kind | Literal["unknown"]  # what the identifiers were read as
    species: Species
    targets: tuple[str | None, ...]  # one an identifier given, None where it was lost
    mapped: dict[str, str]
    ambiguous: dict[str, tuple[str, ...]]  # the candidates; a gene without a target as its HGNC id
    unmapped: tuple[str, ...]  # no gene is called that
    lacking: tuple[str, ...]  # a known gene that has no identifier of the wanted kind
    repeated: tuple[str, ...]  # given more than once
    shared: dict[str, tuple[str, ...]]  # targets that several of the identifiers became
    blank: int  # None, NaN and white space

    def summary(self) -> str:
        """Say in one line what was kept and what was lost."""
        given = len(self.mapped) + len(self.ambiguous) + len(self.unmapped) + len(self.lacking)
        losses = (
            (len(self.ambiguous), "ambiguous"),
            (len(self.unmapped), "unknown"),
            (len(self.lacking), f"without {self.to}"),
            (self.blank, "blank"),
            (len(self.repeated), "given more than once"),
            (sum(map(len, self.shared.values())), f"sharing {len(self.shared)} targets"),
        )
        parts = [f"{len(self.mapped):,} of {given:,} identifiers ({self.kind}) mapped to {self.to}"]
        parts += [f"{n:,} {what}" for n, what in losses if n]
        if self.species in ("mouse", "other"):
            parts.append(f"they look like genes of {'mouse' if self.species == 'mouse' else 'another species'}")
        return "; ".join(parts)


def strip_version(identifier: str) -> str:
    """Drop an Ensembl version and GENCODE's mark of a Y copy; anything else, say RP11-34P13.7, is left alone."""
    text = identifier.strip()
    found = _ENSEMBL.fullmatch(text)
    return found[1] + found[2] if found else text


def kind_of(ids: Iterable[object]) -> Guess:
    """Guess what kind of identifiers a list holds, and of which species."""
    texts = [text.strip() for text in _texts(ids)]
    texts = [text for text in texts if text not in _BLANK]
    seen: Counter[str] = Counter()
    for text in texts:
        seen[next((kind for kind, form in _PATTERNS.items() if form.fullmatch(text)), "unknown")] += 1
    # Some symbols, H2AC11 for one, have the form of an accession: then the majority of the list decides.
    kinds: tuple[Kind, ...] = ("symbol", "ensembl", "hgnc", "entrez", "uniprot")
    best = max(kinds, key=lambda kind: seen[kind])
    if not seen[best]:
        return Guess("unknown", 0.0, "unknown")
    return Guess(best, seen[best] / len(texts), _species(best, texts))


def _species(kind: Kind, texts: list[str]) -> Species:
    if kind == "hgnc":
        return "human"
    votes: Counter[Species] = Counter()
    for text in texts:
        if kind == "ensembl":
            prefix = text[:7].upper()
            votes["human" if prefix[:4] == "ENSG" else "mouse" if prefix == "ENSMUSG" else "other"] += 1
        elif kind == "symbol":
            plain = _READING_FRAME.sub("ORF", text)
            votes["human" if plain == plain.upper() else "mouse" if _TITLE.match(plain) else "unknown"] += 1
    ranked = votes.most_common(2)
    tied = len(ranked) == 2 and ranked[0][1] == ranked[1][1]
    return "unknown" if tied or not ranked else ranked[0][0]


@dataclass(frozen=True, eq=False)
class GeneTable:
    """HGNC's genes, one a row: hgnc, symbol, ensembl, entrez, uniprot, previous, alias, locus_group.

    Several identifiers of one kind are joined by `|`.
    """

    genes: pl.DataFrame
    source: str
    _indexes: dict[str, dict[str, tuple[int, ...]]] = field(default_factory=dict, init=False, repr=False)
    _names: dict[str, list[list[str]]] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def read(cls, path: str | Path) -> GeneTable:
        """Read `hgnc_complete_set.txt`, compressed or not."""
        import polars as pl

        text = whole_text(Path(path))
        try:
            table = pl.read_csv(text, separator="\t", infer_schema=False, encoding="utf8")
        except pl.exceptions.PolarsError as cause:
            raise DamagedError("this is no table separated by tabs", where=path, remedy=_GET) from cause
        if lacks := [name for name in _COLUMNS.values() if name not in table.columns]:
            raise DataError(f"lacks the columns {', '.join(lacks)}", where=path, remedy=_GET)
        if not len(table):
            raise DamagedError("holds no genes", where=path, remedy=_GET)
        last = text.rstrip(b"\r\n").rpartition(b"\n")[2]
        if last.count(b"\t") != len(table.columns) - 1:
            raise DamagedError("the last line is cut short", where=path, remedy=_GET)
        tidy = {
            kind: pl.col(name).str.replace_all(r"[ |]*\|[ |]*", "|").str.strip_chars(" |")
            for kind, name in _COLUMNS.items()
        }
        genes = table.select(**tidy)
        bad = genes.select(~pl.col("hgnc").str.contains(r"^HGNC:\d+$").fill_null(False) | pl.col("symbol").is_null())
        if bad.to_series().any():
            line = (bad.to_series().arg_max() or 0) + 2
            raise DamagedError(f"line {line} names no gene", where=path, remedy=_GET)
        for kind in ("hgnc", "symbol"):
            twice = genes[kind].filter(genes[kind].is_duplicated())
            if len(twice):
                raise DamagedError(f"{twice[0]} is there more than once", where=path, remedy=_GET)
        return cls(genes, str(path))

    def __len__(self) -> int:
        return len(self.genes)

    def map(self, ids: Iterable[object], to: Kind = "hgnc", *, kind: Kind | None = None) -> GeneMapping:
        """Say what identifiers are called elsewhere; without a `kind`, the one that most of them look like."""
        for name, value in (("to", to), ("kind", kind)):
            if value is not None and value not in _KINDS:
                raise ConfigError(f"{name}={value!r} is no kind of identifier", remedy=near(str(value), _KINDS))
        given = _texts(ids)
        guess = kind_of(given)
        times = Counter(text for text in given if text.strip() not in _BLANK)
        read_as = kind or self._kind(guess, times)
        names = self._identifiers(to)
        index = {} if read_as == "unknown" else self._index(read_as)
        mapped: dict[str, str] = {}
        ambiguous: dict[str, tuple[str, ...]] = {}
        unmapped, lacking = [], []
        for text in times:
            rows = index.get(_folded(text, read_as), ())
            found = tuple(dict.fromkeys(name for row in rows for name in names[row]))
            if not rows:
                unmapped.append(text)
            elif len(rows) == 1 and not found:
                lacking.append(text)
            elif len(rows) == 1 and len(found) == 1:
                mapped[text] = found[0]
            else:
                each = (names[row] or self._identifiers("hgnc")[row] for row in rows)
                ambiguous[text] = tuple(dict.fromkeys(name for part in each for name in part))
        sources: dict[str, list[str]] = {}
        for text, target in mapped.items():
            sources.setdefault(target, []).append(text)
        return GeneMapping(
            to=to,
            kind=read_as,
            species=guess.species,
            targets=tuple(mapped.get(text) for text in given),
            mapped=mapped,
            ambiguous=ambiguous,
            unmapped=tuple(unmapped),
            lacking=tuple(lacking),
            repeated=tuple(text for text, n in times.items() if n > 1),
            shared={target: tuple(texts) for target, texts in sources.items() if len(texts) > 1},
            blank=len(given) - times.total(),
        )

    def _kind(self, guess: Guess, texts: Iterable[str]) -> Kind | Literal["unknown"]:
        """Choose between accessions and the symbols that look like them by what the table knows."""
        if guess.kind != "uniprot":
            return guess.kind
        known = {
            kind: sum(_folded(text, kind) in self._index(kind) for text in texts) for kind in ("uniprot", "symbol")
        }
        return "symbol" if known["symbol"] > known["uniprot"] else "uniprot"

    def _identifiers(self, kind: str) -> list[list[str]]:
        """Return the identifiers of one kind of each gene: none, one or several."""
        if kind not in self._names:
            self._names[kind] = [text.split("|") if text else [] for text in self.genes[kind].to_list()]
        return self._names[kind]

    def _index(self, kind: str) -> dict[str, tuple[int, ...]]:
        if kind not in self._indexes:
            index = _inverted(self._identifiers(kind), kind)
            if kind == "symbol":
                index = _inverted(self._identifiers("alias"), kind) | (
                    _inverted(self._identifiers("previous"), kind) | index
                )
            self._indexes[kind] = index
        return self._indexes[kind]


def _inverted(names: list[list[str]], kind: str) -> dict[str, tuple[int, ...]]:
    index: dict[str, tuple[int, ...]] = {}
    for row, each in enumerate(names):
        for name in each:
            rows = index.setdefault(_folded(name, kind), (row,))
            if rows[-1] != row:
                index[_folded(name, kind)] = (*rows, row)
    return index


def _folded(text: str, kind: str) -> str:
    """Bring an identifier into the form in which two that mean the same are equal."""
    text = text.strip().upper()
    text = strip_version(text) if text.startswith("ENS") else text
    if kind == "entrez":
        return text.removesuffix(".0").lstrip("0")
    if kind == "hgnc":
        return text if text.startswith("HGNC:") else f"HGNC:{text}"
    return text.partition("-")[0] if kind == "uniprot" else text


def _texts(ids: Iterable[object]) -> list[str]:
    if isinstance(ids, str | bytes):
        raise DataError("one text where a list of identifiers is expected", remedy=f"Write [{ids!r}].")
    try:
        return [each.decode(errors="replace") if isinstance(each, bytes) else str(each) for each in ids]
    except TypeError as cause:
        raise DataError(f"identifiers come as a list, not as {type(ids).__name__}") from cause


def whole_text(path: Path, *, larger: str = "far larger than HGNC's table", remedy: str = _GET) -> bytes:
    """Read a table of genes, compressed or not; what is larger than any such table is refused."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            text = file.read(_MOST_BYTES + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as cause:
        raise DamagedError("the compressed file is cut short or altered", where=path, remedy=remedy) from cause
    except OSError as cause:
        raise DataError(f"cannot be read ({cause.strerror})", where=path, remedy=remedy) from cause
    if len(text) > _MOST_BYTES:
        raise DamagedError(larger, where=path, remedy=remedy)
    return text
