"""A user's own discriminator, reward and data set, FILE.py:NAME: they train, resume bit for bit, fail in one line."""

import json
from pathlib import Path

import pytest
import toy
from conftest import SIZES, TINY, cases, refusal, resumed_alike, train
from fault_injection import timeless_rows

from main import Makers
from tools.restored import restore

CODE = '''
import numpy as np
import tensorflow as tf
from data.real import Dataset
from data.training_set import training_data
from discriminator import Discriminator
from generator import TokenSpec


class Slopes(Discriminator):
    """Its first variable is a vector."""

    def __init__(self, spec, options):
        super().__init__(spec, options)
        self.slopes = self.add_weight(shape=[spec.vocab_size], initializer="zeros", name="slopes")
        self.scale = self.add_weight(shape=[3, 2], initializer="ones", name="scale")

    def log_odds(self, tokens, dropout_seed=None):
        return tf.reduce_sum(tf.gather(self.slopes, tokens), axis=1) * tf.reduce_mean(self.scale)


def ascending(tokens):
    return tf.reduce_mean(tf.cast(tokens[:, 1:] > tokens[:, :-1], tf.float32), axis=1)


class Squares(Dataset):
    kind = "squares"

    def __init__(self, config):
        rows = np.arange(60).reshape(-1, 1) ** np.arange(1, 1 + config.seq_len) % config.vocab_size
        rows = rows.astype(np.int32)
        self.spec, self.origin = TokenSpec(config.vocab_size, config.seq_len), "--dataset squares"
        self.training, self.valid, self.test = training_data(rows[:40], config, "rows"), rows[40:50], rows[50:]
'''
KINDS = {"discriminator": "Slopes", "reward": "ascending", "dataset": "Squares"}  # what each flag names
FEW = ["--no-evaluate", "--pretrain_g_epochs", "1", "--total_epochs", "0", "--pretrain_d_epochs", "0"]
FLAGS = pytest.mark.parametrize("flag", KINDS)


@pytest.fixture
def own(here) -> Path:
    (here / "own.py").write_text(CODE)
    return here / "own.py"


def words_of(flag: str, name: str = "") -> list[str]:
    sizes = [*SIZES, "--vocab_size", "5"] if flag == "dataset" else TINY
    return [*sizes, f"--{flag}", f"own.py:{name or KINDS[flag]}"]


def one_line(capsys, argv: list[str], *parts: str, makers: Makers | None = None) -> None:
    err = refusal(capsys, train, [*argv, "--log_dir", "whole/train", "--eval_log_dir", "whole/eval"], makers)
    assert all(part in err for part in parts), err


@pytest.mark.parametrize(("flags", "step"), [(["discriminator", "dataset"], 6), (["reward"], 5)])
def test_it_trains_and_resumes_bit_for_bit(own, flags, step):
    words = [*words_of(flags[-1]), "--checkpoint_every", "2"]
    words += ["--discriminator", "own.py:Slopes"] if "discriminator" in flags else []
    own.write_text(code := defaults("d_lr=0.1, d_lags=[1]"))
    assert not resumed_alike(own.parent, words, step)
    rows = timeless_rows(own.parent / "whole" / "train")
    content = json.loads((own.parent / "whole" / "train" / "config.json").read_text())
    assert all(content[flag] == {"function": KINDS[flag], "text": code} for flag in flags)
    restored = restore(own.parent / "whole" / "train")
    if "discriminator" in flags:
        assert rows[5]["d_pretrain_loss"] != rows[4]["d_pretrain_loss"] and rows[-1]["d_loss"]
        assert all(abs(restored.seqgan.discriminator.slopes.numpy()) > 0.01)
        assert timeless_rows(own.parent / "whole" / "eval")[-1]["nll_valid"]
        assert (restored.data().valid < 5).all() and restored.data().valid.shape == (10, 3)
    else:
        assert not rows[-1]["d_loss"] and float(rows[-1]["g_reward"]) * 16 % 1 == 0  # of 4 · 2 moves, 2 rollouts
    own.write_text("gone = [")
    assert "dataset" in flags or restore(own.parent / "whole" / "train").taken > 0  # tools go by what is on record


