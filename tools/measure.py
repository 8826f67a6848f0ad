"""Measures samples of any program: python tools/measure.py FILE --train FILE --test FILE [--run LOGDIR] [--csv FILE].

FILE has a sample a line, as text; or it is a folder of tunes, MIDI or, if it has none, ABC, and --train and --test are
folders of tunes as training reads them. Real data stand beside each figure: as many lines, or windows of tunes, of
--train; those of --test where that would tell nothing, in copies and NLL. Self-BLEU grows with the number of samples,
so compare at equal -n.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import support.quiet  # noqa: F401 - before TensorFlow

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from data.music import dataset, folder
from data.music.tokens import Grid, before_end, to_pitches
from data.text import MAX_HELD_OUT, Lines, Vocabulary, read_lines, tokenise
from data.training_set import TrainingData, spread
from evaluation.evaluator import nats
from evaluation.metrics import column, table
from evaluation.ngrams import bleu, distinct, self_bleu
from evaluation.policy import MeasuredPolicy
from evaluation.run import EVALUATORS
from evaluation.text import ORDERS, by_order
from generator import Policy, TokenSpec
from model import build
from runs.directories import spare, write_whole
from runs.logs import with_errors
from support.config import FIELDS, Config
from support.device import configure_tensorflow
from support.errors import DataError, UsageError
from support.parser import Parser, new_file, number
from support.presets import CAPTIONS, PRESETS
from support.statistics import Figures, ratio_and_error
from support.streams import run_tool
from tools.report import REAL
from tools.restored import Restored, replaces, restore
from tools.study import points_text

MAX_SEQ_LEN = FIELDS["seq_len"].metadata["high"]
UPDATES = 1000  # of the LSTM of --reverse, each by a batch; its sizes are those of --preset captions
OF_TEST = ("copied_share", "longest_copy")  # of real data, as all of --train copies --train


class Parts(NamedTuple):
    """What is measured: sequences, int32 [n, T], and what a data set's evaluator compares them with."""

    samples: np.ndarray
    real: np.ndarray  # of --train, as many
    data: Any  # as an evaluator of its `kind` reads it, with the `test` sequences
    learnt: Sequence[np.ndarray]  # samples, real and test sequences for --reverse and a run
    spec: TokenSpec  # of those
    more: Sequence[Figures]  # figures of `samples` and of `real` beside those of the evaluator


def told(what: str) -> None:
    """Tells what was left out, on stderr."""
    print(f"measure.py: {what}", file=sys.stderr)


def enough(count: int, real: int, asked: Any, what: str) -> int:
    """How many samples of `count` are measured, with `real` ones of --train; raises DataError: there are too few."""
    size = min(asked.n or count, count)
    if size < 2:
        raise DataError(f"{asked.file}: {size} {what}, and two or more are needed")
    if asked.n and asked.n > count:
        raise DataError(f"-n {asked.n}: {asked.file} has {count:,} {what}")
    if real < size:
        raise DataError(f"--train {asked.train}: {real:,} {what}, fewer than {size:,} samples; -n {real} would do")
    return size


def lines_of(path: Path, kind: str) -> list[Sequence[str]]:
    """The tokens of each line that has any; raises DataError: there is none, or it is no text; OSError."""
    lines = list(read_lines(path))
    found = [tokenise(line, kind) for line in lines if line.strip()]
    if not found:
        raise DataError(f"{path}: no line of text")
    if len(found) < len(lines):
        empty = len(lines) - len(found)
        told(f"{path}: {empty:,} empty line{'s' * (empty > 1)} skipped")
    return found


def text(asked: Any, run: Restored | None) -> Parts:
    """Lines of text, all as they are written, and by the tokens of a run or --train; raises UsageError, OSError."""
    kind = run.config.tokens if run else asked.tokens or "char"
    files = lines, train, test = [lines_of(path, kind) for path in (asked.file, asked.train, asked.test)]
    count = enough(len(lines), len(train), asked, "lines of text")
    longest = max(len(line) for found in files for line in found)
    length = run.config.seq_len if run else asked.seq_len or min(longest, MAX_SEQ_LEN)
    if longest > length:
        told(f"lines are cut to {length:,} tokens; the longest has {longest:,}")
    # Only LSTMs have unknown tokens: the run's, or what occurs once in --train.
    known = Vocabulary.count([*lines, *train, *test], kind, 2**31, 1)
    seen = run.vocabulary() if run else Vocabulary.count(train, kind, 2**31, 2)
    if run and (unknown := sum(token not in seen.ids for line in lines for token in line)):
        told(f"{unknown / sum(map(len, lines)):.1%} of the tokens of {asked.file} are unknown to the run")

    def packed(vocabulary: Vocabulary) -> list[Lines]:
        return [Lines(vocabulary, length, (vocabulary.encode(line[:length]) for line in found)) for found in files]

    def figures(rows: np.ndarray, found: Sequence[Sequence[str]]) -> Figures:
        """Distinct n-grams of sequences, and Texygen's BLEU and self-BLEU of the lines as they are written."""
        stripped, written = known.strip(rows), [found[i] for i in spread(np.arange(len(found)), count)]
        shares = {f"distinct{n}": distinct(stripped, n) for n in (2, 3) if sum(len(row) >= n for row in stripped) > 1}
        texygen = by_order("texygen_bleu", bleu(written, test, ORDERS))
        return shares | texygen | by_order("texygen_self_bleu", self_bleu(written, ORDERS))

    sizes, parts = (count, count, MAX_HELD_OUT), packed(known)
    samples, real, held = map(spread, parts, sizes)
    measured, spec = (TokenSpec(each.size, length, each.start, each.end) for each in (known, seen))
    data = SimpleNamespace(kind="text", vocabulary=known, lines={"train": parts[1]}, test=held, spec=measured)
    data.decode, data.valid = known.decode, held[:0]
    learnt = list(map(spread, packed(seen), sizes))
    return Parts(samples, real, data, learnt, spec, [figures(samples, lines), figures(real, train)])


