"""Which layers of a policy are paired, what a pair is called, and on which instances it is collected; light to import.

encoder_layer_0:encoder_layer_2              one pair, clt_L0_to_L2
encoder_layer_0.mlp.input:encoder_layer_0.mlp what a feed-forward part reads and gives, clt_L0_mlp_input_to_L0_mlp
a+b+c:d+e+f                                  several sites on either side, for a cross-layer transcoder
layers, mlp, all                             every layer to every later one; every feed-forward part; both
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, model_validator

from elute.base.errors import ConfigError, near
from elute.base.recipe import Section
from elute.models.routing.settings import Distribution
from elute.store.layout import Dtype

Scaled = Literal["standard", "pca"]
SHORT = ("layers", "mlp", "all")
_LAYER = re.compile(r"encoder_layer_(\d+)(?:\.(attention|mlp))?(\.input)?")
_WORDS = {"encoder_output": "output", "decoder_context": "context", "decoder_query": "query"}


class PairsConfig(Section):
    """Which pairs are collected, on which instances."""

    layer_pairs: str = ""
    """Pairs as SOURCE:TARGET, with commas between; or layers, mlp or all; those of the pairs' file if not given."""
    num_instances_per_pair: int = Field(2000, ge=3)
    """Instances of a pair."""
    num_loc: int | None = Field(None, ge=3)
    """Nodes of an instance; as the policy was trained if not given."""
    distribution: Distribution | None = None
    """Uniform, clustered or mixed instances; as the policy was trained if not given."""
    nodes_per_instance: int | None = Field(None, ge=1)
    """Nodes that are drawn of each instance (steps, for a pair that ends in the decoder); all if not given."""
    seed: int = Field(0, ge=0)
    """Seed of the instances, the nodes and the splits."""
    first: int = Field(0, ge=0)
    """Number of the first instance."""
    fractions: dict[str, float] = Field(default_factory=lambda: {"train": 0.8, "validation": 0.1, "test": 0.1})
    """Share of the instances for each split; all rows of an instance lie in one."""
    scaling: Scaled = "standard"
    """What is measured on the training rows: mean and standard deviation, or PCA whitening too. Rows are kept raw."""
    format: Literal["store", "pt"] = "store"
    """A store alone, or sources.pt and targets.pt beside it."""
    dtype: Dtype = "fp32"
    """Number type on disk."""
    recapture: bool = False
    """Write a pair anew, whatever lies there."""

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        shares = self.fractions.values()
        if "train" not in self.fractions or any(s <= 0 for s in shares) or abs(sum(shares) - 1) > 1e-6:
            raise ValueError("fractions are positive, add up to 1, and one of them is train")
        return self


class PairPlan(Section):
    """One pair in a pairs' file: what is said here wins over what is said for all."""

    layers: str
    """The pair, as SOURCE:TARGET."""
    num_instances: int | None = Field(None, ge=3)
    """Instances."""
    num_loc: int | None = Field(None, ge=3)
    """Nodes of an instance."""
    distribution: Distribution | None = None
    """Uniform, clustered or mixed instances."""
    sampling: Literal["all", "nodes"] = "all"
    """All nodes of an instance, or some that are drawn."""
    nodes_per_instance: int | None = Field(None, ge=1)
    """How many are drawn, with sampling: nodes."""
    k: int | None = Field(None, ge=1)
    """Sparsity that a transcoder of this pair is trained for: features that fire in a row."""
    k_ratio: float | None = Field(None, gt=0, le=1)
    """The same as a share of its features."""
    expansion_factor: float | None = Field(None, gt=0)
    """Features of a transcoder of this pair, as a multiple of the width that it reads."""

    @model_validator(mode="after")
    def _drawn(self) -> Self:
        if (self.sampling == "nodes") != (self.nodes_per_instance is not None):
            raise ValueError("sampling: nodes and nodes_per_instance go together")
        if self.k is not None and self.k_ratio is not None:
            raise ValueError("k and k_ratio are both given: give one of them")
        return self

    @property
    def sparsity(self) -> dict[str, float]:
        """What a transcoder of this pair is trained for, as far as it is said."""
        asked = {"k": self.k, "k_ratio": self.k_ratio, "expansion_factor": self.expansion_factor}
        return {name: value for name, value in asked.items() if value is not None}


class PairsFile(Section):
    """A pairs' file: `clt/configs/RUN.json` of a run, or any JSON or YAML."""

    num_instances_per_pair: int | None = Field(None, ge=3)
    """Instances of each pair that says nothing else."""
    pairs: tuple[PairPlan, ...] = ()
    """The pairs."""


class InspectConfig(Section):
    """What is measured on a pair's rows."""

    train_split: str = "train"
    """Rows that the linear map and the canonical directions are fitted on."""
    held_out: str = "test"
    """Rows on which they are judged."""
    ridge: float = Field(1e-6, ge=0)
    """Ridge of the linear map, as a share of the source's mean variance."""
    seed: int = Field(0, ge=0)
    """Seed of the shuffled control."""
    plots: bool = True
    """Draw them, too (SVG; needs matplotlib)."""
    check_instances: int = Field(4, ge=0)
    """Instances whose rows are computed anew, to see that they are those of this policy, in their order."""


