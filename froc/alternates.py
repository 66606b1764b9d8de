"""Other answers that the base model itself gives to the forget rows' questions."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from froc import digest
from froc.batches import Encoded, Stack
from froc.survey import Source

if TYPE_CHECKING:
    from froc.reference import Reference

ROWS = 64


@dataclass(frozen=True)
class Alternates(Source):
    """One other answer per forget row, drawn by the task's seed."""

    wants: ClassVar[str] = "questions (alternates are generated)"

    def rows(self, reference: "Reference") -> Sequence[Encoded]:
        """See `alternates`."""
        pools = reference.pools
        return alternates(reference.base.model, pools.rows["forget"], digest.seed("alternates", pools.seed))


@torch.no_grad()
def alternates(model: PreTrainedModel, rows: Sequence[Encoded], seed: int) -> list[Encoded]:
    """One other answer per row, drawn from the model at temperature 1 with the true answer's first token ruled out.

    Each ends where the model ends it, or at half as many tokens again as the true answer has. Same seed, same answers.
    """
    draw = torch.Generator().manual_seed(seed)
    made: list[Encoded | None] = [None] * len(rows)
    order = sorted(range(len(rows)), key=lambda i: (rows[i].prompt, i))
    for _, some in groupby(order, key=lambda i: rows[i].prompt):
        # rows of equally long prompts need no padding between prompt and answer
        index = list(some)
        for start in range(0, len(index), ROWS):
            part = index[start : start + ROWS]
            for i, answer in zip(part, _written(model, [rows[i] for i in part], draw), strict=True):
                row = rows[i]
                ids = (*row.ids[: row.prompt], *answer, *_end(row))
                made[i] = Encoded(ids, row.prompt, len(answer))
    return [row for row in made if row is not None]


def _end(row: Encoded) -> tuple[int, ...]:
    return row.ids[row.prompt + row.answer :]


def _written(model: PreTrainedModel, rows: Sequence[Encoded], draw: torch.Generator) -> list[list[int]]:
    """Answers to prompts of one length."""
    device = next(model.parameters()).device
    ids = Stack([Encoded(row.ids[: row.prompt], row.prompt, 0) for row in rows], device).ids.long()
    most = [row.answer + row.answer // 2 + 1 for row in rows]
    told = torch.zeros(len(rows), 0, dtype=torch.int64)
    for step in range(max(most)):
        whole = torch.cat([ids, told.to(device)], 1)
        logits = model(input_ids=whole, use_cache=False).logits[:, -1].float().cpu()
        for k, row in enumerate(rows):
            # an answer must differ from the true one, and must not be empty
            banned = [row.ids[row.prompt], *_end(row)[:1]] if step == 0 else []
            logits[k, banned] = -torch.inf
        told = torch.cat([told, torch.multinomial(logits.softmax(-1), 1, generator=draw)], 1)
    return [_cut(answer, row, own) for answer, row, own in zip(told, rows, most, strict=True)]


def _cut(told: Tensor, row: Encoded, most: int) -> list[int]:
    answer: list[int] = told[:most].tolist()
    end = _end(row)
    return answer[: answer.index(end[0])] if end and end[0] in answer else answer