def melodies(path: Path, grid: Grid, whole: bool, transpose: str) -> list[np.ndarray]:
    """The tunes of a folder, int32 [length] each; raises DataError: no tune.

    `whole` are the samples: with rests at both ends, and without tunes.abc beside others, which has theirs. Else they
    are the tunes that training would read. All tunes of an ABC file count. With --transpose key all are moved.
    """
    found, skipped = [], []
    for file in folder.song_files(path) if whole else folder.tune_files([path], None):
        open(file, "rb").close()  # tells best why it can't be read
        for one in folder.parse(file, grid, whole):
            if one.reason:
                skipped.append(f"{file}: {one.reason}")
            else:
                found.append(one.moved(grid, transpose))
    if not found:
        none = f"{path}: no .mid, .midi or .abc file in it" + (", or only this program's" if not whole else "")
        raise DataError(skipped[0] if skipped else none)
    if skipped:
        told(f"{len(skipped):,} tunes of {path} skipped; {skipped[0]}")
    return found


def tunes(asked: Any, run: Restored | None) -> Parts:
    """Windows of tunes, as a run or else --preset music cuts them; raises DataError, OSError."""
    config = run.config if run else Config(**PRESETS["music"] | ({"seq_len": asked.seq_len} if asked.seq_len else {}))
    grid, length, spec = dataset.grid_of(config), config.seq_len, dataset.spec_of(config)
    paths, cut = (asked.file, asked.train, asked.test), []
    if config.transpose == "all":
        told("copies are looked for in --train as it is, not in twelve keys")
    all_tunes = [melodies(path, grid, path is asked.file, config.transpose) for path in paths]
    for path, found in zip(paths, all_tunes, strict=True):
        cut.append(dataset.cut(found, config))
        if not len(cut[-1]):
            less = max(map(len, found))
            raise DataError(f"{path}: no tune of {length} tokens; the longest has {less}; a smaller --seq_len may do")
        if config.window_stride and (short := sum(len(tune) < length for tune in found)):
            told(f"{path}: {short:,} of {len(found):,} tunes are shorter than {length} tokens and left out")
    count = enough(len(cut[0]), len(cut[1]), asked, f"windows of {length} tokens" if config.window_stride else "tunes")
    rows = samples, real, test = list(map(spread, cut, (count, count, dataset.MAX_HELD_OUT)))
    data = SimpleNamespace(kind="music", grid=grid, tunes=SimpleNamespace(train=all_tunes[1]), test=test, spec=spec)
    data.valid, data.decode = test[:0], lambda found: [to_pitches(tokens) for tokens in before_end(found, grid)]
    return Parts(samples, real, data, rows, spec, [{}, {}])


def nll(policy: Policy, rows: np.ndarray, jit: bool = True) -> tuple[float, float]:
    """NLL of sequences, int32 [n, T], under a policy, and its standard error; nats per token, ends included."""
    return ratio_and_error(nats(MeasuredPolicy(policy, 0, jit), rows), (rows != policy.vocab_size).sum(axis=1))


def reverse(rows: np.ndarray, test: np.ndarray, spec: TokenSpec, of: str, steps: int = UPDATES) -> tuple[float, float]:
    """NLL of test sequences under an LSTM that has learnt from `rows`, int32 [n, T] both; and its standard error.

    The error is that of the test sequences; another seed of the LSTM adds to it.
    """
    sizes = ("batch_size", "g_emb_dim", "g_hidden_dim", "g_dropout_keep_prob", "g_pretrain_lr")
    flags: dict[str, Any] = {flag: CAPTIONS[flag] for flag in sizes} | {"cosine_decay": ("g_pretrain",)}
    flags |= {"pretrain_g_epochs": steps, "total_epochs": 0, "reward": "constant", "seq_len": spec.seq_len}
    seqgan = build(config := Config(**flags), spec)
    batches = TrainingData(rows, config)
    for epoch in tqdm(range(steps), desc=f"--reverse, {of}", unit="update", leave=False, disable=None):
        seqgan.mle_epoch(batches.mle_batches(epoch), tf.constant(epoch))
    return nll(seqgan.policy, test)


