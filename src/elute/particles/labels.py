"""Names of classes in one form: sources write `Beta-Amylase`, `beta amylase` and `betaamylase` for the same thing."""

from __future__ import annotations

_SAME = {
    "beta_galactoside": "beta_galactosidase",
    "betagalactoside": "beta_galactosidase",
    "betagalactosidase": "beta_galactosidase",
    "betaamylase": "beta_amylase",
    "apo_ferritin": "apoferritin",
    "vlp": "virus_like_particle",
}


def one_form(name: str) -> str:
    """Return a class's name in lower case with underscores, and under one spelling where several are about."""
    plain = "_".join(name.strip().lower().replace("-", " ").replace("_", " ").split())
    return _SAME.get(plain, plain)
