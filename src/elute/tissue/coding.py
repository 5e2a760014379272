"""The third stage: the sparse codes of every row, on disk or made when they are read.

Whoever reads codes gets those of the tiles as they are: further views of a tile (other epochs) teach the dictionary
alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from elute.base import console
from elute.base.errors import DataError, EluteError
from elute.base.run import Artifact
from elute.tissue import stages
from elute.tissue.learning import SITE, opened, trained

if TYPE_CHECKING:
    import polars as pl

    from elute.base.codes import Codes
    from elute.dictionaries.dictionary import Dictionary
    from elute.store.reader import Store
    from elute.tissue.plan import Plan

_ROWS = 8192  # encoded in one go


def extract_codes(plan: Plan) -> Artifact:
    """Write the codes of every row, or see that they can be made on the fly."""
    from elute.engine.encode import EncodeConfig, encode_store

    store = opened(plan)
    _, known = trained(plan, store)
    inputs = {"store": store.manifest.store, "dictionary": known}
    if not plan.codes.cache:
        shutil.rmtree(plan.coded, ignore_errors=True)  # of an earlier run: they would only seem to be used
        console.say(f"{plan.output}: codes are made on the fly")
        stages.record(plan.output, "extract_codes", {"codes": plan.codes}, inputs=inputs, summary={}, written=[])
        return Artifact("codes", plan.dictionary, {"rows": len(store), "cached": False})
    if _whole(plan, store, known) and (done := stages.done(plan.output, "extract_codes", {"codes": plan.codes},
                                                           inputs=inputs)) is not None:  # fmt: skip
        return Artifact("codes", plan.coded, {**done, "reused": True})
    config = EncodeConfig(device=plan.sae.device, dtype=plan.codes.dtype, anew=_stale(plan, store, known))
    made = encode_store(plan.dictionary, store.folder, plan.coded, config=config)
    summary = {**made.summary, "cached": True}
    stages.record(plan.output, "extract_codes", {"codes": plan.codes}, inputs=inputs, summary=summary, written=[])
    return Artifact("codes", plan.coded, {**summary, "reused": False})


def _stale(plan: Plan, store: Store, dictionary: str) -> bool:
    """Whether the codes that lie there are of something else: they can be made again at any time."""
    from elute.store.codes import StoredCodes

    if not (plan.coded / "manifest.json").exists():
        return False
    try:
        codes = StoredCodes(plan.coded).expect(dictionary=dictionary, store=store, complete=False)
    except EluteError:
        return True
    return codes.manifest.dtype != plan.codes.dtype


def _whole(plan: Plan, store: Store, dictionary: str) -> bool:
    from elute.store.codes import StoredCodes

    if not (plan.coded / "manifest.json").exists() or _stale(plan, store, dictionary):
        return False
    return StoredCodes(plan.coded).complete


def coded_rows(plan: Plan, store: Store, dictionary: Dictionary, *, known: str) -> Iterator[tuple[Codes, pl.DataFrame]]:
    """Yield the codes of tiles as they are with their metadata, in the store's order."""
    parts = _cached(plan, store, known=known) if plan.codes.cache else _made(store, dictionary)
    first = first_epoch(store)
    for codes, frame in parts:
        if first is None:
            yield codes, frame
            continue
        kept = frame["epoch"] == first
        if kept.all():
            yield codes, frame
        elif kept.any():
            yield codes[kept.to_torch()], frame.filter(kept)


def first_epoch(store: Store) -> int | None:
    """The epoch that shows tiles as they are: the lowest that there is; nothing where there is one alone."""
    if "epoch" not in store.manifest.columns:
        return None
    lowest: int | None = None
    for start, stop in zip(store.starts, store.starts[1:], strict=False):
        least: Any = store.metadata(start, stop, columns=["epoch"])["epoch"].min()
        lowest = least if lowest is None else min(lowest, least)
    return lowest


def _cached(plan: Plan, store: Store, *, known: str) -> Iterator[tuple[Codes, pl.DataFrame]]:
    from elute.store.codes import StoredCodes

    if not (plan.coded / "manifest.json").exists():
        remedy = "Type: elute tissue extract_codes, with the same --config; or set codes.cache to false."
        raise DataError("there are no codes yet", where=plan.coded, remedy=remedy)
    codes = StoredCodes(plan.coded).expect(dictionary=known, store=store)
    for start, stop in zip(store.starts, store.starts[1:], strict=False):
        frame = store.metadata(start, stop, columns=_columns(store))
        for at in range(start, stop, _ROWS):
            end = min(at + _ROWS, stop)
            yield codes.read(at, end), frame[at - start : end - start]


def _columns(store: Store) -> list[str]:
    return [name for name in ("sample_id", "tile_id", "token_rc", "epoch") if name in store.manifest.columns]


def _made(store: Store, dictionary: Dictionary) -> Iterator[tuple[Codes, pl.DataFrame]]:
    for rows, frame in store.batches(_ROWS, sites=[SITE], columns=_columns(store)):
        yield dictionary.encode(rows[SITE].float()).to("cpu"), frame
