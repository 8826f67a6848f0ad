"""Draws samples from a run, finished or not: python tools/sample.py LOGDIR -n 100 [--prefix "..."] [-o FILE]."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import support.quiet  # noqa: F401 - before TensorFlow

# isort: split
import numpy as np
import tensorflow as tf

from data import DataError, checksum
from data.music.abc import HEADER, read_abc, to_abc
from data.music.analysis import analysed
from data.music.dataset import TRAIN_TUNES, frame_seconds, load, recorded_tempo
from data.music.measures import longest_copies
from data.music.midi import midi_file, read_melody, read_notes
from data.music.page import Near, page
from data.music.songs import write_songs
from data.music.tokens import Grid, named, to_pitches, trim
from data.text import Vocabulary, tokenise
from evaluation import Evaluated
from generator import State, sample_tokens
from model import SeqGAN
from resampling import keep_one
from runs.checkpoints import BEST
from runs.directories import PRETRAINED, TEMPO, VOCABULARY, write_whole
from support.config import Config
from support.errors import UsageError
from support.config_file import CONFIG, read_config
from support.device import configure_tensorflow
from support.metrics import mean_and_error
from support.objective import Objective
from support.parser import Parser, number
from support.seeds import Purpose, fold, key, uniforms
from support.streams import escape_unprintable

ROWS = 256  # samples drawn at once; the same whatever -n, so that more samples begin with the fewer
STEPS = 256  # tokens of them that are drawn in one compiled call
KEEP = 16  # tokens of --prefix_file: two bars of eighths
MOST_TOKENS = 100_000  # of a sample: ROWS of them fit into memory


class Choice(NamedTuple):
    """How one of several candidates is kept: the discriminator's `log_odds` of int32 [rows, T], how many, and η."""

    log_odds: Callable[[tf.Tensor], tf.Tensor]
    candidates: int
    eta: float


