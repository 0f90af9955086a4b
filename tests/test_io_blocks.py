"""Blocks against what scipy, anndata and h5py read, over every way a matrix can be stored."""

from __future__ import annotations

import gc
import json
import re
import shutil
import threading
import tracemalloc
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse

from senoscore.errors import InputDataError
from senoscore.io import _rows, _tiles
from senoscore.io._chunks import H5Vector, Pipeline, fletcher32
from senoscore.io.blocks import CsrBlock, RowBlocks, open_blocks

N_OBS, N_VARS = 61, 47


# ---------------------------------------------------------------- making and comparing


def counts(seed: int = 0, n_obs: int = N_OBS, n_vars: int = N_VARS) -> sparse.csr_matrix:
    """Small counts with empty rows, empty columns, and one full row."""
    rng = np.random.default_rng(seed)
    x = rng.poisson(0.4, (n_obs, n_vars))
    x[:, 3] = 0
    x[[0, n_obs // 2], :] = 0
    x[n_obs // 3, :] = 7
    return sparse.csr_matrix(x)


def joined(blocks: Iterator[CsrBlock], n_vars: int = N_VARS) -> sparse.csr_matrix:
    """All blocks as one matrix, each checked for canonical form and order."""
    pieces, at = [], None
    for block in blocks:
        assert block.indptr.dtype == np.int64
        assert block.indices.dtype == np.int32
        assert block.indptr[0] == 0
        assert block.indptr[-1] == len(block.indices) == len(block.data)
        assert at is None or block.start == at
        at = block.start + block.n_obs
        assert block.n_vars == n_vars
        for a, b in zip(block.indptr[:-1], block.indptr[1:], strict=True):
            assert (np.diff(block.indices[a:b]) > 0).all()
        assert (block.data != 0).all()
        pieces.append(block.to_csr())
    return sparse.vstack(pieces, format="csr") if pieces else sparse.csr_matrix((0, n_vars))


def same(a: sparse.csr_matrix, b: Any) -> None:
    """Equal values at equal places."""
    b = sparse.csr_matrix(b).copy()
    b.sum_duplicates()
    b.eliminate_zeros()
    assert a.shape == b.shape
    np.testing.assert_array_equal(a.indptr, b.indptr)
    np.testing.assert_array_equal(a.indices, b.indices)
    np.testing.assert_array_equal(a.data, b.data)


def frames(n_obs: int = N_OBS, n_vars: int = N_VARS) -> dict[str, pd.DataFrame]:
    return {
        "obs": pd.DataFrame(index=[f"c{i}" for i in range(n_obs)]),
        "var": pd.DataFrame(index=[f"g{i}" for i in range(n_vars)]),
    }


def write_file(
    path: Path,
    x: Any,
    *,
    chunk: int | tuple[int, int] | None = 100,
    indptr_dtype: str = "int32",
    indices_dtype: str = "int32",
    attrs: dict[str, Any] | None = None,
    key: str = "X",
    **filters: Any,
) -> Path:
    """A minimal h5ad written with h5py alone, so that every storage option can be chosen."""
    shape = x.shape
    with h5py.File(path, "w") as file:
        for axis, name in enumerate(("obs", "var")):
            frame = file.create_group(name)
            frame.attrs.update(
                {
                    "encoding-type": "dataframe",
                    "encoding-version": "0.2.0",
                    "_index": "_index",
                    "column-order": np.array([], dtype="S1"),
                }
            )
            frame["_index"] = [f"{name}{i}" for i in range(shape[axis])]
            frame["_index"].attrs.update(
                {"encoding-type": "string-array", "encoding-version": "0.2.0"}
            )
        if sparse.issparse(x):
            group = file.create_group(key)
            group.attrs.update(
                attrs
                if attrs is not None
                else {
                    "encoding-type": f"{x.format}_matrix",
                    "encoding-version": "0.1.0",
                    "shape": np.array(shape),
                }
            )
            for name, dtype in (
                ("data", x.dtype),
                ("indices", indices_dtype),
                ("indptr", indptr_dtype),
            ):
                values = getattr(x, name).astype(dtype)
                group.create_dataset(name, data=values, **_storage(chunk, values, filters))
        else:
            dense = file.create_dataset(key, data=x, **_storage(chunk, x, filters))
            dense.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    return path


def _storage(chunk: Any, values: Any, filters: dict[str, Any]) -> dict[str, Any]:
    if chunk is None:
        return {}
    if values.ndim == 1:
        return {"chunks": (min(chunk, max(1, values.size)),), "maxshape": (None,), **filters}
    return {"chunks": chunk if isinstance(chunk, tuple) else True, **filters}


# ---------------------------------------------------------------- every storage variant

FILTERS: dict[str, dict[str, Any]] = {
    "gzip": {"compression": "gzip"},
    "gzip_shuffle": {"compression": "gzip", "shuffle": True},
    "gzip_shuffle_fletcher": {"compression": "gzip", "shuffle": True, "fletcher32": True},
    "fletcher": {"fletcher32": True},
    "shuffle": {"shuffle": True},
    "lzf": {"compression": "lzf"},
    "lzf_shuffle": {"compression": "lzf", "shuffle": True},
    "none": {},
}


@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize("storage", ["csr", "csc", "dense"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "uint16"])
def test_blocks_are_what_anndata_reads(
    tmp_path: Path, filters: str, storage: str, dtype: str
) -> None:
    x = counts().astype(dtype)
    stored = x.toarray() if storage == "dense" else x.asformat(storage)
    chunk = (17, 10) if storage == "dense" else 100
    path = write_file(tmp_path / "a.h5ad", stored, chunk=chunk, **FILTERS[filters])
    with open_blocks(path) as blocks:
        assert (blocks.n_obs, blocks.n_vars) == x.shape
        assert blocks.dtype == dtype
        assert blocks.storage == storage
        assert blocks.nnz == (None if storage == "dense" else x.nnz)
        assert blocks.nbytes_compressed > 0
        found = joined(blocks.iter_blocks(block_size=13, threads=2))
        same(joined(blocks.iter_blocks(block_size=13, rows=(9, 40))), x[9:40])
    assert found.dtype == dtype
    same(found, ad.read_h5ad(path).X)
    same(found, x)


@pytest.mark.parametrize("storage", ["csr", "csc"])
@pytest.mark.parametrize("indptr_dtype", ["int32", "int64", "uint32", "uint64", ">i4"])
@pytest.mark.parametrize("indices_dtype", ["int32", "int64", "uint16", "uint64", ">i8", "int8"])
def test_index_types_do_not_matter(
    tmp_path: Path, storage: str, indptr_dtype: str, indices_dtype: str
) -> None:
    x = counts().astype("float32")
    path = write_file(
        tmp_path / "a.h5ad",
        x.asformat(storage),
        indptr_dtype=indptr_dtype,
        indices_dtype=indices_dtype,
        compression="gzip",
    )
    with open_blocks(path) as blocks:
        same(joined(blocks.iter_blocks(block_size=20)), x)


@pytest.mark.parametrize(
    "dtype", ["bool", "float16", ">f4", ">f8", ">i2", "int8", "uint8", "int64"]
)
@pytest.mark.parametrize("storage", ["csr", "csc", "dense"])
@pytest.mark.parametrize("filters", ["gzip_shuffle", "none"])
def test_value_types(tmp_path: Path, dtype: str, storage: str, filters: str) -> None:
    x = counts().astype("int64")
    stored = x.toarray() if storage == "dense" else x.asformat(storage, copy=True)
    if storage != "dense":
        stored.data = stored.data.astype(dtype)  # scipy itself has no float16 or big-endian
    else:
        stored = stored.astype(dtype)
    chunk = (17, 10) if storage == "dense" else 100
    path = write_file(tmp_path / "a.h5ad", stored, chunk=chunk, **FILTERS[filters])
    expected = (x != 0).astype("uint8") if dtype == "bool" else x
    names = {"bool": "uint8", "float16": "float32", ">f4": "float32", ">f8": "float64"}
    with open_blocks(path) as blocks:
        found = joined(blocks.iter_blocks(block_size=20))
        assert found.dtype == blocks.dtype == names.get(dtype, dtype.replace(">i2", "int16"))
    same(found, expected)


@pytest.mark.parametrize("storage", ["csr", "csc", "dense"])
def test_contiguous_storage(tmp_path: Path, storage: str) -> None:
    x = counts().astype("float32")
    stored = x.toarray() if storage == "dense" else x.asformat(storage)
    path = write_file(tmp_path / "a.h5ad", stored, chunk=None)
    with open_blocks(path) as blocks:
        same(joined(blocks.iter_blocks(block_size=20)), x)


@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize("userblock", [0, 1024])
def test_chunk_places_are_right_for_every_chunk_index(
    tmp_path: Path, libver: str, userblock: int
) -> None:
    """HDF5 keeps five kinds of chunk index, and a user block shifts every address."""
    x = counts().astype("float32")
    path = tmp_path / "a.h5ad"
    plain = write_file(tmp_path / "plain.h5ad", x, compression="gzip")
    with (
        h5py.File(plain) as old,
        h5py.File(path, "w", libver=libver, userblock_size=userblock) as new,
    ):
        for name in ("obs", "var", "X"):
            old.copy(name, new)
        for name, options in {
            "single": {"chunks": (x.nnz,)},
            "fixed": {"chunks": (50,)},
            "extensible": {"chunks": (50,), "maxshape": (None,)},
        }.items():
            group = new.create_group(f"layers/{name}")
            group.attrs.update(dict(old["X"].attrs))
            group["indptr"] = x.indptr
            for part in ("data", "indices"):
                for compression in (None, "gzip"):
                    if part in group:
                        del group[part]
                    group.create_dataset(
                        part, data=getattr(x, part), compression=compression, **options
                    )
        two = {"chunks": (10, 10), "maxshape": (None, None), "compression": "gzip"}
        new.create_dataset("layers/btree2", data=x.toarray(), **two)
    for key in ("X", "layers/single", "layers/fixed", "layers/extensible", "layers/btree2"):
        with open_blocks(path, matrix=key) as blocks:
            same(joined(blocks.iter_blocks(block_size=20)), x)


def test_a_chunk_stored_without_its_filter_is_read_as_stored(tmp_path: Path) -> None:
    """HDF5 may skip a filter for one chunk and notes it in a mask."""
    x = counts().astype("float32")
    path = write_file(tmp_path / "a.h5ad", x, compression="gzip", shuffle=True, fletcher32=True)
    with h5py.File(path, "r+") as file:
        for name in ("data", "indices"):
            dset = file["X"][name]
            part = np.zeros(100, dset.dtype)
            part[:] = dset[100:200]
            content = part.tobytes()
            sum32 = fletcher32(content).to_bytes(4, "little")
            # shuffle and gzip (filters 0 and 1) skipped, checksum (2) applied
            dset.id.write_direct_chunk((100,), content + sum32, filter_mask=0b011)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["X/data"][:], x.data)
    with open_blocks(path) as blocks:
        same(joined(blocks.iter_blocks(block_size=20)), x)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=700), st.integers(0, 3))
