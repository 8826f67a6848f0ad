"""Starting from another run's pretraining of the generator, as if it had been repeated."""

from pathlib import Path
from typing import Any

import tensorflow as tf

from support.checkpoints import Checkpoints
from support.config import (
    CONFIG,
    READ_FROM,
    UNRELATED_TO_PRETRAINING,
    Config,
    UsageError,
    differences,
    from_flags,
    read_config,
)
from support.directories import CHECKPOINTS, METRICS, PRETRAINED
from support.logs import RunLog


class Pretraining:
    """The pretraining of the run that --pretrained names."""

    def __init__(self, config: Config, digests: dict[str, str]):
        """Makes sure that it is what `config` would repeat; `digests` are checksums of the data.

        Raises:
            UsageError: it is another one, or there is no run.
        """
        self.config, self.directory = config, Path(config.pretrained)
        try:
            content = read_config(self.directory / CONFIG)
            before = from_flags(content["flags"])
            unrelated = UNRELATED_TO_PRETRAINING | (READ_FROM if "data" in content else set())
            if differing := differences(before, config, unrelated):
                raise UsageError(f"that run has {'; '.join(differing)}")
            if content.get("data", digests) != digests:
                raise UsageError("that run has read other data")
        except UsageError as error:
            raise UsageError(f"--pretrained {self.directory}: {error}") from None
        # A run that was moved has its evaluations beside it, if it had.
        recorded = Path(before.eval_log_dir)
        beside = self.directory.parent / recorded.name
        self.eval_directory = beside if (beside / METRICS).exists() else recorded

    def restore(self, state: tf.train.Checkpoint, which: str = PRETRAINED) -> tuple[int, dict[str, Any]]:
        """Loads the state at its end or, `which` being BEST, at its least NLL of valid; other state stays as it is.

        Returns:
            (steps taken, details of the checkpoint).

        Raises:
            UsageError: it is not there, or damaged.
        """
        found = Checkpoints(self.directory / CHECKPOINTS, state, keep=1, whole=False).look(which)
        if not found:
            raise UsageError(f"--pretrained {self.directory}: the run has no checkpoint yet")
        return found

    def copy_logs(self, logs: list[RunLog], positions: dict[str, dict[str, int]]) -> None:
        """Writes its records, up to `positions`, to the logs of training and evaluation.

        Raises:
            UsageError: they are missing.
        """
        for log, kind, directory in zip(logs, ("train", "eval"), (self.directory, self.eval_directory), strict=False):
            if kind not in positions:
                raise UsageError(f"--pretrained {self.directory}: that run was not evaluated")
            log.copy(directory, positions[kind])
