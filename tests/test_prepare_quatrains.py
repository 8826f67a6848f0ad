"""data/prepare_quatrains.py on a package made by hand; the real result is known by its checksum."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from conftest import ROOT

from data import prepare_quatrains as program
from data.text import TextData
from support.parser import parse

SPRING = ["春眠不覺曉，處處聞啼鳥。", "夜來風雨聲，花落知多少？"]
SNOW = ["千山鳥飛絕，萬徑人蹤滅。", "孤舟蓑笠翁，獨釣寒江雪。"]
LINES = ["".join(poem).translate(dict.fromkeys(map(ord, "，。？"))) for poem in (SPRING, SNOW)]


def package(path: Path, members: dict[str, object]) -> Path:
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
    tgz = package(
        tmp_path / "p.tgz",
        {
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
        },
    )
    assert program.quatrains(tgz) == LINES


def test_rare_characters_are_characters(tmp_path):
    verses = ["㐀㐁㐂㐃㐄，𠀀𠀁𠀂𠀃𠀄；", "𰀀一二三四！五六七八九、"]
    tgz = package(tmp_path / "p.tgz", {"quantangshi/poet.tang.0.json": poems(verses)})
    assert [len(line) for line in program.quatrains(tgz)] == [20]


@pytest.fixture
def known(monkeypatch, tmp_path) -> Path:
    """A small package whose checksums the program expects."""
    tgz = package(tmp_path / "p.tgz", {"quantangshi/poet.tang.0.json": poems(SPRING, SNOW)})
    monkeypatch.setattr(program, "PACKAGE_SHA512", hashlib.sha512(tgz.read_bytes()).hexdigest())
    text = "".join(f"{line}\n" for line in LINES)
    monkeypatch.setattr(program, "QUATRAINS_SHA256", hashlib.sha256(text.encode()).hexdigest())
    return tgz


def test_a_given_package(known, tmp_path, capsys):
    output = tmp_path / "new" / "poems.txt"
    assert program.main(["--tgz", str(known), "-o", str(output)]) == 0
    assert output.read_text(encoding="utf-8").split("\n") == [*LINES, ""]
    assert capsys.readouterr().out == f"{output}: 2 quatrains\n"
    known.unlink()
    assert program.main(["-o", str(output)]) == 0  # it is there already
    output.write_text("damaged")
    assert program.main(["--tgz", str(known), "-o", str(output)]) == 2
    assert "poems.txt: is there, and holds something else" in capsys.readouterr().err
    assert output.read_text() == "damaged"
    output.unlink()
    assert program.main(["--tgz", str(known), "-o", str(output)]) == 2
    assert "No such file" in capsys.readouterr().err


def npm(folder: Path, script: str, monkeypatch) -> None:
    """Puts a program called npm where it is looked for."""
    (folder / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_npm_fetches_the_pinned_version(known, tmp_path, monkeypatch, capsys):
    npm(tmp_path, f'echo "$@" > {tmp_path}/asked; cp {known} "$6/x.tgz"', monkeypatch)
    assert program.main(["-o", str(tmp_path / "poems.txt")]) == 0
    assert (tmp_path / "asked").read_text().startswith("pack chinese-poetry@2.0.1 ")
    assert (tmp_path / "poems.txt").read_text(encoding="utf-8").split("\n") == [*LINES, ""]


def test_what_cannot_be_prepared(known, tmp_path, monkeypatch, capsys):
    def fails(why: str, *flags: str) -> None:
        assert program.main([*flags, "-o", str(tmp_path / "poems.txt")]) == 2
        error = capsys.readouterr().err
        assert error.startswith("prepare_quatrains: error: ") and error.count("\n") == 1 and why in error, error
        assert not (tmp_path / "poems.txt").exists()

    other = package(tmp_path / "other.tgz", {"quantangshi/poet.tang.0.json": poems(SPRING)})
    fails("other.tgz: not the package chinese-poetry@2.0.1 (its SHA-512 is another)", "--tgz", str(other))
    fails("absent.tgz", "--tgz", str(tmp_path / "absent.tgz"))
    npm(tmp_path, "echo 'npm error code ENOTFOUND' >&2; exit 1", monkeypatch)
    fails("npm could not fetch chinese-poetry@2.0.1 (npm error code ENOTFOUND); run `npm pack")
    npm(tmp_path, ":", monkeypatch)
    fails("npm wrote no file; run `npm pack")
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    fails("npm is not installed; install Node.js, or run `npm pack chinese-poetry@2.0.1` elsewhere")
    monkeypatch.setattr(program, "QUATRAINS_SHA256", "0")
    fails("its quatrains are not those of chinese-poetry@2.0.1", "--tgz", str(known))


def test_the_real_quatrains(shared_data, capsys):
    """The file that is known to be right has the checksum that the program asks for, and it trains."""
    path = shared_data("quatrains.txt")
    assert program.main(["-o", str(path)]) == 0
    assert "16,842 quatrains" in capsys.readouterr().out
    data = TextData(parse(["--dataset", "text", "--data_dir", str(path), "--vocab_size", "10000"]))
    assert sum(len(lines) for lines in data.lines.values()) == 16_842
    assert data.source.long == data.source.empty == 0
    batch = data.mle_batches(0).numpy()
    assert batch.shape == (1, 32, 20) and batch.max() < data.vocabulary.end  # no line needs an end


def test_the_script_from_poems_to_samples(shared_data, tmp_path):
    """In a copy of the tree, from another directory, with data that is there already, and without npm."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for folder in ("data", "runs", "support", "tools"):
        shutil.copytree(
            ROOT / folder,
            tree / folder,
            ignore=lambda _, names: {n for n in names if not n.endswith((".py", ".sh")) and n != "music"},
        )
    for path in [*ROOT.glob("*.py"), ROOT / "train_poems.sh"]:
        shutil.copy(path, tree)
    shutil.copy(shared_data("quatrains.txt"), tree / "data")
    few = "--pretrain_g_epochs 2 --total_epochs 1 --g_hidden_dim 8 --batch_size 4 --d_draws 64 --d_batch_size 16"
    few += " --d_eval_samples 0 --g_emb_dim 8 --eval_samples 16 --guide_eta 1 --no-jit"
    environment = {**os.environ, "PYTHON": sys.executable}
    command = ["bash", "tree/train_poems.sh", *few.split()]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "16,842 quatrains" in done.stdout and "bleu2" in done.stdout
    command = [sys.executable, "tree/tools/sample.py", "tree/logs/train/poems", "-n", "3", "--prefix", "春風"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=True)
    lines = done.stdout.split()
    assert len(lines) == 3 and all(line.startswith("春風") and len(line) <= 20 for line in lines)
