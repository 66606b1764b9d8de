"""The further stages of a run on disk: what was sealed for each, and what was measured. Torch-free.

`stages.json` lists them in their order; an entry is written before any loss of it is measured. Its losses, the base model's among
them, are in `losses/stage-K.parquet`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from froc import hashing, timestamp
from froc.data.fresh_queries import Names, Seen
from froc.data.splits import ids
from froc.data.task import Query, Task
from froc.errors import InputError
from froc.risk.claim import Stage
from froc.risk.positive_control import BASE, Control
from froc.search.run_folder import Folder, of_document, write_json

FORMAT = 1


def path(folder: Folder) -> Path:
    """Where the stages are listed."""
    return folder.path / "stages.json"


def table_of(folder: Folder, number: int) -> Path:
    """Where the losses of a stage are."""
    return folder.path / "losses" / f"stage-{number}.parquet"


def listed(folder: Folder) -> list[dict[str, Any]]:
    """The sealed stages, the last of which may not be measured yet."""
    document = folder.read(path(folder))
    return [] if document is None else list(document["stages"])


def measured(folder: Folder) -> tuple[Stage, ...]:
    """The stages that were measured."""
    return tuple(of_entry(entry) for entry in listed(folder) if table_of(folder, entry["number"]).is_file())


def of_entry(entry: Mapping[str, Any]) -> Stage:
    """A stage as claims have it."""
    return Stage(int(entry["number"]), str(entry["rows"]), str(entry["seed"]))


def entry(folder: Folder, number: int, rows: str, seed: str, queries: Mapping[str, Sequence[Query]]) -> dict[str, Any]:
    """What is sealed of a stage. rows, seed: see `froc.risk.claim.Stage`; before: digest of what was sealed last."""
    earlier = listed(folder)
    return {
        "number": number,
        "created": timestamp.stamp(),
        "before": hashing.sha256_json(earlier[-1]) if earlier else of_document(folder.seal),
        "rows": rows,
        "seed": seed,
        "queries": {risk: ids(of_risk) for risk, of_risk in queries.items()},
        "units": {risk: len({query.unit for query in of_risk}) for risk, of_risk in queries.items()},
    }


def seal(folder: Folder, of_stage: Mapping[str, Any]) -> None:
    """Write a stage down, before anything of it is measured."""
    write_json(path(folder), {"format": FORMAT, "stages": [*listed(folder), dict(of_stage)]})


def unseal(folder: Folder) -> None:
    """Take the last stage back, of which no candidate was measured."""
    write_json(path(folder), {"format": FORMAT, "stages": listed(folder)[:-1]})


def seen(folder: Folder, task: Task, number: int) -> list[Seen]:
    """How the queries of each stage before `number` were named, with the names of queries and units."""
    tables = [(stage, pl.read_parquet(table_of(folder, stage.number))) for stage in measured(folder)]
    return [
        (Names(task, stage.seed), frozenset(table["query"].unique()), frozenset(table["unit"].unique()))
        for stage, table in tables
        if stage.number < number
    ]


def losses(folder: Folder) -> pl.DataFrame:
    """Losses of the candidates on the queries of all stages."""
    further = [pl.read_parquet(table_of(folder, stage.number)) for stage in measured(folder)]
    of_candidates = [table.filter(pl.col("config") != BASE) for table in further]
    return pl.concat([pl.read_parquet(folder.calibration_losses), *of_candidates])


def control(folder: Folder, plan: Mapping[str, Any], *more: pl.DataFrame) -> Control | None:
    """The base model's absences on the queries of all stages; None where a plan of an older version asked for none.

    more: tables of what is not written down yet.
    """
    kinds = plan.get("control")
    if kinds is None:
        return None
    further = [pl.read_parquet(table_of(folder, stage.number)) for stage in measured(folder)]
    of_base = [table.filter(pl.col("config") == BASE) for table in further]
    return Control(pl.concat([pl.read_parquet(folder.base_losses), *of_base, *more]), kinds)


def refuse_unextendable(plan: Mapping[str, Any], certificate: Mapping[str, Any] | None) -> None:
    """InputError, with the mend, where a run cannot be continued with fresh queries."""
    if certificate is None:
        raise InputError("the run is not finished; let froc search end first, then there is something to continue")
    if certificate.get("opened") is False:
        raise InputError(
            "the run opened no calibration query; the same froc search with more --trials goes on in its folder, which costs nothing"
        )
    if not plan.get("extendable"):
        raise InputError(
            "the run's plan does not say --extendable, so that its tests end with the planned queries (exact tests and bets that aim at the "
            "last query say nothing of later ones); search again with --extendable in a new --out, and with fresh queries"
        )
    if certificate["chosen"] is not None:
        raise InputError(f"the run has certified {certificate['chosen']}: there is nothing left to be continued")
