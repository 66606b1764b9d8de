"""What makes a plan another plan."""

from froc.plan_identity import identity


def test_plans_of_older_versions_are_the_same_plans() -> None:
    older = {"budget": {"forgetting": 0.1}, "created": "2026-03-01T08:00:00Z"}
    assert identity(older | {"plugins": [], "tokenizer": "from-the-data", "notes": ["x"]}) == identity(older)
    assert identity(older | {"plugins": [{"kind": "metric"}]}) != identity(older)
    assert identity(older | {"budget": {"forgetting": 0.2}}) != identity(older)
