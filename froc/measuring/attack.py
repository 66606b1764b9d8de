"""The contract of attacks: what an adversary may do before a model is measured."""

from abc import ABC
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch.nn import Parameter
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from froc.data.prompts import PromptFormat
from froc.data.task import Row
from froc.measuring.metric import Observed, Sight
from froc.models.batches import Encoded


def parameters(model: PreTrainedModel) -> dict[str, Parameter]:
    """name -> parameter of the model as it would be deployed: adapters, which are folded into it by then, stand aside."""
    return {name: p for name, p in model.named_parameters() if ".lora_" not in name}


@dataclass(frozen=True)
class Material:
    """What an adversary may hold. known: forget rows about facts that are not measured; retain: rows about other things.

    template: how questions are asked. seed: of everything that an attack draws.
    """

    known: tuple[Row, ...]
    retain: tuple[Row, ...]
    refusals: tuple[str, ...]
    template: PromptFormat
    seed: int = 0


@dataclass(frozen=True)
class Attack(ABC):
    """allows: what the adversary may do, in one sentence. holds: whether it needs forget rows, whose facts are then not measured.

    hides: what cannot be seen under it; a metric that reads that is refused before anything is trained.
    """

    plugin_group: ClassVar[str] = "froc.attacks"
    allows: ClassVar[str]
    holds: ClassVar[bool] = False
    hides: ClassVar[frozenset[Sight]] = frozenset()

    def fits(self, rows: Sequence[Row], material: Material) -> str:
        """Why these queries cannot be attacked, with the mend; "" where they can. Said before anything is trained."""
        return ""

    def ask(self, rows: Sequence[Row], material: Material) -> Sequence[Sequence[Row]]:
        """Forms of the queries: each has all n of them, in their order, with the same answers. By default as they are."""
        return [rows]

    def change(  # noqa: B027  # most attacks leave the model alone
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, material: Material
    ) -> None:
        """Change the parameters in place; whoever calls puts them back. By default nothing."""

    def looks(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        rows: Sequence[Encoded],
        asked: Sequence[Row],
        sights: frozenset[Sight],
        material: Material,
    ) -> Iterator[Observed]:
        """What is seen of n encoded queries, once per way of looking; each is scored. By default the answer as the model gives it."""
        from froc.measuring.observe import observe

        yield observe(model, tokenizer, rows, asked, sights)

    @property
    def adds(self) -> int:
        """Tokens that it puts into every prompt, beside what is written in a form."""
        return 0

    @property
    def changes_model(self) -> bool:
        """Whether it needs the parameters to itself."""
        return type(self).change is not Attack.change
