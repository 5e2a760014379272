"""Which reader a file is for: its suffix says, and its first bytes must agree."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

from elute.base.errors import DamagedError, DataError
from elute.store.imports.arrayfiles import read_npy, read_npz, read_pt, read_safetensors
from elute.store.imports.h5ad import read_h5ad, read_hdf5, read_zarr
from elute.store.imports.parquet import read_parquet
from elute.store.imports.parts import AGAIN, Contents, reading

# A suffix, what such a file holds inside, and its reader; columns that are wanted as metadata matter to Parquet alone.
_READERS: dict[str, tuple[str, Callable[[Path], Contents]]] = {
    ".npy": ("a NumPy array", read_npy),
    ".npz": ("a NumPy archive", read_npz),
    ".pt": ("a PyTorch file", read_pt),
    ".pth": ("a PyTorch file", read_pt),
    ".safetensors": ("safetensors", read_safetensors),
    ".parquet": ("Parquet", read_parquet),
    ".h5ad": ("HDF5", read_h5ad),
    ".h5": ("HDF5", read_hdf5),
    ".hdf5": ("HDF5", read_hdf5),
    ".zarr": ("Zarr", read_zarr),
    ".zip": ("Zarr", read_zarr),
}
_MAGIC = {b"\x93NUMPY": "a NumPy array", b"\x89HDF\r\n\x1a\n": "HDF5", b"PAR1": "Parquet"}
_ZARR = ("zarr.json", ".zgroup", ".zarray")


def read_contents(path: Path, metadata: Iterable[str] = ()) -> Contents:
    """List what a file holds; of a Parquet file, columns wanted as `metadata` are no part of its array."""
    if path.is_dir() and any((path / name).is_file() for name in _ZARR):
        return read_zarr(path)
    check_file(path, {suffix: what for suffix, (what, _) in _READERS.items()})
    suffix = path.suffix.lower()
    with reading(path, suffix):
        return read_parquet(path, frozenset(metadata)) if suffix == ".parquet" else _READERS[suffix][1](path)


def check_file(path: Path, known: dict[str, str]) -> None:
    """Refuse what is no file, is empty, or does not hold what its suffix says; `known` is what each suffix means."""
    suffix = path.suffix.lower()
    if path.is_dir():
        if suffix == ".zarr":
            raise DamagedError("has no zarr.json, .zgroup or .zarray, so it is no Zarr", where=path, remedy=AGAIN)
        raise DataError("is a folder, not a file", where=path, remedy="Give a file in it.")
    if not path.is_file():
        raise DataError("there is no such file", where=path, remedy="Check the path.")
    try:
        found = _inside(path)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=path, remedy="Check its permissions.") from None
    if not path.stat().st_size:
        raise DamagedError("is empty (0 bytes)", where=path, remedy=AGAIN)
    meant = known.get(suffix)
    rename = next((f"Rename it to {path.stem}{s}." for s, what in known.items() if what == found), "")
    if meant is None:
        inside = f", but holds {found}" if found else ""
        known_ones = f"Known are {', '.join(known)}."
        raise DataError(f"has the unknown suffix {suffix!r}{inside}", where=path, remedy=rename or known_ones)
    if found is not None and found != meant:
        raise DamagedError(f"holds {found}, not {meant} as its suffix says", where=path, remedy=rename or AGAIN)


def _inside(path: Path) -> str | None:
    """Tell from its content what a file holds, where that can be told."""
    with path.open("rb") as handle:
        head = handle.read(16)
    for magic, what in _MAGIC.items():
        if head.startswith(magic):
            return what
    if len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return "safetensors"
    if not head.startswith(b"PK\x03\x04"):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, RuntimeError):
        return None
    if any(name.endswith("data.pkl") for name in names):
        return "a PyTorch file"
    if any(Path(name).name in _ZARR for name in names):
        return "Zarr"
    return "a NumPy archive" if any(name.endswith(".npy") for name in names) else None
