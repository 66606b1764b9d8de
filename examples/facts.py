"""Remove facts that a pretrained model really knows: the capitals of about sixty countries.

Everything else is to stay: other capitals, capitals of US states, languages, chemical symbols, opposites (trained on to be kept),
and kinds of facts that the unlearning step never sees (plurals, authors, currencies). Only what the model answers before is used,
since what is not there can be neither removed nor lost. Wordings that are measured are never trained on.

    python examples/facts.py --model models/smollm2 [--quick] [--out facts]

Prints what changed, three answers before and after on this screen only, and ends in a signed report: PASS, or an honest FAIL.
"""

import argparse
import random
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import (
    DATA,
    Clock,
    Speaker,
    arguments,
    before_and_after,
    ended,
    finish_search,
    perplexity,
    say,
    share,
    side_by_side,
    signed,
    write_rows,
)

import froc.search

REMOVED = "capitals"
KEPT = ("capitals", "states", "languages", "elements", "opposites")
UNLISTED = ("plurals", "books", "currencies")
"""Kinds that are measured and never trained on."""
LARGEST = {"removed": 60, "kept": 60, "instructions": 24}
QUICK = {"removed": 30, "kept": 12, "instructions": 12}
"""How many facts to remove, of each kind to keep, and instructions."""


@dataclass(frozen=True)
class Fact:
    """One fact. trained, measured: (question, answer) in each wording; no wording is in both."""

    kind: str
    subject: str
    trained: tuple[tuple[str, str], ...]
    measured: tuple[tuple[str, str], ...]

    def rows(self, pairs: Sequence[tuple[str, str]], end: str = "") -> list[dict[str, str]]:
        """Rows of a task folder, one per wording."""
        return [{"question": q, "answer": a + end, "group": f"{self.kind}: {self.subject}"} for q, a in pairs]


def facts(seed: int) -> dict[str, list[Fact]]:
    """kind -> its facts in an order drawn by `seed`."""
    kinds: Mapping[str, Any] = tomllib.loads((DATA / "facts.toml").read_text(encoding="utf-8"))
    made: dict[str, list[Fact]] = {}
    for kind, entry in kinds.items():
        pairs = [line.split(" = ") for line in entry["facts"].strip().splitlines()]
        random.Random(f"{seed} {kind}").shuffle(pairs)
        made[kind] = [
            Fact(
                kind,
                subject,
                *(_worded(entry[part], entry["answer"], subject, name) for part in ("trained", "measured")),
            )
            for subject, name in pairs
        ]
    return made


def _worded(wordings: Sequence[str], answer: str, subject: str, name: str) -> tuple[tuple[str, str], ...]:
    return tuple((wording.format(subject), answer.format(subject, name)) for wording in wordings)


def known(speaker: Speaker, candidates: Sequence[Fact], most: int) -> list[Fact]:
    """The first facts that the model answers in a wording of each kind, in these wordings; how many were dropped is printed.

    Of a kind that it knows little of, at most four times as many are asked.
    """
    kept: list[Fact] = []
    n_tried, limit = 0, min(4 * most, len(candidates))
    while len(kept) < most and n_tried < limit:
        part = candidates[n_tried:limit][: 2 * (most - len(kept))]
        n_tried += len(part)
        pairs = [pair for fact in part for pair in (*fact.trained, *fact.measured)]
        right = dict(zip(pairs, speaker.answers(pairs), strict=True))
        for fact in part:
            trained, measured = (tuple(p for p in wordings if right[p]) for wordings in (fact.trained, fact.measured))
            if trained and measured:
                kept.append(Fact(fact.kind, fact.subject, trained, measured))
    say(f"{candidates[0].kind}: {n_tried} asked, {len(kept)} answered in both wordings, {n_tried - len(kept)} dropped")
    return kept[:most]


@dataclass(frozen=True)
class Request:
    """What is removed, what is kept and trained on, what is kept and only measured.

    replies: instructions -> what the model answers before; every other one is trained on, so that it goes on to answer like that.
    """

    removed: Sequence[Fact]
    kept: Sequence[Fact]
    unlisted: Sequence[Fact]
    replies: Mapping[str, str]

    def write(self, folder: Path, model: str) -> None:
        """The task folder of `froc search`."""
        write_rows(folder / "forget.jsonl", [row for fact in self.removed for row in fact.rows(fact.trained, ".")])
        general = [{"question": q, "answer": a, "group": "general"} for q, a in list(self.replies.items())[::2]]
        write_rows(folder / "retain.jsonl", [row for f in self.kept for row in f.rows(f.trained, ".")] + general)
        # the last token of what is measured is the name's: a full stop that follows a wrong name is no knowledge
        write_rows(folder / "forget_queries.jsonl", [row for fact in self.removed for row in fact.rows(fact.measured)])
        others = [row for fact in (*self.kept, *self.unlisted) for row in fact.rows(fact.measured)]
        write_rows(folder / "retain_queries.jsonl", others)
        (folder / "task.toml").write_text(
            f'name = "capitals"\nmodel = "{Path(model).resolve() if Path(model).is_dir() else model}"\n'
            '[units]\nforgetting = "group"\nutility = "query"\n',
            encoding="utf-8",
        )


