"""The contract of attacks: what an adversary may do before a model is measured."""

from abc import ABC
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from froc.data.prompts import PromptFormat
from froc.data.task import Row
from froc.fidelity import Fidelity
from froc.measuring.metric import Observable, Observation

if TYPE_CHECKING:
    # an attack's name is checked before torch is imported
    from torch.nn import Parameter
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from froc.models.batches import Encoded


def parameters(model: "PreTrainedModel") -> "dict[str, Parameter]":
    """name -> parameter of the model as it would be deployed: without adapters, which are merged before deployment."""
    return {name: p for name, p in model.named_parameters() if ".lora_" not in name}


@dataclass(frozen=True)
class Material:
    """What an adversary may hold.

    known: forget rows about facts that are not measured.
    retain: rows about other things.
    refusals: refusal answers.
    template: how questions are asked.
    seed: of everything that an attack draws.
    """

    known: tuple[Row, ...]
    retain: tuple[Row, ...]
    refusals: tuple[str, ...]
    template: PromptFormat
    seed: int = 0


@dataclass(frozen=True)
class Attack(ABC):
    """An adversary's action before a model is measured.

    allows: what the adversary may do, in one sentence.
    fidelity: how true it is to its paper (`froc.fidelity`).
    holds: whether it needs forget rows; the facts in them are then not measured.
    hides: observables that cannot be observed under it; metrics that read them are refused before training.
    shows_in: observables through which it acts; metrics that read none of them are refused. Empty: it acts on all.
    """

    plugin_group: ClassVar[str] = "froc.attacks"
    fidelity: ClassVar[Fidelity] = "reading"
    allows: ClassVar[str]
    holds: ClassVar[bool] = False
    hides: ClassVar[frozenset[Observable]] = frozenset()
    shows_in: ClassVar[frozenset[Observable]] = frozenset()

    def fits(self, rows: Sequence[Row], material: Material) -> str:
        """Why these queries cannot be attacked, with the fix; "" where they can. Checked before anything is trained."""
        return ""

    def ask(self, rows: Sequence[Row], material: Material) -> Sequence[Sequence[Row]]:
        """Forms of the queries: each is a list of all n queries in their order, with the same answers. By default the queries themselves."""
        return [rows]

    def change(  # noqa: B027  # most attacks leave the model alone
        self, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", material: Material
    ) -> None:
        """Change the parameters in place; the caller restores them. By default nothing."""

    def observations(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        rows: "Sequence[Encoded]",
        queries: Sequence[Row],
        observables: frozenset[Observable],
        material: Material,
    ) -> Iterator[Observation]:
        """One or more observations of n encoded queries; each is scored, and the worst counts. By default one, of the plain model."""
        from froc.measuring.model_observation import observe

        yield observe(model, tokenizer, rows, queries, observables)

    @property
    def adds(self) -> int:
        """Tokens that it adds to every encoded prompt."""
        return 0

    @property
    def keeps(self) -> float:
        """Share of the model's change against the base model that it leaves, in [0, 1]."""
        return 1.0

    @property
    def changes_model(self) -> bool:
        """Whether it changes parameters, so that the model cannot be shared meanwhile."""
        return type(self).change is not Attack.change or self.keeps != 1.0
