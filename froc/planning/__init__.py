"""`froc plan`: how many queries does a budget take, and how likely is a certificate. Torch-free.

    plan  result         the function; its result, which prints and plots
    loss_distributions   what losses may be like
    pass_probability     how likely they are to pass
    design_search        which candidates, procedure and bound pass most often, simulated on search losses
    wording  figure      sentences; picture

May import: formats, reporting, risk and what they may import.
"""
