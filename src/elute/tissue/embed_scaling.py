"""The scaling of stored embeddings, measured on training rows alone; or one from elsewhere, if it is of this encoder.

`embed_norm_path` names a file. If it is there it is used, else what is measured is copied there, with the digests of
the encoder beside the numbers: a scaling of another encoder's rows is refused.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from elute.base import console, files
from elute.base.errors import DamagedError, DataError, GuardError
from elute.store import layout
from elute.store.rows import StoredRows
from elute.store.scaling import SCHEMA, StatsConfig, measure
from elute.tissue.embed_rows import SITE
from elute.tissue.embed_splits import TRAINING

if TYPE_CHECKING:
    from elute.base.contracts import Fingerprint

Method = Literal["standard", "pca"]
_ENCODER = "encoder"


def scale_embeddings(folder: Path, method: Method, *, model: Fingerprint, norm_path: Path | None = None) -> str:
    """Put a store's scaling in place, and return its digest."""
    store = StoredRows(folder)
    target = folder / layout.STATS
    told = {name: text for name, text in asdict(model).items() if name != "name"}
    if norm_path is not None and norm_path.exists() and norm_path.resolve() != target.resolve():
        record = _given(norm_path, store, told)
        if not target.exists() or _read(target) != record:
            console.say(f"{folder}: scaled by {norm_path}")
            with files.locked(folder, "scaling"):
                files.write_json(target, record)
    elif not _measured(target, store, method):
        measure(folder, StatsConfig(method=method, split=TRAINING))
    record = _read(target)
    if norm_path is not None and not norm_path.exists():
        files.make_folder(norm_path.parent)
        files.write_json(norm_path, {**record, _ENCODER: told})
    return files.digest_json(record)


def _measured(target: Path, store: StoredRows, method: Method) -> bool:
    """Whether the scaling that lies there was measured on these very rows."""
    if not target.exists():
        return False
    record = _read(target)
    return (record.get("store"), record.get("method"), record.get("split")) == (store.manifest.store, method, TRAINING)


def _given(path: Path, store: StoredRows, told: dict[str, str]) -> dict[str, Any]:
    """Read a scaling from elsewhere."""
    record = dict(_read(path))
    known = record.pop(_ENCODER, None)
    if known is None and record.get("store") != store.manifest.store:
        console.warn(f"{path}: does not say which encoder's rows it was measured on")
    if known is not None and known != told:
        what = "was measured on the rows of another encoder, layer or preprocessing"
        raise GuardError(what, where=path, remedy="Name another file with embed_norm_path, or delete this one.")
    width = len(record["sites"].get(SITE, {}).get("mean", ()))
    if width != store.sites[SITE]:
        what = f"scales {width} numbers of site {SITE!r}, and the embeddings have {store.sites[SITE]}"
        raise DataError(what, where=path, remedy="Name another file with embed_norm_path, or delete this one.")
    return record


def _read(path: Path) -> dict[str, Any]:
    remedy = "Delete it: it will be measured anew."
    record = files.read_json(path, what="a scaling of embeddings", remedy=remedy)
    if (
        not isinstance(record, dict)
        or record.get("schema_version") != SCHEMA
        or not isinstance(record.get("sites"), dict)
    ):
        raise DamagedError("is no scaling of embeddings", where=path, remedy=remedy)
    return record
