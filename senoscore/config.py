"""The config file: one for a single data set or for a hundred, checked before anything is read.

Names, types and defaults come from :mod:`senoscore.settings`; this module adds what each key means,
its bounds, and the data sets. All mistakes are reported at once, each by its dotted path and line.
"""

from __future__ import annotations

import copy
import csv
import dataclasses
import difflib
import json
import re
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Self
from urllib.parse import urlsplit

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from senoscore.errors import ConfigError, SignatureError
from senoscore.settings import Settings

SECTIONS: Final = ("qc", "annotate", "score", "call", "burden", "report")
ID_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
SCHEMA_LINE: Final = "# yaml-language-server: $schema=./config.schema.json"
# path variables of the workflow that a config may move; `results` has its own key
PATHVARS: Final = ("logs", "resources", "benchmarks")

_HEX64: Final = r"^[0-9a-fA-F]{64}$"
_PLAIN: Final = r"^[^{}<>\x00]+$"  # the others are wildcards and path variables to Snakemake

# section -> key -> (what it means, bounds). Names, types and defaults are in settings.py.
_MEANING: Final[Mapping[str, Mapping[str, tuple[str, Mapping[str, Any]]]]] = {
    "dataset": {
        "organism": ("'human' or 'mouse'; else guessed from the gene names.", {}),
        "counts": ("Where the raw counts are: 'X', 'raw.X' or 'layers/NAME'.", {}),
        "cell_type": ("Column of obs with cell-type labels.", {}),
        "cell_type_fine": ("Column of obs with finer cell-type labels.", {}),
        "cell_type_ontology": ("Column of obs with Cell Ontology ids (CL:0000084).", {}),
        "cluster": ("Column of obs with clusters, used where labels are missing.", {}),
        "donor": ("Column of obs that names the donor: the replicate of every comparison.", {}),
        "sample": (
            "Column of obs that names the sample or library; quality control is per sample.",
            {},
        ),
        "condition": ("Column of obs with the condition to compare.", {}),
        "age": ("Column of obs with the donor's age.", {}),
        "protein": (
            "Antibody counts (CITE-seq): a key of obsm, or the path of a MuData file (.h5mu).",
            {},
        ),
    },
    "qc": {
        "n_mads": ("Cells this many median absolute deviations off in depth fail.", {"gt": 0}),
        "n_mads_mt": ("The same for the share of mitochondrial counts, upwards only.", {"gt": 0}),
        "min_pct_mt_limit": (
            "The limit by MAD on mitochondrial counts is never set below this (percent, 0-100).",
            {"ge": 0, "le": 100},
        ),
        "min_counts": ("Fixed lower limit of counts per cell; replaces the one by MAD.", {"ge": 0}),
        "min_genes": ("Fixed lower limit of genes per cell; replaces the one by MAD.", {"ge": 0}),
        "max_pct_mt": (
            "Fixed upper limit of mitochondrial counts (percent, 0-100); replaces the one by MAD.",
            {"ge": 0, "le": 100},
        ),
        "min_genes_floor": ("Cells with fewer genes always fail.", {"ge": 0}),
        "min_genes_floor_neutrophil": (
            "The same floor for neutrophils, which hold little RNA.",
            {"ge": 0},
        ),
        "scrublet": (
            "Also run scrublet per sample, and call no doublet it predicts; the mixed-lineage check is always on.",
            {},
        ),
    },
    "annotate": {
        "use_labels": ("Use the author's cell types; false: by marker genes only.", {}),
        "resolution": ("Leiden resolution where cells have to be clustered first.", {"gt": 0}),
    },
    "score": {
        "method": ("How a signature is scored; only 'matched' gives p-values and calls.", {}),
        "signatures": (
            "Names of the signatures to score, 'verdict' for those the calls are read from; null: all "
            "that are valid.",
            {},
        ),
        "signature_files": ("Your own signatures: TSV or GMT files.", {}),
        "comparators": (
            "Also score the published sets, and write agreement.tsv: how they and the calls agree.",
            {},
        ),
        "n_null": ("Random matched control sets per signature.", {"ge": 10, "le": 100_000}),
        "seed": ("Seed of the control sets; each signature derives its own from it.", {"ge": 0}),
        "min_coverage": (
            "A signature with a smaller share of its genes measured is not scored (0-1).",
            {"ge": 0, "le": 1},
        ),
        "min_genes_found": ("A signature with fewer genes measured is not scored.", {"ge": 1}),
        "reference": (
            "A run frozen by `senoscore freeze`, against which cells are scored one by one; null: "
            "each data set is its own reference.",
            {},
        ),
    },
    "call": {
        "fdr": ("False discovery rate of a state, per signature and lineage.", {"gt": 0, "lt": 1}),
        "support_fdr": (
            "The same for the support arms of senescence (arrest, TCR-signalling loss, SASP).",
            {"gt": 0, "lt": 1},
        ),
        "doubt_fdr": (
            "A cell that would be called at this rate, but not at 'fdr', is 'indeterminate', not 'neither': "
            "at 0.5, as likely as not a cell so near to a call carries the programme.",
            {"gt": 0, "le": 1},
        ),
        "arm_p": (
            "p from which an arm is named, stemness lost, and an NK cell CD56bright.",
            {"gt": 0, "lt": 1},
        ),
        "part_p": (
            "p that each part of the evidence needs in a senescent T cell, beside an axis that is "
            "significant: the phenotype arm, and the support arms together.",
            {"gt": 0, "le": 1},
        ),
        "doubt_p": (
            "p above which no axis leaves a cell in doubt, and no effector gene was seen; above 1 - doubt_p "
            "a cell lacks the senescent phenotype.",
            {"gt": 0, "le": 1},
        ),
        "lean_p": (
            "p of the support arms up to which a cell with the axis and the phenotype arm is in doubt.",
            {"gt": 0, "le": 1},
        ),
        "kept_naive_z": (
            "z of lost stemness at or below which a T cell has kept the naive programme: not senescent.",
            {},
        ),
        "naive_p": (
            "p of the naive programme up to which a T cell with all evidence of senescence is "
            "'indeterminate': perhaps a naive cell in the same droplet.",
            {"ge": 0, "le": 1},
        ),
        "shallow": (
            "In depth strata of less than this share of their lineage's median counts 'doubt_p' alone "
            "leaves a cell in doubt.",
            {"ge": 0, "le": 1},
        ),
        "on_cp10k": (
            "A cell too shallow to show a programme whose genes are at this level (counts per 10,000) "
            "is 'indeterminate', not 'neither'.",
            {"gt": 0},
        ),
        "protein": (
            "Antibodies in place of the RNA in the phenotype arm of T cells: 'auto' where they are "
            "measured and separate, 'use' or stop, 'ignore'.",
            {},
        ),
        "power": (
            "The share of such cells in which the programme would have to be seen (0-1).",
            {"gt": 0, "lt": 1},
        ),
        "smooth": (
            "An embedding ('obsm/X_pca') or a graph ('obsp/connectivities') by which z is also averaged over "
            "neighbours of the same lineage; no p-value and no call depends on it. null: not at all.",
            {"pattern": r"^obs[mp]/."},
        ),
        "smooth_neighbors": ("Neighbours of a cell in that embedding.", {"ge": 1, "le": 1000}),
    },
    "burden": {
        "min_cells": ("A donor counts in a lineage from this many cells.", {"ge": 1}),
        "confidence": ("Level of the confidence intervals (0-1).", {"gt": 0, "lt": 1}),
        "reference": (
            "Value of the condition that others are compared with; null: the one named like a "
            "control (healthy, normal, unstimulated), else the first.",
            {},
        ),
        "covariates": (
            "Columns of obs to adjust comparisons for: text is a grouping, numbers are a slope, "
            "'C(batch)' makes numbers a grouping.",
            {},
        ),
    },
    "report": {
        "title": ("Title of the report; else the name of the data set.", {}),
        "figures": ("false: tables only.", {}),
    },
}


