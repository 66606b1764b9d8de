"""Methods that come from recommendation, on the data that they are for: users' histories, Yes or No.

Invented users rate invented films in the layout of MovieLens: a user likes some genres, and a share of the ratings is a whim that nobody
can guess. The files are read as `movielens:forget20`. A small model is taught what is trained on and what is asked about the
forgotten users; a second one, of the same making, never hears of those. What there is to forget are the whims: a model
that never knew answers them by its guess from the genres.

For each method at several strengths: the share of the forgotten users' trained answers that the model still gives (the base and the model that
never knew beside it), and the mean of `recommendation_auc` on the other questions about these users and on kept users.
A method does here what it is for where it comes to the share of the model that never knew while kept users lose at most `LOST`.

    python benchmarks/recommendation.py [--quick]

One thread. `--quick` trains less and tries one strength of each.
"""

import argparse
import csv
import itertools
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from metrics import Promises, goal
from transformers import LlamaConfig, LlamaForCausalLM

from froc.attacks.relearning import Relearning
from froc.data import benchmarks
from froc.data.splits import SearchView, split
from froc.data.task import FORGETTING, UTILITY, Row, Task
from froc.measuring.attack import Material
from froc.measuring.measurement import measurement
from froc.measuring.model_observation import observe
from froc.measuring.query_losses import probes, scores
from froc.models.base import Base, wrap
from froc.models.batches import encode
from froc.plugins import make
from froc.training import embedded
from froc.training.base_statistics import BaseStatistics, TrainingRows
from froc.training.loop import unlearn
from froc.training.method import Method

USERS, FILMS, GENRES, RATED = 20, 30, 4, 20
WHIM = 0.35
"""Share of ratings that say the opposite of what a user's genres say."""
LOST = 0.05
"""Largest drop of kept users' area under the curve of a method that keeps them."""
STRENGTHS: dict[str, list[dict[str, Any]]] = {
    "grad_diff": [{"lr": lr, "epochs": 5} for lr in (1e-3, 3e-4)],
    "e2urec": [{"lr": lr, "epochs": 5} for lr in (1e-3, 3e-3)],
    "u_can": [{"strength": strength, "threshold": 0.7} for strength in (20.0, 60.0)],
    "cure(grad_diff)": [{"lr": lr, "epochs": 5} for lr in (1e-3, 3e-3)],
}
"""Method -> hyperparameters; all else is its default, which for e2urec is the paper's alpha of 2."""


@dataclass(frozen=True)
class Stage:
    """The task, the model that knows it, and the numbers of one that never knew."""

    base: Base
    view: SearchView
    never: tuple[float, float, float]


def written(folder: Path) -> Path:
    """Ratings of invented users in the files of MovieLens."""
    draw = np.random.default_rng(0)
    syllables = [a + b for a, b in itertools.product("bdfgklmnpr", "aeiou")]
    titles = ["".join(draw.choice(syllables, 2)) + f"{place}" for place in range(FILMS)]
    with (folder / "movies.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["movieId", "title"], *([place, title] for place, title in enumerate(titles))])
    with (folder / "ratings.csv").open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(["userId", "movieId", "rating", "timestamp"])
        for user in range(USERS):
            likes = draw.permutation(GENRES)[: GENRES // 2]
            for time, film in enumerate(draw.permutation(FILMS)[:RATED].tolist()):
                liked = (film % GENRES in likes) != (draw.random() < WHIM)
                lines.writerow([user, film, 5 if liked else 2, time])
    return folder


def stage(task: Task, view: SearchView, steps: int) -> Stage:
    """Both models, trained alike."""
    own = {"forgotten": (*view.forget, *task.queries[FORGETTING]), "kept": (*view.retain, *task.queries[UTILITY])}
    tokenizer = embedded._tokenizer([*own["forgotten"], *own["kept"]], 900)

    def taught(rows: tuple[Row, ...]) -> Base:
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=64, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=4, max_position_embeddings=256, tie_word_embeddings=True, bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=None,
        )  # fmt: skip
        model = LlamaForCausalLM(config)
        Relearning(steps=steps, lr=3e-3, batch=32).change(model, tokenizer, Material(rows, (), (), view.template))
        return wrap("recommender", model, tokenizer)

    return Stage(taught(own["forgotten"] + own["kept"]), view, numbers(taught(own["kept"]), view))


def numbers(base: Base, view: SearchView) -> tuple[float, float, float]:
    """Share of the forgotten users' trained answers that the model gives; areas under the curve of their other questions, and of kept users."""
    rows = encode(base.tokenizer, view.forget, view.template)
    with base.measuring():
        seen = observe(base.model, base.tokenizer, rows, view.forget)
    given = float((seen.hit.sum(1) == seen.length).mean())
    text = measurement("recommendation_auc")
    areas = []
    for risk in (FORGETTING, UTILITY):
        state = base.trainable.snapshot()
        (probe,) = probes(base, {risk: view.queries[risk]}, {risk: text}, view)
        base.trainable.load(state)
        areas.append(float(scores(base, probe).mean()))
    return given, areas[0], areas[1]


def main() -> None:
    """Print the table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        task = benchmarks.read("movielens:forget20", written(Path(folder)))
    view, _ = split(task, 0.9)
    made = stage(task, view, 150 if arguments.quick else 700)
    start = numbers(made.base, view)
    reference = BaseStatistics(made.base, TrainingRows.of(view, made.base, 0))
    print("| method | strength | forgotten answers given | AUC forgotten | AUC kept |\n|---|---|---|---|---|")
    print(f"| none | | {start[0]:.3f} | {start[1]:.3f} | {start[2]:.3f} |")
    print(f"| never taught | | {made.never[0]:.3f} | {made.never[1]:.3f} | {made.never[2]:.3f} |", flush=True)
    reached: dict[str, bool] = {}
    for name, strengths in STRENGTHS.items():
        for options in strengths[:1] if arguments.quick else strengths:
            made.base.restore()
            unlearn(made.base, make(Method, name, options), reference, batch=16, seed=0)
            found = numbers(made.base, view)
            text = ", ".join(f"{key} {value:g}" for key, value in options.items() if key != "epochs")
            print(f"| {name} | {text} | {found[0]:.3f} | {found[1]:.3f} | {found[2]:.3f} |", flush=True)
            reached[name] = reached.get(name, False) or (
                found[0] <= made.never[0] + 0.05 and start[2] - found[2] <= LOST
            )
    promises: Promises = {
        "answers that there are to forget": goal(
            round(start[0] - made.never[0], 3), "> 0.1", start[0] - made.never[0] > 0.1
        )
    } | {f"{name} forgets and keeps": goal(done, "True", done) for name, done in reached.items()}
    print(json.dumps(promises))


if __name__ == "__main__":
    main()
