"""What is explained: the heads of a run over the codes that they were fitted on, seen to belong together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from elute.base import files
from elute.base.errors import GuardError
from elute.tissue import stages
from elute.tissue.code_stream import CodeStream
from elute.tissue.laying import attention_rows
from elute.tissue.learning import opened, trained
from elute.tissue.preparing import Targets, read_targets

if TYPE_CHECKING:
    from elute.analysis.relevance import Relevance
    from elute.analysis.relevance_head import Explained
    from elute.heads.files import HeadFile
    from elute.tissue.plan import Plan

Found = dict[str, "tuple[Relevance, list[int], dict[str, Any]]"]  # by gene: what was found, its codes, what is told


@dataclass(frozen=True, eq=False)
class Case:
    """What is explained: a head over the codes of some samples."""

    explained: Explained
    stream: CodeStream
    heads: HeadFile
    inputs: dict[str, str]


def open_case(plan: Plan) -> Case:
    """Open codes and heads, and see that they belong together."""
    from elute.analysis.relevance_head import Explained
    from elute.heads.files import load_heads

    store = opened(plan)
    dictionary, known = trained(plan, store)
    record = stages.told(plan.output, "train_heads", needs="train_heads, with the same --config")
    path = plan.output / "heads" / "heads.pt"
    heads = load_heads(path)
    digest = files.digest_file(path)[:16]
    if record["inputs"].get("dictionary") != known:
        raise GuardError("the heads were fitted on the codes of another dictionary", where=path,
                         remedy="Type: elute tissue train_heads, with the same --config.")  # fmt: skip
    if record["summary"].get("files", {}).get("heads/heads.pt") != digest:
        raise GuardError("are not the heads that were fitted in this run", where=path,
                         remedy="Type: elute tissue train_heads, with the same --config.")  # fmt: skip
    _same_folds(plan, record)
    targets: Targets = read_targets(plan)
    pool = heads.meta.get("pool", plan.heads.pool)
    weights = attention_rows(plan.output / "heads")[0] if pool == "attention" else None
    stream = CodeStream(plan, store, dictionary, known, targets.samples["sample_id"].to_list(), weights)
    explained = Explained.of(heads.final, genes=heads.genes, pool=pool)
    inputs = {"dictionary": known, "store": store.manifest.store, "heads": digest, "targets": targets.digest}
    return Case(explained, stream, heads, inputs)


def _same_folds(plan: Plan, record: dict[str, Any]) -> None:
    path = plan.output / "folds.parquet"
    now = files.digest_file(path)[:16] if path.exists() else "none"
    if record["inputs"].get("folds") != now:
        what = "the folds are not those that the heads were judged on"
        raise GuardError(what, where=path, remedy="Type: elute tissue train_heads, with the same --config.")
