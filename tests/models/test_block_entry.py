"""Passes that begin behind the blocks which no trial changes: the same losses, the same training, fewer blocks computed."""

from typing import Any

import pytest
import torch

from froc.measuring.model_observation import observe
from froc.models.block_entry import Entry, can_enter, entered, frozen_blocks, reusing_states
from froc.models.compute import Engine
from froc.models.forward import Pass
from froc.models.hooks import blocks
from froc.models.trainable import Full, parse
from froc.plugins import make
from froc.training.loop import unlearn
from froc.training.method import Method
from tests.training.small import BUILDERS, DRIFT, drift, encoded, llama, reference


def calls(model: Any, block: int) -> list[int]:
    """A list that grows by the number of rows of each pass through a block that is computed."""
    seen: list[int] = []
    mlp = next(module for name, module in blocks(model)[block].named_modules() if name.endswith("mlp"))
    mlp.register_forward_hook(lambda _module, args, _output: seen.append(len(args[0])))
    return seen


@pytest.mark.parametrize("build", [BUILDERS["llama"], BUILDERS["gpt2"], BUILDERS["neox"]])
def test_a_pass_may_begin_at_a_block(build: Any) -> None:
    model = build(20)
    model.eval()
    made = reference(model)
    batch = made.stack.batch(range(6))
    with torch.no_grad():
        whole = Pass(model, batch, hidden_at=(0,))
        again = Pass(model, batch, entry=Entry(1, whole.hidden[0]))
    assert can_enter(model)
    assert whole.logits is not None
    assert again.logits is not None
    assert torch.equal(whole.logits, again.logits)
    assert "forward" not in vars(blocks(model)[0])


def test_a_model_whose_blocks_read_more_than_hidden_states_is_passed_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    model = llama(20, layers=2)
    plain = model.model.forward

    def adding(*args: Any, **kwargs: Any) -> Any:
        output = plain(*args, **kwargs)
        # what the first block did reaches the end by another way
        output.last_hidden_state = output.last_hidden_state + model.side
        return output

    model.side = torch.zeros(())
    mlp: Any = blocks(model)[0].mlp
    mlp.register_forward_hook(lambda _m, _a, output: setattr(model, "side", 3 * output.mean()))
    monkeypatch.setattr(model.model, "forward", adding)
    forgetting = blocks(model)[0].register_forward_pre_hook(lambda *_: setattr(model, "side", torch.ones(())))
    assert not can_enter(model)
    forgetting.remove()
    model.train()
    assert not can_enter(model)


def test_frozen_blocks_end_at_the_first_that_may_change() -> None:
    model = llama(20, layers=3)
    names = [name for name, _ in model.named_parameters()]
    assert frozen_blocks(model, [n for n in names if ".layers.2." in n]) == 2
    assert frozen_blocks(model, [n for n in names if ".layers.1." in n or ".layers.2." in n]) == 1
    assert frozen_blocks(model, names) == 0
    assert frozen_blocks(model, ["model.norm.weight"]) == 0
    assert frozen_blocks(model, []) == 0
    assert frozen_blocks(model, parse("lora:rank=2", model).parameters()) == 0


def test_rows_measured_again_begin_behind_the_frozen_blocks_and_give_the_same_bits() -> None:
    model = llama(20, layers=3)
    rows = encoded(9, 20)
    seen = calls(model, 1)
    changed = [name for name, _ in model.named_parameters() if ".layers.2." in name]
    with reusing_states(model, changed):
        assert can_enter(model)
        seen.clear()
        first = observe(model, None, rows)
        assert sum(seen) == len(rows)
        with torch.no_grad():
            model.model.layers[2].mlp.down_proj.weight.mul_(1.5)
        reused = observe(model, None, rows)
        assert sum(seen) == len(rows)
    whole = observe(model, None, rows)
    assert sum(seen) == 2 * len(rows)
    assert (reused.logp == whole.logp).all()
    assert (reused.logp != first.logp).any()


@pytest.mark.parametrize("name", ["npo", "simnpo", "grad_diff", "rmu"])
def test_training_the_last_blocks_passes_each_row_once_through_the_others(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = make(Method, name, {"lr": 1e-2, "epochs": 4} | ({"depth": 0.75} if name == "rmu" else {}))
    ends, passed_rows = {}, {}
    for way in ("kept", "whole"):
        model = llama(20, layers=4)
        made = reference(model, scope=Full(model, r"\.[123]\." if name == "rmu" else r"\.3\."))
        if way == "whole":
            monkeypatch.setattr("froc.training.run.frozen_blocks", lambda *_: 0)
        seen = calls(model, 0)
        assert unlearn(made.base, method, made, batch=5, seed=1, engine=Engine()) >= 4
        ends[way], passed_rows[way] = made.base.trainable.snapshot(), sum(seen)
        start = made.base.trainable.base_values()
    # each row once for its states, and once for what the method asks of the base model; the rest tests the model
    assert passed_rows["kept"] <= 2 * (5 + 6) + 8 < passed_rows["whole"]
    assert drift(ends["kept"], ends["whole"], start) < DRIFT


def test_entered_puts_blocks_back_after_an_error() -> None:
    model = llama(20, layers=2)
    with pytest.raises(ZeroDivisionError), entered(model, Entry(1, torch.zeros(1, 2, 16))):
        raise ZeroDivisionError
    assert "forward" not in vars(blocks(model)[0])
