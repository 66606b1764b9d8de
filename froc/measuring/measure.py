"""Measure a model as it stands under named risks -> per-query losses in thousandths. The last place that sees a tensor."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from froc.data.splits import SearchView, held
from froc.data.task import EARLIER, UTILITY, Query, Row, request_of
from froc.errors import InputError
from froc.loss_table import SCALE, quantise
from froc.measuring import layer_patching
from froc.measuring.attack import Attack, Material
from froc.measuring.measurement import Measurement
from froc.measuring.metric import Observed, Sight
from froc.measuring.observe import observe
from froc.models.base import Base
from froc.models.batches import Encoded, Limits, encode

T = TypeVar("T")

CAP = 100.0
"""Nats per answer token that one query adds to an average at most; a guess among a million tokens has 14."""


@dataclass(frozen=True)
class Average:
    """Means over queries, each counting the same: no risk and no bound, but what FROC's score is made of.

    loss: negative log-likelihood of the answer, nats per token, in [0, CAP]. accuracy: share of answer tokens that greedy
    teacher forcing gets right, in [0, 1]. Four digits each: an exact mean would identify the texts behind it.
    """

    loss: float
    accuracy: float


@dataclass(frozen=True)
class Measured:
    """What one look at a probe's queries gave. losses: (n,) int16 thousandths."""

    losses: NDArray[np.int16]
    average: Average


@dataclass(frozen=True)
class Form:
    """One form of all queries, encoded once. start: the base model's `Observed`, where a metric reads it."""

    asked: tuple[Row, ...] = field(repr=False)
    rows: tuple[Encoded, ...] = field(repr=False)
    start: Observed | None = None


@dataclass(frozen=True)
class Probe:
    """The queries of one risk, encoded once.

    plain: the queries as they are. forms: of each attack, in the measurement's order. base: (n,) the base model's scores of
    the plain queries, where the loss is a drop. start: the base model's averages, where it was measured. bank: rows that
    the metric compares queries with.
    """

    risk: str
    measurement: Measurement
    queries: tuple[Query, ...]
    plain: Form
    forms: tuple[tuple[Form, ...], ...] = ()
    base: NDArray[np.float64] | None = None
    start: Average | None = None
    bank: Form | None = None
    material: Material | None = None

    @property
    def rows(self) -> tuple[Encoded, ...]:
        """The plain queries."""
        return self.plain.rows

    @property
    def sights(self) -> frozenset[Sight]:
        """What its metric reads beside tokens."""
        return frozenset(self.measurement.metric.reads)


def material(view: SearchView, pool: str = "", seed: int = 0) -> Material:
    """What an adversary may hold of a task: forget rows of held facts, and all retain rows.

    pool: whose queries are attacked; against what earlier requests removed, forget rows of those.
    """
    known = tuple(row for row in (view.forget if request_of(pool) is None else view.earlier) if held(row))
    return Material(known, view.retain, view.refusals, view.template, seed)


def probes(
    base: Base, queries: Mapping[str, tuple[Query, ...]], measures: Mapping[str, Measurement], view: SearchView
) -> list[Probe]:
    """Encode the queries of every risk and measure the base model where that is asked for; restores the base."""
    base.restore()
    # one for all risks of a pool: an attack that changes the model is carried out once for each material
    holds = {pool: material(view, pool) for pool in ("", EARLIER)}
    refuse_unfit(view, measures, queries)
    forms: dict[tuple[Row, ...], Form] = {}
    limits = Limits.of(base.model)

    def form(rows: Sequence[Row]) -> Form:
        # risks about the same queries share them, and with them what is seen
        key = tuple(rows)
        if key not in forms:
            forms[key] = Form(key, tuple(encode(base.tokenizer, key, view.template, limits)))
        return forms[key]

    made = []
    for risk, some in queries.items():
        measured, asked = measures[risk], [query.row for query in some]
        found = holds["" if request_of(measured.pool) is None else EARLIER]
        plain = form(asked)
        attacked = tuple(tuple(form(rows) for rows in attack.ask(asked, found)) for attack in measured.attacks)
        bank = {"": (), "holdout": view.holdout, "forget": view.forget}[measured.metric.bank]
        probe = Probe(risk, measured, some, plain, attacked, bank=form(bank) if bank else None, material=found)
        made.append(_started(base, probe))
    return made


