"""From tiles of tissue to genes and what in a tile they follow: each stage reads what the one before it wrote.

    embeddings/, tiles.parquet     what the encoder makes of the tiles             exporting.py
    sae.pt                         the dictionary of training patients' rows       learning.py
    codes/                         which codes fire in which patch                 coding.py
    targets/, folds.parquet,
    heads/                         genes predicted from codes, beside controls     fitting.py
    relevance/, refs/, token_maps/ what each gene's prediction rests on            explaining.py
    report/                        pages to open in a browser                      reports/tissue/

A stage whose settings and inputs are the same as before is not done again. A stage that was killed goes on, or is done
anew as a whole; what it had not finished is never taken for a result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from elute.base import console, files
from elute.base.run import Artifact
from elute.tissue import stages

if TYPE_CHECKING:
    from pathlib import Path

    from elute.tissue.plan import Plan
    from elute.tissue.tiles import Tiles

STAGES = ("embed_export", "train_sae", "extract_codes", "train_heads", "crp_relmax", "make_reports")


def alone(folder: Path) -> AbstractContextManager[None]:
    """Hold a run's folder: two runs into one would write over each other."""
    files.make_folder(folder)
    return files.locked(folder, "elute tissue", name=".run.lock")  # stages hold their own


def run_stage(plan: Plan, stage: str, *, tiles: Tiles | None = None) -> Artifact:
    """Do one stage; `tiles` are those at hand, else they are opened as the settings say where they are needed."""
    with alone(plan.output):
        return _DO[stage](plan, tiles)


def run_tissue(plan: Plan, *, tiles: Tiles | None = None, stages_to_do: Sequence[str] = STAGES) -> Artifact:
    """Do every stage that is not done yet."""
    told: dict[str, Any] = {}
    with alone(plan.output):
        if tiles is None:
            tiles = _opened(plan)
        for stage in stages_to_do:
            told[stage] = _DO[stage](plan, tiles).summary
    console.detail(f"{plan.output}: all stages are done")
    return Artifact("tissue", plan.output, told)


def _opened(plan: Plan) -> Tiles:
    from elute.tissue.tiles import open_tiles

    return open_tiles(plan.tiles)


def _embed(plan: Plan, tiles: Tiles | None) -> Artifact:
    from elute.tissue.exporting import embed_export

    return embed_export(
        tiles or _opened(plan), plan.output, encoder=plan.encoder, embedding=plan.embedding, split=plan.split,
        described=plan.tiles,
    )  # fmt: skip


def _learn(plan: Plan, _tiles: Tiles | None) -> Artifact:
    from elute.tissue.learning import train_sae

    return train_sae(plan)


def _code(plan: Plan, _tiles: Tiles | None) -> Artifact:
    from elute.tissue.coding import extract_codes

    return extract_codes(plan)


def _fit(plan: Plan, tiles: Tiles | None) -> Artifact:
    from elute.tissue.fitting import train_heads

    return train_heads(plan, tiles=tiles)


def _explain(plan: Plan, tiles: Tiles | None) -> Artifact:
    from elute.tissue.explaining import crp_relmax

    return crp_relmax(plan, tiles=tiles)


def _report(plan: Plan, tiles: Tiles | None) -> Artifact:
    """Write the pages, unless they were written of these very findings."""
    from elute.reports.tissue.write import write_reports
    from elute.tissue.tiles import open_tiles

    inputs = findings(plan)
    known = stages.done(plan.output, "make_reports", {"reports": plan.reports}, inputs=inputs)
    if known is not None:
        return Artifact("report", plan.output / "report" / "index.html", {**known, "reused": True})
    held = tiles or open_tiles(plan.tiles)
    made = write_reports(plan.output, config=plan.reports, images=held.named)
    written = [path for path in (plan.output / "report").rglob("*.html") if not path.name.startswith(".")]
    stages.record(
        plan.output, "make_reports", {"reports": plan.reports}, inputs=inputs, summary=made.summary, written=written
    )
    return Artifact("report", made.path, {**made.summary, "reused": False})


def findings(plan: Plan) -> dict[str, str]:
    """Name what pages are written of: the stages before, by what they left."""
    heads = stages.told(plan.output, "train_heads", needs="train_heads, with the same --config")
    crp = stages.told(plan.output, "crp_relmax", needs="crp_relmax, with the same --config")
    left = {name: files.digest_json(known["summary"])[:16] for name, known in (("heads", heads), ("crp", crp))}
    return {**left, "tiles": files.digest_file(plan.output / "tiles.parquet")[:16]}


_DO: dict[str, Callable[[Plan, Tiles | None], Artifact]] = {
    "embed_export": _embed, "train_sae": _learn, "extract_codes": _code, "train_heads": _fit,
    "crp_relmax": _explain, "make_reports": _report,
}  # fmt: skip
