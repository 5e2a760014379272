"""Features that were planted, looked for: where the truth is known, what a dictionary finds can be counted.

1. Plant directions that fire as concepts do: some often and most rarely (Zipf), in families where one brings another,
   and correlated. No row says which fired.
2. Train a dictionary on the rows, and its controls: one whose directions never learn, and one on rows whose columns
   were shuffled against each other.
3. Count the planted directions that each found again (cosine 0.9 or more), and those that random directions hit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from elute.arrays.planted import TRUTH, PlantedConfig, write_store
from elute.dictionaries.files import load_dictionary
from elute.engine.evaluate import against
from elute.engine.fit import FitConfig
from elute.engine.settings import DictionaryConfig, EvalConfig, LearnConfig
from elute.engine.train import Training, train

PLANTED, WIDTH, ACTIVE, STORED = 256, 128, 8, 100_000
FEATURES, ROWS = 512, 400_000
CONTROLS = {"trained": "none", "rows shuffled": "shuffled-rows", "directions fixed": "frozen-decoder"}


def find_planted(folder: Path, *, seed: int, anew: bool = False) -> dict[str, Any]:
    """Plant, train, and count what was found; what is there already is used as it is."""
    store = folder / "planted"
    settings = PlantedConfig(kind="synth", n_features=PLANTED, width=WIDTH, active=ACTIVE, rows=STORED, seed=seed)
    write_store(store, settings, recapture=anew)
    truth = store / TRUTH
    recovered, explained = {}, {}
    for name, control in CONTROLS.items():
        run = folder / ("dictionary" if control == "none" else f"control_{control.replace('-', '_')}")
        training = Training(
            dictionary=DictionaryConfig(n_features=FEATURES, k=ACTIVE),
            learn=LearnConfig.model_validate({"control": control}),
            fit=FitConfig(rows=ROWS, seed=seed),
        )
        done = train(store, run, training, anew=anew)
        found, random = against(load_dictionary(run), truth, EvalConfig())
        recovered[name] = found["recovered_fraction"]
        explained[name] = done.summary["explained_variance"]
        considered = int(found["planted_considered"])
    recovered["random directions"] = random["recovered_fraction"]
    return {
        "planted": considered, "features": FEATURES, "recovered": recovered, "explained_variance": explained,
        "dictionary": str(folder / "dictionary"), "planted_store": str(store),
    }  # fmt: skip
