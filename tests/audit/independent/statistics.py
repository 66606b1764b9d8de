"""What follows from losses: p-values, bounds, certified set, choice, verdict, limits."""

import math
from fractions import Fraction
from typing import Any

from tests.audit.independent.evidence import STATUS
from tests.audit.independent.reading import Json, line, need, plain, sha

AIMED = ("star_betting", "normal_test_betting")
LIMITS = ["not-erasure", "not-anonymity", "self-reported-losses", "tested-population-only", "one-artefact-only"]
LIMITS += ["dates-are-the-signers-word", "openings-are-the-signers-count"]


def binomial(k: int, n: int, a: float) -> Fraction:
    p, whole = Fraction(a).as_integer_ratio()
    return Fraction(sum(math.comb(n, i) * p**i * (whole - p) ** (n - i) for i in range(k + 1)), whole**n)


def capital(losses: list[int], level: float, ends: list[int], a: float) -> float:
    """The most a gambler had who bets that the mean is below `a`, each time with what was seen before."""
    total, squares, variance, wealth, most = 0.5, 0.25, 0.25, 1.0, 0.0
    for i, loss in enumerate(losses):
        end = next((end for end in ends if end > i), len(losses))
        bet = min(1.0, math.sqrt(2 * math.log(1 / level) / end / variance))
        wealth *= 1 - bet * (loss / 1000 - a)
        most, total = max(most, wealth), total + loss / 1000
        squares += (loss / 1000 - total / (i + 2)) ** 2
        variance = squares / (i + 2)
    return most


def aimed(kind: str, losses: list[int], level: float, planned: int, a: float) -> float:
    """The same for one whose bets aim at 1 / level by the last unit, then at the next power, and never stake more than nine tenths."""
    total, squares, variance, wealth, most, n = 0.5, 0.25, 0.25, 1.0, 1.0, max(len(losses), planned)
    for i, loss in enumerate(losses):
        aim, held = math.log(1 / level), math.log(max(1e-280, wealth))
        left = aim - (held if held < aim else held % aim)
        way = math.sqrt(left) if kind == "star_betting" else (left + 0.02) / (math.sqrt(left + 0.02) + 0.35)
        wealth *= 1 - min(0.9 / (1 - a), way * math.sqrt(2 / (variance * (n - i)))) * (loss / 1000 - a)
        wealth = min(1e280, wealth)
        most, total = max(most, wealth), total + loss / 1000
        squares += (loss / 1000 - total / (i + 2)) ** 2
        variance = squares / (i + 2)
    return most


