"""The config file: short forms, every mistake at once with its place, one truth for defaults."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from senoscore import config
from senoscore.errors import ConfigError
from senoscore.pipeline import SECTIONS as READ_BY_STAGES
from senoscore.settings import Settings, default_settings

ROOT = Path(__file__).resolve().parents[1]


def mistakes(text: str, folder: Path) -> list[str]:
    """The mistakes in a config, without the name of the file."""
    file = folder / "c.yaml"
    file.write_text(text, "utf-8")
    with pytest.raises(ConfigError) as caught:
        config.load(file, name="c.yaml")
    message = str(caught.value)
    lines = message.splitlines()
    if len(lines) == 1:
        return [message.removeprefix("c.yaml, ").removeprefix("c.yaml: ")]
    assert lines[0] == f"c.yaml: {len(lines) - 1} mistakes"
    return [line.strip() for line in lines[1:]]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# -------------------------------------------------------------------------------------------------
# one truth per fact


def test_keys_types_and_defaults_are_those_of_the_library() -> None:
    defaults = default_settings()
    about_files = defaults.pop("dataset")
    model = config.parse({}, datasets=False).model
    made = {name: getattr(model, name).model_dump() for name in config.SECTIONS}
    assert made == defaults
    assert about_files.keys() <= config.Dataset.model_fields.keys()
    assert set(config.SECTIONS) | {"dataset"} == {f.name for f in dataclasses.fields(Settings)}
    assert {s for read in READ_BY_STAGES.values() for s in read} == {*config.SECTIONS, "dataset"}


def test_every_key_says_what_it_means() -> None:
    silent = [
        f"{model.__name__}.{name}"
        for model in (config.ConfigModel, config.Dataset, *config._MODELS.values())
        for name, field in model.model_fields.items()
        if not field.description
    ]
    assert silent == []


def test_no_meaning_without_a_key() -> None:
    for section, keys in config._MEANING.items():
        assert keys.keys() <= default_settings()[section].keys()


def test_the_committed_schema_is_current() -> None:
    committed = (ROOT / "config" / "config.schema.json").read_text("utf-8")
    assert committed == config.schema_text(), (
        "run: senoscore config schema > config/config.schema.json"
    )


def test_the_template_shows_every_key_with_its_default() -> None:
    text = (ROOT / "config" / "config.yaml").read_text("utf-8")
    assert text.splitlines()[0] == config.SCHEMA_LINE
    values = yaml.safe_load(text)
    shown = {name: values[name] for name in config.SECTIONS}
    library = json.loads(json.dumps(default_settings()))
    library.pop("dataset")
    assert shown == library
    missing = config.ConfigModel.model_fields.keys() - values.keys() - {"pathvars"}
    assert not missing


@pytest.mark.parametrize(
    ("values", "valid"),
    [
        ({"datasets": {"a": "a.h5ad"}}, True),
        ({"datasets": {"a": {"path": "a.h5ad", "score": {"seed": 1}}}}, True),
        ({"datasets": "sheet.tsv"}, True),
        ({"datasets": {"a": "a.h5ad"}, "scroe": {}}, False),
        ({"datasets": {"a": {"path": "a.h5ad", "score": {"sed": 1}}}}, False),
        ({"datasets": {"a b": "a.h5ad"}}, False),
        ({"datasets": {"a": "a.h5ad"}, "call": {"fdr": 2}}, False),
    ],
)
def test_the_schema_for_editors_agrees(values: dict[str, Any], valid: bool) -> None:
    schema = config.schema()
    Draft202012Validator.check_schema(schema)
    assert Draft202012Validator(schema).is_valid(values) is valid


# -------------------------------------------------------------------------------------------------
# forms


def test_three_lines_are_enough(here: Path) -> None:
    (here / "c.yaml").write_text("datasets:\n  a: data/a b.h5ad\n  b: https://example.org/b.h5ad\n")
    made = config.load("c.yaml")
    assert made.datasets["a"].path == "data/a b.h5ad"
    assert made.datasets["b"].url == "https://example.org/b.h5ad"
    assert made.settings("a") == {}
    assert made.shards("a") == 1
    assert made.results == "results"


def test_settings_hold_what_differs_and_the_data_set_goes_first() -> None:
    made = config.parse(
        {
            "datasets": {
                "a": "a.h5ad",
                "b": {"path": "b.h5ad", "donor": "patient", "score": {"seed": 3, "n_null": 200}},
            },
            "score": {"seed": 1, "n_null": 300},
            "call": {"fdr": 0.05},
            "qc": None,
        }
    )
    assert made.settings("a") == {"score": {"seed": 1, "n_null": 300}}
    assert made.settings("b") == {"dataset": {"donor": "patient"}, "score": {"seed": 3}}
    assert Settings.from_mapping(made.settings("b")).score.n_null == 200


def test_a_table_says_the_same_as_a_mapping(here: Path) -> None:
    (here / "sheet.tsv").write_text(
        "\ufeffid\tpath\turl\tdonor\tscore.seed\tscore.signatures\n"
        "a\ta.h5ad\t\tpatient\t7\t[t_senescence]\n"
        "\t\t\t\t\t\n"
        "b\t\thttps://example.org/b.h5ad\t\t\t\n",
        "utf-8",
    )
    score = {"seed": 7, "signatures": ["t_senescence"]}
    same = {
        "a": {"path": "a.h5ad", "donor": "patient", "score": score},
        "b": {"url": "https://example.org/b.h5ad"},
    }
    from_table = config.parse({"datasets": "sheet.tsv"})
    from_mapping = config.parse({"datasets": same})
    assert from_table.datasets == from_mapping.datasets
    assert from_table.settings("a") == from_mapping.settings("a")


def test_the_values_given_are_not_changed() -> None:
    values: dict[str, Any] = {"datasets": {"a": {"path": "a", "qc": None}}, "score": {"seed": 1}}
    before = json.dumps(values)
    config.parse(values)
    assert json.dumps(values) == before


def test_numbers_may_be_text_but_not_true() -> None:
    made = config.parse({"score": {"n_null": "300", "seed": 2.0}}, datasets=False)
    assert made.settings() == {"score": {"n_null": 300, "seed": 2}}
    with pytest.raises(ConfigError, match=r"score\.seed: should be a number, not true or false"):
        config.parse({"score": {"seed": True}}, datasets=False)
    with pytest.raises(ConfigError, match=r"call\.fdr: should be a finite number"):
        config.parse({"call": {"fdr": float("nan")}}, datasets=False)


def test_settings_for_one_file(here: Path) -> None:
    (here / "c.yaml").write_text(
        "datasets: {x: {path: ./a.h5ad, donor: patient, call: {fdr: 0.2}}}\nscore: {seed: 5}\n"
    )
    assert config.settings_for_file("a.h5ad") == {}
    assert config.settings_for_file("other.h5ad", "c.yaml") == {"score": {"seed": 5}}
    assert config.settings_for_file(
        here / "a.h5ad", "c.yaml", ["dataset.cell_type=louvain", "call.fdr=0.05", "score.seed=6"]
    ) == {"dataset": {"donor": "patient", "cell_type": "louvain"}, "score": {"seed": 6}}


@pytest.mark.parametrize("wrong", ["fdr", "call.fdr", "call=3", "fdr=0.1", ".x=1"])
def test_an_assignment_that_is_none(wrong: str) -> None:
    with pytest.raises(ConfigError, match="write SECTION.KEY=VALUE"):
        config.settings_for_file("a.h5ad", None, [wrong])


def test_an_assignment_to_an_unknown_key() -> None:
    with pytest.raises(
        ConfigError, match=r"^--set: call\.fd: is not a key here; did you mean 'fdr'"
    ):
        config.settings_for_file("a.h5ad", None, ["call.fd=0.1"])


# -------------------------------------------------------------------------------------------------
# mistakes


def test_all_mistakes_at_once_each_with_its_line_and_near_name(here: Path) -> None:
    text = """\
