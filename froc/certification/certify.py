"""Certificates from existing losses: `froc certify`, and `froc.certify` in Python. Torch-free.

Valid only if configurations were chosen before anyone saw these losses, or by a held-out part. Either they are *named
beforehand* and tested on all losses (Holm), or one part of the losses orders them and the other tests them (weighted
Holm). The certificate states which.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from narwhals.typing import IntoFrame

from froc import hashing
from froc.bounds import Bound
from froc.certification.reopening import further_look, opened_for
from froc.certification.result import Certificate
from froc.data import opening_ledger
from froc.errors import InputError
from froc.formats import Format, Read
from froc.loss_table import SPLITS, UNITS, WEIGHTED, check, dataframe
from froc.plugins import find, make
from froc.procedures import DEFAULT
from froc.risk.certificate import certify as decided
from froc.risk.claim import POPULATIONS, Candidate, Claim, automatic, estimands
from froc.risk.positive_control import Control
from froc.risk.weighted_sum import COMBINED

if TYPE_CHECKING:
    pass

BEFOREHAND_WARNING = (
    "the configurations are taken as named before anybody looked at these losses, and tested on all of them; were they chosen "
    "by these losses, this certificate does not hold (then: --search-share)"
)
ORDER_FREE = {
    "betting": "betting_over_orders",
    "normal_test_betting": "betting_over_orders",
    "star_betting": "betting_over_orders",
    "betting_without_replacement": "betting_over_orders_without_replacement",
}
"""Order-dependent bound -> what `auto` uses here instead: a table's order comes from the names of its queries, which its owner
could have chosen to suit."""
ORDER_WARNING = (
    "the p-value hangs on the order of units, which is made of their names; it holds only if those were given before anybody saw a "
    "loss (--bound auto takes one that no name can change)"
)
NO_CONTROL_WARNING = (
    "nothing here shows what the base model had before: a risk that it kept within budget by itself is certified just so (logs take "
    "--base; froc search and froc audit model measure it)"
)
Table = str | PathLike[str] | Sequence[str | PathLike[str]] | IntoFrame


@dataclass(frozen=True)
class Division:
    """A random division of losses into two splits.

    share: fraction of each risk's units for the search, in (0, 1).
    seed: of the draw.
    """

    share: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise InputError(f"a search share of {self.share:g} is outside (0, 1); 0.2 is a good one")

    def of(self, losses: pl.DataFrame) -> pl.DataFrame:
        """The table with drawn units in `search`; a unit of several risks is in the same split for all of them.

        Units are drawn by a hash of their name, so that sizes vary around the share; every risk has at least one unit in each
        split. Raises InputError where that is impossible.
        """
        units = losses.select("risk", "unit").unique().group_by("risk").agg("unit").sort("risk")
        places = {unit: self._place(unit) for unit in losses["unit"].unique()}
        first = {unit for unit, place in places.items() if place < self.share}
        for names in units["unit"].to_list():
            if first.isdisjoint(names):
                first.add(min(names, key=places.__getitem__))
            if first.issuperset(names):
                first.discard(max(names, key=places.__getitem__))
        for risk, names in units.iter_rows():
            if first.isdisjoint(names) or first.issuperset(names):
                raise InputError(
                    f"{risk}: {len(names)} units are too few to be divided; name the configurations beforehand"
                )
        side = pl.when(pl.col("unit").is_in(list(first))).then(pl.lit("search")).otherwise(pl.lit("calibration"))
        return losses.with_columns(split=side)

    def _place(self, unit: str) -> float:
        return int(hashing.sha256_bytes(f"froc search share\0{self.seed}\0{unit}".encode())[:13], 16) / 2**52


def certify(
    table: Table,
    budget: float | Mapping[str, float],
    *,
    confidence: float = 0.9,
    format: str = "table",  # noqa: A002  # as the option is called
    loss: Mapping[str, str] | None = None,
    base: str | PathLike[str] | None = None,
    search_share: float | None = None,
    split_seed: int = 0,
    named_beforehand: bool = False,
    procedure: str = DEFAULT,
    bound: str = "auto",
    binary: bool = False,
    unit: str = "query",
    population: Mapping[str, str] | None = None,
    listed: Mapping[str, int] | None = None,
    weight: Mapping[str, float] | None = None,
    radius: float = 0.0,
    joint: bool = False,
    scale: str | None = None,
    allow_other_mean: bool = False,
) -> Certificate:
    """Which configurations keep every risk within budget, with the stated confidence for all of them together?

    table: a loss table (a file, or any dataframe with config, risk, query, loss), or logs of another tool with
        `format`.
    budget: largest accepted risk in (0, 1), one for every risk or by risk.
    confidence: 1 - delta, in (0, 1).
    loss: for logs, risk -> measure (`forget_qa_rouge`, `1-retain_qa_rouge`, or `base-retain_qa_rouge` with `base`).
    base: the base model's log.
    search_share: this fraction of each risk's units orders the configurations, the rest certifies.
    named_beforehand: the configurations were chosen before anybody saw these losses; assumed for loss tables.
    scale: "thousandths" where a loss table holds whole numbers 0..1000.
    allow_other_mean: accept measures of a log whose rows have another mean than it reports.

    Other parameters: see `froc certify --help`. InputError where the losses cannot support the claim.

    >>> queries = [f"q{i}" for i in range(100)]
    >>> table = pl.DataFrame({"config": "c0001", "risk": "forgetting", "query": queries, "loss": 97 * [0.0] + 3 * [1.0]})
    >>> certificate = certify(table, budget=0.1, named_beforehand=True)
    >>> certificate
    Certificate(1 of 1 certified, chosen c0001)
    >>> certificate.to_polars()["certified"].to_list()
    [True]
    """
    frame = dataframe(table)
    losses_read = (
        Read(frame, beforehand=True, scale=scale)
        if frame is not None
        else read(
            _paths(table),
            format,
            loss or {},
            None if base is None else Path(base),
            scale=scale,
            allow_other_mean=allow_other_mean,
        )
    )
    return certificate_of(
        losses_read, budget, confidence=confidence, search_share=search_share, split_seed=split_seed,
        named_beforehand=named_beforehand, procedure=procedure, bound=bound, binary=binary, unit=unit,
        population=population, listed=listed, weights=weight, radius=radius, joint=joint,
        counted=frame is None,
    )  # fmt: skip


def certificate_of(
    losses_read: Read, budget: float | Mapping[str, float], *, search_share: float | None, split_seed: int,
    named_beforehand: bool, counted: bool = True, **claim: Any,
) -> Certificate:  # fmt: skip
    """`certify` for losses that were read already; claim: arguments of `claim_of`. counted: whether the opening ledger counts this
    (`froc.data.opening_ledger.certified`): for files, but not for frames, which simulations pass by the thousand."""
    division = None if search_share is None else Division(search_share, split_seed)
    losses, design = designed(losses_read.losses, division, named_beforehand or losses_read.beforehand)
    stated_claim = claim_of(losses, budget, **claim)
    control, tested = _divided_alike(losses_read.control, losses), candidates(losses, stated_claim)
    document = decided(losses, tested, stated_claim, control=control)
    # counted once it is clear that nothing is refused, which shows nothing; the number changes words alone
    look = _counted(losses, stated_claim, design) if counted else opening_ledger.Certified()
    if look.number != stated_claim.opening:
        document = decided(losses, tested, replace(stated_claim, opening=look.number), control=control)
    document |= {"looks": {"times": look.times, "ways": look.options, "sealed": look.sealed}} if counted else {}
    named = design["kind"] == "named-beforehand" and losses["config"].n_unique() > 1
    warned = [*further(losses_read, stated_claim), *document["warnings"], *([] if control else [NO_CONTROL_WARNING])]
    notes = [*warned, *look.sentences, *losses_read.notes, *([BEFOREHAND_WARNING] if named else [])]
    sources = {name: [asdict(source) for source in files] for name, files in losses_read.sources.items()}
    return Certificate(document | {"warnings": notes, "design": design} | ({"sources": sources} if sources else {}))


def _divided_alike(control: Control | None, losses: pl.DataFrame) -> Control | None:
    """The base model's rows in the same splits as the candidates'."""
    if control is None:
        return None
    splits = losses.select("risk", "query", "split").unique()
    return replace(control, table=control.table.drop("split").join(splits, on=["risk", "query"], how="inner"))


def _counted(losses: pl.DataFrame, claim: Claim, design: Mapping[str, Any]) -> opening_ledger.Certified:
    """Count this certification in the ledger; calls with the same claim, design and losses are one way of looking."""
    names = losses.select("risk", "query").unique().group_by("risk").agg(pl.col("query"))
    content = losses.sort("config", "risk", "query").select("config", "risk", "query", "loss").write_csv()
    way = hashing.sha256_json([asdict(claim), dict(design), hashing.sha256_bytes(content.encode())])
    return opening_ledger.certified({risk: frozenset(queries) for risk, queries in names.iter_rows()}, way)


def further(losses_read: Read, claim: Claim) -> list[str]:
    """Warnings: losses that were opened before, and bounds that depend on an order given by names."""
    reopening_warning = further_look(losses_read.opened, claim)
    ordered = sorted(risk for risk, bound in claim.bound.items() if not find(Bound, bound).order_free)
    named = f"{', '.join(ordered)}: {ORDER_WARNING}" if ordered else None
    return [line for line in (reopening_warning, named) if line is not None]


def read(
    paths: Sequence[Path],
    format_: str,
    loss: Mapping[str, str],
    base: Path | None = None,
    *,
    scale: str | None = None,
    allow_other_mean: bool = False,
) -> Read:
    """Files of a format -> a checked loss table; InputError for an option that the format does not have."""
    options = {"scale": scale, "allow_other_mean": allow_other_mean or None}
    settings = {name: value for name, value in options.items() if value is not None}
    for name in settings:
        if name not in find(Format, format_).__dataclass_fields__:
            raise InputError(f"--{name.replace('_', '-')} is not for --format {format_}; leave it out")
    losses_read = make(Format, format_, settings).read(paths, loss, base)
    if len(paths) != 1:
        return losses_read
    opened = opened_for(paths[0])
    return replace(losses_read, opened=opened, control=losses_read.control or _beside(paths[0], opened))


def _beside(path: Path, opened: Mapping[str, Any] | None) -> Control | None:
    """The base model's rows that a run stores beside its losses; None for other tables and for runs of older versions."""
    shown = (opened or {}).get("base") or {}
    base = path.with_name("base.parquet")
    if not shown or not base.is_file():
        return None
    return Control(check(pl.read_parquet(base)), {risk: entry["control"] for risk, entry in shown.items()})


