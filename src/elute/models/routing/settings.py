"""Settings of a routing policy and of the instances that are drawn for it; light to import."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from elute.base.recipe import Section

Distribution = Literal["uniform", "clustered", "mixed"]


class PolicyConfig(Section):
    """The network of a policy."""

    embed_dim: int = Field(64, ge=2)
    """Width of the network."""
    num_encoder_layers: int = Field(3, ge=1)
    """Layers of the encoder."""
    num_heads: int = Field(8, ge=1)
    """Attention heads of a layer; they divide the width."""
    feedforward_hidden: int = Field(256, ge=1)
    """Width of a layer's feed-forward part."""
    normalization: Literal["batch", "instance"] = "batch"
    """Norm after each part; in use batch norm is affine, so that with attention held fixed the rest adds up."""
    tanh_clipping: float = Field(10.0, gt=0)
    """Bound of the logits."""
    use_graph_context: bool = False
    """Add the mean of all nodes to the decoder's query."""
    free_start: bool = False
    """The policy chooses the first node, too; else it is given, node 0 where nobody says which."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.embed_dim % self.num_heads:
            raise ValueError(f"embed_dim {self.embed_dim} is no multiple of {self.num_heads} heads")
        return self


class InstanceConfig(Section):
    """Instances of the travelling-salesman problem, drawn at random."""

    num_instances: int = Field(1000, ge=1)
    """Instances."""
    num_loc: int = Field(20, ge=3)
    """Nodes of an instance."""
    distribution: Distribution = "uniform"
    """Uniform in the unit square, clustered around a few centres, or half of the nodes of each."""
    seed: int = Field(0, ge=0)
    """Seed of all draws."""
    first: int = Field(0, ge=0)
    """Number of the first instance: instance i is the same however many are drawn."""
    clusters: int = Field(3, ge=1)
    """Centres of a clustered instance."""
    spread: float = Field(0.07, gt=0, le=1)
    """Standard deviation of nodes around their centre."""
