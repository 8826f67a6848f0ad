"""The pages: links, files and commands that they name, tables, words, lengths; versions and requirements."""

import ast
import re
import shlex
import tomllib

from conftest import ROOT, cases
from packaging.requirements import Requirement

from support.config import FIELDS
from support.parser import VERSION, read_flags
from tools.flag_table import page

README = ROOT / "README.md"
PAGES = [README, *sorted(path for path in ROOT.glob("*.md") if path != README), *sorted((ROOT / "docs").glob("*.md"))]
STUDIES = sorted((ROOT / "results").glob("*/README.md"))
ALL = [*PAGES, *STUDIES, *(ROOT / folder / "README.md" for folder in ("models", "benchmarks/results"))]
NAMES = [path.relative_to(ROOT).as_posix() for path in ALL]
TOPS = {path.name for path in ROOT.iterdir()}  # what a path from the root begins with
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
# By the commands, not in the repository; and the example of a metric.
MADE = re.compile(
    r"logs/|data/(Nottingham|quatrains\.txt|captions/|molecules\.txt|kjv\.txt|oracle\.npz)|evaluation/repeats\.py|media/"
)
SCRIPTS = ("bash train_nottingham.sh", "bash train_poems.sh", "bash train_captions.sh")
COMMAND = re.compile(r"^ {4}((?:[A-Z_]+=\S+ )*(?:python|bash|pip|dask|tensorboard|for) .*)$", re.MULTILINE)
PRIVATE = re.compile(
    r"\bleash\w*|\b(is|are|was) paid\b|\bby heart\b|\bnats a \w+|\b(a|the) falling rate\b|\brates? that falls?\b|"
    r"\bknow(s|ing)? nothing\b|\b(of|on) (valid|test)\b(?! set)|(?<![\w.])[−-]?\.\d",
    re.IGNORECASE,
)
LONGEST, WORDS = 120, 30_000  # characters of a command; words of all pages, by wc -w


def text(path):
    return path.read_text(encoding="utf-8")


def relative_links(page):
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", page) if "://" not in link]


def linked(path):
    return {(path.parent / link).resolve() for link in relative_links(text(path))}


def headings(page):
    """The names that GitHub gives a page's headings."""
    titles = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def files_named(page):
    """Paths from the root in code spans, and the programs of commands."""
    spans = re.findall(r"`([^`\n]+)`", page) + re.findall(r"^    (.+)$", page, re.MULTILINE)
    words = [word.rstrip(".,:;") for span in spans for word in span.split()]
    return [word for word in words if re.fullmatch(r"[\w.-]+(/[\w.-]*)*", word) and word.split("/")[0] in TOPS]


def commands(page, program):
    """What follows the program in each of its commands, in blocks and in code spans; comments are none of it."""
    page = page.replace("\\\n", " ")
    found = re.findall(rf"(?:^ +|`){re.escape(program)}( [^`\n]*)?", page, re.MULTILINE)
    return [shlex.split(command, comments=True) for command in found]


def test_the_page_of_flags_is_the_programs_and_help_has_the_words_of_the_field():
    assert not [found[0] for field in FIELDS.values() for found in PRIVATE.finditer(field.metadata["help"])]
    assert text(ROOT / "docs" / "flags.md") == page(), "python tools/flag_table.py > docs/flags.md"


def test_pages_are_short_and_the_front_page_leads_to_every_other():
    assert len(text(README).splitlines()) <= 110
    assert set(PAGES) - {README} <= linked(README), "a page that 'Where to read on' lacks"
    assert len(list((ROOT / "docs").glob("*.md"))) <= 12 and sum(len(text(path).split()) for path in ALL) <= WORDS


def test_results_lead_to_every_study():
    """There are fourteen at most, each with its table of experiments."""
    assert set(STUDIES) <= linked(ROOT / "RESULTS.md") and 0 < len(STUDIES) <= 14
    names = {path.parent.name for path in STUDIES}
    assert names == {path.name for path in (ROOT / "results").iterdir()}
    assert names == {path.stem for path in (ROOT / "experiments").glob("*.toml")}


