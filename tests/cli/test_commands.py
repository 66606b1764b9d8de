"""The command line: bad input ends with exit 2 and one line that names file, row and mend; nothing is written over."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from froc.cli import options
from froc.data.task import Task
from tests.cli.conftest import Froc
from tests.commands import ROOT, Commands

GOOD = [{"question": f"who is {i}", "answer": f"person {i}"} for i in range(40)]


def from_nothing(*words: str) -> subprocess.CompletedProcess[str]:
    """In a process that must import what it needs itself."""
    return subprocess.run(
        [sys.executable, "-m", "froc", *words], cwd=ROOT, capture_output=True, text=True, check=False, timeout=240
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound task folder; tests break one thing."""
    place = tmp_path / "task"
    place.mkdir()
    write(place / "forget.jsonl", GOOD)
    write(place / "retain.jsonl", [{"question": f"what is {i}", "answer": f"thing {i}"} for i in range(40)])
    write(
        place / "forget_queries.jsonl",
        [{"question": f"tell me who {i} is", "answer": f"person {i}"} for i in range(80)],
    )
    write(
        place / "retain_queries.jsonl",
        [{"question": f"tell me what {i} is", "answer": f"thing {i}"} for i in range(80)],
    )
    return place


def write(path: Path, rows: list[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2, (done.returncode, done.stderr)
    assert done.stdout == ""
    *progress, message = filter(None, done.stderr.splitlines())
    assert message.startswith("froc: "), message
    # what takes seconds says that it has begun, and an error is one line
    assert all(line.endswith(" ...") for line in progress), done.stderr
    assert "Traceback" not in message
    for word in words:
        assert word in message, message


def _break(name: str, place: Path) -> None:
    rows = [json.dumps(row) for row in GOOD]
    match name:
        case "missing":
            (place / "forget.jsonl").unlink()
        case "empty":
            (place / "forget.jsonl").write_text("", encoding="utf-8")
        case "columns":
            write(place / "forget.jsonl", [*GOOD[:3], {"prompt": "a", "answer": "b"}])
        case "blank":
            write(place / "forget.jsonl", [*GOOD[:3], {"question": "a", "answer": "  "}])
        case "json":
            (place / "forget.jsonl").write_text("\n".join([*rows[:6], '{"question": ', *rows[6:]]), encoding="utf-8")
        case "array":
            (place / "forget.jsonl").write_text("[\n" + rows[0] + ",\n{,\n]", encoding="utf-8")
        case "utf8":
            (place / "forget.jsonl").write_bytes(b'{"question": "caf\xe9", "answer": "b"}\n')
        case "duplicate":
            write(
                place / "forget_queries.jsonl", [{"question": "q", "answer": "a"}, {"question": "r", "answer": "a"}] * 2
            )
        case "shared":
            write(place / "retain.jsonl", [{"question": "x", "answer": "y"}, GOOD[4]])
        case "trained":
            write(place / "forget_queries.jsonl", GOOD)
        case "few":
            write(place / "forget_queries.jsonl", [{"question": f"q {i}", "answer": "a"} for i in range(12)])
        case "toml":
            (place / "task.toml").write_text('tempalte = "x"', encoding="utf-8")
        case "template":
            (place / "task.toml").write_text('template = "Q: {question}"', encoding="utf-8")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("missing", ["no forget.jsonl"]),
        ("empty", ["forget.jsonl", "empty"]),
        ("columns", ["forget.jsonl row 4", "'question'"]),
        ("blank", ["forget.jsonl row 4", "'answer'"]),
        ("json", ["forget.jsonl line 7", "mend that line"]),
        ("array", ["forget.jsonl line 3", "JSON"]),
        ("utf8", ["forget.jsonl", "UTF-8", "byte"]),
        ("duplicate", ["forget_queries.jsonl row 3", "row 1"]),
        ("shared", ["retain.jsonl row 2", "forget.jsonl row 5"]),
        ("trained", ["forget_queries.jsonl row 1", "forget.jsonl row 1"]),
        ("toml", ["task.toml", "tempalte"]),
        ("template", ["task.toml", "{answer}"]),
    ],
)
def test_a_broken_task_folder(froc: Froc, folder: Path, tmp_path: Path, fault: str, words: list[str]) -> None:
    _break(fault, folder)
    refused(
        froc("search", "-b", "0.1", "--task", str(folder), "--model", str(tmp_path), "-o", str(tmp_path / "run")),
        *words,
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-b", "1.5"], ["outside (0, 1)"]),
        (["-b", "0"], ["outside (0, 1)"]),
        (["-b", "ten"], ["no number"]),
        (["-b", "nan"], ["outside (0, 1)"]),
        (["-b", "forgeting=0.1"], ["no risk", "forgetting"]),
        (["-b", "forgetting=0.1"], ["no budget for utility"]),
        (["-b", "0.1", "--methods", "npoo"], ["did you mean 'npo'"]),
        (["-b", "0.1", "--metric", "rouge"], ["did you mean 'rouge_l'"]),
        (["-b", "0.1", "--sampler", "best"], ["tpe"]),
        (["-b", "0.1", "--procedure", "hope"], ["holm"]),
        (["-b", "0.1", "--bound", "magic"], ["betting"]),
        (["-b", "0.1", "--confidence", "1"], ["confidence"]),
        (["-b", "0.1", "--trials", "0"], ["at least 1"]),
        (["-b", "0.1", "--space", "lr=a:b"], ["lr=1e-5:1e-3"]),
        (["-b", "0.1", "--space", "gamma=1:2"], ["no method searched here"]),
        (["-b", "0.1", "--task", "nowhere"], ["nowhere is no folder"]),
        (["-b", "0.1", "--task", "tofu"], ["tofu has parts", "forget10"]),
        (["-b", "0.1", "--task", "tofo:forget10", "--data", "."], ["did you mean 'tofu'"]),
        (["-b", "0.1", "--task", "tofu:forget10"], ["--data DIR"]),
        (["-b", "0.1", "--task", "tofu:forget10", "--data", "."], ["no retain90"]),
        (["-b", "0.1", "--task", "tests", "--data", "."], ["leave --data out"]),
        (["-b", "0.1", "--data", "."], ["--task NAME:PART"]),
        (["-b", "0.1", "--unit", "utility=author"], ["query, group"]),
        (["-b", "0.1", "--model", "gpt2"], ["--task"]),
        (["-b", "0.1", "--dtype", "int3"], ["float32"]),
        (["-b", "0.1", "--space", "lr=1e-3,"], ["NAME=A,B,C"]),
        (["-b", "0.1", "--space", "idk.form=ppo"], ["one of dpo, nll"]),
        (["-b", "0.1", "--sampler", "grid"], ["a grid needs values", "--space"]),
        (["-b", "0.1", "--pack", "0"], ["pack 0"]),
        (["-b", "0.1", "--series", "0", "--dry-run"], ["series 0"]),
        (["-b", "0.1", "--pruner", "axe"], ["wilcoxon"]),
        (["-b", "0.1", "--autocast", "int8"], ["bfloat16"]),
        (["-b", "0.1", "--train", "lorra"], ["lora:rank=8"]),
        (["-b", "0.1", "--pack", "4"], ["--train lora:rank=8"]),
    ],
)
def test_bad_options(froc: Froc, tmp_path: Path, options: list[str], words: list[str]) -> None:
    # a bad option must be found before a model is trained, so the cache is an empty place
    env = {"FROC_CACHE": str(tmp_path / "cache")}
    refused(froc("search", *options, "--out", str(tmp_path / "run"), env=env), *words)
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "words", [[], ["--help"], ["list", "bounds"], ["search", "-b", "2"], ["show", "nowhere", "--json"]]
)
def test_a_forked_command_is_like_any_other(commands: Commands, words: list[str]) -> None:
    """What the other tests rely on: exit code and output to the letter."""
    forked, started = commands.run(words), from_nothing(*words)
    assert (forked.returncode, forked.stdout, forked.stderr) == (started.returncode, started.stdout, started.stderr)


