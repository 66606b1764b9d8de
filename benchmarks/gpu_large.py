"""Stages of benchmarks/gpu.py on models of 1 and 8 billion parameters."""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any
from unittest import mock

import torch
from gpu_models import GB, SO_FAR, Sizes, made, runner, small_base, small_view, view
from torch.profiler import ProfilerActivity, profile

from froc.data.splits import SearchView
from froc.measuring.measurement import Measurement, measurement
from froc.measuring.query_losses import measured, probes
from froc.models.base import Base
from froc.models.batches import encode
from froc.models.device_room import host_room
from froc.models.generation import greedy_answers
from froc.models.hooks import blocks
from froc.models.memory_needs import needs
from froc.search.trial.outcome import Outcome, TrialSpec
from froc.search.trial.runner import TrialRunner
from froc.search.trial.throughput import look_seconds, measure
from froc.training import loop

PEAKS = {
    "H100 PCIe": 756e12, "H100 NVL": 835e12, "H200": 989e12, "H100": 989e12, "H800": 989e12, "A100": 312e12, "A800": 312e12,
    "GB200": 2500e12, "B200": 2250e12, "L40S": 362e12,
}  # fmt: skip
"""Part of a GPU's name -> products and sums per second in bfloat16, dense, by its maker's data sheets; the first that is in the name counts."""
PRODUCTS = ("gemm", "cutlass", "nvjet", "cublas", "::mm", "::addmm", "::bmm", "_linear")
"""Parts of the names of matrix products' kernels, or of operators on the CPU."""
WORKSPACES = 2**26
"""Bytes that cuBLAS may keep for its own use."""
TRIALS_PER_HOUR = 8
USE = 0.45
"""Goal: share of the device's peak in the steps' matrix products."""
INSIDE = 0.70
"""Goal: share of a trial inside optimiser steps."""


def adapters(sizes: Sizes) -> dict[str, Any]:
    """Over a bfloat16 base they are float32, and so are their moments."""
    base = made(sizes.eight, torch.bfloat16, sizes.device, "lora:rank=8", layers=2)
    types = {str(p.dtype) for p in base.trainable.parameters().values()}
    return {
        "passed": types == {"torch.float32"} and base.dtype == "bfloat16",
        "adapters": sorted(types),
        "base": base.dtype,
    }


def _billion(sizes: Sizes) -> TrialRunner:
    return runner(made(sizes.billion, torch.float32, sizes.device, "full"), sizes)


def full_1b(sizes: Sizes) -> dict[str, Any]:
    """Steps and looks of NPO, all parameters."""
    bench = _billion(sizes)
    base = bench.base
    result: dict[str, Any] = {}

    def timed() -> None:
        look = look_seconds(bench)
        result["speed"] = measure(bench, "npo", sizes.steps, look)

    peak = sizes.peak(timed)
    speed = result["speed"]
    use = _use(sizes, bench, speed.step)
    return {
        "passed": None if use is None else use >= USE, "step_s": round(speed.step, 4), "look_s": round(speed.look, 4),
        "trials_per_hour": round(3600 / speed.trial, 1), "peak_gb": peak, "rows": speed.rows, "share_of_peak": use,
        "predicted_gb": round(needs(base).total / GB, 2),
    }  # fmt: skip


def _use(sizes: Sizes, bench: TrialRunner, step: float) -> float | None:
    """Share of the device's peak that the matrix products of a step's linear layers and head are."""
    peak = next((number for name, number in PEAKS.items() if name in sizes.device_name), None)
    if peak is None or "pretend" in sizes.device_name:
        return None
    shape = sizes.billion
    body = sum(p.numel() for name, p in bench.base.model.named_parameters() if ".layers." in name and p.ndim == 2)
    length, answers = _tokens(bench)
    products = 2 * bench.batch * (6 * body * length + 6 * shape.vocabulary * shape.width * answers)
    return round(products / step / peak, 3)


def _tokens(bench: TrialRunner) -> tuple[float, float]:
    """Mean length of forget rows, and of their answers."""
    rows = bench.reference.pools.rows["forget"]
    return sum(len(row.ids) for row in rows) / len(rows), sum(len(row.ids) - row.prompt for row in rows) / len(rows)


