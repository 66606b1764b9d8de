"""A model in its current state and named risks -> per-query losses in thousandths. Nothing after this module handles tensors."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
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
from froc.measuring.metric import Observable, Observation
from froc.measuring.model_observation import observe
from froc.measuring.placement import bank_rows
from froc.models.base import Base
from froc.models.batches import Encoded, Limits, encode
from froc.models.block_entry import reusing_states

T = TypeVar("T")

MAX_NLL = 100.0
"""Nats per answer token that one query adds to an average at most; a guess among a million tokens has 14."""


@dataclass(frozen=True)
class Average:
    """Means over queries, each counting the same: no risk and no bound, but what FROC's score is made of.

    loss: negative log-likelihood of the answer, nats per token, in [0, MAX_NLL]. accuracy: share of answer tokens that greedy
    teacher forcing gets right, in [0, 1]. Four digits each: an exact mean would identify the texts behind it.
    """

    loss: float
    accuracy: float


@dataclass(frozen=True)
class Measured:
    """One measurement of a probe's queries. losses: (n,) int16 thousandths."""

    losses: NDArray[np.int16]
    average: Average


@dataclass(frozen=True)
class Form:
    """One form of all queries (as they are, or as an attack words them), encoded once. start: the base model's `Observation`, where
    a metric reads it."""

    queries: tuple[Row, ...] = field(repr=False)
    rows: tuple[Encoded, ...] = field(repr=False)
    start: Observation | None = None


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
    def observables(self) -> frozenset[Observable]:
        """What its metric reads in addition to answer tokens."""
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
    """Encode the queries of every risk, and measure the base model where the loss or the metric needs it. Restores the base."""
    base.restore()
    # one material for all risks of a pool: an attack that changes the model runs once per material
    holds = {pool: material(view, pool) for pool in ("", EARLIER)}
    refuse_unfit(view, measures, queries)
    forms: dict[tuple[Row, ...], Form] = {}
    limits = Limits.of(base.model)

    def form(rows: Sequence[Row]) -> Form:
        # risks on the same queries share the form, and so share the forward passes
        key = tuple(rows)
        if key not in forms:
            forms[key] = Form(key, tuple(encode(base.tokenizer, key, view.template, limits)))
        return forms[key]

    made = []
    for risk, queries_of_risk in queries.items():
        measurement, rows = measures[risk], [query.row for query in queries_of_risk]
        adversary = holds["" if request_of(measurement.pool) is None else EARLIER]
        plain = form(rows)
        attacked = tuple(tuple(form(rows) for rows in attack.ask(rows, adversary)) for attack in measurement.attacks)
        bank = form(bank_rows(view, measurement.metric.bank)) if measurement.metric.bank else None
        probe = Probe(risk, measurement, queries_of_risk, plain, attacked, bank=bank, material=adversary)
        with base.measuring():
            made.append(_with_base(base, probe))
    return made


def refuse_unfit(
    view: SearchView, measures: Mapping[str, Measurement], queries: Mapping[str, Sequence[Query]] | None = None
) -> None:
    """InputError, with the fix, where a risk cannot be measured on these queries (the search queries by default)."""
    for risk, queries_of_risk in (queries or view.queries).items():
        measurement, rows = measures[risk], [query.row for query in queries_of_risk]
        adversary = material(view, measurement.pool)
        why = measurement.metric.fits(rows) or next(
            filter(None, (a.fits(rows, adversary) for a in measurement.attacks)), ""
        )
        if measurement.metric.bank == "holdout" and not view.holdout:
            why = "needs rows that the base model has never seen; add a file holdout to the task, or leave the profile away and name the risks you want (--budget paraphrase=0.1)"
        if any(attack.holds for attack in measurement.attacks) and not adversary.known:
            why = "needs forget rows about facts that are not measured, and there are none; give more forget rows"
        if "depth" in measurement.metric.reads and measurement.attacks:
            why = "is measured without attacks: it compares the model itself with a retrained one"
        hidden = sorted(
            frozenset(measurement.metric.reads) & frozenset().union(*(attack.hides for attack in measurement.attacks))
        )
        if hidden:
            why = f"reads what cannot be seen under that attack ({', '.join(hidden)}); take a metric of answer tokens, such as extraction_strength"
        if why:
            raise InputError(f"risk {risk} ({measurement}) {why}")


