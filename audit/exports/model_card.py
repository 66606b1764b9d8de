"""A model card's section, through huggingface_hub: bounds as evaluation results that name their report."""

from froc.audit.exports import ExportContext, confidence, refuse_no_model, reported
from froc.audit.exports.markdown import body, decision, remarks
from froc.audit.rendering.numbers import cut
from froc.audit.rendering.summary import ordered
from froc.audit.verification import Result
from froc.errors import InputError


def write(result: Result, context: ExportContext) -> str:
    """YAML header and section, to be merged into the card of the covered model."""
    try:
        from huggingface_hub import EvalResult, ModelCard, ModelCardData
    except ImportError as error:
        raise InputError("a model card needs huggingface_hub; pip install 'froc[export]'") from error
    refuse_no_model(result, "a model card")
    report, row = result.report, reported(result) or {}
    where = context.url or f"urn:sha256:{result.payload}"
    stated = confidence(result)
    sure = "no confidence is stated" if stated is None else f"confidence {stated}"
    results = [
        EvalResult(
            task_type="text-generation",
            task_name="Unlearning",
            dataset_type="unlearning-task",
            dataset_name=cut(report["plan"]["task"]["name"], 80),
            dataset_revision=report["plan"]["task"]["digest"],
            metric_type=f"{risk}-risk",
            metric_name=f"{risk} risk, at most ({sure})",
            # the format requires a number; the signed decimal is already rounded up
            metric_value=float(row["cur"][risk]["simultaneous"]),
            # machines read the header alone
            metric_config="; ".join([f"budget {report['certificate']['budget'][risk]}", *remarks(result)]),
            source_name=f"froc audit report {report['name']}",
            source_url=where,
        )
        for risk in ordered(report["certificate"]["budget"])
    ]
    data = ModelCardData(model_name=report["name"], eval_results=results, tags=["machine-unlearning", "froc-audit"])
    section = [
        f"## Unlearning audit: {decision(result)}",
        "",
        f"Verified {context.when}.",
        "",
        *body(result),
        "",
    ]
    card = ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n".join(section))
    return str(card)
