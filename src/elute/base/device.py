"""Which device and number type to compute with, and why."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from elute.base.errors import ConfigError, MissingError, near

DEVICES = ("auto", "cuda", "mps", "cpu")
DTYPES = ("auto", "fp32", "bf16", "fp16")


@dataclass(frozen=True)
class Compute:
    """A device, a number type, and the reason for both in words."""

    device: str
    dtype: str
    why: str


def choose(device: str = "auto", dtype: str = "auto") -> Compute:
    """Choose what to compute on: what was asked for if it is there, else the fastest that is."""
    import torch

    name, colon, index = device.partition(":")
    if name not in DEVICES:
        raise ConfigError(f"unknown device {device!r}", remedy=near(name, DEVICES))
    if colon and (name == "auto" or not (index.isascii() and index.isdecimal())):
        raise ConfigError(f"unknown device {device!r}", remedy="A device's number follows its name: cuda:0.")
    if dtype not in DTYPES:
        raise ConfigError(f"unknown number type {dtype!r}", remedy=near(dtype, DTYPES))
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name != "auto" and not there[name]:
        others = " and ".join(n for n, ok in there.items() if ok)
        raise MissingError(
            f"device {device!r} was asked for, but PyTorch {torch.__version__} sees none",
            remedy=f"There is {others}: use --device auto.",
        )
    if name == "cuda" and colon and int(index) >= (count := torch.cuda.device_count()):
        raise MissingError(
            f"device {device!r} was asked for, but PyTorch {torch.__version__} sees {count}, counted from 0",
            remedy="Give a smaller number, or use --device auto.",
        )
    if name == "auto":
        chosen = next(n for n, ok in there.items() if ok)
        why = {"cuda": "a CUDA device is there", "mps": "Apple's GPU is there", "cpu": "no GPU is there"}[chosen]
    else:
        chosen, why = device, "as asked"
    if dtype != "auto":
        return Compute(chosen, dtype, f"{chosen}: {why}; {dtype}: as asked")
    if chosen.startswith("cuda") and torch.cuda.is_bf16_supported(including_emulation=False):
        return Compute(chosen, "bf16", f"{chosen}: {why}; bf16: in hardware there")
    return Compute(chosen, "fp32", f"{chosen}: {why}; fp32: bf16 is not in hardware there, and slower")


@contextmanager
def few_threads(most: int = 2) -> Iterator[None]:
    """A small model is slower on many cores than on two, and rounds otherwise on each number of them."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(min(before, most))
    try:
        yield
    finally:
        torch.set_num_threads(before)