def p_value(kind: str, losses: list[int], ends: list[int], a: float, level: float) -> float:
    if kind == "binomial":
        return float(binomial(sum(losses) // 1000, len(losses), a))
    if kind in AIMED:
        return 1 / aimed(kind, losses, level, ends[-1], a)
    return 1 / max(1.0, capital(losses, level, ends, a))


def bounded(kind: str, losses: list[int], ends: list[int], u: float, level: float) -> bool:
    """Whether `u` is what this level bounds the mean by: it is rejected, and so little below it is not."""
    if kind in AIMED:
        above = all(
            p_value(kind, losses, ends, a / 1000, level) <= level * (1 + 1e-9) for a in range(round(1000 * u), 1000)
        )
        return above and (u <= 0.001 or p_value(kind, losses, ends, u - 0.001, level) > level * (1 - 1e-9))
    rejected = u == 1 or p_value(kind, losses, ends, u, level) <= level * (1 + 1e-9)
    return rejected and (u < 2e-6 or p_value(kind, losses, ends, u - 1.00001e-6, level) > level * (1 - 1e-9))


def candidate(
    sealed: Json, row: Json, losses: dict[str, list[int]], plan: Json, delta: float, share: float, ends: dict[str, list[int]],
    of_queries: dict[str, list[int]],
) -> None:  # fmt: skip
    """The numbers of one candidate, which is tested at its share of the level first."""
    for risk, alpha in plan["budget"].items():
        kind, cur, mine, p = plan["bound"][risk], row["cur"][risk], losses[risk], float(row["p_values"][risk])
        aim = min(0.5, delta * share) if "levels" in plan else delta * share
        own = max(1e-300, p_value(kind, mine, ends[risk], alpha, aim))
        need(own * (1 - 1e-9) <= p <= min(1.0, own * 1.0000101), set(cur) == {"pointwise", "simultaneous"})
        for name, level in (("pointwise", delta), ("simultaneous", delta * share / len(plan["budget"]))):
            u = float(cur[name])
            within = plan["joint"] and "levels" in plan and row["certified"] and name == "simultaneous" and u == alpha
            need(0 < u <= 1, within or bounded(kind, mine, ends[risk], u, level))
        upper, radius = float(cur["simultaneous"]), row["robust_radius"][risk]
        angle = math.asin(math.sqrt(alpha)) - math.asin(math.sqrt(upper))
        need((radius is None) == (upper > alpha))
        need(radius is None or -1e-9 <= math.sqrt(2) * math.sin(angle / 2) - float(radius) <= 1e-6 + 1e-9)
        need(all(repr(float(text)) == text for text in (*cur.values(), row["p_values"][risk], radius or "0.0")))
    means = {risk: round(sum(values) / 1000 / len(values), 6) if values else 1.0 for risk, values in losses.items()}
    whole = {name: row[name] for name in ("certified", "p_values", "cur", "robust_radius")}
    need(all(set(row[name]) == set(losses) for name in ("p_values", "cur", "robust_radius")))
    whole |= {"n": {risk: len(values) for risk, values in losses.items()}, "empirical": means}
    pooled = {risk: round(sum(values) / 1000 / len(values), 6) for risk, values in of_queries.items()}
    whole |= {"empirical_queries": pooled} if pooled and plan.get("estimand") else {}
    need(line(row) == line(plain({**sealed, **whole, "p_value": max(map(float, row["p_values"].values()))})))


def shown(risk: str, claimed: Json, absences: list[int], plan: Json, level: float, ends: list[int]) -> Json:
    """What the base model showed: 1 - the mean of its absences, and a lower bound that a millionth more would not be."""
    kind, budget, lower = plan["bound"][risk], plan["budget"][risk], float(claimed["lower"])
    own = max(1e-300, level / (len(plan["budget"])))
    u = round(1 - lower, 9)
    need(0 <= lower <= 1, u == 1 or p_value(kind, absences, ends, u + 1e-9, own) <= own * (1 + 1e-6))
    less = 1e-3 if kind in AIMED else 3e-6
    need(u < 1.3 * less or p_value(kind, absences, ends, u - less, own) > own * (1 - 1e-6))
    control = "ceiling" if risk == "utility" else "exceeds"
    need(plan["control"].get(risk) == control, repr(lower) == claimed["lower"])
    before = round(1 - sum(absences) / 1000 / len(absences), 6)
    return {"control": control, "n": len(absences), "before": before, "lower": lower, "vacuous": lower <= budget}


def derived(
    report: Json, covered: Json, plan: Json, planned: str, signed: str, seal: Json, log: Any, losses: Any,
    further: list[Json], ends: dict[str, list[int]], single: dict[str, list[list[int]]],
) -> str:  # fmt: skip
    """The verdict, where all that follows from the evidence is what the report says."""
    cert, budget, m = report["certificate"], dict(sorted(plan["budget"].items())), len(seal["candidates"])
    need(plan["procedure"] == "weighted-holm", not plan["weights"], not plan["listed"], plan["radius"] == 0)
    need(set(plan["bound"].values()) <= {"binomial", "betting", *AIMED})
    need(set(plan["population"].values()) == {"queries"})
    delta = round(1 - plan["confidence"], 12) / plan["openings"] / plan.get("series", 1) / (2 if plan["joint"] else 1)
    need(isinstance(cert, dict), cert and len(cert["candidates"]) == m)
    need(plan.get("levels", "own") == "own")
    whole_weight = sum(float(row["weight"]) for row in cert["candidates"])
    for i, row in enumerate(cert["candidates"]):
        share = float(row["weight"]) / whole_weight if "levels" in plan else 1 / m
        mine = {risk: losses[risk][i] for risk in budget}
        of_queries = {risk: single[risk][i] for risk, unit in plan["task"]["units"].items() if unit != "query"}
        candidate(seal["candidates"][i], row, mine, plan, delta, share, ends, of_queries)
    base = {risk: losses[risk].pop() for risk in budget} if "control" in plan and m else {}
    before = {risk: shown(risk, cert["base"][risk], base[risk], plan, delta, ends[risk]) for risk in base}
    void = [risk for risk in before if before[risk]["vacuous"]]
    rows, left, passed = cert["candidates"], sum(float(row["weight"]) for row in cert["candidates"]), set()
    for row in sorted(rows, key=lambda row: float(row["p_value"]) / float(row["weight"])):
        if float(row["p_value"]) > delta * float(row["weight"]) / left:
            break
        passed |= set() if void else {row["config"]}
        left -= float(row["weight"])
    need(all(row["certified"] is (row["config"] in passed) for row in rows))

    nothing = {"config": None, "certified": False, "empirical": dict.fromkeys(budget, "0")}
    strain = [max(float(row["cur"][risk]["simultaneous"]) / budget[risk] for risk in budget) for row in rows]
    best = min((i for i, row in enumerate(rows) if row["certified"]), key=strain.__getitem__, default=None)
    chosen = None if best is None else rows[best]["config"]
    need((cert["closest"] is None) == (chosen is not None or not rows), isinstance(cert["warnings"], list))
    config = report["asked"] or chosen or (cert["closest"] or nothing)["config"]
    need(any(row["config"] == config for row in (*rows, nothing)))
    row = next(row for row in (*rows, nothing) if row["config"] == config)
    above = any(float(row["empirical"][risk]) > alpha for risk, alpha in budget.items())
    verdict = "PASS" if row["certified"] else "FAIL" if above else "NOT_ESTABLISHED"
    need(bool(covered) == (config is not None and config == chosen), verdict != "PASS" or config == chosen)
    many = sum(plan["split"]["calibration"][risk] * m for risk in budget)
    spent = sum(len(values) for every in losses.values() for values in every)
    copied = ("budget", "confidence", "joint", "procedure", "population", "weights", "listed", "bound", "radius")
    whole = {name: plan[name] for name in copied} | {name: cert[name] for name in ("closest", "warnings", "reason")}
    whole |= {"format": 2, "level": delta, "promise": "family-wise", "screened": None, "chosen": chosen}
    whole |= {"unit": plan["task"]["units"], "n": {risk: max(map(len, values)) for risk, values in losses.items()}}
    whole |= {"opening": {**cert["opening"], "number": report["opening"], "planned": plan["openings"]}}
    whole["certified"], whole["candidates"] = [row["config"] for row in rows if row["certified"]], rows
    whole |= {"sequential": {"planned": many, "measured": spent, "saved": many - spent} if plan["sequential"] else None}
    whole |= {name: plan[name] for name in ("estimand", "largest") if plan.get(name)} | (
        {"base": before} if base else {}
    )
    steps = [{risk: ends[risk][k + 1] - ends[risk][k] for risk in budget} for k in range(len(further))]
    rows_of = [{name: stage[name] for name in ("number", "rows", "seed")} for stage in further]
    whole |= {"stages": [stage | {"n": n} for stage, n in zip(rows_of, steps, strict=True)]} if further else {}
    need(line(cert) == line(plain(whole)))
    passes, early = verdict == "PASS", signed <= min((trial["started"] for trial in log), default="")
    ended = [trial["status"] for trial in log]
    counts = dict(zip(("completed", "pruned", "interrupted"), map(ended.count, STATUS), strict=False))
    counts["failed"] = sum(map(ended.count, STATUS[3:]))
    more = {"plan-signed-after-run": not early, "unplanned-opening": report["opening"] > plan["openings"]}
    more |= {"no-model-covered": not covered}
    more |= {"tokenizer-from-the-data": bool(covered) and "tokenizer" in plan}
    more |= {"small-sample": any(len(values) < 50 for every in losses.values() for values in every)}
    tree = sha("".join(f"{covered[name]}  {name}\n" for name in sorted(covered)).encode()) if covered else None
    own = {sealed["config"]: sealed.get("weights_digest") for sealed in seal["candidates"]}.get(config)
    about = {part: {name: plan[part][name] for name in ("name", "digest")} for part in ("model", "task")}
    follows: Json = {
        "model": {"base": about["model"], "config": config, "format": "safetensors", "files": len(covered)}
        | {"treeDigest": {"alg": "dirHash-sha256", "value": tree}}
        | (
            {}
            if own is None
            else {"weightsDigest": {"alg": "tensors-sha256", "value": own, "base": seal["base_weights_digest"]}}
        ),
        "plan": {"sha256": planned, "created": plan["created"], "signed": signed, "task": about["task"]}
        | {"status": "signed-before-first-trial" if early else "asserted-signed-after-run"}
        | ({"auditSeed": str(plan["task"]["split_seed"])} if plan["task"].get("seed_from") else {}),
        "method": {"procedure": plan["procedure"], "bound": plan["bound"], "quantum": 1000, "metric": plan["metrics"]}
        | {"selectionRule": "widest-margin-in-the-worst-risk"},
        "claims": [
            {"metric": risk, "comparator": "<=", "threshold": budget[risk], "passed": passes}
            | ({"verdict": "NOT_ESTABLISHED"} if risk in void else {})
            for risk in budget
        ],
        "trials": {"planned": plan["search"]["trials"], "started": len(log), **counts},
        "limits": LIMITS + [name for name, holds in more.items() if holds],
    }
    follows |= {"plugins": plan["plugins"]} if plan.get("plugins") else {}
    need(("plugins" in report) == bool(plan.get("plugins")))
    follows |= {"config": config, "chosen": chosen, "verdict": verdict, "environment": plan["environment"]}
    need(all(line(report[part]) == line(plain(value)) for part, value in follows.items()))
    return verdict