def test_missing_option_and_unknown_command(froc: Froc) -> None:
    assert froc("search").returncode == 2
    assert froc("serch").returncode == 2


def test_pickled_weights_are_refused(froc: Froc, folder: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "pytorch_model.bin").write_bytes(b"pickle")
    refused(froc("search", "-b", "0.3", "--task", str(folder), "--model", str(model)), "pytorch_model.bin is a pickle")


def test_unwritable_folder(froc: Froc, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    refused(froc("show", str(tmp_path / "file" / "run")), "no run folder")
    env = {"FROC_CACHE": str(tmp_path / "cache")}
    refused(froc("search", "-b", "0.1", "-o", str(tmp_path / "file" / "run"), env=env), "cannot write the run folder")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("kind", ["methods", "metrics", "attacks", "bounds", "formats", "benchmarks"])
def test_list_is_json_and_complete(froc: Froc, kind: str) -> None:
    done = froc("list", kind, "--json")
    assert done.returncode == 0, done.stderr
    listed = {entry["name"] for entry in json.loads(done.stdout)}
    place = next(place for place in (ROOT / "froc" / kind, ROOT / "froc" / "data" / kind) if place.is_dir())
    assert listed == {path.stem for path in place.glob("*.py") if not path.stem.startswith("_")}


def test_methods_are_listed_with_needs_and_cost(froc: Froc) -> None:
    methods = {method["name"]: method for method in json.loads(froc("list", "methods", "--json").stdout)}
    assert methods["grad_diff"]["cost"] == 1.0
    assert methods["grad_ascent"]["cost"] == 0.5
    assert methods["idk"]["cost"] == 1.5
    assert methods["none"]["hyperparameters"] == {}
    assert "second moments" in methods["gu"]["needs"]
    assert methods["blur"]["needs"] == ["another method"]
    assert set(methods["gu"]["hyperparameters"]) == {"memory"}
    (composed,) = json.loads(froc("list", "methods", "GU(graddiff)", "--json").stdout)
    assert set(composed["hyperparameters"]) == {"lr", "epochs", "retain_weight", "memory"}
    listing = froc("list", "methods", "lat").stdout
    assert "2407.15549" in listing
    assert "times gradient difference" in listing


def test_methods_are_a_line_each_and_filtered(froc: Froc) -> None:
    """Name, family and first sentence on one line, also where the terminal is narrow; full text by name alone."""
    listed = {entry["name"]: entry for entry in json.loads(froc("list", "methods", "--json").stdout)}
    lines = froc("list", "methods", env={"COLUMNS": "60"}).stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [[name, entry["family"]] for name, entry in listed.items()]
    assert all(line.endswith(listed[line.split()[0]]["summary"]) for line in lines)
    preference = froc("list", "methods", "--filter", "Preference").stdout.splitlines()
    assert {"npo", "simnpo", "idk"} <= {line.split()[0] for line in preference}
    assert {line.split()[0] for line in preference} < set(listed)
    methods = json.loads(froc("list", "methods", "--filter", "distillation", "--json").stdout)
    assert methods
    assert all("distillation" in f"{entry['family']} {entry['summary']}".lower() for entry in methods)
    refused(froc("list", "methods", "--filter", "no such words"), "leave --filter out")


def test_options_stand_in_groups(froc: Froc) -> None:
    """The groups of `froc.cli.options`; what stands in none is the help itself."""
    shown = froc("search", "--help", env={"COLUMNS": "200"}).stdout
    groups = [
        options.DATA,
        options.RISKS,
        options.SEARCH,
        options.TRAINING,
        options.MACHINE,
        options.PLAN,
        options.OUTPUT,
    ]
    assert all(f"─ {group} ─" in shown for group in groups)
    loose = shown[shown.index("─ Options ─") :].split("╰")[0]
    assert re.findall(r"--[a-z-]+", loose) == ["--help"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_commands(froc: Froc, shell: str) -> None:
    variables = {"_FROC_COMPLETE": f"complete_{shell}", "COMP_WORDS": "froc sea", "COMP_CWORD": "1"}
    if shell != "bash":
        variables |= {"_TYPER_COMPLETE_ARGS": "froc sea", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    assert "search" in froc(env=variables).stdout


@pytest.mark.parametrize(
    "words", [[], ["search"], ["certify"], ["plan"], ["monitor"], ["show"], ["list"], ["audit"], ["audit", "verify"]]
)
def test_every_command_has_a_help(froc: Froc, words: list[str]) -> None:
    done = froc(*words, "--help")
    assert done.returncode == 0
    assert "Usage" in done.stdout


def test_a_model_that_never_knew_the_rows_is_refused(froc: Froc, folder: Path, tmp_path: Path, base: Any) -> None:
    """Sound files about things that the model was never taught: every trial would be within budget."""
    model = saved(base, tmp_path / "model")
    words = ["-b", "0.3", "--task", str(folder), "--model", str(model), "-o", str(tmp_path / "run")]
    refused(froc("search", *words), "forgetting: the base model itself shows 0.000", "--allow-vacuous")
    refused(
        froc("audit", "model", *words[:4], "--base", str(model), "--unlearned", str(model), *words[-2:]),
        "the base model itself",
    )


def saved(base: Any, place: Path) -> Path:
    """The small model as a folder."""
    base.restore()
    base.model.save_pretrained(place)
    base.tokenizer.save_pretrained(place)
    return place


def known(folder: Path, task: Task) -> None:
    """Rows that the small model knows, in the place of those that it does not."""
    (folder / "task.toml").write_text(f"template = {json.dumps(task.template)}\n", encoding="utf-8")
    lists = {"forget": task.forget, "retain": task.retain, "forget_queries": task.queries["forgetting"]}
    for name, rows in (lists | {"retain_queries": task.queries["utility"]}).items():
        write(folder / f"{name}.jsonl", [{"question": row.question, "answer": row.answer} for row in rows])


def test_a_search_on_a_task_folder_from_the_command_line(
    froc: Froc, folder: Path, tmp_path: Path, base: Any, task: Task
) -> None:
    """The user's path: a task folder and a model folder; progress on standard error, JSON on standard output."""
    model = saved(base, tmp_path / "model")
    known(folder, task)
    done = from_nothing(
        "search", "-b", "0.3", "--task", str(folder), "--model", str(model), "--trials", "4", "--methods", "npo,grad_diff",
        "--space", "epochs=2:4", "--space", "lr=2e-3:8e-3", "--candidates", "3", "-o", str(tmp_path / "run"), "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["chosen"] is not None
    assert document["base"]["forgetting"]["before"] > 0.9
    assert "c0000" in done.stderr
    assert "forgetting: 1.000 before (at least" in done.stderr
    assert sorted(p.name for p in (tmp_path / "run" / "figures").iterdir()) == [
        "drift.png", "froc_score.png", "landscape.png", "pareto.png", "shift.png"
    ]  # fmt: skip
    shown = froc("show", str(tmp_path / "run"), "--json")
    assert shown.returncode == 0
    assert json.loads(shown.stdout)["certificate"] == document
    refused(
        froc("search", "-b", "0.2", "--task", str(folder), "--model", str(model), "-o", str(tmp_path / "run")),
        "another plan",
    )
    few = folder / "forget_queries.jsonl"
    write(few, [{"question": f"q {i}", "answer": "a"} for i in range(12)])
    refused(
        froc("search", "-b", "0.1", "--task", str(folder), "--model", str(model), "-o", str(tmp_path / "few")),
        "can never certify", "are needed",
    )  # fmt: skip
    assert not (tmp_path / "few").exists()


def test_bench_says_what_trials_cost(froc: Froc, folder: Path, tmp_path: Path, base: Any) -> None:
    model = tmp_path / "model"
    base.restore()
    base.model.save_pretrained(model)
    base.tokenizer.save_pretrained(model)
    command = (
        "bench",
        "--task",
        str(folder),
        "--model",
        str(model),
        "--methods",
        "npo,rmu",
        "--steps",
        "3",
        "--batch",
        "8",
    )
    done = froc(*command, "--train", "lora:rank=4", "--pack", "2", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["parameters"] == sum(p.numel() for p in base.model.parameters())
    assert [method["method"] for method in document["methods"]] == ["npo", "rmu"]
    for method in document["methods"]:
        assert method["seconds_per_trial"] > method["steps_per_trial"] * method["seconds_per_step"] > 0
        assert method["trials_per_hour"] == pytest.approx(3600 / method["seconds_per_trial"])
        assert 0 < method["share_outside_steps"] < 1
        assert method["peak_memory_mib"] > 50
    table = froc(*command)
    assert table.returncode == 0, table.stderr
    assert "trials/hour" in table.stdout
    weights = 4 * sum(p.numel() for p in base.model.parameters())
    first = document["memory"]["options"][0]
    assert first["options"] == "as asked"
    assert first["weights"] > weights
    assert first["base_copy"] == 0
    assert first["total"] == sum(first[part] for part in ("weights", "gradients", "moments", "activations"))
    assert "GB needed (weights 0.00" in table.stderr
    assert "--train lora:rank=16" in table.stdout
    dry = froc("search", "-b", "0.1", *command[1:6], "rmu", "-o", str(tmp_path / "dry"), "--dry-run", "--json")
    assert json.loads(dry.stdout)["options"][0]["base_copy"] == weights
    assert not (tmp_path / "dry").exists()
    assert "npo: " in table.stderr
    refused(froc("bench", "--steps", "0"), "--steps")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--executor", "slurm"], "processes"), (["--executor", "inline", "--workers", "2"], "inline"),
        (["--workers", "0"], "workers"), (["--timeout", "soon"], "--timeout"), (["--trial-timeout", "0"], "--trial-timeout"),
        (["--until", "bored"], "certified"), (["--parallel", "-1"], "parallel"), (["--storage", "here"], "--storage"),
        (["--storage", "sqlite:///x.db", "--sampler", "grid"], "grid"),
    ],
)  # fmt: skip
def test_how_a_search_runs_is_checked_first(froc: Froc, tmp_path: Path, options: list[str], word: str) -> None:
    refused(froc("search", "--budget", "0.1", "--out", str(tmp_path / "run"), *options), word)
    assert not (tmp_path / "run").exists()


def test_a_metric_for_all_risks_may_have_settings(froc: Froc) -> None:
    done = froc("search", "-b", "0.1", "--metric", "membership:score=loss,over=7")
    refused(done, "over")
