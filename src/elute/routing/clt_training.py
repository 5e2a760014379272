"""`elute routing train-clt`: all layers at once, each one's features writing into it and into all later layers.

    a^l = JumpReLU(W_enc^l x^l)        ŷ^l = Σ over l' ≤ l of W_dec^(l'→l) a^l'
    Σ ‖ŷ − y‖² + λ Σ tanh(c ‖W_dec,i‖ a_i), the norm over all that feature i writes, c = 4

    RUN/clt/clt_runs/PAIR/TIME/            the cross-layer transcoder, as any transcoder's folder (learning.py)
    RUN/clt/clt_runs/PAIR/TIME/layer_L/    a transcoder of that layer alone, of as many features, for comparison
    RUN/clt/clt_runs/PAIR/TIME/beside.json both, and the linear map, layer by layer

Features that write into later layers may stand for what those layers would have had to find anew, and may also skip
steps that the network does take: the transcoder of each layer alone has to be looked at beside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base import console, files
from elute.base.errors import ConfigError
from elute.base.run import Artifact
from elute.routing import clt_runs
from elute.routing.clt_settings import CltConfig, Settings, TranscoderConfig
from elute.routing.learning import KIND, Sites, fit_into
from elute.routing.pair_settings import PairsConfig, PairSpec

if TYPE_CHECKING:
    from elute.base.recipe import Section
    from elute.routing.pair_rows import PairRows
    from elute.routing.pairs import Pair

BESIDE = "beside.json"
_PARTS = {"mlp": ".mlp", "attention": ".attention", "layer": ""}


@dataclass(frozen=True)
class _Job(Settings):
    """Settings of one dictionary here, with those of the whole."""

    clt: CltConfig = field(default_factory=CltConfig)

    def identity(self) -> dict[str, Section]:
        """What the result depends on."""
        parts = super().identity()
        return {"clt": self.clt, "epochs": parts["epochs"], "terms": parts["terms"]}


def train_clt(
    run_dir: Path | str,
    config: CltConfig | None = None,
    settings: Settings | None = None,
    *,
    resume: str | None = None,
    anew: bool = False,
) -> Artifact:
    """Train a cross-layer transcoder of a run's policy; `settings` say how long, and with which terms."""
    folder, config = Path(run_dir), config or CltConfig()
    job = _job(config, settings or Settings())
    spec = pair_of(config)
    pair = _rows(folder, spec, config)
    width = max(pair.store.sites[name] for name in spec.source_sites)
    n, k = job.transcoder.sized(width, {})
    home = clt_runs.home(folder, pair.name)
    sites = Sites(spec.source_sites, spec.target_sites, n, k, "clt")
    told = _told(pair, job, sites)
    place = clt_runs.place(home, told, which=resume, anew=anew)
    with clt_runs.tidied(place):
        summary = fit_into(place, _open(pair, job), told, sites=sites, settings=job, must_resume=resume is not None)
    if config.beside:
        summary = {**summary, "layers": _beside(place, pair, job, sites, summary)}
    clt_runs.point(home, place)
    return Artifact("clt", place, summary)


def pair_of(config: CltConfig) -> PairSpec:
    """Return the sites that are read and written, in the order of the layers."""
    texts = [part.strip() for part in config.layers.split(",") if part.strip()]
    if not all(text.isascii() and text.isdecimal() for text in texts) or len(texts) < 2:
        raise ConfigError(f"{config.layers!r} are no layers", where="layers", remedy="Name two or more, as 0,1,2.")
    layers = [int(text) for text in texts]
    if layers != sorted(set(layers)):
        what = "layers stand in the order of the network, each once"
        raise ConfigError(what, where="layers", remedy=f"Write {','.join(map(str, sorted(set(layers))))}.")
    targets = tuple(f"encoder_layer_{layer}{_PARTS[config.part]}" for layer in layers)
    return PairSpec(tuple(f"{site}.input" for site in targets), targets)


def _job(config: CltConfig, settings: Settings) -> _Job:
    made = TranscoderConfig(
        expansion_factor=config.expansion_factor, k_ratio=config.k_ratio, k=config.k, activation=config.activation,
        numbers=config.numbers if config.activation == "jumprelu" else None, penalty=config.penalty, skip=config.skip,
        normalize_source=config.normalize, normalize_target=config.normalize,
    )  # fmt: skip
    return _Job(made, settings.epochs, settings.terms, settings.wandb, config)


