"""What a run tells its user, in lines."""

import datetime
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import tensorflow as tf
from tqdm import tqdm

from support.config import Config, first_line

Figures = Mapping[str, Sequence[float]]  # {name: (value, standard error)}; an unknown error is NaN


GUIDED = "_guided"  # ends the name of a figure of the guided generator
RESAMPLED = "_resampled"  # ends the name of a figure of what is kept of --candidates


def guided_names(names: Iterable[str]) -> tuple[str, ...]:
    """What an evaluation calls the figures of the guided generator, of those that the generator itself has; and η."""
    own = (name for name in names if not name.startswith(("real_", "oracle_", "d_")))
    return ("guide_eta", *(f"{name}{GUIDED}" for name in own))


def resampled_names(names: Iterable[str]) -> tuple[str, ...]:
    """What an evaluation calls the figures of what is kept of --candidates, of those that the generator itself has."""
    measured = ("nll", "nll_test", "g_entropy", "kl_forward", "kl_reverse", "d_gain")
    return tuple(f"{name}{RESAMPLED}" for name in names if name in measured)


def by_importance(names: Iterable[str]) -> list[str]:
    """The names of an evaluation's figures: NLLs first, then entropies."""
    return sorted(names, key=lambda name: (not name.startswith("nll"), not name.endswith("entropy")))


def table(evaluation: Figures) -> str:
    """The figures of an evaluation, a line each, and what real data has beside it; an unknown error is left out."""
    if not evaluation:
        return "not evaluated"

    def shown(name: str) -> str:
        value, error = evaluation.get(name, (math.nan, math.nan))
        return "" if math.isnan(value) else f"{value:.3f}" if math.isnan(error) else f"{value:.3f} ± {error:.3f}"

    def plain(name: str) -> str:
        return name.removesuffix(GUIDED).removesuffix(RESAMPLED)

    of_real = {name: name.removeprefix("real_") for name in evaluation if name.startswith("real_")}
    of_real |= {"oracle_entropy": "g_entropy"}
    beside = {name: real for real, name in of_real.items()}
    names = by_importance(dict.fromkeys(of_real.get(name, plain(name)) for name in evaluation))
    rows: list[tuple[str, ...]] = [("", "generated", "guided", "resampled", "real")]
    kinds = ("", GUIDED, RESAMPLED)
    rows += [(name, *(shown(name + kind) for kind in kinds), shown(beside.get(name, ""))) for name in names]
    columns = [column for column in zip(*rows, strict=True) if any(column[1:])]
    widths = [max(map(len, column)) for column in columns]
    lines = ((cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in zip(*columns, strict=True))
    return "\n".join("  ".join(line).rstrip() for line in lines)


def report(evaluation: Figures, *remarks: str) -> str:
    """What a run ends with: the table of an evaluation, and a line of remarks."""
    units = "NLL and entropy in nats per token, ± one standard error"
    units += ", kl_to_pretrained in nats per sequence" * ("kl_to_pretrained" in evaluation)
    return "\n".join([table(evaluation), "; ".join([units, *remarks])])


class Progress:
    """Shows how far a phase is: on a terminal by a bar, elsewhere in a line where an epoch is evaluated."""

    def __init__(self, phase: str, epochs: int, first: int):
        """A phase of `epochs` from the epoch numbered `first` on."""
        self.phase, self.epochs = phase, epochs
        self.bar = tqdm(total=epochs, initial=first, desc=phase, unit="epoch", disable=None)
        self.bar.set_postfix_str("compiling, which takes some seconds")
        self._since: tuple[int, float] | None = None  # the first epoch, which compiled, and when it ended

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def update(self, epoch: int, figures: dict[str, float], evaluation: Figures | None) -> None:
        """Tells of an epoch of training that has ended.

        `epoch`: its number within the phase. `figures`: of its training. `evaluation`: its figures, {} with
        --no-evaluate; None where none was due.
        """
        self.bar.update()
        self.bar.set_postfix({name: f"{value:.3f}" for name, value in figures.items()}, refresh=False)
        self._since = self._since or (epoch, time.perf_counter())
        if self.bar.disable and evaluation is not None:
            print(self._line(epoch, figures, evaluation), flush=True)

    def _line(self, epoch: int, figures: dict[str, float], evaluation: Figures) -> str:
        shown = [name for name in by_importance(evaluation) if not name.endswith(RESAMPLED)]
        told = ("g_entropy", "objective", "kl_to_pretrained")
        main = [name for name in shown if name.startswith("nll") or name in told]
        values = {name: evaluation[name][0] for name in main} or figures
        line = f"{self.phase} {epoch + 1}/{self.epochs}: {', '.join(f'{name} {values[name]:.3f}' for name in values)}"
        first, since = self._since or (epoch, 0.0)
        taken, seconds, left = epoch - first, time.perf_counter() - since, self.epochs - epoch - 1
        if not taken or not left:
            return line
        pace = f"{taken / seconds:.1f} epochs/s" if taken > seconds else f"{seconds / taken:.1f} s an epoch"
        return f"{line}; {pace}, {datetime.timedelta(seconds=round(left * seconds / taken))} left of this phase"


def where(config: Config) -> str:
    """Where the curves are: one level up, so that TensorBoard has a name for the run."""
    directory = Path(config.eval_log_dir if config.evaluate else config.log_dir)
    return f"curves: tensorboard --logdir {directory.parent if directory.parent.name else directory}"


def in_one_line(error: Exception, config: Config) -> str:
    """What a user can do something about, in one line."""
    if isinstance(error, OSError):
        return f"{error.filename or config.log_dir}: {error.strerror or error}"
    if isinstance(error, (MemoryError, tf.errors.ResourceExhaustedError)):
        return f"out of memory ({first_line(error)}); --batch_size and --rollout_num are the first to reduce"
    return str(error)
