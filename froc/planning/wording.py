"""What a plan says: its table and its sentences. Torch-free."""

import math
from collections.abc import Mapping, Sequence

from froc.planning import loss_distributions
from froc.planning.loss_distributions import Law
from froc.planning.pass_probability import DRAWS
from froc.planning.result import Assumed, PlanResult, Rung
from froc.reporting.tables import Table
from froc.risk.claim import level


def _in_all(made: PlanResult, rung: Rung) -> int:
    """Units beside which the search has its share; of a list, the share is of the list."""
    listed, share = made.claim.listed.get(rung.risks[0]), made.share or 0.0
    return rung.units + round(share * listed) if listed else math.ceil(rung.units / (1.0 - share))


def ladder(made: PlanResult) -> Table:
    """A row per number of units."""
    some = made.ladder
    levels = max((len(rung.chances) for rung in some), default=0)
    same = len({made.risks[rung.risks[0]] for rung in some}) == 1
    if same:
        heads = [f"power at {risk:.3g}" for risk in made.risks[some[0].risks[0]]]
    else:
        budget, given = made.claim.budget[some[0].risks[0]], made.risks[some[0].risks[0]]
        heads = ["power"] if levels == 1 else [f"power at {risk / budget:g} of budget" for risk in given]
    counted = any(rung.lost is not None for rung in some)
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
    for rung in some:
        expected = [] if same or levels > 1 else [f"{made.risks[rung.risks[0]][0]:.3g}"]
        cells = [", ".join(rung.risks), str(rung.units), *expected, *([str(_in_all(made, rung))] if made.share else [])]
        if counted:
            bears = rung.lost is not None and rung.lost >= 0
            cells += [str(rung.lost), f"{(rung.lost or 0) / rung.units:.4f}"] if bears else ["", ""]
        rows.append((*cells, *(str(one) for one in rung.chances), rung.note))
    return Table(title, (*columns, *heads, ""), tuple(rows))


def sentences(made: PlanResult, groups: Sequence[tuple[str, ...]], assumed: Mapping[str, Assumed]) -> list[str]:
    """What is needed, what was assumed, what the planned units bear, and what power means."""
    lines = []
    for group in groups:
        one, name = assumed[group[0]], " and ".join(group)
        law = next(iter(one.laws.values()))
        said = f"{name}: {made.zero[group[0]]} {one.first.claim.unit[group[0]]} units are needed even at zero loss"
        if group[0] in made.needed:
            need = made.needed[group[0]]
            many = f"{need}" if need else "no number of units that could be planned"
            each = "" if len(assumed) == 1 else f", so that all risks pass together with {made.power:g}"
            said += f", {many} for an expected risk of {loss_distributions.mean(law):.4g} (power {made.power ** (1 / len(assumed)):.3g}{each})"
        lines.append(f"{said}. Bound: {one.first.claim.bound[group[0]]}. Assumed: {one.words}.")
        lines += _planned_units(one, name, law)
    if made.together is not None:
        both, least = made.together
        hang = "" if len(assumed) == 1 else f"; at least {least:.3f} if their queries are not drawn apart"
        lines.append(f"With the planned units, all risks pass with power {both}{hang}.")
    share = next(iter(assumed.values())).first.share
    lines.append(
        f"Power is the chance that the first of {made.candidates} candidates in testing order passes at its own level "
        f"({made.claim.procedure}: {share:.4g} of {level(made.claim):g}), whatever becomes of the others; more good "
        "candidates only add to it."
    )
    if any(one.error for rung in made.ladder for one in rung.chances):
        lines.append(
            f"± is one standard error of up to {DRAWS} imagined calibrations, seed {made.draws[0]}; else it is exact."
        )
    return lines


def _planned_units(one: Assumed, name: str, law: Law) -> list[str]:
    """What the planned units bear, and what the next useful number would buy."""
    if one.units is None:
        return []
    if not one.first.counts(law):
        now, more = one.first.chance(law, one.units), one.first.most(-(-5 * one.units // 4))
        return [f"{name}: {one.units} units have power {now}; {more} would have {one.first.chance(law, more)}."]
    lost = one.first.allowed(one.units)
    after = one.first.useful(lost + 1)
    if lost < 0 or after is None:
        return [f"{name}: {one.units} units cannot certify this, whatever the losses."]
    now, then = one.first.chance(law, one.units), one.first.chance(law, after)
    useful = one.first.useful(lost)
    waste = f" ({useful} would do as well)" if useful and useful < one.units else ""
    return [
        f"{name}: {one.units} units bear {lost} losses of 1{waste}, power {now}; one more is borne from {after} units on, "
        f"power {then}."
    ]
