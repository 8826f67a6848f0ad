"""data/fetch_nottingham.py: where the tunes come from, interruptions, bad zips. No network but the loopback."""

import hashlib
import io
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import tracemalloc
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import pytest
from conftest import ROOT, cases, refusal

from data.fetch_nottingham import SHA256, URLS, count_tunes, main

COUNTS = {"train": 3, "valid": 2, "test": 1}
NOWHERE = ("http://127.0.0.1:9/Nottingham.zip",)


def zip_bytes(extra=(), counts=COUNTS, content=b"MThd") -> bytes:
    """A zip laid out as the real one; `extra` are (name or ZipInfo, content) pairs."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for split, count in counts.items():
            for number in range(count):
                archive.writestr(f"Nottingham/{split}/tune_{number}.mid", content)
        for name, data in extra:
            archive.writestr(name, data)
    return file.getvalue()


GOOD = zip_bytes()
HONEST = zip_bytes([("Nottingham/train/zeros.mid", bytes(60 << 20))])
NAMES = sorted(f"{split}/tune_{number}.mid" for split, count in COUNTS.items() for number in range(count))
EXPECTED = hashlib.sha256(b"".join(f"{name} 4\nMThd".encode() for name in NAMES)).hexdigest()  # of the tunes of GOOD


@pytest.fixture
def dest(tmp_path, monkeypatch) -> Path:
    monkeypatch.delenv("NOTTINGHAM_ZIP", raising=False)
    (tmp_path / "data").mkdir()
    return tmp_path / "data" / "Nottingham"


@pytest.fixture
def named_zip(tmp_path, monkeypatch):
    """A function that makes a zip of these bytes the one NOTTINGHAM_ZIP names."""

    def name(content: bytes) -> None:
        (tmp_path / "named.zip").write_bytes(content)
        monkeypatch.setenv("NOTTINGHAM_ZIP", str(tmp_path / "named.zip"))

    return name


@pytest.fixture
def served(tmp_path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """A folder, and the addresses of its files a.zip to f.zip, where they are there."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    (tmp_path / "served").mkdir()
    with HTTPServer(("127.0.0.1", 0), partial(Handler, directory=tmp_path / "served")) as httpd:
        urls = tuple(f"http://127.0.0.1:{httpd.server_port}/{name}.zip" for name in "abcdef")
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        yield tmp_path / "served", urls
        httpd.shutdown()
        thread.join()


def run(dest: Path, urls=NOWHERE) -> int:
    return main(["--dest", str(dest)], urls, EXPECTED)


def failure(dest: Path, capsys, urls=NOWHERE) -> str:
    """The one line that a run which must fail prints; nothing may be left in the way of the next run."""
    kept = dest.with_name("Nottingham.zip")
    there, err = kept.exists(), refusal(capsys, main, ["--dest", str(dest)], urls, EXPECTED)
    assert list(dest.parent.iterdir()) == [kept] * there
    return err


def test_a_folder_that_is_there_is_used_as_it_is(dest, capsys, monkeypatch):
    for split, count in COUNTS.items():
        (dest / split).mkdir(parents=True)
        for number in range(count):
            (dest / split / f"{number}.MIDI").write_bytes(b"mine")
    monkeypatch.setenv("NOTTINGHAM_ZIP", "/nowhere.zip")
    assert run(dest) == 0 and capsys.readouterr().out == f"{dest}: 3 train, 2 valid, 1 test MIDI files\n"
    assert (dest / "train" / "0.MIDI").read_bytes() == b"mine"


@pytest.mark.parametrize("prepare", [lambda dest: dest.parent.rmdir(), Path.mkdir, lambda dest: dest.symlink_to("new")])
def test_the_default_folder_may_be_missing_empty_or_a_link_to_nothing(here, dest, named_zip, prepare):
    named_zip(GOOD)
    prepare(dest)
    assert main([]) == 0 and count_tunes(Path("data/Nottingham")) == COUNTS


