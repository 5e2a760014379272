"""Several processes that train together, started by `torchrun`: rows spread over them, or features.

Every collective works on all ranks in the same order. A rank that dies closes its connections, which ends the others'
wait with an error; a rank that hangs ends it after `ELUTE_RANK_TIMEOUT` seconds (600).

Only the first talks and writes. Where something goes wrong one of them tells it, in one line, and the others end
without a word and with the same exit code: the first if it failed itself, else whichever did, else the first survivor.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from elute.base import console, device
from elute.base.errors import ConfigError, EluteError

if TYPE_CHECKING:
    from torch import Tensor

_TOLD = "told"
_joins = itertools.count()  # a process may train several times
_GRACE = 0.5  # seconds in which a rank that failed by itself is heard before one that lost it


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

    def tell(self, value: Any) -> Any:
        """What the first says, to all: anything that JSON can hold."""
        import torch

        if self.world == 1:
            return value
        text = json.dumps(value).encode() if self.leads else b""
        heard = self.gather(torch.tensor(list(text), dtype=torch.uint8))
        return json.loads(bytes(heard.tolist()))

    def begin(self, values: Tensor) -> Tensor:
        """What the first holds, in place of what each made by itself: machines may round differently."""
        import torch

        if self.world > 1:
            with _answers():
                torch.distributed.broadcast(values, 0)
        return values

    def _all(self, values: Tensor) -> list[Tensor]:
        import torch

        values = values.contiguous()
        parts = [torch.empty_like(values) for _ in range(self.world)]
        with _answers():
            torch.distributed.all_gather(parts, values)
        return parts

    def _reduce(self, values: Tensor, how: str) -> Tensor:
        import torch

        if self.world > 1:
            with _answers():
                torch.distributed.all_reduce(values, getattr(torch.distributed.ReduceOp, how))
        return values


@contextmanager
def ranks(wanted: str) -> Iterator[Ranks]:
    """Join the processes that `torchrun` started, one alone where it did not, on the device that is wanted."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        compute = device.choose(wanted, "fp32")
        console.detail(compute.why)
        yield Ranks(device=compute.device)
        return
    import torch

    if lacking := [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]:
        what = f"WORLD_SIZE is {world}, but {lacking[0]} is not set"
        raise ConfigError(what, remedy="Start several processes with torchrun, or unset WORLD_SIZE for one.")
    rank = int(os.environ["RANK"])
    if rank > 0:
        console.set_level(-2)  # from here on only the first talks
    _stay_on_this_machine()
    wait = timedelta(seconds=float(os.environ.get("ELUTE_RANK_TIMEOUT", "600")))
    # Names of the groups before, which PyTorch uses again, lead to ports that are closed.
    store = torch.distributed.PrefixStore(  # type: ignore[attr-defined]
        f"elute/{next(_joins)}", _store(wait)
    )
    with _one_voice(store, rank):
        on = _device(wanted)
        # Counters and choices live on the CPU also where weights do not, so gloo is there in any case.
        backend = "cpu:gloo,cuda:nccl" if on.startswith("cuda") else "gloo"
        with _answers():
            torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=wait)
        yield Ranks(rank, world, on)
        with _answers():
            torch.distributed.barrier()  # none leaves while another still writes or reads


@cache
def _store(wait: timedelta) -> Any:
    """Where the processes find one another; met once and kept, for its keeper may not close it under the others."""
    from torch.distributed.rendezvous import rendezvous

    with _answers():
        return next(rendezvous("env://", timeout=wait))[0]


def _device(wanted: str) -> str:
    """This process's own device; GPUs are dealt out by LOCAL_RANK."""
    import torch

    compute = device.choose(wanted, "fp32")
    if compute.device == "mps":
        raise ConfigError("several processes cannot share an Apple GPU", remedy="Use --device cpu, or one process.")
    console.detail(compute.why)
    if not compute.device.startswith("cuda"):
        return compute.device
    number, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if number >= there:
        remedy = f"Use --nproc-per-node {there}, or --device cpu."
        raise ConfigError(f"each process needs a GPU of its own, and this machine has {there}", remedy=remedy)
    torch.cuda.set_device(number)
    return f"cuda:{number}"


def _stay_on_this_machine() -> None:
    """Let gloo talk over the loopback where all processes are on one machine, whatever its name resolves to."""
    if os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]:
        there = {name for _, name in socket.if_nameindex()}
        for name in sorted(there & {"lo", "lo0"}):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)


@contextmanager
def _one_voice(store: Any, rank: int) -> Iterator[None]:
    """Let one rank tell what went wrong, and leave the group in any case."""
    import torch

    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, _stop) if main else None
    try:
        yield
    except BaseException as error:
        # torchrun asks all others to end as soon as one has, which must not cut off the line that says why.
        if main:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        first = rank == 0 and not isinstance(error, RankError)
        if not isinstance(error, SystemExit) and not _tells(store, at_once=first):
            raise SystemExit(130 if isinstance(error, KeyboardInterrupt) else 1) from None
        raise
    else:
        if main:
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
    finally:
        if torch.distributed.is_initialized():
            with suppress(RuntimeError):
                torch.distributed.destroy_process_group()


def _stop(*_: object) -> None:
    """End as by an interrupt; a process that is already ending on an error ends on that one."""
    if sys.exc_info()[0] is None:
        raise KeyboardInterrupt


def _tells(store: Any, *, at_once: bool) -> bool:
    """Whether this rank is the one to say what went wrong."""
    until = time.monotonic() + (0 if at_once else _GRACE)
    try:
        while time.monotonic() < until:
            if store.check([_TOLD]):
                return False
            time.sleep(0.02)
        return int(store.add(_TOLD, 1)) == 1
    except RuntimeError:  # whoever keeps the store has gone, so nobody can be asked
        return True


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
