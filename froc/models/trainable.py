"""Trainable parameters - all, some layers, or adapters: resetting, copying, loading and mixing them with the base.

Written `full`, `layers:last=2`, `lora:rank=8`. Adapters are peft's; several, one per configuration, can share one model
and train in the same passes, each on its own rows (`froc.training.loop`).
"""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from transformers import PreTrainedModel

from froc import hashing
from froc.errors import InputError
from froc.models import nf4
from froc.models.adapter_layers import adapted_layers, insert_adapters, plain_name
from froc.models.device_room import copied, on_host
from froc.models.hooks import blocks, blocks_path
from froc.models.process_group import own, part, whole
from froc.models.training_options import read_scope

Weights = dict[str, Tensor]


class TrainableParameters(ABC):
    """Parameters that trials may change, by name."""

    n_adapters = 1
    active: tuple[int, ...] = (0,)
    """Adapters of the next pass, set by `activate`."""

    @abstractmethod
    def parameters(self, adapter_index: int = 0) -> dict[str, Parameter]:
        """name -> parameter, of one adapter."""

    @abstractmethod
    def reset(self, seed: int, adapter_index: int = 0) -> None:
        """Restore the base model, ready for training. seed: of adapters' initial values, which do not change the model yet."""

    @abstractmethod
    def load(
        self, weights: Mapping[str, Tensor], mix: float = 1.0, adapter_index: int = 0, *, others_stay: bool = False
    ) -> None:
        """Write weights in place, mixed with the base: theta = (1 - mix) theta_0 + mix theta_u; a mix above 1 extrapolates.

        others_stay: parameters that `weights` does not name keep their values instead of getting the base's.
        """

    @abstractmethod
    def base_values(self) -> Weights:
        """name -> the base model's value; read only."""

    @abstractmethod
    def merged_state_dict(self) -> Weights | None:
        """The model's state dict with adapters merged; None where it equals the model's own state dict."""

    def base_name(self, name: str) -> str:
        """Name of the base parameter that a trained one changes; `Phase.trains` is matched against it."""
        return name

    @contextmanager
    def temporarily_merged(
        self, model: PreTrainedModel, *, change: bool, keep: float = 1.0
    ) -> Iterator[PreTrainedModel]:
        """Context manager: the model as deployed, adapters merged; parameters may be changed and are restored on exit.

        change: False if nothing will be changed, which saves the copy. keep: share of the change against the base model
        that stays, 1 for the model itself, 0 for the base.
        """
        if not change:
            yield model
            return
        # on the host, since an attack that trains needs the device's memory
        kept = on_host({name: own(parameter) for name, parameter in model.named_parameters()})
        trained = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
        try:
            self.merge(keep)
            yield model
        finally:
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    own(parameter).copy_(kept[name], non_blocking=True)
                    parameter.requires_grad_(trained[name])
                    parameter.grad = None

    @torch.no_grad()
    def merge(self, keep: float = 1.0) -> None:
        """Merge the active adapter into the base parameters, or move the parameters towards the base's. keep: see `temporarily_merged`."""
        if keep == 1.0:
            return
        base = self.base_values()
        for name, parameter in self.parameters().items():
            local = own(parameter)
            local.copy_(torch.lerp(own(base[name]).to(local), local, keep))

    def activate(self, adapters: Sequence[int]) -> None:  # noqa: B027  # most scopes have no adapters
        """Choose the adapters of the next pass; its rows are grouped by adapter, equally many each."""

    def snapshot(self, adapter_index: int = 0) -> Weights:
        """A CPU copy of one adapter's parameters, or of all trained ones."""
        return {name: value.detach().to("cpu", copy=True) for name, value in self.parameters(adapter_index).items()}

    def copy(self, names: Collection[str], adapter_index: int = 0) -> Weights:
        """A copy for `load` where only the parameters of these names were trained; on their device where it fits."""
        return copied(self.parameters(adapter_index))

    def changed(self, adapter_index: int = 0) -> Weights:
        """A CPU copy for `load`, without parameters that have the base's values."""
        return self.snapshot(adapter_index)


