"""Prints docs/flags.md, the lists of all flags: python tools/flag_table.py > docs/flags.md."""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support.config import FIELDS, SECTIONS, shown
from support.presets import PRESETS, UPDATE_DEFAULTS
from support.registries import DISCRIMINATORS
from support.streams import run_tool

HEAD = """# Flags

All flags of `python main.py`. Booleans take `--evaluate`, `--no-evaluate` or `--evaluate False`. A preset is a set of
values that the other flags start from. `--g_update` brings values of others; so does a `--discriminator` of another
kind (pooled, additive). Explicit flags win over both. Most flags without an effect beside the others are refused.
"""
# What flags start from, by what brings it: a preset, or another flag.
BROUGHT = PRESETS | {f"`--discriminator {name}`": entry.defaults for name, entry in DISCRIMINATORS.items()}
BROUGHT |= {f"`--g_update {name}`": brought for name, brought in UPDATE_DEFAULTS.items()}


def flag_line(name: str) -> str:
    """The line of a flag: its default and its values in the presets, meaning, and the words that it takes."""
    field = FIELDS[name]
    changed: dict[str, list[str]] = {}
    for by, values in BROUGHT.items():
        if name in values:
            value = shown(values[name])
            value = f"{value.removesuffix(by)}PRESET" if value in (f"logs/train/{by}", f"logs/eval/{by}") else value
            changed.setdefault(value, []).append(by)
    brought = {value: ", ".join(names).replace("`, `--discriminator ", "`, `") for value, names in changed.items()}
    defaults = [shown(field.default) or "none", *(f"{names}: {value}" for value, names in brought.items())]
    words = [word for word in field.metadata["choices"] or () if f"{word}: " not in field.metadata["help"]]
    words += [field.metadata["own"]] if field.metadata["own"] else []
    listed = f" ({', '.join(f'`{word}`' for word in words)})" if words else ""
    parts = field.metadata["help"].split("; ")  # a sentence each, but for what begins with a flag, its word or a symbol
    kept = re.compile(r"--|[a-z_]+[,:] |[^ -~]").match
    told = ". ".join(part if kept(part) else part[0].upper() + part[1:] for part in parts)
    return f"- `--{name}` ({'; '.join(defaults)}). {told}{listed}\n"


def page() -> str:
    """The whole of docs/flags.md: the groups of --help."""
    heads = {name: f"\n## {title[0].upper()}{title[1:]}\n\n" for title, name in SECTIONS.items()}
    return HEAD + "".join(heads.get(name, "") + flag_line(name) for name in FIELDS)


def main() -> int:
    """Prints the page, as UTF-8; returns 0."""
    if sys.stdout:
        sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    print(page(), end="")
    return 0


if __name__ == "__main__":
    run_tool(main)
