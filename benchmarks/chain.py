"""From the raw row to the claim: does any accident of input yield a certificate for a model that still knows?

    python benchmarks/chain.py [--quick] [--seed 0]

The model to be certified is the base model itself, which knows every answer. Its task is spoilt at random, as files from elsewhere
are: prompts, blanks, Unicode, duplicates, groups, file formats, what the tokenizer adds. Loss tables and logs of other tools about a
model that still knows nine answers of ten are spoilt likewise: missing and infinite scores, scales, ids, delimiters, duplicates. Each may end
in a refusal, or in a certificate that certifies nothing; never in `certified`.
"""

import argparse
import json
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from froc.certification.certify import certify
from froc.data.tasks import embedded_text
from froc.errors import InputError
from froc.search import build
from froc.search.external_model import ExternalModel
from froc.search.machine import Machine
from froc.search.pipeline import run
from froc.search.settings import Settings

MODEL = Path(__file__).resolve().parents[1] / "tests" / "data" / "small-model"
RECIPE = embedded_text.Recipe(
    people=8, forgotten=2, steps=300, width=64, layers=2, queries=150, vocabulary=600, lr=5e-3, batch=32
)
"""What that model was taught."""
Rows = list[dict[str, Any]]
Files = dict[str, Rows]


class Quiet:
    """A listener that says nothing."""

    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda *_args: None


@dataclass
class Spoilt:
    """A task folder on its way to disk. files: name -> rows; ending: of lines; toml: lines of task.toml; tokenizer: settings of
    the model's tokenizer; suffix: of the files."""

    files: Files
    rng: random.Random
    ending: str = "\n"
    mark: bytes = b""
    toml: tuple[str, ...] = ()
    tokenizer: dict[str, Any] | None = None
    suffix: str = "jsonl"


def _each(spoilt: Spoilt, change: Callable[[dict[str, Any]], None], share: float = 1.0) -> None:
    for rows in spoilt.files.values():
        for row in rows:
            if spoilt.rng.random() < share:
                change(row)


def answers_end_in(tail: str, share: float = 1.0) -> Callable[[Spoilt], None]:
    """Stray text behind answers."""
    return lambda spoilt: _each(spoilt, lambda row: row.update(answer=row["answer"] + tail), share)


def answers_begin_with(head: str) -> Callable[[Spoilt], None]:
    """Stray text before answers."""
    return lambda spoilt: _each(spoilt, lambda row: row.update(answer=head + row["answer"]))


def questions_as(change: Callable[[str], str]) -> Callable[[Spoilt], None]:
    """Questions written otherwise."""
    return lambda spoilt: _each(spoilt, lambda row: row.update(question=change(row["question"])))


def template(text: str) -> Callable[[Spoilt], None]:
    """Another prompt than the model was taught with."""

    def spoil(spoilt: Spoilt) -> None:
        spoilt.toml += (f"template = {json.dumps(text)}",)

    return spoil


def written(**how: Any) -> Callable[[Spoilt], None]:
    """Files written otherwise."""

    def spoil(spoilt: Spoilt) -> None:
        for name, value in how.items():
            setattr(spoilt, name, value)

    return spoil


def chat(text: str) -> Callable[[Spoilt], None]:
    """A chat template that the model was never taught."""
    return written(tokenizer={"chat_template": text})


def messages(spoilt: Spoilt) -> None:
    """Rows as chats."""
    for rows in spoilt.files.values():
        rows[:] = [
            {
                "messages": [
                    {"role": "user", "content": row["question"]},
                    {"role": "assistant", "content": row["answer"]},
                ]
            }
            for row in rows
        ]


def renamed(question: str, answer: str) -> Callable[[Spoilt], None]:
    """Columns under other names."""

    def spoil(spoilt: Spoilt) -> None:
        for rows in spoilt.files.values():
            rows[:] = [{question: row["question"], answer: row["answer"]} for row in rows]

    return spoil


def repeated(spoilt: Spoilt) -> None:
    """Rows that stand twice, with a blank more."""
    rows = spoilt.files["forget_queries"]
    rows += [row | {"question": row["question"] + " "} for row in spoilt.rng.sample(rows, 20)]


def regrouped(spoilt: Spoilt) -> None:
    """One group for all, or groups in other words."""
    _each(spoilt, lambda row: row.update(group=spoilt.rng.choice(["", "a", "A ", None])))


