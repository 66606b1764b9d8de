"""Packages that only some commands need, and the extra of froc that brings them."""

from importlib.util import find_spec

from froc.errors import InputError

EXTRAS = {
    "accelerate": "search",
    "optuna": "search",
    "peft": "search",
    "safetensors": "search",
    "sqlalchemy": "search",
    "tokenizers": "search",
    "torch": "search",
    "transformers": "search",
    "bitsandbytes": "nf4",
    "datasets": "hub",
    "matplotlib": "figures",
    "huggingface_hub": "export",
    "psycopg": "postgresql",
    "ray": "ray",
    "rfc3161_client": "timestamp",
}
"""Package -> extra."""


def missing(package: str) -> InputError | None:
    """What to say where a package is not installed; None for packages that no extra brings."""
    extra = EXTRAS.get(package.partition(".")[0])
    if extra is None:
        return None
    return InputError(f"{package.partition('.')[0]} is not installed; pip install 'froc[{extra}]'")


def require(extra: str) -> None:
    """InputError where a package of an extra is not installed; imports nothing."""
    for package, source in EXTRAS.items():
        if source == extra and find_spec(package) is None:
            raise InputError(f"{package} is not installed; pip install 'froc[{extra}]'")
