"""`elute routing paths`: paths by weights beside paths as measured (paths.py has the definitions).

RUN/clt/saes/<pair>/<site>/          autoencoders that were trained for this, where none was given
RUN/clt/paths/<pair>/paths.parquet   a path a row: its features, what weights predict, what was measured
RUN/clt/paths/<pair>/whole.parquet   a feature of the source a row: its whole effect, and what predicts it
RUN/clt/paths/<pair>/paths.json, index.html
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from elute.base import console, files, run
from elute.base.run import Artifact
from elute.routing.cause_settings import JudgedConfig, PathsConfig
from elute.routing.intervals import plain

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray
    from torch import Tensor

    from elute.dictionaries.dictionary import Dictionary
    from elute.routing.cause_inputs import Subject
    from elute.routing.measuring import Effect
    from elute.routing.paths import Chain, Seen

STAGE = "paths"
WAYS = ("paths", "dictionary", "linear map", "gradient")


def paths_run(
    run_dir: Path | str, pair: str, judged: JudgedConfig | None = None, *, config: PathsConfig | None = None,
    clt_run: str = "latest",
) -> Artifact:  # fmt: skip
    """Follow paths through a pair's dictionary, by weights and by measured effect."""
    from elute.reports.routing.paths_page import write_paths_page
    from elute.routing.cause_inputs import held_out, open_policy, open_subject

    folder, judged, config = Path(run_dir), judged or JudgedConfig(), config or PathsConfig()
    model = open_policy(folder, judged)
    subject = open_subject(folder, pair, model=model, clt_run=clt_run)
    instances = held_out(folder, judged, pairs=[subject.rows])
    chain, saes = _chain(folder, subject, config, seed=judged.seed)
    output = files.make_folder(folder / "clt" / STAGE / subject.pair)
    settings = {"judged": judged.identity(), "paths": config}
    inputs = {
        "model": model.fingerprint().weights, "instances": instances.source, "dictionary": subject.digest,
        **saes,
    }  # fmt: skip
    with files.locked(output, "following paths"):
        done = run.finished(output, STAGE, settings, inputs=inputs)
        if done is not None and (output / "index.html").is_file():
            console.say(f"{output}: already done with these settings, used as it is")
            return Artifact(STAGE, output, {**done, "reused": True})
        seen = _seen(chain, instances, judged)
        table = path_table(chain, seen, config=config, seed=judged.seed)
        wholes = whole_table(chain, seen, most=config.whole)
        summary = {
            "pair": subject.pair, "read": chain.subject.reads[chain.read], "write": chain.subject.writes[chain.write],
            "instances": len(instances), "nodes": instances.nodes,
            "features": [d.n_features for d in (chain.source, subject.dictionary, chain.target)],
            "paths": _held(table), "whole": _predicted(wholes, judged=judged),
        }  # fmt: skip
        files.write_atomically(output / "paths.parquet", table.write_parquet)
        files.write_atomically(output / "whole.parquet", wholes.write_parquet)
        files.write_json(output / "paths.json", summary)
        write_paths_page(output / "index.html", summary, paths=table, wholes=wholes)
        run.record(output, STAGE, settings, inputs=inputs, summary=summary, model=model.fingerprint())
    return Artifact(STAGE, output, {**summary, "reused": False})


def _chain(folder: Path, subject: Subject, config: PathsConfig, *, seed: int) -> tuple[Chain, dict[str, str]]:
    """Bring the three dictionaries together; autoencoders that are not given are trained on the pair's rows."""
    from elute.dictionaries.files import digest, load_dictionary
    from elute.routing.linear_map import fit
    from elute.routing.paths import chain

    spec = subject.dictionary.spec
    sites = {"sae_source": _named(spec.reads, config.read, 0), "sae_target": _named(spec.writes, config.write, -1)}
    loaded: dict[str, Dictionary] = {}
    for role, site in sites.items():
        given = getattr(config, role)
        path = Path(given) if given is not None else _trained(folder, subject, site, config=config, seed=seed)
        loaded[role] = load_dictionary(path).to(subject.model.device)
    found = chain(
        subject, loaded["sae_source"], loaded["sae_target"], read=config.read, write=config.write,
        linear=fit(subject.rows.store, spec),
    )  # fmt: skip
    return found, {role: digest(one) for role, one in loaded.items()}


def _named(sites: dict[str, int], asked: str | None, usual: int) -> str:
    from elute.routing.cause_inputs import policy_site

    return next((name for name in sites if asked in (name, policy_site(name))), list(sites)[usual])


