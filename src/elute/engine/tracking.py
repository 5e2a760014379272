"""Where the metrics of a training run go: one line a record into a file, and the trackers that are asked for.

    training_metrics.jsonl    while training: a line a record, cut back to the checkpoint when a run is taken up again
    training_metrics.json     at the end: the final figures, and every metric as a column
    wandb/, tensorboard/      what the trackers keep; their files hold times of day, ours hold none

The two metrics files of an interrupted and resumed run are the bytes of one left alone. A tracker cannot stop a
training: its first error is told in one line, and the run goes on without it.
"""

from __future__ import annotations

import json
import netrc
import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

from pydantic import Field

from elute.base import console, files
from elute.base.doctor import how_to_install
from elute.base.errors import MissingError
from elute.base.recipe import Section
from elute.engine.records import Counted, plain, read, tree

LINES = "training_metrics.jsonl"
TABLE = "training_metrics.json"
RUN_ID = "wandb_run_id"
EVENTS = "tensorboard"


class TrackConfig(Section):
    """Where the metrics of training go, besides the file that is always written."""

    wandb: bool = False
    """Send metrics to Weights & Biases; offline unless WANDB_API_KEY is set."""
    wandb_project: str = Field("elute", min_length=1)
    """Project that the run belongs to."""
    wandb_name: str | None = None
    """Name of the run; Weights & Biases makes one up if not given."""
    wandb_mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    """Whether metrics leave the machine; auto is online if WANDB_API_KEY is set, else offline."""
    tensorboard: bool = False
    """Write event files for TensorBoard."""
    log_every: int = Field(50, ge=1)
    """Steps between two records."""


class _Tracker(Protocol):
    def log(self, step: int, values: Mapping[str, float | Counted]) -> None: ...
    def sync(self) -> None: ...
    def close(self, summary: Mapping[str, Any] | None, /) -> None: ...