# -------------------------------------------------------------------------------------------------
# models


class _Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


def _not_bool(value: object) -> object:
    # YAML reads `yes` and `on` as true, and pydantic true as 1
    if isinstance(value, bool):
        raise PydanticCustomError("number", "should be a number, not true or false")
    return value


def _annotation(hint: Any) -> Any:
    if hint is not bool and bool not in typing.get_args(hint):
        return Annotated[hint, BeforeValidator(_not_bool)]
    return hint


def _fields(section: str) -> dict[str, Any]:
    """The pydantic fields of a section, from the dataclass in settings."""
    kind = type(getattr(Settings(), section))
    hints = typing.get_type_hints(kind)
    made: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        description, bounds = _MEANING[section].get(field.name, ("", {}))
        default = getattr(kind(), field.name)
        made[field.name] = (
            _annotation(hints[field.name]),
            Field(default=default, description=description, **bounds),
        )
    return made


def _model(section: str) -> type[_Section]:
    summary = (type(getattr(Settings(), section)).__doc__ or "").strip()
    return create_model(
        section.capitalize(), __base__=_Section, __doc__=summary, **_fields(section)
    )


_MODELS: Final[Mapping[str, type[_Section]]] = {name: _model(name) for name in SECTIONS}


class _Dataset(_Section):
    path: Annotated[str | None, Field(pattern=_PLAIN)] = None
    """The .h5ad file (or .zarr folder), from the folder you run in."""
    url: str | None = None
    """Where to download the file from."""
    sha256: Annotated[str | None, Field(pattern=_HEX64)] = None
    """Checksum of the download."""
    shards: Annotated[int | None, BeforeValidator(_not_bool), Field(ge=1, le=1000)] = None
    """Row shards for this data set; else the number at the top level."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.path is None) == (self.url is None):
            found = "both" if self.path is not None else "neither"
            raise PydanticCustomError(
                "source", "Give either 'path' or 'url'; found {found}", {"found": found}
            )
        if self.sha256 is not None and self.url is None:
            raise PydanticCustomError("source", "'sha256' belongs to a 'url'; this is a 'path'")
        return self


class _Config(_Section):
    results: Annotated[str, Field(pattern=_PLAIN)] = "results"
    """Folder that receives one folder per data set."""
    shards: Annotated[int, BeforeValidator(_not_bool), Field(ge=1, le=1000)] = 1
    """Split each file into this many runs of rows, for files too large for one node."""
    download_schemes: tuple[str, ...] = ("https",)
    """Kinds of address a data set may be downloaded from."""
    pathvars: dict[str, Annotated[str, Field(pattern=_PLAIN)]] = Field(default_factory=dict)
    """Snakemake's path variables: `logs`, `resources` (downloads), `benchmarks`."""


