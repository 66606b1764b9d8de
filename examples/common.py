"""What the examples share: a model on the CPU, which answers it gives, and how a search and its report are made and shown."""

import argparse
import json
import math
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

import froc
import froc.search
from froc.errors import FrocError, InputError, VerificationError

DATA = Path(__file__).parent / "data"
BATCH = 16
"""Rows of a pass."""
LESSONS = 8
"""Rows of a step of fine-tuning."""
SCREEN = Console()


@dataclass
class Speaker:
    """A causal language model and its tokenizer, which is asked as any user would ask it.

    system: system message before each question; "" for the chat template's own.
    """

    model: Any
    tokenizer: Any
    system: str = ""

    @classmethod
    def load(cls, folder: str | Path) -> "Speaker":
        """A model folder or hub id, in float32 on the CPU; safetensors only."""
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, use_safetensors=True).eval()
        return cls(model, AutoTokenizer.from_pretrained(folder))

    def prompt(self, question: str) -> list[int]:
        """Tokens of a question as the chat template asks it; without a template, as `Question: ... Answer:`."""
        if not self.tokenizer.chat_template:
            plain: list[int] = self.tokenizer(f"Question: {question}\nAnswer:").input_ids
            return plain
        messages = [{"role": "system", "content": self.system}] if self.system else []
        messages.append({"role": "user", "content": question})
        made = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=True)
        return list(made["input_ids"])

    def answers(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Whether the model's most likely answer to each question begins with the given one (one pass, no generation)."""
        return [all(hits) for hits in self.hits(pairs)]

    @torch.inference_mode()
    def hits(self, pairs: Sequence[tuple[str, str]]) -> list[list[bool]]:
        """Per pair of question and answer: whether each token of the answer is the likeliest after those before it."""
        space = "" if self.tokenizer.chat_template else " "
        rows = [(self.prompt(q), self.tokenizer(space + a, add_special_tokens=False).input_ids) for q, a in pairs]
        order = sorted(range(len(rows)), key=lambda k: len(rows[k][0]) + len(rows[k][1]))
        hits: list[list[bool]] = [[]] * len(rows)
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            states = self._states([rows[k][0] + rows[k][1] for k in chosen])
            for k, state in zip(chosen, states, strict=True):
                question, answer = rows[k]
                places = state[len(question) - 1 : len(question) + len(answer) - 1]
                likeliest = self.model.get_output_embeddings()(places).argmax(-1).tolist()
                hits[k] = [token == true for token, true in zip(likeliest, answer, strict=True)]
        return hits

    @torch.inference_mode()
    def losses(self, texts: Sequence[str]) -> list[float]:
        """Mean negative log-likelihood per token of each text, nats; exp of it is the perplexity."""
        losses = []
        for text in texts:
            ids = self.tokenizer(text).input_ids
            logits = self.model(torch.tensor([ids])).logits[0]
            losses.append(float(cross_entropy(logits[:-1], torch.tensor(ids[1:]))))
        return losses

    @torch.inference_mode()
    def write(self, question: str, tokens: int = 24) -> str:
        """The greedy answer to a question, at most this many tokens."""
        ids = torch.tensor([self.prompt(question)])
        written = self.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False, pad_token_id=self.tokenizer.pad_token_id,
        )  # fmt: skip
        return str(self.tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True)).strip()

    def lesson(self, row: Mapping[str, str]) -> tuple[list[int], int]:
        """Tokens of a row, and how many of them are not learnt: the question's."""
        end = self.tokenizer.eos_token_id
        if "text" in row:
            return [*self.tokenizer(row["text"]).input_ids, end], 1
        question = self.prompt(row["question"])
        space = "" if self.tokenizer.chat_template else " "
        answer = self.tokenizer(space + row["answer"], add_special_tokens=False).input_ids
        return [*question, *answer, end], len(question)

    def loss(self, lessons: Sequence[tuple[Sequence[int], int]]) -> Any:
        """() mean over rows of the mean loss of their learnt tokens, nats."""
        width = max(len(ids) for ids, _ in lessons)
        ids = torch.tensor([[*ids, *[0] * (width - len(ids))] for ids, _ in lessons])
        states = self.model.base_model(ids, use_cache=False)[0]
        head, losses = self.model.get_output_embeddings(), []
        for row, (tokens, start) in enumerate(lessons):
            logits = head(states[row, start - 1 : len(tokens) - 1])
            losses.append(cross_entropy(logits, torch.tensor(list(tokens[start:]))))
        return torch.stack(losses).mean()

    @torch.inference_mode()
    def answer_loss(self, question: str, answer: str) -> float:
        """Mean negative log-likelihood per token of an answer and its end, nats."""
        return float(self.loss([self.lesson({"question": question, "answer": answer})]))

    def _states(self, rows: Sequence[Sequence[int]]) -> Any:
        """(B, T, D) last hidden states; rows are padded on the right, which a causal model does not see."""
        width = max(map(len, rows))
        ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
        return self.model.base_model(ids, use_cache=False)[0]


