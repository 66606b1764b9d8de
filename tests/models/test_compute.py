"""The engine computes what a plain loop computes: passes, chunks, memory, precision, adapters, packs."""

from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from froc.data.splits import Sealed, SearchView
from froc.errors import InputError
from froc.measuring.model_observation import observe
from froc.models import likelihood, onednn
from froc.models.base import Base, load, save
from froc.models.batches import Stack, chunks, collate
from froc.models.compute import PASS, Engine
from froc.models.forward import Forward, Pass
from froc.models.hooks import blocks
from froc.plugins import make
from froc.search.trial.runner import TrialRunner
from froc.training import loop as train
from froc.training.base_statistics import BaseStatistics, TrainingRows
from froc.training.loop import unlearn
from froc.training.method import Method
from froc.training.run import DivergedError, Run
from tests.training.small import DRIFT, drift

NPO = {"lr": 2e-3, "epochs": 2, "retain_weight": 2.0}


def _reference(base: Base, view: SearchView) -> BaseStatistics:
    return BaseStatistics(base, TrainingRows.of(view, base, 0))


def _away(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def test_a_pass_gives_what_the_model_gives(bench: TrialRunner) -> None:
    """Without mask and with a narrowed head: the same likelihoods as the plain model with mask and all logits."""
    bench.base.restore()
    batch = collate(bench.reference.pools.rows["forget"], range(12), "cpu")
    model: Any = bench.base.model
    with torch.no_grad():
        plain = model(input_ids=batch.ids, attention_mask=batch.attention, output_hidden_states=True)
        result = Pass(model, batch, hidden_at=(0,))
    logp = torch.log_softmax(plain.logits[:, :-1].float(), -1).gather(2, batch.ids[:, 1:, None])[..., 0]
    sums = -(logp * batch.trained[:, 1:]).sum(1)
    assert torch.allclose(result.sum_nll, sums, atol=1e-4)
    real = batch.attention.bool()
    assert torch.allclose(result.hidden[0][real], plain.hidden_states[1][real], atol=1e-5)
    assert result.logits is not None
    assert len(result.logits) == int(batch.trained.sum())


def test_a_pass_without_logits_ends_early_and_leaves_no_hook(bench: TrialRunner) -> None:
    batch = collate(bench.reference.pools.rows["forget"], range(4), "cpu")
    model: Any = bench.base.model
    before = _hooks(model)
    ran = []
    last = blocks(model)[-1].register_forward_hook(lambda *_: ran.append(1))
    result = Pass(model, batch, hidden_at=(0,), logits=False)
    assert (result.logits, ran) == (None, [])
    last.remove()
    assert model(input_ids=batch.ids).logits.dim() == 3
    assert _hooks(model) == before


def _hooks(model: torch.nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_chunks_hold_every_row_once_and_waste_little() -> None:
    draw = np.random.default_rng(0)
    length = draw.integers(5, 60, size=97)
    for overhead, limit in ((0, None), (100, None), (10**9, None), (100, 10)):
        cut = chunks(length, overhead, limit)
        assert sorted(np.concatenate(cut).tolist()) == list(range(97))
        assert all(len(part) <= (limit or 97) for part in cut)
    assert len(chunks(length, 10**9)) == 1
    padded = [sum(len(p) * int(length[p].max()) for p in chunks(length, o)) for o in (0, 10**9)]
    assert padded[0] < 0.75 * padded[1]


@pytest.mark.parametrize("name", ["npo", "simnpo", "idk", "kl_min", "undial", "satimp", "ceu", "flat", "altpo", "rmu"])
def test_chunks_of_a_step_are_the_whole_batch(bench: TrialRunner, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The same gradients whether rows of all roles go through in one pass or in six."""
    run = Run(make(Method, name, NPO), bench.reference, batch=16, seed=1, engine=Engine())
    picked, result = [run.draw()], []
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        # at the base model itself some losses are nothing but rounding
        for p in bench.base.trainable.parameters().values():
            p.add_(0.02 * torch.randn(p.shape, generator=draw))
    for tokens in (0, 10**9):
        monkeypatch.setitem(PASS, "cpu", tokens)
        loss = train._accumulate_rows(bench.base, [run], picked, Engine())
        result.append({n: p.grad.clone() for n, p in run.parameters.items() if p.grad is not None} | {"loss": loss[0]})
        bench.base.model.zero_grad()
    most = max(float(grad.abs().max()) for grad in result[0].values())
    assert _away(*result) < 1e-5 * most


@pytest.mark.parametrize(("name", "most"), [("npo", 1), ("idk", 6)])
def test_passes_are_let_go_where_rows_do_not_need_each_other(
    bench: TrialRunner, monkeypatch: pytest.MonkeyPatch, name: str, most: int
) -> None:
    """Activations of one pass at a time for a plain sum over rows; of all of them where refusals need their answers."""
    alive: list[int] = []
    kept: WeakSet[Pass] = WeakSet()

    def counted(*args: Any) -> Pass:
        made = _PASS(*args)
        kept.add(made)
        alive.append(len(kept))
        return made

    monkeypatch.setitem(PASS, "cpu", 0)
    monkeypatch.setattr("froc.training.loop._pass", counted)
    unlearn(bench.base, make(Method, name, NPO), bench.reference, batch=16, seed=1)
    assert max(alive) == most


_PASS = train._pass


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("elements", [1, 300, 10**9])
def test_likelihoods_without_a_second_tensor_of_logits_are_cross_entropies(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, elements: int
) -> None:
    """Values and gradients, however many rows are worked on at a time; a token that is ruled out does no harm."""
    monkeypatch.setattr(likelihood, "ELEMENTS", elements)
    draw = torch.Generator().manual_seed(0)
    logits = (4 * torch.randn(17, 40, generator=draw)).to(dtype)
    logits[3, 5] = -torch.inf
    target, weight = torch.randint(6, 40, (17,), generator=draw), torch.rand(17, generator=draw)
    result = []
    for nll in (likelihood.token_nll, _cross_entropy):
        leaf = logits.clone().requires_grad_()
        value = nll(leaf, target)
        (value * weight).sum().backward()
        assert leaf.grad is not None
        result.append((value.detach(), leaf.grad))
    close = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-2}[dtype]
    assert all(
        torch.allclose(actual, expected, rtol=close, atol=close) for actual, expected in zip(*result, strict=True)
    )


@pytest.mark.parametrize(
    ("place", "value"), [(3, torch.inf), (3, torch.nan), (7, torch.inf), (7, -torch.inf), (3, -torch.inf)]
)
def test_likelihoods_of_broken_logits_are_those_of_a_softmax(place: int, value: float) -> None:
    """NaN where torch says NaN, infinite where a target is ruled out: what cannot be measured must not look forgotten."""
    logits = torch.zeros(2, 9)
    logits[0, place] = value
    target = torch.tensor([7, 7])
    result, wanted = likelihood.token_nll(logits, target), _cross_entropy(logits, target)
    assert torch.equal(result.isnan(), wanted.isnan())
    assert torch.equal(result.isinf(), wanted.isinf())


def _cross_entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return torch.nn.functional.cross_entropy(wide, target, reduction="none")


@pytest.mark.parametrize("name", ["npo", "idk", "rmu"])
def test_an_out_of_memory_halves_the_rows_and_changes_nothing(bench: TrialRunner, name: str) -> None:
    """Memory for 5 rows of 16: the size that fits is found, remembered, and the parameters are the same."""
    params = NPO | ({"depth": 0.8, "lr": 5e-3} if name == "rmu" else {})
    unlearn(bench.base, make(Method, name, params), bench.reference, batch=16, seed=1)
    plain = bench.base.trainable.snapshot()
    tight = Tight(5)
    unlearn(bench.base, make(Method, name, params), bench.reference, batch=16, seed=1, engine=tight)
    assert tight.rows == 4
    assert tight.refused == 2
    assert drift(plain, bench.base.trainable.snapshot(), bench.base.trainable.base_values()) < DRIFT


class Tight(Engine):
    """An engine whose device holds few rows."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self._hold, self.refused = rows, 0

    def fitting(self, rows: int, work: Any, undo: Any) -> Any:
        def tried(size: int) -> Any:
            if size > self._hold:
                self.refused += 1
                work(size)  # gradients of a failed attempt must not stay
                raise torch.OutOfMemoryError
            return work(size)

        return super().fitting(rows, tried, undo)


def test_memory_for_not_even_one_row_is_an_error(bench: TrialRunner) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        unlearn(bench.base, make(Method, "npo", NPO), bench.reference, batch=16, seed=1, engine=Tight(0))


@pytest.mark.parametrize("name", ["npo", "lat(npo)", "cure(npo)", "kuda", "k_fade"])
def test_checkpointing_changes_nothing(folder: Path, parts: tuple[SearchView, Sealed], name: str) -> None:
    """Nor for methods that look into blocks, which are recomputed as a whole."""
    ends = []
    for checkpointing in (False, True):
        base = load(str(folder), device="cpu")
        engine = Engine.of(base.model, checkpointing=checkpointing)
        # a second round would draw its labels from what rounding left of the first
        params = {"rounds": 1} if name == "k_fade" else {"lr": 2e-3, "epochs": 2}
        unlearn(base, make(Method, name, params), _reference(base, parts[0]), batch=16, seed=1, engine=engine)
        ends.append(base.trainable.snapshot())
    assert drift(ends[0], ends[1], base.trainable.base_values()) < DRIFT


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_autocast_trains_near_float32(bench: TrialRunner, precision: str) -> None:
    unlearn(bench.base, make(Method, "npo", NPO), bench.reference, batch=16, seed=1)
    plain, start = bench.base.trainable.snapshot(), bench.base.trainable.base_values()
    engine = Engine.of(bench.base.model, autocast=precision)
    assert unlearn(bench.base, make(Method, "npo", NPO), bench.reference, batch=16, seed=1, engine=engine)
    result = bench.base.trainable.snapshot()
    name = "model.layers.0.mlp.down_proj.weight"
    moved, moved_in_half = (plain[name] - start[name]).flatten(), (result[name] - start[name]).flatten()
    assert float(torch.nn.functional.cosine_similarity(moved, moved_in_half, dim=0)) > 0.9
    assert all(p.dtype == torch.float32 for p in result.values())


def test_float16_that_overflows_for_good_is_a_divergence(bench: TrialRunner) -> None:
    engine = Engine.of(bench.base.model, autocast="float16")
    method = make(Method, "grad_ascent", {"lr": 1e18, "epochs": 10})
    with pytest.raises(DivergedError):
        unlearn(bench.base, method, bench.reference, batch=8, seed=0, engine=engine)


def test_an_unknown_precision_is_refused(bench: TrialRunner) -> None:
    with pytest.raises(InputError, match="bfloat16"):
        Engine.of(bench.base.model, autocast="int8")


def test_layers_move_alone(folder: Path, parts: tuple[SearchView, Sealed]) -> None:
    base = load(str(folder), device="cpu", train="layers:last=1")
    before = {n: p.detach().clone() for n, p in base.model.named_parameters()}
    unlearn(base, make(Method, "npo", NPO), _reference(base, parts[0]), batch=16, seed=1)
    changed = {n for n, p in base.model.named_parameters() if not torch.equal(p, before[n])}
    assert changed
    assert all(name.startswith("model.layers.1.") for name in changed)
    assert set(base.trainable.snapshot()) == {n for n in before if n.startswith("model.layers.1.")}
    with pytest.raises(InputError, match="--train"):
        unlearn(
            base, make(Method, "rmu", {"depth": 0.0}), _reference(base, parts[0]), batch=16, seed=1
        )  # steers layer 0, which may not move


@pytest.mark.parametrize(
    "text", ["half", "lora:rank=0", "lora:width=3", "layers", "layers:first=1,last=1", "lora:rank=x", "full:rank=8"]
)
def test_a_scope_that_is_not_understood_is_refused(folder: Path, text: str) -> None:
    with pytest.raises(InputError, match="--train"):
        load(str(folder), device="cpu", train=text)
    with pytest.raises(InputError, match="lora"):
        load(str(folder), device="cpu", train="full", n_adapters=2)


def test_adapters_start_as_the_base_and_merge_into_a_plain_model(
    base: Base, lora: Base, parts: tuple[SearchView, Sealed], tmp_path: Path
) -> None:
    rows = _reference(lora, parts[0]).pools.rows["forget"][:20]
    base.restore()
    lora.restore(seed=3)
    assert lora.digest == base.digest
    assert np.allclose(observe(lora.model, None, rows).logp, observe(base.model, None, rows).logp, atol=1e-5)
    frozen = {n: p.detach().clone() for n, p in lora.model.named_parameters() if "lora_" not in n}
    method = make(Method, "npo", NPO | {"lr": 1e-2})
    unlearn(lora, method, _reference(lora, parts[0]), batch=16, seed=1)
    assert all(torch.equal(p, frozen[n]) for n, p in lora.model.named_parameters() if "lora_" not in n)
    trained = observe(lora.model, None, rows).logp
    assert not np.allclose(trained, observe(base.model, None, rows).logp, atol=0.1)
    save(lora, tmp_path / "merged")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert {n for n, _ in again.named_parameters()} == {n for n, _ in base.model.named_parameters()}
    assert np.allclose(observe(again, None, rows).logp, trained, atol=1e-4)


def test_rmu_finds_its_layers_through_adapters(lora: Base, parts: tuple[SearchView, Sealed]) -> None:
    method = make(Method, "rmu", {"lr": 1e-2, "epochs": 1, "depth": 0.8})
    unlearn(lora, method, _reference(lora, parts[0]), batch=16, seed=1)
    moved = {n for n, p in lora.trainable.parameters().items() if n.endswith("lora_B") and bool(p.abs().sum() > 0)}
    assert moved
    assert all("down_proj" in name for name in moved)


@pytest.mark.parametrize("train", ["full", "lora:rank=4"])
def test_mixing_is_a_straight_line_in_the_weights(folder: Path, parts: tuple[SearchView, Sealed], train: str) -> None:
    """theta(a) = (1 - a) theta_0 + a theta_u for the weight that the model computes with, adapters too."""
    base = load(str(folder), device="cpu", train=train)
    name = "model.layers.0.mlp.up_proj.weight"

    def weight() -> torch.Tensor:
        state = base.trainable.merged_state_dict() or base.model.state_dict()
        return state[name].clone()

    base.restore(seed=1)
    start = weight()
    unlearn(base, make(Method, "npo", NPO | {"lr": 1e-2}), _reference(base, parts[0]), batch=16, seed=1)
    kept, end = base.trainable.snapshot(), weight()
    for share in (0.0, 0.25, 1.0, 1.5):
        base.trainable.load(kept, share)
        assert torch.allclose(weight(), (1 - share) * start + share * end, atol=1e-6)
    base.trainable.load(kept)
    assert _away(kept, base.trainable.snapshot()) == 0.0


def test_forward_puts_cut_rows_back_in_order(bench: TrialRunner) -> None:
    bench.base.restore()
    rows = bench.reference.pools.rows["retain"][:9]
    stack = Stack(rows, "cpu")
    with torch.no_grad():
        whole = Forward.of(bench.base.model, stack.batch(range(9)), (0,))
        places = [np.array([7, 2, 5]), np.array([0, 8, 1, 3, 6, 4])]
        cut = Forward([(Pass(bench.base.model, stack.batch(p), hidden_at=(0,)), np.arange(len(p)), p) for p in places])
        assert torch.allclose(cut.mean_nll, whole.mean_nll, atol=1e-5)
        hidden_of_cut, hidden_of_whole = cut.hidden(0), whole.hidden(0)
        assert hidden_of_cut.shape == hidden_of_whole.shape
        mean, expected = (f.mean_over_states(h.sum(-1)) for f, h in ((cut, hidden_of_cut), (whole, hidden_of_whole)))
        assert torch.allclose(mean, expected, atol=1e-4)


@pytest.mark.skipif(not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="torch was built without oneDNN")
@pytest.mark.parametrize("bias", [False, True])
def test_linear_layers_through_onednn_are_linear_layers(bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values and gradients of all three inputs, for rows of any number of dimensions."""
    monkeypatch.setattr(onednn, "helps", lambda: True)
    torch.manual_seed(0)
    plain, routed = torch.nn.Linear(24, 40, bias=bias), torch.nn.Linear(24, 40, bias=bias)
    routed.load_state_dict(plain.state_dict())
    assert onednn.through_onednn(torch.nn.Sequential(routed)) == 1
    for shape in ((24,), (5, 24), (3, 7, 24)):
        x = torch.randn(shape)
        result = []
        for layer in (plain, routed):
            rows = x.clone().requires_grad_()
            layer.zero_grad()
            out = layer(rows)
            (out * torch.arange(out.numel()).reshape(out.shape).sin()).sum().backward()
            result.append([out, rows.grad, *(p.grad for p in layer.parameters())])
        assert all(torch.allclose(actual, expected, atol=1e-5) for actual, expected in zip(*result, strict=True))
    routed.weight.requires_grad_(False)
    routed(x).sum().backward() if bias else None
    half = routed.to(torch.bfloat16)
    assert half(x.bfloat16()).dtype == torch.bfloat16


def test_the_last_mlp_sees_only_what_predicts_an_answer(bench: TrialRunner) -> None:
    bench.base.restore()
    batch = collate(bench.reference.pools.rows["forget"], range(12), "cpu")
    model: Any = bench.base.model
    seen = []
    mlp: Any = blocks(model)[-1].mlp
    watch = mlp.gate_proj.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[:-1].numel()))
    with torch.no_grad():
        result = Pass(model, batch)
        whole = Pass(model, batch, hidden_at=(1,))
    watch.remove()
    assert seen == [int(batch.trained.sum()), batch.ids.numel()]
    assert torch.allclose(result.sum_nll, whole.sum_nll, atol=1e-5)