def _with_base(base: Base, probe: Probe) -> Probe:
    """The probe with the base model's scores and observations, where the loss or the metric reads them."""
    if "base" in probe.observables:

        def began(form: Form) -> Form:
            observation = observe(base.model, base.tokenizer, form.rows, form.queries, probe.observables)
            if "depth" in probe.observables:
                observation = replace(
                    observation, depth=layer_patching.of_reference(base, form.rows, probe.measurement.metric)
                )
            return replace(form, start=observation)

        forms = tuple(tuple(map(began, forms_of_attack)) for forms_of_attack in probe.forms)
        probe = replace(probe, plain=began(probe.plain), forms=forms, bank=probe.bank and began(probe.bank))
    if probe.measurement.drop:
        observation = observe_probe(base, probe)
        probe = replace(
            probe, base=probe.measurement.metric.scores(observation), start=averaged(observation, probe.risk)
        )
    return probe


def observe_probe(
    base: Base, probe: Probe, places: Sequence[int] | None = None, changed: Collection[str] | None = None
) -> Observation:
    """What the model as it is does with the plain queries, or those at `places`. changed: what may differ from the base; all that trains by default."""
    with base.measuring(), reusing_states(base.model, base.trainable.parameters() if changed is None else changed):
        return ObservationCache(base).observation(probe, places)


def scores(base: Base, probe: Probe, places: Sequence[int] | None = None) -> NDArray[np.float64]:
    """(n,) scores of the model in its current state on all plain queries, or on those at `places`."""
    return probe.measurement.metric.scores(observe_probe(base, probe, places))


def evaluate(probe: Probe, observation: Observation, places: Sequence[int] | None = None) -> Measured:
    """Losses and averages from an observation of all plain queries, or of those at `places`."""
    return Measured(
        _losses(probe, probe.measurement.metric.scores(observation), places), averaged(observation, probe.risk)
    )


def losses(base: Base, probe: Probe, places: Sequence[int] | None = None) -> NDArray[np.int16]:
    """(n,) whole thousandths of one risk, rounded up. A query that could not be measured counts as the worst loss."""
    return measured(base, [probe], {probe.risk: places})[probe.risk]


def absences(base: Base, opened: Sequence[Probe]) -> dict[str, NDArray[np.int16]]:
    """risk -> (n,) thousandths, rounded up, of 1 - what the base model shows: its score, or its loss under the worst attack.

    Restores the base model. A query that could not be measured counts as wholly absent. See `froc.risk.positive_control`.
    """
    base.restore()
    known = {probe.risk: _absences(probe, probe.base, None) for probe in opened if probe.base is not None}
    others = [probe for probe in opened if probe.base is None]
    return known | measured(base, others, judge=_absences, worst=np.min)


def measured(
    base: Base,
    probes: Sequence[Probe],
    places: Mapping[str, Sequence[int] | None] | None = None,
    judge: "Judge | None" = None,
    worst: Callable[..., NDArray[np.int16]] = np.max,
) -> dict[str, NDArray[np.int16]]:
    """risk -> (n,) losses of the model in its current state, which is not changed.

    judge: scores -> thousandths, losses by default. worst: reduces the forms of a query to one, the maximum by default.
    places: risk -> indices of its queries, all by default. Risks on the same queries share forward passes; an attack that
    changes the model runs once for all risks that use it with the same material.
    """
    with base.measuring():
        losses = _measured(base, probes, places or {}, judge or _losses)
    return {risk: worst(np.stack(every), axis=0) for risk, every in losses.items()}


def _measured(
    base: Base, probes: Sequence[Probe], places: Mapping[str, Sequence[int] | None], judge: "Judge"
) -> dict[str, list[NDArray[np.int16]]]:
    """risk -> losses of each form."""
    losses: dict[str, list[NDArray[np.int16]]] = {probe.risk: [] for probe in probes}
    where = {probe.risk: places.get(probe.risk) for probe in probes}
    cache = ObservationCache(base, probes)
    for probe in (probe for probe in probes if not probe.measurement.attacks):
        observation = cache.observation(probe, where[probe.risk])
        losses[probe.risk].append(judge(probe, probe.measurement.metric.scores(observation), where[probe.risk]))
    for attack, material_id in dict.fromkeys((a, id(p.material)) for p in probes for a in p.measurement.attacks):
        same = [probe for probe in probes if id(probe.material) == material_id]
        wanted = [(probe, k) for probe in same for k, a in enumerate(probe.measurement.attacks) if a == attack]
        for probe, loss in _under(base, attack, wanted, where, judge):
            losses[probe.risk].append(loss)
    return losses


