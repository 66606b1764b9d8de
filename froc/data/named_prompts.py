"""Prompts that files name: configurations of training runs beside a model, and logs of its evaluation. Torch-free.

A model may answer everything with the system message of its training, and nothing without it. So files that name another prompt
than the one in use cause a warning. Prompts may be private: messages give their lengths, never their text.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from froc.data.prompts import RESERVED, Argument, PromptFormat, written
from froc.data.rows import Row
from froc.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SYSTEM, CHAT, TEMPLATE = "system message", "chat template", "template"
"""Parts of a prompt: system message; chat template (whether one is used, or which); the text around the question without one."""
HYDRA = Path(".hydra") / "config.yaml"
INNER = re.compile(r"evals?|checkpoint-\d+")
"""Folders that OpenUnlearning creates inside of a run's folder, which has the configuration."""
SYSTEM_KEYS = ("system_prompt", "default_system_message", "default_system", "system_instruction", "system_message")
"""What training tools call a system message at the top of their YAML configuration."""
TAGS = ("user_start_tag", "user_end_tag", "asst_start_tag")
MAX_YAML_BYTES = 1 << 18
"""Largest YAML file that is read, in bytes."""


@dataclass(frozen=True)
class NamedPrompt:
    """A prompt that a file names. parts: name -> part of the prompt: the three above, template arguments, and what the tool adds.
    Empty or absent parts are not in the prompt."""

    file: str
    parts: Mapping[str, Argument] = field(repr=False)

    def unlike(self, prompt: "NamedPrompt") -> str:
        """The parts in which two prompts of one tool differ, by length; empty where in none."""
        names = [name for name in {**self.parts, **prompt.parts} if self.part(name) != prompt.part(name)]
        return "; ".join(
            f"{name}: {length(self.part(name))} in {self.file}, {length(prompt.part(name))} in {prompt.file}"
            for name in names
        )

    def part(self, name: str) -> Argument:
        """A part without blanks around it, or "" for none."""
        value = self.parts.get(name) or ""
        return value.strip() if isinstance(value, str) else value


def length(value: Argument) -> str:
    """A part of a prompt described without quoting it."""
    if isinstance(value, str):
        return f"{len(value)} characters" if value else "none"
    return json.dumps(value)


def beside(folder: Path) -> tuple[NamedPrompt, ...]:
    """Prompts named by files in a model's folder; none for a hub id. Unreadable files are ignored."""
    if not folder.is_dir():
        return ()
    candidates = [
        run_prompt(folder), run_prompt(folder / "evals"),
        *(_of_yaml(path) for path in sorted((*folder.glob("*.yaml"), *folder.glob("*.yml")))),
        *(_of_results(path) for path in sorted(folder.glob("results*.json"))),
    ]  # fmt: skip
    named: dict[tuple[tuple[str, Argument], ...], NamedPrompt] = {}
    for prompt in candidates:
        if prompt is not None:
            named.setdefault(tuple(sorted(prompt.parts.items())), prompt)
    return tuple(named.values())


def run_prompt(folder: Path) -> NamedPrompt | None:
    """The prompt of the OpenUnlearning run that a folder of a model or of logs belongs to."""
    while not (folder / HYDRA).is_file():
        if not INNER.fullmatch(folder.name):
            return None
        folder = folder.parent
    return _of_yaml(folder / HYDRA)


def warnings(
    prompts: Sequence[NamedPrompt], tokenizer: "PreTrainedTokenizerBase", rows: Sequence[Row], form: PromptFormat
) -> list[str]:
    """A warning for each named prompt that renders any of the rows differently from the format in use.

    Parts that a file does not name are taken from the format in use. Prompts are compared as rendered, so that messages
    which the chat template adds itself, and arguments that it ignores, make no difference.
    """
    differing = ((prompt, _differing(prompt, tokenizer, rows, form)) for prompt in prompts)
    return [
        f"{prompt.file} names another prompt than the one in use ({_contrast(prompt, tokenizer, row, form)}): a model that is not "
        f"asked as it was taught looks as if it knew less; if that file is right, {_mend(prompt, tokenizer, row)}"
        for prompt, row in differing
        if row is not None
    ]


def _differing(
    prompt: NamedPrompt, tokenizer: "PreTrainedTokenizerBase", rows: Sequence[Row], form: PromptFormat
) -> Row | None:
    """The first row that a named prompt renders differently."""
    questions = (row for row in rows if row.question)
    return next(
        (
            row
            for row in questions
            if _prompt_text(tokenizer, row, form) != _named_prompt_text(prompt, tokenizer, row, form)
        ),
        None,
    )


def _of_yaml(path: Path) -> NamedPrompt | None:
    """`template_args` of OpenUnlearning, or a system message at the top."""
    import yaml

    try:
        text = path.read_text(encoding="utf-8") if path.stat().st_size <= MAX_YAML_BYTES else ""
        document = yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return None
    if not isinstance(document, dict):
        return None
    name = "/".join((path.parents[1].name, *HYDRA.parts)) if path.match(str(HYDRA)) else path.name
    model = document.get("model")
    arguments = (model if isinstance(model, dict) else document).get("template_args")
    if isinstance(arguments, dict):
        return NamedPrompt(name, _of_template_args({str(key): _plain(value) for key, value in arguments.items()}))
    system = next((value for key in SYSTEM_KEYS if (value := _plain(document.get(key)))), "")
    return NamedPrompt(name, {SYSTEM: system}) if isinstance(system, str) and system else None


