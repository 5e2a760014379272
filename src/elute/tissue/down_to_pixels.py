"""Relevance of a gene's codes followed down through the encoder to the pixels of their reference tiles: an option.

pixel_maps/<gene>/<code>.npz            maps [n, rows, columns], as the encoder saw the tiles
pixel_maps/<gene>/<code>_<rank>.png     the same, painted
pixel_maps/<gene>/index.parquet         gene, code, rank, sample_id, tile_id, file, at, output, gap, method
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from elute.base import console, files
from elute.base.errors import GuardError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import polars as pl

    from elute.analysis.relevance_head import Explained
    from elute.analysis.relevance_rules import Rules
    from elute.models.vit import Vit
    from elute.store.reader import Store
    from elute.tissue.opening_case import Case, Found
    from elute.tissue.plan import Plan
    from elute.tissue.tiles import Tiles

    Array = np.ndarray[Any, Any]


class Wanted(NamedTuple):
    """One map: a code in the tile of one of its references."""

    code: int
    rank: int
    sample_id: str
    tile_id: str


@dataclass(frozen=True, eq=False)
class Seen:
    """The encoder as it read the tiles."""

    model: Vit
    tiles: Tiles
    layer: str
    row: str  # patches, mean or class: what a row of the store is

    def pixels(self, wanted: list[Wanted]) -> Any:
        """Return the pixels of tiles as the encoder reads them."""
        from elute.models.vision.batching import Chunk

        pictures = self.tiles.named([(each.sample_id, each.tile_id) for each in wanted])
        batcher = self.model.batcher(pictures, per_token=self.row == "patches")
        return batcher.pixels(Chunk(0, 0, len(pictures)))


def draw_pixels(plan: Plan, case: Case, found: Found, *, tiles: Tiles | None) -> list[Path]:
    """Follow the codes of each gene down to pixels, and write the maps."""
    from elute.analysis.relevance_head import Encoder
    from elute.analysis.token_maps import safe_name
    from elute.tissue.exporting import open_encoder
    from elute.tissue.tiles import open_tiles

    model = open_encoder(plan.encoder)
    _same_encoder(model, case.stream.store)
    row = "patches" if "token_rc" in case.stream.store.manifest.columns else plan.embedding.pooling
    layer = model.site_of(plan.embedding.layer_name)
    seen = Seen(model, open_tiles(plan.tiles) if tiles is None else tiles, layer, row)
    explained = replace(case.explained, encoder=Encoder.of(case.stream.dictionary))
    written: list[Path] = []
    with console.progress("down to pixels", len(found), unit="genes") as bar:
        for gene, (relevance, codes, _) in found.items():
            wanted = _wanted(relevance.references_of(codes), plan.crp.through_samples)
            folder = plan.output / "pixel_maps" / safe_name(gene)
            if wanted:
                gradients = _gradients(
                    case, explained, gene, wanted=wanted, rules=relevance.rules, row=row, model=model
                )
                written += _draw(plan, seen, gene, wanted=wanted, gradients=gradients, folder=folder)
            bar.advance()
    return written


def _same_encoder(model: Vit, store: Store) -> None:
    """Refuse another encoder than the one that gave the embeddings."""
    known = store.manifest.model
    if known is not None and known.weights != model.fingerprint().weights:
        what = f"the embeddings are of {known.name} with other weights than those of {model.name}"
        remedy = "Name the encoder that gave them, or export them anew with --recapture."
        raise GuardError(what, where=store.folder, remedy=remedy)


def _wanted(lists: pl.DataFrame, most: int) -> list[Wanted]:
    import polars as pl

    ours = (
        (pl.col("kind") == "relmax") & (pl.col("target") == "sum") & (pl.col("sign") == "+") & (pl.col("rank") <= most)
    )
    rows = lists.filter(ours).sort("code", "rank").select("code", "rank", "sample_id", pl.col("tile_id").fill_null(""))
    return [Wanted(*row) for row in rows.iter_rows()]


def _gradients(
    case: Case, explained: Explained, gene: str, *, wanted: list[Wanted], rules: Rules, row: str, model: Vit
) -> Array:
    """By what each number of the encoder's tokens is multiplied to give the relevance of a code, tile by tile."""
    import numpy as np

    from elute.analysis.relevance_conditions import read_conditions
    from elute.analysis.relevance_explain import embedding_gradient, explain
    from elute.analysis.relevance_head import GENE, LATENT
    from elute.analysis.relevance_stream import SEPARATOR, whole_samples

    rows, cols = model.grid or (1, 1)
    held: dict[Wanted, Array] = {}
    by_sample: dict[str, list[Wanted]] = {}
    for each in wanted:
        by_sample.setdefault(each.sample_id, []).append(each)
    for tokens in whole_samples(case.stream, explained):
        for at in (i for i, name in enumerate(tokens.samples) if name in by_sample):
            part = tokens.only([at])
            tiles = [place.partition(SEPARATOR)[2] for place in part.places]
            for each in by_sample[tokens.samples[at]]:
                asked = read_conditions(explained, {GENE: gene, LATENT: [each.code]})
                slope = embedding_gradient(explained, explain(explained, part, asked, rules=rules), rules)
                mine = np.array([tiles[place] == each.tile_id for place in part.place.tolist()])
                held[each] = _on_grid(slope[mine], part.spots[mine], (rows, cols), row)
    return np.stack([held[each] for each in wanted])


