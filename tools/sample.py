"""Draws samples from a run, finished or not: python tools/sample.py LOGDIR -n 100 [--prefix "..."] [-o FILE]."""

import logging
import os
import sys
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import support.quiet  # noqa: F401 - before TensorFlow

import numpy as np
import pandas as pd
import tensorflow as tf

from data import DataError, checksum
from data.music.abc import HEADER, to_abc
from data.music.analysis import analysed, longest_copies
from data.music.dataset import TRAIN_TUNES, NottinghamData, cut, grid_of, load, played, recorded_tempo
from data.music.folder import parse, song_files
from data.music.midi import midi_file
from data.music.page import Near, blind_page, page
from data.music.songs import check_songs, write_songs
from data.music.tokens import before_end, named, to_pitches
from data.text import UNKNOWN, Vocabulary, tokenise
from generator import Excluding, Place, Policy, State, Tempered, in_chunks
from guidance.choosing import Weighing, keep_one
from runs.checkpoints import BEST
from runs.directories import PRETRAINED, TEMPO, spare, write_whole
from support.config import Config
from support.config_file import CONFIG
from support.device import configure_tensorflow
from support.errors import UsageError
from support.objective import Objective
from support.parser import Parser, new_file, number
from support.seeds import Purpose, fold, key, numpy_rng, uniforms
from support.statistics import mean_and_error
from support.streams import run_tool
from tools.restored import Restored, restore

ROWS = 256  # samples drawn at once; the same whatever -n, so that more samples begin with the fewer
STEPS = 256  # tokens of them that are drawn in one compiled call
KEEP = 16  # tokens of --like: two bars of eighths
MOST_TOKENS = 100_000  # of a sample: ROWS of them fit into memory
WHICH = ("newest", BEST, PRETRAINED)  # checkpoints that have a name
Choice = tuple[Weighing, int]  # the log-weights of candidates, and of how many one is kept


