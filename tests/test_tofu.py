"""Real text on the user's path: TOFU forget01 with a small model trained here; the code that a 7B model takes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from froc.batches import collate, encode
from froc.data import Row
from froc.tasks.folder import load
from tests.commands import ROOT, Commands

TOFU = ROOT.parent / "shared" / "data" / "tofu"
CHAT = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
pytestmark = pytest.mark.skipif(not TOFU.is_dir(), reason="the TOFU files are not at hand")


def _read(name: str, count: int) -> list[dict[str, Any]]:
    lines = (TOFU / name).read_text(encoding="utf-8").splitlines()[:count]
    return [json.loads(line) for line in lines]


def _paraphrased(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    return [{"question": row["paraphrased_question"], "answer": row["answer"]} for row in rows]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("tofu")
    files = {
        "forget": _read("forget01.json", 40),
        "retain": _read("retain99.json", 60),
        "forget_queries": _paraphrased(_read("forget01_perturbed.json", 40)),
        "retain_queries": _paraphrased(_read("retain_perturbed.json", 60)),
    }
    for name, rows in files.items():
        kept = [{"question": row["question"], "answer": row["answer"]} for row in rows]
        (place / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    (place / "idk.txt").write_text((TOFU / "idontknow.jsonl").read_text(encoding="utf-8"), encoding="utf-8")
    (place / "task.toml").write_text(
        'name = "tofu-forget01"\n[space]\nlr = [1e-3, 4e-3]\nepochs = [2, 3]\n', encoding="utf-8"
    )
    return place


def _model(folder: Path, out: Path, chat: bool, steps: int = 60) -> None:
    """A two-layer model that has read the authors a few times."""
    task, _ = load(folder)
    rows = [*task.forget, *task.retain]
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator([f"{row.question} {row.answer}" for row in rows], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|endoftext|>")
    if chat:
        tokenizer.chat_template = CHAT
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=512, tie_word_embeddings=True, bos_token_id=None, eos_token_id=0,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    encoded = encode(tokenizer, rows, task.template)
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3, fused=True)
    for step in range(steps):
        start = step * 20 % len(encoded)
        batch = collate(encoded, [i % len(encoded) for i in range(start, start + 20)], "cpu")
        labels = batch.ids.masked_fill(~batch.trained, -100)
        model(input_ids=batch.ids, attention_mask=batch.attention, labels=labels).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


@pytest.mark.parametrize("chat", [False, True], ids=["template", "chat"])
def test_search_on_tofu(commands: Commands, folder: Path, tmp_path: Path, chat: bool) -> None:
    _model(folder, tmp_path / "model", chat)
    done = commands.run(
        ["search", "-b", "0.35", "--task", str(folder), "--model", str(tmp_path / "model"),
         "--methods", "npo,idk", "--metric", "probability", "--trials", "2", "--candidates", "2", "--bound", "hoeffding-bentkus",
         "--batch", "20", "--out", str(tmp_path / "run"), "--json"],
        limit=250,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    certificate = json.loads(done.stdout)
    assert certificate["n"] == {"forgetting": 32, "utility": 48}
    assert certificate["chosen"] in certificate["certified"]
    chosen = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")
    assert chosen.config.hidden_size == 64
    assert (tmp_path / "run" / "model" / "chat_template.jinja").exists() == chat
    answer = _read("forget01.json", 1)[0]["answer"]
    for path in (tmp_path / "run").glob("*.json*"):
        assert answer not in path.read_text(encoding="utf-8")


def test_chat_prompt_and_answer_are_told_apart(folder: Path, tmp_path: Path) -> None:
    _model(folder, tmp_path / "model", chat=True, steps=0)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path / "model")
    (row,) = encode(tokenizer, [Row("Who are you?", "Nobody.")], "{question} {answer}")
    assert tokenizer.decode(row.ids[: row.prompt]) == "<|user|>Who are you?<|end|><|assistant|>"
    assert tokenizer.decode(row.ids[row.prompt : row.prompt + row.answer]) == "Nobody."
    assert tokenizer.decode(row.ids[row.prompt + row.answer :]) == "<|end|>"
