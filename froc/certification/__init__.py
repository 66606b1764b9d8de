"""`froc certify` and `froc.certify`: certificates from existing losses. Torch-free.

    certify  result      tables and logs of losses -> a certificate, which prints and plots
    reopening            whether a run has opened these losses before

May import: formats, reporting, risk and what they may import.
"""
