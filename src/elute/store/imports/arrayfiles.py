"""Readers of files that hold arrays and little else: `.npy`, `.npz`, `.pt`, `.safetensors`."""

from __future__ import annotations

import math
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from elute.base.errors import DamagedError, DataError
from elute.base.tensors import as_tensor, load_npy, load_tensors, safetensors_header
from elute.store.imports.parts import AGAIN, NUMBERS, Contents, Part, as_column, in_memory, native, reading

if TYPE_CHECKING:
    import numpy as np

    from elute.store.imports.parts import Array

_SAFETENSORS = {
    **dict(zip(("F64", "F32", "F16", "BF16", "BOOL"), ("<f8", "<f4", "<f2", "<i2", "?"), strict=True)),
    **{f"{sign}{8 * size}": f"<{sign.lower()}{size}" for sign in "IU" for size in (1, 2, 4, 8)},
}


def read_npy(path: Path) -> Contents:
    """Map a `.npy` file into memory."""
    return Contents({"": in_memory(load_npy(path))})


def read_npz(path: Path) -> Contents:
    """List the arrays of a `.npz` file; each is unpacked a piece at a time."""
    parts: dict[str, Part] = {}
    with reading(path, ".npz"), zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.filename.endswith(".npy"):
                parts[info.filename.removesuffix(".npy")] = _member(path, archive, info)
    return _contents(path, parts)


def _member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Part:
    import numpy as np

    key = info.filename.removesuffix(".npy")
    with reading(path, ".npz", key), archive.open(info) as stream:
        version = np.lib.format.read_magic(stream)
        head = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = head(stream)
        offset = stream.tell()
    if dtype.hasobject:
        flaw = ("holds Python objects, which would run code when read", "Save it again as numbers.")
        return Part(tuple(shape), "object", lambda _start, _rows: iter(()), flaw)
    if info.file_size != offset + math.prod(shape) * dtype.itemsize:
        raise DamagedError("has another size than its header says", where=f"{path}, {key}", remedy=AGAIN)

    def read(start: int, rows: int) -> Iterator[Array]:
        with reading(path, ".npz", key), zipfile.ZipFile(path) as again, again.open(info) as stream:
            if fortran and len(shape) > 1:
                yield from _column_by_column(stream, (shape, dtype, offset), (start, rows))
                return
            size = math.prod(shape[1:]) * dtype.itemsize
            stream.seek(offset + start * size)
            for at in range(start, shape[0], rows):
                count = min(rows, shape[0] - at)
                yield native(np.frombuffer(stream.read(count * size), dtype).reshape(count, *shape[1:]))

    return Part(tuple(shape), dtype.name, read)


def _column_by_column(
    stream: IO[bytes], layout: tuple[tuple[int, ...], np.dtype[Any], int], cut: tuple[int, int]
) -> Iterator[Array]:
    """Unpack to a temporary file first: each row of such an array is spread over the whole of it."""
    import numpy as np

    shape, dtype, offset = layout
    with tempfile.TemporaryFile() as file:
        shutil.copyfileobj(stream, file, 1 << 20)
        file.flush()
        array: np.ndarray[Any, Any] = np.memmap(file, dtype, "r", offset, shape, "F")
        for at in range(cut[0], shape[0], cut[1]):
            yield native(array[at : at + cut[1]])


def read_pt(path: Path) -> Contents:
    """Map the tensors of a `.pt` file into memory: one tensor, or dictionaries and lists of tensors."""
    parts: dict[str, Part] = {}
    _gather(load_tensors(path), "", parts)
    if not parts:
        raise DataError("holds no tensor", where=path, remedy="Save one: torch.save({'activations': x}, path).")
    return _contents(path, parts)


def _gather(value: Any, key: str, parts: dict[str, Part]) -> None:
    import numpy as np
    import torch

    if isinstance(value, torch.Tensor):
        parts[key] = _tensor(value.detach())
    elif isinstance(value, (list, tuple)) and value and all(isinstance(v, str) for v in value):
        parts[key] = in_memory(np.array(value, dtype=np.dtypes.StringDType()))
    elif isinstance(value, (dict, list, tuple)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for name, item in items:
            _gather(item, f"{key}/{name}" if key else str(name), parts)


def _tensor(tensor: Any) -> Part:
    import torch

    name, shape = str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        flaw = ("is a sparse or quantised tensor, or one without data", "Save it dense: tensor.to_dense().")
        return Part(shape, name, lambda _start, _rows: iter(()), flaw)
    if name in (*NUMBERS, "bool", "complex64", "complex128") and name != "bfloat16":
        return in_memory(tensor.numpy())
    return in_memory(tensor)


def read_safetensors(path: Path) -> Contents:
    """Map the tensors of a `.safetensors` file into memory."""
    offset, header = safetensors_header(path)
    parts = {key: _mapped(path, key, (offset, entry)) for key, entry in header.items() if key != "__metadata__"}
    return _contents(path, parts)


def _mapped(path: Path, key: str, place: tuple[int, dict[str, Any]]) -> Part:
    import numpy as np

    offset, entry = place
    with reading(path, ".safetensors", key):
        kind, shape = str(entry["dtype"]), tuple(int(n) for n in entry["shape"])
        begin, end = (int(n) for n in entry["data_offsets"])
    if kind not in _SAFETENSORS:
        flaw = (f"has the type {kind}", "Save it as float32, float16 or bfloat16.")
        return Part(shape, kind, lambda _start, _rows: iter(()), flaw)
    dtype = np.dtype(_SAFETENSORS[kind])
    if begin < 0 or min(shape, default=0) < 0 or end - begin != math.prod(shape) * dtype.itemsize:
        raise DamagedError("has another size than its header says", where=f"{path}, {key}", remedy=AGAIN)
    if begin == end:
        return in_memory(np.empty(shape, dtype))
    part = in_memory(np.memmap(path, dtype, "r", offset + begin, shape))
    if kind != "BF16":
        return part

    def read(start: int, rows: int) -> Iterator[Array]:
        import torch

        for words in part.read(start, rows):
            yield as_tensor(np.asarray(words)).view(torch.bfloat16)

    return Part(shape, "bfloat16", read)


def _contents(path: Path, parts: dict[str, Part]) -> Contents:
    columns = {key: as_column(part, f"{path}, {key}") for key, part in parts.items() if len(part.shape) == 1}
    return Contents(parts, columns)
