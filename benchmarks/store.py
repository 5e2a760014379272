"""The store beside the disk: shuffled reading and writing, each against plain sequential input and output, A B A B.

Cold means that the kernel was told to drop the file's pages (POSIX_FADV_DONTNEED) just before, on both sides.
The peer is the disk itself: reading the same files in order with 8 MB reads, and writing the same bytes in files of
the same size with one fsync each. Memory is RssAnon, what the process holds that no file backs.

    python benchmarks/store.py [--gb 4] [--folder DIR] [--rows-up-to 10000000]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

WIDTH, ROUNDS, BATCH = 512, 3, 8192

MEMORY = """
import sys, threading, time
import torch, polars, numpy
from elute.store.writer import StoreWriter
from elute.store.reader import Store
from elute.store.shuffle import ShuffleConfig
def anon():
    for line in open("/proc/self/status"):
        if line.startswith("RssAnon"):
            return int(line.split()[1]) // 1024
what, folder, n, width = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
peak, done = 0, False
def watch():
    global peak
    while not done:
        peak = max(peak, anon())
        time.sleep(0.01)
base = anon()
threading.Thread(target=watch, daemon=True).start()
if what == "write":
    x = torch.randn(8192, width)
    with StoreWriter(folder, sites={"a": width}, dtype="bf16") as writer:
        for start in range(0, n, 8192):
            m = min(8192, n - start)
            ids = polars.int_range(start, start + m, eager=True)
            names = {"sample_id": ids.cast(polars.String), "group": (ids // 100_000).cast(polars.String)}
            writer.append({"a": x[:m]}, polars.DataFrame(names))
else:
    for batch in Store(folder).shuffled(ShuffleConfig(batch_size=4096, buffer_mb=64)):
        pass
time.sleep(0.02)
done = True
print(max(0, peak - base))
"""


def drop(folder: Path) -> None:
    """Have the kernel forget the files, so that the next read comes from the disk."""
    os.sync()
    for path in folder.iterdir():
        handle = os.open(path, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def timed(work: Callable[[], int]) -> float:
    """Bytes per second of one run, in GB/s."""
    began = time.perf_counter()
    n = work()
    return n / 1e9 / (time.perf_counter() - began)


def read_plain(folder: Path) -> int:
    buffer, n = bytearray(8 << 20), 0
    for path in sorted(folder.glob("*.safetensors")):
        handle = os.open(path, os.O_RDONLY)
        while k := os.readv(handle, [buffer]):
            n += k
        os.close(handle)
    return n


def read_shuffled(folder: Path) -> int:
    from elute.store.reader import Store
    from elute.store.shuffle import ShuffleConfig

    return sum(b.rows["a"].nbytes for b in Store(folder).shuffled(ShuffleConfig(batch_size=BATCH)))


def write_plain(folder: Path, gb: float) -> int:
    folder.mkdir()
    block = os.urandom(64 << 20)
    count = int(gb * 1e9) // len(block)
    for i in range(count):
        with (folder / f"{i}.bin").open("wb") as handle:
            handle.write(block)
            handle.flush()
            os.fsync(handle.fileno())
    return count * len(block)


def write_store(folder: Path, gb: float) -> int:
    import polars as pl
    import torch

    from elute.store.writer import StoreWriter

    rows = int(gb * 1e9) // (WIDTH * 4)
    x = torch.randn(BATCH, WIDTH)
    with StoreWriter(folder, sites={"a": WIDTH}) as writer:
        for start in range(0, rows, BATCH):
            n = min(BATCH, rows - start)
            index = pl.int_range(start, start + n, eager=True)
            sample = (index // 512).cast(pl.String)
            position = (index % 512).cast(pl.Int32)
            writer.append({"a": x[:n]}, pl.DataFrame({"sample_id": sample, "position": position, "group": sample}))
    return rows * WIDTH * 4


def alternate(pairs: dict[str, Callable[[], int]], before: Callable[[], object] | None = None) -> dict[str, float]:
    """Median rate of each, measured in turn."""
    rates: dict[str, list[float]] = {name: [] for name in pairs}
    for _ in range(ROUNDS):
        for name, work in pairs.items():
            if before is not None:
                before()
            rates[name].append(timed(work))
    return {name: round(statistics.median(values), 3) for name, values in rates.items()}


def memory(folder: Path, up_to: int) -> list[dict[str, int]]:
    """Peak RssAnon above the imported libraries, in MB, while writing and while reading n rows."""
    table = []
    n = 10_000
    while n <= up_to:
        shutil.rmtree(folder, ignore_errors=True)
        row = {"rows": n}
        for what in ("write", "read"):
            command = [sys.executable, "-c", MEMORY, what, str(folder), str(n), "64"]
            row[f"{what}_mb"] = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        table.append(row)
        n *= 10
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--gb", type=float, default=4.0)
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to measure")
    parser.add_argument("--rows-up-to", type=int, default=10_000_000)
    given = parser.parse_args()
    root = Path(tempfile.mkdtemp(dir=given.folder or Path.cwd(), prefix=".bench-"))
    try:
        store, plain = root / "store", root / "plain"
        write_store(root / "warm-up", 0.1)
        result: dict[str, object] = {"gb": given.gb, "width": WIDTH}
        writing = {"sequential": lambda: write_plain(plain, given.gb), "store": lambda: write_store(store, given.gb)}
        result["write_GB_s"] = alternate(
            writing, before=lambda: [shutil.rmtree(f, ignore_errors=True) for f in (store, plain)]
        )
        shutil.rmtree(store, ignore_errors=True)
        write_store(store, given.gb)
        reading = {"sequential": lambda: read_plain(store), "shuffled": lambda: read_shuffled(store)}
        result["read_cold_GB_s"] = alternate(reading, before=lambda: drop(store))
        read_plain(store)
        result["read_warm_GB_s"] = alternate(reading)
        shutil.rmtree(store)
        result["rss_anon_mb"] = memory(root / "memory", given.rows_up_to)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    for name, value in result.items():
        if isinstance(value, dict):
            (a, one), (b, two) = value.items()
            print(f"{name:<16} {a} {one:.2f}, {b} {two:.2f}: {two / one:.0%}")
        elif isinstance(value, list):
            for row in value:
                print(f"{'RssAnon':<16} " + ", ".join(f"{k} {v:,}" for k, v in row.items()))
    path = Path(__file__).parent / "results" / "store.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
