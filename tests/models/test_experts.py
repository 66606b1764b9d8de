"""Adapters on mixtures of experts: they train, leave the router alone, and are saved as what was measured."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from froc.data.splits import Sealed, SearchView
from froc.errors import InputError
from froc.measuring.measurement import plain
from froc.measuring.metric import Metric
from froc.measuring.query_losses import losses, probes
from froc.models import weights_digest
from froc.models.base import Base, digest_of, load, save
from froc.models.experts import adapter_targets, number_of_experts
from froc.plugins import make
from froc.training.base_statistics import BaseStatistics, TrainingRows
from froc.training.loop import unlearn
from froc.training.method import Method
from tests.models.test_architecture import HEADS, write

pytestmark = pytest.mark.filterwarnings("ignore")
EXPERTS = {"num_experts_per_tok": 2}
KINDS: dict[str, dict[str, Any]] = {
    "mixtral": EXPERTS | {"num_local_experts": 4},
    "qwen2_moe": EXPERTS | {"num_experts": 4, "moe_intermediate_size": 12, "shared_expert_intermediate_size": 12},
    "qwen3_moe": EXPERTS | {"num_experts": 4, "moe_intermediate_size": 12},
    "olmoe": EXPERTS | {"num_experts": 4},
    "gpt_oss": EXPERTS | {"num_local_experts": 4},
}
ROUTERS = ("gate.weight", "router.weight", "router.bias")


def made(base: Base, folder: Path, kind: str, train: str) -> Base:
    """A model of this kind that reads the small model's tokens, without training, adapted."""
    torch.manual_seed(5)
    sizes = HEADS | KINDS[kind] | {"vocab_size": len(base.tokenizer), "max_position_embeddings": 128}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    return load(str(folder), device="cpu", train=train)


def plain_weights(base: Base) -> dict[str, torch.Tensor]:
    """The base's own parameters by name, copied."""
    return {name: p.detach().clone() for name, p in base.model.named_parameters() if ".lora_" not in name}


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_of_experts_train_and_are_saved_as_measured(
    kind: str, base: Base, parts: tuple[SearchView, Sealed], tmp_path: Path
) -> None:
    adapted = made(base, tmp_path / "in", kind, "lora:rank=2")
    before, scope = plain_weights(adapted), adapted.trainable
    names = set(scope.parameters())
    assert any("experts.down_proj.lora_B" in name for name in names)
    assert any("self_attn.q_proj.lora_B" in name for name in names)
    assert not [name for name in names if name.rpartition(".")[0].endswith(("gate", "router"))]
    statistics = BaseStatistics(adapted, TrainingRows.of(parts[0], adapted, 0))
    unlearn(adapted, make(Method, "npo", {"lr": 1e-3, "epochs": 2}), statistics, batch=16, seed=1)
    for name, value in scope.parameters().items():
        if name.endswith("lora_B"):
            assert bool(value.any()), name
    after = plain_weights(adapted)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    # what is measured with adapters is what the saved model shows
    queries = {risk: of_risk[:24] for risk, of_risk in parts[0].queries.items()}
    measures = plain(dict.fromkeys(queries, make(Metric, "probability")))
    weights = scope.snapshot()
    risk_probes = probes(adapted, queries, measures, parts[0])
    scope.load(weights)
    measured = {probe.risk: losses(adapted, probe).tolist() for probe in risk_probes}
    live = digest_of(adapted)
    save(adapted, tmp_path / "out")
    assert live == weights_digest.of_folder(tmp_path / "out") != weights_digest.of_folder(tmp_path / "in")
    again = load(str(tmp_path / "out"), device="cpu")
    routers = [name for name, _ in again.model.named_parameters() if name.endswith(ROUTERS)]
    assert routers
    values = dict(again.model.named_parameters())
    kept = {name.replace(".base_layer", ""): value for name, value in before.items()}
    assert all(torch.equal(values[name], kept[name]) for name in routers)
    started = {probe.risk: probe for probe in risk_probes}
    assert {risk: losses(again, probe).tolist() for risk, probe in started.items()} == measured
    scope.reset(0)
    assert {risk: losses(adapted, probe).tolist() for risk, probe in started.items()} != measured


@pytest.mark.parametrize("kind", KINDS)
def test_the_router_is_adapted_where_asked_and_experts_are_left_alone_where_asked(
    kind: str, base: Base, tmp_path: Path
) -> None:
    adapted = made(base, tmp_path, kind, "lora:rank=2,router=1,experts=0")
    scope = adapted.trainable
    inner = {scope.base_name(name) for name in scope.parameters()}
    assert [name for name in inner if name.endswith(("gate.weight", "router.weight"))]
    assert not [name for name in inner if "experts." in name]
    ids = torch.tensor([[3, 1, 7, 9, 4]])
    plain_logits = adapted.model(input_ids=ids).logits
    for name, parameter in scope.parameters().items():
        torch.nn.init.normal_(parameter, std=0.3 if name.endswith("lora_B") else 0.1)
        parameter.requires_grad_(True)
    logits = adapted.model(input_ids=ids).logits
    assert not torch.allclose(logits, plain_logits, atol=1e-3)
    logits.square().mean().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in scope.parameters().values())
    scope.activate([])
    with torch.no_grad():
        assert torch.equal(adapted.model(input_ids=ids).logits, plain_logits)
    scope.activate([0])
    scope.merge()
    assert torch.allclose(adapted.model(input_ids=ids).logits, logits, atol=1e-4)


def test_adapters_side_by_side_over_experts_are_refused_before_weights_are_read(tmp_path: Path) -> None:
    AutoConfig.for_model("mixtral", **HEADS, **KINDS["mixtral"]).save_pretrained(tmp_path)
    # no weights: whoever reads them says something else
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(InputError, match=r"mixture of experts \(mixtral\).*give --pack 1 with --train lora:rank=8"):
        load(str(tmp_path), device="cpu", train="lora:rank=2", n_adapters=2)


def test_models_without_experts_have_none(tmp_path: Path) -> None:
    base = load(str(write(tmp_path, "llama", HEADS)), device="cpu")
    assert number_of_experts(base.model.config) == 0
    assert adapter_targets(base.model) is None