def test_the_named_zip_is_unpacked_whatever_its_tunes(dest, named_zip):
    junk = [("Nottingham/README", b"x"), ("__MACOSX/Nottingham/train/._a.mid", b"x"), ("Nottingham/train/.a.mid", b"x")]
    named_zip(zip_bytes([*junk, ("Nottingham/train/", b""), ("Nottingham/extra/a.mid", b"x")], content=b"MThd tune"))
    dest.with_name("Nottingham.zip").write_bytes(b"not a zip")
    assert run(dest) == 0 and sorted(path.name for path in dest.iterdir()) == ["test", "train", "valid"]
    assert sorted(path.name for path in (dest / "train").iterdir()) == ["tune_0.mid", "tune_1.mid", "tune_2.mid"]
    assert (dest / "test" / "tune_0.mid").read_bytes() == b"MThd tune"
    assert sorted(path.name for path in dest.parent.iterdir()) == ["Nottingham", "Nottingham.zip"]
    assert stat.S_IMODE(dest.stat().st_mode) == stat.S_IMODE(dest.parent.stat().st_mode) and run(dest) == 0


def test_a_named_zip_that_is_missing_is_an_error_not_a_download(dest, served, monkeypatch, capsys, tmp_path):
    folder, urls = served
    (folder / "a.zip").write_bytes(GOOD)
    for path in (tmp_path / "gone.zip", tmp_path):
        monkeypatch.setenv("NOTTINGHAM_ZIP", str(path))
        assert f"NOTTINGHAM_ZIP: {path}: cannot be unpacked: " in failure(dest, capsys, urls)


def test_a_zip_beside_the_folder_is_used_if_it_is_the_set(dest, capsys):
    kept = dest.with_name("Nottingham.zip")
    for other in (zip_bytes(content=b"MThd tune"), zip_bytes(counts=COUNTS | {"test": 2}), b"<html>"):
        kept.write_bytes(other)
        line = failure(dest, capsys)
        assert f"error: {kept}: " in line and "or set NOTTINGHAM_ZIP to a zip of tunes\n" in line
        assert kept.read_bytes() == other
    kept.write_bytes(zip_bytes([("Nottingham/README", b"another packing")]))
    assert run(dest) == 0 and count_tunes(dest) == COUNTS and kept.exists()


def test_a_folder_with_something_else_in_it_is_left_alone(dest, named_zip, capsys):
    named_zip(GOOD)
    (dest / "train").mkdir(parents=True)
    (dest / "train" / "my.mid").write_bytes(b"mine")
    assert f"{dest}: is there but" in refusal(capsys, run, dest, alone=False)
    assert (dest / "train" / "my.mid").read_bytes() == b"mine"


def test_a_run_that_finishes_second_accepts_the_first(dest, named_zip, monkeypatch):
    named_zip(GOOD)
    plain = os.rename

    def overtaken(source, target):
        if not dest.exists():
            for split in COUNTS:
                (dest / split).mkdir(parents=True)
                (dest / split / "first.mid").write_bytes(b"first")
        plain(source, target)

    monkeypatch.setattr(os, "rename", overtaken)
    assert run(dest) == 0 and count_tunes(dest) == dict.fromkeys(COUNTS, 1) and list(dest.parent.iterdir()) == [dest]


