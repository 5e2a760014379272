"""Files of dictionaries: what is written comes back, what is damaged or hostile is refused in one line."""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from elute.base import plugins
from elute.base.errors import ConfigError, DamagedError, DataError, EluteError, VersionError
from elute.dictionaries import files
from elute.dictionaries.dictionary import Dictionary
from elute.dictionaries.files import NAME, SCHEMA, digest, load_dictionary, save_dictionary, save_safetensors
from elute.dictionaries.spec import DictionarySpec

PAGE = Path(__file__).parents[2] / "docs" / "formats" / "dictionary.md"
FEATURES = 12
KINDS: dict[str, dict[str, Any]] = {
    "sae": {"reads": {"a": 9}, "writes": {"a": 9}},
    "transcoder": {"kind": "transcoder", "reads": {"z": 9}, "writes": {"b": 5}, "skip": True},
    "crosscoder": {"kind": "crosscoder", "reads": {"layer2": 4, "layer10": 4}, "writes": {"layer2": 4, "layer10": 4}},
    "clt": {"kind": "clt", "reads": {"z": 4, "b": 4}, "writes": {"y": 5, "x": 5}, "skip": True},
}


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def make(kind: str = "sae", activation: str = "topk", **more: Any) -> Dictionary:
    spec = {"n_features": FEATURES, "k": 3, "activation": activation, "source": {"store": "s"}, **KINDS[kind], **more}
    dictionary = Dictionary(DictionarySpec.model_validate(spec))
    with torch.no_grad():
        for p in [*dictionary.parameters(), *dictionary.buffers()]:
            p.copy_(torch.randn_like(p))
    return dictionary


def content(dictionary: Dictionary, path: Path) -> dict[str, Any]:
    save_dictionary(dictionary, path)
    found: dict[str, Any] = torch.load(path, weights_only=True, mmap=True)  # noqa: TID251
    return found


def same(one: Dictionary, other: Dictionary) -> None:
    assert one.spec == other.spec
    assert list(one.spec.reads) == list(other.spec.reads)
    assert list(one.spec.writes) == list(other.spec.writes)
    mine, theirs = one.state_dict(), other.state_dict()
    assert mine.keys() == theirs.keys()
    for name in mine:
        assert mine[name].dtype == theirs[name].dtype
        assert torch.equal(mine[name], theirs[name]), name


ALL = pytest.mark.parametrize(
    ("kind", "activation"),
    [
        (kind, name)
        for kind in KINDS
        for name in plugins.names("dictionaries")
        if kind in ("sae", "crosscoder") or not plugins.load("dictionaries", name).tied
    ],
)


@ALL
def test_what_is_written_comes_back(kind: str, activation: str, tmp_path: Path) -> None:
    dictionary = make(kind, activation, nested=(4, FEATURES))
    same(load_dictionary(save_dictionary(dictionary, tmp_path / "one.pt")), dictionary)
    same(load_dictionary(save_safetensors(dictionary, tmp_path / "one.safetensors")), dictionary)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_does_what_was_written(kind: str, tmp_path: Path) -> None:
    dictionary = make(kind)
    save_dictionary(dictionary, tmp_path / NAME)
    again = load_dictionary(tmp_path)  # the folder of a run
    x = {name: torch.randn(20, width) for name, width in dictionary.spec.reads.items()}
    codes = dictionary.encode(x)
    assert torch.equal(again.encode(x).dense(), codes.dense())
    wrote, read = dictionary.decode(codes, x), again.decode(codes, x)
    if isinstance(wrote, Tensor):
        assert torch.equal(wrote, read)
    else:
        assert all(torch.equal(wrote[name], read[name]) for name in dictionary.spec.writes)
    assert not again.training
    assert not any(p.requires_grad for p in again.parameters())


def test_numbers_of_the_whole_bank_stay_buffers(tmp_path: Path) -> None:
    again = load_dictionary(save_dictionary(make(activation="batchtopk"), tmp_path / "one.pt"))
    assert [name for name, _ in again.named_buffers()] == ["banks.0.threshold"]