@FLAGS
def test_changed_code_is_refused_and_the_run_keeps_what_it_has(own, capsys, flag):
    makers, logs = toy.makers(valid=False), ["--log_dir", "whole/train", "--eval_log_dir", "whole/eval"]
    assert train([*words_of(flag), *logs], makers) == 0
    own.write_text(CODE.replace("60", "61").replace("mean", "sum"))
    said = f"--{flag}: the code of {KINDS[flag]} changed", "config.json", "--overwrite"
    one_line(capsys, words_of(flag), *said, makers=makers)
    assert train([*words_of(flag), *logs, "--overwrite"], makers) == 0


@FLAGS
@cases(
    "code, why",
    ("import numpy\nx = [1,\n", "own.py: line 2: SyntaxError"),
    ("import numpy\n\nimport nowhere_at_all\n", "own.py: line 3: ModuleNotFoundError"),
    ("raise SystemExit(3)\n", "own.py: line 1: SystemExit: 3"),
    *(("def other(): pass\n", "own.py: has no function or class"), (None, "own.py: No such file or directory")),
)
def test_a_file_that_cannot_be_used_is_one_line(own, capsys, flag, code, why):
    own.unlink() if code is None else own.write_text(code)
    one_line(capsys, words_of(flag), f"--{flag} {why}")
    assert not (own.parent / "whole").exists()


def test_files_of_own_data_are_the_runs(own, capsys):
    """They go with --overwrite; a song in --log_dir that is no run's stays."""
    words = [*words_of("dataset"), *FEW, "--log_dir", "whole/train"]
    for content in ("a b", "c"):
        own.write_text(CODE + f'\n    def files(self):\n        return {{"words.txt": "{content}"}}\n')
        assert train([*words, "--overwrite"]) == 0 and (own.parent / "whole/train/words.txt").read_text() == content
    own.write_text(CODE.replace('"squares"', '"music"\n    grid = tunes = ()'))
    (own.parent / "other").mkdir()
    (own.parent / "other/sample0.mid").write_text("mine")
    assert "sample0.mid there is no run's" in refusal(capsys, train, [*words, "--log_dir", "other"])


def test_own_data_of_an_oracle_need_no_test_set(own, capsys):
    own.write_text("from data.oracle import OracleData\n\n\nclass Squares(OracleData):\n    pass\n")
    assert train([*words_of("dataset"), *FEW, "--log_dir", "whole"]) == 0
    one_line(capsys, [*words_of("dataset"), *FEW[1:], "--best_pretraining"], "nll_valid is not measured on ")


def broken(line: str) -> str:
    """The code with something that fails before a line of it."""
    return CODE.replace(line, line[: len(line) - len(line.lstrip())] + "tokens.nothing()\n" + line)


def defaults(words: str) -> str:
    """A discriminator that brings these values of flags, at the end of the code."""
    return CODE.replace("class Slopes", "class Base") + f"\n\nclass Slopes(Base):\n    defaults = dict({words})\n"


