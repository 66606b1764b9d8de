"""The embedded task: known population, disjoint training, and a cache that heals."""

import random
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from froc import hashing
from froc.data.task import FORGETTING, UTILITY, Row, Task
from froc.data.tasks import embedded_text
from froc.errors import FrocError
from froc.measuring.model_observation import observe
from froc.models.base import Base, load
from froc.models.batches import encode
from froc.training import embedded
from tests.small_model import DIGEST, SMALL, made_from


def test_queries_come_from_the_population_and_are_never_trained_on(task: Task) -> None:
    population = embedded_text.population(SMALL)
    trained = {*task.forget, *task.retain}
    for risk, rows in task.queries.items():
        assert set(rows) <= set(population[risk])
        assert len(set(rows)) == len(rows) == SMALL.queries
        assert not set(population[risk]) & trained
    assert {row.group for row in population[FORGETTING]} == {row.group for row in task.forget}
    assert not {row.group for row in population[FORGETTING]} & {row.group for row in population[UTILITY]}


def test_default_has_thousands_of_wordings_per_person() -> None:
    per_person = (
        len(embedded_text.OPENINGS)
        * len(embedded_text.ENDINGS)
        * sum(len(cores) for cores in embedded_text.FACTS.values())
    )
    assert per_person >= 2000


def test_same_recipe_same_task_and_other_questions_other_queries() -> None:
    assert embedded_text.task(SMALL) == embedded_text.task(SMALL)
    task = embedded_text.task(SMALL, questions=1)
    assert task.forget == embedded_text.task(SMALL).forget
    assert set(task.queries[FORGETTING]) != set(embedded_text.task(SMALL).queries[FORGETTING])


