"""Settings of the tests of cause; light to import."""

from __future__ import annotations

from pydantic import Field

from elute.base.recipe import Section
from elute.models.routing.settings import Distribution

HELD_OUT_SEED = 7919  # instances to judge by are drawn from another seed than those of pairs and policies


class JudgedConfig(Section):
    """Instances on which something is judged: drawn anew, and refused where a pair's rows hold one of them."""

    instances: int = Field(1000, ge=2)
    """Held-out instances."""
    num_loc: int | None = Field(None, ge=3)
    """Nodes of an instance; as many as the policy was trained on if not given."""
    distribution: Distribution | None = None
    """Distribution of the nodes; that of the policy's training if not given."""
    instance_seed: int = Field(HELD_OUT_SEED, ge=0)
    """Seed of the instances."""
    batch: int = Field(250, ge=2)
    """Instances that go through the policy at a time."""
    resamples: int = Field(2000, ge=100)
    """Resamples of the instances for each interval."""
    seed: int = Field(0, ge=0)
    """Seed of resamples, permutations and random controls."""
    checkpoint: str = "last"
    """The policy's checkpoint: an epoch's number, or a file."""
    device: str = "auto"
    """Device: auto, cuda, cuda:N, mps or cpu."""

    def identity(self) -> JudgedConfig:
        """What the result depends on; not where it is computed."""
        return self.model_copy(update={"device": "auto"})


class PairEvalConfig(Section):
    """How the features of a dictionary are looked at."""

    top: int = Field(12, ge=1, le=200)
    """Features that are drawn on instances."""
    ablated: int = Field(64, ge=0)
    """Features that are taken away one by one to see what they do; those of the largest attribution."""
    permutations: int = Field(999, ge=19)
    """Permutations of the null of what features mean."""
    meant: int = Field(300, ge=10)
    """Instances on which meaning is tested; as many as there are if fewer."""
    least_share: float = Field(0.002, ge=0, lt=1)
    """Share of the rows in which a feature has to fire to be tested for a meaning."""
    drawn: int = Field(3, ge=1, le=12)
    """Instances that each feature is drawn on."""


class PatchConfig(Section):
    """What is put in the place of a layer."""

    together: bool = True
    """Also replace all the layers of the pairs at once, where no two of them write the same one."""


class DoseConfig(Section):
    """How features are turned up and down."""

    features: tuple[int, ...] = ()
    """Features; the --strongest ones by attribution if none is given."""
    strongest: int = Field(8, ge=1)
    """How many features, if none is named."""
    factors: tuple[float, ...] = (0.0, 0.5, 1.0, 1.5, 2.0, 4.0)
    """What the feature's activation is multiplied by; 0 takes it away, 1 changes nothing."""
    random_directions: int = Field(19, ge=1)
    """Random directions of the same length, the control; with fewer than 19 no feature can be told from them."""


class PathsConfig(Section):
    """Which paths are followed, and the autoencoders that they begin and end in."""

    sae_source: str | None = None
    """Folder of an autoencoder of the source; one is trained on the pair's rows if not given."""
    sae_target: str | None = None
    """Folder of an autoencoder of the target; likewise."""
    read: str | None = None
    """Source site of a dictionary with several; the first if not given."""
    write: str | None = None
    """Target site of a dictionary with several; the last if not given."""
    strongest: int = Field(60, ge=1)
    """Paths that are measured because they are the strongest by weights."""
    drawn: int = Field(60, ge=0)
    """Paths that are measured because they were drawn at random from those of which something fires."""
    whole: int = Field(48, ge=3)
    """Features of the source whose whole effect is measured."""
    sae_expansion: int = Field(4, ge=1)
    """Features of an autoencoder that is trained here, a multiple of its width."""
    sae_k: int = Field(8, ge=1)
    """Features of it that fire in a row."""
    sae_steps: int = Field(2000, ge=1)
    """Its training steps."""


class GeneraliseConfig(Section):
    """Where else a dictionary is tried."""

    checkpoints: tuple[str, ...] = ()
    """Other checkpoints of the run, by epoch; the first, a middle and the last one if none is given."""
    distributions: tuple[Distribution, ...] = ("uniform", "clustered", "mixed")
    """Distributions of the nodes."""
    sizes: tuple[int, ...] = ()
    """Numbers of nodes; half, once and twice those of the policy's training if none is given."""
    runs: tuple[str, ...] = ()
    """Folders of other runs with policies of the same width."""
    random_weights: bool = True
    """Also a policy of random weights, the control."""


class RoutingDemoConfig(Section):
    """What the demonstration does."""

    seed: int = Field(0, ge=0)
    """Seed of the policy, the instances and the transcoders."""
    steps: int = Field(600, ge=1)
    """Training steps of the policy."""
    num_loc: int = Field(20, ge=5)
    """Nodes of an instance."""
    pair_instances: int = Field(1500, ge=20)
    """Instances that the pairs are collected on."""
    epochs: int = Field(20, ge=1)
    """How often a transcoder sees each training row."""
    judged: int = Field(1000, ge=20)
    """Held-out instances on which layers are replaced."""
