"""The sealed order against the log of trials: each candidate's weight, and that none precedes a better one."""

from collections.abc import Mapping, Sequence
from decimal import Decimal

from froc.audit.bundle_files import Trial
from froc.audit.documents import Seal
from froc.data.task import FORGETTING, UTILITY
from froc.errors import VerificationError


def check(seal: Seal, trials: Sequence[Trial], risks: Sequence[str]) -> list[str]:
    """VerificationError unless weights are 1 / rank, and no candidate precedes one with smaller search losses under every risk.

    risks: those of the plan. Every trial measures forgetting and utility; where a plan has more (attacks are measured
        later, on few candidates), the order is not checked.

    Returns the risks whose search losses some candidate's trial lacks: where there are any, its order was not checked.
    """
    means = _means(trials)
    ranked: list[tuple[str, list[Decimal]]] = []
    unlogged: dict[str, None] = {}
    logged = {risk for of_risk in means.values() for risk in of_risk} | {FORGETTING, UTILITY}
    for rank, candidate in enumerate(seal.candidates, start=1):
        if candidate.weight != 1.0 / rank:
            raise VerificationError("seal-rank-weights", f"the weight of {candidate.config} is not 1 / {rank}")
        measured = means.get(candidate.config, {})
        missing = next((risk for risk in risks if risk in logged and risk not in measured), None)
        if missing is not None:
            raise VerificationError(
                "seal-rank-means",
                f"the log gives no {missing} of {candidate.config} in the search, by which it was ranked",
            )
        unlogged |= dict.fromkeys(risk for risk in risks if risk not in measured)
        losses = [measured[risk] for risk in risks if risk in measured]
        if len(losses) == len(risks):
            ranked.append((candidate.config, losses))
    for place, (later, lower) in enumerate(ranked):
        for earlier, higher in ranked[:place]:
            if all(low < high for low, high in zip(lower, higher, strict=True)):
                raise VerificationError(
                    "seal-rank", f"{earlier} stands before {later}, which lost less under every risk"
                )
    return list(unlogged)


def _means(trials: Sequence[Trial]) -> Mapping[str, Mapping[str, Decimal]]:
    """Configuration -> risk -> mean search loss, of complete trials."""
    means: dict[str, dict[str, str]] = {}
    for trial in trials:
        if trial.status == "complete":
            means[trial.config] = trial.search or {}
            means |= {variant.config: variant.search for variant in trial.variants}
    return {config: {risk: Decimal(mean) for risk, mean in of_risk.items()} for config, of_risk in means.items()}
