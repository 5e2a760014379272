"""A checkpoint laid out as rl4co's: read without it, computed as it does, and nothing in it is ever run."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import elute
from elute.base.errors import DataError, EluteError
from elute.models.routing.decoding import decode
from elute.models.routing.instances import draw
from elute.models.routing.pickled import Archive
from elute.models.routing.settings import InstanceConfig

pytestmark = pytest.mark.usefixtures("one_thread")
WIDTH, HEADS, LAYERS, HIDDEN = 16, 2, 2, 24
P = "policy."


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.marker}'",)


def state(norm: str = "batch", mlp: str = "lins.{}") -> dict[str, Tensor]:
    """Random weights under rl4co's names."""
    g = torch.Generator().manual_seed(0)
    shapes: dict[str, tuple[int, ...]] = {
        "encoder.init_embedding.init_embed.weight": (WIDTH, 2),
        "encoder.init_embedding.init_embed.bias": (WIDTH,),
        "decoder.context_embedding.W_placeholder": (2 * WIDTH,),
        "decoder.context_embedding.project_context.weight": (WIDTH, 2 * WIDTH),
        "decoder.pointer.project_out.weight": (WIDTH, WIDTH),
        "decoder.project_node_embeddings.weight": (3 * WIDTH, WIDTH),
        "decoder.project_fixed_context.weight": (WIDTH, WIDTH),
    }
    for i in range(LAYERS):
        at = f"encoder.net.layers.{i}"
        for name, rows, columns in (
            ("0.module.Wqkv", 3 * WIDTH, WIDTH),
            ("0.module.out_proj", WIDTH, WIDTH),
            (f"2.module.{mlp.format(0)}", HIDDEN, WIDTH),
            (f"2.module.{mlp.format(1 if 'lins' in mlp else 2)}", WIDTH, HIDDEN),
        ):
            shapes |= {f"{at}.{name}.weight": (rows, columns), f"{at}.{name}.bias": (rows,)}
        for j in (1, 3):
            shapes |= {f"{at}.{j}.normalizer.{k}": (WIDTH,) for k in ("weight", "bias")}
            if norm == "batch":
                shapes |= {f"{at}.{j}.normalizer.{k}": (WIDTH,) for k in ("running_mean", "running_var")}
    made = {P + k: torch.randn(s, generator=g) / s[-1] ** 0.5 for k, s in shapes.items()}
    for name in list(made):
        if name.endswith("running_var"):
            made[name] = made[name].abs() + 0.3
            made[name.replace("running_var", "num_batches_tracked")] = torch.tensor(7)
    return made


def logits_of(w: dict[str, Tensor], coords: Tensor, tour: list[int], *, mean: bool, free: bool) -> Tensor:
    """The published computation for one instance, a step at a time: [step, node]."""

    def get(name: str) -> Tensor:
        return w[P + name]

    h = functional.linear(
        coords, get("encoder.init_embedding.init_embed.weight"), get("encoder.init_embedding.init_embed.bias")
    )
    for i in range(LAYERS):
        at = f"encoder.net.layers.{i}."
        q, k, v = functional.linear(h, get(at + "0.module.Wqkv.weight"), get(at + "0.module.Wqkv.bias")).split(
            WIDTH, -1
        )
        mixed = torch.cat(
            [functional.scaled_dot_product_attention(*(x[:, s] for x in (q, k, v))) for s in slices()], -1
        )
        h = norm(
            w,
            at + "1.normalizer.",
            h + functional.linear(mixed, get(at + "0.module.out_proj.weight"), get(at + "0.module.out_proj.bias")),
        )
        names = sorted(n for n in w if n.startswith(P + at + "2.module") and n.endswith("weight"))
        inside = functional.relu(functional.linear(h, w[names[0]], w[names[0].replace("weight", "bias")]))
        h = norm(
            w, at + "3.normalizer.", h + functional.linear(inside, w[names[1]], w[names[1].replace("weight", "bias")])
        )
    key, value, target = functional.linear(h, get("decoder.project_node_embeddings.weight")).split(WIDTH, -1)
    fixed = functional.linear(h.mean(0), get("decoder.project_fixed_context.weight")) if mean else 0.0
    rows = []
    for step in range(len(tour)):
        left = torch.tensor([node not in tour[:step] for node in range(len(tour))])
        if step == 0 and not free:
            left = torch.arange(len(tour)) == tour[0]
        state = (
            get("decoder.context_embedding.W_placeholder") if step == 0 else torch.cat([h[tour[0]], h[tour[step - 1]]])
        )
        query = functional.linear(state, get("decoder.context_embedding.project_context.weight")) + fixed
        heads = [
            functional.scaled_dot_product_attention(query[None, s], key[:, s], value[:, s], attn_mask=left[None])
            for s in slices()
        ]
        glimpse = functional.linear(torch.cat(heads, -1)[0], get("decoder.pointer.project_out.weight"))
        rows.append((10 * torch.tanh(target @ glimpse / WIDTH**0.5)).masked_fill(~left, -torch.inf))
    return torch.stack(rows)


