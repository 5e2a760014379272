"""The tensors of a PyTorch checkpoint that holds Python objects as well, read without making any of them.

A `.pt` or Lightning `.ckpt` is a zip archive: `data.pkl` says what there is, `data/N` are the numbers. `data.pkl` is a
program for Python's unpickler, which imports and calls whatever it names. Here its instructions are walked through by
hand: containers, numbers and texts are made; a name stays a name; a call is left undone and its result is an inert
mark, but for the few by which a tensor describes itself. So there is nothing that a file could have run.
"""

from __future__ import annotations

import math
import pickletools
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from elute.base.errors import DamagedError, DataError

_LARGEST = 64 << 20  # bytes of data.pkl
# Whatever the readers below let through for a damaged file.
_UNREADABLE = (zipfile.BadZipFile, struct.error, EOFError, ValueError, LookupError, TypeError, AttributeError,
               RuntimeError, ArithmeticError)  # fmt: skip
_TYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_EMPTY: dict[str, Any] = {"EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict, "EMPTY_SET": set}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_NOTHING = ("PROTO", "FRAME")
_PUTS = ("PUT", "BINPUT", "LONG_BINPUT")
_GETS = ("GET", "BINGET", "LONG_BINGET")


class Named(NamedTuple):
    """The name of a function or class, which is not looked up."""

    module: str
    name: str


class Inert:
    """What a call would have made."""


class Stored(NamedTuple):
    """Numbers of the archive."""

    dtype: torch.dtype
    key: str
    numel: int


@dataclass(frozen=True)
class Described:
    """A tensor that has not been read yet."""

    stored: Stored
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Mark:
    pass


class Archive:
    """A checkpoint: `content` is what it holds, with descriptions in place of tensors."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._readable():
            self._zip = zipfile.ZipFile(path)
            names = [n for n in self._zip.namelist() if n == "data.pkl" or n.endswith("/data.pkl")]
            if len(names) != 1:
                raise bad(path)
            self._root = names[0].removesuffix("data.pkl")
            order = f"{self._root}byteorder"
            if order in self._zip.namelist() and self._entry(order) != b"little":
                raise DataError("was written by a machine with the other order of bytes", where=path)
            self.content = _walk(self._entry(names[0], most=_LARGEST))

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def tensor(self, described: Described) -> Tensor:
        """Read a tensor."""
        with self._readable():
            kind, key, count = described.stored
            raw = self._entry(f"{self._root}data/{key}")
            last = described.offset + sum((n - 1) * s for n, s in zip(described.shape, described.strides, strict=True))
            size = math.prod(described.shape)  # no number stands for several: a small file could be a huge tensor
            if len(raw) < count * kind.itemsize or size > count or (size and last >= count):
                raise bad(self.path)
            if not size:
                return torch.empty(described.shape, dtype=kind)
            flat = torch.from_numpy(np.frombuffer(raw, np.uint8).copy())[: count * kind.itemsize].view(kind)
            return flat.as_strided(described.shape, described.strides, described.offset).clone()

    def _entry(self, name: str, most: int | None = None) -> bytes:
        info = self._zip.getinfo(name)
        # PyTorch compresses nothing: what is compressed could be small here and endless when unpacked.
        if info.compress_type != zipfile.ZIP_STORED or (most is not None and info.file_size > most):
            raise bad(self.path)
        return self._zip.read(info)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except DataError:
            raise
        except OSError as error:
            remedy = "Check the path and its permissions."
            raise DataError(f"cannot be read: {error.strerror or error}", where=self.path, remedy=remedy) from None
        except _UNREADABLE:
            raise bad(self.path) from None


def bad(path: Path) -> DamagedError:
    """What is said of a file that is no such archive."""
    return DamagedError("is not a whole PyTorch checkpoint", where=path, remedy="Write it anew, or restore a copy.")


def _walk(program: bytes) -> Any:
    """Walk through the instructions; what is not known here ends the walk."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    for opcode, arg, _ in pickletools.genops(program):
        name = opcode.name
        if name == "STOP":
            return stack.pop()
        if name in _NOTHING:
            continue
        if name in _PUTS:
            memo[_place(arg)] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in _GETS:
            stack.append(memo[_place(arg)])
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in _ACTIONS:
            _ACTIONS[name](stack)
        elif name in _TUPLES:
            stack.append(tuple(_cut(stack, len(stack) - _TUPLES[name])))
        elif name in ("GLOBAL", "INST"):
            if name == "INST":
                _since_mark(stack)
            module, _, attribute = str(arg).partition(" ")
            stack.append(Named(module, attribute) if name == "GLOBAL" else Inert())
        elif isinstance(arg, int | float | str | bytes | bytearray) and not name.startswith(("EXT", "PERS")):
            stack.append(arg)
        else:
            raise ValueError(name)
    raise ValueError("no end")


def _cut(stack: list[Any], at: int) -> list[Any]:
    if at < 0:
        raise ValueError("an empty stack")
    part = stack[at:]
    del stack[at:]
    return part


def _since_mark(stack: list[Any]) -> list[Any]:
    at = len(stack) - 1
    while not isinstance(stack[at], _Mark):
        at -= 1
        if at < 0:
            raise ValueError("no mark")
    part = _cut(stack, at)
    return part[1:]


def _append(stack: list[Any], items: list[Any]) -> None:
    if isinstance(stack[-1], list):
        stack[-1].extend(items)


def _set(stack: list[Any], items: list[Any]) -> None:
    if isinstance(stack[-1], dict):
        pairs = zip(items[::2], items[1::2], strict=True)
        stack[-1].update({key: value for key, value in pairs if isinstance(key, str | int)})


def _mapping(stack: list[Any]) -> None:
    items = _since_mark(stack)
    stack.append({})
    _set(stack, items)


def _place(arg: Any) -> int:
    return int(arg)


def _drop(stack: list[Any], count: int) -> None:
    _cut(stack, len(stack) - count)


def _left_undone(stack: list[Any], count: int) -> None:
    """Take a call and its arguments from the stack, and leave a mark in place of its result."""
    _drop(stack, count)
    stack.append(Inert())


def _reduce(stack: list[Any]) -> None:
    called, given = _cut(stack, len(stack) - 2)
    stack.append(_result(called, given))


def _result(called: Any, given: Any) -> Any:
    """What a call gives: an empty mapping, a tensor's description, or a mark that it was left undone."""
    if not isinstance(called, Named) or not isinstance(given, tuple):
        return Inert()
    if called == ("collections", "OrderedDict") and not given:
        return {}
    if called == ("torch._utils", "_rebuild_parameter") and given:
        return given[0] if isinstance(given[0], Described) else Inert()
    if called == ("torch._utils", "_rebuild_tensor_v2") and len(given) >= 4:
        stored, offset, shape, strides = given[:4]
        counts = isinstance(shape, tuple) and isinstance(strides, tuple) and len(shape) == len(strides) < 9
        if isinstance(stored, Stored) and counts and all(_count(x) for x in (offset, *shape, *strides)):
            return Described(stored, offset, shape, strides)
    return Inert()


def _count(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 48


def _stored(stack: list[Any]) -> None:
    told = stack.pop()
    if isinstance(told, tuple) and len(told) == 5 and told[0] == "storage" and isinstance(told[1], Named):
        _, kind, key, _, count = told
        if kind.module == "torch" and kind.name in _TYPES and isinstance(key, str) and _count(count):
            stack.append(Stored(_TYPES[kind.name], key, count))
            return
    stack.append(Inert())


_ACTIONS: dict[str, Any] = {
    "MARK": lambda stack: stack.append(_Mark()),
    "POP": lambda stack: _drop(stack, 1),
    "POP_MARK": _since_mark,
    "DUP": lambda stack: stack.append(stack[-1]),
    "APPEND": lambda stack: _append(stack, _cut(stack, len(stack) - 1)),
    "APPENDS": lambda stack: _append(stack, _since_mark(stack)),
    "SETITEM": lambda stack: _set(stack, _cut(stack, len(stack) - 2)),
    "SETITEMS": lambda stack: _set(stack, _since_mark(stack)),
    "ADDITEMS": _since_mark,
    "LIST": lambda stack: stack.append(_since_mark(stack)),
    "TUPLE": lambda stack: stack.append(tuple(_since_mark(stack))),
    "DICT": _mapping,
    "FROZENSET": lambda stack: (_since_mark(stack), stack.append(Inert())),
    "STACK_GLOBAL": lambda stack: stack.append(Named(*map(str, _cut(stack, len(stack) - 2)))),
    "REDUCE": _reduce,
    "NEWOBJ": lambda stack: _left_undone(stack, 2),
    "NEWOBJ_EX": lambda stack: _left_undone(stack, 3),
    "OBJ": lambda stack: (_since_mark(stack), stack.append(Inert())),
    "BUILD": lambda stack: _drop(stack, 1),
    "BINPERSID": _stored,
}
