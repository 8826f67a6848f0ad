"""Times every step of training against what the machine can do: python benchmarks/steps.py [--preset paper]."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from timeit import Timer
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import support.quiet  # noqa: F401 - before TensorFlow

import numpy as np
import pandas as pd
import tensorflow as tf

from data.oracle import OracleData
from discriminator import FAKE, REAL
from evaluation.evaluator import Due
from evaluation.run import evaluator_of, measures_of
from model import SeqGAN, build
from oracle import Oracle
from runs.directories import write_whole
from runs.identity import cpu_model, description
from support.config import Config
from support.device import configure_tensorflow
from support.lookup import looped
from support.parser import Parser, new_file, number, parse
from support.seeds import Purpose, key, uniforms
from support.streams import run_tool

# Flags of other steps than those that are timed.
AS_PRINTED = (
    *("dataset", "discriminator", "reward", "objective", "g_update", "g_steps"),
    *("mle_steps", "train_size", "d_draws", "kl_weight", "g_echo", "scheduled_sampling"),
)
LOOP = 15  # discriminator updates in one compiled loop, as many as in a default epoch


class Work(NamedTuple):
    """What a step must do: float32 operations (`flops`), and bytes moved where memory bounds it (`traffic`)."""

    flops: float
    traffic: float = 0.0

    def floor(self, peaks: dict[str, float]) -> float:
        """The least time it can take where these are the most `flops` and bytes a second (`bandwidth`), seconds."""
        return self.flops / peaks["flops"] + self.traffic / peaks["bandwidth"]


def time_calls(step: Callable[[], object], repeats: int) -> dict[str, float]:
    """Seconds until the results are there: of the `first` call, and `median`, `low` and `high` of those after two."""
    first, _, *times = Timer(lambda: list(map(np.asarray, tf.nest.flatten(step())))).repeat(repeats + 2, number=1)
    return {"first": first, "median": float(np.median(times)), "low": min(times), "high": max(times)}


def measure_peaks() -> dict[str, float]:
    """The best `flops` and `bandwidth` of several trials: a product of 2048² matrices, 128 MiB read and written."""
    matrix, block = tf.random.stateless_normal([2048, 2048], [1, 2]), tf.zeros([32 * 2**20])

    copies = tf.function(lambda: looped(lambda i, x: (x + 1.0,), block, until=10)[0], jit_compile=True, autograph=False)
    product = time_calls(tf.function(lambda: tf.matmul(matrix, matrix)), 20)["low"]
    copied = time_calls(lambda: copies()[0], 20)["low"]
    return {"flops": 2 * 2048**3 / product, "bandwidth": 10 * 2 * 4 * 32 * 2**20 / copied}


def policy_step(emb_dim: int, hidden_dim: int, vocab_size: int) -> float:
    """Operations of one token of one sequence: the LSTM's gates and the vocabulary projection."""
    return 2 * (emb_dim + hidden_dim) * 4 * hidden_dim + 2 * hidden_dim * vocab_size


def verdict(config: Config) -> float:
    """Operations of the discriminator's forward pass over one sequence."""
    sizes, features = zip(config.d_filter_sizes, config.d_num_filters, strict=True), sum(config.d_num_filters)
    convolutions = sum(2 * width * config.d_emb_dim * count * (config.seq_len - width + 1) for width, count in sizes)
    return convolutions + 2 * 2 * features**2 + 2 * features * 2


def adam_traffic(variables: list) -> float:
    """Bytes that Adam must move: it reads weight, gradient and two moments, and writes weight and moments."""
    return 7 * 4 * sum(int(np.prod(v.shape)) for v in variables)


def work_of_steps(config: Config, seqgan: SeqGAN, oracle: Oracle) -> dict[str, Work]:
    """What each step must do, without tricks."""
    batch, seq_len, rollouts = config.batch_size, config.seq_len, config.rollout_num
    policy = policy_step(config.g_emb_dim, config.g_hidden_dim, seqgan.generator.vocab_size)
    real = policy_step(oracle.embedding.output_dim, oracle.hidden_dim, oracle.vocab_size)
    # backward: two products for each forward one
    update = Work(3 * batch * seq_len * policy, adam_traffic(seqgan.generator.trainable_variables))
    d_update = Work(3 * config.d_batch_size * verdict(config), adam_traffic(seqgan.discriminator.trainable_variables))
    sampled = batch * seq_len * policy
    rewards = rollouts * sampled * (seq_len - 1) / 2 + batch * (rollouts * (seq_len - 1) + 1) * verdict(config)
    passes = config.d_steps * config.d_epochs
    drawn = config.d_steps * config.d_batch_size // 2 * seq_len * (policy + real)
    epoch = sampled + rewards + update.flops + passes * d_update.flops + drawn
    return {
        "mle_step": update,
        "sample_batch": Work(sampled),
        "reward_pass": Work(rewards),
        "policy_gradient_step": update,
        "d_step": d_update,
        "evaluation": Work(2 * config.eval_samples * seq_len * (policy + real)),
        "adversarial_epoch": Work(epoch, update.traffic + passes * d_update.traffic),
    }