def test_fletcher32_is_hdf5s(content: bytes, extra: int) -> None:
    """The witness is HDF5: it stores the checksum after the chunk's bytes."""
    content = content + b"\xff" * extra or b"\0"
    with h5py.File("none", "w", driver="core", backing_store=False) as file:
        dset = file.create_dataset(
            "a", data=np.frombuffer(content, "u1"), chunks=(len(content),), fletcher32=True
        )
        _, raw = dset.id.read_direct_chunk((0,))
    assert fletcher32(content) == int.from_bytes(raw[-4:], "little")


def test_fletcher32_of_much_more_than_a_piece() -> None:
    content = np.random.default_rng(0).integers(0, 256, 700_001, dtype="u1")
    with h5py.File("none", "w", driver="core", backing_store=False) as file:
        dset = file.create_dataset("a", data=content, chunks=content.shape, fletcher32=True)
        _, raw = dset.id.read_direct_chunk((0,))
    assert fletcher32(content) == int.from_bytes(raw[-4:], "little")


def test_the_fast_way_is_taken_where_it_can_be(tmp_path: Path) -> None:
    """Every test here would pass if all went through HDF5's slow way; this one would not."""
    x = counts().astype("float32")
    for name, filters in FILTERS.items():
        path = write_file(tmp_path / f"{name}.h5ad", x, **filters)
        with h5py.File(path) as file:
            vector = H5Vector(file["X/data"], "X/data")
            assert (vector._pipeline is None) == name.startswith("lzf")


