"""The `froc` command: words in, words out. One file per command, named after it.

    main        the command tree, and the one place where errors become words and exit codes
    search  compare  certify  plan  monitor  bench  list_  show/  audit/
    options     options that several commands share
    words       parsing values; printing tables and JSON

Torch is imported by commands that train or measure only, when they start to work.
"""
