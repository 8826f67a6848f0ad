"""data/text.py: lines in, tokens and back, splits, what is measured, and whole runs."""

import dataclasses
import itertools
import json
import re
import tracemalloc
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from conftest import END, NOW, cases, refusal, shared_seqgan, train
from enumeration import randomise
from fault_injection import events_of, fitting, logs_in, timeless_rows
from hypothesis import given
from hypothesis import strategies as st
from test_nottingham import SMALL as SHORT

from data.real import read_data
from data.text import Lines, TextData, Vocabulary, read_lines, split_of
from evaluation.discriminator import what_d_knows
from evaluation.evaluator import Due, Evaluator
from evaluation.metrics import D_FIGURES
from evaluation.ngrams import bleu, self_bleu
from evaluation.policy import MeasuredPolicy
from evaluation.text import TextEvaluator, TexygenEvaluator
from model import SeqGAN, build
from support.config import Config, UsageError
from support.errors import DataError
from support.parser import parse, read_flags
from support.seeds import Purpose
from support.statistics import ratio_and_error
from tools.restored import restore

SMALL = [*SHORT, "--seq_len", "6"]
UNMARKED = itertools.product(("ab", "一詩\n" * 2000, "\U00020000é\n" * 2000), ("utf-16-le", "utf-16-be"))


def config_of(path: Path, *flags: str) -> Config:
    return parse(["--dataset", "text", "--data_dir", str(path), *SMALL, *flags])


def evaluator_of(data: TextData, kind: type[TextEvaluator] = TextEvaluator) -> TextEvaluator:
    return kind(data, data.config)


def evaluated(data: TextData, seqgan: SeqGAN, epoch: int, due: Due, kind: type[TextEvaluator] = TextEvaluator) -> dict:
    policy = MeasuredPolicy(seqgan.policy, data.config.seed, data.config.jit)
    return evaluator_of(data, kind).of_policy(policy, epoch, due)


