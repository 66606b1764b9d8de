"""Finished run folders of any size, made of synthetic losses in the present format, for benchmarks of bundles."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from safetensors.numpy import save_file

from froc import hashing
from froc.loss_table import SCHEMA
from froc.models import weights_digest
from froc.plan_identity import draw_label
from froc.risk.certificate import Candidate, Claim, certify
from froc.risk.positive_control import BASE, Control, Kind

CREATED = "2026-03-01T08:00:00Z"


@dataclass(frozen=True)
class Risk:
    """The plan's entries about a risk."""

    budget: float
    unit: Literal["query", "group"]
    bound: str
    metric: str
    control: Kind


RISKS = {
    "forgetting": Risk(0.1, "query", "binomial", "exact_memorization", "exceeds"),
    "utility": Risk(0.15, "group", "betting", "rouge_l", "ceiling"),
}
ATTACKED = Risk(0.15, "query", "betting", "rouge_l@paraphrase", "exceeds")


def make_run(folder: Path, configs: int, queries: int, weights: int = 1000, trials: int = 0, attacked: int = 0) -> Path:
    """A run folder as a search leaves it; at least one candidate is certified.

    configs: number of candidates. queries: of each risk. weights: numbers in the model's file. trials: in the log, at least one for
    each candidate. attacked: number of risks under attack beside forgetting and utility.
    """
    (folder / "losses").mkdir(parents=True)
    risks, trials = RISKS | {f"attacked-{i}": ATTACKED for i in range(attacked)}, max(trials, configs)
    losses = _losses(configs, queries, risks)
    base = _of_base(losses)
    ids = {risk: losses.filter(pl.col("risk") == risk)["query"].unique().sort().to_list() for risk in risks}
    plan = _plan(losses, risks, {risk: hashing.sha256_json(names) for risk, names in ids.items()}, trials, configs)
    planned = _json(folder / "plan.json", plan)
    (folder / "trials.jsonl").write_text(
        "".join(json.dumps(_trial(number, planned, risks), sort_keys=True) + "\n" for number in range(trials))
    )
    losses.write_parquet(folder / "losses" / "calibration.parquet")
    base.write_parquet(folder / "losses" / "base.parquet")
    losses.with_columns(split=pl.lit("search")).write_parquet(folder / "losses" / "search.parquet")
    model = _model(folder / "model", weights)
    candidates = [
        Candidate(f"c{i:04d}", "npo", _params(i), 1 / (i + 1), hashing.sha256_bytes(b"%d" % i)) for i in range(configs)
    ]
    claim = Claim(
        {name: risk.budget for name, risk in risks.items()},
        {name: risk.bound for name, risk in risks.items()},
        {name: risk.unit for name, risk in risks.items()},
    )
    control = Control(base, {name: risk.control for name, risk in risks.items()})
    chosen = certify(losses, candidates, claim, None, control)["chosen"]
    assert chosen is not None
    place = int(chosen.removeprefix("c"))
    candidates[place] = replace(candidates[place], weights_digest=weights_digest.of_folder(model))
    _json(
        folder / "seal.json",
        {
            "format": 1, "plan": planned, "trials": trials, "search_losses": hashing.sha256_file(folder / "losses" / "search.parquet"),
            "candidates": [vars(candidate) for candidate in candidates], "calibration": plan["split"]["queries"],
            "base_weights_digest": plan["model"]["digest"], "model_files": weights_digest.beside(hashing.sha256_files(model)),
        },
    )  # fmt: skip
    _json(folder / "certificate.json", certify(losses, candidates, claim, None, control))
    return folder


