import re
import shlex
import tomllib

import pytest
from conftest import ROOT
from packaging.requirements import Requirement

from support.config import FIELDS
from support.parser import VERSION, read_flags
from tools.flag_table import page

README = ROOT / "README.md"
PAGES = [README, *sorted(path for path in ROOT.glob("*.md") if path != README), *sorted((ROOT / "docs").glob("*.md"))]
STUDIES = sorted((ROOT / "results").glob("*/README.md"))
TOPS = {path.name for path in ROOT.iterdir()}  # what a path from the root begins with
# By the commands, not in the repository.
MADE = re.compile(r"logs/|data/(Nottingham|quatrains\.txt|captions/|molecules\.txt|kjv\.txt|oracle\.npz)|media/")


def text(path):
    return path.read_text(encoding="utf-8")


def relative_links(page):
    """Where the links of a page lead, as they stand in it, without those to other sites."""
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", page) if "://" not in link]


def headings(page):
    """The names that GitHub gives a page's headings."""
    titles = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def files_named(page):
    """Paths from the root in code spans, and the programs of commands."""
    spans = re.findall(r"`([^`\n]+)`", page) + re.findall(r"^    (.+)$", page, re.MULTILINE)
    words = [word.rstrip(".,:;") for span in spans for word in span.split()]
    return [word for word in words if re.fullmatch(r"[\w.-]+(/[\w.-]*)*", word) and word.split("/")[0] in TOPS]


def test_the_page_of_flags_is_the_programs():
    assert text(ROOT / "docs" / "flags.md") == page(), "python tools/flag_table.py > docs/flags.md"


def test_the_front_page_is_short_and_leads_to_every_other():
    assert len(text(README).splitlines()) <= 110
    links = {(ROOT / link).resolve() for link in relative_links(text(README))}
    assert set(PAGES) - {README} <= links, "a page that 'Where to read on' lacks"


def test_results_lead_to_every_study():
    links = {(ROOT / link).resolve() for link in relative_links(text(ROOT / "RESULTS.md"))}
    assert set(STUDIES) <= links and STUDIES
    assert {path.name for path in (ROOT / "results").iterdir()} == {path.parent.name for path in STUDIES}


@pytest.mark.parametrize("path", [*PAGES, *STUDIES], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(path):
    for link in relative_links(text(path)):
        name, _, heading = link.partition("#")
        target = (path.parent / name) if name else path
        assert target.exists(), link
        assert not heading or heading in headings(text(target)), link


@pytest.mark.parametrize("path", [*PAGES, *STUDIES], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_tables_are_whole(path):
    """Each begins with a heading and a rule, and its rows have as many cells."""
    for table in re.findall(r"(?:^\|.*\n?)+", text(path), re.MULTILINE):
        rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in table.splitlines()]
        assert len(rows) > 2 and set("".join(rows[1]).replace(" ", "")) == {"-"}, rows[0]
        assert {len(cells) for cells in rows} == {len(rows[0])}, rows[0]


@pytest.mark.parametrize("path", [*PAGES, *STUDIES], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_file_that_is_named_exists(path):
    for name in files_named(text(path)):
        assert (ROOT / name).exists() or MADE.match(name), name


def commands(page, program):
    """What follows the program in each of its commands, in blocks and in code spans; comments are none of it."""
    found = re.findall(rf"(?:^ +|`){re.escape(program)}( [^`\n]*)?", page, re.MULTILINE)
    return [shlex.split(command, comments=True) for command in found]


@pytest.mark.parametrize("path", [*PAGES, *STUDIES], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_commands_are_those_that_the_program_takes(path):
    for command in commands(text(path), "python main.py"):
        read_flags(command)
    for script in ("bash train_nottingham.sh", "bash train_poems.sh", "bash train_captions.sh"):
        for command in commands(text(path), script):
            assert {word.removeprefix("--") for word in command if word.startswith("--")} <= FIELDS.keys()


def test_the_flags_of_the_glossary_exist():
    named = re.findall(r"`--(\w+)", text(ROOT / "docs" / "glossary.md"))
    assert len(named) > 20 and set(named) <= FIELDS.keys()


def test_there_are_a_dozen_pages_at_most():
    assert len(list((ROOT / "docs").glob("*.md"))) <= 12


PRIVATE = re.compile(
    r"\bleash\w*|\b(is|are|was) paid\b|\bby heart\b|\bnats a \w+|\b(a|the) falling rate\b|\brates? that falls?\b|"
    r"\bknow(s|ing)? nothing\b|\b(of|on) (valid|test)\b(?! set)|(?<![\w.])[−-]?\.\d",
    re.IGNORECASE,
)


def spoken(page):
    """A page without comments, code and addresses."""
    page = re.sub(r"<!--.*?-->", "", page, flags=re.DOTALL)
    return re.sub(r"`[^`]*`|\]\([^)]*\)", "", re.sub(r"^    .*", "", page, flags=re.MULTILINE)).replace("*", "")


@pytest.mark.parametrize("path", [*PAGES, *STUDIES], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_pages_have_the_words_of_the_field(path):
    assert not [found[0] for found in PRIVATE.finditer(spoken(text(path)))]


def test_help_has_the_words_of_the_field():
    assert not [found[0] for field in FIELDS.values() for found in PRIVATE.finditer(field.metadata["help"])]


def test_the_pages_are_short():
    """Without their tables, which are to be looked things up in."""
    lines = [line for path in [*PAGES, *STUDIES] for line in spoken(text(path)).splitlines() if line[:1] != "|"]
    assert sum(len(re.findall(r"\S*\w\S*", line)) for line in lines) <= 15_000


def test_what_is_looked_for_is_found():
    assert PRIVATE.search("on a leash") and PRIVATE.search("less by .39") and not PRIVATE.search("0.39 on the test set")
    assert len(PAGES) > 8
    assert len(files_named(text(README))) > 15 and len(relative_links(text(README))) > 10
    assert sum(len(commands(text(path), "python main.py")) for path in PAGES) >= 6
    assert all(f"| `--{name}` |" in page() for name in FIELDS)


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def requirements(name):
    """The lines of a file of requirements, without comments and other files."""
    return [line for line in text(ROOT / name).splitlines() if re.match(r"\w", line)]


def test_the_version_is_one():
    assert f"\nversion: {VERSION}\n" in text(ROOT / "CITATION.cff")
    assert PROJECT["project"]["version"] == VERSION
    assert re.search(r"^## (\S+)", text(ROOT / "CHANGELOG.md"), re.MULTILINE)[1] == VERSION


def test_dependencies_are_those_of_the_requirements():
    groups = PROJECT["dependency-groups"]
    assert PROJECT["project"]["dependencies"] == requirements("requirements.txt")
    assert groups["cluster"] == requirements("requirements-cluster.txt")
    assert groups["dev"] == [{"include-group": "cluster"}, *requirements("requirements-dev.txt")]


def test_the_tested_versions_are_within_the_requirements():
    tested = dict(line.split("==") for line in requirements("requirements-lock.txt"))
    for wanted in map(Requirement, requirements("requirements.txt")):
        assert wanted.specifier.contains(tested[wanted.name]), wanted
