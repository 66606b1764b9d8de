"""`froc certify` and `froc.certify`: risk control on losses that somebody else measured. Torch-free.

    certify  result      tables and logs -> a certificate, which prints and plots
    reopening            has a run opened these losses before

May import: formats, reporting, risk and what they may import.
"""
