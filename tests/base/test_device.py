from __future__ import annotations

import pytest
import torch

from elute.base.device import Compute, choose
from elute.base.errors import ConfigError, MissingError

SAYS = f"PyTorch {torch.__version__} sees"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A machine with the parts that a test names: `cuda` (two devices), `bf16`, `mps`."""
    parts = request.param.split()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in parts)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2 if "cuda" in parts else 0)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: "bf16" in parts or including_emulation
    )
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in parts)


CHOICES = [
    ("cpu", "auto", "auto", "cpu", "fp32", "cpu: no GPU is there; fp32: bf16 is not in hardware there, and slower"),
    ("cuda bf16", "auto", "auto", "cuda", "bf16", "cuda: a CUDA device is there; bf16: in hardware there"),
    ("cuda", "auto", "auto", "cuda", "fp32", "cuda: a CUDA device is there; fp32: bf16 is not in hardware there, and slower"),
    ("cuda bf16 mps", "auto", "auto", "cuda", "bf16", "cuda: a CUDA device is there; bf16: in hardware there"),
    ("mps", "auto", "auto", "mps", "fp32", "mps: Apple's GPU is there; fp32: bf16 is not in hardware there, and slower"),
    ("cuda bf16", "cpu", "auto", "cpu", "fp32", "cpu: as asked; fp32: bf16 is not in hardware there, and slower"),
    ("cuda bf16", "cuda:1", "auto", "cuda:1", "bf16", "cuda:1: as asked; bf16: in hardware there"),
    ("cuda bf16", "cuda", "fp16", "cuda", "fp16", "cuda: as asked; fp16: as asked"),
    ("cpu", "auto", "bf16", "cpu", "bf16", "cpu: no GPU is there; bf16: as asked"),
    ("cpu", "cpu:0", "fp32", "cpu:0", "fp32", "cpu:0: as asked; fp32: as asked"),
]  # fmt: skip


@pytest.mark.parametrize(("machine", "device", "dtype", "chosen", "kind", "why"), CHOICES, indirect=["machine"])
@pytest.mark.usefixtures("machine")
def test_what_is_chosen_and_why(device: str, dtype: str, chosen: str, kind: str, why: str) -> None:
    assert choose(device, dtype) == Compute(chosen, kind, why)


REFUSED = [
    ("cpu", "cuda", "auto", MissingError,
     f"device 'cuda' was asked for, but {SAYS} none. There is cpu: use --device auto."),
    ("cpu", "cuda:0", "auto", MissingError,
     f"device 'cuda:0' was asked for, but {SAYS} none. There is cpu: use --device auto."),
    ("cuda", "mps", "auto", MissingError,
     f"device 'mps' was asked for, but {SAYS} none. There is cuda and cpu: use --device auto."),
    ("cuda", "cuda:2", "auto", MissingError,
     f"device 'cuda:2' was asked for, but {SAYS} 2, counted from 0. Give a smaller number, or use --device auto."),
    ("cuda", "cdua", "auto", ConfigError, "unknown device 'cdua'. Did you mean 'cuda' or 'cpu'?"),
    ("cuda", "CUDA:1", "auto", ConfigError, "unknown device 'CUDA:1'. Did you mean 'cuda'?"),
    ("cuda", "tpu9", "auto", ConfigError, "unknown device 'tpu9'. Did you mean 'cpu'?"),
    ("cuda", "", "auto", ConfigError, "unknown device ''. There are: auto, cpu, cuda, mps."),
    ("cuda", "cuda:", "auto", ConfigError, "unknown device 'cuda:'. A device's number follows its name: cuda:0."),
    ("cuda", "cuda:x", "auto", ConfigError, "unknown device 'cuda:x'. A device's number follows its name: cuda:0."),
    ("cuda", "cuda:-1", "auto", ConfigError, "unknown device 'cuda:-1'. A device's number follows its name: cuda:0."),
    ("cuda", "auto:1", "auto", ConfigError, "unknown device 'auto:1'. A device's number follows its name: cuda:0."),
    ("cpu", "cpu", "bf15", ConfigError, "unknown number type 'bf15'. Did you mean 'bf16' or 'fp16'?"),
    ("cpu", "cpu", "double", ConfigError, "unknown number type 'double'. There are: auto, bf16, fp16, fp32."),
]  # fmt: skip


@pytest.mark.parametrize(("machine", "device", "dtype", "kind", "line"), REFUSED, indirect=["machine"])
@pytest.mark.usefixtures("machine")
def test_what_is_not_there_is_refused(device: str, dtype: str, kind: type[Exception], line: str) -> None:
    with pytest.raises((ConfigError, MissingError)) as error:
        choose(device, dtype)
    assert type(error.value) is kind
    assert str(error.value) == line


def test_what_is_chosen_here_can_compute() -> None:
    chosen = choose()
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[chosen.dtype]
    assert torch.ones(2, 2, device=chosen.device, dtype=kind).sum().item() == 4