class Full(TrainableParameters):
    """All parameters, or those whose names match `pattern`; the others are frozen and never copied."""

    def __init__(self, model: PreTrainedModel, pattern: str = "") -> None:
        self._own = {name: p for name, p in model.named_parameters() if re.search(pattern, name)}
        if not self._own:
            raise InputError(f"no parameter of this model matches {pattern!r}; see --train in froc search --help")
        self._base_values = {name: value.detach().clone() for name, value in self._own.items()}

    def keep_base_on_host(self) -> None:
        """Keep the base values in pinned host memory, for devices that lack the room; they are the same bits."""
        self._base_values = on_host(self._base_values)

    def parameters(self, adapter_index: int = 0) -> dict[str, Parameter]:
        """name -> parameter; tied parameters once."""
        return self._own

    def reset(self, seed: int, adapter_index: int = 0) -> None:
        """Restore the base parameters in memory."""
        self.load(self._base_values)

    @torch.no_grad()
    def load(
        self, weights: Mapping[str, Tensor], mix: float = 1.0, adapter_index: int = 0, *, others_stay: bool = False
    ) -> None:
        """Points on the line through the base parameters and the trained ones, made in place."""
        for name, parameter in self._own.items():
            if name in weights:
                parameter.copy_(weights[name], non_blocking=True)
                if mix != 1.0:
                    start = self._base_values[name].to(parameter.device, non_blocking=True)
                    torch.lerp(start, parameter, mix, out=parameter)
            elif not others_stay:
                parameter.copy_(self._base_values[name], non_blocking=True)

    def copy(self, names: Collection[str], adapter_index: int = 0) -> Weights:
        """Of these parameters alone."""
        return copied({name: self._own[name] for name in names})

    def changed(self, adapter_index: int = 0) -> Weights:
        """Of the parameters that differ from the base in any bit."""
        return {
            name: parameter.detach().to("cpu", copy=True)
            for name, parameter in self._own.items()
            if not same_bits(parameter.detach(), self._base_values[name].to(parameter.device))
        }

    def base_values(self) -> Weights:
        """The base parameters."""
        return self._base_values

    def merged_state_dict(self) -> Weights | None:
        """None: the model's own state dict is complete."""
        return None


class Lora(TrainableParameters):
    """Low-rank adapters on every linear layer of the blocks, float32 or wider; the base is frozen (Hu et al. 2106.09685).

    Of a mixture of experts, adapters change the linear layers and the experts, but not the routers. experts, router: whether
    these are changed. bits: 4 to hold the adapted linear layers in NF4 (`froc.models.nf4`).
    """

    def __init__(
        self, model: PreTrainedModel, *, rank: int = 8, alpha: int = 16, n_adapters: int = 1, experts: bool = True,
        router: bool = False, bits: int | None = None,
    ) -> None:  # fmt: skip
        self.n_adapters, self._model = n_adapters, model
        model.requires_grad_(False)
        if bits is not None and not any(type(module) is torch.nn.Linear for module in blocks(model).modules()):
            raise InputError("bits=4 holds linear layers in four bits, and this model has none; leave bits out")
        insert_adapters(model, {"r": rank, "lora_alpha": alpha}, n_adapters, experts=experts, router=router)
        self._layers, self._weights = adapted_layers(model, self)
        self._base_names = {id(layer): name for name, layer in self._weights.items()}
        self._scale = alpha / rank
        for adapter_index in range(n_adapters):
            for parameter in self.parameters(adapter_index).values():
                # peft gives them the base's type: in bfloat16 nearly every step of a usual length rounds to nothing
                parameter.data = parameter.data.to(torch.promote_types(parameter.dtype, torch.float32))
        if bits is not None:
            bases = [layer.get_base_layer() for layer in self._layers.values()]
            nf4.pack(base for base in bases if type(base) is torch.nn.Linear)
        self.reset(0)

    def parameters(self, adapter_index: int = 0) -> dict[str, Parameter]:
        """name -> factor A (rank, in) or B (out, rank) of each adapted layer; experts' factors lie side by side."""
        factors: dict[str, Parameter] = {}
        for name, layer in self._layers.items():
            factors[f"{name}.lora_A"] = layer.lora_A[f"m{adapter_index}"].weight
            factors[f"{name}.lora_B"] = layer.lora_B[f"m{adapter_index}"].weight
        return factors

    def base_name(self, name: str) -> str:
        """Weight of the adapted layer."""
        return self._base_names[id(self._layers[name.rpartition(".")[0]])]

    @torch.no_grad()
    def reset(self, seed: int, adapter_index: int = 0) -> None:
        """A uniform as usual, drawn by `seed`; B zero, so the function is exactly the base model's."""
        draw = torch.Generator().manual_seed(hashing.derive_seed("adapter", seed))
        for name, parameter in self.parameters(adapter_index).items():
            if name.endswith("lora_B"):
                parameter.zero_()
                continue
            bound = math.sqrt(1.0 / parameter.shape[1])
            parameter.copy_((torch.rand(parameter.shape, generator=draw) * 2 - 1) * bound)

    @torch.no_grad()
    def load(
        self, weights: Mapping[str, Tensor], mix: float = 1.0, adapter_index: int = 0, *, others_stay: bool = False
    ) -> None:
        """A weight's change is B A, so scaling B alone mixes. weights: of all factors."""
        for name, parameter in self.parameters(adapter_index).items():
            parameter.copy_(weights[name], non_blocking=True)
            if mix != 1.0 and name.endswith("lora_B"):
                parameter.mul_(mix)

    def base_values(self) -> Weights:
        """InputError: adapters train beside frozen parameters."""
        raise InputError("a method that edits the base parameters once needs --train full")

    @torch.no_grad()
    def merged_state_dict(self) -> Weights | None:
        """The base's state dict with the first adapter's change added to each adapted weight."""
        state = {}
        for name, value in self._model.state_dict().items():
            if ".lora_" not in name:
                state[plain_name(name)] = whole(value)
        for name, layer in self._weights.items():
            if nf4.is_packed(layer.get_base_layer()):
                state[name] = nf4.weight(layer.get_base_layer())
            # weights without a change are kept bit by bit; adding 0 would change -0.0
            if layer.lora_B["m0"].weight.any():
                state[name] = state[name] + layer.get_delta_weight("m0").to(state[name])
        return state

    @contextmanager
    def temporarily_merged(
        self, model: PreTrainedModel, *, change: bool, keep: float = 1.0
    ) -> Iterator[PreTrainedModel]:
        """Context manager: as above; where it is changed, all of the model has plain weights meanwhile."""
        with (
            nf4.unpacked(model) if change else nullcontext(),
            super().temporarily_merged(model, change=change, keep=keep) as merged,
        ):
            yield merged

    @torch.no_grad()
    def merge(self, keep: float = 1.0) -> None:
        """Add the active adapter's change, or a share of it, to each adapted weight, and set the adapter to zero."""
        adapter_index = f"m{self.active[0]}"
        for name, layer in self._weights.items():
            weight = getattr(layer.get_base_layer(), name.rpartition(".")[2])
            delta = layer.get_delta_weight(adapter_index).to(weight.device, weight.dtype)
            own(weight).add_(part(delta, weight), alpha=keep)
            layer.lora_B[adapter_index].weight.zero_()

    def activate(self, adapters: Sequence[int]) -> None:
        """Choose the adapters of the next pass."""
        self.active = tuple(adapters)

    def adapter_output(self, layer: Any, x: Tensor) -> Tensor:
        """(B, T, out) output of a layer's active adapters for (B, T, in) inputs; rows are grouped by adapter."""
        if not self.active:
            return x.new_zeros(())
        down = [layer.lora_A[f"m{adapter_index}"].weight for adapter_index in self.active]
        up = [layer.lora_B[f"m{adapter_index}"].weight for adapter_index in self.active]
        x = x.to(down[0].dtype)
        if len(down) == 1:
            alone: Tensor = x @ down[0].T @ up[0].T * self._scale
            return alone
        if x.dim() != 3:
            raise InputError("this architecture mixes rows before its linear layers; train with --pack 1")
        split = x.reshape(len(down), -1, x.shape[-1])
        change: Tensor = torch.bmm(torch.bmm(split, torch.stack(down).transpose(1, 2)), torch.stack(up).transpose(1, 2))
        return change.reshape(*x.shape[:2], change.shape[-1]) * self._scale


