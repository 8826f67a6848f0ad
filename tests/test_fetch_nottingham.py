"""data/fetch_nottingham.py: where the tunes come from, interruptions, bad zips. No network but the loopback."""

import io
import os
import random
import signal
import stat
import subprocess
import sys
import threading
import tracemalloc
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from data import fetch_nottingham
from data.fetch_nottingham import count_tunes, main

ROOT = Path(__file__).resolve().parents[1]
COUNTS = {"train": 3, "valid": 2, "test": 1}


def zip_bytes(extra=(), counts=COUNTS, content=b"MThd", method=zipfile.ZIP_DEFLATED) -> bytes:
    """A zip laid out as the real one; `extra` are (name or ZipInfo, content) pairs."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for split, count in counts.items():
            for number in range(count):
                archive.writestr(f"Nottingham/{split}/tune_{number}.mid", content)
        for name, data in extra:
            archive.writestr(name, data)
    return file.getvalue()


@pytest.fixture
def dest(tmp_path, monkeypatch) -> Path:
    """A place for the tunes, with no zip named and no address to download from."""
    monkeypatch.delenv("NOTTINGHAM_ZIP", raising=False)
    monkeypatch.setattr(fetch_nottingham, "URLS", ("http://127.0.0.1:9/Nottingham.zip",))
    return tmp_path / "data" / "Nottingham"


@pytest.fixture
def named_zip(tmp_path, monkeypatch):
    """A function that makes a zip of these bytes the one NOTTINGHAM_ZIP names."""

    def name(content: bytes) -> Path:
        path = tmp_path / "named.zip"
        path.write_bytes(content)
        monkeypatch.setenv("NOTTINGHAM_ZIP", str(path))
        return path

    return name


@pytest.fixture
def server():
    """A loopback server: `server.pages` maps a path to the bytes served, `server.asked` records the paths asked for."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked.append(self.path)
            body = self.server.pages.get(self.path)
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"") + self.server.missing))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.pages, httpd.asked, httpd.missing = {}, [], 0
        httpd.url = f"http://127.0.0.1:{httpd.server_port}"
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        yield httpd
        httpd.shutdown()
        thread.join()


def run(dest: Path) -> int:
    return main(["--dest", str(dest)])


def failure(dest: Path, capsys) -> str:
    """The one line that a run which must fail prints; nothing may be left in the way of the next run."""
    assert run(dest) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.endswith("\n") and err.count("\n") == 1
    assert not dest.exists() and temporary(dest) == []
    return err


def temporary(dest: Path) -> list[str]:
    return [path.name for path in dest.parent.glob(".*")]


def test_a_folder_that_is_there_is_used_as_it_is(dest, capsys, monkeypatch):
    for split, count in COUNTS.items():
        (dest / split).mkdir(parents=True)
        for number in range(count):
            (dest / split / f"{number}.MIDI").write_bytes(b"mine")
    monkeypatch.setenv("NOTTINGHAM_ZIP", "/nowhere.zip")
    assert run(dest) == 0
    assert capsys.readouterr().out == f"{dest}: 3 train, 2 valid, 1 test MIDI files\n"
    assert (dest / "train" / "0.MIDI").read_bytes() == b"mine"


def test_the_default_folder_is_data_nottingham(dest, named_zip, monkeypatch, tmp_path):
    named_zip(zip_bytes())
    monkeypatch.chdir(tmp_path)
    assert main([]) == 0
    assert count_tunes(Path("data/Nottingham")) == COUNTS


def test_the_working_directory_may_be_the_folder(dest, named_zip, monkeypatch):
    named_zip(zip_bytes())
    dest.mkdir(parents=True)
    monkeypatch.chdir(dest)
    assert run(Path(".")) == 0 and count_tunes(dest) == COUNTS


def test_the_named_zip_is_unpacked_and_nothing_else_is_written(dest, named_zip):
    junk = [("Nottingham/README", b"x"), ("__MACOSX/Nottingham/train/._a.mid", b"x"), ("Nottingham/train/.a.mid", b"x")]
    named_zip(zip_bytes([*junk, ("Nottingham/train/", b""), ("Nottingham/extra/a.mid", b"x")], content=b"MThd tune"))
    assert run(dest) == 0
    assert count_tunes(dest) == COUNTS
    assert sorted(path.name for path in dest.iterdir()) == ["test", "train", "valid"]
    assert sorted(path.name for path in (dest / "train").iterdir()) == ["tune_0.mid", "tune_1.mid", "tune_2.mid"]
    assert (dest / "test" / "tune_0.mid").read_bytes() == b"MThd tune"
    assert [path.name for path in dest.parent.iterdir()] == ["Nottingham"]
    assert run(dest) == 0


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX file modes")
def test_others_may_read_the_folder(dest, named_zip):
    named_zip(zip_bytes())
    assert run(dest) == 0
    assert stat.S_IMODE(dest.stat().st_mode) == 0o755


