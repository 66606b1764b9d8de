"""The model's folder: closed, and the digest of its weights."""

import math
import re
from pathlib import Path
from typing import Any

from tests.audit.independent.reading import need, parse, sha

INDEX = "model.safetensors.index.json"
BESIDE = re.compile(r"README.md|LICENSE(\.md|\.txt)?|.gitattributes|\.cache/huggingface/.*")
HEAD = re.compile(r"(.*\.)?(lm_head|embed_out|lm_head\.decoder|cls\.predictions\.decoder)\.weight", re.DOTALL)
TYPES = {
    "BOOL": "bool",
    "I64": "int64",
    "I32": "int32",
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
}
WIDTH = {"BOOL": 1, "I64": 8, "I32": 4, "F64": 8, "F32": 4, "F16": 2, "BF16": 2}
OTHER = (b"PK", b"GGUF", b"\x1f\x8b", b"\x89HDF", *(bytes([128, version]) for version in range(2, 6)))


def tensors(data: bytes) -> dict[str, str]:
    """Name -> SHA-256 of type, shape and bytes, where tensors cover the whole file of safetensors."""
    size = int.from_bytes(data[:8], "little")
    head, digests, place = parse(data[8 : 8 + size]), dict[str, str](), 8 + size
    need(
        isinstance(head, dict),
        all(tensor.get("dtype") in TYPES for name, tensor in head.items() if name != "__metadata__"),
    )
    head.pop("__metadata__", None)
    for name, tensor in sorted(head.items(), key=lambda item: list(item[1]["data_offsets"])):
        begin, end = (8 + size + offset for offset in tensor["data_offsets"])
        need(begin == place, end - begin == math.prod(tensor["shape"]) * WIDTH[tensor["dtype"]], end <= len(data))
        place, head_text = end, f"torch.{TYPES[tensor['dtype']]} {tuple(tensor['shape'])} "
        digests[name] = sha(head_text.encode() + data[begin:end])
    need(place == len(data))
    return digests


def redirected(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(redirected, value))
    words = ["auto_map", "custom_pipelines", "transformers_weights"]
    return isinstance(value, dict) and (
        any(value.get(word) and not isinstance(value[word], int) for word in words)
        or any(key.endswith("_implementation") and "/" in str(inner) for key, inner in value.items())
        or any(map(redirected, value.values()))
    )


def plain_set(names: Any) -> list[str]:
    """The files with weights, where loaders take all of them and nothing else."""
    weights = sorted(name for name in names if name.endswith(".safetensors"))
    need(weights, "config.json" in names, not any(name.split("/")[-1].startswith("adapter_") for name in names))
    need(all(name == INDEX for name in names if name.endswith(".index.json")))
    need(weights == ["model.safetensors"] or (INDEX in names and "model.safetensors" not in weights))
    return weights


def weights(model: Path, names: Any) -> str:
    """The digest of the weights in a closed folder."""
    files = {name: (model / name).read_bytes() for name in names}
    stored = {name: tensors(files[name]) for name in plain_set(names)}
    parts = {tensor: value for tensors in stored.values() for tensor, value in tensors.items()}
    need(parts, len(parts) == sum(map(len, stored.values())))
    where = {tensor: name for name, tensors in stored.items() for tensor in tensors}
    need(INDEX not in files or parse(files[INDEX], True).get("weight_map") == where)
    need(not any(redirected(parse(data, True)) for name, data in files.items() if name.endswith(".json")))
    for name in (name for name in files if not name.endswith((".safetensors", ".json"))):
        need(not files[name].startswith(OTHER), files[name][257:262] != b"ustar")
        need(
            name.endswith(".model")
            or (b"\0" not in files[name] and files[name].decode("utf-8", "replace").encode() == files[name])
        )
    own = {value for tensor, value in parts.items() if not HEAD.fullmatch(tensor)}
    kept = sorted(tensor for tensor in parts if not (HEAD.fullmatch(tensor) and parts[tensor] in own))
    return sha("".join(f"{parts[tensor]}  {tensor}\n" for tensor in kept).encode())
