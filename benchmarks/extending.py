"""What continuing with fresh queries costs and whether its confidence holds, against trying anew until one passes, and one large sample.

    python benchmarks/extending.py [--quick]

Each simulated search seals ten candidates with weights 1 / rank, whose losses on a query are drawn together (correlation .5). A search
that certifies nothing follows the advice until something is certified or ten times the first number of queries is spent: as many
fresh queries as its closest candidate would need with losses like those so far. `froc extend` appends them to the capital; trying
anew certifies with them alone, each time at the whole level. Errors: all risks are the budget itself, so that whatever is certified
is wrong. Queries: risks of .05 to .4 in the order of the seal; one fixed sample is the smallest with which nine of ten searches certify
something, tested by the bets that aim at its last query.
"""

import argparse
import json
import math
from dataclasses import replace

import numpy as np
from aimed_bets import Array, needed
from scipy.special import ndtri

from froc import procedures
from froc.bounds._aimed_betting import STAKE, scales, to_aim
from froc.bounds.betting import Betting
from froc.bounds.normal_test_betting import NormalTestBetting
from froc.loss_table import SCALE
from froc.risk.claim import Claim, Evidence, evidence_from_matrix, evidence_of_candidate, level, own_levels
from froc.risk.p_values import p_values
from froc.risk.requirements import resized, smallest_integer

ALPHA, CANDIDATES, MOST, POWER = 0.1, 10, 10, 0.9
RISKS = (0.05, 0.065, 0.08, 0.1, 0.12, 0.15, 0.2, 0.2, 0.3, 0.4)
WEIGHTS = 1 / np.arange(1, CANDIDATES + 1)
EXTENDED = Claim({"r": ALPHA}, {"r": "betting"}, {"r": "query"}, own_levels=True, extendable=True)
ANEW = replace(EXTENDED, bound={"r": "normal_test_betting"}, extendable=False)
OWN = own_levels(EXTENDED, WEIGHTS)
ATTEMPTS = (1, 2, 3, 5, 10)
KINDS = ("0-1", "extraction-like")


def drawn(rng: np.random.Generator, kind: str, risks: Array, units: int) -> Array:
    """(ten, units) whole thousandths, rounded up: 0 or 1, or mostly 0 and else uniform; correlated over candidates."""
    common, own = rng.standard_normal(units), rng.standard_normal((CANDIDATES, units))
    share = risks if kind == "0-1" else 2 * risks
    hit = math.sqrt(0.5) * common + math.sqrt(0.5) * own < ndtri(share)[:, None]
    size = 1.0 if kind == "0-1" else rng.random((CANDIDATES, units))
    return np.asarray(np.ceil(hit * size * SCALE - 1e-9).astype(np.int16))


def certified(claim: Claim, evidence: Evidence) -> tuple[bool, int]:
    """Whether any candidate is certified, and which comes closest at its own level."""
    p = np.array(p_values(claim, "r", {"r": evidence}, CANDIDATES, own=OWN))
    return bool(procedures.certified(claim.procedure, p, WEIGHTS, level(claim)).any()), int(np.argmin(p / OWN))


def advised(claim: Claim, evidence: Evidence, own: float, most: int) -> int | None:
    """The advice of `froc.risk.requirements.closest_candidate`, at most `most`; None where no number of losses like these would do."""
    losses = np.asarray(evidence.losses)
    n = losses.shape[1]
    if losses.mean() >= ALPHA * SCALE:
        return None

    def enough(units: int) -> bool:
        alike = evidence_from_matrix(resized(losses, units))
        if claim.extendable:
            longer = evidence_from_matrix(np.concatenate([losses, np.asarray(alike.losses)], axis=1))
            alike = replace(longer, ends=(*evidence.ends, n))
        return p_values(claim, "r", {"r": alike}, CANDIDATES, own=own)[0] <= own

    return smallest_integer(enough, 1 if claim.extendable else n + 1, most) or most


def search(rng: np.random.Generator, kind: str, risks: Array, first: int, extending: bool) -> tuple[bool, int]:
    """Whether a search that follows the advice certifies anything, and how many queries it spends."""
    claim, most = EXTENDED if extending else ANEW, MOST * first
    evidence = evidence_from_matrix(drawn(rng, kind, risks, first))
    spent = first
    while True:
        passed, nearest = certified(claim, evidence)
        if passed or spent >= most:
            return passed, spent
        more = advised(claim, evidence_of_candidate(evidence, nearest), float(OWN[nearest]), most - spent) or first
        more = min(max(more, 10), most - spent)
        fresh, spent = drawn(rng, kind, risks, more), spent + more
        if not extending:
            evidence = evidence_from_matrix(fresh)
            continue
        before = np.asarray(evidence.losses)
        joined = evidence_from_matrix(np.concatenate([before, fresh], axis=1))
        evidence = replace(joined, ends=(*evidence.ends, before.shape[1]))