@dataclass(frozen=True)
class PairSpec:
    """The sites of a policy that a pair holds: what a transcoder reads, and what it writes."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]

    @property
    def name(self) -> str:
        """The pair's canonical name, as clt_L0_to_L2."""
        return f"clt_{_label(self.sources)}_to_{_label(self.targets)}"

    @property
    def source_sites(self) -> tuple[str, ...]:
        """Names of the sources in the pair's store."""
        return tuple(f"source_{site}" for site in self.sources)

    @property
    def target_sites(self) -> tuple[str, ...]:
        """Names of the targets in the pair's store."""
        return tuple(f"target_{site}" for site in self.targets)

    @property
    def text(self) -> str:
        """The pair as one types it."""
        return f"{'+'.join(self.sources)}:{'+'.join(self.targets)}"

    @property
    def stepwise(self) -> bool:
        """Whether a row is a step of the decoder, and not a node."""
        return in_decoder(self.targets[0])

    def check(self, sites: Iterable[str], *, layers: int, graph_context: bool = True) -> PairSpec:
        """Refuse sites that the policy has not, and targets that say nothing about what was learnt."""
        known = list(sites)
        for site in (*self.sources, *self.targets):
            if site not in known:
                raise ConfigError(f"the policy has no layer {site!r}", where=self.text, remedy=near(site, known))
        both = zip(self.sources, self.targets, strict=True) if len(self.sources) == len(self.targets) else ()
        for source, target in both or [(self.sources[0], target) for target in self.targets]:
            _later(source, target, layers=layers, graph_context=graph_context)
        return self


def parse(text: str, *, layers: int) -> list[PairSpec]:
    """Read pairs as they are typed."""
    found: list[PairSpec] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        found += _short(part, layers) if part in SHORT else [parse_one(part)]
    if not found:
        remedy = "For example --layer_pairs encoder_layer_0:encoder_layer_2, or --layer_pairs all."
        raise ConfigError("no pair is named", where="layer_pairs", remedy=remedy)
    return list(dict.fromkeys(found))


def parse_one(text: str) -> PairSpec:
    """Read one pair, as SOURCE:TARGET."""
    sides = [tuple(filter(None, (site.strip() for site in side.split("+")))) for side in text.split(":")]
    if len(sides) != 2 or not all(sides):
        remedy = f"Write SOURCE:TARGET, as encoder_layer_0:encoder_layer_2, or one of {', '.join(SHORT)}."
        raise ConfigError(f"{text!r} is no pair", where="layer_pairs", remedy=remedy)
    for side in sides:
        if twice := [site for site in side if side.count(site) > 1]:
            raise ConfigError(f"{twice[0]!r} is named twice", where=text, remedy="Name each site once.")
    return PairSpec(sides[0], sides[1])


def in_decoder(site: str) -> bool:
    """Whether a site's rows are steps, and not nodes."""
    return site.startswith("decoder_")


def _short(name: str, layers: int) -> list[PairSpec]:
    found: list[PairSpec] = []
    if name in ("layers", "all"):
        steps = [f"encoder_layer_{i}" for i in range(layers)]
        found += [PairSpec((a,), (b,)) for i, a in enumerate(steps) for b in steps[i + 1 :]]
    if name in ("mlp", "all"):
        mlps = [f"encoder_layer_{i}.mlp" for i in range(layers)]
        found += [PairSpec((f"{mlp}.input",), (mlp,)) for mlp in mlps]
    return found


def _label(sites: Sequence[str]) -> str:
    """Name sites in short: L0, L0_mlp_input, output; of several layers with one part the part once, L0-L1_mlp."""
    parts = [_LAYER.fullmatch(site) for site in sites]
    tails = [("_" + part[2] if part[2] else "") + ("_input" if part[3] else "") for part in parts if part]
    if len(tails) == len(sites) and len(set(tails)) == 1:
        return "-".join(f"L{part[1]}" for part in parts if part) + tails[0]
    short = [_WORDS.get(site, site) if part is None else f"L{part[1]}" for site, part in zip(sites, parts, strict=True)]
    rest = iter(tails)
    named = [name + (next(rest) if part else "") for name, part in zip(short, parts, strict=True)]
    return "-".join(re.sub(r"[^\w-]", "_", name) for name in named)


def _place(site: str, *, layers: int, graph_context: bool) -> int:
    """Where a site lies in the forward; two sites of one place hold the same numbers."""
    if site in _WORDS:
        return 4 * layers + list(_WORDS).index(site) - (site == "decoder_query" and not graph_context)
    found = _LAYER.fullmatch(site)
    if found is None:
        raise ConfigError(f"{site!r} is no layer", where="pairs", remedy="Name a site of the policy.")
    layer, part, before = int(found[1]), found[2], bool(found[3])
    inside = {None: 0 if before else 4, "attention": 0 if before else 1, "mlp": 2 if before else 3}[part]
    return 4 * layer + inside


def _later(source: str, target: str, *, layers: int, graph_context: bool) -> None:
    one, other = (_place(site, layers=layers, graph_context=graph_context) for site in (source, target))
    where = f"{source}:{target}"
    last = f"encoder_layer_{layers - 1}"
    if one == other:
        what = f"{target} is what {source} gives: the pair is the identity, on which any map looks perfect"
        remedy = f"Choose an earlier source, or a part that computes, as {last}.mlp.input:{last}.mlp."
        raise ConfigError(what, where=where, remedy=remedy)
    if other < one:
        what = f"{target} is computed before {source}, so that nothing of it follows from that"
        raise ConfigError(what, where=where, remedy=f"Did you mean {target}:{source}?")