# ---------------------------------------------------------------- other encodings and keys


@pytest.mark.parametrize(
    "attrs",
    [
        {"h5sparse_format": "csr", "h5sparse_shape": np.array([N_OBS, N_VARS])},
        {"h5sparse_format": b"csr", "h5sparse_shape": np.array([N_OBS, N_VARS])},
        {},
    ],
    ids=["h5sparse", "h5sparse_bytes", "undeclared"],
)
def test_old_encodings(tmp_path: Path, attrs: dict[str, Any]) -> None:
    x = counts().astype("float32")
    path = write_file(tmp_path / "a.h5ad", x, attrs=attrs)
    with open_blocks(path) as blocks:
        assert blocks.storage == "csr"
        same(joined(blocks.iter_blocks()), x)


def test_undeclared_square_matrix_is_not_guessed(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.h5ad", counts(n_obs=30, n_vars=30).astype("f4"), attrs={})
    with pytest.raises(InputDataError, match="by rows or by columns"):
        open_blocks(path)


def test_raw_and_layers_old_and_new_style(tmp_path: Path) -> None:
    x, raw = counts(1).astype("float32"), counts(2, n_vars=60).astype("float32")
    adata = ad.AnnData(x, **frames(), layers={"my layer": counts(3)})
    adata.raw = ad.AnnData(raw, **frames(n_vars=60))
    new = tmp_path / "new.h5ad"
    adata.write_h5ad(new)
    old = tmp_path / "old.h5ad"
    with h5py.File(new) as source, h5py.File(old, "w") as target:
        for name in ("X", "obs", "var", "layers"):
            source.copy(name, target)
        source.copy("raw/X", target, "raw.X")
        source.copy("raw/var", target, "raw.var")
    for path in (new, old):
        same(joined(open_blocks(path).iter_blocks()), x)
        same(joined(open_blocks(path, matrix="raw.X").iter_blocks(), 60), raw)
        same(joined(open_blocks(path, matrix="layers/my layer").iter_blocks()), counts(3))
    with pytest.raises(InputDataError, match=r"no matrix 'layers/x'; it has 'X', 'raw\.X'"):
        open_blocks(new, matrix="layers/x")
    with pytest.raises(InputDataError, match=r"write 'X', 'raw\.X' or 'layers/NAME'"):
        open_blocks(new, matrix="counts")


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0), (4, 6)])
@pytest.mark.parametrize("storage", ["csr", "csc", "dense"])
def test_empty_matrices(tmp_path: Path, shape: tuple[int, int], storage: str) -> None:
    x = sparse.csr_matrix(shape, dtype="f4")
    stored = x.toarray() if storage == "dense" else x.asformat(storage)
    chunk = None if storage == "dense" else 100
    path = write_file(tmp_path / "a.h5ad", stored, chunk=chunk)
    for source in (path, stored):
        with open_blocks(source) as blocks:
            found = list(blocks.iter_blocks(block_size=3))
        assert [b.n_obs for b in found] == [3] * (shape[0] // 3) + (
            [r] if (r := shape[0] % 3) else []
        )
        assert all(b.n_vars == shape[1] and len(b.data) == 0 for b in found)


# ---------------------------------------------------------------- the order of work does not show


