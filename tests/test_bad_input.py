"""Bad command lines and bad files: each is one line that names what is wrong, and status 2, before any training."""

import io
import json
import os
import pickle
import shlex
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from conftest import cases, refusal
from fault_injection import ROOT, SIZES, TINY, fitting

import main as program
from data.music.dataset import NottinghamData  # noqa: F401, imported before output is captured
from runs import directories
from support.config import FIELDS, Config, UsageError, lacking
from support.parser import Parser, read_flags
from tools import plot_curves, report, sample, sweep, temperatures

COUNTS, REALS, BOOLEANS = ([n for n, f in FIELDS.items() if f.type is kind] for kind in (int, float, bool))
LISTS = ["d_filter_sizes", "d_num_filters", "d_lags"]
MAY_BE_ZERO = {
    *("seed", "oracle_seed", "threads", "d_eval_samples", "candidates", "train_size", "d_draws", "rollout_num"),
    *("pretrain_g_epochs", "pretrain_d_epochs", "total_epochs", "mle_steps", "d_steps", "window_stride"),
    *("scheduled_sampling", "average", "kl_weight", "guide_eta", "objective_weight", "rollout_lag"),
    *("g_pretrain_lr", "g_lr", "d_lr", "d_l2", "distil_real"),
}
DIRECTORIES = ["--log_dir", "train", "--eval_log_dir", "eval"]
NO_ORACLE = [*SIZES, *DIRECTORIES]  # flags for data of other kinds
INTERRUPT = "signal.signal(signal.SIGINT, signal.default_int_handler) and os.kill(os.getpid(), signal.SIGINT)"
NO_CONFIG = ["", "{", "[]", "null", "7", "[" * 100_000, "\xff\xfe\x00", '{"flags": {"total_epochs": 5}}']
NO_CONFIG += [f'{{"flags": {flags}, "run": "a"}}' for flags in ("{}", "3", '{"total_epochs": "5"}')]
NO_CONFIG += [f'{{"flags": {{"total_epochs": 5}}, "run": {run}}}' for run in ("7", '"a", "data": 7', '"a", "files": 7')]


def one_line(capsys, argv: list[str], *words: str, makers: program.Makers = program.MAKERS) -> None:
    error = refusal(capsys, program.main, argv, makers)
    assert all(word in error for word in words), (words, error)


OF_NUMBERS = [
    *((f"--{name} -1", "less than") for name in COUNTS + REALS + LISTS),
    *((f"--{name} 0", "less than") for name in COUNTS + REALS + LISTS if name not in MAY_BE_ZERO),
    *((f"--{name} x", "is not a") for name in COUNTS + REALS + LISTS),
    *((f"--{name} 99999999999", "more than") for name in COUNTS + LISTS),
    *((f"--{name} 1.5", "not an integer") for name in COUNTS),
    *((f"--{name} {value}", "not finite") for name in REALS for value in ("nan", "inf")),
    *((f"--{name} perhaps", "neither true nor false") for name in BOOLEANS),
    *((f"--{name}", "expected") for name in COUNTS + REALS + LISTS),
]
OF_ONE_FLAG = {
    "less than 2": ["--seq_len 1", "--vocab_size 1", "--eval_samples 1"],
    "less than": ["--d_num_filters 5 0", "--seed ' -7\n'"],
    "more than": ["--seq_len 100000", "--seed 2147483648", f"--seed {'9' * 400}", "--g_dropout_keep_prob 1.01"],
    "more than 1": ["--dropout_keep_prob 1.01", "--rollout_lag 1.5", "--objective_weight 1.5"],
    "not a FILE.py:NAME": ["--objective a.py", "--objective :f"],
    "not an integer": ["--seed ''", f"--seed {'9' * 5000}", "--seed '7\n8'", "--d_filter_sizes 1 2 x"],
    "not finite": ["--g_lr 1e999"],
    "beyond float32": ["--g_lr 1e39", "--g_lr 1e-39"],
    "invalid choice": ["--dataset MNIST", "--dataset nottingham", "--preset large", "--baseline mean"],
    "invalid choice: 'h' (choose from g_pretrain, g, d)": ["--cosine_decay g h"],
    "invalid choice: 'mine.py' (choose from discriminator, ": ["--reward mine.py"],
    "'mine.py:' is not a FILE.py:FUNCTION": ["--reward mine.py:"],
    "not 0.01s to 10s, nor": [f"--token_length {x}" for x in ("11s", "0.001s", "5beats", "0.05beats", "1", "x")],
    "neither true nor false": ["--evaluate maybe", "--jit 2"],
    "unrecognized": ["--learning_rate 1", "--batch 5", "--no-seed", "extra", "'two\nlines'"],  # nor abbreviated
    "did you mean --batch_size?": ["--batchsize 5"],
    "did you mean --rollout_num?": ["--roll-out-num=5"],
    "did you mean --seq_len?": ["--Seq_Len 3"],
    "is empty": ["--log_dir ''", "--eval_log_dir ''", "--data_dir ''", "--pretrained ''"],
    "'t/\\udcff.txt' is not UTF-8": ["--log_dir t/\udcff.txt"],
    "expected one argument": ["--log_dir"],
}
OF_NUMBERS += [(words, why) for why, some in OF_ONE_FLAG.items() for words in some]


