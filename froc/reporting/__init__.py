"""Tables and figures of runs and certificates. Torch-free; matplotlib is imported on first use.

    tables               text, HTML and console tables
    landscape            losses of all configurations against the budgets, and the Pareto front
    bounds               measured risks with their bounds; bounds under distribution shift
    froc_score           the paper's score
    drift                how far hidden states moved, against both risks
    sustainability       a chain of runs
    style                colours, markers and settings of all figures

May import: risk.
"""
