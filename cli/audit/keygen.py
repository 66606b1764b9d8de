"""The `audit keygen` command: a signing key pair."""

from pathlib import Path
from typing import Annotated

import typer

from froc.audit import PASSWORD
from froc.cli import options, words

EXAMPLES = """[bold]Examples[/]

froc audit keygen signer.pem

FROC_KEY_PASSWORD=... froc audit keygen signer.pem --encrypt
"""


def keygen(
    path: Annotated[Path, typer.Argument(help="Where the private key goes; the public one beside it as PATH.pub.")],
    encrypt: Annotated[
        bool,
        typer.Option(
            "--encrypt",
            help=f"Encrypt with the password in {PASSWORD}, or ask for one.",
            rich_help_panel=options.PLAN,
        ),
    ] = False,
    json_: options.Json = False,
) -> None:
    """Make an Ed25519 key pair; an existing key is never written over."""
    from froc.audit import keys

    password = words.password()
    if encrypt and password is None:
        password = str(typer.prompt("password", hide_input=True, confirmation_prompt=True)).encode()
    fingerprint = keys.keygen(path, password if encrypt else None)
    if json_:
        words.emit({"private": str(path), "public": f"{path}.pub", "fingerprint": fingerprint})
    else:
        written = f"private key {path} (keep it), public key {path}.pub (hand it out)"
        for line in (written, f"fingerprint {fingerprint}"):
            words.results.print(words.visible(line), soft_wrap=True)
