"""Kronecker factors of linear layers: the Fisher information of a model's answers about each weight matrix.

For y = W x with W (out, in), and g the gradient with respect to y of the summed log-likelihood of answers whose tokens
are all drawn from the model: A = E[x x'] over positions, G = sum of g g' per answer token. G (x) A approximates the
Fisher information of W per answer token (K-FAC, Martens & Grosse 1503.05671), so half of d' (G (x) A) d is the KL
divergence of a small change d, in nats per answer token. In the eigenvectors' basis the diagonal can be computed
exactly (EK-FAC, George et al. 1806.03884).

Shapes: B rows, T tokens, N predicting positions, V vocabulary.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Linear, Module
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from froc import hashing
from froc.errors import InputError
from froc.models.batches import Encoded, Stack, by_length
from froc.models.determinism import cumulated
from froc.models.forward import Pass
from froc.models.hooks import uncompiled
from froc.models.likelihood import widened
from froc.models.process_group import whole

ROWS = 32
"""Rows per pass: activations are kept for the backward pass."""
ELEMENTS = 2**26
"""Elements of per-row gradients processed at a time."""
ROUNDING = 2.0**-20
"""Share of a row's largest gradient below which a position's is taken for 0."""
LOGITS = 2**21
"""Logits processed in float64 at a time."""


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues and eigenvectors (in columns) of a matrix's G (out) and A (in), float32 or wider."""

    output_values: Tensor
    outputs: Tensor
    input_values: Tensor
    inputs: Tensor

    def on_host(self) -> "Spectrum":
        """The spectrum in CPU memory."""
        return Spectrum(*(part.cpu() for part in vars(self).values()))

    def to_eigenbasis(self, matrix: Tensor) -> Tensor:
        """(..., out, in) matrices in the basis of the eigenvectors."""
        return self.outputs.to(matrix).T @ matrix @ self.inputs.to(matrix)

    def from_eigenbasis(self, matrix: Tensor) -> Tensor:
        """The inverse of `to_eigenbasis`."""
        return self.outputs.to(matrix) @ matrix @ self.inputs.to(matrix).T


Trace = dict[str, tuple[Tensor, Tensor]]
"""Layer -> (B, T, in) inputs and (B, T, out) gradients, in float32 or wider."""


def linear_layers(model: PreTrainedModel, weights: Sequence[str]) -> dict[str, Module]:
    """Weight name -> layer, for those of the named weights that belong to linear layers."""
    wanted = set(weights)
    layers = {f"{name}.weight": module for name, module in model.named_modules() if isinstance(module, Linear | Conv1D)}
    return {name: module for name, module in layers.items() if name in wanted}


def as_out_in(layer: Module, weight: Tensor) -> Tensor:
    """View of a layer's weight, or of a tensor of its shape, as (out, in), and back: GPT-2's layers are transposed."""
    return weight.T if isinstance(layer, Conv1D) else weight


def spectra(
    model: PreTrainedModel, layers: Mapping[str, Module], rows: Sequence[Encoded], seed: int
) -> dict[str, Spectrum]:
    """Eigen-decompositions of each layer's factors over these rows; labels are drawn by `seed`."""
    inner: dict[str, Tensor] = {}
    outer: dict[str, Tensor] = {}
    seen = dict.fromkeys(layers, 0)
    for trace in traces(model, layers, rows, seed):
        for name, (x, g) in trace.items():
            # positions that no answer depends on (padding; prompts in the last block; queries of a row's first token) have gradient 0,
            # exactly or, where a device's attention rounds, nearly
            size = g.abs().amax(-1)
            read = size > ROUNDING * size.amax(-1, keepdim=True)
            x, g = x[read], g[read]
            seen[name] += len(x)
            inner[name] = inner[name].addmm_(x.T, x) if name in inner else x.T @ x
            outer[name] = outer[name].addmm_(g.T, g) if name in outer else g.T @ g
    tokens = _predicted(rows)
    return {name: _spectrum(outer[name] / tokens, inner[name] / max(1, seen[name])) for name in layers}


