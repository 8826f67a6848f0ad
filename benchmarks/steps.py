"""Times every step of training against what the machine can do: python benchmarks/steps.py [--preset paper]."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import support.quiet  # noqa: F401 - before TensorFlow

# isort: split
import tensorflow as tf

from benchmarks.machine import Peaks, Timing, Work, machine_name, measure_peaks, time_calls, work_of_steps
from data import Due
from model import SeqGAN
from oracle import OracleData
from runs.identity import description
from support.config import Config
from support.device import configure_tensorflow
from support.parser import Parser, new_file, number, parse
from support.seeds import Purpose, key, uniforms

# Flags of other steps than those that are timed.
AS_PRINTED = ("dataset", "discriminator", "reward", "objective", "g_update", "g_steps", "mle_steps", "d_draws")
LOOP = 15  # discriminator updates in one compiled loop, as many as in a default epoch


def steps_of(config: Config) -> tuple[SeqGAN, OracleData, dict[str, Callable[[], object]], dict[str, int]]:
    """The network, its data, and each step as a function of nothing; and how many steps one call takes, where not 1."""
    data = OracleData(config)
    model = SeqGAN(config, data.vocab_size)
    zero = tf.constant(0)
    batch = data.mle_batches(0)[:1]  # one batch, whatever an epoch is
    half = config.d_batch_size // 2
    labels = tf.constant([1] * half + [0] * half)
    minibatch = tf.concat([data.real(0)[:half], model.sample(half, Purpose.D_FAKE, zero)], axis=0)

    def compiled(function: Callable[[], object]) -> Callable[[], object]:
        return tf.function(function, jit_compile=config.jit, autograph=False)

    def sample() -> tf.Tensor:
        return model.generator.sample(uniforms([config.seq_len, config.batch_size], key(1, Purpose.G_SAMPLE, 0)))

    def rewards() -> tf.Tensor:
        scorer = model.reward.scorer(batch[0], tf.constant(0))
        return model.rollout_policy.rewards(batch[0], scorer, config.rollout_num, key(1, Purpose.ROLLOUT, 0))

    def policy_gradient() -> tf.Tensor:
        loss, gradients = model.policy_gradient(batch[0], tf.ones([config.batch_size, config.seq_len]))
        model._update_generator(model.g_optimizer, gradients)
        return loss

    def discriminator() -> tf.Tensor:
        def update(i, total):
            return i + 1, total + model._update_discriminator(minibatch, labels, key(1, Purpose.DROPOUT, i)).loss

        return tf.while_loop(lambda i, _: i < LOOP, update, (0, 0.0), maximum_iterations=LOOP)[1]

    def adversarial_epoch() -> list:
        results = [model.g_step(zero).loss]
        model.follow_policy(lag=0.0)
        for step in range(config.d_steps):
            reals = data._draw(half, key(1, Purpose.D_REAL, step))
            results.append(model.d_step(reals, tf.constant(step)).loss)
        return results

    steps = {
        "mle_step": lambda: model.mle_epoch(batch),
        "sample_batch": compiled(sample),
        "reward_pass": compiled(rewards),
        "policy_gradient_step": compiled(policy_gradient),
        "d_step": compiled(discriminator),
        "evaluation": lambda: list(data.evaluate(model, 0, Due(True, False, False)).values()),
        "adversarial_epoch": adversarial_epoch,
    }
    return model, data, steps, {"d_step": LOOP}


def table(timings: dict[str, Timing], works: dict[str, Work], peaks: Peaks) -> str:
    """The results as text, a line a step."""
    lines = [
        machine_name(),
        f"matrix product {peaks.flops / 1e9:.0f} GFLOP/s, memory {peaks.bandwidth / 1e9:.1f} GB/s",
        f"{'step':<22}{'median ms':>11}{'low':>9}{'high':>9}{'GFLOP':>9}{'MB':>8}{'floor ms':>10}{'ratio':>7}"
        f"{'first call s':>14}",
    ]
    for name, timing in timings.items():
        floor = works[name].floor(peaks)
        lines.append(
            f"{name:<22}{timing.median * 1e3:>11.2f}{timing.low * 1e3:>9.2f}{timing.high * 1e3:>9.2f}"
            f"{works[name].flops / 1e9:>9.2f}{works[name].traffic / 1e6:>8.0f}{floor * 1e3:>10.2f}"
            f"{timing.median / floor:>7.2f}{timing.first:>14.1f}"
        )
    return "\n".join(lines)


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
    configure_tensorflow(config.threads, config.deterministic, config.tf32)
    peaks = measure_peaks()
    model, data, steps, loops = steps_of(config)
    works = work_of_steps(config, model, data.oracle)
    timings = {}
    for name, step in steps.items():
        timing = time_calls(step, arguments.repeats)
        timings[name] = timing._replace(
            **{k: getattr(timing, k) / loops.get(name, 1) for k in ("median", "low", "high")}
        )
    print(table(timings, works, peaks))
    if arguments.json:
        content = {
            "machine": machine_name(),
            "configuration": description(config),
            "peaks": peaks._asdict(),
            "steps": {
                name: {**t._asdict(), **works[name]._asdict(), "floor": works[name].floor(peaks)}
                for name, t in timings.items()
            },
        }
        arguments.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
