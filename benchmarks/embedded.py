"""Does the embedded task's recipe still yield a model that knows all, as the one that comes with froc does?

    python benchmarks/embedded.py [--quick] [--write]

Trains the model anew (minutes) and measures it and the shipped one on thousands of wordings that neither was trained on; --quick measures
the shipped one alone. --write puts the new model into the place of the shipped one.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

from froc.data.tasks import embedded_text
from froc.measuring.model_observation import observe
from froc.models.base import load
from froc.models.batches import encode
from froc.training import embedded

GOAL = 0.99


def knows(folder: Path, count: int) -> float:
    """Share of held-out wordings that a model answers to the last token."""
    base, task = load(str(folder), device="cpu", dtype="float32"), embedded_text.task()
    rows = [row for queries in embedded_text.population().values() for row in queries][:: max(1, 10_000 // count)][
        :count
    ]
    seen = observe(base.model, None, encode(base.tokenizer, rows, task.format))
    return float((seen.hit.sum(axis=1) == seen.length).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    shares = {"shipped": knows(embedded.SHIPPED, 2000)}
    if not arguments.quick:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch, "model")
            embedded.train_into(
                embedded_text.Recipe(), folder, lambda stage, done, of: print(f"\r{stage} {done}/{of}", end="")
            )
            shares["anew"] = knows(folder, 2000)
            if arguments.write:
                shutil.rmtree(embedded.SHIPPED)
                shutil.copytree(folder, embedded.SHIPPED)
                recipe = {"recipe": embedded.recipe_digest(embedded_text.Recipe())}
                embedded.SHIPPED_RECIPE.write_text(json.dumps(recipe) + "\n", encoding="utf-8")
    for name, share in shares.items():
        print(f"\n{name}: {share:.4f} of 2000 held-out wordings")
    print(
        json.dumps(
            {name: {"value": share, "goal": f">= {GOAL}", "holds": share >= GOAL} for name, share in shares.items()}
        )
    )


if __name__ == "__main__":
    main()