def _on_grid(slope: Array, spots: Array, grid: tuple[int, int], row: str) -> Array:
    """Put the gradients of a tile's rows where the encoder has their tokens."""
    import numpy as np

    if row == "cls":
        return slope[:1]
    n = grid[0] * grid[1]
    if row == "mean":
        return np.repeat(slope[:1] / n, n, axis=0)
    whole = np.zeros((n, slope.shape[1]))
    whole[spots[:, 0] * grid[1] + spots[:, 1]] = slope
    return whole


def _draw(plan: Plan, seen: Seen, gene: str, *, wanted: list[Wanted], gradients: Array, folder: Path) -> list[Path]:
    import numpy as np
    import polars as pl

    from elute.analysis.through_encoder import through_encoder

    model = seen.model
    found = through_encoder(
        model.module, seen.pixels(wanted), gradients, site=model.sites[seen.layer], prefix=model.prefix,
        row="class" if seen.row == "cls" else "patches", method=plan.crp.through_method,
    )  # fmt: skip
    files.make_folder(folder)
    written: list[Path] = []
    rows: list[dict[str, Any]] = []
    for code, places in _by_code(wanted):
        stack = found.relevance[places].astype(np.float32)
        archive = folder / f"{code}.npz"
        files.write_atomically(archive, partial(_save, stack))
        written.append(archive)
        for at, place in enumerate(places):
            picture = folder / f"{code}_{wanted[place].rank}.png"
            files.write_atomically(picture, partial(_paint, stack[at]))
            written.append(picture)
            told = {"output": float(found.output[place]), "gap": float(found.gap[place]), "method": found.method}
            rows.append({"gene": gene, **wanted[place]._asdict(), "file": archive.name, "at": at, **told})
    index = folder / "index.parquet"
    table = pl.DataFrame(rows)
    files.write_atomically(index, table.write_parquet)
    return [*written, index]


def _save(maps: Array, handle: BinaryIO) -> None:
    import numpy as np

    np.savez_compressed(handle, maps=maps)


def _paint(drawn: Array, handle: BinaryIO) -> None:
    from elute.analysis.token_maps import png

    handle.write(png(drawn))


def _by_code(wanted: list[Wanted]) -> Iterator[tuple[int, list[int]]]:
    for code in sorted({each.code for each in wanted}):
        yield code, [i for i, each in enumerate(wanted) if each.code == code]
