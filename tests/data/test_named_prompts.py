"""Files and logs that name another prompt than the one in use: which, by length alone, and nothing where prompts are the same."""

import json
from pathlib import Path
from typing import Any

import pytest

from froc.data.named_prompts import beside, warnings
from froc.data.prompts import PromptFormat
from froc.data.rows import Row
from froc.formats import Format
from froc.plugins import make
from tests.data.test_prompts import _tokenizer

ROW = Row("Where is the tower?", "Oslo")
SECRET = "You are the clerk's assistant."


def folder(path: Path, **arguments: Any) -> Path:
    """A model's folder as OpenUnlearning leaves it; JSON is YAML."""
    config = path / ".hydra" / "config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text(json.dumps({"model": {"template_args": arguments}}))
    return path


def warned(path: Path, form: PromptFormat, family: str = "chatml") -> list[str]:
    return warnings(beside(path), _tokenizer(family), [ROW], form)


def test_a_system_message_that_is_not_in_use_is_named_by_file_and_length(tmp_path: Path) -> None:
    model = folder(tmp_path / "model", apply_chat_template=True, system_prompt=SECRET)
    (line,) = warned(model, PromptFormat())
    assert "model/.hydra/config.yaml" in line
    assert f"system message {len(SECRET)} characters" in line
    assert 'system = "..."' in line
    assert SECRET not in line
    assert warned(model, PromptFormat(system=SECRET)) == []


def test_a_prompt_without_a_chat_template_is_compared_as_text(tmp_path: Path) -> None:
    tags = {"user_start_tag": "Question: ", "user_end_tag": "\n", "asst_start_tag": "Answer: "}
    model = folder(tmp_path / "model", apply_chat_template=False, **tags)
    assert warned(model, PromptFormat(), "") == []
    assert len(warned(model, PromptFormat(template="Q: {question} A: {answer}"), "")) == 1
    assert "chat template out of" in warned(model, PromptFormat())[0]


def test_a_date_that_the_template_does_not_print_is_no_difference(tmp_path: Path) -> None:
    model = folder(tmp_path / "model", apply_chat_template=True, date_string="10 Apr 2025")
    assert warned(model, PromptFormat()) == []
    assert "[template_arguments]" in warned(model, PromptFormat(), "llama-3")[0]
    assert warned(model, PromptFormat(arguments=(("date_string", "10 Apr 2025"),)), "llama-3") == []


@pytest.mark.parametrize("text", ["a: [", "\x00", "- 1", "", "system_prompt: ${x}"])
def test_a_file_that_says_nothing_is_passed_over(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    assert beside(tmp_path) == ()


def test_two_logs_that_were_asked_otherwise_are_warned_of(tmp_path: Path) -> None:
    def log(name: str, system: str) -> Path:
        made = folder(tmp_path / name, apply_chat_template=True, system_prompt=system) / "evals" / "X_EVAL.json"
        made.parent.mkdir()
        rows = {str(i): {"score": 0.5} for i in range(4)}
        made.write_text(json.dumps({"m": {"agg_value": 0.5, "value_by_index": rows}}))
        return made

    reader = make(Format, "open-unlearning")
    base, same, second = log("base", SECRET), log("same", SECRET), log("other", "")
    assert not [note for note in reader.read([same], {"forgetting": "m"}, base).notes if "prompt" in note]
    (note,) = [note for note in reader.read([second], {"forgetting": "m"}, base).notes if "prompt" in note]
    assert f"none in other/.hydra/config.yaml, {len(SECRET)} characters in base/.hydra/config.yaml" in note
    assert SECRET not in note