@pytest.mark.parametrize(("words", "why"), OF_NUMBERS)
def test_a_flag_that_cannot_be(capsys, words, why):
    argv = shlex.split(words)
    more = ["--dataset", "Nottingham"] if argv[0] in ("--token_length", "--data_dir") else []
    one_line(capsys, fitting(TINY, [*argv, *more]), argv[0].split("\n")[0], why)


@cases(
    "words, why",
    ("--d_filter_sizes 1 2 --d_num_filters 5", "--d_filter_sizes has 2 entries and --d_num_filters 1"),
    ("--d_filter_sizes 1 4", "a filter of width 4 is wider than --seq_len 3"),
    ("--discriminator bigram --d_lags 1 1", "--d_lags 1 1: each is another number"),
    *(("--discriminator echo --d_lags 1 4", "at most --seq_len 3"), ("--d_batch_size 5", "--d_batch_size: 5 is odd")),
    ("--g_update distil --reward constant", "--reward has no effect with --g_update distil"),
    ("--discriminator bigram --d_loss likelihood", "no known level: they guide, and are no reward"),
    ("--g_update distil --candidates 1", "--g_update distil keeps one of --candidates: they are 2 or more"),
    ("--discriminator bigram --d_loss expected --d_l2 1", "--d_l2 has no effect with --d_loss expected"),
    ("--g_update distil --d_steps 1", "among candidates of the pretrained generator: --d_steps is 0"),
    ("--g_update distil --teacher a ./a", "--teacher: a name is empty, there twice, or that of --log_dir"),
    ("--g_update distil --teacher a --d_lr 1", "--d_lr has no effect with --teacher"),
    ("--g_update distil --teacher ", "--teacher: expected at least one argument"),
    ("--g_update distil --objective x.py:f --objective_weight 0.5", "the objective alone: --objective_weight is 1"),
    ("--discriminator bigram --g_update distil --pretrain_d_epochs 0", "--pretrain_d_epochs is 1 or more"),
    ("--discriminator bigram --g_update distil --kl_weight 1", "has no reward: --kl_weight is 0"),
    ("--discriminator bigram --g_update distil --mle_steps 1", "the batches of --mle_steps, which is 0"),
    ("--discriminator bigram --g_update fold --reward permuted", "--reward has no effect with --g_update fold"),
    ("--g_update distil --distil_real 1", "--distil_real 1.0 leaves none of a --batch_size of"),
    ("--g_update distil --discriminator bigram --distil_real 0.9", "--distil_real 0.9 leaves none of a --batch_size"),
    ("--g_update distil --teacher a --objective x.py:f --objective_weight 0.5", "has no effect with --teacher"),
    ("--g_update distil --distil_real 0.01", "--distil_real: 0.01 of a --batch_size of 2 is no sequence"),
    ("--reward permuted --batch_size 1", "--reward permuted needs a --batch_size of 2 or more"),
    ("--seq_len 2", "is wider than --seq_len 2; --d_filter_sizes 1 --d_num_filters 2 would do"),
    ("--baseline batch --batch_size 1", "--baseline batch needs a --batch_size of 2 or more"),
    ("--train_size 1", "--train_size: 1 is less than one batch (2)"),
    ("--train_size 3 --d_batch_size 10", "--train_size: 3 is less than one batch (5)"),
    ("--pretrain_g_epochs 0 --total_epochs 0", "--pretrain_g_epochs and --total_epochs are both 0"),
    ("--baseline prefix --rollout_num 0", "--baseline prefix needs a --rollout_num of 1 or more"),
    ("--d_draws 3 --d_batch_size 8", "--d_draws: 3 is less than half a --d_batch_size of 8"),
    ("--d_eval_samples 1", "--d_eval_samples: 1 has no standard error"),
    ("--reward optimal --dataset text --data_dir x", "--reward optimal needs --dataset LSTM"),
    ("--reward bleu", "--reward bleu compares with the training set: with --dataset LSTM give a --train_size"),
    ("--g_update expected", "--g_update expected needs --discriminator bigram or lstm"),
    ("--g_update expected --discriminator bigram --d_draws 9", "--g_update expected needs --reward log_odds"),
    ("--g_update fold --discriminator lstm --d_draws 9 --pretrain_d_epochs 0", "--pretrain_d_epochs and --d_steps are"),
    ("--g_update fold --discriminator lstm --mle_steps 2 --d_draws 9", "--mle_steps and --kl_weight 0"),
    ("--objective a.py:f --objective_weight 0.5 --discriminator lstm --g_update fold", "--g_update sampled"),
    ("--dataset Nottingham --log_dir a --songs_dir ./a", "--log_dir and --songs_dir are both a"),
    ("--overwrite --log_dir a --pretrained ./a/", "--pretrained ./a/: is the --log_dir that --overwrite empties"),
    ("--log_dir a --eval_log_dir ./b/../a/", "--log_dir and --eval_log_dir are both a"),
    ("--preset text400 --data_dir x --d_lags 1 --no-evaluate", "--best_pretraining chooses by evaluations"),
    (f"--no-is_train --log_dir {'x' * 300}", "--no-is_train: no run to evaluate in --log_dir xxx"),
    ("--dataset text", "--dataset text: --data_dir must name a file"),
)
def test_flags_that_contradict_each_other(capsys, here, words, why):
    one_line(capsys, fitting(TINY, shlex.split(words)), why)
    assert not list(here.iterdir())


