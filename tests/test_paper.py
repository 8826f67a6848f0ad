"""The map from the paper to the code: each name in docs/paper.md and the glossary exists; Algorithm 1 has its order."""

import ast
import re
import signal

import toy
from conftest import ROOT, TINY, cases, interrupted_at, train, watching
from fault_injection import logs_in

from evaluation.metrics import METRICS
from support.config import FIELDS

PAGE = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
NAME = re.compile(r"`([\w/]+\.py)::([\w.]+)`")


def defined(body) -> dict[str, ast.AST]:
    names = {node.name: node for node in body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    for node in body:
        for target in node.targets if isinstance(node, ast.Assign) else ():
            names |= {target.id: node} if isinstance(target, ast.Name) else {}
    return names


def exists(file: str, dotted: str) -> bool:
    path = ROOT / ("tests" if file.startswith("test_") else "") / file
    if not path.is_file():
        return False
    body = ast.parse(path.read_text(encoding="utf-8")).body
    for name in dotted.split("."):
        node = defined(body).get(name)
        if node is None:
            return False
        body = getattr(node, "body", [])
    return True


def entries() -> list[str]:
    sections = [part.split("\n## ")[0] for part in re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:]]
    return sections + re.findall(r"^\| \d.*", PAGE, re.MULTILINE)


@cases("file, name", *sorted(set(NAME.findall(PAGE + GLOSSARY))))
def test_every_name_exists(file, name):
    assert exists(file, name)


def test_every_file_flag_and_curve_of_the_glossary_exists():
    files = {path for path in re.findall(r"`([\w/]+(?:\.py|/))(?:::[\w.]+)?`", GLOSSARY) if not (ROOT / path).exists()}
    named = re.findall(r"`--(\w+)", GLOSSARY)
    rows = [row.split(" | ") for row in GLOSSARY.splitlines() if row.startswith("| ")][1:]
    curves = {name for *_, cell, _ in rows for name in re.findall(r"`(\w+)`", cell)} - {*METRICS, "reward_at_step"}
    assert (files, set(named) - FIELDS.keys(), curves) == (set(), set(), set()) and len(named) > 20


@cases("entry", *entries(), ids=lambda entry: entry.split("\n")[0].strip("| ")[:20])
def test_every_entry_names_code_and_tests(entry):
    files = [file for file, _ in NAME.findall(entry)]
    assert {file.startswith("test_") for file in files} == {True, False}
    assert entry.count("::") == len(files)  # none is misspelt beyond recognition


def test_the_whole_paper_is_there():
    titles = "\n".join(entry.split("\n")[0] for entry in entries())
    assert [int(n) for n in re.findall(r"^\((\d+)\)", titles, re.MULTILINE)] == list(range(1, 13))
    firsts = re.findall(r"^\| ([\d–, ]+) \|", PAGE, re.MULTILINE)  # such as 8; 9–11; 12, 13
    ends = [[int(n) for n in re.findall(r"\d+", first)] for first in firsts]
    assert [n for each in ends for n in range(each[0], each[-1] + 1)] == list(range(1, 20))


FLAGS = "--pretrain_g_epochs 2 --pretrain_d_epochs 2 --total_epochs 2 --g_steps 2 --mle_steps 1 --d_steps 3"
ORDER = [
    *[("mle_epoch", n) for n in (0, 1)],  # line 2
    *[("d_step", n) for n in (0, 1)],  # lines 4 and 5
    ("begin_adversarial",),  # line 3: β ← θ
    *[("g_step", n) for n in (0, 1)],  # lines 7 to 13
    ("mle_step", 2, 0),
    ("follow_policy", 0.5),  # line 18
    *[("d_step", n) for n in (2, 3, 4)],  # lines 14 to 17
    *[("g_step", n) for n in (2, 3)],
    *(("mle_step", 3, 0), ("follow_policy", 0.5)),
    *[("d_step", n) for n in (5, 6, 7)],
]
STEPS = sum(name not in ("begin_adversarial", "follow_policy") for name, *_ in ORDER)


@cases("stopped", 0, *range(1, STEPS))
def test_updates_come_in_the_order_of_algorithm_1(tmp_path, stopped):
    """Each once, also where a run is interrupted after any of them and resumed: above all β ← θ, once an epoch."""
    words, calls = [*TINY, *FLAGS.split(), "--rollout_lag", "0.5", *logs_in(tmp_path)], []

    def note(name: str, arguments: tuple) -> None:
        numbers = arguments[1:] if name.startswith(("mle", "d_")) else arguments  # the first are sequences
        calls.append((name, *(float(number) if name == "follow_policy" else int(number) for number in numbers)))

    makers = watching(note, toy.makers(valid=False))
    if stopped:
        assert train(words, interrupted_at(stopped, makers)) == 128 + signal.SIGTERM and len(calls) < len(ORDER)
    assert train(words, makers) == 0 and calls == ORDER