@contextmanager
def _stepping(sizes: Sizes) -> Iterator[list[float]]:
    """Seconds of every optimiser step inside."""
    spent: list[float] = []
    step = loop._step

    def timed(*args: Any) -> None:
        sizes.settle()
        begin = time.perf_counter()
        step(*args)
        sizes.settle()
        spent.append(time.perf_counter() - begin)

    with mock.patch.object(loop, "_step", timed):
        yield spent


def _trial(bench: TrialRunner, epochs: int = 2) -> Outcome:
    (outcome,) = bench.run([TrialSpec("npo", {"epochs": epochs}, 1)], [lambda *_: False])
    return outcome


def sweep_1b(sizes: Sizes) -> dict[str, Any]:
    """A whole trial with its sweep: the share inside optimiser steps, and the kernels of two of them."""
    bench = _billion(sizes)
    with _stepping(sizes) as spent:
        begin = time.perf_counter()
        outcome = _trial(bench)
        sizes.settle()
        whole = time.perf_counter() - begin
    share = sum(spent) / whole
    return {
        "passed": outcome.status == "complete" and (share >= INSIDE if sizes.choice is None else None), "status": outcome.status,
        "trial_s": round(whole, 2), "steps": len(spent), "share_in_steps": round(share, 3), **_profile(sizes, bench),
    }  # fmt: skip


def _profile(sizes: Sizes, bench: TrialRunner) -> dict[str, Any]:
    real = sizes.on_gpu and "pretend" not in sizes.device_name
    run = bench.prepared(TrialSpec("npo", {"epochs": 1}, 1), {2: lambda: True})
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if real else [])]) as seen:
        loop.train_pack(bench.base, [run], bench.engine)
        sizes.settle()
    averages = seen.key_averages()
    if sizes.out is not None:
        sizes.out.mkdir(parents=True, exist_ok=True)
        order = "self_device_time_total" if real else "self_cpu_time_total"
        (sizes.out / "profile.txt").write_text(averages.table(sort_by=order, row_limit=40), encoding="utf-8")
    field = "self_device_time_total" if real else "self_cpu_time_total"
    # an operator has its kernels' time, too, which would count twice
    items = [item for item in averages if not real or str(item.device_type).endswith("CUDA")]
    products = sum(getattr(item, field) for item in items if any(part in item.key for part in PRODUCTS))
    total = sum(getattr(item, field) for item in items) or 1.0
    return {"share_of_products": round(products / total, 3)}


@cache
def _eight(sizes: Sizes) -> Base:
    """8B with adapters; several stages use it."""
    return made(sizes.eight, torch.bfloat16, sizes.device, "lora:rank=8")


