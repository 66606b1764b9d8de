"""What a re-execution's statement says: the shapes of its predicate."""

from typing import Literal, Self

from pydantic import Field, model_validator

from froc.audit.bundle_files import Hex, Name, Stamp, Strict
from froc.audit.documents import Environment, Harness, Role
from froc.audit.redraw import MOST

HOW = {"trained-again": "drawn configurations trained again", "model-measured": "the chosen model measured"}


MOST_WITHIN = 10
"""Thousandths by which a loss that is measured again may differ at most where a statement says so."""
SCOPES = {"trained-again": "any configuration", "model-measured": "the model, or of the base model,"}


class GroupCount(Strict):
    """Counts of one configuration under one risk.

    rows, of: number of rows drawn, and of all rows of the group.
    differed: number of rows whose whole thousandths differ.
    largest: largest difference, in thousandths.
    bound: share of `of` that may differ; the bounds of all groups hold together.
    """

    config: str
    risk: str
    rows: int = Field(ge=1, le=MOST)
    of: int = Field(ge=1)
    differed: int = Field(ge=0)
    largest: int = Field(ge=0, le=1000)
    bound: str


class SignedModel(Strict):
    """What measuring again shows about the model that the report covers, beyond the losses.

    how: `same-weights`: `config` trained again has the sealed digest, `digest`. `measured`: training gave other bits,
        and the signed model with weights `digest` was measured on its own rows, drawn by the seed. `not-compared`:
        neither. `not-trained`: `config` could not be trained again.

    The other fields are as in `Outcome`, for those rows; 0, and no bound, where none were drawn.
    """

    how: Literal["same-weights", "measured", "not-compared", "not-trained"]
    config: str = Name
    digest: str | None = Field(pattern=r"^[0-9a-f]{64}$")
    rows: int = Field(ge=0, le=MOST)
    of: int = Field(ge=0)
    lines: list[int]
    differed: int = Field(ge=0)
    largest: int = Field(ge=0, le=1000)
    bound: str | None
    each: int | None = Field(default=None, ge=1, le=MOST)
    groups: list[GroupCount] | None = Field(default=None, min_length=1)

    @property
    def compared(self) -> bool:
        """Whether the signed model's weights were looked at."""
        return self.how in ("same-weights", "measured")

    @property
    def holds(self) -> bool:
        """Whether the signed model was shown to have the signed weights or losses."""
        return self.how == "same-weights" or (self.how == "measured" and self.differed == 0)

    @property
    def words(self) -> str:
        """The result in fixed words."""
        if self.how == "same-weights":
            return f"{self.config} trained again has the sealed weights, to the bit"
        if self.how == "not-trained":
            return f"{self.config} could not be trained again by its sealed method and settings: nothing was compared with the signed model"
        if self.how == "not-compared":
            return "the signed model was not compared with what was measured: give --model DIR to froc audit reexecute"
        return (
            f"the signed model measured itself, since training again came to other bits: {self.rows} of {self.of} losses of "
            f"{self.config} drawn, {self.differed} differed"
        )


class Outcome(Strict):
    """The predicate of the statement.

    rows, of: number of rows drawn by `seed`, and of all rows.
    lines: their line numbers in losses.csv.
    differed: number of rows whose whole thousandths differ.
    largest: largest difference, in thousandths.
    within: thousandths up to which losses count as the same; kernels that add in any order differ in the last bits.
    each: number of rows drawn of each group, a configuration under a risk; all of a smaller group.
    bound: share of a group's rows that may differ, in the worst group, at `confidence` for all groups together.

    Statements of schema 1 drew from all rows together: they have no groups, and their bound is of all rows.
    """

    schema_: Literal["1", "2"] = Field(alias="schema")
    signed: str = Stamp
    role: Role
    keyid: str = Hex
    how: Literal["trained-again", "model-measured"]
    seed: str = Field(pattern=r"^-?[0-9]{1,40}$")
    rows: int = Field(ge=1, le=MOST)
    of: int = Field(ge=1)
    lines: list[int]
    differed: int = Field(ge=0)
    largest: int = Field(ge=0, le=1000)
    confidence: str
    bound: str
    harness: Harness
    environment: Environment
    # older statements do not cover the model
    model: SignedModel | None = None
    within: int = Field(default=0, ge=0, le=MOST_WITHIN)
    each: int | None = Field(default=None, ge=1, le=MOST)
    groups: list[GroupCount] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _has_groups(self) -> Self:
        """Schema 2 counts by groups, of a model that was measured, too; schema 1 knows none."""
        counted: list[Outcome | SignedModel] = [
            self,
            *([self.model] if self.model is not None and self.model.how == "measured" else []),
        ]
        if any((part.each is not None, part.groups is not None) != (self.schema_ == "2",) * 2 for part in counted):
            raise ValueError("groups and schema do not fit")
        return self