def test_a_zip_beside_the_folder_is_used(dest, capsys):
    dest.parent.mkdir()
    dest.with_name("Nottingham.zip").write_bytes(zip_bytes())
    assert run(dest) == 0 and count_tunes(dest) == COUNTS
    assert dest.with_name("Nottingham.zip").exists()


def test_the_named_zip_goes_before_the_one_beside(dest, named_zip):
    dest.parent.mkdir()
    dest.with_name("Nottingham.zip").write_bytes(b"not a zip")
    named_zip(zip_bytes())
    assert run(dest) == 0


def test_a_named_zip_that_is_missing_is_an_error_not_a_download(dest, server, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(fetch_nottingham, "URLS", (server.url + "/Nottingham.zip",))
    monkeypatch.setenv("NOTTINGHAM_ZIP", str(tmp_path / "gone.zip"))
    assert "NOTTINGHAM_ZIP: " + str(tmp_path / "gone.zip") in failure(dest, capsys)
    monkeypatch.setenv("NOTTINGHAM_ZIP", str(tmp_path))
    assert f"NOTTINGHAM_ZIP: {tmp_path}: Is a directory" in failure(dest, capsys)
    assert server.asked == []


def test_a_folder_with_something_else_in_it_is_left_alone(dest, named_zip, capsys):
    named_zip(zip_bytes())
    (dest / "train").mkdir(parents=True)
    (dest / "train" / "my.mid").write_bytes(b"mine")
    assert run(dest) == 2
    assert f"{dest}: is there but" in capsys.readouterr().err
    assert (dest / "train" / "my.mid").read_bytes() == b"mine"


def test_an_empty_folder_is_filled(dest, named_zip):
    named_zip(zip_bytes())
    dest.mkdir(parents=True)
    assert run(dest) == 0 and count_tunes(dest) == COUNTS


# --- the download


def test_addresses_are_tried_in_turn_until_one_has_a_good_zip(dest, server, monkeypatch):
    urls = tuple(f"{server.url}/{name}" for name in ("gone.zip", "page.zip", "half.zip", "good.zip", "late.zip"))
    monkeypatch.setattr(fetch_nottingham, "URLS", urls)
    good = zip_bytes()
    server.pages = {"/page.zip": b"<html>", "/half.zip": good[: len(good) // 2], "/good.zip": good, "/late.zip": good}
    assert run(dest) == 0 and count_tunes(dest) == COUNTS
    assert server.asked == ["/gone.zip", "/page.zip", "/half.zip", "/good.zip"]
    assert dest.with_name("Nottingham.zip").read_bytes() == good
    assert sorted(path.name for path in dest.parent.iterdir()) == ["Nottingham", "Nottingham.zip"]


def test_a_failed_download_says_what_to_do_by_hand(dest, server, monkeypatch, capsys):
    monkeypatch.setattr(fetch_nottingham, "URLS", (server.url + "/a.zip", server.url + "/b.zip"))
    server.pages = {"/b.zip": zip_bytes(counts={"train": 1, "valid": 1})}
    line = failure(dest, capsys)
    assert f"download {server.url}/a.zip by hand and put it at {dest}.zip, or set NOTTINGHAM_ZIP" in line
    assert "404" in line and "no MIDI files in test" in line
    assert not dest.with_name("Nottingham.zip").exists()


def test_a_connection_that_breaks_off_is_a_failed_download(dest, server, monkeypatch, capsys):
    monkeypatch.setattr(fetch_nottingham, "URLS", (server.url + "/a.zip",))
    server.pages, server.missing = {"/a.zip": zip_bytes()[:-30]}, 30
    failure(dest, capsys)
    assert not dest.with_name("Nottingham.zip").exists()


def test_a_download_is_bounded(dest, server, monkeypatch, capsys):
    monkeypatch.setattr(fetch_nottingham, "URLS", (server.url + "/a.zip",))
    server.pages = {"/a.zip": zip_bytes([("Nottingham/pad", random.Random(0).randbytes(300_000))])}
    monkeypatch.setattr(fetch_nottingham, "MAX_ZIP_BYTES", 200_000)
    assert "larger than 200000 bytes" in failure(dest, capsys)
    monkeypatch.setattr(fetch_nottingham, "MAX_ZIP_BYTES", 1 << 20)
    assert run(dest) == 0


# --- interruptions


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
@pytest.mark.parametrize("moment", ["Path.write_bytes", "os.replace", "os.rename"])
def test_a_run_that_is_killed_is_completed_by_the_next(dest, server, moment, monkeypatch):
    server.pages = {"/a.zip": zip_bytes()}
    script = f"""
import os, signal, sys
from pathlib import Path
from data import fetch_nottingham
calls = []
plain = {moment}
def killed(*args):
    calls.append(args)
    if len(calls) == {8 if moment == "Path.write_bytes" else 1}:  # the second file of the extraction, not of the check
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(*args)
{moment} = killed
fetch_nottingham.URLS = ({server.url + "/a.zip"!r},)
sys.exit(fetch_nottingham.main(["--dest", {str(dest)!r}]))
"""
    killed = subprocess.run([sys.executable, "-c", script], cwd=ROOT, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert not dest.exists()
    monkeypatch.setattr(fetch_nottingham, "URLS", (server.url + "/a.zip",))
    assert run(dest) == 0 and count_tunes(dest) == COUNTS


def test_a_run_that_finishes_second_accepts_the_first(dest, named_zip, monkeypatch):
    named_zip(zip_bytes())
    plain = os.rename

    def overtaken(source, target):
        if not dest.exists():
            for split in COUNTS:
                (dest / split).mkdir(parents=True)
                (dest / split / "first.mid").write_bytes(b"first")
        plain(source, target)

    monkeypatch.setattr(os, "rename", overtaken)
    assert run(dest) == 0
    assert count_tunes(dest) == dict.fromkeys(COUNTS, 1) and temporary(dest) == []


# --- bad zips


def link(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.create_system, entry.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return entry


@pytest.mark.parametrize(
    "entry",
    [
        "/etc/train/a.mid",
        "../train/a.mid",
        "Nottingham/train/../../../a.mid",
        "Nottingham\\train\\a.mid",
        "C:/train/a.mid",
        "..",
        link("Nottingham/train/link.mid"),
        link("Nottingham/train"),
    ],
    ids=lambda entry: getattr(entry, "filename", entry),
)
def test_no_entry_leaves_the_folder(dest, named_zip, tmp_path, entry):
    named_zip(zip_bytes([(entry, b"/etc/passwd")]))
    assert run(dest) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "named.zip"]
    assert [path.name for path in dest.parent.iterdir()] == ["Nottingham"]
    assert all(path.is_file() and not path.is_symlink() for path in dest.glob("*/*"))


def test_the_same_place_twice_is_refused(dest, named_zip, capsys):
    named_zip(zip_bytes([("Elsewhere/train/tune_0.mid", b"x")]))
    assert "is there twice" in failure(dest, capsys)


@pytest.mark.parametrize("missing", COUNTS)
def test_a_zip_without_one_of_the_splits_is_refused(dest, named_zip, capsys, missing):
    named_zip(zip_bytes(counts={split: 1 for split in COUNTS if split != missing}))
    assert f"has no MIDI files in {missing}" in failure(dest, capsys)


def test_zip_bombs_are_refused(dest, named_zip, capsys, monkeypatch):
    named_zip(zip_bytes([("Nottingham/train/zeros.mid", bytes(65 << 20))]))
    assert "unpacks to more than" in failure(dest, capsys)
    named_zip(zip_bytes())
    monkeypatch.setattr(fetch_nottingham, "MAX_ZIP_BYTES", 100)
    assert "larger than 100 bytes" in failure(dest, capsys)


def test_an_entry_is_not_inflated_beyond_the_size_it_declares(dest, named_zip, capsys):
    """The directory says 4 bytes, the data are 60 MB of zeros: refused, at little memory."""
    honest = zip_bytes([("Nottingham/train/zeros.mid", bytes(60 << 20))])
    named_zip(honest.replace((60 << 20).to_bytes(4, "little"), (4).to_bytes(4, "little")))
    tracemalloc.start()
    try:
        assert "cannot be unpacked" in failure(dest, capsys)
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


def test_damaged_zips_end_in_one_line(dest, named_zip, capsys):
    rng = random.Random(0)
    whole = zip_bytes(content=bytes(range(200)))
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(rng.choice((1, 3, 10))):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        named_zip(bytes(damaged[: rng.choice((len(damaged), rng.randrange(len(damaged))))]))
        if run(dest) == 0:  # the damage hit nothing that matters
            assert all(count_tunes(dest).values())
            dest.rename(dest.with_name(f"good_{rng.random()}"))
            capsys.readouterr()
        else:
            err = capsys.readouterr().err
            assert err.count("\n") == 1 and "NOTTINGHAM_ZIP" in err
            assert not dest.exists() and temporary(dest) == []
            refused += 1
    assert refused > 150


def test_the_real_zip(dest, monkeypatch, shared_data):
    monkeypatch.setenv("NOTTINGHAM_ZIP", str(shared_data("Nottingham.zip")))
    assert run(dest) == 0
    assert count_tunes(dest) == {"train": 694, "valid": 173, "test": 170}