SCALED, MODULO, SPEC = " * tf.reduce_mean(self.scale)", "% config.vocab_size", "c(config.vocab_size, config.seq_len)"
LATER = CODE.replace("import ten", "import keras\nimport ten").replace(SCALED, " * self.later(self.scale)[0, 0]")
LATER = LATER.replace("        self.scale =", "        self.later = keras.layers.Dense(1)\n        self.scale =")
HELD = LATER.replace("later = keras.layers.Dense(1)", "held = [keras.layers.Dense(1)]").replace("later", "held[0]")
HELD = HELD.replace("scale = ", "scale = 1\n        self.held[0].build([3, 2])\n        self.scale = ")
DROPPED = LATER.replace("Dense(1)", "Dropout(0.5)").replace("(self.scale)[", "(self.scale, training=True)[")
STEPS = "from guidance.additive import LSTMDiscriminator\n\n\nclass Slopes(LSTMDiscriminator):\n"
STEPS += "    def next_state(self, tokens, memory):\n        return super().next_state(0 * tokens, memory)\n"
WIDER = STEPS + "    def contexts(self, *x):\n        return super().contexts(*x)._replace(cell=self.embedding(x[0]))\n"
LOSS = "    def loss(self, tokens, labels, seed):\n        return tf.reduce_sum(self.slopes), tf.constant(0.0)\n"
BATCHES = "\n    def mle_batches(self, epoch):\n        return self.valid[None]"
LOG_ODDS, REWARD = "        return tf.reduce_sum(tf.gather", "    return tf.reduce_mean(tf.cast(tokens"


