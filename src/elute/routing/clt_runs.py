"""The folders of transcoders: one a training, named by when it was begun, and which is the latest.

    RUN/clt/clt_runs/PAIR/TIME/config.json      all that is needed to do it again, and the run's id at W&B
    RUN/clt/clt_runs/PAIR/TIME/summary.json     what came of it; there when it has ended
    RUN/clt/clt_runs/PAIR/latest                a link to the training that ended last

A training that was begun with the same settings on the same rows is gone on with, or used as it is; any other gets a
folder of its own. The time of day is in a folder's name alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from elute.base import files
from elute.base.errors import ConfigError, DamagedError, DataError, EluteError, VersionError, near
from elute.base.recipe import Section, build
from elute.dictionaries.terms import TermsConfig
from elute.engine import resume
from elute.engine.tracking import RUN_ID
from elute.routing.clt_settings import CltConfig, EpochsConfig, Settings, TranscoderConfig
from elute.routing.pair_rows import STATISTICS

SCHEMA = 1
CONFIG, SUMMARY, LATEST = "config.json", "summary.json", "latest"
_REMEDY = "Delete the folder: the training will be done anew."
_SECTIONS: dict[str, type[Section]] = {
    "transcoder": TranscoderConfig, "epochs": EpochsConfig, "terms": TermsConfig, "clt": CltConfig,
}  # fmt: skip
_EARLY = {CONFIG, STATISTICS, ".lock"}  # what lies there before the first step
_KEYS = {"schema", "kind", "pair", "settings", "inputs"}


def home(run: Path, pair: str) -> Path:
    """Where the transcoders of a pair lie."""
    return run / "clt" / "clt_runs" / pair


def begun(folder: Path) -> list[Path]:
    """Folders of the trainings of a pair, in the order in which they were begun."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.is_symlink() and (path / CONFIG).is_file())


def read_config(folder: Path) -> dict[str, Any]:
    """Read what a training was begun with."""
    told = files.read_json(folder / CONFIG, what="a transcoder's settings", remedy=_REMEDY)
    if not isinstance(told, dict) or not isinstance(told.get("schema"), int) or _KEYS - told.keys():
        raise DamagedError("is not a transcoder's settings", where=folder / CONFIG, remedy=_REMEDY)
    if told["schema"] > SCHEMA:
        raise VersionError("was written by a newer elute", where=folder / CONFIG, remedy="Update elute.")
    return told


def settings_of(folder: Path) -> Settings:
    """Return the settings that a transcoder was trained with, to train the same again."""
    told, where = read_config(folder)["settings"], str(folder / CONFIG)
    known = {name: build(_SECTIONS[name], values, where) for name, values in told.items() if name in _SECTIONS}
    if known.keys() != {"transcoder", "epochs", "terms"}:
        raise ConfigError("are not the settings of one transcoder", where=where, remedy="Give a transcoder's folder.")
    return Settings(**known)  # type: ignore[arg-type]


def write_config(folder: Path, told: Mapping[str, Any]) -> None:
    """Write what a training is begun with; an id at W&B that it has is kept."""
    path = folder / RUN_ID
    identity = path.read_text().strip() if path.is_file() else None
    if identity is None and (folder / CONFIG).is_file():
        identity = read_config(folder).get(RUN_ID)
        if identity is not None:  # the trainer takes up the run whose id lies here
            files.write_atomically(path, lambda handle: handle.write(f"{identity}\n".encode()))
    files.write_json(folder / CONFIG, {"schema": SCHEMA, **told, RUN_ID: identity})


def compared(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return what has to be the same for one training to be another one gone on with."""
    return {"kind": told["kind"], "pair": told["pair"], "inputs": told["inputs"], **told["settings"]}


def check_same(folder: Path, told: Mapping[str, Any]) -> None:
    """Refuse to go on in a folder that was begun with other settings; say which."""
    try:
        resume.same_settings(folder, compared(read_config(folder)), compared(told))
    except resume.OtherSettingsError as error:
        remedy = "Give the same settings to go on, or leave --resume out to begin another one."
        raise resume.OtherSettingsError(error.what, where=folder, remedy=remedy) from None


def place(folder: Path, told: Mapping[str, Any], *, which: str | None = None, anew: bool = False) -> Path:
    """Return the folder to train in: the one that is named, one that was begun with these settings, or a new one."""
    known = begun(folder)
    if which is not None:
        return _named(folder, known, which, told)
    if not anew:
        for path in reversed(known):
            if compared(read_config(path)) == compared(told):
                return path
    return _fresh(folder)


@contextmanager
def tidied(path: Path) -> Iterator[None]:
    """Take a new folder away again where settings were refused before anything was learnt."""
    try:
        yield
    except EluteError:
        held = {part.name for part in path.iterdir()} if path.is_dir() else set()
        if held <= _EARLY:
            for name in held:
                (path / name).unlink()
            path.rmdir()
        raise


def point(folder: Path, to: Path) -> None:
    """Let `latest` be this training."""
    link = folder / f".{LATEST}.new"
    with files.disk_errors(link):
        link.unlink(missing_ok=True)
        link.symlink_to(to.name, target_is_directory=True)
        link.replace(folder / LATEST)


def _named(folder: Path, known: list[Path], which: str, told: Mapping[str, Any]) -> Path:
    names = [path.name for path in known]
    if not known:
        raise DataError("there is no training to resume", where=folder, remedy="Leave --resume out to begin one.")
    if which != LATEST and which not in names:
        raise DataError(f"there is no training {which!r} to resume", where=folder, remedy=near(which, names))
    path = known[-1] if which == LATEST else folder / which
    check_same(path, told)
    if not (path / resume.NAME).exists() and not (path / SUMMARY).exists():
        remedy = "Leave --resume out to begin from the start."
        raise ConfigError("there is no checkpoint to resume from", where=path, remedy=remedy)
    return path


def _fresh(folder: Path) -> Path:
    files.make_folder(folder)
    stem = time.strftime("%Y%m%d_%H%M%S")
    for number in range(1, 10_000):
        path = folder / (stem if number == 1 else f"{stem}_{number:04d}")
        with files.disk_errors(folder), suppress(FileExistsError):
            path.mkdir()
            return path
    raise ConfigError("too many trainings were begun in one second", where=folder, remedy="Try again.")
