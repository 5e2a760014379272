"""`elute arrays`: any array of activations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from elute.arrays.demo import DemoConfig
from elute.arrays.importing import ImportConfig
from elute.arrays.look import HeadConfig
from elute.base.errors import DamagedError
from elute.base.run import Artifact
from elute.cli.commands import command
from elute.cli.sections import ARRAYS
from elute.store.scaling import StatsConfig
from elute.store.splitting import SplitConfig

FOLDER = click.Path(path_type=Path, file_okay=False)
store_argument = click.argument("store", type=FOLDER)


def _show_import(answer: dict[str, Any]) -> str:
    sites = ", ".join(f"{name} × {width}" for name, width in answer["sites"].items())
    text = f"{answer['path']}: {answer['rows']:,} rows of {sites}"
    text += f", {answer['bad_rows']:,} with NaN or Inf" if answer["bad_rows"] else ""
    return text + (" (already there, unchanged)" if answer["reused"] else "")


@command("import", ImportConfig, recipe=ARRAYS, show=_show_import)
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--output", required=True, type=FOLDER, help="Folder of the new store.")
def import_(files: tuple[Path, ...], output: Path, config: ImportConfig) -> Artifact:
    """Turn arrays in FILES into one store; several files are put one after another.

    Reads .npy, .npz, .pt, .safetensors, .parquet, .h5ad, .h5 and .zarr. Nothing in them is executed. An import that
    was interrupted goes on where it stopped.
    """
    from elute.arrays.importing import import_arrays

    return import_arrays(list(files), output, config)


def _show_verify(answer: dict[str, Any]) -> str:
    from elute.base.console import count

    whole = f"{answer['path']}: every byte is as it was written, {count(answer['rows'], 'row')}"
    return f"{whole} in {count(answer['shards'], 'shard')}" + ("" if answer["complete"] else " (unfinished)")


@command("verify", show=_show_verify)
@store_argument
def verify(store: Path) -> Artifact:
    """Read every byte of STORE and say which shard is bad."""
    from elute.store.reader import Store
    from elute.store.verify import verify as check

    if bad := check(store):
        shown = "; ".join(f"{entry['file']} {entry['fault']}" for entry in bad)
        raise DamagedError(shown, where=store, remedy="Restore these from a copy, or write the store anew.")
    opened = Store(store)
    summary = {"shards": len(opened.manifest.shards), "rows": len(opened), "complete": opened.complete}
    return Artifact("store", store, summary)


def _show_split(answer: dict[str, Any]) -> str:
    lines = [
        f"{name:<12} {answer['rows'][name]:>12,} rows  {answer['groups'][name]:>6,} groups" for name in answer["rows"]
    ]
    return "\n".join(lines)


@command("split", SplitConfig, recipe=ARRAYS, show=_show_split)
@store_argument
def split(store: Path, config: SplitConfig) -> Artifact:
    """Draw train, validation and test over the groups of STORE: rows of one group stay together."""
    from elute.store.splitting import split_store

    return split_store(store, config)


def _show_stats(answer: dict[str, Any]) -> str:
    of = "all rows" if answer["split"] is None else f"the split {answer['split']}"
    lines = [f"{answer['path']}: {answer['method']}, from {of}"]
    for name, site in answer["sites"].items():
        more = f", {site['explained']:.1%} of the variance kept" if "explained" in site else ""
        lines.append(f"{name:<16} {site['rows']:>12,} rows, {site['constant']} constant dimensions{more}")
    return "\n".join(lines)


@command("stats", StatsConfig, recipe=ARRAYS, show=_show_stats)
@store_argument
def stats(store: Path, config: StatsConfig) -> Artifact:
    """Measure the scaling of STORE in one pass and write embed_stats.json."""
    from elute.store.scaling import measure

    return measure(store, config)


def _show_head(answer: dict[str, Any]) -> str:
    return str(answer["text"])


@command("head", HeadConfig, recipe=ARRAYS, show=_show_head)
@store_argument
def head(store: Path, config: HeadConfig) -> Artifact:
    """Print what STORE holds, and its first rows."""
    from elute.arrays.look import look

    return look(store, config)


@command("report", show=lambda answer: f"open {answer['path']}")
@store_argument
def report(store: Path) -> Artifact:
    """Write STORE/report.html: sites, splits, spread, and where the rows came from."""
    from elute.reports.build import build_report

    return build_report(store)


def _planted(found: dict[str, Any]) -> list[str]:
    """What a dictionary found of features that were planted, beside its controls."""
    recovered, explained = found["recovered"], found["explained_variance"]
    columns = {name: len(name) + 3 for name in recovered}
    first = f"{found['planted']} planted features, a dictionary of {found['features']}, and its controls:"
    return [
        first,
        "",
        f"{'':<34}" + "".join(f"{name:>{n}}" for name, n in columns.items()),
        f"{'planted features found again':<34}" + "".join(f"{recovered[k]:>{n}.1%}" for k, n in columns.items()),
        f"{'variance explained':<34}"
        + "".join(f"{explained[k]:>{n}.1%}" if k in explained else f"{'–':>{n}}" for k, n in columns.items()),
    ]


def _show_demo(answer: dict[str, Any]) -> str:
    accuracy, sites, found = answer["accuracy"], answer["sites"], answer["dictionary"]
    rows = ", ".join(f"{name} {n:,}" for name, n in answer["split"].items())
    planted = f"--store {found['planted_store']} --truth {found['planted_store']}/truth.npy"
    stream, columns = answer["stream"], {"trained": 9, "random weights": 16, "commonest state": 17}
    lines = [
        "",
        "A small network, trained for a moment to tell four states of a sample apart, on donors it has seen.",
        "",
        f"{'':<34}" + "".join(f"{k:>{n}}" for k, n in columns.items()),
        f"{'right on donors it never saw':<34}" + "".join(f"{accuracy[k]:>{n}.1%}" for k, n in columns.items()),
    ]
    for site in sites["trained"]:
        text = f"directions with 95% of variance, {site}"
        lines.append(f"{text:<38}{sites['trained'][site]:>5}{sites['random weights'][site]:>16}{'–':>17}")
    lines += [
        "",
        f"Stored: {answer['rows']:,} rows of {len(sites['trained'])} sites, every byte verified; by donor: {rows}.",
        f"Streamed: {stream['rows']:,} training rows in random order in {stream['seconds']:.2f} s.",
        "",
        *_planted(answer["dictionary"]),
        "",
        "Where to look:",
        f"  {answer['report']}   (in a browser)",
        f"  elute arrays head {answer['store']}",
        f"  elute arrays stats {answer['store']} --method pca --rank 16",
        f"  elute arrays eval --dictionary {found['dictionary']} {planted}",
    ]
    return "\n".join(lines)


@command("demo", DemoConfig, recipe=ARRAYS, show=_show_demo)
@click.option("--output", default="results/demo", show_default=True, type=FOLDER, help="Folder of the results.")
def demo(output: Path, config: DemoConfig) -> Artifact:
    """Capture a small network into a store and look at the rows, then find planted features with a dictionary."""
    from elute.arrays.demo import demonstrate

    return demonstrate(output, config)
