"""Generators at their best temperatures: python -m experiments.tempered FILE.csv... -o FILE.csv.

The files are of tools/temperatures.py --csv or of experiments.kneser_ney. Of the first kind a run needs temperatures
0.05 apart around its least NLL_valid, and 1. The best one is the vertex of the parabola through the three NLLs there.
NLL_test is that of a parabola, too; BLEU and self-BLEU are those of the middle temperature. Columns in `_1` are of
temperature 1.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import support.quiet  # noqa: F401 - before TensorFlow

import pandas as pd

from runs.directories import spare, write_whole
from support.errors import UsageError
from support.parser import Parser, new_file
from support.streams import run_tool
from tools.report import REAL

STEP = 0.05  # between temperatures
NLLS, BLEUS = ["nll_valid", "nll_test"], ["bleu4", "self_bleu4"]
TEMPERED = "tempered_"  # before the names of students that experiments.kneser_ney has measured at their best


def of_points(points: pd.DataFrame) -> Iterator[dict[str, object]]:
    """A row for each run, such as "mle/1" or "guided/1 guided". Raises UsageError: a temperature is not there."""
    if not {"run", "temperature", *NLLS, *BLEUS} <= {*points.columns}:
        raise UsageError(f"not a file with run, temperature, {', '.join([*NLLS, *BLEUS])}")
    if points.run.isna().any():
        raise UsageError("a row without a run")
    for run, rows in points[points.run != REAL].groupby("run", sort=False):
        method, _, seed = str(run).removesuffix(" guided").replace(" ", "_").partition("/")
        if not seed.isdecimal():
            raise UsageError(f"{run}: not METHOD/SEED")
        steps = rows.set_index((rows.temperature / STEP).round(6))
        middle = steps.nll_valid[steps.index % 1 == 0].idxmin()
        if absent := [step * STEP for step in (middle - 1, middle + 1, 1 / STEP) if step not in steps.index]:
            raise UsageError(f"{run}: lacks temperature {absent[0]:g}")
        three, ones = steps.loc[[middle - 1, middle, middle + 1]], steps.loc[1 / STEP, NLLS].add_suffix("_1")
        low, mid, high = three[NLLS].to_numpy()
        slope, bend = (high - low) / 2, (high + low) / 2 - mid  # of the parabola through them, in steps from the middle
        if not bend[0] > 0:
            raise UsageError(f"{run}: no least nll_valid around temperature {middle * STEP:g}")
        best = -slope[0] / (2 * bend[0])
        found = dict(zip(NLLS, mid + best * (slope + best * bend), strict=True))
        row = {"method": method, "seed": int(seed), "temperature": (middle + best) * STEP}
        yield row | found | three[BLEUS].loc[middle].to_dict() | dict(ones)


def of_students(measured: pd.DataFrame) -> pd.DataFrame:
    """The rows of students in a file of experiments.kneser_ney."""
    tempered = measured[measured.method.str.contains(TEMPERED)]
    tempered = tempered.assign(method=tempered.method.str.replace(TEMPERED, ""))
    return tempered.merge(measured, on=["method", "seed"], suffixes=("", "_1"))


def read(file: Path) -> pd.DataFrame:
    """The rows of a file of either kind. Raises UsageError, which names the file: it can't be used; OSError."""
    try:
        table = pd.read_csv(file)
        return of_students(table) if {"method", "weight"} <= {*table} else pd.DataFrame(of_points(table))
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from None
    except (ValueError, TypeError) as error:  # pandas' own are ValueErrors
        raise UsageError(f"{file}: {' '.join(str(error).split())}") from None


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns 0, or 2 where a file can't be used."""
    parser = Parser(prog="tempered", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.csv")
    parser.add_argument("-o", type=new_file, required=True, metavar="FILE.csv")
    asked = parser.parse_args(argv)
    columns = ["method", "seed", "temperature", *NLLS, *BLEUS, *(f"{name}_1" for name in NLLS)]
    with parser.failing_in_one_line(asked.o):
        spare(asked.o)
        if asked.o.resolve() in [file.resolve() for file in asked.files]:
            raise UsageError(f"-o {asked.o}: is read")
        rows = pd.concat(map(read, asked.files)).reindex(columns=columns)
        if (twice := rows.duplicated(["method", "seed"])).any():
            raise UsageError("two rows of {method}/{seed}".format(**rows[twice].iloc[0]))
        write_whole(asked.o, rows.to_csv(index=False, float_format="%.6f"))
    return 0


if __name__ == "__main__":
    run_tool(main)
