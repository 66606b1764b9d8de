"""Bytes on the device and between it and the host."""

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from froc.data.prompts import PromptFormat
from froc.measuring.attack import Attack, Material
from froc.measuring.measurement import measurement
from froc.measuring.model_observation import _tokens
from froc.methods.pdu import Flatten
from froc.models.base import Base
from froc.models.batches import Encoded, Stack
from froc.models.compute import Engine
from froc.models.forward import Forward, Pass
from froc.models.likelihood import CHUNK
from froc.models.memory_needs import needs, place_base_copy
from froc.models.narrowing import try_narrowing
from froc.models.trainable import Full, parse
from froc.plugins import make
from froc.search.trial.outcome import TrialSpec
from froc.search.trial.runner import TrialRunner
from froc.training.base_statistics import BaseStatistics, TrainingRows
from froc.training.loop import train_pack
from froc.training.memory_simulation import ShortRun, Simulation
from froc.training.method import Method
from tests.pretend_cuda import device
from tests.training.small import gpt2, llama, neox

if TYPE_CHECKING:
    from froc.data.splits import Sealed, SearchView

LARGE = 50_000
"""Tokens of a vocabulary beside which everything else is small."""


def test_a_trial_moves_its_weights_between_host_and_device_less_than_once(
    on_cuda: Base, parts: "tuple[SearchView, Sealed]"
) -> None:
    """Its sweep moved them 19 times before stops stayed on the device; where that is too small, only what trained is moved."""
    extraction = measurement("extraction_strength")
    runner = TrialRunner(
        on_cuda, parts[0], dict.fromkeys(("forgetting", "utility"), extraction), batch=16, seed=0,
        limits={"forgetting": 0.6, "utility": 0.6},
    )  # fmt: skip
    weights = sum(p.nbytes for p in on_cuda.model.parameters())

    def moved(method: str, **parameters: float) -> float:
        device.reset_counts()
        outcome = runner.run([TrialSpec(method, {"lr": 3e-3, "epochs": 9, **parameters}, 4)], [lambda *_: False])[0]
        assert outcome.status == "complete"
        counts = device.counts()
        return (counts["bytes_to_device"] + counts["bytes_to_host"]) / weights

    assert moved("npo", retain_weight=3.0) < 0.6
    device.limit(device.peak())
    assert moved("npo", retain_weight=3.0, epochs=3) > 3
    assert moved("rmu", epochs=3) < 1.5


@pytest.fixture(scope="module")
def large_vocabulary() -> PreTrainedModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=LARGE, hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
        tie_word_embeddings=False, pad_token_id=None, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    made: Any = LlamaForCausalLM(config)
    model: PreTrainedModel = made.to("cuda").eval()
    assert try_narrowing(model)
    return model


def _rows(count: int, answer: int) -> list[Encoded]:
    return [Encoded((3,) * (8 + answer), 8, answer - 1) for _ in range(count)]


def _peak(work: Callable[[], object]) -> int:
    before = device.allocated()
    device.reset_peak()
    work()
    return device.peak() - before


def test_no_tensor_is_as_large_as_the_logits_of_a_large_vocabulary(large_vocabulary: PreTrainedModel) -> None:
    """Steps on likelihoods and on whole distributions, and a look at these, peak at a few chunks, where logits alone would be
    `whole` bytes; and few kernels are launched, without a wait in them."""
    rows = _rows(30, 40)
    whole = 30 * 40 * LARGE * 4
    batch = Stack(rows, torch.device("cuda")).batch(range(len(rows)))
    result = Pass(large_vocabulary, batch)

    def step() -> None:
        result.nll.sum().backward()

    with device.watching() as places:
        assert _peak(step) < 3 * 4 * CHUNK < whole
    assert not places
    assert device.counts()["launches"] < whole / LARGE / 4
    flat = Flatten("forget").tokens(Forward.of(large_vocabulary, batch), {}, {})
    assert _peak(flat.sum().backward) < 5 * 4 * CHUNK
    look = _peak(lambda: _tokens(large_vocabulary, rows, 256, True, False))
    assert look < 5 * 4 * CHUNK < 2 * whole