def portions(
    drawn_from: Evaluated,
    count: int,
    prefix: Sequence[int],
    temperature: float,
    seed: int,
    length: int | None = None,
    never: Sequence[int] = (),
    choice: Choice | None = None,
) -> Iterator[np.ndarray]:
    """Draws sequences that begin with a prefix, some at a time.

    A token depends on the seed and on its place alone, so longer samples begin with the shorter and more with the
    fewer.

    `prefix` has fewer than T token ids; the logits are divided by `temperature`; tokens of `never` are not drawn. T is
    `length`, or as in training. The policy being recurrent it can go on, and does so until an end token, if it has one.
    `choice` keeps one of several candidates, see `resampling`; where T is longer than in training, of each stretch of
    so many tokens, among continuations of what was kept before. Yields int32 [at most ROWS, T], `count` rows in all;
    what follows an end token is padding, V.
    """
    generator = drawn_from.policy
    length = length or generator.seq_len
    steps = generator.seq_len if choice else min(length, STEPS)
    projection = generator.projection() / temperature  # logits are linear in it
    allowed = np.zeros(generator.vocab_size, np.float32)
    allowed[list(never)] = -np.inf
    forced = np.full(-(-length // steps) * steps, -1, np.int32)  # -1: drawn
    forced[: len(prefix)] = prefix

    def draw(seed, first, forced, token, hidden, cell):
        def step(i, token, state, tokens):
            numbers = uniforms([ROWS], fold(seed, first + i))
            drawn = generator.after(token, sample_tokens(generator.logits(state.hidden, projection) + allowed, numbers))
            token = tf.where(forced[i] < 0, drawn, forced[i])
            tokens = tf.tensor_scatter_nd_update(tokens, [[i]], token[None])
            return i + 1, token, generator.next_state(token, state), tokens

        start = (0, token, State(hidden, cell), tf.zeros([steps, ROWS], tf.int32))
        _, token, state, tokens = tf.while_loop(lambda i, *_: i < steps, step, start, maximum_iterations=steps)
        return tf.transpose(tokens), token, *state

    def go_on(chunk, first, forced, *state):
        if not choice:
            return draw(key(seed, Purpose.TOOL_SAMPLE, chunk), first, forced, *state)
        log_odds, candidates, eta = choice
        candidate = lambda numbers: draw(numbers, first, forced, *state)  # noqa: E731
        weigh = lambda tokens: eta * log_odds(tokens)  # noqa: E731
        like = (tf.zeros([ROWS, steps], tf.int32), *state)
        return keep_one(candidate, weigh, candidates, key(seed, Purpose.RESAMPLE, chunk, first), like)

    compiled = tf.function(go_on, jit_compile=drawn_from.config.jit, autograph=False)
    for chunk in range(-(-count // ROWS)):
        rows = min(ROWS, count - chunk * ROWS)
        tokens = np.full([rows, length], generator.vocab_size, np.int32)
        state = tf.fill([ROWS], generator.start_token), *generator.first_state(ROWS)
        for first in range(0, length, steps):
            drawn, *state = compiled(tf.constant(chunk), tf.constant(first), forced[first : first + steps], *state)
            tokens[:, first : first + steps] = drawn[:rows, : length - first].numpy()
            last = tokens[:, min(first + steps, length) - 1]
            if generator.end_token is not None and np.isin(last, (generator.end_token, generator.vocab_size)).all():
                break  # all have ended, and what follows is there
        yield tokens


def ranked(portions: Iterator[np.ndarray], log_odds: Callable[[tf.Tensor], tf.Tensor]) -> Iterator[np.ndarray]:
    """All samples in one portion, int32 [n, T], those of the highest log-odds first."""
    tokens = np.concatenate(list(portions))
    yield tokens[np.argsort(-log_odds(tf.constant(tokens)).numpy(), kind="stable")]


def scored(portions: Iterator[np.ndarray], objective: Objective, candidates: int, rank: bool) -> Iterator[np.ndarray]:
    """Of each so many samples that follow each other the best by an objective, the first of equals.

    Tells the mean score of those that are kept on stderr.

    The portions, int32 [rows, T], have n times `candidates` rows in all; yields int32 [n, T], with `rank` those of the
    highest scores first. Raises UsageError: the objective fails.
    """
    tokens = np.concatenate(list(portions))
    scores = objective.score(tokens).reshape(-1, candidates)
    best = scores.argmax(axis=1) + candidates * np.arange(len(scores))
    tokens, scores = tokens[best], scores.max(axis=1)
    mean, error = mean_and_error(scores)
    print(f"objective: mean {mean:.4g}" + (f" ± {error:.2g}" if len(scores) > 1 else ""), file=sys.stderr)
    yield tokens[np.argsort(-scores, kind="stable")] if rank else tokens


def check_knows(model: SeqGAN, logdir: Path, flag: str) -> None:
    """Checks that the discriminator of a run was found to know something, by the newest evaluation.

    Raises UsageError: there is none, it was not measured, or its gain is not above 0 by two standard errors.
    """
    plain = f"without {flag} plain samples are drawn"
    if model.discriminator is None:
        raise UsageError(f"{flag}: {logdir} has no discriminator; {plain}")
    name = "d_gain_valid" if "d_gain_valid" in model.recorded else "d_gain"
    if name not in model.recorded:
        why = f"no evaluation of {logdir} up to this checkpoint tells what its discriminator knows"
        how = "main.py --pretrain_d trains and measures one where no adversarial phase does"
        raise UsageError(f"{flag}: {why}; {plain}; {how}")
    gain, error = model.recorded[name]
    if not gain > 2 * error:
        why = f"has no gain beyond its error, {name} {gain:.4f} ± {error:.4f}"
        raise UsageError(f"{flag}: the discriminator of {logdir} {why}; {plain}")


def choice_of(model: SeqGAN, logdir: Path, candidates: int, eta: float | None) -> Choice | None:
    """What --candidates and --eta ask for; without --eta it is that of the newest evaluation; None: plain samples.

    Raises UsageError: as `check_knows`, but with --eta only where there is no discriminator.
    """
    if candidates == 1:
        return None
    if eta is None or model.discriminator is None:
        check_knows(model, logdir, "--candidates")
        eta = model.recorded["d_eta"][0]
    assert model.discriminator is not None
    return Choice(model.discriminator.log_odds, candidates, eta)


def read_prefix(text: str, model: SeqGAN, vocabulary: Vocabulary | None) -> list[int]:
    """The token ids of --prefix: text where there is a vocabulary, else numbers or, in music, notes.

    Raises UsageError: it has unknown tokens.
    """
    advice, unknown, prefix = "", list[str](), list[int]()
    if vocabulary:
        tokens = tokenise(text, vocabulary.kind)
        unknown = sorted(set(tokens) - set(vocabulary.entries))
        prefix = vocabulary.encode(tokens)
    else:
        music = model.config.dataset == "Nottingham"
        for word in text.split():
            token = None
            if music:  # where a number might be meant as a MIDI pitch
                token = named(word, prefix[-1] if prefix else None, model.config.onsets)
            elif word.isascii() and word.isdecimal() and len(word) < 10 and int(word) < model.generator.vocab_size:
                token = int(word)
            if token is None:
                unknown.append(word)
            else:
                prefix.append(token)
        advice = "; a token of music is a note, such as C4 or F#4, R, a rest, or -, which holds one" if music else ""
    if unknown:
        raise UsageError(f"--prefix: not in the run's vocabulary: {' '.join(map(repr, unknown))}{advice}")
    return prefix


def read_first(path: Path, keep: int, grid: Grid) -> list[int]:
    """The first tokens of the melody of a file, `keep` of them or all, without the rests before it.

    Raises UsageError: it is no MIDI or ABC file, or has no melody. Raises OSError: it can't be read.
    """
    with open(path, "rb"):
        pass  # tells best why it can't be read
    read = read_abc if path.suffix.lower() == ".abc" else read_notes
    tokens = trim(read_melody(path, grid, read)[0])[:keep].tolist()
    if not tokens:
        raise UsageError(f"{path}: no melody in it")
    return tokens


def nearest(tunes: Sequence[np.ndarray], config: Config, logdir: Path) -> list[Near | None]:
    """The training tune that is nearest to each; none, and a line on stderr, where --data_dir has not what was read."""
    try:
        data = load(config)
        if read_config(logdir / CONFIG).get("data", {}).get(TRAIN_TUNES, checksum(data.train)) == checksum(data.train):
            found = longest_copies(tunes, data.train)
            return [Near(data.names[stretch.tune], data.train[stretch.tune], stretch) for stretch in found]
        reason = f"--data_dir {config.data_dir} has other tunes than the run has read"
    except DataError as error:
        reason = str(error)
    print(f"sample.py: tunes.html shows no training tunes: {reason}", file=sys.stderr)
    return [None] * len(tunes)


class Songs:
    """A file, or a folder of files, that tunes are written to."""

    def __init__(self, output: Path | None, count: int, logdir: Path, abc: bool):
        """Writes `count` tunes to `output`, or to a folder in `logdir`; `abc`: also as ABC and as a page.

        Raises UsageError: it is one file for several files, or a file of another kind.
        """
        self.abc = abc
        self.folder, self.file, self.count = output or logdir / "samples", None, count
        if output and output.suffix and not output.is_dir():
            if output.suffix.lower() not in (".mid", ".midi"):
                raise UsageError(f"-o {output}: no name that ends in .mid, nor a folder that is there")
            if count > 1:
                raise UsageError(f"-o {output}: -n {count} tunes need a folder, or -n 1")
            if abc:
                raise UsageError(f"-o {output}: --abc needs a folder, as it writes several files")
            self.file = output

    def __str__(self) -> str:
        where = self.file or f"{self.folder}/sample{'*' if self.count > 1 else '0'}.mid"
        page = f", to look at and listen to: {self.folder / 'tunes.html'}" * self.abc
        return f"{self.count} tune{'s' * (self.count != 1)} in {where}{page}"

    def write(self, portions: Iterator[np.ndarray], seconds: float, seed: int, config: Config, logdir: Path) -> None:
        """Writes tunes of the run in `logdir`, int32 [n, T] each portion, whose tokens last `seconds`.

        An earlier call's songs do not stay among those of this one in a folder. What else is there does. Raises
        UsageError: the folder has a file of such a name that is no earlier song, or was changed since. Raises OSError:
        one can't be written.
        """
        grid = Grid(config.frame_seconds, config.frame_beats, config.onsets)
        tunes = (tokens for rows in portions for tokens in rows)
        files = (midi_file(tokens, seconds, grid.beats, grid.onsets) for tokens in tunes)
        names = [f"sample{i}.mid" for i in range(self.count)]
        if self.file:
            write_whole(self.file, next(files))
        elif not self.abc:
            write_songs(self.folder, names, files)
        else:
            titled = {f"Tune {i} of seed {seed}": tokens for i, tokens in enumerate(tunes)}
            found = enumerate(titled.items(), 1)
            texts = [to_abc(analysed(tokens, grid), seconds, number, title) for number, (title, tokens) in found]
            names += [f"sample{i}.abc" for i in range(self.count)] + ["tunes.abc", "tunes.html"]
            near = nearest(list(titled.values()), config, logdir)
            written = [*(HEADER + text for text in texts), HEADER + "\n".join(texts)]
            written.append(page(f"Tunes of {logdir}", titled, near, grid, seconds))
            songs = [midi_file(tokens, seconds, grid.beats, grid.onsets) for tokens in titled.values()]
            write_songs(self.folder, names, [*songs, *(text.encode() for text in written)])


def write_lines(portions: Iterator[np.ndarray], vocabulary: Vocabulary | None, output: Path | None) -> None:
    """Writes samples, int32 [n, T] each portion, as a line each of text or of token ids, to a file or stdout.

    A file is written when all is drawn and scored, so that a failure costs nothing that was there. Raises OSError: it
    can't be written.
    """
    texts = (vocabulary.decode(rows) if vocabulary else numbers(rows) for rows in portions)
    contents = ("".join(f"{line}\n" for line in lines).encode() for lines in texts)
    if not output:
        for content in contents:
            sys.stdout.buffer.write(content)
            sys.stdout.buffer.flush()
        return
    try:
        os.scandir(output.parent).close()  # before anything is drawn
        content = b"".join(contents)
        if output.is_symlink() or (output.exists() and not output.is_file()):  # /dev/stdout, a device, a pipe
            output.write_bytes(content)
        else:
            write_whole(output, content)
    except OSError as error:
        error.filename = str(output)
        raise


def numbers(rows: np.ndarray) -> list[str]:
    """Sequences of token ids, int32 [n, T], as lines."""
    return [" ".join(map(str, row)) for row in rows.tolist()]


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns the exit status, 2 with one line on stderr where something can't be used."""
    parser = Parser(prog="sample.py", description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("logdir", type=Path, metavar="LOGDIR", help="--log_dir of a run")
    add("-n", type=number(int, 1, None), default=10, metavar="INT", help="samples (default: 10)")
    text = "divides the logits: near 0 the likeliest token is taken (default: 1, the policy itself)"
    add("--temperature", type=number(float, 1e-6, 1e6), default=1.0, metavar="FLOAT", help=text)
    add("--seed", type=number(int, 0, 2**31 - 1), default=1, metavar="INT", help="(default: 1)")
    text = (
        "what every sample begins with: text; token ids; or for music notes, such as C4 F#4 R (a rest) - (one is held)"
    )
    add("--prefix", default="", help=text)
    text = "music: what every sample begins with is the beginning of a MIDI or ABC file, such as another sample"
    add("--prefix_file", "--like", type=Path, metavar="FILE", help=text)
    add("--keep", type=number(int, 1, MOST_TOKENS), metavar="INT", help="tokens of --prefix_file (default: 16)")
    add("--without_prefix", action="store_true", help="write samples without what they begin with")
    text = "music: write each tune as ABC, too, all of them to tunes.abc, and a page to see and hear, tunes.html"
    add("--abc", action="store_true", help=text)
    text = "tokens a sample, of text at most so many (default: --seq_len of the run; the policy can go on beyond it)"
    add("--length", type=number(int, 1, MOST_TOKENS), metavar="INT", help=text)
    text = "the newest, that of least NLL on the validation set, the end of pretraining, or that after so many steps"
    add(
        "--checkpoint",
        type=lambda text: text if text in ("newest", BEST, PRETRAINED) else number(int, 0, 10**9 - 1)(text),
        default="newest",
        metavar="{newest,best,pretrained,STEP}",
        help=f"{text} (default: newest)",
    )
    text = "draw from the generator that the discriminator guides token by token"
    add("--guide", action="store_true", help=text)
    text = "keep one of so many samples, by what the discriminator says of them, or of them the best by --objective "
    add("--candidates", type=number(int, 1, 10**6), default=1, metavar="INT", help=text + "(default: 1, plain samples)")
    text = "how much --candidates trusts the discriminator (default: d_eta of the run's newest evaluation)"
    add("--eta", type=number(float, 0, 1e6), metavar="FLOAT", help=text)
    text = "write first what the discriminator holds likeliest to be real, or what has most by --objective"
    add("--rank", action="store_true", help=text)
    text = "score the samples as the flag of main.py does, whatever the run was trained for, and tell their mean"
    add("--objective", metavar="FILE.py:FUNCTION", help=text)
    add("--no-unknown", action="store_true", help="text: never draw the unknown token")
    text = "file, or of several tunes the folder (default: stdout, LOGDIR/samples)"
    add("-o", "--output", type=Path, help=text)
    text = "compile afresh, and keep nothing"
    add("--no-compile_cache", dest="compile_cache", action="store_false", help=text)
    arguments = parser.parse_args(argv)
    logdir = arguments.logdir
    with parser.failing_in_one_line(arguments.output or "stdout"):
        configure_tensorflow(keep_compiled=("sample.py",) if arguments.compile_cache else ())
        model = SeqGAN.restored(logdir, arguments.checkpoint)
        config, length = model.config, arguments.length or model.generator.seq_len
        tf.config.experimental.enable_tensor_float_32_execution(config.tf32)  # as in its evaluations
        vocabulary = Vocabulary.read(logdir / VOCABULARY) if config.dataset == "text" else None
        if vocabulary and vocabulary.size != model.generator.vocab_size:
            raise UsageError(f"{logdir / VOCABULARY}: not this run's vocabulary")
        music = config.dataset == "Nottingham"
        grid = Grid(config.frame_seconds, config.frame_beats, config.onsets)
        if arguments.no_unknown and not vocabulary:
            raise UsageError(f"--no-unknown: {logdir} is no run on text, so there is no unknown token")
        if not music and (arguments.abc or arguments.prefix_file):
            raise UsageError(f"{'--abc' if arguments.abc else '--prefix_file'}: {logdir} is no run on music")
        if arguments.prefix_file and arguments.prefix:
            raise UsageError("--prefix_file: not with --prefix")
        if arguments.keep and not arguments.prefix_file:
            raise UsageError("--keep has no effect without --prefix_file")
        if arguments.prefix_file:
            prefix = read_first(arguments.prefix_file, arguments.keep or KEEP, grid)
        else:
            prefix = read_prefix(arguments.prefix, model, vocabulary)
        if len(prefix) >= length:
            flag = "--prefix_file" if arguments.prefix_file else "--prefix"
            whose = "the run's" if length == model.generator.seq_len else "--length"
            raise UsageError(f"{flag}: {len(prefix)} tokens leave none to draw of {whose} {length}")
        if arguments.without_prefix and not prefix:
            raise UsageError("--without_prefix has no effect without --prefix or --prefix_file")
        never = [vocabulary.unknown] if vocabulary and arguments.no_unknown else []
        if not (sys.stdout or arguments.output or music):
            raise UsageError("stdout is closed; -o names a file")
        if arguments.eta is not None and arguments.candidates == 1:
            raise UsageError("--eta has no effect without --candidates of 2 or more")
        if arguments.guide and arguments.candidates > 1 and not arguments.objective:
            raise UsageError("--candidates are drawn from the generator itself: not with --guide")
        objective = None
        if arguments.objective is not None:
            if arguments.eta is not None:
                raise UsageError("--eta is of the discriminator: it has no effect with --objective")
            decode: Callable[[np.ndarray], list] = vocabulary.decode if vocabulary else list
            objective = Objective.read(arguments.objective, (lambda rows: list(to_pitches(rows))) if music else decode)
        draws = arguments.candidates if objective else 1  # of each sample; the discriminator's are drawn together
        choice = None if objective else choice_of(model, logdir, arguments.candidates, arguments.eta)
        if arguments.rank and not objective:
            if arguments.eta is None:
                check_knows(model, logdir, "--rank")
            if length != model.generator.seq_len:
                raise UsageError(f"--rank: the discriminator reads {model.generator.seq_len} tokens; not with --length")
        drawn_from = model.choice(arguments.guide)
        samples = portions(
            drawn_from, arguments.n * draws, prefix, arguments.temperature, arguments.seed, length, never, choice
        )
        if objective:
            samples = scored(samples, objective, draws, arguments.rank)
        elif arguments.rank:
            samples = ranked(samples, model.log_odds)
        if arguments.without_prefix:
            samples = (rows[:, len(prefix) :] for rows in samples)
        if music:
            songs = Songs(arguments.output, arguments.n, logdir, arguments.abc)
            seconds = frame_seconds(config, recorded_tempo(logdir / TEMPO) if config.frame_beats else 0)
            songs.write(samples, seconds, arguments.seed, config, logdir)
            escape_unprintable()
            print(songs)
        else:
            write_lines(samples, vocabulary, arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
