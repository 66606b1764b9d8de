"""OFMU: its gradients against exact double backward and finite differences, and what its steps leave as it was."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from froc.errors import InputError
from froc.methods._bilevel import ForgetThenRetain, Place
from froc.methods.ofmu import WIDTH, Penalised
from froc.models.batches import Encoded, Stack
from froc.models.compute import Engine
from froc.models.forward import Forward
from froc.plugins import find, make
from froc.search.trial.runner import TrialRunner
from froc.training.base_statistics import PLACEHOLDER_CONTEXT, method_context
from froc.training.components import Combiner, dot
from froc.training.loop import train_pack, unlearn
from froc.training.method import Method
from froc.training.phase import Phase
from froc.training.run import Run
from froc.training.terms import NLL, OBJECTIVES, Objective, State, WeightedTerm, Weights
from tests.training.small import llama, nll, reference
from tests.training.test_components import Made

V = 40
FINE = 1e-5
"""Width of differences in float64, where rounding leaves room for it."""


class Tiny:
    """A two-layer model in float64 with eager attention, half trained, and eight rows of each side of unequal lengths."""

    def __init__(self) -> None:
        torch.manual_seed(3)
        config = GPT2Config(
            vocab_size=V, n_embd=12, n_inner=16, n_layer=2, n_head=2, n_positions=24, initializer_range=0.2,
            bos_token_id=None, eos_token_id=0,
        )  # fmt: skip
        config._attn_implementation = "eager"
        self.model: Any = GPT2LMHeadModel(config).double().eval()
        for module in self.model.modules():
            if isinstance(module, torch.nn.LayerNorm):
                # torch's own has a double backward that takes mean and variance for constants when it is gone through again
                vars(module)["forward"] = partial(_normed, module)
        draw = np.random.default_rng(0)
        self.rows: dict[Objective, Stack] = {side: Stack(_rows(draw), "cpu") for side in ("forget", "retain")}
        self.own = dict(self.model.named_parameters())
        optimiser = torch.optim.AdamW(self.own.values(), lr=1e-2)
        for _ in range(15):
            optimiser.zero_grad()
            (self.nll("forget") + self.nll("retain")).backward()
            optimiser.step()
        self.start = {name: p.detach().clone() for name, p in self.own.items()}

    def nll(self, side: Objective) -> Tensor:
        """Mean over rows of the mean over their answer tokens, which can be differentiated twice."""
        batch = self.rows[side].batch(range(8))
        row, column = (torch.from_numpy(indices) for indices in batch.predicting(True))
        logp = self.model(input_ids=batch.ids).logits[row, column].log_softmax(-1)
        each = -logp.gather(-1, batch.ids[row, column + 1][:, None])[:, 0]
        count = torch.from_numpy(batch.length - batch.start)
        return (torch.zeros(8, dtype=torch.float64).index_add(0, row, each) / count).mean()

    def phi(self, beta: float) -> Weights:
        """grad Phi, by a double backward."""
        own = list(self.own.values())
        f, r = (torch.autograd.grad(self.nll(side), own, create_graph=True) for side in ("forget", "retain"))
        flat = [torch.cat([slope.flatten() for slope in slopes]) for slopes in (f, r)]
        cos = torch.dot(*flat) / flat[0].norm() / flat[1].norm()
        bent = torch.autograd.grad(cos, own, create_graph=True)
        return {name: a - beta * b for name, a, b in zip(self.own, f, bent, strict=True)}

    def outer(self, beta: float, rho: float) -> Tensor:
        """F = L_r + rho |grad Phi|^2."""
        return (
            self.nll("retain") + rho * torch.cat([slope.flatten() for slope in self.phi(beta).values()]).square().sum()
        )

    def slope(self, value: Tensor) -> Weights:
        return dict(zip(self.own, torch.autograd.grad(value, list(self.own.values())), strict=True))

    @torch.no_grad()
    def put(self, at: Mapping[str, Tensor], by: Mapping[str, Tensor] | None = None, share: float = 0.0) -> None:
        for name, p in self.own.items():
            p.copy_(at[name] + share * by[name] if by else at[name])

    def gradients(self, objective: Objective | None = None, *, exact: bool = False) -> dict[Objective, Weights]:
        """As a run gives them: of the terms, the forget one's with its minus; by froc's own passes, which go back once."""
        result: dict[Objective, Weights] = {}
        with torch.enable_grad():
            for role in OBJECTIVES if objective is None else (objective,):
                forward = Forward.of(self.model, self.rows[role].batch(range(8)))
                result[role] = self.slope((1.0 if role == "retain" else -1.0) * forward.mean_nll.mean())
        return result

    def step(self, combiner: ForgetThenRetain, state: State) -> Weights:
        with torch.no_grad():
            return combiner.direction_with_probes(self.gradients(), self.gradients, self.own, state)

    def place(self) -> Place:
        """Here."""

        def gradient(at: Weights, side: Objective) -> Weights:
            self.put(at)
            return self.gradients(side)[side]

        return Place(dict(self.start), gradient)


def _normed(norm: torch.nn.LayerNorm, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias


def _rows(draw: np.random.Generator) -> list[Encoded]:
    made = []
    for i in range(8):
        prompt, answer = 2 + i % 3, 1 + (3 * i) % 4
        made.append(Encoded((*draw.integers(1, V, prompt + answer).tolist(), 0), prompt, answer))
    return made


@pytest.fixture(scope="module")
def made() -> Tiny:
    return Tiny()


@pytest.fixture
def tiny(made: Tiny) -> Iterator[Tiny]:
    made.put(made.start)
    yield made
    made.put(made.start)


def _apart(first: Weights, second: Weights) -> float:
    """Length of the difference over the second's length."""
    gap = {name: first[name] - second[name] for name in second}
    return math.sqrt(float(dot(gap, gap) / dot(second, second)))


