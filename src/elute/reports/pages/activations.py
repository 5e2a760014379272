"""What is in a store: sites, shards, groups and splits, and how its rows spread."""

from __future__ import annotations

from pathlib import Path

from elute.base import console
from elute.reports.html import Markup, join, table, tag
from elute.store import layout
from elute.store.reader import Store


class StorePage:
    """Shows the rows, their sites, columns and splits."""

    title = "Activations"
    needs: tuple[str, ...] = (layout.MANIFEST,)

    def render(self, folder: Path) -> str:
        """Render what the manifest and the metadata tell."""
        store = Store(folder)
        manifest = store.manifest
        state = "complete" if store.complete else "unfinished: more rows were to come"
        size = sum(entry.tensors.bytes + entry.metadata.bytes for entry in manifest.shards)
        bad = {"refuse": "refused", "drop": "left out", "keep": "kept"}[manifest.bad_rows]
        shards = console.count(len(manifest.shards), "shard")
        facts = [
            ("rows", f"{len(store):,} in {shards}, {console.size(size)}, {manifest.dtype}"),
            ("state", state),
            ("model", manifest.model.name if manifest.model else "none named"),
            ("rows with NaN or Inf", f"{manifest.bad_counted:,} ({bad})"),
        ]
        parts = [table(["", ""], facts), tag("h3", "Sites"), self._sites(store)]
        if "split" in manifest.columns:
            parts += [tag("h3", "Splits, drawn by group"), self._splits(store)]
        columns = [(name, kind, "yes" if name in manifest.key else "") for name, kind in manifest.columns.items()]
        parts += [tag("h3", "Columns of each row"), table(["column", "type", "part of the row's key"], columns)]
        return join(parts)

    def _sites(self, store: Store) -> Markup:
        """List the sites, with their spread where it was measured."""
        if not (store.folder / layout.STATS).exists():
            return table(["site", "width"], [(name, width) for name, width in store.sites.items()])
        from elute.store.scaling import Scaling

        scaling, rows = Scaling.of(store.folder), []
        for name, width in store.sites.items():
            site = scaling.site(name)
            rank = "" if site.variances is None else len(site.variances)
            rows.append(
                (name, width, site.rows, float(abs(site.mean).mean()), float(site.std.mean()), len(site.constant), rank)
            )
        return table(["site", "width", "rows measured", "mean |mean|", "mean std", "constant", "directions"], rows)

    def _splits(self, store: Store) -> Markup:
        """Count rows and groups of each split, and of each label within it."""
        import polars as pl

        columns = [c for c in ("split", "group", "label") if c in store.manifest.columns]
        frame = pl.concat([f.group_by(columns).len() for _, f in store.batches(1 << 16, sites=[], columns=columns)])
        rows = (
            frame.group_by("split")
            .agg(pl.col("group").n_unique(), pl.col("len").sum())
            .sort("len", "split", descending=[True, False])
        )
        shown = [table(["split", "groups", "rows"], rows.iter_rows())]
        if "label" in columns:
            wide = (
                frame.group_by("label", "split")
                .agg(pl.col("len").sum())
                .sort("split")
                .pivot("split", index="label")
                .sort("label")
            )
            shown.append(table(wide.columns, wide.head(50).fill_null(0).iter_rows()))
            if len(wide) > 50:
                shown.append(tag("p", f"The first 50 of {len(wide):,} labels.", class_="dim"))
        return join(shown)


PAGE = StorePage()
