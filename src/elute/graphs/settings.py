"""Settings of a graph that is made, pruned and checked; light to import."""

from __future__ import annotations

from pydantic import Field

from elute.base.recipe import Section


class GraphConfig(Section):
    """How a graph is made, what of it is kept, and how it is checked."""

    max_features: int = Field(1024, ge=1)
    """Features that get a place in the graph, those of the most influence; what is left out is counted."""
    node_threshold: float = Field(0.8, gt=0, le=1)
    """Share of all influence that the nodes which are kept have."""
    edge_threshold: float = Field(0.98, gt=0, le=1)
    """Share of the influence that edges between them have."""
    most_outputs: int = Field(10, ge=1)
    """Most outputs that are explained; the likeliest, as few as have 95% of the probability."""
    checked: int = Field(1000, ge=1)
    """Most sources of the kept graph that are taken away one by one to check each of their edges."""
    ablated: int = Field(100, ge=0)
    """Features that are ablated in the model itself to hold influence against; 0 leaves it out."""
    shuffled: bool = True
    """Also make the graph with the decoders of other features of the same layer: the control."""
    graph_seed: int = Field(0, ge=0)
    """Seed of the controls."""
