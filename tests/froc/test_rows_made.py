"""Methods that make or choose the rows they train on: poisoned rows, filtered requests, rollouts."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from froc.batches import Encoded, Stack, collate
from froc.forward import Forward, Pass, pushed
from froc.methods import Method
from froc.methods.poison import Attributions, Poisoned, integrated, largest
from froc.models import Base
from froc.plugins import make
from froc.reference import Pools, Reference
from froc.scope import Full
from froc.train import unlearn
from search.trial import Bench

V = 50


@pytest.fixture(scope="module")
def small() -> Any:
    """A two-layer model in float64: no rounding hides a wrong formula."""
    torch.manual_seed(3)
    config = GPT2Config(
        vocab_size=V, n_embd=16, n_inner=24, n_layer=2, n_head=2, n_positions=64, initializer_range=0.25,
        bos_token_id=None, eos_token_id=0, pad_token_id=None,
    )  # fmt: skip
    return GPT2LMHeadModel(config).double().eval()


def _rows(count: int, seed: int) -> list[Encoded]:
    """Prompts and answers of unequal lengths."""
    draw, made = np.random.default_rng(seed), []
    for i in range(count):
        prompt, answer = 2 + i % 3, 2 + (2 * i) % 5
        made.append(Encoded((*draw.integers(1, V, prompt + answer).tolist(), 0), prompt, answer))
    return made


def _made(model: Any, forget: list[Encoded], retain: list[Encoded], seed: int = 0) -> Reference:
    base = Base("small", model, None, Full(model), "")  # type: ignore[arg-type]  # no text is tokenised here
    return Reference(base, Pools({"forget": forget, "retain": retain}, seed=seed))


def _at(bench: Bench, role: str) -> Forward:
    rows = bench.reference.pools.rows[role]
    with torch.no_grad():
        return Forward.of(bench.base.model, collate(rows, range(len(rows)), "cpu"))


# poison


def test_attributions_add_up_to_what_the_answers_inputs_do(small: Any) -> None:
    """Completeness of integrated gradients: their sum is log p(answer) less what it is where those inputs are zero vectors."""
    rows = _rows(5, 1)
    batch = Stack(rows, "cpu").batch(range(5))
    inside = batch.measured[..., None]
    found = integrated(small, batch, 100)
    with torch.no_grad():
        whole = -Pass(small, batch).sum_nll
        with pushed(small.get_input_embeddings(), lambda out: torch.where(inside, 0.0, out)):
            none = -Pass(small, batch).sum_nll
    assert torch.allclose(found.sum(1), whole - none, atol=2e-3)
    assert float((whole - none).abs().min()) > 0.05
    assert bool((found[~batch.measured] == 0).all())
    alone = integrated(small, Stack(rows[1:2], "cpu").batch([0]), 100)
    assert torch.allclose(alone[0], found[1, : alone.shape[1]], atol=1e-9)


def test_attributions_stand_where_their_tokens_do(small: Any) -> None:
    rows = _rows(9, 2)
    found = Attributions().take(_made(small, rows, _rows(3, 4)))
    for i in (0, 4, 8):
        row = rows[i]
        alone = integrated(small, Stack([row], "cpu").batch([0])).abs()[0, row.prompt : row.prompt + row.answer]
        assert found[i, : row.answer].tolist() == pytest.approx(alone.tolist(), rel=1e-5)
        assert (found[i, row.answer :] == -1).all()


def test_a_fraction_of_each_answers_tokens_is_chosen_by_attribution() -> None:
    values = np.array([[0.1, 0.4, 0.3, 0.2], [0.5, 0.0, -1.0, -1.0]], dtype=np.float32)
    assert largest(values, 0.5).tolist() == [[False, True, True, False], [True, False, False, False]]
    assert largest(values, 0.01).sum(1).tolist() == [1, 1]
    assert largest(values, 1.0).sum(1).tolist() == [4, 2]


@pytest.mark.parametrize("kind", ["random", "targeted"])
@pytest.mark.parametrize("fraction", [0.5, 1.0])
def test_what_is_replaced_is_never_true_and_is_another_answers(small: Any, kind: str, fraction: float) -> None:
    forget, retain = _rows(12, 5), _rows(12, 6)
    made = _made(small, forget, retain, seed=7)
    rows = Poisoned(kind, fraction).rows(made)
    chosen = largest(Attributions().take(made), fraction)
    tokens = {t for row in (*forget, *retain) for t in row.ids[row.prompt : row.prompt + row.answer]}
    for true, wrong, places in zip(forget, rows, chosen, strict=True):
        assert (wrong.prompt, wrong.answer, len(wrong.ids)) == (true.prompt, true.answer, len(true.ids))
        own = true.ids[true.prompt : true.prompt + true.answer]
        told = wrong.ids[wrong.prompt : wrong.prompt + wrong.answer]
        assert [a != b for a, b in zip(own, told, strict=True)] == places[: true.answer].tolist()
        own_too = set() if kind == "targeted" else set(own)
        assert {b for b, place in zip(told, places, strict=False) if place} <= tokens - own_too
        assert wrong.ids[: true.prompt] == true.ids[: true.prompt]
        assert wrong.ids[-1] == true.ids[-1]
    assert Poisoned(kind, fraction).rows(_made(small, forget, retain, seed=7)) == rows
    assert Poisoned(kind, fraction).rows(_made(small, forget, retain, seed=8)) != rows


def test_a_target_takes_a_tokens_place_in_all_rows(small: Any) -> None:
    forget = [Encoded((1, 2, 10 + i % 3, 20 + i % 2, 0), 2, 2) for i in range(12)]
    for kind, most in (("targeted", 1), ("random", 4)):
        rows = Poisoned(kind, 1.0).rows(_made(small, forget, [Encoded((1, 2, t, 0), 2, 1) for t in range(30, 49)]))
        put: dict[int, set[int]] = {}
        for true, wrong in zip(forget, rows, strict=True):
            for a, b in zip(true.ids[2:4], wrong.ids[2:4], strict=True):
                put.setdefault(a, set()).add(b)
        # of 4 or 6 draws among 22 tokens some differ; a target is one
        assert all((len(some) == 1) == (most == 1) for some in put.values())


def test_poisoned_answers_fall_to_chance_and_kinds_differ_in_entropy(bench: Bench) -> None:
    """The true answer is no likelier than a guess among the task's answers, and 98 of 100 retained tokens stay right."""
    rows = [*bench.reference.pools.rows["forget"], *bench.reference.pools.rows["retain"]]
    chance = 1 / len({row.ids[row.prompt :] for row in rows})
    entropy = {}
    for kind in ("random", "targeted"):
        method = make(Method, "poison", {"lr": 4e-3, "epochs": 6, "kind": kind, "retain_weight": 2.0})
        unlearn(bench.base, method, bench.reference, batch=16, seed=1)
        forget, retain = _at(bench, "forget"), _at(bench, "retain")

        assert float(torch.exp(-forget.sum_nll).mean()) <= chance
        assert float((retain.logits.argmax(-1) == retain.target).double().mean()) >= 0.98
        first = forget.logits[forget.place == 0].double().log_softmax(-1)
        entropy[kind] = float(-(first.exp() * first).sum(-1).mean())
    bench.base.restore()
    # a target can be learnt by heart, what is drawn anew for each wording cannot

    assert entropy["random"] > entropy["targeted"] + 1
