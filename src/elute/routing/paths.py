"""Paths of several steps, by weights and as measured: a feature of an autoencoder of the source, one of the dictionary,
one of an autoencoder of the target, and the margin of the policy's decisions.

With D and E the directions and encoder rows of source autoencoder (s), dictionary (c) and target autoencoder (t), and g
the gradient of the margin at the target:

1. By weights: (D_s · E_c) (D_c · E_t) mean(g · D_t), times the mean of a_s where c and t fire as well. All gates are as
   they are: what removing s would take from the margin, along this path alone.
2. As measured: s is taken from the source's rows, the dictionary encodes them again, the change of c alone is written
   to the target's rows, the target's autoencoder encodes them again, and the change of t alone goes on through the
   policy. Gates may open and close on the way.
3. The whole effect of s: it is taken from the source in the policy itself, and all that follows is computed anew.
   The sum over all paths of s predicts it as far as the dictionary has the policy's own ways. Beside it stand the paths
   through the linear map in the dictionary's place, and the gradient at the source, which knows the policy itself.

Agreement is Spearman's correlation over paths, or over features. Half of the paths measured are the strongest by
weights; the rest were drawn from those that fire together in a random row, so that strength is not all that varies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from elute.base.errors import ConfigError, near
from elute.dictionaries.spec import column_spans

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from elute.dictionaries.dictionary import Dictionary
    from elute.routing.attributing import Clean
    from elute.routing.cause_inputs import Subject
    from elute.routing.linear_map import Affine

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

_EACH = 8  # features on either side of each of the dictionary's that are looked through for the strongest paths


@dataclass(frozen=True, eq=False)
class Chain:
    """Three dictionaries one after another."""

    subject: Subject
    source: Dictionary
    target: Dictionary
    read: str  # the dictionary's names of the sites
    write: str
    linear: Affine

    def weights(self) -> tuple[Tensor, Tensor]:
        """Return D_s · E_c [s, c] and D_c · E_t [c, t], float64."""
        enc = encoder_rows(self.subject.dictionary, self.read)
        one = self.source.directions().double() @ enc.T
        other = self.subject.dictionary.directions(self.write).double() @ encoder_rows(self.target, None).T
        return one.cpu(), other.cpu()


@dataclass(frozen=True, eq=False)
class Seen:
    """What a chain computes on one batch while the policy is left alone; a row a node."""

    clean: Clean
    x: Tensor
    y: Tensor
    s: Tensor  # codes, float64 [rows, features]
    c: Tensor
    t: Tensor
    slope: Tensor  # gradient of the margin at the target, float64 [rows, width]
    slope_source: Tensor


def chain(
    subject: Subject, source: Dictionary, target: Dictionary, *, read: str | None, write: str | None,
    linear: dict[str, Affine],
) -> Chain:  # fmt: skip
    """Put three dictionaries one after another, and refuse those that do not fit."""
    if subject.at_steps:
        remedy = "Give a pair of the encoder."
        raise ConfigError(
            "paths are followed from node to node, and not into the decoder", where=subject.pair, remedy=remedy
        )
    spec = subject.dictionary.spec
    one = _site(spec.reads, read, 0)
    other = _site(spec.writes, write, -1)
    for name, dictionary, width in ((one, source, spec.reads[one]), (other, target, spec.writes[other])):
        if not dictionary.spec.mirrored or list(dictionary.spec.reads.items()) != [(name, width)]:
            what = f"is not an autoencoder of {name!r}, {width} wide, but reads {dictionary.spec.reads}"
            raise ConfigError(what, where="paths", remedy="Train one on the pair's rows, or leave it out.")
    return Chain(subject, source, target, one, other, linear[other])


def _site(sites: dict[str, int], asked: str | None, usual: int) -> str:
    from elute.routing.cause_inputs import policy_site

    known = {policy_site(name): name for name in sites} | {name: name for name in sites}
    if asked is None:
        return list(sites)[usual]
    if asked not in known:
        raise ConfigError(f"the dictionary has no site {asked!r}", where="paths", remedy=near(asked, known))
    return known[asked]


def encoder_rows(dictionary: Dictionary, read: str | None) -> Tensor:
    """Return each feature's encoder row at one read site, [features, width]; zero where its bank reads elsewhere."""
    spec = dictionary.spec
    span = column_spans(spec.reads)[read or next(iter(spec.reads))]
    parts = []
    for bank in dictionary:
        W = bank.W_enc.detach().double()
        first = span.start - bank.span.read.start
        inside = first >= 0 and span.stop <= bank.span.read.stop
        parts.append(
            W[:, first : first + span.stop - span.start] if inside else W.new_zeros(len(W), span.stop - span.start)
        )
    return torch.cat(parts)


def see(chain_: Chain, clean: Clean) -> Seen:
    """Encode one batch, and find the margin's gradients."""
    from elute.routing.attributing import gradients

    subject = chain_.subject
    x, y = clean.read[chain_.read], clean.written[chain_.write]
    sites = [subject.writes[chain_.write], subject.reads[chain_.read]]
    slopes = gradients(subject.model, clean.reference, sites)
    codes = [chain_.source.encode(x), clean.codes, chain_.target.encode(y)]
    s, c, t = (each.to("cpu").dense().double() for each in codes)
    return Seen(clean, x, y, s, c, t, slopes[sites[0]].double().cpu(), slopes[sites[1]].double().cpu())


