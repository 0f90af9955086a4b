"""What is written: whole or not at all, and the same bytes for the same content."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
import zipfile
from enum import StrEnum
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from senoscore.errors import ConfigError, InputDataError
from senoscore.io.artefacts import (
    atomic_path,
    dataset_dir,
    read_npz,
    sha256_file,
    write_h5ad,
    write_json,
    write_npz,
    write_tsv,
)

ODD_NAMES = ["a b", "it's", 'say "x"', "a;b", "$(x)", "größe", "*?", "a&b|c"]


# ---------------------------------------------------------------- atomic_path


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_file_appears_when_it_is_complete(tmp_path: Path, name: str) -> None:
    path = tmp_path / name / f"{name}.tsv.gz"
    with atomic_path(path) as part:
        assert part.parent == path.parent
        assert part.name.endswith(".tsv.gz")
        part.write_text("x")
        assert not path.exists()
    assert path.read_text() == "x"
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("old")

    def write_half() -> None:
        with atomic_path(path) as part:
            part.write_text("new")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_kill_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("old")
    code = (
        "import os, signal, sys\n"
        "from senoscore.io.artefacts import atomic_path\n"
        "with atomic_path(sys.argv[1]) as part:\n"
        "    part.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"


def test_the_usual_permissions_are_given(tmp_path: Path) -> None:
    mask = os.umask(0o022)
    try:
        write_json({}, tmp_path / "a.json")
    finally:
        os.umask(mask)
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o644


# ---------------------------------------------------------------- h5ad


def example() -> ad.AnnData:
    rng = np.random.default_rng(0)
    obs = pd.DataFrame(
        {
            "lineage": pd.Categorical(["T", "B", "T", None]),
            "note": ["x", "größe", "x", "a\tb"],
            "qc_pass": [True, False, True, True],
            "n": [1, 2, 3, 4],
        },
        index=list("abcd"),
    )
    adata = ad.AnnData(rng.normal(size=(4, 3)).astype("f4"), obs=obs)
    adata.layers["pvalue"] = sparse.csr_matrix(rng.random((4, 3)))
    adata.obsm["t_axes"] = pd.DataFrame({"senescence": rng.random(4)}, index=obs.index)
    adata.uns["senoscore"] = {"version": "1", "facts": {"b": 1, "a": [1, 2]}}
    return adata


WRITE = """
import sys
sys.path.insert(0, sys.argv[2])
from test_io_artefacts import example
from senoscore.io.artefacts import write_h5ad
write_h5ad(example(), sys.argv[1])
"""


def test_h5ad_bytes_depend_on_the_content_only(tmp_path: Path) -> None:
    """Written twice here, and by another process with another hash seed, at another path."""
    first = tmp_path / "a.h5ad"
    write_h5ad(example(), first)
    again = tmp_path / "other folder" / "a much longer name.h5ad"
    write_h5ad(example(), again)
    assert sha256_file(first) == sha256_file(again)
    env = os.environ | {"PYTHONHASHSEED": "7"}
    third = tmp_path / "third.h5ad"
    arguments = [sys.executable, "-c", WRITE, str(third), str(Path(__file__).parent)]
    subprocess.run(arguments, check=True, env=env)
    assert sha256_file(first) == sha256_file(third)
    changed = example()
    changed.obs.loc["a", "n"] = 9
    write_h5ad(changed, again)
    assert sha256_file(first) != sha256_file(again)


def test_h5ad_comes_back_and_the_callers_object_is_not_changed(tmp_path: Path) -> None:
    adata = example()
    write_h5ad(adata, tmp_path / "a.h5ad")
    assert adata.obs["note"].dtype == object
    assert not adata.isbacked
    back = ad.read_h5ad(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(back.X, adata.X)
    pd.testing.assert_frame_equal(back.obs, adata.obs)
    pd.testing.assert_frame_equal(back.obsm["t_axes"], adata.obsm["t_axes"])
    assert list(tmp_path.iterdir()) == [tmp_path / "a.h5ad"]


def large(rows: int = 40_000) -> ad.AnnData:
    """Arrays of several chunks, the last one cut, in every place and of every kind."""
    rng = np.random.default_rng(3)
    obs = pd.DataFrame(
        {
            "kind": pd.Categorical.from_codes(rng.integers(0, 3, rows), list("abc")),
            "n": rng.integers(0, 9, rows),
            "ok": rng.random(rows) < 0.5,
            "some": pd.array(rng.integers(0, 9, rows), dtype="Int64"),
        },
        index=[f"c{k}" for k in range(rows)],
    )
    x = rng.random((rows, 7)).astype(np.float32)
    x[::3, 2] = np.nan
    adata = ad.AnnData(x, obs, layers={"flag": x > 0.5, "swapped": x.astype(">f8")})
    adata.obsm["wide"] = np.asfortranarray(x[:, :3])
    adata.obsm["none"] = np.zeros((rows, 0))
    adata.uns["long"] = np.arange(100_000)
    return adata


def test_h5ad_is_what_anndata_writes(tmp_path: Path) -> None:
    """The same names, attributes, types and values; gzip and nothing else, checked by HDF5."""
    for adata in (large(), ad.AnnData(obs=large().obs), example()):
        write_h5ad(adata, tmp_path / "a.h5ad")
        adata.write_h5ad(
            tmp_path / "b.h5ad", compression="gzip", convert_strings_to_categoricals=False
        )
        seen: list[dict[str, Any]] = []
        for name in ("a", "b"):
            with h5py.File(tmp_path / f"{name}.h5ad") as file:
                found = {"/": repr(sorted(file.attrs.items()))}

                def look(key: str, item: Any, found: dict[str, str] = found) -> None:
                    found[key] = repr(sorted((k, str(v)) for k, v in item.attrs.items()))
                    if isinstance(item, h5py.Dataset):
                        content = item[()]
                        found[key] += f"{item.dtype} {item.shape} {item.compression} {item.shuffle}"
                        found[key] += repr(np.asarray(content).tolist())

                file.visititems(look)
                seen.append(found)
        assert seen[0] == seen[1]


# ---------------------------------------------------------------- tsv


def test_tsv_bytes(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "gene": ["CDKN1A", "größe", "a\tb", 'q"q', "l\nl"],
            "z": [0.1, np.nan, 1e-300, -3.0, 1 / 3],
            "n": [1, 2, 3, 4, 5],
            "ok": [True, False, True, True, False],
        }
    )
    write_tsv(frame, tmp_path / "a.tsv")
    assert (tmp_path / "a.tsv").read_bytes() == (
        "gene\tz\tn\tok\n"
        "CDKN1A\t0.1\t1\tTrue\n"
        "größe\tNA\t2\tFalse\n"
        '"a\tb"\t1e-300\t3\tTrue\n'
        '"q""q"\t-3\t4\tTrue\n'
        '"l\nl"\t0.333333333\t5\tFalse\n'
    ).encode()
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "a.tsv", sep="\t"), frame)
    write_tsv(frame.set_index("gene"), tmp_path / "b.tsv", index=True)
    assert (tmp_path / "a.tsv").read_bytes() == (tmp_path / "b.tsv").read_bytes()


def test_tsv_gz_has_no_time_stamp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pd.DataFrame({"a": [1, 2]})
    write_tsv(frame, tmp_path / "a.tsv.gz")
    monkeypatch.setattr("time.time", lambda: 2e9)
    write_tsv(frame, tmp_path / "b.tsv.gz")
    assert sha256_file(tmp_path / "a.tsv.gz") == sha256_file(tmp_path / "b.tsv.gz")
    assert gzip.decompress((tmp_path / "a.tsv.gz").read_bytes()) == b"a\n1\n2\n"


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1), min_size=1
    ),
    values=st.lists(st.floats(width=32, allow_infinity=False), min_size=1),
    categorical=st.booleans(),
)
def test_any_label_and_any_float32_come_back(
    tmp_path_factory: pytest.TempPathFactory,
    labels: list[str],
    values: list[float],
    categorical: bool,
) -> None:
    n = min(len(labels), len(values))
    frame = pd.DataFrame({"label": labels[:n], "value": np.array(values[:n], dtype="float32")})
    if categorical:
        frame["label"] = frame["label"].astype("category")
    path = tmp_path_factory.getbasetemp() / "labels.tsv"
    write_tsv(frame, path)
    back = pd.read_csv(
        path, sep="\t", keep_default_na=False, na_values={"value": ["NA"]}, dtype={"label": str}
    )
    assert back["label"].tolist() == labels[:n]
    np.testing.assert_array_equal(back["value"].to_numpy(dtype="float32"), frame["value"])


# ---------------------------------------------------------------- json


class Colour(StrEnum):
    RED = "red"


@dataclasses.dataclass(frozen=True)
class Fact:
    value: float | None
    how: tuple[str, ...]


def test_json_bytes(tmp_path: Path) -> None:
    obj = {
        "b": np.float32(0.5),
        "a": [np.int64(1), np.array([1.0, np.nan]), {"y", "x"}, None, True],
        "c": Fact(float("nan"), ("größe",)),
        "d": Path("x/y"),
        "e": Colour.RED,
    }
    write_json(obj, tmp_path / "a.json")
    text = (tmp_path / "a.json").read_text("utf-8")
    assert text.endswith("}\n")
    assert "größe" in text
    assert list(json.loads(text)) == ["a", "b", "c", "d", "e"]
    assert json.loads(text) == {
        "a": [1, [1.0, None], ["x", "y"], None, True],
        "b": 0.5,
        "c": {"value": None, "how": ["größe"]},
        "d": "x/y",
        "e": "red",
    }
    write_json(dict(reversed(obj.items())), tmp_path / "b.json")
    assert sha256_file(tmp_path / "a.json") == sha256_file(tmp_path / "b.json")


def test_json_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    for obj, error in [({1: 2}, TypeError), ([object()], TypeError), ([np.inf], ValueError)]:
        with pytest.raises(error):
            write_json(obj, tmp_path / "a.json")
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- npz


@pytest.mark.parametrize("compress", [True, False])
def test_npz_comes_back_and_is_deterministic(tmp_path: Path, compress: bool) -> None:
    arrays = {
        "counts": np.arange(12).reshape(3, 4)[:, ::2],
        "fortran": np.asfortranarray(np.ones((2, 3), "f4")),
        "names": np.array(["CD4", "größe"]),
        "scalar": 3.5,
        "empty": np.zeros((0, 4), "i8"),
    }
    write_npz(arrays, tmp_path / "a.npz", compress=compress)
    write_npz(dict(reversed(arrays.items())), tmp_path / "b.npz", compress=compress)
    assert sha256_file(tmp_path / "a.npz") == sha256_file(tmp_path / "b.npz")
    back = read_npz(tmp_path / "a.npz")
    assert set(back) == set(arrays)
    with np.load(tmp_path / "a.npz") as witness:
        for name, array in arrays.items():
            np.testing.assert_array_equal(back[name], array)
            np.testing.assert_array_equal(witness[name], array)
            assert back[name].dtype == np.asarray(array).dtype
    assert set(read_npz(tmp_path / "a.npz", "e")) == {"empty"}
    assert set(read_npz(tmp_path / "a.npz", "none")) == set()


def test_npz_holds_no_objects(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="'a' holds Python objects"):
        write_npz({"a": np.array([{}], dtype=object)}, tmp_path / "a.npz")
    assert list(tmp_path.iterdir()) == []
    np.savez(tmp_path / "a.npz", a=np.array([{}], dtype=object))
    with pytest.raises(InputDataError, match="is damaged or no .npz file"):
        read_npz(tmp_path / "a.npz")


@pytest.mark.parametrize("compress", [True, False])
def test_damaged_npz_is_one_sentence(tmp_path: Path, compress: bool) -> None:
    path = tmp_path / "a.npz"
    write_npz({"a": np.arange(1000)}, path, compress=compress)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        middle = archive.infolist()[0].header_offset + 400
    for broken in (
        whole[:-30],
        whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
        b"",
        b"PK",
    ):
        path.write_bytes(broken)
        with pytest.raises(InputDataError, match="delete it and run the stage") as caught:
            read_npz(path)
        assert "\n" not in str(caught.value)
    with zipfile.ZipFile(path, "w") as archive, archive.open("a.npy", "w") as member:
        np.lib.format.write_array(member, np.arange(3))
        member.write(b"more")
    with pytest.raises(InputDataError, match="longer than its array"):
        read_npz(path)
    with pytest.raises(InputDataError, match="^No file"):
        read_npz(tmp_path / "none.npz")


# ---------------------------------------------------------------- dataset_dir, sha256


@pytest.mark.parametrize("name", [*ODD_NAMES, "pbmc3k", "a.b", "x" * 200])
def test_dataset_ids_that_are_names(tmp_path: Path, name: str) -> None:
    folder = dataset_dir(tmp_path, name)
    assert folder.parent == tmp_path
    assert folder.name == name
    assert not folder.exists()
    write_json({}, folder / "a.json")
    assert (tmp_path / name / "a.json").exists()


@pytest.mark.parametrize(
    "name",
    [
        *("", " ", ".", "..", "../x", "a/../../x", "/etc", "a/b", "a\\b", "C:\\x", "a\0b"),
        *("a\nb", "-rf", ".hidden", "x" * 201, "\ud800", "\x7f", None, 3),
    ],
)
def test_dataset_ids_that_could_leave_the_folder(tmp_path: Path, name: object) -> None:
    with pytest.raises(ConfigError, match="dataset id") as caught:
        dataset_dir(tmp_path, name)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()
