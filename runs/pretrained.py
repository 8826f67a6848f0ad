"""Starting from another run's pretraining of the generator, as if it had been repeated."""

from pathlib import Path
from typing import Any

import tensorflow as tf

from runs.checkpoints import Checkpoints
from runs.directories import CHECKPOINTS, METRICS, PRETRAINED
from runs.logs import RunLog
from runs.manifest import sizes_at
from support.config import Config, UsageError
from support.config_file import CONFIG, READ_FROM, UNRELATED_TO_PRETRAINING, differences, from_flags, read_config


class Pretraining:
    """The pretraining of the run that --pretrained names."""

    def __init__(self, config: Config, digests: dict[str, str], state: tf.train.Checkpoint):
        """Loads `state`, which is what pretraining changes; all else stays as it is.

        Args:
            config: whose pretraining it has to be.
            digests: checksums of the data.
            state: see `model.SeqGAN.pretrained_state`.

        Raises:
            UsageError: it is another one, a part of it is missing or damaged, or there is no run.
        """
        self.directory, self.state = Path(config.pretrained), state
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
        self.directories = {"train": self.directory, "eval": beside if (beside / METRICS).exists() else recorded}
        self.best = self.restore(PRETRAINED)[1].get("best")
        if self.best:  # until then
            self.restore(int(self.best["step"]))
        self.taken, self.details = self.restore(PRETRAINED)
        for kind in ("train", "eval") if config.evaluate else ("train",):
            if not (self.directories[kind] / METRICS).exists() or kind not in self.details["positions"]:
                raise UsageError(f"--pretrained {self.directory}: no {METRICS} in {self.directories[kind]}")
            try:
                sizes_at(self.directories[kind], self.details["positions"][kind], advice="")
            except UsageError as error:
                raise UsageError(f"--pretrained {error}") from None

    def restore(self, which: str | int) -> tuple[int, dict[str, Any]]:
        """Loads the state at a mark or after so many steps.

        Returns:
            (steps taken, details of the checkpoint).

        Raises:
            UsageError: it is not there, or damaged.
        """
        try:
            found = Checkpoints(self.directory / CHECKPOINTS, self.state, keep=1, whole=False).look(which)
        except UsageError as error:
            raise UsageError(f"--pretrained: {error}") from None
        if not found:
            raise UsageError(f"--pretrained {self.directory}: the run has no checkpoint yet")
        return found

    def copy_logs(self, logs: list[RunLog]) -> None:
        """Writes its records to the logs of training and evaluation.

        Raises:
            UsageError: they are cut short.
        """
        for log, (kind, directory) in zip(logs, self.directories.items(), strict=False):
            log.copy(directory, self.details["positions"][kind])
