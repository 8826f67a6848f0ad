"""Times every step of training against what the machine can do: python benchmarks/steps.py [--preset paper]."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import support.quiet  # noqa: F401 - before TensorFlow

# isort: split
import pandas as pd
import tensorflow as tf

from benchmarks.machine import Peaks, Timing, Work, machine_name, measure_peaks, time_calls, work_of_steps
from data.oracle import OracleData
from discriminator import FAKE, REAL
from evaluation.evaluator import Due
from evaluation.run import evaluator_of, measures_of, settings_of
from model import GRADIENT_NORM, SeqGAN, build
from runs.directories import write_whole
from runs.identity import description
from support.config import Config
from support.device import configure_tensorflow
from support.parser import Parser, new_file, number, parse
from support.seeds import Purpose, key, uniforms

# Flags of other steps than those that are timed.
AS_PRINTED = ("dataset", "discriminator", "reward", "objective", "g_update", "g_steps", "mle_steps", "d_draws")
LOOP = 15  # discriminator updates in one compiled loop, as many as in a default epoch


def steps_of(config: Config, data: OracleData, seqgan: SeqGAN) -> dict[str, Callable[[], object]]:
    """Each step as a function of nothing; `d_step` takes LOOP of them."""
    zero, evaluator, measures = tf.constant(0), evaluator_of(data, settings_of(config)), measures_of(config, seqgan)
    batch = data.mle_batches(0)[:1]  # one batch, whatever an epoch is
    half = config.d_batch_size // 2
    labels = tf.constant([REAL] * half + [FAKE] * half)
    minibatch = tf.concat([data.real(0)[:half], measures.policy.sample(half, Purpose.D_FAKE, zero)], axis=0)

    def compiled(function: Callable[[], object]) -> Callable[[], object]:
        return tf.function(function, jit_compile=config.jit, autograph=False)

    def sample() -> tf.Tensor:
        return seqgan.generator.sample(uniforms([config.seq_len, config.batch_size], key(1, Purpose.G_SAMPLE, 0)))

    def rewards() -> tf.Tensor:
        scorer = seqgan.reward.scorer(batch[0], zero)
        return seqgan.rollout_policy.rewards(batch[0], scorer, config.rollout_num, key(1, Purpose.ROLLOUT, 0))

    def policy_gradient() -> tf.Tensor:
        loss, gradients = seqgan.policy_gradient(batch[0], tf.ones([config.batch_size, config.seq_len]))
        clipped, _ = tf.clip_by_global_norm(gradients, GRADIENT_NORM)
        seqgan.g_optimizer.apply(clipped, seqgan.generator.trainable_variables)
        return loss

    def discriminator() -> tf.Tensor:
        def update(i, total):
            return i + 1, total + seqgan.update_discriminator(minibatch, labels, key(1, Purpose.DROPOUT, i)).loss

        return tf.while_loop(lambda i, _: i < LOOP, update, (0, 0.0), maximum_iterations=LOOP)[1]

    def adversarial_epoch() -> list:
        results = [seqgan.g_step(zero).loss]
        seqgan.follow_policy(lag=0.0)
        return results + [seqgan.d_step(data.real(step), tf.constant(step)).loss for step in range(config.d_steps)]

    return {
        "mle_step": lambda: seqgan.mle_epoch(batch),
        "sample_batch": compiled(sample),
        "reward_pass": compiled(rewards),
        "policy_gradient_step": compiled(policy_gradient),
        "d_step": compiled(discriminator),
        "evaluation": lambda: list(evaluator.of_policy(measures.policy, 0, Due(True, False, False)).values()),
        "adversarial_epoch": adversarial_epoch,
    }


def table(timings: Mapping[str, Timing], works: Mapping[str, Work], peaks: Peaks) -> str:
    """The results as text, a line a step."""
    rows = {}
    for name, timing in timings.items():
        work, floor = works[name], works[name].floor(peaks)
        rows[name] = {"median ms": timing.median * 1e3, "low": timing.low * 1e3, "high": timing.high * 1e3}
        rows[name] |= {"GFLOP": work.flops / 1e9, "MB": work.traffic / 1e6, "floor ms": floor * 1e3}
        rows[name] |= {"ratio": timing.median / floor, "first call s": timing.first}
    limits = f"matrix product {peaks.flops / 1e9:.0f} GFLOP/s, memory {peaks.bandwidth / 1e9:.1f} GB/s"
    figures = pd.DataFrame.from_dict(rows, orient="index").to_string(float_format="{:.2f}".format)
    return "\n".join([machine_name(), limits, figures])


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
    peaks, data = measure_peaks(), OracleData(config)
    seqgan = build(config, data.spec)
    works = work_of_steps(config, seqgan, data.oracle)
    timings = {}
    for name, step in steps_of(config, data, seqgan).items():
        first, *times = time_calls(step, arguments.repeats)
        timings[name] = Timing(first, *(time / (LOOP if name == "d_step" else 1) for time in times))
    print(table(timings, works, peaks))
    if arguments.json:
        steps = {
            name: {**timing._asdict(), **works[name]._asdict(), "floor": works[name].floor(peaks)}
            for name, timing in timings.items()
        }
        content = {"machine": machine_name(), "configuration": description(config), "peaks": peaks._asdict()}
        with parser.failing_in_one_line(arguments.json):
            write_whole(arguments.json, json.dumps(content | {"steps": steps}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
