"""The command tree, and the one place where errors become messages and exit codes."""

import os
import sys
from typing import Annotated

import typer

import froc
from froc import extras
from froc.cli import audit, bench, certify, compare, extend, interrupts, monitor, plan, search, show
from froc.cli import list_ as listing
from froc.cli.words import messages, visible
from froc.errors import FrocError
from froc.models.memory import advice, out_of_memory

app = typer.Typer(
    name="froc",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done and certified or verified · 2 bad input · 3 nothing certified, a report that does not "
    "say PASS, or an alarm · 4 a report that does not verify · 130 interrupted, can be resumed.",
)
app.command("search", epilog=search.EXAMPLES)(search.search)
app.command("extend", epilog=extend.EXAMPLES)(extend.extend)
app.command("compare", epilog=compare.EXAMPLES)(compare.compare)
app.command("bench", epilog=bench.EXAMPLES)(bench.bench)
app.command("certify", epilog=certify.EXAMPLES)(certify.certify)
app.command("plan", epilog=plan.EXAMPLES)(plan.plan)
app.command("monitor", epilog=monitor.EXAMPLES)(monitor.monitor)
app.command("show", epilog=show.EXAMPLES)(show.show)
app.command("list", epilog=listing.EXAMPLES)(listing.listing)
app.add_typer(audit.app, name="audit")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"froc {froc.__version__}")
        raise typer.Exit


@app.callback()
def root(
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when something goes wrong.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Risk-controlled hyperparameter selection and auditing for machine unlearning in language models."""
    if debug:
        os.environ["FROC_DEBUG"] = "1"


def main() -> None:
    """Run the command line; every expected error is one line on standard error and an exit code of its own."""
    try:
        # also while a model loads
        with interrupts.never_lost():
            app(prog_name="froc")
    except FrocError as error:
        _say(str(error), error)
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        needed = extras.missing(error.name or "")
        if needed is None:
            _bug(error)
        _say(str(needed), error)
        sys.exit(2)
    except KeyboardInterrupt:
        messages.print("[yellow]stopped[/]; the same command goes on")
        sys.exit(130)
    except OSError as error:
        if error.errno != 28:
            _bug(error)
        _say("the disk is full; free some space and run the same command again", error)
        sys.exit(2)
    except Exception as error:  # no traceback without --debug
        if out_of_memory(error):
            _say(advice("this command"), error)
            sys.exit(2)
        _bug(error)


def _say(text: str, error: BaseException) -> None:
    if os.environ.get("FROC_DEBUG"):
        raise error
    messages.print(f"[red]froc:[/] {visible(text)}", soft_wrap=True)


def _bug(error: BaseException) -> None:
    _say(f"a bug: {type(error).__name__}; run it again with froc --debug and report what it prints", error)
    sys.exit(1)
