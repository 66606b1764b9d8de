"""One unlearning trial the conventional way: a fresh process, `transformers.Trainer`, a frozen reference model.

The process imports torch and transformers, loads the model, trains it by negative preference optimisation with the
reference model's forward pass at every step, scores both models on the queries, prints one line of JSON and exits.
No code of froc is used, and nothing is slowed: no checkpoints, no logging, no evaluation while training.

Data file: {"template": "{question} {answer}", "forget": [[question, answer], ...], "retain": [...],
"queries": {"forgetting": [...], "utility": [...]}}.
"""

import argparse
import json
import math
import os
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def process_start() -> float:
    """Wall-clock time at which the kernel started this process."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return booted + int(fields[19]) / os.sysconf("SC_CLK_TCK")


STARTED = process_start()

# ruff: noqa: E402 - the clock comes before what is slow to import
import torch
import torch.nn.functional as F  # noqa: N812  # the usual name
from torch import Tensor
from torch.utils.data import Dataset, RandomSampler
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
)

IGNORED = -100
Example = dict[str, list[int]]
Inputs = dict[str, Tensor]


def resident_mb() -> float:
    """MiB of memory that this process holds now."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmRSS"].split()[0]) / 1024


def tokenize(
    tokenizer: PreTrainedTokenizerBase, template: str, rows: Sequence[Sequence[str]], *, end: bool
) -> list[Example]:
    """input_ids and labels of question-answer rows; only the answer, and its end where asked for, is labelled."""
    filled = [template.replace("{question}", question).removesuffix("{answer}") for question, _ in rows]
    # prompt and answer are tokenised apart, and the blank between them belongs to the answer
    prompts = [text.rstrip(" ") for text in filled]
    answers = [text[len(prompt) :] + row[1] for text, prompt, row in zip(filled, prompts, rows, strict=True)]
    left = tokenizer(prompts)["input_ids"]
    right = tokenizer(answers, add_special_tokens=False)["input_ids"]
    closing = [tokenizer.eos_token_id] if end else []
    return [
        {"input_ids": [*prompt, *answer, *closing], "labels": [IGNORED] * len(prompt) + [*answer, *closing]}
        for prompt, answer in zip(left, right, strict=True)
    ]


def pad(examples: Sequence[Example]) -> Inputs:
    """Model inputs, padded on the right to the longest example of the batch."""
    width = max(len(example["input_ids"]) for example in examples)

    def padded(rows: Sequence[list[int]], value: int) -> Tensor:
        return torch.tensor([row + [value] * (width - len(row)) for row in rows])

    ids = [example["input_ids"] for example in examples]
    return {
        "input_ids": padded(ids, 0),
        "attention_mask": padded([[1] * len(row) for row in ids], 0),
        "labels": padded([example["labels"] for example in examples], IGNORED),
    }


class ForgetRetainDataset(Dataset[dict[str, Example]]):
    """Each forget row, paired with a retain row drawn at random."""

    def __init__(self, forget: Sequence[Example], retain: Sequence[Example], seed: int) -> None:
        self.forget, self.retain = forget, retain
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self.forget)

    def __getitem__(self, index: int) -> dict[str, Example]:
        drawn = int(torch.randint(len(self.retain), (), generator=self.generator))
        return {"forget": self.forget[index], "retain": self.retain[drawn]}


def collate(pairs: Sequence[dict[str, Example]]) -> dict[str, Inputs]:
    """Both batches of one step."""
    return {name: pad([pair[name] for pair in pairs]) for name in ("forget", "retain")}


def predict(model: torch.nn.Module, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """(B, T, V) logits and (B, T) labels of the tokens that they predict."""
    output = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False)
    # labels are moved rather than logits, which would be copied
    return output.logits, F.pad(inputs["labels"][:, 1:], (0, 1), value=IGNORED)


def sequence_nll(model: torch.nn.Module, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """(B,) negative log-likelihood summed over the labelled tokens, and (B,) how many these are."""
    logits, labels = predict(model, inputs)
    nll = F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED, reduction="none")
    return nll.view_as(labels).sum(1), (labels != IGNORED).sum(1)


