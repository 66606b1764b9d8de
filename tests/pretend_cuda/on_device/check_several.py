"""The same bits each time where asked for, and one model on several devices."""

import copy
import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from froc.audit import keys
from froc.audit.api import report, verify
from froc.data.splits import Sealed
from froc.errors import InputError
from froc.measuring.measurement import measurement
from froc.models import determinism
from froc.models.base import load
from froc.models.compute import Engine
from froc.models.determinism import cumulated, deterministic
from froc.models.memory_needs import needs, needs_of_devices, refuse_too_large
from froc.plan_identity import identity
from froc.plugins import find
from froc.search.executors import Executor
from froc.search.executors.inline import Inline
from froc.search.executors.processes import Processes
from froc.search.job import runner_of
from froc.search.pipeline import run
from froc.search.run_folder import Folder
from froc.search.trial.outcome import Outcome, TrialSpec
from froc.search.trial.runner import TrialRunner
from froc.training.method import Method
from tests.pretend_cuda import device
from tests.pretend_cuda.on_device.works import Trial
from tests.search.small_search import Watch, job, recipe

if TYPE_CHECKING:
    from froc.data.splits import SearchView
    from froc.models.base import Base

Workers = Callable[[Callable[[], TrialRunner]], Executor]
SHORT = {"lr": 1e-3, "epochs": 1, "rounds": 1}
NEAR: dict[str, Any] = {"budget": {"forgetting": 0.9, "utility": 0.9}, "allow_vacuous": True}
PROBABILITY = dict.fromkeys(("forgetting", "utility"), measurement("probability"))


def trained(base: "Base", view: "SearchView", method: str) -> tuple[Outcome, Mapping[str, Tensor]]:
    """A trial of its own runner, so that whatever it computes once is computed anew, too; and the weights."""
    runner = TrialRunner(base, view, PROBABILITY, batch=16, seed=0, engine=Engine(), swept=False)
    fields = {field.name for field in dataclasses.fields(find(Method, method))}
    spec = TrialSpec(method, {name: value for name, value in SHORT.items() if name in fields}, 1)
    (outcome,) = runner.run([spec], [lambda *_: False])
    return outcome, {name: value.clone() for name, value in base.trainable.snapshot().items()}


@pytest.fixture
def racing() -> Iterator[None]:
    """Kernels that race on CUDA differ by the last bit from call to call."""
    device.race(True)
    yield
    device.race(False)


def same(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(first[name], value) for name, value in second.items())


@pytest.mark.usefixtures("racing")
@pytest.mark.parametrize("method", ["npo", "rmu", "undial", "sure(npo)", "u_can"])
def test_trials_come_to_the_same_bits_where_asked(
    method: str, on_cuda: "Base", parts: "tuple[SearchView, Sealed]"
) -> None:
    with deterministic(True):
        (first, weights), (second, again) = (trained(on_cuda, parts[0], method) for _ in range(2))
    assert (first.status, first.reason) == ("complete", None)
    assert same(weights, again)
    assert [point.tables["forgetting"].tolist() for point in first.ended] == [
        point.tables["forgetting"].tolist() for point in second.ended
    ]


@pytest.mark.usefixtures("racing")
def test_without_it_they_do_not(on_cuda: "Base", parts: "tuple[SearchView, Sealed]") -> None:
    assert not torch.are_deterministic_algorithms_enabled()
    (_, first), (_, second) = (trained(on_cuda, parts[0], "npo") for _ in range(2))
    assert not same(first, second)


def test_operators_without_a_fixed_order_raise_and_sums_go_around_them() -> None:
    values = torch.rand(3, 50, device="cuda", dtype=torch.float64)
    plain = values.cumsum(-1)
    with deterministic(True):
        assert torch.equal(cumulated(values), plain)
        for refused in (lambda: values.cumsum(-1), lambda: values.kthvalue(2)):
            with pytest.raises(RuntimeError, match="does not have a deterministic implementation"):
                refused()


