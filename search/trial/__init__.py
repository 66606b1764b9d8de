"""One trial: `runner` trains and measures, `sweep` adds stops and mixes, `outcome` is what comes out, `work` is what a worker is asked to do, `throughput` times it."""
