import re

import pytest
from conftest import ROOT

from tools.flag_table import flag_table, page

README = ROOT / "README.md"
PAGES = [README, *sorted(path for path in ROOT.glob("*.md") if path != README), *sorted((ROOT / "docs").glob("*.md"))]
FLAGS = set(re.findall(r"^\| `--(\w+)`", flag_table(), re.MULTILINE))
TOPS = {path.name for path in ROOT.iterdir()}  # what a path from the root begins with
MADE = re.compile(r"logs/|data/(Nottingham|quatrains\.txt|kjv\.txt)|media/")  # by the commands, not in the repository


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
    assert len(text(README).splitlines()) <= 150
    links = {(ROOT / link).resolve() for link in relative_links(text(README))}
    assert set(PAGES) - {README} <= links, "a page that 'Where to read on' lacks"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_link_leads_somewhere(path):
    for link in relative_links(text(path)):
        name, _, heading = link.partition("#")
        target = (path.parent / name) if name else path
        assert target.exists(), link
        assert not heading or heading in headings(text(target)), link


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_file_that_is_named_exists(path):
    for name in files_named(text(path)):
        assert (ROOT / name).exists() or MADE.match(name), name


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_commands_use_flags_that_exist(path):
    commands = re.findall(r"^ +(?:python main\.py|bash train_\w+\.sh).*$", text(path), re.MULTILINE)
    named = {flag.removeprefix("no-") for command in commands for flag in re.findall(r"--([a-z][\w-]*)", command)}
    assert named <= FLAGS


def test_what_is_looked_for_is_found():
    assert len(FLAGS) > 40 and len(PAGES) > 8
    assert len(files_named(text(README))) > 15 and len(relative_links(text(README))) > 10
    assert sum(text(path).count("    python main.py") for path in PAGES) >= 3
