"""Adapter folders (peft's `adapter_config.json`), merged into the base model that they name."""

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from froc.errors import InputError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MERGE = "merge it (peft: model.merge_and_unload().save_pretrained(FOLDER)) and give the merged folder"


@dataclass(frozen=True)
class Adapter:
    """A folder that holds an adapter without its base model."""

    folder: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """Content of `adapter_config.json`; InputError where it is unreadable."""
        try:
            read = json.loads((self.folder / CONFIG).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{self.folder / CONFIG} is no readable JSON; save the adapter again") from error
        if not isinstance(read, dict):
            raise InputError(f"{self.folder / CONFIG} is no adapter's configuration; save the adapter again")
        return read

    @property
    def kind(self) -> str:
        """ "LoRA", or peft's name for the adapter type."""
        kind = str(self.config.get("peft_type") or "peft")
        return "LoRA" if kind == "LORA" else kind

    @property
    def named(self) -> str:
        """The base model named in the configuration; empty if none is."""
        return str(self.config.get("base_model_name_or_path") or "")

    @property
    def note(self) -> str:
        """Note shown beside results."""
        return f"{self.folder.name} is a {self.kind} adapter: it is merged into its base model {_last(self.named)}"

    def base(self, base_at_hand: str | None) -> str:
        """Folder or hub id of the adapter's base model; InputError if there is none.

        base_at_hand: the base model in use; it is taken where its name agrees with the adapter's.
        """
        if not self.named and base_at_hand is None:
            raise InputError(f"{self.folder} is a {self.kind} adapter that names no base model; {MERGE}")
        named = Path(self.named)
        if base_at_hand is not None and (not self.named or _last(base_at_hand) == _last(self.named)):
            return self.named if named.is_absolute() and named.is_dir() else base_at_hand
        beside = self.folder.resolve().parent / named
        if named.is_dir() or not beside.is_dir():
            return self.named
        return str(beside)

    def merged(self, load: Callable[[str], PreTrainedModel], base_at_hand: str | None = None) -> PreTrainedModel:
        """The base model with the adapter merged into its weights.

        load: reads a model by folder or hub id.
        base_at_hand: see `base`.

        InputError where the base model cannot be loaded, or the adapter does not fit it.
        """
        self._refuse_pickle()
        name = self.base(base_at_hand)
        try:
            base = load(name)
        except InputError as error:
            raise InputError(
                f"{self.folder} is a {self.kind} adapter of {self.named or name}, which cannot be loaded ({error}); {MERGE}, or "
                f"mend base_model_name_or_path in {CONFIG}"
            ) from error
        return self._into(base, name)

    def _into(self, base: PreTrainedModel, name: str) -> PreTrainedModel:
        from peft import PeftConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
        from safetensors.torch import load_file

        try:
            weights = load_file(self.folder / WEIGHTS)
            config = PeftConfig.from_pretrained(str(self.folder))
            # the recorded path may belong to another machine
            config.inference_mode, config.base_model_name_or_path = True, base.name_or_path
            with warnings.catch_warnings():
                # a deprecation between peft and transformers, of no use to the user
                warnings.simplefilter("ignore", FutureWarning)
                made: Any = get_peft_model(base, config)
            wanted = set(get_peft_model_state_dict(made))
            if wanted == set(weights):
                set_peft_model_state_dict(made, weights)
                merged: PreTrainedModel = made.merge_and_unload()
                return merged
        # peft raises any of these for an unknown kind or setting, an absent layer, another shape, no merge
        except (ValueError, RuntimeError, KeyError, TypeError, AttributeError, NotImplementedError) as error:
            first = str(error).strip().partition("\n")[0]
            raise InputError(
                f"{self.folder} is a {self.kind} adapter that cannot be merged into {name} ({first}); {MERGE}"
            ) from error
        differing = min(wanted ^ set(weights))
        raise InputError(
            f"{self.folder} is a {self.kind} adapter of another model than {name}: {differing} is "
            f"{'missing' if differing in wanted else 'too much'}; give the base that it was trained on, or {MERGE}"
        )

    def _refuse_pickle(self) -> None:
        path = self.folder / WEIGHTS
        try:
            with safe_open(path, framework="pt"):
                return
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"{self.folder} is a {self.kind} adapter without a readable {WEIGHTS} (a .bin is a pickle, which can run code); "
                "save it with save_pretrained(safe_serialization=True)"
            ) from error


def read(folder: Path) -> Adapter | None:
    """The adapter in a folder, or None; InputError where a whole model lies beside it, since loaders would take the adapter."""
    if not (folder / CONFIG).is_file():
        return None
    whole = sorted(path.name for path in folder.glob("*.safetensors") if path.name != WEIGHTS)
    if whole:
        raise InputError(
            f"{folder} holds a model ({whole[0]}) and an adapter ({CONFIG}): which is meant is not said; give a folder with one "
            "of them"
        )
    return Adapter(folder)


def _last(name: str) -> str:
    return name.replace("\\", "/").rstrip("/").rpartition("/")[2]
