"""Is a trial fast? Against a bare PyTorch loop, packed with others, and with more rows, queries and parameters.

Three parts, ratios within one run on one machine and one thread; times are the least of several interleaved runs:

* loop: a trial against a bare loop that takes the same steps on the same batches, and ends at the same parameters;
* packed: several adapters trained in the same passes against one after another, ending at the same values;
* scaling: how a trial's time grows with forget rows, queries and parameters.

    python benchmarks/engine.py [--quick] [--only loop,packed,scaling]

Start it with nothing else running. `--quick` repeats less often.
"""

import argparse
import gc
import itertools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bare_loop import BATCH, Bare
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from froc.data.prompts import PromptFormat
from froc.data.splits import SearchView, split
from froc.data.task import FORGETTING, RISKS, Query, Row
from froc.data.tasks import embedded_text
from froc.measuring.measurement import plain
from froc.measuring.metric import Metric
from froc.models import base as models
from froc.models.base import Base
from froc.plugins import make
from froc.search.build import cache_folder
from froc.search.trial.outcome import Outcome, TrialSpec
from froc.search.trial.runner import TrialRunner
from froc.training import embedded

ROOT = Path(__file__).resolve().parent.parent
SHARE = 0.2
NPO = TrialSpec("npo", {"lr": 1e-3, "beta": 0.1, "retain_weight": 3.0, "epochs": 7}, 0)
SAME = 1e-3
"""Largest difference of parameters that rounding may make."""
DOUBLED = (1, 2, 4, 8)
Promises = dict[str, dict[str, Any]]


def goal(value: Any, wanted: str, holds: bool) -> dict[str, Any]:
    """One promise."""
    return {"value": value, "goal": wanted, "holds": bool(holds)}


def reported(value: Any) -> dict[str, Any]:
    """A figure that was asked for without a goal: it promises nothing."""
    return {"value": value, "goal": "reported"}


def least(works: Mapping[str, Callable[[], Any]], times: int) -> dict[str, float]:
    """name -> least seconds of several runs, taken in turns: what else the machine does meets all of them alike."""
    best = dict.fromkeys(works, float("inf"))
    for _ in range(times):
        for name, work in works.items():
            gc.collect()
            begin = time.perf_counter()
            work()
            best[name] = min(best[name], time.perf_counter() - begin)
    return best


def show(times: Mapping[str, float]) -> None:
    """A table of seconds."""
    for name, taken in times.items():
        print(f"  {name:46} {taken:9.3f} s", flush=True)


def hopeful(_rungs: object, _queries: object) -> bool:
    """A pruner that stops nothing."""
    return False


def bench_of(base: Base, view: SearchView) -> TrialRunner:
    """Trials without a sweep, measured by extraction strength."""
    measures = plain({risk: make(Metric, "extraction_strength") for risk in view.queries})
    return TrialRunner(base, view, measures, batch=BATCH, seed=0, swept=False)


def _alone(bench: TrialRunner, specs: Sequence[TrialSpec]) -> None:
    for spec in specs:
        trials(bench, [spec])


def trials(bench: TrialRunner, specs: Sequence[TrialSpec]) -> list[Outcome]:
    """Train and measure configurations in the same passes; RuntimeError where one does not come to its end."""
    outcomes = bench.run(specs, [hopeful] * len(specs))
    for outcome in outcomes:
        if outcome.status != "complete":
            raise RuntimeError(f"a trial ended as {outcome.status}: {outcome.reason}")
    return outcomes