def ekfac_diagonal(
    model: PreTrainedModel,
    layers: Mapping[str, Module],
    rows: Sequence[Encoded],
    seed: int,
    known: Mapping[str, Spectrum],
) -> dict[str, Tensor]:
    """Layer -> (out, in) diagonal of the Fisher information per answer token in the basis `known`, from per-row gradients."""
    totals: dict[str, Tensor] = {}
    for trace in traces(model, layers, rows, seed):
        for name, (x, g) in trace.items():
            x, g = x @ known[name].inputs.to(x), g @ known[name].outputs.to(g)
            step = max(1, ELEMENTS // (x.shape[-1] * g.shape[-1]))
            for start in range(0, len(x), step):
                # labels are independent, so a row's squared gradient estimates the sum of its tokens' information
                mine = (g[start : start + step].transpose(1, 2) @ x[start : start + step]).square().sum(0)
                totals[name] = totals[name] + mine if name in totals else mine
    tokens = _predicted(rows)
    return {name: total / tokens for name, total in totals.items()}


@dataclass(frozen=True)
class Fisher:
    """The Fisher information G of a set of weights, per answer token: the (out, in) diagonal in each matrix's eigenbasis.

    Changes of weights are dictionaries by weight name.
    """

    layers: Mapping[str, Module]
    spectra: Mapping[str, Spectrum]
    diagonal: Mapping[str, Tensor]

    @classmethod
    def of(cls, model: PreTrainedModel, weights: Sequence[str], rows: Sequence[Encoded], seed: int) -> "Fisher":
        """For those of the weights that belong to linear layers, at the current parameters; labels are drawn by `seed`."""
        layers = linear_layers(model, weights)
        eigen = spectra(model, layers, rows, seed)
        return cls(layers, eigen, ekfac_diagonal(model, layers, rows, seed, eigen))

    def to_eigenbasis(self, change: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The changes in the eigenbases."""
        return {
            name: self.spectra[name].to_eigenbasis(widened(as_out_in(layer, whole(change[name]))))
            for name, layer in self.layers.items()
        }

    def from_eigenbasis(self, turned: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inverse of `to_eigenbasis`."""
        return {
            name: as_out_in(layer, self.spectra[name].from_eigenbasis(turned[name]))
            for name, layer in self.layers.items()
        }

    def solve(self, turned: Mapping[str, Tensor], damping: float) -> dict[str, Tensor]:
        """(G + lambda I)^-1 times changes in the eigenbases; lambda is damping times the mean diagonal over all weights."""
        total = sum(float(diagonal.sum(dtype=torch.float64)) for diagonal in self.diagonal.values())
        ridge = damping * total / sum(diagonal.numel() for diagonal in self.diagonal.values())
        return {name: turned[name] / (diagonal + ridge) for name, diagonal in self.diagonal.items()}


def traces(model: PreTrainedModel, layers: Mapping[str, Module], rows: Sequence[Encoded], seed: int) -> Iterator[Trace]:
    """Inputs and output gradients of layers, pass by pass; the loss is minus the summed log-likelihood of drawn answers.

    Parameters' gradients are not touched. One uniform number per answer token is drawn on the host, so that labels
    depend neither on the passes' size nor on the device.
    """
    device = next(model.parameters()).device
    count = np.array([len(row.ids) - row.prompt for row in rows])
    first = np.cumsum(count) - count
    draw = torch.Generator().manual_seed(hashing.derive_seed("labels", seed))
    chances = torch.rand(int(count.sum()), generator=draw, dtype=torch.float64)
    stack = Stack(rows, device)
    for index in by_length(rows, ROWS):
        batch = stack.batch(index)
        with uncompiled(model), _listening(model, layers) as heard, torch.enable_grad():
            # whole rows: given only the predicting positions, a layer would mix rows
            result = Pass(model, batch, rows_stay=True)
            if model.get_output_embeddings() in layers.values():
                # it is heard where the logits are made
                _ = result.logits
            if len(heard) < len(layers):
                raise InputError(
                    f"{min(set(layers) - set(heard))} is used by no row; the method does not fit this architecture"
                )
            where = first[np.asarray(index)][result.row] + result.column + 1 - batch.start[result.row]
            drawn, weight = _labels(result, chances[torch.from_numpy(where)].to(device))
            loss = result.nll_of(drawn) @ weight
            inputs = {name: x.detach() for name, (x, _) in heard.items()}
            grads = torch.autograd.grad(loss, [y for _, y in heard.values()])
        shape = batch.ids.shape
        yield {
            name: (_rows(x, *shape), _rows(grad, *shape)) for (name, x), grad in zip(inputs.items(), grads, strict=True)
        }


@torch.no_grad()
def _labels(result: Pass, chances: Tensor) -> tuple[Tensor, Tensor]:
    """`sample_labels` of all positions of a pass, a chunk at a time."""
    chunks = [sample_labels(logits, chances[part]) for part, logits in result.logit_chunks()]
    labels, weights = zip(*chunks, strict=True)
    return torch.cat(labels), torch.cat(weights)


def sample_labels(logits: Tensor, chances: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) labels y and (N,) weights w for (N, V) logits, from (N,) uniform numbers in [0, 1).

    E[w^2 (e_y - p) (e_y - p)'] = diag(p) - p p', the Fisher information of a token. Labels drawn from p with w = 1
    would do, but where a model is sure nearly all of them have no gradient and a few have all of it. So y is drawn from
    q ~ p_y |e_y - p| with w = sqrt(p_y / q_y) and a random sign, which keeps tokens uncorrelated.
    """
    size = max(1, LOGITS // logits.shape[-1])
    parts = [_sample_labels(*chunk) for chunk in zip(logits.split(size), chances.split(size), strict=True)]
    return torch.cat([label for label, _ in parts]), torch.cat([weight for _, weight in parts])


def _sample_labels(logits: Tensor, chances: Tensor) -> tuple[Tensor, Tensor]:
    p = logits.double().softmax(-1)
    away = (1 - 2 * p + p.square().sum(-1, keepdim=True)).clamp_min(0.0).sqrt()
    sums = cumulated(p * away)
    total = sums[:, -1:]
    # each half of the unit interval stands for one sign
    twice = 2 * chances
    label = torch.searchsorted(sums, (twice % 1.0)[:, None] * total, right=True).clamp_max(p.shape[-1] - 1)
    weight = (total / away.gather(-1, label).clamp_min(1e-30)).sqrt()[:, 0]
    return label[:, 0], torch.where(twice < 1.0, weight, -weight).to(widened(logits).dtype)


@contextmanager
def _listening(model: PreTrainedModel, layers: Mapping[str, Module]) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """Context manager: layer -> its input and output in the pass made inside; output gradients can be computed.

    The backward pass ends at the first of the layers, and no parameter gets a gradient.
    """
    heard: dict[str, tuple[Tensor, Tensor]] = {}

    def listen(name: str) -> Any:
        def hook(_module: Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
            heard[name] = args[0], output if output.requires_grad else output.detach().requires_grad_()
            return heard[name][1]

        return hook

    trained = {parameter: parameter.requires_grad for parameter in model.parameters()}
    with ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.callback(layer.register_forward_hook(listen(name)).remove)
        try:
            model.requires_grad_(False)
            yield heard
        finally:
            for parameter, before in trained.items():
                parameter.requires_grad_(before)


def _rows(values: Tensor, rows: int, tokens: int) -> Tensor:
    if values.shape[:-1].numel() != rows * tokens:
        raise InputError("this architecture sends parts of a row through its linear layers; the method does not fit it")
    return widened(values.reshape(rows, tokens, -1))


def _spectrum(outer: Tensor, inner: Tensor) -> Spectrum:
    parts = []
    for factor in (outer, inner):
        values, vectors = torch.linalg.eigh(factor.double())
        # a second moment's eigenvalues are negative only by rounding
        parts += [values.clamp_min(0.0).to(factor.dtype), vectors.to(factor.dtype)]
    return Spectrum(*parts)


def _predicted(rows: Sequence[Encoded]) -> int:
    return sum(len(row.ids) - row.prompt for row in rows)
