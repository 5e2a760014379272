"""What every database behind the door must say of itself."""

from __future__ import annotations

import pytest

from elute.base import plugins
from elute.base.errors import ConfigError
from elute.validation import library


def test_every_source_is_called_as_its_file_is_and_says_what_it_is() -> None:
    names = library.names()
    assert set(names) == set(plugins.names("sources"))
    assert len(names) == 17
    for name in names:
        source = library.database(name)
        assert source.name == name
        assert source.tier in (1, 2, 3, 4)
        assert source.licence.url.startswith("http")
        assert set(source.draws_on) <= set(names), source.draws_on
        assert len({file.role for file in source.files}) == len(source.files)
        assert source.by_hand or any(file.url for file in source.files) or source.packaged, name
        for file in source.files:
            assert file.url.startswith(("https://", "http://purl.obolibrary.org/")) or not file.url, file.url
    tiers = [library.database(name).tier for name in names]
    assert tiers == sorted(tiers)
    assert [library.database(n).title for n in names if library.database(n).tier == 1] == [
        "GWAS Catalog",
        "HPO",
        "Open Targets",
    ]
    assert library.database("gwas_catalog").name == "gwas-catalog"
    with pytest.raises(ConfigError, match="Did you mean 'orphanet'"):
        library.database("orphnet")
