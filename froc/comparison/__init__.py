"""`froc compare`: methods compared at equal utility. Torch-free.

    document        losses -> intervals, differences and fronts as a document
    tables  figure  its tables and its figure

May import: reporting, risk and what they may import.
"""
