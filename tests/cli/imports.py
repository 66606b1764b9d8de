"""`python -m froc` that prints at its end whether torch was imported."""

import sys

from froc.cli.main import main

sys.argv[0] = "froc"
try:
    main()
finally:
    print("torch was imported" if "torch" in sys.modules else "no torch", file=sys.stderr)
