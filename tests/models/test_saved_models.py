"""Models as froc saves them hold what their configuration says, and transformers' own table says which key it has."""

import json
from pathlib import Path

import pytest
from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from froc.audit import expected_tensors, model_folder
from froc.errors import VerificationError
from froc.models import weights_digest
from froc.models.base import load, save
from tests.models.test_architecture import KINDS, write


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_holds_what_its_configuration_says(kind: str, tmp_path: Path) -> None:
    folder = write(tmp_path / kind, kind, KINDS[kind])
    config = json.loads((folder / "config.json").read_text())
    tensors = weights_digest.header(folder / "model.safetensors")
    expected_tensors.check(config, tensors)
    count = next(name for name in expected_tensors.COUNTS if name in config)
    for wrong in (config[count] - 1, config[count] + 7):
        with pytest.raises(VerificationError, match="model-layers"):
            expected_tensors.check(config | {count: wrong}, tensors)


def test_layer_keys_are_those_of_transformers() -> None:
    known = {kind: key for key, kinds in expected_tensors.LAYERS_OF_TYPE.items() for kind in kinds}
    for kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        config = CONFIG_MAPPING[kind]
        key = (getattr(config, "attribute_map", None) or {}).get("num_hidden_layers", "num_hidden_layers")
        # transformers names the encoder's layers; as a causal model, the decoder's are read
        key = "decoder_layers" if key == "encoder_layers" else key
        assert known.get(kind, "num_hidden_layers") == key, kind


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("train", ["full", "lora:rank=2"])
def test_a_saved_model_states_the_precision_of_its_weights(dtype: str, train: str, tmp_path: Path) -> None:
    """Also where the files of the base model state another one."""
    home = write(tmp_path / "home", "llama", KINDS["llama"])
    config = json.loads((home / "config.json").read_text())
    (home / "config.json").write_text(json.dumps(config | {"dtype": "float16"}))
    save(load(str(home), device="cpu", dtype=dtype, train=train), tmp_path / "saved")
    names = model_folder.read(tmp_path / "saved").files
    model_folder.refuse_open(names)
    model_folder.refuse_content(tmp_path / "saved", names)
    with pytest.raises(VerificationError, match="stored in float32"):
        model_folder.refuse_content(home, model_folder.read(home).files)