def shuffled(spoilt: Spoilt) -> None:
    """Answers at other questions: a model that knows all of them gives none of these."""
    for rows in spoilt.files.values():
        answers = [row["answer"] for row in rows]
        spoilt.rng.shuffle(answers)
        for row, answer in zip(rows, answers, strict=True):
            row["answer"] = answer


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TASKS: dict[str, Callable[[Spoilt], None]] = {
    "answers end in a newline": answers_end_in("\n"),
    "answers end in a blank": answers_end_in("  "),
    "answers end in an emoji": answers_end_in(" \U0001f642"),
    "answers end in a joiner": answers_end_in("\u200d"),
    "some answers end in a tab": answers_end_in("\t", 0.6),
    "answers begin with a newline": answers_begin_with("\n"),
    "answers begin with blanks": answers_begin_with("   "),
    "answers in capitals": lambda spoilt: _each(spoilt, lambda row: row.update(answer=row["answer"].upper())),
    "questions in capitals": questions_as(str.upper),
    "questions end in a newline": questions_as(lambda text: text + "\n"),
    "questions in full width": questions_as(lambda text: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)),
    "another template": template("Q: {question} A: {answer}"),
    "no template": template("{question}{answer}"),
    "a template with a newline": template("Question: {question}\nAnswer:\n{answer}"),
    "a chat template": chat(CHATML),
    "a chat template that trims": chat(CHATML.replace("m['content']", "m['content']|trim")),
    "rows as chats": messages,
    "prompt and completion": renamed("prompt", "completion"),
    "instruction and output": renamed("instruction", "output"),
    "unknown columns": renamed("ask", "say"),
    "lines end in CR LF": written(ending="\r\n"),
    "a byte order mark": written(mark=b"\xef\xbb\xbf"),
    "files of CSV": written(suffix="csv"),
    "rows repeated": repeated,
    "groups renamed": regrouped,
    "answers shuffled": shuffled,
}  # fmt: skip


def spoilt_task(rng: random.Random, folder: Path) -> tuple[str, Path, Path]:
    """A task and a model that were spoilt once or twice: how, and where they are."""
    task = embedded_text.task(RECIPE, rng.randrange(10**6))
    lists = {"forget": task.forget, "retain": task.retain}
    lists |= {"forget_queries": task.queries["forgetting"], "retain_queries": task.queries["utility"]}
    files = {
        name: [{"question": r.question, "answer": r.answer, "group": r.group} for r in rows]
        for name, rows in lists.items()
    }
    spoilt = Spoilt(files, rng)
    names = rng.sample(list(TASKS), rng.choice([1, 1, 2]))
    for name in sorted(names, key=list(TASKS).index):
        try:
            TASKS[name](spoilt)
        except KeyError:  # the rows have other columns by now
            continue
    place = folder / "task"
    place.mkdir()
    for name, rows in spoilt.files.items():
        if spoilt.suffix == "csv":
            pl.DataFrame([{k: v for k, v in row.items() if not isinstance(v, list)} for row in rows]).write_csv(
                place / f"{name}.csv"
            )
        else:
            text = spoilt.ending.join(json.dumps(row, ensure_ascii=rng.random() < 0.5) for row in rows) + spoilt.ending
            (place / f"{name}.jsonl").write_bytes(spoilt.mark + text.encode("utf-8", "surrogatepass"))
    (place / "task.toml").write_text("\n".join(['name = "spoilt"', *spoilt.toml]) + "\n")
    model = Path(shutil.copytree(MODEL, folder / "model"))
    if spoilt.tokenizer:
        path = model / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | spoilt.tokenizer))
    return " + ".join(names), place, model


def of_task(rng: random.Random, folder: Path) -> tuple[str, str]:
    """How a task was spoilt, and what certifying its base model as unlearned came to."""
    name, task, model = spoilt_task(rng, folder)
    settings = Settings(
        {"forgetting": 0.3, "utility": 0.3}, trials=1, candidates=1, sampler="random", pruner="none", sweep=False
    )
    try:
        machine = Machine("cpu", executor="inline")
        inputs = build.Inputs(task, str(model), unit={"utility": "query"})
        job = build.build_job(settings, inputs, machine, lambda *_: None)
        document = run(replace(job, external=ExternalModel(model), space={}), folder / "run", Quiet())
    except InputError as error:
        return name, f"refused: {str(error)[:70]}"
    return name, "CERTIFIED" if document["chosen"] or document["certified"] else "not certified"


def table(rng: random.Random) -> pl.DataFrame:
    """Losses of two risks of a model that still knows nine answers of ten."""
    rows = [
        {"config": "a", "risk": risk, "query": f"{risk}{i}", "loss": float(rng.random() < rate) if rng.random() < 0.7 else rng.uniform(max(0.0, rate - 0.1), min(1.0, rate + 0.1))}
        for risk, rate in (("forgetting", 0.9), ("utility", 0.05))
        for i in range(200)
    ]  # fmt: skip
    return pl.DataFrame(rows)


def _replaced_losses(rng: random.Random, frame: pl.DataFrame, value: float | None, share: float) -> pl.DataFrame:
    picked = pl.Series([rng.random() < share for _ in range(len(frame))])
    return frame.with_columns(loss=pl.when(picked).then(pl.lit(value, pl.Float64)).otherwise(pl.col("loss")))


