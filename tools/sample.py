"""Draws samples from a run, finished or not: python tools/sample.py LOGDIR -n 100 [--prefix "..."] [-o FILE]."""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import support.quiet  # noqa: F401 - before TensorFlow

# isort: split
import numpy as np
import tensorflow as tf

from data.midi import write_midi
from data.text import Vocabulary, tokenise
from model import SeqGAN
from rollout import RolloutPolicy
from support.checkpoints import first_line
from support.config import Parser, UsageError, number
from support.device import configure_tensorflow
from support.directories import VOCABULARY
from support.seeds import Purpose, key, uniforms

ROWS = 256  # samples drawn at once; the same whatever -n, so that more samples begin with the fewer


def draw(model: SeqGAN, count: int, prefix: Sequence[int], temperature: float, seed: int) -> np.ndarray:
    """Draws sequences that begin with a prefix.

    Args:
        model: its output layer is changed by a temperature other than 1.
        count: n.
        prefix: fewer than T token ids.
        temperature: the logits are divided by it: below 1 likely tokens become likelier.
        seed: 0 <= seed < 2**31.

    Returns:
        int32 [n, T].
    """
    for weight in (model.averaged.output_layer.kernel, model.averaged.output_layer.bias):
        weight.assign(weight / temperature)  # logits are linear in both
    policy, seq_len = RolloutPolicy(model.averaged), model.averaged.seq_len
    tokens = tf.constant([[*prefix, *[0] * (seq_len - len(prefix))]])

    def complete(chunk: tf.Tensor) -> tf.Tensor:
        numbers = uniforms([seq_len, ROWS, 1], key(seed, Purpose.TOOL_SAMPLE, chunk))
        return policy.complete(tokens, policy.states(tokens), tf.constant(len(prefix)), numbers)[:, 0]

    compiled = tf.function(complete, jit_compile=model.config.jit, autograph=False)
    return np.concatenate([compiled(tf.constant(chunk)).numpy() for chunk in range(-(-count // ROWS))])[:count]


def read_prefix(text: str, model: SeqGAN, vocabulary: Vocabulary | None) -> list[int]:
    """The token ids of --prefix: text where there is a vocabulary, else numbers.

    Raises:
        UsageError: it has unknown tokens, or so many that none is left to draw.
    """
    if vocabulary:
        tokens = tokenise(text, vocabulary.kind)
        unknown = sorted(set(tokens) - set(vocabulary.entries))
        prefix = vocabulary.encode(tokens)
    else:
        tokens = text.split()
        prefix = [int(token) if token.isascii() and token.isdecimal() and len(token) < 10 else -1 for token in tokens]
        unknown = [t for t, i in zip(tokens, prefix, strict=True) if not 0 <= i < model.generator.vocab_size]
    if unknown:
        raise UsageError(f"--prefix: not in the run's vocabulary: {' '.join(map(repr, unknown))}")
    if len(prefix) >= model.generator.seq_len:
        raise UsageError(f"--prefix: {len(prefix)} tokens leave none to draw of the run's {model.generator.seq_len}")
    return prefix


def write(samples: np.ndarray, model: SeqGAN, vocabulary: Vocabulary | None, output: Path | None, logdir: Path) -> None:
    """Writes samples, int32 [n, T]: a line each of text or token ids to a file or stdout, or tunes to a folder.

    Raises:
        OSError: it can't be written.
    """
    if model.config.dataset == "Nottingham":
        folder = output or logdir / "samples"
        folder.mkdir(parents=True, exist_ok=True)
        for i, tokens in enumerate(samples):
            write_midi(tokens, folder / f"sample{i}.mid", model.config.frame_seconds)
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        print(f"{len(samples)} tunes in {folder}/sample*.mid")
        return
    lines = vocabulary.decode(samples) if vocabulary else [" ".join(map(str, tokens)) for tokens in samples.tolist()]
    text = "".join(f"{line}\n" for line in lines)
    if output:
        output.write_text(text, encoding="utf-8")
    else:
        sys.stdout.buffer.write(text.encode())
        sys.stdout.buffer.flush()


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns the exit status, 2 with one line on stderr where something can't be used."""
    parser = Parser(prog="sample.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("logdir", type=Path, metavar="LOGDIR", help="--log_dir of a run")
    parser.add_argument("-n", type=number(int, 1, None), default=10, metavar="INT", help="samples (default: 10)")
    parser.add_argument(
        "--temperature",
        type=number(float, 1e-6, 1e6),
        default=1.0,
        metavar="FLOAT",
        help="divides the logits: near 0 the likeliest token is taken (default: 1, the policy itself)",
    )
    parser.add_argument("--seed", type=number(int, 0, 2**31 - 1), default=1, metavar="INT", help="(default: 1)")
    parser.add_argument("--prefix", default="", help="what every sample begins with: text, or token ids with spaces")
    parser.add_argument("-o", "--output", type=Path, help="file, or folder of tunes (default: stdout, LOGDIR/samples)")
    arguments = parser.parse_args(argv)
    try:
        configure_tensorflow()
        model = SeqGAN.restored(arguments.logdir)
        text = model.config.dataset == "text"
        vocabulary = Vocabulary.read(arguments.logdir / VOCABULARY) if text else None
        if vocabulary and vocabulary.size != model.generator.vocab_size:
            raise UsageError(f"{arguments.logdir / VOCABULARY}: not this run's vocabulary")
        prefix = read_prefix(arguments.prefix, model, vocabulary)
        samples = draw(model, arguments.n, prefix, arguments.temperature, arguments.seed)
        write(samples, model, vocabulary, arguments.output, arguments.logdir)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        sys.stderr.close()
        return 0
    except OSError as error:
        parser.error(f"{error.filename or arguments.output or 'stdout'}: {error.strerror or first_line(error)}")
    except UsageError as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