class NPOTrainer(Trainer):
    """Negative preference optimisation (Zhang et al. 2404.05868) with a likelihood term on retain rows."""

    def __init__(self, *, reference: PreTrainedModel, beta: float, retain_weight: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.reference, self.beta, self.retain_weight = reference, beta, retain_weight

    def _get_train_sampler(self, train_dataset: Any = None) -> RandomSampler:
        # one shuffle after another without a break, so that a pass's last batch is as full as the others
        rows: Any = self.train_dataset
        return RandomSampler(rows, num_samples=self.args.max_steps * self.args.train_batch_size)

    def compute_loss(
        self, model: torch.nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The forget term plus the weighted retain term, both means over rows."""
        with torch.no_grad():
            before, _ = sequence_nll(self.reference, inputs["forget"])
        now, _ = sequence_nll(model, inputs["forget"])
        forget = -2 / self.beta * F.logsigmoid(self.beta * (now - before)).mean()
        kept, count = sequence_nll(model, inputs["retain"])
        loss = forget + self.retain_weight * (kept / count).mean()
        return (loss, None) if return_outputs else loss


def unlearn(
    model: PreTrainedModel, reference: PreTrainedModel, dataset: ForgetRetainDataset, options: argparse.Namespace
) -> int:
    """Train the model in place; the number of steps taken."""
    batch = min(options.batch, len(dataset))
    with tempfile.TemporaryDirectory() as unused:
        training = TrainingArguments(
            output_dir=unused,
            max_steps=math.ceil(options.epochs * len(dataset) / batch),
            per_device_train_batch_size=batch,
            learning_rate=options.lr,
            lr_scheduler_type="linear",
            # a number below 1 is a share of the steps
            warmup_steps=0.1,
            optim="adamw_torch_fused",
            weight_decay=0.01,
            max_grad_norm=1.0,
            seed=options.seed,
            use_cpu=True,
            bf16=False,
            dataloader_num_workers=0,
            remove_unused_columns=False,
            save_strategy="no",
            eval_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        trainer = NPOTrainer(
            model=model, args=training, train_dataset=dataset, data_collator=collate,
            reference=reference, beta=options.beta, retain_weight=options.retain_weight,
        )  # fmt: skip
        trainer.train()
    return trainer.state.global_step


@torch.inference_mode()
def extraction_strength(model: PreTrainedModel, examples: Sequence[Example], size: int = 64) -> Tensor:
    """(n,) longest correct suffix of the answer under greedy teacher forcing, over the answer's length."""
    model.eval()
    scores = []
    for start in range(0, len(examples), size):
        logits, labels = predict(model, pad(examples[start : start + size]))
        answer = labels != IGNORED
        wrong = answer & (logits.argmax(-1) != labels)
        place, length = torch.arange(labels.shape[1]), answer.sum(1)
        last = torch.where(answer, place, 0).amax(1)
        last_wrong = torch.where(wrong, place, (last - length)[:, None]).amax(1)
        scores.append((last - last_wrong) / length)
    return torch.cat(scores)


def evaluate(model: PreTrainedModel, reference: PreTrainedModel, queries: dict[str, list[Example]]) -> dict[str, float]:
    """risk -> mean loss: what is still there of the forgotten, and what is lost of the rest."""
    still = extraction_strength(model, queries["forgetting"])
    kept = extraction_strength(model, queries["utility"])
    lost = (extraction_strength(reference, queries["utility"]) - kept).clamp(min=0)
    return {"forgetting": still.mean().item(), "utility": lost.mean().item()}


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    for name in ("lr", "beta", "retain-weight", "epochs"):
        parser.add_argument(f"--{name}", type=float, required=True)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path)
    return parser.parse_args()


def main() -> None:
    """Do one trial."""
    imported, resident = time.time(), resident_mb()
    options = arguments()
    data = json.loads(options.data.read_text(encoding="utf-8"))
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    reference = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    reference.requires_grad_(False)
    forget, retain = (tokenize(tokenizer, data["template"], data[name], end=True) for name in ("forget", "retain"))
    queries = {risk: tokenize(tokenizer, data["template"], rows, end=False) for risk, rows in data["queries"].items()}
    loaded = time.time()
    steps = unlearn(model, reference, ForgetRetainDataset(forget, retain, options.seed), options)
    trained = time.time()
    losses = evaluate(model, reference, queries)
    evaluated = time.time()
    if options.save:
        model.save_pretrained(options.save)
        tokenizer.save_pretrained(options.save)
    seconds = {
        "import": imported - STARTED,
        "load": loaded - imported,
        "train": trained - loaded,
        "evaluate": evaluated - trained,
        "total": time.time() - STARTED,
    }
    report = {
        "steps": steps,
        "seconds": {phase: round(taken, 3) for phase, taken in seconds.items()},
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "rss_after_import_mb": round(resident, 1),
        "losses": losses,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
