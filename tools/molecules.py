"""Measures molecules as MOSES does: python tools/molecules.py METHOD/SEED.txt... --train FILE [-o FILE.csv]."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import pandas as pd

from runs.directories import write_whole
from support.parser import Parser, new_file

if TYPE_CHECKING:
    from rdkit.Chem import Mol

BITS, RADIUS = 1024, 2  # of Morgan fingerprints, as in MOSES
ROWS = 1000  # of similarities at a time


def diversity(fingerprints: np.ndarray) -> float:
    """Internal diversity: 1 less the mean Tanimoto similarity of all pairs, a molecule and itself included.

    Fingerprints are 0 or 1, float32 [n, BITS].
    """
    counts, total = fingerprints.sum(axis=1), 0.0
    for i in range(0, len(fingerprints), ROWS):
        common = fingerprints[i : i + ROWS] @ fingerprints.T
        total += (common / np.maximum(counts[i : i + ROWS, None] + counts - common, 1)).sum(dtype=np.float64)
    return 1 - total / len(fingerprints) ** 2


def measure(strings: Sequence[str], train: Iterable[str]) -> dict[str, float]:
    """Figures of SMILES strings (Polykovskiy et al., arXiv:1811.12823), beside them mean QED of what is valid.

    `strings`: samples. `train`: the training set; read once. A sample is novel if it is not among it, neither as it is
    nor in RDKit's canonical form. Returns `valid`, the share of strings that are molecules; of these the share of
    different ones, `unique`, and of the different ones the share of `novel`; `diversity` and `qed`; the last four are
    NaN where nothing is valid.
    """
    from rdkit.Chem import MolToSmiles
    from rdkit.Chem.QED import qed
    from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator

    from objectives.molecules import molecule

    found: list[tuple[str, Mol]] = [(s, m) for s in strings if (m := molecule(s)) is not None]
    if not found:
        return {"valid": 0.0, **dict.fromkeys(("unique", "novel", "diversity", "qed"), float("nan"))}
    forms: dict[str, set[str]] = {}
    for string, mol in found:
        forms.setdefault(canonical := MolToSmiles(mol), {canonical}).add(string)
    sought = {form for same in forms.values() for form in same}
    known = sought & {line for line in map(str.strip, train) if line in sought}
    made = GetMorganGenerator(radius=RADIUS, fpSize=BITS).GetFingerprintAsNumPy
    return {
        "valid": len(found) / len(strings),
        "unique": len(forms) / len(found),
        "novel": sum(not same & known for same in forms.values()) / len(forms),
        "diversity": diversity(np.array([made(mol) for _, mol in found], np.float32)),
        "qed": float(np.mean([qed(mol) for _, mol in found])),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns the exit status, 2 with one line on stderr where something can't be used."""
    parser = Parser(prog="molecules.py", description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("samples", nargs="+", type=Path, metavar="METHOD/SEED.txt", help="SMILES, one a line, as sample.py -o")
    add("--train", type=Path, required=True, metavar="FILE", help="the training set, one a line")
    text = "CSV, as a report's `measured` names it (default: stdout)"
    add("-o", "--output", type=new_file, metavar="FILE", help=text)
    arguments = parser.parse_args(argv)
    rows = []
    try:
        for path in arguments.samples:
            strings = path.read_text(encoding="utf-8").splitlines()
            if not strings:
                parser.error(f"{path}: empty")
            with open(arguments.train, encoding="utf-8") as train:
                figures = measure(strings, train)
            rows.append({"run": path.with_suffix("").as_posix(), "temperature": 1, **figures})
        table = pd.DataFrame(rows).to_csv(index=False, float_format="%.4f", lineterminator="\n")
        if arguments.output:
            write_whole(arguments.output, table)
        else:
            print(table, end="")
    except ImportError as error:
        parser.error(f"RDKit is needed: pip install rdkit ({error})")
    except OSError as error:
        parser.error(f"{error.filename}: {error.strerror}")
    except UnicodeDecodeError:
        parser.error(f"{path} or {arguments.train}: not UTF-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
