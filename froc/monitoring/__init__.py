"""`froc monitor`: does a deployed model keep its certified budgets. Torch-free.

    monitor  state       the function; what is kept between calls
    e_process            evidence that may be looked at as often as one likes
    figure               picture

May import: formats, reporting, risk and what they may import.
"""