SHAPES: dict[str, Callable[[], Any]] = {
    "wide": lambda: llama(200, width=192, inner=576, layers=2, heads=4),
    "many tokens": lambda: llama(20_000, width=32, inner=64, layers=2),
    "gpt2": lambda: gpt2(200, width=96, inner=384, layers=3),
    "neox": lambda: neox(3000),
}
"""What decides what is needed: parameters, logits, what a pass keeps. Cases name autocast's precision or the optimiser."""
_NO_TOKENIZER: Any = None
CASES = [
    ("npo", "full", "wide", torch.float32, None, False), ("grad_diff", "full", "gpt2", torch.float32, torch.bfloat16, False),
    ("sure(npo)", "full", "gpt2", torch.float32, None, False),
    ("kl_min", "full", "many tokens", torch.float32, torch.bfloat16, False), ("npo", "full", "many tokens", torch.bfloat16, None, False),
    ("rmu", "full", "wide", torch.float32, None, False),
    ("curvature", "full", "wide", torch.float32, None, False),
    ("simnpo", "layers:last=1", "wide", torch.float32, torch.bfloat16, False),
    ("npo", "lora:rank=8", "wide", torch.bfloat16, None, True), ("npo", "full", "gpt2", torch.float32, torch.bfloat16, True),
    ("undial", "lora:rank=4", "neox", torch.float32, None, False),
    ("npo", "full", "wide", torch.bfloat16, "adamw8bit", True), ("simnpo", "full", "gpt2", torch.float32, "adamw8bit", False),
]  # fmt: skip


@pytest.mark.parametrize(("method", "train", "shape", "dtype", "computed", "checkpointing"), CASES)
def test_what_is_counted_without_values_is_what_the_device_allocates(
    method: str, train: str, shape: str, dtype: torch.dtype, computed: torch.dtype | str | None, checkpointing: bool
) -> None:
    """To a tenth: preparation and two steps of each phase, second-order terms, kept gradients and whole distributions included."""
    model, no_tokenizer = SHAPES[shape]().to(dtype), _NO_TOKENIZER
    try_narrowing(model)
    long = [Encoded((3,) * (16 + i % 5), 6, 9 + i % 5) for i in range(16)]
    rows = TrainingRows(dict.fromkeys(("forget", "retain", "refusal"), long))
    made = make(Method, method, {"epochs": 3, "lr": 1e-5})
    engine = Engine(optimizer=computed) if isinstance(computed, str) else Engine(computed)
    meant = Base(shape, model, no_tokenizer, Full(model), "")
    simulation = Simulation(meant, rows, engine, train=train, checkpointing=checkpointing)
    needed = simulation.needs(made, 8)
    before = device.allocated()
    model = model.to("cuda")
    base = Base(shape, model, no_tokenizer, parse(train, model), "")
    Engine.of(model, autocast="off", checkpointing=checkpointing)
    device.reset_peak()
    run = ShortRun(made, BaseStatistics(base, rows), batch=8, engine=engine)
    train_pack(base, [run], engine)
    assert not run.error
    assert needed.total == pytest.approx(device.peak() - before, rel=0.1)


def test_the_base_copy_goes_to_pinned_memory_where_the_device_lacks_the_room() -> None:
    """And mixes and resets are the same to the bit."""
    model = llama(200, width=64, inner=128).to("cuda")
    base = Base("small", model, _NO_TOKENIZER, Full(model), "")
    scope, copy = base.trainable, needs(base).base_copy
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    learnt = scope.copy(scope.parameters())

    def mixed() -> list[torch.Tensor]:
        scope.load(learnt, 0.3)
        values = [parameter.detach().cpu() for parameter in model.parameters()]
        scope.reset(0)
        return values + [parameter.detach().cpu() for parameter in model.parameters()]

    device.limit(needs(base).total * 2)
    before, on_device = device.allocated(), mixed()
    place_base_copy(base)
    assert device.allocated() == before
    device.limit(needs(base).total)
    place_base_copy(base)
    device.limit(None)
    assert device.allocated() == before - copy
    assert all(value.is_pinned() for value in scope.base_values().values())
    assert all(map(torch.equal, mixed(), on_device))
    assert scope.changed() == {}


def test_relearning_needs_little_more_than_the_model_where_there_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a bfloat16 base it took 24 bytes a parameter. On the host, gradients leave the device one by one; the result is the same."""
    rows = [Encoded((3,) * (16 + i % 5), 6, 9 + i % 5) for i in range(8)]
    monkeypatch.setattr("froc.attacks._training.encode", lambda *_: rows)
    no_rows: Any = (None,) * len(rows)
    attack: Any = make(Attack, "relearning", {"steps": 2, "batch": 8, "lr": 1e-3})
    values, peaks = [], []
    for free in (math.inf, 0.0):
        monkeypatch.setattr("froc.attacks._training.room", lambda _, free=free: free)
        model = llama(200, width=192, inner=576).to(torch.bfloat16).to("cuda")
        size = sum(p.numel() for p in model.parameters())
        work = partial(attack.train, model, _NO_TOKENIZER, no_rows, Material((), (), (), PromptFormat("{question} ")))
        peaks.append(_peak(work) / size)
        values.append(torch.cat([p.detach().flatten().float().cpu() for p in model.parameters()]))
    activations = peaks[1]
    assert peaks[0] < 18 + activations
    assert activations < 4
    # the same but for the last bit of the kernels
    assert torch.allclose(values[0], values[1], rtol=2**-7)
