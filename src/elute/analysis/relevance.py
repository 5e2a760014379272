"""Concept relevance propagation (CRP) and relevance maximisation (RelMax) from a gene to sparse codes.

relevance = crp_relmax(head, batches, {"y": "EPCAM", "model.sae.latent": [7, 11]}, k=8)
relevance.codes                     # a frame: relevance of each code over all samples, beside a like code's
relevance.samples.table()           # the codes that matter most in each sample
relevance.references                # RelMax and ActMax lists
relevance.maps                      # where in the reference samples, patch by patch: one more pass
relevance.conservation              # relevance + bias + ε = what is explained, to 1e-4 in the worst sample

R. Achtibat et al., "From attribution maps to human-understandable explanations through Concept Relevance Propagation",
Nature Machine Intelligence 5 (2023): equation 7 is the step between layers, 8 the condition, 9 a concept's sum over
positions, 10 the joint condition, 17 the ranking of reference samples.

One pass over the samples; memory holds a batch, sums by code, k references a code and list, and the best few codes of
each sample. `RelevancePass` is the same pass in parts, which can be merged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from elute.analysis.prototypes import KINDS, References
from elute.analysis.prototypes_lists import candidates, hidden_candidates
from elute.analysis.relevance_conditions import Asked, Conditions, read_conditions
from elute.analysis.relevance_explain import Explanation, explain
from elute.analysis.relevance_head import GENE, LATENT, POOL, Explained
from elute.analysis.relevance_result import CodeMaps, Relevance, again, top_number
from elute.analysis.relevance_rules import Rule, Rules, rules_of
from elute.analysis.relevance_stream import Tokens, whole_samples
from elute.analysis.relevance_totals import CodeTotals, SampleTotals
from elute.analysis.token_maps import token_maps
from elute.base.errors import DataError
from elute.base.mergeable import Integers

if TYPE_CHECKING:
    from elute.analysis.relevance_pooling import Pairs


class RelevancePass:
    """One pass over samples: update with batches, merge with other parts, result."""

    def __init__(
        self,
        explained: Explained,
        conditions: Conditions,
        *,
        rule: str | Rule | Rules = "epsilon",
        k: int = 20,
        per_sample: int | None = 20,
        kinds: Sequence[str] = KINDS[:2],
        codes: Sequence[int] | Integers | None = None,
        start: str | None = None,
        seed: int = 0,
    ) -> None:
        """Keep k references of the codes named by `codes`, else of those in the conditions, else of all."""
        self.explained, self.rules, self.seed = explained, rules_of(rule, linear=explained.linear), seed
        self.asked: Asked = read_conditions(explained, conditions, start)
        kept = np.asarray(codes, np.int64) if codes is not None else self.asked.codes
        if codes is not None and len(codes):
            read_conditions(explained, {LATENT: list(codes)}, LATENT)  # refuses codes that are not there
        self.totals = CodeTotals(explained.n_codes)
        self.samples = None if per_sample == 0 else SampleTotals(explained.n_codes, per_sample)
        self.references = References(explained.n_codes if kept is None else kept, k, kinds=kinds)
        paths = [layer.path for layer in explained.layers[:-1]] if self.asked.start not in (LATENT, POOL) else []
        if self.asked.start in paths:
            paths = paths[: paths.index(self.asked.start) + 1]
        self.hidden = {path: References(explained.width(path), k, kinds=kinds) for path in paths}

    def update(self, tokens: Tokens, /, *, pairs: Pairs | None = None) -> None:
        """Take in whole samples; refuses relevance that is not conserved."""
        found = explain(self.explained, tokens, self.asked, rules=self.rules, pairs=pairs).check()
        self.totals.update(found)
        if self.samples is not None:
            self.samples.update(found)
        lists = candidates(found, self.references.kinds, codes=self.references.codes)
        self.references.update(lists, tokens.places)
        for path, references in self.hidden.items():
            references.update(hidden_candidates(found, path, references.kinds), tokens.places)

    def merge(self, other: RelevancePass, /) -> None:
        """Take in what another part has seen."""
        self.totals.merge(other.totals)
        self.references.merge(other.references)
        if self.samples is not None and other.samples is not None:
            self.samples.merge(other.samples)
        for path, references in self.hidden.items():
            references.merge(other.hidden[path])

    def state(self) -> dict[str, Any]:
        """Return numpy arrays, numbers and strings from which the pass can go on."""
        return {
            "totals": self.totals.state(),
            "references": self.references.state(),
            "samples": None if self.samples is None else self.samples.state(),
            "hidden": {path: references.state() for path, references in self.hidden.items()},
        }

    def resume(self, state: Mapping[str, Any], /) -> Self:
        """Go on from a state of a pass with the same settings."""
        self.totals = CodeTotals.from_state(state["totals"])
        self.references = References.from_state(state["references"])
        self.samples = None if state["samples"] is None else SampleTotals.from_state(state["samples"])
        self.hidden = {path: References.from_state(each) for path, each in state["hidden"].items()}
        return self

    def result(self) -> Relevance:
        """Return what was found so far."""
        genes = tuple(self.explained.genes[i] for i in self.asked.genes.tolist())
        return Relevance(
            "+".join(genes) or self.asked.start,
            genes,
            self.totals.result(seed=self.seed),
            None if self.samples is None else self.samples.result(),
            self.references.result,
            self.totals.conservation(),
            {path: references.result() for path, references in self.hidden.items()},
            self.rules,
            self.explained.linear and self.rules.head.name == "epsilon",
            self.asked,
        )


def crp_relmax(
    top_module: Any,
    inputs: Any,
    conditions: Conditions,
    *,
    rule: str | Rule | Rules = "epsilon",
    k: int = 20,
    per_sample: int | None = 20,
    kinds: Sequence[str] = KINDS[:2],
    codes: Sequence[int] | Integers | str | None = None,
    start: str | None = None,
    seed: int = 0,
) -> Relevance:
    """Explain genes by codes, over all samples of a stream.

    top_module: an `Explained`, or a head that `Explained.of` reads.
    inputs: batches of (Codes, metadata), see relevance_stream.
    conditions: {"y": gene or genes, "model.sae.latent": [codes], a hidden layer's path: [units]}; names and ids of a
        layer add, layers intersect. Without a layer nothing is masked there.
    rule: epsilon (closed form for a linear head), gamma, zplus, epsilon_flat, or `Rules`.
    codes: whose references are kept: ids, or "top20" for those of most relevance, which takes a second pass.
        Maps of relevance by patch are drawn of the same references, as `maps` of what is returned, when asked for.
    per_sample: how many codes are kept of each sample; None for all, 0 for none.
    start: a layer to start from with its own values in place of y, say model.sae.latent.
    """
    explained = Explained.of(top_module)
    settings: dict[str, Any] = {"rule": rule, "k": k, "kinds": kinds, "start": start, "seed": seed}
    chosen: Any = codes
    if isinstance(codes, str):
        most = top_number(codes)
        again(inputs)
        first = RelevancePass(explained, conditions, **{**settings, "k": 1, "kinds": ()}, per_sample=0)
        for tokens in whole_samples(inputs, explained):
            first.update(tokens)
        chosen = first.result().top(most)
    run = RelevancePass(explained, conditions, **settings, codes=chosen, per_sample=per_sample)
    for tokens in whole_samples(inputs, explained):
        run.update(tokens)
    if not run.totals.n:
        raise DataError("there are no samples to explain", remedy="Check that the codes and their selection have rows.")
    again_readable = not hasattr(inputs, "__next__")
    drawn = partial(_draw, explained, inputs) if again_readable else None
    return replace(run.result(), draw=drawn)


def _draw(explained: Explained, inputs: Any, relevance: Relevance) -> list[CodeMaps]:
    return token_maps(explained, inputs, [relevance])


def explanations(
    top_module: Any,
    inputs: Any,
    conditions: Conditions,
    *,
    rule: str | Rule | Rules = "epsilon",
    start: str | None = None,
) -> Iterator[Explanation]:
    """Yield relevance batch by batch, down to codes in tokens; each batch holds whole samples and is checked."""
    explained = Explained.of(top_module)
    rules = rules_of(rule, linear=explained.linear)
    asked = read_conditions(explained, conditions, start)
    for tokens in whole_samples(inputs, explained):
        yield explain(explained, tokens, asked, rules=rules).check()


__all__ = ["GENE", "LATENT", "POOL", "Relevance", "RelevancePass", "crp_relmax", "explanations", "top_number"]
