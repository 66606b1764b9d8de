"""The `audit stamp` command: time stamps for the signatures of a report."""

from pathlib import Path
from typing import Annotated

import typer

from froc.cli import options, words
from froc.cli.audit import evidence_options
from froc.errors import InputError

EXAMPLES = """[bold]Examples[/]

froc audit stamp NAME.froc-audit --tsa https://tsa.example.org/tsr --tsa-root tsa-root.pem

froc audit stamp NAME.froc-audit --requests to-the-authority/

froc audit stamp NAME.froc-audit --responses from-the-authority/ --tsa-root tsa-root.pem
"""


def stamp(
    bundle: evidence_options.Bundle,
    tsa: Annotated[
        str | None,
        typer.Option(
            "--tsa",
            help="Address of a time-stamping authority (RFC 3161).",
            show_default=False,
            rich_help_panel=options.PLAN,
        ),
    ] = None,
    tsa_root: options.TsaRoot = None,
    requests: Annotated[
        Path | None,
        typer.Option(
            help="Folder that requests are written to, one per signature.",
            show_default=False,
            rich_help_panel=options.PLAN,
        ),
    ] = None,
    responses: Annotated[
        Path | None,
        typer.Option(
            help="Folder with the answers to them, of the same names and .tsr.",
            show_default=False,
            rich_help_panel=options.PLAN,
        ),
    ] = None,
    json_: options.Json = False,
) -> None:
    """Have an independent authority stamp each signature of a report that has no time stamp yet; nothing else changes.

    Whoever pins the authority in the trust file then knows when the signatures existed at the latest, so that they still
    count after their keys have expired or been revoked.
    """
    from froc.audit import countersigning, timestamps
    from froc.cli.plan_signature import stamper

    if sum(option is not None for option in (tsa, requests, responses)) != 1:
        raise InputError("give --tsa with the authority's address, or --requests, or --responses")
    if requests is not None:
        made = countersigning.write_requests(bundle, requests)
    elif responses is not None:
        if tsa_root is None:
            raise InputError("--responses needs --tsa-root: the authority's root certificate")
        made = countersigning.take_responses(bundle, responses, timestamps.Authority(timestamps.read(tsa_root)))
    else:
        ask = stamper(tsa, tsa_root)
        assert ask is not None
        made = countersigning.stamp(bundle, ask)
    if json_:
        words.emit({"bundle": str(bundle), "files": made})
    else:
        for name in made:
            words.results.print(words.visible(f"wrote {name}"), soft_wrap=True)
