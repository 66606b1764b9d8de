"""CycloneDX 1.6: the model as a component with a model card, budgets as requirements, bounds as claims, limits as counter-evidence."""

import json
from typing import Any
from uuid import UUID

from froc.audit.exports import ExportContext, confidence, refuse_no_model, reported
from froc.audit.exports.markdown import remarks
from froc.audit.rendering.meanings import measured_by
from froc.audit.rendering.numbers import cut
from froc.audit.rendering.summary import claim, ordered
from froc.audit.rendering.words import ASSURANCE, LIMITS, PLANS
from froc.audit.verification import Result

Json = dict[str, Any]
MODEL, ASSESSOR, REPORT, LIMITED, STANDARD = "model", "assessor", "report", "limits", "budgets"
"""References within the document."""


def write(result: Result, context: ExportContext) -> str:
    """The ML-BOM as JSON; the same report, time and URL give the same bytes."""
    refuse_no_model(result, "an ML-BOM")
    report = result.report
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{UUID(result.payload[:32], version=4)}",
        "version": 1,
        "metadata": {
            "timestamp": context.when,
            "tools": {"components": [{"type": "application", **report["harness"]}]},
            "component": _model(result),
        },
        "components": [
            {"type": "file", "bom-ref": f"file-{i}", "name": name, "hashes": [_hash(value)]}
            for i, (name, value) in enumerate(sorted(result.facts.files.items()))
        ],
        "definitions": {"standards": [_budgets(result)]},
        "declarations": _declarations(result, context),
    }
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=True) + "\n"


def _hash(value: str) -> Json:
    return {"alg": "SHA-256", "content": value}


def _model(result: Result) -> Json:
    report, row = result.report, reported(result) or {}
    risks = ordered(report["certificate"]["budget"])
    metrics = [
        {
            "type": f"{risk} risk: {cut(measured_by(report['method']['metric'].get(risk, 'weighted sum')), 200)}",
            "value": row["empirical"][risk],
            "confidenceInterval": {"lowerBound": "0", "upperBound": row["cur"][risk]["simultaneous"]},
        }
        for risk in risks
    ]
    return {
        "type": "machine-learning-model",
        "bom-ref": MODEL,
        "name": report["name"],
        "properties": [
            {"name": "froc:treeDigest:dirHash-sha256", "value": str(result.tree)},
            {"name": "froc:verdict", "value": report["verdict"]},
            {"name": "froc:report:sha256", "value": result.payload},
        ],
        "pedigree": {"ancestors": [{"type": "machine-learning-model", "name": cut(report["model"]["base"]["name"], 200)}]},
        "modelCard": {
            "quantitativeAnalysis": {"performanceMetrics": metrics},
            "considerations": {"technicalLimitations": [*(LIMITS[name] for name in report["limits"]), *remarks(result)]},
        },
    }  # fmt: skip


def _budgets(result: Result) -> Json:
    certificate = result.report["certificate"]
    return {
        "bom-ref": STANDARD,
        "name": "Unlearning budgets",
        "version": result.report["plan"]["sha256"],
        "description": f"The risks that the run's plan accepts. The plan: {PLANS[result.plan_status]}.",
        "requirements": [
            {
                "bom-ref": f"budget-{risk}",
                "identifier": risk,
                "text": f"The {risk} risk is at most {alpha}, with confidence {certificate['confidence']}.",
            }
            for risk, alpha in sorted(certificate["budget"].items())
        ],
    }


def _declarations(result: Result, context: ExportContext) -> Json:
    report, row = result.report, reported(result) or {}
    risks = sorted(report["certificate"]["budget"])
    passed, stated = result.passes, confidence(result)
    refusal = f"Not claimed: {'; '.join([report['verdict'], *result.reservations])}."
    signers = [{"role": s["role"], "organization": {"name": f"holder of key {s['keyid']}"}} for s in report["signers"]]
    document = {"type": "attestation", "url": context.url or "report.dsse.json", "hashes": [_hash(result.payload)]}
    return {
        "assessors": [{"bom-ref": ASSESSOR, "thirdParty": False, "organization": signers[0]["organization"]}],
        "attestations": [
            {
                "summary": claim(report, report["certificate"]) if passed else refusal,
                "assessor": ASSESSOR,
                "map": [
                    {
                        "requirement": f"budget-{risk}",
                        "claims": [f"claim-{risk}"],
                        "conformance": {"score": 1 if passed else 0, "rationale": "; ".join([report["certificate"]["reason"], *result.reservations])[:1000]},
                        **({} if stated is None else {"confidence": {"score": float(stated)}}),
                    }
                    for risk in risks
                ],
            }
        ],
        "claims": [
            {
                "bom-ref": f"claim-{risk}",
                "target": MODEL,
                "predicate": f"{risk} risk at most {row['cur'][risk]['simultaneous']}" + ("" if stated else ", with no stated confidence"),
                "reasoning": f"Bound: {report['certificate']['bound'].get(risk, 'of its parts')}; {report['certificate']['procedure']}.",
                "evidence": [REPORT],
                "counterEvidence": [LIMITED],
            }
            for risk in risks
        ],
        "evidence": [
            {"bom-ref": REPORT, "propertyName": "froc:report", "description": f"Signed report, verified {context.when}: sha256 {result.payload}",
             "created": report["issued"], "expires": report["expires"]},
            {"bom-ref": LIMITED, "propertyName": "froc:limits", "description": " ".join(LIMITS[name] for name in report["limits"])},
        ],
        "affirmation": {
            "statement": f"{ASSURANCE[report['assuranceLevel']]}.",
            "signatories": [{**signer, "externalReference": document} for signer in signers],
        },
    }  # fmt: skip