@cases(
    "flag, code, why",
    ("discriminator", CODE.replace("[spec.vocab_size]", "[spec.size]"), "own.py: line 15: AttributeError"),
    ("discriminator", broken(LOG_ODDS), "own.py: line 19: AttributeError"),
    ("discriminator", CODE.replace("tokens), axis=1", "tokens), axis=1, keepdims=True"), "shape (4, 1) for 4 sequ"),
    ("discriminator", CODE.replace("n tf.reduce_sum", "n tf.zeros(4, 'double')  #"), "float64 of shape (4,)"),
    ("discriminator", CODE.replace("self.add_weight", "tf.zeros([5])  #"), "has no weight to train; a fixed"),
    ("discriminator", CODE.replace(SCALED, ""), "does not depend on the weight discriminator/sc"),
    ("discriminator", defaults("") + LOSS, "Slopes: loss does not depend on the weight "),
    *(("discriminator", HELD, "checkpoints leave out the weight "), ("discriminator", STEPS, "next_state after 1 tok")),
    (
        "discriminator",
        CODE.replace(SCALED, SCALED + " * tf.random.uniform([], seed=1)"),
        "draws numbers without `dropout_seed`",
    ),
    ("discriminator", DROPPED, "draws numbers without `dropout_seed` (Keras' Dropout)"),
    ("discriminator", defaults("") + LOSS.replace("tf.reduce_sum(self.slopes)", "self.slopes"), "loss, accuracy and c"),
    ("discriminator", WIDER, ", not (rank + added_dim, memory_dim) = ("),
    ("discriminator", LATER, "Slopes makes 2 weights after its constructor; build each layer there"),
    ("reward", broken(REWARD), "own.py: line 23: AttributeError"),
    ("reward", CODE.replace("tokens[:, 1:] >", "tokens.numpy()[:, 1:] >"), "own.py: line 23: "),  # none in a graph
    ("reward", CODE.replace("tokens[:, 1:]", "tf.strings.length(tf.strings.as_string(tokens[:, 1:]))"), "t compile a"),
    ("reward", CODE.replace("tf.float32), axis=1", "tf.float32), axis=0"), "shape (2,) for 4 sequences"),
    ("reward", CODE.replace("return tf.reduce_mean", "tf.reduce_mean"), "ascending returns a NoneType for 4 "),
    ("reward", CODE.replace("> t", "> tf.cast(tf.random.truncated_normal([2], seed=1), tf.int32) + t"), "state (Trunc"),
    ("reward", CODE.replace("def a", "n = tf.Variable(1)\ndef a").replace("> t", "> n.assign_add(1) + t"), "state (A"),
    ("reward", CODE.replace("32), axis=1)", "32), axis=1) + np.random.random()"), "two calls of its function"),
    ("reward", CODE.replace("tf.float32), axis=1", "tf.complex64), axis=1"), "no tensor of real numbers"),
    ("dataset", CODE.replace("config.seq_len)", "config.length)"), "own.py: line 30: AttributeError"),
    ("dataset", CODE.replace(MODULO, "% 4").replace(SPEC, "c(5, 3, 5, 4)"), "start_token is 5, which is pa"),
    ("dataset", CODE.replace(MODULO, "% 4").replace(SPEC, "c(5, 3, 4, 4)"), "start_token is 4, which is end_token; 6"),
    ("dataset", CODE.replace("config.seq_len)", "2)").replace("1 + 2)", "3)"), "sequences of 2 tokens; --seq_len is 3"),
    ("dataset", CODE.replace(SPEC, "c(5, 3, 6, 4)"), "not the padding 5 after each end"),
    ("dataset", CODE + BATCHES, "[1, 10, 3], not int32 [1, 4, 3]"),
    ("dataset", CODE.replace(MODULO, "% 6"), "has token ids from 0 to 5, not from 0 to 4"),
    ("dataset", CODE.replace("rows[:40]", "rows[:40] - (rows[:40] > 3) * np.int32(9)"), "has token ids from -5 to 3,"),
    ("dataset", CODE.replace("rows[40:50]", "rows[40:50, :2]"), "valid is int32 [10, 2], not int32 [n, 3]"),
    ("dataset", CODE.replace("rows[40:50]", "[rows[40], rows[41, :2]]"), "valid is a list, not a NumPy array"),
    ("dataset", CODE + BATCHES.replace("mle_batches", "real"), "real is int32 [1, 10, 3], not int32 [4, 3]"),
    *(("dataset", CODE.replace("[:40]", "[:0]"), "no rows"), ("dataset", CODE.replace('"sq', '"music" #'), "need g")),
    ("dataset", CODE.replace(SPEC, "c(5, 3, -1)"), "start_token is -1, which is no token id"),
    ("dataset", CODE.replace(SPEC, "c('5', 3, 5)"), "spec is TokenSpec(vocab_size='5', "),
    ("dataset", CODE.replace("TokenSpe" + SPEC, "None"), "spec is None, not a TokenSpec of whole"),
    ("dataset", CODE + "\n    def files(self):\n        return {'../a': 'b'}\n", "files has '../a', which is no n"),
    ("dataset", CODE + "\n    def digests(self):\n        pass\n", "digests are None, not texts by"),
    *(("dataset", CODE.replace(f"self.{name}", "self.a"), f"has no attribute '{name}'") for name in ("origin", "test")),
    *((flag, CODE.replace(cut, ""), "Type") for flag, cut in [("discriminator", ", options"), ("dataset", ", config")]),
    ("discriminator", defaults("").replace("dict()", "{'d_lr'}"), "defaults are {'d_lr'}, not values by the names"),
    ("discriminator", defaults("d_lr=-1.0"), "its defaults: argument --d_lr: -1.0 is less than 0"),
    ("discriminator", defaults("") + "    additive = True\n", "additive, but no AdditiveDiscriminator"),
)
def test_an_error_in_ones_own_code_is_one_line_that_tells_where(own, capsys, flag, code, why):
    own.write_text(code)
    one_line(capsys, [*words_of(flag), *["--jit"] * (flag == "reward")], f"--{flag}", why)
    assert not (own.parent / "whole").exists()


def test_an_error_of_its_decode_is_one_line_too(own, capsys):
    own.write_text(CODE + "\n    def decode(self, rows):\n        return rows.nothing\n")
    one_line(capsys, [*words_of("dataset"), "--objective", "own.py:ascending"], "--dataset own.py: line 36: Attribute")


@cases(
    "flag, name, why",
    *(("discriminator", "praise", "pooled"), ("reward", "praise", "log_odds"), ("dataset", "praise", "Nottingham")),
    *(("discriminator", "own.py:", "FILE.py:CLASS"), ("discriminator", "own.py:ascending", "not a subclass of disc")),
    ("dataset", "own.py:ascending", "not a subclass of data.real.Dataset"),
)
def test_what_a_flag_can_not_name_is_refused(own, capsys, flag, name, why):
    one_line(capsys, [*(SIZES if flag == "dataset" else TINY), f"--{flag}", name], f"--{flag}", name, why)
