"""Objectives for molecules written as SMILES strings. They need `pip install rdkit`."""

from rdkit import Chem, rdBase
from rdkit.Chem import QED

LONGEST = 2000  # characters
rdBase.DisableLog("rdApp.*")  # it tells of each string that is no molecule


def valid(strings: list[str]) -> list[float]:
    """1 for a string that is a molecule, 0 for any other."""
    return [float(molecule(string) is not None) for string in strings]


def qed(strings: list[str]) -> list[float]:
    """How much like a drug a molecule is, from 0 to 1 (Bickerton et al., 2012); 0 for what is no molecule."""
    return [0.0 if (found := molecule(string)) is None else QED.qed(found) for string in strings]


def molecule(string: str) -> Chem.Mol | None:
    """The molecule that a string means; None where it means none, as an empty one."""
    # RDKit would take what follows a blank for the name of the molecule, and ends the process at some 20,000 atoms.
    return Chem.MolFromSmiles(string) if 0 < len(string) <= LONGEST and not any(map(str.isspace, string)) else None
