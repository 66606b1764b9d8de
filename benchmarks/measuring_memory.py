"""What looks at and attacks on an 8B model with adapters need: their own code on the meta device, without values.

    python benchmarks/measuring_memory.py [MEASUREMENT ...]

256 queries of 80 tokens, half of them answer; bfloat16 parameters. Attacks that train are counted as on a device with room for
gradients and moments, and as on one without.
"""

import math
import sys
from dataclasses import replace
from typing import Any

import torch
from several_devices import SMALL, long_rows
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from froc.data.splits import SearchView, split
from froc.data.tasks import embedded_text
from froc.measuring.measurement import Measurement, measurement
from froc.measuring.memory_simulation import needs_of_measuring
from froc.models.base import Base
from froc.models.compute import Engine
from froc.models.memory_needs import GB
from froc.models.trainable import Full
from froc.training.base_statistics import TrainingRows
from froc.training.memory_simulation import Simulation

LLAMA_8B: dict[str, Any] = {
    "vocab_size": 128_256, "hidden_size": 4096, "intermediate_size": 14_336, "num_attention_heads": 32, "num_key_value_heads": 8,
    "num_hidden_layers": 32, "max_position_embeddings": 8192, "tie_word_embeddings": False,
}  # fmt: skip
QUERIES = 256
MEASUREMENTS = (
    "extraction_strength", "rouge_l", "extraction_strength@quantization", "extraction_strength@soft_prompt",
    "extraction_strength@relearning",
)  # fmt: skip


def model() -> Base:
    """Of Llama 3's 8B shape."""
    with torch.device("meta"):
        made: Any = LlamaForCausalLM(LlamaConfig(**LLAMA_8B))
        made.to(torch.bfloat16).eval()
    return Base("8B", made, AutoTokenizer.from_pretrained(SMALL), Full(made, "norm"), "")


def view_of(base: Base, measured_as: Measurement) -> SearchView:
    """The embedded task's with longer rows and queries."""
    view, _ = split(embedded_text.task(), 0.2, sources={"risk": measured_as.source})
    queries = view.queries["risk"][:QUERIES]
    trained_on = replace(view, forget=tuple(query.row for query in queries), retain=())
    longer = long_rows(trained_on, base.tokenizer, QUERIES).forget
    queries = tuple(replace(query, row=row) for query, row in zip(queries, longer, strict=True))
    return replace(long_rows(view, base.tokenizer), queries={"risk": queries})


def main() -> None:
    """Print a line per measurement."""
    base = model()
    for text in sys.argv[1:] or MEASUREMENTS:
        measured_as = measurement(text)
        view = view_of(base, measured_as)
        rows = TrainingRows.of(view, base, 0)
        simulation = Simulation(base, rows, Engine(), train="lora:rank=16", checkpointing=True)
        needs = [needs_of_measuring(simulation.base, view, "risk", measured_as, free).total for free in (math.inf, 0.0)]
        print(text, ", or ".join(f"{total / GB:.1f}" for total in dict.fromkeys(needs)), "GB")


if __name__ == "__main__":
    main()
