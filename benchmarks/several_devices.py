"""What each GPU needs where a 70B model's blocks are divided among eight: counted on the meta device, without values.

    python benchmarks/several_devices.py

A GPU's part is a model of its own blocks; the first has embeddings, output head and logits beside fewer blocks.
"""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from froc.data.rows import Row
from froc.data.splits import SearchView, split
from froc.data.tasks import embedded_text
from froc.models.base import Base
from froc.models.compute import Engine
from froc.models.device_map import shares
from froc.models.memory_needs import GB, MemoryNeeds
from froc.models.trainable import Full
from froc.plugins import make
from froc.training.base_statistics import TrainingRows
from froc.training.memory_simulation import Simulation
from froc.training.method import Method

LLAMA_70B: dict[str, Any] = {
    "vocab_size": 128_256, "hidden_size": 8192, "intermediate_size": 28_672, "num_attention_heads": 64, "num_key_value_heads": 8,
    "tie_word_embeddings": False,
}  # fmt: skip
BLOCKS, GPUS, BATCH, TOKENS = 80, 8, 32, 80
SMALL = Path(__file__).resolve().parents[1] / "tests" / "data" / "small-model"


def part(blocks: int) -> Base:
    """A model of so many blocks, without values."""
    with torch.device("meta"):
        model: Any = LlamaForCausalLM(LlamaConfig(num_hidden_layers=blocks, **LLAMA_70B))
        model.to(torch.bfloat16).eval()
    return Base("70B", model, AutoTokenizer.from_pretrained(SMALL), Full(model, "norm"), "")


def long_rows(view: SearchView, tokenizer: Any, count: int = BATCH) -> SearchView:
    """As many rows of about TOKENS tokens, half of them answer."""

    def longer(row: Row) -> Row:
        words = row.answer
        while len(tokenizer(words)["input_ids"]) < TOKENS // 2:
            words += " " + row.answer
        return replace(row, question=words, answer=words)

    return replace(view, forget=tuple(map(longer, view.forget[:count])), retain=tuple(map(longer, view.retain[:count])))


def needs(blocks: int, checkpointing: bool) -> MemoryNeeds:
    """Of the first GPU: embeddings, head and logits, and so many blocks."""
    base = part(blocks)
    view, _ = split(embedded_text.task(), 0.2)
    rows = TrainingRows.of(long_rows(view, base.tokenizer), base, 0)
    simulation = Simulation(base, rows, Engine(), train="lora:rank=16", checkpointing=checkpointing)
    return simulation.needs(make(Method, "npo", {}), BATCH)


def main() -> None:
    """Print the table's rows."""
    with torch.device("meta"):
        one: Any = LlamaForCausalLM(LlamaConfig(num_hidden_layers=1, **LLAMA_70B))
        one.to(torch.bfloat16)
    block = sum(p.nbytes for p in one.model.layers.parameters())
    outside = sum(p.nbytes for p in one.parameters()) - block
    counts = Counter(shares([block] * BLOCKS, outside, GPUS))
    print(
        f"weights {(BLOCKS * block + outside) / GB:.0f} GB; blocks of each GPU: {[counts[gpu] for gpu in range(GPUS)]}"
    )
    for checkpointing in (False, True):
        few, more = needs(1, checkpointing), needs(3, checkpointing)
        first = {name: size + (counts[0] - 1) * (more.document[name] - size) / 2 for name, size in few.document.items()}
        most = max(counts.values())
        each = {name: most * (more.document[name] - size) / 2 for name, size in few.document.items()}
        for label, sizes in (("first", first), (f"another, of {most} blocks", each)):
            print(
                f"checkpointing={checkpointing}, {label}:", {name: round(size / GB, 1) for name, size in sizes.items()}
            )


if __name__ == "__main__":
    main()
