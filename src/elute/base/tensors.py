"""Files of numbers, read and written without running anything that lies in them: safetensors, `.pt`, `.npy`."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeGuard

from elute.base.errors import DamagedError, DataError
from elute.base.files import write_atomically

if TYPE_CHECKING:
    import numpy as np
    import torch

_PIECE = 8 << 20

# What the readers of other libraries let through for a damaged file; a RecursionError is a RuntimeError.
_UNREADABLE = (RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError, ArithmeticError)


def write_safetensors(
    path: Path,
    tensors: Mapping[str, np.ndarray[Any, Any]],
    *,
    dtype: str | Mapping[str, str],
    metadata: Mapping[str, str],
) -> tuple[int, str]:
    """Write arrays as one safetensors file, contiguous ones without a copy; return its size and digest.

    `dtype` is safetensors' name (F32, F16, BF16, I32) for all arrays, or one for each: numpy has no bfloat16, so its
    arrays come as unsigned 16-bit words. The data lie in the order of `tensors`, without gaps.
    """
    import numpy as np

    header: dict[str, object] = {"__metadata__": dict(metadata)}
    offset = 0
    for name, array in tensors.items():
        header[name] = {
            "dtype": dtype if isinstance(dtype, str) else dtype[name],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    head = len(text).to_bytes(8, "little") + text
    parts = [
        np.frombuffer(head, "u1"),
        *(np.ascontiguousarray(array).reshape(-1).view("u1") for array in tensors.values()),
    ]

    def digest() -> str:
        sha = hashlib.sha256()
        for part in parts:
            sha.update(part.data)
        return sha.hexdigest()

    def fill(handle: BinaryIO) -> None:
        for part in parts:
            for start in range(0, len(part), _PIECE):
                handle.write(part[start : start + _PIECE].data)
                handle.flush()
                # Sets the disk to work on this piece while the next one is copied; fsync then has little to wait for.
                if hasattr(os, "posix_fadvise"):  # macOS has none
                    os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    with ThreadPoolExecutor(1) as pool:
        hashed = pool.submit(digest)
        write_atomically(path, fill)
        return len(head) + offset, hashed.result()


def safetensors_header(path: Path) -> tuple[int, dict[str, Any]]:
    """Read and check a safetensors header: the offset of the data, and what the file declares.

    What comes back can be relied on: every tensor has a type, a shape and a place; the places fill the file without a
    gap or an overlap. Whether a place fits its type and shape is for the reader, who knows which types it can read.
    """
    bad = DamagedError(
        "is not a whole safetensors file", where=path, remedy="Write it anew, or restore it from a copy."
    )
    with _readable(path), path.open("rb") as handle:
        size = path.stat().st_size
        length = int.from_bytes(handle.read(8), "little")
        if size < 8 or length > min(size - 8, 100_000_000):
            raise bad
        try:
            header = json.loads(handle.read(length))
        except (ValueError, RecursionError):
            raise bad from None
    end = _end(header)
    if end is None:
        raise bad
    if 8 + length + end != size:
        raise DamagedError(
            f"was cut short: {size:,} bytes where its header promises {8 + length + end:,}"
            if size < 8 + length + end
            else "has bytes that its header does not name",
            where=path,
            remedy="Write it anew, or restore it from a copy.",
        )
    return 8 + length, header


def _end(header: object) -> int | None:
    """Where the data end; nothing for a header that does not name each byte of them once."""
    if not isinstance(header, dict):
        return None
    told = header.get("__metadata__") or {}
    if not isinstance(told, dict) or not all(isinstance(value, str) for value in told.values()):
        return None
    places = []
    for name, entry in header.items():
        if name != "__metadata__":
            if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str):
                return None
            place = entry.get("data_offsets")
            if not _counts(entry.get("shape")) or not _counts(place) or len(place) != 2:
                return None
            places.append(place)
    end = 0
    for begin, stop in sorted(places):
        if begin != end or stop < begin:
            return None
        end = stop
    return end


def _counts(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn a file that is missing, a folder, or closed to us into one line."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR):
            raise  # a damaged file may give any other: the readers say so
        raise DataError(
            f"cannot be read: {error.strerror or error}", where=path, remedy="Check the path and its permissions."
        ) from None


def load_tensors(path: Path) -> Any:
    """Read a `.pt` file of tensors; anything in it that would run code is refused."""
    import pickle  # noqa: TID251  # for the name of its error alone
    import struct

    import torch

    try:
        with _readable(path):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)  # noqa: TID251
    except pickle.UnpicklingError:
        reason = "holds Python objects besides tensors, which would run code when read"
    except (*_UNREADABLE, OSError, AssertionError, struct.error):
        reason = "is not a whole PyTorch file, or was written before PyTorch 1.6"
    raise DamagedError(reason, where=path, remedy="Save it again as tensors alone: torch.save(tensor, path).")


def load_npy(path: Path) -> np.ndarray[Any, Any]:
    """Memory-map a `.npy` file; arrays of Python objects are refused."""
    import tokenize

    import numpy as np

    try:
        # Not numpy.load, which opens a zip or a bare pickle by what it begins with, whatever its name.
        with _readable(path), np.errstate(over="raise"):
            return np.lib.format.open_memmap(path, mode="r")
    except (*_UNREADABLE, OSError, SyntaxError, tokenize.TokenError) as error:
        text = (str(error).splitlines() or [""])[0]  # further lines advise to trust the file
        objects = "Python objects in dtype" in text
        what = "holds Python objects, which would run code when read"
        reason = what if objects else f"is not a whole .npy file ({text[:120]})"
    raise DamagedError(reason, where=path, remedy="Save it again as numbers: np.save(path, array.astype('float32')).")


def as_tensor(array: np.ndarray[Any, Any]) -> torch.Tensor:
    """Wrap an array that may be read-only, without a copy and without a warning."""
    import warnings

    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(array)
