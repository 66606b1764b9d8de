"""Methods on an equal footing: is what a comparison says true, and what does it say?

* coverage: 200 simulated comparisons of four methods, two of them equal; how often is any pair's interval wrong;
* embedded: a search over all methods, then `froc compare`: the ranking before and after calibration, and how monotone the
  mean losses are in the mixing share;
* tofu: forget05 of TOFU (needs its files: --data), with a small model that is trained on the text here.

    python benchmarks/compare.py [--quick] [--only coverage,embedded,tofu] [--data DIR] [--keep DIR]

--keep: runs, tables and figures stay there.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers import models as tokenizer_models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from froc import hashing
from froc.comparison.document import difference, interval, ordered
from froc.data.task import FORGETTING, Row
from froc.measuring.model_observation import observe
from froc.models.batches import Stack, encode
from froc.models.forward import Forward
from froc.models.onednn import through_onednn
from froc.search.build import cache_folder

ROOT = Path(__file__).resolve().parent.parent
Promises = dict[str, dict[str, Any]]
DELTA = 0.1
TRUTH = (0.05, 0.08, 0.08, 0.25)
RUNS = 200
AUTHORS = 50
"""Authors of the retain set whose text the small model reads, beside the ten to be forgotten: the first ones."""
TAUGHT = f"tofu-{AUTHORS}-authors"
"""Where in the cache the model lies that knows them."""


def goal(value: Any, wanted: str, holds: bool) -> dict[str, Any]:
    """One promise."""
    return {"value": value, "goal": wanted, "holds": bool(holds)}


# coverage


def coverage(quick: bool) -> Promises:
    """Simultaneous misses of differences, and of each method's interval, for three sizes of the calibration sample."""
    runs = RUNS if quick else 5 * RUNS
    pairs = list(combinations(range(len(TRUTH)), 2))
    print(f"coverage: {runs} comparisons of four methods, confidence {1 - DELTA:.0%}; shares of runs")
    print(
        f"  {'units':>6}{'a pair missed':>15}{'a method missed':>17}{'equal ones tied':>17}{'.05 vs .25 apart':>17}{'half-width':>12}"
    )
    worst = 0.0
    for n in (100, 400, 1600):
        missed = alone = tied = separated = 0
        width = []
        for seed in range(runs):
            drawn = _drawn(hashing.derive_seed("coverage", n, seed), n)
            low, high = _each(drawn, pairs)
            truth = np.array([TRUTH[a] - TRUTH[b] for a, b in pairs])
            missed += bool(((truth < low) | (truth > high)).any())
            below, above = interval(drawn / 1000, DELTA / len(TRUTH))
            alone += bool(((np.array(TRUTH) < below) | (np.array(TRUTH) > above)).any())
            tied += bool(low[pairs.index((1, 2))] <= 0 <= high[pairs.index((1, 2))])
            separated += bool(high[pairs.index((0, 3))] < 0)
            width.append(float((high - low).mean() / 2))
        print(
            f"  {n:6}{missed / runs:15.3f}{alone / runs:17.3f}{tied / runs:17.3f}{separated / runs:17.3f}{np.mean(width):12.3f}",
            flush=True,
        )
        worst = max(worst, missed / runs, alone / runs)
    return {"simultaneous miss rate": goal(round(worst, 4), f"<= {DELTA}", worst <= DELTA)}


