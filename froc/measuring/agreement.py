"""Whether plain generation and the measurement agree on which answers a model gives: a test of the prompt format.

The measurement uses one teacher-forced pass over tokens that froc assembles. Here the tokenizer alone renders the prompt, as for any
user of the model, and the model generates. Where the two disagree, the prompt format is wrong, and so would be all losses.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from froc.data.prompts import PromptFormat
from froc.data.rows import Row
from froc.errors import InputError
from froc.measuring.model_observation import observe
from froc.models.batches import Encoded
from froc.models.compute import without_gradients
from froc.models.generation import default_generation

CHECKED_QUERIES = 8
"""Number of queries per risk that are checked."""
TOLERATED_DISAGREEMENTS = 1
"""Number of disagreements that rounding may cause, where two tokens are equally likely."""
MAX_ANSWER_TOKENS = 64
"""Longest answer that is checked, in tokens."""


@dataclass(frozen=True)
class Disagreement:
    """A query on which generation and measurement differ.

    place: location of its row.
    measured, generated: whether the answer is given, by either.
    tokens: length of the answer, in tokens.
    length: length of the generated text, in characters.
    """

    place: str
    measured: bool
    generated: bool
    tokens: int
    length: int

    def __str__(self) -> str:
        came, wrote = ("comes" if flag else "does not come" for flag in (self.measured, self.generated))
        return f"{self.place}: by its {self.tokens} tokens the answer {came}, in {self.length} generated characters it {wrote}"


def refuse(differing: Sequence[Disagreement], n_asked: int, prompt: str) -> None:
    """InputError where more of the `n_asked` queries disagree than rounding explains. prompt: how questions are asked, in words."""
    if len(differing) > TOLERATED_DISAGREEMENTS or (differing and n_asked <= TOLERATED_DISAGREEMENTS):
        raise InputError(
            f"what the model writes and what the measurement reads disagree on {len(differing)} of {n_asked} queries ({differing[0]}): the "
            f"prompt in use is not the one that the model answers to ({prompt}); mend template, system or arguments in task.toml"
        )


def disagreements(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    encoded: Sequence[Encoded],
    form: PromptFormat,
) -> tuple[list[Disagreement], int]:
    """Those of the first questions with short answers on which generation and measurement differ, and the number checked.

    rows: the queries.
    encoded: the same queries as the measurement reads them.

    Rows of plain text have no question and are left out.
    """
    chosen = [k for k, row in enumerate(rows) if row.question and encoded[k].answer <= MAX_ANSWER_TOKENS][
        :CHECKED_QUERIES
    ]
    if not chosen:
        return [], 0
    read = [encoded[k] for k in chosen]
    observation = observe(model, None, read)
    measured = (observation.hit.sum(axis=1) == observation.length).tolist()
    texts = [_written(model, tokenizer, rows[k], form, encoded[k].answer) for k in chosen]
    differing = []
    for k, comes, text in zip(chosen, measured, texts, strict=True):
        generated = _begins(text, rows[k].answer)
        if comes != generated:
            place = rows[k].at("queries", k + 1)
            differing.append(Disagreement(place, bool(comes), generated, encoded[k].answer, len(text)))
    return differing, len(chosen)


@without_gradients()
def _written(model: Any, tokenizer: PreTrainedTokenizerBase, row: Row, form: PromptFormat, tokens: int) -> str:
    prompt = _prompt(tokenizer, row, form)
    ids = torch.tensor([prompt], device=model.device)
    room = int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or 10**6) - len(prompt)
    with default_generation(model):
        out = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=max(1, min(tokens + 4, room)),
            pad_token_id=tokenizer.pad_token_id or 0, eos_token_id=tokenizer.eos_token_id,
        )  # fmt: skip
    return str(tokenizer.decode(out[0, len(prompt) :], skip_special_tokens=True))


def _prompt(tokenizer: Any, row: Row, form: PromptFormat) -> list[int]:
    """The tokenizer's own rendering of a question, without an end-of-text token."""
    if tokenizer.chat_template:
        turns = [*row.context, ("user", row.question)]
        if form.system and turns[0][0] != "system":
            turns = [("system", form.system), *turns]
        messages = [{"role": role, "content": text} for role, text in turns]
        made = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=True, **dict(form.arguments)
        )
        return list(made["input_ids"])
    text = form.template.removesuffix("{answer}").replace("{question}", row.question).rstrip(" ")
    ids = list(tokenizer(text)["input_ids"])
    return ids[:-1] if len(ids) > 1 and ids[-1] == tokenizer.eos_token_id else ids


def _begins(text: str, answer: str) -> bool:
    """Whether a text begins with the answer as whole words: `idea` does not answer `id`."""
    rest = text.strip()
    return rest.startswith(answer.strip()) and not re.match(r"\w", rest[len(answer.strip()) :])
