"""data/prepare_molecules.py on a wheel made by hand; the real result is known by its checksum."""

import gzip
import hashlib
import sys
import zipfile
from pathlib import Path

import pytest

from data import prepare_molecules as program

SMILES = b"CCCS(=O)c1ccc2[nH]c(=NC(=O)OC)[nH]c2c1\nCn1cnc2c1c(=O)n(CC(O)CO)c(=O)n2C\n"


def wheel(path: Path, smiles: bytes = SMILES, member: str = "moses/dataset/data/train.csv.gz") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("moses/__init__.py", "raise SystemExit('imported')")
        archive.writestr(member, gzip.compress(b"SMILES\n" + smiles))
    return path


@pytest.fixture
def known(monkeypatch, tmp_path) -> Path:
    """A small wheel whose molecules the program expects."""
    monkeypatch.setattr(program, "MOLECULES_SHA256", hashlib.sha256(SMILES).hexdigest())
    return wheel(tmp_path / "m.whl")


def pip(folder: Path, script: str, monkeypatch) -> None:
    """Puts a program in the place of Python, whose -m pip is asked for."""
    (folder / "python").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))


def test_a_given_wheel(known, tmp_path, capsys):
    output = tmp_path / "new" / "molecules.txt"
    assert program.main(["--wheel", str(known), "-o", str(output)]) == 0
    assert output.read_bytes() == SMILES
    assert capsys.readouterr().out == f"{output}: 2 molecules\n"
    known.unlink()
    assert program.main(["-o", str(output)]) == 0  # they are there already
    assert capsys.readouterr().out == f"{output}: 2 molecules\n"


def test_pip_fetches_the_pinned_version(known, tmp_path, monkeypatch):
    pip(tmp_path, f'echo "$@" > {tmp_path}/asked; cp {known} "${{11}}/x.whl"', monkeypatch)
    assert program.main(["-o", str(tmp_path / "molecules.txt")]) == 0
    asked = (tmp_path / "asked").read_text().split()
    assert asked[:2] == ["-m", "pip"] and {"download", "--no-deps"} < set(asked) and "molsets==0.3.1" in asked
    assert (tmp_path / "molecules.txt").read_bytes() == SMILES


def test_what_cannot_be_prepared(known, tmp_path, monkeypatch, capsys):
    output = tmp_path / "molecules.txt"

    def fails(why: str, *flags: str) -> None:
        assert program.main([*flags, "-o", str(output)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("prepare_molecules: error: ") and error.count("\n") == 1 and why in error, error

    fails("absent.whl", "--wheel", str(tmp_path / "absent.whl"))
    (tmp_path / "text.whl").write_text("no zip")
    fails("text.whl: not a wheel of molsets==0.3.1", "--wheel", str(tmp_path / "text.whl"))
    other = wheel(tmp_path / "other.whl", member="other/train.csv.gz")
    fails("other.whl: not a wheel of molsets==0.3.1", "--wheel", str(other))
    changed = wheel(tmp_path / "changed.whl", SMILES[:-3])
    fails("changed.whl: its molecules are not those of molsets==0.3.1", "--wheel", str(changed))
    damaged = tmp_path / "damaged.whl"
    with zipfile.ZipFile(damaged, "w") as archive:
        archive.writestr(program.MEMBER, gzip.compress(SMILES)[:-9])
    fails("damaged.whl: not a wheel of", "--wheel", str(damaged))
    pip(tmp_path, "echo 'WARNING: Retrying: no network' >&2; echo 'ERROR: none' >&2; exit 1", monkeypatch)
    fails("pip could not fetch molsets==0.3.1 (WARNING: Retrying: no network); run `pip download")
    pip(tmp_path, ":", monkeypatch)
    fails("pip wrote no file; run `pip download")
    assert not output.exists()
    output.write_text("mine")
    fails("molecules.txt: is there, and holds something else", "--wheel", str(known))
    assert output.read_text() == "mine"
