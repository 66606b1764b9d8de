"""The table of memory: the method that needs most, in the words that the commands print, and which options would fit."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from froc.cli.memory import memory_lines
from froc.errors import InputError
from froc.models.base import Base
from froc.models.memory_needs import MemoryNeeds, needs
from froc.search import settings
from froc.search.plan import make_plan
from froc.search.trial.memory_table import ON_HOST, MemoryTable, memory_table
from froc.training.memory_simulation import Simulation
from tests.search.small_search import BUDGET, job

GB = 10**9


def _needs(*parts: float) -> MemoryNeeds:
    return MemoryNeeds(*(round(part * GB) for part in parts))


def test_needs_of_an_8b_model_are_said_beside_what_is_there_and_what_would_fit() -> None:
    smaller = ("--train lora:rank=16", _needs(16, 0, 0.2, 0.3, 4.5))
    table = MemoryTable("8B", "npo", "cuda", 80 * GB, "full", (("as asked", _needs(32, 32, 32, 64, 17)), smaller))
    assert table.sentence == (
        "8B, full, npo: 177 GB needed (weights 32, base copy 32, gradients 32, moments 64, activations 17), 80 there; "
        "`--train lora:rank=16` needs 21"
    )
    assert [table.fits(needed) for _, needed in table.rows] == [False, True]
    printed = memory_lines(table)
    assert list(printed.columns[-1].cells) == ["no", "yes"]
    assert list(printed.columns[1].cells) == ["177", "21"]
    hosted = MemoryTable(
        "8B", "npo", "cuda", 80 * GB, "full", (table.rows[0], ("--checkpointing" + ON_HOST, _needs(32, 0, 32, 64, 2)))
    )
    assert hosted.sentence.endswith("80 there; `--checkpointing` needs 130")
    elsewhere = MemoryTable("8B", "npo", "mps", None, "full", (smaller,))
    assert "there" not in elsewhere.sentence
    assert elsewhere.fits(smaller[1]) is None


def test_what_measures_is_in_the_table_and_said_where_it_needs_more() -> None:
    training, attack = _needs(1, 1, 1, 2, 1), ("recovery (probability@relearning)", _needs(1, 1, 0, 0, 7))
    table = MemoryTable("1B", "npo", "cuda", 8 * GB, "full", (("as asked", training),), measuring=(attack,))
    assert table.sentence.endswith("8 there; measuring recovery (probability@relearning) needs 9")
    assert list(memory_lines(table).columns[0].cells) == ["as asked", "measuring recovery (probability@relearning)"]
    assert table.document["measuring"] == [{"risk": attack[0], **attack[1].document}]
    assert (
        "measuring" not in replace(table, measuring=(("forgetting (probability)", _needs(1, 1, 0, 2, 0.1)),)).sentence
    )


def test_the_method_that_needs_most_is_shown_and_smaller_options_need_less(base: Base) -> None:
    made = job(base, methods=("rmu", "npo"))
    table = memory_table(made, checkpointing=False)
    options, needed = zip(*table.rows, strict=True)
    assert (table.method, table.unknown) == ("npo", ())
    assert options == (
        "as asked", "--checkpointing", "--dtype bfloat16 --optimizer adamw8bit --checkpointing", "--train layers:last=4", "--train lora:rank=16", "--train lora:rank=16 --checkpointing",
    )  # fmt: skip
    least = needs(base)
    assert (needed[0].weights, needed[0].gradients, needed[0].moments) == (
        least.weights,
        least.gradients,
        least.moments,
    )
    assert needed[1].activations < needed[0].activations
    assert needed[2].weights == needed[0].weights // 2
    assert needed[2].moments < needed[0].moments / 3
    assert needed[4].moments < needed[0].moments
    measuring = dict(table.measuring)
    assert list(measuring) == ["forgetting (extraction_strength)", "utility (extraction_strength/utility)"]
    forgetting = measuring["forgetting (extraction_strength)"]
    assert (forgetting.weights, forgetting.moments) == (needed[0].weights, needed[0].moments)
    assert forgetting.activations > 0


def test_an_attack_on_adapters_is_counted(base: Base) -> None:
    """They are merged before it trains all parameters."""
    attack = "probability@relearning"
    made = job(base, methods=("rmu",), budget={**BUDGET, "recovery": 0.5}, metrics={"recovery": attack})
    queries = {**made.view.queries, "recovery": made.view.queries["forgetting"]}
    made = replace(made, settings=replace(made.settings, train="lora:rank=8"), view=replace(made.view, queries=queries))
    table = memory_table(made, checkpointing=False)
    (needed,) = (needs for name, needs in table.measuring if name.startswith("recovery"))
    trained = 12 * sum(p.numel() for p in base.model.parameters())
    assert (table.unknown, needed.base_copy, needed.moments) == ((), 0, 0)
    assert needed.activations > trained


def test_methods_that_cannot_be_counted_are_named(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise NotImplementedError

    monkeypatch.setattr(Simulation, "needs", fails)
    table = memory_table(job(base, methods=("npo",)), checkpointing=False, devices=[torch.device("cpu")])
    assert (table.method, table.unknown) == ("", ("npo",))
    assert table.rows == (("as asked", needs(base)),)
    assert "not counted: npo" in str(memory_lines(table).caption)


def test_the_optimiser_is_in_the_plan_and_comes_back_from_it(base: Base) -> None:
    made = job(base, optimizer="adamw8bit")
    document = make_plan(made.settings, made.task, made.view, made.sealed, base, made.space, ()).document
    assert document["search"]["optimizer"] == settings._settings_fields(document, {})["optimizer"] == "adamw8bit"
    plain = job(base)
    document = make_plan(plain.settings, plain.task, plain.view, plain.sealed, base, plain.space, ()).document
    assert "optimizer" not in document["search"]
    assert settings._settings_fields(document, {})["optimizer"] == "adamw"
    with pytest.raises(InputError, match="adamw8bit"):
        replace(plain.settings, optimizer="sgd").check()
