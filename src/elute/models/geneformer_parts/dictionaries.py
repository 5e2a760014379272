"""Geneformer's two tables, each gene's token and each gene's median, as data.

They are published as pickles, which run code when read, so they are taken in another form: JSON (`{"gene": number}`),
CSV (two columns, with or without a header), and for the tokens also a text with one entry a line, the first being 0.
"""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

from elute.base.errors import ConfigError, DamagedError, DataError

TOKENS = ("token_dictionary.json", "token_dictionary.csv", "token_dictionary.txt")
MEDIANS = ("gene_medians.json", "gene_medians.csv")
_PICKLES = (".pkl", ".pickle")
_CONVERT = (
    "python -c \"import json, pickle; held = pickle.load(open('{pickle}', 'rb')); "
    "json.dump({{str(k): float(v) for k, v in held.items()}}, open('{json}', 'w'))\""
)


def find(folder: Path, names: tuple[str, ...]) -> Path:
    """Return the first of some files that a folder holds."""
    for name in names:
        if (folder / name).exists():
            return folder / name
    option = "tokens" if names is TOKENS else "medians"
    word = "token" if names is TOKENS else "median"
    for path in sorted(folder.iterdir()):
        if path.suffix in _PICKLES and word in path.name:
            raise _pickled(path, folder / names[0])
    remedy = f"Put {names[0]} there or give {option}=; docs/guide/other-models.md says how to make it."
    raise DataError(f"holds none of {', '.join(names)}", where=folder, remedy=remedy)


def read_tokens(path: Path) -> dict[str, int]:
    """Read which entry is which token; no two share one."""
    held = _read(path, listed=True)
    for name, number in held.items():
        if not (math.isfinite(number) and number >= 0 and number == int(number)):
            raise DamagedError(f"gives {name!r} the token {number}", where=path, remedy="Tokens count from 0.")
    tokens = {name: int(number) for name, number in held.items()}
    if len(set(tokens.values())) != len(tokens):
        raise DamagedError("gives several genes one token", where=path, remedy="Convert it anew.")
    return tokens


def read_medians(path: Path) -> dict[str, float]:
    """Read each gene's median over the cells that have it."""
    return _read(path)


def _read(path: Path, *, listed: bool = False) -> dict[str, float]:
    target = path.with_suffix(".json")
    if path.suffix in _PICKLES:
        raise _pickled(path, target)
    try:
        data = path.read_bytes()
        if data[:1] == b"\x80":  # how every pickle since protocol 2 begins
            raise _pickled(path, target)
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DamagedError("is no text", where=path, remedy="A table is JSON or CSV.") from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=path, remedy="Check the path.") from None
    if path.suffix == ".json":
        held = _json(text, path)
    elif path.suffix == ".csv":
        held = _csv(text, path)
    elif path.suffix == ".txt" and listed:
        lines = text.splitlines()
        held = {name.strip(): float(i) for i, name in enumerate(lines)}
        if len(held) != len(lines):
            raise DamagedError("names an entry twice", where=path, remedy="One entry a line, each once.")
    else:
        raise ConfigError(f"a table does not end in {path.suffix!r}", where=path, remedy="Give a .json or .csv.")
    if not held:
        raise DamagedError("is empty", where=path, remedy="Convert it anew.")
    return held


def _json(text: str, path: Path) -> dict[str, float]:
    try:
        held = json.loads(text)
    except (ValueError, RecursionError):
        raise DamagedError("is not whole JSON", where=path, remedy="Convert it anew.") from None
    if not isinstance(held, dict) or not all(type(number) in (int, float) for number in held.values()):
        raise DamagedError("is no table from genes to numbers", where=path, remedy='As in {"ENSG00000000003": 2}.')
    return {name: float(number) for name, number in held.items()}


def _csv(text: str, path: Path) -> dict[str, float]:
    held: dict[str, float] = {}
    for i, row in enumerate(csv.reader(text.splitlines())):
        if not row:
            continue
        try:
            name, number = row
            held[name.strip()] = float(number)
        except ValueError:
            if i == 0 and len(row) == 2:
                continue  # a header
            raise DamagedError(f"line {i + 1} is no gene and number", where=path, remedy="Give two columns.") from None
    return held


def _pickled(path: Path, target: Path) -> DataError:
    what = "is a pickle, which runs code when read, so elute reads none"
    how = _CONVERT.format(pickle=path, json=target)
    return DataError(what, where=path, remedy=f"If you trust where it is from, convert it yourself: {how}")