@cases("path", *ALL, ids=NAMES)
def test_every_link_leads_somewhere_and_every_file_that_is_named_exists(path):
    for link in relative_links(text(path)):
        name, _, heading = link.partition("#")
        target = (path.parent / name) if name else path
        assert target.exists(), link
        assert not heading or heading in headings(text(target)), link
    for name in files_named(text(path)):
        assert (ROOT / name).exists() or MADE.match(name), name


@cases("path", *ALL, ids=NAMES)
def test_tables_are_whole(path):
    """Each begins with a heading and a rule, and its rows have as many cells."""
    for table in re.findall(r"(?:^\|.*\n?)+", text(path), re.MULTILINE):
        rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in table.splitlines()]
        assert len(rows) > 2 and set("".join(rows[1]).replace(" ", "")) <= set("-:"), rows[0]
        assert {len(cells) for cells in rows} == {len(rows[0])}, rows[0]


@cases("path", *ALL, ids=NAMES)
def test_commands_are_those_that_the_program_takes_in_one_line(path):
    """Of two commands of the front page that are given word by word, each has a second line."""
    if path.name != "CONTRIBUTING.md":  # whose commands tests/test_contributing.py runs
        for command in commands(text(path), "python main.py"):
            read_flags([word for word in command if word != "--help"])
    for script in SCRIPTS:
        for command in commands(text(path), script):
            assert {word.removeprefix("--") for word in command if word.startswith("--")} <= FIELDS.keys()
    found = COMMAND.findall(text(path))
    assert [command for command in found if len(command) > LONGEST] == []
    assert sum(command.endswith("\\") for command in found) == (2 if path == README else 0)


def test_imports_run_down_the_table_of_files():
    """Those of the program; what a row names may import each other."""
    table = text(README).partition("## Files")[2].partition("`experiments/`")[0]
    rows = [re.findall(r"`([\w.]+)/?`", line.split("|")[1]) for line in table.splitlines() if line.startswith("| `")]
    row_of = {name.removesuffix(".py"): i for i, names in enumerate(rows) for name in names}
    assert len(row_of) > 10 and all((ROOT / name).exists() for names in rows for name in names)
    for path in [*ROOT.glob("*.py"), *(path for room in row_of for path in (ROOT / room).rglob("*.py"))]:
        own = row_of[path.relative_to(ROOT).parts[0].removesuffix(".py")]
        for node in ast.walk(ast.parse(text(path))):
            modules = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for module in modules:
                assert row_of.get(module.split(".")[0], own) >= own, f"{path} imports {module}"


@cases("path", *ALL, ids=NAMES)
def test_pages_have_the_words_of_the_field(path):
    page = re.sub(r"^    .*", "", re.sub(r"<!--.*?-->", "", text(path), flags=re.DOTALL), flags=re.MULTILINE)
    spoken = re.sub(r"`[^`]*`|\]\([^)]*\)", "", page).replace("*", "")
    assert not [found[0] for found in PRIVATE.finditer(spoken)]


def test_what_is_looked_for_is_found():
    assert PRIVATE.search("on a leash") and PRIVATE.search("less by .39") and not PRIVATE.search("0.39 on the test set")
    assert len(PAGES) > 8 and len(files_named(text(README))) > 15 and len(relative_links(text(README))) > 10
    assert sum(len(commands(text(path), "python main.py")) for path in PAGES) >= 6
    assert sum(len(COMMAND.findall(text(path))) for path in PAGES) >= 30
    assert all(f"- `--{name}` (" in page() for name in FIELDS)


def requirements(name):
    """The lines of a file of requirements, without comments and other files."""
    return [line for line in text(ROOT / name).splitlines() if re.match(r"\w", line)]


def test_the_version_is_one():
    assert f"\nversion: {VERSION}\n" in text(ROOT / "CITATION.cff") and PROJECT["project"]["version"] == VERSION
    assert re.search(r"^## (\S+)", text(ROOT / "CHANGELOG.md"), re.MULTILINE)[1] == VERSION


def test_dependencies_are_those_of_the_requirements_which_the_tested_versions_meet():
    assert PROJECT["project"]["dependencies"] == requirements("requirements.txt")
    assert PROJECT["dependency-groups"] == {"dev": requirements("requirements-dev.txt")}
    tested = dict(line.split("==") for line in requirements("requirements-lock.txt"))
    for wanted in map(Requirement, requirements("requirements.txt")):
        assert wanted.specifier.contains(tested[wanted.name]), wanted
