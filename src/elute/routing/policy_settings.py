"""Settings of a policy's training; light to import."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from elute.base.recipe import Section
from elute.models.routing.settings import Distribution, InstanceConfig

STEPS = 3000


class PolicyTrainConfig(Section):
    """How a policy is trained."""

    num_loc: int = Field(20, ge=3)
    """Nodes of an instance."""
    distribution: Distribution = "uniform"
    """Uniform in the unit square, clustered around a few centres, or half of the nodes of each."""
    steps: int | None = Field(None, ge=1)
    """Updates; 3,000 if neither they nor minutes are given."""
    minutes: float | None = Field(None, gt=0)
    """Choose the number of updates so that they take about so long here; measured once, at the start."""
    batch_size: int = Field(32, ge=1)
    """Instances of one update."""
    starts: int | None = Field(None, ge=2)
    """Tours of an instance, each from another node, whose mean is the baseline; one from every node if not given."""
    lr: float = Field(4e-3, gt=0)
    """Highest learning rate; it rises over the first 2% of the steps, then falls to nothing."""
    epochs: int = Field(10, ge=1)
    """Parts of the training: after each, a checkpoint is written and held-out instances are solved."""
    held_out: int = Field(500, ge=2)
    """Instances, drawn apart from those of the training, by which the policy is judged."""
    seed: int = Field(0, ge=0)
    """Seed of the first weights, the instances and the tours."""
    device: str = "auto"
    """Device: auto, cuda, cuda:N, mps or cpu."""
    checkpoint_seconds: float = Field(60.0, ge=0)
    """Seconds between two checkpoints to go on from; 0 writes one a step."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.steps is not None and self.minutes is not None:
            raise ValueError("steps and minutes are both given: give one of them")
        if self.starts is not None and self.starts > self.num_loc:
            raise ValueError(f"{self.starts} starts of {self.num_loc} nodes")
        return self

    def identity(self) -> PolicyTrainConfig:
        """What the result depends on; not where it is computed, and how often it is kept."""
        return self.model_copy(update={"device": "auto", "checkpoint_seconds": 60.0})

    def instances(self, count: int = 1) -> InstanceConfig:
        """Settings of the instances to judge by; those to train on are drawn from other streams."""
        return InstanceConfig(num_instances=count, num_loc=self.num_loc, distribution=self.distribution, seed=self.seed)
