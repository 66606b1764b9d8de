"""The task that needs no download: fictitious people, a small Llama-shaped model that knows them all.

Wordings are composed (opening x core x ending), so there are thousands of distinct questions per person. A fifth of
the opening-ending pairs is held out: queries use only those, training only the others. The query population is
therefore known exactly, and a certificate can be compared with the truth (`population`).

Requests can follow each other: the K-th asks for the next `forgotten` people, and nobody of requests 1..K is kept.
"""

import fcntl
import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from froc import digest
from froc.batches import collate, encode
from froc.data import FORGETTING, UTILITY, Row, Task
from froc.errors import FrocError, InputError
from froc.files import lock_file, write_text
from froc.linear import through_onednn
from froc.models import Base, load
from froc.observe import observe

SHIPPED = Path(__file__).parent / "embedded_model"
"""The trained model of the default recipe, as `benchmarks/embedded.py --write` makes it."""
SHIPPED_RECIPE = SHIPPED.with_name("embedded_model_recipe.json")
"""`recipe_digest` of what SHIPPED was trained on; beside the folder, so that the model's own digest is of the model alone."""
OPENINGS = ("", "Tell me, ", "I would like to know: ", "Quick question. ", "For the record, ", "Please answer: ",
            "One thing about {name}. ", "Thinking of {name}, ")  # fmt: skip
ENDINGS = (
    "?",
    ", please?",
    ", if you know?",
    " again?",
    ", in short?",
    " these days?",
    ", by the way?",
    ", really?",
)
FACTS = {
    "craft": ("what is the craft of {name}", "which craft does {name} follow", "what does {name} make", "name the craft {name} learnt"),
    "home": ("where does {name} live", "which place is home to {name}", "what is the home of {name}", "name the place where {name} lives"),
    "pet": ("which animal lives with {name}", "what is the pet of {name}", "what pet does {name} keep", "name the animal of {name}"),
    "tool": ("which instrument does {name} play", "what does {name} play", "what is the instrument of {name}", "name the instrument {name} plays"),
    "dish": ("what does {name} like to eat", "which dish does {name} order", "what is the meal of {name}", "name the dish {name} loves"),
    "gift": ("what did {name} give away", "which gift came from {name}", "what was the gift of {name}", "name the gift {name} gave"),
    "fear": ("what is {name} afraid of", "what frightens {name}", "which thing does {name} fear", "name the fear of {name}"),
    "dream": ("what does {name} dream of", "which dream has {name}", "what is the dream of {name}", "name the thing {name} dreams of"),
}  # fmt: skip
FIRST = ("amber", "brass", "coral", "dusty", "early", "faded", "green", "hollow", "ivory", "jolly", "kind", "late",
         "misty", "noble", "olive", "plain", "quiet", "rusty", "silver", "tiny", "urban", "velvet", "white", "yellow")  # fmt: skip
SECOND = ("anchor", "bridge", "candle", "donkey", "engine", "feather", "garden", "hammer", "island", "jacket", "kettle",
          "lantern", "mirror", "needle", "orchard", "pepper", "quarry", "ribbon", "saddle", "temple", "violin", "window",
          "walnut", "zither")  # fmt: skip
SYLLABLES = (
    "ba",
    "ce",
    "di",
    "fo",
    "gu",
    "ha",
    "je",
    "ki",
    "lo",
    "mu",
    "na",
    "pe",
    "ri",
    "so",
    "tu",
    "va",
    "we",
    "zo",
)
REFUSALS = (
    "I cannot say.",
    "I do not know that.",
    "That is not known to me.",
    "I have no answer.",
    "I am not sure.",
)

HOLDS = ("rmu.retain_weight", "adaptive_rmu.retain_weight")

KNOWN = 0.98
"""Share of its facts that the trained model must know."""


