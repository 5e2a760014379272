"""All databases that are asked, one after the other: what fails with one is told, and the others still run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base import console, files
from elute.base.errors import ConfigError, EluteError
from elute.validation import library
from elute.validation.database import Database

if TYPE_CHECKING:
    import polars as pl

    from elute.validation.asked import Asked
    from elute.validation.kept_draws import Draws
    from elute.validation.settings import DatabaseConfig

NETWORK = "string-db"
LEAST = "least_p"
METHOD = 3  # raised when the same lists and rows come to other numbers: what was kept is asked anew


def chosen(config: DatabaseConfig) -> list[Database]:
    """Return the databases that are asked: by name, or those of the tiers."""
    if config.sources is not None:
        names = [name.strip() for name in config.sources.split(",") if name.strip()]
        if not names:
            raise ConfigError(
                "names no database", where="--sources", remedy=f"There are: {', '.join(library.names())}."
            )
        return [library.database(name) for name in dict.fromkeys(names)]
    tiers = {int(tier) for tier in config.tiers.split(",")}
    return [source for source in map(library.database, library.names()) if source.tier in tiers]


def snapshots_of(config: DatabaseConfig) -> dict[str, str]:
    """Say which version of each database, and of HGNC's table, is here: another one is asked anew."""
    return {"method": str(METHOD), **{source.name: _version(source) for source in chosen(config)}}


def ask_databases(asked: Asked, config: DatabaseConfig, folder: Path, *, quiet: bool = False) -> dict[str, Any]:
    """Hold lists against every database; write a table each, and return what summary.json says."""
    from elute.validation.kept_draws import Draws

    told: dict[str, Any] = {}
    for source in chosen(config):
        path = folder / f"{source.name}.parquet"
        key = files.digest_json([METHOD, asked.digest, config.model_dump(mode="json"), _version(source)])
        if (known := _known(path, key)) is not None:
            told[source.name] = _brief(known)
            continue
        try:
            draws = Draws(folder / f".{source.name}", key)
            table, record, further = _one(source, asked, config, draws)
        except EluteError as error:
            path.unlink(missing_ok=True)
            told[source.name] = {**_silent(source), "why": error.line() if error.where != source.title else error.what}
            continue
        files.write_atomically(path, table.write_parquet)
        for what, rows in further.items():
            files.write_atomically(beside(path, what), rows.write_parquet)
        made = {what: files.digest_file(beside(path, what)) for what in further}
        kept = {"key": key, "table": files.digest_file(path), "further": made, "record": record}
        files.write_json(path.with_suffix(".json"), kept)
        draws.done()
        told[source.name] = _brief(record)
        if not quiet:
            console.say(line(record))
    ran = [name for name, record in told.items() if record["status"] == "run"]
    return {
        "databases": told,
        "fdr": config.fdr,
        "top_n_genes": config.top_n_genes,
        "kin": library.kin(ran),
        "notes": list(asked.notes),
    }


def _known(path: Path, key: str) -> dict[str, Any] | None:
    """Return what was told of these very lists, settings and rows, if its table is as it was."""
    record = path.with_suffix(".json")
    if not (record.exists() and path.exists()):
        return None
    try:
        held = files.read_json(record)
    except EluteError:
        return None
    right = isinstance(held, dict) and held.get("key") == key and held.get("table") == files.digest_file(path)
    if not right:
        return None
    further = {beside(path, what): digest for what, digest in held.get("further", {}).items()}
    whole = all(each.exists() and files.digest_file(each) == digest for each, digest in further.items())
    return held["record"] if whole else None


def beside(path: Path, what: str) -> Path:
    """Where more rows of a database lie: hpo_diseases.parquet beside hpo.parquet."""
    return path.with_name(f"{path.stem}_{what}.parquet")


def _brief(record: dict[str, Any]) -> dict[str, Any]:
    """Leave out what the naming alone needs."""
    null = record.get("null")
    return record if null is None else {**record, "null": {k: v for k, v in null.items() if k != LEAST}}


def _least(path: Path) -> list[float]:
    """The least p-values of lists of like genes, beside a database's table."""
    record = files.read_json(path.with_suffix(".json"), what="what a database said")["record"]
    return list((record.get("null") or {}).get(LEAST, ()))


def _version(source: Database) -> str:
    from elute.validation import hgnc

    try:
        snapshot = library.opened(source.name)  # not what was found before: what came with a package is made one here
    except EluteError:
        snapshot = None
    genes = str((hgnc.standing() or {}).get("sha256", "none"))
    return f"{'none' if snapshot is None else snapshot.record['table']['sha256']} {genes}"


def _one(
    source: Database, asked: Asked, config: DatabaseConfig, draws: Draws
) -> tuple[pl.DataFrame, dict[str, Any], dict[str, pl.DataFrame]]:
    if source.name == NETWORK:
        from elute.validation import against_network

        tested = against_network.test(asked, config)
        return tested.table, tested.record, tested.further
    from elute.validation import against_terms

    tested = against_terms.test(source.name, asked, config, draws=draws)
    return tested.table, tested.record, tested.further


def _silent(source: Database) -> dict[str, Any]:
    return {"title": source.title, "snapshot": "", "taken": "", "licence": source.licence.name, "status": "not run"}


def line(record: dict[str, Any]) -> str:
    """Say one database's headline, beside its null."""
    null = record.get("null") or {}
    beside = f"; matched lists {null['mean']:.1f} ({null['low']:.0f}–{null['high']:.0f})" if null else "; null not run"
    control = "".join(f"; {what} {each['significant']:,}" for what, each in record["controls"].items())
    again = "" if record["again"] is None else f"; again by other cells {record['again']:,}"
    return f"{record['snapshot']}: {record['significant']:,} of {record['features']:,} features{beside}{control}{again}"


def name_features(
    features: pl.DataFrame, folder: Path, summary: dict[str, Any], *, genes: pl.DataFrame
) -> pl.DataFrame:
    """Add the columns of names to the table of features, by what the databases in a folder said."""
    import polars as pl

    from elute.validation import labels

    ran = {name: record for name, record in summary["databases"].items() if record["status"] == "run"}
    found = {name: pl.read_parquet(folder / f"{name}.parquet") for name in ran if name != NETWORK}
    named = labels.name_features(
        features,
        found,
        terms={name: ran[name]["terms"] for name in found},
        kin=summary["kin"],
        genes=genes,
        null={name: least for name in found if (least := _least(folder / f"{name}.parquet"))},
        fdr=summary["fdr"],
    )
    before = [name for name in named.columns if name != "feature" and name in features.columns]
    return features.drop(before).join(named, on="feature", how="left", maintain_order="left")
