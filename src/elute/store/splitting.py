"""Drawing train, validation and test over a store's groups, and storing them with the rows.

1. Count the rows of each group (and their labels), shard by shard.
2. Draw with `draw_splits`, the one function that does.
3. Write every shard's new metadata beside the old one (NNNNN.parquet.next).
4. Replace the manifest: from here on the new splits hold.
5. Rename the new metadata into place.

A kill before 4 leaves the old splits, after 4 the new ones: opening the store finishes or clears what lies around.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, field_validator

from elute.base import files, run
from elute.base.errors import ConfigError, DataError, near
from elute.base.recipe import Section
from elute.base.run import Artifact
from elute.base.statistics.splits import draw_splits
from elute.store import layout, settle
from elute.store.layout import Manifest, SplitRecord

if TYPE_CHECKING:
    import polars as pl


class SplitConfig(Section):
    """How train, validation and test are drawn."""

    fractions: dict[str, float] = Field(default_factory=lambda: {"train": 0.8, "validation": 0.1, "test": 0.1})
    """Share of the rows for each split, by name."""
    stratify: str | None = None
    """Column whose values every split should hold in equal shares, e.g. label."""
    seed: int = Field(0, ge=0)
    """Seed of the draw."""

    @field_validator("fractions")
    @classmethod
    def _adds_up(cls, value: dict[str, float]) -> dict[str, float]:
        if not value or any(share <= 0 for share in value.values()) or abs(sum(value.values()) - 1) > 1e-6:
            raise ValueError("the shares must be positive and add up to 1")
        return value


def split_store(folder: Path, config: SplitConfig) -> Artifact:
    """Draw the splits of a store by group and write them into its metadata."""
    folder = Path(folder)
    before = settle.for_reading(folder)
    with files.locked(folder, "drawing splits"):
        manifest = layout.read_manifest(folder)
        if not manifest.complete:
            raise DataError("the store is not complete yet", where=folder, remedy="Finish writing it, then split it.")
        for column in filter(None, ("group", config.stratify)):
            if column not in manifest.columns:
                remedy = near(column, manifest.columns)
                if column == "group":
                    remedy = (
                        "Import it with --group COLUMN (donor, patient or site): rows of one group must stay together."
                    )
                raise DataError(f"the rows have no column {column!r}", where=folder, remedy=remedy)
        counts = _count(folder, manifest, config.stratify)
        assigned = _draw(counts, config, folder)
        rows, groups = Counter[str](), Counter(assigned.values())
        for (group, _), n in counts.items():
            rows[assigned[group]] += n
        names = list(config.fractions)
        record = SplitRecord(
            fractions=config.fractions,
            stratified_by=config.stratify,
            seed=config.seed,
            groups={name: groups[name] for name in names},
            rows={name: rows[name] for name in names},
        )
        _put(folder, manifest, assigned, record)
    summary = {"rows": record.rows, "groups": record.groups}
    run.record(folder, "split", config, inputs={"store": manifest.store}, summary=summary)
    return Artifact("store", folder, {**summary, "changed": before.split != record})


def _count(folder: Path, manifest: Manifest, label: str | None) -> Counter[tuple[str, str | None]]:
    """Count rows by group and label."""
    counts: Counter[tuple[str, str | None]] = Counter()
    columns = ["group"] + ([label] if label else [])
    for shard in range(len(manifest.shards)):
        frame = settle.read_metadata(folder, manifest, shard, columns=columns)
        if missing := frame["group"].null_count():
            what = f"{missing} rows of shard {shard:05d} have no group"
            raise DataError(what, where=folder, remedy="Every row must say which donor, patient or site it is of.")
        for row in frame.group_by(columns).len().iter_rows():
            counts[row[0], str(row[1]) if label else None] += row[-1]
    return counts


def _draw(counts: Counter[tuple[str, str | None]], config: SplitConfig, folder: Path) -> dict[str, str]:
    """Hand the counted groups to the one function that draws."""
    import numpy as np

    cells = sorted(counts, key=lambda cell: (cell[0], cell[1] or ""))
    sizes = [counts[cell] for cell in cells]
    groups = np.array([cell[0] for cell in cells], dtype=object)
    labels = None if config.stratify is None else np.array([cell[1] for cell in cells], dtype=object)
    try:
        return draw_splits(groups, labels, fractions=config.fractions, seed=config.seed, sizes=sizes)
    except (DataError, ConfigError) as error:
        raise type(error)(error.what, where=folder, remedy=error.remedy) from None


def _put(folder: Path, manifest: Manifest, assigned: dict[str, str], record: SplitRecord) -> None:
    """Write the new metadata beside the old, then the manifest, then rename."""
    import polars as pl

    shards = []
    for shard, entry in enumerate(manifest.shards):
        frame: pl.DataFrame = settle.read_metadata(folder, manifest, shard)
        new = frame.with_columns(pl.col("group").replace_strict(assigned, return_dtype=pl.String).alias("split"))
        path = layout.metadata_path(folder, shard)
        tag = {"store": manifest.store, "shard": f"{shard:05d}"}
        written = settle.write_metadata(path.with_name(path.name + ".next"), new, tag)
        shards.append(entry.model_copy(update={"metadata": written}))
    columns = {**manifest.columns, "split": "String"}
    after = manifest.model_copy(update={"shards": tuple(shards), "split": record, "columns": columns})
    with files.disk_errors(folder):
        layout.write_manifest(folder, after)
        settle.finish_split(folder, after)