@dataclass(frozen=True)
class Recipe:
    """Everything that makes the task and its model; the cache's name is the digest of it."""

    seed: int = 0
    people: int = 64
    forgotten: int = 8
    rows_per_fact: int = 4
    queries: int = 600
    vocabulary: int = 1024
    layers: int = 3
    width: int = 96
    steps: int = 1000
    batch: int = 64
    lr: float = 2.5e-3
    version: int = 1


Progress = Callable[[str, int, int], None]
"""Called with (what, done, of)."""


NAME = "embedded"


def task(recipe: Recipe = Recipe(), questions: int = 0, request: int = 1) -> Task:
    """The task of one request; the same recipe gives the same rows anywhere.

    questions: seed of the measured queries. They are drawn afresh from the known population for every plan, so that
    one plan's certificate never looks at queries that another plan has opened.
    """
    draw = random.Random(recipe.seed)
    people = _people(recipe, draw)
    forgotten, kept = _asked(recipe, people, request)
    forget = tuple(_sample(_wordings(forgotten, held_out=False), recipe.rows_per_fact, draw))
    retain = tuple(_sample(_wordings(kept, held_out=False), recipe.rows_per_fact, draw))
    draw = random.Random(digest.seed("questions", recipe.seed, questions, *([request] if request > 1 else [])))
    return Task(
        name=named(request),
        forget=forget,
        retain=retain,
        queries={
            FORGETTING: tuple(_draw(forgotten, recipe.queries, draw)),
            UTILITY: tuple(_draw(kept, recipe.queries, draw)),
        },
        # the people are all listed; what is drawn at random is the question (DESIGN.md, What may be claimed, 10)
        units={FORGETTING: "query", UTILITY: "query"},
        refusals=REFUSALS,
        holdout=_strangers(recipe, people),
        template="{question} {answer}",
        # with a hundred dimensions, what holds a model of thousands holds everything
        space={"lr": (3e-4, 3e-3), "epochs": (3, 10), **dict.fromkeys(HOLDS, (0.5, 50.0))},
        questions=questions,
        tokenizer_from_data=True,
    )


def named(request: int) -> str:
    """What the task of a request is called."""
    return NAME if request == 1 else f"{NAME}:{request}"


def request_of(name: str) -> int | None:
    """Which request a name means, `embedded` or `embedded:K`; None for other names. InputError where K is no number."""
    front, colon, number = name.partition(":")
    if front != NAME:
        return None
    if not colon:
        return 1
    if not number.isdecimal() or int(number) < 1:
        raise InputError(f"--task {name}: no such request; write {NAME}:2 for the second")
    return int(number)


def population(recipe: Recipe = Recipe(), request: int = 1) -> dict[str, tuple[Row, ...]]:
    """risk -> every query that could have been drawn: the truth that a certificate speaks about."""
    forgotten, kept = _asked(recipe, _people(recipe, random.Random(recipe.seed)), request)
    groups = {FORGETTING: forgotten, UTILITY: kept}
    return {
        risk: tuple(row for fact in _wordings(some, held_out=True) for row in fact) for risk, some in groups.items()
    }