NO_GAN, NO_D = "with --total_epochs 0", "with --total_epochs and --pretrain_d_epochs 0"
NO_GRADIENT, NO_MLE = "without --g_update sampled or expected", "with --pretrain_g_epochs 0"
NO_REWARD = "without --reward discriminator or permuted or log_odds"
NO_RANDOM = "with --reward random and --kl_weight 0"
NO_ROLLOUTS = "with --g_update expected and without rollouts"
IN_VAIN = [  # beside some flags each of others has no effect, and why
    ("", "data_dir=x sample_every=5", "with --dataset LSTM"),
    ("", "tokens=char min_count=2 long_lines=drop", "without --dataset text"),  # though one is the default's value
    *(("", "g_echo_twice", "without --g_echo"), ("--total_epochs 0 --objective x.py:f", "objective_weight=0.5", NO_D)),
    ("", "window_stride=2 songs_dir=a onsets no-onsets token_length=1s", "without --dataset Nottingham"),
    ("--dataset text --data_dir x", "log_generation", "without --dataset LSTM or Nottingham"),
    ("--dataset text --data_dir x", "oracle_params=x.npz oracle_init=normal", "without --dataset LSTM"),
    ("--dataset Nottingham", "vocab_size=9", "with --dataset Nottingham"),
    ("--oracle_params x.npz", "vocab_size=9 oracle_seed=9 oracle_emb_dim=9", "with --oracle_params x.npz"),
    ("--oracle_params x.npz", "oracle_hidden_dim=9", "with --oracle_params x.npz"),
    ("--total_epochs 0", "g_lr=1 g_steps=2 mle_steps=1 d_steps=1 kl_weight=1 rollout_num=1 rollout_lag=1", NO_GAN),
    ("--total_epochs 0", "baseline=batch g_update=expected cosine_decay=g", NO_GAN),
    ("--total_epochs 0", "discriminator=pooled dropout_keep_prob=1 d_emb_dim=3 d_lr=1 d_epochs=1 d_draws=9", NO_D),
    ("--total_epochs 0", "d_l2=0 d_batch_size=8 d_eval_samples=8 candidates=2 cosine_decay=d", NO_D),
    ("--total_epochs 0 --no-evaluate", "objective=x.py:f", "with --total_epochs 0 and --no-evaluate"),
    ("--total_epochs 0 --pretrain_d_epochs 0", "discriminator=bigram", NO_D),
    ("--pretrain_g_epochs 0", "g_pretrain_lr=1 scheduled_sampling=0.1 pretrained=x", NO_MLE),
    ("--pretrain_g_epochs 0", "cosine_decay=g_pretrain g_dropout_keep_prob=0.5", NO_MLE),
    ("--pretrain_d_epochs 0 --d_steps 0", "d_lr=1 d_draws=64", "with --pretrain_d_epochs and --d_steps 0"),
    ("--no-evaluate", "eval_samples=9 d_eval_samples=8 candidates=2", "with --no-evaluate"),
    ("--reward constant", "d_lr=1 d_steps=1 pretrain_d_epochs=1 discriminator=bigram cosine_decay=d", NO_REWARD),
    ("--reward constant", "rollout_num=2 rollout_lag=0.5", "with --reward constant and --kl_weight 0"),
    ("--objective x.py:f", "reward=log_odds d_steps=2", "with --objective and without --objective_weight below 1"),
    ("--objective x.py:f --objective_weight 0 --reward random", "rollout_num=2", NO_RANDOM),
    *(("", "objective_weight=0.5", "without --objective"), ("--train_size 8", "d_draws=8", "with --train_size 8")),
    ("", "d_loss=token d_lags=2", "without --discriminator bigram or"),
    ("", "d_hidden_dim=9", "without --discriminator pooled or lstm"),
    ("", "guide_eta=1", "without --discriminator bigram or lstm"),
    ("--discriminator bigram", "d_filter_sizes=1 d_num_filters=1", "without --discriminator cnn or pooled"),
    ("--rollout_num 0", "rollout_lag=0.5", "without --rollout_num above 0"),
    ("--d_eval_samples 19", "candidates=3", "without --d_eval_samples of at least 20"),
    ("--discriminator bigram --g_update fold", "g_lr=1 baseline=batch cosine_decay=g", NO_GRADIENT),
    ("--discriminator bigram --g_update expected --reward log_odds --rollout_num 0", "baseline=batch", NO_ROLLOUTS),
    ("--preset molecules --discriminator bigram --g_update fold", "objective_weight=0.5", "with --g_update fold, or"),
]


