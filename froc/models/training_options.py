"""Values of options on how a model is trained, checked without a model. Torch-free, so that wrong values fail fast."""

from froc.errors import InputError

PRECISIONS = ("off", "bfloat16", "float16")
"""Precisions of matrix products in training; `off` is the parameters' own."""
DTYPES = ("float32", "bfloat16", "float16")
"""Types of parameters."""

OPTIMIZERS = ("adamw", "adamw8bit")
"""Optimisers of training; the second keeps 8-bit moments and rounds bfloat16 parameters at random."""
MEASURING = ("float32", "bfloat16")
"""Precisions of matrix products in measuring."""
FLASH = "flash_attention_2"
ATTENTIONS = ("eager", "sdpa", FLASH)
"""Implementations of attention, the slowest first."""
SWITCHES = ("experts", "router")
"""Parts of a mixture of experts that adapters change (1) or leave alone (0)."""


def read_scope(text: str, n_adapters: int = 1) -> tuple[str, dict[str, int]]:
    """Kind and numbers of a scope, from texts such as `full`, `layers:last=2` or `lora:rank=8,bits=4`; InputError for other texts.

    n_adapters: number of adapters trained in the same passes; above 1 for `lora` only.

    >>> read_scope("lora:rank=8")
    ('lora', {'rank': 8})
    """
    kind, _, rest = text.partition(":")
    try:
        options = dict(pair.split("=") for pair in rest.split(",") if pair)
        numbers = {name: int(value) for name, value in options.items()}
    except ValueError as error:
        raise InputError(f"--train {text} is not understood; write full, layers:last=2 or lora:rank=8") from error
    allowed = {"full": set(), "layers": {"first", "last"}, "lora": {"rank", "alpha", "bits", *SWITCHES}}.get(kind)
    bad = allowed is None or not set(numbers) <= allowed
    bad = bad or any(value not in (0, 1) if name in SWITCHES else value < 1 for name, value in numbers.items())
    if numbers.get("bits", 4) != 4:
        raise InputError(f"--train {text}: a frozen base is held in 4 bits (NF4); write bits=4, or leave bits out")
    if bad or (kind == "layers" and len(numbers) != 1):
        raise InputError(f"--train {text} is not understood; write full, layers:last=2 or lora:rank=8")
    if n_adapters > 1 and kind != "lora":
        raise InputError("--pack trains several adapters over one frozen base; give --train lora:rank=8 with it")
    return kind, numbers
