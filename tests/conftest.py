"""What all tests share: real data where it is, and stores that are quick to make."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from elute.base.env import KEYS

os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a packed case by its argument: gzip holds the time of day, and every process has to collect the same names."""
    return argname if isinstance(val, bytes) and val[:2] == b"\x1f\x8b" else None


@pytest.fixture(autouse=True, scope="session")
def own_data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep snapshots in a folder of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ELUTE_DATA", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(autouse=True)
def own_keys() -> Iterator[None]:
    """Take back what a command set from a `.env` file."""
    before = {name: os.environ.get(name) for name in KEYS}
    yield
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@pytest.fixture
def real_data() -> Path:
    """The folder of small real data sets, for tests marked real_data."""
    folder = os.environ.get("ELUTE_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("no real data here: set ELUTE_TEST_DATA to the folder that holds them")
    return Path(folder)


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., Path]:
    """Write a store of rows that say where they are: row i of site s begins with the number i."""

    def make(name: str = "store", *, rows: int = 1000, groups: int = 10, **settings: Any) -> Path:
        import torch

        from elute.store.writer import StoreWriter

        sites = settings.pop("sites", {"a": 6, "b": 3})
        batch = settings.pop("batch", 128)
        settings.setdefault("rows_per_shard", 300)
        with StoreWriter(tmp_path / name, sites=sites, **settings) as writer:
            for start in range(0, rows, batch):
                n = min(batch, rows - start)
                index = torch.arange(start, start + n, dtype=torch.float32)
                values = {s: index[:, None] + 0.25 * torch.arange(w) for s, w in sites.items()}
                writer.append(values, metadata_of(start, n, rows, groups))
        return tmp_path / name

    return make


@pytest.fixture(scope="module")
def one_thread() -> None:
    """Tell torch to use one thread: what is small is quicker so, and sums have one order."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of planted rows that a dictionary learns in a few steps."""
    from elute.arrays.planted import PlantedConfig, write_store

    folder = tmp_path_factory.mktemp("planted")
    write_store(folder, PlantedConfig(n_features=32, width=12, active=2, noise=0.01, zipf=0.3, rows=1500, truth_rows=0))
    return folder


def metadata_of(start: int, n: int, rows: int, groups: int) -> dict[str, list[Any]]:
    """Metadata of neighbouring rows: groups are runs of rows, labels alternate."""
    index = range(start, start + n)
    return {
        "sample_id": [f"s{i}" for i in index],
        "group": [f"g{i * groups // rows}" for i in index],
        "label": ["odd" if i % 2 else "even" for i in index],
    }