def test_cublas_is_told_before_the_device_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(determinism.WORKSPACE, raising=False)
    with pytest.raises(InputError, match="CUBLAS_WORKSPACE_CONFIG=:4096:8 before CUDA is used"):
        determinism.prepare()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    determinism.prepare()
    assert os.environ[determinism.WORKSPACE] == ":4096:8"
    monkeypatch.delenv(determinism.WORKSPACE)


# one model on several devices


def deep(folder: Path, small: Path, layers: int) -> Path:
    """The small model with its blocks several times, so that there is one for each device."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(small)
    blocks = model.model.layers
    model.model.layers = torch.nn.ModuleList(copy.deepcopy(blocks[k % len(blocks)]) for k in range(layers))
    model.config.num_hidden_layers = layers
    model.config.layer_types = None
    with torch.no_grad():
        for k, block in enumerate(model.model.layers):
            block.self_attn.layer_idx = k
            # as small a step as keeps the stream of the trained model readable
            block.self_attn.o_proj.weight.mul_(len(blocks) / layers)
            block.mlp.down_proj.weight.mul_(len(blocks) / layers)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(small).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("train", "count", "method"), [("lora:rank=2", 8, "blur(npo)"), ("full", 4, "lat(npo)")])
def test_a_model_on_several_devices_does_what_it_does_on_one(
    train: str, count: int, method: str, small: Path, tmp_path: Path, parts: "tuple[SearchView, Sealed]"
) -> None:
    folder = deep(tmp_path, small, count)
    split = "+".join(f"cuda:{place}" for place in range(count))
    whole, spread = (load(str(folder), device=where, dtype="float32", train=train) for where in ("cuda:0", split))
    assert len(whole.devices) == 1
    assert spread.environment["devices"] == str(count)
    assert {p.device.index for p in spread.model.parameters()} == set(range(count))
    assert spread.digest == whole.digest
    (here, weights), (there, others) = (trained(base, parts[0], method) for base in (whole, spread))
    assert (there.status, there.reason) == ("complete", None)
    assert same(weights, others)
    assert [point.tables["utility"].tolist() for point in here.ended] == [
        point.tables["utility"].tolist() for point in there.ended
    ]


def searched(
    base: "Base", out: Path, monkeypatch: pytest.MonkeyPatch, workers: Workers = Inline, **settings: Any
) -> dict[str, bytes]:
    """The files of a search that nothing may change."""
    monkeypatch.setenv("FROC_STATE", str(out.with_suffix(".state")))
    base.restore()
    # a job's engine would train in bfloat16 on cuda
    common: dict[str, Any] = {"trials": 2, "candidates": 2, "epochs": (1, 1)}
    made = replace(job(base, **(common | settings)), engine=Engine(), workers=workers)
    run(made, out, Watch())
    folder = Folder(out)
    files = {
        path.name: path.read_bytes() for path in (folder.certificate, folder.calibration_losses, folder.base_losses)
    }
    sealed = json.loads(folder.seal.read_text())["candidates"]
    return files | {"weights": json.dumps([candidate["weights_digest"] for candidate in sealed]).encode()}


@pytest.mark.parametrize(("train", "count"), [("lora:rank=2", 8), ("layers:last=4", 4)])
def test_a_search_on_several_devices_has_the_certificate_of_one(
    train: str, count: int, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the same sealed weights, losses and everything by which its plan is identified."""
    folder = deep(tmp_path / "model", small, count)
    results = []
    for where in ("cuda:0", "+".join(f"cuda:{place}" for place in range(count))):
        base = load(str(folder), device=where, dtype="float32", train=train)
        results.append(
            searched(base, tmp_path / f"run-{len(base.devices)}", monkeypatch, train=train, sweep=False, **NEAR)
        )
    assert results[0] == results[1]
    plans = [json.loads((tmp_path / f"run-{number}" / "plan.json").read_text()) for number in (1, count)]
    assert plans[1]["environment"]["devices"] == str(count)
    assert identity(plans[0]) == identity(plans[1])