def made(folder: Path, *flags: str) -> tuple[TextData, SeqGAN]:
    data = TextData(config_of(folder, *flags))
    return data, shared_seqgan(data.config, data.spec)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", newline="")
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    """Lines of 1 to 6 characters, split in three."""
    folder = tmp_path / "lines"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for split, count in (("train", 60), ("valid", 9), ("test", 12)):
        lines = ["".join(rng.choice(list("abcde"), rng.integers(1, 7))) for _ in range(count)]
        write(folder / f"{split}.txt", "\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_one_way_to_end_a_line_is_as_good_as_another(tmp_path, end):
    """The lines of a classic Mac are no single one; files with byte order marks may have been put together."""
    path = tmp_path / "lines.txt"
    expected = ["ab", "", "c\td", "詩 x\u2028y", *("x" * n for n in range(1000, 3000)), "x" * (2**20 - 1), "ef"]
    for last in ("", end):
        path.write_bytes("".join(f"\ufeff{line}{end}" for line in expected).removesuffix(end).encode() + last.encode())
        assert list(read_lines(path)) == expected


@cases(
    "content, why",
    (b"fine\n" * 3 + b"ab\xffc\n", r"line 4 is not UTF-8 \(byte 3 of it\)"),
    *((b"ab\r\nc\xff", r"line 2 is not UTF-8 \(byte 2 of it\)"), (b"fine\nabc\0def\n", "line 2 has a NUL byte")),
    ("\ufeffab".encode() + b"\xff", r"line 1 is not UTF-8 \(byte 6 of it\)"),
    (b"x" * (2**20 + 5), "line 1 is longer than 1,048,576 characters"),
    ("\ufeffab\n".encode("utf-16-le"), "UTF-16, not UTF-8; `iconv -f UTF-16 -t UTF-8` converts it"),
    *(("\ufeffab\n".encode("utf-16-be"), "UTF-16, not UTF-8"), ("\ufeffab\n".encode("utf-32-be"), "UTF-32, not UTF-8")),
    ("\ufeffab\n".encode("utf-32-le"), "UTF-32, not UTF-8; `iconv -f UTF-32"),
    *((text.encode(code), "line 1 has a NUL byte, .*; if it is UTF-16, `iconv -f ") for text, code in UNMARKED),
    (b"abc\nan empty\n\ncaf\xe9\n", r"line 4 is not UTF-8 \(byte 4 of it\); if it is Latin-1 or UTF-16, `iconv -f "),
    ids=range(16),
)
def test_what_are_no_lines(tmp_path, content, why):
    path = tmp_path / "lines.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"lines.txt: {why}"):
        list(read_lines(path))


def test_a_single_file_is_split_by_its_lines_alone(tmp_path):
    lines = [f"line {i}" for i in range(5000)]
    parts = {line: split_of(line) for line in lines}  # characters
    shares = Counter(parts.values())
    for split, share in (("train", 0.8), ("valid", 0.1), ("test", 0.1)):
        assert abs(shares[split] / 5000 - share) < 4.5 * np.sqrt(share * (1 - share) / 5000)
    assert [i for i in range(40) if parts[f"line {i}"] == "test"] == [15, 22, 36, 37] and split_of(["b", "b"]) == "test"
    path = write(tmp_path / "lines.txt", "\n".join([*lines, *reversed(lines)]))  # each twice
    data = TextData(config_of(path, "--seq_len", "9"))
    assert {split: len(part) for split, part in data.lines.items()} == {s: 2 * n for s, n in shares.items()}
    train = data.vocabulary.decode(data.lines["train"][np.arange(len(data.lines["train"]))])
    assert set(train) == {line for line, split in parts.items() if split == "train"}


@pytest.mark.parametrize("tokens", ["char", "word"])
def test_equal_sequences_are_on_one_side_of_a_split_by_whole_lines(tmp_path, tokens):
    """Held-out lines that are others' once truncated are left out. What version 1.0 had split is split like that."""
    gap = " " if tokens == "word" else ""
    lines = [gap.join(f"{i:03d}") for i in range(1000)]
    path = write(tmp_path / "lines.txt", "\n".join([*lines, *(f"{line}{gap}xyz" for line in lines)]))

    def read(seq_len: int, *words: str, **how) -> tuple[TextData, list[set[str]]]:
        data = TextData(config_of(path, "--tokens", tokens, "--seq_len", str(seq_len), *words), **how)
        return data, [set(data.vocabulary.decode(part[np.arange(len(part))])) for part in data.lines.values()]

    (data, parts), (_, whole), (before, others) = read(3), read(6), read(3, as_version_1=True)
    for held in (parts, others):
        assert sum(map(len, held)) == len(set.union(*held)) == 1000 and min(map(len, held)) > 3
    assert all({line[: 3 + 2 * len(gap)] for line in large} >= small for small, large in zip(parts, whole, strict=True))
    left_out = 2000 - sum(map(len, data.lines.values()))
    assert left_out > 100 and f"; {left_out} held-out ones left out, as others begin alike; " in data.introduction()
    assert "left out" not in before.introduction() and min(map(len, others)) > 50
    for how in ("drop", "truncate"):  # of lines of three tokens, equal by unknown ones alone, each stays
        few = read(4, "--vocab_size", "6", "--long_lines", how)[0]
        assert sum(sum(part[np.arange(len(part))][:, 3] == few.vocabulary.end) for part in few.lines.values()) == 1000
    assert all(read_data(data.config, each).digests() == each for each in (before.digests(), data.digests()))


@cases("tokens, unknown", ("char", "\ufffd"), ("word", "<unk>"))
def test_what_shows_an_unknown_token_is_an_entry_in_runs_of_version_1(folder, tokens, unknown):
    """So these go on; today it is no entry, but unknown."""
    for split in ("train", "valid"):
        write(folder / f"{split}.txt", f"a {unknown} b\n" * 9)
    config = config_of(folder, "--tokens", tokens)
    now, before = TextData(config), TextData(config, as_version_1=True)
    assert set(before.vocabulary.entries) - set(now.vocabulary.entries) == {unknown}
    assert [np.mean((data.valid == data.vocabulary.unknown).any(axis=1)) for data in (now, before)] == [1, 0]
    assert all(read_data(config, each).digests() == each for each in (now.digests(), before.digests()))


@pytest.mark.parametrize("absent", [(), ("valid",), ("test",), ("valid", "test")])
def test_a_folder_of_parts(folder, absent):
    for split in absent:
        (folder / f"{split}.txt").unlink()
    counts = {split: len(lines) for split, lines in TextData(config_of(folder)).lines.items()}
    if len(absent) < 2:
        assert counts == {s: 0 if s in absent else n for s, n in (("train", 60), ("valid", 9), ("test", 12))}
    else:  # one file, split by the rule
        assert sum(counts.values()) == 60 and min(counts.values()) > 0


def test_long_and_empty_lines_are_counted(folder):
    write(folder / "train.txt", "abc\n\nabcdefg\n  \nabcdefgh\n")
    truncated, dropped = (TextData(config_of(folder, "--long_lines", how)) for how in ("truncate", "drop"))
    assert truncated.vocabulary.decode(truncated.lines["train"][np.arange(3)]) == ["abc", "abcdef", "abcdef"]
    assert dropped.vocabulary.decode(dropped.lines["train"][np.arange(1)]) == ["abc"]
    assert (len(truncated.lines["train"]), len(dropped.lines["train"])) == (3, 1)
    for data, count, done in ((truncated, 3, "truncated"), (dropped, 1, "dropped")):
        long = f"2 (8.33 %) longer than 6 tokens {done}"
        assert f"{count} train, 9 valid, 12 test; {long}; 2 empty ones" in data.introduction()
    for rows, name in ((dropped.valid, "validation"), (dropped.test, "test")):
        share = (rows == dropped.vocabulary.unknown).sum() / (rows < dropped.vocabulary.end).sum()
        said = f"; {100 * share:.3g} % of the tokens of the {name} set are unknown"
        assert 0.1 < share < 1 and said in dropped.introduction()
    assert [set(data.vocabulary.entries) for data in (truncated, dropped)] == [set("abcdef"), set("abc")]


def test_a_large_file_is_streamed(tmp_path):
    """Besides the packed tokens (2 bytes each, 8 a line), no more than a tenth of the file and a megabyte is held."""
    path, count = tmp_path / "large.txt", 30_000
    line = "".join(map(chr, range(0x4E00, 0x4E14)))  # 20 characters, 60 bytes
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(f"{line[i % 20 :]}{line[: i % 20]}\n" for i in range(count))
    tracemalloc.start()
    data = TextData(config_of(path, "--seq_len", "20"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(len(lines) for lines in data.lines.values()) == count
    assert peak < count * (20 * 2 + 8) * 1.3 + path.stat().st_size / 10 + 2**20


def test_the_vocabulary_is_the_most_frequent_tokens():
    lines = ["aab", "bac\ufffd\ufffd\ufffd", "d"]  # the unknown token is no entry
    assert Vocabulary.count(lines, "char", 9, 1).entries == ("a", "b", "c", "d")  # ties in their own order
    assert Vocabulary.count(lines, "char", 2, 1).entries == ("a", "b")
    assert Vocabulary.count(lines, "char", 9, 2).entries == ("a", "b")
    vocabulary = Vocabulary("char", ("a", "b"))
    assert (vocabulary.unknown, vocabulary.end, vocabulary.size, vocabulary.start) == (2, 3, 4, 5)
    assert vocabulary.encode("bxa") == [1, 2, 0]
    assert vocabulary.decode(np.array([[1, 2, 0, 3, 4], [3, 4, 4, 4, 4], [0, 0, 0, 0, 0]])) == ["b\ufffda", "", "aaaaa"]
    assert Vocabulary.count([["to", "<unk>", "be", "to"]], "word", 9, 1).decode(np.arange(4)[None]) == ["to be <unk>"]


def test_flags_cap_the_vocabulary(folder):
    data = TextData(config_of(folder, "--vocab_size", "5"))
    assert data.spec.vocab_size == 5 and len(data.vocabulary.entries) == 3  # unknown and end are two of them
    counts = Counter("".join((folder / "train.txt").read_text().split()))
    assert data.vocabulary.entries == tuple(sorted(counts, key=lambda token: (-counts[token], token))[:3])
    least = str(sorted(counts.values())[2])
    kept = {token for token, count in counts.items() if count >= int(least)}
    assert set(TextData(config_of(folder, "--min_count", least)).vocabulary.entries) == kept and 2 <= len(kept) < 5


def test_words_are_what_white_space_separates(folder):
    for split in ("train", "valid", "test"):
        write(folder / f"{split}.txt", "to be  or\tnot to be\nto be\n")
    data = TextData(config_of(folder, "--tokens", "word"))
    assert data.vocabulary.entries == ("be", "to", "not", "or")
    np.testing.assert_array_equal(data.test, [[1, 0, 3, 2, 1, 0], [1, 0, 5, 6, 6, 6]])
    assert data.vocabulary.decode(data.test) == ["to be or not to be", "to be"]


@given(st.lists(st.text("abcé詩 \u2028", min_size=1, max_size=6), min_size=1))
def test_lines_come_back_as_they_were(lines):
    vocabulary = Vocabulary.count(lines, "char", 100, 1)
    packed = Lines(vocabulary, 6)
    for line in lines:
        packed.append(vocabulary.encode(line))
    rows = packed[np.arange(len(lines))]
    assert rows.shape == (len(lines), 6) and rows.dtype == np.int32 and vocabulary.decode(rows) == lines
    for row, line in zip(rows, lines, strict=True):
        after = [vocabulary.end] + [vocabulary.size] * 6
        np.testing.assert_array_equal(row[len(line) :], after[: 6 - len(line)])
    np.testing.assert_array_equal(packed[np.array([len(lines) - 1, 0])], rows[[-1, 0]])


@pytest.mark.parametrize("entries", [3, 70_000])
def test_whole_lines_are_found_again(entries):
    packed = Lines(Vocabulary("word", tuple(map(str, range(entries)))), 4)
    for ids in ([0, 1, 2], [entries - 1], [2, 2, 2, 2]):
        packed.append(ids)
    asked = [[0, 1, 2], [0, 1], [1, 2], [entries - 1], [2, 2, 2, 2], [2, 2, 2], [], [0, 1, 2, 0]]
    assert packed.contains(asked).tolist() == [True, False, False, True, True, False, False, False]
    assert packed[np.array([1])][0, 0] == entries - 1
    assert len({Lines(packed.vocabulary, 4, of).digest() for of in ([[0], [1, 2]], [[0, 1], [2]], [[1, 2], [0]])}) == 3


def test_a_vocabulary_file_is_read_as_it_was_written(tmp_path):
    vocabulary = Vocabulary("char", ("a", "詩", '"', "\\", "\u2028", "\t"))
    assert Vocabulary.read(write(tmp_path / "vocabulary.json", vocabulary.to_json())) == vocabulary


def test_batches_are_lines_of_the_training_part(folder):
    data = TextData(config_of(folder))
    train = {tuple(row) for row in data.lines["train"][np.arange(60)].tolist()}
    batches = [data.mle_batches(epoch).numpy() for epoch in range(40)]
    assert {batch.shape for batch in batches} == {(1, 4, 6)} and data.real(3).shape == (4, 6)
    seen = {tuple(row) for batch in batches for row in batch[0].tolist()}
    assert seen <= train and len(seen) > 0.8 * len(train)
    np.testing.assert_array_equal(TextData(config_of(folder)).mle_batches(7), batches[7])
    fixed = TextData(config_of(folder, "--train_size", "9"))
    assert fixed.mle_batches(0).shape == (2, 4, 6) and fixed.real(0).shape == (9, 6)
    with pytest.raises(DataError, match="--train_size: 61 is more than the 60 training lines of --data_dir"):
        TextData(config_of(folder, "--train_size", "61"))
    with pytest.raises(DataError, match="^--log_dir .*: the lines of --data_dir are there"):
        TextData(config_of(folder, "--log_dir", str(folder / ".")))


def test_the_distribution_of_lines_of_unequal_length_is_learnt(tmp_path):
    """From a file of a known distribution to its entropy a token, ends included, on lines that were not trained on."""
    distribution, folder = {"a": 0.3, "ab": 0.2, "abba": 0.2, "bbbbbb": 0.2, "b": 0.1}, tmp_path / "distribution"
    folder.mkdir()
    for seed, (split, count) in enumerate((("train", 4000), ("test", 2000))):
        lines = np.random.default_rng(seed).choice(list(distribution), count, p=list(distribution.values()))
        write(folder / f"{split}.txt", "\n".join(lines))
    flags = "--batch_size 128 --g_hidden_dim 16 --g_emb_dim 8 --eval_samples 2000 --pretrain_g_epochs 300"
    config = config_of(folder, *flags.split())
    data = TextData(config)
    model = build(config, data.spec)
    for epoch in range(300):
        model.mle_epoch(data.mle_batches(epoch))
    figures = evaluated(data, model, 0, END)
    p = np.array(list(distribution.values()))
    tokens = np.array([min(len(line) + 1, 6) for line in distribution])
    entropy = -(p * np.log(p)).sum() / (p @ tokens)
    for name in ("nll_test", "g_entropy"):
        value, error = figures[name]
        assert 0 < error < 0.02 and abs(value - entropy) < 4 * error + 0.02, name
    length, error = figures["length"]
    assert abs(length - p @ [len(line) for line in distribution]) < 4 * error + 0.1
    policy = MeasuredPolicy(model.policy, config.seed, config.jit)
    samples = data.vocabulary.decode(policy.sample(2000, Purpose.EVALUATE, tf.constant(0)).numpy())
    assert sum(line in distribution for line in samples) > 0.97 * 2000


def test_ratio_and_error():
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 6, [4000, 50])
    totals = counts * 2.0 + rng.normal(0, 1, counts.shape)
    found = np.array([ratio_and_error(t, c) for t, c in zip(totals, counts, strict=True)])
    assert found[:, 0].mean() == pytest.approx(2.0, abs=0.01)
    assert found[:, 1].mean() == pytest.approx(found[:, 0].std(), rel=0.05)  # the error is the spread
    assert ratio_and_error(np.array([3.0, 5.0]), np.array([2, 2])) == pytest.approx((2.0, 0.5))


def test_evaluation_by_hand(folder):
    data, model = made(folder)
    figures = evaluated(data, model, 5, END)
    assert set(figures) == set(evaluator_of(data).columns) - set(D_FIGURES)
    for name, rows in (("nll_valid", data.valid), ("nll_test", data.test)):
        tokens = [row[row != data.spec.vocab_size] for row in rows]  # ends included
        nats = [-tf.reduce_sum(model.generator.log_probs(tf.constant(row[None]))).numpy() for row in tokens]
        assert figures[name][0] == pytest.approx(sum(nats) / sum(map(len, tokens)), rel=1e-5)
    lines = (folder / "valid.txt").read_text().split()
    compared = np.linspace(0, 8, 6).round().astype(int)  # as many as --eval_samples
    assert figures["real_length"][0] == pytest.approx(np.mean([len(lines[i]) for i in compared]))
    few = evaluator_of(TextData(config_of(folder, "--eval_samples", "10")))._of_real  # of 9: no self-BLEU of fewer
    real = {name for name in figures if name.startswith("real_")}
    assert real - set(few) == {f"real_self_bleu{n}" for n in (2, 3, 4, 5)}


def test_comparison_by_hand(folder):
    write(folder / "train.txt", "abcd\nabc\nbcd\n")
    write(folder / "test.txt", "abcde\ncd\n")
    data = TextData(config_of(folder))
    lines, packed = ["abcd", "ab", "dcbabc", "abcd", ""], Lines(data.vocabulary, 6)
    for line in lines:
        packed.append(data.vocabulary.encode(line))
    figures = evaluator_of(data).compare(packed[np.arange(5)])
    unknown = data.vocabulary.unknown  # e, in the first line of test
    references = [[*data.vocabulary.encode("abcd"), unknown], data.vocabulary.encode("cd")]
    ids = [data.vocabulary.encode(line) for line in lines]
    for n in (2, 3, 4, 5):
        assert figures[f"bleu{n}"][0] == pytest.approx(bleu(ids, references, (n,)).mean())
        assert figures[f"self_bleu{n}"][0] == pytest.approx(self_bleu(ids, (n,)).mean())
    assert figures["copied_share"][0] == 0.4  # abcd, twice
    some = [TextData(dataclasses.replace(data.config, train_size=1, seed=seed)) for seed in range(9)]
    assert {evaluator_of(each).compare(packed[np.arange(5)])["copied_share"][0] for each in some} == {0, 0.4}
    assert figures["length"][0] == np.mean([4, 2, 6, 4, 0])


def test_a_folder_brings_the_vocabulary_of_another_run(folder):
    """Likelihoods are then of the same tokens, whatever the lines for training; what it lacks is unknown."""
    write(folder / "train.txt", "c c a\n")
    path = folder / "vocabulary.json"
    path.write_text(Vocabulary("word", ("a", "b")).to_json())
    data = TextData(config_of(folder, "--tokens", "word"))
    assert data.vocabulary.entries == ("a", "b") and data.spec.vocab_size == 4
    assert "; 4 tokens of its vocabulary.json (each a word)" in data.introduction()
    for flag in ("--vocab_size", "--min_count"):
        with pytest.raises(UsageError, match=f"{flag} has no effect with {folder}/vocabulary.json"):
            read_flags(["--dataset", "text", "--data_dir", str(folder), flag, "3"])
    np.testing.assert_array_equal(data.lines["train"][np.arange(1)][0, :4], [2, 2, 0, 3])
    with pytest.raises(UsageError, match=re.escape(f"{path}: its tokens are of the kind word, not --tokens char")):
        TextData(config_of(folder))
    write(folder / "train.txt", "\n\n")  # lines that the vocabulary needs no more
    with pytest.raises(UsageError, match="no line to train on"):
        TextData(config_of(folder, "--tokens", "word"))
    words = (("word", each) for each in ("ab", ["a", "b", "a"], ["a b"], [" a"]))
    for kind, entries in (*words, ("", []), ("char", ["\ud800"])):
        path.write_text(json.dumps({"kind": kind, "entries": entries}))
        with pytest.raises(UsageError, match=re.escape(f"{path}: not a vocabulary")):
            TextData(config_of(folder))


def test_texygens_figures_by_hand(folder):
    """Lines as they are in the files: longer than --seq_len, with words that are unknown to the generator."""
    rng = np.random.default_rng(3)
    for split, count, words in (("train", 30, "abcde"), ("valid", 5, "abcdez"), ("test", 20, "abcdefyz")):
        lines = ["y z"] * 4000 if split == "test" else []  # what is like the others comes last
        lines += [" ".join(rng.choice(list(words), rng.integers(1, 12))) for _ in range(count)]
        write(folder / f"{split}.txt", "\n".join(lines) + "\n")
    files = {split: (folder / f"{split}.txt").read_text() for split in ("train", "valid", "test")}
    train, valid, test = ([line.split() for line in text.splitlines()] for text in files.values())
    data, model = made(folder, "--tokens", "word")
    config = data.config
    randomise(model.generator, seed=1)
    figures = evaluated(data, model, 5, END, TexygenEvaluator)
    policy = MeasuredPolicy(model.policy, config.seed, config.jit)
    generated = data.vocabulary.decode(policy.sample(6, Purpose.EVALUATE, tf.constant(5)).numpy())
    assert any("<unk>" in line for line in generated) and len(test) > len(data.test) == 2000
    generated = [line.split() for line in generated]
    few = TexygenEvaluator(data, dataclasses.replace(config, eval_samples=99))._of_real  # of fewer than are generated
    seen = [(train + valid)[i] for i in np.linspace(0, 34, 6).round().astype(int)]
    for n in (2, 3, 4, 5):
        assert figures[f"texygen_bleu{n}"][0] == pytest.approx(bleu(generated, test, (n,)).mean())
        assert figures[f"real_texygen_bleu{n}"][0] == pytest.approx(bleu(valid, test, (n,)).mean())
        assert figures[f"real_texygen_self_bleu{n}"][0] == pytest.approx(self_bleu(seen, (n,)).mean())
        assert f"real_texygen_self_bleu{n}" not in few
        assert figures[f"texygen_self_bleu{n}"] == figures[f"self_bleu{n}"]  # among the same lines
    rows = data.lines["train"][np.arange(30)]
    whole = [tf.constant(row[row != data.spec.vocab_size][None]) for row in rows]
    nats = [-tf.reduce_sum(model.generator.log_probs(row)) for row in whole]
    longest = max(map(len, train + valid + test))
    assert longest > config.seq_len and figures["texygen_nll_gen"][0] == pytest.approx(np.mean(nats) / longest)


def test_an_unknown_token_is_no_word_of_a_line(folder):
    """Also where the test set has the word that it is shown as."""
    write(folder / "train.txt", "a b\na b\n")
    write(folder / "test.txt", "a <unk> b\n")
    data = TextData(config_of(folder, "--tokens", "word"))
    entries, end = data.vocabulary.entries, data.vocabulary.end
    rows = np.array([[entries.index("a"), len(entries), entries.index("b"), end]] * 2, np.int32)
    assert data.vocabulary.decode(rows)[0] == "a <unk> b"
    assert evaluator_of(data, TexygenEvaluator).compare(rows)["texygen_bleu2"][0] < 0.5


def test_texygens_figures_without_held_out_lines(folder):
    for split, text in (("train", "abcde\n" * 5), ("valid", ""), ("test", "")):  # fewer lines than are generated
        write(folder / f"{split}.txt", text)
    found = set(evaluated(*made(folder), 0, END, TexygenEvaluator))
    own = {"g_entropy", "copied_share", "length", *(f"self_bleu{n}" for n in (2, 3, 4, 5))}
    assert found == own | {"texygen_nll_gen", *(f"texygen_self_bleu{n}" for n in (2, 3, 4, 5))}


def test_held_out_lines_that_tell_nothing_are_warned_of(folder, capsys):
    TextData(config_of(folder))
    assert capsys.readouterr().err == ""
    write(folder / "test.txt", " \n")
    lines = (folder / "train.txt").read_text().splitlines()
    write(folder / "valid.txt", "\n".join(lines[::-2]))
    TextData(config_of(folder))
    whys = ("whole validation set is in the training set as well", "test set is empty; its figures are left out")
    assert capsys.readouterr().err == "".join(f"warning: --data_dir {folder}: the {why}\n" for why in whys)
    write(folder / "valid.txt", "\n".join([*lines, "aaaaae"]))
    TextData(config_of(folder))
    assert "validation" not in capsys.readouterr().err


@pytest.fixture
def held(folder) -> Path:
    """With as many lines held out as η takes."""
    for split in ("valid", "test"):
        write(folder / f"{split}.txt", (folder / f"{split}.txt").read_text() * 5)
    return folder


def argv_of(folder: Path, logs: Path, *flags: str) -> list[str]:
    return fitting(SMALL, ["--dataset", "text", "--data_dir", str(folder), *logs_in(logs), *flags])


def run(folder: Path, logs: Path, *flags: str) -> int:
    return train(argv_of(folder, logs, "--d_eval_samples", "60", *flags))


def test_a_run_leaves_its_figures_its_lines_and_its_vocabulary(held, tmp_path):
    assert run(held, tmp_path / "logs") == 0
    rows = timeless_rows(tmp_path / "logs" / "eval")
    assert [row["epoch"] for row in rows] == ["0", "2", "2", "3", "4"]
    of_d = rows.pop(2)
    assert of_d["phase"] == "pretrain_d" and all(of_d[name] for name in D_FIGURES) and not of_d["nll_test"]
    for row in rows:
        assert np.isfinite([float(row[name]) for name in ("nll_test", "nll_valid", "g_entropy")]).all()
        compared = row["epoch"] in ("2", "4")  # where samples are due: every second epoch of a phase, and its end
        for name in TextEvaluator.compared:
            assert np.isfinite(float(row[name])) if compared else not row[name], name
    events = events_of(tmp_path / "logs" / "eval")
    assert events.SummaryMetadata("lines/generated").plugin_data.plugin_name == "text"
    shown = {e.step: tf.make_ndarray(e.tensor_proto)[0].decode() for e in events.Tensors("lines/real")}
    assert list(shown) == [1, 2, 4]
    real = set((held / "train.txt").read_text().split())
    assert all(line.startswith("    ") and line.strip() in real for line in shown[1].split("\n"))
    generated = tf.make_ndarray(events.Tensors("lines/generated")[0].tensor_proto)[0].decode()
    assert len(generated.split("\n")) == 10 and set(generated) <= set("abcde\ufffd \n")
    vocabulary = json.loads((tmp_path / "logs" / "train" / "vocabulary.json").read_text(encoding="utf-8"))
    assert sorted(vocabulary["entries"]) == list("abcde") and vocabulary["kind"] == "char"
    assert not (tmp_path / "logs" / "eval" / "vocabulary.json").exists()


def test_a_run_goes_on_with_its_own_lines_only(held, tmp_path, capsys):
    folder = held
    assert run(folder, tmp_path / "logs") == 0
    before = {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}
    vocabulary = tmp_path / "logs" / "train" / "vocabulary.json"
    vocabulary.unlink()
    assert run(folder, tmp_path / "logs", "--total_epochs", "3") == 0 and vocabulary.read_bytes() == before[vocabulary]
    vocabulary.write_text("mine")
    error = refusal(capsys, run, folder, tmp_path / "logs", "--total_epochs", "4", alone=False)
    assert f"{vocabulary}: of other data than --data_dir {folder} has now" in error
    assert run(folder, tmp_path / "logs", "--overwrite") == 0 and vocabulary.read_bytes() == before[vocabulary]


@pytest.mark.parametrize("more", [[], ["--overwrite"]])
def test_a_vocabulary_that_is_no_runs_is_not_replaced(folder, tmp_path, capsys, more):
    mine = tmp_path / "logs" / "train" / "vocabulary.json"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    why = f"{mine.name} there is no run's; choose another --log_dir"
    assert why in refusal(capsys, run, folder, tmp_path / "logs", *more) and mine.read_text() == "mine"


def test_the_checkpoint_of_least_nll_valid_is_kept(folder, tmp_path):
    """Adversarial training at a rate that harms."""
    words = "--reward constant --g_pretrain_lr 0.1 --g_lr 0.5 --pretrain_g_epochs 9 --total_epochs 4 --eval_every 2"
    argv = argv_of(folder, tmp_path, *words.split())
    assert train(argv) == 0
    curve = [float(row["nll_valid"]) for row in timeless_rows(tmp_path / "eval") if row["nll_valid"]]
    kept = len(list((tmp_path / "train" / "checkpoints").iterdir()))  # the three newest, best, and pretrained
    assert 3 <= kept <= 5 and min(curve) < curve[-1]
    data = TextData(parse(argv))
    for which, nll in (("best", min(curve)), ("newest", curve[-1])):
        model = restore(tmp_path / "train", which).seqgan
        assert evaluated(data, model, 0, NOW)["nll_valid"][0] == pytest.approx(nll, rel=1e-5)


def test_texygens_references_are_the_test_lines_whole(tmp_path, capsys):
    """Also of a single file, which is split by what is left of long lines; so none of them is trained on."""
    rng = np.random.default_rng(1)
    lines = ["".join(row) for row in rng.choice(list("abcdefgh"), [600, 12])]
    config = config_of(write(tmp_path / "lines.txt", "\n".join(lines)), "--seq_len", "8")
    own = TextData(config)
    texygen = evaluator_of(own, TexygenEvaluator)
    assert {"".join(line) for line in texygen.written} <= set(lines) and texygen.longest == 12
    why = "texygen_nll_gen leaves out what was truncated of 100 % of the lines\n"
    assert capsys.readouterr().err == f"warning: {own.origin}: {why}"
    cut, held_out = [line[:8] for line in texygen.written], own.vocabulary.decode(own.test)
    assert sorted("".join(line) for line in cut) == sorted(held_out) and 30 < len(cut) < 120


def test_a_discriminator_without_a_test_set(tmp_path):
    """η is chosen on the validation set; what is left out is what the test set would tell."""
    rng, size = np.random.default_rng(1), 400
    valid = rng.integers(0, 3, [size, 4]).astype(np.int32)
    policy = SimpleNamespace(sample=lambda n, *_: tf.constant(rng.integers(0, 4, [n, 4]).astype(np.int32)))
    log_odds = lambda tokens: tf.reduce_sum(tf.where(tokens == 3, -1.0, 0.3), axis=1)  # noqa: E731
    data = SimpleNamespace(kind="", valid=valid, test=valid[:0], spec=SimpleNamespace(vocab_size=9))
    evaluator = Evaluator(data, SimpleNamespace(d_eval_samples=size, candidates=2))
    figures = evaluator.of_discriminator(SimpleNamespace(policy=policy, log_odds=log_odds), 0, {"nll": (1.0, 0.1)})
    assert set(figures) == {"d_eta", "d_gain_valid"} and figures["d_eta"][0] > 0.1
    drawn = policy.sample(2 * size)
    d = SimpleNamespace(policy=SimpleNamespace(sample=lambda n, *_: drawn[:n]), log_odds=log_odds)
    tests = (valid[:19], np.full([19, 4], 3, np.int32))  # too few to be measured, and so nothing that is chosen by
    assert len({what_d_knows(d, valid, rows, 1, 9).figures["d_eta"][0] for rows in tests}) == 1
