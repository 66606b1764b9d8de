"""Options that several commands share: what to certify, data and model, how to compute, what to verify."""

from pathlib import Path
from typing import Annotated

import typer

DATA = "Data and model"
RISKS = "Risks and statistics"
SEARCH = "Search"
TRAINING = "Training"
MACHINE = "Machine"
PLAN = "Plan and signatures"
OUTPUT = "Output"
"""Groups of options in `--help`."""

Budget = Annotated[
    list[str],
    typer.Option("--budget", "-b", help="Accepted risk: 0.1, or RISK=0.1 (repeatable).", rich_help_panel=RISKS),
]
Risk = Annotated[
    list[str] | None,
    typer.Option(
        help="Define a risk: NAME=METRIC, NAME=METRIC@ATTACK+ATTACK, /utility at the end for retain queries (froc list risks).",
        show_default=False,
        rich_help_panel=RISKS,
    ),
]
Profile = Annotated[
    str,
    typer.Option(help="Risks certified together: basic, standard, strict (froc list profiles).", rich_help_panel=RISKS),
]
Confidence = Annotated[float, typer.Option(help="How sure the certificate must be (1 - delta).", rich_help_panel=RISKS)]
Procedure = Annotated[
    str,
    typer.Option(
        help="How candidates share the error level, e.g. fixed-sequence:starts=3 (froc list procedures).",
        rich_help_panel=RISKS,
    ),
]
Bound = Annotated[str, typer.Option(help="auto, or a bound's name (froc list bounds).", rich_help_panel=RISKS)]
Population = Annotated[
    list[str] | None,
    typer.Option(
        help="What a claim is about: queries, sample or census, or RISK=census (docs/statistics.md).",
        show_default="queries",
        rich_help_panel=RISKS,
    ),
]
Weight = Annotated[
    list[str] | None,
    typer.Option(
        help="RISK=0.5: weight in the combined risk, whose budget is combined=0.1.",
        show_default=False,
        rich_help_panel=RISKS,
    ),
]
Scale = Annotated[
    str | None,
    typer.Option(
        help="Say thousandths where a loss table holds whole numbers 0..1000.",
        show_default="numbers in [0, 1]",
        rich_help_panel=DATA,
    ),
]
Radius = Annotated[
    float, typer.Option(help="Hellinger radius of shift within which budgets must hold.", rich_help_panel=RISKS)
]
Joint = Annotated[
    bool, typer.Option("--joint", help="Certified set and CURs hold together (delta / 2 each).", rich_help_panel=RISKS)
]
Extendable = Annotated[
    bool, typer.Option("--extendable", help="Fresh queries may follow (froc extend).", rich_help_panel=RISKS)
]
Series = Annotated[
    int, typer.Option(help="Declared attempts with fresh queries each, at delta / SERIES.", rich_help_panel=RISKS)
]
AuditSeed = Annotated[
    int | None,
    typer.Option(
        help="Seed of the split that an auditor gave for this task; the plan and every report say so.",
        show_default="no auditor's",
        rich_help_panel=PLAN,
    ),
]
PlanKey = Annotated[
    str | None,
    typer.Option(
        "--key",
        help="Private key that signs the plan before the first trial (froc audit keygen), or where it is kept: "
        "hsm:2#PUBLIC.pem, awskms:... (docs/audit.md); password or PIN in FROC_KEY_PASSWORD.",
        show_default="the plan is not signed",
        rich_help_panel=PLAN,
    ),
]
Tsa = Annotated[
    str | None,
    typer.Option(
        "--tsa",
        help="Address of a time-stamping authority (RFC 3161): stamps the plan's signature before the first trial.",
        show_default=False,
        rich_help_panel=PLAN,
    ),
]
TsaRoot = Annotated[
    Path | None,
    typer.Option(
        "--tsa-root",
        help="Root certificate (PEM) of the authority; its answer is checked.",
        show_default=False,
        rich_help_panel=PLAN,
    ),
]
Openings = Annotated[
    int, typer.Option(help="Planned looks at the calibration queries: delta / K each.", rich_help_panel=PLAN)
]
Reopen = Annotated[
    bool, typer.Option("--reopen", help="Look once more than planned; every output says so.", rich_help_panel=PLAN)
]
AllowVacuous = Annotated[
    bool,
    typer.Option(
        "--allow-vacuous",
        help="Go on where the base model itself keeps a budget; nothing is certified, every output says NOT ESTABLISHED.",
        rich_help_panel=RISKS,
    ),
]
Relative = Annotated[
    list[str] | None,
    typer.Option(
        help="RISK whose budget is a share of what the base model scores, such as utility: 0.1 is then a tenth of it (repeatable).",
        show_default=False,
        rich_help_panel=RISKS,
    ),
]
Task = Annotated[
    Path | None,
    typer.Option(
        help="Task folder, a benchmark's NAME:PART with --data (froc list benchmarks), or the hub's hf:ORG/NAME; without it the "
        "embedded task, whose K-th request is embedded:K.",
        show_default=False,
        rich_help_panel=DATA,
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(help="Folder with a benchmark's files, as published.", show_default=False, rich_help_panel=DATA),
]
Unit = Annotated[
    list[str] | None,
    typer.Option(
        help="RISK=query, RISK=group or RISK=queries-by-group: what is drawn, and what the mean is of (docs/statistics.md).",
        show_default="the task's",
        rich_help_panel=DATA,
    ),
]
After = Annotated[
    Path | None,
    typer.Option(
        help="Finished run whose chosen model is the base: removes more from it, and measures what it had removed.",
        show_default=False,
        rich_help_panel=DATA,
    ),
]
Earlier = Annotated[
    list[Path] | None,
    typer.Option(
        help="With --after: task folder of an earlier request, to be measured as the risk earlier (repeatable).",
        show_default=False,
        rich_help_panel=DATA,
    ),
]
NoEarlier = Annotated[
    bool,
    typer.Option(
        "--no-earlier",
        help="With --after: earlier removals are not measured; every output says so.",
        rich_help_panel=DATA,
    ),
]
Later = Annotated[
    int,
    typer.Option(
        help="Requests to come after this one: as many parts of the sealed queries are held back.", rich_help_panel=DATA
    ),
]
Model = Annotated[
    str | None,
    typer.Option(help="Base model: a folder with safetensors or a hub id.", show_default=False, rich_help_panel=DATA),
]
PlannedBase = Annotated[
    str | None,
    typer.Option(
        "--base",
        help="Base model: a folder with safetensors or a hub id.",
        show_default="the task's",
        rich_help_panel=DATA,
    ),
]
PlannedMetric = Annotated[
    list[str] | None,
    typer.Option(
        "--metric",
        help="RISK=METRIC, for a metric that needs a folder of its own.",
        show_default="as planned",
        rich_help_panel=RISKS,
    ),
]
Batch = Annotated[int, typer.Option(help="Forget rows per optimiser step.", rich_help_panel=TRAINING)]
Train = Annotated[
    str,
    typer.Option(
        help="What trials may change: full, layers:last=2, or lora:rank=8 (adapters, then merged; lora:rank=8,bits=4 over a base in NF4; docs/engine.md).",
        rich_help_panel=TRAINING,
    ),
]
Pack = Annotated[
    int,
    typer.Option(
        help="Configurations trained in the same passes over the frozen base (with --train lora).",
        rich_help_panel=TRAINING,
    ),
]
Autocast = Annotated[
    str | None,
    typer.Option(
        help="off, bfloat16 or float16: precision of training's matrix products.",
        show_default="bfloat16 where cuda trains float32 parameters",
        rich_help_panel=TRAINING,
    ),
]
Optimizer = Annotated[
    str, typer.Option(help="adamw, or adamw8bit: 8-bit moments; bfloat16 parameters are rounded at random, so that small steps add up.", rich_help_panel=TRAINING)
]  # fmt: skip
MeasureDtype = Annotated[
    str | None,
    typer.Option(
        help="float32 or bfloat16: precision of matrix products in measuring, the same for base and candidates.",
        show_default="that of the parameters",
        rich_help_panel=RISKS,
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say how much memory the methods need, here and with smaller options; train nothing.", rich_help_panel=OUTPUT)
]  # fmt: skip
Checkpointing = Annotated[
    bool,
    typer.Option(
        "--checkpointing", help="Recompute activations instead of keeping them: less memory.", rich_help_panel=MACHINE
    ),
]
Compiled = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="torch.compile the blocks; froc bench --compile says whether it pays.",
        rich_help_panel=MACHINE,
    ),
]
Attention = Annotated[
    str | None,
    typer.Option(
        help="eager, sdpa or flash_attention_2.",
        show_default="the fastest that the model supports",
        rich_help_panel=MACHINE,
    ),
]
Deterministic = Annotated[
    bool,
    typer.Option(
        "--deterministic",
        help="On a GPU, compute to the same bits each time, slower; what cannot ends its trial (docs/running.md).",
        rich_help_panel=MACHINE,
    ),
]
GpusPerTrial = Annotated[
    int,
    typer.Option(
        help="GPUs that one model's blocks are divided among, where one is too small.", rich_help_panel=MACHINE
    ),
]
Device = Annotated[
    str | None,
    typer.Option(help="cpu, cuda, cuda:1 ...", show_default="cuda where there is one", rich_help_panel=MACHINE),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        help="float32, bfloat16 or float16: parameters.",
        show_default="float32; bfloat16 for adapters on cuda",
        rich_help_panel=MACHINE,
    ),
]
Executor = Annotated[
    str,
    typer.Option(
        help="Where trials run: inline, processes, sharded (one model's weights divided among --gpus-per-trial), ray, ray://HOST:PORT, or auto (processes for several GPUs, or for a small model on several processors).",
        rich_help_panel=MACHINE,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        help="Worker processes: one per GPU, or CPU workers that divide the threads.",
        show_default="by executor",
        rich_help_panel=MACHINE,
    ),
]
WorkerGpus = Annotated[
    float | None,
    typer.Option(
        help="GPUs of each Ray worker, such as 0.5; 0 for CPU workers. They need no shared disk.",
        show_default="1 where the cluster has GPUs",
        rich_help_panel=MACHINE,
    ),
]
Until = Annotated[
    str,
    typer.Option(
        help="trials, or certified: stop once a certificate is likely by search losses.", rich_help_panel=SEARCH
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print as JSON.", rich_help_panel=OUTPUT)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table.", rich_help_panel=OUTPUT)]
QuietProgress = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.", rich_help_panel=OUTPUT)]