def _rows(folder: Path, spec: PairSpec, config: CltConfig) -> Pair:
    """Open these layers' rows; collect them where they are not there yet."""
    from elute.routing.collecting import collect_pairs
    from elute.routing.pair_places import collected
    from elute.routing.pairs import open_pair

    if spec.name not in collected(folder):
        console.say(f"{folder}: collecting {spec.name}")
        collect_pairs(folder, PairsConfig(layer_pairs=spec.text, num_instances_per_pair=config.num_instances))
    return open_pair(folder, spec)


def _open(pair: Pair, job: _Job) -> PairRows:
    from elute.routing.pair_rows import PairRows

    sites = (*pair.spec.source_sites, *pair.spec.target_sites)
    return PairRows(pair.folder, methods=dict.fromkeys(sites, job.clt.normalize), epochs=job.epochs)


def _told(pair: Pair, job: _Job, sites: Sites) -> dict[str, Any]:
    """Return what config.json says."""
    width = max(pair.store.sites[name] for name in sites.reads)
    return {
        "kind": sites.kind, "pair": pair.name, "reads": list(sites.reads), "writes": list(sites.writes),
        "n_features": sites.n_features, "k": sites.k, "expansion_factor": sites.n_features / width,
        "k_ratio": sites.k / sites.n_features, "num_epochs": job.epochs.num_epochs, "settings": job.plain(),
        "inputs": {"store": pair.store.manifest.store, "order": pair.order},
    }  # fmt: skip


def _beside(place: Path, pair: Pair, job: _Job, sites: Sites, summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Train a transcoder of each layer alone, and put both beside the linear map."""
    from elute.dictionaries.files import load_dictionary

    found = []
    l0 = _fired(load_dictionary(place), _open(pair, job))
    for number, (read, write) in enumerate(zip(sites.reads, sites.writes, strict=True)):
        alone = Sites((read,), (write,), sites.n_features, sites.k, KIND)
        layer = pair.spec.targets[number]
        console.say(f"{layer}: a transcoder of this layer alone")
        told = _told(pair, job, alone)
        made = fit_into(place / f"layer_{number}", _open(pair, job), told, sites=alone, settings=job)
        found.append({
            "layer": layer, "linear_map": made["linear_map"]["explained_variance"],
            "linear_map_of_all_before": summary["linear_map"]["sites"][write]["explained_variance"],
            "transcoder": made["transcoder"]["explained_variance"], "transcoder_l0": made["l0"],
            "transcoder_dead": made["dead"],
            "clt": summary["transcoder"]["sites"][write]["explained_variance"], "clt_l0": round(l0[number], 6),
            "clt_l0_writing_here": round(sum(l0[: number + 1]), 6),
        })  # fmt: skip
    files.write_json(place / BESIDE, {"pair": pair.name, "held_out": summary["held_out"], "layers": found})
    return found


def _fired(dictionary: Any, rows: PairRows) -> list[float]:
    """How many features of each layer fire in a row."""
    import numpy as np

    counts, total = np.zeros(dictionary.n_features), 0
    for given, _ in rows.batches(rows.held_out, sites=list(dictionary.spec.reads)):
        codes = dictionary.encode(given)
        fired = codes.indices[codes.values != 0].cpu().numpy()
        counts += np.bincount(fired, minlength=dictionary.n_features)
        total += len(codes)
    return [float(part.sum() / total) for part in np.split(counts, len(dictionary.spec.reads))]


def show(answer: Mapping[str, Any]) -> str:
    """Say what came of it, for people."""
    again = " (already there, used as it is)" if answer.get("reused") else ""
    lines = [f"{answer['path']}: {answer['features']:,} features, {answer['l0']:.1f} fire a row in all layers{again}"]
    told = {"transcoder": answer["transcoder"], "linear map": answer["linear_map"]}
    if "layers" not in answer:
        return "\n".join([*lines, *(f"  {name}: {t['explained_variance']:.4f} explained" for name, t in told.items())])
    held = answer["held_out"]
    lines.append(f"explained of {held['rows']:,} rows held out ({held['split']}):")
    lines.append(
        f"  {'':22} linear map   of all before   transcoder (L0)    cross-layer (L0 of the layer, writing here)"
    )
    lines += [
        f"  {one['layer']:22} {one['linear_map']:10.4f} {one['linear_map_of_all_before']:15.4f}"
        f"   {one['transcoder']:10.4f} ({one['transcoder_l0']:4.1f})"
        f"   {one['clt']:11.4f} ({one['clt_l0']:.1f}, {one['clt_l0_writing_here']:.1f})"
        for one in answer["layers"]
    ]
    return "\n".join(lines)
