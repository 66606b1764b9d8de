"""The `froc` command: text in, text out. One file per command, named after it.

    main        the command tree, and the one place where errors become messages and exit codes
    search  extend  compare  certify  plan  monitor  bench  list_  show/  audit/
    options     options that several commands share
    words       parsing values; printing tables and JSON
    memory      the table of the memory that methods need
    like        the options of an earlier run, and which ones a user gave
    plan_signature   signing a plan before its first trial, stamping signatures
    autocast    a warning where --autocast makes training slower
    interrupts  Ctrl-C and SIGTERM end a command wherever they meet it

Torch is imported only by commands that train or measure, when they start to work.
"""
