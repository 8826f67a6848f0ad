"""What is measured of lines of text beside real ones, and what Texygen measures of them (Zhu et al., SIGIR 2018)."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from data.text import MAX_HELD_OUT, SPLITS, Source
from data.training_set import draw, spread
from evaluation.evaluator import Due, Evaluator, Settings, nats
from evaluation.ngrams import bleu, self_bleu
from evaluation.policy import MeasuredPolicy
from runs.logs import RunLog
from support.seeds import Purpose
from support.statistics import mean_and_error

SAMPLES = 10  # lines shown at a time
ORDERS = (2, 3, 4, 5)  # of BLEU
MAX_NLL_GEN = 2_000  # lines of train
UNKNOWN = ""  # is in no line, whatever words a corpus has, such as <unk>


def by_order(name: str, scores: np.ndarray) -> dict[str, np.ndarray]:
    """The columns of scores, [n, len(ORDERS)], by the name of a measure and the order."""
    return {f"{name}{order}": scores[:, i] for i, order in enumerate(ORDERS)}


class TextEvaluator(Evaluator):
    """Measures on lines of text that training never saw."""

    compared = (*(f"{kind}{n}" for kind in ("bleu", "self_bleu") for n in ORDERS), "copied_share", "length")

    def compare(self, rows: np.ndarray) -> dict[str, tuple[float, float]]:
        """Compares sequences, int32 [n, T], with real lines; ends and padding are no tokens here.

        Returns:
            (mean over the sequences, standard error of the mean) of
            - `bleu2` to `bleu5`: `ngrams.bleu` with the test lines (at most 2,000) as references;
            - `self_bleu2` to `self_bleu5`: `ngrams.self_bleu` among the sequences, whose errors it takes for
              independent;
            - `copied_share`: share of sequences that are, whole, a line of train;
            - `length`: tokens a sequence.
            What needs test is left out where it is empty; self-BLEU needs two sequences, and all figures one.
        """
        if not len(rows):
            return {}
        vocabulary = self.data.vocabulary
        sequences, references = vocabulary.strip(rows), vocabulary.strip(self.data.test)
        values: dict[str, np.ndarray] = {}
        if references:
            values |= by_order("bleu", bleu(sequences, references, ORDERS))
        if len(sequences) > 1:
            values |= by_order("self_bleu", self_bleu(sequences, ORDERS))
        values["copied_share"] = self.data.lines["train"].contains(sequences)
        values["length"] = np.array([len(sequence) for sequence in sequences])
        return {name: mean_and_error(numbers) for name, numbers in values.items()} | super().compare(rows)

    def show(self, policy: MeasuredPolicy, epoch: int, due: Due, log: RunLog) -> None:
        """Every --sample_every epochs and at a phase's end: some generated and some real lines, as text."""
        if not due.samples:
            return
        generated = policy.sample(SAMPLES, Purpose.IMAGES, tf.constant(epoch)).numpy()
        real = draw(self.data.lines["train"], SAMPLES, self.settings.seed, Purpose.IMAGES, epoch)
        log.text(epoch, "lines/generated", self.data.vocabulary.decode(generated))
        log.text(epoch, "lines/real", self.data.vocabulary.decode(real))


class TexygenEvaluator(TextEvaluator):
    """Measures as Texygen does, too; holds all lines in memory, whole and as they are written."""

    def __init__(self, data, settings: Settings):
        """Reads the lines of `data` anew; raises DataError and OSError as `TextData` does."""
        super().__init__(data, settings)
        lines: dict[str, list[Sequence[str]]] = {split: [] for split in SPLITS}
        whole = Source(data.source.folder, data.source.rules._replace(long_lines="truncate"), whole=True)
        for split, tokens in whole:
            lines[split].append(tokens)
        self.written, self.longest = lines["test"], max(whole.lengths)
        seen, count = lines["train"] + lines["valid"], settings.samples
        self.of_real = {f"real_{name}": pair for name, pair in self._bleu(some(lines["valid"], MAX_HELD_OUT)).items()}
        if len(seen) >= count:
            among = by_order("real_texygen_self_bleu", self_bleu(some(seen, count), ORDERS))
            self.of_real |= {name: mean_and_error(values) for name, values in among.items()}

    def of_policy(self, policy: MeasuredPolicy, epoch: int, due: Due) -> dict[str, tuple[float, float]]:
        """As `TextEvaluator`; where samples are due, (value, standard error) of Texygen's figures, too.

        Those are, beside the ones of `compare`,
        - `texygen_nll_gen`: -log G of lines of train (at most 2,000), nats, over the tokens of the longest line of the
          data: Texygen counts the padding, which costs nothing, as tokens;
        - `real_texygen_...`: BLEU of validation lines (at most 2,000), and self-BLEU among `settings.samples` real
          lines, if there are as many.
        """
        figures = super().of_policy(policy, epoch, due)
        if not due.samples:
            return figures
        of_train = nats(policy, spread(self.data.lines["train"], MAX_NLL_GEN))
        return figures | {"texygen_nll_gen": mean_and_error(of_train / self.longest)} | self.of_real

    def compare(self, rows: np.ndarray) -> dict[str, tuple[float, float]]:
        """As `TextEvaluator.compare`, and two more, (mean over the sequences, standard error of the mean).

        - `texygen_bleu2` to `texygen_bleu5`: `ngrams.bleu` with all test lines as references, compared as they are
          written, so that an unknown token occurs in none of them; left out where test is empty;
        - `texygen_self_bleu2` to `texygen_self_bleu5`: self-BLEU, which has no other definition.
        """
        figures = super().compare(rows)
        among = {f"texygen_{name}": pair for name, pair in figures.items() if name.startswith("self_bleu")}
        shown = [*self.data.vocabulary.entries, UNKNOWN]
        return figures | among | self._bleu([[shown[i] for i in ids] for ids in self.data.vocabulary.strip(rows)])

    def _bleu(self, lines: Sequence[Sequence[str]]) -> dict[str, tuple[float, float]]:
        if not lines or not self.written:
            return {}
        scores = by_order("texygen_bleu", bleu(lines, self.written, ORDERS))
        return {name: mean_and_error(values) for name, values in scores.items()}


def some(lines: Sequence[Sequence[str]], most: int) -> list[Sequence[str]]:
    """At most `most` of the lines, evenly spread over them."""
    return [lines[i] for i in spread(np.arange(len(lines)), most)]
