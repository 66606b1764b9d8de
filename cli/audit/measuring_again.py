"""What `audit reexecute` measures: the drawn losses, and whether the signed model is the one that they belong to."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from froc.errors import VerificationError

if TYPE_CHECKING:
    import polars as pl

    from froc.audit.verification import Result
    from froc.models.base import Base
    from froc.search.job import Job
    from froc.search.reexecution import Target
    from froc.search.trial.work import KeptWeights


@dataclass(frozen=True)
class Again:
    """What came of it. table: losses of the drawn rows; chosen: digest of the chosen configuration's weights, where it was trained
    again; files: of what stands beside them; environment: what measured.
    """

    table: "pl.DataFrame"
    chosen: str | None
    files: Mapping[str, str]
    environment: dict[str, str]


@dataclass(frozen=True)
class Measuring:
    """A verified report, to be measured again. make: the job it is about; whole: with all parameters in a model's reach, as a
    model from a folder takes their place. progress: is called with (configurations done, of).
    """

    verified: "Result"
    make: Callable[[bool], "Job"]
    progress: Callable[[int, int], None]

    @property
    def chosen(self) -> str | None:
        """The configuration whose model the report covers."""
        return str(self.verified.report["config"]) if self.verified.facts.files else None

    @property
    def seal(self) -> dict[str, Any]:
        """As it was sealed."""
        return dict(json.loads(self.verified.files["seal.json"]))

    def losses(self, drawn: "pl.DataFrame", unlearned: Path | None) -> Again:
        """Of the drawn rows; the chosen configuration is trained again, whether rows of it were drawn or not.

        unlearned: the signed model, which is measured instead.
        """
        from froc.models import inference_files
        from froc.search.reexecution import environment, refuse_other_base, remeasure
        from froc.search.sealed.weights import of_kept

        job = self.make(unlearned is not None)
        refuse_other_base(job, self.seal)
        if unlearned is not None:
            _refuse_other_files(job.base, unlearned)
        names = drawn["config"].unique(maintain_order=True).to_list()
        if unlearned is None and self.chosen is not None and self.chosen not in names:
            names.append(self.chosen)
        digests: dict[str, str] = {}

        def weighed(config: str, kept: "KeptWeights") -> None:
            if unlearned is None and config == self.chosen:
                digests[config] = of_kept(job.base, kept)

        table = remeasure(job, self.seal, self._targets(names), drawn, self.progress, unlearned, weighed)
        return Again(table, digests.get(self.chosen or ""), inference_files.digests(job.base), environment(job.base))

    def of_model(self, again: Again, model: Path | None, seed: int, rows: int) -> Mapping[str, Any]:
        """What the predicate says of the signed model; nothing where the report covers none. model: its folder, where at hand.

        Where bits agree there is nothing to measure; where they do not, the model itself is measured on rows of its own.
        """
        from froc.audit import model_folder, reexecution
        from froc.search.reexecution import remeasure

        if self.chosen is None:
            return {}
        losses = self.verified.files["losses.csv"]
        lies = None if model is None else model_folder.of_weights(model, self.verified.facts.files)
        same = again.chosen is not None and again.chosen == (self.verified.facts.seal.weights_of(self.chosen) or lies)
        same = same and self._as_saved(again, model)
        if same or model is None:
            return {"model": reexecution.of_model(losses, seed, self.chosen, again.chosen, same, None, rows)}
        drawn = reexecution.table(losses, reexecution.draw(losses, seed, rows, self.chosen))
        table = remeasure(self.make(True), self.seal, self._targets([self.chosen]), drawn, self.progress, model)
        counts = reexecution.compare(drawn, table)
        return {"model": reexecution.of_model(losses, seed, self.chosen, lies, False, counts, rows)}

    def _as_saved(self, again: Again, model: Path | None) -> bool:
        """Whether configuration and tokenizer of the signed model are those that belong to the weights, as far as can be seen."""
        sealed = self.verified.facts.seal.model_files
        if model is None or (sealed is not None and dict(sealed) == dict(again.files)):
            return sealed is None or dict(sealed) == dict(again.files)
        _refuse_other_files(self.make(False).base, model)
        return True

    def _targets(self, configs: Sequence[str]) -> "list[Target]":
        """Configurations as they were sealed, with the seeds of their trials."""
        from froc.audit.bundle_files import read_trials
        from froc.risk.control import BASE
        from froc.search.reexecution import Target

        lines = read_trials(self.verified.files["trials.jsonl"])
        complete = [line for line in lines if line.status == "complete"]
        seeds = {config: int(line.seed) for line in complete for config in line.configs}
        sealed = {candidate["config"]: candidate for candidate in self.seal["candidates"]}
        # the base model is measured as it is
        base = [Target(BASE, BASE, {}, 0)] if BASE in configs else []
        return base + [Target(c, sealed[c]["method"], sealed[c]["params"], seeds[c]) for c in configs if c != BASE]


def _refuse_other_files(base: "Base", model: Path) -> None:
    """VerificationError where the signed model's configuration or tokenizer do not belong to its weights: it has other losses."""
    from froc.models.inference_files import first_difference

    differing = first_difference(base, model)
    if differing is not None:
        raise VerificationError(
            "model-files-differ",
            f"{differing} of the signed model is not what belongs to these weights: it decides what they do, so that the signed model is "
            "another one than was measured",
        )