@contextmanager
def parts_of(n_bytes: int) -> Iterator[None]:
    """Small tasks, so that small matrices have seams between threads."""
    old = _rows._PART_BYTES, _rows._BAND_BYTES, _tiles._TILE_ENTRIES, _tiles._BAND_ENTRIES
    _rows._PART_BYTES = _rows._BAND_BYTES = n_bytes
    _tiles._TILE_ENTRIES = _tiles._BAND_ENTRIES = max(1, n_bytes // 4)
    try:
        yield
    finally:
        _rows._PART_BYTES, _rows._BAND_BYTES, _tiles._TILE_ENTRIES, _tiles._BAND_ENTRIES = old


def identical(a: list[CsrBlock], b: sparse.csr_matrix, first: int) -> None:
    """Block by block the same bytes as the slices of `b`."""
    for block in a:
        lo = block.start - first
        part = b[lo : lo + block.n_obs]
        np.testing.assert_array_equal(block.indptr, part.indptr)
        assert block.indices.tobytes() == part.indices.astype("i4").tobytes()
        assert block.data.tobytes() == part.data.tobytes()


@st.composite
def messy_csr(draw: Callable[..., Any]) -> sparse.csr_matrix:
    """CSR with unsorted and repeated columns, stored zeros, empty rows; sums are exact."""
    n_obs, n_vars = draw(st.integers(1, 25)), draw(st.integers(1, 12))
    tidy = draw(st.booleans())
    rows = []
    for _ in range(n_obs):
        columns = draw(st.lists(st.integers(0, n_vars - 1), max_size=10, unique=tidy))
        rows.append(sorted(columns) if tidy else columns)
    n = sum(map(len, rows))
    low = 1 if tidy and draw(st.booleans()) else -2
    data = draw(st.lists(st.integers(low, 3), min_size=n, max_size=n))
    dtype = draw(st.sampled_from(["float32", "float64", "int16", "int64"]))
    x = sparse.csr_matrix((n_obs, n_vars), dtype=dtype)
    x.data = np.array(data, dtype=dtype)
    x.indices = np.array([c for row in rows for c in row], dtype=np.int32)
    x.indptr = np.concatenate([[0], np.cumsum([len(r) for r in rows])]).astype(np.int32)
    return x


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    x=messy_csr(),
    storage=st.sampled_from(["csr", "csc", "dense"]),
    chunk=st.sampled_from([1, 3, 8, 50]),
    filters=st.sampled_from([{}, {"compression": "gzip"}, {"compression": "lzf"}]),
    block_size=st.integers(1, 30),
    threads=st.integers(1, 3),
    part=st.sampled_from([8, 64, 1 << 19]),
    memory=st.sampled_from([0, 100, 1 << 20]),
    ends=st.tuples(st.integers(0, 25), st.integers(0, 25)),
)
def test_any_block_size_threads_chunks_and_rows_give_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory,
    x: sparse.csr_matrix,
    storage: str,
    chunk: int,
    filters: dict[str, Any],
    block_size: int,
    threads: int,
    part: int,
    memory: int,
    ends: tuple[int, int],
) -> None:
    dense = np.zeros(x.shape, x.dtype)  # the witness: one assignment per stored entry
    for row in range(x.shape[0]):
        for k in range(x.indptr[row], x.indptr[row + 1]):
            dense[row, x.indices[k]] += x.data[k]
    expected = sparse.csr_matrix(dense)
    if storage == "csc":
        # scipy's own conversion would sum; keep repeated and unsorted entries
        order = np.argsort(x.indices, kind="stable")[::1]
        rows = np.repeat(np.arange(x.shape[0]), np.diff(x.indptr))[order]
        pointers = np.searchsorted(x.indices[order], np.arange(x.shape[1] + 1))
        stored: Any = sparse.csc_matrix(x.shape, dtype=x.dtype)
        stored.data, stored.indices, stored.indptr = x.data[order], rows, pointers
    else:
        stored = dense if storage == "dense" else x
    path = tmp_path_factory.getbasetemp() / "hypothesis.h5ad"
    tile = (min(chunk, x.shape[0]), min(3, x.shape[1])) if storage == "dense" else chunk
    write_file(path, stored, chunk=tile, **filters)
    first, last = sorted(min(end, x.shape[0]) for end in ends)
    with parts_of(part), open_blocks(path, memory=memory) as blocks:
        whole = list(blocks.iter_blocks(block_size=block_size, threads=threads))
        some = list(blocks.iter_blocks(block_size=block_size, threads=threads, rows=(first, last)))
    assert [b.n_obs for b in whole[:-1]] == [block_size] * (len(whole) - 1)
    assert sum(b.n_obs for b in whole) == x.shape[0]
    assert sum(b.n_obs for b in some) == last - first
    assert [b.start for b in some] == list(range(first, last, block_size))
    identical(whole, expected, 0)
    identical(some, expected[first:last], first)
    # and the same from memory, with the caller's arrays untouched
    before = stored.copy()
    with open_blocks(stored) as blocks:
        identical(list(blocks.iter_blocks(block_size=block_size)), expected, 0)
    if storage == "dense":
        np.testing.assert_array_equal(stored, before)
    else:
        for name in ("data", "indices", "indptr"):
            np.testing.assert_array_equal(getattr(stored, name), getattr(before, name))


@pytest.mark.parametrize("chunk", [1, 3, 7, 40])
@pytest.mark.parametrize("part", [4, 12, 1 << 19])
def test_disorder_is_found_wherever_the_work_is_cut(tmp_path: Path, chunk: int, part: int) -> None:
    """Each pair of neighbours swapped once: no seam between chunks or tasks goes unseen."""
    expected = sparse.csr_matrix(np.arange(1.0, 121).reshape(12, 10))
    for at in range(9):
        swapped = expected.copy()
        for k in range(at, 120, 10):
            for values in (swapped.indices, swapped.data):
                values[k], values[k + 1] = values[k + 1], values[k]
        path = write_file(tmp_path / "a.h5ad", swapped, chunk=chunk)
        with parts_of(part), open_blocks(path) as blocks:
            for size in (1, 5, 12):
                found = list(blocks.iter_blocks(block_size=size, threads=2))
                identical(found, expected, 0)


def test_disorder_in_one_place_is_found(tmp_path: Path) -> None:
    """As above, with the rest of the block in order, so that only one seam can tell."""
    expected = sparse.csr_matrix(np.arange(1.0, 121).reshape(4, 30))
    for k in [k for k in range(90) if k % 30 != 29]:
        swapped = expected.copy()
        for values in (swapped.indices, swapped.data):
            values[k], values[k + 1] = values[k + 1], values[k]
        path = write_file(tmp_path / "a.h5ad", swapped, chunk=7)
        with parts_of(28), open_blocks(path) as blocks:
            identical(list(blocks.iter_blocks(block_size=3)), expected, 0)


@pytest.mark.parametrize("part", [4, 12, 1 << 19])
def test_the_first_bad_value_is_named_wherever_the_work_is_cut(tmp_path: Path, part: int) -> None:
    x = sparse.csr_matrix(np.ones((3, 40)))
    for k in range(40):
        x.data[79 - k] = np.nan
        path = write_file(tmp_path / "a.h5ad", x, chunk=7)
        with (
            parts_of(part),
            open_blocks(path) as blocks,
            pytest.raises(InputDataError, match=f"row 1, column {39 - k} holds nan"),
        ):
            list(blocks.iter_blocks(threads=2, block_size=2))


