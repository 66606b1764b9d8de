"""DOOR: words in, words out. Joins the rooms; nothing imports it.

    main      the command tree, and the one place where errors become words and exit codes
    options   what is to be certified, what trials work on and how: the same words in every command
    jobs      words -> task, split, space, base model and engine of a search
    continuing  words -> the run that a search goes on after
    words     what several commands share: budgets, ranges, JSON on standard output
    searching the `search` command and its progress
    benching  the `bench` command
    planning  the `plan` command
    monitoring the `monitor` command
    showing   `show`, `certify`, `list`: tables for people
    watching  `show --watch`
    auditing  `audit keygen / report / verify`

Torch is imported by `froc search` and `froc bench` only, when they start to work.
"""