def _each(
    drawn: NDArray[np.int64], pairs: Sequence[tuple[int, int]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    first, second = (drawn[[pair[k] for pair in pairs]] for k in (0, 1))
    return difference(first, second, DELTA / len(pairs))


def _drawn(seed: int, n: int) -> NDArray[np.int64]:
    """(4, n) thousandths with means TRUTH: mostly nothing is left, sometimes a part; hard queries are hard for all."""
    draw = np.random.default_rng(seed)
    hard = draw.beta(0.3, 0.3, n)
    return np.stack([_thousandths(2 * mean * hard * draw.choice([0.5, 1.5], n), draw) for mean in TRUTH])


def _thousandths(mean: NDArray[np.float64], draw: np.random.Generator) -> NDArray[np.int64]:
    # 0, or 3/4 or 1 with the right odds: lumpy as extraction strength is, and the mean is exact
    size = np.where(draw.random(len(mean)) < 0.5, 750, 1000)
    return np.where(draw.random(len(mean)) < mean * 1000 / size, size, 0)


# froc, as a user calls it


def froc(folder: Path, *words: str) -> str:
    """Standard output of a command; RuntimeError with its last words where it fails."""
    done = _called(folder, *words)
    if done.returncode not in (0, 3):
        raise RuntimeError(f"froc {' '.join(words[:2])} failed: {done.stderr[-2000:]}")
    return done.stdout


def _refused(folder: Path, *words: str) -> str:
    """What a command says that cannot be carried out."""
    done = _called(folder, *words)
    if done.returncode != 2:
        raise RuntimeError(f"froc {' '.join(words[:2])} ended with {done.returncode}, a refusal was expected")
    return done.stderr.strip()


def _called(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {"PYTHONPATH": path, "FROC_STATE": str(folder / "state"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "froc", *words]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)


def _print_comparison(comparison: Mapping[str, Any]) -> None:
    """Print a comparison's ranking and what was monotone."""
    for stage in ordered(comparison["ranking"]):
        order = comparison["ranking"][stage]
        print(f"  {stage}")
        for method in order["methods"]:
            means = comparison["stages"][stage][method]
            left = means[FORGETTING]
            print(f"    {method:14} share {means['mix']:.3f}  left {left['mean']:.3f} [{left['lower']:.3f}, {left['upper']:.3f}]"
                  f"  utility loss {means['utility']['mean']:.3f}{'  (tied with the first)' if method in order['tied'] else ''}")  # fmt: skip
    print(f"  pairs that are ties: {[sum(p['verdict'] == 'tie' for p in pairs) for pairs in comparison['pairs'].values()]} of "
          f"{[len(pairs) for pairs in comparison['pairs'].values()]}")  # fmt: skip
    monotone = comparison["monotone"]
    print(f"  {monotone['entries']} configurations at six shares each: {monotone['bends']} times a mean loss goes the other way, "
          f"by {monotone['worst']:.4f} at most", flush=True)  # fmt: skip


# embedded


def compare_embedded(quick: bool, keep: Path) -> Promises:
    """All methods on the embedded task."""
    run, out = keep / "embedded", keep / "embedded-compare"
    begin = time.perf_counter()
    froc(keep, "search", "-b", "0.1", "--out", str(run), "--trials", "18" if quick else "40", "-q")
    searched = time.perf_counter() - begin
    comparison = json.loads(froc(keep, "compare", str(run), "--out", str(out), "--json", "-q"))
    print(f"\nembedded: search {searched:.0f} s, comparison {time.perf_counter() - begin - searched:.0f} s")
    _print_comparison(comparison)
    worst = comparison["monotone"]["worst"]
    return {"largest step against monotony, embedded": goal(worst, "<= 0.02", worst <= 0.02)}


# tofu


def tofu(quick: bool, keep: Path, data: Path) -> Promises:
    """Four methods and more on TOFU's text, from the authors' files to the figure."""
    place, model = keep / "tofu", cache_folder() / (f"{TAUGHT}-quick" if quick else TAUGHT)
    cut(data, place)
    if not (model / "config.json").is_file():
        teach(place, model, 300 if quick else 1600)
    run, out = keep / "tofu-run", keep / "tofu-compare"
    common = ("--task", "tofu:forget05", "--data", str(place), "--model", str(model))
    search = ("search", *common, "-q")
    print("\nbudget 0.1 with authors as units of utility (the default): froc search says before it trains")
    print(f"  {_refused(keep, *search, '-b', '0.1', '--out', str(keep / 'authors'))}", flush=True)
    froc(keep, *search, "-b", "0.2", "--unit", "utility=query", "--out", str(run), "--trials", "12" if quick else "30",
         "--space", "lr=1e-4:2e-3", "--space", "epochs=2:6", "--openings", "2", "--sampler", "random", "--pruner", "none")  # fmt: skip
    certificate = json.loads((run / "certificate.json").read_text(encoding="utf-8"))
    print(f"with questions as units: {certificate['reason']}")
    comparison = json.loads(froc(keep, "compare", str(run), *common, "--out", str(out), "--json", "-q"))
    print(f"\ntofu forget05: {comparison['n']} units, {comparison['unit']}; {comparison['opening']['statement']}")
    _print_comparison(comparison)
    for method, region in comparison["region"].items():
        print(f"  smallest forgetting budget of {method:14} by utility budget: {region['at']}")
    count = len(comparison["fronts"])
    return {"methods with a front on TOFU": goal(count, ">= 4", count >= 4)}


def cut(data: Path, place: Path) -> None:
    """The authors' files, with the retain rows of the first authors alone, which a small model can learn."""
    place.mkdir(parents=True, exist_ok=True)
    for path in data.glob("*.json*"):
        shutil.copyfile(path, place / path.name)
    retain = (data / "retain95.json").read_text(encoding="utf-8").splitlines()
    (place / "retain95.json").write_text("\n".join(retain[: 20 * AUTHORS]) + "\n", encoding="utf-8")


def _rows(path: Path) -> list[Row]:
    return [
        Row(row["question"], row["answer"]) for row in map(json.loads, path.read_text(encoding="utf-8").splitlines())
    ]


def teach(place: Path, folder: Path, steps: int) -> None:
    """A model of 4 layers, width 192, that reads both sets until it has them nearly by heart."""
    rows = [*_rows(place / "forget05.json"), *_rows(place / "retain95.json")]
    raw = Tokenizer(tokenizer_models.BPE())
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        special_tokens=["<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator([f"{row.question} {row.answer}" for row in rows], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<end>", model_max_length=512)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=192, intermediate_size=768, num_hidden_layers=4, num_attention_heads=6,
        num_key_value_heads=6, max_position_embeddings=512, tie_word_embeddings=True, bos_token_id=None, eos_token_id=0,
        pad_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    through_onednn(model)
    encoded = encode(tokenizer, rows, "Question: {question}\nAnswer: {answer}")
    stack, draw = Stack(encoded, "cpu"), np.random.default_rng(0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    begin, left = time.perf_counter(), np.zeros(0, dtype=np.int64)
    for _ in range(steps):
        left = left if len(left) >= 32 else np.concatenate([left, draw.permutation(len(rows))])
        loss = Forward.of(model, stack.batch(left[:32])).mean_nll.mean()
        left = left[32:]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad(set_to_none=True)
    model.eval()
    seen = observe(model, tokenizer, encoded, rows)
    right = float(seen.hit.sum() / seen.length.sum())
    print(
        f"\ntofu: {steps} steps on {len(rows)} rows took {time.perf_counter() - begin:.0f} s; {right:.1%} of answer tokens known"
    )
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)


PARTS: dict[str, Callable[[argparse.Namespace, Path], Promises]] = {
    "coverage": lambda arguments, _: coverage(arguments.quick),
    "embedded": lambda arguments, keep: compare_embedded(arguments.quick, keep),
    "tofu": lambda arguments, keep: tofu(arguments.quick, keep, arguments.data),
}


def main() -> None:
    """Print tables and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "tofu")
    parser.add_argument("--keep", type=Path, help="folder that runs stay in")
    arguments = parser.parse_args()
    promises: Promises = {}
    with tempfile.TemporaryDirectory() as folder:
        keep = arguments.keep or Path(folder)
        keep.mkdir(parents=True, exist_ok=True)
        for name in arguments.only.split(","):
            if name == "tofu" and not arguments.data.is_dir():
                print(f"\ntofu: skipped, {arguments.data} is not there")
                continue
            promises |= PARTS[name](arguments, keep)
    print(json.dumps(promises))


if __name__ == "__main__":
    main()
