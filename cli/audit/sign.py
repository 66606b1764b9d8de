"""The `audit sign` command: a further signature on somebody's report."""

from froc.cli import options, words
from froc.cli.audit import evidence_options, reexecute

EXAMPLES = """[bold]Examples[/]

froc audit sign NAME.froc-audit --key approver.pem --signed-by engineer.pub --model froc-run/model

froc audit sign NAME.froc-audit --key approver.pem --trust trust.json
"""


def sign(
    bundle: evidence_options.Bundle,
    key: evidence_options.Signer,
    signed_by: evidence_options.SignedBy = None,
    trust: evidence_options.Trust = None,
    model: evidence_options.ReportedModel = None,
    json_: options.Json = False,
) -> None:
    """Verify a bundle and sign the same bytes with a second person's key. Its role is what verifiers' trust files say.

    Exit 4: it does not verify, and was not signed.
    """

    from froc.audit import countersigning

    verified = countersigning.countersign(
        bundle, key, reexecute.trusted(signed_by, trust), password=words.password(), model=model
    )
    if json_:
        words.emit(
            {
                "bundle": str(bundle),
                "verdict": verified.verdict,
                "model_checked": verified.model_checked,
                "reservations": list(verified.reservations),
            }
        )
    else:
        words.results.print(
            f"verified and signed {words.visible(str(bundle))}, which says [bold]{words.visible(verified.verdict)}[/]",
            soft_wrap=True,
        )
        for reservation in verified.reservations if verified.verdict == "PASS" else ():
            words.results.print(words.visible(f"a PASS with a reservation: {reservation}"), soft_wrap=True)
        if not verified.model_checked:
            words.results.print("the model was not compared: give --model DIR to check its files", soft_wrap=True)
