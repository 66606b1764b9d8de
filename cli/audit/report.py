"""The `audit report` command: a signed report of a finished run."""

from pathlib import Path
from typing import Annotated

import typer

from froc.cli import options, words
from froc.cli.audit import evidence_options

EXAMPLES = """[bold]Examples[/]

froc audit report froc-run --key signer.pem

froc audit report froc-run --key signer.pem --out reports --name removal-2026-17

froc audit report froc-run --key signer.pem --comparison froc-run-compare

FROC_KEY_PASSWORD=PIN froc audit report froc-run --key "hsm:2?label=token#signer.pub"
"""


def report(
    run: Annotated[Path, typer.Argument(help="Finished run folder.")],
    key: evidence_options.Signer,
    out: Annotated[
        Path, typer.Option(help="Folder that the bundle is put in.", rich_help_panel=options.OUTPUT)
    ] = Path(),
    name: Annotated[
        str | None,
        typer.Option(help="Name of the bundle.", show_default="task and plan digest", rich_help_panel=options.DATA),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(help="Configuration to report on.", show_default="the chosen one", rich_help_panel=options.DATA),
    ] = None,
    role: Annotated[
        str, typer.Option(help="engineer, approver or auditor.", rich_help_panel=options.PLAN)
    ] = "engineer",
    sequence: Annotated[
        int, typer.Option(help="Number of this report in its series.", rich_help_panel=options.PLAN)
    ] = 1,
    plan_key: Annotated[
        list[Path] | None,
        typer.Option(
            help="Public key of another person who signed the plan (repeatable).",
            show_default=False,
            rich_help_panel=options.PLAN,
        ),
    ] = None,
    comparison: Annotated[
        Path | None,
        typer.Option(
            help="Folder of froc compare, to be signed with it.", show_default=False, rich_help_panel=options.DATA
        ),
    ] = None,
    small: Annotated[
        bool,
        typer.Option(
            "--allow-small-sample",
            help="Report although fewer than 50 units were measured; the report says so.",
            rich_help_panel=options.RISKS,
        ),
    ] = False,
    json_: options.Json = False,
) -> None:
    """Build and sign the audit bundle of a run. It holds no forgotten text and verifies without the forget set."""
    from froc.audit import bundle as evidence
    from froc.audit import keys

    bundle = evidence.build(
        run, out, key, password=words.password(), name=name, config=config, role=role,
        sequence=sequence, comparison=comparison, trusted=plan_key or (), small=small,
    )  # fmt: skip
    if json_:
        words.emit({"bundle": str(bundle), "page": str(bundle / "report.html")})
    else:
        words.results.print(words.visible(f"bundle {bundle}   page {bundle / 'report.html'}"), soft_wrap=True)
        model_too = f" --model {run / 'model'}" if (run / "model").is_dir() else ""
        check = f"froc audit verify {bundle} --key {keys.public_place(key)}{model_too}"
        words.results.print(words.visible(f"anyone can check it: {check}"), soft_wrap=True)
