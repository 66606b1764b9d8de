"""`froc plan`: how many queries a budget needs, and how likely a certificate is. Torch-free.

    plan  result         the function; its result, which prints and plots
    loss_distributions   assumed distributions of losses
    pass_probability     how likely the first candidate is to pass
    design_search        which candidates, procedure and bound pass most often, simulated on search losses
    wording  figure      sentences; picture

May import: formats, reporting, risk and what they may import.
"""
