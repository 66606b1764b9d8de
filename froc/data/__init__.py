"""Rows, queries and the sealed split: what is forgotten, kept and measured. Torch-free.

    row_files  rows  passages    files of rows; one row; long texts in passages
    prompts  named_prompts       where prompt, answer and end of a row are; other prompts that files and logs name
    normal_form                  what stays of a row that is written otherwise
    task  splits                 a task's rows and queries; which queries the search sees and which are sealed
    opening_ledger  ledger_files   how often queries were looked at, kept on this machine; its files
    continual                    earlier removal requests
    tasks/                       task folders; the text of the embedded task
    benchmarks/                  TOFU, MUSE, WMDP and RWKU files as tasks (plug-ins)

May import: errors, hashing, atomic, plugins.
"""
