"""Settings of a policy's attribution graph; light to import."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from elute.base.recipe import Section
from elute.models.routing.settings import Distribution
from elute.routing.cause_settings import HELD_OUT_SEED


class RoutingGraphConfig(Section):
    """Which choice of a policy is explained, and by which transcoders."""

    instance: str = "0"
    """The instance: its number among those that are drawn, or its id."""
    step: int | None = Field(None, ge=1)
    """How many nodes the tour has when the next one is chosen; where the policy is the least certain if not given."""
    dictionaries: Literal["both", "clt", "transcoder"] = "both"
    """The cross-layer transcoder, those of single layers, or both where both are there."""
    num_loc: int | None = Field(None, ge=3)
    """Nodes of an instance; as many as the policy was trained on if not given."""
    distribution: Distribution | None = None
    """Distribution of the nodes; that of the policy's training if not given."""
    instance_seed: int = Field(HELD_OUT_SEED, ge=0)
    """Seed of the instances; none may be among those of the transcoders' rows."""
    others: int = Field(4, ge=0, le=100)
    """Further instances on which influence is held against ablations, each at its own least certain step."""
    checkpoint: str = "last"
    """The policy's checkpoint: an epoch's number, or a file."""
