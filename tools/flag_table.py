"""Prints docs/flags.md, the tables of all flags: python tools/flag_table.py > docs/flags.md."""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support.config import FIELDS, SECTIONS
from support.presets import ADDITIVE_DEFAULTS, FOLD_DEFAULTS, POOLED_DEFAULTS, PRESETS

HEAD = """# Flags

All flags of `python main.py`. Booleans take `--evaluate`, `--no-evaluate` or `--evaluate False`. A preset is a set of
values that the other flags start from; some flags bring values of others, too. Explicit flags win over both. Most
flags that have no effect beside the others are refused.
"""
BROUGHT: dict[str, dict[str, Any]] = {  # with a flag, values of others
    "`--discriminator pooled`": POOLED_DEFAULTS,
    "`--discriminator bigram` or `lstm`": ADDITIVE_DEFAULTS,
    "`--g_update fold`": FOLD_DEFAULTS,
}


def shown(value: object) -> str:
    """A default as one types it."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def flag_table(names: list[str]) -> str:
    """A Markdown table: flag, its default and its values in the presets, meaning."""
    columns = ["flag", "default; presets", "meaning (values)"]
    lines = [row(columns), "|---" * len(columns) + "|"]
    for name in names:
        field = FIELDS[name]
        changed: dict[str, list[str]] = {}
        for preset, values in (PRESETS | BROUGHT).items():
            if name in values:
                changed.setdefault(shown(values[name]), []).append(preset)
        presets = [f"{', '.join(names)}: {value}" for value, names in changed.items()]
        default = shown(field.default) or "none"
        choices = field.metadata["choices"] if name != "preset" else None
        words = f" ({', '.join(f'`{word}`' for word in choices)})" if choices else ""
        lines.append(row([f"`--{name}`", "; ".join([default, *presets]), field.metadata["help"] + words]))
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
