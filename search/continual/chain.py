"""The finished run that a search starts from: its model is the base model, and what it and earlier runs removed is measured again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from froc import hashing
from froc.data.continual import Past
from froc.data.ledger_files import Counted
from froc.data.opening_ledger import by_others
from froc.data.splits import keyed_queries, opened_as
from froc.data.task import FORGETTING, Task
from froc.data.tasks import embedded_text
from froc.data.tasks import folder as folders
from froc.errors import InputError
from froc.plan_identity import identity
from froc.search.external_model import ExternalModel
from froc.search.run_folder import Folder, of_document


@dataclass(frozen=True)
class RunChain:
    """A chain of finished runs, identified by its last one.

    run: folder of the last run.
    document: the plan's entry: digests of the last certificate and model, of the tasks in order of removal (`tasks`),
        how each run divided its queries (`requests`), and the base model before all of them (`original`).
    measured: whether what they removed is measured again.
    """

    run: Path
    document: Mapping[str, Any]
    measured: bool = True

    @property
    def model(self) -> Path:
        """The base model of the continuing run."""
        return Folder(self.run).model

    @property
    def plan_entry(self) -> dict[str, Any]:
        """The plan's entry."""
        return {**self.document, "measured": self.measured}

    @property
    def name(self) -> str:
        """Name of the base model in the plan."""
        return f"{self.document['original']['name']} after {len(self.document['tasks'])} removal(s)"

    def past(
        self, task_folders: Sequence[Path], questions: int, recipe: embedded_text.Recipe | None
    ) -> tuple[Past, ...]:
        """The removed requests in order; empty where they are not measured.

        task_folders: those of `--earlier`, in any order.
        questions: seed of freshly drawn queries.
        recipe: of the embedded task, if it is the chain's; its queries are drawn anew.

        InputError for folders whose digests are not the chain's.
        """
        if not self.measured:
            return ()
        left, past = list(task_folders), []
        for wanted, request in zip(self.document["tasks"], self.document["requests"], strict=True):
            number = None if recipe is None else embedded_text.request_of(request["name"])
            if recipe is not None and number is not None:
                past.append(Past(embedded_text.task(recipe, questions, number), request["share"], fresh=True))
                continue
            place, task = self._matching_folder(left, wanted, request)
            left.remove(place)
            _refuse_opened(task, request)
            past.append(Past(task, request["share"], request["later"], draw=request.get("draw", "in-order")))
        if left:
            raise InputError(
                f"--earlier {left[0]} is no request that {self.run} or a run before it removed, or was changed since "
                "(the digest differs); give the task folder as it was"
            )
        return tuple(past)

    def _matching_folder(
        self, task_folders: Sequence[Path], wanted: str, request: Mapping[str, Any]
    ) -> tuple[Path, Task]:
        for place in task_folders:
            task = replace(folders.load(place)[0], split_seed=request["split_seed"])
            if task.digest == wanted:
                return place, task
        why = (
            "no --earlier folder is it, or it was changed since (the digest differs)"
            if task_folders
            else "it is not given"
        )
        raise InputError(
            f"{self.run} goes back to the request {request['name']}: {why}; give its task folder with --earlier DIR, so that "
            "it is measured whether it stays forgotten, or say --no-earlier where it may no longer be kept"
        )


def read(run: Path, measured: bool = True) -> RunChain:
    """The chain that ends in `run`; InputError with the remedy where it has no certificate or chose nothing."""
    folder = Folder(run)
    plan, certificate = folder.read(folder.plan), folder.read(folder.certificate)
    if plan is None:
        raise InputError(f"--after {run} is no run folder (no plan.json); give the folder that froc search --out wrote")
    if certificate is None:
        raise InputError(f"--after {run} has no certificate yet; let its froc search finish, then go on after it")
    if certificate["chosen"] is None:
        raise InputError(
            f"--after {run} certified nothing, so there is no model to go on from; search it again with more trials, "
            "queries or budget"
        )
    if not folder.model_is_whole(certificate):
        raise InputError(f"--after {run} has lost its model; the same froc search that made it writes it again")
    before: Mapping[str, Any] = plan.get("after") or {}
    request = {
        "name": plan["task"]["name"], "split_seed": plan["task"]["split_seed"], "share": plan["split"]["share"],
        "later": plan["split"].get("later", 0), "plan": identity(plan),
        **({"draw": plan["split"]["draw"]} if "draw" in plan["split"] else {}),
    }  # fmt: skip
    return RunChain(
        run,
        {
            "certificate": of_document(folder.certificate),
            "model": ExternalModel(folder.model).digest,
            "tasks": [*before.get("tasks", ()), plan["task"]["digest"]],
            "requests": [*before.get("requests", ()), request],
            "original": before.get("original") or {key: plan["model"][key] for key in ("name", "digest")},
        },
        measured,
    )


def seed(questions: int, after: RunChain) -> int:
    """Seed of freshly drawn queries, different from those of all runs in the chain."""
    return int(hashing.sha256_json({"questions": questions, "after": after.document})[:8], 16)


def original(after: RunChain, load: Callable[[], Any]) -> Callable[[], Any]:
    """A loader of the model before all removals; it returns None if a different model is found."""

    def checked() -> Any:
        base = load()
        return base if base.digest == after.document["original"]["digest"] else None

    return checked


def _refuse_opened(task: Task, request: Mapping[str, Any]) -> None:
    """InputError where another run has opened this task's queries: parts held back are then not fresh."""
    counted = frozenset(query.counted for query in keyed_queries(task, FORGETTING))
    if by_others(Counted({FORGETTING: counted}, older=(opened_as(task),)), request["plan"]):
        raise InputError(
            f"the queries of {request['name']} were opened by another search than the run that removed it, so what that run "
            "held back may not be fresh; --no-earlier goes on without measuring them, and every output says so"
        )
