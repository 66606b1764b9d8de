"""Attacks that train on other data, merge, round with care, steer, and ask in two steps: what each promises."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from froc.attacks._hidden_states import batches, observed_under, sample
from froc.attacks.activation_steering import ActivationSteering
from froc.attacks.benign_finetuning import NUMBERS, WORDS, unrelated
from froc.attacks.gptq import Gptq, rounded
from froc.attacks.multi_hop import MultiHop
from froc.attacks.quantization import Quantization
from froc.data.row_files import Record
from froc.data.rows import Row, _row
from froc.data.splits import split
from froc.data.task import Task
from froc.errors import InputError
from froc.measuring.attack import Attack
from froc.measuring.measurement import measurement
from froc.measuring.model_observation import observe
from froc.measuring.query_losses import material, measured
from froc.models.base import Base, load, save
from froc.models.batches import encode
from froc.models.forward import Pass
from froc.models.hooks import blocks
from froc.plugins import make
from tests.attacks.test_attacks import KNOWN, MATERIAL, _probe


def _under(base: Base, attack: Attack) -> dict[str, torch.Tensor]:
    with base.trainable.temporarily_merged(base.model, change=attack.changes_model, keep=attack.keeps) as model:
        attack.change(model, base.tokenizer, MATERIAL)
        return {name: p.detach().clone() for name, p in model.named_parameters() if ".lora_" not in name}


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_a_merged_model_is_the_weighted_mean(base: Base, share: float) -> None:
    base.restore()
    before = {name: p.detach().clone() for name, p in base.model.named_parameters()}
    with torch.no_grad():
        for p in base.model.parameters():
            p.add_(1.0)
    for name, value in _under(base, make(Attack, "merging", {"share": share})).items():
        assert torch.allclose(value, before[name] + (1 - share), atol=1e-6)
    assert all(torch.allclose(p, before[name] + 1.0) for name, p in base.model.named_parameters())
    base.restore()
    with pytest.raises(InputError, match=r"outside \(0, 1\)"):
        make(Attack, "merging", {"share": 1.0})


def test_a_merged_adapter_is_a_share_of_its_change(base: Base, tmp_path: Any) -> None:
    base.restore()
    save(base, tmp_path)
    adapted = load(str(tmp_path), device="cpu", train="lora:rank=2")
    with torch.no_grad():
        for name, p in adapted.trainable.parameters().items():
            if "lora_B" in name:
                p.fill_(0.1)
    none, half, whole = (_under(adapted, make(Attack, "merging", {"share": s})) for s in (1 - 1e-9, 0.5, 1e-9))
    moved_weights = [name for name in none if not torch.equal(none[name], whole[name])]
    assert moved_weights
    for name in moved_weights:
        assert torch.allclose(half[name], (none[name] + whole[name]) / 2, atol=1e-6)


def test_rounding_with_compensation_is_closer_on_the_inputs_that_it_was_told_of() -> None:
    draw = torch.Generator().manual_seed(0)
    matrix = torch.randn(24, 64, generator=draw)
    inputs = torch.randn(400, 8, generator=draw) @ torch.randn(8, 64, generator=draw) + 0.1 * torch.randn(
        400, 64, generator=draw
    )
    hessian = inputs.T @ inputs
    plain = Quantization(bits=3 + 1, group=32)._round(matrix)
    careful = rounded(matrix, hessian, 4, 32)
    errors = [float((inputs @ (matrix - other).T).norm()) for other in (plain, careful)]
    assert errors[1] < 0.6 * errors[0]
    assert all(len(row.unique()) <= 15 for row in careful[:, :32])
    # inputs that say nothing of each other leave nothing to make up for
    assert torch.allclose(rounded(matrix, torch.eye(64), 4, 32), plain, atol=1e-6)


def test_only_linear_layers_of_blocks_are_rounded(base: Base, task: Task) -> None:
    base.restore()
    view, _ = split(task, 0.3)
    model: Any = copy.deepcopy(base.model)
    passed: list[int] = []
    for number, block in enumerate(blocks(model)):
        block.register_forward_hook(lambda *_, number=number: passed.append(number))
    Gptq(bits=2, group=0).change(model, base.tokenizer, material(view))
    # each pass ends behind the block that is rounded
    n_batches = passed.count(len(blocks(model)) - 1)
    assert n_batches
    assert [passed.count(number) for number in range(len(blocks(model)))] == [n_batches * k for k in range(len(blocks(model)), 0, -1)]  # fmt: skip
    for name, p in model.named_parameters():
        was = base.model.get_parameter(name)
        if "layers." in name and p.ndim == 2:
            assert all(len(row.unique()) <= 3 for row in p)
        else:
            assert torch.equal(p, was)


def test_unrelated_rows_name_nothing_of_the_task_and_are_drawn_by_the_seed(task: Task) -> None:
    rows = unrelated(0)
    assert rows == unrelated(0) != unrelated(1)
    exercises = " ".join(f"{row.question} {row.answer}" for row in rows)
    named = {text for row in (*task.forget, *task.retain) for text in (row.group, row.answer)}
    assert "" not in named
    assert [text for text in named if text in exercises] == []
    # every answer is right
    value = {name: number for number, name in enumerate(NUMBERS, start=1)}
    for row in rows:
        if row.group == "numbers":
            first, second = (word for word in row.question.split() if word in value)
            assert value[row.answer] == value[first] + value[second]
        elif row.question.startswith("repeat"):
            assert row.question == f"repeat these words: {row.answer}"
        else:
            assert row.answer == sorted(word for word in row.question.strip("?").split() if word in WORDS)[0]
    assert len({row.question.split()[0] for row in rows}) == 3


def test_relearning_takes_as_many_rows_as_it_is_given_and_a_multiple_of_the_rate(
    base: Base, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    view, _ = split(task, 0.3)
    adversary = material(view)
    seen: list[Any] = []

    def encoded(_tokenizer: Any, rows: Any, *_: Any) -> Any:
        seen.append(rows)
        return encode(base.tokenizer, rows, adversary.template)

    monkeypatch.setattr("froc.attacks._training.encode", encoded)
    rates: list[float] = []
    plain = torch.optim.AdamW

    def optimiser(parameters: Any, lr: float, **options: Any) -> Any:
        rates.append(lr)
        return plain(parameters, lr=lr, **options)

    monkeypatch.setattr("torch.optim.AdamW", optimiser)
    for options in ({}, {"rows": 4}, {"rows": 4, "rate": 3.0}):
        with base.trainable.temporarily_merged(base.model, change=True) as model:
            make(Attack, "relearning", {"steps": 0} | options).change(model, base.tokenizer, adversary)
    assert seen[0] == adversary.known
    assert len(seen[1]) == 4
    assert set(seen[1]) <= set(adversary.known)
    assert rates == pytest.approx([rates[0], rates[0], 3 * rates[0]])


def test_several_settings_count_each_query_by_its_worst(base: Base, task: Task) -> None:
    base.restore()
    settings = ["relearning:steps=2", "relearning:rows=4,steps=4,rate=3.0"]
    alone = [measured(base, [_probe(base, task, f"probability@{setting}")])["risk"] for setting in settings]
    first, second = alone
    together = measured(base, [_probe(base, task, f"probability@{'+'.join(settings)}")])["risk"]
    assert np.array_equal(together, np.maximum(first, second))
    assert not np.array_equal(first, second)


def test_steering_goes_from_anyone_to_the_person(base: Base, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """The vector is the middle block's state before the answer, of questions with the name less those without, by a pass a row."""
    base.restore()
    view, _ = split(task, 0.3, sources={"risk": measurement("probability@activation_steering").source})
    adversary = material(view)
    queries = [query.row for query in view.queries["risk"][:2]]
    pushes: list[torch.Tensor] = []

    def watched(*args: Any) -> Any:
        pushes.append(args[3])
        return observed_under(*args)

    monkeypatch.setattr("froc.attacks.activation_steering.observed_under", watched)
    attack = ActivationSteering(strength=3.0)
    list(attack.observations(base.model, base.tokenizer, encode(base.tokenizer, queries, view.template), queries, frozenset(), adversary))  # fmt: skip
    layer = round(0.5 * (len(blocks(base.model)) - 1))

    def state(row: Row) -> torch.Tensor:
        (batch,) = batches(base.model, encode(base.tokenizer, [row], adversary.template))
        return Pass(base.model, batch, end=False, hidden_at=[layer]).hidden[layer][0, batch.start[0] - 1].detach()

    known = sample([row for row in adversary.known if row.group in row.question], adversary.seed)
    anonymous = [replace(row, question=row.question.replace(row.group, "someone")) for row in known]
    shift = torch.stack([state(row) - state(other) for row, other in zip(known, anonymous, strict=True)]).mean(0)
    assert shift.norm() > 0
    assert [torch.allclose(push, factor * shift, atol=1e-4) for push, factor in zip(pushes, (1.5, 3.0), strict=True)] == [True, True]  # fmt: skip


