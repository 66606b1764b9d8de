"""A step on a pretrained model against a bare PyTorch loop over the same rows: what froc's loop costs beside the arithmetic.

Both take the same optimiser steps of gradient difference (32 forget and 32 retain rows, AdamW, gradients clipped) over the same
parameters, in turns; the bare loop is what one would write: one padded batch, the model's own logits, cross-entropy of the answers.
Seconds are the process's own (user and system), so that other work on the machine counts little; the ratio is the median over
repeats. Promise: at most 1.15 times the bare loop, whatever trains.

    python benchmarks/real_model.py [--quick] [--model DIR] [--steps N] [--repeats N] [--train full,layers:last=8,lora:rank=16]

Without --model, a random Llama of SmolLM2's shape at a quarter of its width.
"""

import argparse
import json
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

from froc.models.base import Base, load
from froc.models.batches import Encoded
from froc.models.compute import Engine
from froc.models.narrowing import try_narrowing
from froc.models.onednn import through_onednn
from froc.models.trainable import parse
from froc.plugins import make
from froc.training.base_statistics import BaseStatistics, TrainingRows
from froc.training.loop import train_pack
from froc.training.method import Method
from froc.training.run import Run

ROWS = 32
PROMPT, ANSWER = 35, 8
"""Tokens of a short question in SmolLM2's chat template, and of an answer in a sentence."""
MOST = 1.15


def rows(count: int, vocabulary: int, seed: int) -> list[Encoded]:
    """Rows of numbers, up to four tokens longer than the shortest."""
    draw = np.random.default_rng(seed)
    lengths = PROMPT + draw.integers(0, 5, count)
    return [Encoded((*draw.integers(1, vocabulary, n + ANSWER).tolist(), 0), int(n), ANSWER) for n in lengths.tolist()]


def model_of(folder: str | None, train: str) -> Base:
    """The folder's model, or a random one."""
    if folder is not None:
        return load(folder, device="cpu", train=train)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=8192, hidden_size=144, intermediate_size=384, num_hidden_layers=30, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True, bos_token_id=None, eos_token_id=0, pad_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    through_onednn(model)
    try_narrowing(model)
    no_tokenizer: Any = None
    return Base("random", model, no_tokenizer, parse(train, model), "")


def ours(base: Base, made: BaseStatistics, steps: int, seed: int) -> Callable[[], None]:
    """A run of froc's loop, ended after some steps."""
    method = make(Method, "grad_diff", {"lr": 1e-5, "epochs": 50})
    run = Run(method, made, batch=ROWS, seed=seed, engine=Engine(), callbacks={steps: lambda: True})
    return lambda: train_pack(base, [run], Engine())


def bare(base: Base, forget: list[Encoded], retain: list[Encoded], steps: int, seed: int) -> Callable[[], None]:
    """The same steps as one would write them."""
    base.restore(seed)
    model, trained = base.model, list(base.trainable.parameters().values())
    moving = {id(parameter) for parameter in trained}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in moving)
    optimizer = torch.optim.AdamW(trained, lr=1e-5, weight_decay=0.0)
    draw = np.random.default_rng(seed)

    def loss_of(chosen: list[Encoded]) -> Any:
        width = max(len(row.ids) for row in chosen)
        ids = torch.tensor([[*row.ids, *[0] * (width - len(row.ids))] for row in chosen])
        labels = torch.full_like(ids, -100)
        for k, row in enumerate(chosen):
            labels[k, row.prompt : len(row.ids)] = ids[k, row.prompt : len(row.ids)]
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
        losses = cross_entropy(logits.transpose(1, 2), labels[:, 1:], ignore_index=-100, reduction="none")
        means = losses.sum(1) / (labels[:, 1:] != -100).sum(1)
        return means[ROWS:].mean() - means[:ROWS].mean()

    def work() -> None:
        for _ in range(steps):
            chosen = [pool[k] for pool in (forget, retain) for k in draw.choice(len(pool), ROWS, replace=False)]
            optimizer.zero_grad()
            loss_of(chosen).backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()

    return work


def seconds(work: Callable[[], None]) -> float:
    """Seconds of this process."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def measured(folder: str | None, train: str, steps: int, repeats: int) -> dict[str, Any]:
    """Medians over repeats that take turns."""
    base = model_of(folder, train)
    vocabulary = int(base.model.config.vocab_size)
    forget, retain = rows(2 * ROWS, vocabulary, 1), rows(2 * ROWS, vocabulary, 2)
    made = BaseStatistics(base, TrainingRows({"forget": forget, "retain": retain}))
    seconds(ours(base, made, 2, 0))
    seconds(bare(base, forget, retain, 1, 0))
    pairs = [
        (seconds(ours(base, made, steps, seed)), seconds(bare(base, forget, retain, steps, seed)))
        for seed in range(1, repeats + 1)
    ]
    ratio = median(mine / theirs for mine, theirs in pairs)
    froc, plain = (median(pair[k] for pair in pairs) / steps for k in (0, 1))
    print(f"{train:<16} froc {froc:8.3f} s a step   bare {plain:8.3f} s   ratio {ratio:.2f}", flush=True)
    return {"froc": froc, "bare": plain, "ratio": ratio}


def main() -> None:
    """Print a line per scope, then one JSON line of promises."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--model")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--train", default="full,layers:last=8,lora:rank=16")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    steps, repeats = (
        arguments.steps or (2 if arguments.quick else 4),
        arguments.repeats or (3 if arguments.quick else 5),
    )
    timings = {train: measured(arguments.model, train, steps, repeats) for train in arguments.train.split(",")}
    promises = {
        f"step of {train} over a bare loop": {
            "value": round(entry["ratio"], 3),
            "goal": MOST,
            "holds": entry["ratio"] <= MOST,
        }
        for train, entry in timings.items()
    }
    print(json.dumps(promises))


if __name__ == "__main__":
    main()
