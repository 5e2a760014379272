"""The file of heads: what goes in comes out, and what is damaged is said in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.heads.made import made

from elute.base.errors import DamagedError, DataError, VersionError
from elute.base.tensors import load_tensors
from elute.heads.attention import AttentionPool
from elute.heads.files import load_heads, save_heads
from elute.heads.regression import fit_head


def written(path: Path, loss: Any = "nb") -> Any:
    data = made()
    head = fit_head(data.x, data.y(loss), loss=loss, model="ridge", penalty=[0.1, np.inf], offset=data.off(loss))
    pool = AttentionPool(10, 2, 3, seed=4)
    save_heads(path, head, genes=["B2M", "ä/b"], folds=[head, head], meta={"pool": "attention"}, attention=pool)
    return head, pool


@pytest.mark.parametrize("loss", ["mse", "nb"])
def test_round_trip(tmp_path: Path, loss: Any) -> None:
    head, pool = written(tmp_path / "heads.pt", loss)
    found = load_heads(tmp_path)
    assert found.genes == ("B2M", "ä/b")
    assert found.meta == {"pool": "attention"}
    for name in ("weights", "bias", "penalty", "residual", "dispersion"):
        np.testing.assert_array_equal(getattr(found.final, name), getattr(head, name))
    assert found.final.states == head.states
    assert (found.final.loss, found.final.model, found.final.l1_ratio) == (loss, "ridge", 0.5)
    assert len(found.folds) == 2
    np.testing.assert_allclose(found.folds[1].weights, head.weights, rtol=1e-6)
    assert found.attention is not None
    for name, value in pool.state_dict().items():
        assert torch.equal(found.attention.state_dict()[name], value)


def test_the_same_heads_are_the_same_bytes(tmp_path: Path) -> None:
    written(tmp_path / "a.pt")
    written(tmp_path / "b.pt")
    a, b = (load_tensors(tmp_path / name) for name in ("a.pt", "b.pt"))
    assert a["config"] == b["config"]
    assert all(torch.equal(a[name], b[name]) for name in a if name != "config")


def test_without_folds_or_attention(tmp_path: Path) -> None:
    data = made()
    head = fit_head(data.x, data.log, loss="mse", model="linear")
    save_heads(tmp_path / "heads.pt", head, genes=["a", "b"])
    found = load_heads(tmp_path / "heads.pt")
    assert found.folds == ()
    assert found.attention is None
    with pytest.raises(DataError, match="1 names for 2 genes"):
        save_heads(tmp_path / "heads.pt", head, genes=["a"])


def test_what_is_damaged(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there are no heads"):
        load_heads(tmp_path)
    path = tmp_path / "heads.pt"
    path.write_bytes(b"nothing")
    with pytest.raises(DamagedError, match="not a whole PyTorch file"):
        load_heads(path)
    torch.save({"weights": torch.zeros(2)}, path)
    with pytest.raises(DamagedError, match="is no file of gene heads"):
        load_heads(path)
    written(path)
    # copies: what is mapped from a file must not be written over
    whole = {name: value if name == "config" else value.clone() for name, value in load_tensors(path).items()}
    told = json.loads(whole["config"])

    def refuse(kind: type[Exception], says: str, **changes: Any) -> None:
        torch.save({**whole, **changes}, path)
        with pytest.raises(kind, match=says) as caught:
            load_heads(path)
        assert "\n" not in str(caught.value)

    refuse(VersionError, "newer elute", config=json.dumps({**told, "schema_version": 99}))
    refuse(DamagedError, "its description is damaged", config="{")
    refuse(DamagedError, "does not hold what it describes", config=json.dumps({**told, "genes": ["a"]}))
    refuse(DamagedError, "does not hold what it describes", config=json.dumps({**told, "loss": "huber"}))
    refuse(DamagedError, "weights holds NaN", weights=torch.full((2, 10), torch.nan))
    refuse(DamagedError, "does not hold what it describes", bias=torch.zeros(3))
    refuse(DamagedError, "does not hold what it describes", fold_weights=torch.zeros(2, 2))
    whole.pop("bias")
    refuse(DamagedError, "does not hold what it describes")