@cases("words, flag, why", *((words, flag, why) for words, some, why in IN_VAIN for flag in some.split()))
def test_a_flag_without_effect(capsys, here, words, flag, why):
    name = flag.replace("=", " ") if flag.startswith("cosine") else flag.partition("=")[0].removeprefix("no-")
    one_line(capsys, [*shlex.split(words), f"--{flag}"], f"--{name} has no effect {why}")
    assert not list(here.iterdir())


@cases(
    "words",
    "--preset music --total_epochs 0",  # of a preset's values some may have none
    "--preset music --batch_size 1",
    "--preset poems --seq_len 8 --discriminator lstm",
    "--preset paper --oracle_params x.npz",
    "--total_epochs 0 --pretrain_d_epochs 2 --d_lr 1 --d_eval_samples 8 --cosine_decay d",
    "--total_epochs 0 --discriminator bigram --d_lr 1 --guide_eta 2",
    "--total_epochs 0 --seq_len 3 --d_filter_sizes 1 --d_num_filters 2",  # which have to fit
    "--total_epochs 0 --reward constant",
    "--total_epochs 0 --train_size 9 --batch_size 4",  # fewer than half a minibatch of D, which is not trained
    "--total_epochs 0 --objective x.py:f --eval_samples 9",  # whose scores are measured
    "--pretrain_g_epochs 0 --mle_steps 1 --g_dropout_keep_prob 0.5",
    "--reward constant --kl_weight 1 --rollout_num 2",
    "--no-evaluate --eval_every 5 --log_generation",  # lines of progress, pictures
)
def test_flags_that_have_an_effect(words):
    read_flags(shlex.split(words))


