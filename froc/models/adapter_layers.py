"""peft's layers in a model, and how they are computed: froc's own forward for linear layers, peft's for parameters of experts."""

import re
import warnings
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from froc.errors import InputError
from froc.models.experts import adapter_targets
from froc.models.hooks import blocks


class AdapterScope(Protocol):
    """The adapters of a model."""

    @property
    def active(self) -> Sequence[int]:
        """Adapters of the next pass."""

    def adapter_output(self, layer: Any, x: Tensor) -> Tensor:
        """(B, T, out) output of a layer's active adapters for (B, T, in) inputs."""


class PackedForward:
    """Forward of an adapted layer: the frozen layer once for all rows, each adapter on its own rows."""

    def __init__(self, scope: AdapterScope, layer: Any) -> None:
        self._scope, self._layer = scope, layer

    def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        base: Tensor = self._layer.base_layer(x, *args, **kwargs)
        return base + self._scope.adapter_output(self._layer, x).to(base.dtype)


class ExpertForward:
    """Forward of a module whose parameter is adapted: peft's own, which adds the change to the parameter for one pass."""

    def __init__(self, scope: AdapterScope, layer: Any) -> None:
        self._scope, self._layer = scope, layer

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self._scope.active:
            return self._layer.base_layer(*args, **kwargs)
        return type(self._layer).forward(self._layer, *args, **kwargs)


def insert_adapters(
    model: PreTrainedModel, size: dict[str, Any], n_adapters: int, *, experts: bool, router: bool
) -> None:
    """Put peft's layers into a model, `n_adapters` adapters each."""
    from peft import LoraConfig, inject_adapter_in_model

    targets = adapter_targets(model)
    place: torch.nn.Module = model
    chosen: dict[str, Any] = {"target_modules": "all-linear"}
    if targets is not None:
        if n_adapters > 1:
            raise InputError("experts see the tokens of all rows mixed; give --pack 1")
        # peft widens what is asked for in a whole model; in the list of blocks it takes the names as they are
        place = blocks(model)
        adapted = (targets.experts if experts else ()) + (targets.routers if router else ())
        chosen = {"target_modules": list(targets.linear), "target_parameters": list(adapted)}
    with warnings.catch_warnings():
        # peft warns about several adapters in one model, which is intended
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        for adapter_index in range(n_adapters):
            config = LoraConfig(**size, **chosen, task_type="CAUSAL_LM")
            inject_adapter_in_model(config, place, adapter_name=f"m{adapter_index}")


def plain_name(name: str) -> str:
    """A name in the model without adapters; peft nests the wrappers of several parameters of one module."""
    return re.sub(r"\.base_layer(?=\.|$)", "", name)


def adapted_layers(model: PreTrainedModel, scope: AdapterScope) -> tuple[dict[str, Any], dict[str, Any]]:
    """Name -> layer, and name of the adapted parameter in the model without adapters -> layer; all get froc's forward."""
    from peft.tuners.lora import LoraLayer
    from peft.tuners.lora.layer import ParamWrapper

    layers: dict[str, Any] = {}
    weights: dict[str, Any] = {}
    for path, module in model.named_modules():
        layer: Any = module
        if isinstance(module, ParamWrapper):
            whole = f"{plain_name(path)}.{module.parameter_name}"
            layers[whole.removesuffix(".weight")] = weights[whole] = layer
            layer.forward = ExpertForward(scope, layer)
        elif isinstance(module, LoraLayer):
            layers[path] = weights[f"{path}.weight"] = layer
            layer.forward = PackedForward(scope, layer)
    return layers, weights