def test_a_chunk_that_many_blocks_share_is_decoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = counts().astype("float32")
    path = write_file(tmp_path / "a.h5ad", x, chunk=200, compression="gzip")
    decoded = []
    real = Pipeline.decode
    monkeypatch.setattr(Pipeline, "decode", lambda *a: (decoded.append(1), real(*a))[1])
    with open_blocks(path) as blocks:
        same(joined(blocks.iter_blocks(block_size=1, threads=2)), x)
    assert len(decoded) == 2 * -(-x.nnz // 200) + 1  # data and indices; indptr


@pytest.mark.parametrize("storage", ["csr", "csc", "dense"])
def test_any_sequence_of_row_ranges(tmp_path: Path, storage: str) -> None:
    """What one pass keeps for the next must not narrow it."""
    x = counts().astype("float32")
    stored = x.toarray() if storage == "dense" else x.asformat(storage)
    chunk = (17, 10) if storage == "dense" else 100
    path = write_file(tmp_path / "a.h5ad", stored, chunk=chunk, compression="gzip")
    with open_blocks(path) as blocks:
        for a, b in [(10, 20), (12, 15), (0, N_OBS), (50, N_OBS), (5, 5)]:
            same(joined(blocks.iter_blocks(block_size=4, rows=(a, b))), x[a:b])


def test_csc_beyond_its_memory_goes_through_a_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = counts(n_obs=300).astype("float32")
    path = write_file(tmp_path / "a.h5ad", x.tocsc(), compression="gzip")
    made: list[bool] = []
    real = _tiles.tempfile.TemporaryFile
    monkeypatch.setattr(
        _tiles.tempfile, "TemporaryFile", lambda **k: (made.append(True), real(**k))[1]
    )
    with parts_of(400):
        with open_blocks(path) as blocks:
            same(joined(blocks.iter_blocks(block_size=20, threads=2)), x)
        assert not made
        with open_blocks(path, memory=2000) as blocks:
            same(joined(blocks.iter_blocks(block_size=20, threads=2)), x)
            same(joined(blocks.iter_blocks(block_size=7, threads=2)), x)
    assert made == [True], "one scratch file, kept for the second pass"


def test_a_dense_matrix_is_never_held_whole(tmp_path: Path) -> None:
    x = np.zeros((20_000, 400), dtype="float32")  # 32 MB
    x[::7, ::9] = 1
    path = write_file(tmp_path / "a.h5ad", x, chunk=(500, 100), compression="gzip")
    expected = int((x != 0).sum())
    del x
    tracemalloc.start()
    with open_blocks(path) as blocks:
        n = sum(len(b.data) for b in blocks.iter_blocks(block_size=500, threads=2))
        peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n == expected
    assert peak < 12e6


def test_csr_is_held_a_few_blocks_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = sparse.random(8000, 500, 0.25, format="csr", dtype="float32", random_state=0)  # 8 MB
    path = write_file(tmp_path / "a.h5ad", x, chunk=4000, compression="gzip")
    monkeypatch.setattr(_rows, "_AHEAD_BYTES", 0)  # by default, more blocks if they are small
    with open_blocks(path) as blocks:
        next(blocks.iter_blocks())  # imports, the chunk index
        tracemalloc.start()
        for block in blocks.iter_blocks(block_size=200, threads=2):
            size = block.data.nbytes + block.indices.nbytes
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 5 * size + 8 * 8000


def test_stopping_early_leaves_no_thread(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.h5ad", counts().astype("f4"), compression="gzip")
    before = threading.active_count()
    with open_blocks(path) as blocks:
        reader = blocks.iter_blocks(block_size=2, threads=2)
        next(reader)
        assert threading.active_count() > before
        reader.close()
        assert threading.active_count() == before
    blocks = open_blocks(path)
    del blocks
    gc.collect()
    path.unlink()


def test_arguments_are_checked() -> None:
    blocks = open_blocks(np.eye(3))
    for wrong in ({"block_size": 0}, {"threads": 0}, {"rows": (2, 1)}, {"rows": (0, 4)}):
        with pytest.raises(ValueError, match="must be at least 1|not within 0 to 3"):
            blocks.iter_blocks(**wrong)


# ---------------------------------------------------------------- objects in memory


def memory_sources(x: sparse.csr_matrix) -> dict[str, Any]:
    import dask.array as da

    dense = x.toarray()
    return {
        "csr_matrix": x,
        "csr_array": sparse.csr_array(x),
        "csc_matrix": x.tocsc(),
        "csc_array": sparse.csc_array(x),
        "coo": x.tocoo(),
        "lil": x.tolil(),
        "ndarray": dense,
        "fortran": np.asfortranarray(dense),
        "dask_dense": da.from_array(dense, chunks=(10, 20)),
        "dask_csr": da.from_array(dense, chunks=(10, -1)).map_blocks(sparse.csr_matrix),
        "dask_one": da.from_array(dense, chunks=(-1, -1)),
    }


@pytest.mark.parametrize("name", list(memory_sources(counts())))
def test_bare_matrices(name: str) -> None:
    x = counts().astype("float32")
    with open_blocks(memory_sources(x)[name]) as blocks:
        found = joined(blocks.iter_blocks(block_size=16, threads=2))
        same(joined(blocks.iter_blocks(block_size=16, rows=(5, 33))), x[5:33])
    same(found, x)
    with pytest.raises(InputDataError, match="A bare matrix has no 'raw.X'"):
        open_blocks(memory_sources(x)[name], matrix="raw.X")


@pytest.mark.parametrize("name", ["csr_matrix", "csc_array", "ndarray", "dask_csr", "dask_dense"])
def test_anndata_in_memory(name: str) -> None:
    x = counts().astype("float32")
    source = memory_sources(x)[name]
    adata = ad.AnnData(source, **frames(), layers={"counts": source})
    raw = counts(4, n_vars=55).astype("int32")
    adata.raw = ad.AnnData(raw, **frames(n_vars=55))
    same(joined(open_blocks(adata).iter_blocks(block_size=16)), x)
    same(joined(open_blocks(adata, matrix="layers/counts").iter_blocks(block_size=16)), x)
    same(joined(open_blocks(adata, matrix="raw.X").iter_blocks(block_size=16), 55), raw)
    view = adata[5:30, ::2]
    same(joined(open_blocks(view).iter_blocks(block_size=16), 24), x[5:30, ::2])
    with pytest.raises(
        InputDataError, match="no matrix 'layers/x'; it has X, raw.X, layers/counts"
    ):
        open_blocks(adata, matrix="layers/x")


def test_anndata_without_x() -> None:
    adata = ad.AnnData(**frames(), layers={"a": counts()})
    with pytest.raises(InputDataError, match="no matrix 'X'; it has layers/a"):
        open_blocks(adata)


@pytest.mark.parametrize("storage", ["csr", "csc", "dense"])
@pytest.mark.parametrize("mode", ["r", "r+"])
def test_backed_anndata_and_its_views(tmp_path: Path, storage: str, mode: Any) -> None:
    x, raw = counts().astype("float32"), counts(5, n_vars=50).astype("float32")
    adata = ad.AnnData(x.toarray() if storage == "dense" else x.asformat(storage), **frames())
    adata.raw = ad.AnnData(raw, **frames(n_vars=50))
    adata.write_h5ad(tmp_path / "a.h5ad", compression="gzip")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed=mode)
    same(joined(open_blocks(backed).iter_blocks(block_size=16, threads=2)), x)
    same(joined(open_blocks(backed, matrix="raw.X").iter_blocks(block_size=16), 50), raw)
    keep = np.random.default_rng(0).random(N_OBS) < 0.5
    view = backed[keep, [5, 1, 30]]
    same(joined(open_blocks(view).iter_blocks(block_size=4), 3), x[keep][:, [5, 1, 30]])
    with open_blocks(view) as blocks:
        same(joined(blocks.iter_blocks(block_size=4, rows=(3, 11)), 3), x[keep][3:11, [5, 1, 30]])
    same(joined(open_blocks(view, matrix="raw.X").iter_blocks(block_size=4), 50), raw[keep])
    if mode == "r+" and storage != "dense":
        backed.file["X/data"][0] = 99  # not on disk yet
        (block,) = open_blocks(backed).iter_blocks()
        assert block.data.max() == 99
    with pytest.raises(InputDataError, match="cells in the file's order"):
        open_blocks(backed[[3, 2]])
    backed.file.close()


def write_zarr(adata: ad.AnnData, path: Path, zarr_format: Any) -> None:
    with ad.settings.override(zarr_write_format=zarr_format), warnings.catch_warnings():
        # anndata and zarr 3 announce changes of their own defaults
        warnings.simplefilter("ignore")
        adata.write_zarr(path)


def test_a_backed_file_being_changed_is_read_as_changed(tmp_path: Path) -> None:
    """Contiguous values may still lie in HDF5's buffer when the file is read beside it."""
    x = counts().astype("float32").toarray()
    ad.AnnData(x, **frames()).write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r+")
    backed.file["X"][0, :5] = x[0, :5] = 99
    same(joined(open_blocks(backed).iter_blocks()), x)
    backed.file.close()


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("storage", ["csr", "csc", "dense"])
@pytest.mark.parametrize("packed", [False, True])
def test_zarr(tmp_path: Path, zarr_format: Any, storage: str, packed: bool) -> None:
    x = counts().astype("float32")
    adata = ad.AnnData(x.toarray() if storage == "dense" else x.asformat(storage), **frames())
    adata.layers["counts"] = x.astype("int32")
    path = tmp_path / "a.zarr"
    write_zarr(adata, path, zarr_format)
    if packed:
        path = Path(shutil.make_archive(str(path), "zip", path))
    with open_blocks(path) as blocks:
        assert blocks.storage == storage
        assert blocks.nbytes_compressed > 0
        same(joined(blocks.iter_blocks(block_size=16, threads=2)), x)
        same(joined(blocks.iter_blocks(block_size=16, rows=(5, 33))), x[5:33])
    same(joined(open_blocks(path, matrix="layers/counts").iter_blocks()), x)
    with pytest.raises(InputDataError, match="no matrix 'raw.X'; it has 'X', 'layers/counts'"):
        open_blocks(path, matrix="raw.X")


@pytest.mark.parametrize("part", ["data", "indices", "indptr"])
@pytest.mark.parametrize(
    ("codec", "words"),
    [("base64", "codec 'base64', which is not accepted"), ("pickle", "pickle")],
)
def test_zarr_codecs_that_are_not_known_are_refused(
    tmp_path: Path, part: str, codec: str, words: str
) -> None:
    """numcodecs would unpickle, which runs code; what is not known to be harmless is refused."""
    path = tmp_path / "a.zarr"
    write_zarr(ad.AnnData(counts().astype("float32"), **frames()), path, 2)
    meta = path / "X" / part / ".zarray"
    described = json.loads(meta.read_text())
    described["compressor"] = {"id": codec}
    meta.write_text(json.dumps(described))
    with pytest.raises(InputDataError, match=words):
        open_blocks(path)


def test_zarr_damage_is_one_sentence(tmp_path: Path) -> None:
    x = counts().astype("float32")
    path = tmp_path / "a.zarr"
    write_zarr(ad.AnnData(x, **frames()), path, 2)
    chunk = path / "X" / "data" / "0"
    chunk.write_bytes(chunk.read_bytes()[:20])
    with pytest.raises(InputDataError, match=r"X/data in .* is damaged at rows 0 to 60") as caught:
        joined(open_blocks(path).iter_blocks())
    assert "\n" not in str(caught.value)
    (path / "X" / "indptr" / ".zarray").write_text("{")
    with pytest.raises(InputDataError, match="cannot be read as a zarr store") as caught:
        open_blocks(path)
    assert "\n" not in str(caught.value)
    shutil.rmtree(path / "obs")
    with pytest.raises(InputDataError, match="not AnnData"):
        open_blocks(path)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputDataError, match="is a folder but no zarr store"):
        open_blocks(empty)
    with pytest.raises(InputDataError, match="No file or folder"):
        open_blocks(tmp_path / "none.zarr")


