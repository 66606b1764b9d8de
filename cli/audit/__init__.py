"""`froc audit`: one file per command; `measuring_again` does the work of `reexecute`."""

import typer

from froc.cli.audit import export, keygen, model, reexecute, report, sign, stamp, verify

app = typer.Typer(
    help="Certify a model from elsewhere; signed reports, computed again by whoever verifies them.",
    no_args_is_help=True,
)
app.command("keygen", epilog=keygen.EXAMPLES)(keygen.keygen)
app.command("model", epilog=model.EXAMPLES)(model.model)
app.command("report", epilog=report.EXAMPLES)(report.report)
app.command("sign", epilog=sign.EXAMPLES)(sign.sign)
app.command("stamp", epilog=stamp.EXAMPLES)(stamp.stamp)
app.command("reexecute", epilog=reexecute.EXAMPLES)(reexecute.reexecute)
app.command("verify", epilog=verify.EXAMPLES)(verify.verify)
app.command("export", epilog=export.EXAMPLES)(export.export)
