"""`froc show`, and the look of runs and certificates in a terminal."""

from pathlib import Path
from typing import Annotated

import typer

from froc.cli import options, words
from froc.cli.show.summary import limits, summary, trials, unopened_reason
from froc.errors import InputError, NotCertifiedError

EXAMPLES = """[bold]Examples[/]

froc show froc-run

froc show froc-run --json

froc show froc-run --watch

froc show froc-run --open
"""


def show(
    run: Annotated[Path, typer.Argument(help="Run folder, finished or not.")],
    json_: Annotated[
        bool, typer.Option("--json", help="Print the run as JSON.", rich_help_panel=options.OUTPUT)
    ] = False,
    watch: Annotated[
        bool,
        typer.Option("--watch", "-w", help="Keep looking until the run is finished.", rich_help_panel=options.OUTPUT),
    ] = False,
    interval: Annotated[
        float, typer.Option(min=0.05, help="Seconds between looks.", rich_help_panel=options.OUTPUT)
    ] = 1.0,
    open_: Annotated[
        bool,
        typer.Option(
            "--open",
            help="Show a finished run as a report's page, marked unsigned, in the browser.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = False,
    page: Annotated[
        Path | None,
        typer.Option(
            help="Write that page here instead of opening it.", show_default=False, rich_help_panel=options.OUTPUT
        ),
    ] = None,
) -> None:
    """A run's trials, certificate and figures; exit 3 where it is finished and nothing is certified."""
    from froc.search.run_folder import Folder

    if open_ or page is not None:
        from froc.cli.show.page import draft

        draft(run, page, open_)
        return

    if watch and json_:
        raise InputError("--watch draws for people; leave --json out, or call froc show --json again and again")
    if watch:
        from froc.cli.show.watch import follow

        follow(run, interval)
    folder = Folder(run)
    plan = folder.read(folder.plan)
    if plan is None:
        raise InputError(f"{run} is no run folder (no plan.json); give the folder that froc search --out wrote")
    log = folder.log()
    certificate = folder.read(folder.certificate)
    if json_:
        words.emit({"plan": plan, "trials": [vars(record) for record in log], "certificate": certificate})
    else:
        words.results.print(trials(log, limits(plan["budget"])))
        if certificate is None and unopened_reason(folder):
            words.results.print(words.visible(unopened_reason(folder)), soft_wrap=True)
        elif certificate is None:
            words.results.print(
                f"not finished: {len([r for r in log if r.status == 'complete'])} complete trials so far"
            )
        else:
            summary(run, certificate)
    if certificate is not None and certificate["chosen"] is None:
        raise NotCertifiedError(certificate["reason"])
    if certificate is None and unopened_reason(folder):
        raise NotCertifiedError(unopened_reason(folder))