def test_each_flag_has_an_effect_somewhere():
    worlds = [Config(), Config(dataset="Nottingham", g_echo=True), Config(dataset="text"), Config(discriminator="lstm")]
    worlds += [Config(objective="x.py:f", objective_weight=0.5), Config(mle_steps=1, pretrain_g_epochs=0)]
    worlds += [Config(discriminator="bigram", g_update="distil")]
    assert not [name for name in FIELDS if all(lacking(config, name) for config in worlds)]


@cases(
    "tool, words, name",
    *((sweep, ["a.toml", "--logs", ""], "--logs"), (report, ["a.toml", "-o", "b", "--logs", ""], "--logs")),
    *((report, ["a.toml", "-o", ""], "-o/--output"), (plot_curves, ["a", "-o", ""], "-o/--output")),
    *((temperatures, ["a", "-o", ""], "-o/--output"), (sample, [""], "LOGDIR")),
)
def test_an_empty_name_is_not_the_current_folder(capsys, tool, words, name):
    assert refusal(capsys, tool.main, words).endswith(f": error: argument {name}: an empty name\n")


@pytest.fixture
def logs(here) -> list[str]:
    (here / "file").write_text("in the way")
    (here / "loop").symlink_to("loop")
    (here / "lock-is-a-folder" / "lock").mkdir(parents=True)
    return [*TINY, *DIRECTORIES]


@pytest.mark.parametrize("path", ["train", "a/b/train"])
def test_directories_come_before_data_and_are_not_left_behind(capsys, logs, tmp_path, path):
    read = []

    def unreadable(*_):
        read.append((tmp_path / path).is_dir())
        raise UsageError("--data_dir: unreadable")

    makers, argv = program.MAKERS._replace(data=unreadable), [*logs, "--log_dir", path]
    one_line(capsys, [*argv, "--eval_log_dir", "file"], "--eval_log_dir file: File exists", makers=makers)
    assert not read
    before = sorted(tmp_path.rglob("*"))
    one_line(capsys, argv, "unreadable", makers=makers)
    assert read == [True] and sorted(tmp_path.rglob("*")) == before
    (tmp_path / path).mkdir(parents=True)
    (tmp_path / path / "notes.txt").write_text("mine")
    one_line(capsys, argv, "unreadable", makers=makers)
    assert [entry.name for entry in (tmp_path / path).iterdir()] == ["notes.txt"]


@cases(
    "path, why",
    *(("file", "File exists"), ("file/train", "Not a directory"), ("/dev/null", "File exists")),
    *(("/dev/null/x", "Not a directory"), ("/proc/nowhere/x", "No such file"), ("loop/x", "symbolic links")),
    *(("x" * 300, "File name too long"), ("lock-is-a-folder", "Is a directory")),
)
@pytest.mark.parametrize("flag", ["--log_dir", "--eval_log_dir"])
def test_a_directory_that_cannot_be_used(capsys, logs, flag, path, why):
    one_line(capsys, [*logs, flag, path], f"{flag} {path}", why)


