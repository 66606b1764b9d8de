"""`python -m froc` is the `froc` command."""

from froc.cli.main import main

if __name__ == "__main__":
    main()
