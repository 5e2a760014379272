"""From a store and a dictionary to sparse codes on disk (docs/formats/codes.md), a shard at a time.

Codes are written in the store's order, so row r of code shard i is row r of store shard i. A run that was interrupted
goes on after its last whole shard.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from elute.base import console, run
from elute.base.errors import GuardError
from elute.base.recipe import Section
from elute.base.run import Artifact
from elute.dictionaries.spec import Encoder
from elute.store.codes_layout import CodeDtype
from elute.store.codes_writer import CodesWriter
from elute.store.reader import Store

if TYPE_CHECKING:
    from elute.dictionaries.dictionary import Dictionary
    from elute.store.rows import Selection

_ROWS = 16_384  # of one piece


class EncodeConfig(Section):
    """How rows are encoded."""

    split: str | None = None
    """Rows of one split; every row if not given."""
    encoder: Encoder = "own"
    """The dictionary's own encoder, or matching pursuit with its directions."""
    k: int | None = Field(None, ge=1)
    """Features that fire in a row; the dictionary's own number if not given."""
    dtype: CodeDtype = "fp32"
    """Number type of the values on disk."""
    device: str = "auto"
    """Device: auto, cuda, cuda:N, mps or cpu."""
    anew: bool = False
    """Write the codes anew, whatever lies there."""


def encode_store(
    dictionary: Path | str, folder: Path | str, output: Path | str, *, config: EncodeConfig | None = None
) -> Artifact:
    """Write the codes of a store's rows."""
    from elute.base import device
    from elute.dictionaries.files import digest, load_dictionary
    from elute.engine.centred import as_trained, told

    config, store, output = config or EncodeConfig(), Store(folder), Path(output)
    loaded = load_dictionary(dictionary)
    match(loaded, store)
    store = as_trained(loaded, store, beside=dictionary)
    known = digest(loaded)
    where = store.select(split=config.split)
    words = None if config.split is None else f"split {config.split}"
    loaded = loaded.to(device.choose(config.device, "fp32").device)
    how = "" if config.encoder == "own" and config.k is None else f":{config.encoder}:{config.k or loaded.spec.k}"
    with CodesWriter(
        output, store=store, dictionary=known + how, n_features=loaded.n_features, sites=list(loaded.spec.reads),
        dtype=config.dtype, selection=words, anew=config.anew,
    ) as writer:  # fmt: skip
        done = sum(where.counts[: writer.done])
        if done:
            console.say(f"{output}: going on after {done:,} rows")
        with console.progress("encode", where.rows, done=done) as bar:
            for shard in range(writer.done, writer.shards):
                codes, places = _shard(loaded, store, where, shard=shard, config=config)
                writer.append_shard(codes, places)
                bar.advance(len(codes))
        k = writer.manifest.k
    summary = {"rows": where.rows, "features": loaded.n_features, "k": k, **told(store, where)}
    identity = config.model_copy(update={"anew": False, "device": "auto"})
    run.record(output, "encode", identity, inputs={"store": store.manifest.store, "dictionary": known}, summary=summary)
    return Artifact("codes", output, summary)


def match(dictionary: Dictionary, store: Store) -> None:
    """Refuse a store whose sites or model are not those that the dictionary was trained on."""
    spec = dictionary.spec
    for name, width in {**spec.reads, **spec.writes}.items():
        store.expect(sites=[name])
        if store.sites[name] != width:
            what = f"site {name!r} is {store.sites[name]} wide, the dictionary knows it as {width}"
            raise GuardError(what, where=store.folder, remedy="Use the store that it was trained on, or one like it.")
    trained, here = spec.source.get("model"), store.manifest.model
    if trained and here is not None and (trained["weights"], trained["config"]) != (here.weights, here.config):
        what = f"the dictionary was trained on {trained['name']}, the rows are from {here.name} with other weights"
        remedy = "Capture the rows with the model that it was trained on, or train a dictionary on this one."
        raise GuardError(what, where=store.folder, remedy=remedy)


def _shard(dictionary: Dictionary, store: Store, where: Selection, *, shard: int, config: EncodeConfig) -> Any:
    """Encode one shard: its codes, and the places of the rows where not all are meant."""
    import numpy as np
    import torch

    from elute.base.codes import Codes

    start, stop = store.starts[shard], store.starts[shard + 1]
    mask = where.mask(shard, stop - start)
    rows = store.read(start, stop, sites=list(dictionary.spec.reads))
    places = None if mask is None and config.split is None else np.arange(stop - start)
    if places is not None and mask is not None:
        places = places[mask]
        rows = {name: x[torch.from_numpy(places)] for name, x in rows.items()}
    parts = []
    for a in range(0, stop - start if places is None else len(places), _ROWS):
        piece = {name: x[a : a + _ROWS] for name, x in rows.items()}
        parts.append(dictionary.encode(piece, encoder=config.encoder, k=config.k).to("cpu"))
    if not parts:
        none = torch.zeros(0, dictionary.spec.k)
        return Codes(none.to(torch.int32), none, dictionary.n_features), places
    return Codes.concatenate(parts), places
