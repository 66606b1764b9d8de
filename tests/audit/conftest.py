"""A synthetic finished run, and signed bundles made from it."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from safetensors.numpy import save_file

from froc import hashing
from froc.audit import bundle as evidence
from froc.audit import canonical_json, model_folder, verification
from froc.audit import cross_checks as evident
from froc.audit import keys as signing
from froc.audit.report import Facts
from froc.audit.timestamps import Proven
from froc.audit.trust import Trust
from froc.bounds import betting
from froc.errors import InputError, VerificationError
from froc.loss_table import SCHEMA
from froc.models import weights_digest
from froc.plan_identity import draw_label
from froc.risk.certificate import Candidate, Claim, certify
from froc.risk.positive_control import BASE, Control, Kind

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
BUDGET = {"forgetting": 0.1, "utility": 0.15}
UNITS = {"forgetting": "query", "utility": "group"}
BOUND = {"forgetting": "binomial", "utility": "betting"}
METRICS = {"forgetting": "exact_memorization", "utility": "rouge_l"}
CONTROL: dict[str, Kind] = {"forgetting": "exceeds", "utility": "ceiling"}
GOOD = {"c0001": (0.02, 0.02), "c0003": (0.04, 0.03), "c0000": (0.01, 0.30)}
"""Candidate -> how likely a forgotten answer is still had, and the mean utility loss."""
BAD = {"c0001": (0.40, 0.30), "c0003": (0.30, 0.40)}
SHORT = {"c0001": (0.075, 0.02)}


@dataclass(frozen=True)
class Made:
    """A bundle with what is needed to check it, and to forge it with a valid key."""

    bundle: Path
    run: Path
    key: Path

    @property
    def public(self) -> Path:
        return self.key.with_name(self.key.name + ".pub")

    @property
    def model(self) -> Path | None:
        return self.run / "model" if (self.run / "model").is_dir() else None

    def verify(self, **more: Any) -> verification.Result:
        """Verify as an auditor would who trusts the key and holds the model."""
        return verification.verify(self.bundle, **{"keys": [self.public], "model": self.model, "now": NOW, **more})

    def digests(self) -> dict[str, str]:
        """What stands on disk: bundle and model."""
        places = [self.bundle, *([self.model] if self.model else [])]
        return {f"{p.name}/{name}": value for p in places for name, value in hashing.sha256_files(p).items()}

    def read(self, name: str = "report.dsse.json") -> dict[str, Any]:
        """The statement inside an envelope."""
        data = (self.bundle / name).read_bytes()
        document = json.loads(signing.verify(data, [signing.load_public(self.public)])[0])
        assert isinstance(document, dict)
        return document

    def sign(self, body: bytes, name: str = "report.dsse.json") -> None:
        """Sign any bytes with the trusted key."""
        (self.bundle / name).write_bytes(signing.sign(body, [signing.load_signer(self.key)]))

    def restate(self, change: Callable[[dict[str, Any]], object], name: str = "report.dsse.json") -> None:
        """Edit a whole statement and sign it again."""
        body = self.read(name)
        change(body)
        self.sign(canonical_json.compact(body), name)

    def resign(self, change: Callable[[dict[str, Any]], object] = lambda report: None) -> None:
        """Edit the report, list the files as they are now, render the page and sign: a dishonest signer."""
        statement = self.read()
        change(statement["predicate"])
        files = {path.name: path.read_bytes() for path in self.bundle.iterdir() if not path.name.startswith("report")}
        subject = {item["name"]: item["digest"]["sha256"] for item in statement["subject"]}
        page = (self.bundle / "report.html").read_bytes()
        # what does not add up has no page; verification ends before it comes to that
        with suppress(VerificationError, InputError, KeyError, TypeError, IndexError, AttributeError, ArithmeticError):
            page = evidence.page(statement["predicate"], files, self.facts(files))
        made = evidence.signed_report(statement["predicate"], files, subject, [signing.load_signer(self.key)], page)
        for name, data in made.items():
            (self.bundle / name).write_bytes(data)

    def facts(self, files: Mapping[str, bytes] | None = None) -> Facts:
        """The evidence of the bundle, or of other files."""
        contents = files or {path.name: path.read_bytes() for path in self.bundle.iterdir()}
        covered = model_folder.read(self.model).files if self.model else {}
        return evident.read(contents, Trust((signing.load_public(self.public),)), NOW, Proven(), covered, evident.Log())

    def edit(self, name: str, change: Callable[[str], str]) -> None:
        """Edit a text file of the bundle."""
        path = self.bundle / name
        path.write_bytes(change(path.read_bytes().decode()).encode())


def _json(path: Path, document: Any) -> str:
    data = (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()
    path.write_bytes(data)
    return hashing.sha256_bytes(data)


def _losses(rates: Mapping[str, tuple[float, float]]) -> pl.DataFrame:
    rng = np.random.default_rng(7)
    rows = []
    for config, (forgetting, utility) in rates.items():
        for i, hit in enumerate(rng.permutation(240) < round(forgetting * 240)):
            query = hashing.hmac_sha256(b"k", "forgetting", str(i))[:16]
            rows.append((config, "forgetting", METRICS["forgetting"], "calibration", query, query, 1000 * int(hit)))
        for i, loss in enumerate(np.ceil(1000 * rng.beta(1, 1 / utility - 1, 240))):
            unit = hashing.hmac_sha256(b"k", "group", str(i // 4))[:16]
            query = hashing.hmac_sha256(b"k", "utility", str(i))[:16]
            rows.append((config, "utility", METRICS["utility"], "calibration", unit, query, int(loss)))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def of_base(losses: pl.DataFrame) -> pl.DataFrame:
    """Rows of the base model on the same queries, which knows nearly all of it; they say what it lacks."""
    rng = np.random.default_rng(11)
    base = losses.filter(pl.col("config") == losses["config"][0]).with_columns(config=pl.lit(BASE))
    lacks = rng.random(len(base)) < 0.02
    share = np.where((base["risk"] == "utility").to_numpy(), np.ceil(1000 * rng.random(len(base))), 1000)
    return base.with_columns(loss=pl.Series(np.where(lacks, share, 0), dtype=pl.Int16))


def certified(
    losses: pl.DataFrame, candidates: list[Candidate], claim: Claim, base: pl.DataFrame | None, order: Any = None
) -> dict[str, Any]:
    """The certificate with the base model's rows, or as older versions made it."""
    return certify(losses, candidates, claim, order, None if base is None else Control(base, CONTROL))