def lora_8b(sizes: Sizes) -> dict[str, Any]:
    """Adapters of 8B on long rows in 24 GB, and on usual ones as fast as may be."""
    base = _eight(sizes)
    sizes.limit(sizes.small)
    tight = runner(base, sizes, words=sizes.long, batch=max(1, sizes.batch // 2), checkpointing=True)

    def few() -> None:
        run = tight.prepared(TrialSpec("npo", {"epochs": 1}, 1), {3: lambda: True})
        loop.train_pack(base, [run], tight.engine)

    peak = sizes.peak(few)
    rows = tight.engine.rows
    sizes.limit(torch.cuda.get_device_properties(0).total_memory if sizes.on_gpu else None)
    for block in blocks(base.model):
        # recomputed for the long rows alone
        vars(block).pop("forward", None)
    usual = runner(base, sizes, batch=sizes.batch)
    speed = measure(usual, "npo", sizes.steps, look_seconds(usual), {"epochs": 5})
    per_hour = 3600 / speed.trial
    return {
        "passed": (sizes.small is None or peak <= sizes.small / GB) and (sizes.choice is not None or per_hour >= TRIALS_PER_HOUR),
        "peak_gb": peak, "rows_in_24_gb": rows, "step_s": round(speed.step, 4), "trials_per_hour": round(per_hour, 1),
        "peak_gb_usual": round(speed.peak / 1000, 2),
    }  # fmt: skip


def generation(sizes: Sizes) -> dict[str, Any]:
    """Tokens per second of 8B, and whether texts of the small model, which has learned some, hang on how many rows are written at once.

    Random weights in bfloat16 have ties among their likeliest tokens, so that 8B's texts say nothing about that.
    """
    small = small_base(sizes)
    same, _, _ = _written(sizes, small, small_view())
    SO_FAR["same_texts"] = same
    of_eight, tokens, seconds = _written(sizes, _eight(sizes), view(sizes.rows, sizes.words, sizes.queries))
    return {
        "passed": same >= 0.99,
        "same_texts": same,
        "same_texts_8b": of_eight,
        "tokens_per_s": round(tokens / seconds, 1),
    }


def _written(sizes: Sizes, base: Base, task: SearchView) -> tuple[float, int, float]:
    """Share of texts that are the same with all rows and with a quarter at once, tokens written, seconds."""
    rows = encode(base.tokenizer, task.forget[: sizes.prompts], task.template)
    begin = time.perf_counter()
    first, second = (
        greedy_answers(base.model, base.tokenizer, rows, size) for size in (len(rows), max(1, len(rows) // 4))
    )
    sizes.settle()
    seconds = time.perf_counter() - begin
    same = sum(a == b for a, b in zip(first, second, strict=True)) / len(first)
    return round(same, 3), sum(map(len, (*first, *second))), seconds


def attacks(sizes: Sizes) -> dict[str, Any]:
    """Relearning, quantisation and a searched prompt against adapters of 8B."""
    base = _eight(sizes)
    peaks: dict[str, float] = {}
    sizes.limit(sizes.large)
    task = view(sizes.rows, sizes.words, sizes.queries)
    SO_FAR["peak_gb"] = peaks
    # relearning last: it takes 16 bytes a parameter of the host's memory, and seconds a step there
    for text in ("quantization", "soft_prompt:steps=3", "relearning:steps=1"):
        if (
            text.startswith("relearning")
            and sizes.on_gpu
            and host_room() < 16 * sum(p.numel() for p in base.model.parameters())
        ):
            SO_FAR["relearning"] = f"left out: {host_room() / GB:.0f} GB of the host's memory are free"
            continue
        risk: Measurement = measurement(f"extraction_strength@{text}")
        queries = task.queries["forgetting"][: max(4, sizes.queries // 4)]
        (probe,) = probes(base, {"risk": queries}, {"risk": risk}, task)
        peaks[text] = sizes.peak(partial(measured, base, [probe]))
    return {**SO_FAR, "passed": sizes.large is None or max(peaks.values()) <= sizes.large / GB, "peak_gb": peaks}


def full_8b(sizes: Sizes) -> dict[str, Any]:
    """All parameters of 8B in 80 GB, as `--optimizer adamw8bit --dtype bfloat16 --checkpointing` trains them."""
    _eight.cache_clear()
    # layers and their forwards refer to each other, and would hold the other model's 16 GB
    gc.collect()
    sizes.limit(sizes.large)
    base = made(sizes.eight, torch.bfloat16, sizes.device, "full")
    bench = runner(base, sizes, batch=max(1, sizes.batch // 2), checkpointing=True, optimizer="adamw8bit")

    def few() -> None:
        run = bench.prepared(TrialSpec("npo", {"epochs": 1}, 1), {3: lambda: True})
        loop.train_pack(base, [run], bench.engine)

    peak = sizes.peak(few)
    return {"passed": sizes.large is None or peak <= sizes.large / GB, "peak_gb": peak, "rows": bench.engine.rows}


def out_of_memory(sizes: Sizes) -> dict[str, Any]:
    """A trial that does not fit ends as such, and the next has all the memory."""
    bench = _billion(sizes)
    if not sizes.on_gpu:
        return {"passed": None, "status": _trial(bench, 1).status}
    # what the first trial makes for all
    _trial(bench, 1)
    held = torch.cuda.memory_allocated()
    needed = sizes.peak(lambda: _trial(bench, 1)) * GB
    ends = []
    for share in (0.02, 0.3, 0.9):
        torch.cuda.empty_cache()
        sizes.limit(int(held + share * (needed - held)))
        outcome = _trial(bench, 1)
        ends.append([outcome.status, bench.engine.rows])
        del outcome
        sizes.limit(torch.cuda.get_device_properties(0).total_memory)
    bench._fitting_rows.clear()
    after = _trial(bench, 1).status
    leaked = torch.cuda.memory_allocated() - held
    good = {status for status, _ in ends} <= {"complete", "out-of-memory"} and ends[0][0] == "out-of-memory"
    return {
        "passed": good and after == "complete" and leaked <= (0 if "pretend" in sizes.device_name else WORKSPACES),
        "ends": ends,
        "after": after,
        "leaked_bytes": leaked,
    }
