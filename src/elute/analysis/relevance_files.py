"""What relevance leaves on disk: relevance/, refs/ and token_maps/, each with its index.

    relevance/<gene>.parquet           gene, code, relevance, positive, negative, share, samples, mean_activation, …
    relevance/<gene>.samples.parquet   gene, sample_id, code, relevance: the codes that matter most in each sample
    relevance/conservation.parquet     gene, worst_relative, bias_share, epsilon_share, n, masked_share
    relevance/index.json               what was explained and by which rule; each gene's files
    refs/<gene>.parquet                gene, code, kind, target, sign, rank, sample_id, tile_id, row, col, …
    token_maps/<gene>/<code>.npz       maps [n, rows, cols]; <code>_<rank>.png, <code>_minus_<rank>.png
    token_maps/index.parquet           gene, code, rank, sample_id, tile_id, file, at, low, high, sign

Names of genes are made safe by `token_maps.safe_name`; tables hold the true ones. Files of other genes that an earlier
run left are taken away, unless they are to be kept.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from elute.analysis.relevance import Relevance
from elute.analysis.token_maps import CodeMaps, Map, png, safe_name
from elute.base import files

if TYPE_CHECKING:
    import polars as pl

FOLDERS = ("relevance", "refs", "token_maps")


def write_relevance(
    folder: Path,
    relevances: Sequence[Relevance],
    maps: Sequence[CodeMaps] = (),
    *,
    codes: Sequence[Sequence[int]] | None = None,
    keep_others: bool = False,
) -> list[Path]:
    """Write what was found for some genes; `codes` are those of each gene whose references are written.

    Returns the files. With `keep_others` what is there of other genes stays, in the indexes too.
    """
    import polars as pl

    for name in FOLDERS:
        files.make_folder(folder / name)
    genes = [relevance.gene for relevance in relevances]
    written: list[Path] = []
    for i, relevance in enumerate(relevances):
        safe, gene = safe_name(relevance.gene), pl.lit(relevance.gene, dtype=pl.String).alias("gene")
        table = relevance.codes.filter(pl.col("mean_absolute") > 0)
        written.append(_parquet(folder / "relevance" / f"{safe}.parquet", table.select(gene, pl.all())))
        if relevance.samples is not None:
            path = folder / "relevance" / f"{safe}.samples.parquet"
            written.append(_parquet(path, relevance.samples.table().select(gene, pl.all())))
        lists = relevance.references if codes is None else relevance.references_of(codes[i])
        written.append(_parquet(folder / "refs" / f"{safe}.parquet", lists.select(gene, pl.all())))
    written += _write_maps(folder / "token_maps", maps, genes, keep_others=keep_others)
    written += _write_indexes(folder / "relevance", relevances, keep_others=keep_others)
    if not keep_others:
        _clear(folder, {*written})
    return written


def _write_maps(folder: Path, maps: Sequence[CodeMaps], genes: Sequence[str], *, keep_others: bool) -> list[Path]:
    import polars as pl

    written, rows = [], []
    for each in maps:
        place = files.make_folder(folder / safe_name(each.gene))
        archive = place / f"{each.code}.npz"
        files.write_atomically(archive, partial(_archive, each.maps))
        written.append(archive)
        for at, spot in enumerate(each.spots):
            picture = place / f"{each.code}{'_minus' if spot.sign == '-' else ''}_{spot.rank}.png"
            drawn = each.maps[at]
            files.write_atomically(picture, partial(_picture, drawn))
            written.append(picture)
            low, high = float(np.nanmin(drawn)), float(np.nanmax(drawn))
            name = archive.relative_to(folder).as_posix()
            rows.append((each.gene, each.code, spot.rank, spot.sample_id, spot.tile_id, name, at, low, high, spot.sign))
    schema: dict[str, Any] = {
        "gene": pl.String, "code": pl.Int32, "rank": pl.Int32, "sample_id": pl.String, "tile_id": pl.String,
        "file": pl.String, "at": pl.Int32, "low": pl.Float32, "high": pl.Float32, "sign": pl.String,
    }  # fmt: skip
    index = pl.DataFrame(rows, schema=schema, orient="row")
    return [
        *written,
        _parquet(folder / "index.parquet", _with_others(folder / "index.parquet", index, genes, keep_others)),
    ]


def _write_indexes(folder: Path, relevances: Sequence[Relevance], *, keep_others: bool) -> list[Path]:
    import polars as pl

    genes = [relevance.gene for relevance in relevances]
    names = ("worst_relative", "bias_share", "epsilon_share", "n", "masked_share")
    kinds = {"gene": pl.String, **dict.fromkeys(names, pl.Float64), "n": pl.Int64}
    rows = [(r.gene, *(r.conservation[name] for name in names)) for r in relevances]
    table = pl.DataFrame(rows, schema=kinds, orient="row")
    path = folder / "conservation.parquet"
    written = [_parquet(path, _with_others(path, table, genes, keep_others))]
    index = folder / "index.json"
    told: dict[str, Any] = {}
    if keep_others and index.is_file():
        held = files.read_json(index, what="an index of relevance")
        told = held.get("genes", {}) if isinstance(held, dict) else {}
    for relevance in relevances:
        told[relevance.gene] = {
            "files": safe_name(relevance.gene),
            "rule": relevance.rules.head.name,
            "epsilon": relevance.rules.head.epsilon,
            "linear": relevance.same_order,
            "note": SAME_ORDER if relevance.same_order else "",
        }
    linear = all(entry.get("linear") is True for entry in told.values())
    files.write_json(index, {"linear": linear, "genes": dict(sorted(told.items()))})
    return [*written, index]


SAME_ORDER = (
    "The head is linear: for a code of positive weight, RelMax that is not normed ranks samples as ActMax does, "
    "so that the two lists hold the same samples."
)


def _with_others(path: Path, table: pl.DataFrame, genes: Sequence[str], keep_others: bool) -> pl.DataFrame:
    import polars as pl

    if not keep_others or not path.is_file():
        return table
    held = pl.read_parquet(path, glob=False).filter(~pl.col("gene").is_in(list(genes)))
    return pl.concat([held, table]).sort("gene", maintain_order=True)


def _clear(folder: Path, written: set[Path]) -> None:
    """Take away what an earlier run left of other genes and codes."""
    for name in FOLDERS:
        for path in sorted((folder / name).rglob("*"), reverse=True):
            if path.is_file() and path not in written and path.suffix in (".parquet", ".npz", ".png", ".json"):
                path.unlink()
            elif path.is_dir() and not any(path.iterdir()):
                shutil.rmtree(path)


def _archive(maps: Map, handle: BinaryIO) -> None:
    np.savez_compressed(handle, maps=maps)


def _picture(drawn: Map, handle: BinaryIO) -> None:
    handle.write(png(drawn))


def _parquet(path: Path, table: pl.DataFrame) -> Path:
    files.write_atomically(path, table.write_parquet)
    return path
