"""Draws NLL_test, or KL(p ‖ G), against the number of candidates: python results/resampling/figure.py."""

import csv
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

HERE = Path(__file__).parent
TUNES = {"32": "32 tokens of 0.4 s", "64": "64 eighths"}


def rows(name: str) -> list[dict[str, str]]:
    """The rows of a CSV file that is beside this one; none where there is none."""
    path = HERE / f"{name}.csv"
    return list(csv.DictReader(path.open(encoding="utf-8"))) if path.exists() else []


oracle = bool(rows("oracle_v100"))
figure, panels = plt.subplots(1, 2 + oracle, figsize=(4.4 * (2 + oracle), 4), layout="constrained")
for panel, (length, title) in zip(panels, TUNES.items(), strict=False):
    points = rows(f"curves{length}_1")
    chosen = [
        (int(row["candidates"]), float(row["nll_test"]), float(row["nll_test_se"]))
        for row in points
        if row["candidates"]
    ]
    tempered = {
        float(row["temperature"]): float(row["nll_test"])
        for row in points
        if row["temperature"] and not row["candidates"]
    }
    curve = sorted([(1, tempered[1.0]), *((n, nll) for n, nll, _ in chosen)])
    panel.plot(*zip(*curve, strict=True), "o-", label="one of n chosen by D")
    panel.axhline(min(tempered.values()), color="C1", label="best temperature")
    for row in rows(f"controls{length}_1"):
        if row["run"].startswith("average"):
            panel.axhline(
                float(row["nll_test"]), color="C2", linestyle="--", label=row["run"].replace("of 2", "of 2 generators")
            )
    panel.set(title=title, ylabel="NLL_test, nats per token")
if oracle:
    for vocabulary, color in (("20", "C0"), ("100", "C3")):
        points = [row for row in rows(f"oracle_v{vocabulary}") if row["candidates"]]
        for best, style in ((True, "o-"), (False, "x--")):
            curve = sorted(
                (int(r["candidates"]), float(r["kl_forward"])) for r in points if r["run"].endswith("D*") is best
            )
            if curve:
                panels[2].plot(
                    *zip(*curve, strict=True), style, color=color, label=f"V = {vocabulary}, {'D*' if best else 'D'}"
                )
    panels[2].set(title="oracle", ylabel="KL(p ‖ G), nats per token", ylim=(0, None))
for panel in panels:
    panel.set(xscale="log", xlabel="candidates n")
    panel.grid(alpha=0.3)
    panel.legend(fontsize="small")
figure.savefig(HERE / "candidates.png", dpi=110)