class Metrics:
    """The records of one run, numbered by step; `active` is false on all ranks but the first.

    `resume_at` is the step of the checkpoint that the run is taken up from; without it the run begins anew.
    """

    def __init__(
        self,
        folder: Path,
        config: TrackConfig,
        *,
        settings: Mapping[str, Any],
        resume_at: int | None = None,
        active: bool = True,
    ) -> None:
        self.folder, self.active = folder, active
        self._every = config.log_every
        self._path = folder / LINES
        self._last = -1
        self._trackers: dict[str, _Tracker] = {}
        self.histograms: Callable[[], Mapping[str, Counted]] = dict  # what trackers get besides
        if not active:
            return
        _need(config)
        files.make_folder(folder)
        for name in (TABLE,) if resume_at is not None else (TABLE, LINES, RUN_ID):
            with files.disk_errors(folder / name):
                (folder / name).unlink(missing_ok=True)
        if resume_at is not None:
            self.truncate(resume_at)
        if config.wandb and _mode(config) != "disabled":
            self._start("Weights & Biases", lambda: _Wandb(folder, config, settings))
        if config.tensorboard:
            self._start("TensorBoard", lambda: _Tensorboard(folder, 0 if resume_at is None else resume_at + 1))

    def __enter__(self) -> Metrics:
        return self

    def __exit__(self, *_: object) -> None:
        self._end(None)

    def due(self, step: int) -> bool:
        """Whether a record is wanted at this step; the same on every rank."""
        return step % self._every == 0

    def log(self, step: int, values: Mapping[str, float], *, extra: Mapping[str, float] | None = None) -> None:
        """Write one record; `extra` (rates, say, which differ from run to run) goes to the trackers alone."""
        if not self.active:
            return
        if step <= self._last or "step" in values:
            raise ValueError(f"step {step} after step {self._last}: steps must grow, and none is named 'step'")
        record = {"step": step, **{key: plain(values[key]) for key in sorted(values)}}
        line = json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        with files.disk_errors(self._path), self._path.open("ab") as handle:
            handle.write(line)
        self._last = step
        numbers = {key: float(value) for key, value in {**values, **(extra or {})}.items()}
        everything: dict[str, float | Counted] = {**numbers, **self.histograms()}
        self._forward(lambda tracker: tracker.log(step, everything))

    def sync(self) -> None:
        """Bring the records to the disk; called before a checkpoint is written, which may only know what is there."""
        if self.active and self._path.exists():
            with files.disk_errors(self._path), self._path.open("rb") as handle:
                os.fsync(handle.fileno())
        self._forward(lambda tracker: tracker.sync())

    def truncate(self, step: int) -> None:
        """Keep the records up to a checkpoint's step; what a killed run wrote after it, half a line too, is cut."""
        if not self.active:
            return
        kept = {record["step"]: line for line, record in read(self._path) if record["step"] <= step}
        if self._path.exists() and self._path.stat().st_size != sum(map(len, kept.values())):
            files.write_atomically(self._path, lambda handle: handle.writelines(kept.values()))
        self._last = max(kept, default=-1)

    def close(self, summary: Mapping[str, Any]) -> None:
        """End a run that went to its end: the final figures and the history, in one file."""
        if not self.active:
            return
        final = tree(summary)
        records = [record for _, record in read(self._path)]
        keys = sorted({key for record in records for key in record} - {"step"})
        history = {key: [record.get(key) for record in records] for key in ("step", *keys)}
        files.write_json(self.folder / TABLE, {"final": final, "history": history})
        self._end(final)

    def _start(self, name: str, make: Callable[[], _Tracker]) -> None:
        try:
            self._trackers[name] = make()
        except Exception as error:  # noqa: BLE001  # whatever a tracker fails at, training does not
            _give_up(name, error)

    def _forward(self, send: Callable[[_Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                send(tracker)
            except Exception as error:  # noqa: BLE001  # as above
                _give_up(name, error)
                del self._trackers[name]
                with suppress(Exception):
                    tracker.close(None)

    def _end(self, summary: Mapping[str, Any] | None) -> None:
        self._forward(lambda tracker: tracker.close(summary))
        self._trackers.clear()


class _Wandb:
    """A run at Weights & Biases, which keeps its id when training is taken up again."""

    def __init__(self, folder: Path, config: TrackConfig, settings: Mapping[str, Any]) -> None:
        import wandb

        path = folder / RUN_ID
        known = path.read_text().strip() if path.exists() else ""
        identity = known if known.isalnum() else secrets.token_hex(4)
        if identity != known:
            files.write_atomically(path, lambda handle: handle.write(f"{identity}\n".encode()))
        mode = _mode(config)
        self._run = wandb.init(
            project=config.wandb_project,
            name=config.wandb_name,
            id=identity,
            resume="allow",
            mode=mode,
            dir=str(folder),
            config=tree(settings),
            reinit="create_new",
            # What is printed, the source and its repository stay here; an upload may hold up the end for two minutes.
            settings=wandb.Settings(
                silent=True, console="off", disable_git=True, disable_code=True, finish_timeout=120
            ),
        )
        if mode == "offline":
            console.detail(f"Weights & Biases: offline; `wandb sync {folder / 'wandb'}/offline-run-*` sends it later")

    def log(self, step: int, values: Mapping[str, float | Counted]) -> None:
        from wandb import Histogram

        shown = {
            name: Histogram(np_histogram=value.arrays()) if isinstance(value, Counted) else value
            for name, value in values.items()
        }
        self._run.log(shown, step=step)

    def sync(self) -> None:
        """Nothing to do: its service writes what it gets."""

    def close(self, summary: Mapping[str, Any] | None) -> None:
        if summary is not None:
            self._run.summary.update(dict(summary))
        self._run.finish(exit_code=1 if summary is None else 0)


class _Tensorboard:
    """Event files; those of steps that are done again are marked as void by the first event of the new file."""

    def __init__(self, folder: Path, purge_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / EVENTS), purge_step=purge_step)

    def log(self, step: int, values: Mapping[str, float | Counted]) -> None:
        for key, value in values.items():
            if isinstance(value, Counted):
                self._writer.add_histogram_raw(key, **value.raw(), global_step=step)
            else:
                self._writer.add_scalar(key, value, step)

    def sync(self) -> None:
        self._writer.flush()

    def close(self, _: Mapping[str, Any] | None) -> None:
        self._writer.close()


def _need(config: TrackConfig) -> None:
    """Find out before training, not at its first record, whether a tracker's package and key are there."""
    asked = {"wandb": config.wandb and _mode(config) != "disabled", "tensorboard": config.tensorboard}
    for package in (name for name, wanted in asked.items() if wanted):
        spec = find_spec(package)
        if spec is None or spec.origin is None:  # without an origin it is a mere folder of that name
            remedy = f"Type: {how_to_install(package)}; or leave --{package} out."
            raise MissingError(f"{package} is not installed", remedy=remedy)
    if asked["wandb"] and config.wandb_mode == "online" and not _logged_in():
        # Asked for online without a key, wandb would stop and wait for somebody to type one.
        remedy = "Set WANDB_API_KEY, or leave wandb_mode at auto to keep the run on this machine."
        raise MissingError("wandb_mode is online, but there is no key for Weights & Biases", remedy=remedy)


def _logged_in() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _mode(config: TrackConfig) -> Literal["online", "offline", "disabled"]:
    if config.wandb_mode != "auto":
        return config.wandb_mode
    if (told := os.environ.get("WANDB_MODE")) == "disabled":
        return "disabled"
    return "online" if os.environ.get("WANDB_API_KEY") and told != "offline" else "offline"


def _give_up(name: str, error: Exception) -> None:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    if key := os.environ.get("WANDB_API_KEY"):
        text = text.replace(key, "***")
    console.warn(f"{name} failed and is left out from here on; training goes on ({text[:300]})")
