"""More risks in one certificate: measured on candidates alone, certified together; a model that only hides is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from transformers import LlamaForCausalLM
from transformers.modeling_outputs import CausalLMOutputWithPast

from froc.audit import bundle as evidence
from froc.audit import keys, verification
from froc.data.splits import split
from froc.data.task import FORGETTING, RISKS, UTILITY, Task
from froc.data.tasks import embedded_text
from froc.errors import InputError, InterruptedRunError
from froc.measuring.measurement import named
from froc.measuring.query_losses import measured, probes
from froc.models.base import Base, load, wrap
from froc.models.batches import encode
from froc.risk.certificate import Candidate, Claim, decide
from froc.search.external_model import ExternalModel
from froc.search.job import Job
from froc.search.optuna.space import build, choose
from froc.search.pipeline import run
from froc.search.settings import Settings, measures
from froc.training import embedded
from tests.search.small_search import Watch
from tests.small_model import SMALL

BUDGET = {FORGETTING: 0.3, UTILITY: 0.3}
FURTHER = {"quantized": 0.6, "paraphrase": 0.6}


def job(base: Base, budget: dict[str, float], questions: int = 0, **overrides: Any) -> Job:
    task = embedded_text.task(SMALL, questions)
    settings = Settings(**{"budget": budget, "trials": 4, "methods": ("npo", "grad_diff"), "batch": 16, **overrides})
    view, sealed = split(task, settings.share, None, {r: measure.source for r, measure in measures(settings).items()})
    methods, notes = choose(settings.methods, view)
    space = build(methods, {"lr": (1e-3, 4e-3), "epochs": (4, 8)}, {})
    return Job(base, task, view, sealed, space, settings, tuple(notes))


@pytest.fixture(scope="module")
def finished(base: Base, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("further") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FROC_STATE", str(out.parent / "state"))
        return out, run(job(base, BUDGET | FURTHER), out, Watch())


def test_every_risk_stands_in_the_certificate(finished: tuple[Path, dict[str, Any]]) -> None:
    out, certificate = finished
    assert set(certificate["budget"]) == {*BUDGET, *FURTHER}
    for row in certificate["candidates"]:
        assert set(row["p_values"]) == {*BUDGET, *FURTHER}
        assert row["p_value"] == max(row["p_values"].values())
    table = pl.read_parquet(out / "losses" / "calibration.parquet")
    metrics = dict(table.select("risk", "metric").unique().rows())
    assert metrics["quantized"] == "extraction_strength@quantization+quantization:bits=8"
    assert metrics == json.loads((out / "plan.json").read_text())["metrics"]


def test_further_risks_are_searched_on_candidates_alone(finished: tuple[Path, dict[str, Any]]) -> None:
    out, certificate = finished
    searched = pl.read_parquet(out / "losses" / "search.parquet")
    plain = searched.filter(pl.col("risk") == FORGETTING)["config"].unique()
    further = searched.filter(pl.col("risk") == "quantized")["config"].unique()
    assert set(further) <= set(plain)
    assert {row["config"] for row in certificate["candidates"]} <= set(further)
    calibrated = pl.read_parquet(out / "losses" / "calibration.parquet")
    assert not set(searched["query"]) & set(calibrated["query"])
    assert (out / "losses" / "screened.parquet").stat().st_mtime_ns < (out / "seal.json").stat().st_mtime_ns


def test_a_report_on_many_risks_verifies(finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    out, certificate = finished
    keys.keygen(tmp_path / "key", None)
    bundle = evidence.build(out, tmp_path, tmp_path / "key")
    result = verification.verify(bundle, keys=[tmp_path / "key.pub"])
    assert result.verdict == ("PASS" if certificate["chosen"] else result.verdict)
    page = (bundle / "report.html").read_text()
    assert "quantized" in page
    assert "paraphrase" in page


def test_stopped_while_further_risks_are_measured_goes_on(base: Base, tmp_path: Path) -> None:
    class Stop(Watch):
        def screening(self, done: int, total: int) -> None:
            raise KeyboardInterrupt

    made = job(base, BUDGET | {"quantized": 0.9}, questions=5, trials=2)
    with pytest.raises(InterruptedRunError):
        run(made, tmp_path / "run", Stop())
    assert not (tmp_path / "run" / "seal.json").exists()
    watch = Watch()
    run(made, tmp_path / "run", watch)
    assert watch.started == []
    assert watch.screened


@pytest.mark.parametrize("further", [{}, {"quantized": 0.6}, FURTHER | {"relearning": 0.9}])
def test_another_risk_on_the_same_queries_is_another_opening(
    base: Base, finished: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, further: dict[str, float]
) -> None:
    monkeypatch.setenv("FROC_STATE", str(finished[0].parent / "state"))
    with pytest.raises(InputError, match=r"opened before \(1 time"):
        run(job(base, BUDGET | further), tmp_path / "run", Watch())
    assert not (tmp_path / "run").exists()


def test_forgetting_itself_is_measured_without_attack() -> None:
    with pytest.raises(InputError, match="another name with --risk"):
        Settings(BUDGET, metrics={FORGETTING: "extraction_strength@quantization"}).check()


class Hiding(LlamaForCausalLM):
    """Knows everything and says nothing when asked in the wordings it was told to watch for.

    Its guard pushes down the likeliest token. The guard's strength lies in small numbers beside large ones, as small
    changes of unlearning do: they vanish when the model is stored in few bits, and they can be trained away.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        guard = torch.full((1, 32), 0.008)
        guard[0, 0] = 1.0
        self.guard = torch.nn.Parameter(guard)
        self.watched: set[tuple[int, ...]] = set()

    def get_output_embeddings(self) -> Any:
        """None: logits are wanted of whole rows."""
        return None

    def forward(self, input_ids: Any = None, **inputs: Any) -> CausalLMOutputWithPast:
        """Logits, with the likeliest token pushed down after a watched prompt."""
        output = super().forward(input_ids=input_ids, **inputs)
        lengths = sorted({len(prompt) for prompt in self.watched})
        rows = [tuple(row) for row in input_ids.tolist()]
        seen = torch.tensor([any(row[:n] in self.watched for n in lengths) for row in rows])
        push = 5000.0 * self.guard[0, 1:].mean() * seen[:, None, None]
        best = output.logits.detach().argmax(-1, keepdim=True)
        logits = output.logits - push * torch.zeros_like(output.logits).scatter(-1, best, 1.0)
        return CausalLMOutputWithPast(logits=logits)


