"""MSigDB's hallmark sets: fifty well-defined states and processes, each made of many overlapping sets.

Only sets whose name begins with HALLMARK_ are kept: of the other collections some may not be passed on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from elute.base import console
from elute.base.errors import DataError
from elute.validation.database import Database, File, Licence, Releases
from elute.validation.reading import gmt
from elute.validation.reading.associations import Read

_AT = "https://data.broadinstitute.org/gsea-msigdb/msigdb/release/"
_VERSION = re.compile(r"\.v(\d+(?:\.\d+)*(?:\.Hs)?)\.|_v(\d{4})", re.IGNORECASE)


def read(files: Mapping[str, Path]) -> Read:
    """Read the hallmark sets of a file of MSigDB; its name says the release."""
    path = files["sets"]
    table, _, notes = gmt.read(path)
    ours = table.filter(table["term"].str.starts_with("HALLMARK_"))
    if not len(ours):
        remedy = "Other sets of yours: elute databases import my-sets FILE.gmt"
        raise DataError("holds no set whose name begins with HALLMARK_", where=path, remedy=remedy)
    if others := table["term"].n_unique() - ours["term"].n_unique():
        notes = (*notes, f"{console.count(others, 'set')} of other collections left out")
    found = _VERSION.search(path.name)
    return Read(ours, (found[1] or found[2]) if found else "", notes)


SOURCE = Database(
    name="hallmark",
    title="MSigDB hallmark",
    tier=4,
    licence=Licence("CC BY 4.0", "https://www.gsea-msigdb.org/gsea/msigdb_license_terms.jsp", redistributable=True),
    about="a gene belongs to one of fifty hallmark states or processes",
    files=(File("sets", _AT + "{version}/h.all.v{version}.symbols.gmt", ("h.all*.gmt*", "*hallmark*.gmt*")),),
    read=read,
    releases=Releases(_AT, r"\b(\d{4}\.\d+\.Hs)/"),
)