def _trained(folder: Path, subject: Subject, site: str, *, config: PathsConfig, seed: int) -> Path:
    """Train an autoencoder of one of the pair's sites by the common trainer; one that is there is used as it is."""
    from elute.engine.fit import FitConfig
    from elute.engine.settings import DictionaryConfig, LearnConfig
    from elute.engine.train import Training, train

    place = folder / "clt" / "saes" / subject.pair / site
    store = subject.rows.store
    training = Training(
        dictionary=DictionaryConfig(
            kind="sae", reads=(site,), n_features=config.sae_expansion * store.sites[site], k=config.sae_k
        ),
        learn=LearnConfig(normalise="standard"),
        fit=FitConfig(steps=config.sae_steps, seed=seed),
    )
    train(store.folder, place, training)
    return place


def _seen(chain: Chain, instances: Any, judged: JudgedConfig) -> list[Seen]:
    from elute.routing.attributing import clean
    from elute.routing.cause_inputs import cut
    from elute.routing.measuring import reference
    from elute.routing.paths import see

    model = chain.subject.model
    return [see(chain, clean(chain.subject, reference(model, part))) for part in cut(instances, judged.batch)]


def path_table(chain: Chain, seen: list[Seen], *, config: PathsConfig, seed: int) -> pl.DataFrame:
    """Choose paths, predict them by weights, and measure each."""
    import polars as pl

    from elute.routing import paths as following

    first, then, often = following.by_weights(chain, seen)
    strongest, _ = following.candidates(first, then, often, most=config.strongest)
    others = following.drawn(seen, count=config.drawn, seed=seed)
    known = {tuple(path) for path in strongest.tolist()}
    others = np.array([path for path in others.tolist() if tuple(path) not in known], np.int64).reshape(-1, 3)
    chosen = np.concatenate([strongest, others])
    nodes = seen[0].clean.reference.instances.nodes
    weights = np.array([float(first[s, c] * then[c, t] / often[c]) * nodes for s, c, t in chosen.tolist()])
    rows = []
    with console.progress("paths", len(chosen), unit="paths") as bar:
        for s, c, t in chosen.tolist():
            rows.append(measured(chain, seen, (s, c, t)))
            bar.advance()
    return pl.DataFrame(
        {
            "s": chosen[:, 0], "c": chosen[:, 1], "t": chosen[:, 2],
            "chosen": ["strongest"] * len(strongest) + ["drawn"] * len(others),
            "by_weights": weights, "with_gates": following.predictions(chain, seen, chosen),
            "measured": np.array([row[0] for row in rows]), "error": np.array([row[1] for row in rows]),
        }
    )  # fmt: skip


def measured(chain: Chain, seen: list[Seen], path: tuple[int, int, int]) -> tuple[float, float]:
    """Return what the margin loses when a path is cut, over instances, and its standard error."""
    import torch

    from elute.routing.attributing import pushing

    s, c, t = path
    found = []
    for part in seen:
        x = part.x - (part.s[:, s, None] * chain.source.directions()[s].double().cpu()).to(part.x)
        given = {**part.clean.read, chain.read: x}
        codes = chain.subject.dictionary.encode(given).to("cpu")
        change = _of(codes, c) - part.c[:, c]
        y = part.y + (change[:, None] * chain.subject.dictionary.directions(chain.write)[c].double().cpu()).to(part.y)
        change = _of(chain.target.encode(y).to("cpu"), t) - part.t[:, t]
        step = change[:, None].float() * chain.target.directions()[t].cpu()
        found.append(_effect(chain, part, pushing(chain.subject, part.clean, {chain.write: step})).margin)
    lost = -torch.cat(found)
    return float(lost.mean()), float(lost.std() / len(lost) ** 0.5)


def _of(codes: Any, feature: int) -> Tensor:
    import torch

    return torch.where(codes.indices == feature, codes.values, 0.0).sum(1).double()


def _effect(chain: Chain, part: Seen, edits: Any) -> Effect:
    from elute.routing.measuring import effect

    return effect(chain.subject.model, part.clean.reference, edits, tours=False)


