"""Dictionaries of particles' embeddings, and which of their features fire in which particle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from elute.base.errors import ConfigError, EluteError

if TYPE_CHECKING:
    from elute.analysis.tally import Tallied
    from elute.dictionaries.dictionary import Dictionary
    from elute.engine.settings import Control
    from elute.particles.feature_settings import ParticleFeaturesConfig

_ROWS = 1 << 15


def learn(
    store: Path, folder: Path, site: str, *, config: ParticleFeaturesConfig, seed: int = 0, control: Control = "none"
) -> None:  # fmt: skip
    """Train a dictionary, or the null of that training; what other settings gave is trained anew."""
    from elute.engine.fit import FitConfig
    from elute.engine.resume import OtherSettingsError
    from elute.engine.settings import DeadConfig, DictionaryConfig, LearnConfig
    from elute.engine.train import Training, train
    from elute.store.reader import Store

    width = Store(store).sites[site]
    n, k = config.n_features or 2 * width, config.k or max(1, width // 8)
    if k > n:
        raise ConfigError(f"k = {k} is more than the {n} features", remedy="Give a smaller --k or more --n-features.")
    training = Training(
        dictionary=DictionaryConfig(reads=(site,), n_features=n, k=k),
        learn=LearnConfig(device=config.device, control=control),
        fit=FitConfig(steps=config.steps, batch_size=config.batch_size, seed=config.seed + seed),
        dead=DeadConfig(dead_after_rows=max(20_000, 10 * config.batch_size)),
    )
    try:
        train(store, folder, training)
    except OtherSettingsError:
        train(store, folder, training, anew=True)


def tally(
    store: Path, folder: Path, dictionary: Dictionary, *, cells: int, output: Path, config: ParticleFeaturesConfig
) -> Tallied:  # fmt: skip
    """Encode the particles and add up what fires in which: a row a particle."""
    from elute.analysis.tally import Tally
    from elute.engine.encode import EncodeConfig, encode_store
    from elute.store.codes import StoredCodes

    encode_store(folder, store, folder / "codes", config=EncodeConfig(device=config.device, anew=_stale(folder, store)))
    codes = StoredCodes(folder / "codes")
    counted = Tally(dictionary.n_features, cells, 1, folder=output)
    for start in range(0, len(codes), _ROWS):
        stop = min(start + _ROWS, len(codes))
        none = np.zeros(stop - start, np.int64)
        counted.update((codes.read(start, stop), np.arange(start, stop), none, np.zeros(stop - start)))
    return counted.result()


def _stale(folder: Path, store: Path) -> bool:
    """Whether the codes that lie there are of another dictionary or store: they can be made again."""
    from elute.dictionaries.files import digest, load_dictionary
    from elute.store.codes import StoredCodes
    from elute.store.reader import Store

    if not (folder / "codes" / "manifest.json").exists():
        return False
    try:
        StoredCodes(folder / "codes").expect(
            dictionary=digest(load_dictionary(folder)), store=Store(store), complete=False
        )
    except EluteError:
        return True
    return False
