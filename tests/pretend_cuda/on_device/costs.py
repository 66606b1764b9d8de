"""What methods, attacks, looks and steps cost on the device, as tests/pretend_cuda/costs.toml keeps it.

    python -m tests.pretend_cuda tests.pretend_cuda.on_device.costs

measures everything again and writes the file.
"""

import dataclasses
import gc
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from froc.data.splits import SearchView, split
from froc.data.task import FORGETTING
from froc.data.tasks import embedded_text
from froc.measuring.attack import Attack
from froc.measuring.measurement import Measurement, measurement, plain
from froc.measuring.memory_simulation import needs_of_measuring
from froc.measuring.metric import Metric
from froc.measuring.query_losses import losses, measured, probes
from froc.models.base import Base, load, wrap
from froc.models.compute import Engine
from froc.models.memory_needs import MemoryNeeds
from froc.plugins import find, make, names
from froc.search.trial.outcome import TrialSpec
from froc.search.trial.runner import TrialRunner
from froc.training.base_statistics import TrainingRows
from froc.training.loop import train_pack
from froc.training.memory_simulation import Simulation
from froc.training.method import Method, wrappers
from tests.attacks.test_attacks import QUICK
from tests.metrics.measurable import rich_view
from tests.pretend_cuda import device
from tests.small_model import SMALL, TRAINED

TABLE = Path(__file__).resolve().parents[1] / "costs.toml"
METHODS = [
    *(name for name in names(Method) if name not in (*wrappers(), "retrain", "none")),
    *(f"{name}(npo)" for name in wrappers()),
]
STEPPED = ("npo", "idk", "kl_min", "rmu", "risk_aware", "rule", "kuda", "gu(npo)", "lat(npo)")
"""Methods whose waits per step are kept."""
LOOKS = ("probability", "extraction_strength", "rouge_l")
FOLDERS = {"entailment", "unlearning_depth"}
"""Metrics that need another model."""
SHORT = {"lr": 1e-3, "epochs": 1, "rounds": 1}


@dataclass(frozen=True)
class Bench:
    """Models and a few rows. folder: of the small model."""

    folder: Path = TRAINED

    @cached_property
    def view(self) -> SearchView:
        """Few rows: parameters are what takes memory."""
        view, _ = split(embedded_text.task(SMALL), 0.2)
        queries = {risk: of_risk[:12] for risk, of_risk in view.queries.items()}
        return replace(view, forget=view.forget[:4], retain=view.retain[:8], queries=queries)

    @cached_property
    def wide(self) -> Base:
        """600,000 parameters that nobody trained."""
        small = load(str(self.folder), device="cpu")
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(small.tokenizer), hidden_size=128, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=4, max_position_embeddings=128, tie_word_embeddings=True, bos_token_id=None,
            eos_token_id=small.tokenizer.eos_token_id, pad_token_id=None,
        )  # fmt: skip
        model: Any = LlamaForCausalLM(config)
        return wrap("wide", model.cuda(), small.tokenizer)

    @cached_property
    def without_values(self) -> Base:
        """The wide model on the meta device."""
        rows = TrainingRows.of(self.view, self.wide, 0)
        return Simulation(self.wide, rows, Engine(), train="full").base

    @cached_property
    def runner(self) -> TrialRunner:
        """Trials of the wide model, two rows at a time."""
        return _runner(self.wide, self.view, 2)

    @cached_property
    def small(self) -> TrialRunner:
        """Trials of the small model on all rows."""
        view, _ = split(embedded_text.task(SMALL), 0.2)
        return _runner(load(str(self.folder), device="cuda", dtype="float32"), view, 16)


def _runner(base: Base, view: SearchView, batch: int) -> TrialRunner:
    measures = plain(dict.fromkeys(("forgetting", "utility"), make(Metric, "probability")))
    return TrialRunner(base, view, measures, batch=batch, seed=0, engine=Engine(), swept=False)


def _spec(name: str) -> TrialSpec:
    fields = {field.name for field in dataclasses.fields(find(Method, name))}
    return TrialSpec(name, {key: value for key, value in SHORT.items() if key in fields}, 1)


def _peak(work: Callable[[], object]) -> int:
    """Largest number of bytes while something is done, over what is held before."""
    gc.collect()
    before = device.allocated()
    device.reset_peak()
    work()
    return device.peak() - before