@pytest.mark.usefixtures("racing")
def test_a_deterministic_search_comes_again_to_the_byte_on_racing_kernels(
    on_cuda: "Base", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    same_bits = replace(on_cuda, deterministic=True)
    first, second = (searched(same_bits, tmp_path / name, monkeypatch) for name in ("one", "two"))
    assert first == second
    plan = json.loads((tmp_path / "one" / "plan.json").read_text())
    assert plan["environment"]["deterministic"] == "yes"
    assert not torch.are_deterministic_algorithms_enabled()
    other = searched(on_cuda, tmp_path / "three", monkeypatch)
    # the sealed weights differ in their last bits
    assert other["weights"] != first["weights"]


def test_bench_says_what_each_device_needs(small: Path) -> None:
    spread = load(str(small), device="cuda:0+cuda:1", dtype="float32", train="lora:rank=2")
    by_device, whole = needs_of_devices(spread), needs(spread)
    assert set(by_device) == {"cuda:0", "cuda:1"}
    for part in ("weights", "base_copy", "gradients", "moments"):
        assert sum(getattr(share, part) for share in by_device.values()) == getattr(whole, part)
    device.limit(whole.weights * 2 // 3)
    refuse_too_large(spread)
    with pytest.raises(InputError, match="cuda:0 has"):
        refuse_too_large(spread, torch.device("cuda:0"), 1)


# whole searches

PLAIN: dict[str, Any] = {"parallel": 2, "sweep": False, **NEAR}


@pytest.fixture(scope="module")
def plain(on_cuda: "Base", tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a search in one process comes to where nothing disturbs it."""
    with pytest.MonkeyPatch.context() as patch:
        return searched(on_cuda, tmp_path_factory.mktemp("plain") / "run", patch, **PLAIN)


def test_too_little_memory_at_calibration_is_one_sentence_and_the_same_command_goes_on(
    on_cuda: "Base", tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: Mapping[str, bytes]
) -> None:
    """The opening is counted once, and the certificate is that of a run that was not disturbed."""
    opened = Sealed.open

    def with_nothing_left(sealed: Sealed, seal: Mapping[str, Any]) -> Any:
        device.limit(device.allocated())
        return opened(sealed, seal)

    folder = Folder(tmp_path / "run")
    monkeypatch.setattr(Sealed, "open", with_nothing_left)
    with pytest.raises(
        InputError, match=r"not enough memory for .*; free some .* run the same command again"
    ) as refusal:
        searched(on_cuda, folder.path, monkeypatch, **PLAIN)
    assert "\n" not in str(refusal.value)
    assert folder.read(folder.certificate) is None
    sealed = folder.seal.read_bytes()
    monkeypatch.setattr(Sealed, "open", opened)
    device.limit(None)
    assert searched(on_cuda, folder.path, monkeypatch, **PLAIN) == plain
    assert folder.seal.read_bytes() == sealed
    assert json.loads(folder.certificate.read_text())["opening"]["number"] == 1


def test_two_workers_on_two_devices_search_and_their_report_verifies(
    on_cuda: "Base", tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: Mapping[str, bytes]
) -> None:
    """Each computes on its own device alone; the certificate is one process's, and what is derived from it holds without the model."""
    made, out, meeting = replace(job(on_cuda, **PLAIN), engine=Engine()), tmp_path / "run", tmp_path / "meeting"
    meeting.mkdir()
    workers = Processes(replace(recipe(made), autocast="off"), ["cuda:0", "cuda:1"])
    with closing(workers):
        done = sorted(workers.each([Trial(meeting), Trial(meeting)]))
        assert searched(on_cuda, out, monkeypatch, lambda _: workers, **PLAIN) == plain
    assert [place for place, _, _ in done] == ["cuda:0", "cuda:1"]
    (alone,) = runner_of(made).run([TrialSpec("npo", {"lr": 1e-3, "epochs": 1}, 1)], [lambda *_: False])
    for number, (_, held, means) in enumerate(done):
        assert held[number] > 0
        assert held[1 - number] == 0
        assert means == alone.ended[0].means
    keys.keygen(tmp_path / "key", None)
    bundle = report(out, key=tmp_path / "key", out=tmp_path, allow_small_sample=True).bundle
    result = verify(bundle, key=tmp_path / "key.pub", model=out / "model")
    assert (result.verdict, result.model_checked) == ("PASS", True)
