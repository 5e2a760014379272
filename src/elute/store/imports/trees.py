"""HDF5 and Zarr: folders of arrays in one file. Both are read through the same few calls.

Two things are refused before anything is read. What points into another file (external links, external or virtual
data) could show what the person who opens the file did not mean to show. And Zarr chunks may name a codec that
unpickles, so only codecs that are known to hold nothing but numbers and text are let through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base.doctor import how_to_install
from elute.base.errors import DamagedError, DataError, MissingError
from elute.store.imports.parts import Part, join_arrays, native, reading, recut

if TYPE_CHECKING:
    from elute.store.imports.parts import Array

_CACHE = 64 << 20  # a chunk that two pieces share is unpacked once
_PLAIN_CODECS = {
    *("bytes", "transpose", "sharding_indexed", "blosc", "zstd", "gzip", "zlib", "bz2", "lzma", "lz4"),
    *("crc32", "crc32c", "adler32", "fletcher32", "jenkins_lookup3"),
    *("shuffle", "delta", "quantize", "bitround", "fixedscaleoffset", "packbits", "astype", "vlen-utf8", "vlen-bytes"),
}


@dataclass(frozen=True, eq=False)
class Tree:
    """A file of named arrays in folders: `opened()` gives its root, `walk(root)` the path and node of everything.

    `holds(root, key)` tells whether something is there, and refuses a link into another file without following it.
    """

    path: Path
    what: str
    opened: Callable[[], AbstractContextManager[Any]]
    walk: Callable[[Any], dict[str, Any]]
    check: Callable[[Any, str], None]
    holds: Callable[[Any, str], bool]

    def node(self, root: Any, key: str) -> Any:
        """Return an array or a folder; one that leads elsewhere or would run code is refused."""
        if key and not self.holds(root, key):
            raise KeyError(f"there is no {key!r} in it")
        found = root[key] if key else root
        self.check(found, key)
        return found


def hdf5(path: Path, cache: int = _CACHE) -> Tree:
    """Open an HDF5 file; `cache` is how many bytes of unpacked chunks are kept of each array."""

    def opened() -> AbstractContextManager[Any]:
        import h5py

        file: AbstractContextManager[Any] = h5py.File(path, "r", rdcc_nbytes=cache)
        return file

    def walk(root: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        root.visititems(lambda name, node: found.update({name: node}))
        return found

    def check(node: Any, key: str) -> None:
        outside = node.file.filename != str(path)
        if outside or (is_array(node) and (node.is_virtual or node.external)):
            raise elsewhere(key)

    def holds(root: Any, key: str) -> bool:
        import h5py

        folder = root
        for name in filter(None, key.split("/")):
            links = None if is_array(folder) else folder.id.links
            if links is None or not links.exists(name.encode()):
                return False
            if links.get_info(name.encode()).type == h5py.h5l.TYPE_EXTERNAL:
                raise elsewhere(key)
            folder = folder[name]
        return True

    def elsewhere(key: str) -> DataError:
        return DataError(
            "points into another file, which elute does not follow",
            where=f"{path}, {key}",
            remedy="Copy the numbers into this file.",
        )

    return Tree(path, "HDF5", opened, walk, check, holds)


def zarr_tree(path: Path) -> Tree:
    """Open a Zarr folder, or one in a zip file."""

    @contextmanager
    def opened() -> Iterator[Any]:
        zarr = _zarr()
        store = zarr.storage.ZipStore(path, mode="r") if path.is_file() else zarr.storage.LocalStore(path)
        try:
            yield zarr.open(store, mode="r")
        finally:
            store.close()

    def walk(root: Any) -> dict[str, Any]:
        return {"": root} if is_array(root) else dict(root.members(max_depth=None))

    def check(node: Any, key: str) -> None:
        if not is_array(node):
            return
        for codec in _codecs(node.metadata.to_dict()):
            if codec.removeprefix("numcodecs.") not in _PLAIN_CODECS:
                raise DamagedError(
                    f"is packed with {codec!r}, which is not known to hold numbers and text alone",
                    where=f"{path}, {key}" if key else path,
                    remedy="Save it again with zarr's default compressor.",
                )

    return Tree(path, "Zarr", opened, walk, check, lambda root, key: key in root)


def _zarr() -> Any:
    try:
        import zarr
    except ImportError:
        raise MissingError("zarr is not installed", remedy=f"Type: {how_to_install('arrays')}") from None
    return zarr


def _codecs(metadata: Any) -> Iterator[str]:
    """Name every filter and compressor, those inside shards too: Zarr 2 calls them `id`, Zarr 3 `name`."""
    old = metadata.get("filters") or (), metadata.get("compressor"), metadata.get("codecs") or ()
    for entry in (*old[0], *([old[1]] if old[1] else ()), *old[2]):
        yield str(entry.get("id", entry.get("name")))
        inside = entry.get("configuration") or {}
        for key in ("codecs", "index_codecs"):
            yield from _codecs({"codecs": inside.get(key)})


def is_array(node: Any) -> bool:
    """Tell an array from a folder."""
    return hasattr(node, "shape")


def attribute(node: Any, name: str) -> Any:
    """Return an attribute as Python text, number or list; nothing where it is absent."""
    value = node.attrs.get(name)
    value = value.tolist() if hasattr(value, "tolist") else value
    return value.decode() if isinstance(value, bytes) else value


def array_part(tree: Tree, key: str, node: Any) -> Part:
    """Make a part of an array, read whole chunks at a time, so that none is unpacked twice."""
    shape, dtype, text = tuple(node.shape), node.dtype, is_text(node)
    flaw = ("holds objects, not numbers", "Save it as numbers or text.") if dtype.hasobject and not text else None
    chunk = max(1, (getattr(node, "chunks", None) or (1,))[0]) if shape else 1

    def read(start: int, rows: int) -> Iterator[Array]:
        block = chunk * -(-rows // chunk)
        origin = start if chunk == 1 else start - start % block
        with reading(tree.path, tree.what, key), tree.opened() as root:
            again = tree.node(root, key)
            blocks = (values(again, max(at, start), at + block) for at in range(origin, shape[0], block))
            yield from recut(blocks, rows, join_arrays)

    return Part(shape, "string" if text else dtype.name, read, flaw)


def is_text(node: Any) -> bool:
    """Tell whether an array holds text."""
    import h5py

    return node.dtype.kind in "SUT" or h5py.check_string_dtype(node.dtype) is not None


def values(node: Any, start: int, stop: int) -> Any:
    """Read some rows of an array as numpy; text as text."""
    if is_text(node) and hasattr(node, "asstr"):
        return node.asstr()[start:stop]
    return node[start:stop] if is_text(node) else native(node[start:stop])
