"""`froc monitor`: whether a deployed model keeps its certified budgets. Torch-free.

    monitor  state       the function; the state between calls
    e_process            evidence that is valid at every time
    figure               its figure

May import: formats, reporting, risk and what they may import.
"""