def _cos(first: Weights, second: Weights) -> float:
    return float(dot(first, second) / (dot(first, first) * dot(second, second)).sqrt())


def _unclipped(tiny: Tiny, beta: float) -> float:
    """rho at which the penalty's gradient is half as long as what is clipped."""
    steep = tiny.slope(tiny.outer(beta, 1.0) - tiny.nll("retain"))
    return 0.5 / math.sqrt(float(dot(steep, steep)))


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_both_gradients_are_those_of_a_double_backward(tiny: Tiny, beta: float) -> None:
    rho = _unclipped(tiny, beta)
    phi = {name: slope.detach() for name, slope in tiny.phi(beta).items()}
    outer, bare = tiny.slope(tiny.outer(beta, rho)), tiny.slope(tiny.nll("retain"))
    combiner, state = Penalised(beta=beta, penalty=rho, growth=1.5, width=FINE), dict[str, Any]()
    with torch.no_grad():
        rise, fall = combiner.rise(tiny.place()), combiner.fall(tiny.place(), state)
    assert _apart(rise, phi) < 1e-5
    assert _apart(fall, outer) < 1e-4
    assert state == {"penalty": pytest.approx(1.5 * rho)}
    # neither is what a first-order form would give
    assert beta == 0.0 or _apart({n: -g for n, g in tiny.gradients("forget")["forget"].items()}, phi) > 0.01
    assert _apart(bare, outer) > 0.1


def test_differences_are_central_and_narrow_enough(tiny: Tiny) -> None:
    """Their error falls as the square of their width, and is small at the width that is used in float32."""
    beta, rho = 0.5, _unclipped(tiny, 0.5)
    outer, phi = tiny.slope(tiny.outer(beta, rho)), {name: slope.detach() for name, slope in tiny.phi(beta).items()}
    errors = []
    for width in (4 * WIDTH, WIDTH):
        combiner = Penalised(beta=beta, penalty=rho, width=width)
        with torch.no_grad():
            errors.append((_apart(combiner.rise(tiny.place()), phi), _apart(combiner.fall(tiny.place(), {}), outer)))
    assert [wide / narrow for wide, narrow in zip(*errors, strict=True)] == pytest.approx([16.0, 16.0], rel=0.1)
    assert max(errors[1]) < 0.01


def test_the_outer_gradient_is_a_finite_difference_of_its_objective(tiny: Tiny) -> None:
    beta, rho = 0.5, _unclipped(tiny, 0.5)
    draw = torch.Generator().manual_seed(1)
    along = {name: torch.randn(p.shape, generator=draw, dtype=torch.float64) for name, p in tiny.own.items()}
    with torch.no_grad():
        result = float(dot(Penalised(beta=beta, penalty=rho, width=FINE).fall(tiny.place(), {}), along))
    ends = []
    for sign in (1.0, -1.0):
        tiny.put(tiny.start, along, sign * 1e-5)
        ends.append(float(tiny.outer(beta, rho).detach()))
    assert result == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-4)


