"""The small Llama-shaped model of the embedded task, which knows every person in it (`froc.data.tasks.embedded_text`).

Its weights come with the package; `rebuilt` trains them again from the recipe.
"""

import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from froc import hashing
from froc.atomic import lock, write_text
from froc.data.task import Row
from froc.data.tasks.embedded_text import (
    DEFAULT_RECIPE,
    ENDINGS,
    FACTS,
    FIRST,
    OPENINGS,
    REFUSALS,
    SECOND,
    SYLLABLES,
    Recipe,
    _people,
    _wordings,
)
from froc.errors import FrocError
from froc.measuring.model_observation import observe
from froc.models.base import Base, load
from froc.models.batches import collate, encode
from froc.models.onednn import through_onednn

SHIPPED = Path(__file__).parent / "embedded_model"
"""The trained model of the default recipe, written by `benchmarks/embedded.py --write`."""
SHIPPED_RECIPE = SHIPPED.with_name("embedded_model_recipe.json")
"""`recipe_digest` of what SHIPPED was trained on; outside the folder, so that the model's digest covers the model only."""


KNOWN = 0.98
"""Share of its facts that the trained model must know."""


Progress = Callable[[str, int, int], None]
"""Called with (what, done, of)."""


def base(
    recipe: Recipe = DEFAULT_RECIPE, *, cache: Path, device: str = "cpu", progress: Progress | None = None,
    train: str = "full", n_adapters: int = 1, attention: str | None = None, deterministic: bool = False,
) -> Base:  # fmt: skip
    """The model that knows every person, trained on first use and cached under the recipe's digest.

    A half-written or damaged cache is detected by its digests and replaced.
    """
    folder = made(recipe, cache=cache, progress=progress)
    return load(
        str(folder), device=device, dtype="float32", train=train, n_adapters=n_adapters, attention=attention,
        deterministic=deterministic,
    )  # fmt: skip


def kept(recipe: Recipe, cache: Path, retrained: bool = False) -> Path:
    """The cache folder of a recipe's model, whether it exists or not."""
    settings = {**asdict(recipe), "torch": torch.__version__.partition("+")[0]}
    name = hashing.sha256_json(settings | ({"retrained": True} if retrained else {}))[:16]
    return cache / f"embedded-{name}"


def made(
    recipe: Recipe = DEFAULT_RECIPE, *, cache: Path, progress: Progress | None = None, retrained: bool = False
) -> Path:
    """The folder of the trained model.

    retrained: the model that was never trained on the forgotten people, with its tokenizer.

    The default recipe's model ships with froc, so that nobody waits for it and results agree across machines. If the
    recipe or its texts change, the model is trained on first use.
    """
    folder = kept(recipe, cache, retrained)
    if not _is_intact(folder):
        with _locked(folder):
            if not _is_intact(folder) and not retrained and is_shipped(recipe) and _is_intact(SHIPPED):
                _fill_folder(folder, lambda part: shutil.copytree(SHIPPED, part, dirs_exist_ok=True))
            elif not _is_intact(folder):
                train_into(recipe, folder, progress or (lambda *_: None), retrained)
    return folder


def rebuilt(*, cache: Path, progress: Progress) -> Path:
    """The folder of the default model, trained anew on this machine in place of the cached one."""
    folder = kept(Recipe(), cache)
    with _locked(folder), tempfile.TemporaryDirectory() as scratch:
        anew = Path(scratch, "model")
        train_into(Recipe(), anew, progress)
        shutil.rmtree(folder, ignore_errors=True)
        _fill_folder(folder, lambda part: shutil.copytree(anew, part, dirs_exist_ok=True))
    return folder


def recipe_digest(recipe: Recipe) -> str:
    """Digest of a recipe and of every text that its rows are composed of."""
    texts = [OPENINGS, ENDINGS, FACTS, FIRST, SECOND, SYLLABLES]
    return hashing.sha256_json([asdict(recipe), texts])


