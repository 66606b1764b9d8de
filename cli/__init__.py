"""DOOR: words in, words out. Joins the rooms; nothing imports it.

    main      the command tree, and the one place where errors become words and exit codes
    options   what is to be certified, as every command that certifies asks for it
    words     what several commands share: budgets, ranges, JSON on standard output
    searching the `search` command and its progress
    showing   `show`, `certify`, `list`: tables for people
    auditing  `audit keygen / report / verify`

Torch is imported by `froc search` only, when it starts to work.
"""
