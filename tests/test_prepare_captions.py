"""data/prepare_captions.py on files made by hand; the real captions are known by their counts."""

import json
import shutil
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from conftest import cases, refusal

from data import prepare_captions as program
from data.text import TextData
from runs.directories import locked
from support.parser import parse

TRAIN = [f"A dog's ball number {i}." for i in range(50)]
TEST = ['Two  "cats" cannot sit.', "", "a bus"]
TOKENS = ["two `` cats '' can not sit .", "a bus"]
COCO = ("annotations/captions_train2014.json", "annotations/captions_val2014.json")


def folder(path: Path, names: tuple[str, str] = ("train.txt", "test.txt"), train=TRAIN, test=TEST) -> Path:
    for name, lines in zip(names, (train, test), strict=True):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def zipped(path: Path, source: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(source.rglob("*.*")):
            archive.write(file, f"top/{file.relative_to(source)}")
    return path


def made(output: Path) -> dict[str, list[str]]:
    return {path.stem: path.read_text(encoding="utf-8").split("\n") for path in output.iterdir()}


@cases("flags, kept", ([], 45), (["--valid", "0.5"], 25))
def test_tokens_and_parts(tmp_path, capsys, flags, kept):
    """Lower case, nltk's words, no blank line; the last tenth, or another share, is the validation set."""
    output = tmp_path / "new" / "captions"
    assert program.main([str(folder(tmp_path / "in")), "-o", str(output), *flags]) == 0
    tokens = [f"a dog 's ball number {i} ." for i in range(50)]
    assert made(output) == {"train": [*tokens[:kept], ""], "valid": [*tokens[kept:], ""], "test": [*TOKENS, ""]}
    line = f"{output}: {kept} captions for training, {50 - kept} captions for validation, 2 captions for testing\n"
    assert capsys.readouterr().out == line
    shutil.rmtree(tmp_path / "in")
    assert program.main(["-o", str(output)]) == 0  # they are there already
    assert capsys.readouterr().out == line
    error = refusal(capsys, program.main, ["-o", str(output), "--valid", "0.2"])
    assert error == "prepare_captions: error: --valid has no effect without SOURCE\n"


def test_a_folder_a_zip_and_texygens_names_give_the_same(tmp_path):
    plain = folder(tmp_path / "a")
    names = folder(tmp_path / "b", ("data/image_coco.txt", "data/testdata/test_coco.txt"))
    sources = [plain, zipped(tmp_path / "a.zip", plain), names, zipped(tmp_path / "b.zip", names)]
    for i, source in enumerate(sources):
        assert program.main([str(source), "-o", str(tmp_path / f"{i}")]) == 0
    first, *others = [made(tmp_path / f"{i}") for i in range(4)]
    assert others == [first] * 3


def annotations(captions: list) -> list[str]:
    return [json.dumps({"info": {}, "annotations": [{"id": i, "caption": text} for i, text in enumerate(captions)]})]


def test_cocos_annotations(tmp_path):
    """Of each file 10,000 in a random order that is always the same."""
    train = ["Two\nlines ", " ", *(f"A dog's ball number {i}." for i in range(10_020))]
    source = folder(tmp_path / "in", COCO, annotations(train), annotations(TEST))
    for output in ("a", "b"):
        zipped(tmp_path / "in.zip", source)
        assert program.main([str(tmp_path / "in.zip"), "-o", str(tmp_path / output)]) == 0
    first = made(tmp_path / "a")
    assert first == made(tmp_path / "b") and first["train"][0] == "a dog 's ball number 6217 ."
    drawn = first["train"][:-1] + first["valid"][:-1]
    everything = {*(f"a dog 's ball number {i} ." for i in range(10_020)), "two lines"}
    assert len(drawn) == len(set(drawn)) == 10_000 and set(drawn) < everything
    assert drawn != sorted(drawn, key=lambda text: int(text.split()[5]) if "ball" in text else 0)
    assert sorted(first["test"]) == sorted([*TOKENS, ""])


def test_what_cannot_be_prepared(tmp_path, capsys):
    output = tmp_path / "out"

    def fails(why: str, *source: Path | str) -> None:
        assert why in refusal(capsys, program.main, [*map(str, source), "-o", str(output)]) and not output.exists()

    fails("out/train.txt: not there yet; give SOURCE")
    fails("absent: neither a folder nor a zip", tmp_path / "absent")
    (tmp_path / "text.zip").write_text("no zip")
    fails("text.zip: neither a folder nor a zip", tmp_path / "text.zip")
    (tmp_path / "empty").mkdir()
    fails("empty: holds none of these pairs (--output is not searched): train.txt and test.txt; i", tmp_path / "empty")
    for share in ("0.5", "0", "1"):
        few = f"short: 1 captions for training, 3 for testing: with --valid {share} too few"
        fails(few, folder(tmp_path / "short", train=["a dog"], test=["a"] * 3), "--valid", share)
    fails("none: 50 captions for training, 0 for testing: ", folder(tmp_path / "none", test=["", " "]))
    twice = folder(folder(tmp_path / "twice") / "more").parent
    fails(f"twice: holds both {twice}/more/t", twice)
    bad = folder(tmp_path / "bad")
    for text, why in ((b"\xef\xbb\xbfa dog\n\xe9", "line 2 is not UTF-8"), (b"a\0b\0", "has a NUL byte")):
        (bad / "test.txt").write_bytes(text)
        fails(f"bad/test.txt: {why}", bad)
    for i, wrong in enumerate((["{"], ["[]"], annotations([1, 2]), annotations(["\ud800"]), ["{}"])):
        source = folder(tmp_path / f"wrong{i}", COCO, wrong, annotations(TEST))
        fails("captions_train2014.json: not captions as COCO's", source)
    damaged = zipped(tmp_path / "damaged.zip", folder(tmp_path / "fine"))
    content = bytearray(damaged.read_bytes())
    content[content.index(b"number 3")] ^= 1
    damaged.write_bytes(content)
    fails("damaged.zip: Bad CRC-32", damaged)
    damaged.write_bytes(content[: len(content) // 2])
    fails("damaged.zip: neither a folder nor a zip", damaged)


@cases("split", "train", "valid", "test")
def test_a_file_that_is_not_its_own_stays(tmp_path, capsys, split):
    """Nor is anything written beside it; what is missing of its own is made anew."""
    source, output = folder(tmp_path / "in"), tmp_path / "out"
    words = [str(source), "-o", str(output)]
    output.mkdir()
    with ThreadPoolExecutor() as pool, locked(output):  # which another process holds
        refused = pool.submit(refusal, capsys, program.main, words)
        time.sleep(0.5)
        (output / f"{split}.txt").write_text("mine\n")
    assert f"out/{split}.txt: is there, with another content than" in refused.result()
    assert made(output) == {split: ["mine", ""]}
    (output / f"{split}.txt").unlink()
    assert program.main(words) == 0
    whole = made(output)
    (output / f"{split}.txt").unlink()
    assert program.main(words) == 0 and made(output) == whole


def test_what_it_wrote_is_no_source(tmp_path, capsys):
    """Where the folder that it writes to is inside the one that it reads, or that one."""
    for _ in range(2):
        assert program.main([str(folder(tmp_path)), "-o", str(tmp_path / "out")]) == 0
    assert "(--output is not searched)" in refusal(capsys, program.main, [str(tmp_path), "-o", str(tmp_path)])
    assert len(made(tmp_path / "out")["train"]) == 46


def test_the_real_captions(shared_data, tmp_path, capsys):
    output = tmp_path / "captions"
    assert program.main([str(shared_data("coco_captions/train.txt").parent), "-o", str(output)]) == 0
    assert "9,000 captions for training, 1,000 captions for validation, 10,000" in capsys.readouterr().out
    flags = ["--dataset", "text", "--data_dir", str(output), "--tokens", "word", "--min_count", "2", "--seq_len", "24"]
    data = TextData(parse([*flags, "--vocab_size", "5000"]))
    assert 2400 < data.vocabulary.size < 2500 and data.source.long < 0.003 * 20_000
