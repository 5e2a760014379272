"""The last fusion: one network of all particles, its vectors beside those out of fold, and the network for new ones.

    FUSED.h5      /embeddings/{id}/mu and mu_oof, /metadata               docs/formats/particles.md
    fusion.pt     beside it: the network, with its scalers                fusion_file.py

`mu` are in-sample: their network has been fitted to these very classes, and whatever is judged by them looks better
than it is. `mu_oof` are the vectors of cross-validation, each by the network of the fold that held the particle out;
they are turned into the space of `mu` by the particles that both networks had learnt from, so that what is fitted to
them can be used on particles that `elute particles fuse` fuses later.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from elute.base import console, files
from elute.base.errors import ConfigError, DataError
from elute.base.run import versions
from elute.particles import fusion_file
from elute.particles.fused_layout import Layout
from elute.particles.writing_fused import PIECE, Piece, already, free, write_fused

if TYPE_CHECKING:
    from elute.particles.fusion_file import FusionModel
    from elute.particles.settings import EvaluationConfig
    from elute.particles.table import Joined

Floats32 = NDArray[np.float32]
ATTENTION_ALONE = "fused embeddings are saved with --fusion-method attention alone"


@dataclass(frozen=True)
class Outputs:
    """Where the last fusion goes, and what it is made of."""

    fused: Path
    model: Path
    made_of: str


def outputs_of(joined: Joined, output: Path | str, config: EvaluationConfig, *, oof: bool = True) -> Outputs:
    """Say where the last fusion would go; files of other particles or settings there are refused before any work."""
    fused = Path(output)
    if fused.is_dir():
        raise ConfigError("is a folder", where=fused, remedy="Name a file: FOLDER/fused_embeddings.h5.")
    made = files.digest_bytes(
        files.digest_json({**config.identity(), "n_resamples": 0, "oof": oof, "names": list(joined.names)}).encode(),
        files.digest_json([joined.pairing, list(joined.classes)]).encode(), joined.codes.tobytes(),
        *_digests(joined),
        *(files.digest_bytes(np.ascontiguousarray(x).tobytes()).encode() for x in joined.vectors),
    )  # fmt: skip
    found = Outputs(fused, fused.with_name(fusion_file.NAME), made)
    with console.hushed():
        free(fused, made)
    if found.model.exists() and fusion_file.load_fusion(found.model).told.get("made_of") != made:
        raise ConfigError("there is a fusion of other particles or settings already", where=found.model,
                          remedy="Save to another folder, or delete that file.")  # fmt: skip
    return found


def _digests(joined: Joined) -> Iterator[bytes]:
    """Digests of what is known of the particles, a piece of a column at a time."""
    for part in joined.particles.drop("label").iter_slices(1 << 16):
        yield files.digest_json([part[name].to_list() for name in part.columns]).encode()


def train_final_fusion_and_save(
    joined: Joined,
    output: Path | str,
    config: EvaluationConfig,
    *,
    evaluated: Path | str | None = None,
    layout: Layout = "auto",
) -> tuple[Floats32, dict[str, Any]]:
    """Train a fusion on all particles and save what it makes of them; returns the fused vectors and what they are.

    `evaluated` is the folder of the evaluation of these particles with these settings, from which the out-of-fold
    vectors are taken; without it there are none. A training that was interrupted goes on.
    """
    if config.fusion_method != "attention":
        raise ConfigError(f"{ATTENTION_ALONE}; {config.fusion_method} learns nothing that could be saved",
                          where=output, remedy="Add --fusion-method attention.")  # fmt: skip
    where = outputs_of(joined, output, config, oof=evaluated is not None)
    told = _told(joined, config, where)
    if already(where.fused) == where.made_of and where.model.exists():
        from elute.particles.reading_fused import FusedFile

        console.say(f"{where.fused}: fused already with these particles and settings, used as it is")
        return FusedFile(where.fused).read().mu, _answer(joined, config, where)
    model = _train(joined, config, where, told=told)
    mu, _ = model.fuse(joined.vectors)
    oof, fold = (None, None) if evaluated is None else _out_of_fold(model, joined, config, Path(evaluated))
    fusion_file.save_fusion(where.model, model)
    write_fused(
        where.fused, joined.particles, _pieces(mu, oof), told=told, classes=joined.classes, width=mu.shape[1],
        fold=fold, layout=layout,
    )  # fmt: skip
    return mu, _answer(joined, config, where)


def _train(joined: Joined, config: EvaluationConfig, where: Outputs, *, told: dict[str, Any]) -> FusionModel:
    """Train one network on all particles, as those of the folds were."""
    from elute.heads.fusion_fit import Part, fit_networks
    from elute.heads.fusion_settings import FusionConfig

    n = len(joined)
    scratch = where.fused.with_name(f".{where.fused.name}.training")
    console.say(f"training the last fusion on all {n:,} particles, {config.attention_epochs} epochs")
    networks = fit_networks(
        joined.vectors, joined.codes, [Part(np.arange(n))], n_classes=len(joined.classes), folder=scratch,
        config=FusionConfig(width=config.embedding_dim, epochs=config.attention_epochs, seed=config.random_seed,
                            device=config.device),
    )  # fmt: skip
    shutil.rmtree(scratch, ignore_errors=True)
    seen = fusion_file.fingerprints(joined.vectors)
    return fusion_file.FusionModel(networks.one(0), joined.names, joined.classes, seen, told)


def _out_of_fold(
    model: FusionModel, joined: Joined, config: EvaluationConfig, folder: Path
) -> tuple[Floats32, NDArray[np.int64]]:
    """Take the folds' own vectors, turned into the space of the last network."""
    from elute.base.device import choose
    from elute.particles.evaluating import turned_to
    from elute.particles.fold_files import FoldFiles
    from elute.particles.fold_work import anchor_rows
    from elute.particles.folding import draw_folds
    from elute.particles.methods import methods_of

    folds = draw_folds(joined, config)
    config = config.model_copy(update={"device": choose(config.device, "fp32").device})
    names = [one.name for one in methods_of(joined, config).run]
    kept = FoldFiles(folder / "folds", joined, folds, config, methods=names)
    found = []
    for number in range(folds.n):
        result = kept.read(number)
        if result is None:
            raise DataError(f"holds no fold {number} of these particles and settings", where=folder,
                            remedy="Evaluate first, with the same settings.")  # fmt: skip
        found.append(result)
    rows = anchor_rows(len(joined), config.random_seed)
    target, _ = model.fuse([x[rows] for x in joined.vectors])
    return turned_to(target, joined, config, folds=folds, found=found), folds.of


def _pieces(mu: Floats32, oof: Floats32 | None) -> Iterator[Piece]:
    for start in range(0, len(mu), PIECE):
        yield mu[start : start + PIECE], None if oof is None else oof[start : start + PIECE]


def _told(joined: Joined, config: EvaluationConfig, where: Outputs) -> dict[str, Any]:
    """What the file says of itself."""
    told: dict[str, Any] = {
        "fusion_method": config.fusion_method, "n_epochs": config.attention_epochs,
        "random_seed": config.random_seed, "n_classes": len(joined.classes), "sources": " + ".join(joined.names),
        "pairing": joined.pairing, "made_of": where.made_of, "mark": joined.mark,
    }  # fmt: skip
    told |= {f"input_{name}": digest for name, digest in joined.digests.items()}
    told |= {f"version_{name}": number for name, number in versions().items()}
    return {**told, "version_h5py": version("h5py")}


def _answer(joined: Joined, config: EvaluationConfig, where: Outputs) -> dict[str, Any]:
    return {
        "n_samples": len(joined),
        "embedding_dim": config.embedding_dim,
        "n_classes": len(joined.classes),
        "class_names": list(joined.classes),
        "output_path": str(where.fused),
        "model_path": str(where.model),
        "mark": joined.mark,
    }
