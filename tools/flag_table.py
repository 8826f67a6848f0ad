"""Prints docs/flags.md, the table of all flags: python tools/flag_table.py > docs/flags.md."""

import dataclasses
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support.config import PRESETS, Config

HEAD = """# Flags

Booleans take `--evaluate`, `--no-evaluate` or `--evaluate False`. A preset is a set of values that the other flags
start from; explicit flags win over it. Where a preset's column is empty, the default stays.
"""


def shown(value: object) -> str:
    """A default as one types it."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def flag_table() -> str:
    """A Markdown table: flag, default, the value of each other preset where it differs, meaning."""
    others = [name for name, values in PRESETS.items() if values]
    columns = ["flag", "default", *(f"`--preset {name}`" for name in others), "meaning"]
    lines = [row(columns), "|---" * len(columns) + "|"]
    for field in dataclasses.fields(Config):
        values = [PRESETS[name].get(field.name, field.default) for name in others]
        changed = ["" if value == field.default else shown(value) for value in values]
        lines.append(row([f"`--{field.name}`", shown(field.default), *changed, field.metadata["help"]]))
    return "\n".join(lines)


def row(cells: list[str]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def page() -> str:
    """The whole of docs/flags.md."""
    return f"{HEAD}\n{flag_table()}\n"


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")
    print(page(), end="")