def test_a_lock_on_a_file_that_is_gone_holds_nothing(monkeypatch, tmp_path):
    gone, flock = [tmp_path / "lock"], directories.fcntl.flock  # by the process that had made it, once it is open here
    monkeypatch.setattr(directories.fcntl, "flock", lambda *given: (gone and gone.pop().unlink()) or flock(*given))
    with directories.RunDirectory(str(tmp_path), "--log_dir"), pytest.raises(UsageError, match="another process"):
        directories.RunDirectory(str(tmp_path), "--log_dir")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_directory_without_rights(capsys, logs, tmp_path):
    tmp_path.chmod(0o500)
    one_line(capsys, logs, "--log_dir train", "Permission denied")
    tmp_path.chmod(0o700)


@pytest.mark.parametrize("content", NO_CONFIG, ids=range(len(NO_CONFIG)))
def test_a_config_json_that_is_none(capsys, logs, tmp_path, content):
    (tmp_path / "train").mkdir()
    path = tmp_path / "train" / "config.json"
    path.write_text(content, encoding="latin-1")
    one_line(capsys, logs, "config.json: not a readable configuration")
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["config.json"]


def test_nothing_to_evaluate(capsys, logs, tmp_path):
    for _ in range(2):
        one_line(capsys, [*logs, "--no-is_train"], "--no-is_train: no run to evaluate in --log_dir train")
        (tmp_path / "train").mkdir(exist_ok=True)
    assert not list((tmp_path / "train").iterdir())


def arrays(**changed) -> dict[str, np.ndarray]:
    """An oracle of 4 tokens, with some arrays changed or, where None, left out."""
    shapes = {"embedding": (4, 2), "W_out": (3, 4), "b_out": (4,)}
    for gate in "ifoc":
        shapes |= {f"W_{gate}": (2, 3), f"U_{gate}": (3, 3), f"b_{gate}": (3,)}
    content = {name: np.ones(shape, np.float32) for name, shape in shapes.items()} | changed
    return {name: array for name, array in content.items() if array is not None}


