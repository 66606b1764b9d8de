"""Conformal risk control: per-query losses -> certified configurations, bounds, certificate. Torch-free.

    claim  claim_checks  what is claimed: budgets, confidence, units, bounds, procedure; claims that cannot be certified
    certificate          the certificate: certified set, simultaneous bounds, CUR, chosen configuration
    weighted_sum  ratios  shift   combined risks; ratios of means; bounds under distribution shift
    evidence             tables of losses -> evidence for each risk of a claim
    control              what the base model shows under the same measurement
    requirements         how many units a budget takes
    exchangeability      do losses look like independent draws
    bisection            where a monotone predicate begins to hold
    rounding  wording    numbers and sentences as people read them
    froc_score           the paper's own score

May import: bounds, procedures, loss_table, data.
"""
