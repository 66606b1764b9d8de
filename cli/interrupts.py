"""Ctrl-C and SIGTERM end a command wherever they meet it."""

import signal
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

AGAIN = 0.05
"""Seconds after which an interrupt that was dropped is raised again."""


class Interrupted(KeyboardInterrupt):
    """An interrupt that is raised again where it is dropped before it ends the command."""


@contextmanager
def never_lost() -> Iterator[None]:
    """Context manager: SIGTERM acts as Ctrl-C within, and no interrupt is lost.

    Python drops exceptions that are raised within a destructor or a callback of the garbage collector, and parts of libraries drop
    whatever meets them: an interrupt that arrives there would never end the command. It is raised again when its exception is freed.
    """
    inside = True

    def raised_again() -> None:
        if inside:
            # in the frame that dropped it, it would be dropped, too
            timer = threading.Timer(AGAIN, _interrupt)
            timer.daemon = True
            timer.start()

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        error = Interrupted()
        weakref.finalize(error, raised_again).atexit = False
        try:
            raise error
        finally:
            # its traceback holds this frame: a name of it here would keep it from being freed
            del error

    for sent in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sent, interrupt)
    sys.unraisablehook = _silent_about_interrupts
    try:
        yield
    finally:
        inside = False


def _silent_about_interrupts(dropped: "sys.UnraisableHookArgs") -> None:
    if not issubclass(dropped.exc_type, Interrupted):
        sys.__unraisablehook__(dropped)


def _interrupt() -> None:
    # to the thread that may be asleep, which a flag would not wake
    main = threading.main_thread().ident
    if main is not None:
        signal.pthread_kill(main, signal.SIGINT)
