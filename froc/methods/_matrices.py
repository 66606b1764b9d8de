"""Matrices of blocks by name, across architectures: what reads the hidden states, and what writes to them."""

from collections.abc import Sequence

INTO = "gate_proj|up_proj|gate_up_proj|dense_h_to_4h|fc1|fc_in|c_fc|w1|w3"
OUT = "down_proj|dense_4h_to_h|fc2|fc_out|c_proj|w2"
ATTENTION = "o_proj|out_proj|dense|wo"
MATRICES = {"into": INTO, "out": OUT, "both": f"{INTO}|{OUT}"}


def feedforward(which: str, layers: Sequence[int]) -> str:
    """Pattern of the weights of these layers, counted from 0. which: `into` (gate and up), `out` (down) or `both`.

    GPT-2's attention has a c_proj, too, which is not meant; nor are experts whose number is a layer's.
    """
    return rf"^\D*\.({'|'.join(map(str, layers))})\.(?!.*att).*\b({MATRICES[which]})\.weight$"


def writing(layers: Sequence[int]) -> str:
    """Pattern of the weights that write to the hidden states: the last matrices of these layers' attentions and feed-forwards."""
    return rf"^\D*\.({'|'.join(map(str, layers))})\.(.*\b({OUT})|.*att.*\b({ATTENTION}))\.weight$"


def window(layers: int, start: float, width: int) -> tuple[int, ...]:
    """`width` neighbouring layers of all `layers`; start: 0 for the first ones, 1 for the last ones."""
    most = min(width, layers)
    first = round(start * (layers - most))
    return tuple(range(first, first + most))
