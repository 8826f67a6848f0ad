"""Starting from another run's pretraining of the generator, as if it had been repeated."""

import itertools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from runs.checkpoints import Checkpoints
from runs.directories import CHECKPOINTS, PRETRAINED, evaluations_of, holds_evaluations, in_vain, lost_weights, sizes_at
from support.config import Config
from support.config_file import CONFIG, differences, from_flags, lost_flag, pretraining_part, read_config, read_same
from support.errors import UsageError

# Figures that depend on what else a run has on record, which another run may have otherwise.
OF_OTHERS = {"objective": ("objective", "real_objective", "kl_to_pretrained"), "teacher": ("kl_of_teacher",)}


class Pretraining:
    """The pretraining of the run that --pretrained names."""

    def __init__(self, config: Config, digests: dict[str, str], state: tf.train.Checkpoint, own: Mapping[str, Any]):
        """Loads `state`, which is what pretraining changes; all else stays as it is.

        It has to be that of `config` and of data with these checksums; `state` is `model.SeqGAN.pretrained_state`, and
        `own` what this run has on record, as figures of another objective or teacher are not copied.
        Raises UsageError: it is another one, a part of it is missing or damaged, or there is no run.
        """
        self.directory, self.state = Path(config.pretrained), state
        try:
            if not (path := self.directory / CONFIG).is_file():
                raise UsageError(f"no run (there is no {CONFIG})")
            content = read_config(path)
            if holds_evaluations(self.directory):
                raise UsageError(lost_weights(self.directory, content))
            before, now = pretraining_part(from_flags(content["flags"])), pretraining_part(config)
            gone = lost_flag(content["flags"])
            if differing := [*([gone] if gone else []), *differences(before, now, in_vain(before, now))]:
                raise UsageError(f"that run has {'; '.join(differing)}")
            other = (names for part, names in OF_OTHERS.items() if content.get(part) != own.get(part))
            self.left_out = tuple(itertools.chain(*other))
            if not read_same(content, digests, config):
                raise UsageError("that run has read other data")
            self.directories = {"train": self.directory}
            if config.evaluate:
                self.directories["eval"] = evaluations_of(self.directory)
        except UsageError as error:
            raise UsageError(f"--pretrained {self.directory}: {error}") from None
        self.taken, self.details = self.restore(PRETRAINED)
        evaluation = self.details["evaluation"].items()
        self.evaluation = {name: pair for name, pair in evaluation if name not in self.left_out}
        self.best = self._best()
        for kind, directory in self.directories.items():
            try:
                sizes_at(directory, self.details["positions"][kind], advice="")
            except UsageError as error:
                raise UsageError(f"--pretrained {error}") from None

    def _best(self) -> dict[str, float] | None:
        """The step of the pretraining's least nll_valid, and that; None without a validation set.

        A run that went on has replaced that checkpoint once it had a better one. The end of pretraining, which is
        always kept, then stands for it, with its own nll_valid. Raises UsageError: the checkpoint is damaged.
        """
        best = self.details.get("best")
        if not best:
            return None
        step = int(best["step"])
        if (self.directory / CHECKPOINTS / f"step-{step:09d}").is_dir():
            self.restore(step)
            self.restore(PRETRAINED)
            return best
        what = f"the checkpoint of least nll_valid in its pretraining, step {step}, was replaced by a better one"
        print(f"warning: --pretrained {self.directory}: {what}; the end of pretraining stands for it", file=sys.stderr)
        return {"step": self.taken, "nll_valid": self.details["evaluation"]["nll_valid"][0]}

    def restore(self, which: str | int) -> tuple[int, dict[str, Any]]:
        """Loads the state at a mark or step: (steps taken, details); raises UsageError: it is not there, or damaged."""
        try:
            found = Checkpoints(self.directory / CHECKPOINTS, self.state, whole=False).look(which)
        except UsageError as error:
            raise UsageError(f"--pretrained: {error}") from None
        if not found:
            raise UsageError(f"--pretrained {self.directory}: the run has no checkpoint yet")
        return found