def portions(
    policy: Policy, count: int, prefix: Sequence[int], seed: int, length: int, jit: bool, choice: Choice | None = None
) -> Iterator[np.ndarray]:
    """Draws sequences that begin with a prefix, of fewer than T token ids, some at a time.

    A token depends on the seed and on its place alone: longer samples begin with the shorter, more with the fewer. T is
    `length`; a policy can go on where that is more than in training, until an end token, if it has one. By a `choice`
    one of so many candidates is kept, as `guidance.choosing` has it; of longer sequences one of each stretch of as many
    tokens as in training, which continue what was kept before. `jit` compiles with XLA. Yields int32 [at most ROWS, T],
    `count` rows in all; what follows an end token is padding, V.
    """
    steps = policy.seq_len if choice else min(length, STEPS)
    forced = np.full(-(-length // steps) * steps, -1, np.int32)  # -1: drawn
    forced[: len(prefix)] = prefix

    def go_on(chunk: tf.Tensor, first: tf.Tensor, forced: tf.Tensor, *place: tf.Tensor) -> tuple[tf.Tensor, ...]:
        def draw(seed: tf.Tensor) -> tuple[tf.Tensor, ...]:
            places = first + tf.range(steps)
            numbers = tf.map_fn(lambda i: uniforms([ROWS], fold(seed, i)), places, fn_output_signature=tf.float32)
            tokens, (token, state) = policy.sample_on(Place(place[0], State(*place[1:])), numbers, forced)
            return tokens, token, *state

        if not choice:
            return draw(key(seed, Purpose.TOOL_SAMPLE, chunk))
        like = tf.zeros([ROWS, steps], tf.int32), *place
        return keep_one(draw, *choice, key(seed, Purpose.RESAMPLE, chunk, first), like)

    compiled = tf.function(go_on, jit_compile=jit, autograph=False)
    for chunk in range(-(-count // ROWS)):
        rows = min(ROWS, count - chunk * ROWS)
        tokens = np.full([rows, length], policy.vocab_size, np.int32)
        place = tf.nest.flatten(policy.start(ROWS))
        for first in range(0, length, steps):
            drawn, *place = compiled(tf.constant(chunk), tf.constant(first), forced[first : first + steps], *place)
            tokens[:, first : first + steps] = drawn[:rows, : length - first].numpy()
            last = tokens[:, min(first + steps, length) - 1]
            if policy.end_token is not None and np.isin(last, (policy.end_token, policy.vocab_size)).all():
                break  # all have ended, and what follows is there
        yield tokens


def ranked(
    samples: Iterable[np.ndarray], score: Callable[[np.ndarray], np.ndarray], candidates: int, rank: bool, told: str
) -> Iterator[np.ndarray]:
    """Of each so many candidates that follow each other the best by a score, the first of equals.

    The portions, int32 [rows, T], have n times `candidates` rows in all; `score` gives one number a row. Yields int32
    [n, T], with `rank` those of the highest scores first; if the score is `told` by a name, stderr gets their mean.
    """
    tokens = np.concatenate(list(samples))
    scores = score(tokens).reshape(-1, candidates)
    tokens, scores = tokens[scores.argmax(axis=1) + candidates * np.arange(len(scores))], scores.max(axis=1)
    if told:
        mean, error = mean_and_error(scores)
        print(f"{told}: mean {mean:.4g}" + (f" ± {error:.2g}" if len(scores) > 1 else ""), file=sys.stderr)
    yield tokens[np.argsort(-scores, kind="stable")] if rank else tokens


def read_prefix(text: str, run: Restored, vocabulary: Vocabulary | None) -> list[int]:
    """The token ids of --prefix: text, numbers or, in music, notes. Raises UsageError: it has unknown tokens."""
    music, advice = run.config.dataset == "Nottingham", ""
    if vocabulary:
        tokens = tokenise(text, vocabulary.kind)
        known = {*vocabulary.entries, UNKNOWN[vocabulary.kind]}
        unknown, prefix = sorted(set(tokens) - known), vocabulary.encode(tokens)
    else:
        unknown, prefix = [], []
        for word in text.split():
            is_id = word.isascii() and word.isdecimal() and len(word) < 10 and int(word) < run.policy().vocab_size
            token = int(word) if is_id else None  # in music no number: it might be meant as a MIDI pitch
            token = named(word, prefix[-1] if prefix else None, run.config.onsets) if music else token
            prefix += [] if token is None else [token]
            unknown += [word] if token is None else []
        advice = "; a token of music is a note, such as C4 or F#4, R, a rest, or -, which holds one" if music else ""
    if unknown:
        raise UsageError(f"--prefix: not in the run's vocabulary: {' '.join(map(repr, unknown))}{advice}")
    return prefix


def read_first(path: Path, keep: int, config: Config) -> list[int]:
    """The first tokens of the melody of a file, `keep` of them or all, without the rests before it.

    They are moved as --transpose moves all tunes of a run. Of several tunes it is the first, as stderr is told. Raises
    UsageError: it is no MIDI or ABC file, or has no melody. Raises OSError: it can't be read.
    """
    open(path, "rb").close()  # tells best why it can't be read
    tunes = parse(path, grid_of(config))
    tune = next(tunes)
    if tune.reason:
        raise UsageError(f"{path}: {tune.reason}")
    if next(tunes, None):
        print(f"sample.py: --like {path}: the first of its tunes; the others are left out", file=sys.stderr)
    return tune.moved(grid_of(config), config.transpose)[:keep].tolist()


def nearest(tunes: Sequence[np.ndarray], run: Restored) -> list[Near | None]:
    """The training tune that is nearest to each; none, and a line on stderr, where --data_dir has not what was read."""
    try:
        data = load(run.config)
        if run.content["data"].get(TRAIN_TUNES, checksum(data.train)) == checksum(data.train):
            found = longest_copies(tunes, data.train)
            names = [readable(name) for name in data.names]
            return [Near(names[stretch.tune], data.train[stretch.tune], stretch) for stretch in found]
        reason = f"--data_dir {run.config.data_dir} has other tunes than the run has read"
    except DataError as error:
        reason = str(error)
    print(f"sample.py: tunes.html shows no training tunes: {reason}", file=sys.stderr)
    return [None] * len(tunes)


def readable(name: str | Path) -> str:
    """A file's name with � in place of bytes that are no UTF-8."""
    return os.fsencode(name).decode(errors="replace")


def write_tunes(samples: Iterable[np.ndarray], run: Restored, asked: Namespace) -> str:
    """Writes tunes, int32 [n, T] each portion, to the file or folder of -o, or to a folder in --log_dir; says where.

    With --abc they are ABC, too, and on a page. In a folder they replace the songs of an earlier call, and nothing
    else. Raises UsageError: -o is a file that is there, for several files, or of another kind; or as `write_songs`.
    """
    output, count, logdir, grid = asked.output, asked.n, asked.logdir, grid_of(run.config)
    folder, one_file = output or logdir / "samples", bool(output and output.suffix and not output.is_dir())
    if one_file and output.suffix.lower() not in (".mid", ".midi"):
        raise UsageError(f"-o {output}: no name that ends in .mid, nor a folder that is there")
    if one_file and (count > 1 or asked.abc):
        why = "--abc needs a folder, as it writes several files" if asked.abc else f"-n {count} tunes need a folder"
        raise UsageError(f"-o {output}: {why}" + ", or -n 1" * (not asked.abc))
    if one_file and os.path.lexists(output):
        raise UsageError(f"-o {output}: is there; choose another name, or a folder")
    grid = played(grid, recorded_tempo(logdir / TEMPO)) if grid.beats else grid
    tunes, plain = (tokens for rows in samples for tokens in before_end(rows, grid)), run.config.transpose == "key"
    told = f"{count} tune{'s' * (count != 1)} in {folder}" + f"/sample{'*' if count > 1 else '0'}.mid" * (not one_file)
    names = [f"sample{i}.mid" for i in range(count)]
    names += [*(f"sample{i}.abc" for i in range(count)), "tunes.abc", "tunes.html"] if asked.abc else []
    if not one_file:
        check_songs(folder, names)  # before anything is drawn
    if one_file:
        write_whole(output, midi_file(next(tunes), grid, plain))
    elif not asked.abc:
        write_songs(folder, names, (midi_file(tokens, grid, plain) for tokens in tunes))
    else:
        titled = {f"Tune {i} of seed {asked.seed}": analysed(tokens, grid, plain) for i, tokens in enumerate(tunes)}
        texts = [to_abc(tune, grid.seconds, i, title) for i, (title, tune) in enumerate(titled.items(), 1)]
        each = [tune.tokens for tune in titled.values()]
        shown = page(f"Tunes of {readable(logdir)}", titled, nearest(each, run), grid, "sample")
        written = [*(HEADER + text for text in texts), HEADER + "\n".join(texts), shown]
        songs = [midi_file(tokens, grid, plain) for tokens in each]
        write_songs(folder, names, [*songs, *(text.encode() for text in written)])
        told += f", to look at and listen to: {folder / 'tunes.html'}"
    return told


def write_blind(samples: Iterable[np.ndarray], run: Restored, asked: Namespace) -> str:
    """Writes a page on which listeners rate tunes of several kinds and real ones, and KEY.csv, which tells them apart.

    The kinds are `samples`, int32 [n, T] each portion, and those of --blind, each n tunes. --temperature holds for all
    runs, and --guide for those whose discriminator can guide; the run itself must have one. All are played at the run's
    tempo, in an order that the seed decides. Returns where they are. Raises UsageError, DataError: a kind lacks tunes,
    or -o has another page or key. Raises OSError: a folder can't be read.
    """
    config, count, output = run.config, asked.n, asked.output or asked.logdir / "blind"
    if len({os.path.realpath(folder) for folder in asked.blind}) < len(asked.blind):
        raise UsageError("--blind: a folder is given twice")
    grid = grid_of(config)
    grid = played(grid, recorded_tempo(asked.logdir / TEMPO)) if grid.beats else grid
    rng = numpy_rng(asked.seed, Purpose.TOOL_SAMPLE)
    own = np.concatenate(list(samples))
    its, length = f"samples of {readable(asked.logdir)}" + ", guided" * asked.guide, own.shape[1]
    kinds = [(its, before_end(own, grid))]
    for folder in asked.blind:
        kind = f"--blind {readable(folder)}"
        if (folder / CONFIG).is_file():
            other = restore(folder)
            if (other.config.dataset, grid_of(other.config)) != (config.dataset, grid_of(config)):
                raise UsageError(f"--blind {folder}: a run with other tokens than {asked.logdir}")
            policy = Tempered(other.policy(guide := asked.guide and other.guided()), asked.temperature)
            drawn = portions(policy, count, [], asked.seed, length, config.jit)
            kinds.append((kind + ", guided" * guide, before_end(np.concatenate(list(drawn)), grid)))
            continue
        os.scandir(folder).close()  # tells best why it can't be read
        found = [(path, tune) for path in song_files(folder, "*") for tune in parse(path, grid)]
        chosen = [found[i][1] for i in rng.permutation(len(found)) if not found[i][1].reason]
        if len(chosen) < count:
            why = next((f"; {path}: {tune.reason}" for path, tune in found if tune.reason), "")
            there = f"{len(chosen)} tune{'s' * (len(chosen) != 1)} there"
            raise UsageError(f"--blind {folder}: {there}, and -n is {count}{why}")
        kinds.append((kind, [tune.moved(grid, config.transpose)[:length] for tune in chosen[:count]]))
    data = run.data()
    assert isinstance(data, NottinghamData)
    real = before_end(cut(data.tunes.test, replace(config, seq_len=length)), grid)
    if len(real) < count:
        there = f"{len(real)} {f'stretches of {length} tokens' if config.window_stride else 'tunes'} in the test set"
        raise UsageError(f"--blind: {there}, and -n is {count}")
    kinds.append(("real", [real[i] for i in rng.permutation(len(real))[:count]]))
    mixed = [(kind, analysed(tokens, grid)) for kind, tunes in kinds for tokens in tunes]
    mixed = [mixed[i] for i in rng.permutation(len(mixed))]
    shown, name = blind_page([tune for _, tune in mixed], grid)
    key_rows = pd.DataFrame({"page": name, "tune": range(1, len(mixed) + 1), "kind": [kind for kind, _ in mixed]})
    output.mkdir(parents=True, exist_ok=True)
    contents = {output / "KEY.csv": key_rows.to_csv(index=False, lineterminator="\n"), output / "blind.html": shown}
    for path, content in contents.items():
        if os.path.lexists(path) and path.read_bytes() != content.encode():  # somebody may be rating that page
            raise UsageError(f"{path}: is there, and holds something else; choose another -o")
    for path, content in contents.items():
        write_whole(path, content)
    return f"{len(mixed)} tunes in {output / 'blind.html'}; what they are, in {output / 'KEY.csv'}"


def write_lines(samples: Iterable[np.ndarray], vocabulary: Vocabulary | None, output: Path | None) -> None:
    """Writes samples, int32 [n, T] a portion, a line each, to stdout or, at the end, a file; raises OSError."""
    lines = vocabulary.decode if vocabulary else lambda rows: [" ".join(map(str, row)) for row in rows.tolist()]
    contents = ("".join(f"{line}\n" for line in lines(rows)).encode() for rows in samples)
    if not output:
        for content in contents:
            sys.stdout.buffer.write(content)
            sys.stdout.buffer.flush()
        return
    try:
        new_file(str(output))  # before anything is drawn
    except ArgumentTypeError as error:
        raise UsageError(f"-o {error}") from None
    write_whole(output, b"".join(contents))


def check(asked: Namespace, music: bool, text: bool) -> None:
    """Checks flags against each other and a run, on `music`, `text` or neither; raises UsageError."""
    choosing, prefix = asked.candidates > 1, asked.prefix or asked.prefix_file
    refused = {
        f"--no-unknown: {asked.logdir} is no run on text, so there is no unknown token": asked.no_unknown and not text,
        f"--abc: {asked.logdir} is no run on music": asked.abc and not music,
        f"--blind: {asked.logdir} is no run on music": asked.blind is not None and not music,
        "--blind: not with --abc": asked.blind is not None and asked.abc,
        "--blind: not with a prefix, --candidates, --rank or --objective, which other kinds would not have": (
            asked.blind is not None and (prefix or choosing or asked.rank or asked.objective)
        ),
        f"--like: {asked.logdir} is no run on music": asked.prefix_file and not music,
        "--like: not with --prefix": asked.prefix_file and asked.prefix,
        "--keep has no effect without --like": asked.keep and not asked.prefix_file,
        "--without_prefix has no effect without --prefix or --like": asked.without_prefix and not prefix,
        "stdout is closed; -o names a file": not (sys.stdout or asked.output or music),
        "--eta has no effect without --candidates of 2 or more": asked.eta is not None and not choosing,
        "--eta is of the discriminator: it has no effect with --objective": asked.eta is not None and asked.objective,
        "--candidates are the generator's own: not with --guide": asked.guide and choosing and not asked.objective,
    }
    for why in (why for why, found in refused.items() if found):
        raise UsageError(why)


def sample(asked: Namespace, run: Restored) -> None:
    """Draws and writes what the flags ask for; raises UsageError, OSError: it can't be done."""
    config, music = run.config, run.config.dataset == "Nottingham"
    check(asked, music, config.dataset == "text")
    policy: Policy = Tempered(run.policy(asked.guide), asked.temperature)
    vocabulary = run.vocabulary() if config.dataset == "text" else None
    if vocabulary and asked.no_unknown:
        policy = Excluding(policy, [vocabulary.unknown])
    file = asked.prefix_file
    prefix = read_first(file, asked.keep or KEEP, config) if file else read_prefix(asked.prefix, run, vocabulary)
    length, seq_len = asked.length or policy.seq_len, policy.seq_len
    if len(prefix) >= length:
        flag, whose = "--like" if file else "--prefix", "--length" if asked.length else "the run's"
        raise UsageError(f"{flag}: {len(prefix)} tokens leave none to draw of {whose} {length}")

    def drawn(count: int, choice: Choice | None = None) -> Iterator[np.ndarray]:
        return portions(policy, count, prefix, asked.seed, length, config.jit, choice)

    samples = drawn(asked.n)
    if asked.objective is not None:
        pitches = lambda rows: [to_pitches(tokens) for tokens in before_end(rows, grid_of(config))]  # noqa: E731
        known = pitches if music else vocabulary.decode if vocabulary else list if config.dataset == "LSTM" else None
        objective = Objective(asked.objective, known or run.data().decode)
        samples = ranked(drawn(asked.n * asked.candidates), objective.check, asked.candidates, asked.rank, "objective")
    elif asked.candidates > 1 or asked.rank:
        flag = "--candidates" if asked.candidates > 1 else "--rank"
        discriminator = run.chooser(flag, gain=asked.eta is None)
        if asked.rank and length != seq_len:
            raise UsageError(f"--rank: the discriminator reads {seq_len} tokens; not with --length")
        if asked.candidates > 1:
            eta = run.recorded["d_eta"][0] if asked.eta is None else asked.eta
            samples = drawn(asked.n, (lambda tokens: eta * discriminator.log_odds(tokens), asked.candidates))
        if asked.rank:
            compiled = tf.function(in_chunks, jit_compile=config.jit, autograph=False)
            score = lambda rows: compiled(discriminator.log_odds, tf.constant(rows)).numpy()  # noqa: E731
            samples = ranked(samples, score, 1, True, "")
    if asked.without_prefix:
        samples = (rows[:, len(prefix) :] for rows in samples)
    if music:
        print((write_tunes if asked.blind is None else write_blind)(samples, run, asked))
    else:
        write_lines(samples, vocabulary, asked.output)


def checkpoint(text: str) -> str | int:
    """Reads --checkpoint: a name, or a number of steps."""
    if text not in WHICH and not text.isdecimal():
        raise ArgumentTypeError(f"{text!r} is neither {', '.join(WHICH)} nor a number of steps")
    return text if text in WHICH else number(int, 0, 10**9 - 1)(text)


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns the exit status, 2 with one line on stderr where something can't be used."""
    parser = Parser(prog="sample.py", description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    integer, most = number(int, 1, None), number(int, 1, MOST_TOKENS)
    add("logdir", type=Path, metavar="LOGDIR", help="--log_dir of a run")
    add("-n", type=integer, default=10, metavar="INT", help="samples (default: 10)")
    text = "divides the logits: near 0 the likeliest token is taken, at 1 it is the policy itself (default: 1.0)"
    add("--temperature", type=number(float, 1e-6, 1e6), default=1.0, metavar="FLOAT", help=text)
    add("--seed", type=number(int, 0, 2**31 - 1), default=1, metavar="INT", help="of the random numbers (default: 1)")
    text = "what every sample begins with: text; token ids; or of music notes, such as C4 F#4 R (rest) - (one is held)"
    add("--prefix", default="", help=text)
    text = "music: samples begin as the melody of this MIDI or ABC file does, which may be another sample"
    add("--like", "--prefix_file", dest="prefix_file", type=Path, metavar="FILE", help=text)
    add("--keep", type=most, metavar="INT", help=f"tokens of --like (default: {KEEP})")
    add("--without_prefix", action="store_true", help="write samples without what they begin with")
    text = "music: write each tune as ABC, too, all of them to tunes.abc, and a page to see and hear, tunes.html"
    add("--abc", action="store_true", help=text)
    text = "music: a page to rate these tunes, those of other runs or of folders of tunes, and real ones, unlabelled"
    add("--blind", nargs="*", type=Path, metavar="FOLDER", help=text)
    text = "tokens a sample, of text at most so many (default: --seq_len of the run; the policy can go on beyond it)"
    add("--length", type=most, metavar="INT", help=text)
    text = "the newest, that of least NLL on the validation set, the end of pretraining, or that after so many steps"
    shown = f"{{{','.join(WHICH)},STEP}}"
    add("--checkpoint", type=checkpoint, default="newest", metavar=shown, help=text + " (default: newest)")
    add("--guide", action="store_true", help="draw from the generator that the discriminator guides token by token")
    text = "keep one of so many samples, by the discriminator's log-odds, or of them the best by --objective"
    add("--candidates", type=integer, default=1, metavar="INT", help=text + " (default: 1)")
    text = "how much --candidates trusts the discriminator (default: d_eta of the run's newest evaluation)"
    add("--eta", type=number(float, 0, 1e6), metavar="FLOAT", help=text)
    text = "write first what the discriminator holds likeliest to be real, or what has most by --objective"
    add("--rank", action="store_true", help=text)
    text = "score the samples as the flag of main.py does, whatever the run was trained for, and tell their mean"
    add("--objective", metavar="FILE.py:FUNCTION", help=text)
    add("--no-unknown", action="store_true", help="text: never draw the unknown token")
    text = "file, or of several tunes the folder (default: stdout, LOGDIR/samples, LOGDIR/blind)"
    add("-o", "--output", type=Path, help=text)
    asked = parser.parse_args(argv)
    with parser.failing_in_one_line(asked.output or "stdout"):
        configure_tensorflow(cache=True)
        spare(asked.output)
        run = restore(asked.logdir, asked.checkpoint)
        run.spare([asked.output], [Path(asked.objective.rpartition(":")[0])] if asked.objective else [])
        folder = asked.output or asked.logdir / "samples"
        if asked.prefix_file and os.path.realpath(asked.prefix_file.parent) == os.path.realpath(folder):
            raise UsageError(f"--like {asked.prefix_file}: its folder is where tunes go; choose another -o")
        run.as_in_its_evaluations()
        sample(asked, run)
    return 0


if __name__ == "__main__":
    for handler in logging.getLogger().handlers:  # of a training in this process, before which all lines are plain
        handler.setFormatter(None)
    run_tool(main)