def test_double_precision_stays(tmp_path: Path) -> None:
    dictionary = make("clt", "jumprelu").double()
    with torch.no_grad():
        dictionary.b_dec += 1e-12
    same(load_dictionary(save_dictionary(dictionary, tmp_path / "one.pt")), dictionary)
    same(load_dictionary(save_safetensors(dictionary, tmp_path / "one.safetensors")), dictionary)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_widened(dtype: torch.dtype, tmp_path: Path) -> None:
    dictionary = make().to(dtype)
    for again in (
        load_dictionary(save_dictionary(dictionary, tmp_path / "one.pt")),
        load_dictionary(save_safetensors(dictionary, tmp_path / "one.safetensors")),
    ):
        same(again, dictionary.float())


def test_files_of_mixed_precision_are_read_in_the_wider_one(tmp_path: Path) -> None:
    whole = content(make(), tmp_path / "one.pt")
    torch.save({**whole, "b_dec": whole["b_dec"].double()}, tmp_path / "two.pt")
    again = load_dictionary(tmp_path / "two.pt")
    assert {p.dtype for p in again.parameters()} == {torch.float64}
    again.encode(torch.randn(3, 9))


def test_the_same_dictionary_gives_the_same_bytes(tmp_path: Path) -> None:
    dictionary = make("clt", "gated")
    for save, suffix in ((save_dictionary, "pt"), (save_safetensors, "safetensors")):
        one, two = tmp_path / f"one.{suffix}", tmp_path / "elsewhere" / f"two.{suffix}"
        two.parent.mkdir(exist_ok=True)
        save(dictionary, one)
        save(load_dictionary(one), two)
        assert one.read_bytes() == two.read_bytes()


def test_shapes_are_those_that_the_field_knows_and_nothing_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dictionary = make("transcoder")
    stored = content(dictionary, tmp_path / "one.pt")
    assert tuple(stored["W_enc"].shape) == (9, FEATURES)
    assert stored["W_enc"].stride() == (1, 9)
    assert tuple(stored["W_dec"].shape) == (FEATURES, 5)
    assert tuple(stored["W_skip"].shape) == (9, 5)
    size = sum(stored[name].nbytes for name in stored if name != "config")
    assert (tmp_path / "one.pt").stat().st_size < size + 5000  # no tensor lies in it twice
    kept: dict[str, Any] = {}

    def read(path: Path) -> dict[str, Any]:
        kept.update(stored)
        return stored

    monkeypatch.setattr(files, "load_tensors", read)
    again = load_dictionary(tmp_path / "one.pt")
    (bank,) = again
    assert again.W_skip is not None
    for name, tensor in {"W_enc": bank.W_enc, "W_dec": bank.W_dec, "W_skip": again.W_skip}.items():
        assert tensor.is_contiguous()
        assert tensor.data_ptr() == kept[name].data_ptr(), name


def test_other_strides_are_read_too(tmp_path: Path) -> None:
    dictionary = make("transcoder")
    stored = content(dictionary, tmp_path / "one.pt")
    torch.save({n: t if n == "config" else t.clone().contiguous() for n, t in stored.items()}, tmp_path / "two.pt")
    same(load_dictionary(tmp_path / "two.pt"), dictionary)
    save_dictionary(dictionary, tmp_path / "one.pt")
    assert load_dictionary(tmp_path / "two.pt").encode(torch.randn(2, 9)).k == 3


def test_parameters_in_a_file_are_tensors(tmp_path: Path) -> None:
    stored = content(make(), tmp_path / "one.pt")
    torch.save({n: t if n == "config" else torch.nn.Parameter(t) for n, t in stored.items()}, tmp_path / "two.pt")
    assert not any(p.requires_grad for p in load_dictionary(tmp_path / "two.pt").parameters())


# Digests


def test_the_digest_does_not_depend_on_the_file(tmp_path: Path) -> None:
    dictionary = make("clt", "gated")
    known = digest(dictionary)
    assert digest(load_dictionary(save_dictionary(dictionary, tmp_path / "one.pt"))) == known
    assert digest(load_dictionary(save_safetensors(dictionary, tmp_path / "one.safetensors"))) == known
    assert re.fullmatch("[0-9a-f]{64}", known)


def test_any_changed_number_changes_the_digest() -> None:
    dictionary = make("clt", "gated")
    known = {digest(dictionary)}
    tensors = [*dictionary.parameters(), *dictionary.buffers()]
    for tensor in tensors:
        with torch.no_grad():
            flat = tensor.view(-1)
            was = flat[-1].clone()
            flat[-1] = torch.nextafter(was, torch.tensor(torch.inf))
            known.add(digest(dictionary))
            flat[-1] = was
    assert len(known) == len(tensors) + 1
    assert digest(dictionary) in known


