"""The further stages of a report: `stages.json`, what was sealed for each before a loss of it was measured.

That no stage was measured and left out is the signer's word, like the number of openings.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import polars as pl
from pydantic import Field

from froc import hashing
from froc.audit import canonical_json, documents
from froc.audit.bundle_files import RISK, STAGES, Hex, Stamp, Strict, Trial, moment
from froc.audit.chronology import CLOCK_SKEW
from froc.audit.documents import Count, Plan
from froc.audit.writing import run_bytes, run_losses
from froc.errors import InputError, VerificationError
from froc.plan_identity import stage_seed
from froc.risk.claim import Stage

MOST = 1000
"""More stages than any run has."""


class SealedStage(Strict):
    """A stage.

    before: digest of what was sealed last. rows: keyed digest of its rows. seed: its queries' names, and with them their order, follow from it.
    queries: risk -> digest over the sorted ids; units: risk -> number of units.
    """

    number: int = Field(ge=2, le=MOST)
    created: str = Stamp
    before: str = Hex
    rows: str = Hex
    seed: str = Hex
    queries: dict[Annotated[str, Field(pattern=rf"^{RISK}$")], Annotated[str, Hex]] = Field(min_length=1)
    units: dict[Annotated[str, Field(pattern=rf"^{RISK}$")], Count] = Field(min_length=1)

    @property
    def of_claim(self) -> Stage:
        """The stage as claims have it."""
        return Stage(self.number, self.rows, self.seed)


class Stages(Strict):
    """`stages.json`."""

    format: Literal[1]
    stages: list[SealedStage] = Field(min_length=1, max_length=MOST)


def files(run: Path) -> dict[str, bytes]:
    """The bundle's file about the stages of a run folder; empty without any. InputError where the last one is not measured yet."""
    if not (run / STAGES).is_file():
        return {}
    return {STAGES: run_bytes(run / STAGES, run)}


def losses(run: Path, stages: Sequence[SealedStage]) -> list[pl.DataFrame]:
    """The loss table of each stage of a run folder."""
    paths = [run / "losses" / f"stage-{stage.number}.parquet" for stage in stages]
    for path in paths:
        if not path.is_file():
            raise InputError(
                f"{run}: a stage was begun and not measured; finish it with the same froc extend, then write the report"
            )
    return [run_losses(path) for path in paths]


def read(bundle: Mapping[str, bytes], plan: Plan, trials: Sequence[Trial]) -> tuple[SealedStage, ...]:
    """The stages, in their order. VerificationError where plan or seal allow none of this kind, or their dates contradict others."""
    if STAGES not in bundle:
        return ()
    if not plan.extendable:
        raise VerificationError("stages-unplanned", "the plan says nothing of further stages, and there are some")
    document = canonical_json.strict_json(bundle[STAGES], decimals=True)
    parsed: Stages = documents.parse(Stages, document, "stages-shape")
    before = hashing.sha256_bytes(bundle["seal.json"])
    last = max((trial.ended or trial.started for trial in trials), default=plan.created)
    for place, (stage, raw) in enumerate(zip(parsed.stages, document["stages"], strict=True), start=2):
        if stage.number != place or stage.before != before:
            raise VerificationError("stages-order", f"stage {place} does not follow what was sealed before it")
        if stage.seed != stage_seed(plan.split.label, place, stage.rows):
            raise VerificationError(
                "stages-seed", f"the seed of stage {place} does not follow from the plan and its rows"
            )
        if (
            not stage.queries.keys() <= plan.claim.budget.keys() | set(plan.claim.risks)
            or stage.queries.keys() != stage.units.keys()
        ):
            raise VerificationError("stages-risks", f"stage {place} is about a risk that was not planned")
        if moment(stage.created) + CLOCK_SKEW < moment(last):
            raise VerificationError("stages-dates", f"stage {place} is dated before what it follows")
        before, last = hashing.sha256_json(raw), stage.created
    return tuple(parsed.stages)


def check_losses(table: pl.DataFrame, stages: Sequence[SealedStage], units: Mapping[str, str]) -> None:
    """VerificationError unless the rows of each stage are about its sealed queries, in as many units as it says.

    table: rows of candidates and base model. units: risk -> sampling unit.
    """
    known = {"search", "calibration", *(stage.of_claim.split for stage in stages)}
    if not set(table["split"].unique()) <= known:
        raise VerificationError("table-unplanned-row", "losses.csv has rows of a stage that was not sealed")
    for stage in stages:
        of_stage = table.filter(pl.col("split") == stage.of_claim.split)
        if not set(of_stage["risk"].unique()) <= set(stage.queries):
            raise VerificationError(
                "table-other-queries", f"stage {stage.number} was measured under further risks than sealed"
            )
        for risk, digest in stage.queries.items():
            of_risk = of_stage.filter(pl.col("risk") == risk)
            key = "query" if units[risk] == "query" else "unit"
            if hashing.sha256_json(sorted(set(of_risk["query"].to_list()))) != digest:
                raise VerificationError(
                    "table-other-queries", f"the {risk} queries of stage {stage.number} are not the sealed ones"
                )
            if of_risk[key].n_unique() != stage.units[risk]:
                raise VerificationError(
                    "plan-units", f"{risk} was not measured on as many units as stage {stage.number} sealed"
                )


def sentence(stages: Sequence[SealedStage]) -> str:
    """What the losses hold of further stages; empty without any."""
    return f"; in {len(stages) + 1} stages, each sealed after the one before it" if stages else ""
