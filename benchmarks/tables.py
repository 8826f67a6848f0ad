"""Writes the tables of docs/speed.md anew from the figures in benchmarks/results: python benchmarks/tables.py."""

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "speed.md"
RESULTS = ROOT / "benchmarks" / "results"
SIZES = ("default", "paper")
STEPS = {  # as steps.py and docs/speed.md name them
    "mle_step": "MLE step",
    "sample_batch": "sampling a batch",
    "reward_pass": "reward pass (N = 16)",
    "policy_gradient_step": "policy-gradient step, rewards given",
    "d_step": "D step",
    "evaluation": "evaluation",
    "adversarial_epoch": "adversarial epoch (15 D steps)",
}
# Medians at the paper's size, seconds, of one sitting on a 2-core machine: the authors' code, TextGAN-PyTorch, and this
# project before its discriminator looked anything up.
SITTING_FLOPS = 213e9
SITTING = {
    "reward_pass": (9.62, 34.5, 3.39),
    "d_step": (0.527, 0.073, 0.052),
    "mle_step": (0.055, 0.051, 0.014),
    "sample_batch": (0.022, 0.162, 0.0078),
}


def digits(value: float) -> str:
    """A number with three digits, or all of those before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"


def shown(seconds: float) -> str:
    """A time, in s or ms."""
    return f"{digits(seconds)} s" if seconds >= 1 else f"{digits(seconds * 1e3)} ms"


def steps_table(results: dict[str, Any]) -> str:
    """Each step's median at each size, and how many times its floor that is."""
    lines = ["| step | default size | times its floor | paper's size | times its floor |", "|---|---|---|---|---|"]
    for name, title in STEPS.items():
        cells = [title]
        for size in SIZES:
            step = results[size]["steps"][name]
            cells += [shown(step["median"]), f"{step['median'] / step['floor']:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def peers_table(paper: dict[str, Any]) -> str:
    """Each step's time times the matrix-product peak of its own sitting, GFLOP."""
    lines = [
        "| step, paper's size | authors' code | TextGAN-PyTorch | here, earlier | here, now |",
        "|---|---|---|---|---|",
    ]
    for name, seconds in SITTING.items():
        work = [s * SITTING_FLOPS for s in seconds] + [paper["steps"][name]["median"] * paper["peaks"]["flops"]]
        lines.append(f"| {STEPS[name]} | {' | '.join(digits(w / 1e9) for w in work)} |")
    return "\n".join(lines)


def machine(results: dict[str, Any]) -> str:
    """What the two runs were made on."""
    peaks = [results[size]["peaks"] for size in SIZES]
    flops, bandwidth = (" and ".join(f"{peak[name] / 1e9:.0f}" for peak in peaks) for name in ("flops", "bandwidth"))
    return f"Measured on {results['paper']['machine']}: {flops} GFLOP/s, {bandwidth} GB/s."


def page(text: str) -> str:
    """The text of the page with its tables, which stand between two comments each, made anew."""
    results = {size: json.loads((RESULTS / f"{size}.json").read_text(encoding="utf-8")) for size in SIZES}
    parts = {"steps": f"{machine(results)}\n\n{steps_table(results)}", "peers": peers_table(results["paper"])}
    for name, content in parts.items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        block = f"{begin}\n{content}\n{end}".replace("\\", r"\\")
        text, count = re.subn(f"{begin}.*?{end}", block, text, flags=re.DOTALL)
        if count != 1:
            raise ValueError(f"{PAGE.name}: {count} tables between {begin} and {end}")
    return text


def main() -> int:
    """The program: rewrites the page."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