def test_another_description_is_another_digest() -> None:
    def of(**more: Any) -> str:
        torch.manual_seed(0)
        return digest(make("crosscoder", **more))

    turned = {"layer10": 4, "layer2": 4}
    found = [of(), of(k=4), of(source={"store": "t"}), of(nested=(4, 12)), of(reads=turned, writes=turned)]
    assert len(set(found)) == len(found)
    assert of(source={"a": 1, "b": 2}) == of(source={"b": 2, "a": 1})


# What is refused


def refused(path: Path, kind: type[EluteError], words: str) -> None:
    with pytest.raises(kind) as caught:
        load_dictionary(path)
    line = caught.value.line()
    assert words in line
    assert str(path) in line
    assert "\n" not in line
    assert caught.value.remedy


def test_nothing_there(tmp_path: Path) -> None:
    refused(tmp_path / "none.pt", DataError, "there is no dictionary. Give the folder of a training run, or its file.")
    with pytest.raises(DataError, match=f"{NAME}: there is no dictionary"):
        load_dictionary(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.6, 0.9, 0.999])
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_file_that_was_cut_short(suffix: str, share: float, tmp_path: Path) -> None:
    save = save_dictionary if suffix == "pt" else save_safetensors
    path = save(make(), tmp_path / f"one.{suffix}")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    refused(
        path, DamagedError, "not a whole" if suffix == "pt" or share < 0.1 else "was cut short" if share > 0.5 else ""
    )


class Hostile:
    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.place),)


@pytest.mark.parametrize("where", ["whole", "beside", "config"])
def test_a_file_that_holds_code_is_not_run(where: str, tmp_path: Path) -> None:
    stored = content(make(), tmp_path / "one.pt")
    hostile: Any = Hostile(tmp_path / "ran")
    path = tmp_path / "two.pt"
    torch.save(hostile if where == "whole" else {**stored, "config" if where == "config" else "extra": hostile}, path)
    refused(path, DamagedError, "holds Python objects besides tensors, which would run code when read")
    assert not (tmp_path / "ran").exists()


Change = Callable[[dict[str, Any]], dict[str, Any]]


def config(**more: Any) -> Change:
    """Change the description."""

    def change(stored: dict[str, Any]) -> dict[str, Any]:
        told = json.loads(stored["config"])
        told = {key: value for key, value in {**told, **more}.items() if value is not ...}
        return {**stored, "config": json.dumps(told)}

    return change


def tensor(name: str, made: Callable[[Tensor], Any]) -> Change:
    return lambda stored: {**stored, name: made(stored[name])}


def nan(x: Tensor) -> Tensor:
    x = x.clone()
    x.view(-1)[3] = torch.nan
    return x


