"""Attention is what the model supports and the user chose; what cannot be had is refused before anything is loaded."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AttentionInterface
from transformers.modeling_utils import PreTrainedModel

import froc.search
from froc.errors import InputError
from froc.models import architecture, attention
from froc.models.attention import Attention
from froc.models.base import Base, load
from froc.models.training_options import FLASH
from froc.search.machine import Machine
from tests.models.test_architecture import KINDS, write

pytestmark = pytest.mark.filterwarnings("ignore")


def used(base: Base) -> str:
    return base.environment["attention"]


@pytest.mark.parametrize(
    ("kind", "wanted", "expected"),
    [
        ("llama", None, "sdpa"), ("llama", "sdpa", "sdpa"), ("llama", "eager", "eager"),
        ("gemma2", None, "eager"), ("gemma2", "eager", "eager"), ("gpt_oss", None, "eager"),
    ],
)  # fmt: skip
def test_the_fastest_unless_the_user_chose(kind: str, wanted: str | None, expected: str, tmp_path: Path) -> None:
    assert used(load(str(write(tmp_path, kind, KINDS[kind])), device="cpu", attention=wanted)) == expected


@pytest.mark.parametrize(("kind", "why"), [("llama", "computes something else with SDPA"), ("gpt_oss", "has no SDPA")])
def test_sdpa_that_a_model_does_not_have_is_refused(
    kind: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(architecture, "_sdpa_agrees", lambda _: False)
    folder = str(write(tmp_path, kind, KINDS[kind]))
    with pytest.raises(InputError, match=f"--attention sdpa: .* {why}"):
        load(folder, device="cpu", attention="sdpa")
    assert used(load(folder, device="cpu")) == "eager"


@pytest.mark.parametrize(
    ("device", "kind", "deterministic", "installed", "why"),
    [
        ("cpu", torch.bfloat16, False, True, "needs an NVIDIA or AMD GPU"),
        ("cuda:0", torch.float32, False, True, "give --dtype bfloat16"),
        ("cuda:0", torch.bfloat16, True, True, "--deterministic rules out"),
        ("cuda:0", torch.bfloat16, False, False, "flash-attn, which is not installed"),
    ],
)
def test_flash_attention_that_cannot_be_had_is_refused_with_why(
    device: str, kind: torch.dtype, deterministic: bool, installed: bool, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "is_flash_attn_2_available", lambda: installed)
    with pytest.raises(InputError, match=why):
        Attention(FLASH, device, kind, deterministic).check()
    Attention(None, device, kind, deterministic).check()


def test_flash_attention_on_a_processor_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="flash_attention_2 needs an NVIDIA or AMD GPU, and the device is cpu"):
        Machine(attention="flash_attention_2", device="cpu").check()
    # where no device is named it is known once torch is there; there is no model in this folder
    with pytest.raises(InputError, match="flash_attention_2 needs an NVIDIA or AMD GPU, and the device is cpu"):
        froc.search.run(0.1, out=tmp_path / "run", model=str(tmp_path), attention="flash_attention_2", progress=False)
    assert not (tmp_path / "run").exists()


def test_an_unknown_attention_is_refused_without_torch() -> None:
    with pytest.raises(InputError, match="no attention is called 'flash'; there are: eager, sdpa, flash_attention_2"):
        Machine(attention="flash").check()


@pytest.fixture
def flash(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Flash attention as if it were installed for the CPU; its results are SDPA's, times a factor."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    state = {"factor": 1.0}

    def forward(*args: Any, **kwargs: Any) -> tuple[torch.Tensor, None]:
        output, _ = sdpa_attention_forward(*args, **kwargs)
        return output * state["factor"], None

    AttentionInterface.register(FLASH, forward)
    monkeypatch.setattr(attention, "is_flash_attn_2_available", lambda: True)
    monkeypatch.setattr(PreTrainedModel, "_flash_attn_can_dispatch", lambda *_, **__: True)
    return state


def test_flash_attention_is_taken_where_it_computes_the_same(
    folder: Path, flash: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = load(str(folder), device="cpu", dtype="bfloat16")
    monkeypatch.setattr(base.model, "set_attn_implementation", lambda name: _switch(base, name))
    wanted = Attention(None, "cuda", torch.bfloat16)
    assert wanted.make_faster(base.model) == ()
    assert used(base) == FLASH
    flash["factor"] = -3.0
    _switch(base, "sdpa")
    (note,) = wanted.make_faster(base.model)
    assert "computes something else" in note
    assert used(base) == "sdpa"
    with pytest.raises(InputError, match="--attention flash_attention_2: the model computes something else"):
        Attention(FLASH, "cuda", torch.bfloat16).make_faster(base.model)


def _switch(base: Base, name: str) -> None:
    """What transformers does after it has looked for the package and the GPU."""
    base.model.config._attn_implementation = name
