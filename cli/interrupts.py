"""Ctrl-C and SIGTERM end a command wherever they meet it."""

import signal
import sys
import threading

AGAIN = 0.05
"""Seconds after which an interrupt that was swallowed is raised again."""


def install() -> None:
    """SIGTERM acts as Ctrl-C from here on, and no interrupt is lost.

    Python prints and drops an exception that is raised within a destructor or a callback of the garbage collector: an interrupt that
    arrives there would never end the command.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.unraisablehook = _raise_again


def _raise_again(dropped: "sys.UnraisableHookArgs") -> None:
    if issubclass(dropped.exc_type, KeyboardInterrupt):
        # in this very frame it would be dropped, too
        timer = threading.Timer(AGAIN, _interrupt)
        timer.daemon = True
        timer.start()
    else:
        sys.__unraisablehook__(dropped)


def _interrupt() -> None:
    # to the thread that may be asleep, which a flag would not wake
    main = threading.main_thread().ident
    if main is not None:
        signal.pthread_kill(main, signal.SIGINT)
