"""Train, validation and test over tiles: whole patients or sites, drawn once, and stored with every row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elute.base.errors import ConfigError, DataError, near
from elute.base.statistics.splits import draw_splits

if TYPE_CHECKING:
    import polars as pl

    from elute.store.splitting import SplitConfig

TRAINING = "train"


def drawn_split(table: pl.DataFrame, config: SplitConfig, *, where: object = "tiles") -> dict[str, str]:
    """Give each group of a table of tiles to one split; a tile without a group is an error."""
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
