"""The table that a run ends with, and what a line of progress tells of an evaluation."""

import math
from collections.abc import Iterable

from evaluation.metrics import column, parse
from support.statistics import Figures

TOLD = ("g_entropy", "objective", "kl_to_pretrained")  # in a line of progress, beside NLLs


def by_importance(names: Iterable[str]) -> list[str]:
    """NLLs first, then entropies."""
    return sorted(names, key=lambda name: (not name.startswith("nll"), not name.endswith("entropy")))


def told(evaluation: Figures) -> dict[str, float]:
    """The figures of an evaluation that a line of progress has."""
    names = (name for name in by_importance(evaluation) if parse(name)[1] != "resampled")
    return {name: evaluation[name][0] for name in names if name.startswith("nll") or name in TOLD}


def table(evaluation: Figures) -> str:
    """The figures of an evaluation, a line each, and what real data has beside it; an unknown error is left out."""
    if not evaluation:
        return "not evaluated"

    def shown(name: str) -> str:
        value, error = evaluation.get(name, (math.nan, math.nan))
        return "" if math.isnan(value) else f"{value:.3f}" if math.isnan(error) else f"{value:.3f} ± {error:.3f}"

    forms = {"": "generated", "guided": "guided", "resampled": "resampled", "real": "real"}
    of_real = {"g_entropy": "oracle_entropy"}  # which is not named after the figure that it stands beside
    names = by_importance(dict.fromkeys(parse(name)[0].name for name in evaluation if name != "oracle_entropy"))
    rows: list[tuple[str, ...]] = [("", *forms.values())]
    for name in names:
        columns = {form: column(name, form) for form in forms} | ({"real": of_real[name]} if name in of_real else {})
        rows.append((name, *map(shown, columns.values())))
    kept = [cells for cells in zip(*rows, strict=True) if any(cells[1:])]
    padded = [[cell.ljust(max(map(len, cells))) for cell in cells] for cells in kept]
    return "\n".join("  ".join(line).rstrip() for line in zip(*padded, strict=True))


def report(evaluation: Figures, *remarks: str, first: str = "") -> str:
    """What a run ends with: the table of an evaluation, a line that comes `first`, and one of remarks."""
    units = "NLL and entropy in nats per token, ± one standard error"
    units += ", kl_to_pretrained in nats per sequence" * ("kl_to_pretrained" in evaluation)
    return "\n".join([table(evaluation), *([first] if first else []), "; ".join([units, *remarks])])
