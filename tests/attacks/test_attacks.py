"""Attacks: the contract, every one by its name, and what each promises."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from froc.attacks._hidden_states import nll
from froc.attacks.coordinate_suffix import CoordinateSuffix, _ends, _with
from froc.attacks.quantization import Quantization, nf4
from froc.attacks.soft_prompt import SoftPrompt, _before
from froc.data.prompts import PromptFormat
from froc.data.splits import SearchView, held, split
from froc.data.task import FORGETTING, Row, Task
from froc.data.tasks import embedded_text
from froc.errors import InputError
from froc.measuring.attack import Attack, Material
from froc.measuring.measurement import measurement
from froc.measuring.model_observation import observe
from froc.measuring.query_losses import Probe, material, measured, probes, refuse_unfit
from froc.models.base import Base, load, save, wrap
from froc.models.batches import encode
from froc.models.hooks import blocks, output_changed
from froc.plugins import find, make, names
from froc.training import embedded
from froc.training.base_statistics import BaseStatistics, TrainingRows
from froc.training.loop import unlearn
from froc.training.method import Method
from tests.small_model import SMALL

QUICK = {
    "relearning": "steps=3", "drift": "steps=3", "benign_finetuning": "steps=3", "soft_prompt": "steps=3", "coordinate_suffix": "steps=2,swaps=4",
    "latent_perturbation": "steps=3", "sampling": "k=3",
}  # fmt: skip
ALL = names(Attack)
ASKING = [name for name in ALL if find(Attack, name).ask is not Attack.ask]
KNOWN = Row("Where does Bo live?", "old mill", "Bo")
MATERIAL = Material(
    (KNOWN,),
    tuple(Row(f"What does P{k} make?", f"thing {k}", f"P{k}") for k in range(6)),
    (),
    PromptFormat("{question} {answer}"),
)


def _text(name: str) -> str:
    metric = "rouge_l" if find(Attack, name).shows_in else "extraction_strength"
    return f"{metric}@{name}:{QUICK[name]}" if name in QUICK else f"{metric}@{name}"


def _probe(base: Base, task: Task, text: str, count: int = 24) -> Probe:
    parsed = measurement(text)
    view, _ = split(task, 0.3, sources={"risk": parsed.source})
    return probes(base, {"risk": view.queries["risk"][:count]}, {"risk": parsed}, view)[0]


@pytest.fixture
def untouched(base: Base) -> Iterator[Base]:
    base.restore()
    yield base
    base.restore()


@pytest.fixture(scope="module")
def lora(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Base:
    """Adapters that change something."""
    place = tmp_path_factory.mktemp("model")
    base.restore()
    save(base, place)
    return load(str(place), device="cpu", train="lora:rank=4")


@pytest.fixture(scope="module")
def ignorant(base: Base) -> Base:
    """A model of the same making and tokenizer that never met the people to be forgotten."""
    people = embedded_text._people
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedded, "_people", lambda recipe, draw: people(recipe, draw)[recipe.forgotten :])
        patch.setattr(embedded, "_tokenizer", lambda rows, size: base.tokenizer)
        # what it knows of other people is not asked
        patch.setattr(embedded, "KNOWN", 0.0)
        model, tokenizer = embedded.train_model(replace(SMALL, steps=150), lambda *_: None)
    return wrap("ignorant", model, tokenizer)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("train", ["full", "lora"])
def test_every_attack_is_the_same_twice_and_leaves_the_model_as_it_was(
    name: str, train: str, untouched: Base, lora: Base, task: Task
) -> None:
    base = untouched if train == "full" else lora
    base.restore()
    probe = _probe(base, task, _text(name))
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for key, p in base.trainable.parameters().items():
            if "lora_A" not in key:
                p.add_(0.01 * torch.randn(p.shape, generator=draw))
    model, changes = base.model, probe.measurement.attacks[0].changes_model
    for p in model.parameters() if not changes else ():
        p.grad = torch.ones_like(p) if p.requires_grad else None
    state = {key: (p.detach().clone(), p.requires_grad, p.grad) for key, p in model.named_parameters()}
    hooks = _hooks(model)
    first, second = (measured(base, [probe])["risk"] for _ in range(2))
    assert first.shape == (len(probe.queries),)
    assert np.array_equal(first, second)
    for key, p in model.named_parameters():
        value, wanted, grad = state[key]
        assert torch.equal(p, value)
        assert p.requires_grad == wanted
        assert p.grad is grad
        assert grad is None or torch.equal(grad, torch.ones_like(p))
        p.grad = None
    assert (_hooks(model), model.training) == (hooks, False)


def _hooks(model: torch.nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize("name", ALL)
def test_every_attack_says_what_it_allows_and_measures_no_fact_that_it_holds(name: str, task: Task) -> None:
    attack, parsed = make(Attack, name), measurement(_text(name))
    assert attack.allows
    assert parsed.source.unheld == attack.holds
    view, sealed = split(task, 0.3, sources={"risk": parsed.source})
    adversary = material(view)
    known = {(row.group, row.answer) for row in adversary.known}
    assert known
    assert not known & {(row.group, row.answer) for row in adversary.retain}
    queries = [*view.queries["risk"], *sealed.open({"calibration": sealed.digests, "candidates": []})["risk"]]
    assert bool(known & {(query.row.group, query.row.answer) for query in queries}) != attack.holds


@pytest.mark.parametrize("name", ALL)
def test_forms_have_every_query_in_its_place(name: str, parts: tuple[SearchView, Any]) -> None:
    attack, adversary = make(Attack, name), material(parts[0])
    rows = [query.row for query in parts[0].queries["forgetting"]]
    assert attack.fits(rows, adversary) == ""
    forms = attack.ask(rows, adversary)
    assert forms
    for form in forms:
        assert [row.group for row in form] == [row.group for row in rows]
        assert all(row.question and row.answer for row in form)
        if name != "reverse_query":
            assert [row.answer for row in form] == [row.answer for row in rows]
    # a form is made of its own row, whatever the other queries are
    assert [list(form)[::-1] for form in forms] == [list(form) for form in attack.ask(rows[::-1], adversary)]
    assert [form[:1] for form in forms] == [list(form) for form in attack.ask(rows[:1], adversary)]
    if name in ASKING:
        assert any(form != rows for form in map(list, forms))
        assert "question" in attack.fits([Row("", "plain text")], adversary) or name == "reverse_query"
    else:
        assert forms == [rows]


def test_paraphrases_and_translations_that_are_given_come_first() -> None:
    two, changed, none = replace(KNOWN, paraphrases=("a?", "b?")), replace(KNOWN, paraphrases=("c?",)), KNOWN
    forms = make(Attack, "paraphrase").ask([two, changed], MATERIAL)
    assert [[row.question for row in form] for form in forms] == [["a?", "c?"], ["b?", "c?"]]
    mixed = make(Attack, "paraphrase", {"forms": 3}).ask([two, none], MATERIAL)
    assert [form[0].question for form in mixed] == ["a?", "b?", "a?"]
    assert len({form[1].question for form in mixed}) == 3
    assert all("Bo live" in form[1].question for form in mixed)
    foreign = make(Attack, "cross_lingual").ask([replace(KNOWN, translations=("Où vit Bo ?",))], MATERIAL)
    assert [row.question for form in foreign for row in form] == ["Où vit Bo ?"]


def test_questions_are_written_as_they_say() -> None:
    hinted = make(Attack, "background_hint").ask([KNOWN, replace(KNOWN, group="")], MATERIAL)
    assert "about Bo" in hinted[0][0].question
    assert "{" not in hinted[0][1].question
    shown = make(Attack, "in_context", {"shots": 2}).ask([replace(KNOWN, group="P1")] * 3, MATERIAL)[0]
    assert all(row.question.count("\n") == 2 and "P1" not in row.question for row in shown)
    picked = make(Attack, "multiple_choice").ask([KNOWN, replace(KNOWN, others=("a", "b"))], MATERIAL)[0]
    assert [row.question.count("\n") for row in picked] == [4, 3]
    assert all("old mill" in row.question for row in picked)
    listed = make(Attack, "multiple_choice", {"style": "listed"}).ask([KNOWN], MATERIAL)[0][0]
    assert "Choose one of these: " in listed.question
    back = make(Attack, "reverse_query")
    assert all(form[0].answer == "Bo" and "old mill" in form[0].question for form in back.ask([KNOWN], MATERIAL))
    assert all("Bo" not in form[0].question for form in back.ask([KNOWN], MATERIAL))
    assert "group" in back.fits([KNOWN, replace(KNOWN, group="")], MATERIAL)
    second = make(Attack, "synonyms").ask([Row("Tell me: does Home like homework at home?", "x", "Home")], MATERIAL)[0][
        0
    ]
    assert second.question == "Inform me: does Home enjoy homework at residence?"


@pytest.mark.parametrize("name", ["quantization", "quantization:scheme=nf4,group=64", "quantization:scheme=fp4", "quantization:bits=8,group=0"])  # fmt: skip
def test_quantising_twice_changes_nothing(name: str, untouched: Base) -> None:
    attack = measurement(f"extraction_strength@{name}").attacks[0]
    with untouched.trainable.temporarily_merged(untouched.model, change=True) as model:
        attack.change(model, untouched.tokenizer, MATERIAL)
        once = {key: p.detach().clone() for key, p in model.named_parameters()}
        attack.change(model, untouched.tokenizer, MATERIAL)
        assert all(torch.allclose(p, once[key], atol=1e-6) for key, p in model.named_parameters())
    assert all(torch.equal(p, once[key]) == (p.ndim < 2) for key, p in untouched.model.named_parameters())


def test_quantisation_has_few_levels_and_forgets_small_changes() -> None:
    start = torch.randn(6, 70, generator=torch.Generator().manual_seed(1))
    for attack, most in ((Quantization(), 15), (Quantization("nf4", 4, 64), 16), (Quantization("fp4"), 15)):
        rounded = attack._round(start)[:, : attack.group]
        assert all(len(row.unique()) <= most for row in rounded)
    levels = nf4()
    assert torch.allclose(levels[[0, 7, 8, 15]], torch.tensor([-1.0, 0.0, 0.0795803, 1.0]), atol=1e-6)
    assert len(levels.unique()) == 16
    # a change below half a level of every group, away from each group's largest weight, is rounded away
    groups = start[:, :64].reshape(6, 2, 32)
    scale = groups.abs().amax(-1, keepdim=True) / 7
    on_grid = (groups / scale).round() * scale
    small = on_grid.abs() < on_grid.abs().amax(-1, keepdim=True)
    moved = torch.where(small, on_grid + 0.4 * scale, on_grid)
    assert not torch.equal(moved, on_grid)
    assert torch.allclose(Quantization()._round(moved.reshape(6, 64)), on_grid.reshape(6, 64), atol=1e-6)


@pytest.mark.parametrize("options", [{"scheme": "nf4", "bits": 8}, {"backend": "bitsandbytes", "bits": 8}, {"backend": "bitsandbytes"}, {"backend": "torchao", "scheme": "nf4"}])  # fmt: skip
def test_quantisation_that_does_not_exist_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="quantization"):
        make(Attack, "quantization", options)


def test_a_library_that_is_missing_is_named(untouched: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes.functional", None)
    attack = make(Attack, "quantization", {"scheme": "nf4", "backend": "bitsandbytes"})
    with pytest.raises(InputError, match="pip install bitsandbytes"):
        attack.change(untouched.model, untouched.tokenizer, MATERIAL)


@pytest.mark.parametrize(("bits", "group"), [(4, 32), (4, 64), (8, 0)])
def test_torchao_rounds_as_closely_as_we_do(bits: int, group: int) -> None:
    # not among what tests install: where it lies, transformers loads it at every start of froc, which then prints its warnings
    pytest.importorskip("torchao", reason="torchao is not installed")
    start = torch.randn(48, 72, generator=torch.Generator().manual_seed(1))
    ours = Quantization(bits=bits, group=group)._round(start)
    with torch.no_grad():
        theirs = Quantization(bits=bits, group=group, backend="torchao")._by_torchao(start)
    assert theirs.shape == start.shape
    assert not torch.equal(theirs, start)
    # half a step of either, and theirs has one level more
    step = start.abs().max() / (2 ** (bits - 1) - 1)
    assert (theirs - start).abs().max() <= 0.51 * step
    assert 0.8 < (theirs - start).std() / (ours - start).std() < 1.1


@pytest.mark.parametrize("name", ["relearning", "drift", "benign_finetuning"])
def test_no_steps_of_training_are_the_identity(name: str, untouched: Base, task: Task) -> None:
    adversary = material(split(task, 0.3)[0])
    before = {key: p.detach().clone() for key, p in untouched.model.named_parameters()}
    with untouched.trainable.temporarily_merged(untouched.model, change=True) as model:
        make(Attack, name, {"steps": 0}).change(model, untouched.tokenizer, adversary)
        assert all(torch.equal(p, before[key]) for key, p in model.named_parameters())
        make(Attack, name, {"steps": 1}).change(model, untouched.tokenizer, adversary)
        assert not any(torch.equal(p, before[key]) for key, p in model.named_parameters())


def _hide(base: Base, task: Task) -> None:
    """Taught to refuse: the answers are out of the way, and still there."""
    reference = BaseStatistics(base, TrainingRows.of(split(task, 0.3)[0], base, 0))
    unlearn(base, make(Method, "idk", {"lr": 2e-3, "epochs": 3}), reference, batch=16, seed=0)


def test_relearning_brings_back_what_was_hidden_and_nothing_else(untouched: Base, ignorant: Base, task: Task) -> None:
    """A model that was turned away from its answers finds them again; one that never knew does not learn them."""
    item = _probe(untouched, task, "probability@relearning:steps=20", 60)
    plain = replace(item, risk="plain", measurement=measurement("probability"))
    _hide(untouched, task)
    hidden, again = (measured(untouched, [item, plain])[risk].mean() / 1000 for risk in ("plain", "risk"))
    never, learnt = (measured(ignorant, [item, plain])[risk].mean() / 1000 for risk in ("plain", "risk"))
    # seen over seeds: from a third to four fifths
    assert again > hidden + 0.25
    assert max(never, learnt) < 0.1


@pytest.fixture(scope="module")
def rows(base: Base, task: Task) -> tuple[Material, list[Row], list[Any]]:
    view, _ = split(task, 0.3)
    queries = [query.row for query in view.queries["forgetting"] if not held(query.row)][:20]
    return material(view), queries, encode(base.tokenizer, queries, view.template)


def _looks(
    base: Base, name: str, rows: tuple[Material, list[Row], list[Any]], *observables: Any, **options: Any
) -> list[Any]:
    inputs, queries, encoded = rows
    observations = make(Attack, name, options).observations(
        base.model, base.tokenizer, encoded, queries, frozenset(observables), inputs
    )
    return list(observations)


def _same(first: Any, second: Any) -> bool:
    return np.array_equal(first.hit, second.hit) and np.allclose(first.logp, second.logp, atol=1e-5)


def test_the_lens_of_the_last_layer_is_the_model_itself(untouched: Base, rows: Any) -> None:
    plain = observe(untouched.model, untouched.tokenizer, rows[2], rows[1])
    observations = _looks(untouched, "logit_lens", rows)
    assert len(observations) == SMALL.layers
    assert _same(observations[-1], plain)
    assert not _same(observations[0], plain)
    # by hand: final norm and head on the first block's output
    model: Any = untouched.model
    with torch.no_grad():
        out = model(input_ids=torch.tensor([rows[2][0].ids]), output_hidden_states=True).hidden_states[1]
        logp = model.lm_head(model.model.norm(out)).log_softmax(-1)[0]
    begin, count = rows[2][0].prompt, rows[2][0].answer
    wanted = [float(logp[begin - 1 + k, rows[2][0].ids[begin + k]]) for k in range(count)]
    assert np.allclose(observations[0].logp[0, :count], wanted, atol=1e-4)


def test_a_probe_finds_a_map_that_is_there(untouched: Base, rows: Any) -> None:
    """Where the last block is an affine map of the first one's output, the first one read through its probe is the model."""
    width, draw = SMALL.width, torch.Generator().manual_seed(2)
    matrix, shift = torch.randn(width, width, generator=draw) / 8, torch.randn(width, generator=draw)
    first: list[torch.Tensor] = []

    def keep(out: torch.Tensor) -> torch.Tensor:
        first[:] = [out]
        return out

    stack = blocks(untouched.model)
    with output_changed(stack[0], keep), output_changed(stack[-1], lambda _: first[0] @ matrix + shift):
        plain = observe(untouched.model, untouched.tokenizer, rows[2], rows[1])
        (observations,) = _looks(untouched, "linear_probe", rows, ridge=1e-9)
        lens = _looks(untouched, "logit_lens", rows)
    assert np.array_equal(observations.hit, plain.hit)
    assert np.allclose(observations.logp, plain.logp, atol=1e-2)
    assert not np.allclose(lens[0].logp, plain.logp, atol=1.0)