def measured(asked: Any, run: Restored | None) -> tuple[Parts, int, Figures, Figures]:
    """What was read, how many test sequences, the figures of samples and of real data; raises UsageError, OSError."""
    music = asked.file.is_dir()
    if run and run.config.dataset != ("Nottingham" if music else "text"):
        what = "tunes" if music else "lines of text"
        raise UsageError(f"--run {run.logdir}: a run of --dataset {run.config.dataset}, and {asked.file} has {what}")
    given = [f"--{name}" for name in ("tokens", "seq_len") if getattr(asked, name)]
    if given and (run or (music and asked.tokens)):
        raise UsageError(f"{given[0]} has no effect with {'--run' if run else 'tunes'}")
    parts = (tunes if music else text)(asked, run)
    evaluator = EVALUATORS[parts.data.kind](parts.data, Config())
    sides = zip((parts.samples, parts.real), parts.more, strict=True)
    own, real = (evaluator.compare(rows) | more for rows, more in sides)
    held = spread(parts.data.test, len(parts.samples))
    real |= {name: pair for name, pair in evaluator.compare(held).items() if name in OF_TEST}
    if run:
        both = parts.learnt[0], spread(parts.learnt[2], len(held))
        own["nll_run"], real["nll_run"] = (nll(run.policy(), rows, run.config.jit) for rows in both)
    for name, figures, rows in (("samples", own, parts.learnt[0]), ("real", real, parts.learnt[1])):
        if asked.reverse:
            figures["nll_reverse"] = reverse(rows, parts.learnt[2], parts.spec, name)
    return parts, len(held), own, real


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns the exit status, 2 with one line on stderr where something can't be used."""
    parser = Parser(prog="measure.py", description=__doc__.split("\n")[0], allow_abbrev=False)
    add, folders = parser.add_argument, "or a folder of tunes"
    add("file", type=Path, metavar="FILE", help=f"samples, a line each, {folders}")
    add("--train", type=Path, required=True, metavar="FILE", help=f"what the samples' program has learnt, {folders}")
    add("--test", type=Path, required=True, metavar="FILE", help=f"real lines that it has not seen, {folders}")
    help = "also NLL of the samples under a run; its tokens and --seq_len are used"
    add("--run", type=Path, metavar="LOGDIR", help=help)
    help = "also NLL of --test under an LSTM that learns from the samples, which takes minutes"
    add("--reverse", action="store_true", help=help)
    add("--tokens", choices=("char", "word"), help="text: what a token is (default: char)")
    help = f"tokens of a sequence (default: of text the longest line, of tunes {PRESETS['music']['seq_len']})"
    add("--seq_len", type=number(int, 2, MAX_SEQ_LEN), metavar="INT", help=help)
    add("-n", type=number(int, 2, None), metavar="INT", help="samples that are measured (default: all)")
    add("--csv", type=new_file, metavar="FILE", help="all figures and their errors")
    asked = parser.parse_args(argv)
    with parser.failing_in_one_line("stdout"):
        spare(asked.csv)
        for flag, path in (("", asked.file), ("--train ", asked.train), ("--test ", asked.test)):
            if not (path.is_file() or path.is_dir()):  # a pipe can be read but once
                raise UsageError(f"{flag}{path}: neither a file nor a folder")
            if replaces(asked.csv, path):
                raise UsageError(f"--csv {asked.csv}: is {'in ' * path.is_dir()}{flag or 'FILE '}{path}, which is read")
            if path.is_dir() != asked.file.is_dir():
                raise UsageError(f"{flag}{path}: {asked.file} is {'a folder' if asked.file.is_dir() else 'a file'}")
        configure_tensorflow(cache=True)
        run = restore(asked.run) if asked.run else None
        if run:
            run.spare([asked.csv])
        parts, held, own, real = measured(asked, run)
        print(table(own | {column(name, "real"): pair for name, pair in real.items()}))
        whose = ", ".join(name for name in real if name in (*OF_TEST, "nll_run"))
        units = "NLL in nats per token, " * any(name.startswith("nll") for name in own) + "± one standard error"
        real_ones = f"real: --train, and {held:,} of --test for {whose}"
        print(f"{len(parts.samples):,} sequences of each; {real_ones}; {units}", flush=True)
        if asked.csv:
            rows = [{"run": asked.file.name, **with_errors(own)}, {"run": REAL, **with_errors(real)}]
            write_whole(asked.csv, points_text(rows))
    return 0


if __name__ == "__main__":
    run_tool(main)
