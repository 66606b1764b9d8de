"""STUDY: which candidate next, and where it runs.

    run        the whole job in order, and what of it is left
    job        what a search works on, and who is told how it goes on
    stages     trials, further risks, seal, calibration, chosen model: each leaves files that the next one starts from
    settings   what a user says, validated once
    plan       what is fixed before the first trial, and whether a run folder was made by the same plan
    control    the base model measured first, and beside the candidates: what was not there cannot be removed
    growth     more trials in the same run folder, as long as nothing was opened
    driver     the stage of trials: what is asked for, where it runs, what is written down, in an order no clock changes
    executors/ where work is done: this process, worker processes, a Ray cluster
    work       what a worker is asked to do: train trials, train a candidate again, measure one
    study      Optuna: which configuration next
    sharing    a study that several drivers share in one database
    pruning    which trial is hopeless
    outlook    would the best so far be certified? for searches that stop by themselves
    space      method fields -> Optuna suggestions
    rates      learning rates that fit the model, found before the first trial where nobody said any
    trial      configurations -> unlearned models -> search losses
    sweep      the stops of one training run, mixed with the base model: candidates without training
    speed      how fast trials are here
    external   an unlearned model from any other tool, instead of trials
    sealing    search losses -> candidates in testing order, written down before calibration is opened
    sealed_weights  digests of the candidates' weights, written with the seal and held against what is kept later
    unopened   a search that found nothing worth opening the calibration queries for
    calibration  the sealed candidates on calibration queries: all of them, or in rounds that may stop early
    remeasuring  sealed configurations trained and measured once more, for an auditor
    compare    methods mixed with the base model until they keep the same, and what is left there
    diagnosing  numbers of the chosen model that are shown and never certified
    after      the finished run whose model is the base, and what the runs before had removed
    sustaining  how removals add up over a chain of runs: a record for the reader, not certified
    folder     the files of a run; the only place that knows their names

A search is handed a `froc.data.SearchView`, which has no field for the calibration queries; they come out of
`froc.data.Sealed` for a written seal only.
"""