def designed(
    losses: pl.DataFrame, division: Division | None, beforehand: bool
) -> tuple[pl.DataFrame, dict[str, str | int | float]]:
    """Losses with their splits, and the `design` entry of the certificate: how configurations were chosen and ordered.

    Raises InputError where several configurations were measured on one split and it is not stated how they were chosen.
    """
    have = set(losses["split"].unique())
    if "calibration" not in have:
        raise InputError("no row has the split 'calibration'; those are what is certified")
    if division is not None:
        if have == set(SPLITS):
            raise InputError("the losses are divided into search and calibration already; leave --search-share out")
        return division.of(losses), {"kind": "split", "share": division.share, "seed": division.seed}
    if have == set(SPLITS):
        return losses, {"kind": "split-as-given"}
    if not beforehand and losses["config"].n_unique() > 1:
        raise InputError(
            "these logs have one split only. Were the configurations named before anybody saw these losses: --named-beforehand. "
            "Else let a part of the rows order them and the rest certify: --search-share 0.2"
        )
    return losses, {"kind": "named-beforehand"}


def claim_of(
    losses: pl.DataFrame,
    budget: float | Mapping[str, float],
    *,
    confidence: float,
    procedure: str,
    bound: str,
    binary: bool,
    unit: str,
    population: Mapping[str, str] | None,
    listed: Mapping[str, int] | None,
    weights: Mapping[str, float] | None,
    radius: float,
    joint: bool,
) -> Claim:
    """The claim about a checked table; InputError for unknown names."""
    risks = sorted(losses["risk"].unique().to_list())
    if bound != "auto":
        find(Bound, bound)
    if unit not in UNITS:
        raise InputError(f"no unit is called {unit!r}; there are: {', '.join(UNITS)}")
    if not 0 < confidence < 1:
        raise InputError(f"confidence {confidence:g} is outside (0, 1)")
    kinds = dict(population or {})

    def bound_of(risk: str) -> str:
        kind = kinds.get(risk, "queries")
        if bound != "auto" and kind != "census":
            return bound.replace("-", "_")
        chosen = automatic(binary=binary, unit=unit, population=kind, sequential=False, procedure=procedure)
        return ORDER_FREE.get(chosen, chosen)

    for name in (*kinds, *(listed or {}), *(weights or {}), *(budget if isinstance(budget, Mapping) else ())):
        if name not in (*risks, COMBINED):
            raise InputError(f"no risk is called {name!r}; there are: {', '.join(risks)}")
    sizes = (
        losses.group_by("risk", "unit")
        .agg(pl.col("query").n_unique().alias("n"))
        .group_by("risk")
        .agg(pl.col("n").max())
    )
    claim = Claim(
        budget=dict(budget) if isinstance(budget, Mapping) else dict.fromkeys(risks, budget), confidence=confidence,
        procedure=procedure, joint=joint, radius=radius, bound={risk: bound_of(risk) for risk in risks},
        unit=dict.fromkeys(risks, unit), population=kinds, listed=dict(listed or {}), weights=dict(weights or {}),
        largest=dict(sizes.sort("risk").iter_rows()) if unit == WEIGHTED else {},
    )  # fmt: skip
    return replace(claim, estimand=estimands(claim)) if set(kinds.values()) <= set(POPULATIONS) else claim