if typing.TYPE_CHECKING:
    # what create_model() below makes, as far as the code here needs to know
    class Dataset(_Dataset):
        """One data set: where it is, what to override in it, and its own settings."""

    class ConfigModel(_Config):
        """All keys of a config file."""

        datasets: dict[str, Dataset]
else:
    Dataset = create_model(
        "Dataset",
        __base__=_Dataset,
        __doc__="One data set: where it is, what to override in it, and its own settings.",
        **_fields("dataset"),
        **{
            name: (model | None, Field(default=None, description=f"Its own settings of {name}."))
            for name, model in _MODELS.items()
        },
    )
    ConfigModel = create_model(
        "Config",
        __base__=_Config,
        __doc__="Configuration of senoscore.",
        datasets=(
            dict[Annotated[str, Field(pattern=ID_PATTERN)], Dataset],
            Field(default_factory=dict, description="The data sets, by name."),
        ),
        **{
            name: (model, Field(default_factory=model, description=model.__doc__))
            for name, model in _MODELS.items()
        },
    )


@dataclasses.dataclass(frozen=True)
class Config:
    """A valid configuration."""

    model: ConfigModel
    name: str

    @property
    def datasets(self) -> dict[str, Dataset]:
        """The data sets by id, in the order of the file."""
        return self.model.datasets

    @property
    def results(self) -> str:
        """Folder of the results."""
        return self.model.results

    def shards(self, dataset: str) -> int:
        """Into how many runs of rows a data set is split."""
        return self.datasets[dataset].shards or self.model.shards

    def settings(
        self, dataset: str | None = None, extra: Mapping[str, Mapping[str, Any]] | None = None
    ) -> dict[str, dict[str, Any]]:
        """What differs from the defaults, by section: that of the data set over the general.

        Parameters
        ----------
        dataset
            Its id; None for the general settings.
        extra
            Checked values that go over both, as from the command line.

        Returns
        -------
        Nested plain values for :meth:`senoscore.settings.Settings.from_mapping`. Writing a default
        out in the config changes nothing here.
        """
        made: dict[str, dict[str, Any]] = {name: _given(self.model, name) for name in SECTIONS}
        made["dataset"] = {}
        if dataset is not None:
            own = self.datasets[dataset]
            for name in SECTIONS:
                made[name] |= _given(own, name)
            made["dataset"] = own.model_dump(include=set(_MEANING["dataset"]), exclude_unset=True)
        for name, keys in (extra or {}).items():
            made[name] |= keys
        plain = Settings.from_mapping(made).to_dict()
        default = Settings().to_dict()
        changed = {
            name: {key: value for key, value in keys.items() if value != default[name][key]}
            for name, keys in plain.items()
        }
        return {name: keys for name, keys in changed.items() if keys}