def apart(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
    """Largest absolute difference of parameters of the same names."""
    return max(
        float((value.detach().float() - second[name].detach().float()).abs().max()) for name, value in first.items()
    )


# --- loop


def loop(quick: bool) -> Promises:
    """A trial against a bare loop over the same batches, whose references are cached or computed in every step."""
    base, view = embedded.base(cache=cache_folder()), view_of()
    bench = bench_of(base, view)
    spec = brief(3) if quick else NPO
    bare = Bare(base, bench, spec)
    times = least(
        {
            "froc, training": partial(bench.retrain, spec),
            "bare loop, cached references": bare.train,
            "bare loop, a reference forward per step": partial(bare.train, cached=False),
            "froc, whole trial (two rungs looked at)": partial(trials, bench, [spec]),
            "bare loop, then all queries": bare.trial,
        },
        2 if quick else 7,
    )
    outcome = trials(bench, [spec])[0]
    difference = apart(dict(base.model.named_parameters()), dict(bare.model.named_parameters()))
    scores = _mean_scores(bare, bench)
    rows = ", ".join(f"{len(queries)} {risk}" for risk, queries in view.queries.items())
    print(
        f"\nloop: {len(bare.steps)} steps of {BATCH} + {BATCH} rows, queries: {rows}, {torch.get_num_threads()} thread"
    )
    show(times)
    print(f"  largest difference of end parameters {difference:.1e}; forgetting loss {outcome.ended[0].means[FORGETTING]:.4f}, "
          f"bare loop's {scores[FORGETTING]:.4f}")  # fmt: skip
    cached = _ratio(times, "froc, training", "bare loop, cached references")
    plain = _ratio(times, "froc, training", "bare loop, a reference forward per step")
    whole = _ratio(times, "froc, whole trial (two rungs looked at)", "bare loop, then all queries")
    return {
        "trial against a bare loop with measuring": goal(whole, "<= 1.15", whole <= 1.15),
        "training against a bare loop with cached references": goal(cached, "<= 1.15", cached <= 1.15),
        "training against a loop with reference forwards": goal(plain, "<= 0.7", plain <= 0.7),
        "the bare loop ends at the same parameters": goal(difference, f"< {SAME:g}", difference < SAME),
    }


def _mean_scores(bare: Bare, bench: TrialRunner) -> dict[str, float]:
    scores, means, start = bare.measure(), {}, 0
    for probe in bench.probes:
        means[probe.risk] = float(np.mean(scores[start : start + len(probe.rows)]))
        start += len(probe.rows)
    return means


def view_of() -> SearchView:
    return split(embedded_text.task(), SHARE)[0]


def _ratio(times: Mapping[str, float], numerator: str, denominator: str) -> float:
    return round(times[numerator] / times[denominator], 3)


# --- packed


def packed(quick: bool) -> Promises:
    """Adapters trained in the same passes over the frozen base, against the same adapters one after another."""
    epochs, times = (1, 1) if quick else (7, 2)
    print(f"\npacked: LoRA of rank 8, NPO, {epochs} epochs")
    base = embedded.base(cache=cache_folder(), train="lora:rank=8", n_adapters=8)
    promises = _packed("cpu, embedded model", bench_of(base, view_of()), epochs, times)
    if torch.cuda.is_available():
        promises |= _packed("cuda, 1B model", _billion(), 2, times)
    else:
        print("  cuda: skipped, torch sees no such device here")
    return promises


def _packed(where: str, bench: TrialRunner, epochs: int, times: int) -> Promises:
    specs = [
        TrialSpec("npo", {"lr": lr, "beta": beta, "retain_weight": 3.0, "epochs": epochs}, seed)
        for seed, (lr, beta) in enumerate(itertools.product((3e-4, 5e-4, 1e-3, 2e-3), (0.1, 0.5)))
    ]
    trials(bench, specs[:1])
    scope = bench.base.trainable
    promises: dict[str, dict[str, Any]] = {}
    for count in (4, 8):
        chosen = specs[:count]
        taken = least(
            {"alone": partial(_alone, bench, chosen), "packed": partial(trials, bench, chosen)},
            times,
        )
        together_ = [scope.snapshot(member) for member in range(count)]
        difference = 0.0
        for spec, mine in zip(chosen, together_, strict=True):
            trials(bench, [spec])
            difference = max(difference, apart(scope.snapshot(), mine))
        speed = round(taken["alone"] / taken["packed"], 2)
        show({f"{where}, {count} trials {how}": seconds for how, seconds in taken.items()})
        print(f"  {where}: {count} packed are {speed:.2f} times as fast; adapters differ by {difference:.1e} at most")
        name = f"{count} packed trials on {where}"
        promises |= {
            f"speed-up of {name}": reported(speed),
            f"difference of {name}": goal(difference, f"< {SAME:g}", difference < SAME),
        }
    return promises


def _billion() -> TrialRunner:
    """A Llama-shaped model of about a billion random parameters on cuda, with rows of random words."""
    config = LlamaConfig(
        hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32, num_key_value_heads=8,
        vocab_size=32_000,
    )  # fmt: skip
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa")
    words = Tokenizer(WordLevel({f"w{i}": i for i in range(config.vocab_size)}, unk_token="w0"))
    words.pre_tokenizer = Whitespace()
    base = models.wrap("random", model, PreTrainedTokenizerFast(tokenizer_object=words), "lora:rank=8", 8)
    rng = np.random.default_rng(0)

    def rows(count: int) -> tuple[Row, ...]:
        texts = [[f"w{i}" for i in rng.integers(config.vocab_size, size=length)] for length in (96, 32) * count]
        return tuple(Row(" ".join(texts[i]), " ".join(texts[i + 1])) for i in range(0, len(texts), 2))

    queries = {risk: tuple(Query(f"{i:016x}", f"{i:016x}", row) for i, row in enumerate(rows(64))) for risk in RISKS}
    return bench_of(base, SearchView(rows(256), rows(256), (), queries, PromptFormat("{question} {answer}")))


# --- scaling


def scaling(quick: bool) -> Promises:
    """How the time of a trial grows with forget rows, queries and parameters, each eightfold in steps of two."""
    times = 1 if quick else 3
    series = {"forget rows": _by_rows(quick), "queries": _by_queries(), "parameters": _by_parameters()}
    promises: Promises = {}
    print("\nscaling: seconds of a trial")
    for name, works in series.items():
        taken = least({str(size): work for size, work in works.items()}, times)
        exponent = round(float(np.polyfit(np.log(list(works)), np.log(list(taken.values())), 1)[0]), 3)
        print(f"  {name:12} " + "  ".join(f"{size:>9}: {seconds:7.3f}" for size, seconds in taken.items())
              + f"   exponent {exponent:.2f}", flush=True)  # fmt: skip
        promises[f"exponent of time over {name}"] = goal(exponent, "<= 1.15", exponent <= 1.15)
    return promises


Works = dict[int, Callable[[], Any]]


def _by_rows(quick: bool) -> Works:
    """Epochs stay, so the steps grow with the forget rows."""
    base, view, spec = embedded.base(cache=cache_folder()), view_of(), brief(1 if quick else 3)
    sizes = {times * len(view.forget): replace(view, forget=view.forget * times) for times in DOUBLED}
    return {size: partial(trials, bench_of(base, enlarged), [spec]) for size, enlarged in sizes.items()}


def _by_queries() -> Works:
    """One step of training, so that a trial is little but the measuring of 300 to 2,400 queries per risk."""
    base, most = embedded.base(cache=cache_folder()), 300 * DOUBLED[-1]
    view = split(embedded_text.task(replace(embedded_text.Recipe(), queries=most + 1)), most / (most + 1))[0]
    works: Works = {}
    for times in DOUBLED:
        queries = {risk: rows[: 300 * times] for risk, rows in view.queries.items()}
        small = replace(view, forget=view.forget[:BATCH], queries=queries)
        works[sum(map(len, queries.values()))] = partial(trials, bench_of(base, small), [brief(1)])
    return works


def _by_parameters() -> Works:
    """The embedded model's shape with 3 to 24 blocks of random weights."""
    known, view = embedded.base(cache=cache_folder()), view_of()
    works: Works = {}
    for times in DOUBLED:
        config = AutoConfig.from_pretrained(known.name)
        config.num_hidden_layers *= times
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="sdpa")
        size = sum(parameter.numel() for parameter in model.parameters())
        bench = bench_of(models.wrap("random", model, known.tokenizer), view)
        works[size] = partial(trials, bench, [brief(1)])
    return works


def brief(epochs: int) -> TrialSpec:
    return replace(NPO, params={**NPO.params, "epochs": epochs})


PARTS: dict[str, Callable[[bool], Promises]] = {
    "loop": loop,
    "packed": packed,
    "scaling": scaling,
}


def main() -> None:
    """Print tables and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default=",".join(PARTS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    promises: Promises = {}
    for name in arguments.only.split(","):
        promises |= PARTS[name](arguments.quick)
    print(json.dumps(promises))


if __name__ == "__main__":
    main()
