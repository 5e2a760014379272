"""Writing a store: rows in, whole shards out, and nothing lost.

1. Rows are copied into a buffer of one shard; bad values, other widths, repeated keys and groups in two splits are
   found here.
2. A full buffer goes to the disk in the background while the next one fills: tensors, metadata, then the manifest.
3. A writer that is opened again goes on after its last whole shard. One that ended by an error (not by a kill) also
   wrote its unfinished shard, which is read back into the buffer: where it stopped leaves no trace.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from elute.base import files
from elute.base.contracts import Fingerprint, Rows
from elute.base.errors import ConfigError, DataError, EluteError
from elute.base.tensors import write_safetensors
from elute.store import checks, layout, settle
from elute.store.keys import SeenHashes, hash_keys
from elute.store.layout import FileRecord, Manifest, ModelRecord, ShardRecord

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    import torch
    from numpy.typing import NDArray


class StoreWriter:
    """Writes rows of one or several sites, each with its metadata; goes on where an earlier writer stopped."""

    def __init__(
        self,
        folder: Path | str,
        *,
        sites: Mapping[str, int],
        dtype: layout.Dtype = "fp32",
        rows_per_shard: int | None = None,
        bad_rows: Literal["refuse", "drop", "keep"] = "refuse",
        model: Fingerprint | None = None,
        source: Mapping[str, str] | None = None,
        recapture: bool = False,
    ) -> None:
        checks.sites(sites)
        layout.torch_dtype(dtype)
        row_bytes = sum(sites.values()) * layout.ITEM_BYTES[dtype]
        rows = max(1, layout.DEFAULT_SHARD_BYTES // row_bytes) if rows_per_shard is None else rows_per_shard
        if rows < 1:
            raise ConfigError(f"rows_per_shard must be at least 1, not {rows}")
        record = None if model is None else ModelRecord(**model.as_json())
        fresh = Manifest(
            store=files.digest_json([dict(sites), dtype, rows, model and model.as_json(), dict(source or {})])[:16],
            sites=dict(sites), dtype=dtype, rows_per_shard=rows, key=(), columns={}, model=record,
            source=dict(source or {}), bad_rows=bad_rows, bad_counted=0, split=None, complete=False, shards=(),
        )  # fmt: skip
        self.folder = files.make_folder(Path(folder))
        self._stack = ExitStack()
        self._stack.enter_context(files.locked(self.folder, "writing a store"))
        try:
            self.manifest = settle.for_writing(self.folder, fresh, recapture=recapture)
            self._begin()
        except BaseException:
            self._stack.close()
            raise

    @property
    def offered(self) -> int:
        """How many rows have been offered so far, those dropped counted: where to go on."""
        return self._offered

    @property
    def rows(self) -> int:
        """How many rows have been taken in."""
        return self._kept

    @property
    def bad_counted(self) -> int:
        """How many rows with NaN or Inf were met."""
        return self._bad

    def append(self, rows: Rows | Mapping[str, Any], metadata: pl.DataFrame | Mapping[str, Any]) -> None:
        """Add rows: one `[n, width]` tensor or array a site, and a metadata row each."""
        tensors = checks.tensors(rows, self.manifest.sites, self.folder)
        n = len(next(iter(tensors.values())))
        frame = checks.metadata(metadata, n, where=self.folder, known=self.manifest.columns)
        if not self.manifest.columns:
            self.manifest = self.manifest.model_copy(update=checks.columns(frame, self.folder))
        done = 0
        while done < n:
            take = min(n - done, self.manifest.rows_per_shard - self._buffer.fill)
            self._put({name: x[done : done + take] for name, x in tensors.items()}, frame[done : done + take])
            done += take
            if self._buffer.fill == self.manifest.rows_per_shard:
                self._flush()

    def close(self) -> Path:
        """Write the last shard, mark the store complete and return its folder."""
        try:
            if self.rows == 0:
                raise DataError("no rows were written", where=self.folder, remedy="Check that the input has rows.")
            self._flush()
            self._wait()
            self.manifest = self.manifest.model_copy(update={"complete": True, "bad_counted": self._bad})
            with files.disk_errors(self.folder):
                layout.write_manifest(self.folder, self.manifest)
        finally:
            self._stack.close()
        return self.folder

    def stop(self) -> None:
        """End without completing: what is in the buffer is kept as an unfinished shard, to go on from later."""
        try:
            self._flush()
            self._wait()
        finally:
            self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        try:
            self.stop()
        except EluteError as second:  # the first error is the one to read
            error.add_note(f"(and the unfinished shard could not be kept: {second})")

    def _begin(self) -> None:
        """Take up what earlier writers left: counts, keys, groups, and an unfinished last shard."""
        manifest = self.manifest
        self._buffer, self._spare = _Buffer(manifest), _Buffer(manifest)
        self._bad = manifest.bad_counted
        self._kept = manifest.rows
        self._offered = manifest.shards[-1].offered if manifest.shards else 0
        self._pending: Future[None] | None = None
        self._thread = self._stack.enter_context(ThreadPoolExecutor(1))
        self._seen = SeenHashes(str(self.folder))
        self._splits: dict[str, str] = {}
        self._whole = len(manifest.shards)
        for shard, entry in enumerate(manifest.shards):
            frame = settle.read_metadata(self.folder, manifest, shard)
            self._seen.add(hash_keys(frame, manifest.key))
            checks.groups(frame, self._splits, self.folder)
            if entry.rows < manifest.rows_per_shard:
                self._whole -= 1
                self._buffer.put(settle.read_tensors(self.folder, manifest, shard), frame)

    def _put(self, tensors: dict[str, torch.Tensor], frame: pl.DataFrame) -> None:
        """Check some rows that fit into the buffer, and copy them there."""
        offered = len(frame)
        tensors = {
            name: checks.cast(x, name, dtype=self.manifest.dtype, where=self.folder) for name, x in tensors.items()
        }
        bad = checks.bad_rows(tensors)
        if bad is not None:
            if self.manifest.bad_rows == "refuse":
                raise checks.bad_error(bad, tensors, first=self._offered, where=self.folder)
            self._bad += int(bad.sum())
            if self.manifest.bad_rows == "drop":
                frame = frame.filter((~bad).numpy())
                tensors = {name: x[~bad] for name, x in tensors.items()}
        suspects = self._seen.add(hash_keys(frame, self.manifest.key))
        if len(suspects):
            self._compare(frame, suspects)
        checks.groups(frame, self._splits, self.folder)
        self._buffer.put(tensors, frame)
        self._kept += len(frame)
        self._offered += offered

    def _compare(self, frame: pl.DataFrame, suspects: NDArray[np.int64]) -> None:
        """Equal hashes are a suspicion: compare the keys themselves with those of all earlier rows."""
        self._wait()
        earlier = (settle.read_metadata(self.folder, self.manifest, shard) for shard in range(self._whole))
        earlier_frames = [*earlier, *self._buffer.frames]
        checks.repeated(frame, suspects, earlier_frames, key=self.manifest.key, where=self.folder)

    def _flush(self) -> None:
        """Hand the buffer to the disk and go on with the other one."""
        self._wait()
        if self._buffer.fill:
            full, self._buffer = self._buffer, self._spare
            self._spare = full
            self._pending = self._thread.submit(self._store, self._whole, full, self._offered, self._bad)
            self._whole += full.fill == self.manifest.rows_per_shard

    def _wait(self) -> None:
        """Wait for the disk; its error is raised here."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()
            self._spare.clear()

    def _store(self, shard: int, buffer: _Buffer, offered: int, bad: int) -> None:
        """Write one shard: out of the manifest if an unfinished one had its name, then its files, then into it."""
        with files.disk_errors(self.folder):
            if len(self.manifest.shards) > shard:
                self.manifest = self.manifest.model_copy(update={"shards": self.manifest.shards[:shard]})
                layout.write_manifest(self.folder, self.manifest)
            record = buffer.write(self.folder, shard, self.manifest, offered=offered)
            update = {"shards": (*self.manifest.shards, record), "bad_counted": bad}
            self.manifest = self.manifest.model_copy(update=update)
            layout.write_manifest(self.folder, self.manifest)


