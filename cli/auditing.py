"""`froc audit keygen / report / verify`."""

import typer

app = typer.Typer(help="Signed, re-computable reports.", no_args_is_help=True)
