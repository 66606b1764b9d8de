"""Which implementation of attention computes a model: the fastest that it supports, or the one that the user chose."""

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel
from transformers.utils.import_utils import is_flash_attn_2_available

from froc.errors import InputError
from froc.models.architecture import agree, few_logits
from froc.models.training_options import ATTENTIONS, FLASH


@dataclass(frozen=True)
class Attention:
    """What the user chose, and what it depends on.

    chosen: of `ATTENTIONS`; None for the fastest. device, kind: where the model will lie, and type of its parameters.
    deterministic: only what computes to the same bits each time.
    """

    chosen: str | None
    device: str
    kind: torch.dtype
    deterministic: bool = False

    @property
    def on_host(self) -> str | None:
        """What the model is loaded with, before it is on its device."""
        return None if self.chosen == FLASH else self.chosen

    def check(self) -> None:
        """InputError, before anything is loaded, for what is not known or cannot be had here."""
        if self.chosen is not None and self.chosen not in ATTENTIONS:
            raise InputError(f"no attention is called {self.chosen!r}; there are: {', '.join(ATTENTIONS)}")
        if self.chosen == FLASH and (why := self._lacking()):
            raise InputError(f"--attention {FLASH} {why}; leave --attention out, or write sdpa")

    def _lacking(self) -> str:
        """Why flash attention cannot be had here; empty if it can."""
        if self.deterministic:
            return "adds in another order each time, which --deterministic rules out"
        if not self.device.startswith("cuda"):
            return f"needs an NVIDIA or AMD GPU, and the device is {self.device}"
        if self.kind not in (torch.float16, torch.bfloat16):
            return "needs parameters in half precision; give --dtype bfloat16 with it"
        return "" if is_flash_attn_2_available() else "needs the package flash-attn, which is not installed"

    def make_faster(self, model: PreTrainedModel) -> tuple[str, ...]:
        """Let a model on its device use flash attention, where it supports it and computes the same; notes.

        InputError where the user chose it and the model does not support it.
        """
        if self.chosen not in (None, FLASH) or self._lacking():
            return ()
        before = str(model.config.get_text_config()._attn_implementation)
        model.eval()
        expected = few_logits(model)
        try:
            model.set_attn_implementation(FLASH)
            if agree(few_logits(model), expected, model):
                return ()
            why = "computes something else with it"
        except (ValueError, ImportError, RuntimeError) as error:
            why = f"does not support it ({str(error).partition('.')[0]})"
        if self.chosen == FLASH:
            raise InputError(f"--attention {FLASH}: the model {why}; leave --attention out, or write sdpa")
        model.set_attn_implementation(before)
        return (f"attention is {before}: the model {why}",) if "else" in why else ()
