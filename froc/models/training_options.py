"""Words of options that say how a model is trained, read before there is a model. Torch-free, so that a wrong one costs no time."""

from froc.errors import InputError

PRECISIONS = ("off", "bfloat16", "float16")
"""Precisions of matrix products while training; `off`: the parameters' own."""
DTYPES = ("float32", "bfloat16", "float16")
"""Types of parameters."""


def read_scope(text: str, n_adapters: int = 1) -> tuple[str, dict[str, int]]:
    """Which parameters are trained, from words such as `full`, `layers:last=2` or `lora:rank=8`: the kind and its numbers.

    n_adapters: trained in the same passes; more than one goes with `lora` alone. InputError for other words.
    """
    kind, _, rest = text.partition(":")
    try:
        options = dict(pair.split("=") for pair in rest.split(",") if pair)
        numbers = {name: int(value) for name, value in options.items()}
    except ValueError as error:
        raise InputError(f"--train {text} is not understood; write full, layers:last=2 or lora:rank=8") from error
    allowed = {"full": set(), "layers": {"first", "last"}, "lora": {"rank", "alpha"}}.get(kind)
    bad = allowed is None or not set(numbers) <= allowed or any(value < 1 for value in numbers.values())
    if bad or (kind == "layers" and len(numbers) != 1):
        raise InputError(f"--train {text} is not understood; write full, layers:last=2 or lora:rank=8")
    if n_adapters > 1 and kind != "lora":
        raise InputError("--pack trains several adapters over one frozen base; give --train lora:rank=8 with it")
    return kind, numbers
