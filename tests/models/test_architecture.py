"""Models that people have: of every kind a tiny one that nobody trained, written to a folder and loaded from it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    PreTrainedTokenizerFast,
)

from froc.errors import InputError
from froc.models import adapters, narrowing
from froc.models.base import Base, load, save
from froc.models.batches import Encoded, Stack
from froc.models.forward import Pass

VOCABULARY = 40
PLAIN = {
    "vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 2, "bos_token_id": None, "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
HEADS = PLAIN | {"num_key_value_heads": 2, "head_dim": 8}
GPT = {"vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, "eos_token_id": 0, "bos_token_id": 0}  # fmt: skip
SHORT = {"vocab_size": VOCABULARY, "hidden_size": 16, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
KINDS: dict[str, dict[str, Any]] = {
    "llama": HEADS, "qwen3": HEADS, "phi3": PLAIN, "gpt2": GPT, "gptj": GPT | {"rotary_dim": 4}, "gpt_neox": PLAIN,
    "gemma2": HEADS | {"attn_logit_softcapping": 0.01, "query_pre_attn_scalar": 1},
    "gemma3_text": HEADS,
    "gpt_oss": HEADS | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "mixtral": HEADS | {"num_local_experts": 4},
    "mpt": {"vocab_size": VOCABULARY, "d_model": 16, "n_heads": 2, "n_layers": 2, "expansion_ratio": 2, "max_seq_len": 64},
    "bloom": SHORT | {"n_layer": 2, "n_head": 2},
    "falcon": SHORT | {"num_hidden_layers": 2, "num_attention_heads": 2},
    "mamba": SHORT | {"num_hidden_layers": 2, "state_size": 4},
    "gpt_neo": {"vocab_size": VOCABULARY, "hidden_size": 16, "num_layers": 2, "num_heads": 2, "bos_token_id": 0, "eos_token_id": 0,
                "attention_types": [[["global", "local"], 1]], "max_position_embeddings": 64},
    "opt": SHORT | {"ffn_dim": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "word_embed_proj_dim": 16,
                    "max_position_embeddings": 64},
}  # fmt: skip
EAGER = {"gemma2", "gpt_oss", "mpt", "bloom", "mamba", "gpt_neo"}
"""Kinds whose attention is not what SDPA computes, in transformers 5."""


def tokenizer(folder: Path) -> None:
    """Words that are numbers, the first of them the end."""
    words = WordLevel({str(number): number for number in range(VOCABULARY)}, unk_token="0")
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words), eos_token="0").save_pretrained(folder)


def write(
    folder: Path, kind: str, configuration: dict[str, Any], made: Any = AutoModelForCausalLM, spread: float = 0.3
) -> Path:
    """A model by a configuration alone. spread: of its weights, wide enough for attention to matter."""
    torch.manual_seed(5)
    model = made.from_config(AutoConfig.for_model(kind, **configuration))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(spread * torch.randn_like(parameter))
    model.save_pretrained(folder)
    tokenizer(folder)
    return folder


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_every_architecture_is_measured_as_its_own_full_pass_says(kind: str, tmp_path: Path) -> None:
    """Rows side by side, right-padded, heads and last block narrowed: as each row alone under eager attention."""
    base = load(str(write(tmp_path, kind, KINDS[kind])), device="cpu")
    assert any("eagerly" in note for note in base.notes) == (kind in EAGER)
    plain: Any = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager", dtype=torch.float32)
    rows = [Encoded((3, 1, 7, 9, 4, 8, 2, 0), 3, 4), Encoded((5, 6, 2, 11, 0), 2, 2)]
    with torch.no_grad():
        seen = Pass(base.model, Stack(rows, "cpu").batch([0, 1]))
        alone = [plain.eval()(input_ids=torch.tensor([row.ids])).logits[0] for row in rows]
    wanted = torch.stack([alone[row][column] for row, column in zip(seen.row, seen.column, strict=True)])
    assert seen.logits is not None
    assert float((seen.logits - wanted).abs().max()) < 1e-4 * float((wanted - wanted.mean()).abs().max())


@pytest.mark.filterwarnings("ignore")
def test_a_last_block_that_reads_more_than_its_first_argument_sees_whole_rows(tmp_path: Path) -> None:
    bloom, llama = (load(str(write(tmp_path / kind, kind, KINDS[kind])), device="cpu") for kind in ("bloom", "llama"))
    assert not narrowing.try_narrowing(bloom.model)
    assert narrowing.try_narrowing(llama.model)


@pytest.mark.filterwarnings("ignore")
def test_a_last_block_that_mixes_positions_sees_whole_rows(tmp_path: Path) -> None:
    """No error says so: the logits do."""
    base = load(str(write(tmp_path, "llama", HEADS)), device="cpu")
    mlp: Any = base.model.model.layers[-1].mlp
    plain = mlp.forward
    # a token's predecessor has a say
    mlp.forward = lambda x: plain(x + x.roll(1, 1))
    assert not narrowing.try_narrowing(base.model)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "configuration", "made"),
    [
        ("bert", PLAIN, AutoModelForMaskedLM),
        ("roberta", PLAIN | {"pad_token_id": 1}, AutoModelForMaskedLM),
        ("electra", PLAIN | {"embedding_size": 16}, AutoModelForMaskedLM),
        ("xlm", {"vocab_size": VOCABULARY, "emb_dim": 16, "n_layers": 2, "n_heads": 2}, AutoModelForCausalLM),
    ],
)
def test_encoders_are_refused(kind: str, configuration: dict[str, Any], made: Any, tmp_path: Path) -> None:
    """They load as causal language models without a word, and score what they can see."""
    with pytest.raises(InputError, match="no causal language model: a later token changes what it predicts before it"):
        load(str(write(tmp_path, kind, configuration, made)), device="cpu")


@pytest.mark.filterwarnings("ignore")
def test_an_encoders_architecture_as_a_decoder_is_taken(tmp_path: Path) -> None:
    load(str(write(tmp_path, "bert", PLAIN | {"is_decoder": True})), device="cpu")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "configuration"),
    [
        ("t5", {"vocab_size": VOCABULARY, "d_model": 16, "d_ff": 24, "num_layers": 2, "num_heads": 2, "d_kv": 8}),
        ("bart", {"vocab_size": VOCABULARY, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
                  "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24}),
    ],
)  # fmt: skip
def test_encoder_decoders_are_refused_by_name(kind: str, configuration: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"encoder-decoder model \({kind}\).*give a decoder-only"):
        load(str(write(tmp_path, kind, configuration, AutoModelForSeq2SeqLM)), device="cpu")


@pytest.mark.filterwarnings("ignore")
def test_half_precision_is_no_reason_to_refuse_and_an_encoder_is_refused_in_it(tmp_path: Path) -> None:
    for kind in ("llama", "gpt_oss", "bloom"):
        load(str(write(tmp_path / kind, kind, KINDS[kind])), device="cpu", dtype="bfloat16")
    with pytest.raises(InputError, match="no causal language model"):
        load(str(write(tmp_path / "bert", "bert", PLAIN, AutoModelForMaskedLM)), device="cpu", dtype="bfloat16")


@pytest.mark.filterwarnings("ignore")
def test_a_model_whose_weights_are_no_numbers_is_taken_to_be_measured_as_such(tmp_path: Path) -> None:
    base = load(str(write(tmp_path / "good", "llama", HEADS)), device="cpu")
    with torch.no_grad():
        next(base.model.parameters()).fill_(float("nan"))
    save(base, tmp_path / "spoilt")
    load(str(tmp_path / "spoilt"), device="cpu")


VISION = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 8, "patch_size": 4}  # fmt: skip
MULTIMODAL: dict[str, dict[str, Any]] = {
    "gemma3": {"text_config": HEADS, "vision_config": VISION, "mm_tokens_per_image": 4, "image_token_index": 39, "boi_token_index": 38, "eoi_token_index": 37},
    "llava": {"text_config": HEADS | {"model_type": "llama"}, "vision_config": VISION | {"model_type": "clip_vision_model"}, "image_token_index": 39},
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", MULTIMODAL)
def test_of_a_multimodal_model_the_text_model_is_taken(kind: str, tmp_path: Path) -> None:
    """The picture tower has as many blocks as the text model here: none of it is trained or looked at."""
    folder = write(tmp_path / "whole", kind, MULTIMODAL[kind], AutoModelForImageTextToText, 0.1)
    base = load(str(folder), device="cpu")
    assert any("text model of a multimodal one" in note for note in base.notes)
    assert not [name for name, _ in base.model.named_parameters() if "vision" in name or "projector" in name]
    whole: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    ids = torch.tensor([[3, 1, 7, 9, 4]])
    with torch.no_grad():
        wanted, result = (model(input_ids=ids).logits for model in (whole.eval(), base.model))
    assert torch.allclose(result, wanted, atol=1e-4)
    save(base, tmp_path / "text")
    again = load(str(tmp_path / "text"), device="cpu")
    assert again.digest == base.digest


@pytest.mark.filterwarnings("ignore")
def test_a_model_without_text_is_refused_by_name(tmp_path: Path) -> None:
    AutoConfig.for_model("vit").save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(InputError, match=r"no causal language model \(its type is vit\)"):
        load(str(tmp_path), device="cpu")


@pytest.mark.parametrize(
    "name", ["./nowhere", "/nowhere", "~/nowhere", "runs/today/model", "model/", "../model", "C:\\model", "a b"]
)
def test_what_can_be_no_hub_id_is_a_folder_that_does_not_exist(name: str) -> None:
    with pytest.raises(InputError, match=r"the model folder .* does not exist"):
        load(name, device="cpu")


def test_a_name_that_is_no_folder_and_not_on_the_hub_is_said_to_be_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("model", "owner/model"):
        with pytest.raises(InputError, match=rf"there is no folder {name} in .*{tmp_path.name}"):
            load(name, device="cpu")
    (tmp_path / "owner").mkdir()
    with pytest.raises(InputError, match="the model folder owner/model does not exist"):
        load("owner/model", device="cpu")
    (tmp_path / "model").touch()
    with pytest.raises(InputError, match="is a file"):
        load("model", device="cpu")


# adapters


@pytest.fixture
def home(tmp_path: Path) -> Base:
    return load(str(write(tmp_path / "home", "llama", HEADS)), device="cpu")


def adapt(home: Base, folder: Path, names: str = "", **settings: Any) -> Any:
    """An adapter of a base, as peft writes it, with weights that change something; returns the adapted model."""
    from peft import LoraConfig, get_peft_model

    plain: Any = AutoModelForCausalLM.from_pretrained(home.name, dtype=torch.float32)
    made = get_peft_model(
        plain, LoraConfig(r=2, target_modules=["q_proj", "up_proj"], task_type="CAUSAL_LM", **settings)
    )
    torch.manual_seed(6)
    with torch.no_grad():
        for parameter in (p for p in made.parameters() if p.requires_grad):
            parameter.copy_(0.3 * torch.randn_like(parameter))
    made.peft_config["default"].base_model_name_or_path = names or home.name
    made.save_pretrained(str(folder))
    return made.eval()


def _logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=torch.tensor([[3, 1, 7, 9, 4]])).logits
    return logits


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("settings", [{}, {"use_dora": True}, {"use_rslora": True}, {"modules_to_save": ["lm_head"]}])
def test_an_adapter_folder_is_its_base_with_the_adapter_in_it(
    settings: dict[str, Any], home: Base, tmp_path: Path
) -> None:
    adapted = adapt(home, tmp_path / "adapter", **settings)
    base = load(str(tmp_path / "adapter"), device="cpu")
    assert torch.allclose(_logits(base.model), _logits(adapted), atol=1e-4)
    assert not torch.allclose(_logits(base.model), _logits(home.model), atol=1e-2)
    assert base.notes == ("adapter is a LoRA adapter: it is merged into its base model home",)
    # a plain model from then on
    assert {n for n, _ in base.model.named_parameters()} == {n for n, _ in home.model.named_parameters()}
    save(base, tmp_path / "merged")
    assert load(str(tmp_path / "merged"), device="cpu").digest == base.digest


@pytest.mark.filterwarnings("ignore")
def test_an_unlearned_adapter_takes_the_base_at_hand_where_the_names_agree(home: Base, tmp_path: Path) -> None:
    """The folder that it names is on the machine where it was trained."""
    from froc.search.external_model import ExternalModel

    adapted = adapt(home, tmp_path / "adapter", names="/elsewhere/home")
    external = ExternalModel(tmp_path / "adapter")
    weights = external.weights(home)
    assert external.notes
    with torch.no_grad():
        home.trainable.load(weights)
        assert torch.allclose(_logits(home.model), _logits(adapted), atol=1e-4)
    home.restore()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("names", ["/elsewhere/other", "other", "owner/other"])
def test_an_adapter_whose_base_is_nowhere_is_refused_with_what_to_do(names: str, home: Base, tmp_path: Path) -> None:
    from froc.search.external_model import ExternalModel

    adapt(home, tmp_path / "adapter", names=names)
    ways: list[Callable[[], object]] = [
        lambda: load(str(tmp_path / "adapter"), device="cpu"),
        lambda: ExternalModel(tmp_path / "adapter").weights(home),
    ]
    for way in ways:
        with pytest.raises(
            InputError, match=rf"is a LoRA adapter of {names}, which cannot be loaded .*merge it .*or mend"
        ):
            way()


@pytest.mark.filterwarnings("ignore")
def test_adapters_that_do_not_fit_or_cannot_be_read_are_refused(home: Base, tmp_path: Path) -> None:
    adapt(home, tmp_path / "adapter")
    deep = load(str(write(tmp_path / "deep" / "home", "llama", HEADS | {"num_hidden_layers": 3})), device="cpu")
    with pytest.raises(InputError, match="adapter of another model than"):
        adapters.Adapter(tmp_path / "adapter").merged(lambda _: deep.model, deep.name)
    ambiguous = write(tmp_path / "both", "llama", HEADS)
    (ambiguous / "adapter_config.json").write_bytes((tmp_path / "adapter" / "adapter_config.json").read_bytes())
    with pytest.raises(InputError, match="which is meant is not said"):
        load(str(ambiguous), device="cpu")
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    weights.rename(tmp_path / "adapter" / "adapter_model.bin")
    with pytest.raises(InputError, match="can run code"):
        load(str(tmp_path / "adapter"), device="cpu")