def is_shipped(recipe: Recipe) -> bool:
    """Whether the model that comes with froc was trained on this recipe."""
    shipped: dict[str, str] = json.loads(SHIPPED_RECIPE.read_text(encoding="utf-8"))
    return shipped["recipe"] == recipe_digest(recipe)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Context manager: a second process waits for the first one's model; where locking fails, both make it."""
    place = Path(tempfile.gettempdir(), f"froc-{hashing.sha256_bytes(str(folder.absolute()).encode())[:16]}.lock")
    with ExitStack() as held:
        with suppress(OSError):
            held.enter_context(lock(place))
        yield


def _is_intact(folder: Path) -> bool:
    try:
        listed = json.loads((folder / "digests.json").read_text(encoding="utf-8"))
        digests = hashing.sha256_files(folder)
    except (OSError, ValueError):
        return False
    digests.pop("digests.json", None)
    return bool(digests) and listed == digests


def train_into(recipe: Recipe, folder: Path, progress: Progress, retrained: bool = False) -> None:
    """Train a recipe's model into a folder, ignoring the shipped one."""

    def train(part: Path) -> None:
        model, tokenizer = train_model(recipe, progress, retrained)
        saved: Any = model
        saved.save_pretrained(part, safe_serialization=True)
        tokenizer.save_pretrained(part)
        write_text(part / "digests.json", json.dumps(hashing.sha256_files(part)))

    _fill_folder(folder, train)


def _fill_folder(folder: Path, fill: Callable[[Path], object]) -> None:
    """Fill a temporary folder, then rename it: two simultaneous first runs cannot damage each other."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        fill(part)
        if folder.exists() and not _is_intact(folder):
            shutil.rmtree(folder)
        if not folder.exists():
            os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def train_model(
    recipe: Recipe, progress: Progress, retrained: bool = False
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase]:
    """Train tokenizer and model on all people (or all but the forgotten ones).

    FrocError where the model has not learnt them: there would be nothing to forget.
    """
    draw = random.Random(recipe.seed + 1)
    facts = list(_wordings(_people(recipe, random.Random(recipe.seed)), held_out=False))
    tokenizer = _tokenizer([row for fact in facts for row in fact[:: len(ENDINGS)]], recipe.vocabulary)
    if retrained:
        facts = facts[recipe.forgotten * len(FACTS) :]
    torch.manual_seed(recipe.seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=recipe.width, intermediate_size=4 * recipe.width,
        num_hidden_layers=recipe.layers, num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=128,
        tie_word_embeddings=True, bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    through_onednn(model)
    optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.lr, total_steps=recipe.steps)
    for step in range(recipe.steps):
        rows = [draw.choice(fact) for fact in draw.sample(facts, min(recipe.batch, len(facts)))]
        batch = collate(encode(tokenizer, rows, "{question} {answer}"), range(len(rows)), "cpu")
        labels = batch.ids.masked_fill(~batch.trained, -100)
        loss = model(input_ids=batch.ids, attention_mask=batch.attention, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad(set_to_none=True)
        progress("training the embedded model (once)", step + 1, recipe.steps)
    model.eval()
    rows = [fact[0] for fact in facts]
    known = observe(model, tokenizer, encode(tokenizer, rows, "{question} {answer}"))
    right = float((known.hit.sum(1) == known.length).mean())
    if right < KNOWN:
        raise FrocError(f"the embedded model knows only {right:.0%} of its facts after training; try another seed")
    return model, tokenizer


def _tokenizer(rows: list[Row], size: int) -> PreTrainedTokenizerBase:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [f"{row.question} {row.answer}" for row in rows] + list(REFUSALS)
    # repeated so that names and answer words become single tokens: no partial credit for half a word
    words = dict.fromkeys([*FIRST, *SECOND, *(row.group for row in rows)])
    texts += [f" {word}" for word in words] * (len(texts) // 40)
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", model_max_length=128)
