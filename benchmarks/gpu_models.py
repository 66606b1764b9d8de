"""Models of usual shapes with random weights, and tasks of random words, for benchmarks/gpu.py."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from froc.data.rows import Row
from froc.data.splits import SearchView, split
from froc.data.tasks import embedded_text
from froc.measuring.measurement import plain
from froc.measuring.metric import Metric
from froc.models.base import Base, load, measured_as, wrap
from froc.models.compute import Engine
from froc.plugins import make
from froc.search.trial.runner import TrialRunner
from tests.small_model import SMALL, TRAINED

GB = 10**9
SO_FAR: dict[str, Any] = {}
"""Figures of the stage under way, for its line if it does not come to its end."""


@dataclass(frozen=True)
class Shape:
    """Of a Llama."""

    vocabulary: int
    width: int
    layers: int
    heads: int
    groups: int
    inner: int
    tied: bool = False


@dataclass(frozen=True)
class Sizes:
    """How large the stages are. rows, words: of each side, and of a question and of an answer; long: words of long rows.

    choice: how many methods, metrics and attacks are tried, all where None. small, large: memory in bytes that 8B is to fit into
    with adapters and with all parameters; None for no limit.
    """

    billion: Shape
    eight: Shape
    rows: int
    words: int
    long: int
    queries: int
    batch: int
    steps: int
    prompts: int
    choice: int | None = None
    small: int | None = None
    large: int | None = None
    out: Path | None = None

    def at(self, out: Path | None) -> "Sizes":
        """With a folder for files."""
        return replace(self, out=out)

    @property
    def on_gpu(self) -> bool:
        """Whether there is one."""
        return torch.cuda.is_available()

    @property
    def device(self) -> str:
        """Where models lie."""
        return "cuda" if self.on_gpu else "cpu"

    @property
    def device_name(self) -> str:
        """As its driver says it."""
        return torch.cuda.get_device_name() if self.on_gpu else "cpu"

    def limit(self, size: int | None) -> None:
        """Let the device have so many bytes."""
        if self.on_gpu and size is not None:
            total = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, size / total))

    def settle(self) -> None:
        """Wait for the device."""
        if self.on_gpu:
            torch.cuda.synchronize()

    def peak(self, work: Callable[[], object]) -> float:
        """GB at the peak of some work; 0 on the CPU."""
        if not self.on_gpu:
            work()
            return 0.0
        torch.cuda.reset_peak_memory_stats()
        work()
        return round(torch.cuda.max_memory_allocated() / GB, 3)


TOY = Shape(1000, 64, 2, 4, 2, 128)
GPU = Sizes(
    Shape(128256, 2048, 16, 32, 8, 8192, tied=True), Shape(128256, 4096, 32, 32, 8, 14336), rows=400, words=40, long=250, queries=96,
    batch=32, steps=8, prompts=64, small=24 * GB, large=80 * GB,
)  # fmt: skip
QUICK = Sizes(TOY, TOY, rows=12, words=4, long=6, queries=8, batch=4, steps=2, prompts=4, choice=2)


@cache
def tokenizer() -> Any:
    """The small model's: its few tokens are a part of any vocabulary."""
    return AutoTokenizer.from_pretrained(TRAINED)


def made(shape: Shape, dtype: torch.dtype, device: str, train: str, layers: int | None = None) -> Base:
    """A model that nobody trained, made on its device."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=shape.vocabulary, hidden_size=shape.width, intermediate_size=shape.inner, num_hidden_layers=layers or shape.layers,
        num_attention_heads=shape.heads, num_key_value_heads=shape.groups, max_position_embeddings=4096, tie_word_embeddings=shape.tied,
        bos_token_id=None, eos_token_id=tokenizer().eos_token_id, pad_token_id=None,
    )  # fmt: skip
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model: Any = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    # a digest of 16 GB takes longer than a stage
    with mock.patch("froc.models.base._digest", return_value="made"):
        return wrap("made", model, tokenizer(), train)


@cache
def view(rows: int, words: int, queries: int) -> SearchView:
    """A task of random words."""
    task, draw = embedded_text.task(SMALL), random.Random(0)
    known = sorted({word for row in task.retain for word in row.question.split()})

    def some(count: int) -> tuple[Row, ...]:
        return tuple(
            Row(" ".join(draw.choices(known, k=words)), " ".join(draw.choices(known, k=words)), f"group {k}")
            for k in range(count)
        )

    pools = {pool: some(5 * queries) for pool in ("forgetting", "utility")}
    result, _ = split(replace(task, forget=some(rows), retain=some(rows), queries=pools), 0.2)
    return replace(result, queries={pool: asked[:queries] for pool, asked in result.queries.items()})


def small_base(sizes: Sizes) -> Base:
    """The small model, on the device in float32."""
    return load(str(TRAINED), device=sizes.device, dtype="float32")


def small_view() -> SearchView:
    """The small model's task."""
    return split(embedded_text.task(SMALL), 0.2)[0]


def runner(
    base: Base, sizes: Sizes, *, words: int | None = None, batch: int | None = None, checkpointing: bool = False, optimizer: str = "adamw",
) -> TrialRunner:  # fmt: skip
    """Trials of a made model, measured in bfloat16 as `--measure-dtype bfloat16` does: strict float32 takes many times as long."""
    base = measured_as(base, "bfloat16") if base.dtype == "float32" else base
    measures = plain(dict.fromkeys(("forgetting", "utility"), make(Metric, "extraction_strength")))
    engine = Engine.of(base.model, checkpointing=checkpointing, optimizer=optimizer)
    task = view(sizes.rows, words or sizes.words, sizes.queries)
    return TrialRunner(base, task, measures, batch=batch or sizes.batch, seed=0, engine=engine)
