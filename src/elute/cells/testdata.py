"""2,700 blood cells to try things on: PBMC 3k of 10x Genomics, fetched once, checked, and written as .h5ad.

1. The archive comes into a hidden neighbour of the file; its size and digest are compared before a byte of it is read.
2. Its three members are read where they lie: nothing is unpacked to a path that an archive names.
3. The .h5ad says where it came from, under which licence, and what its content's digest is; one that is there and right
   is left alone, and nothing is fetched.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import tarfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from elute.base import console, files
from elute.base.errors import ConfigError, DamagedError, DataError, EluteError, GuardError
from elute.base.run import Artifact

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

NAME = "pbmc3k.h5ad"
_MEMBERS = ("matrix.mtx", "genes.tsv", "barcodes.tsv")
_LARGEST = 200 << 20  # bytes of a member: four times what they hold
_MOST = 64  # members that are looked at
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Published:
    """An archive as its publisher has it."""

    url: str = "https://cf.10xgenomics.com/samples/cell-exp/1.1.0/pbmc3k/pbmc3k_filtered_gene_bc_matrices.tar.gz"
    size: int = 7_621_991
    sha256: str = "847d6ebd9a1ec9a768f2be7e40ca42cbfe75ebeb6d76a4c24167041699dc28b5"
    folder: str = "hg19"
    cells: int = 2_700
    genes: int = 32_738


PBMC3K = Published()


def download_test_data(
    output: Path, *, file: Path | None = None, force: bool = False, source: Published = PBMC3K, timeout: float = 30.0
) -> Artifact:
    """Write PBMC 3k as .h5ad into a folder, or to a file of that name; `file` is an archive downloaded by hand."""
    output = Path(output)
    path = output if output.suffix == ".h5ad" else output / NAME
    told = {"cells": source.cells, "genes": source.genes, "source": source.url, "licence": "CC BY 4.0, 10x Genomics"}
    if path.exists() and not force:
        if not _is_right(path, source):
            remedy = "Give --force to replace it, or choose another --output."
            raise GuardError("is there already, and does not hold this data", where=path, remedy=remedy)
        console.say(f"{path}: already there, unchanged; nothing was fetched")
        return Artifact("cells", path, {**told, "reused": True})
    files.make_folder(path.parent)
    if file is not None:
        _check(Path(file), source, remedy=f"Download {source.url} anew.")
        matrix, names = _read(Path(file), source)
    else:
        scratch = path.with_name(f".{path.stem}.tar.gz.part")
        try:
            _fetch(scratch, source, timeout)
            _check(scratch, source, where=source.url, remedy=_by_hand(source))
            matrix, names = _read(scratch, source)
        finally:
            scratch.unlink(missing_ok=True)
    _write(path, matrix, names, source=source)
    console.say(f"{path}: {source.cells:,} cells × {source.genes:,} genes (10x Genomics, CC BY 4.0)")
    return Artifact("cells", path, {**told, "reused": False})


def _by_hand(source: Published) -> str:
    return f"Try again later, or download {source.url} by hand and type: elute cells download-test-data --file FILE"


def _fetch(path: Path, source: Published, timeout: float) -> None:
    """Bring the archive to a file; whatever the network answers instead is told in one line."""
    where, remedy = source.url, _by_hand(source)
    if urlsplit(where).scheme not in ("https", "http"):
        raise ConfigError("is no address to fetch from", where=where, remedy="It begins with https://")
    host = urlsplit(where).netloc
    request = urllib.request.Request(where, headers={"User-Agent": "elute"})  # noqa: S310  # the scheme was looked at
    try:
        with (
            urllib.request.urlopen(request, timeout=timeout) as answer,  # noqa: S310
            files.disk_errors(path),
            path.open("wb") as handle,
            console.progress("download", source.size, unit="bytes") as bar,
        ):
            _receive(answer, handle, source, bar.advance)
    except urllib.error.HTTPError as error:
        error.close()
        raise DataError(f"{host} answered {error.code} {error.reason}", where=where, remedy=remedy) from None
    except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
        raise _unreached(host, error, source) from None
    except urllib.error.URLError as error:
        raise _unreached(host, error.reason, source) from None


def _unreached(host: str, reason: object, source: Published) -> EluteError:
    """What a network says that does not lead there."""
    if isinstance(reason, TimeoutError):
        what = f"{host} did not answer in time"
    else:
        what = f"{host} cannot be reached ({type(reason).__name__}: {reason})"
    return EluteError(what, where=source.url, remedy=f"Check the network. {_by_hand(source)}")


def _receive(answer: Any, handle: Any, source: Published, told: Callable[[int], None]) -> None:
    got = 0
    while piece := answer.read(_CHUNK):
        if not got and piece.lstrip()[:1] == b"<":
            what = "a web page came in place of the archive (of a proxy, or to log in?)"
            raise DamagedError(what, where=source.url, remedy=_by_hand(source))
        got += len(piece)
        if got > source.size:
            what = f"more came than the {source.size:,} bytes of the archive"
            raise DamagedError(what, where=source.url, remedy=_by_hand(source))
        handle.write(piece)
        told(len(piece))


def _check(path: Path, source: Published, *, remedy: str, where: str = "") -> None:
    """Compare size and digest with the published ones."""
    if not path.is_file():
        raise DataError("there is no such file", where=path, remedy="Check the path given to --file.")
    size = path.stat().st_size
    if size != source.size:
        what = f"has {size:,} bytes and not the {source.size:,} of the archive"
        raise DamagedError(what, where=where or path, remedy=remedy)
    if (digest := files.digest_file(path)) != source.sha256:
        what = f"is not the published archive: its SHA-256 begins {digest[:12]} and not {source.sha256[:12]}"
        raise DamagedError(what, where=where or path, remedy=remedy)


def _read(path: Path, source: Published) -> tuple[csr_matrix, dict[str, list[str]]]:
    """Read the counts, and the names of genes and cells, from the archive."""
    import polars as pl
    from scipy.sparse import csr_matrix

    held = _members(path, source)
    genes = [line.split("\t") for line in held["genes.tsv"].decode().splitlines()]
    cells = held["barcodes.tsv"].decode().splitlines()
    if {len(gene) for gene in genes} != {2} or (len(cells), len(genes)) != (source.cells, source.genes):
        what = f"names {len(cells):,} cells and {len(genes):,} genes, not {source.cells:,} and {source.genes:,}"
        raise DamagedError(what, where=path)
    lines = held["matrix.mtx"].partition(b"\n")
    head = next((n for n, line in enumerate(lines[2][:4096].splitlines()) if not line.startswith(b"%")), 0)
    try:
        schema = {"gene": pl.Int64, "cell": pl.Int64, "count": pl.Float32}
        table = pl.read_csv(
            io.BytesIO(lines[2]), separator=" ", has_header=False, skip_lines=head, schema=schema, glob=False
        )
    except pl.exceptions.PolarsError as error:
        raise DamagedError(f"its matrix.mtx cannot be read: {str(error).splitlines()[0]}", where=path) from None
    size, table = tuple(table.head(1).rows()), table[1:]
    within = table.select(
        (pl.col("gene").is_between(1, len(genes)) & pl.col("cell").is_between(1, len(cells)) & (pl.col("count") > 0))
        .fill_null(value=False)
        .all()
    ).item()
    if size != ((len(genes), len(cells), len(table)),) or not within or not lines[0].startswith(b"%%MatrixMarket"):
        raise DamagedError("its matrix.mtx is not that of its genes and cells", where=path)
    place = table["cell"].to_numpy() - 1, table["gene"].to_numpy() - 1
    matrix = csr_matrix((table["count"].to_numpy(), place), (len(cells), len(genes)))
    matrix.sort_indices()
    return matrix, {"cell": cells, "symbol": _unique([gene[1] for gene in genes]), "id": [gene[0] for gene in genes]}


def _members(path: Path, source: Published) -> dict[str, bytes]:
    """Read the three plain files; links, devices and what is too large are refused, and nothing is unpacked."""
    held: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for number, member in enumerate(archive):
                folder, _, name = member.name.rpartition("/")
                if number >= _MOST:
                    raise DamagedError(f"holds more than {_MOST} members", where=path)
                if name not in _MEMBERS or folder.rpartition("/")[2] != source.folder:
                    continue
                if not member.isreg() or member.size > _LARGEST or name in held:
                    raise DamagedError(f"its {name} is a link, too large, or there twice", where=path)
                opened = archive.extractfile(member)
                held[name] = b"" if opened is None else opened.read(_LARGEST)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise DamagedError(f"is no archive: {error}", where=path) from None
    if lost := [name for name in _MEMBERS if name not in held]:
        raise DamagedError(f"holds no {source.folder}/{lost[0]}", where=path)
    return held


def _unique(names: list[str]) -> list[str]:
    """Names, of which the second and later ones of a kind get a number that no other name has: A, A-1, A-2."""
    taken, seen, found = set(names), set[str](), []
    counts: dict[str, int] = {}
    for name in names:
        new = name
        while new in seen or (new != name and new in taken):
            counts[name] = counts.get(name, 0) + 1
            new = f"{name}-{counts[name]}"
        seen.add(new)
        found.append(new)
    return found


def _content(matrix: Any) -> str:
    """Digest of a matrix in CSR, read from memory or from a file."""
    sha = hashlib.sha256()
    for name, kind in (("indptr", "<i8"), ("indices", "<i8"), ("data", "<f4")):
        part = getattr(matrix, name) if hasattr(matrix, name) else matrix[name][()]
        sha.update(part.astype(kind).tobytes())
    return sha.hexdigest()


def _is_right(path: Path, source: Published) -> bool:
    """Whether a file holds these cells, and its numbers are those that were written."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            told = file["uns/source"]
            known = {name: told[name][()].decode() for name in ("sha256", "content")}
            return bool(known["sha256"] == source.sha256 and known["content"] == _content(file["X"]))
    except (OSError, KeyError, AttributeError, TypeError, ValueError):
        return False