def _plan() -> dict[str, Any]:
    return {
        "format": 2, "froc": "0.1.0", "created": "2026-03-01T08:00:00Z",
        "task": {"name": "embedded", "digest": "a" * 64, "split_seed": 0, "units": UNITS, "notes": []},
        "model": {"name": "embedded-base", "digest": "b" * 64},
        "budget": BUDGET, "confidence": 0.9, "procedure": "weighted-holm", "bound": BOUND,
        "population": dict.fromkeys(BUDGET, "queries"), "listed": {}, "weights": {}, "radius": 0.0, "sequential": False,
        "openings": 1, "joint": False, "metrics": METRICS, "quantum": 1000, "control": CONTROL,
        "split": {"search": {"forgetting": 60, "utility": 15}, "calibration": {"forgetting": 240, "utility": 60}, "share": 0.2, "label": draw_label("a" * 64, 0, "b" * 64)},
        "search": {"methods": ["npo"], "trials": 5, "sampler": "tpe", "pruner": "median", "objective": "pareto", "seed": 0,
                   "candidates": 3, "space": {"npo": {"lr": "0.0001 .. 0.01 (log)"}}},
        "environment": {"python": "3.11.2", "torch": "2.11.0"},
    }  # fmt: skip


def _trial(number: int, plan: str, **more: Any) -> dict[str, Any]:
    return {
        "trial": number, "attempt": 1, "config": f"c{number:04d}", "method": "npo", "params": _params(number), "seed": number,
        "status": "complete", "reason": None, "started": f"2026-03-01T09:0{number}:00Z", "ended": f"2026-03-01T09:0{number}:30Z",
        "steps": 60, "seconds": 29.5, "search": {"forgetting": 0.05, "utility": 0.031}, "rungs": [[20, {"forgetting": 0.2}]],
        "plan": plan, "averages": {r: {"loss": 3.21, "accuracy": 0.5, "base_loss": 1.2e-05, "base_accuracy": 1.0} for r in BUDGET}, **more,
    }  # fmt: skip


