"""CORE: what is measured and what follows from it. Imports none of the other rooms.

How the files depend on each other, top to bottom::

    errors  params  digest  plugins       words every file shares
    rounding                              bounds as people read them
    files  visible  tables                files that appear whole; text of others, unable to hide; tables as text and HTML
    records  rows  passages  prompts      files of rows; rows; long texts in passages; where prompt, answer and end of a row are
    data  tasks/  layouts/  earlier       queries, the sealed split; what can be worked on; benchmarks' files; past requests
    models  scope  linear                 a base model, what of it trials may change, its layers on this processor
    weights_digest                        one digest of a model's weights, read from files without torch
    architecture  adapters                what a model must be to be loaded; adapter folders, merged
    batches  likelihood  forward          rows as tensors, nats of tokens, one pass
    survey  step  methods/                questions to the base model, one training step in parts, the methods
    kronecker  tracing                    what Fisher information says of matrices; which parts of a model its answers need
    sampling  alternates  reference       answers that a model draws; the base model's; its numbers on training rows, computed once
    engine  running  train  resuming      precision and memory; one configuration in training; the loop, for one or a pack;
                                          its state on disk, from which it goes on
    vocabulary                            does a tokenizer give away what is to be forgotten
    presets  risks                        risks by name: queries, metric, attacks
    observe  depth  metrics/  attacks/    what a model does with queries; scores of it; what an adversary may do first
    named_prompts                         prompts that files beside a model and logs name: other ones than in use?
    measure  screening  agreement         unlearned model -> per-query losses; rows that a model cannot take; does writing agree
    normal_form  openings                 what stays of a row that is written otherwise; how often queries were looked at
    losses  bounds/  procedures/          the loss table; one theorem each; who may be rejected together
    shift  combined  tilting  claim       losses -> p-values and bounds for one claim; ratios of means as means
    claim_checks                          claims that cannot be certified as said
    control                               what the base model shows under the same measurements
    power  exchangeability  sentences     what it would take; do losses look like independent draws; words for it
    risk                                  -> certified set, CUR, certificate
    laws  chances  designing              what losses may be like, and how likely they are to pass; designs on search losses
    plan_identity                         what makes a plan another plan
    provenance                            whose code a plan names
    planning  wealth  monitoring          before a calibration, and after deployment: planning_words, planning_figure, monitoring_figure
    comparison                            methods at equal utility: comparison_figure, comparison_tables
    formats/  certifying  reopening       tables and logs from elsewhere -> losses; risk control on losses that are there
    published  diagnostics                the paper's score; numbers that are shown, never certified
    figures  curves                       pictures of a run

In Python, `froc.plan`, `froc.search`, `froc.certify` and `froc.monitor` do what the commands do; they are looked up at first
use, so that `import froc` loads nothing.

What stands from `losses` on, and `errors`, `params`, `plugins`, `digest`, `weights_digest`, `normal_form`, `openings`, `records`, `rows`, `passages`,
`prompts`, `data`, never imports torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cli.calling import search as search
    from froc.certifying import certify as certify
    from froc.monitoring import monitor as monitor
    from froc.planning import plan as plan

__version__ = "0.1.0"
PUBLIC = {"certify": "froc.certifying", "monitor": "froc.monitoring", "plan": "froc.planning", "search": "cli.calling"}
"""The commands as functions, and where they are."""


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module 'froc' has no attribute {name!r}")
    return getattr(importlib.import_module(PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *PUBLIC])