def candidates(losses: pl.DataFrame, claim: Claim) -> list[Candidate]:
    """Configurations in testing order: by their largest search risk over its budget, or with equal weights where there are no search rows.

    Depends on search rows, names and budgets only; risks without a budget do not count. Raises InputError where a configuration has rows
    in one split only.
    """
    configs = losses.filter(pl.col("split") == "calibration")["config"].unique(maintain_order=True).to_list()
    searched = losses.filter(pl.col("split") == "search")
    if searched.is_empty():
        return [Candidate(config, "", {}, 1.0) for config in configs]
    rows = searched.group_by("config", "risk").agg(pl.col("loss").mean()).iter_rows()
    means = {(config, risk): float(mean) for config, risk, mean in rows}
    missing = [config for config in configs for risk in claim.risks if (config, risk) not in means]
    if missing:
        raise InputError(f"configuration {missing[0]} has calibration rows but no search rows; give both or neither")

    def strain(config: str) -> float:
        ratios = [means[config, risk] / alpha for risk, alpha in claim.budget.items() if risk != COMBINED]
        if COMBINED in claim.budget:
            total = sum(weight * means[config, risk] for risk, weight in claim.weights.items())
            ratios.append(total / claim.budget[COMBINED])
        return max(ratios)

    ordered = sorted(configs, key=lambda config: (strain(config), config))
    return [Candidate(config, "", {}, 1.0 / place) for place, config in enumerate(ordered, start=1)]


def _paths(table: Table) -> list[Path]:
    assert isinstance(table, str | PathLike | Sequence)
    return [Path(table)] if isinstance(table, str | PathLike) else [Path(fspath(path)) for path in table]