def by_weights(chain_: Chain, seen: list[Seen]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the factors of every path's prediction: from s to c, from c to t, and how often c fires.

    The prediction of a path is first[s, c] · then[c, t] / often[c]: what s brings to c where both fire, times what of c
    goes on through t where both fire, as if these were independent given c.
    """
    one, other = chain_.weights()
    down = chain_.target.directions().double().cpu()
    rows = sum(len(part.s) for part in seen)
    first, then = torch.zeros_like(one), torch.zeros_like(other)
    often = torch.zeros(one.shape[1], dtype=torch.float64)
    for part in seen:
        fires = (part.c != 0).double()
        first += part.s.T @ fires
        then += fires.T @ ((part.slope @ down.T) * (part.t != 0))
        often += fires.sum(0)
    return first * one / rows, then * other / rows, often / rows


def candidates(first: Tensor, then: Tensor, often: Tensor, *, most: int) -> tuple[Ints, Floats]:
    """Return the strongest paths [paths, 3] by weights, and what they predict a node's margin to lose."""
    live = torch.nonzero(often > 0)[:, 0]
    k_s, k_t = min(_EACH, first.shape[0]), min(_EACH, then.shape[1])
    found, values = [], []
    for c in live.tolist():
        s = first[:, c].abs().topk(k_s).indices
        t = then[c].abs().topk(k_t).indices
        found.append(torch.stack([s.repeat_interleave(k_t), torch.full((k_s * k_t,), c), t.repeat(k_s)], 1))
        values.append((first[s, c][:, None] * then[c, t][None] / often[c]).ravel())
    if not found:
        return np.zeros((0, 3), np.int64), np.zeros(0)
    paths, value = torch.cat(found).numpy(), torch.cat(values).numpy()
    order = np.argsort(-np.abs(value), kind="stable")[:most]
    kept = order[value[order] != 0]
    return paths[kept], value[kept]


def drawn(seen: list[Seen], *, count: int, seed: int) -> Ints:
    """Draw paths of which all three features fire in one row, a row at random each time."""
    rng = np.random.default_rng([seed, 3])
    found: dict[tuple[int, int, int], None] = {}
    for _ in range(20 * count):
        if len(found) >= count:
            break
        part = seen[int(rng.integers(len(seen)))]
        row = int(rng.integers(len(part.s)))
        fired = [torch.nonzero(codes[row])[:, 0].numpy() for codes in (part.s, part.c, part.t)]
        if all(len(each) for each in fired):
            s, c, t = (int(rng.choice(each)) for each in fired)
            found[s, c, t] = None
    return np.array(list(found), np.int64).reshape(-1, 3)


def predictions(chain_: Chain, seen: list[Seen], paths: Ints) -> Floats:
    """Return what each path carries row by row, summed over an instance and meant over instances: gates as they are."""
    one, other = chain_.weights()
    down = chain_.target.directions().double().cpu()
    total, instances = np.zeros(len(paths)), 0
    for part in seen:
        instances += len(part.clean.reference.instances)
        g = part.slope @ down.T
        for i, (s, c, t) in enumerate(paths.tolist()):
            gates = (part.c[:, c] != 0) & (part.t[:, t] != 0)
            total[i] += float((part.s[:, s] * gates * g[:, t]).sum() * one[s, c] * other[c, t])
    return total / max(instances, 1)


def whole(chain_: Chain, seen: list[Seen]) -> dict[str, Floats]:
    """Return what the sum of all paths of each source feature predicts the margin to lose, [features] a way.

    `paths` go through both codes, `dictionary` through the dictionary's alone, `linear map` through the map instead,
    `gradient` is the policy's own.
    """
    one, other = chain_.weights()
    up, down = chain_.source.directions().double().cpu(), chain_.target.directions().double().cpu()
    written = chain_.subject.dictionary.directions(chain_.write).double().cpu()
    place = chain_.linear.reads.index(chain_.read)
    width = up.shape[1]
    linear = chain_.linear.weight.double().cpu()
    start = sum(chain_.subject.dictionary.spec.reads[name] for name in chain_.linear.reads[:place])
    linear = linear[start : start + width]
    found = {
        name: torch.zeros(up.shape[0], dtype=torch.float64)
        for name in ("paths", "dictionary", "linear map", "gradient")
    }
    instances = 0
    for part in seen:
        instances += len(part.clean.reference.instances)
        fires = (part.c != 0).double()
        g_t = (part.slope @ down.T) * (part.t != 0)
        ways = {
            "paths": ((g_t @ other.T) * fires) @ one.T,
            "dictionary": ((part.slope @ written.T) * fires) @ one.T,
            "linear map": part.slope @ (up @ linear).T,
            "gradient": part.slope_source @ up.T,
        }
        for name, value in ways.items():
            found[name] += (part.s * value).sum(0)
    return {name: (value / max(instances, 1)).numpy() for name, value in found.items()}
