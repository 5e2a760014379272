"""A policy on disk, and the folder of the run that trained it.

    RUN/config.json                         the policy's settings, and those of its training
    RUN/checkpoints/checkpoint_epoch_N.ckpt its weights after each part of the training; safetensors, whatever the name
    RUN/metrics.jsonl                       a line an epoch: tours on held-out instances
    RUN/run.json                            what was done, with which settings, and how good the policy is

A folder of rl4co has the same names with other contents; rl4co.py reads those.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from elute.base import files, tensors
from elute.base.errors import ConfigError, DamagedError, DataError, VersionError
from elute.base.recipe import build
from elute.models.routing.policy import AttentionPolicy, begin
from elute.models.routing.settings import PolicyConfig

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = "config.json"
CHECKPOINTS = "checkpoints"
METRICS = "metrics.jsonl"
FORMAT = "elute routing policy"
SCHEMA = 1
_NAME = re.compile(r"checkpoint_epoch_([0-9]+)\.ckpt")
_REMEDY = "Train the policy with elute routing train-policy, or give the folder of another run."


def path_of(run: Path, epoch: int) -> Path:
    """Where an epoch's checkpoint lies."""
    return run / CHECKPOINTS / f"checkpoint_epoch_{epoch}.ckpt"


def epochs(run: Path) -> list[int]:
    """Which epochs have a checkpoint, in their order."""
    folder = run / CHECKPOINTS
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(found[1]) for name in names if (found := _NAME.fullmatch(name)))


def find(run: Path, checkpoint: str | int | Path = "last") -> Path:
    """Return the checkpoint's file: the last one, that of an epoch, or a path as it is."""
    known = epochs(run)
    if isinstance(checkpoint, Path) or (isinstance(checkpoint, str) and checkpoint.endswith(".ckpt")):
        path = Path(checkpoint)
        for place in (path, run / CHECKPOINTS / path.name):
            if place.is_file():
                return place
        raise DataError("there is no such checkpoint", where=path, remedy=_there(known))
    if not run.is_dir():
        raise DataError("there is no such run", where=run, remedy=_REMEDY)
    if not known:
        raise DataError(f"there is no checkpoint in {CHECKPOINTS}/", where=run, remedy=_REMEDY)
    if checkpoint == "last":
        return path_of(run, known[-1])
    text = str(checkpoint)
    if not (text.isascii() and text.isdecimal()) or int(text) not in known:
        what = f"there is no checkpoint of epoch {text}" if text.isdecimal() else f"there is no checkpoint {text!r}"
        raise DataError(what, where=run, remedy=_there(known))
    return path_of(run, int(text))


def read_config(run: Path) -> dict[str, Any]:
    """Read what a run's settings are."""
    held = files.read_json(run / CONFIG, what="a policy's settings", remedy=_REMEDY)
    if not isinstance(held, dict):
        raise DamagedError("is not a policy's settings", where=run / CONFIG, remedy=_REMEDY)
    return held


def ours(path: Path) -> bool:
    """Whether a checkpoint is one of ours; those of PyTorch are zip archives."""
    try:
        with path.open("rb") as handle:
            return handle.read(4) != b"PK\x03\x04"
    except OSError as error:
        remedy = "Check the path and its permissions."
        raise DataError(f"cannot be read: {error.strerror or error}", where=path, remedy=remedy) from None


def write(path: Path, policy: AttentionPolicy, *, epoch: int, step: int) -> str:
    """Write a policy's weights and settings; return the file's digest."""
    state = {name: x.detach().cpu().contiguous() for name, x in policy.state_dict().items()}
    floats = {name: x.float().numpy() for name, x in state.items() if x.is_floating_point()}
    told = {
        "format": FORMAT,
        "schema": str(SCHEMA),
        "policy": policy.config.model_dump_json(),
        "epoch": str(epoch),
        "step": str(step),
    }
    files.make_folder(path.parent)
    return tensors.write_safetensors(path, floats, dtype="F32", metadata=told)[1]


def read(path: Path) -> AttentionPolicy:
    """Read a policy that `write` wrote, in evaluation mode and frozen."""
    offset, header = tensors.safetensors_header(path)
    told = header.pop("__metadata__", {})
    if told.get("format") != FORMAT:
        raise DamagedError("is not a policy of elute", where=path, remedy=_REMEDY)
    if not told.get("schema", "").isdecimal() or int(told["schema"]) > SCHEMA:
        raise VersionError("was written by a newer elute", where=path, remedy="Update elute.")
    try:
        config = PolicyConfig.model_validate_json(told.get("policy", ""))
    except ValueError:
        raise DamagedError("does not say what its policy is", where=path, remedy=_REMEDY) from None
    return assembled(config, _tensors(path, offset, header), path)


def assembled(config: PolicyConfig, weights: Mapping[str, Tensor], path: Path) -> AttentionPolicy:
    """Put weights into a policy; every one has to be there, and no other."""
    policy = begin(config, 0)
    wanted = {name: x for name, x in policy.state_dict().items() if x.is_floating_point()}
    for name in sorted(wanted.keys() | weights.keys()):
        if name not in weights or name not in wanted:
            what = f"lacks {name!r}" if name in wanted else f"holds {name!r}, which such a policy has not"
            raise DamagedError(what, where=path, remedy=_REMEDY)
        if weights[name].shape != wanted[name].shape:
            have, need = list(weights[name].shape), list(wanted[name].shape)
            raise DamagedError(f"{name!r} is {have} where {need} is needed", where=path, remedy=_REMEDY)
        if not bool(torch.isfinite(weights[name]).all()):
            raise DamagedError(f"{name!r} holds what is no number", where=path, remedy=_REMEDY)
    policy.load_state_dict(dict(weights), strict=False)  # but for the count of batches that batch norm keeps
    return policy.requires_grad_(False).eval()


def policy_config(values: Mapping[str, Any], where: Path) -> PolicyConfig:
    """Check a policy's settings."""
    return build(PolicyConfig, values, where=str(where))


def _tensors(path: Path, offset: int, header: Mapping[str, Any]) -> dict[str, Tensor]:
    data = np.memmap(path, np.uint8, "r")
    found = {}
    for name, entry in header.items():
        low, high = entry["data_offsets"]
        count = int(np.prod(entry["shape"], dtype=object))
        if entry["dtype"] != "F32" or high - low != 4 * count:
            raise DamagedError(f"{name!r} is not what its header says", where=path, remedy=_REMEDY)
        raw = np.array(data[offset + low : offset + high])
        found[name] = torch.from_numpy(raw.view("<f4").reshape(entry["shape"]))
    return found


def _there(known: list[int]) -> str:
    if not known:
        return _REMEDY
    shown = ", ".join(map(str, known[:12])) + (", …" if len(known) > 12 else "")
    return f"There are those of epochs {shown}."


def random_like(config: PolicyConfig, seed: int) -> AttentionPolicy:
    """Return a frozen policy with random weights, the control of what is found in one that was trained."""
    if seed < 0:
        raise ConfigError(f"seed={seed}", where="policy", remedy="Give 0 or more.")
    return begin(config, seed).requires_grad_(False).eval()
