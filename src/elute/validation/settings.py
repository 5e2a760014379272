"""Settings of how lists of genes are held against databases, and of who puts into words what was found."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from elute.base.recipe import Section


def _as_text(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Tiers = Annotated[str, BeforeValidator(_as_text), StringConstraints(pattern=r"^[1-4](,[1-4])*$")]
Null = Annotated[str, BeforeValidator(_as_text), StringConstraints(pattern=r"^(auto|none|[1-9][0-9]{0,4})$")]


class DatabaseConfig(Section):
    """What features' genes are held against."""

    tiers: Tiers = "1,2,3,4"
    """Databases that are asked: 1 core, 2 comprehensive, 3 specialised, 4 sets of genes; with commas between."""
    sources: Annotated[str | None, BeforeValidator(_as_text)] = None
    """Databases by name, with commas between, in place of tiers."""
    top_n_genes: int = Field(50, ge=2, le=500)
    """Genes of a feature, the best first."""
    least_z: float = Field(4.0, ge=0)
    """How closely a gene has to follow a feature over cells to stand in its list."""
    fdr: float = Field(0.05, gt=0, lt=1)
    """False-discovery rate over all features and all terms of a database."""
    null: Null = "auto"
    """Lists of like genes drawn for each feature: auto (20 to 200, until the headline is settled), a number or none."""
    background: str = "auto"
    """Genes that could have come up: those of the model that were measured (auto), or a file that lists them."""
    evidence: Literal["all", "standard", "strict"] = "standard"
    """How good a database's evidence has to be."""
    smallest: int = Field(5, ge=1)
    """Fewest genes of a term, of those that could have come up."""
    largest: int = Field(2000, ge=2)
    """Most genes of a term."""
    seed: int = Field(0, ge=0)
    """Seed of all that is drawn."""


class NarratorConfig(Section):
    """Which language model is asked, and for what."""

    url: str | None = None
    """The endpoint's address up to /v1, such as http://localhost:11434/v1; ELUTE_LLM_URL if it is not given."""
    model: str | None = None
    """The model's name there; ELUTE_LLM_MODEL if it is not given."""
    features: Annotated[
        str | None, BeforeValidator(_as_text), StringConstraints(pattern=r"^ *\d{1,9} *(, *\d{1,9} *)*$")
    ] = None
    """Features by number, with commas between, in place of the best named."""
    top: int = Field(20, ge=1)
    """Features that are explained: those with the surest names, one of each name."""
    temperature: float | None = Field(0.0, ge=0, le=2)
    """0 for the same answer to the same question; null leaves it out, for models that refuse it."""
    genes: int = Field(20, ge=1, le=100)
    """Genes of a feature that are sent."""
    terms: int = Field(8, ge=0, le=50)
    """Terms of a feature that are sent."""
    cells: int = Field(20, ge=4, le=100)
    """Held-out cells by which an explanation is scored, half of which fire."""
    seed: int = Field(0, ge=0)
    """Which held-out cells are shown, and in which order."""
