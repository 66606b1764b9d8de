"""Requirements on a model's architecture, checked when it is loaded: causal, text only, with correct SDPA attention.

Refusals in a configuration are believed; promises are tested on a few tokens. Each test is one short pass and does not
advance torch's random generators.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from froc.errors import InputError

ROUNDING = {4: 1e-4, 2: 0.05}
"""Bytes per parameter -> relative difference between logits that may be rounding; unmasked attention shows 1e-3 to 1."""
TOKENS = 12


def refuse_config(name: str, config: Any) -> None:
    """InputError where a configuration rules the model out: quantised weights or an encoder-decoder."""
    quantised = getattr(config, "quantization_config", None)
    if quantised is not None:
        kind = quantised.get("quant_method", "") if isinstance(quantised, dict) else ""
        raise InputError(
            f"{name} is quantised{f' ({kind})' if kind else ''}: its weights can be neither trained in small steps nor mixed; "
            "give the unquantised model (what quantisation brings back is measured by --budget quantized=0.2)"
        )
    if getattr(config, "is_encoder_decoder", False):
        raise InputError(
            f"{name} is an encoder-decoder model ({config.model_type}): it reads a prompt with an encoder and has no "
            "likelihood of a prompt's continuation; give a decoder-only causal language model"
        )


def read(
    name: str, config: Any, kind: torch.dtype, attention: str | None = None
) -> tuple[PreTrainedModel, tuple[str, ...]]:
    """A causal language model from a folder or the hub, on the CPU, and notes on the choices made.

    Attention is SDPA where that agrees with the eager implementation, else eager, unless the user chose. Of a multimodal model the
    text model is taken. InputError for anything that is no causal language model, and for attention that it does not have.
    """
    text = config.get_text_config()
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING and text is config:
        raise InputError(
            f"{name} is no causal language model (its type is {config.model_type}); give a decoder-only language model"
        )
    if text is config or _is_swapped(config):
        return _with_attention(AutoModelForCausalLM, name, kind, attention)
    return _text_model(name, config, kind, attention)


def refuse_acausal(name: str, model: PreTrainedModel) -> None:
    """InputError where a later token changes earlier predictions, as in an encoder."""
    tokens = _tokens(model, 1)
    changed = tokens.clone()
    half = tokens.shape[1] // 2
    changed[:, half:] = tokens[:, half:].flip(1).roll(1, 1)
    with torch.no_grad():
        logits = [model(input_ids=ids, use_cache=False).logits.float() for ids in (tokens, changed)]
    moved = (logits[0] - logits[1]).abs()
    if _differ(moved[:, :half], moved[:, half:], model):
        raise InputError(
            f"{name} ({type(model).__name__}) is no causal language model: a later token changes what it predicts before it, "
            "as in an encoder such as BERT; give a decoder-only model (or is_decoder in its config.json, if it is one)"
        )


def _is_swapped(config: Any) -> bool:
    """Whether transformers itself takes the text model of a multimodal configuration."""
    made: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    return made is not None and made.config_class is type(config.get_text_config())


def _with_attention(
    loader: Any, name: str, kind: torch.dtype, attention: str | None
) -> tuple[PreTrainedModel, tuple[str, ...]]:
    """The model with SDPA attention, or with eager attention and a note; with what the user chose, without."""
    options: dict[str, Any] = {"dtype": kind, "use_safetensors": True, "trust_remote_code": False}
    if attention == "eager":
        return loader.from_pretrained(name, attn_implementation="eager", **options), ()
    try:
        model: PreTrainedModel = loader.from_pretrained(name, attn_implementation="sdpa", **options)
    except ValueError as error:
        if "attention implementation" not in str(error):
            raise
        _refuse_sdpa(name, attention, "has no SDPA")
        return loader.from_pretrained(name, attn_implementation="eager", **options), (_eager(name, "has no SDPA"),)
    if _caps(model) or not _sdpa_agrees(model):
        _refuse_sdpa(name, attention, "computes something else with SDPA")
        model.set_attn_implementation("eager")
        return model, (_eager(name, "computes something else with SDPA"),)
    return model, ()


def _refuse_sdpa(name: str, attention: str | None, why: str) -> None:
    """InputError where the user chose it."""
    if attention == "sdpa":
        raise InputError(f"--attention sdpa: {name} {why}; leave --attention out, or write eager")


def _eager(name: str, why: str) -> str:
    return f"attention is computed eagerly: {name.replace(chr(92), '/').rstrip('/').rpartition('/')[2]} {why}"


def _caps(model: PreTrainedModel) -> bool:
    """Whether attention scores are capped (Gemma 2). SDPA ignores the cap, and small scores would not show it."""
    return getattr(model.config.get_text_config(), "attn_logit_softcapping", None) is not None


def _sdpa_agrees(model: PreTrainedModel) -> bool:
    model.eval()
    fast = few_logits(model)
    try:
        model.set_attn_implementation("eager")
    except ValueError:  # no eager implementation
        return True
    plain = few_logits(model)
    model.set_attn_implementation("sdpa")
    return agree(fast, plain, model)


@torch.no_grad()
def few_logits(model: PreTrainedModel) -> Tensor:
    """Logits of a few tokens, the same in each call."""
    logits: Tensor = model(input_ids=_tokens(model, 2), use_cache=False).logits.float()
    return logits


def agree(logits: Tensor, expected: Tensor, model: PreTrainedModel) -> bool:
    """Whether logits differ by rounding alone."""
    return not _differ((logits - expected).abs(), (expected - expected.mean()).abs(), model)


def _text_model(
    name: str, config: Any, kind: torch.dtype, attention: str | None
) -> tuple[PreTrainedModel, tuple[str, ...]]:
    """The text model of a multimodal one, as a separate causal language model with the same outputs."""
    text = config.get_text_config()
    refusal = InputError(
        f"{name} is a multimodal model ({config.model_type}) whose text model cannot be taken out of it; save that as a causal "
        "language model of its own, and give its folder"
    )
    if type(text) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise refusal
    loader = AutoModelForCausalLM if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING else AutoModelForImageTextToText
    whole, notes = _with_attention(loader, name, kind, attention)
    alone: PreTrainedModel = AutoModelForCausalLM.from_config(
        text, dtype=kind, attn_implementation=whole.config.get_text_config()._attn_implementation
    )
    inside: Any = whole.get_decoder()
    head, own_head = whole.get_output_embeddings(), alone.get_output_embeddings()
    if head is None or own_head is None:
        raise refusal
    try:
        alone.base_model.load_state_dict(inside.state_dict(), assign=True)
        own_head.load_state_dict(head.state_dict(), assign=True)
    except RuntimeError as error:
        raise refusal from error
    alone.tie_weights()
    tokens = _tokens(whole.eval(), 2)
    with torch.no_grad():
        wanted, got = (
            candidate(input_ids=tokens, use_cache=False).logits.float() for candidate in (whole, alone.eval())
        )
    if _differ((got - wanted).abs(), (wanted - wanted.mean()).abs(), alone):
        raise refusal
    return alone, (*notes, f"the text model of a multimodal one ({config.model_type}) is used")


def _tokens(model: PreTrainedModel, rows: int) -> Tensor:
    """(rows, at most TOKENS) tokens without image and end tokens; the same in each call."""
    config: Any = model.config
    special = {
        value
        for part in (config, config.get_text_config())
        for key, value in part.to_dict().items()
        if key.endswith(("_token_id", "_token_index")) and isinstance(value, int)
    }
    vocabulary = int(config.get_text_config().vocab_size)
    usual = [token for token in range(min(vocabulary, 2000)) if token not in special]
    positions = int(getattr(config.get_text_config(), "max_position_embeddings", None) or TOKENS)
    drawn = np.random.default_rng(0).choice(usual, (rows, min(TOKENS, positions)))
    return torch.from_numpy(drawn).to(next(model.parameters()).device)


def _differ(difference: Tensor, scale: Tensor, model: PreTrainedModel) -> bool:
    """Whether a difference exceeds rounding at the scale of the logits; False where values are not finite."""
    if not (bool(torch.isfinite(difference).all()) and bool(torch.isfinite(scale).all())):
        return False
    share = ROUNDING.get(next(model.parameters()).dtype.itemsize, 0.05)
    return float(difference.max()) > share * float(scale.max())