def steps_of(config: Config, data: OracleData, seqgan: SeqGAN) -> dict[str, Callable[[], object]]:
    """Each step as a function of nothing; `d_step` takes LOOP of them."""
    zero, evaluator, measures = tf.constant(0), evaluator_of(data, config), measures_of(config, seqgan)
    batch = data.mle_batches(0)[:1]  # one batch, whatever an epoch is
    half = config.d_batch_size // 2
    labels = tf.constant([REAL] * half + [FAKE] * half)
    minibatch = tf.concat([data.real(0)[:half], measures.policy.sample(half, Purpose.D_FAKE, zero)], axis=0)

    def sample_batch() -> tf.Tensor:
        return seqgan.generator.sample(uniforms([config.seq_len, config.batch_size], key(1, Purpose.G_SAMPLE, 0)))

    def reward_pass() -> tf.Tensor:
        scorer = seqgan.reward.scorer(batch[0], zero)
        return seqgan.rollout_policy.rewards(batch[0], scorer, config.rollout_num, key(1, Purpose.ROLLOUT, 0))

    def policy_gradient_step() -> tf.Tensor:
        loss, gradients = seqgan.policy_gradient(batch[0], tf.ones([config.batch_size, config.seq_len]))
        seqgan._update_generator(seqgan.g_optimizer, gradients)
        return loss

    def d_step() -> tf.Tensor:
        def update(i, total):
            return (total + seqgan.update_discriminator(minibatch, labels, key(1, Purpose.DROPOUT, i))[0],)

        return looped(update, 0.0, until=LOOP)[0]

    def adversarial_epoch() -> list:
        results = [seqgan.g_step(zero).loss]
        seqgan.follow_policy(lag=0.0)
        return results + [seqgan.d_step(data.real(step), tf.constant(step))[0] for step in range(config.d_steps)]

    steps = (sample_batch, reward_pass, policy_gradient_step, d_step)
    return {
        "mle_step": lambda: seqgan.mle_epoch(batch),
        **{step.__name__: tf.function(step, jit_compile=config.jit, autograph=False) for step in steps},
        "evaluation": lambda: list(evaluator.of_policy(measures.policy, 0, Due(True, False, False)).values()),
        "adversarial_epoch": adversarial_epoch,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """The program: measures, prints the table, and writes it as JSON if asked."""
    parser = Parser(prog="steps.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("--preset", choices=("default", "paper", "quick"), default="default", help="(default: default)")
    text = "timed calls a step, after warm-up (default: 15)"
    parser.add_argument("--repeats", type=number(int, 1, None), default=15, metavar="INT", help=text)
    parser.add_argument("--json", type=new_file, metavar="FILE", help="also write the figures there")
    arguments, flags = parser.parse_known_args(argv)
    # A training set would make a d-step of the paper's preset 936 updates; their cost is that of one, times 936.
    config = parse(["--preset", arguments.preset, "--train_size", "0", *flags])
    for name in (name for name in AS_PRINTED if getattr(config, name) != getattr(Config, name)):
        parser.error(f"--{name} {getattr(config, name)}: the steps that are timed are SeqGAN's on the oracle")
    configure_tensorflow(config.threads, config.deterministic)
    with parser.failing_in_one_line(arguments.json):
        data = OracleData(config)
    peaks = measure_peaks()
    seqgan = build(config, data.spec)
    works = work_of_steps(config, seqgan, data.oracle)
    rows = {}
    for name, step in steps_of(config, data, seqgan).items():
        rows[name] = time_calls(step, arguments.repeats) | works[name]._asdict() | {"floor": works[name].floor(peaks)}
    frame = pd.DataFrame.from_dict(rows, orient="index")
    frame.loc["d_step", ["median", "low", "high"]] /= LOOP
    median, floor = frame["median"], frame["floor"]
    shown = {"median ms": median * 1e3, "low": frame["low"] * 1e3, "high": frame["high"] * 1e3}
    shown |= {"GFLOP": frame["flops"] / 1e9, "MB": frame["traffic"] / 1e6, "floor ms": floor * 1e3}
    shown |= {"ratio": median / floor, "first call s": frame["first"]}
    gpus = map(tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU"))
    names = ", ".join(gpu.get("device_name", "GPU") for gpu in gpus)
    machine = names or f"{cpu_model()}, {os.cpu_count()} logical processors"
    print(f"{machine}\nmatrix product {peaks['flops'] / 1e9:.0f} GFLOP/s, memory {peaks['bandwidth'] / 1e9:.1f} GB/s")
    print(pd.DataFrame(shown).to_string(float_format="{:.2f}".format))
    if arguments.json:
        content = {"machine": machine, "configuration": description(config), "peaks": peaks}
        with parser.failing_in_one_line(arguments.json):
            write_whole(arguments.json, json.dumps(content | {"steps": frame.to_dict("index")}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    run_tool(main)