class _Buffer:
    """One shard's worth of rows in memory."""

    def __init__(self, manifest: Manifest) -> None:
        self._dtype = layout.torch_dtype(manifest.dtype)
        self._capacity = manifest.rows_per_shard
        self._sites = manifest.sites
        self._tensors: dict[str, torch.Tensor] = {}
        self.clear()

    def clear(self) -> None:
        self.frames: list[pl.DataFrame] = []
        self.fill = 0

    def put(self, tensors: Mapping[str, torch.Tensor], frame: pl.DataFrame) -> None:
        import torch

        if not self._tensors:
            self._tensors = {s: torch.empty(self._capacity, w, dtype=self._dtype) for s, w in self._sites.items()}
        for name, x in tensors.items():
            self._tensors[name][self.fill : self.fill + len(frame)].copy_(x)
        self.frames.append(frame)
        self.fill += len(frame)

    def write(self, folder: Path, shard: int, manifest: Manifest, *, offered: int) -> ShardRecord:
        import polars as pl
        import torch

        arrays = {
            name: x[: self.fill].view(torch.int16 if manifest.dtype == "bf16" else x.dtype).numpy()
            for name, x in sorted(self._tensors.items())
        }
        tag = {"store": manifest.store, "shard": f"{shard:05d}"}
        path = layout.tensors_path(folder, shard)
        tensors = write_safetensors(path, arrays, dtype=layout.SAFETENSORS_NAMES[manifest.dtype], metadata=tag)
        metadata = settle.write_metadata(layout.metadata_path(folder, shard), pl.concat(self.frames), tag)
        return ShardRecord(
            rows=self.fill, offered=offered, tensors=FileRecord(bytes=tensors[0], sha256=tensors[1]), metadata=metadata
        )
