import re

from conftest import ROOT

from tools.flag_table import flag_table

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_of_flags_is_the_programs():
    assert flag_table() in README


def test_every_file_that_is_named_exists():
    named = re.findall(r"^\| `([\w./]+)` \|", README, re.MULTILINE) + re.findall(r"\]\(([\w./]+)\)", README)
    assert len(named) > 10
    for name in named:
        if not name.startswith(("g_", "d_", "nll", "oracle_entropy", "seconds_", "real", "copied_share", "length")):
            assert (ROOT / name).exists(), name


def test_commands_use_flags_that_exist():
    flags = set(re.findall(r"`?--(\w+)", flag_table()))
    commands = [line for line in README.splitlines() if line.startswith("    python main.py")]
    assert len(commands) >= 3
    for command in commands:
        assert set(re.findall(r"--(\w+)", command)) <= flags