def slices() -> list[slice]:
    return [slice(i * WIDTH // HEADS, (i + 1) * WIDTH // HEADS) for i in range(HEADS)]


def norm(w: dict[str, Tensor], at: str, x: Tensor) -> Tensor:
    weight, bias = w[P + at + "weight"], w[P + at + "bias"]
    if P + at + "running_mean" in w:
        return (x - w[P + at + "running_mean"]) / (w[P + at + "running_var"] + 1e-5).sqrt() * weight + bias
    return (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt() * weight + bias


def lightning(run: Path, weights: dict[str, Any], config: dict[str, Any], **more: Any) -> Path:
    """A run's folder with a checkpoint as Lightning writes one; its hyper-parameters run a command when unpickled."""
    path = run / "checkpoints" / "checkpoint_epoch_3.ckpt"
    path.parent.mkdir(parents=True, exist_ok=True)
    held = {"epoch": 3, "global_step": 12, "pytorch-lightning_version": "2.5.0", "state_dict": weights,
            "hyper_parameters": {"env": Hostile(run / "owned"), "policy": Hostile(run / "owned")},
            "optimizer_states": [{"state": {0: {"step": torch.tensor(3.0)}}}], **more}  # fmt: skip
    torch.save(held, path)
    (run / "config.json").write_text(json.dumps(config))
    (run / "env.pkl").write_bytes(b"cos\nsystem\n(S'touch " + str(run / "owned").encode() + b"'\ntR.")
    return path


@pytest.mark.parametrize(
    ("kind", "layout", "config", "pomo"),
    [
        ("batch", "lins.{}", {"model": {"num_heads": 2}}, False),
        (
            "instance",
            "lins.{}",
            {"model": "POMO", "policy_kwargs": {"num_heads": 2, "normalization": "instance"}},
            True,
        ),
        ("batch", "{}", {"num_heads": 2, "use_graph_context": False, "free_start": False}, True),
    ],
)
def test_it_is_computed_as_rl4co_does_and_nothing_is_run(
    tmp_path: Path, kind: str, layout: str, config: dict[str, Any], pomo: bool
) -> None:
    weights = state(kind, layout)
    lightning(tmp_path, weights, config)
    model = elute.load_model("routing_policy", run=tmp_path)
    assert not (tmp_path / "owned").exists()
    found = model.policy.config
    assert (found.embed_dim, found.num_encoder_layers, found.num_heads, found.feedforward_hidden) == (16, 2, 2, 24)
    assert (found.use_graph_context, found.free_start, found.normalization) == (not pomo, not pomo, kind)
    instances = draw(InstanceConfig(num_instances=3, num_loc=6))
    tours = decode(model, instances, logits=True)
    for i, tour in enumerate(tours.actions.tolist()):
        torch.testing.assert_close(
            tours.logits[i],
            logits_of(weights, instances.coords[i], tour, mean=not pomo, free=not pomo),
            rtol=1e-4,
            atol=1e-4,
        )
    assert "encoder_layer_1.mlp" in model.sites
    assert model.name.endswith("checkpoint_epoch_3")


def test_the_marker_would_have_been_seen(tmp_path: Path) -> None:
    """Python's own way does run it: the test above can fail."""
    path = lightning(tmp_path, state(), {})
    torch.load(path, weights_only=False)  # noqa: TID251
    assert (tmp_path / "owned").exists()


def changed(**values: Any) -> dict[str, Any]:
    weights: dict[str, Any] = state()
    for name, value in values.items():
        key = P + name.replace("__", ".")
        if value is None:
            del weights[key]
        else:
            weights[key] = value
    return weights


HOSTILE = "to be run"


@pytest.mark.parametrize(
    ("changes", "config", "said"),
    [
        ({"encoder__extra": HOSTILE}, {}, "is not a tensor, and is not read"),
        ({"decoder__pointer__project_out_moe__gate": torch.zeros(3)}, {}, "policy of another kind"),
        ({"decoder__context_embedding__W_placeholder": None}, {}, "not that of a TSP"),
        ({"encoder__init_embedding__init_embed__bias": None}, {}, "not a whole policy"),
        ({"decoder__pointer__project_out__weight": None}, {}, "lacks 'decoder.pointer.out.weight'"),
        ({"decoder__pointer__project_out__weight": torch.zeros(2, 2)}, {}, r"is \[2, 2\] where \[16, 16\]"),
        ({"decoder__pointer__project_out__weight": torch.full((16, 16), torch.nan)}, {}, "no number"),
        ({}, {"num_heads": 3}, "16 is no multiple of 3 heads"),
        ({}, {"normalization": "layer"}, "normalization is 'layer'"),
        ({}, {"temperature": 2.0}, "temperature"),
    ],
)
def test_another_policy_is_refused_in_one_line(
    tmp_path: Path, changes: dict[str, Any], config: dict[str, Any], said: str
) -> None:
    marker = Hostile(tmp_path / "owned")
    lightning(tmp_path, changed(**{k: marker if v is HOSTILE else v for k, v in changes.items()}), config)
    with pytest.raises(EluteError, match=said) as caught:
        elute.load_model("routing_policy", run=tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "owned").exists()


def test_a_missing_checkpoint_or_config_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such run"):
        elute.load_model("routing_policy", run=tmp_path / "none")
    with pytest.raises(DataError, match="no checkpoint in checkpoints/"):
        elute.load_model("routing_policy", run=tmp_path)
    lightning(tmp_path, state(), {})
    with pytest.raises(DataError, match="no checkpoint of epoch 9. There are those of epochs 3"):
        elute.load_model("routing_policy", run=tmp_path, checkpoint=9)
    with pytest.raises(DataError, match="no such checkpoint"):
        elute.load_model("routing_policy", run=tmp_path, checkpoint="checkpoint_epoch_9.ckpt")
    (tmp_path / "config.json").unlink()
    with pytest.raises(DataError, match=r"config\.json"):
        elute.load_model("routing_policy", run=tmp_path, checkpoint=3)


def test_a_damaged_archive_is_one_line(tmp_path: Path) -> None:
    path = lightning(tmp_path, state(), {})
    whole = path.read_bytes()
    for cut in (30, 1000, len(whole) // 2, len(whole) - 10):
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError, match="not a whole PyTorch checkpoint"):
            elute.load_model("routing_policy", run=tmp_path)
    generator = torch.Generator().manual_seed(0)
    told: list[str] = []
    for _ in range(60):
        spoilt = bytearray(whole)
        for at in torch.randint(0, len(whole), (40,), generator=generator).tolist():
            spoilt[at] ^= 0x55
        path.write_bytes(bytes(spoilt))
        try:
            elute.load_model("routing_policy", run=tmp_path)
        except EluteError as error:
            told.append(str(error))
    assert len(told) > 20
    assert not any("\n" in line for line in told)
    assert not (tmp_path / "owned").exists()


def repacked(path: Path, change: Any, **settings: Any) -> None:
    with zipfile.ZipFile(path) as before:
        entries = {info.filename: before.read(info) for info in before.infolist()}
    with zipfile.ZipFile(path, "w", **settings) as after:
        for name, data in entries.items():
            after.writestr(name, change(name, data))


def test_what_is_compressed_is_not_unpacked(tmp_path: Path) -> None:
    path = lightning(tmp_path, state(), {})
    repacked(path, lambda _, data: data, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(DataError, match="not a whole PyTorch checkpoint"):
        elute.load_model("routing_policy", run=tmp_path)


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R.",
        b"cposix\nsystem\n(S'true'\ntR.",
        b"(S'true'\niposix\nsystem\n.",
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.",
        b"\x80\x02}q\x00X\x0a\x00\x00\x00state_dictcposix\nsystem\nX\x04\x00\x00\x00true\x85Rs.",
        b"\x80\x02\x82\x01.",  # an extension's code
        b"Pabc\n.",
        b"]" + b"(" * 2000 + b".",
        b"N" * 10,
        b"0.",
        b"R.",
        b"",
    ],
)
def test_programs_are_walked_through_and_not_run(
    tmp_path: Path, program: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = lightning(tmp_path, {}, {})
    monkeypatch.setattr(os, "system", lambda *_: pytest.fail("it was run"))
    repacked(path, lambda name, data: program if name.endswith("data.pkl") else data)
    with pytest.raises(DataError, match="no state_dict|not a whole PyTorch checkpoint"):
        elute.load_model("routing_policy", run=tmp_path)


def test_any_tensor_comes_back_as_it_was(tmp_path: Path) -> None:
    x = torch.arange(24.0).view(4, 6)
    held = {"view": x[1:, ::2].t(), "half": x.half(), "bf": x.bfloat16(), "whole": x.long(), "bool": x > 3, "one": torch.tensor(2.5),
            "none": torch.zeros(0, 3), "parameter": torch.nn.Parameter(x[:2]), "double": x.double()}  # fmt: skip
    torch.save(held, tmp_path / "x.pt")
    with Archive(tmp_path / "x.pt") as archive:
        assert set(archive.content) == set(held)
        for name, value in held.items():
            found = archive.tensor(archive.content[name])
            assert found.dtype == value.dtype
            assert torch.equal(found, value.detach()), name
    torch.save({"x": torch.zeros(1).expand(1 << 40)}, tmp_path / "huge.pt")
    with Archive(tmp_path / "huge.pt") as archive, pytest.raises(DataError):
        archive.tensor(archive.content["x"])
