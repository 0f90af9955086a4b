"""Everything a user can set that can change a number, with its default: the one place for both.

The field names are the keyword names of the library and the keys of the config file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from typing import Any, Literal

from senoscore.errors import ConfigError

Method = Literal["matched", "ucell", "aucell", "score_genes", "mean"]
ProteinUse = Literal["auto", "use", "ignore"]
METHODS: tuple[Method, ...] = ("matched", "ucell", "aucell", "score_genes", "mean")


@dataclass(frozen=True)
class DatasetSettings:
    """Overrides of what `inspect` finds in the file; None leaves its finding."""

    organism: str | None = None
    counts: str | None = None
    cell_type: str | None = None
    cell_type_fine: str | None = None
    cell_type_ontology: str | None = None
    cluster: str | None = None
    donor: str | None = None
    sample: str | None = None
    condition: str | None = None
    age: str | None = None
    protein: str | None = None

    def overrides(self) -> dict[str, str]:
        """The facts that are set."""
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class QcSettings:
    """Limits of quality control. Fixed limits, where given, replace those by MAD."""

    n_mads: float = 5.0
    n_mads_mt: float = 3.0
    min_pct_mt_limit: float = 8.0
    min_counts: float | None = None
    min_genes: int | None = None
    max_pct_mt: float | None = None
    min_genes_floor: int = 100
    min_genes_floor_neutrophil: int = 50
    scrublet: bool = False


@dataclass(frozen=True)
class AnnotateSettings:
    """How cells get their lineage."""

    use_labels: bool = True
    resolution: float = 1.0


@dataclass(frozen=True)
class ScoreSettings:
    """What is scored, and against which null."""

    method: Method = "matched"
    signatures: tuple[str, ...] | None = None
    signature_files: tuple[str, ...] = ()
    comparators: bool = False
    n_null: int = 200
    seed: int = 0
    min_coverage: float = 0.5
    min_genes_found: int = 3
    reference: str | None = None


@dataclass(frozen=True)
class CallSettings:
    """When a score becomes a call. `senoscore.calling.rule_text` prints the rule with these numbers.

    fdr, support_fdr, doubt_fdr are rates of false discovery; arm_p, part_p, doubt_p, lean_p, naive_p are
    p-values of one cell; kept_naive_z is a z; power is a probability; shallow is a share of the
    median counts of a lineage. No call depends on smooth.
    """

    fdr: float = 0.05
    support_fdr: float = 0.05
    doubt_fdr: float = 0.5
    arm_p: float = 0.05
    part_p: float = 0.2
    doubt_p: float = 0.25
    lean_p: float = 0.5
    kept_naive_z: float = -1.0
    naive_p: float = 0.1
    shallow: float = 0.67
    on_cp10k: float = 2.0
    protein: ProteinUse = "auto"
    power: float = 0.5
    smooth: str | None = None
    smooth_neighbors: int = 15


@dataclass(frozen=True)
class BurdenSettings:
    """What counts as a donor, and what donors are compared by.

    Conditions and ages are those of the data set (``dataset.condition``, ``dataset.age``).
    """

    min_cells: int = 10
    confidence: float = 0.95
    reference: str | None = None
    covariates: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReportSettings:
    """How the report looks; no number depends on it."""

    title: str | None = None
    figures: bool = True


@dataclass(frozen=True)
class Settings:
    """All sections."""

    dataset: DatasetSettings = field(default_factory=DatasetSettings)
    qc: QcSettings = field(default_factory=QcSettings)
    annotate: AnnotateSettings = field(default_factory=AnnotateSettings)
    score: ScoreSettings = field(default_factory=ScoreSettings)
    call: CallSettings = field(default_factory=CallSettings)
    burden: BurdenSettings = field(default_factory=BurdenSettings)
    report: ReportSettings = field(default_factory=ReportSettings)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any] | None) -> Settings:
        """Settings from nested mappings of what differs from the defaults.

        Raises
        ------
        ConfigError
            Naming every unknown section and key by its dotted path.
        """
        problems: list[str] = []
        sections: dict[str, Any] = {}
        known = {f.name: f for f in fields(cls)}
        for name, section in (values or {}).items():
            if name not in known:
                problems.append(_unknown(name, known))
                continue
            kind = type(getattr(cls(), name))
            keys = {f.name for f in fields(kind)}
            bad = [key for key in section or {} if key not in keys]
            problems += [f"{name}.{_unknown(key, keys)}" for key in bad]
            if not bad:
                sections[name] = kind(
                    **{
                        k: tuple(v) if isinstance(v, list) else v
                        for k, v in (section or {}).items()
                    }
                )
        if problems:
            raise ConfigError("settings: " + "; ".join(problems))
        return cls(**sections)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Nested plain values, as in the config file."""
        return asdict(self)


def default_settings() -> dict[str, dict[str, Any]]:
    """Every section and key with its default."""
    return Settings().to_dict()


def _unknown(key: str, known: Any) -> str:
    near = get_close_matches(key, known, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(sorted(known))}"
    return f"{key} is not a setting; {hint}"