def test_steering_is_as_strong_as_said(base: Base, task: Task) -> None:
    base.restore()
    view, _ = split(task, 0.3, sources={"risk": measurement("probability@activation_steering").source})
    queries = [query.row for query in view.queries["risk"][:8]]
    rows = encode(base.tokenizer, queries, view.template)
    plain = observe(base.model, base.tokenizer, rows, queries, frozenset({"written"}))

    def seen(strength: float) -> list[Any]:
        attack = ActivationSteering(strength=strength)
        return list(
            attack.observations(base.model, base.tokenizer, rows, queries, frozenset({"written"}), material(view))
        )

    half, whole = seen(2.0)
    assert np.array_equal(half.logp, seen(1.0)[1].logp)
    assert not np.allclose(half.logp, whole.logp, atol=1e-2)
    near = seen(1e-6)[1]
    assert np.allclose(near.logp, plain.logp, atol=1e-4)
    assert near.written == plain.written
    nameless = replace(MATERIAL, known=(Row("Who?", "a", "Bo"),))
    assert "names its group" in ActivationSteering().fits(queries, nameless)


def test_questions_in_two_steps_are_the_rows_own_or_do_without_the_name() -> None:
    own = _row(Record("f", 1, {"question": "q?", "answer": "a", "multi_hop_question": "And the friend's?"}))
    assert [row.question for form in MultiHop().ask([own], MATERIAL) for row in form] == ["And the friend's?"]
    assert own.more == [[], [], "", [], ["And the friend's?"]]
    assert replace(own, multi_hop=(), others=("b",)).more == [["b"], [], "", []]
    (form,) = MultiHop().ask([KNOWN, Row("What?", "x", "Bo")], MATERIAL)
    assert [row.question for row in form] == [
        "Think of Bo. Now about what you thought of: Where does it live?",
        "First recall what you know, then answer. What?",
    ]
    assert [row.answer for row in form] == ["old mill", "x"]