# ---------------------------------------------------------------- values and indices that cannot be


def test_duplicates_are_summed_in_a_wide_type_and_must_fit() -> None:
    x = sparse.csr_matrix((2, 3), dtype="uint8")
    x.data = np.array([200, 50, 1], dtype="uint8")
    x.indices = np.array([1, 1, 0], dtype="int32")
    x.indptr = np.array([0, 0, 3], dtype="int32")
    (block,) = open_blocks(x).iter_blocks()
    assert block.data.tolist() == [1, 250]
    x.data = np.array([200, 60, 1], dtype="uint8")
    with pytest.raises(InputDataError, match="row 1 stores one column several times.*uint8"):
        list(open_blocks(x).iter_blocks())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("storage", ["csr", "csc", "dense"])
@pytest.mark.parametrize("where", ["file", "memory", "anndata"])
def test_values_that_are_not_finite_are_named(
    tmp_path: Path, bad: float, storage: str, where: str
) -> None:
    x = counts().astype("float32").tolil()
    x[31, 17] = x[40, 2] = x[31, 20] = bad
    x = x.tocsr()
    source: Any = x.toarray() if storage == "dense" else x.asformat(storage)
    if where == "file":
        chunk = (17, 10) if storage == "dense" else 100
        source = write_file(tmp_path / "a.h5ad", source, chunk=chunk, compression="gzip")
    elif where == "anndata":
        source = ad.AnnData(source, **frames())
    for size in (4, 1000):
        with (
            open_blocks(source) as blocks,
            pytest.raises(InputDataError, match=f"row 31, column 17 holds {bad}; expression"),
        ):
            list(blocks.iter_blocks(block_size=size, threads=2))
    with open_blocks(source) as blocks:  # rows that are not asked for are not judged
        list(blocks.iter_blocks(rows=(0, 31)))


