"""What the machine can do and what a step must do: peaks measured in this process, operations counted from shapes."""

import os
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from model import SeqGAN
from oracle import Oracle
from support.config import Config
from support.cpus import cpu_model


class Peaks(NamedTuple):
    """Measured limits: `flops`, float32 operations a second of a matrix product; `bandwidth`, bytes a second copied."""

    flops: float
    bandwidth: float


class Work(NamedTuple):
    """What a step must do.

    `flops` are float32 operations, a multiplication and an addition counting 2; `traffic` the bytes moved where memory
    bounds the step.
    """

    flops: float
    traffic: float = 0.0

    def floor(self, peaks: Peaks) -> float:
        """The least time it can take, seconds."""
        return self.flops / peaks.flops + self.traffic / peaks.bandwidth


class Timing(NamedTuple):
    """`first` call, with compilation, and `median`, `low` and `high` of the later ones; seconds."""

    first: float
    median: float
    low: float
    high: float


def time_calls(step: Callable[[], object], repeats: int) -> Timing:
    """Times `step` once cold, once more to warm up, then `repeats` times; waits for the results of each."""

    def once() -> float:
        start = time.perf_counter()
        for result in tf.nest.flatten(step()):
            np.asarray(result)
        return time.perf_counter() - start

    first = once()
    once()
    times = [once() for _ in range(repeats)]
    return Timing(first, float(np.median(times)), min(times), max(times))


def machine_name() -> str:
    """The device that TensorFlow uses, and how many processors there are."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        return ", ".join(tf.config.experimental.get_device_details(gpu).get("device_name", "GPU") for gpu in gpus)
    return f"{cpu_model()}, {os.cpu_count()} logical processors"


def measure_peaks() -> Peaks:
    """The device's own limits, the best of several trials: a product of 2048² matrices, 128 MiB read and written."""
    matrix = tf.random.stateless_normal([2048, 2048], [1, 2])
    product = time_calls(tf.function(lambda: tf.matmul(matrix, matrix)), 20)
    block = tf.zeros([32 * 2**20])

    @tf.function(jit_compile=True)
    def copies() -> tf.Tensor:
        loop = tf.while_loop(lambda i, _: i < 10, lambda i, x: (i + 1, x + 1.0), (0, block), maximum_iterations=10)
        return loop[1][0]

    return Peaks(2 * 2048**3 / product.low, 10 * 2 * 4 * 32 * 2**20 / time_calls(copies, 20).low)


def policy_step(emb_dim: int, hidden_dim: int, vocab_size: int) -> float:
    """Operations of one token of one sequence: the LSTM's gates and the vocabulary projection."""
    return 2 * (emb_dim + hidden_dim) * 4 * hidden_dim + 2 * hidden_dim * vocab_size


def verdict(config: Config) -> float:
    """Operations of the discriminator's forward pass over one sequence."""
    features = sum(config.d_num_filters)
    convolutions = sum(
        2 * width * config.d_emb_dim * filters * (config.seq_len - width + 1)
        for width, filters in zip(config.d_filter_sizes, config.d_num_filters, strict=True)
    )
    return convolutions + 2 * 2 * features**2 + 2 * features * 2


def adam_traffic(variables: list) -> float:
    """Bytes that Adam must move: it reads weight, gradient and two moments, and writes weight and moments."""
    return 7 * 4 * sum(int(np.prod(v.shape)) for v in variables)


def work_of_steps(config: Config, seqgan: SeqGAN, oracle: Oracle) -> dict[str, Work]:
    """What each step must do, without tricks."""
    batch, seq_len, rollouts = config.batch_size, config.seq_len, config.rollout_num
    policy = policy_step(config.g_emb_dim, config.g_hidden_dim, seqgan.generator.vocab_size)
    real = policy_step(oracle.embedding.output_dim, oracle.hidden_dim, oracle.vocab_size)
    assert seqgan.discriminator is not None
    # backward: two products for each forward one
    update = Work(3 * batch * seq_len * policy, adam_traffic(seqgan.generator.trainable_variables))
    d_traffic = adam_traffic(seqgan.discriminator.trainable_variables)
    d_update = Work(3 * config.d_batch_size * verdict(config), d_traffic)
    sampled = batch * seq_len * policy
    completed = rollouts * batch * seq_len * (seq_len - 1) / 2 * policy
    rewards = completed + batch * (rollouts * (seq_len - 1) + 1) * verdict(config)
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
