"""Name patterns of weight matrices, across architectures: those that read the hidden states and those that write to them."""

from collections.abc import Sequence

INTO = "gate_proj|up_proj|gate_up_proj|dense_h_to_4h|fc1|fc_in|c_fc|w1|w3"
OUT = "down_proj|dense_4h_to_h|fc2|fc_out|c_proj|w2"
ATTENTION = "o_proj|out_proj|dense|wo"
MATRICES = {"into": INTO, "out": OUT, "both": f"{INTO}|{OUT}"}


def feedforward(which: str, layers: Sequence[int]) -> str:
    """Pattern of the feed-forward weights of these layers, counted from 0.

    which: `into` (gate and up projections), `out` (down projections) or `both`.

    GPT-2's attention also has a c_proj, and an expert's number may equal a layer's: neither matches.
    """
    return rf"^\D*\.({'|'.join(map(str, layers))})\.(?!.*att).*\b({MATRICES[which]})\.weight$"


def writing(layers: Sequence[int]) -> str:
    """Pattern of the weights that write to the hidden states: the output matrices of these layers' attentions and feed-forwards."""
    return rf"^\D*\.({'|'.join(map(str, layers))})\.(.*\b({OUT})|.*att.*\b({ATTENTION}))\.weight$"


def window(layers: int, start: float, width: int) -> tuple[int, ...]:
    """Indices of `width` neighbouring layers out of `layers` (all of them if there are fewer).

    start: position in [0, 1]; 0 takes the first layers, 1 the last ones.
    """
    most = min(width, layers)
    first = round(start * (layers - most))
    return tuple(range(first, first + most))
