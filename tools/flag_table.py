"""Prints docs/flags.md, the tables of all flags: python tools/flag_table.py > docs/flags.md."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support.config import FIELDS, SECTIONS
from support.presets import PRESETS

HEAD = """# Flags

Booleans take `--evaluate`, `--no-evaluate` or `--evaluate False`. A preset is a set of values that the other flags
start from; explicit flags win over it. Where a preset's column is empty, the default stays. A flag that would have no
effect beside the others is refused, and the line names the one that would give it one.
"""


def shown(value: object) -> str:
    """A default as one types it."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def flag_table(names: list[str]) -> str:
    """A Markdown table: flag, default, the value of each other preset where it differs, meaning."""
    others = [name for name, values in PRESETS.items() if values]
    columns = ["flag", "default", *(f"`--preset {name}`" for name in others), "meaning"]
    lines = [row(columns), "|---" * len(columns) + "|"]
    for name in names:
        field = FIELDS[name]
        values = [PRESETS[preset].get(name, field.default) for preset in others]
        changed = ["" if value == field.default else shown(value) for value in values]
        lines.append(row([f"`--{name}`", shown(field.default), *changed, field.metadata["help"]]))
    return "\n".join(lines)


def row(cells: list[str]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def page() -> str:
    """The whole of docs/flags.md: the groups of --help, a table each."""
    first = {name: title for title, name in SECTIONS.items()}
    groups: dict[str, list[str]] = {}
    title = ""
    for name in FIELDS:
        title = first.get(name, title)
        groups.setdefault(title, []).append(name)
    tables = [f"## {title[0].upper()}{title[1:]}\n\n{flag_table(names)}\n" for title, names in groups.items()]
    return "\n".join([HEAD, *tables])


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    print(page(), end="")
