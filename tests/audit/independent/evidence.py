"""Trials and losses, as far as a claim hangs on them."""

import re
from datetime import datetime, timedelta

from tests.audit.independent.reading import Json, line, moment, need, parse, plain, sha

STATUS = ["complete", "pruned", "interrupted", "diverged", "out-of-memory", "timed-out", "failed"]
TRIAL = (
    "trial attempt config method params seed status reason started ended steps seconds search averages variants plan"
)


Losses = dict[str, list[list[int]]]
CELLS = "base|c[0-9]{4}[a-z0-9-]{0,32} calibration(?:-[0-9]+)? [a-z][a-z0-9_-]{0,31} [0-9a-f]{16,64} [0-9a-f]{16,64} 0|[1-9][0-9]{0,2}|1000"
ROW = re.compile(",".join(f"({cell})" for cell in CELLS.split()))


def trials(data: bytes, plan: Json, seal: Json, planned: str) -> list[Json]:
    need(data.endswith(b"\n"))
    log, tries, done = [parse(row) for row in data.split(b"\n")[:-1]], dict[int, int](), Json()
    for trial in log:
        need(set(trial) == set(TRIAL.split()) and trial["status"] in STATUS, trial["plan"] == planned)
        tries[trial["trial"]] = tries.get(trial["trial"], 0) + 1
        need(moment(trial["started"]) >= moment(plan["created"]), trial["attempt"] == tries[trial["trial"]])
        need(trial["config"].startswith(f"c{trial['trial']:04d}"))
        more = [(v["config"], {**trial["params"], "stop": v["stop"], "mix": v["mix"]}) for v in trial["variants"]]
        for name, params in [(trial["config"], trial["params"]), *more] if trial["status"] == "complete" else ():
            need(name not in done, f"{name}-".startswith(f"{trial['config']}-"))
            done[name] = [trial["method"], params]
    need(sorted(tries) == list(range(len(tries))), len(tries) <= plan["search"]["trials"])
    spans = [(moment(trial["ended"] or trial["started"]) - moment(trial["started"]), trial) for trial in log]
    need(
        all(
            (s := span.total_seconds()) >= 0 and (not trial["ended"] or float(trial["seconds"]) <= s + 300)
            for span, trial in spans
        )
    )
    need(all(v["stop"] <= trial["steps"] for trial in log for v in trial["variants"]))
    methods = plan["search"].get("methods") or (["external"] if plan.get("plugins") is not None else None)
    need(methods is None or all(trial["method"] in methods for trial in log))
    need(plan.get("fidelity") is None or set(plan["fidelity"]) == papers(plan))
    lost = {end["config"]: end["search"] for trial in log for end in (trial, *trial["variants"]) if end["search"]}
    for rank, candidate in enumerate(seal["candidates"], start=1):
        need(candidate["weight"] == 1 / rank)
        mine = lost.get(candidate["config"], {})
        need({"forgetting", "utility", *(r for end in lost.values() for r in end)} & {*plan["budget"]} <= {*mine})
        for better in seal["candidates"][: rank - 1]:
            pairs = [(mine.get(r), lost.get(better["config"], {}).get(r)) for r in plan["budget"]]
            need(any(None in pair or float(pair[0]) >= float(pair[1]) for pair in pairs))
    need(all(line(done.get(o["config"])) == line([o["method"], plain(o["params"])]) for o in seal["candidates"]))
    ended = [trial["status"] for trial in log if trial["status"] != "interrupted"]
    need(ended.count("complete") <= seal["trials"] <= len(ended))
    return log


def papers(plan: Json) -> set[str]:
    """Kind and name of every method, metric and attack that a plan names."""
    named = {f"method {part}" for name in plan["search"].get("methods", []) for part in re.split(r"[()]", name) if part}
    for text in plan["metrics"].values():
        parts = [re.split("[:/]", part)[0] for part in re.split(r"@|\+(?![0-9])", text)]
        named |= {f"metric {parts[0]}", *(f"attack {part}" for part in parts[1:])}
    return {name.replace("-", "_") for name in named}


