"""DOOR: words in, words out. Joins the rooms; `froc.search` looks it up at first use, nothing else imports it.

    main        the command tree, and the one place where errors become words and exit codes
    options     what is to be certified, what trials work on and how: the same words in every command
    words       what several commands share: budgets, ranges, JSON on standard output
    jobs        words -> task, split, space, base model and engine of a search
    continuing  words -> the run that a search goes on after
    calling     `froc.search` in Python: values -> the same job
    searching   `search` and its progress
    showing     `show`, and how runs and certificates look; watching: `show --watch`; drafting: `show --open`
    comparing   `compare`
    certifying  `certify`
    planning    `plan`
    monitoring  `monitor`
    benching    `bench`
    listing     `list`
    auditing    `audit keygen / model / report / sign / stamp / verify`; reexecuting (measuring_again), exporting: the two longer ones

Torch is imported by commands that train or measure only, when they start to work.
"""