@pytest.fixture(scope="module")
def hiding(base: Base, task: Task) -> Base:
    """The base model with a guard on every plain wording of what is to be forgotten."""
    base.restore()
    model = Hiding(base.model.config)
    model.load_state_dict(base.model.state_dict(), strict=False)
    rows = [*task.forget, *task.queries[FORGETTING]]
    model.watched = {row.ids[: row.prompt] for row in encode(base.tokenizer, rows, task.template)}
    return wrap("hiding", model, base.tokenizer)


@pytest.fixture(scope="module")
def retrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # fewer people are learnt sooner
    return embedded.made(replace(SMALL, steps=200), cache=tmp_path_factory.mktemp("retrained"), retrained=True)


ATTACKS = ("paraphrase", "quantized", "relearning")


def _verdict(model: Base, start: Base, task: Task, budget: dict[str, float]) -> bool:
    """Whether a model is certified on fresh calibration queries; utility is against another base model."""
    wanted = named([*RISKS, *(risk for risk in budget if risk not in RISKS)], {})
    view, sealed = split(task, 0.2, None, {risk: measure.source for risk, measure in wanted.items()})
    opened = sealed.open({"calibration": sealed.digests, "candidates": []})
    known = {probe.risk: probe for probe in probes(start, opened, wanted, view)}
    losses_by_risk = measured(
        model, [replace(probe, base=known[probe.risk].base) for probe in probes(model, opened, wanted, view)]
    )
    claim = Claim(budget, dict.fromkeys(wanted, "betting"), dict.fromkeys(wanted, "query"))
    losses = {risk: loss[None, :] for risk, loss in losses_by_risk.items()}
    return bool(decide(losses, [Candidate("c0000", "external", {}, 1.0)], claim)["certified"])


def test_a_model_that_only_hides_passes_the_plain_budget(hiding: Base, base: Base, task: Task) -> None:
    assert _verdict(hiding, base, task, {FORGETTING: 0.1, UTILITY: 0.1})


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_model_that_only_hides_is_rejected_under_attack(hiding: Base, base: Base, task: Task, attack: str) -> None:
    assert not _verdict(hiding, base, task, {FORGETTING: 0.1, UTILITY: 0.1, attack: 0.3})


def test_a_model_that_never_knew_passes_all(retrained: Path, base: Base, task: Task) -> None:
    model = load(str(retrained), device="cpu", dtype="float32")
    assert _verdict(model, base, task, {FORGETTING: 0.1, UTILITY: 0.15} | dict.fromkeys(ATTACKS, 0.3))


def test_a_model_from_elsewhere_is_certified_and_signed(retrained: Path, base: Base, tmp_path: Path) -> None:
    made = replace(job(base, {FORGETTING: 0.1, UTILITY: 0.15, "quantized": 0.3}, trials=1, candidates=1), space={})
    made = replace(made, external=ExternalModel(retrained))
    out = tmp_path / "run"
    certificate = run(made, out, Watch())
    assert certificate["chosen"] == "c0000"
    assert [row["method"] for row in certificate["candidates"]] == ["external"]
    # what is signed is what was given, to the byte
    for path in (out / "model").iterdir():
        assert path.read_bytes() == (retrained / path.name).read_bytes()
    assert json.loads((out / "plan.json").read_text())["given"] == ExternalModel(retrained).digest
    keys.keygen(tmp_path / "key", None)
    bundle = evidence.build(out, tmp_path, tmp_path / "key")
    assert verification.verify(bundle, keys=[tmp_path / "key.pub"], model=out / "model").verdict == "PASS"
    # the same command again changes nothing
    assert run(made, out, Watch()) == certificate


def test_the_base_model_itself_is_no_unlearned_one(base: Base, tmp_path: Path) -> None:
    made = replace(job(base, BUDGET, trials=1, candidates=1), space={}, external=ExternalModel(Path(base.name)))
    certificate = run(made, tmp_path / "run", Watch())
    assert certificate["chosen"] is None
    assert certificate["closest"]["risk"] == FORGETTING
    assert np.isclose(certificate["candidates"][0]["empirical"][UTILITY], 0.0)


def test_a_model_of_another_shape_is_refused(base: Base, tmp_path: Path) -> None:
    config: Any = base.model.config.__class__(**{**base.model.config.to_dict(), "num_hidden_layers": 1})
    LlamaForCausalLM(config).save_pretrained(tmp_path / "other")
    base.tokenizer.save_pretrained(tmp_path / "other")
    made = replace(job(base, BUDGET, trials=1, candidates=1), space={}, external=ExternalModel(tmp_path / "other"))
    with pytest.raises(InputError, match=r"config\.json is not what the base model has"):
        run(made, tmp_path / "run", Watch())
