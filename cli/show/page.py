"""`froc show RUN --open`: a finished run as a report's page, before anybody has signed it."""

import tempfile
import webbrowser
from pathlib import Path

from froc.atomic import write_text
from froc.cli import words
from froc.errors import InputError


def draft(run: Path, page: Path | None, open_: bool) -> None:
    """Write the page, marked unsigned, and open it if requested.

    page: where it goes; by default the run folder, or a temporary file if that cannot be written.

    InputError for an unfinished run, or a place that cannot be written.
    """
    from froc.audit import bundle, rendering

    text = rendering.html(*bundle.draft(run), unsigned=True)
    place = page or run / "unsigned.html"
    try:
        write_text(place, text, parents=False)
    except OSError as error:
        if page is not None:
            raise InputError(f"cannot write {page} ({error.strerror}); choose another file") from error
        with tempfile.NamedTemporaryFile("w", suffix=".html", prefix="froc-", delete=False, encoding="utf-8") as stream:
            stream.write(text)
        place = Path(stream.name)
    words.results.print(words.visible(f"unsigned page {place}"), soft_wrap=True)
    if open_ and not webbrowser.open(place.resolve().as_uri()):
        words.messages.print("[yellow]no browser could be started[/]; open the file yourself")