TABLES: dict[str, Callable[[random.Random, pl.DataFrame], pl.DataFrame]] = {
    "some losses are no number": lambda rng, t: _replaced_losses(rng, t, float("nan"), 0.5),
    "some losses are missing": lambda rng, t: _replaced_losses(rng, t, None, 0.5),
    "some losses are infinite": lambda rng, t: _replaced_losses(rng, t, float("inf"), 0.3),
    "some losses are below zero": lambda rng, t: _replaced_losses(rng, t, -1.0, 0.9),
    "in per cent": lambda _, t: t.with_columns((pl.col("loss") * 100).round().cast(pl.Int64)),
    "of ten": lambda _, t: t.with_columns((pl.col("loss") * 10).round().cast(pl.Int64)),
    "one to five": lambda _, t: t.with_columns((pl.col("loss") * 4 + 1).round().cast(pl.Int64)),
    "whole 0 and 1": lambda _, t: t.with_columns(pl.col("loss").round().cast(pl.Int64)),
    "whole 0 and 1 as text": lambda _, t: t.with_columns(pl.col("loss").round().cast(pl.Int64).cast(pl.String)),
    "ids renamed": lambda rng, t: t.with_columns(query=pl.Series(rng.sample(range(10**9), len(t))).cast(pl.String)),
    "ids repeated": lambda _, t: pl.concat([t, t.filter(pl.col("loss") < 0.5)]),
    "ids that differ by a blank": lambda _, t: t.with_columns(query=pl.col("query") + " "),
    "capital columns": lambda _, t: t.rename(str.upper),
    "another order": lambda _, t: t.sort("loss"),
}  # fmt: skip


def of_table(rng: random.Random, folder: Path) -> tuple[str, str]:
    """How a table was spoilt, and what certifying it came to."""
    name = rng.choice(list(TABLES))
    path = folder / f"losses.{rng.choice(['csv', 'parquet', 'jsonl'])}"
    frame = TABLES[name](rng, table(rng))
    if path.suffix == ".csv":
        frame.write_csv(
            path,
            separator=rng.choice([",", ";", "\t"]),
            include_bom=rng.random() < 0.5,
            line_terminator=rng.choice(["\n", "\r\n"]),
        )
    elif path.suffix == ".parquet":
        frame.write_parquet(path)
    else:
        frame.write_ndjson(path)
    try:
        certificate = certify(path, 0.3).document
    except InputError as error:
        return name, f"refused: {str(error)[:70]}"
    return name, "CERTIFIED" if certificate["chosen"] or certificate["certified"] else "not certified"


def of_log(rng: random.Random, folder: Path) -> tuple[str, str]:
    """An OpenUnlearning log of a model that still knows, spoilt, and what certifying it came to."""
    n = 150
    scores: dict[str, list[Any]] = {
        "forget_knowmem_ROUGE": [rng.uniform(0.8, 1.0) for _ in range(n)],
        "retain_knowmem_ROUGE": [rng.uniform(0.8, 1.0) for _ in range(n)],
    }
    kinds = ("as it is", "no numbers", "missing", "another mean reported", "rows left out", "in per cent")
    kind = rng.choice(kinds)
    log: dict[str, Any] = {}
    for name, values in scores.items():
        shown: list[Any] = list(values)
        if kind == "no numbers":
            shown = [float("nan") if rng.random() < 0.6 else v for v in values]
        if kind == "missing":
            shown = [None if rng.random() < 0.6 else v for v in values]
        if kind == "in per cent":
            shown = [100 * v for v in values]
        mean = sum(values) / n
        log[name] = {
            "agg_value": 1 - mean if kind == "another mean reported" else mean,
            "value_by_index": {
                str(i): {"rougeL_recall": v}
                for i, v in enumerate(shown)
                if kind != "rows left out" or rng.random() < 0.7
            },
        }
    place = folder / "unlearned"
    place.mkdir()
    (place / "TOFU_EVAL.json").write_text(json.dumps(log))
    rules = {"forgetting": "forget_knowmem_ROUGE", "utility": "1-retain_knowmem_ROUGE"}
    try:
        certificate = certify(place, 0.3, format="open-unlearning", loss=rules, named_beforehand=True).document
    except InputError as error:
        return f"log: {kind}", f"refused: {str(error)[:70]}"
    return f"log: {kind}", "CERTIFIED" if certificate["chosen"] or certificate["certified"] else "not certified"


WAYS: Sequence[Callable[[random.Random, Path], tuple[str, str]]] = (of_task, of_table, of_log)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    seen: Counter[str] = Counter()
    lies = []
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(40 if arguments.quick else 200):
            rng = random.Random(f"{arguments.seed} {number}")
            folder = Path(scratch) / str(number)
            folder.mkdir()
            os.environ["FROC_STATE"] = str(folder / "state")
            name, end = WAYS[(0, 0, 1, 0, 2)[number % 5]](rng, folder)
            seen[end.partition(":")[0]] += 1
            lies += [f"{number}: {name}"] if end == "CERTIFIED" else []
            print(f"{number:>4}  {name:<60} {end}", flush=True)
            shutil.rmtree(folder)
    print("\n" + ", ".join(f"{count} {end}" for end, count in seen.most_common()))
    for lie in lies:
        print(f"a model that still knows was certified: {lie}")
    print(json.dumps({"certified though it knows": {"value": len(lies), "goal": "0", "holds": not lies}}))


if __name__ == "__main__":
    main()