def test_sums_that_overflow_are_not_mistaken_for_infinite_values() -> None:
    x = np.full((2, 3), 3e38, dtype="float32")
    (block,) = open_blocks(x).iter_blocks()
    np.testing.assert_array_equal(block.data, x.ravel())


@pytest.mark.parametrize("storage", ["csr", "csc"])
@pytest.mark.parametrize("value", [-1, "first beyond", 999, 2**31 - 1])
@pytest.mark.parametrize("place", ["file", "memory"])
def test_indices_out_of_range(tmp_path: Path, storage: str, value: Any, place: str) -> None:
    value = (N_VARS if storage == "csr" else N_OBS) if value == "first beyond" else value
    x = counts().astype("float32").asformat(storage)
    x.indices[x.indptr[20]] = value
    source: Any = x
    if place == "file":
        source = write_file(tmp_path / "a.h5ad", x, compression="gzip")
    kind = "row 20 has the column index" if storage == "csr" else "row index"
    with pytest.raises(InputDataError, match=f"{kind}.* {value}, but there are") as caught:
        list(open_blocks(source).iter_blocks(block_size=7, threads=2))
    if place == "file":
        assert str(caught.value).startswith("X/indices in '")


def set_part(path: Path, name: str, edit: Callable[[np.ndarray], Any]) -> Path:
    """Replace X's `name` by its edited copy."""
    with h5py.File(path, "r+") as file:
        values = file["X"][name][:]
        changed = edit(values)
        del file["X"][name]
        file["X"][name] = values if changed is None else changed
    return path


def test_indptr_that_cannot_be(tmp_path: Path) -> None:
    def make() -> Path:
        return write_file(tmp_path / "a.h5ad", counts().astype("f4"), indptr_dtype="int64")

    def swap(p: np.ndarray) -> None:
        p[30] = p[40] + 1

    with pytest.raises(InputDataError, match="X/indptr in .* decreases from .* after entry 30"):
        list(open_blocks(set_part(make(), "indptr", swap)).iter_blocks())

    def negative(p: np.ndarray) -> None:
        p[30:] -= 2**32
        p[-1] += 2**32

    with pytest.raises(InputDataError, match="32-bit overflow"):
        list(open_blocks(set_part(make(), "indptr", negative)).iter_blocks())
    for name, edit, words in [
        ("indptr", lambda p: p[:-1], "61 entries; a csr matrix of 61 x 47 needs 62"),
        ("indptr", lambda p: p + 1, "runs from 1 to"),
        ("indptr", lambda p: p * 2, "but data hold"),
        ("data", lambda p: p[:-1], "values in data but"),
        ("indices", lambda p: p.astype("f4"), "where integers are needed"),
        ("data", lambda p: p.astype("S3"), "expression values must be numbers"),
        ("data", lambda p: p[:, None], "not a one-dimensional array"),
    ]:
        with pytest.raises(InputDataError, match=words):
            open_blocks(set_part(make(), name, edit))


# ---------------------------------------------------------------- damaged bytes


