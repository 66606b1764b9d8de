"""The three example reports, from real searches on the embedded task, by one command:

    python docs/examples/make.py

Each has its own plan, and so its own queries. The key is made for them and thrown away; its public half stays beside them.
Writes pass, fail and not-established (.froc-audit), signer.pem.pub and, where there is a browser, the picture of page 1.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from froc.audit.rendering.words import DECISIONS

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RUNS = {
    "pass": ("--budget", "0.1", "--methods", "npo", "--trials", "12"),
    "fail": ("--budget", "0.1", "--methods", "grad_diff", "--trials", "4"),
    "not-established": ("--budget", "0.07", "--methods", "npo", "--trials", "12"),
}
"""Verdict -> the search that comes to it."""
ENDS = {"pass": 0, "fail": 3, "not-established": 3}
"""How `froc search` ends."""


def main() -> None:
    """Make them all."""
    with tempfile.TemporaryDirectory() as place:
        scratch = Path(place)
        env = os.environ | {"FROC_STATE": str(scratch / "state"), "PYTHONPATH": str(ROOT)}

        def froc(*words: str | Path, code: int = 0) -> None:
            done = subprocess.run([sys.executable, "-m", "froc", *map(str, words)], env=env, check=False)
            if done.returncode != code:
                sys.exit(f"froc {words[0]} ended with {done.returncode}, not {code}")

        key = scratch / "signer.pem"
        froc("audit", "keygen", key)
        for name, words in RUNS.items():
            run = scratch / name
            froc("search", *words, "--candidates", "3", "--key", key, "--out", run, "--quiet", code=ENDS[name])
            bundle = HERE / f"{name}.froc-audit"
            shutil.rmtree(bundle, ignore_errors=True)
            froc("audit", "report", run, "--key", key, "--out", HERE, "--name", name)
            froc("audit", "verify", bundle, "--key", f"{key}.pub", code=ENDS[name])
            decision = DECISIONS[name.replace("-", "_").upper()]
            if f"<strong>{decision}</strong>" not in (bundle / "report.html").read_text(encoding="utf-8"):
                sys.exit(f"the {name} example says something else than {decision}; choose another budget")
        shutil.copy(f"{key}.pub", HERE / "signer.pem.pub")
    _picture(HERE / "pass.froc-audit" / "report.html", ROOT / "docs" / "images" / "report.png")


def _picture(page: Path, place: Path) -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from page import browser, missing

    if lacking := missing():
        print(f"no picture: {lacking}")
        return
    with browser() as chromium:
        tab = chromium.new_page(viewport={"width": 1000, "height": 800}, color_scheme="light")
        tab.goto(page.as_uri())
        tab.locator(".sheet").screenshot(path=place)


if __name__ == "__main__":
    main()