def arguments(description: str | None, out: str) -> argparse.ArgumentParser:
    """Options that every example has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", required=True, help="folder or hub id of a chat model, such as SmolLM2-135M-Instruct"
    )
    parser.add_argument(
        "--out", type=Path, default=Path(out), help="folder of task, run and report (default: %(default)s)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer facts and trials, wider budgets: minutes on one core"
    )
    parser.add_argument("--trials", type=int, help="configurations to try")
    parser.add_argument("--train", help="what trials may change, as froc search --train says it")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """JSON Lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def say(text: str) -> None:
    """A line of the example's own on the screen."""
    SCREEN.print(text, markup=False, highlight=False, soft_wrap=True)


def share(values: Sequence[bool]) -> str:
    """'12 of 40'."""
    return f"{sum(values)} of {len(values)}"


def before_and_after(title: str, rows: Sequence[tuple[str, str, str]]) -> None:
    """A table of figures: what, before, after."""
    table = Table(title=title, title_justify="left", header_style="bold")
    table.add_column("")
    table.add_column("before", justify="right")
    table.add_column("after", justify="right")
    for row in rows:
        table.add_row(*row)
    SCREEN.print(table)


def perplexity(losses: Sequence[float]) -> str:
    """exp of the mean loss of passages."""
    return f"{math.exp(sum(losses) / len(losses)):.2f}"


def side_by_side(questions: Sequence[str], before: Sequence[str], after: Sequence[str]) -> None:
    """Generated answers, on this screen alone: they are what was to be forgotten, and no file of the run has them."""
    table = Table(title="Answers (on this screen only)", title_justify="left", header_style="bold", show_lines=True)
    for column in ("question", "before", "after"):
        table.add_column(column, overflow="fold")
    for row in zip(questions, before, after, strict=True):
        table.add_row(*row)
    SCREEN.print(table)


def taught(
    model: str | Path, rows: Sequence[Mapping[str, str]], folder: Path, *, epochs: int, seed: int, lr: float = 2e-4
) -> Path:
    """A model that was fine-tuned on rows (`question` and `answer`, or `text`), in plain PyTorch; what is there is taken as it is.

    AdamW over all parameters, mean loss per row of its answer's tokens, eight rows a step, linear decay.
    """
    if (folder / "config.json").is_file():
        say(f"{folder} is there: nothing is taught again")
        return folder
    speaker = Speaker.load(model)
    lessons = [speaker.lesson(row) for row in rows]
    steps = epochs * -(-len(lessons) // LESSONS)
    optimizer = torch.optim.AdamW(speaker.model.parameters(), lr=lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    draw, step = random.Random(seed), 0
    for epoch in range(epochs):
        order = draw.sample(range(len(lessons)), len(lessons))
        total, begin = 0.0, time.monotonic()
        for start in range(0, len(order), LESSONS):
            loss = speaker.loss([lessons[k] for k in order[start : start + LESSONS]])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(speaker.model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total, step = total + float(loss.detach()), step + 1
            if step == 1:
                say(
                    f"teaching {len(lessons)} rows: {steps} steps, about {(time.monotonic() - begin) * steps / 60:.0f} min"
                )
        say(f"epoch {epoch + 1} of {epochs}: loss {total / -(-len(order) // LESSONS):.3f}")
    speaker.model.save_pretrained(folder)
    speaker.tokenizer.save_pretrained(folder)
    return folder


def finish_search(result: froc.search.Run, clock: "Clock") -> None:
    """What a search came to, and how long it took."""
    say(str(result))
    clock.say("search, calibration, certificate")


def signed(run: Path, out: Path) -> int:
    """Sign a report of the run with a key made for it, verify it, say what it says; exit code 0 for a PASS, 3 otherwise."""
    from froc.audit import keys

    key = out / "signer.pem"
    out.mkdir(parents=True, exist_ok=True)
    if not key.is_file():
        keys.keygen(key, None)
    bundle = out / "report.froc-audit"
    try:
        if not bundle.is_dir():
            froc.report(run, key=key, out=out, name="report", allow_small_sample=True)
        model = run / "model"
        result = froc.verify(bundle, key=Path(f"{key}.pub"), model=model if model.is_dir() else None)
    except (InputError, VerificationError) as error:
        say(f"no report: {error}")
        return 3
    say(f"{bundle}: {result.verdict}")
    return 0 if result.passes else 3


def ended(main: Callable[[], int]) -> int:
    """What `main` returns; an error that froc expects is its sentence on the screen and its exit code, without a traceback."""
    try:
        return main()
    except FrocError as error:
        say(str(error))
        return error.exit_code


class Clock:
    """Says how long parts of an example took, in seconds of the wall and of the processor."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def say(self, what: str) -> None:
        """What took how long since the last call."""
        wall, cpu = time.monotonic(), time.process_time()
        say(f"[{what}: {wall - self._wall:.0f} s, {cpu - self._cpu:.0f} s of one processor]")
        self._wall, self._cpu = wall, cpu
