"""Train, validation and test over tiles: whole patients or sites, drawn once, and stored with every row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elute.base.errors import ConfigError, DataError, GuardError, near
from elute.base.statistics.splits import draw_splits

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

    from elute.store.splitting import SplitConfig

TRAINING = "train"


def drawn_split(
    table: pl.DataFrame, config: SplitConfig, *, where: object = "tiles", given: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Give each group of a table of tiles to one split; a tile without a group, or a sample of two, is an error.

    With `given` nothing is drawn: another run has done so, and its groups stay in their splits.
    """
    import polars as pl

    if TRAINING not in config.fractions:
        what = f"there is no split named {TRAINING}, on which the scaling and the dictionary are learnt"
        raise ConfigError(what, where="split.fractions", remedy=near(TRAINING, config.fractions))
    missing = int(table["group"].null_count())
    if missing:
        tile = table.filter(pl.col("group").is_null()).row(0, named=True)
        what = f"{missing:,} of {table.height:,} tiles have no patient or site, the first is {tile['tile_id']!r}"
        remedy = "Name the table's column: columns group=COLUMN; or give each patient's images a folder of their own."
        raise DataError(what, where=where, remedy=remedy)
    _one_group(table, where)
    if given is not None:
        return given_split(table, given, where)
    columns = ["group"]
    if config.stratify is not None:
        if config.stratify not in table.columns:
            raise DataError(
                f"there is no column {config.stratify!r}", where=where, remedy=near(config.stratify, table.columns)
            )
        columns.append(config.stratify)
    counted = table.group_by(columns).len().sort(columns)
    labels = None if config.stratify is None else counted[config.stratify].cast(pl.String).fill_null("").to_list()
    try:
        drawn = draw_splits(
            counted["group"].to_list(),
            labels,
            fractions=config.fractions,
            seed=config.seed,
            sizes=counted["len"].to_list(),
        )
    except (DataError, ConfigError) as error:
        raise type(error)(error.what, where=where, remedy=error.remedy) from None
    return {str(group): split for group, split in drawn.items()}


def _one_group(table: pl.DataFrame, where: object) -> None:
    """Refuse a sample of two patients or sites, which may lie in two splits."""
    import polars as pl

    groups = table.group_by("sample_id").agg(pl.col("group").unique().sort())
    twice = groups.filter(pl.col("group").list.len() > 1).sort("sample_id")
    if len(twice):
        name, two = twice.row(0)
        what = f"a leak: sample {name!r} is of {two[0]!r} and of {two[1]!r} ({len(twice):,} such samples)"
        remedy = "A sample is of one patient or site: name the columns of both (--columns sample=… group=…)."
        raise GuardError(what, where=where, remedy=remedy)


def given_split(table: pl.DataFrame, splits: Mapping[str, str], where: object = "tiles") -> dict[str, str]:
    """Return the splits of a table's groups as another run has drawn them; a group that it does not know is refused."""
    groups = sorted({str(group) for group in table["group"]})
    if lost := [group for group in groups if group not in splits]:
        what = f"group {lost[0]!r} lies in no split of the run"
        raise GuardError(what, where=where, remedy="Export the run's embeddings anew with --recapture.")
    return {group: splits[group] for group in groups}
