"""Real text on the user's path: TOFU forget01 with a small model trained here; the code that a 7B model takes."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from froc.data.benchmarks import read
from froc.data.task import UTILITY, Row
from froc.models.batches import collate, encode
from tests import invented_authors
from tests.commands import ROOT, Commands

TOFU = ROOT.parent / "shared" / "data" / "tofu"
CHAT = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published files; of the kept rows only the first, for time's sake. Where they are not at hand, authors of our own."""
    place = tmp_path_factory.mktemp("tofu")
    if not TOFU.is_dir():
        invented_authors.write(place)
        return place
    for name, count in {"forget01": 40, "forget01_perturbed": 40, "retain99": 100, "retain_perturbed": 60}.items():
        lines = (TOFU / f"{name}.json").read_text(encoding="utf-8").splitlines(keepends=True)
        (place / f"{name}.json").write_text("".join(lines[:count]), encoding="utf-8")
    shutil.copy(TOFU / "idontknow.jsonl", place)
    return place


def _model(folder: Path, out: Path, chat: bool, steps: int = 60) -> None:
    """A two-layer model that has read the authors a few times."""
    task = read("tofu:forget01", folder)
    # the rows whose paraphrases measure utility are known too, and are not trained on when others are forgotten
    rows = [*task.forget, *task.retain, *(Row(row.paraphrases[0], row.answer) for row in task.queries[UTILITY])]
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
    """From published files to a certificate. So small a model knows next to nothing of unseen wordings, and that is said."""
    _model(folder, tmp_path / "model", chat)
    done = commands.run(
        ["search", "-b", "0.35", "--task", "tofu:forget01", "--data", str(folder), "--unit", "utility=query",
         "--model", str(tmp_path / "model"), "--space", "lr=1e-3:4e-3", "--space", "epochs=2:3",
         "--methods", "npo,idk", "--metric", "probability", "--trials", "2", "--candidates", "2", "--bound", "hoeffding-bentkus",
         "--batch", "20", "--allow-vacuous", "--out", str(tmp_path / "run"), "--json"],
        limit=250,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    certificate = json.loads(done.stdout)
    assert certificate["reason"].startswith("NOT ESTABLISHED for forgetting and utility")
    assert all(row["p_value"] < 1 for row in certificate["candidates"])
    plan = json.loads((tmp_path / "run" / "plan.json").read_text(encoding="utf-8"))
    assert certificate["n"] == plan["split"]["calibration"]
    parts = [plan["split"][part] for part in ("search", "calibration")]
    assert [sum(part[risk] for part in parts) for risk in ("forgetting", "utility")] == [40, 60]
    assert certificate["certified"] == []
    assert not (tmp_path / "run" / "model").exists()
    answer = json.loads((folder / "forget01.json").read_text(encoding="utf-8").splitlines()[0])["answer"]
    for path in (tmp_path / "run").glob("*.json*"):
        assert answer not in path.read_text(encoding="utf-8")


def test_chat_prompt_and_answer_are_told_apart(folder: Path, tmp_path: Path) -> None:
    _model(folder, tmp_path / "model", chat=True, steps=0)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path / "model")
    (row,) = encode(tokenizer, [Row("Who are you?", "Nobody.")], "{question} {answer}")
    assert tokenizer.decode(row.ids[: row.prompt]) == "<|user|>Who are you?<|end|><|assistant|>"
    assert tokenizer.decode(row.ids[row.prompt : row.prompt + row.answer]) == "Nobody."
    assert tokenizer.decode(row.ids[row.prompt + row.answer :]) == "<|end|>"