def method_memory(bench: Bench, name: str) -> float:
    """Bytes per parameter at the peak of a trial's first two steps, with the weights (4) and the base's copy (4)."""
    size = sum(p.numel() for p in bench.wide.model.parameters())

    def trial() -> None:
        run = bench.runner.prepared(_spec(name), {2: lambda: True})
        train_pack(bench.wide, [run], bench.runner.engine)

    held = sum(p.nbytes for p in bench.wide.model.parameters()) * 2
    return round((held + _peak(trial)) / size, 1)


@cache
def attacked(name: str) -> tuple[SearchView, Measurement]:
    """An attack on a dozen queries, which are the view's of "risk"."""
    metric = "rouge_l" if find(Attack, name).shows_in else "probability"
    measured_as = measurement(f"{metric}@{name}:{QUICK[name]}" if name in QUICK else f"{metric}@{name}")
    view, _ = split(embedded_text.task(SMALL), 0.3, sources={"risk": measured_as.source})
    return replace(view, queries={"risk": view.queries["risk"][:12]}), measured_as


def looked_at(bench: Bench, name: str) -> tuple[SearchView, Measurement]:
    """A metric's look at a dozen queries, which are the view's of "risk"."""
    view = rich_view(bench.view)
    return replace(view, queries={"risk": view.queries[FORGETTING]}), Measurement(FORGETTING, make(Metric, name))


def attack_memory(bench: Bench, name: str) -> float:
    """Bytes per parameter at the peak of an attack on a dozen queries, with the weights and the base's copy."""
    size = sum(p.numel() for p in bench.wide.model.parameters())
    view, measured_as = attacked(name)
    (probe,) = probes(bench.wide, view.queries, {"risk": measured_as}, view)
    return round((8 * size + _peak(lambda: measured(bench.wide, [probe]))) / size, 1)


def look_memory(bench: Bench, name: str) -> float:
    """Kilobytes per query at the peak of a look at a dozen queries, over what is held."""
    view, measured_as = looked_at(bench, name)
    (probe,) = probes(bench.wide, view.queries, {"risk": measured_as}, view)
    return round(_peak(lambda: losses(bench.wide, probe)) / 1000 / len(probe.rows), 1)


def counted(bench: Bench, view: SearchView, measured_as: Measurement, free: float = math.inf) -> MemoryNeeds:
    """What the table of memory says of measuring; free: bytes that the device has left."""
    return needs_of_measuring(bench.without_values, view, "risk", measured_as, free)


def step_waits(bench: Bench, name: str) -> dict[str, float]:
    """froc `file function` -> how often the host waits for the device there, per optimiser step, without looks."""
    watched = ExitStack()
    seen: Counter[device.Place] = Counter()

    def begin() -> bool:
        watched.enter_context(device.watching())
        return False

    def end() -> bool:
        watched.close()
        seen.update(device.places())
        return True

    run = bench.small.prepared(_spec(name), {1: begin, 3: end})
    train_pack(bench.small.base, [run], bench.small.engine)
    return _by_function(seen, 2)


def look_waits(bench: Bench, name: str) -> dict[str, float]:
    """The same of one look at all queries of a risk."""
    measures = {"risk": Measurement(FORGETTING, make(Metric, name))}
    queries = {"risk": bench.small.view.queries[FORGETTING]}
    (probe,) = probes(bench.small.base, queries, measures, bench.small.view)
    with device.watching() as places:
        losses(bench.small.base, probe)
    return _by_function(places, 1)


def _by_function(places: Mapping[device.Place, int], times: int) -> dict[str, float]:
    counted: Counter[str] = Counter()
    for (_, _, place), count in places.items():
        # lines move with every edit
        counted[re.sub(r":\d+ ", " ", place).replace(".<locals>", "")] += count
    return {place: count / times for place, count in sorted(counted.items())}


def measure(bench: Bench) -> Iterator[tuple[str, dict[str, float]]]:
    """Sections of the table."""
    yield "methods", {name: method_memory(bench, name) for name in METHODS}
    yield "attacks", {name: attack_memory(bench, name) for name in names(Attack)}
    yield "looks", {name: look_memory(bench, name) for name in names(Metric) if name not in FOLDERS}
    for name in STEPPED:
        yield f"step {name}", step_waits(bench, name)
    for name in LOOKS:
        yield f"look {name}", look_waits(bench, name)


HEAD = f"""# What froc costs on the pretend device; `{Path(__file__).stem}.py` says how it is measured, and writes this file.
# methods, attacks: bytes per parameter. looks: kilobytes per query. step, look: waits for the device by function.
"""


def main() -> None:
    """Write the table."""
    lines = [HEAD]
    for section, numbers in measure(Bench()):
        lines += [f'["{section}"]', *(f'"{name}" = {number}' for name, number in numbers.items()), ""]
    TABLE.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
