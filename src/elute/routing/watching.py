"""What is written after each epoch of a transcoder's training.

    metrics.jsonl               a line an epoch: figures of its training rows, and of the validation rows after it;
                                every save_freq epochs with histograms of how often features fire, and of the weights
    checkpoints/epoch_N.pt      the dictionary after epoch N, every save_freq epochs
    checkpoints/best.pt         the one that explained most of the validation rows

Each of them is a dictionary of raw rows, as the final one is. All that is remembered is in the training's checkpoint,
so that the files of a training that was killed and resumed are the bytes of one left alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from elute.base import files
from elute.dictionaries.files import save_dictionary
from elute.engine.records import Counted
from elute.routing.judged import DIGITS, judge_dictionary

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from elute.dictionaries.dictionary import Dictionary
    from elute.engine.metrics import FiringResult
    from elute.routing.pair_rows import PairRows

METRICS = "metrics.jsonl"
CHECKPOINTS, BEST = "checkpoints", "best.pt"
_TENTHS = np.arange(-5.0, 0.25, 0.25)  # powers of ten between which shares of rows are counted
_BINS = 24


class EpochWatcher:
    """Looks at a dictionary after each epoch (see engine/watched.py)."""

    def __init__(self, folder: Path, rows: PairRows, *, epoch_steps: int, save_freq: int) -> None:
        self.folder, self.rows = folder, rows
        self.epoch_steps, self.save_freq = epoch_steps, save_freq
        self.sums: dict[str, float] = {}
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, float] = {}
        self._fresh: dict[str, Counted] = {}

    def told(self, sums: Mapping[str, float]) -> None:
        """Take in the sums of a part of a batch."""
        for name, value in {**sums, "parts": 1.0}.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def after(self, step: int, steps: int, dictionary: Callable[[], Dictionary]) -> None:
        """Close an epoch where one ends."""
        last = step + 1 == steps
        if not last and (step + 1) % self.epoch_steps:
            return
        epoch = -(-(step + 1) // self.epoch_steps)
        keep = last or epoch % self.save_freq == 0
        now = dictionary()
        judged, firing = judge_dictionary(self.rows, "validation", now)
        fired = firing.result()
        line: dict[str, Any] = {"epoch": epoch, "step": step + 1, "train": self._training()}
        figures = judged["transcoder"].told()
        figures.pop("sites", None)
        line["validation"] = {"loss": round(1 - figures["explained_variance"], DIGITS), **figures,
                              "l0": round(fired.l0, DIGITS), "dead": int((fired.counts == 0).sum())}  # fmt: skip
        if keep:
            line["histograms"] = {"frequency": _frequencies(fired), **weights(now)}
            self._fresh = {name: Counted(tuple(told["edges"]), tuple(told["counts"]))
                           for name, told in line["histograms"].items()}  # fmt: skip
        self.history.append(line)
        self._save(now, line, keep=keep)
        self.sums = {}

    def figures(self) -> dict[str, float]:
        """Return what was found last, for the records."""
        if not self.history:
            return {}
        found = self.history[-1]["validation"]
        names = ("loss", "explained_variance", "cosine", "l0", "dead")
        return {f"validation_{name}": float(found[name]) for name in names}

    def histograms(self) -> dict[str, Counted]:
        """Return the histograms of the epoch that was kept last, once."""
        fresh, self._fresh = self._fresh, {}
        return fresh

    def state(self) -> dict[str, Any]:
        """Return what is remembered."""
        return {"sums": self.sums, "history": self.history, "best": self.best}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.sums, self.history, self.best = dict(state["sums"]), list(state["history"]), dict(state["best"])

    def _training(self) -> dict[str, float]:
        sums = self.sums
        told = {"loss": sums["loss"] / sums["parts"], "explained_variance": 1 - sums["squared"] / sums["spread"],
                "l0": sums["l0"] / sums["rows"]}  # fmt: skip
        if "terms" in sums:
            told["terms"] = sums["terms"] / sums["parts"]
        return {name: round(value, DIGITS) for name, value in told.items()}

    def _save(self, now: Dictionary, line: Mapping[str, Any], *, keep: bool) -> None:
        explained = line["validation"]["explained_variance"]
        better = not self.best or explained > self.best["explained_variance"]
        if keep or better:
            files.make_folder(self.folder / CHECKPOINTS)
        if keep:
            save_dictionary(now, self.folder / CHECKPOINTS / f"epoch_{line['epoch']}.pt")
        if better:
            self.best = {"epoch": line["epoch"], "explained_variance": explained}
            save_dictionary(now, self.folder / CHECKPOINTS / BEST)
        lines = [json.dumps(each, allow_nan=False) + "\n" for each in self.history]
        files.write_atomically(self.folder / METRICS, lambda handle: handle.write("".join(lines).encode()))


def weights(dictionary: Dictionary) -> dict[str, Any]:
    """Histograms of the decoder's entries, and of the lengths of the rows of both sides."""
    banks = list(dictionary)
    return {
        "decoder": _histogram([bank.W_dec.flatten() for bank in banks]),
        "decoder_length": _histogram([bank.W_dec.norm(dim=1) for bank in banks]),
        "encoder_length": _histogram([bank.W_enc.norm(dim=1) for bank in banks]),
    }


def _histogram(parts: list[Tensor]) -> dict[str, Any]:
    values = np.concatenate([part.detach().double().cpu().numpy() for part in parts])
    counts, edges = np.histogram(values, bins=_BINS)
    return {"edges": [round(float(edge), DIGITS) for edge in edges], "counts": counts.tolist()}


def _frequencies(fired: FiringResult) -> dict[str, Any]:
    """How many features fire in which share of the rows, by its power of ten."""
    shares: NDArray[np.float64] = fired.frequency[fired.frequency > 0]
    counts, _ = np.histogram(np.log10(shares), bins=_TENTHS)
    return {
        "of": "log10 of the share of rows",
        "edges": _TENTHS.tolist(),
        "counts": counts.tolist(),
        "never": int((fired.counts == 0).sum()),
    }
