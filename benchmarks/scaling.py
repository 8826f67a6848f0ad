"""Shows how the reward pass grows with B, N, V and T, and its memory: python benchmarks/scaling.py -o FILE.png."""

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import support.quiet  # noqa: F401 - before TensorFlow

# isort: split
import matplotlib
import numpy as np
import tensorflow as tf

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from benchmarks.machine import machine_name, time_calls
from model import SeqGAN
from support.parser import parse
from support.seeds import Purpose, key

BASE = {"batch_size": 32, "rollout_num": 16, "vocab_size": 5000, "seq_len": 20}
SYMBOLS = {"batch_size": "B", "rollout_num": "N", "vocab_size": "V", "seq_len": "T"}
GROWTH = {
    "batch_size": (16, 32, 64, 128),
    "rollout_num": (8, 16, 32, 64),
    "vocab_size": (2500, 5000, 10_000, 20_000),
    "seq_len": (10, 20, 40, 80),
}
LARGEST = {"batch_size": 64, "rollout_num": 64, "vocab_size": 10_000, "seq_len": 40}


def measure(sizes: dict[str, int], repeats: int) -> dict[str, float]:
    """Times the reward pass at `sizes` here: `seconds`, the median, and `peak_mib`, the peak memory of this process."""
    config = parse([word for name, size in sizes.items() for word in (f"--{name}", str(size))])
    model = SeqGAN(config, config.vocab_size)
    shape = [config.batch_size, config.seq_len]
    tokens = tf.random.stateless_uniform(shape, [1, 2], 0, config.vocab_size, tf.int32)

    @tf.function(jit_compile=config.jit, autograph=False)
    def rewards() -> tf.Tensor:
        scorer = model.reward.scorer(tokens, tf.constant(0))
        return model.rollout_policy.rewards(tokens, scorer, config.rollout_num, key(1, Purpose.ROLLOUT, 0))

    median = time_calls(rewards, repeats).median
    return {"seconds": median, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def measure_apart(sizes: dict[str, int], repeats: int = 5) -> dict[str, float]:
    """`measure` in a process of its own, so that the peak memory is that of these sizes."""
    command = [sys.executable, __file__, "--one", json.dumps([sizes, repeats])]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """The slope of log time over log size: 1 is linear, 2 quadratic."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def draw(results: dict[str, list[dict[str, float]]], output: Path) -> None:
    """One panel a size, log-log, with the fitted exponent in its title."""
    figure, panels = plt.subplots(1, 4, figsize=(12, 3.2), sharey=True, layout="constrained")
    for panel, (name, measured) in zip(panels, results.items(), strict=True):
        seconds = [m["seconds"] for m in measured]
        panel.loglog(GROWTH[name], seconds, "o-")
        panel.set_title(f"time ~ {SYMBOLS[name]}^{exponent(GROWTH[name], seconds):.2f}")
        panel.set_xlabel(SYMBOLS[name])
        panel.set_xticks(GROWTH[name], [str(size) for size in GROWTH[name]])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("reward pass (s)")
    figure.savefig(output, dpi=110)
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> int:
    """The program: measures, prints a table, draws the figure."""
    parser = argparse.ArgumentParser(prog="scaling.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.png", help="the figure")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.one:
        print(json.dumps(measure(*json.loads(arguments.one))))
        return 0
    results = {name: [measure_apart(BASE | {name: size}) for size in sizes] for name, sizes in GROWTH.items()}
    largest = measure_apart(LARGEST, repeats=1)  # half a minute a call
    for name, measured in results.items():
        seconds = [m["seconds"] for m in measured]
        cells = "  ".join(f"{size}: {s:.2f} s" for size, s in zip(GROWTH[name], seconds, strict=True))
        print(f"{SYMBOLS[name]}  {cells}  exponent {exponent(GROWTH[name], seconds):.2f}")
    print(f"B 64, N 64, V 10000, T 40: {largest['seconds']:.1f} s, peak memory {largest['peak_mib']:.0f} MiB")
    if arguments.json:
        content = {
            "machine": machine_name(),
            "base": BASE,
            "growth": {k: [GROWTH[k], v] for k, v in results.items()},
            "largest": largest,
        }
        arguments.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if arguments.output:
        draw(results, arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
