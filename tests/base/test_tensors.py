from __future__ import annotations

import errno
import hashlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elute.base import tensors
from elute.base.errors import DamagedError, DataError
from elute.base.tensors import as_tensor, load_npy, load_tensors, safetensors_header, write_safetensors

X = np.arange(30, dtype="f4").reshape(5, 6)
WRITE_ANEW = "Write it anew, or restore it from a copy."
NOT_WHOLE = f"is not a whole safetensors file. {WRITE_ANEW}"
SAVE_TENSORS = "Save it again as tensors alone: torch.save(tensor, path)."
SAVE_NUMBERS = "Save it again as numbers: np.save(path, array.astype('float32'))."
NO_PT = f"is not a whole PyTorch file, or was written before PyTorch 1.6. {SAVE_TENSORS}"
CODE_PT = f"holds Python objects besides tensors, which would run code when read. {SAVE_TENSORS}"
CODE_NPY = f"holds Python objects, which would run code when read. {SAVE_NUMBERS}"


def line_of(read: Callable[[Path], object], path: Path, kind: type[DataError] = DamagedError) -> str:
    with pytest.raises(DataError) as error:
        read(path)
    assert type(error.value) is kind
    assert str(error.value).startswith(f"{path}: ")
    return str(error.value).removeprefix(f"{path}: ")


