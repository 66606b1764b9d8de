"""Code of other packages: a name that is taken is refused, the rest is named with a digest, and nothing of it verifies."""

import importlib.util
import os
import py_compile
from pathlib import Path
from typing import Any

import pytest

from froc import plugins, provenance
from froc.bounds import Bound
from froc.errors import InputError
from froc.measuring.measurement import Measurement, written
from froc.measuring.metric import Metric

METRIC = """
from froc.metrics.extraction_strength import ExtractionStrength


class Shady(ExtractionStrength):
    '''None.'''
"""


def _install(folder: Path, name: str, group: str, point: str, record: bool = False) -> Path:
    about = folder / f"{name}-1.0.dist-info"
    about.mkdir(parents=True)
    (folder / f"{name}.py").write_text(METRIC, encoding="utf-8")
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
    (about / "entry_points.txt").write_text(f"[{group}]\n{point} = {name}:Shady\n", encoding="utf-8")
    if record:
        (about / "RECORD").write_text(f"{name}.py,,\n{name}-1.0.dist-info/METADATA,,\n", encoding="utf-8")
    return folder


def _plan(metric: str, bound: str = "betting") -> dict[str, Any]:
    return {
        "metrics": {"forgetting": metric},
        "bound": {"forgetting": bound},
        "procedure": "weighted-holm",
        "search": {"methods": ["gu(npo)"]},
    }


@pytest.mark.parametrize("point", ["extraction_strength", "Extraction-Strength"])
def test_a_name_of_ours_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    monkeypatch.syspath_prepend(_install(tmp_path, "shadyname", "froc.metrics", point))
    with pytest.raises(InputError, match=r"shadyname .*froc itself has already.*pip uninstall shadyname"):
        plugins.find(Metric, "extraction_strength")


def test_a_name_of_another_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("shadyleft", "shadyright"):
        monkeypatch.syspath_prepend(_install(tmp_path / name, name, "froc.metrics", "both"))
    with pytest.raises(InputError, match=r"shady(left|right) .*shady(left|right) has already"):
        plugins.names(Metric)


@pytest.mark.parametrize(("record", "rule"), [(True, "distribution"), (False, "module")])
def test_what_takes_part_is_named_with_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: bool, rule: str
) -> None:
    name = f"traced{rule}"
    monkeypatch.syspath_prepend(_install(tmp_path, name, "froc.metrics", name, record))
    entry = provenance.outside(_plan(f"{name}@prefix_injection+role_play"))[0]
    assert (entry["kind"], entry["distribution"], entry["version"], entry["rule"]) == ("metric", name, "1.0", rule)
    assert provenance.outside(_plan("extraction_strength@relearning:steps=30,lr=1e+3+role_play")) == []
    (tmp_path / f"{name}.py").write_text(METRIC + "\n", encoding="utf-8")
    assert provenance.outside(_plan(name))[0]["sha256"] != entry["sha256"]
    assert f"{name} 1.0 (metric {name}" in provenance.sentences([entry])[0]


def _package(folder: Path, name: str, record: bool) -> Path:
    """A plug-in in a package whose score comes from a second module."""
    _install(folder, name, "froc.metrics", name, record)
    (folder / f"{name}.py").unlink()
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(METRIC, encoding="utf-8")
    (folder / name / "core.py").write_text("FACTOR = 1\n", encoding="utf-8")
    if record:
        (folder / f"{name}-1.0.dist-info" / "RECORD").write_text(f"{name}/__init__.py,,\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize("record", [True, False])
def test_code_that_python_would_run_is_in_the_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: bool
) -> None:
    """A module that nobody listed, and one without a source."""
    name = f"listed{record}".lower()
    monkeypatch.syspath_prepend(_package(tmp_path, name, record))
    before = provenance.outside(_plan(name))[0]["sha256"]
    (tmp_path / name / "core.py").write_text("FACTOR = 0\n", encoding="utf-8")
    changed = provenance.outside(_plan(name))[0]["sha256"]
    (tmp_path / name / "core.py").rename(tmp_path / "source.py")
    digests = {before, changed}
    for factor in (0, 1):
        (tmp_path / "source.py").write_text(f"FACTOR = {factor}\n", encoding="utf-8")
        py_compile.compile(str(tmp_path / "source.py"), cfile=str(tmp_path / name / "core.pyc"), doraise=True)
        digests.add(provenance.outside(_plan(name))[0]["sha256"])
    assert len(digests) == 4


