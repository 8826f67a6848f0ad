"""What a run tells its user, in lines."""

import contextlib
import datetime
import time
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from support.config import Config
from support.statistics import Figures

PAUSE = 60.0  # seconds without an evaluation, after which a line comes


class Progress(contextlib.AbstractContextManager["Progress"]):
    """Shows how far a phase is: on a terminal by a bar, elsewhere by a line an evaluation, and one a minute."""

    def __init__(self, phase: str, epochs: int, first: int, told: Callable[[Figures], dict[str, float]]):
        """A phase of `epochs` from the epoch numbered `first` on; `told` picks what a line has of an evaluation."""
        self.phase, self.epochs, self._told = phase, epochs, told
        self._newest = time.perf_counter()  # when the newest line was written
        self.bar = tqdm(total=epochs, initial=first, desc=phase, unit="epoch", disable=None)
        self.bar.set_postfix_str("compiling, which takes some seconds")
        self._since: tuple[int, float] | None = None  # the first epoch, which compiled, and when it ended

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def update(self, epoch: int, figures: dict[str, float], evaluation: Figures | None, remark: str = "") -> None:
        """Tells of an epoch of training that has ended.

        `epoch`: its number within the phase. `figures`: of its training. `evaluation`: its figures, {} with
        --no-evaluate; None where none was due. The bar and the last line end with the `remark`.
        """
        self.bar.update()
        values = [f"{name}={value:.3f}" for name, value in figures.items()]
        self.bar.set_postfix_str(", ".join([*values, *([remark] if remark else [])]), refresh=False)
        now = time.perf_counter()
        self._since = self._since or (epoch, now)
        if self.bar.disable and (evaluation is not None or now - self._newest >= PAUSE):
            ending = f"; {remark}" * bool(remark and epoch + 1 == self.epochs)
            print(self._line(epoch, figures, evaluation or {}) + ending, flush=True)
            self._newest = now

    def _line(self, epoch: int, figures: dict[str, float], evaluation: Figures) -> str:
        values = self._told(evaluation) or figures
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
