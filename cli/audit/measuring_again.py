"""What `audit reexecute` measures: the drawn losses, and whether the signed model is the one that they belong to."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from froc.configuration_id import EXTERNAL_METHOD
from froc.errors import InputError, VerificationError

if TYPE_CHECKING:
    import polars as pl

    from froc.audit.verification import Result
    from froc.data.fresh_queries import Rows
    from froc.models.base import Base
    from froc.search.job import Job
    from froc.search.reexecution import Further, Target
    from froc.search.trial.work import KeptWeights


@dataclass(frozen=True)
class Again:
    """The result of measuring again.

    table: losses of the drawn rows.
    chosen: digest of the chosen configuration's weights, if it was trained again.
    files: digests of the files beside them.
    environment: the measuring machine's software and device.
    failed: configurations that could not be trained again, and why.
    """

    table: "pl.DataFrame"
    chosen: str | None
    files: Mapping[str, str]
    environment: dict[str, str]
    failed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Measuring:
    """A verified report to be measured again.

    verified: the report.
    make: builds its job; the argument says whether all parameters must be loadable, as for a model from a folder.
    progress: called with (configurations done, of).
    within: thousandths up to which losses count as the same.
    rows: pool -> rows of all further stages; None where they are drawn.
    """

    verified: "Result"
    make: Callable[[bool], "Job"]
    progress: Callable[[int, int], None]
    within: int = 0
    rows: "Rows | None" = None

    @property
    def chosen(self) -> str | None:
        """The configuration whose model the report covers; None if it covers no model."""
        return str(self.verified.report["config"]) if self.verified.facts.files else None

    @property
    def seal(self) -> dict[str, Any]:
        """The sealed document."""
        return dict(json.loads(self.verified.files["seal.json"]))

    def losses(self, drawn: "pl.DataFrame", unlearned: Path | None) -> Again:
        """Losses of the drawn rows; the chosen configuration is always trained again, even if none of its rows was drawn.

        unlearned: folder of the signed model, which is measured instead.
        """
        from froc.models import inference_files
        from froc.search.reexecution import environment, refuse_other_base, refuse_other_units, remeasure
        from froc.search.sealed.weights import of_kept

        elsewhere = next((c for c in self.seal["candidates"] if c["method"] == EXTERNAL_METHOD), None)
        if unlearned is None and elsewhere is not None:
            raise InputError(
                f"{elsewhere['config']} came from another tool and cannot be trained again; give its folder with --unlearned"
            )
        job = self.make(unlearned is not None)
        refuse_other_base(job, self.seal)
        further = self._further(job)
        refuse_other_units(job, self._whole_table(), further)
        if unlearned is not None:
            _refuse_other_files(job.base, unlearned)
        names = drawn["config"].unique(maintain_order=True).to_list()
        if unlearned is None and self.chosen is not None and self.chosen not in names:
            names.append(self.chosen)
        digests: dict[str, str] = {}

        def weighed(config: str, kept: "KeptWeights") -> None:
            if unlearned is None and config == self.chosen:
                digests[config] = of_kept(job.base, kept)

        failed: dict[str, str] = {}
        table = remeasure(
            job, self.seal, self._targets(names), drawn, self.progress, unlearned, weighed,
            lambda config, error: failed.update({config: str(error)}), further,
        )  # fmt: skip
        chosen = digests.get(self.chosen or "")
        return Again(table, chosen, inference_files.digests(job.base), environment(job.base), failed)

    def _whole_table(self) -> "pl.DataFrame":
        """All losses of the report, the base model's included."""
        import polars as pl

        facts = self.verified.facts
        return facts.losses if facts.base is None else pl.concat([facts.losses, facts.base])

    def _further(self, job: "Job") -> "Further":
        """Split -> queries of the further stages."""
        from froc.search.extend import queries_of_stages

        entries = [stage.model_dump() for stage in self.verified.facts.stages]
        return queries_of_stages(job, entries, self.rows, self._whole_table())

    def of_model(self, again: Again, model: Path | None, seed: int, rows: int) -> Mapping[str, Any]:
        """The predicate's entry about the signed model; empty if the report covers none. model: its folder, if available.

        Where the weights agree bit by bit nothing needs measuring; otherwise the model itself is measured on rows of
        its own.
        """
        from froc.audit import model_folder, redraw, reexecution
        from froc.search.reexecution import remeasure

        if self.chosen is None:
            return {}
        losses = self.verified.files["losses.csv"]
        by_unit = reexecution.scope_of(self.verified.facts, None).by_unit
        scope = redraw.Scope((self.chosen,), by_unit)
        entry = partial(reexecution.of_model, losses, seed, self.chosen, by_unit)
        if self.chosen in again.failed:
            return {"model": entry(None, False, None, rows, trained=False)}
        lies = None if model is None else model_folder.of_weights(model, self.verified.facts.files)
        same = again.chosen is not None and again.chosen == (self.verified.facts.seal.weights_of(self.chosen) or lies)
        same = same and self._as_saved(again, model)
        if same or model is None:
            return {"model": entry(again.chosen, same, None, rows)}
        drawn = redraw.table(losses, redraw.draw(losses, seed, rows, scope))
        job = self.make(True)
        targets, further = self._targets([self.chosen]), self._further(job)
        table = remeasure(job, self.seal, targets, drawn, self.progress, model, further=further)
        counts = redraw.compare(drawn, table, scope, self.within)
        return {"model": entry(lies, False, counts, rows)}

    def _as_saved(self, again: Again, model: Path | None) -> bool:
        """Whether configuration and tokenizer of the signed model belong to the weights, as far as can be seen."""
        sealed = self.verified.facts.seal.model_files
        if model is None or (sealed is not None and dict(sealed) == dict(again.files)):
            return sealed is None or dict(sealed) == dict(again.files)
        _refuse_other_files(self.make(False).base, model)
        return True

    def _targets(self, configs: Sequence[str]) -> "list[Target]":
        """Configurations as sealed, with the seeds of their trials."""
        from froc.audit.bundle_files import read_trials
        from froc.risk.positive_control import BASE
        from froc.search.reexecution import Target

        lines = read_trials(self.verified.files["trials.jsonl"])
        complete = [line for line in lines if line.status == "complete"]
        seeds = {config: int(line.seed) for line in complete for config in line.configs}
        sealed = {candidate["config"]: candidate for candidate in self.seal["candidates"]}
        # the base model is measured without training
        base = [Target(BASE, BASE, {}, 0)] if BASE in configs else []
        return base + [Target(c, sealed[c]["method"], sealed[c]["params"], seeds[c]) for c in configs if c != BASE]


def _refuse_other_files(base: "Base", model: Path) -> None:
    """VerificationError where configuration or tokenizer of the signed model do not belong to its weights, which changes its losses."""
    from froc.models.inference_files import first_difference

    differing = first_difference(base, model)
    if differing is not None:
        raise VerificationError(
            "model-files-differ",
            f"{differing} of the signed model is not what belongs to these weights: it decides what they do, so that the signed model is "
            "another one than was measured",
        )
