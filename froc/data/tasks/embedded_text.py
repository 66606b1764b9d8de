"""The text of the task that needs no download: fictitious people, questions about them, requests to forget some. Torch-free.

Wordings are composed (opening x core x ending), so there are thousands of distinct questions per person. A fifth of
the opening-ending pairs is held out: queries use only those, training only the others. The query population is
therefore known exactly, and a certificate can be compared with the truth (`population`).

Requests can follow each other: the K-th asks for the next `forgotten` people, and nobody of requests 1..K is kept.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from froc import hashing
from froc.data.task import FORGETTING, UTILITY, Row, Task
from froc.errors import InputError

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


DEFAULT_RECIPE = Recipe()
NAME = "embedded"


def task(recipe: Recipe = DEFAULT_RECIPE, questions: int = 0, request: int = 1) -> Task:
    """The task of one request; the same recipe gives the same rows anywhere.

    questions: seed of the measured queries. They are drawn afresh from the known population for every plan, so that
    one plan's certificate never looks at queries that another plan has opened.
    """
    draw = random.Random(recipe.seed)
    people = _people(recipe, draw)
    forgotten, kept = _people_of(recipe, people, request)
    forget = tuple(_sample(_wordings(forgotten, held_out=False), recipe.rows_per_fact, draw))
    retain = tuple(_sample(_wordings(kept, held_out=False), recipe.rows_per_fact, draw))
    draw = random.Random(hashing.derive_seed("questions", recipe.seed, questions, *([request] if request > 1 else [])))
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


def population(recipe: Recipe = DEFAULT_RECIPE, request: int = 1) -> dict[str, tuple[Row, ...]]:
    """risk -> every query that could have been drawn: the truth that a certificate speaks about."""
    forgotten, kept = _people_of(recipe, _people(recipe, random.Random(recipe.seed)), request)
    groups = {FORGETTING: forgotten, UTILITY: kept}
    return {
        risk: tuple(row for fact in _wordings(people, held_out=True) for row in fact) for risk, people in groups.items()
    }


def _people_of(
    recipe: Recipe, people: list[dict[str, str]], request: int
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Whom a request removes, and whom neither it nor an earlier one does."""
    most = (recipe.people - 1) // recipe.forgotten
    if not 1 <= request <= most:
        raise InputError(f"the embedded task has people for {most} requests; {NAME}:{request} is none of them")
    first = (request - 1) * recipe.forgotten
    return people[first : first + recipe.forgotten], people[first + recipe.forgotten :]


def _people(recipe: Recipe, draw: random.Random) -> list[dict[str, str]]:
    people: dict[str, dict[str, str]] = {}
    while len(people) < recipe.people:
        name = "".join(draw.sample(SYLLABLES, k=3)).capitalize()
        facts = {fact: f"{draw.choice(FIRST)} {draw.choice(SECOND)}" for fact in FACTS}
        people.setdefault(name, {"name": name, **facts})
    return list(people.values())


def _strangers(recipe: Recipe, people: list[dict[str, str]]) -> tuple[Row, ...]:
    """As many people as are forgotten whom no model has seen, each asked for every fact in a few held-out wordings."""
    draw = random.Random(hashing.derive_seed("strangers", recipe.seed))
    known = {person["name"] for person in people}
    strangers = [p for p in _people(replace(recipe, people=4 * recipe.forgotten), draw) if p["name"] not in known]
    return tuple(
        row for fact in _wordings(strangers[: recipe.forgotten], held_out=True) for row in draw.sample(fact, 4)
    )


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
