"""The run that the Lab is open on: its folder, its sites, and the only door to its files.

No path comes from a browser: a page offers names from lists that are made here. A file that a link leads out of the
run's folder is refused. Text from data is shown by what sets it as text; where only Markdown will do (an error, the
words beside a bar) it stands between backticks, in which nothing is read as Markdown.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from elute.analysis.run_tables import find_sites
from elute.base.errors import DataError, EluteError, GuardError, near

CURVES = ("training_metrics.jsonl", "training_metrics.json")
# What is looked at to see whether a folder is a site, or read with it.
_READ = ("sae_final.pt", "codes/manifest.json", "run.json")
_BEGUN = ("run.json", "activations", "train_config.json")
_MOST = 200  # runs beside this one, or folders of training, that are offered
_DEEP = 4  # folders below a run's in which its controls are trained


@dataclass(frozen=True)
class Lab:
    """A run's folder, without links in its name."""

    folder: Path

    def path(self, *parts: str | Path) -> Path:
        """A file or folder of the run; one that a link leads out of it is refused."""
        path = self.folder.joinpath(*parts)
        real = Path(os.path.realpath(path))
        if not real.is_relative_to(self.folder):
            what = "is a link that leads out of the run's folder"
            raise GuardError(what, where=path, remedy="Put the file itself there: the Lab reads nothing outside.")
        return path

    def sites(self) -> dict[str, Path]:
        """The folder of each site that has results."""
        for name in _READ:
            self.path(name)
        found = find_sites(self.folder)
        for folder in found.values():
            for name in _READ:
                self.path(folder, name)
        return found

    def site(self, name: str | None) -> Path:
        """The folder of a site by its name, or of the first one."""
        found = self.sites()
        if not found:
            what = "holds no features yet"
            raise DataError(what, where=self.folder, remedy="`elute cells run-pipeline` makes them.")
        name = next(iter(found)) if name is None else name
        if name not in found:
            raise DataError(f"there is no site {name!r}", where=self.folder, remedy=near(name, found))
        return found[name]

    def beside(self) -> dict[str, Lab]:
        """The other runs in the folder that this one lies in, by name."""
        found: dict[str, Lab] = {}
        for path in sorted(self.folder.parent.iterdir()):
            inside = not path.name.startswith(".") and not path.is_symlink() and path.is_dir()
            if not inside or path == self.folder:
                continue
            try:
                other = Lab(path)
                if other.sites():
                    found[path.name] = other
            except (EluteError, OSError):
                continue  # what cannot be read is no run to compare with
            if len(found) >= _MOST:
                break
        return found

    def trainings(self) -> dict[str, Path]:
        """Folders in which something was or is being trained, by their place in the run."""
        found: dict[str, Path] = {}
        for here, folders, names in os.walk(self.folder):
            place = Path(here).relative_to(self.folder)
            folders[:] = (
                sorted(name for name in folders if not name.startswith(".")) if len(place.parts) < _DEEP else []
            )
            if any(name in names for name in CURVES):
                found["this run" if place == Path() else str(place)] = Path(here)
            if len(found) >= _MOST:
                break
        return found


_open: list[Lab] = []


def begin(folder: Path) -> Lab:
    """Open the Lab on a run's folder."""
    if not folder.is_dir():
        raise DataError("there is no such folder", where=folder, remedy="Give the folder of a run.")
    lab = Lab(Path(os.path.realpath(folder)))
    if not (lab.sites() or lab.trainings() or any((lab.folder / name).exists() for name in _BEGUN)):
        what = "is not the folder of a run: it holds no dictionary, no codes and no features.parquet"
        raise DataError(what, where=folder, remedy="`elute cells run-pipeline` makes one.")
    _open[:] = [lab]
    return lab


def lab() -> Lab:
    """The Lab that is open."""
    if not _open:
        raise DataError("no run is open", remedy="Type: elute app --results DIR")
    return _open[0]


def site_name() -> str:
    """The name of the site that was chosen, or of the first one."""
    here = lab()
    chosen: str | None = st.session_state.get("site")
    here.site(chosen)
    return next(iter(here.sites())) if chosen is None else chosen


def site() -> Path:
    """The folder of the site that was chosen."""
    return lab().site(st.session_state.get("site"))


def quoted(text: object) -> str:
    """Markdown that shows a text as it is, in one line."""
    line = " ".join(str(text).split())
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence} {line} {fence}" if line else ""


def tell(error: EluteError) -> None:
    """Show an error as the command line prints it."""
    st.error(quoted(error.line()))


def guarded(show: Callable[[], None]) -> Callable[[], None]:
    """Let a page, or a part of one, end with one line where something is not as it should be."""

    @functools.wraps(show)
    def run() -> None:
        try:
            show()
        except EluteError as error:
            tell(error)

    return run


def numbered(folder: Path, names: Iterator[Path]) -> dict[str, Path]:
    """Files by their name without its ending, in order; those outside the run are left out."""
    found = {}
    for path in sorted(names):
        try:
            found[path.stem] = lab().path(folder, path.name)
        except GuardError:
            continue
    return found
