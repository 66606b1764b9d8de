"""`froc audit keygen / report / verify`."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from cli import words
from froc.errors import NotCertifiedError

KEYGEN_EXAMPLES = """[bold]Examples[/]

froc audit keygen signer.pem

FROC_KEY_PASSWORD=... froc audit keygen signer.pem --encrypt
"""
REPORT_EXAMPLES = """[bold]Examples[/]

froc audit report froc-run --key signer.pem

froc audit report froc-run --key signer.pem --out reports --name removal-2026-17
"""
VERIFY_EXAMPLES = """[bold]Examples[/]

froc audit verify NAME.froc-audit --key signer.pem.pub --model froc-run/model

froc audit verify NAME.froc-audit --key engineer.pub --key approver.pub --threshold 2 --json
"""
PASSWORD = "FROC_KEY_PASSWORD"

app = typer.Typer(help="Signed reports, computed again by whoever verifies them.", no_args_is_help=True)


@app.command("keygen", epilog=KEYGEN_EXAMPLES)
def keygen(
    path: Annotated[Path, typer.Argument(help="Where the private key goes; the public one beside it as PATH.pub.")],
    encrypt: Annotated[
        bool, typer.Option("--encrypt", help=f"Encrypt with the password in {PASSWORD}, or ask for one.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Make an Ed25519 key pair; an existing key is never written over."""
    from audit import signing

    password = _password() or typer.prompt("password", hide_input=True, confirmation_prompt=True) if encrypt else None
    fingerprint = signing.keygen(path, password.encode() if password else None)
    if json_:
        words.emit({"private": str(path), "public": f"{path}.pub", "fingerprint": fingerprint})
    else:
        words.results.print(f"private key {path} (keep it), public key {path}.pub (hand it out)", soft_wrap=True)
        words.results.print(f"fingerprint {fingerprint}", soft_wrap=True)


@app.command("report", epilog=REPORT_EXAMPLES)
def report(
    run: Annotated[Path, typer.Argument(help="Finished run folder.")],
    key: Annotated[Path, typer.Option(help="Private key (froc audit keygen).")],
    out: Annotated[Path, typer.Option(help="Folder that the bundle is put in.")] = Path(),
    name: Annotated[str | None, typer.Option(help="Name of the bundle.", show_default="task and plan digest")] = None,
    config: Annotated[
        str | None, typer.Option(help="Configuration to report on.", show_default="the chosen one")
    ] = None,
    role: Annotated[str, typer.Option(help="engineer, approver or auditor.")] = "engineer",
    sequence: Annotated[int, typer.Option(help="Number of this report in its series.")] = 1,
    json_: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Build and sign the audit bundle of a run. It holds no forgotten text and verifies without the forget set."""
    from audit import evidence

    password = _password()
    bundle = evidence.build(
        run, out, key, password=password.encode() if password else None, name=name, config=config, role=role,
        sequence=sequence,
    )  # fmt: skip
    if json_:
        words.emit({"bundle": str(bundle), "page": str(bundle / "report.html")})
    else:
        words.results.print(f"bundle {bundle}   page {bundle / 'report.html'}", soft_wrap=True)
        check = f"froc audit verify {bundle} --key {key}.pub --model {run / 'model'}"
        words.results.print(f"anyone can check it: {check}", soft_wrap=True)


@app.command("verify", epilog=VERIFY_EXAMPLES)
def verify(
    bundle: Annotated[Path, typer.Argument(help="NAME.froc-audit folder.")],
    key: Annotated[
        list[Path], typer.Option(help="Trusted public key, from its owner and not from the bundle (repeatable).")
    ],
    model: Annotated[
        Path | None, typer.Option(help="Model folder to compare with the report.", show_default="not compared")
    ] = None,
    threshold: Annotated[int, typer.Option(help="How many of the keys must have signed.")] = 1,
    min_sequence: Annotated[int, typer.Option(help="Refuse reports older than this one of their series.")] = 1,
    json_: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Check a bundle: signatures, every file, every number computed again, the model. Needs no GPU and no torch.

    Exit 0: verified, and the report says PASS. Exit 3: verified, but it does not say PASS. Exit 4: does not verify.
    """
    from audit import verification

    found = verification.verify(bundle, keys=key, model=model, threshold=threshold, min_sequence=min_sequence)
    if json_:
        checks = [{"number": c.number, "name": c.name, "passed": c.passed} for c in found.checks]
        words.emit(
            {"verdict": found.verdict, "checks": checks, "model_checked": found.model_checked, "tree": found.tree,
             "fingerprint": found.fingerprint, "plan": found.plan_status}
        )  # fmt: skip
    else:
        table = Table(box=None, header_style="bold")
        for column in ("", "check", "passed"):
            table.add_column(column)
        for check in found.checks:
            table.add_row(str(check.number), check.name, check.passed)
        words.results.print(table)
        words.results.print(
            f"verified; the report says [bold]{found.verdict}[/]; plan {found.plan_status}", soft_wrap=True
        )
        if not found.model_checked:
            words.results.print("the model was not compared: give --model DIR to check its files", soft_wrap=True)
    if found.verdict != "PASS":
        raise NotCertifiedError(f"the report verifies and says {found.verdict}")


def _password() -> str | None:
    return os.environ.get(PASSWORD)