def refuse_unfit(
    view: SearchView, measures: Mapping[str, Measurement], queries: Mapping[str, Sequence[Query]] | None = None
) -> None:
    """InputError naming the mend where a risk cannot be measured on these queries (the search's by default) at all."""
    for risk, some in (queries or view.queries).items():
        one, rows = measures[risk], [query.row for query in some]
        found = material(view, one.pool)
        why = one.metric.fits(rows) or next(filter(None, (a.fits(rows, found) for a in one.attacks)), "")
        if one.metric.bank == "holdout" and not view.holdout:
            why = "needs rows that the base model has never seen; add a file holdout to the task, or leave the profile away and name the risks you want (--budget paraphrase=0.1)"
        if any(attack.holds for attack in one.attacks) and not found.known:
            why = "needs forget rows about facts that are not measured, and there are none; give more forget rows"
        if "depth" in one.metric.reads and one.attacks:
            why = "is measured without attacks: it compares the model itself with a retrained one"
        hidden = sorted(frozenset(one.metric.reads) & frozenset().union(*(attack.hides for attack in one.attacks)))
        if hidden:
            why = f"reads what cannot be seen under that attack ({', '.join(hidden)}); take a metric of answer tokens, such as extraction_strength"
        if why:
            raise InputError(f"risk {risk} ({one}) {why}")


def _started(base: Base, probe: Probe) -> Probe:
    """With what the base model does, where the loss or the metric reads it."""
    if "base" in probe.sights:

        def began(form: Form) -> Form:
            seen = observe(base.model, base.tokenizer, form.rows, form.asked, probe.sights)
            if "depth" in probe.sights:
                seen = replace(seen, depth=layer_patching.of_reference(base, form.rows, probe.measurement.metric))
            return replace(form, start=seen)

        forms = tuple(tuple(map(began, some)) for some in probe.forms)
        probe = replace(probe, plain=began(probe.plain), forms=forms, bank=probe.bank and began(probe.bank))
    if probe.measurement.drop:
        seen = look(base, probe)
        probe = replace(probe, base=probe.measurement.metric.scores(seen), start=averaged(seen, probe.risk))
    return probe


def look(base: Base, probe: Probe, some: Sequence[int] | None = None) -> Observed:
    """What the model as it stands does with the plain queries, or those at `some`: what metrics and averages need."""
    return _Eyes(base).see(probe, some)


def scores(base: Base, probe: Probe, some: Sequence[int] | None = None) -> NDArray[np.float64]:
    """(n,) scores of the model as it stands, on all plain queries or those at `some`; never NaN."""
    return probe.measurement.metric.scores(look(base, probe, some))


def judged(probe: Probe, seen: Observed, some: Sequence[int] | None = None) -> Measured:
    """Losses and averages of what was seen of all plain queries, or of those at `some`."""
    return Measured(_losses(probe, probe.measurement.metric.scores(seen), some), averaged(seen, probe.risk))


def losses(base: Base, probe: Probe, some: Sequence[int] | None = None) -> NDArray[np.int16]:
    """(n,) whole thousandths of one risk, rounded up. A query that could not be measured counts as the worst loss."""
    return measured(base, [probe], {probe.risk: some})[probe.risk]


def absences(base: Base, opened: Sequence[Probe]) -> dict[str, NDArray[np.int16]]:
    """risk -> (n,) thousandths, rounded up, of 1 - what the base model shows: its score, or its loss under the worst attack.

    Restores the base model. A query that could not be measured counts as wholly absent. See `froc.risk.control`.
    """
    base.restore()
    known = {probe.risk: _absences(probe, probe.base, None) for probe in opened if probe.base is not None}
    others = [probe for probe in opened if probe.base is None]
    return known | measured(base, others, judge=_absences, worst=np.min)


def measured(
    base: Base,
    some: Sequence[Probe],
    places: Mapping[str, Sequence[int] | None] | None = None,
    judge: "Judge | None" = None,
    worst: Callable[..., NDArray[np.int16]] = np.max,
) -> dict[str, NDArray[np.int16]]:
    """risk -> (n,) losses of the model as it stands; it is left as it was.

    judge, worst: scores -> thousandths, and which form of a query counts; losses and the largest by default.
    places: risk -> which queries; all by default. Risks on the same queries share their passes; an attack that changes the
    model is carried out once for all risks that name it and an adversary who holds the same.
    """
    judge = judge or _losses
    found: dict[str, list[NDArray[np.int16]]] = {probe.risk: [] for probe in some}
    where = {probe.risk: None if places is None else places.get(probe.risk) for probe in some}
    eyes = _Eyes(base, some)
    for probe in (probe for probe in some if not probe.measurement.attacks):
        seen = eyes.see(probe, where[probe.risk])
        found[probe.risk].append(judge(probe, probe.measurement.metric.scores(seen), where[probe.risk]))
    for attack, held_by in dict.fromkeys((a, id(p.material)) for p in some for a in p.measurement.attacks):
        same = [probe for probe in some if id(probe.material) == held_by]
        wanted = [(probe, k) for probe in same for k, a in enumerate(probe.measurement.attacks) if a == attack]
        for probe, loss in _under(base, attack, wanted, where, judge):
            found[probe.risk].append(loss)
    return {risk: worst(np.stack(every), axis=0) for risk, every in found.items()}


