"""Models as they are saved hold what their configuration says; without a layer, or an untied head, they do not."""

import json
from pathlib import Path

import pytest

from froc.audit import expected_tensors
from froc.errors import VerificationError
from froc.models import weights_digest
from tests.models.test_architecture import KINDS, write


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_holds_what_its_configuration_says(kind: str, tmp_path: Path) -> None:
    folder = write(tmp_path / kind, kind, KINDS[kind])
    config = json.loads((folder / "config.json").read_text())
    tensors = weights_digest.names(folder)
    expected_tensors.check(config, tensors)
    count = next(name for name in expected_tensors.COUNTS if name in config)
    for wrong in (config[count] - 1, config[count] + 7):
        with pytest.raises(VerificationError, match="model-layers"):
            expected_tensors.check(config | {count: wrong}, tensors)


def test_layers_that_predict_ahead_count_as_well() -> None:
    tensors = [f"model.layers.{number}.weight" for number in range(3)]
    expected_tensors.check({"num_hidden_layers": 2, "num_nextn_predict_layers": 1}, tensors)
    expected_tensors.check({"num_hidden_layers": 2, "text_config": {"num_hidden_layers": 3}}, tensors)
    for endless in (10**30, -1, 2):
        with pytest.raises(VerificationError, match="model-layers"):
            expected_tensors.check({"num_hidden_layers": endless}, tensors)


def test_an_untied_head_is_there() -> None:
    config = {"architectures": ["LlamaForCausalLM"], "tie_word_embeddings": False}
    expected_tensors.check(config, ["embed.weight", "lm_head.weight"])
    expected_tensors.check(config | {"tie_word_embeddings": True}, ["embed.weight"])
    with pytest.raises(VerificationError, match="model-head"):
        expected_tensors.check(config, ["embed.weight"])
