"""A comparison of methods inside a bundle: its plan and seal in `comparison.json`, its losses in `comparison.csv`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from froc import hashing, provenance
from froc.audit import bundle_files, canonical_json, documents
from froc.audit.documents import ComparedFile, ComparedPlan, ComparedSeal, Plan
from froc.audit.report import Compared
from froc.audit.writing import run_bytes, run_losses
from froc.comparison.document import BEFORE
from froc.errors import InputError, VerificationError
from froc.plan_identity import identity


def files(folder: Path) -> dict[str, bytes]:
    """A bundle's files about a finished comparison; InputError where it is unfinished or damaged."""
    try:
        run_documents = {
            name: json.loads(run_bytes(folder / f"{name}.json", folder)) for name in ("plan", "seal", "comparison")
        }
        table = run_losses(folder / "losses" / "calibration.parquet")
        opening = run_documents["comparison"]["opening"]
        whole = {
            "plan": run_documents["plan"],
            "seal": run_documents["seal"],
            "opening": opening["number"],
            "planned": opening["planned"],
        }
        configs = [candidate["config"] for candidate in run_documents["seal"]["candidates"]]
        losses = bundle_files.write_losses(table, configs, bundle_files.COMPARED_LOSSES)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, InputError, VerificationError) as error:
        raise InputError(
            f"{folder} holds no finished comparison; give the folder that froc compare --out wrote"
        ) from error
    return {"comparison.json": canonical_json.compact(whole), "comparison.csv": losses}


def _refuse_unnamed(compared: ComparedPlan, plan: Plan) -> None:
    """VerificationError where a comparison was measured with code that is not froc's and that the report's plan does not name."""
    parts = {"metrics": compared.metrics, "bound": {}, "procedure": plan.procedure, "search": {}}
    foreign = provenance.unknown(parts) - {(entry.kind, entry.name) for entry in plan.plugins or ()}
    if foreign:
        raise VerificationError(
            "comparison-plugins",
            "the comparison was measured with code that is not froc's and that the report's plan does not name; leave it out",
        )


def read(bundle: Mapping[str, bytes], plan: Plan) -> Compared:
    """The comparison in a bundle about the run of `plan`; VerificationError where it is about another task or model."""
    whole: ComparedFile = documents.parse(
        ComparedFile, canonical_json.strict_json(bundle["comparison.json"], decimals=True), "comparison-shape"
    )
    compared_plan: ComparedPlan = documents.parse(ComparedPlan, whole.plan, "comparison-shape")
    _refuse_unnamed(compared_plan, plan)
    seal: ComparedSeal = documents.parse(ComparedSeal, whole.seal, "comparison-shape")
    if seal.plan != hashing.sha256_bytes(_as_written(whole.plan)):
        raise VerificationError("comparison-other-plan", "the comparison was sealed under another plan")
    if compared_plan.model.digest != plan.model.digest or compared_plan.task.get("name") != plan.task.name:
        raise VerificationError("comparison-other-task", "the comparison is about another base model or task")
    # the ledger takes the smallest number that earlier openings of the same queries had planned, which this run's is among
    if whole.planned > max(compared_plan.openings, plan.openings):
        raise VerificationError(
            "comparison-openings", "the comparison says that more openings were planned than plans do"
        )
    # a task that draws its queries per plan has a different digest in each; the comparison then names this run
    compared = plan.questions is not None and identity(json.loads(bundle["plan.json"])) in _compared(compared_plan)
    if compared_plan.task.get("digest") != plan.task.digest and not compared:
        raise VerificationError("comparison-other-digest", "the comparison is about other rows of a task of that name")
    configs = [point.config for point in seal.candidates]
    _refuse_gaps(compared_plan, seal, configs)
    losses = bundle_files.read_losses(
        bundle["comparison.csv"],
        configs,
        {str(risk): metric for risk, metric in compared_plan.metrics.items()},
        csv=bundle_files.COMPARED_LOSSES,
    )
    for risk in compared_plan.metrics:
        of_risk = losses.filter(pl.col("risk") == risk)
        if hashing.sha256_json(sorted(set(of_risk["query"].to_list()))) != seal.calibration.get(risk):
            raise VerificationError("comparison-other-queries", f"the compared {risk} queries are not the sealed ones")
    return Compared(compared_plan, seal, losses, whole.opening, whole.planned)


def _compared(compared_plan: ComparedPlan) -> list[str | None]:
    """Identities of the plans whose runs were compared."""
    return [run.get("plan") for run in compared_plan.runs]


def _refuse_gaps(compared_plan: ComparedPlan, seal: ComparedSeal, configs: Sequence[str]) -> None:
    """VerificationError unless every level is a stage, and every method is in every stage and has a front of its own points."""
    methods = {point.config: point.method for point in seal.candidates}
    own = all(methods.get(name) == method for stage in seal.stages.values() for method, name in stage.items())
    own = own and all(methods.get(name) == method for method, names in seal.fronts.items() for name in names)
    if not own or len(methods) != len(configs):
        raise VerificationError("comparison-shape", "the comparison names a point that is not sealed, or sealed twice")
    whole = all(stage.keys() == seal.fronts.keys() for stage in seal.stages.values())
    whole = whole and len(seal.fronts) > 1 and all(seal.fronts.values())
    levels = [f"{level:g}" for level in compared_plan.levels]
    if not whole or len(set(levels)) != len(levels) or seal.stages.keys() != {BEFORE, *levels}:
        raise VerificationError("comparison-stages", "the comparison leaves out a level or a method that it asked for")
    trained = {point.config for point in seal.candidates if point.params.mix == 1.0}
    if not trained.issuperset(seal.stages[BEFORE].values()):
        raise VerificationError("comparison-before", "the comparison shows a mixture as the model that was trained")


def _as_written(plan: Mapping[str, Any]) -> bytes:
    """The bytes of the document in the run folder."""
    return (json.dumps(plan, indent=2, sort_keys=True) + "\n").encode("utf-8")
