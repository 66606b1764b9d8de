"""`--like`: an earlier run's options as defaults, and its best configurations as first trials.

Only the search side of the earlier run is read: its plan, its options and its log of trials. No file with a calibration loss, a
seal or a certificate is opened. What the earlier search looked at goes to the present search (`froc.data.splits.looked_at`); where that
cannot be made sure of, the run is refused.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from froc.errors import InputError

if TYPE_CHECKING:
    from froc.data.splits import EarlierSplit
    from froc.data.task import Task
    from froc.search.optuna.space import Spaces
    from froc.search.run_folder import TrialRecord
    from froc.search.settings import Settings

FIRST = 4
"""Configurations that are tried first at most, each from another trial: as many as are in flight at once."""
NOT_TAKEN = ("reopen", "allow_vacuous", "storage", "before", "like", "later")
"""Settings that each run says for itself: consents, an address that may hold a password, and what was measured."""


@dataclass(frozen=True)
class PriorRun:
    """The search side of an earlier run.

    document: the entry `like` of a plan: digests of the run's plan and log of trials, the options and the splits that are taken over, and
        later the configurations that are tried first.
    places: task folder, model and data of the run, as its user named them.
    records: its complete trials; empty where `document` is already a plan's.
    """

    document: Mapping[str, Any]
    places: Mapping[str, Any]
    records: "tuple[TrialRecord, ...]" = ()

    def values(self, chosen: Mapping[str, Any], explicit: set[str]) -> dict[str, Any]:
        """Fields of `froc.search.settings.Settings`: the chosen ones where the user named them, else those of the run."""
        taken = {name: value for name, value in self._options.items() if name not in explicit}
        both: dict[str, Any] = {
            name: {**self._options[name], **chosen[name]}
            for name in ("metrics", "space", "population")
            if isinstance(self._options.get(name), Mapping) and name in explicit
        }
        return {**chosen, **taken, **both}

    def sentence(self, explicit: set[str]) -> str:
        """What is taken from the run, for the user."""
        from froc.search.settings import Settings

        default = written_options(Settings({}), {})["settings"]
        options = self.document["options"]
        shown = {
            name: options[name] for name in sorted(options) if name not in explicit and options[name] != default[name]
        }
        places = {
            name: place for name, place in self.places.items() if name not in explicit and place not in (None, {})
        }
        taken = [f"{name} {_text(value)}" for name, value in {**places, **shown}.items()]
        return f"as in the earlier run: {', '.join(taken) or 'every default'}"

    @property
    def _options(self) -> dict[str, Any]:
        from pydantic import TypeAdapter

        from froc.search.settings import Settings

        kinds = {field.name: field.type for field in fields(Settings)}
        settings = TypeAdapter(Settings).validate_python({"budget": {}, **self.document["options"]})
        return {name: getattr(settings, name) for name in kinds if name in self.document["options"]}


def places(prior: PriorRun | None, **given: Any) -> dict[str, Any]:
    """Task folder, model, data, units and split seed: as given, else where the earlier run had them."""
    taken = {} if prior is None else {key: value for key, value in prior.places.items() if given[key] in (None, {})}
    paths = {key: Path(value) for key, value in taken.items() if key in ("task", "data")}
    return {**given, **taken, **paths}


def read(run: Path, out: Path) -> PriorRun:
    """What a search in the run folder `out` takes from `run`; a search that goes on has it in its own plan.

    Raises InputError for a folder that is no run, or whose search may have been led by what is sealed now.
    """
    # imported where it is needed: `froc --help` does without
    from froc.plan_identity import identity
    from froc.search.run_folder import Folder, of_document

    present = Folder(out)
    own = present.read(present.plan)
    if own is not None and "like" in own:
        return PriorRun(own["like"], (present.read(present.options) or {}).get("places", {}))
    folder = Folder(run)
    plan = folder.require_plan()
    if run.resolve() == out.resolve():
        raise InputError(f"--out {out} is the run that --like names; choose another run folder")
    for field, why in (
        ("after", "goes on after another run, whose calibration losses chose its base model"),
        ("given", "measured one unlearned model, so that there are no trials"),
    ):
        if field in plan:
            raise InputError(f"--like {run} {why}; give a run that searched from a base model of its own")
    if plan["split"].get("draw") != "by-row":
        raise InputError(
            f"--like {run} is of an older version, which divided its queries otherwise; give its options by hand"
        )
    written = folder.read(folder.options) or {}
    searched = {
        "task": plan["task"]["digest"], "split_seed": plan["task"]["split_seed"], "share": plan["split"]["share"],
        "later": plan["split"].get("later", 0), "questions": plan.get("questions"), "units": _units(plan),
    }  # fmt: skip
    document = {
        "plan": identity(plan), "trials": of_document(folder.trials) if folder.trials.is_file() else "",
        "options": written.get("settings") or _planned_options(plan),
        "splits": [searched, *plan.get("like", {}).get("splits", [])],
    }  # fmt: skip
    complete = tuple(record for record in folder.log() if record.status == "complete" and record.search)
    return PriorRun(document, written.get("places", {}), complete)


def _units(plan: Mapping[str, Any]) -> dict[str, str]:
    """pool -> unit of an earlier search; a risk without a pool of its own measures what is to be forgotten, or what is retained."""
    from froc.data.task import FORGETTING, UTILITY
    from froc.measuring.measurement_text import pool

    own = {UTILITY: UTILITY}
    pools = {risk: pool(text) or own.get(risk, FORGETTING) for risk, text in plan["metrics"].items()}
    return {pools[risk]: unit for risk, unit in plan["task"]["units"].items() if risk in pools}


def _planned_options(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a run folder without a file of them, as far as its plan tells them from what was decided by itself."""
    search = plan["search"]
    kinds = {risk: kind for risk, kind in plan["population"].items() if kind != "queries"}
    same = ("confidence", "procedure", "radius", "sequential", "openings", "joint", "budget", "weights")
    of_search = ("methods", "trials", "sampler", "pruner", "objective", "seed", "batch", "train", "pack", "sweep", "autocast", "parallel", "until")  # fmt: skip
    return {
        **{name: plan[name] for name in same if name in plan},
        **{name: search[name] for name in (*of_search, "measure_dtype", "optimizer", "weighing") if name in search},
        "metrics": dict(plan["metrics"]), "share": plan["split"]["share"], "relative": plan.get("relative", []), "population": kinds,
    }  # fmt: skip


