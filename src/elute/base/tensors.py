"""Files of numbers, read and written without running anything that lies in them: safetensors, `.pt`, `.npy`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from elute.base.errors import DamagedError
from elute.base.files import write_atomically

if TYPE_CHECKING:
    import numpy as np
    import torch


def write_safetensors(
    path: Path, tensors: Mapping[str, np.ndarray[Any, Any]], *, dtype: str, metadata: Mapping[str, str]
) -> tuple[int, str]:
    """Write contiguous arrays as one safetensors file without copying them; return its size and digest.

    `dtype` is safetensors' name (F32, F16, BF16): numpy has no bfloat16, so its arrays come as unsigned 16-bit words.
    """
    import numpy as np

    header: dict[str, object] = {"__metadata__": dict(metadata)}
    offset = 0
    for name, array in tensors.items():
        header[name] = {
            "dtype": dtype,
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    head = len(text).to_bytes(8, "little") + text
    sha = hashlib.sha256()

    def fill(handle: BinaryIO) -> None:
        for array in (np.frombuffer(head, "u1"), *tensors.values()):
            piece = array.reshape(-1).view("u1").data
            sha.update(piece)
            handle.write(piece)

    write_atomically(path, fill)
    return len(head) + offset, sha.hexdigest()


def safetensors_header(path: Path) -> tuple[int, dict[str, Any]]:
    """Read and check a safetensors header: the offset of the data, and what the file declares."""
    bad = DamagedError(
        "is not a whole safetensors file", where=path, remedy="Write it anew, or restore it from a copy."
    )
    size = path.stat().st_size
    with path.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        if size < 8 or length > min(size - 8, 100_000_000):
            raise bad
        try:
            header = json.loads(handle.read(length))
        except (ValueError, RecursionError):
            raise bad from None
    if not isinstance(header, dict):
        raise bad
    end = 0
    for name, entry in header.items():
        if name != "__metadata__":
            try:
                end = max(end, int(entry["data_offsets"][1]))
            except (KeyError, TypeError, IndexError, ValueError):
                raise bad from None
    if 8 + length + end != size:
        raise DamagedError(
            f"was cut short: {size:,} bytes where its header promises {8 + length + end:,}"
            if size < 8 + length + end
            else "has bytes that its header does not name",
            where=path,
            remedy="Write it anew, or restore it from a copy.",
        )
    return 8 + length, header


def load_tensors(path: Path) -> Any:
    """Read a `.pt` file of tensors; anything in it that would run code is refused."""
    import pickle  # noqa: TID251  # for the name of its error alone

    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)  # noqa: TID251
    except pickle.UnpicklingError:
        reason = "holds Python objects besides tensors, which would run code when read"
    except (RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError, IndexError):
        reason = "is not a whole PyTorch file"
    raise DamagedError(reason, where=path, remedy="Save it again as tensors alone: torch.save(tensor, path).")


def load_npy(path: Path) -> np.ndarray[Any, Any]:
    """Memory-map a `.npy` file; arrays of Python objects are refused."""
    import numpy as np

    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]  # noqa: TID251
    except ValueError as error:
        text = str(error)
        reason = (
            "holds Python objects, which would run code when read"
            if "object" in text.lower() or "pickle" in text.lower()
            else f"is not a whole .npy file ({text})"
        )
    except (EOFError, OSError) as error:
        reason = f"is not a whole .npy file ({error})"
    raise DamagedError(reason, where=path, remedy="Save it again as numbers: np.save(path, array.astype('float32')).")


def as_tensor(array: np.ndarray[Any, Any]) -> torch.Tensor:
    """Wrap an array that may be read-only, without a copy and without a warning."""
    import warnings

    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(array)
