"""What bfloat16 does to a trained model's rewards and to their time: python benchmarks/mixed_precision.py LOGDIR."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import support.quiet  # noqa: F401 - before TensorFlow

# isort: split
import numpy as np
import tensorflow as tf

from benchmarks.machine import time_calls
from model import SeqGAN
from support.config import UsageError
from support.device import configure_tensorflow
from support.seeds import Purpose, key, uniforms


def rewards_of(model: SeqGAN, tokens: tf.Tensor, precision: tf.DType):
    """A compiled function of a key that gives the rewards of `tokens`, its matrix products in `precision`."""
    policy = model.rollout_policy

    def rewards(seed: tf.Tensor) -> tf.Tensor:
        policy.precision = precision
        scorer = model.discriminator.completion_scorer(tokens, precision)
        return policy.rewards(tokens, scorer, model.config.rollout_num, seed)

    return tf.function(rewards, jit_compile=model.config.jit, autograph=False)


def line(name: str, difference: np.ndarray) -> str:
    """The largest and the mean absolute difference."""
    return f"{name:<62} max {np.abs(difference).max():.5f}  mean {np.abs(difference).mean():.6f}"


def main(argv: Sequence[str] | None = None) -> int:
    """The program: restores the run, measures, prints."""
    parser = argparse.ArgumentParser(prog="mixed_precision.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("logdir", type=Path, metavar="LOGDIR", help="--log_dir of a trained LSTM run")
    directory = parser.parse_args(argv).logdir
    configure_tensorflow()
    try:
        model = SeqGAN.restored(directory)
    except UsageError as error:
        parser.error(str(error))
    config = model.config
    policy, shape = model.rollout_policy, [config.seq_len, config.batch_size]
    tokens = model.generator.sample(uniforms(shape, key(config.seed, Purpose.G_SAMPLE, 0)))

    hidden, projection = policy.states(tokens).hidden, policy.projection()
    laws = [
        tf.nn.softmax(policy.logits(hidden, tf.cast(projection, precision))) for precision in (tf.float32, tf.bfloat16)
    ]
    opinions = [
        model.discriminator.completion_scorer(tokens, precision)(tokens[None], tf.constant(1))
        for precision in (tf.float32, tf.bfloat16)
    ]
    print(line("D of the same sequences", (opinions[0] - opinions[1]).numpy()))
    print(line("next-token law, total variation", tf.reduce_sum(tf.abs(laws[0] - laws[1]), axis=-1).numpy() / 2))
    seeds = [key(config.seed, Purpose.ROLLOUT, step) for step in range(2)]
    full, half = (rewards_of(model, tokens, precision) for precision in (tf.float32, tf.bfloat16))
    print(line("rewards, same random numbers", (full(seeds[0]) - half(seeds[0])).numpy()))
    print(
        line("rewards in float32, other random numbers (Monte-Carlo error)", (full(seeds[0]) - full(seeds[1])).numpy())
    )
    for name, rewards in (("float32", full), ("bfloat16", half)):
        timing = time_calls(lambda rewards=rewards: rewards(seeds[0]), 9)
        print(f"reward pass in {name:<9} median {timing.median:.3f} s ({timing.low:.3f} to {timing.high:.3f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