def written_options(settings: "Settings", places: Mapping[str, Any]) -> dict[str, Any]:
    """`options.json`: what a search was asked for, with every default."""
    values = {name: value for name, value in asdict(settings).items() if name not in NOT_TAKEN}
    document: dict[str, Any] = json.loads(json.dumps({"settings": values, "places": dict(places)}))
    return document


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}={_text(inner)}" for key, inner in value.items()) + "}"
    return ",".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)


def splits_of(settings: "Settings", task: "Task") -> "tuple[EarlierSplit, ...]":
    """How the earlier searches of the same rows divided them; none where this task's queries are drawn anew."""
    from froc.data.splits import EarlierSplit

    splits = settings.like.get("splits", ())
    return tuple(EarlierSplit(entry["split_seed"], entry["share"]) for entry in splits if not _drawn_anew(entry, task))


def _drawn_anew(entry: Mapping[str, Any], task: "Task") -> bool:
    """Whether this task's queries and those of an earlier search are separate draws from a known population."""
    return None not in (entry["questions"], task.questions) and entry["questions"] != task.questions


def refuse_overlap(settings: "Settings", task: "Task", tasks: Sequence["Task"]) -> None:
    """InputError unless nothing that the earlier searches looked at or trained on is left to be sealed.

    tasks: those that they may have searched.

    Rows are compared by content, groups by name, whatever file or pool they stand in.
    """
    from froc.data.normal_form import content, normal_form
    from froc.data.splits import draw_parts

    before = splits_of(settings, task)
    rows: set[str] = set()
    groups: set[str] = set()
    trained: set[str] = set()
    for entry in settings.like.get("splits", ()):
        if _drawn_anew(entry, task):
            continue
        known = (replace(each, split_seed=entry["split_seed"]) for each in (task, *tasks))
        searched = next((each for each in known if each.digest == entry["task"]), None)
        if searched is None:
            raise InputError(
                f"--like: that run searched other rows (task digest {entry['task'][:8]}), and which of them would be sealed now cannot be "
                "seen from its folder; give its task folder, as it was, with --like-task DIR"
            )
        # the same rows may have been divided by other units
        searched = replace(searched, units={**searched.units, **entry.get("units", {})})
        trained |= {content(row.full_question, row.answer) for row in (*searched.forget, *searched.retain)}
        for name, unit in searched.units.items():
            if name not in searched.queries:
                continue
            first = draw_parts(searched, name, entry["share"], entry["later"], before)[0]
            rows |= {query.counted for query in first}
            groups |= {normal_form(query.row.group) for query in first if unit != "query"}
    for name in task.queries:
        sealed = draw_parts(task, name, settings.share, settings.later, before)[1]
        by_group = task.units.get(name, "query") != "query"
        again = [q for q in sealed if q.counted in rows or (by_group and normal_form(q.row.group) in groups)]
        if again:
            raise InputError(
                f"--like: {len(again)} {name} queries that would be sealed now were looked at by the earlier search, as queries of another "
                "kind or in another unit; give the --unit of that run, or leave --like out"
            )
        learnt = [q for q in sealed if content(q.row.full_question, q.row.answer) in trained]
        if learnt:
            raise InputError(
                f"--like: {len(learnt)} {name} queries that would be sealed now are rows that the earlier search trained on; "
                "leave them out of the queries, or leave --like out"
            )


def with_first_trials(prior: PriorRun, settings: "Settings", space: "Spaces") -> "Settings":
    """The settings with the configurations that are tried first: those of the run with the smallest excess on its search queries.

    Only such as lie in the present space, one of a trial.
    """
    from froc.search.sealed.ranking import excess

    if "first" in settings.like:
        return settings
    best = sorted(
        (min(excess(c.search or {}, _shared(settings.steering, c)) for c in record.configurations()), record.trial, record)
        for record in prior.records
        if record.method in space and _fits(space[record.method], record.params)
    )  # fmt: skip
    count = min(FIRST, settings.trials)
    first = [{"method": record.method, "params": dict(record.params)} for _, _, record in best[:count]]
    return replace(settings, like={**settings.like, "first": first})


def _shared(budget: Mapping[str, float], record: "TrialRecord") -> dict[str, float]:
    return {risk: alpha for risk, alpha in budget.items() if risk in (record.search or {})}


def _fits(space: Mapping[str, Any], params: Mapping[str, Any]) -> bool:
    from froc.hyperparameters import Choice

    meant = {name: field for name, field in space.items() if field.meant(params)}
    return params.keys() == meant.keys() and all(
        params[name] in field.options if isinstance(field, Choice) else field.low <= params[name] <= field.high
        for name, field in meant.items()
    )


def first_trials(like: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(method, params) of the first trials."""
    return [(entry["method"], dict(entry["params"])) for entry in like.get("first", ())]