def _write(path: Path, matrix: csr_matrix, names: dict[str, list[str]], *, source: Published) -> None:
    """Write AnnData's layout, https://anndata.readthedocs.io/en/stable/fileformat-prose.html, without anndata."""
    import h5py

    told = {
        "name": "PBMC 3k",
        "publisher": "10x Genomics",
        "licence": "CC BY 4.0, https://creativecommons.org/licenses/by/4.0/",
        "url": source.url,
        "sha256": source.sha256,
        "content": _content(matrix),
    }
    scratch = path.with_name(f".{path.name}.part")
    try:
        with files.disk_errors(path):
            with h5py.File(scratch, "w") as file:
                _mark(file, "anndata", "0.1.0")
                x = _mark(file.create_group("X"), "csr_matrix", "0.1.0")
                x.attrs["shape"] = matrix.shape
                for name in ("data", "indices", "indptr"):
                    x.create_dataset(name, data=getattr(matrix, name), compression="gzip")
                _table(file, "obs", {"_index": names["cell"]})
                _table(file, "var", {"_index": names["symbol"], "ensembl_id": names["id"]})
                told_here = _mark(
                    _mark(file.create_group("uns"), "dict", "0.1.0").create_group("source"), "dict", "0.1.0"
                )
                for name, text in told.items():
                    _mark(told_here.create_dataset(name, data=text, dtype=h5py.string_dtype()), "string", "0.2.0")
            scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def _table(file: Any, name: str, columns: dict[str, list[str]]) -> None:
    import h5py

    group = _mark(file.create_group(name), "dataframe", "0.2.0")
    group.attrs["_index"] = "_index"
    group.attrs.create("column-order", [c for c in columns if c != "_index"], dtype=h5py.string_dtype())
    for column, values in columns.items():
        _mark(group.create_dataset(column, data=values, dtype=h5py.string_dtype()), "string-array", "0.2.0")


def _mark(node: Any, kind: str, version: str) -> Any:
    node.attrs["encoding-type"], node.attrs["encoding-version"] = kind, version
    return node
