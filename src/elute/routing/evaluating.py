"""`elute routing eval`: what a dictionary's features are, do and mean, on held-out instances.

    RUN/clt/eval/<pair>/eval.json             how well it reconstructs beside the linear map; do attributions hold
    RUN/clt/eval/<pair>/features.parquet      a feature a row: firing, attribution, what taking it away does, meaning
    RUN/clt/eval/<pair>/dimensions.parquet    R² of each dimension of each target, beside the linear map
    RUN/clt/eval/<pair>/meaning.parquet       every feature against every quantity of nodes and instances
    RUN/clt/eval/<pair>/edges.csv             the strongest weights from features to dimensions of the targets
    RUN/clt/eval/<pair>/figures/*.svg         features drawn on instances
    RUN/clt/eval/<pair>/index.html            all of it as a page

1. The policy solves instances that no row of the pair is of; the dictionary sees what it computes.
2. Attribution (attributing.py) says which features matter; the first of them are taken away one by one.
3. Activations are held against quantities of nodes and of instances (meaning.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from elute.base import console, files, run
from elute.base.run import Artifact
from elute.routing.cause_settings import JudgedConfig, PairEvalConfig
from elute.routing.intervals import plain

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

    from elute.routing.cause_inputs import Subject
    from elute.routing.looking import Looked

    Floats = NDArray[np.float64]

STAGE = "eval"
_TABLES = ("features.parquet", "dimensions.parquet", "meaning.parquet")
_HEAT = 40  # features whose directions are shown as a picture


def evaluate_run(
    run_dir: Path | str, pair: str, judged: JudgedConfig | None = None, *, config: PairEvalConfig | None = None,
    clt_run: str = "latest",
) -> Artifact:  # fmt: skip
    """Look at the features of a pair's dictionary."""
    from elute.routing.cause_inputs import held_out, open_policy, open_subject
    from elute.routing.looking import look

    folder, judged, config = Path(run_dir), judged or JudgedConfig(), config or PairEvalConfig()
    model = open_policy(folder, judged)
    subject = open_subject(folder, pair, model=model, clt_run=clt_run)
    instances = held_out(folder, judged, pairs=[subject.rows])
    output = files.make_folder(folder / "clt" / STAGE / subject.pair)
    settings = {"judged": judged.identity(), "eval": config}
    inputs = {
        "model": model.fingerprint().weights, "instances": instances.source, "dictionary": subject.digest,
        "rows": subject.rows.store.manifest.store,
    }  # fmt: skip
    with files.locked(output, "looking at features"):
        there = all((output / name).is_file() for name in (*_TABLES, "index.html"))
        if there and (done := run.finished(output, STAGE, settings, inputs=inputs)) is not None:
            console.say(f"{output}: already done with these settings, used as it is")
            return Artifact(STAGE, output, {**done, "reused": True})
        looked = look(subject, instances, judged=judged, most=config.meant)
        summary = _write(output, subject, looked, judged=judged, config=config)
        run.record(output, STAGE, settings, inputs=inputs, summary=summary, model=model.fingerprint())
    return Artifact(STAGE, output, {**summary, "reused": False})


def _write(
    output: Path, subject: Subject, looked: Looked, *, judged: JudgedConfig, config: PairEvalConfig
) -> dict[str, Any]:
    """Write all tables and the page; return the summary."""
    from elute.routing.feature_tables import ablations, dimensions, edges, feature_table, relations

    taken = ablations(subject, looked, most=config.ablated)
    meant = relations(subject, looked, config=config, seed=judged.seed)
    features = feature_table(looked, taken, meant, seed=judged.seed, resamples=judged.resamples)
    for name, table in zip(_TABLES, (features, dimensions(looked), meant), strict=True):
        files.write_atomically(output / name, table.write_parquet)
    files.write_atomically(output / "edges.csv", edges(subject, looked).write_csv)
    summary = {
        "pair": subject.pair,
        "dictionary": {"kind": subject.dictionary.spec.kind, "features": subject.dictionary.n_features,
                       "k": subject.dictionary.spec.k, "activation": subject.dictionary.spec.activation},
        "reads": list(subject.reads.values()), "writes": list(subject.writes.values()),
        "instances": len(looked.instances), "nodes": looked.instances.nodes, "rows": looked.rows,
        "l0": plain(looked.fired.l0), "dead": int((looked.fired.counts == 0).sum()),
        **{kind.replace(" ", "_"): told for kind, told in looked.explained.items()},
        "attribution": _held(taken),
        "meaning": _meaning(meant, config),
    }  # fmt: skip
    if subject.at_steps:
        from elute.routing.decoder_pairs import ceiling

        site = next(iter(subject.writes.values()))
        shares = ceiling(subject.model, looked.instances, site, batch=judged.batch)
        summary["linear_in_nodes"] = {name: plain(value) for name, value in shares.items()}
    _pictures(output, subject, looked, features=features, meant=meant, summary=summary, config=config)
    files.write_json(output / "eval.json", summary)
    return summary