def test_a_step_is_the_ascents_and_the_outer_step_from_their_end(tiny: Tiny) -> None:
    """Two ascents by exact gradients, each at most 1 long, then exact grad F; ascents are 1 % of the parameters' norm long."""
    beta, rate = 0.4, 0.01
    size = math.sqrt(sum(float(p.square().sum()) for p in tiny.start.values()))
    ups, at = [], dict(tiny.start)
    for _ in range(2):
        phi = {name: value.detach() for name, value in tiny.phi(beta).items()}
        length = math.sqrt(float(dot(phi, phi)))
        assert length > 1
        ups.append({name: value / length for name, value in phi.items()})
        at = {name: value + rate * size * ups[-1][name] for name, value in at.items()}
        tiny.put(at)
    rho = _unclipped(tiny, beta)
    outer = tiny.slope(tiny.outer(beta, rho))
    tiny.put(tiny.start)
    result = tiny.step(Penalised(2, rate, beta, rho, 1.0, FINE), {})
    assert _apart(result, {name: outer[name] - ups[0][name] - ups[1][name] for name in outer}) < 1e-4
    assert all(torch.equal(p, tiny.start[name]) for name, p in tiny.own.items())


def test_short_ascents_are_not_stretched_and_a_strong_penalty_is_clipped(tiny: Tiny) -> None:
    f, r = tiny.slope(tiny.nll("forget")), tiny.slope(tiny.nll("retain"))
    weak = ForgetThenRetain(1, 0.0)
    small = {side: {n: 1e-3 * g for n, g in gradient.items()} for side, gradient in tiny.gradients().items()}
    with torch.no_grad():
        result = weak.direction_with_probes(small, tiny.gradients, tiny.own, {})
        strong = Penalised(penalty=1e5).fall(tiny.place(), {})
    assert _apart(result, {name: r[name] - 1e-3 * f[name] for name in f}) < 1e-9
    assert math.sqrt(float(dot(*[{n: strong[n] - r[n] for n in r}] * 2))) == pytest.approx(1.0)


def test_to_first_order_a_step_takes_no_second_derivatives(tiny: Tiny) -> None:
    """Without cosine and penalty both are one; ascents are clipped, the retain gradient is that of their end."""
    full, first = Penalised(3, 0.01, beta=0.0, penalty=0.0), ForgetThenRetain(3, 0.01)
    assert _apart(tiny.step(full, {}), tiny.step(first, {})) < 1e-9


def test_ascents_lower_the_cosine_of_the_two_gradients(tiny: Tiny) -> None:
    """Along grad Phi with a large beta it falls at every step, along the forget gradient alone it does not."""
    ends = []
    for combiner in (Penalised(beta=1e3), ForgetThenRetain()):
        seen, place = [], tiny.place()
        with torch.no_grad():
            for _ in range(5):
                seen.append(_cos(place.forget, place.retain))
                up = combiner.rise(place)
                place = place.beside(up, 0.02 / math.sqrt(float(dot(up, up))))
        ends.append(seen)
    assert all(after < before for before, after in zip(ends[0], ends[0][1:], strict=False))
    assert ends[0][-1] < ends[0][0] - 0.05
    assert ends[1][-1] > ends[0][-1] + 0.05


# a model that is trained by froc


