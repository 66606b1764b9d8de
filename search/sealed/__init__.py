"""From search losses to opened queries: `ranking` and the seal, `weights` digests, `calibration`, `forecast` of a
certificate, `unopened` runs, `further_stages` of a run on disk.
"""