def stages(files: dict[str, bytes], plan: Json, ended: list[str], issued: datetime) -> list[Json]:
    """What was sealed for each further stage, in order; each names what was sealed before it."""
    if "stages.json" not in files:
        return []
    document = parse(files["stages.json"], True)
    need(set(document) == {"format", "stages"}, document["format"] == 1, document["stages"], plan.get("extendable"))
    before, last = sha(files["seal.json"]), max([plan["created"], *ended])
    for number, stage in enumerate(document["stages"], start=2):
        need(set(stage) == {"number", "created", "before", "rows", "seed", "queries", "units"})
        need(stage["number"] == number, stage["before"] == before, set(stage["queries"]) <= set(plan["budget"]))
        need(re.fullmatch("[0-9a-f]{64}", stage["rows"]))
        need(stage["seed"] == sha(line([plan["split"].get("label") or "", number, stage["rows"]])[:-1]))
        need(moment(last) - timedelta(minutes=5) <= moment(stage["created"]) <= issued + timedelta(minutes=5))
        before, last = sha(line(stage)[:-1]), stage["created"]
    return list(document["stages"])


def matrices(data: bytes, plan: Json, seal: Json, further: list[Json]) -> tuple[Losses, dict[str, list[int]], Losses]:
    """risk -> per candidate the losses of its units, stage after stage, in each in the order of the units' digests; last those of the
    base model. risk -> number of units at the end of each stage. And the losses of single queries, in any order."""
    text, losses, single = data.decode("ascii", "replace").split("\n"), Losses(), Losses()
    ends: dict[str, list[int]] = {risk: [] for risk in plan["budget"]}
    need(text[0] == "config,split,risk,unit,query,loss", text[-1] == "", all(map(ROW.fullmatch, text[1:-1])))
    rows = [row.split(",") for row in text[1:-1]]
    order = [(config, split, risk, query) for config, split, risk, _, query, _ in rows]
    splits = ["calibration", *(f"calibration-{stage['number']}" for stage in further)]
    need({row[1] for row in rows} <= set(splits), len({(row[0], row[2], row[4]) for row in rows}) == len(rows))
    names = [candidate["config"] for candidate in seal["candidates"]]
    names += ["base"] if names and "control" in plan else []
    need(order == sorted(set(order)), {row[0] for row in rows} <= {*names})
    need({row[2] for row in rows} <= set(plan["budget"]))
    sealed = [(seal["calibration"], plan["split"]["calibration"])] + [(s["queries"], s["units"]) for s in further]
    for risk, kind in plan["task"]["units"].items() if seal["candidates"] else ():
        losses[risk], single[risk] = [[] for _ in names], [[] for _ in names]
        seen: set[str] = set()
        for split, (queries, counts) in zip(splits, sealed, strict=True):
            here = [row for row in rows if row[1:3] == [split, risk]]
            listed = [(q, u) for r, u, q in seal.get("order") or [row[2:5] for row in here] if r == risk]
            unit_of, units = dict(listed), dict[str, list[str]]()
            need(risk in queries or not here, len(unit_of) == len(listed) or not seal.get("order"))
            if risk in queries:
                need(sha(line(sorted(unit_of))[:-1]) == queries[risk])
            for query, unit in unit_of.items():
                units.setdefault(query if kind == "query" else unit, []).append(query)
            need(len(units) == counts.get(risk, 0), seen.isdisjoint(units))
            seen |= set(units)
            ranked = sorted(units, key=lambda unit: sha(unit.encode()))
            for place, name in enumerate(names):
                mine = {row[4]: int(row[5]) for row in here if row[0] == name}
                need(all(unit_of.get(row[4]) == row[3] for row in here))
                first = [unit for unit in ranked if any(query in mine for query in units[unit])]
                need(first == (ranked[: len(first)] if plan["sequential"] and name != "base" else ranked))
                need(sum(len(units[unit]) for unit in first) == len(mine))
                whole = [-(-sum(mine[query] for query in units[unit]) // len(units[unit])) for unit in first]
                need(plan["bound"][risk] != "binomial" or set(whole) <= {0, 1000})
                losses[risk][place] += whole
                single[risk][place] += mine.values()
            ends[risk].append(len(seen))
    return losses, ends, single