DESCRIPTION = "its description is damaged. Train it anew, or restore it from a copy."
DAMAGE: dict[str, tuple[Change, str]] = {
    "another shape": (tensor("W_dec", lambda x: x[:-1]), "W_dec is float32 [11, 9], its description says [12, 9]."),
    "the memory's shape": (tensor("W_enc", lambda x: x.T), "W_enc is float32 [12, 9], its description says [9, 12]."),
    "integers": (tensor("b_enc", lambda x: x.long()), "b_enc is int64 [12], its description says [12]."),
    "complex": (tensor("b_enc", lambda x: x.to(torch.complex64)), "b_enc is complex64 [12]"),
    "NaN": (tensor("b_enc", nan), "b_enc holds NaN or infinity."),
    "infinity": (tensor("b_dec", lambda x: x / 0), "b_dec holds NaN or infinity."),
    "sparse": (tensor("W_dec", lambda x: x.to_sparse()), "W_dec is no plain tensor."),
    "without numbers": (tensor("W_dec", lambda x: x.to("meta")), "W_dec is no plain tensor."),
    "no tensor": (tensor("W_dec", lambda x: x.tolist()), "has no tensor 'W_dec'."),
    "missing": (lambda s: {n: t for n, t in s.items() if n != "b_enc"}, "has no tensor 'b_enc'."),
    "surplus": (lambda s: {**s, "b_gate": s["b_enc"]}, "holds 'b_gate', which it does not describe."),
    "surplus bank": (lambda s: {**s, "W_enc.1": s["W_enc"]}, "holds 'W_enc.1', which it does not describe."),
    "numbered": (lambda s: {**s, 3: s["b_enc"]}, "holds 3, which it does not describe."),
    "no JSON": (lambda s: {**s, "config": s["config"][:-1]}, DESCRIPTION),
    "a list": (lambda s: {**s, "config": "[1, 2]"}, DESCRIPTION),
    "deep": (lambda s: {**s, "config": "[" * 100_000}, DESCRIPTION),
    "k over features": (config(k=13), DESCRIPTION),
    "no reads": (config(reads=...), DESCRIPTION),
    "unknown key": (config(colour="red"), DESCRIPTION),
    "another kind": (config(kind="crosscoder"), DESCRIPTION),
    "no schema": (config(schema_version=...), DESCRIPTION),
    "schema 0": (config(schema_version=0), DESCRIPTION),
    "schema true": (config(schema_version=True), DESCRIPTION),
    "schema in words": (config(schema_version="1"), DESCRIPTION),
    "more than there is": (config(n_features=2**30), "W_dec is float32 [12, 9], its description says [1073741824, 9]."),
    "overflow": (
        config(n_features=2**31 - 1, reads={"a": 2**31 - 1}, writes={"a": 2**31 - 1}, nested=[2**31 - 1]),
        DESCRIPTION,
    ),
    "beyond numbers": (config(n_features=10**30), DESCRIPTION),
    "beyond widths": (config(reads={"a": 10**30}, writes={"a": 10**30}), DESCRIPTION),
    "without skip": (config(kind="transcoder", writes={"b": 9}, skip=True), "has no tensor 'W_skip'."),
    "no config": (lambda s: {n: t for n, t in s.items() if n != "config"}, "is not a dictionary of elute"),
    "config of bytes": (lambda s: {**s, "config": 7}, "is not a dictionary of elute"),
    "another program's": (lambda s: {"encoder.weight": s["W_dec"], "bias": s["b_dec"]}, "is not a dictionary of elute"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file(damage: str, tmp_path: Path) -> None:
    change, words = DAMAGE[damage]
    path = tmp_path / "two.pt"
    torch.save(change(content(make(), tmp_path / "one.pt")), path)
    refused(path, DamagedError, words)


def test_a_list_of_tensors_is_no_dictionary(tmp_path: Path) -> None:
    torch.save([torch.zeros(3)], tmp_path / "one.pt")
    refused(tmp_path / "one.pt", DamagedError, "`elute arrays import-dictionary` reads those of other libraries.")


def test_a_newer_schema(tmp_path: Path) -> None:
    newer = config(schema_version=SCHEMA + 1, novelty={"of": "then"})
    torch.save(newer(content(make(), tmp_path / "one.pt")), tmp_path / "two.pt")
    refused(tmp_path / "two.pt", VersionError, "was written by a newer elute. Update elute.")


def test_an_activation_that_is_not_installed(tmp_path: Path) -> None:
    torch.save(config(activation="jumpreluu")(content(make(), tmp_path / "one.pt")), tmp_path / "two.pt")
    refused(tmp_path / "two.pt", ConfigError, "there is no 'jumpreluu' among dictionaries. Did you mean 'jumprelu'")
    torch.save(config(settings={"tanh": 1.0})(content(make(), tmp_path / "one.pt")), tmp_path / "two.pt")
    refused(tmp_path / "two.pt", ConfigError, "activation 'topk' has no setting 'tanh'")


def test_files_of_other_formats(tmp_path: Path) -> None:
    path = tmp_path / "one.pt"
    path.write_bytes(b"PK\x03\x04 and so on")
    refused(path, DamagedError, "is not a whole PyTorch file")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.txt", "no pickle here")
    refused(path, DamagedError, "is not a whole PyTorch file")
    held = io.BytesIO()
    torch.save(content(make(), tmp_path / "two.pt"), held, _use_new_zipfile_serialization=False)
    path.write_bytes(held.getvalue())
    refused(path, DamagedError, "was written before PyTorch 1.6")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t, _: (t, {}), "is not a dictionary of elute"),
        (lambda t, _: (t, {"config": "{"}), DESCRIPTION),
        (lambda t, m: ({**t, "config": t["b_enc"].clone()}, m), "is not a dictionary of elute"),
        (lambda t, m: ({n: x for n, x in t.items() if n != "b_dec"}, m), "has no tensor 'b_dec'."),
        (lambda t, m: ({**t, "b_enc": nan(t["b_enc"])}, m), "b_enc holds NaN or infinity."),
        (lambda t, m: ({**t, "W_enc": t["W_enc"].T.contiguous()}, m), "W_enc is float32 [12, 9]"),
    ],
)
def test_a_damaged_safetensors_file(change: Any, words: str, tmp_path: Path) -> None:
    path = save_safetensors(make(), tmp_path / "one.safetensors")
    header = path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")]
    tensors, metadata = change(load_file(path), json.loads(header)["__metadata__"])
    save_file(tensors, path, metadata=metadata)
    refused(path, DamagedError, words)