def npz(**changed) -> bytes:
    file = io.BytesIO()
    np.savez(file, allow_pickle=True, **arrays(**changed))
    return file.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def header(shape: str, dtype: str = "<f4") -> bytes:
    """An .npy file that is all promise."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def declaring(size: int) -> bytes:
    """A zip file whose only member claims a size."""
    content = bytearray(zipped({"embedding.npy": b"x"}))
    directory = content.index(b"PK\x01\x02")
    content[directory + 24 : directory + 28] = size.to_bytes(4, "little")
    return bytes(content)


class Payload:
    """What a pickle can do."""

    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


DAMAGED = "--oracle_params oracle.npz: not an oracle's .npz file ("
OF_ORACLES: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", DAMAGED),
    "text": (lambda: b"not an oracle\n" * 100, f"{DAMAGED}File is not a zip file)"),
    "an npy file": (lambda: header("(2,)") + bytes(8), DAMAGED),
    "a pickle": (lambda: pickle.dumps(Payload()), DAMAGED),
    "cut short": (lambda: npz()[:-30], DAMAGED),
    "cut in half": (lambda: npz()[: len(npz()) // 2], DAMAGED),
    "a flipped bit": (lambda: npz().replace(b"\x80\x3f", b"\x80\x3e", 1), DAMAGED),
    "a flipped bit in deflated data": (lambda: zipped({"embedding.npy": npz()}).replace(b"e", b"f"), DAMAGED),
    "objects": (lambda: npz(embedding=np.array([Payload()], object)), DAMAGED),
    "an empty zip": (lambda: zipped({}), "array embedding is missing"),
    "members that are no arrays": (lambda: zipped({"embedding": b"x", "b_i": b"y"}), "embedding has shape []"),
    "a header of 10^12 numbers": (lambda: zipped({"embedding.npy": header("(1000000, 1000000)")}), DAMAGED),
    "a header of 10^30 numbers": (lambda: zipped({"embedding.npy": header("(1" + "0" * 30 + ",)")}), DAMAGED),
    "a negative shape": (lambda: zipped({"embedding.npy": header("(-1, 2)")}), DAMAGED),
    "a header that is code": (lambda: zipped({"embedding.npy": header("__import__('os').getpid()")}), DAMAGED),
    "a header of another type": (lambda: zipped({"embedding.npy": header("(2,)", "<x9")}), DAMAGED),
    "a claim of 4 GB": (lambda: declaring(2**32 - 2), DAMAGED),
    "another shape of U_f": (lambda: npz(U_f=np.ones((3, 4), np.float32)), "U_f has shape [3, 4], not [3, 3]"),
    "another shape of W_out": (lambda: npz(W_out=np.ones((4, 3), np.float32)), "W_out has shape [4, 3], not [3, 4]"),
    "a flat embedding": (lambda: npz(embedding=np.ones(8, np.float32)), "embedding has shape [8]"),
    "a scalar b_i": (lambda: npz(b_i=np.float32(1)), "b_i has shape []"),
    "no numbers": (lambda: npz(embedding=np.ones((0, 2), np.float32)), "embedding has shape [0, 2]"),
    "integers": (lambda: npz(b_out=np.ones(4, np.int64)), "b_out must hold finite floating-point numbers"),
    "complex numbers": (lambda: npz(b_out=np.ones(4, np.complex64)), "b_out must hold"),
    "words": (lambda: npz(b_out=np.array(["a"] * 4)), "b_out must hold"),
    "NaN": (lambda: npz(W_c=np.full((2, 3), np.nan, np.float32)), "W_c must hold finite"),
    "infinity": (lambda: npz(U_o=np.full((3, 3), -np.inf, np.float32)), "U_o must hold finite"),
    "more than float32 holds": (lambda: npz(b_f=np.full(3, 1e300)), "b_f must hold finite"),
} | {f"no {name}": (lambda name=name: npz(**{name: None}), f"array {name} is missing") for name in arrays()}


@pytest.mark.filterwarnings("error")  # a warning would be a line more
@pytest.mark.parametrize("what", OF_ORACLES)
def test_an_oracle_file_that_is_none(capsys, logs, tmp_path, what):
    make, why = OF_ORACLES[what]
    (tmp_path / "oracle.npz").write_bytes(make())
    one_line(capsys, [*NO_ORACLE, "--oracle_params", "oracle.npz"], "oracle.npz", why)
    assert not (tmp_path / "train").exists() and not (tmp_path / "executed").exists()


@cases("path, why", ("absent.npz", "No such file"), (".", "directory"), ("/dev/null", "zip"))
def test_an_oracle_file_that_is_not_there(capsys, logs, path, why):
    one_line(capsys, [*NO_ORACLE, "--oracle_params", path], f"--oracle_params {path}", why)


OF_LINES = {
    "absent": ({}, "", "--data_dir lines: neither a file nor a folder"),
    "no training part": ({"valid": b"ab\n"}, "", "--data_dir lines: the folder holds no train.txt"),
    "a part not UTF-8": ({"train": b"ab\nba\n", "test": b"ab\n\xe9\n"}, "", "test.txt: line 2 is not UTF-8"),
    "all held out": (b"bca\n", "", "no line to train on; the split leaves none of 1 for training"),
    "empty": (b"", "", "--data_dir lines: no line to train on"),
    "one token": (b"aaa\na\naa\n" * 20, "", "a vocabulary of 1 token: nothing to choose from"),
    "rare tokens": (b"abc\n" * 20, "--min_count 99", "--min_count 99"),
    "a cap too low": (b"abc\n" * 20, "--vocab_size 3", "--vocab_size 3"),
    "long lines alone": (b"abcdef\n" * 20, "--long_lines drop", "no line to train on; 20 are longer than --seq_len 3"),
}


@pytest.mark.parametrize("what", OF_LINES)
def test_lines_that_cannot_be_used(capsys, logs, tmp_path, what):
    content, flags, why = OF_LINES[what]
    for name, part in content.items() if isinstance(content, dict) else [("", content)]:
        path = tmp_path / "lines" / f"{name}.txt" if name else tmp_path / "lines"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(part)
    one_line(capsys, [*NO_ORACLE, "--dataset", "text", "--data_dir", "lines", *flags.split()], why)
    assert not (tmp_path / "train").exists()


def test_out_of_memory(capsys, logs):
    makers = program.MAKERS._replace(data=Mock(side_effect=MemoryError("Unable to allocate 7 TiB")))
    one_line(capsys, logs, "out of memory (Unable to allocate 7 TiB)", "--batch_size", makers=makers)


def test_an_interrupt_while_the_program_or_a_tool_imports(logs, tmp_path, monkeypatch):
    """TensorFlow, or more, before its `main` begins; other errors then keep their traceback. Keras has its defaults."""
    process = subprocess.Popen([sys.executable, ROOT / "main.py", *logs], stderr=subprocess.PIPE, text=True)
    time.sleep(0.7)
    process.send_signal(signal.SIGINT)
    assert (process.wait(timeout=30), process.stderr.read()) == (-signal.SIGINT, "")
    (tmp_path / "keras.json").write_text('{"floatx": "float16", "backend": "jax"}')
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    error = "1 / (support.quiet.keras.config.floatx() != 'float32')", 1, ["ZeroDivisionError: division by zero"]
    for code, status, last in ((INTERRUPT, -signal.SIGINT, []), error):
        words = [sys.executable, "-c", f"import os, signal, support.quiet\n{code}"]
        done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
        assert (done.returncode, done.stderr.splitlines()[-1:]) == (status, last)


def test_nothing_is_wrong_with_the_flags_that_the_others_change(capsys, logs, tmp_path):
    """So each failure above is its own; and a number in float64 is as good as one in float32."""
    (tmp_path / "oracle.npz").write_bytes(npz(b_f=np.ones(3)))
    few = "--pretrain_g_epochs 1 --total_epochs 0 --pretrain_d_epochs 0 --no-evaluate --oracle_params oracle.npz"
    assert program.main(fitting(SIZES, ["--log_dir", "train", *few.split()])) == 0
    described = json.loads((tmp_path / "train" / "config.json").read_text())
    assert described["flags"]["oracle_params"] == "oracle.npz" and capsys.readouterr().err == ""


@cases(
    "error, output, line",
    *((OSError("disk\nfull"), "x.csv", "x.csv: disk"), (ValueError("two\nlines"), "x.csv", "two lines")),
    (FileNotFoundError(2, "No such file", "a.csv"), "x.csv", "a.csv: No such file"),
)
def test_how_a_tool_ends_where_something_cannot_be_used(capsys, error, output, line):
    parser = Parser(prog="tool.py")
    with pytest.raises(SystemExit) as stop, parser.failing_in_one_line(output):
        raise error
    assert stop.value.code == 2 and capsys.readouterr().err == f"tool.py: error: {line}\n"


def test_a_tool_whose_output_nobody_takes():
    """A full disk is an error, a reader that has seen enough is none; Ctrl-C ends it without a traceback."""
    code = "import os, signal; from support.streams import run_tool; run_tool(lambda: {} or 0)"
    full = (2, "-c: error: stdout: No space left on device\n")
    for words, way, expected in (
        *(("print('±')", "> /dev/full", full), ("exit(print('±'))", "> /dev/full", full)),
        *(("print('±')", ">&-", (0, "")), ("print('±' * 10**6)", "| true", (0, "")), (INTERRUPT, "", (130, ""))),
    ):
        command = f"{shlex.join([sys.executable, '-c', code.format(words)])} {way}; exit ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT)
        assert (done.returncode, done.stderr) == expected, (words, way)
    apart = {"main.py", "tools/sweep.py", "tools/train_and_choose.py"}  # which go on without a reader
    paths = [path for path in ROOT.glob("*/*.py") if path.parent.name != "tests"]
    tools = {str(path.relative_to(ROOT)): text for path in paths if "\nif __name__" in (text := path.read_text())}
    assert [name for name, text in tools.items() if not text.endswith("    run_tool(main)\n")] == sorted(apart)[1:]
