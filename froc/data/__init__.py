"""Rows, queries and the sealed split: data to forget, to keep and to measure. Torch-free.

    row_files  rows  passages    files of rows; one row; long texts in passages
    prompts  named_prompts       a row as prompt, answer and end; prompts that files and logs of models name
    normal_form                  the normal form by which rows are compared
    task  splits                 a task's rows and queries; their division into search and sealed calibration queries
    opening_ledger  ledger_files   this machine's count of openings of queries; its files
    fresh_queries                queries with which a finished run is continued
    continual                    earlier removal requests
    tasks/                       task folders; the text of the embedded task
    benchmarks/                  TOFU, MUSE, WMDP and RWKU files as tasks (plug-ins)

May import: errors, hashing, atomic, plugins.
"""