@pytest.mark.parametrize("change", [("F32", "F33"), ('"shape":[12]', '"shape":[13]'), ("F32", "F16")])
def test_a_safetensors_header_that_does_not_fit_its_bytes(change: tuple[str, str], tmp_path: Path) -> None:
    path = save_safetensors(make(), tmp_path / "one.safetensors")
    path.write_bytes(path.read_bytes().replace(change[0].encode(), change[1].encode(), 1))
    refused(path, DamagedError, "its tensors are damaged. Train it anew, or restore it from a copy.")


def test_a_file_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_dictionary(make(), tmp_path / "one.pt")
    before = path.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises((OSError, EluteError)):
        save_dictionary(make(), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["one.pt"]


# The page


def table(heading: str) -> list[list[str]]:
    """The cells of each row of the first table after a line."""
    lines = PAGE.read_text().split(heading, 1)[1].splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[first + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


@ALL
def test_the_page_names_every_tensor_and_its_shape(kind: str, activation: str, tmp_path: Path) -> None:
    dictionary = make(kind, activation)
    spec, stored = dictionary.spec, content(dictionary, tmp_path / "one.pt")
    assert isinstance(stored.pop("config"), str)
    wanted: dict[str, list[int]] = {}
    for name, shape, there, _ in table("## Tensors"):
        if there not in ("always", f"`{activation}`") and not (there == "with `skip`" and spec.skip):
            continue
        whole = "all" in shape
        for number, span in enumerate(spec.spans):
            read, write = span.widths
            size = {"read": read, "write": write, "features": FEATURES, "1": 1}
            size |= {"all read": spec.width_in, "all written": spec.width_out}
            suffix = f".{number}" if len(spec.spans) > 1 and not whole else ""
            wanted[name.strip("`") + suffix] = [size[word.strip()] for word in shape.strip("`[]").split(",")]
    assert {name: [*t.shape] for name, t in stored.items()} == wanted


def test_the_page_names_no_tensor_of_an_activation_that_is_not_there() -> None:
    known = {f"`{name}`" for name in plugins.names("dictionaries")} | {"always", "with `skip`"}
    assert {there for _, _, there, _ in table("## Tensors")} <= known


def test_the_page_names_every_key_and_its_default(tmp_path: Path) -> None:
    told = json.loads(content(make(), tmp_path / "one.pt")["config"])
    rows = {name.strip("`"): (kind, default.strip("`")) for name, kind, default, _ in table("## config")}
    assert rows.keys() == told.keys() == {"schema_version", *DictionarySpec.model_fields}
    kinds = {"integer": int, "string": str, "object": dict, "list": list, "boolean": bool}
    for name, (kind, default) in rows.items():
        assert type(told[name]) is kinds[kind], name
        if name != "schema_version":
            field = DictionarySpec.model_fields[name]
            assert ("" if field.is_required() else json.dumps(field.get_default())) == default, name
    assert told["schema_version"] == SCHEMA == int(re.findall(r"Schema version (\d+)", PAGE.read_text())[0])


def test_the_page_names_every_setting() -> None:
    rows = {(name.strip("`"), key.strip("`"), float(value)) for name, key, value, _ in table("The numbers that")}
    found = {
        (name, key, value)
        for name in plugins.names("dictionaries")
        for key, value in plugins.load("dictionaries", name).settings.items()
    }
    assert rows == found
