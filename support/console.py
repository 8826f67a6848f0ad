"""What a run tells its user, in lines."""

import math
from collections.abc import Mapping, Sequence

import tensorflow as tf

from support.checkpoints import first_line
from support.config import Config


def summary(evaluation: Mapping[str, Sequence[float]]) -> str:
    """The figures of an evaluation in one line."""
    if not evaluation:
        return "not evaluated"
    errors = {name: "" if math.isnan(error) else f" ± {error:.3f}" for name, (_, error) in evaluation.items()}
    return ", ".join(f"{name} {value:.3f}{errors[name]}" for name, (value, _) in evaluation.items())


def where(config: Config) -> str:
    """Where the curves are."""
    return f"curves: tensorboard --logdir {config.eval_log_dir if config.evaluate else config.log_dir}"


def in_one_line(error: Exception, config: Config) -> str:
    """What a user can do something about, in one line."""
    if isinstance(error, OSError):
        return f"{error.filename or config.log_dir}: {error.strerror or error}"
    if isinstance(error, (MemoryError, tf.errors.ResourceExhaustedError)):
        return f"out of memory ({first_line(error)}); --batch_size and --rollout_num are the first to reduce"
    return str(error)
