"""Reactome: which genes take part in which pathway.

The sets are those of ReactomePathways.gmt: every pathway with all genes of its events, also of those below it, so
a pathway contains those it consists of. Pathways of infection also list genes of viruses and bacteria; these map to no
human gene, and the mapping counts them. MSigDB's selection of the same pathways is read too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from elute.validation.database import Database, File, Licence
from elute.validation.reading import gmt
from elute.validation.reading.associations import Read


def read(files: Mapping[str, Path]) -> Read:
    """Read the file of pathways."""
    return gmt.read(files["pathways"])


SOURCE = Database(
    name="reactome",
    title="Reactome",
    tier=4,
    licence=Licence("CC0 1.0", "https://reactome.org/license", redistributable=True),
    about="a gene takes part in a pathway",
    files=(
        File(
            "pathways",
            "https://reactome.org/download/current/ReactomePathways.gmt.zip",
            ("reactomepathways*.gmt*", "*reactome*.gmt*"),
        ),
    ),
    read=read,
)
