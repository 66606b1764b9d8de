"""Methods at equal utility: the document, its tables and its figure. Torch-free.

    document  tables  figure

May import: reporting, risk and what they may import.
"""