def _plan(
    losses: pl.DataFrame, risks: Mapping[str, Risk], queries: Mapping[str, str], trials: int, configs: int
) -> dict[str, Any]:
    units = {
        name: losses.filter(pl.col("risk") == name)["query" if risk.unit == "query" else "unit"].n_unique()
        for name, risk in risks.items()
    }
    budget, unit, bound, metrics, control = (
        {name: getattr(risk, part) for name, risk in risks.items()}
        for part in ("budget", "unit", "bound", "metric", "control")
    )
    return {
        "format": 2, "created": CREATED, "task": {"name": "synthetic", "digest": "a" * 64, "units": unit},
        "model": {"name": "synthetic-base", "digest": "b" * 64}, "budget": budget, "confidence": 0.9, "procedure": "weighted-holm",
        "bound": bound, "population": dict.fromkeys(risks, "queries"), "listed": {}, "weights": {}, "radius": 0.0, "sequential": False,
        "openings": 1, "joint": False, "metrics": metrics, "quantum": 1000, "control": control,
        "environment": {"python": sys.version.split()[0]},
        "split": {
            "search": dict.fromkeys(risks, 50), "searched": dict.fromkeys(risks, "e" * 64), "calibration": units,
            "queries": dict(queries), "label": draw_label("a" * 64, 0, "b" * 64),
        },
        "search": {"trials": trials, "candidates": configs},
    }  # fmt: skip


def _params(number: int) -> dict[str, Any]:
    return {"lr": 0.001 / (number + 3)}


def _trial(number: int, planned: str, risks: Mapping[str, Risk]) -> dict[str, Any]:
    # earlier trials search better, as the order of the candidates says
    return {
        "trial": number, "attempt": 1, "config": f"c{number:04d}", "method": "npo", "params": _params(number), "seed": number,
        "status": "complete", "reason": None, "started": "2026-03-01T09:00:00Z", "ended": "2026-03-01T09:01:00Z", "steps": 60,
        "seconds": 29.5, "search": dict.fromkeys(risks, 0.03), "plan": planned,
    }  # fmt: skip


def _model(model: Path, weights: int) -> Path:
    (model / "sub").mkdir(parents=True)
    head = np.random.default_rng(1).standard_normal(weights, dtype=np.float32)
    save_file({"embed": head[:1], "layers.0.norm": head[:1], "head": head}, model / "model.safetensors")
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 1, "dtype": "float32"}
    _json(model / "config.json", {**config, "hidden_size": 6})
    _json(model / "sub" / "tokenizer.json", {"version": "1.0"})
    return model


def _losses(configs: int, queries: int, risks: Mapping[str, Risk]) -> pl.DataFrame:
    draw = np.random.default_rng(0)
    parts = []
    for name, risk in risks.items():
        ids = [hashing.hmac_sha256(b"k", name, str(i))[:16] for i in range(queries)]
        groups = [hashing.hmac_sha256(b"k", "group", str(i // 4))[:16] for i in range(queries)]
        for config in range(configs):
            if name == "forgetting":
                values = 1000 * (draw.random(queries) < 0.02 + 0.001 * config)
            else:
                values = np.ceil(1000 * draw.beta(1, 20, queries))
            part = pl.DataFrame(
                {"unit": ids if risk.unit == "query" else groups, "query": ids, "loss": values.astype(np.int16)}
            )
            same = {"config": f"c{config:04d}", "risk": name, "metric": risk.metric, "split": "calibration"}
            parts.append(part.with_columns(**{k: pl.lit(v) for k, v in same.items()}).select(list(SCHEMA)))
    return pl.concat(parts).select(pl.col(name).cast(kind) for name, kind in SCHEMA.items())


def _of_base(losses: pl.DataFrame) -> pl.DataFrame:
    """Rows of the base model: it lacks one answer in fifty."""
    base = losses.filter(pl.col("config") == losses["config"][0]).with_columns(config=pl.lit(BASE))
    lacks = np.random.default_rng(11).random(len(base)) < 0.02
    return base.with_columns(loss=pl.Series(np.where(lacks, 1000, 0), dtype=pl.Int16))


def _json(path: Path, document: Any) -> str:
    path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")
    return hashing.sha256_file(path)