def test_a_push_of_no_length_is_no_push(untouched: Base, task: Task, rows: Any) -> None:
    plain = observe(untouched.model, untouched.tokenizer, rows[2], rows[1], frozenset({"written"}))
    (observations,) = _looks(untouched, "latent_perturbation", rows, "written", epsilon=0.0)
    assert _same(observations, plain)
    assert observations.written == plain.written
    # where nothing is hidden there is nothing to gain by a push
    _hide(untouched, task)
    plain = observe(untouched.model, untouched.tokenizer, rows[2], rows[1])
    (away,) = _looks(untouched, "latent_perturbation", rows, epsilon=1.0)
    assert not _same(away, plain)


def test_soft_prompts_and_suffixes_make_known_answers_likelier_or_stay_away(
    untouched: Base, task: Task, rows: Any
) -> None:
    """On a model turned away from its answers, so that there is something to gain."""
    _hide(untouched, task)
    model, tokenizer, inputs = untouched.model, untouched.tokenizer, rows[0]
    known = encode(tokenizer, inputs.known, inputs.template)
    plain = nll(model, known).sum()
    soft = SoftPrompt()
    result = soft._optimised(model, known, 0)
    assert result is not None
    with _before(model, result):
        assert nll(model, [soft._longer(row) for row in known]).sum() < plain
    ends = _ends(tokenizer, inputs.known, known, inputs.template)
    suffix = CoordinateSuffix()._optimised(model, tokenizer, known, ends, 0)
    assert nll(model, [_with(row, at, suffix) for row, at in zip(known, ends, strict=True)]).sum() <= plain