@pytest.mark.parametrize(
    "mode", [py_compile.PycInvalidationMode.TIMESTAMP, py_compile.PycInvalidationMode.UNCHECKED_HASH]
)
def test_a_cache_of_other_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: py_compile.PycInvalidationMode
) -> None:
    name = f"cached{mode.name.lower()}"
    monkeypatch.syspath_prepend(_package(tmp_path, name, record=True))
    source, evil = tmp_path / name / "core.py", tmp_path / "evil.py"
    honest = provenance.outside(_plan(name))[0]["sha256"]
    py_compile.compile(str(source), doraise=True, invalidation_mode=mode)
    assert provenance.outside(_plan(name))[0]["sha256"] == honest
    evil.write_text("FACTOR = 0\n", encoding="utf-8")
    os.utime(evil, ns=(source.stat().st_atime_ns, source.stat().st_mtime_ns))
    py_compile.compile(
        str(evil), cfile=importlib.util.cache_from_source(str(source)), doraise=True, invalidation_mode=mode
    )
    with pytest.raises(InputError, match=r"is not what core\.py compiles to"):
        provenance.outside(_plan(name))
    # a cache that Python ignores, since the source was edited after it, is none
    source.write_text("FACTOR = 2  # edited\n", encoding="utf-8")
    if mode is py_compile.PycInvalidationMode.TIMESTAMP:
        provenance.outside(_plan(name))


def test_code_in_a_cache_folder_is_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(_package(tmp_path, "cachefolder", record=True))
    before = provenance.outside(_plan("cachefolder"))[0]["sha256"]
    (tmp_path / "cachefolder" / "__pycache__").mkdir(exist_ok=True)
    (tmp_path / "cachefolder" / "__pycache__" / "more.py").write_text("FACTOR = 0\n", encoding="utf-8")
    assert provenance.outside(_plan("cachefolder"))[0]["sha256"] != before


@pytest.mark.parametrize("kind", ["file", "folder", "path"])
def test_code_behind_links_or_elsewhere_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    name, elsewhere = f"linked{kind}", tmp_path / "elsewhere"
    monkeypatch.syspath_prepend(_package(tmp_path, name, record=True))
    elsewhere.mkdir()
    (elsewhere / "code.py").write_text("FACTOR = 0\n", encoding="utf-8")
    if kind == "file":
        (tmp_path / name / "code.py").symlink_to(elsewhere / "code.py")
    elif kind == "folder":
        (tmp_path / name / "sub").symlink_to(elsewhere, target_is_directory=True)
    else:
        extended = f"{METRIC}\n__path__.append({str(elsewhere)!r})\n"
        (tmp_path / name / "__init__.py").write_text(extended, encoding="utf-8")
    with pytest.raises(InputError, match="is a link" if kind != "path" else "from other places"):
        provenance.outside(_plan(name))


def test_names_are_read_whole() -> None:
    plan = _plan("extraction_strength@relearning:steps=30,lr=1e+3+role_play/utility")
    assert provenance.named(plan) == [
        ("attack", "relearning"), ("attack", "role_play"), ("bound", "betting"), ("method", "gu"), ("method", "npo"),
        ("metric", "extraction_strength"), ("procedure", "weighted_holm"),
    ]  # fmt: skip
    assert provenance.unknown(plan) == set()


def test_nothing_of_others_exists_while_verifying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(_install(tmp_path, "boundless", "froc.bounds", "boundless"))
    assert "boundless" in plugins.names(Bound)
    with plugins.builtin_plugins_only():
        assert "boundless" not in plugins.names(Bound)
        assert plugins.entry_point("froc.bounds", "boundless") is None
    # not even one that could not be told from ours
    monkeypatch.syspath_prepend(_install(tmp_path / "two", "clashing", "froc.bounds", "betting"))
    with pytest.raises(InputError, match="clashing"):
        plugins.find(Bound, "betting")
    with plugins.builtin_plugins_only():
        assert plugins.find(Bound, "betting").__module__ == "froc.bounds.betting"


def test_a_plan_names_a_plug_in_as_it_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by its file, which may be called as one of ours: then nobody would know whose code measured."""
    _install(tmp_path, "otherwise", "froc.metrics", "named_otherwise")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "__init__.py").write_text("", encoding="utf-8")
    (tmp_path / "otherwise.py").rename(tmp_path / "inner" / "extraction_strength.py")
    point = "[froc.metrics]\nnamed_otherwise = inner.extraction_strength:Shady\n"
    (tmp_path / "otherwise-1.0.dist-info" / "entry_points.txt").write_text(point, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    made = plugins.make(Metric, "named_otherwise")
    assert plugins.name_of(made) == "named_otherwise"
    assert plugins.name_of(plugins.make(Metric, "extraction_strength")) == "extraction_strength"
    text = written("forgetting", Measurement("forgetting", made))
    (entry,) = provenance.outside(_plan(text))
    assert (entry["name"], entry["distribution"]) == ("named_otherwise", "otherwise")


@pytest.mark.parametrize("point", ["MyMetric", "my-metric", "_hidden"])
def test_a_name_that_no_plan_could_say_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    monkeypatch.syspath_prepend(_install(tmp_path, "spelt", "froc.metrics", point))
    with pytest.raises(InputError, match=r"spelt .*lower-case letters.*rename it there"):
        plugins.names(Metric)
