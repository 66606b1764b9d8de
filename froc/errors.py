"""Every error that froc raises on purpose; each class owns an exit code.

FrocError                  1   a bug, or a fault without a better name
├── InputError             2   bad usage or bad input: names the file, the row and the mend
├── NotCertifiedError      3   the answer is no: nothing certified, a report that does not say PASS, an alarm
├── VerificationError      4   a report that does not verify: names the check that failed
└── InterruptedRunError  130   stopped by the user; the same command goes on

A message is one line: the fact, then the mend. It never quotes a row of data.
"""

from typing import ClassVar


class FrocError(Exception):
    """Base of all errors that a user may see without a traceback."""

    exit_code: ClassVar[int] = 1


class InputError(FrocError):
    """Bad usage or bad input."""

    exit_code = 2


class NotCertifiedError(FrocError):
    """Nothing could be certified, a verified report does not say PASS, or a monitored risk exceeds its budget."""

    exit_code = 3


class VerificationError(FrocError):
    """A report does not verify.

    `check` is the short name of the first check that failed (``"model-mismatch"``, ...).
    """

    exit_code = 4

    def __init__(self, check: str, message: str) -> None:
        super().__init__(f"{check}: {message}")
        self.check = check


class InterruptedRunError(FrocError):
    """The user stopped the run; it can be resumed."""

    exit_code = 130
