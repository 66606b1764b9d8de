"""A method that the search assembles from parts of the others."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from froc.fidelity import Fidelity
from froc.hyperparameters import Choice, Range, hyperparameter
from froc.methods.blur import BLUR
from froc.methods.ceu import Otherwise
from froc.methods.gu import GU
from froc.methods.guard import GUARD
from froc.methods.kl_min import BaseDivergence
from froc.methods.lat import LAT
from froc.methods.npo import NegativePreference
from froc.methods.pdu import Excess, Flatten, PrimalDual
from froc.methods.simnpo import SimpleNegativePreference
from froc.methods.sure import SURE
from froc.methods.undial import Distill
from froc.methods.wga import Likely
from froc.training.base_statistics import MethodContext
from froc.training.components import Combiner
from froc.training.method import Method, Wrapper
from froc.training.phase import Phase
from froc.training.terms import NLL, Term, WeightedTerm

FEED_FORWARD = r"\.(mlp|ffn|feed_forward|block_sparse_moe|fc1|fc2)\."


@dataclass(frozen=True)
class Compose(Method):
    """Terms, weights, combiner, filter, adversary and trained parameters, all chosen by the search.

    forget, retain: loss terms.
    tokens: weights on the tokens of an ascent.
    rows: weights on forget rows (`guard`).
    combiner: weighted sum, `blur`, or `dual` (primal-dual as in `pdu`: lambda replaces the weight, and the retain term
        is the likelihood).
    update: filter of the update.
    under: adversary.
    parts: parameters that train.

    Every combination that can be drawn is valid: a hyperparameter is drawn only together with the choice that uses it.
    The hyperparameters of a part are those of the method of that name.
    """

    paper: ClassVar[str] = "ours: the slots of the other methods, combined"
    fidelity: ClassVar[Fidelity] = "own"
    family: ClassVar[str] = "composition"

    forget: str = hyperparameter("npo", Choice(("nll", "npo", "simnpo", "undial", "ceu", "flatten")))
    combiner: str = hyperparameter("sum", Choice(("sum", "blur", "dual")))
    retain: str = hyperparameter("nll", Choice(("nll", "kl")), combiner=("sum", "blur"))
    tokens: str = hyperparameter("alike", Choice(("alike", "likely")), forget=("nll",))
    rows: str = hyperparameter("alike", Choice(("alike", "guard")))
    update: str = hyperparameter("as_is", Choice(("as_is", "gu", "sure")))
    under: str = hyperparameter("nothing", Choice(("nothing", "lat")))
    parts: str = hyperparameter("all", Choice(("all", "feed_forward")))

    retain_weight: float = hyperparameter(1.0, Range(0.1, 20.0, log=True), combiner=("sum",))
    gamma: float = hyperparameter(1.0, Range(0.01, 10.0, log=True), combiner=("blur",))
    slack: float = hyperparameter(0.3, Range(0.01, 2.0, log=True), combiner=("dual",))
    dual_rate: float = hyperparameter(5.0, Range(0.1, 10.0, log=True), combiner=("dual",))
    dual_start: float = hyperparameter(100.0, Range(1.0, 200.0, log=True), combiner=("dual",))
    npo_beta: float = hyperparameter(0.1, Range(0.01, 1.0, log=True), forget=("npo",))
    simnpo_beta: float = hyperparameter(2.5, Range(0.5, 6.0, log=True), forget=("simnpo",))
    undial_beta: float = hyperparameter(10.0, Range(3.0, 30.0), forget=("undial",))
    ceu_skip: int = hyperparameter(1, Range(0, 2), forget=("ceu",))
    likely_up: float = hyperparameter(1.0, Range(0.1, 7.0), tokens=("likely",))
    likely_down: float = hyperparameter(0.1, Range(0.05, 2.0, log=True), tokens=("likely",))
    temperature: float = hyperparameter(1.0, Range(0.1, 10.0, log=True), rows=("guard",))
    memory: int = hyperparameter(1, Range(1, 8), update=("gu",))
    threshold: float = hyperparameter(0.9, Range(0.5, 0.99), update=("sure",))
    push_depth: float = hyperparameter(0.3, Range(0.0, 0.8), under=("lat",))
    epsilon: float = hyperparameter(0.2, Range(0.05, 1.0, log=True), under=("lat",))

    def phases(self, context: MethodContext) -> tuple[Phase, ...]:
        """One phase, changed by each chosen part."""
        weights = (
            (Likely(self.likely_up, self.likely_down),) if self.tokens == "likely" and self.forget == "nll" else ()
        )
        parts = {"forget": WeightedTerm(self._term(), weighters=weights), "retain": self._keep()}
        dual = self.combiner == "dual"
        combiner = PrimalDual(self.slack, self.dual_rate, self.dual_start) if dual else Combiner()
        phase = Phase(parts, combiner=combiner, trains=FEED_FORWARD if self.parts == "feed_forward" else "")
        changes: dict[str, Callable[[], Wrapper]] = {
            "blur": lambda: BLUR(gamma=self.gamma),
            "guard": lambda: GUARD(temperature=self.temperature),
            "gu": lambda: GU(memory=self.memory),
            "sure": lambda: SURE(threshold=self.threshold),
            "lat": lambda: LAT(push_depth=self.push_depth, epsilon=self.epsilon),
        }
        for choice in (self.combiner, self.rows, self.update, self.under):
            phase = changes[choice]().change(phase, context) if choice in changes else phase
        return (phase,)

    def _term(self) -> Term:
        made: dict[str, Callable[[], Term]] = {
            "nll": lambda: NLL("forget", sign=-1.0),
            "npo": lambda: NegativePreference("forget", self.npo_beta),
            "simnpo": lambda: SimpleNegativePreference("forget", self.simnpo_beta),
            "undial": lambda: Distill("forget", self.undial_beta),
            "ceu": lambda: Otherwise("forget", self.ceu_skip),
            "flatten": lambda: Flatten("forget"),
        }
        return made[self.forget]()

    def _keep(self) -> WeightedTerm:
        if self.combiner == "dual":
            return WeightedTerm(Excess("retain"))
        term = NLL("retain") if self.retain == "nll" else BaseDivergence("retain")
        return WeightedTerm(term, self.retain_weight if self.combiner == "sum" else 1.0)
