"""Prints the README's table of flags: python tools/flag_table.py."""

import dataclasses
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support.config import PRESETS, Config


def shown(value: object) -> str:
    """A default as one types it."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def flag_table() -> str:
    """A Markdown table: flag, default, the paper preset's value where it differs, meaning."""
    lines = ["| flag | default | `--preset paper` | meaning |", "|---|---|---|---|"]
    for field in dataclasses.fields(Config):
        paper = PRESETS["paper"].get(field.name, field.default)
        other = "" if paper == field.default else shown(paper)
        lines.append(f"| `--{field.name}` | {shown(field.default)} | {other} | {field.metadata['help']} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(flag_table())