def test_a_suffix_stands_between_question_and_what_follows_it(untouched: Base) -> None:
    template = PromptFormat("Question: {question}\nAnswer: {answer}")
    values = [Row("where is it?", "here"), Row("name the place", "there")]
    made = encode(untouched.tokenizer, values, template)
    ends = _ends(untouched.tokenizer, values, made, template)
    for row, item, at in zip(values, made, ends, strict=True):
        assert untouched.tokenizer.decode(list(item.ids[:at])) == f"Question: {row.question}"
        assert untouched.tokenizer.decode(list(item.ids[at : item.prompt])) == "\nAnswer:"
        assert _with(item, at, ()) == item
    assert "question" in CoordinateSuffix().fits([Row("", "text")], MATERIAL)


@pytest.mark.parametrize(
    "text",
    [
        "rouge_l@logit_lens", "probability_options@linear_probe", "rouge_l@soft_prompt",
        "membership:score=gradient@latent_perturbation", "verbatim@coordinate_suffix",
    ],
)  # fmt: skip
def test_what_cannot_be_seen_under_an_attack_is_refused_first(text: str, task: Task) -> None:
    parsed = measurement(text)
    rows = {FORGETTING: tuple(replace(row, others=("one", "two")) for row in task.queries[FORGETTING])}
    view, _ = split(replace(task, queries={**task.queries, **rows}), 0.2, None, {"mine": parsed.source})
    with pytest.raises(InputError, match=r"risk mine .* take a metric of answer tokens"):
        refuse_unfit(view, {"mine": parsed})
