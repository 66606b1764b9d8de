"""Risk-controlled selection and auditing of machine-unlearning runs.

Packages, from the top down; each imports only from those below it::

    cli                  the `froc` command
    search   audit       search runs; signed reports (neither imports the other)
    certification  comparison  monitoring  planning   froc certify, compare, monitor and plan
    formats              tables and logs of other tools -> losses
    methods              unlearning methods, one file each
    training             a training step, the loop, checkpoints
    attacks              what an adversary may do before a model is measured, one file each
    metrics              scores per query, one file each
    measuring            a model and queries -> losses
    models               loading, parameters, batches, forward passes, generation
    reporting            tables and figures
    risk                 losses -> certified configurations and bounds
    data                 rows, tasks, splits, benchmark files
    procedures  bounds   multiple testing; one theorem per file
    loss_table           the table of losses that they all read
    provenance  plan_identity   whose code a plan names; what makes a plan another plan
    plugin_source  plugins  atomic   plug-ins: what their source says, by name; files that appear whole
    hashing  hyperparameters  timestamp  visible  extras  configuration_id  bytecode  bounded_file  errors  version

In Python: `froc.search.run`, `froc.load`, `froc.compare`, `froc.certify`, `froc.plan`, `froc.monitor`, `froc.report` and `froc.verify` do
what the commands do; `to_polars()` of a result is its table.
They are looked up at first use: `import froc` loads nothing. What stands from `reporting` down, `formats`, the packages of
`certification`'s line, `audit` and `cli` never import torch when they are imported.
"""

import importlib
from typing import TYPE_CHECKING, Any

from froc.version import __version__ as __version__

if TYPE_CHECKING:
    from froc.audit.api import report as report
    from froc.audit.api import verify as verify
    from froc.certification.certify import certify as certify
    from froc.monitoring.monitor import monitor as monitor
    from froc.planning.plan import plan as plan
    from froc.search.api import compare as compare
    from froc.search.api import load as load

PUBLIC = {
    "certify": "froc.certification.certify",
    "compare": "froc.search.api",
    "load": "froc.search.api",
    "monitor": "froc.monitoring.monitor",
    "plan": "froc.planning.plan",
    "report": "froc.audit.api",
    "verify": "froc.audit.api",
}
"""The commands as functions, and where they are; `froc.search.run` is `froc search`."""


def __getattr__(name: str) -> Any:
    if name in ("audit", "cli", "search"):
        return importlib.import_module(f"froc.{name}")
    if name not in PUBLIC:
        raise AttributeError(f"module 'froc' has no attribute {name!r}")
    return getattr(importlib.import_module(PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *PUBLIC])
