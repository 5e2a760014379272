"""Tables as text that a page carries: columns of JSON, deflated, in letters that HTML cannot misread (base64).

A column is turned into texts all at once, a text a row, so that parts of it are put together without another look at
its values. Numbers have three significant digits; one without bound has a name, for JSON has none for it.
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import polars as pl

_DIGITS = 3
_INFINITE = '"inf"'
_LEVEL = 7  # of compression: 9 takes three times as long for a hundredth less


def real(column: pl.Series) -> pl.Series:
    """Numbers with the digits that a reader needs."""
    import polars as pl

    values = column.cast(pl.Float64).to_numpy()
    some = np.isfinite(values) & (values != 0)
    known = np.clip(np.where(some, values, 1.0), -1.79e308, 1.79e308)  # what is rounded up must still be a number
    shift = _DIGITS - 1 - np.floor(np.log10(np.abs(known)))
    # In two steps: 1e300 and 1e-300 are numbers, 10 to the power of what brings them to hundreds is not always.
    half = np.floor(shift / 2)
    near = np.rint(known * 10.0**half * 10.0 ** (shift - half)).astype(np.int64)
    whole = (near % 100 == 0) & (shift == _DIGITS - 1)  # 3 is shorter than 300e-2
    digit = np.where(whole, near // 100, near)
    frame = pl.DataFrame({"digits": digit, "power": (-shift).astype(np.int64), "whole": whole})
    shown = pl.col("digits").cast(pl.String)
    texts = frame.select(
        pl.when("whole").then(shown).otherwise(shown + "e" + pl.col("power").cast(pl.String))
    ).to_series()
    odd = np.where(np.isnan(values), "null", np.where(np.isinf(values), _INFINITE, "0")).tolist()
    return texts.zip_with(pl.Series(some), pl.Series(odd, dtype=pl.String)) if len(texts) else texts


def ints(column: pl.Series) -> pl.Series:
    """Whole numbers, or nothing."""
    import polars as pl

    return column.cast(pl.Int64).cast(pl.String).fill_null("null")


def lists(column: pl.Series) -> pl.Series:
    """Lists of whole numbers."""
    import polars as pl

    inner = column.cast(pl.List(pl.String)).list.join(",").fill_null("")
    return ("[" + inner + "]").cast(pl.String)


def _json(value: object) -> str:
    import polars as pl

    if isinstance(value, pl.Series):  # of texts that are JSON each
        return f"[{','.join(value.to_list())}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(str(key))}:{_json(item)}" for key, item in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def text(value: dict[Any, Any]) -> str:
    """Return what was gathered, columns among it, as a page carries it."""
    return base64.b64encode(zlib.compress(_json(value).encode(), _LEVEL)).decode()
