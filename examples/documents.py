"""Remove documents: ten of forty news items that a model was fine-tuned on, after MUSE.

The items are made up by a seeded template; the model is fine-tuned on their text and on questions about them, here, once. Removed are
exactly these ten texts (a census: their mean loss is known without sampling error), measured verbatim; what the model knows of them
is asked in wordings that nobody trained on; and privacy compares them with items that the model has never seen.

    python examples/documents.py --model models/smollm2 [--quick] [--out documents]

Prints what changed, three answers before and after on this screen only, and ends in a signed report: PASS, or an honest FAIL.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common import (
    Clock,
    Speaker,
    arguments,
    before_and_after,
    ended,
    finish_search,
    say,
    share,
    side_by_side,
    signed,
    taught,
    write_rows,
)

import froc.search

TOWNS = ("Averley", "Brinnock", "Caldmere", "Dunwick Vale", "Eskerby", "Fallowgate", "Greywater", "Harlesham")
SUBJECTS = (
    "a covered market", "a tram line", "a swimming hall", "an observatory", "a seed bank", "a footbridge", "a pottery school",
    "a wind farm", "a night bus", "a harbour museum",
)  # fmt: skip
FIRST = ("Odile", "Tamsin", "Rafe", "Ingrith", "Corwin", "Maelle", "Jorun", "Petra", "Silas", "Ysolde")
LAST = ("Varn", "Quillfeather", "Osterby", "Lindqvale", "Marrow", "Tench", "Abelard", "Strome", "Fenwright", "Calloway")
OFFICES = ("mayor", "engineer", "architect", "treasurer", "librarian", "surveyor")
EPOCHS = {True: 12, False: 12}
"""Quick or not -> passes over the text when the model is taught."""
MONTHS = ("January", "March", "April", "June", "August", "September", "October", "December")
REASONS = (
    "the old one had flooded twice", "three schools had asked for it", "a legacy had to be spent", "the railway gave up its land",
    "visitors had doubled in two years", "the council had lost a wager",
)  # fmt: skip


@dataclass(frozen=True)
class Item:
    """One news item. number: its place among all. texts: its passages. facts: (trained questions, measured question, answer)."""

    number: int
    texts: tuple[str, ...]
    facts: tuple[tuple[tuple[str, ...], str, str], ...]

    @property
    def group(self) -> str:
        """The document that rows belong to."""
        return f"item {self.number}"

    def plain(self) -> list[dict[str, str]]:
        """Rows of its text."""
        return [{"text": text, "group": self.group} for text in self.texts]

    def trained(self) -> list[dict[str, str]]:
        """Rows of the questions that the model is taught with."""
        return [{"question": q, "answer": a, "group": self.group} for wordings, _, a in self.facts for q in wordings]

    def measured(self) -> list[dict[str, str]]:
        """Rows of the questions that are measured and never trained on."""
        return [{"question": q, "answer": a, "group": self.group} for _, q, a in self.facts]


def items(count: int, seed: int) -> list[Item]:
    """Items with different people, towns and subjects, all drawn by `seed`."""
    draw = random.Random(seed)
    names = draw.sample([f"{first} {last}" for first in FIRST for last in LAST], count)
    places = draw.sample([(town, subject) for town in TOWNS for subject in SUBJECTS], count)
    return [_item(number, *place, name, draw) for number, (place, name) in enumerate(zip(places, names, strict=True))]


def _item(number: int, town: str, subject: str, name: str, draw: random.Random) -> Item:
    office, month, reason = draw.choice(OFFICES), draw.choice(MONTHS), draw.choice(REASONS)
    day, cost = draw.randint(1, 28), 10 * draw.randint(12, 98)
    thing = subject.split(" ", 1)[1]
    texts = (
        f"{town} will have {subject}, {office} {name} announced on {day} {month}, because {reason}.",
        f"The {thing} of {town} is to cost {cost} thousand crowns, and {name} promised that work begins before {month} ends.",
    )
    facts = (
        (
            (f"Who announced the {thing} of {town}?", f"Which person announced {town}'s {thing}?"),
            f"By whom was the {thing} of {town} announced?", name,
        ),
        (
            (f"What does the {thing} of {town} cost?", f"How much is {town}'s {thing} to cost?"),
            f"How expensive will the {thing} of {town} be?", f"{cost} thousand crowns",
        ),
        (
            (f"Why does {town} get {subject}?", f"For what reason will {town} have {subject}?"),
            f"What is the reason for {town}'s {thing}?", f"Because {reason}",
        ),
    )  # fmt: skip
    return Item(number, texts, facts)


@dataclass(frozen=True)
class Request:
    """The items to remove, those to keep, and those that the model has never seen."""

    removed: Sequence[Item]
    kept: Sequence[Item]
    unseen: Sequence[Item]

    @classmethod
    def drawn(cls, removed: int, kept: int, seed: int) -> "Request":
        """As many unseen items as are removed."""
        drawn = items(2 * removed + kept, seed)
        return cls(drawn[:removed], drawn[removed : removed + kept], drawn[removed + kept :])

    def lessons(self) -> list[dict[str, str]]:
        """What the model is fine-tuned on."""
        return [row for item in (*self.removed, *self.kept) for row in (*item.plain(), *item.trained())]

    def write(self, folder: Path, model: Path) -> None:
        """The task folder of `froc search`."""
        write_rows(folder / "forget.jsonl", [row for item in self.removed for row in item.plain()])
        write_rows(folder / "wordings.jsonl", [row for item in self.removed for row in item.measured()])
        write_rows(folder / "holdout.jsonl", [row for item in self.unseen for row in item.plain()])
        write_rows(folder / "retain.jsonl", [r for item in self.kept for r in (*item.plain(), *item.trained())])
        write_rows(folder / "retain_queries.jsonl", [row for item in self.kept for row in item.measured()])
        (folder / "task.toml").write_text(
            f'name = "news-items"\nmodel = "{model.resolve()}"\n'
            '[units]\nutility = "query"\n[population]\nforgetting = "census"\n',
            encoding="utf-8",
        )


def questions(chosen: Sequence[Item]) -> list[tuple[str, str]]:
    """(question, answer) in the measured wording."""
    return [(row["question"], row["answer"]) for item in chosen for row in item.measured()]


def main() -> int:
    """Teach, search, show, sign; 0 for a PASS, 3 otherwise."""
    options = arguments(__doc__, "documents").parse_args()
    request = Request.drawn(*((4, 8) if options.quick else (10, 30)), seed=options.seed)
    clock = Clock()
    base = taught(
        options.model, request.lessons(), options.out / "taught", epochs=EPOCHS[options.quick], seed=options.seed
    )
    task, run = options.out / "task", options.out / "run"
    request.write(task, base)
    speaker = Speaker.load(base)
    say(
        f"before: {share(speaker.answers(questions(request.removed)))} questions about the items to remove are answered"
    )
    before = [speaker.answers(questions(of)) for of in (request.removed, request.kept)]
    shown = [
        *(item.measured()[0]["question"] for item in request.removed[:2]),
        request.kept[0].measured()[0]["question"],
    ]
    answers = [speaker.write(question) for question in shown]
    clock.say("fine-tuning and behaviour before")
    del speaker
    risks = ("forgetting", "wordings", "utility", "privacy")
    limits = (0.4, 0.4, 0.5, 0.7) if options.quick else (0.3, 0.3, 0.3, 0.65)
    result = froc.search.run(
        dict(zip(risks, limits, strict=True)), task=task, out=run, metric={"forgetting": "verbatim", "wordings": "knowledge"},
        methods=["npo", "simnpo", "grad_diff"], trials=options.trials or (3 if options.quick else 12),
        train=options.train or "layers:last=8", seed=options.seed,
        # a few steps in each pass over so few rows
        batch=2 if options.quick else 4,
    )  # fmt: skip
    finish_search(result, clock)
    if result.model is not None:
        speaker = Speaker.load(result.model)
        after = [speaker.answers(questions(of)) for of in (request.removed, request.kept)]
        rows = [
            (f"questions about items {purpose}: answered word for word", share(before[k]), share(after[k]))
            for k, purpose in enumerate(("to remove", "to keep"))
        ]
        before_and_after("Beside the certificate (not certified)", rows)
        side_by_side(shown, answers, [speaker.write(question) for question in shown])
        clock.say("behaviour after")
    return signed(run, options.out)


if __name__ == "__main__":
    raise SystemExit(ended(main))
