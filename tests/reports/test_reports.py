"""Pages: self-contained, harmless whatever the data is called, and true to the store."""

from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from elute.base.errors import DataError
from elute.reports.build import build_report
from elute.reports.html import Markup, join, page, table, tag
from elute.store.scaling import StatsConfig, measure
from elute.store.splitting import SplitConfig, split_store
from elute.store.writer import StoreWriter

MakeStore = Callable[..., Path]
HOSTILE = "<img src=x onerror=alert(1)>\"'&"


class Seen(HTMLParser):
    """Which elements and attributes a document has, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data: str) -> None:
        self.words += data


def test_text_from_data_is_escaped_everywhere() -> None:
    seen = Seen(page(HOSTILE, join([tag("p", HOSTILE, title=HOSTILE), table([HOSTILE], [[HOSTILE], [3]])])))
    assert "img" not in seen.tags
    assert "onerror" not in seen.attributes
    assert seen.words.count(HOSTILE) == 5
    assert Markup("<b>") in tag("p", Markup("<b>"))


def test_numbers_stand_to_the_right() -> None:
    text = table(["name", "n", "share"], [["a", 12345, 0.5], ["b", 1, 0.25]])
    assert text.count('<td class="n">') == 4
    assert text.count('<th class="n">') == 2
    assert "12,345" in text


def test_a_report_of_hostile_names(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "s", sites={HOSTILE: 2}) as writer:
        writer.append({HOSTILE: torch.randn(40, 2)}, {
            "sample_id": [f"s{i}" for i in range(40)], "group": [f"g{i // 4}" for i in range(40)],
            "label": [HOSTILE if i % 2 else "ok" for i in range(40)], HOSTILE: [HOSTILE] * 40,
        })  # fmt: skip
    split_store(tmp_path / "s", SplitConfig())
    measure(tmp_path / "s", StatsConfig(method="pca"))
    text = build_report(tmp_path / "s").path.read_text()
    seen = Seen(text)
    assert not {"img", "script", "iframe", "link"} & set(seen.tags)
    assert HOSTILE in seen.words
    assert "default-src 'none'" in text


def test_a_report_says_what_the_store_holds(make_store: MakeStore) -> None:
    folder = make_store(rows=1000)
    split_store(folder, SplitConfig())
    artifact = build_report(folder)
    words = Seen(artifact.path.read_text()).words
    assert artifact.summary["pages"] == ["activations", "provenance"]
    for expected in ("1,000 in 4 shards", "complete", "train", "800", "sample_id"):
        assert expected in words
    before = artifact.path.read_bytes()
    assert build_report(folder).path.read_bytes() == before


def test_nothing_to_report(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing to report on. A page needs one of manifest.json, run.json"):
        build_report(tmp_path)
