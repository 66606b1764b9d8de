"""The table and the sentences of a plan. Torch-free."""

import math
from collections.abc import Mapping, Sequence

from froc.planning import loss_distributions
from froc.planning.loss_distributions import Law
from froc.planning.pass_probability import DRAWS
from froc.planning.result import LossAssumption, PlanResult, PlanRow
from froc.reporting.tables import Table
from froc.risk.claim import level


def _in_all(made: PlanResult, plan_row: PlanRow) -> int:
    """Units including the search's; for a list, the search share is a fraction of the list."""
    listed, share = made.claim.listed.get(plan_row.risks[0]), made.share or 0.0
    return plan_row.units + round(share * listed) if listed else math.ceil(plan_row.units / (1.0 - share))


def ladder(made: PlanResult) -> Table:
    """A row per number of units."""
    plan_rows = made.ladder
    levels = max((len(plan_row.chances) for plan_row in plan_rows), default=0)
    same = len({made.risks[plan_row.risks[0]] for plan_row in plan_rows}) == 1
    if same:
        heads = [f"power at {risk:.3g}" for risk in made.risks[plan_rows[0].risks[0]]]
    else:
        budget, levels_at = made.claim.budget[plan_rows[0].risks[0]], made.risks[plan_rows[0].risks[0]]
        heads = ["power"] if levels == 1 else [f"power at {risk / budget:g} of budget" for risk in levels_at]
    counted = any(plan_row.lost is not None for plan_row in plan_rows)
    columns = [
        "risk",
        "units",
        *([] if same or levels > 1 else ["expected"]),
        *(["in all"] if made.share else []),
        *(["may be lost", "mean at most"] if counted else []),
    ]
    budgets = ", ".join(f"{risk} at most {alpha:g}" for risk, alpha in made.claim.budget.items())
    title = f"Calibration units for {budgets}, confidence {made.claim.confidence:.0%}"
    rows = []
    for plan_row in plan_rows:
        expected = [] if same or levels > 1 else [f"{made.risks[plan_row.risks[0]][0]:.3g}"]
        cells = [
            ", ".join(plan_row.risks),
            str(plan_row.units),
            *expected,
            *([str(_in_all(made, plan_row))] if made.share else []),
        ]
        if counted:
            bears = plan_row.lost is not None and plan_row.lost >= 0
            cells += [str(plan_row.lost), f"{(plan_row.lost or 0) / plan_row.units:.4f}"] if bears else ["", ""]
        rows.append((*cells, *(str(chance) for chance in plan_row.chances), plan_row.note))
    return Table(title, (*columns, *heads, ""), tuple(rows))


def sentences(made: PlanResult, groups: Sequence[tuple[str, ...]], assumed: Mapping[str, LossAssumption]) -> list[str]:
    """What is needed, what was assumed, how many losses the planned units allow, and what power means."""
    lines = []
    for group in groups:
        assumption, name = assumed[group[0]], " and ".join(group)
        law = next(iter(assumption.laws.values()))
        sentence = (
            f"{name}: {made.zero[group[0]]} {assumption.first.claim.unit[group[0]]} units are needed even at zero loss"
        )
        if group[0] in made.needed:
            need = made.needed[group[0]]
            many = f"{need}" if need else "no number of units that could be planned"
            each = "" if len(assumed) == 1 else f", so that all risks pass together with {made.power:g}"
            sentence += f", {many} for an expected risk of {loss_distributions.mean(law):.4g} (power {made.power ** (1 / len(assumed)):.3g}{each})"
        lines.append(f"{sentence}. Bound: {assumption.first.claim.bound[group[0]]}. Assumed: {assumption.words}.")
        lines += _planned_units(assumption, name, law)
    if made.joint_probability is not None:
        joint, least = made.joint_probability
        hang = "" if len(assumed) == 1 else f"; at least {least:.3f} if their queries are not drawn apart"
        lines.append(f"With the planned units, all risks pass with power {joint}{hang}.")
    share = next(iter(assumed.values())).first.share
    lines.append(
        f"Power is the chance that the first of {made.candidates} candidates in testing order passes at its own level "
        f"({made.claim.procedure}: {share:.4g} of {level(made.claim):g}), whatever becomes of the others; more good "
        "candidates only add to it."
    )
    if any(assumptionnce.error for row in made.ladder for assumptionnce in row.chances):
        lines.append(
            f"± is one standard error of up to {DRAWS} imagined calibrations, seed {made.draws[0]}; else it is exact."
        )
    return lines


def _planned_units(assumption: LossAssumption, name: str, law: Law) -> list[str]:
    """How many losses the planned units allow, and the next number that allows one more."""
    if assumption.units is None:
        return []
    if not assumption.first.counts(law):
        now, more = assumption.first.chance(law, assumption.units), assumption.first.most(-(-5 * assumption.units // 4))
        return [
            f"{name}: {assumption.units} units have power {now}; {more} would have {assumption.first.chance(law, more)}."
        ]
    lost = assumption.first.allowed(assumption.units)
    after = assumption.first.useful(lost + 1)
    if lost < 0 or after is None:
        return [f"{name}: {assumption.units} units cannot certify this, whatever the losses."]
    now, then = assumption.first.chance(law, assumption.units), assumption.first.chance(law, after)
    useful = assumption.first.useful(lost)
    waste = f" ({useful} would do as well)" if useful and useful < assumption.units else ""
    return [
        f"{name}: {assumption.units} units bear {lost} losses of 1{waste}, power {now}; one more is borne from {after} units on, "
        f"power {then}."
    ]
