"""One trial: `runner` trains and measures, `sweep` adds stops and mixes, `outcome` is the result, `work` is what
workers do, `throughput` times it, `memory_table` says what memory it needs.
"""