def _params(number: int) -> dict[str, Any]:
    return {"lr": 0.001 / (number + 3), "epochs": 2, "retain_weight": 5.0, "schedule": "cosine"}


def make_run(
    folder: Path,
    rates: Mapping[str, tuple[float, float]] = GOOD,
    opening: int = 1,
    task: Mapping[str, Any] | None = None,
    more: Mapping[str, Any] | None = None,
) -> Path:
    """A run folder as `froc search` leaves it. task: what its plan says of the task beside the usual; more: of the rest."""
    (folder / "losses").mkdir(parents=True)
    plan = _plan()
    plan["task"] |= task or {}
    plan |= more or {}
    losses = _losses(rates)
    base = of_base(losses)
    queries = {
        risk: hashing.sha256_json(sorted(set(losses.filter(pl.col("risk") == risk)["query"].to_list())))
        for risk in BUDGET
    }
    plan["split"] |= {"queries": queries, "searched": dict.fromkeys(queries, "e" * 64)}
    planned = _json(folder / "plan.json", plan)
    trials = [_trial(number, planned) for number in range(5)]
    unmeasured = {"search": None, "averages": None}
    trials[2] |= {"status": "failed", "reason": "ValueError at froc.methods.npo:33", **unmeasured}
    trials[4] |= {"status": "failed", "reason": "cannot read /home/someone/data.jsonl", **unmeasured}
    interrupted = _trial(
        4, planned, status="interrupted", reason="the process ended before the trial did", **unmeasured
    )
    trials[4:] = [interrupted, {**trials[4], "attempt": 2}]
    (folder / "trials.jsonl").write_text("".join(json.dumps(line, sort_keys=True) + "\n" for line in trials))
    losses.write_parquet(folder / "losses" / "calibration.parquet")
    base.write_parquet(folder / "losses" / "base.parquet")
    losses.with_columns(split=pl.lit("search")).write_parquet(folder / "losses" / "search.parquet")
    candidates = [Candidate(c, "npo", _params(int(c[1:])), 1 / rank) for rank, c in enumerate(rates, start=1)]
    named = {name: plan.get(name, {}) for name in ("estimand", "largest")}
    named["relative"] = tuple(plan.get("relative", ()))
    claim = Claim(BUDGET, BOUND, plan["task"]["units"], opening=opening, keyed=bool(named["estimand"]), **named)
    chosen = certified(losses, candidates, claim, base)["chosen"]
    weights = {c.config: hashing.sha256_bytes(c.config.encode()) for c in candidates}
    beside = {"config.json": "c" * 64}
    if chosen is not None:
        make_model(folder / "model")
        beside = weights_digest.beside(hashing.sha256_files(folder / "model"))
        weights[chosen] = weights_digest.of_folder(folder / "model")
    candidates = [replace(c, weights_digest=weights[c.config]) for c in candidates]
    _json(
        folder / "seal.json",
        {
            "format": 1, "plan": planned, "trials": 3, "calibration": queries,
            "search_losses": hashing.sha256_file(folder / "losses" / "search.parquet"),
            "candidates": [vars(candidate) for candidate in candidates], "base_weights_digest": plan["model"]["digest"], "model_files": beside,
        },
    )  # fmt: skip
    _json(folder / "certificate.json", certified(losses, candidates, claim, base))
    return folder


