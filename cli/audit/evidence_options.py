"""Options that several audit commands share: which bundle, whose keys, which model."""

from pathlib import Path
from typing import Annotated

import typer

from froc.cli.options import DATA, PLAN

Bundle = Annotated[Path, typer.Argument(help="NAME.froc-audit folder.")]
TrustedKey = Annotated[
    list[Path] | None,
    typer.Option(
        "--key",
        help="Trusted public key, from its owner and not from the bundle (repeatable).",
        show_default=False,
        rich_help_panel=PLAN,
    ),
]
ReportedModel = Annotated[
    Path | None,
    typer.Option(
        "--model",
        help="Model folder to compare with the report, or hub:ID@REVISION.",
        show_default="not compared",
        rich_help_panel=DATA,
    ),
]
Trust = Annotated[
    Path | None,
    typer.Option(
        "--trust",
        help="Trust file: keys, roles and how many must have signed (docs/audit.md).",
        show_default=False,
        rich_help_panel=PLAN,
    ),
]
SignedBy = Annotated[
    list[Path] | None,
    typer.Option(
        help="Public key of who signed the report, from its owner (repeatable).",
        show_default=False,
        rich_help_panel=PLAN,
    ),
]
Signer = Annotated[
    str,
    typer.Option(
        "--key",
        help="Private key that signs (froc audit keygen), or where it is kept: hsm:2#PUBLIC.pem, awskms:... (docs/audit.md); "
        "password or PIN in FROC_KEY_PASSWORD.",
        rich_help_panel=PLAN,
    ),
]
