"""Which genes are predicted: those that were named, the most variable, or the most predictable of the training samples.

    all              every gene of the file
    GENE,GENE,…      by name; or a text file with one a line
    hvg:N            the N whose values vary most over the training samples
    predictable:N    the N that ridge on the dense embeddings predicts best, patient by patient among the training ones

Only genes that were counted in some share of the training samples are chosen by hvg or predictable. What was chosen
by how well it is predicted must not be judged on the samples that chose: `judged` says on which ones it may be.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base import console
from elute.base.errors import ConfigError, DataError, near

if TYPE_CHECKING:
    import numpy as np

    from elute.tissue.gene_counts import Survey
    from elute.tissue.settings import TargetsConfig
    from elute.tissue.targets import TargetFile

MANY = 2000  # genes from which on a fit takes its time
_CHOICE = re.compile(r"^(hvg|predictable):([1-9][0-9]*)$")

Score = Callable[["np.ndarray[Any, Any]"], "np.ndarray[Any, Any]"]  # of some genes, how well each is predicted


def choose_genes(
    file: TargetFile, found: Survey, config: TargetsConfig, *, score: Score
) -> tuple[np.ndarray[Any, Any], list[str]]:
    """Return the chosen columns of the file, and of each why it was chosen."""
    import numpy as np

    text = config.genes.strip()
    if choice := _CHOICE.match(text):
        columns, reasons = _best(file, found, config, how=choice[1], most=int(choice[2]), score=score)
    elif text == "all":
        columns, reasons = np.arange(len(file.genes)), ["all"] * len(file.genes)
    else:
        columns = _named(file, text)
        reasons = ["named"] * len(columns)
    if not len(columns):
        raise DataError("no gene is left to predict", where=file.where, remedy="Choose others with --genes.")
    if len(columns) > MANY:
        console.warn(f"{len(columns):,} genes are fitted, which takes its time: --genes hvg:{MANY} would take fewer")
    return columns, reasons


def by_score(text: str) -> bool:
    """Whether genes are chosen by how well they are predicted."""
    return text.strip().startswith("predictable:")


def _named(file: TargetFile, text: str) -> np.ndarray[Any, Any]:
    import numpy as np

    if "," not in text and text not in set(file.genes) and (Path(text).suffix or Path(text).exists()):
        names = _lines(Path(text))
    elif re.match(r"^(hvg|predictable)\b", text):
        raise ConfigError(f"genes = {text!r}", remedy="Write it with a number: hvg:50.")
    else:
        names = [name.strip() for name in text.split(",") if name.strip()]
    place = {gene: i for i, gene in enumerate(file.genes)}
    lost = [name for name in names if name not in place]
    if lost:
        more = f" (and {len(lost) - 1} more)" if len(lost) > 1 else ""
        raise DataError(f"there is no gene {lost[0]!r}{more}", where=file.where, remedy=near(lost[0], file.genes))
    return np.array([place[name] for name in dict.fromkeys(names)], np.int64)


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        what = f"cannot be read as a list of genes: {getattr(error, 'strerror', None) or error}"
        raise DataError(what, where=path, remedy="Give a text file with a gene a line.") from None
    names = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not names:
        raise DataError("names no gene", where=path, remedy="Give a text file with a gene a line.")
    return names


def _best(
    file: TargetFile, found: Survey, config: TargetsConfig, *, how: str, most: int, score: Score
) -> tuple[np.ndarray[Any, Any], list[str]]:
    import numpy as np

    varies = found.variance > 1e-12 + 1e-10 * found.mean**2  # below this it is rounding
    able = np.flatnonzero((found.detected >= config.least_detected) & varies)
    if not len(able):
        seen = f"no gene varies and is counted in {config.least_detected:.0%} of the training samples"
        raise DataError(seen, where=file.where, remedy="Lower --least-detected, or name the genes with --genes.")
    marks = found.variance[able] if how == "hvg" else score(able)
    order = able[np.argsort(-marks, kind="stable")][:most]  # equal marks in the order of the file
    if len(order) < most:
        console.warn(f"{file.where}: {len(order):,} genes can be chosen, {most:,} were asked for")
    return order, [f"{how} {rank}" for rank in range(1, len(order) + 1)]