def flip(path: Path, dataset: str, chunk: int = 1) -> None:
    """Change one bit in the middle of a chunk, as a bad disk does."""
    with h5py.File(path) as file:
        info = file[dataset].id.get_chunk_info(chunk)
    with path.open("rb+") as handle:
        handle.seek(info.byte_offset + info.size // 2)
        byte = handle.read(1)[0]
        handle.seek(-1, 1)
        handle.write(bytes([byte ^ 4]))


@pytest.mark.parametrize("filters", ["gzip", "gzip_shuffle", "fletcher", "gzip_shuffle_fletcher"])
@pytest.mark.parametrize("storage", ["csr", "csc", "dense"])
@pytest.mark.parametrize("part", ["data", "indices"])
def test_a_flipped_bit_is_found_by_the_checksum(
    tmp_path: Path, filters: str, storage: str, part: str
) -> None:
    x = counts().astype("float32")
    stored = x.toarray() if storage == "dense" else x.asformat(storage)
    chunk = (17, 10) if storage == "dense" else 100
    path = write_file(tmp_path / "a.h5ad", stored, chunk=chunk, **FILTERS[filters])
    flip(path, "X" if storage == "dense" else f"X/{part}")
    name = "X" if storage == "dense" else f"X/{part}"
    with (
        open_blocks(path) as blocks,
        pytest.raises(
            InputDataError, match=rf"^{name} in .* is damaged at (rows|columns)"
        ) as caught,
    ):
        list(blocks.iter_blocks(block_size=16, threads=2))
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_without_checksum_cannot_be_found(tmp_path: Path) -> None:
    """Uncompressed, unchecked bytes carry no redundancy: this is what such files risk.

    A flip in the values passes as another value. Only what contradicts the rest is found, such
    as an index that leaves the matrix.
    """
    x = counts().astype("float32")
    path = write_file(tmp_path / "a.h5ad", x)
    flip(path, "X/data")
    found = joined(open_blocks(path).iter_blocks())
    assert (found != x).nnz == 1


def test_a_chunk_that_was_never_written_is_not_zero(tmp_path: Path) -> None:
    """HDF5 reads a missing chunk as zeros; in indices or data that is a number out of nothing."""
    x = counts().astype("float32")
    path = write_file(tmp_path / "a.h5ad", x)
    with h5py.File(path, "r+") as file:
        del file["X/data"]
        dset = file["X"].create_dataset("data", shape=(x.nnz,), chunks=(100,), dtype="f4")
        dset[:200] = x.data[:200]
    with pytest.raises(InputDataError, match="X/data in .*: its chunk 2 was never written"):
        list(open_blocks(path).iter_blocks())


def test_a_missing_dense_chunk_is_its_fill_value(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.h5ad", counts().toarray().astype("f4"))
    with h5py.File(path, "r+") as file:
        del file["X"]
        dset = file.create_dataset("X", shape=(N_OBS, N_VARS), chunks=(20, 20), dtype="f4")
        dset[25:30, 22:30] = 5
        expected = dset[:]
    same(joined(open_blocks(path).iter_blocks(block_size=7)), expected)


def test_a_chunk_that_inflates_to_too_much_is_refused(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.h5ad", counts().astype("f4"), compression="gzip")
    with h5py.File(path, "r+") as file:
        file["X/data"].id.write_direct_chunk((100,), zlib.compress(bytes(50_000_000)))
    tracemalloc.start()
    with pytest.raises(InputDataError, match="inflates to more than its 400 bytes"):
        list(open_blocks(path).iter_blocks())
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


@pytest.mark.parametrize("cut", [4, 40])
def test_a_chunk_that_ends_early_is_refused(tmp_path: Path, cut: int) -> None:
    """Also when all values are there and only the checksum is cut off."""
    x = counts().astype("f4")
    path = write_file(tmp_path / "a.h5ad", x, compression="gzip")
    with h5py.File(path, "r+") as file:
        content = zlib.compress(x.data[100:200].tobytes())
        file["X/data"].id.write_direct_chunk((100,), content[:-cut])
    with pytest.raises(InputDataError, match="X/data in .* a chunk ends after"):
        list(open_blocks(path).iter_blocks())


def test_every_truncation_is_one_sentence(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.h5ad", counts().astype("f4"), compression="gzip")
    whole = path.read_bytes()
    for n in range(0, len(whole), max(1, len(whole) // 40)):
        path.write_bytes(whole[:n])
        with pytest.raises(InputDataError) as caught:
            list(open_blocks(path).iter_blocks())
        assert "\n" not in str(caught.value)


def blocks_or_message(path: Path, matrix: str) -> tuple[Any, str | None]:
    """The matrix, or the one line with which it is refused; anything else is raised."""
    message = None
    found = None
    try:
        with open_blocks(path, matrix=matrix) as blocks:
            found = joined(blocks.iter_blocks(block_size=50, threads=2), blocks.n_vars)
    except InputDataError as error:
        message = str(error)
    assert message is None or "\n" not in message
    return found, message


def outside_heaps(content: bytes) -> np.ndarray:
    """Places where damage is tried: not in global heaps, on which HDF5 itself loops for ever."""
    allowed = np.ones(len(content), dtype=bool)
    allowed[:8] = allowed[-16:] = False
    for heap in re.finditer(b"GCOL", content):
        allowed[heap.start() - 16 : heap.start() + 4096] = False
    return np.flatnonzero(allowed)


def test_random_damage_never_gives_another_exception(tmp_path: Path) -> None:
    """Bytes changed anywhere: one InputDataError, or the true values (some bytes mean nothing)."""
    x = counts().astype("float32")
    filters = {"compression": "gzip", "fletcher32": True}
    path = write_file(tmp_path / "a.h5ad", x, **filters)
    whole = bytearray(path.read_bytes())
    places = outside_heaps(bytes(whole))
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        broken = whole.copy()
        at = int(rng.choice(places))
        broken[at : at + int(rng.integers(1, 9))] = rng.bytes(8)
        path.write_bytes(broken)
        _, message = blocks_or_message(path, "X")
        refused += message is not None
    assert refused > 20


# ---------------------------------------------------------------- files nobody here wrote

NOT_READ = (".txt.gz", ".md")


def test_public_files_give_anndatas_values_or_one_sentence(shared: Path) -> None:
    paths = sorted(p for p in (shared / "fixtures").iterdir() if not p.name.endswith(NOT_READ))
    assert len(paths) > 50
    outcomes = {"equal": 0, "refused": 0, "only ours": 0}
    for path in paths:
        adata = _by_anndata(path)
        for matrix in ("X", "raw.X"):
            outcomes[_compare_with_anndata(path, matrix, adata)] += 1
    assert outcomes["equal"] > 70, outcomes


def _compare_with_anndata(path: Path, matrix: str, adata: ad.AnnData | None) -> str:
    found, message = blocks_or_message(path, matrix)
    if message is not None:
        assert path.name in message
        if adata is not None:
            # a refusal needs a reason that anndata's reading shows too
            x = adata.X if matrix == "X" else (adata.raw.X if adata.raw is not None else None)
            values = x.data if sparse.issparse(x) else x
            assert x is None or not np.isfinite(values).all(), message
        return "refused"
    if adata is None:
        return "only ours"
    same(found, adata.X if matrix == "X" else adata.raw.X)
    return "equal"


def _by_anndata(path: Path) -> ad.AnnData | None:
    import zarr

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if path.name.endswith(".zarr.zip"):
                with zarr.storage.ZipStore(path, mode="r") as store:
                    return ad.read_zarr(store)
            return ad.read_h5ad(path)
        except Exception:  # noqa: BLE001  (whatever anndata raises, it cannot be the witness)
            return None


def test_public_data_sets_are_read_as_anndata_reads_them(data: Path) -> None:
    for name in ("pbmc3k_labelled", "wu2020_til200", "zilionis_nsclc300"):
        path = data / f"{name}.h5ad"
        adata = ad.read_h5ad(path)
        with open_blocks(path) as blocks:
            same(joined(blocks.iter_blocks(block_size=500, threads=2), adata.n_vars), adata.X)


def test_row_blocks_describe_themselves() -> None:
    blocks = open_blocks(np.eye(3, dtype="f4"))
    assert isinstance(blocks, RowBlocks)
    assert repr(blocks) == "RowBlocks(the matrix: 3 x 3, dense, float32)"