def _under(
    base: Base,
    attack: Attack,
    wanted: Sequence[tuple[Probe, int]],
    where: Mapping[str, Sequence[int] | None],
    judge: "Judge",
) -> Iterator[tuple[Probe, NDArray[np.int16]]]:
    """Losses of risks under one attack, once per form and way of looking."""
    given = wanted[0][0].material
    assert given is not None
    with base.scope.opened(base.model, change=attack.changes_model) as model:
        attack.change(model, base.tokenizer, given)
        eyes = _Eyes(base)
        for probe, k in wanted:
            some = where[probe.risk]
            for form in probe.forms[k]:
                rows, asked = _at(form.rows, some), _at(form.asked, some)
                for seen in attack.looks(model, base.tokenizer, rows, asked, probe.sights, given):
                    seen = eyes.beside(probe, form, seen, some)
                    yield probe, judge(probe, probe.measurement.metric.scores(seen), some)


class _Eyes:
    """Looks at one state of the model: what several risks read of the same rows is seen once.

    some: probes whose sights are taken together.
    """

    def __init__(self, base: Base, some: Sequence[Probe] = ()) -> None:
        self._base = base
        self._seen: dict[tuple[int, str, frozenset[Sight]], Observed] = {}
        self._sights: dict[int, frozenset[Sight]] = {}
        for probe in some:
            for form in (probe.plain, probe.bank):
                if form is not None:
                    self._sights[id(form.rows)] = self._sights.get(id(form.rows), frozenset()) | probe.sights

    def see(self, probe: Probe, some: Sequence[int] | None) -> Observed:
        """The plain queries of a risk."""
        return self.beside(probe, probe.plain, self._look(probe, probe.plain, some), some)

    def beside(self, probe: Probe, form: Form, seen: Observed, some: Sequence[int] | None) -> Observed:
        """What was seen, with what the base model does and the bank, where the metric has them."""
        if form.start is not None:
            seen = replace(seen, start=form.start if some is None else form.start.at(some))
        if probe.bank is not None:
            seen = replace(seen, bank=replace(self._look(probe, probe.bank, None), start=probe.bank.start))
        return seen

    def _look(self, probe: Probe, form: Form, some: Sequence[int] | None) -> Observed:
        sights = self._sights.get(id(form.rows), frozenset()) | probe.sights
        key = id(form.rows), str(some), sights
        if key not in self._seen:
            rows, asked = _at(form.rows, some), _at(form.asked, some)
            seen = observe(self._base.model, self._base.tokenizer, rows, asked, sights)
            self._seen[key] = (
                replace(seen, depth=layer_patching.of_current(self._base, rows)) if "depth" in sights else seen
            )
        return self._seen[key]


def averaged(seen: Observed, risk: str) -> Average:
    """Mean loss and accuracy. A query that could not be measured counts as the worst: not forgotten, or all spoiled."""
    loss = -(seen.logp.astype(np.float64).sum(axis=1) / seen.length)
    accuracy = seen.hit.sum(axis=1) / seen.length
    failed = np.isnan(loss)
    worst, wrong = (CAP, 0.0) if risk == UTILITY else (0.0, 1.0)
    loss = np.where(failed, worst, loss.clip(0.0, CAP))
    accuracy = np.where(failed, wrong, accuracy)
    return Average(float(f"{abs(loss.mean()):.4g}"), round(float(accuracy.mean()), 4))


def _at(values: Sequence[T], some: Sequence[int] | None) -> Sequence[T]:
    return values if some is None else [values[i] for i in some]


Judge = Callable[[Probe, NDArray[np.float64], Sequence[int] | None], NDArray[np.int16]]
"""Scores of a risk's queries, or of those at some places -> whole thousandths."""


def _absences(_probe: Probe, scores: NDArray[np.float64], _places: Sequence[int] | None) -> NDArray[np.int16]:
    failed = ~np.isfinite(scores)
    return np.where(failed, SCALE, quantise(1.0 - np.where(failed, 0.0, scores).clip(0.0, 1.0))).astype(np.int16)


def _losses(probe: Probe, found: NDArray[np.float64], some: Sequence[int] | None) -> NDArray[np.int16]:
    if probe.base is not None:
        found = np.clip((probe.base if some is None else probe.base[list(some)]) - found, 0.0, 1.0)
    failed = ~np.isfinite(found)
    whole = quantise(np.where(failed, 1.0, found))
    return np.where(failed, SCALE, whole).astype(np.int16)