def whole_table(chain: Chain, seen: list[Seen], *, most: int) -> pl.DataFrame:
    """Take source features away in the policy itself, and set beside it what each way predicts.

    Half of the features are those that the paths predict to matter most, the rest are spread over those that fire.
    """
    import polars as pl

    from elute.routing.attributing import push
    from elute.routing.paths import whole

    told = whole(chain, seen)
    often = sum((part.s != 0).sum(0).numpy() for part in seen)
    order = [f for f in np.argsort(-np.abs(told["paths"]), kind="stable").tolist() if np.asarray(often)[f]]
    head, rest = order[: most // 2], order[most // 2 :]
    places = np.linspace(0, max(len(rest) - 1, 0), min(len(rest), most - len(head))).round().astype(int)
    chosen = head + [rest[i] for i in dict.fromkeys(places.tolist())]
    site = chain.subject.reads[chain.read]
    rows = []
    with console.progress("whole effects", len(chosen), unit="features") as bar:
        for feature in chosen:
            lost = []
            for part in seen:
                step = -(part.s[:, feature, None].float() * chain.source.directions()[feature].cpu())
                lost.append(-_effect(chain, part, {site: push(part.clean, step)}).margin.numpy())
            values = np.concatenate(lost)
            rows.append((float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5)))
            bar.advance()
    columns: dict[str, NDArray[Any]] = {"feature": np.array(chosen, np.int64)}
    columns |= {"measured": np.array([row[0] for row in rows]), "error": np.array([row[1] for row in rows])}
    return pl.DataFrame({**columns, **{name: told[name][chosen] for name in WAYS}})


def _held(table: pl.DataFrame) -> dict[str, Any]:
    """Correlate predictions with what was measured, over all paths and over those drawn at random."""
    import polars as pl

    told: dict[str, Any] = {"measured": len(table)}
    for name, some in (("all", table), ("drawn", table.filter(pl.col("chosen") == "drawn"))):
        told[name] = {way: _spearman(some[way], some["measured"]) for way in ("by_weights", "with_gates")}
    return told


def _predicted(table: pl.DataFrame, *, judged: JudgedConfig) -> dict[str, Any]:
    """Correlate each way's prediction of whole effects with what was measured; and how far it beats the linear map."""
    told: dict[str, Any] = {"measured": len(table)}
    for way in WAYS:
        told[way] = _spearman(table[way], table["measured"])
    if len(table) > 3:
        told["paths_less_linear_map"] = _apart(table, judged)
    return told


def _apart(table: pl.DataFrame, judged: JudgedConfig) -> dict[str, float]:
    """The difference of two correlations, with an interval by drawing features with replacement."""
    from scipy.stats import rankdata

    from elute.base.statistics.nulls import bootstrap_groups

    columns = [table[name].to_numpy() for name in ("paths", "linear map", "measured")]

    def difference(rows: NDArray[np.int64]) -> float:
        ranks = [rankdata(column[rows]) for column in columns]
        if min(np.ptp(rank) for rank in ranks) == 0:
            return 0.0
        return float(np.corrcoef(ranks[0], ranks[2])[0, 1] - np.corrcoef(ranks[1], ranks[2])[0, 1])

    found = bootstrap_groups(difference, np.arange(len(table)), n_resamples=judged.resamples, seed=judged.seed)
    return {"mean": plain(found.estimate[0]), "low": plain(found.low[0]), "high": plain(found.high[0])}


def _spearman(one: pl.Series, other: pl.Series) -> dict[str, float | None]:
    from elute.base.statistics.correlation import spearman

    if len(one) < 3:
        return {"rho": None, "p": None}
    found = spearman(one.to_numpy(), other.to_numpy())
    return {"rho": plain(float(found.rho[0])), "p": plain(float(found.p[0]))}


def show(answer: dict[str, Any]) -> str:
    """Say it for people."""

    def told(each: dict[str, float | None]) -> str:
        return "too few" if each["rho"] is None else f"{each['rho']:+.2f} (p {each['p']:.2g})"

    found, whole = answer["paths"], answer["whole"]
    every, drawn = found["all"], found["drawn"]
    where = f"from {answer['read']} to {answer['write']}, {answer['instances']:,} held-out instances"
    lines = [
        f"{answer['path']}: {found['measured']} paths {where}",
        "  Spearman of what weights predict and what was measured",
        f"    all paths              by weights {told(every['by_weights'])}, with gates {told(every['with_gates'])}",
        f"    paths drawn at random  by weights {told(drawn['by_weights'])}, with gates {told(drawn['with_gates'])}",
        f"  whole effects of {whole['measured']} source features, predicted by",
        *(f"    {way:<12} {told(whole[way])}" for way in WAYS),
    ]
    return "\n".join([*lines, f"Open {answer['path']}/index.html in a browser."])