def _watched(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Per step: the cosine of the sides, calls for probe, whether the parameters were put back bit by bit."""
    seen: list[dict[str, Any]] = []
    plain = ForgetThenRetain.direction_with_probes

    def direction_with_probes(
        self: ForgetThenRetain, gradients: Any, probe: Any, parameters: Any, state: State
    ) -> Weights:
        before, calls = {name: p.clone() for name, p in parameters.items()}, []

        def counted(objective: Objective | None = None, *, exact: bool = False) -> Any:
            calls.append(1.0 if objective is None else 0.5)
            return probe(objective, exact=exact)

        direction = plain(self, gradients, counted, parameters, state)
        back = all(torch.equal(before[name], p) for name, p in parameters.items())
        seen.append({"cos": -_cos(gradients["forget"], gradients["retain"]), "calls": sum(calls), "back": back})
        return direction

    monkeypatch.setattr(ForgetThenRetain, "direction_with_probes", direction_with_probes)
    return seen


@pytest.mark.parametrize(("name", "steps"), [("ofmu", 2), ("ofmu_first", 3)])
def test_parameters_are_put_back_and_a_step_costs_what_it_says(
    bench: TrialRunner, monkeypatch: pytest.MonkeyPatch, name: str, steps: int
) -> None:
    seen = _watched(monkeypatch)
    method = make(Method, name, {"lr": 1e-3, "epochs": 1, "inner_steps": steps})
    unlearn(bench.base, method, bench.reference, batch=32, seed=1)
    phase = method.phases(PLACEHOLDER_CONTEXT)[0]
    assert len(seen) == 2
    assert all(step["back"] for step in seen)
    assert {step["calls"] for step in seen} == {phase.combiner.n_extra_gradients}
    # two roles forward and backward once, and again for each call
    assert phase.cost(2) == 1 + phase.combiner.n_extra_gradients
    bench.base.restore()


def test_ofmu_forgets_holds_and_keeps_the_gradients_apart(bench: TrialRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cosine falls below where it began, and below what the first-order form leaves it at."""
    seen, cosines = _watched(monkeypatch), []
    bench.base.restore()
    before = nll(bench.reference, "forget")
    assert before < 0.01
    for name, params in (("ofmu", {"beta": 1.0}), ("ofmu_first", {})):
        seen.clear()
        unlearn(bench.base, make(Method, name, {"lr": 1e-3, "epochs": 3} | params), bench.reference, batch=16, seed=1)
        cosines.append([step["cos"] for step in seen])
        # 0.15, 0.23 and 0.68 on three models, from 0.01 at most
        assert nll(bench.reference, "forget") > 5 * before
        assert nll(bench.reference, "retain") < 0.1
    bench.base.restore()
    last = [float(np.mean(cosines_of_run[-4:])) for cosines_of_run in cosines]
    assert last[0] < cosines[0][0]
    assert last[0] < last[1] - 0.05


class EveryProbe(Combiner):
    """Takes the probe in every way there is, and goes where the step's own say."""

    needs_probes = True

    def direction_with_probes(self, gradients: Any, probe: Any, parameters: Any, state: State) -> Weights:
        state["probed"] = [probe(), probe("retain"), probe("forget", exact=True), probe(exact=True)]
        return self.direction(gradients, state)


def test_gradients_of_one_side_and_without_autocast(bench: TrialRunner) -> None:
    parts = {"forget": WeightedTerm(NLL("forget", sign=-1.0)), "retain": WeightedTerm(NLL("retain"))}
    probed: dict[str, Sequence[Any]] = {}
    for label, engine in (("plain", Engine(rows=5)), ("half", Engine(autocast=torch.bfloat16))):
        phases = (Phase(parts, combiner=EveryProbe()),)
        run = Run(Made(lr=0.0, epochs=1, declared=phases), bench.reference, batch=64, seed=1, engine=engine)
        train_pack(bench.base, [run], engine)
        probed[label] = run.state["probed"]
    sides, retain, forget, _ = probed["plain"]
    assert (set(retain), set(forget)) == ({"retain"}, {"forget"})
    assert all(torch.equal(retain["retain"][name], grad) for name, grad in sides["retain"].items())
    # rounded in bfloat16 unless the parameters' own precision is asked for
    assert _apart(probed["half"][3]["retain"], sides["retain"]) < 1e-4
    assert _apart(probed["half"][2]["forget"], sides["forget"]) < 1e-4
    assert _apart(probed["half"][0]["retain"], sides["retain"]) > 1e-3


def test_half_precision_is_refused_where_differences_are_taken() -> None:
    # a model of its own: rounding the shared one would stay in its buffers, which `restore` leaves alone
    made = reference(llama(V))
    assert not method_context(made, 0).half
    made.base.model.bfloat16()
    known = method_context(made, 0)
    with pytest.raises(InputError, match="float32"):
        find(Method, "ofmu")().phases(known)
    assert find(Method, "ofmu_first")().phases(known)
