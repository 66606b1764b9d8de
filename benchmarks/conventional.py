"""One unlearning trial as scripts usually do it: a process that imports, loads, trains with a Trainer, evaluates, exits.

NPO with a frozen reference model whose forward pass runs at every step (HuggingFace Trainer, dynamic padding, masks,
labels of -100 outside the answer). Nothing of froc is used and nothing is slowed on purpose: no checkpoints, no logging,
no evaluation on the way. `engine.py` starts it as a process and compares. The last line printed is one JSON document.
"""

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def started() -> float:
    """Seconds since the epoch at which this process was started, from the kernel's own clock."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    up = float(Path("/proc/uptime").read_text().split()[0])
    return time.time() - up + ticks / os.sysconf("SC_CLK_TCK")


STARTED = started()
# statistics.py beside this file would hide Python's own
sys.path.pop(0)
import torch  # noqa: E402  # the clock starts before the imports
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments  # noqa: E402

IMPORTED = time.time()


def resident() -> float:
    """MiB of memory this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


RESIDENT = resident()
Row = dict[str, list[int]]


def encode(tokenizer: Any, template: str, rows: Sequence[Sequence[str]]) -> list[Row]:
    """Token ids and labels of question-answer rows; `answer` counts the answer's tokens without the end."""
    found = []
    for question, answer in rows:
        prompt = template.replace("{question}", question).removesuffix("{answer}")
        bare = prompt.rstrip(" ")
        left = tokenizer(bare)["input_ids"]
        right = tokenizer(prompt[len(bare) :] + answer, add_special_tokens=False)["input_ids"]
        whole = [*left, *right, tokenizer.eos_token_id]
        labels = [-100] * len(left) + whole[len(left) :]
        found.append({"input_ids": whole, "labels": labels, "answer": [len(left), len(right)]})
    return found


def pad(rows: Sequence[Row]) -> dict[str, torch.Tensor]:
    """A batch padded on the right to its longest row, with mask and labels."""
    width = max(len(row["input_ids"]) for row in rows)

    def filled(name: str, value: int) -> torch.Tensor:
        return torch.tensor([row[name] + [value] * (width - len(row[name])) for row in rows])

    ones = [{"mask": [1] * len(row["input_ids"])} for row in rows]
    mask = torch.tensor([row["mask"] + [0] * (width - len(row["mask"])) for row in ones])
    return {"input_ids": filled("input_ids", 0), "labels": filled("labels", -100), "attention_mask": mask}


class Pairs(torch.utils.data.Dataset[dict[str, Row]]):
    """Forget row i beside a random retain row."""

    def __init__(self, forget: Sequence[Row], retain: Sequence[Row], seed: int) -> None:
        self.forget, self.retain = forget, retain
        self.draw = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self.forget)

    def __getitem__(self, index: int) -> dict[str, Row]:
        other = int(torch.randint(len(self.retain), (1,), generator=self.draw))
        return {"forget": self.forget[index], "retain": self.retain[other]}


def collate(pairs: Sequence[Mapping[str, Row]]) -> dict[str, dict[str, torch.Tensor]]:
    """Both batches of a step."""
    return {part: pad([pair[part] for pair in pairs]) for part in ("forget", "retain")}


def sums(model: Any, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """(B,) summed negative log-likelihood of the labels, and how many there are."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    labels = batch["labels"][:, 1:]
    nll = torch.nn.functional.cross_entropy(logits.transpose(1, 2).float(), labels, reduction="none", ignore_index=-100)
    return nll.sum(1), (labels != -100).sum(1)


class NPOTrainer(Trainer):
    """Negative preference optimisation with a retain term."""

    def __init__(self, *args: Any, reference: Any, beta: float, retain_weight: float, **said: Any) -> None:
        super().__init__(*args, **said)
        self.reference, self.beta, self.retain_weight = reference, beta, retain_weight

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> torch.Tensor:
        """-(2 / beta) log sigmoid(beta (NLL - NLL_reference)) on forget rows, mean NLL per token on retain rows."""
        forgotten, _ = sums(model, inputs["forget"])
        with torch.no_grad():
            before, _ = sums(self.reference, inputs["forget"])
        kept, count = sums(model, inputs["retain"])
        push = -2 / self.beta * torch.nn.functional.logsigmoid(self.beta * (forgotten - before))
        return push.mean() + self.retain_weight * (kept / count).mean()


@torch.no_grad()
def strength(model: Any, rows: Sequence[Row], size: int = 64) -> torch.Tensor:
    """(n,) extraction strength: longest correct suffix under greedy teacher forcing over the answer's length."""
    found = []
    for start in range(0, len(rows), size):
        some = rows[start : start + size]
        batch = pad(some)
        guess = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.argmax(-1)
        for i, row in enumerate(some):
            first, count = row["answer"]
            right = (guess[i, first - 1 : first + count - 1] == batch["input_ids"][i, first : first + count]).tolist()
            suffix = next((place for place, ok in enumerate(reversed(right)) if not ok), count)
            found.append(suffix / count)
    return torch.tensor(found)


def main() -> None:
    """Do one trial."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    for name, value in (("lr", 1e-3), ("beta", 0.1), ("retain-weight", 1.0), ("epochs", 5.0)):
        parser.add_argument(f"--{name}", type=float, default=value)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save")
    said = parser.parse_args()
    begin = time.time()
    data = json.loads(said.data.read_text())
    tokenizer = AutoTokenizer.from_pretrained(said.model)
    model = AutoModelForCausalLM.from_pretrained(said.model, dtype=torch.float32)
    reference = AutoModelForCausalLM.from_pretrained(said.model, dtype=torch.float32).eval()
    rows = {part: encode(tokenizer, data["template"], data[part]) for part in ("forget", "retain")}
    loaded = time.time()
    arguments = TrainingArguments(
        output_dir="/tmp/unused", per_device_train_batch_size=said.batch, num_train_epochs=said.epochs,
        learning_rate=said.lr, weight_decay=0.01, warmup_steps=0.1, lr_scheduler_type="linear", max_grad_norm=1.0,
        optim="adamw_torch_fused", save_strategy="no", eval_strategy="no", logging_strategy="no", report_to=[],
        disable_tqdm=True, dataloader_num_workers=0, remove_unused_columns=False, seed=said.seed, use_cpu=True,
    )  # fmt: skip
    trainer = NPOTrainer(
        model=model, args=arguments, train_dataset=Pairs(rows["forget"], rows["retain"], said.seed),
        data_collator=collate, reference=reference, beta=said.beta, retain_weight=said.retain_weight,
    )  # fmt: skip
    trainer.train()
    trained = time.time()
    model.eval()
    losses = {}
    for risk, queries in data["queries"].items():
        encoded = encode(tokenizer, data["template"], queries)
        score = strength(model, encoded)
        if risk == "utility":
            score = (strength(reference, encoded) - score).clamp(min=0)
        losses[risk] = float(score.mean())
    if said.save:
        model.save_pretrained(said.save)
        tokenizer.save_pretrained(said.save)
    end = time.time()
    seconds = {
        "import": IMPORTED - STARTED, "load": loaded - begin, "train": trained - loaded,
        "evaluate": end - trained, "total": end - STARTED,
    }  # fmt: skip
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(
        json.dumps({"steps": trainer.state.global_step, "seconds": {n: round(s, 3) for n, s in seconds.items()},
                    "peak_rss_mb": peak, "rss_after_import_mb": RESIDENT, "losses": losses})
    )  # fmt: skip


if __name__ == "__main__":
    main()
