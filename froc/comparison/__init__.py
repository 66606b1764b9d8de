"""`froc compare`: methods compared at equal utility. Torch-free.

    document        losses -> intervals, differences and fronts as a document
    tables  figure  its tables and its figure
    result          a comparison that prints, and the files that it leaves

May import: reporting, risk and what they may import.
"""