def searches(kind: str, risks: Array, first: int, extending: bool, repeats: int) -> tuple[float, float]:
    """Share that certified something, and the mean number of queries."""
    ended = [
        search(np.random.default_rng((7, first, repeat)), kind, risks, first, extending) for repeat in range(repeats)
    ]
    return float(np.mean([passed for passed, _ in ended])), float(np.mean([spent for _, spent in ended]))


def fixed(kind: str, risks: Array, repeats: int) -> int:
    """Smallest number of queries, by bisection, with which a share POWER of searches certifies something at once."""
    low, high = 20, 3000
    while high - low > max(1, low // 50):
        middle = (low + high) // 2
        rng = np.random.default_rng((11, middle))
        tables = (evidence_from_matrix(drawn(rng, kind, risks, middle)) for _ in range(repeats))
        enough = np.mean([certified(ANEW, table)[0] for table in tables]) >= POWER
        low, high = (low, middle) if enough else (middle, high)
    return high


def continued(repeats: int, first: int = 250, risk: float = 0.05) -> dict[str, tuple[float, float]]:
    """Bets -> shares of first candidates that pass in the first stage, and in ten of them: betting, and bets that aim at each stage's end."""
    losses = drawn_alone(np.random.default_rng(5), risk, repeats, MOST * first)
    ends = tuple(range(first, MOST * first, first))
    p = {
        n: Betting(level=OWN[0], ends=ends[: n // first - 1]).p_value(losses[:, :n], ALPHA)
        for n in (first, MOST * first)
    }
    scale = scales(losses / SCALE)
    capital, most, shares = np.ones(repeats), np.ones(repeats), []
    for t in range(MOST * first):
        # by the units that are left of this stage
        share = math.sqrt((MOST * first - t) / (first - t % first))
        aim = to_aim(capital, np.full(repeats, -math.log(OWN[0])))
        stake = np.minimum(STAKE / (1 - ALPHA), NormalTestBetting.unscaled_bets(aim) * scale[:, t] * share)
        capital *= 1 - stake * (losses[:, t] / SCALE - ALPHA)
        most = np.maximum(most, capital)
        if t + 1 in (first, MOST * first):
            shares.append(float((most >= 1 / OWN[0]).mean()))
    plain = [float((p[n] <= OWN[0]).mean()) for n in (first, MOST * first)]
    return {"betting": (plain[0], plain[1]), "normal_test_betting": (shares[0], shares[1])}


def drawn_alone(rng: np.random.Generator, risk: float, repeats: int, units: int) -> Array:
    """(repeats, units) losses of 0 or 1, in thousandths."""
    return np.asarray((rng.random((repeats, units)) < risk).astype(np.int16) * SCALE)


def main() -> None:
    """Print tables and a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    repeats, few = (24, 24) if quick else (2000, 400)
    null, apart = np.full(CANDIDATES, ALPHA), np.array(RISKS)
    worst = 0.0
    print(f"{'errors':<17}{'first':>7}{'extended':>10}{'anew':>8}")
    for kind in KINDS:
        for first in (60,) if quick else (100, 200):
            extended, _ = searches(kind, null, first, True, repeats)
            anew, _ = searches(kind, null, first, False, few)
            worst = max(worst, extended)
            print(f"{kind:<17}{first:>7}{extended:>10.4f}{anew:>8.4f}", flush=True)
    saved = []
    print(
        f"{'queries':<17}{'first':>7}{'extended':>10}{'(passed)':>10}{'anew':>8}{'(passed)':>10}{'one fixed sample':>18}"
    )
    for kind in KINDS:
        sample = fixed(kind, apart, few)
        for first in (60,) if quick else (sample // 4, sample // 2, sample):
            passed, spent = searches(kind, apart, first, True, few)
            again, anew = searches(kind, apart, first, False, few)
            saved.append(spent / sample)
            print(
                f"{kind:<17}{first:>7}{spent:>10.0f}{passed:>10.3f}{anew:>8.0f}{again:>10.3f}{sample:>18}", flush=True
            )
    print(f"{'one of K attempts':<27}" + "".join(f"{count:>7}" for count in ATTEMPTS))
    for law, risk in (("0-1", 0.05),) if quick else (("0-1", 0.05), ("extraction-like", 0.05), ("ROUGE-like", 0.065)):
        sizes = [
            needed(NormalTestBetting(level=OWN[0] / count), OWN[0] / count, law, risk, 60 if quick else 800)
            for count in ATTEMPTS
        ]
        print(f"{law:<17}{risk:>10}" + "".join(f"{size:>7}" for size in sizes), flush=True)
    for name, (once, ten) in continued(60 if quick else 2000).items():
        print(f"{name}: {once:.3f} pass in a first stage of 250, {ten:.3f} in ten of them")
    room = 3 * math.sqrt(0.1 * 0.9 / repeats)
    print(
        json.dumps(
            {
                "largest error of extended searches": {"value": round(worst, 4), "goal": f"<= 0.1 + {room:.3f}", "holds": worst <= 0.1 + room},
                "mean queries over one fixed sample": {"value": round(max(saved), 3)},
            }
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
