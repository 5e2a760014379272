"""Several processes that train together, started by `torchrun`: rows spread over them, or features.

Every collective works on all ranks in the same order. A rank that dies closes its connections, which ends the others'
wait with an error; a rank that hangs ends it after `ELUTE_RANK_TIMEOUT` seconds (600).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from elute.base.errors import ConfigError, EluteError

if TYPE_CHECKING:
    from torch import Tensor


class RankError(EluteError):
    """Another process of the same training ended or did not answer."""


class Ranks:
    """The processes of one training; one alone asks nobody."""

    def __init__(self, rank: int = 0, world: int = 1, device: str = "cpu") -> None:
        self.rank, self.world, self.device = rank, world, device

    @property
    def leads(self) -> bool:
        """Whether this rank writes files and talks."""
        return self.rank == 0

    def share(self, rows: int) -> slice:
        """This rank's part of a batch."""
        return slice(rows * self.rank // self.world, rows * (self.rank + 1) // self.world)

    def any(self, flag: bool) -> bool:
        """Whether any of them says so."""
        import torch

        return bool(self.most(torch.tensor([int(flag)]))[0])

    def total(self, values: Tensor) -> Tensor:
        """The sum over all, in place."""
        return self._reduce(values, "SUM")

    def most(self, values: Tensor) -> Tensor:
        """The largest over all, in place."""
        return self._reduce(values, "MAX")

    def gather(self, values: Tensor) -> Tensor:
        """The values of all, one after another; each may hold another number of rows."""
        import torch

        if self.world == 1:
            return values
        sizes = torch.zeros(self.world, dtype=torch.int64)
        sizes[self.rank] = len(values)
        longest = int(self.total(sizes).max())
        padded = torch.cat([values, values.new_zeros(longest - len(values), *values.shape[1:])])
        return torch.cat([part[:n] for part, n in zip(self._all(padded), sizes.tolist(), strict=True)])

    def beside(self, values: Tensor) -> Tensor:
        """The columns of all, side by side."""
        import torch

        return values if self.world == 1 else torch.cat(self._all(values), dim=1)

    def _all(self, values: Tensor) -> list[Tensor]:
        import torch

        parts = [torch.empty_like(values) for _ in range(self.world)]
        with _answers():
            torch.distributed.all_gather(parts, values.contiguous())
        return parts

    def _reduce(self, values: Tensor, how: str) -> Tensor:
        import torch

        if self.world > 1:
            with _answers():
                torch.distributed.all_reduce(values, getattr(torch.distributed.ReduceOp, how))
        return values


@contextmanager
def ranks(device: str) -> Iterator[Ranks]:
    """Join the processes that `torchrun` started; one alone where it did not."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Ranks(device=device)
        return
    import torch

    rank = int(os.environ["RANK"])
    if device == "mps":
        raise ConfigError("several processes cannot share an Apple GPU", remedy="Use --device cpu, or one process.")
    wait = timedelta(seconds=float(os.environ.get("ELUTE_RANK_TIMEOUT", "600")))
    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    with _answers():
        # Counters and choices live on the CPU also where weights do not, so gloo is there in any case.
        torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=wait)
    try:
        yield Ranks(rank, world, f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if on_gpu else device)
        with _answers():
            torch.distributed.barrier()  # none leaves while another still writes or reads
    finally:
        torch.distributed.destroy_process_group()


@contextmanager
def _answers() -> Iterator[None]:
    """Turn a lost rank into one line."""
    try:
        yield
    except RuntimeError as error:
        first = (str(error).splitlines() or [""])[0][:160]
        raise RankError(
            f"another process of this training ended or did not answer ({first})",
            remedy="Its own message says why; the last checkpoint is kept: run the same command again.",
        ) from error
