"""Conformal risk control: per-query losses -> certified configurations, bounds, certificate. Torch-free.

    claim  claim_checks  what is claimed: budgets, confidence, units, bounds, procedure; claims that cannot be certified
    p_values             evidence -> p-values and upper bounds, by the bounds of `froc.bounds`
    certificate          the certificate: certified set, simultaneous bounds, CUR, chosen configuration
    weighted_sum  ratios  shift   combined risks; ratios of means; bounds under distribution shift
    planned_claim        a plan's document -> the claim
    evidence             tables of losses -> evidence for each risk of a claim
    positive_control     results of the base model under the same measurement
    same_population      whether a further stage can be of the population of those before
    requirements         how many units a budget needs; how far candidates were from passing
    exchangeability      warnings where losses do not look like independent draws
    bisection            where a monotone predicate begins to hold
    rounding  wording    rounding against the claim; sentences of a certificate
    froc_score           the score of the FROC paper, which is no bound

May import: bounds, procedures, loss_table, data.
"""
