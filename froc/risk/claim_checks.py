"""Claims that cannot be certified: unknown names, levels and budgets out of range, bounds that do not fit."""

from froc import procedures
from froc.bounds import Bound
from froc.errors import InputError
from froc.loss_table import UNITS, WEIGHTED
from froc.plugins import find
from froc.risk import shift
from froc.risk.claim import POPULATIONS, Claim, estimands, level
from froc.risk.weighted_sum import COMBINED


def refuse_unknown(claim: Claim) -> None:
    """InputError for a claim that cannot be certified: unknown names, levels and budgets out of range, unfit bounds."""
    procedures.find(claim.procedure)
    if not claim.budget:
        raise InputError("no risk has a budget; give at least one, such as --budget forgetting=0.1")
    if not 0 < claim.confidence < 1:
        raise InputError(f"confidence {claim.confidence:g} is outside (0, 1)")
    if claim.openings < 1 or claim.opening < 1:
        raise InputError("openings are counted from 1")
    if claim.series < 1:
        raise InputError(f"a series of {claim.series} attempts holds none; give --series the number of attempts")
    if not 0 < level(claim) < 1:
        raise InputError(f"confidence {claim.confidence!r} leaves no error level to spend; lower it")
    if not 0 <= claim.radius < 1:
        raise InputError(f"radius {claim.radius:g} is outside [0, 1); a Hellinger distance such as 0.05")
    for risk, alpha in claim.budget.items():
        if not 0 < alpha < 1:
            raise InputError(f"budget {risk}={alpha:g} is outside (0, 1); a budget is an accepted risk such as 0.1")
        if shift.shrunk(alpha, claim.radius) <= 0:
            most = shift.robust_radius(0.0, alpha)
            raise InputError(
                f"no risk can keep budget {risk}={alpha:g} within a Hellinger radius of {claim.radius:g}; even a risk "
                f"of 0 reaches it at {most:.4f}"
            )
    _refuse_weights(claim)
    for risk in claim.risks:
        _refuse_risk(claim, risk)
    _refuse_ratios(claim)
    _refuse_unextendable(claim)
    for risk in claim.parts:
        if not find(Bound, claim.bound[risk]).monotone:
            raise InputError(
                f"the combined risk needs p-values that never rise with the risk, which {claim.bound[risk]} has not; take --bound betting"
            )
    if claim.estimand and dict(claim.estimand) != estimands(claim):
        raise InputError("the claim names another estimand than its units and populations have")


def _refuse_weights(claim: Claim) -> None:
    if (COMBINED in claim.budget) != bool(claim.weights):
        raise InputError(
            "the combined risk needs its budget and its weights: --budget combined=0.1 --weight forgetting=0.5 ..."
        )
    if claim.weights and procedures.find(claim.procedure).evidence == "e":
        raise InputError(f"{claim.procedure} needs e-values, the combined risk has none; take benjamini-yekutieli")
    if len(claim.weights) not in (0, 2):
        raise InputError("the combined risk is made of two risks; give two weights")
    for risk, weight in claim.weights.items():
        if not 0 < weight <= 1:
            raise InputError(f"weight {risk}={weight:g} is outside (0, 1]")
    if claim.weights and sum(claim.weights.values()) > 1 + 1e-9:
        raise InputError("the weights of the combined risk sum to more than 1; it would no longer be a risk in [0, 1]")


def _refuse_risk(claim: Claim, risk: str) -> None:
    if risk not in claim.bound or risk not in claim.unit:
        raise InputError(f"risk {risk!r} has a budget but no bound or unit; name them")
    bound = find(Bound, claim.bound[risk])
    if claim.unit[risk] not in UNITS:
        raise InputError(f"no unit is called {claim.unit[risk]!r}; there are: {', '.join(UNITS)}")
    kind = claim.kind(risk)
    if kind not in POPULATIONS:
        raise InputError(f"no population is called {kind!r}; there are: {', '.join(POPULATIONS)}")
    if bound.finite != (kind != "queries") or (kind == "census") != (claim.bound[risk] == "census"):
        raise InputError(f"the bound {claim.bound[risk]} is not for population {kind} of {risk}; take --bound auto")
    if kind == "sample" and claim.listed.get(risk, 0) < 1:
        raise InputError(f"population sample needs the size of the list: --listed {risk}=400")
    if claim.unit[risk] == WEIGHTED:
        _refuse_weighted(claim, risk, bound)
    if claim.sequential and not bound.anytime:
        raise InputError(f"the bound {claim.bound[risk]} does not hold when measuring stops early; take betting")
    if procedures.find(claim.procedure).evidence == "e" and bound.e_value is Bound.e_value:
        raise InputError(f"{claim.procedure} needs e-values, {claim.bound[risk]} has none; take mixture or betting")


def _refuse_ratios(claim: Claim) -> None:
    for risk in claim.relative:
        if risk not in claim.budget or risk == COMBINED or COMBINED in claim.budget:
            raise InputError(
                f"--relative {risk}: only single risks with budgets of their own have relative ones; "
                f"take {' or '.join(r for r in claim.budget if r != COMBINED) or 'utility'}, and leave combined budgets out"
            )
        if claim.kind(risk) != "queries" or claim.sequential:
            raise InputError(
                f"--relative {risk} is offered for queries that are drawn and measured as planned; leave --sequential and "
                f"--population {claim.kind(risk)} out"
            )
        if find(Bound, claim.bound[risk]).binary_only:
            raise InputError(
                f"the bound {claim.bound[risk]} needs 0-1 losses, which a share of what the base model scored has not; "
                f"take --bound auto for {risk}"
            )
    ratios = [risk for risk in claim.risks if claim.is_ratio(risk)]
    if claim.radius and ratios:
        raise InputError(
            f"{ratios[0]}: what a shift of the queries does to a ratio of means is not known; leave --radius out, or "
            + (f"--relative {ratios[0]}" if ratios[0] in claim.relative else f"take --unit {ratios[0]}=group")
        )


def _refuse_unextendable(claim: Claim) -> None:
    if claim.stages and not claim.extendable:
        raise InputError("the plan says nothing of further stages, and there are some")
    if not claim.extendable:
        return
    if claim.sequential or any(claim.kind(risk) != "queries" for risk in claim.risks):
        raise InputError(
            "--extendable is for queries that are drawn and measured as planned: fresh ones go on where those end; leave --sequential "
            "and --population out"
        )
    for risk in claim.risks:
        if not find(Bound, claim.bound[risk]).extendable or procedures.find(claim.procedure).evidence == "e":
            raise InputError(
                f"--extendable: the test of {risk} by {claim.bound[risk]} ends with the planned queries, and says nothing of later ones; take "
                "--bound auto or betting"
            )


def _refuse_weighted(claim: Claim, risk: str, bound: type[Bound]) -> None:
    kind = claim.kind(risk)
    if kind == "sample" or claim.sequential:
        raise InputError(
            f"{risk}: {WEIGHTED} is offered for populations queries and census, measured as planned; take --unit {risk}=group, "
            "or leave --sequential and --population sample out"
        )
    if kind == "queries" and claim.largest.get(risk, 0) < 1:
        raise InputError(f"{risk}: {WEIGHTED} needs the size of the largest group that there may be; it is in no plan")
    if bound.binary_only:
        raise InputError(
            f"the bound {claim.bound[risk]} needs 0-1 losses of single queries; take --bound auto for {risk}"
        )