def prepare(speaker: Speaker, sizes: Mapping[str, int], seed: int) -> Request:
    """Ask the model and divide what it knows."""
    by_kind = facts(seed)
    count = sizes["removed"]
    capitals = known(speaker, by_kind[REMOVED], count + sizes["kept"])
    kept = capitals[count:]
    for kind in KEPT[1:]:
        kept += known(speaker, by_kind[kind], sizes["kept"])
    unlisted = [fact for kind in UNLISTED for fact in known(speaker, by_kind[kind], sizes["kept"])]
    written = {prompt: _sentences(speaker.write(prompt, 32)) for prompt in instructions(sizes["instructions"])}
    return Request(capitals[:count], kept, unlisted, {prompt: reply for prompt, reply in written.items() if reply})


def _sentences(text: str) -> str:
    """Its whole sentences, or all where it has none."""
    return text[: 1 + max(text.rfind(end) for end in ".!?")] or text


def passages() -> list[str]:
    """Public-domain texts; where each comes from stands in the file."""
    entries = tomllib.loads((DATA / "passages.toml").read_text(encoding="utf-8"))["passage"]
    return [entry["text"] for entry in entries]


def instructions(most: int) -> list[str]:
    """Prompts that have nothing to do with the facts."""
    return (DATA / "instructions.txt").read_text(encoding="utf-8").splitlines()[:most]


@dataclass(frozen=True)
class Behaviour:
    """What a model does beside the certified queries.

    right: kind -> whether each measured question is answered. losses: of the passages, nats per token. followed: whether it
    continues the base model's answer to each unlisted instruction: for each of its tokens, whether it is the likeliest.
    """

    right: Mapping[str, list[bool]]
    losses: list[float]
    followed: list[bool]


def behaviour(speaker: Speaker, request: Request) -> Behaviour:
    """Measure a model."""
    by_kind: dict[str, list[tuple[str, str]]] = {"capitals to remove": [p for f in request.removed for p in f.measured]}
    for fact in request.kept:
        by_kind.setdefault(f"{fact.kind} to keep", []).extend(fact.measured)
    for fact in request.unlisted:
        by_kind.setdefault(f"{fact.kind}, never trained on", []).extend(fact.measured)
    right = {kind: speaker.answers(pairs) for kind, pairs in by_kind.items()}
    followed = [hit for hits in speaker.hits(list(request.replies.items())[1::2]) for hit in hits]
    return Behaviour(right, speaker.losses(passages()), followed)


def shown(before: Behaviour, after: Behaviour) -> None:
    """The table of what changed."""
    rows = [(f"{kind}: answered", share(before.right[kind]), share(after.right[kind])) for kind in before.right]
    rows.append((f"perplexity of {len(before.losses)} passages", perplexity(before.losses), perplexity(after.losses)))
    rows.append(("words of answers to other instructions, as before", share(before.followed), share(after.followed)))
    before_and_after("Beside the certificate (not certified)", rows)


def main() -> int:
    """Prepare, search, show, sign; 0 for a PASS, 3 otherwise."""
    options = _options()
    sizes = QUICK if options.quick else LARGEST
    clock, speaker = Clock(), Speaker.load(options.model)
    request = prepare(speaker, sizes, options.seed)
    task, run = options.out / "task", options.out / "run"
    request.write(task, options.model)
    before = behaviour(speaker, request)
    questions = [fact.measured[0][0] for fact in (*request.removed[:2], request.kept[-1])]
    answers = [speaker.write(question) for question in questions]
    del speaker.model
    clock.say("data and behaviour before")
    budget = {"forgetting": 0.3, "utility": 0.3} if options.quick else {"forgetting": 0.2, "utility": 0.2}
    result = froc.search.run(
        budget, task=task, out=run, methods=["npo", "simnpo", "grad_diff"], trials=options.trials or (4 if options.quick else 12),
        train=options.train or "layers:last=8", seed=options.seed, until="certified",
    )  # fmt: skip
    finish_search(result, clock)
    if result.model is not None:
        speaker = Speaker.load(result.model)
        shown(before, behaviour(speaker, request))
        side_by_side(questions, answers, [speaker.write(question) for question in questions])
        clock.say("behaviour after")
    return signed(run, options.out)


def _options() -> argparse.Namespace:
    return arguments(__doc__, "facts").parse_args()


if __name__ == "__main__":
    raise SystemExit(ended(main))