def parse(
    text: str, model: PreTrainedModel, n_adapters: int = 1, full: type[Full] = Full, lora: type[Lora] = Lora
) -> TrainableParameters:
    """Trainable parameters from `full`, `layers:last=2`, `layers:first=2` or `lora:rank=8,alpha=16`; InputError for anything else.

    n_adapters: number of adapters that train in one model; above 1 for `lora` only. full, lora: their classes.
    """
    kind, numbers = read_scope(text, n_adapters)
    if kind == "lora":
        rank = numbers.get("rank", 8)
        experts, router = bool(numbers.get("experts", 1)), bool(numbers.get("router", 0))
        return lora(
            model, rank=rank, alpha=numbers.get("alpha", 2 * rank), n_adapters=n_adapters, experts=experts, router=router,
            bits=numbers.get("bits"),
        )  # fmt: skip
    return full(model, within(model, numbers) if kind == "layers" else "")


def within(model: PreTrainedModel, ends: Mapping[str, int]) -> str:
    """Pattern of the parameters of the first or last blocks."""
    layers = len(blocks(model))
    count = min(next(iter(ends.values())), layers)
    layers_kept = range(count) if "first" in ends else range(layers - count, layers)
    return rf"^{re.escape(blocks_path(model))}\.({'|'.join(map(str, layers_kept))})\."


def same_bits(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors of one type are the same, bit by bit; -0 is not 0."""
    kind = {2: torch.int16, 4: torch.int32, 8: torch.int64}[first.element_size()]
    return torch.equal(first.contiguous().view(kind), second.contiguous().view(kind))