class Harm:
    """What an attacker puts into a file: reading it as a pickle creates another file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def altered(content: bytes, edits: list[tuple[int, int]], cut: int | None) -> bytes:
    """Change some bytes, and cut the end off."""
    changed = bytearray(content)
    for at, byte in edits:
        changed[at % len(changed)] = byte
    return bytes(changed[:cut])


EDITS = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4)
CUTS = st.none() | st.integers(0, 2_000)


# safetensors


def test_safetensors_reads_what_we_write(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    arrays = {"a": X, "layer.3/β": X[:, ::2], "none": X[:0], "one": X[0, 0], "t": X.T}
    size, sha = write_safetensors(path, arrays, dtype="F32", metadata={"store": "s", "note": 'a "β"'})
    assert size == path.stat().st_size
    assert sha == hashlib.sha256(path.read_bytes()).hexdigest()
    back = safetensors.numpy.load_file(path)
    assert set(back) == set(arrays)
    for name, array in arrays.items():
        assert back[name].dtype == np.float32
        np.testing.assert_array_equal(back[name], array)
    with safetensors.safe_open(path, "numpy") as file:
        assert file.metadata() == {"store": "s", "note": 'a "β"'}
    _, header = safetensors_header(path)
    assert header["none"]["shape"] == [0, 6]
    for length in range(9):  # numbers that can be mapped where they lie
        write_safetensors(path, {"a": X}, dtype="F32", metadata={"note": "n" * length})
        base, _ = safetensors_header(path)
        assert base % 8 == 0
        np.testing.assert_array_equal(safetensors.numpy.load_file(path)["a"], X)


@pytest.mark.parametrize(("dtype", "kind"), [("F16", torch.float16), ("BF16", torch.bfloat16), ("F32", torch.float32)])
def test_each_type_that_a_store_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, kind: torch.dtype
) -> None:
    monkeypatch.setattr(tensors, "_PIECE", 7)  # pieces that end within a number
    rows = torch.tensor([[0.1, -2.0, float("inf")], [3e-5, 0.0, 65504.0]]).to(kind)
    words = rows.view(torch.int16).numpy().view("u2") if kind is torch.bfloat16 else rows.numpy()
    size, sha = write_safetensors(tmp_path / "x", {"a": words, "b": words[::-1]}, dtype=dtype, metadata={})
    back = safetensors.torch.load_file(tmp_path / "x")
    assert back["a"].dtype == kind
    assert torch.equal(back["a"], rows)
    assert torch.equal(back["b"], rows.flip(0))
    assert (size, sha) == (len(content := (tmp_path / "x").read_bytes()), hashlib.sha256(content).hexdigest())


def test_arrays_of_several_types_in_one_file(tmp_path: Path) -> None:
    arrays = {"rows": np.array([3, 2**40]), "indices": np.array([[1, 2], [3, 4]], "i4"), "values": X[:2].astype("f2")}
    types = {"values": "F16", "rows": "I64", "indices": "I32"}
    size, sha = write_safetensors(tmp_path / "x", arrays, dtype=types, metadata={})
    back = safetensors.numpy.load_file(tmp_path / "x")
    assert {name: array.dtype.str for name, array in back.items()} == {"rows": "<i8", "indices": "<i4", "values": "<f2"}
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array)
    assert (size, sha) == (len(content := (tmp_path / "x").read_bytes()), hashlib.sha256(content).hexdigest())
    _, header = safetensors_header(tmp_path / "x")
    assert [header[name]["data_offsets"] for name in arrays] == [[0, 16], [16, 32], [32, 56]]


def test_a_file_of_numbers_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_safetensors(path, {"a": X}, dtype="F32", metadata={})
    with pytest.raises(AttributeError):
        write_safetensors(path, {"a": X, "b": [1.0]}, dtype="F32", metadata={})  # type: ignore[dict-item]
    np.testing.assert_array_equal(safetensors.numpy.load_file(path)["a"], X)
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


@settings(max_examples=40, deadline=None)
@given(
    arrays=st.dictionaries(
        st.text(min_size=1, max_size=5).filter(lambda name: name != "__metadata__"),
        st.tuples(st.sampled_from(["f4", "f2", "i8", "u1", "?"]), st.lists(st.integers(0, 4), max_size=3)),
        max_size=4,
    ),
    metadata=st.none() | st.dictionaries(st.text(max_size=4), st.text(max_size=4), min_size=1, max_size=2),
)
def test_we_read_what_safetensors_writes(
    tmp_path_factory: pytest.TempPathFactory, arrays: dict[str, tuple[str, list[int]]], metadata: dict[str, str] | None
) -> None:
    path = tmp_path_factory.getbasetemp() / "theirs.safetensors"
    made = {n: np.arange(np.prod(s, dtype=int)).reshape(s).astype(d) for n, (d, s) in arrays.items()}
    safetensors.numpy.save_file(made, path, metadata)
    base, header = safetensors_header(path)
    assert (header.pop("__metadata__", None) or {}) == (metadata or {})
    assert set(header) == set(made)
    content = path.read_bytes()[base:]
    for name, array in made.items():
        begin, end = header[name]["data_offsets"]
        assert header[name]["shape"] == list(array.shape)
        assert content[begin:end] == array.tobytes()


def framed(header: object, data: int = 0, *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + b"\0" * data


def entry(*offsets: object, **others: object) -> dict[str, object]:
    return {"dtype": "F32", "shape": [2], "data_offsets": list(offsets), **others}


HOSTILE: dict[str, bytes] = {
    "empty": b"",
    "seven bytes": b"\0" * 7,
    "no header": b"\0" * 8,
    "a length beyond the file": framed({"a": entry(0, 8)}, 8, length=1000),
    "a length beyond everything": b"\xff" * 8 + b"{}",
    "a length that ends early": framed({"a": entry(0, 8)}, 8, length=20),
    "no JSON": framed(b"{'a': 1}"),
    "no UTF-8": framed(b'{"\xff": 1}'),
    "deep": framed(b'{"a":' * 100_000),
    "a list": framed([1]),
    "a number": framed(3),
    "nothing": framed(None),
    "a tensor that is a list": framed({"a": [0, 8]}, 8),
    "a tensor that is text": framed({"a": "data_offsets"}, 8),
    "no offsets": framed({"a": {"dtype": "F32", "shape": [2]}}, 8),
    "no shape": framed({"a": {"dtype": "F32", "data_offsets": [0, 8]}}, 8),
    "no type": framed({"a": {"shape": [2], "data_offsets": [0, 8]}}, 8),
    "a type that is a number": framed({"a": entry(0, 8, dtype=32)}, 8),
    "a negative shape": framed({"a": entry(0, 8, shape=[-1, -2])}, 8),
    "a shape in text": framed({"a": entry(0, 8, shape="2")}, 8),
    "a shape with a fraction": framed({"a": entry(0, 8, shape=[2.0])}, 8),
    "a shape of truth": framed({"a": entry(0, 8, shape=[True])}, 8),
    "one offset": framed({"a": entry(8)}, 8),
    "three offsets": framed({"a": entry(0, 8, 8)}, 8),
    "offsets in text": framed({"a": entry("0", "8")}, 8),
    "an infinite offset": framed(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,Infinity]}}', 8),
    "an offset that is no number": framed(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,NaN]}}', 8),
    "a negative offset": framed({"a": entry(-8, 8)}, 8),
    "an end before its beginning": framed({"a": entry(0, 8), "b": entry(8, 0)}, 8),
    "two in one place": framed({"a": entry(0, 8), "b": entry(0, 8)}, 8),
    "an overlap": framed({"a": entry(0, 8), "b": entry(4, 12)}, 12),
    "a gap": framed({"a": entry(0, 8), "b": entry(12, 20)}, 20),
    "a gap at the beginning": framed({"a": entry(8, 16)}, 16),
    "metadata that are a list": framed({"__metadata__": ["a"], "a": entry(0, 8)}, 8),
    "metadata that are numbers": framed({"__metadata__": {"a": 1}, "a": entry(0, 8)}, 8),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_headers_that_cannot_be_right(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(HOSTILE[kind])
    assert line_of(safetensors_header, path) == NOT_WHOLE
    with pytest.raises(safetensors.SafetensorError):
        safetensors.numpy.load_file(path)


def test_a_header_too_long_to_be_one_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with path.open("wb") as handle:
        handle.write((100_000_001).to_bytes(8, "little"))
        handle.truncate(200_000_000)
    assert line_of(safetensors_header, path) == NOT_WHOLE


def test_files_that_are_too_short_or_too_long(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    size, _ = write_safetensors(path, {"a": X}, dtype="F32", metadata={})
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert line_of(safetensors_header, path) == (
        f"was cut short: {size - 1} bytes where its header promises {size}. {WRITE_ANEW}"
    )
    path.write_bytes(whole + b"\0")
    assert line_of(safetensors_header, path) == f"has bytes that its header does not name. {WRITE_ANEW}"
    path.write_bytes(framed({"a": entry(0, 10**15)}))
    assert "header promises 1,000,000,000,000,0" in line_of(safetensors_header, path)


@pytest.mark.parametrize("read", [safetensors_header, load_tensors, load_npy])
def test_files_that_are_not_there(tmp_path: Path, read: Callable[[Path], object]) -> None:
    check = "Check the path and its permissions."
    assert line_of(read, tmp_path / "none", DataError) == f"cannot be read: No such file or directory. {check}"
    assert line_of(read, tmp_path, DataError) == f"cannot be read: Is a directory. {check}"


def test_a_disk_that_fails_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(torch, "load", failing)
    assert line_of(load_tensors, tmp_path / "x.pt") == NO_PT
    monkeypatch.setattr(np.lib.format, "open_memmap", failing)
    assert line_of(load_npy, tmp_path / "x.npy") == (
        f"is not a whole .npy file ([Errno 5] Input/output error). {SAVE_NUMBERS}"
    )


THEIRS = safetensors.numpy.save({"a": X, "b": X[:1].astype("f2")}, {"m": "n"})


@settings(max_examples=200, deadline=None)
@given(edits=EDITS, cut=CUTS)
def test_an_altered_safetensors_file_is_refused_or_lies_within_itself(
    tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[int, int]], cut: int | None
) -> None:
    path = tmp_path_factory.getbasetemp() / "altered.safetensors"
    head = int.from_bytes(THEIRS[:8], "little") + 8
    content = altered(THEIRS, [(at % head, byte) for at, byte in edits], cut)
    path.write_bytes(content)
    try:
        safetensors.deserialize(content)
        whole = True
    except safetensors.SafetensorError:
        whole = False
    try:
        base, header = safetensors_header(path)
    except DamagedError:
        assert not whole, "refused, though safetensors reads it"
        return
    places = sorted(e["data_offsets"] for name, e in header.items() if name != "__metadata__")
    assert [begin for begin, _ in places] == [0, *(end for _, end in places)][: len(places)]
    assert base + (places[-1][1] if places else 0) == len(content)


# .pt


def test_tensors_come_back(tmp_path: Path) -> None:
    saved = {"a": torch.tensor(X), "b": [torch.ones(2, dtype=torch.bfloat16)], "step": 3, "name": "x"}
    torch.save(saved, tmp_path / "x.pt")
    back = load_tensors(tmp_path / "x.pt")
    assert torch.equal(back["a"], saved["a"])
    assert back["b"][0].dtype == torch.bfloat16
    assert (back["step"], back["name"]) == (3, "x")


@pytest.mark.parametrize("new", [True, False])
def test_what_would_run_code_is_refused_and_does_not_run(tmp_path: Path, new: bool) -> None:
    path, harm = tmp_path / "x.pt", tmp_path / "harm"
    torch.save({"a": torch.ones(2), "b": Harm(harm)}, path, _use_new_zipfile_serialization=new)
    assert line_of(load_tensors, path) == (CODE_PT if new else NO_PT)
    assert not harm.exists()
    torch.load(path, weights_only=False)  # noqa: TID251  # the attack does work on one who unpickles
    assert harm.exists()


def test_a_bare_pickle_is_not_run_under_any_name(tmp_path: Path) -> None:
    harm = tmp_path / "harm"
    pickled = f"cposix\nsystem\n(S'touch {harm}'\ntR.".encode()
    for read, name, line in ((load_tensors, "x.pt", NO_PT), (load_npy, "x.npy", "is not a whole .npy file (the magic")):
        (tmp_path / name).write_bytes(pickled)
        assert line_of(read, tmp_path / name).startswith(line)
        assert not harm.exists()


@pytest.mark.parametrize("content", [b"", b"hello world", b"\x93NUMPY", b"PK\x03\x04", b"PK\x05\x06" + b"\0" * 18])
def test_what_is_no_pt_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    assert line_of(load_tensors, tmp_path / "x.pt") == NO_PT


def test_a_pt_file_that_was_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save(torch.tensor(X), path)
    whole = path.read_bytes()
    for size in range(0, len(whole), 61):
        path.write_bytes(whole[:size])
        assert line_of(load_tensors, path) == NO_PT


@pytest.fixture(scope="module")
def saved_pt(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("pt") / "x.pt"
    torch.save({"w": torch.tensor(X), "b": torch.zeros(3, dtype=torch.bfloat16), "n": [1, 2.5, "x", (1,)]}, path)
    return path.read_bytes()


@settings(max_examples=200, deadline=None)
@given(edits=EDITS, cut=CUTS)
def test_an_altered_pt_file_gives_values_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, saved_pt: bytes, edits: list[tuple[int, int]], cut: int | None
) -> None:
    path = tmp_path_factory.getbasetemp() / "altered.pt"
    # The pickle and the file names lie in the first half, the directory at the end: both are hit.
    path.write_bytes(altered(saved_pt, edits, cut))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch wonders at a protocol number
        try:
            load_tensors(path)
        except DamagedError as error:
            assert error.remedy == SAVE_TENSORS  # noqa: PT017


BROKEN_PICKLES = {
    "a place that is no tuple": b"\x80\x02K\x01Q.",
    "a number that was cut": b"\x80\x02J\x01",
    "a dictionary that is none": b"\x80\x02K\x01K\x02K\x03s.",
    "an empty stack": b"\x80\x02.",
    "an unknown letter": b"\x80\x02\xff.",
    "a name that is not there": b"\x80\x02h\x07.",
    "a tensor of nothing": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
}


@pytest.mark.parametrize("kind", BROKEN_PICKLES)
def test_a_pickle_that_is_broken_within_a_whole_archive(tmp_path: Path, kind: str) -> None:
    import zipfile

    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", BROKEN_PICKLES[kind])
        archive.writestr("x/version", "3\n")
        archive.writestr("x/byteorder", "little")
    assert line_of(load_tensors, path) in (NO_PT, CODE_PT)


# .npy


def test_arrays_are_mapped_not_read(tmp_path: Path) -> None:
    for name, array in {
        "c": X,
        "f": np.asfortranarray(X),
        "big": X.astype(">f8"),
        "none": X[:0],
        "one": X[0, 0],
    }.items():
        np.save(tmp_path / f"{name}.npy", array)
        back = load_npy(tmp_path / f"{name}.npy")
        assert isinstance(back, np.memmap)
        assert not back.flags.writeable
        assert (back.dtype, back.shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(back, array)


def test_an_array_of_objects_is_refused_and_does_not_run(tmp_path: Path) -> None:
    harm = tmp_path / "harm"
    for name, dtype in (("plain", "O"), ("record", [("a", "f4"), ("b", "O")])):
        path = tmp_path / f"{name}.npy"
        np.save(
            path, np.array([(1.0, Harm(harm))] if name == "record" else [Harm(harm)], dtype=dtype), allow_pickle=True
        )
        assert line_of(load_npy, path) == CODE_NPY
        assert not harm.exists()
        np.load(path, allow_pickle=True)  # noqa: TID251  # the attack does work on one who unpickles
        assert harm.exists()
        harm.unlink()


def npy(header: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + b"\0" * 64


def described(shape: str, descr: str = "'<f8'") -> bytes:
    return npy(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n")


NOT_NPY: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "EOF: reading magic string, expected 8 bytes got 0"),
    "text": (b"1.0,2.0\n", r"the magic string is not correct; expected b'\x93NUMPY', got b'1.0,2.'"),
    "of the future": (b"\x93NUMPY\x09\x00" + b"\0" * 64, "we only support format version (1,0), (2,0), and (3,0), not"),
    "no header": (b"\x93NUMPY\x01\x00", "EOF: reading array header length, expected 2 bytes got 0"),
    "more than is there": (described("(9,)"), "mmap length is greater than file size"),
    "a negative shape": (described("(-3,)"), "negative dimensions are not allowed"),
    "a huge shape": (described("(99999999999999999999999,)"), "Python int too large to convert to C long"),
    "a shape that wraps around": (described("(4611686018427387904, 4)"), "overflow encountered in scalar multiply"),
    "a shape that is text": (described("'3'"), "shape is not valid: '3'"),
    "a type that is nonsense": (described("(3,)", "'nonsense'"), "descr is not a valid dtype descriptor: 'nonsense'"),
    "brackets": (npy("(" * 5000), "('EOF in multi-line statement'"),
    "keys of two kinds": (npy("{1: 2, 'a': 3}"), "'<' not supported between instances of 'str' and 'int'"),
    "keys of others": (npy("{'a': 3}"), "Header does not contain the correct keys: ['a']"),
    "a header that is a program": (
        npy("__import__('os').getpid()"),
        "malformed node or string on line 1: <ast.Call object",
    ),
    "a long header": (npy("x" * 20_000), "Header info length (20000) is large and may not be safe to load securely."),
    "a deep header": (npy("{'descr': " + "[" * 300 + "]" * 300 + "}"), "Cannot parse header: \"{'descr': [[[["),
}


@pytest.mark.parametrize("kind", NOT_NPY)
def test_headers_of_arrays_that_cannot_be_right(tmp_path: Path, kind: str) -> None:
    content, said = NOT_NPY[kind]
    (tmp_path / "x.npy").write_bytes(content)
    line = line_of(load_npy, tmp_path / "x.npy")
    assert line.startswith(f"is not a whole .npy file ({said}"), line
    assert line.endswith(f"). {SAVE_NUMBERS}")
    assert len(line) < 300
    assert "allow_pickle" not in line


def test_several_arrays_under_the_name_of_one(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=X)
    (tmp_path / "x.npz").rename(tmp_path / "x.npy")
    assert line_of(load_npy, tmp_path / "x.npy").startswith("is not a whole .npy file (the magic string is not correct")


SAVED_NPY = (
    b"\x93NUMPY\x01\x00v\x00"
    + "{'descr': '<f4', 'fortran_order': False, 'shape': (5, 6), }".ljust(117).encode()
    + b"\n"
)


@settings(max_examples=200, deadline=None)
@given(
    edits=st.lists(
        st.tuples(st.integers(6, 70), st.sampled_from(b"'(),{}[]:0123456789-<>|OfiuSUVx \\\0\xff\n")), max_size=4
    ),
    cut=st.none() | st.integers(0, 300),
)
def test_an_altered_npy_file_gives_an_array_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[int, int]], cut: int | None
) -> None:
    path = tmp_path_factory.getbasetemp() / "altered.npy"
    path.write_bytes(altered(SAVED_NPY + X.tobytes(), edits, cut))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's notes on headers of other years
        try:
            array = load_npy(path)
        except DamagedError as error:
            assert edits or cut is not None
            assert error.remedy == SAVE_NUMBERS  # noqa: PT017
        else:
            assert isinstance(array, np.memmap)
            assert not array.dtype.hasobject


def test_a_read_only_array_becomes_a_tensor_without_a_copy(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    array = load_npy(tmp_path / "x.npy")
    tensor = as_tensor(array)
    assert torch.equal(tensor, torch.tensor(X))
    assert tensor.data_ptr() == array.ctypes.data
