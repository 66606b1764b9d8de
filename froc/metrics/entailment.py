"""Entailment by a judge."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from froc.data.task import Row
from froc.fidelity import Fidelity
from froc.measuring.metric import Metric, Observable, Observation

BATCH_ROWS = 32


@dataclass(frozen=True)
class Entailment(Metric):
    """Probability, by a local judge, that the written answer entails the true one (Open-QA of LLM Unlearning Under the Microscope).

    The judge is a natural-language-inference model, loaded by transformers: the premise is the question with the
    written answer, the hypothesis the question with the true one. It is not part of the measured model and does not
    change.

    judge: folder of a sequence classifier in safetensors with one label for entailment; none of its code is run.
    """

    judge: str = ""
    reads: ClassVar[tuple[Observable, ...]] = ("written",)
    fidelity: ClassVar[Fidelity] = "reading"
    one_means: ClassVar[str] = "the judge is certain that what is written says the answer"

    def scores(self, observation: Observation) -> NDArray[np.float64]:
        """(n,) probability of entailment."""
        assert observation.written is not None
        assert observation.expected is not None
        questions = [row.question for row in observation.rows]
        premises = [f"{question} {text}".strip() for question, text in zip(questions, observation.written, strict=True)]
        hypotheses = [
            f"{question} {text}".strip() for question, text in zip(questions, observation.expected, strict=True)
        ]
        return observation.measured(_entailed(self.judge, observation.device, premises, hypotheses))

    def fits(self, rows: Sequence[Row]) -> str:
        """Why it does not apply: no judge. Empty where it applies."""
        folder = Path(self.judge)
        if not self.judge:
            return "needs a judge; give the folder of a local classifier: entailment:judge=PATH"
        if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
            return f"needs a judge, and {folder} has no config.json or no *.safetensors; save the classifier there"
        try:
            labels = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("id2label") or {}
        except ValueError:
            return f"needs a judge, and {folder / 'config.json'} is no JSON; save the classifier again"
        if len(_labels(labels)) != 1:
            return f"needs a judge with one label for entailment; this one has {', '.join(map(str, labels.values())) or 'none'}"
        return ""


def _labels(names: Mapping[Any, str]) -> list[int]:
    """Indices of labels that mean entailment; `not_entailment` does not."""
    low = {int(place): name.lower() for place, name in names.items()}
    return [place for place, name in low.items() if "entail" in name and not name.startswith(("not", "non", "no_"))]


@lru_cache(maxsize=2)
def _judge(path: str, device: str) -> tuple[Any, Any]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model: Any = AutoModelForSequenceClassification.from_pretrained(
        path, use_safetensors=True, trust_remote_code=False, local_files_only=True
    )
    tokenizer: Any = AutoTokenizer.from_pretrained(path, trust_remote_code=False, local_files_only=True)
    return model.eval().to(device), tokenizer


def _entailed(path: str, device: str, premises: Sequence[str], hypotheses: Sequence[str]) -> NDArray[np.float64]:
    """(n,) probabilities; texts of similar length are judged together."""
    import torch

    model, tokenizer = _judge(path, device)
    (label,) = _labels(model.config.id2label)
    # some models reserve two positions
    most = min(tokenizer.model_max_length, (getattr(model.config, "max_position_embeddings", None) or 514) - 2)
    probabilities = np.zeros(len(premises))
    order = np.argsort(
        [len(premise) + len(hypothesis) for premise, hypothesis in zip(premises, hypotheses, strict=True)],
        kind="stable",
    )
    for start in range(0, len(order), BATCH_ROWS):
        batch = order[start : start + BATCH_ROWS]
        pairs = [premises[i] for i in batch], [hypotheses[i] for i in batch]
        tokens = tokenizer(*pairs, truncation=True, max_length=most, padding=True, return_tensors="pt")
        with torch.inference_mode():
            logits = model(**tokens.to(model.device)).logits.double()
        probabilities[batch] = torch.softmax(logits, -1)[:, label].cpu().numpy()
    return probabilities