def _under(
    base: Base,
    attack: Attack,
    wanted: Sequence[tuple[Probe, int]],
    where: Mapping[str, Sequence[int] | None],
    judge: "Judge",
) -> Iterator[tuple[Probe, NDArray[np.int16]]]:
    """(probe, losses) of risks under one attack, once per form of the queries and observation of the attack."""
    adversary_material = wanted[0][0].material
    assert adversary_material is not None
    with base.trainable.temporarily_merged(base.model, change=attack.changes_model, keep=attack.keeps) as model:
        attack.change(model, base.tokenizer, adversary_material)
        cache = ObservationCache(base)
        for probe, k in wanted:
            places = where[probe.risk]
            for form in probe.forms[k]:
                rows, queries = _at(form.rows, places), _at(form.queries, places)
                for observation in attack.observations(
                    model, base.tokenizer, rows, queries, probe.observables, adversary_material
                ):
                    observation = cache.with_reference(probe, form, observation, places)
                    yield probe, judge(probe, probe.measurement.metric.scores(observation), places)


class ObservationCache:
    """Observations of one state of the model; risks that read the same rows share one observation.

    probes: their observables are collected in the same pass.
    """

    def __init__(self, base: Base, probes: Sequence[Probe] = ()) -> None:
        self._base = base
        self._observations: dict[tuple[int, str, frozenset[Observable]], Observation] = {}
        self._observables: dict[int, frozenset[Observable]] = {}
        for probe in probes:
            for form in (probe.plain, probe.bank):
                if form is not None:
                    self._observables[id(form.rows)] = (
                        self._observables.get(id(form.rows), frozenset()) | probe.observables
                    )

    def observation(self, probe: Probe, places: Sequence[int] | None) -> Observation:
        """Of the plain queries of a risk."""
        return self.with_reference(probe, probe.plain, self._observe(probe, probe.plain, places), places)

    def with_reference(
        self, probe: Probe, form: Form, observation: Observation, places: Sequence[int] | None
    ) -> Observation:
        """The observation with the base model's and the bank's, where the metric reads them."""
        if form.start is not None:
            observation = replace(observation, start=form.start if places is None else form.start.at(places))
        if probe.bank is not None:
            observation = replace(
                observation, bank=replace(self._observe(probe, probe.bank, None), start=probe.bank.start)
            )
        return observation

    def _observe(self, probe: Probe, form: Form, places: Sequence[int] | None) -> Observation:
        observables = self._observables.get(id(form.rows), frozenset()) | probe.observables
        key = id(form.rows), str(places), observables
        if key not in self._observations:
            rows, queries = _at(form.rows, places), _at(form.queries, places)
            observation = observe(self._base.model, self._base.tokenizer, rows, queries, observables)
            self._observations[key] = (
                replace(observation, depth=layer_patching.of_current(self._base, rows))
                if "depth" in observables
                else observation
            )
        return self._observations[key]


def averaged(observation: Observation, risk: str) -> Average:
    """Mean loss and accuracy. Failed queries count as fully remembered (forgetting) or fully degraded (utility)."""
    loss = -(observation.logp.astype(np.float64).sum(axis=1) / observation.length)
    accuracy = observation.hit.sum(axis=1) / observation.length
    failed = np.isnan(loss)
    worst, wrong = (MAX_NLL, 0.0) if risk == UTILITY else (0.0, 1.0)
    loss = np.where(failed, worst, loss.clip(0.0, MAX_NLL))
    accuracy = np.where(failed, wrong, accuracy)
    return Average(float(f"{abs(loss.mean()):.4g}"), round(float(accuracy.mean()), 4))


def _at(values: Sequence[T], places: Sequence[int] | None) -> Sequence[T]:
    return values if places is None else [values[i] for i in places]


Judge = Callable[[Probe, NDArray[np.float64], Sequence[int] | None], NDArray[np.int16]]
"""(probe, scores of its queries, places or None) -> whole thousandths."""


def _absences(_probe: Probe, scores: NDArray[np.float64], _places: Sequence[int] | None) -> NDArray[np.int16]:
    failed = ~np.isfinite(scores)
    return np.where(failed, SCALE, quantise(1.0 - np.where(failed, 0.0, scores).clip(0.0, 1.0))).astype(np.int16)


def _losses(probe: Probe, scores: NDArray[np.float64], places: Sequence[int] | None) -> NDArray[np.int16]:
    if probe.base is not None:
        scores = np.clip((probe.base if places is None else probe.base[list(places)]) - scores, 0.0, 1.0)
    failed = ~np.isfinite(scores)
    whole = quantise(np.where(failed, 1.0, scores))
    return np.where(failed, SCALE, whole).astype(np.int16)
