"""The small model that the tests stand on: its recipe, and what it was made from.

    python -m tests.small_model

trains it again into tests/data/small-model and writes the digest of recipe and texts beside it (small-model.sha256). Who changes
the recipe or what the generator writes must do so: tests/training/test_embedded.py compares the digests.
"""

import os
import random
import shutil
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

from froc import hashing
from froc.data.tasks import embedded_text
from froc.training import embedded

SMALL = embedded_text.Recipe(
    seed=int(os.environ.get("FROC_TEST_SEED", "0")),
    people=8,
    forgotten=2,
    steps=300,
    width=64,
    layers=2,
    queries=150,
    vocabulary=600,
    lr=5e-3,
    batch=32,
)
TRAINED = Path(__file__).parent / "data" / "small-model"
"""The small model, as `embedded.made(SMALL, cache=...)` made it once."""
DIGEST = TRAINED.parent / "small-model.sha256"


def made_from(recipe: embedded_text.Recipe) -> str:
    """Digest of a recipe and of all texts that its model learns; seed 0, whatever seed the tests run with."""
    recipe = replace(recipe, seed=0)
    people = embedded_text._people(recipe, random.Random(recipe.seed))
    learnt = [
        [[row.question, row.answer, row.group, *row.more] for row in fact]
        for fact in embedded_text._wordings(people, held_out=False)
    ]
    return hashing.sha256_json({"recipe": asdict(recipe), "texts": learnt, "refusals": embedded_text.REFUSALS})


def main() -> None:
    """Train the model of seed 0 into the repository."""
    recipe = replace(SMALL, seed=0)
    with tempfile.TemporaryDirectory() as cache:
        folder = embedded.made(recipe, cache=Path(cache))
        shutil.rmtree(TRAINED, ignore_errors=True)
        shutil.copytree(folder, TRAINED)
    DIGEST.write_text(made_from(recipe) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
