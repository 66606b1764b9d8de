"""The `audit export` command: a report in formats of other tools, after it was verified."""

import re
from pathlib import Path
from typing import Annotated

import typer

from froc import bounded_file
from froc.atomic import write_text
from froc.cli import options, words
from froc.cli.audit import evidence_options
from froc.errors import InputError

EXAMPLES = """[bold]Examples[/]

froc audit export NAME.froc-audit --key signer.pem.pub --format markdown

froc audit export NAME.froc-audit --key signer.pem.pub --model froc-run/model --format page --out verified.html

froc audit export NAME.froc-audit --trust trust.json --format svr --sign auditor.pem --out report.svr.json

froc audit export NAME.froc-audit --trust trust.json --format svr --against report.svr.json --signed-by auditor.pem.pub
"""


def export(
    bundle: evidence_options.Bundle,
    format_: Annotated[
        str,
        typer.Option("--format", help="page, markdown, model-card, cyclonedx or svr.", rich_help_panel=options.DATA),
    ],
    key: evidence_options.TrustedKey = None,
    trust: evidence_options.Trust = None,
    model: evidence_options.ReportedModel = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write.", show_default="standard output", rich_help_panel=options.OUTPUT)
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(help="Where the report can be had, for model-card and cyclonedx.", rich_help_panel=options.PLAN),
    ] = None,
    sign: Annotated[
        Path | None,
        typer.Option(help="Private key of who verifies, for svr.", show_default=False, rich_help_panel=options.PLAN),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            help="Check this svr statement instead of writing one.", show_default=False, rich_help_panel=options.PLAN
        ),
    ] = None,
    signed_by: evidence_options.SignedBy = None,
) -> None:
    """Verify a bundle, then write what it shows in a form that other tools read. Nothing unverified is ever written.

    Exit 0: written, whatever the verdict is; it is part of what is written. Exit 4: does not verify, nothing is written.
    """
    from froc.audit import exports, keys, verification, writing
    from froc.audit.exports import svr

    if (against is None) != (not signed_by) or (against is not None and format_ != "svr"):
        raise InputError("--against FILE goes with --format svr and --signed-by, the public key of who signed it")
    if url is not None and not re.fullmatch(r"https?://[!-;=?-Z_a-z~]+", url):
        raise InputError(f"--url {url!r} is no address; give one that begins with https:// and holds no blank")
    if format_ not in exports.FORMATS:
        raise InputError(f"no format is called {format_!r}; there are: {', '.join(exports.FORMATS)}")
    signer = keys.load_signer(sign, words.password()) if sign else None
    result = verification.verify(bundle, keys=key or (), trust=trust, model=model)
    if against is not None:
        try:
            data = bounded_file.read(against, svr.STATEMENT_BYTES)
        except OSError as error:
            raise InputError(f"cannot read {against} ({error.strerror}); give the statement's file") from error
        keyid, made = svr.check(data, [keys.load_public(path) for path in signed_by or ()], result)
        words.results.print(
            words.visible(f"the statement says what the report shows; signed by {keyid}, who dates it {made}"),
            soft_wrap=True,
        )
        return
    text = exports.write(format_, result, exports.ExportContext(writing.stamped(None), signer, url))
    if out is None:
        typer.echo(text, nl=False)
        return
    try:
        write_text(out, text, parents=False)
    except OSError as error:
        raise InputError(f"cannot write {out} ({error.strerror}); choose another file") from error
    words.results.print(words.visible(f"verified, and written as {out}"), soft_wrap=True)