def _held(taken: pl.DataFrame) -> dict[str, Any]:
    """Say how well attributions predict what taking a feature away does."""
    from elute.base.statistics.correlation import spearman

    told: dict[str, Any] = {"features": len(taken), "spearman": None, "p": None}
    if len(taken) > 2:
        found = spearman(taken["margin"].to_numpy(), -taken["attribution"].to_numpy())
        told |= {"spearman": plain(float(found.rho[0])), "p": plain(float(found.p[0]))}
        told["ratio"] = plain(-float(taken["margin"].to_numpy().sum() / taken["attribution"].to_numpy().sum()))
    return told


def _meaning(meant: pl.DataFrame, config: PairEvalConfig) -> dict[str, Any]:
    """Count the features that follow something, of all that were tested."""
    import polars as pl

    told: dict[str, Any] = {"permutations": config.permutations}
    for scope in ("node", "beyond place", "instance"):
        some = meant.filter(pl.col("scope") == scope)
        hit = some.filter(pl.col("p_family") < 0.05)
        told[scope] = {
            "tested": some["feature"].n_unique(), "follow": hit["feature"].n_unique(),
            "by_chance_alone": "any in one table of 20",
        }  # fmt: skip
    return told


def _pictures(
    output: Path, subject: Subject, looked: Looked, *, features: pl.DataFrame, meant: pl.DataFrame,
    summary: dict[str, Any], config: PairEvalConfig,
) -> None:  # fmt: skip
    from elute.reports.routing.eval_page import write_eval_page
    from elute.routing.feature_tables import drawings, heat_rows

    first = features["feature"].to_list()
    write_eval_page(
        output, subject.pair, summary, features=features, meant=meant, r2=looked.r2,
        drawn=drawings(looked, first[: config.top], count=config.drawn), weights=heat_rows(subject, first[:_HEAT]),
    )  # fmt: skip


def show(answer: dict[str, Any]) -> str:
    """Say it for people."""
    ours, bar = answer["transcoder"], answer["linear_map"]
    told, meant = answer["attribution"], answer["meaning"]["node"]
    fire = f"L0 {answer['l0']:.1f}, dead {answer['dead']} of {answer['dictionary']['features']}"
    lines = [
        f"{answer['path']}: {answer['instances']:,} held-out instances of {answer['nodes']} nodes",
        f"  explained variance {ours['explained_variance']:.4f} (linear map {bar['explained_variance']:.4f}), {fire}",
    ]
    if told["spearman"] is not None:
        lines.append(
            f"  attribution against taking away {told['features']} features: Spearman {told['spearman']:.2f} "
            f"(p {told['p']:.2g}), effect / attribution {told['ratio']:.2f}"
        )
    beyond = answer["meaning"]["beyond place"]["follow"]
    lines.append(
        f"  {meant['follow']} of {meant['tested']} features follow a quantity of nodes (p of the whole table < 0.05), "
        f"{beyond} one beyond the node's place"
    )
    if "linear_in_nodes" in answer:
        shares = answer["linear_in_nodes"]
        lines.append(
            f"  a linear map of the current node explains {shares['current']:.3f} of the target, of it and the first "
            f"node {shares['both']:.3f}"
        )
    return "\n".join([*lines, f"Open {answer['path']}/index.html in a browser."])