datasets:
  a: a.h5ad
  b:
    path: b.h5ad
    scroe: {seed: 1}
    score: {n_nul: 3, seed: -1}
  bad id: x.h5ad
  d: http://example.org/x.h5ad
  D: {}
score:
  methd: ucell
  method: uccell
  signatures: [t_senescense]
call: {fdr: 2}
result: x
pathvars: {log: x, results: y}
"""
    assert mistakes(text, here) == [
        "line 5: datasets.b.scroe: is not a key here; did you mean 'score'?",
        "line 6: datasets.b.score.seed: should be greater than or equal to 0, found -1",
        "line 6: datasets.b.score.n_nul: is not a key here; did you mean 'n_null'?",
        "line 7: datasets.bad id: an id has letters, digits, '.', '_' and '-', and starts with a "
        "letter or digit",
        "line 8: datasets.d.url: downloads over 'http' are not allowed; 'download_schemes' has "
        "https",
        "line 9: datasets.D: give either 'path' or 'url'; found neither",
        "line 11: score.methd: is not a key here; did you mean 'method'?",
        "line 12: score.method: should be 'matched', 'ucell', 'aucell', 'score_genes' or 'mean', "
        "found 'uccell'; did you mean 'ucell'?",
        "line 13: score.signatures.0: there is no signature 't_senescense'; did you mean "
        "'t_senescence' or 'b_senescence'?",
        "line 14: call.fdr: should be less than 1, found 2",
        "line 15: result: is not a key here; did you mean 'results'?",
        "line 16: pathvars.log: is not a path variable of this workflow; did you mean 'logs'?",
        "line 16: pathvars.results: set the key 'results' at the top level instead",
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "datasets: no data set; add a line 'datasets: {my_data: my_data.h5ad}'"),
        ("datasets:\n", "datasets: no data set; add a line 'datasets: {my_data: my_data.h5ad}'"),
        ("- a\n", "expected keys and values, found list"),
        ("datasets: {a: a\n", "line 2: not valid YAML: expected ',' or '}', but got '<stream end>'"),
        ("datasets: {a: x}\ndatasets: {b: y}\n", "line 2: the key 'datasets' is given twice"),
        ("datasets: {no: x}\n", "line 1: the key 'no' is read as False, not as text; put it in quotes"),
        ("datasets: {2021: x}\n", "line 1: the key '2021' is read as 2021, not as text; put it in "
         "quotes"),
        ("signatures: [verdict]\ndatasets: {a: x}\n", "line 1: signatures: is not a key here, but in the "
         "section 'score'"),
        ("datasets: {a: x}\nburden: {donor: patient}\n", "line 2: burden.donor: is not a key here, but "
         "in the data set it is about"),
        ("datasets: [a]\n", "line 1: datasets: should be a valid dictionary, found ['a']"),
        ("datasets: {a: x, A: y}\n", "line 1: datasets.A: the ids 'a' and 'A' differ only in upper "
         "and lower case"),
        ("datasets: {a: {path: x, url: 'https://y'}}\n", "line 1: datasets.a: give either 'path' or "
         "'url'; found both"),
        ("datasets: {a: {path: x, sha256: " + "ab" * 32 + "}}\n", "line 1: datasets.a: 'sha256' "
         "belongs to a 'url'; this is a 'path'"),
        ("datasets: {a: {url: 'https://y', sha256: 12ab}}\n", "line 1: datasets.a.sha256: should be "
         "64 hexadecimal digits"),
        ("datasets: {summary.tsv: x}\n", "line 1: datasets.summary.tsv: this id would collide with "
         "another file; choose another"),
        ("datasets: {a: x}\nresults: '{x}'\n", "line 2: results: should have no '{', '}', '<' or "
         "'>' in it, which Snakemake reads its own way"),
        ("datasets: {a: 'x{y}.h5ad'}\n", "line 1: datasets.a.path: should have no '{', '}', '<' or "
         "'>' in it, which Snakemake reads its own way"),
        ("datasets: {a: x}\nshards: 0\n", "line 2: shards: should be greater than or equal to 1, "
         "found 0"),
        ("datasets: {a: x}\nscore: {signature_files: [no.gmt]}\n",
         "line 2: score.signature_files.0: the file 'no.gmt' does not exist"),
        ("datasets: {a: x}\nscore: {signatures: verdict}\n", "line 2: score.signatures: should be a "
         "list, found 'verdict': write it in brackets"),
        ("datasets: {a: x}\ncall: {smooth: X_pca}\n", "line 2: call.smooth: should be an embedding, "
         "'obsm/X_pca', or a graph, 'obsp/connectivities'"),
        ("datasets: no.tsv\n", "datasets: the table 'no.tsv' does not exist"),
        ("!!python/object/apply:os.system [x]\n", "line 1: not valid YAML: could not determine a "
         "constructor for the tag 'tag:yaml.org,2002:python/object/apply:os.system'"),
    ],
)  # fmt: skip
def test_one_mistake_is_one_sentence(text: str, sentence: str, here: Path) -> None:
    assert mistakes(text, here) == [sentence]


def test_mistakes_in_a_table_name_its_lines(here: Path) -> None:
    (here / "sheet.tsv").write_text(
        "id\tpath\tscroe.seed\na\ta.h5ad\t\na\tb.h5ad\t\n\tc.h5ad\t\nd\td.h5ad\t\t\t\ne\te.h5ad\t3\n"
    )
    assert mistakes("datasets: sheet.tsv\n", here) == [
        "sheet.tsv, line 3: the id 'a' is given twice",
        "sheet.tsv, line 4: the row has no id",
        "sheet.tsv, line 5: 5 cells under a header of 3",
        "sheet.tsv, line 6: datasets.e.scroe: is not a key here; did you mean 'score'?",
    ]


def test_a_table_without_ids(here: Path) -> None:
    (here / "sheet.tsv").write_text("name,path\na,b\n")
    assert mistakes("datasets: sheet.tsv\n", here) == [
        "datasets: the table 'sheet.tsv' needs a column 'id'; its header has name,path"
    ]


def test_own_signatures_count(here: Path) -> None:
    (here / "mine.gmt").write_text("my_set\tfrom a talk\tCDKN2A\tCDKN1A\tLMNB1\n")
    made = config.parse(
        {"score": {"signature_files": ["mine.gmt"], "signatures": ["my_set", "t_senescence"]}},
        datasets=False,
    )
    assert made.settings()["score"]["signatures"] == ("my_set", "t_senescence")
    with pytest.raises(ConfigError, match=r"no signature 'my_sett'; did you mean 'my_set'"):
        config.parse(
            {"score": {"signature_files": ["mine.gmt"], "signatures": ["my_sett"]}}, datasets=False
        )


def test_missing_files_are_said_together(here: Path) -> None:
    (here / "there.h5ad").touch()
    made = config.parse(
        {
            "datasets": {
                "a": "there.h5ad",
                "b": "gone.h5ad",
                "c": "x/y.h5ad",
                "d": "https://z/z.h5ad",
            }
        }
    )
    with pytest.raises(ConfigError) as caught:
        config.check_files(made)
    assert str(caught.value).splitlines() == [
        "config: 2 mistakes",
        "  datasets.b.path: no file at 'gone.h5ad'",
        "  datasets.c.path: no file at 'x/y.h5ad'",
    ]


def test_unreadable_config(here: Path) -> None:
    with pytest.raises(ConfigError, match=r"^config file 'no\.yaml' does not exist$"):
        config.load("no.yaml")
    (here / "binary.yaml").write_bytes(b"\x89HDF\xff\xfe")
    with pytest.raises(ConfigError, match=r"^config file 'binary\.yaml' cannot be read"):
        config.load("binary.yaml")
    (here / "deep.yaml").write_text("[" * 5000)
    with pytest.raises(ConfigError, match="not valid YAML"):
        config.load("deep.yaml")
