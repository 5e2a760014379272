"""Checking every byte of a store against its manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from elute.base import console, files
from elute.store import layout


def verify(folder: Path | str) -> list[dict[str, Any]]:
    """Read every byte of a store and say of each shard what is wrong with it; an empty list means all is well."""
    path = Path(folder)
    manifest = layout.read_manifest(path)
    owners = {}
    for shard, entry in enumerate(manifest.shards):
        owners[entry.tensors.sha256] = owners[entry.metadata.sha256] = f"{shard:05d}"
    bad: list[dict[str, Any]] = []
    total = sum(entry.tensors.bytes + entry.metadata.bytes for entry in manifest.shards)
    with console.progress("verify", total, unit="bytes") as bar:
        for shard, entry in enumerate(manifest.shards):
            for file, record in (
                (layout.tensors_path(path, shard), entry.tensors),
                (layout.metadata_path(path, shard), entry.metadata),
            ):
                fault = ""
                if not file.exists():
                    fault = "is missing"
                elif (size := file.stat().st_size) != record.bytes:
                    fault = f"has {size:,} bytes instead of {record.bytes:,}"
                elif (digest := files.digest_file(file, bar.advance)) != record.sha256:
                    owner = owners.get(digest)
                    fault = f"holds shard {owner} (swapped)" if owner else "was altered: its digest does not match"
                if fault:
                    bad.append({"shard": shard, "file": file.name, "fault": fault})
    return bad