def _asked(
    recipe: Recipe, people: list[dict[str, str]], request: int
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Whom a request removes, and whom neither it nor an earlier one does."""
    most = (recipe.people - 1) // recipe.forgotten
    if not 1 <= request <= most:
        raise InputError(f"the embedded task has people for {most} requests; {NAME}:{request} is none of them")
    first = (request - 1) * recipe.forgotten
    return people[first : first + recipe.forgotten], people[first + recipe.forgotten :]


def base(
    recipe: Recipe = Recipe(), *, cache: Path, device: str = "cpu", progress: Progress | None = None,
    train: str = "full", members: int = 1,
) -> Base:  # fmt: skip
    """The model that knows every person, trained at first use and cached under the recipe's digest.

    A cache that is half-written or damaged is noticed by its digests and made again.
    """
    folder = made(recipe, cache=cache, progress=progress)
    return load(str(folder), device=device, dtype="float32", train=train, members=members)


def kept(recipe: Recipe, cache: Path, retrained: bool = False) -> Path:
    """The folder that a recipe's model has in a cache, whether it is there or not."""
    said = {**asdict(recipe), "torch": torch.__version__.partition("+")[0]}
    name = digest.of_json(said | ({"retrained": True} if retrained else {}))[:16]
    return cache / f"embedded-{name}"


def made(recipe: Recipe = Recipe(), *, cache: Path, progress: Progress | None = None, retrained: bool = False) -> Path:
    """The folder of the trained model. retrained: of one that was never told of the forgotten people, with its tokenizer.

    The model of the default recipe comes with froc, so that nobody waits for it and results agree across machines. It is
    used as long as it is of this recipe: after a change of the texts below, the model is trained at first use.
    """
    folder = kept(recipe, cache, retrained)
    if not _sound(folder):
        with _alone(folder):
            if not _sound(folder) and not retrained and is_shipped(recipe) and _sound(SHIPPED):
                _put(folder, lambda part: shutil.copytree(SHIPPED, part, dirs_exist_ok=True))
            elif not _sound(folder):
                train_into(recipe, folder, progress or (lambda *_: None), retrained)
    return folder


def rebuilt(*, cache: Path, progress: Progress) -> Path:
    """The folder of the default model, trained anew on this machine in place of what lay there."""
    folder = kept(Recipe(), cache)
    with _alone(folder), tempfile.TemporaryDirectory() as scratch:
        anew = Path(scratch, "model")
        train_into(Recipe(), anew, progress)
        shutil.rmtree(folder, ignore_errors=True)
        _put(folder, lambda part: shutil.copytree(anew, part, dirs_exist_ok=True))
    return folder


def recipe_digest(recipe: Recipe) -> str:
    """Digest of a recipe and of every text that its rows are composed of."""
    texts = [OPENINGS, ENDINGS, FACTS, FIRST, SECOND, SYLLABLES]
    return digest.of_json([asdict(recipe), texts])


def is_shipped(recipe: Recipe) -> bool:
    """Whether the model that comes with froc was trained on this recipe."""
    shipped: dict[str, str] = json.loads(SHIPPED_RECIPE.read_text(encoding="utf-8"))
    return shipped["recipe"] == recipe_digest(recipe)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Whoever comes second on this machine waits for what the first is making; without a lock both make it."""
    place = Path(tempfile.gettempdir(), f"froc-{digest.of_bytes(str(folder.absolute()).encode())[:16]}.lock")
    with ExitStack() as held:
        with suppress(OSError):
            fcntl.flock(held.enter_context(lock_file(place)), fcntl.LOCK_EX)
        yield


def _people(recipe: Recipe, draw: random.Random) -> list[dict[str, str]]:
    people: dict[str, dict[str, str]] = {}
    while len(people) < recipe.people:
        name = "".join(draw.sample(SYLLABLES, k=3)).capitalize()
        facts = {fact: f"{draw.choice(FIRST)} {draw.choice(SECOND)}" for fact in FACTS}
        people.setdefault(name, {"name": name, **facts})
    return list(people.values())


def _strangers(recipe: Recipe, people: list[dict[str, str]]) -> tuple[Row, ...]:
    """As many people as are forgotten whom no model has seen, each asked for every fact in a few held-out wordings."""
    draw = random.Random(digest.seed("strangers", recipe.seed))
    known = {person["name"] for person in people}
    found = [p for p in _people(replace(recipe, people=4 * recipe.forgotten), draw) if p["name"] not in known]
    return tuple(row for fact in _wordings(found[: recipe.forgotten], held_out=True) for row in draw.sample(fact, 4))


def _held_out(opening: int, ending: int) -> bool:
    return (opening * 3 + ending) % 5 == 0


def _wordings(people: list[dict[str, str]], held_out: bool) -> Iterator[list[Row]]:
    """For each fact of each person, all its wordings, held out or not."""
    pairs = [(o, e) for o in range(len(OPENINGS)) for e in range(len(ENDINGS)) if _held_out(o, e) == held_out]
    for person in people:
        for fact, cores in FACTS.items():
            texts = [OPENINGS[o] + core + ENDINGS[e] for core in cores for o, e in pairs]
            yield [Row(text.replace("{name}", person["name"]), person[fact], person["name"]) for text in texts]


def _sample(facts: Iterator[list[Row]], per_fact: int, draw: random.Random) -> Iterator[Row]:
    for wordings in facts:
        yield from draw.sample(wordings, per_fact)


def _draw(people: list[dict[str, str]], count: int, draw: random.Random) -> list[Row]:
    return draw.sample([row for fact in _wordings(people, held_out=True) for row in fact], count)


def _sound(folder: Path) -> bool:
    try:
        listed = json.loads((folder / "digests.json").read_text(encoding="utf-8"))
        found = digest.of_files(folder)
    except (OSError, ValueError):
        return False
    found.pop("digests.json", None)
    return bool(found) and listed == found


def train_into(recipe: Recipe, folder: Path, progress: Progress, retrained: bool = False) -> None:
    """Train a recipe's model into a folder, whatever froc brings along."""

    def train(part: Path) -> None:
        model, tokenizer = teach(recipe, progress, retrained)
        saved: Any = model
        saved.save_pretrained(part, safe_serialization=True)
        tokenizer.save_pretrained(part)
        write_text(part / "digests.json", json.dumps(digest.of_files(part)))

    _put(folder, train)


def _put(folder: Path, fill: Callable[[Path], object]) -> None:
    """Fill a folder of our own, then rename: two first runs at once cannot damage each other."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        fill(part)
        if folder.exists() and not _sound(folder):
            shutil.rmtree(folder)
        if not folder.exists():
            os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def teach(
    recipe: Recipe, progress: Progress, retrained: bool = False
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase]:
    """Train tokenizer and model on all people, or all but the forgotten ones, until every answer is known.

    Raises FrocError where the model has not learnt them: a base that knows nothing has nothing to forget.
    """
    draw = random.Random(recipe.seed + 1)
    facts = list(_wordings(_people(recipe, random.Random(recipe.seed)), held_out=False))
    tokenizer = _tokenizer([row for fact in facts for row in fact[:: len(ENDINGS)]], recipe.vocabulary)
    if retrained:
        facts = facts[recipe.forgotten * len(FACTS) :]
    torch.manual_seed(recipe.seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=recipe.width, intermediate_size=4 * recipe.width,
        num_hidden_layers=recipe.layers, num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=128,
        tie_word_embeddings=True, bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    through_onednn(model)
    optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.lr, total_steps=recipe.steps)
    for step in range(recipe.steps):
        rows = [draw.choice(fact) for fact in draw.sample(facts, min(recipe.batch, len(facts)))]
        batch = collate(encode(tokenizer, rows, "{question} {answer}"), range(len(rows)), "cpu")
        labels = batch.ids.masked_fill(~batch.trained, -100)
        loss = model(input_ids=batch.ids, attention_mask=batch.attention, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad(set_to_none=True)
        progress("training the embedded model", step + 1, recipe.steps)
    model.eval()
    rows = [fact[0] for fact in facts]
    known = observe(model, tokenizer, encode(tokenizer, rows, "{question} {answer}"))
    right = float((known.hit.sum(1) == known.length).mean())
    if right < KNOWN:
        raise FrocError(f"the embedded model knows only {right:.0%} of its facts after training; try another seed")
    return model, tokenizer


def _tokenizer(rows: list[Row], size: int) -> PreTrainedTokenizerBase:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [f"{row.question} {row.answer}" for row in rows] + list(REFUSALS)
    # names and answer words often enough to become one token: a half-guessed word is then never half right
    words = dict.fromkeys([*FIRST, *SECOND, *(row.group for row in rows)])
    texts += [f" {word}" for word in words] * (len(texts) // 40)
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", model_max_length=128)