def _plain(value: Any) -> Argument:
    """A template argument; "" for None, and for references that Hydra would resolve."""
    if isinstance(value, date):
        return str(value)
    if not isinstance(value, Argument) or (isinstance(value, str) and "${" in value):
        return ""
    return value


def _of_template_args(arguments: Mapping[str, Argument]) -> dict[str, Argument]:
    """OpenUnlearning's `template_args`: system message and date for a chat template, else the text around the question."""
    if arguments.get("apply_chat_template"):
        dated = {"date_string": arguments["date_string"]} if arguments.get("date_string") else {}
        return {CHAT: True, SYSTEM: arguments.get("system_prompt", ""), **dated}
    start, end, answer = (str(arguments.get(tag, "")) for tag in TAGS)
    lead = str(arguments.get("system_prompt_with_special_tokens", ""))
    return {CHAT: False, TEMPLATE: f"{lead}{start}{{question}}{end}{answer}{{answer}}"}


def _of_results(path: Path) -> NamedPrompt | None:
    """The system message of lm-evaluation-harness. Its lack of a chat template says nothing about training."""
    document = results(path)
    system = document.get("system_instruction")
    return NamedPrompt(path.name, {SYSTEM: system}) if isinstance(system, str) and system.strip() else None


def results(path: Path) -> Mapping[str, Any]:
    """Results of lm-evaluation-harness; empty where they cannot be read."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _form(prompt: NamedPrompt, form: PromptFormat) -> PromptFormat:
    named_arguments = {name: value for name, value in prompt.parts.items() if name not in (SYSTEM, CHAT, TEMPLATE)}
    arguments = dict(form.arguments) | {name: value for name, value in named_arguments.items() if name not in RESERVED}
    return replace(form, system=str(prompt.part(SYSTEM)), arguments=tuple(sorted(arguments.items())))


def _prompt_text(tokenizer: "PreTrainedTokenizerBase", row: Row, form: PromptFormat) -> str:
    """The rendered prompt without the begin-of-text token, which tokenizers add themselves."""
    return written(tokenizer, row, form).prompt.removeprefix(str(tokenizer.bos_token or "")).strip(" ")


def _named_prompt_text(
    prompt: NamedPrompt, tokenizer: "PreTrainedTokenizerBase", row: Row, form: PromptFormat
) -> str | None:
    """The row rendered by a named prompt; None where this tokenizer cannot render it."""
    if prompt.parts.get(CHAT) is False:
        if row.context:
            return None
        text = str(prompt.parts[TEMPLATE]).removesuffix("{answer}").replace("{question}", row.question)
        return text.removeprefix(str(tokenizer.bos_token or "")).strip(" ")
    if prompt.parts.get(CHAT) and not tokenizer.chat_template:
        return None
    if not tokenizer.chat_template:
        return None if prompt.part(SYSTEM) else _prompt_text(tokenizer, row, form)
    context = row.context if _own_system(row) is None else row.context[1:]
    try:
        return _prompt_text(tokenizer, replace(row, context=context), _form(prompt, form))
    except InputError:
        # the model was not trained with a template that refuses the system message
        return None


def _contrast(prompt: NamedPrompt, tokenizer: "PreTrainedTokenizerBase", row: Row, form: PromptFormat) -> str:
    named = [f"{name} {length(prompt.part(name))}" for name in prompt.parts if name != CHAT or not prompt.parts[CHAT]]
    return f"there: {', '.join(named)}; in use: {', '.join(_in_use(prompt, tokenizer, row, form))}"


def _in_use(prompt: NamedPrompt, tokenizer: "PreTrainedTokenizerBase", row: Row, form: PromptFormat) -> Iterator[str]:
    if not tokenizer.chat_template:
        yield f"{TEMPLATE} {length(form.template)}"
        return
    if prompt.parts.get(CHAT) is False:
        yield f"the tokenizer's {CHAT}"
    own = _own_system(row)
    yield f"{SYSTEM} {length(form.system if own is None else own)}"
    for name, value in form.arguments:
        yield f"{name} {length(value)}"


def _own_system(row: Row) -> str | None:
    """The system message that a row of messages brings, which the task's does not replace."""
    return row.context[0][1] if row.context and row.context[0][0] == "system" else None


def _mend(prompt: NamedPrompt, tokenizer: "PreTrainedTokenizerBase", row: Row) -> str:
    """How to change the task, or the tokenizer's files, to get the named prompt."""
    if prompt.parts.get(CHAT) and not tokenizer.chat_template:
        return "give the tokenizer the chat template that it names"
    if prompt.parts.get(CHAT) is False or not tokenizer.chat_template:
        first = "take the chat template out of the tokenizer's files and " if tokenizer.chat_template else ""
        return f'{first}say template = "..." in task.toml'
    if _own_system(row) is not None:
        return "mend the system message in the rows' own messages"
    beside = [name for name in prompt.parts if name not in (SYSTEM, CHAT)]
    more = f", and {', '.join(beside)} under [template_arguments]" if beside else ""
    return ('say system = "..." in' if prompt.part(SYSTEM) else "leave system out of") + f" task.toml{more}"