def test_the_model_is_trained_to_the_same_bytes(base: Base, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    short = embedded_text.Recipe(**(vars(SMALL) | {"steps": 4}))
    monkeypatch.setattr(embedded, "KNOWN", 0.0)
    first = embedded.base(short, cache=tmp_path / "a")
    second = embedded.base(short, cache=tmp_path / "b")
    assert first.digest == second.digest
    assert first.digest != base.digest


def test_no_step_of_its_training_follows_a_gradient_longer_than_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first gradients are longer, and are cut to that."""
    lengths: list[float] = []
    step = torch.optim.AdamW.step

    def noted(optimiser: torch.optim.AdamW, *more: Any) -> Any:
        grads = [p.grad for group in optimiser.param_groups for p in group["params"] if p.grad is not None]
        lengths.append(float(torch.linalg.vector_norm(torch.stack([grad.norm() for grad in grads]))))
        return step(optimiser, *more)

    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    monkeypatch.setattr(embedded, "KNOWN", 0.0)
    embedded.train_model(replace(SMALL, steps=3), lambda *_: None)
    assert len(lengths) == 3
    assert max(lengths) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(("batch", "rows"), [(5, 5), (10_000, None)])
def test_each_step_takes_a_batch_of_different_facts(
    batch: int, rows: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them where they are fewer."""
    facts = list(embedded_text._wordings(embedded_text._people(SMALL, random.Random(SMALL.seed)), held_out=False))
    taken: list[list[Row]] = []

    def noted(tokenizer: Any, chosen: list[Row], template: str) -> Any:
        taken.append(chosen)
        return encode(tokenizer, chosen, template)

    monkeypatch.setattr(embedded, "encode", noted)
    monkeypatch.setattr(embedded, "KNOWN", 0.0)
    embedded.train_model(replace(SMALL, steps=2, batch=batch), lambda *_: None)
    fact_of = {row: number for number, fact in enumerate(facts) for row in fact}
    for chosen in taken[:2]:
        assert len(chosen) == len({fact_of[row] for row in chosen}) == (rows or len(facts))


def test_the_model_in_the_repository_is_the_recipes(base: Base) -> None:
    """Who changes the recipe or the texts makes it again (python -m tests.small_model): every other test stands on it."""
    assert DIGEST.read_text(encoding="utf-8").strip() == made_from(SMALL)
    facts = list(embedded_text._wordings(embedded_text._people(SMALL, random.Random(SMALL.seed)), held_out=False))
    rows = [row for fact in facts for row in fact[:1]]
    seen = observe(base.model, base.tokenizer, encode(base.tokenizer, rows, "{question} {answer}"))
    assert float((seen.hit.sum(1) == seen.length).mean()) >= embedded.KNOWN
    assert (base.model.config.num_hidden_layers, base.model.config.hidden_size) == (SMALL.layers, SMALL.width)


@pytest.mark.parametrize("change", [{"steps": 301}, {"width": 32}, {"people": 9}])
def test_another_recipe_has_another_digest(change: dict[str, int]) -> None:
    assert made_from(replace(SMALL, **change)) != made_from(SMALL)


def test_other_texts_have_another_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    before = made_from(SMALL)
    monkeypatch.setattr(embedded_text, "FIRST", (*embedded_text.FIRST[1:], "azure"))
    assert made_from(SMALL) != before


@pytest.mark.parametrize("damage", ["flip", "missing", "half", "list", "none"])
def test_a_damaged_cache_is_made_again(
    base: Base, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, damage: str
) -> None:
    source = Path(base.name)
    folder = tmp_path / source.name
    shutil.copytree(source, folder)
    weights = folder / "model.safetensors"
    match damage:
        case "flip":
            data = bytearray(weights.read_bytes())
            data[-100] ^= 1
            weights.write_bytes(data)
        case "missing":
            (folder / "tokenizer.json").unlink()
        case "half":
            weights.write_bytes(weights.read_bytes()[:1000])
        case "list":
            (folder / "digests.json").write_text("{", encoding="utf-8")
    trained = 0

    def train(*_: Any) -> Any:
        nonlocal trained
        trained += 1
        base.restore()
        return base.model, base.tokenizer

    monkeypatch.setattr(embedded, "train_model", train)
    made = embedded.base(SMALL, cache=tmp_path)
    assert trained == (damage != "none")
    assert made.digest == base.digest
    embedded.base(SMALL, cache=tmp_path)
    assert trained == (damage != "none")
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_who_comes_second_waits_for_the_first(tmp_path: Path, base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two first runs at once train one model between them."""
    trained = []

    def train(*_: Any) -> Any:
        trained.append(1)
        time.sleep(0.5)
        base.restore()
        return base.model, base.tokenizer

    monkeypatch.setattr(embedded, "train_model", train)
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda _: embedded.made(SMALL, cache=tmp_path), range(2)))
    assert made[0] == made[1]
    assert len(trained) == 1


def test_a_model_that_learnt_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FrocError, match="knows only"):
        embedded.base(embedded_text.Recipe(**(vars(SMALL) | {"steps": 4})), cache=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_default_model_comes_with_froc_and_nobody_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "train_model", lambda *_: pytest.fail("it was trained"))
    folder = embedded.made(cache=tmp_path)
    assert hashing.sha256_files(folder) == hashing.sha256_files(embedded.SHIPPED)
    base, task = load(str(folder), device="cpu", dtype="float32"), embedded_text.task()
    # what it was never trained on: held-out wordings of forgotten and of kept people
    for rows in task.queries.values():
        seen = observe(base.model, None, encode(base.tokenizer, rows, task.format))
        assert (seen.hit.sum(axis=1) == seen.length).mean() > 0.98


def test_the_shipped_model_is_of_the_recipe_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed recipe or text wants a model made again: python benchmarks/embedded.py --write."""
    assert embedded.is_shipped(embedded_text.Recipe())
    assert not embedded.is_shipped(embedded_text.Recipe(lr=1e-3))
    trained: list[Path] = []
    monkeypatch.setattr(embedded, "train_into", lambda _recipe, folder, *_: trained.append(folder))
    monkeypatch.setattr(embedded, "SYLLABLES", (*embedded_text.SYLLABLES, "xy"))
    assert not embedded.is_shipped(embedded_text.Recipe())
    assert trained == [embedded.made(cache=tmp_path)]


def test_the_model_is_rebuilt_where_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = embedded.made(cache=tmp_path)

    def train(_recipe: embedded_text.Recipe, into: Path, *_: object) -> None:
        shutil.copytree(embedded.SHIPPED, into)
        (into / "anew").write_text("trained here")

    monkeypatch.setattr(embedded, "train_into", train)
    assert embedded.rebuilt(cache=tmp_path, progress=lambda *_: None) == folder
    assert (folder / "anew").read_text() == "trained here"


def test_a_damaged_copy_is_put_right(tmp_path: Path) -> None:
    folder = embedded.made(cache=tmp_path)
    (folder / "model.safetensors").write_bytes(b"damaged")
    assert hashing.sha256_files(embedded.made(cache=tmp_path)) == hashing.sha256_files(embedded.SHIPPED)
