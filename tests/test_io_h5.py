"""Files that are damaged, hostile or something else: one sentence each."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from senoscore.errors import InputDataError
from senoscore.io.blocks import open_blocks
from senoscore.io.h5 import find_node, frame_length, matrix_header, matrix_keys, safe_h5_open


@pytest.fixture
def h5ad(tmp_path: Path) -> Path:
    """A file with everything that is looked at."""
    x = sparse.random(20, 10, 0.3, format="csr", dtype="float32", random_state=0)
    obs = pd.DataFrame(
        {"type": pd.Categorical(["a", "b"] * 10), "n": range(20)},
        index=[f"c{i}" for i in range(20)],
    )
    adata = ad.AnnData(x, obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(10)]))
    adata.layers["counts"] = x.tocsc()
    adata.layers["dense"] = x.toarray()
    adata.obsm["X_umap"] = np.zeros((20, 2))
    adata.uns["nested"] = {"deep": {"deeper": np.arange(3)}}
    adata.raw = adata
    path = tmp_path / "a b;'c\".h5ad"
    adata.write_h5ad(path, compression="gzip")
    return path


def refusal(path: Path | str, **options: bool) -> str:
    """The one-line message with which a file is refused."""
    with pytest.raises(InputDataError) as caught, safe_h5_open(path, **options):
        pass
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith((".", ")"))
    return message


def message_of(path: Path) -> str | None:
    """As :func:`refusal`, or None for a file that opens; anything else is raised."""
    message = None
    try:
        with safe_h5_open(path, everything=True) as file:
            matrix_keys(file)
    except InputDataError as error:
        message = str(error)
    assert message is None or "\n" not in message
    return message


def test_a_good_file_opens_and_is_described(h5ad: Path) -> None:
    with safe_h5_open(h5ad, everything=True) as file:
        assert isinstance(file, h5py.File)
        assert file.mode == "r"
        assert matrix_keys(file) == ["X", "raw.X", "layers/counts", "layers/dense"]
        assert frame_length(file, "obs") == 20
        assert frame_length(file, "raw/var") == 10
        assert frame_length(file, "nothing") is None
        found = {key: matrix_header(file, key, h5ad) for key in matrix_keys(file)}
        assert [h.storage for h in found.values()] == ["csr", "csr", "csc", "dense"]
        assert {h.shape for h in found.values()} == {(20, 10)}
        assert found["X"].nnz == file["X/data"].shape[0]
        assert find_node(file, "uns/nested/deep/deeper")[:].tolist() == [0, 1, 2]
        assert find_node(file, "uns/none/deeper") is None
    assert not file


# ---------------------------------------------------------------- not HDF5, not AnnData


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git-lfs pointer"),
        (gzip.compress(b"x" * 100, mtime=0), "gzip-compressed. Unpack it with `gunzip`"),
        (b"<!DOCTYPE html><html>404</html>", "web page"),
        (b"PK\x03\x04" + bytes(50), "zip archive"),
        (b"%%MatrixMarket matrix coordinate\n", "MatrixMarket"),
        (bytes(4096), "starts with zeros only"),
        (b"cell,gene\n1,2\n", "it starts with b'cell,gene"),
        (b"", "is empty \\(0 bytes\\)"),
    ],
)
def test_what_is_not_hdf5_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a.h5ad"
    path.write_bytes(content)
    assert re.search(words, refusal(path))
    assert repr(str(path)) in refusal(path)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.h5ad").startswith("No file '")
    assert "is a folder" in refusal(tmp_path)
    assert "Cannot open" in refusal("a\0b")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    assert "not a regular file" in refusal(fifo)


def test_a_name_with_a_line_break_stays_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a\nb.h5ad"
    path.write_bytes(b"nothing")
    assert r"a\nb" in refusal(path)


@pytest.mark.parametrize("version", [2, 3])
def test_10x_files_are_named(tmp_path: Path, version: int) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix" if version == 3 else "GRCh38")
        for name in ("barcodes", "data", "indices", "indptr", "shape"):
            group[name] = np.arange(3)
    assert "10x Genomics" in refusal(path)
    assert "read_10x_h5" in refusal(path)


def test_other_hdf5_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_group("mod/atac")
        file.create_group("obs")
        file.create_group("var")
    assert "MuData file with no modality of genes" in refusal(path)
    with h5py.File(path, "w") as file:
        file.create_group("mod/rna/obs")
    assert "modality 'rna' has no var" in refusal(path)
    with h5py.File(path, "w") as file:
        file["mod/rna"] = h5py.ExternalLink("other.h5", "rna")
    assert "external link" in refusal(path)
    with h5py.File(path, "w") as file:
        file.create_group("row_attrs")
        file.create_group("col_attrs")
    assert "loom" in refusal(path)
    with h5py.File(path, "w") as file:
        file.create_group("obs")
        file.create_group("other")
    assert "it has no var; it holds 'obs', 'other'" in refusal(path)
    with h5py.File(path, "w"):
        pass
    assert "it has no obs and var; it holds none" in refusal(path)


# ---------------------------------------------------------------- truncated


def test_a_truncated_file_says_both_sizes(h5ad: Path) -> None:
    whole = h5ad.read_bytes()
    h5ad.write_bytes(whole[:-1000])
    message = refusal(h5ad)
    assert f"truncated: it has {len(whole) - 1000} bytes" in message
    assert f"declares {len(whole)}" in message


def test_hdf5s_errors_inside_the_block_are_one_sentence_and_others_stay(h5ad: Path) -> None:
    with h5py.File(h5ad) as file:
        info = file["obs/n"].id.get_chunk_info(0)
    with h5ad.open("rb+") as handle:
        handle.seek(info.byte_offset + 4)
        handle.write(b"\xff" * 8)
    with pytest.raises(InputDataError, match="is damaged: HDF5 says"), safe_h5_open(h5ad) as file:
        file["obs/n"][:]
    with pytest.raises(KeyError, match="mine"), safe_h5_open(h5ad):
        raise KeyError("mine")
    with pytest.raises(OSError, match="mine"), safe_h5_open(h5ad):
        raise OSError("mine")


# ---------------------------------------------------------------- links and storage

WALKED = ["X", "X/data", "raw/X/indptr", "layers/counts/indices", "obs/n", "var/_index", "uns/a"]


def replace(path: Path, name: str, make: Callable[[h5py.File, str], None]) -> None:
    with h5py.File(path, "r+") as file:
        if name in file:
            del file[name]
        make(file, name)


@pytest.mark.parametrize("name", [*WALKED, "obs", "obsm/X_umap"])
def test_external_links_are_refused_and_never_opened(h5ad: Path, name: str) -> None:
    other = h5ad.with_name("other.h5")
    shutil.copy(h5ad, other)

    def make(file: h5py.File, at: str) -> None:
        file[at] = h5py.ExternalLink(str(other), "/X")

    replace(h5ad, name, make)
    message = refusal(h5ad)
    assert f"'{name}' in" in message
    assert "external link" in message
    assert "other.h5" in message
    if name.startswith("X"):
        with pytest.raises(InputDataError, match="external link"):
            open_blocks(h5ad)


def test_an_external_link_deep_in_uns_is_met_by_find_node(h5ad: Path) -> None:
    with h5py.File(h5ad, "r+") as file:
        file["uns/nested/deep/out"] = h5py.ExternalLink("other.h5", "/X")
        file["uns/nested/deep/soft"] = h5py.SoftLink("/uns/nested/deep/out/data")
    with safe_h5_open(h5ad) as file:
        for name in ("out", "out/below", "soft"):
            with pytest.raises(InputDataError, match="external link"):
                find_node(file, f"uns/nested/deep/{name}")
    assert "external link" in refusal(h5ad, everything=True)


def test_soft_links_are_fine_inside_and_refused_outside(h5ad: Path) -> None:
    with h5py.File(h5ad, "r+") as file:
        file.move("X", "elsewhere")
        file["middle"] = h5py.SoftLink("elsewhere")
        file["X"] = h5py.SoftLink("/middle")
        file["obs/again"] = h5py.SoftLink("n")
    with h5py.File(h5ad) as file:
        expected = file["elsewhere/data"][:]
    (block,) = open_blocks(h5ad).iter_blocks()
    np.testing.assert_array_equal(block.data, expected)

    def out(file: h5py.File, _: str) -> None:
        file["middle"] = h5py.ExternalLink("other.h5", "/X")

    replace(h5ad, "middle", out)
    assert "external link" in refusal(h5ad)
    replace(h5ad, "middle", lambda file, at: file.__setitem__(at, h5py.SoftLink("/X")))
    assert "links without end" in refusal(h5ad)
    replace(h5ad, "middle", lambda file, at: None)
    assert "'X' in" in refusal(h5ad)
    assert "link to nothing" in refusal(h5ad)


def test_groups_that_hold_themselves_end(h5ad: Path) -> None:
    with h5py.File(h5ad, "r+") as file:
        file["obs/self"] = file["obs"]
        file["uns/root"] = file["/"]
    with safe_h5_open(h5ad, everything=True) as file:
        assert matrix_keys(file)


@pytest.mark.parametrize("name", ["X/data", "layers/dense", "obs/n", "uns/a"])
def test_virtual_datasets_are_refused(h5ad: Path, name: str) -> None:
    def make(file: h5py.File, at: str) -> None:
        layout = h5py.VirtualLayout(shape=(20,), dtype="f4")
        layout[:] = h5py.VirtualSource("other.h5", "a", shape=(20,))
        file.create_virtual_dataset(at, layout)

    replace(h5ad, name, make)
    assert f"'{name}' in" in refusal(h5ad)
    assert "virtual dataset" in refusal(h5ad)


@pytest.mark.parametrize("name", ["X/data", "layers/dense", "obs/n", "uns/a"])
def test_external_storage_is_refused(h5ad: Path, name: str) -> None:
    secret = h5ad.with_name("secret.bin")
    secret.write_bytes(bytes(80))

    def make(file: h5py.File, at: str) -> None:
        file.create_dataset(at, (20,), "f4", external=[(str(secret), 0, 80)])

    replace(h5ad, name, make)
    assert f"'{name}' in" in refusal(h5ad)
    assert "external storage" in refusal(h5ad)


def test_only_what_is_needed_is_walked(h5ad: Path) -> None:
    """A large tree in uns costs nothing; asking for everything meets its limit."""
    with h5py.File(h5ad, "r+") as file:
        big = file.create_group("uns/nested/big")
        for i in range(300):
            big.create_group(str(i))
    opened = []
    real = h5py.h5o.get_info
    try:
        h5py.h5o.get_info = lambda *a: (opened.append(a), real(*a))[1]
        with safe_h5_open(h5ad):
            n = len(opened)
    finally:
        h5py.h5o.get_info = real
    assert 0 < n < 150


# ---------------------------------------------------------------- declared sizes


def declare(path: Path, name: str, attr: str, value: object) -> None:
    with h5py.File(path, "r+") as file:
        file[name].attrs[attr] = value


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ([10**15, 10], "21 entries; a csr matrix of 1000000000000000 x 10 needs"),
        ([20, 2**40], "too many to be cells and genes"),
        ([-20, 10], "no number of rows and columns"),
        ([20], "no number of rows and columns"),
        ([20.0, 10.0], "no number of rows and columns"),
        ([20, 11], "has 11 columns but var has 10 entries"),
    ],
)
def test_absurd_shapes_are_refused(h5ad: Path, shape: list[int], words: str) -> None:
    declare(h5ad, "X", "shape", shape)
    assert words in refusal(h5ad)


def test_a_layer_of_an_unknown_kind_hinders_nobody_who_does_not_ask_for_it(h5ad: Path) -> None:
    declare(h5ad, "layers/counts", "encoding-type", "awkward-array")
    with safe_h5_open(h5ad):
        pass
    assert open_blocks(h5ad).n_obs == 20
    with pytest.raises(InputDataError, match="is encoded as 'awkward-array'; csr_matrix"):
        open_blocks(h5ad, matrix="layers/counts")


@pytest.mark.parametrize("name", ["data", "indptr"])
@pytest.mark.parametrize("n", [10**6, 10**12, 10**18])
def test_lengths_without_bytes_are_refused_before_anything_is_allocated(
    h5ad: Path, name: str, n: int
) -> None:
    def make(file: h5py.File, at: str) -> None:
        dtype = "f4" if at == "X/data" else "i8"
        dset = file.create_dataset(at, (n,), dtype, chunks=(1000,), maxshape=(None,))
        dset[-1] = n

    tracemalloc.start()
    if name == "data":  # consistent with each other, so only the bytes tell
        replace(h5ad, "X/data", make)
        replace(h5ad, "X/indices", make)
    else:
        replace(h5ad, "X/indptr", make)
        declare(h5ad, "X", "shape", [n - 1, 10])
    message = refusal(h5ad)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()
    assert re.search(r"bytes are stored|but data hold", message), message


def test_a_dense_matrix_without_bytes_is_refused(h5ad: Path) -> None:
    def make(file: h5py.File, at: str) -> None:
        file.create_dataset(at, (10**6, 10**6), "f4", chunks=(100, 100))

    replace(h5ad, "X", make)
    assert "declares 1000000 x 1000000 values but only 0 bytes are stored" in refusal(h5ad)


def test_missing_parts_are_named(h5ad: Path) -> None:
    replace(h5ad, "X/indices", lambda file, at: None)
    assert "X/indices in" in refusal(h5ad)
    assert "is missing" in refusal(h5ad)


def outside_heaps(content: bytes) -> np.ndarray:
    """Places where damage is tried: not in global heaps, on which HDF5 itself loops for ever."""
    allowed = np.ones(len(content), dtype=bool)
    allowed[:8] = allowed[-16:] = False
    for heap in re.finditer(b"GCOL", content):
        allowed[heap.start() - 16 : heap.start() + 4096] = False
    return np.flatnonzero(allowed)


def test_random_damage_to_the_headers_is_always_one_sentence(h5ad: Path) -> None:
    whole = h5ad.read_bytes()
    places = outside_heaps(whole)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        broken = bytearray(whole)
        for _ in range(3):
            at = int(rng.choice(places))
            broken[at : at + 8] = rng.bytes(8)
        h5ad.write_bytes(broken)
        refused += message_of(h5ad) is not None
    assert refused > 20


def test_public_files_are_opened_or_refused_in_one_sentence(shared: Path) -> None:
    words = {
        "lfspointer__pbmc3k__87c0c1.h5ad": "git-lfs pointer",
        "scanpy__multiple_genomes__c1834e.h5": "10x Genomics",
        "cellxgene__hgnc_example__0ea515.txt.gz": "gzip-compressed",
    }
    for path in sorted((shared / "fixtures").iterdir()):
        message = message_of(path)
        assert words.get(path.name, "") in (message or ""), message