def _given(model: _Section, section: str) -> dict[str, Any]:
    found = getattr(model, section)
    return {} if found is None else found.model_dump(exclude_unset=True)


# -------------------------------------------------------------------------------------------------
# reading

Places = dict[tuple[str, ...], str]


def load(path: str | Path, *, name: str | None = None, datasets: bool = True) -> Config:
    """Read and check a config file.

    Parameters
    ----------
    path
        The YAML file. Paths in it start from the folder one runs in, as in Snakemake.
    name
        What to call it in messages, if not by its path.
    datasets
        Whether at least one data set is required.

    Raises
    ------
    ConfigError
        Listing every mistake with its line and dotted path.
    """
    name = name or str(path)
    try:
        text = Path(path).read_text("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"config file {name!r} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config file {name!r} cannot be read: {error}") from None
    values, places = _read_yaml(text, name)
    return parse(values, name=name, places=places, datasets=datasets)


def parse(
    values: Mapping[str, Any] | None,
    *,
    name: str = "config",
    places: Places | None = None,
    datasets: bool = True,
) -> Config:
    """Check plain values, as they come from YAML.

    Parameters
    ----------
    values
        The nested mapping.
    name
        What to call it in messages.
    places
        Dotted path (as tuple) to where it stands, such as ``"line 12"``.
    datasets
        Whether at least one data set is required.
    """
    places = dict(places or {})
    problems: list[str] = []
    tidy = _tidy(copy.deepcopy(dict(values or {})), places, problems)
    model = _validate(tidy, places, problems)
    problems += _joins(model, places)
    if datasets and not model.datasets and not problems:
        problems.append("datasets: no data set; add a line 'datasets: {my_data: my_data.h5ad}'")
    if problems:
        raise ConfigError(_listing(name, problems))
    return Config(model, name)


def _validate(tidy: dict[str, Any], places: Places, problems: list[str]) -> ConfigModel:
    """The model of what is left without the mistakes, so that those between keys show as well."""
    first = True
    while True:
        try:
            return ConfigModel.model_validate(tidy)
        except ValidationError as error:
            found = error.errors()
        if first:
            problems += [_sentence(details, places) for details in found]
        first = False
        for details in found:
            _drop(tidy, [part for part in details["loc"] if part != "[key]"])


def _drop(values: Any, path: list[int | str]) -> None:
    """Take the value at a path out; the whole list where it is an item of one."""
    for i, part in enumerate(path):
        last = i == len(path) - 1 or not isinstance(values.get(part), dict)
        if last:
            values.pop(part, None)
            return
        values = values[part]


def check_files(config: Config, folder: Path | None = None) -> None:
    """Say at once which input files are missing.

    Raises
    ------
    ConfigError
        Naming every data set whose file is not there.
    """
    folder = folder or Path()
    problems = [
        f"datasets.{name}.path: no file at {str(folder / dataset.path)!r}"
        for name, dataset in config.datasets.items()
        if dataset.path is not None and not (folder / dataset.path).exists()
    ]
    used = [config.settings(name).get("score", {}).get("reference") for name in config.datasets]
    problems += [
        f"score.reference: no file at {str(folder / file)!r}"
        for file in dict.fromkeys(used)
        if file is not None and not (folder / file).is_file()
    ]
    if problems:
        raise ConfigError(_listing(config.name, problems))


def settings_for_file(
    file: str | Path, config: str | Path | None = None, assignments: Iterable[str] = ()
) -> dict[str, dict[str, Any]]:
    """The settings for one file outside the workflow.

    Parameters
    ----------
    file
        The data set. If the config lists it, what the config says about it counts.
    config
        A config file for the general settings.
    assignments
        ``section.key=value`` each; they go over the config.
    """
    given: dict[str, dict[str, Any]] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        section, _, rest = key.strip().partition(".")
        if not (equals and section and rest):
            raise ConfigError(
                f"--set {assignment!r}: write SECTION.KEY=VALUE, such as call.fdr=0.1"
            )
        given.setdefault(section, {})[rest] = _scalar(value)
    about = given.pop("dataset", {})
    checked = parse({**given, "datasets": {"file": {"path": "file", **about}}}, name="--set")
    extra = {name: _given(checked.model, name) for name in SECTIONS}
    extra["dataset"] = checked.settings("file").get("dataset", {})
    general = parse({}, datasets=False) if config is None else load(config, datasets=False)
    listed = [
        name
        for name, dataset in general.datasets.items()
        if dataset.path is not None and Path(dataset.path).resolve() == Path(file).resolve()
    ]
    return general.settings(listed[0] if listed else None, extra)


def schema() -> dict[str, Any]:
    """JSON schema of the config file, for editors."""
    made = ConfigModel.model_json_schema()
    made["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    made["title"] = "senoscore configuration"
    dataset = {"$ref": "#/$defs/Dataset"}
    listed = made["properties"]["datasets"]
    made["properties"]["datasets"] = {
        "description": "The data sets: by name, or the name of a table (.tsv) of them.",
        "anyOf": [
            {
                "type": "object",
                "propertyNames": {"pattern": ID_PATTERN},
                "additionalProperties": {
                    "anyOf": [
                        {"type": "string", "description": "Path or address of the file."},
                        dataset,
                    ]
                },
            },
            {"type": "string", "pattern": r"\.(tsv|csv)$"},
        ],
        "title": listed.get("title", "Datasets"),
    }
    return made


def schema_text() -> str:
    """The committed form of :func:`schema`."""
    return json.dumps(schema(), indent=2, sort_keys=True) + "\n"


class _Loader(yaml.SafeLoader):
    """Safe loader that refuses a key given twice (YAML would silently take the last)."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    loader.flatten_mapping(node)
    made: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        line = key_node.start_mark.line + 1
        if not isinstance(key, str):
            raise ConfigError(
                f"line {line}: the key {key_node.value!r} is read as {key!r}, not as text; "
                "put it in quotes"
            )
        if key in made:
            raise ConfigError(f"line {line}: the key {key!r} is given twice")
        made[key] = loader.construct_object(value_node, deep=True)
    return made


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _read_yaml(text: str, name: str) -> tuple[dict[str, Any], Places]:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        values = None if node is None else loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        what = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"{name}{where}: not valid YAML: {what}") from None
    except ConfigError as error:
        raise ConfigError(f"{name}, {error}") from None
    except RecursionError:
        raise ConfigError(f"{name}: not valid YAML: nested too deeply") from None
    finally:
        loader.dispose()
    if node is None or values is None:
        return {}, {}
    if not isinstance(values, dict):
        raise ConfigError(f"{name}: expected keys and values, found {type(values).__name__}")
    return values, dict(_lines(node))


def _lines(
    node: yaml.Node, path: tuple[str, ...] = (), seen: set[int] | None = None
) -> Iterator[tuple[tuple[str, ...], str]]:
    seen = set() if seen is None else seen
    if id(node) in seen:  # an alias: its lines are those of its anchor
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*path, str(key.value))
            yield here, f"line {key.start_mark.line + 1}"
            yield from _lines(value, here, seen)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            here = (*path, str(i))
            yield here, f"line {value.start_mark.line + 1}"
            yield from _lines(value, here, seen)


def _tidy(values: dict[str, Any], places: Places, problems: list[str]) -> dict[str, Any]:
    """The short forms spelt out: empty sections, path strings, the table of data sets."""
    for name in (*SECTIONS, "pathvars", "datasets"):
        if name in values and values[name] is None:
            values[name] = {}
    datasets = values.get("datasets", {})
    if isinstance(datasets, str):
        datasets = _read_sheet(datasets, places, problems)
    if isinstance(datasets, Mapping):
        values["datasets"] = {name: _dataset(entry) for name, entry in datasets.items()}
    return values


def _dataset(entry: object) -> object:
    if isinstance(entry, str):
        return {"url" if "://" in entry else "path": entry}
    if isinstance(entry, Mapping):
        return {k: v for k, v in entry.items() if not (v is None and k in SECTIONS)}
    return entry


def _read_sheet(sheet: str, places: Places, problems: list[str]) -> dict[str, Any]:
    """The table of data sets; a column ``score.seed`` sets that key for its row."""
    try:
        text = Path(sheet).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        what = (
            "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read: {error}"
        )
        problems.append(f"datasets: the table {sheet!r} {what}")
        return {}
    delimiter = "," if sheet.endswith(".csv") else "\t"
    reader = csv.reader(text.splitlines(), delimiter=delimiter, quotechar='"')
    rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    header = [cell.strip() for cell in rows[0][1]] if rows else []
    if "id" not in header:
        found = ", ".join(header) or "nothing"
        problems.append(
            f"datasets: the table {sheet!r} needs a column 'id'; its header has {found}"
        )
        return {}
    made: dict[str, Any] = {}
    for line, row in rows[1:]:
        where = f"{sheet}, line {line}"
        if len(row) > len(header):
            problems.append(f"{where}: {len(row)} cells under a header of {len(header)}")
            continue
        cells = {key: cell.strip() for key, cell in zip(header, row, strict=False) if cell.strip()}
        name = cells.pop("id", "")
        if not name or name in made:
            what = f"the id {name!r} is given twice" if name else "the row has no id"
            problems.append(f"{where}: {what}")
            continue
        made[name] = _nest(cells)
        places[("datasets", name)] = where
    return made


def _nest(cells: Mapping[str, str]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, cell in cells.items():
        section, _, rest = key.partition(".")
        if section and rest:
            inner = made.setdefault(section, {})
            if isinstance(inner, dict):
                inner[rest] = _scalar(cell)
        else:
            made[key] = cell
    return made


def _scalar(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


# -------------------------------------------------------------------------------------------------
# what is wrong with it


def _joins(model: ConfigModel, places: Places) -> list[str]:
    """Mistakes between keys: schemes, ids that collide, path variables, signatures."""
    problems: list[str] = []

    def say(path: tuple[str, ...], what: str) -> None:
        problems.append(_at(path, places) + what)

    seen: dict[str, str] = {}
    for name, dataset in model.datasets.items():
        if name.endswith(".") or name.startswith("summary."):
            say(("datasets", name), "this id would collide with another file; choose another")
        if name.lower() in seen:
            say(
                ("datasets", name),
                f"the ids {seen[name.lower()]!r} and {name!r} differ only in upper and lower case",
            )
        seen.setdefault(name.lower(), name)
        if dataset.url is not None:
            scheme = urlsplit(dataset.url).scheme.lower()
            if scheme not in model.download_schemes:
                say(
                    ("datasets", name, "url"),
                    f"downloads over {scheme or 'no scheme'!r} are not allowed; "
                    f"'download_schemes' has {', '.join(model.download_schemes) or 'none'}",
                )
    for key in model.pathvars:
        if key == "results":
            say(("pathvars", key), "set the key 'results' at the top level instead")
        elif key not in PATHVARS:
            say(("pathvars", key), f"is not a path variable of this workflow{_near(key, PATHVARS)}")
    return problems + _signature_problems(model, places)


def _signature_problems(model: ConfigModel, places: Places) -> list[str]:
    """Names that no registry and no file of the user has; files that cannot be read."""
    general = _given(model, "score")
    cases: list[tuple[tuple[str, ...], dict[str, Any]]] = [(("score",), general)]
    cases += [
        (("datasets", name, "score"), general | own)
        for name, dataset in model.datasets.items()
        if (own := _given(dataset, "score"))
    ]
    if not any(case.get("signatures") or case.get("signature_files") for _, case in cases):
        return []
    problems: list[str] = []
    for path, case in cases:
        known: set[str] = set()
        for i, file in enumerate(case.get("signature_files") or ()):
            try:
                known |= _signature_names(file)
            except (SignatureError, OSError) as error:
                problems.append(_at((*path, "signature_files", str(i)), places) + str(error))
        for i, name in enumerate(case.get("signatures") or ()):
            if name not in known | _signature_names(None):
                near = _near(name, known | _signature_names(None))
                here = _at((*path, "signatures", str(i)), places)
                problems.append(f"{here}there is no signature {name!r}{near}")
    return list(dict.fromkeys(problems))


def _signature_names(source: str | None) -> set[str]:
    from senoscore.calling import VERDICT
    from senoscore.signatures import read_signatures

    if source is not None and not Path(source).exists():
        raise SignatureError(f"the file {source!r} does not exist")
    return set(read_signatures(source)) | ({VERDICT} if source is None else set())


def _listing(name: str, problems: list[str]) -> str:
    problems = sorted(problems, key=_line)
    if len(problems) == 1:
        separator = ", " if problems[0].startswith("line ") else ": "
        return f"{name}{separator}{problems[0]}"
    return "\n".join([f"{name}: {len(problems)} mistakes", *(f"  {p}" for p in problems)])


def _line(problem: str) -> int:
    found = re.match(r"line (\d+):", problem)
    return int(found[1]) if found else 0


def _at(path: tuple[str, ...], places: Places) -> str:
    """Where something stands, as the start of a sentence."""
    dotted = ".".join(path)
    for length in range(len(path), 0, -1):
        if path[:length] in places:
            return f"{places[path[:length]]}: {dotted}: "
    return f"{dotted}: "


def _near(name: str, known: Iterable[str]) -> str:
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.6)
    if near:
        return "; did you mean " + " or ".join(repr(n) for n in near) + "?"
    return f"; known are {', '.join(known)}" if len(known) <= 15 else ""


def _elsewhere(key: str) -> str:
    """Where a key that stands in the wrong place belongs; empty for one that is known nowhere."""
    places = [
        f"the section {name!r}" for name, model in _MODELS.items() if key in model.model_fields
    ]
    if key in _Dataset.model_fields or key in _MEANING["dataset"]:
        places.append("the data set it is about")
    return f", but in {' or '.join(places)}" if places else ""


def _sentence(details: ErrorDetails, places: Places) -> str:
    path = tuple(str(part) for part in details["loc"] if part != "[key]")
    what = details["msg"].removeprefix("Input ")
    if details["type"] == "extra_forbidden":
        hint = _elsewhere(path[-1]) or _near(path[-1], _known(path[:-1]))
        what = f"is not a key here{hint}"
    elif details["type"] == "string_pattern_mismatch":
        if path[-1] == "sha256":
            what = "should be 64 hexadecimal digits"
        elif path[0] in ("results", "pathvars") or path[-1] == "path":
            what = "should have no '{', '}', '<' or '>' in it, which Snakemake reads its own way"
        elif path[-1] == "smooth":
            what = "should be an embedding, 'obsm/X_pca', or a graph, 'obsp/connectivities'"
        else:
            what = "an id has letters, digits, '.', '_' and '-', and starts with a letter or digit"
    elif details["type"] == "tuple_type":
        shown = _shown(details["input"])
        what = f"should be a list, found {shown}: write it in brackets"
    elif details["type"] != "source":
        what = f"{what[:1].lower()}{what[1:]}, found {_shown(details['input'])}"
        if details["type"] == "literal_error" and isinstance(details["input"], str):
            expected = re.findall(r"'([^']+)'", str(details.get("ctx", {}).get("expected", "")))
            near = difflib.get_close_matches(details["input"], expected, n=1)
            what += f"; did you mean {near[0]!r}?" if near else ""
    else:
        what = f"{what[:1].lower()}{what[1:]}"
    return _at(path, places) + what


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _known(path: tuple[str, ...]) -> list[str]:
    """The keys allowed under a dotted path."""
    model: type[BaseModel] = ConfigModel
    if path[:1] == ("datasets",):
        model, path = Dataset, path[2:]
    if path:
        model = _MODELS.get(path[0], model)
    return list(model.model_fields)