def test_addresses_are_tried_in_turn_until_one_has_the_set(dest, served, capsys):
    """Where none has it, a line says why and what to do by hand. Nothing is downloaded unencrypted."""
    assert len(URLS) > 1 and all(url.startswith("https://") for url in URLS)
    folder, urls = served
    pages = {"b": b"<html>", "c": GOOD[: len(GOOD) // 2], "d": zip_bytes(counts={"train": 1, "valid": 1})}
    for name, content in (pages | {"e": zip_bytes(content=b"other")}).items():
        (folder / f"{name}.zip").write_bytes(content)
    line = failure(dest, capsys, urls)
    by_hand = f"download {urls[-1]} by hand and put it at {dest}.zip, or set NOTTINGHAM_ZIP to a zip"
    assert "the Nottingham set could not be downloaded: 404" in line and by_hand in line
    assert "; has no MIDI files in test; holds other tunes than the Nottingham set (their SHA-256 is another); " in line
    (folder / "f.zip").write_bytes(GOOD)
    assert run(dest, urls) == 0 and count_tunes(dest) == COUNTS
    assert (dest / "train" / "tune_0.mid").read_bytes() == b"MThd"
    assert dest.with_name("Nottingham.zip").read_bytes() == GOOD
    assert sorted(path.name for path in dest.parent.iterdir()) == ["Nottingham", "Nottingham.zip"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("moment", "call"), [("zipfile.ZipFile.open", 2), ("os.replace", 1), ("os.rename", 1)])
def test_a_run_that_is_killed_is_completed_by_the_next(dest, served, moment, call):
    folder, urls = served
    (folder / "a.zip").write_bytes(GOOD)
    script = f"""
import itertools, os, signal, sys, zipfile
from data import fetch_nottingham
count, plain = itertools.count(1), {moment}
def killed(*args):
    if next(count) == {call}:
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(*args)
{moment} = killed
sys.exit(fetch_nottingham.main(["--dest", {str(dest)!r}], {urls!r}, {EXPECTED!r}))
"""
    killed = subprocess.run([sys.executable, "-c", script], cwd=ROOT, timeout=60)
    assert killed.returncode == -signal.SIGKILL and not dest.exists()
    assert run(dest, urls) == 0 and count_tunes(dest) == COUNTS


def test_no_entry_leaves_the_folder(dest, named_zip, tmp_path):
    names = ["/etc/train/a.mid", "../train/b.mid", "Nottingham/train/../../../c.mid", "Nottingham\\train\\d.mid"]
    links = [zipfile.ZipInfo(f"Nottingham/train{name}") for name in ("/link.mid", "")]
    for entry in links:
        entry.create_system, entry.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    names += ["C:/train/e.mid", "..", *links]
    before = set(tmp_path.iterdir())
    named_zip(zip_bytes([(name, b"/etc/passwd") for name in names]))
    assert run(dest) == 0
    assert set(tmp_path.iterdir()) - before == {tmp_path / "named.zip"} and list(dest.parent.iterdir()) == [dest]
    assert all(path.is_file() and not path.is_symlink() for path in dest.glob("*/*"))


@cases(
    "content, why",
    (zip_bytes([("Elsewhere/train/tune_0.mid", b"x")]), "File exists"),
    *((zip_bytes(counts=COUNTS | {split: 0}), f"has no MIDI files in {split}") for split in COUNTS),
    (zip_bytes([("Nottingham/train/zeros.mid", bytes(65 << 20))]), "more than 67108864 bytes in it"),
    (HONEST.replace((60 << 20).to_bytes(4, "little"), (4).to_bytes(4, "little")), "cannot be unpacked"),
    ids=["twice", *COUNTS, "bomb", "bomb that declares 4 bytes"],
)
def test_what_is_not_such_a_zip_is_refused(dest, named_zip, capsys, content, why):
    """Whatever an entry declares, little memory is needed."""
    named_zip(content)
    tracemalloc.start()
    try:
        assert why in failure(dest, capsys) and tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


def test_damaged_zips_end_in_one_line(dest, named_zip, capsys):
    whole, refused = zip_bytes(content=bytes(range(200))), 0
    for place in range(0, len(whole), 17):  # another byte there, or none
        named_zip(whole[:place] + bytes([whole[place] ^ 0xFF]) * (place % 2) + whole[place + 1 :])
        try:
            assert run(dest) == 0 and all(count_tunes(dest).values())  # the damage hit nothing that matters
            shutil.rmtree(dest)
        except SystemExit:
            err = capsys.readouterr().err
            assert err.count("\n") == 1 and "NOTTINGHAM_ZIP: " in err and not any(dest.parent.iterdir())
            refused += 1
    assert refused > 50, refused


def test_the_real_zip_has_the_set(dest, shared_data):
    dest.with_name("Nottingham.zip").symlink_to(shared_data("Nottingham.zip"))
    assert main(["--dest", str(dest)], NOWHERE, SHA256) == 0
    assert count_tunes(dest) == {"train": 694, "valid": 173, "test": 170}