def make_model(folder: Path, first: float = 0.0) -> Path:
    """A model folder as loaders take it, of three small tensors."""
    folder.mkdir()
    weights = np.arange(first, first + 24, dtype=np.float32).reshape(4, 6)
    tensors = {"embed": weights, "head": weights[::-1].copy(), "layers.0.norm": weights[0].copy()}
    save_file(tensors, folder / "model.safetensors")
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 1, "dtype": "float32"}
    _json(folder / "config.json", {**config, "hidden_size": 6})
    _json(folder / "tokenizer.json", {"version": "1.0"})
    return folder


@pytest.fixture(scope="session", autouse=True)
def _bounds_once() -> Iterator[None]:
    """Hundreds of copies of few bundles hold the same losses; what bounds them is tested elsewhere."""
    known: dict[tuple[object, ...], Any] = {}
    upper = betting.upper_from_losses

    def remembered(values: Any, *arguments: Any, **named: Any) -> Any:
        key = hashing.sha256_bytes(values.tobytes()), values.shape, arguments, *sorted(named.items())
        if key not in known:
            known[key] = upper(values, *arguments, **named)
        return known[key].copy()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(betting, "upper_from_losses", remembered)
        yield


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with key pairs: `key` and `other`; of ECDSA `curve` (P-256) and `wide` (P-384)."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("key", "other"):
        signing.keygen(folder / name, None)
    for name, curve in (("curve", ec.SECP256R1()), ("wide", ec.SECP384R1())):
        write_pair(folder / name, ec.generate_private_key(curve))
    return folder


def write_pair(path: Path, private: Any) -> None:
    """A private key that keygen does not make, as PATH and PATH.pub."""
    path.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    path.with_name(f"{path.name}.pub").write_bytes(public)


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory, keys: Path) -> Made:
    """A bundle that says PASS; tests copy it before they change it."""
    folder = tmp_path_factory.mktemp("good")
    run = make_run(folder / "run")
    return Made(evidence.build(run, folder, keys / "key", name="good", now=NOW), run, keys / "key")


@pytest.fixture(scope="session")
def failing(tmp_path_factory: pytest.TempPathFactory, keys: Path) -> Made:
    """A bundle that says FAIL: nothing was certified."""
    folder = tmp_path_factory.mktemp("failing")
    run = make_run(folder / "run", BAD)
    return Made(evidence.build(run, folder, keys / "key", name="failing", now=NOW), run, keys / "key")


@pytest.fixture(scope="session")
def short(tmp_path_factory: pytest.TempPathFactory, keys: Path) -> Made:
    """A bundle that says NOT_ESTABLISHED, after an unplanned second opening."""
    folder = tmp_path_factory.mktemp("short")
    run = make_run(folder / "run", SHORT, opening=2)
    return Made(evidence.build(run, folder, keys / "key", name="short", now=NOW), run, keys / "key")


@pytest.fixture(scope="session")
def originals(good: Made, failing: Made, short: Made, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    """All kinds of bundles, by name."""
    from tests.audit import variants

    return variants.originals(good, failing, short, tmp_path_factory.mktemp("originals"))


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A fresh run folder that a test may spoil."""
    return make_run(tmp_path / "run")


@pytest.fixture
def now() -> datetime:
    """When bundles are issued."""
    return NOW


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[Made], Made]:
    """A private copy of a bundle and its model."""

    def copied(made: Made) -> Made:
        bundle = Path(shutil.copytree(made.bundle, tmp_path / made.bundle.name))
        if made.model is not None:
            shutil.copytree(made.model, tmp_path / "run" / "model")
        return Made(bundle, tmp_path / "run", made.key)

    return copied
