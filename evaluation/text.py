"""What is measured of lines of text beside real ones, and what Texygen measures of them (Zhu et al., SIGIR 2018)."""

import dataclasses
import sys
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from data.text import MAX_HELD_OUT, SPLITS, Source
from data.training_set import draw, spread
from evaluation.evaluator import Due, Evaluator, nats
from evaluation.ngrams import bleu, self_bleu
from evaluation.policy import MeasuredPolicy
from runs.logs import RunLog
from support.config import Config
from support.seeds import Purpose
from support.statistics import Figures, mean_and_error

SAMPLES = 10  # lines shown at a time
ORDERS = (2, 3, 4, 5)  # of BLEU
MAX_NLL_GEN = 2_000  # lines of train
UNKNOWN = ""  # is in no line, whatever words a corpus has, such as <unk>


def by_order(name: str, scores: np.ndarray) -> Figures:
    """(mean, standard error) of the columns of scores, [n, len(ORDERS)], by the name of a measure and the order."""
    return {f"{name}{order}": mean_and_error(scores[:, i]) for i, order in enumerate(ORDERS)}


class TextEvaluator(Evaluator):
    """Measures on lines of text that training never saw."""

    compared = (*(f"{kind}{n}" for kind in ("bleu", "self_bleu") for n in ORDERS), "copied_share", "length")

    def compare(self, rows: np.ndarray) -> Figures:
        """Compares sequences, int32 [n, T], with real lines: (mean, standard error) of what is `compared`.

        Ends and padding are no tokens here. References are the test lines, at most 2,000; `copied_share` is of whole
        lines of train; one with an unknown token is no copy. What needs test is left out where it is empty; self-BLEU
        needs two sequences, all else one.
        """
        if not len(rows):
            return {}
        sequences, references = map(self.data.vocabulary.strip, (rows, self.data.test))
        figures = by_order("bleu", bleu(sequences, references, ORDERS)) if references else {}
        if len(sequences) > 1:
            figures |= by_order("self_bleu", self_bleu(sequences, ORDERS))
        known = np.array([self.data.vocabulary.unknown not in sequence for sequence in sequences])
        if self.config.train_size:  # training reads a part of the lines
            read = {*map(tuple, self.data.vocabulary.strip(self.data.references()))}
            copied = np.array([tuple(sequence) in read for sequence in sequences])
        else:
            copied = self.data.lines["train"].contains(sequences)
        figures["copied_share"] = mean_and_error(copied & known)
        figures["length"] = mean_and_error(np.array([len(sequence) for sequence in sequences]))
        return figures | super().compare(rows)

    def show(self, policy: MeasuredPolicy, epoch: int, due: Due, log: RunLog) -> None:
        """Every --sample_every epochs and at a phase's end: some generated and some real lines, as text."""
        if not due.samples:
            return
        generated = policy.sample(SAMPLES, Purpose.IMAGES, tf.constant(epoch)).numpy()
        real = draw(self.data.lines["train"], SAMPLES, self.config.seed, Purpose.IMAGES, epoch)
        log.text(epoch, "lines/generated", self.data.vocabulary.decode(generated))
        log.text(epoch, "lines/real", self.data.vocabulary.decode(real))


class TexygenEvaluator(TextEvaluator):
    """Measures as Texygen does, too; holds all lines in memory, whole and as they are written."""

    def __init__(self, data, config: Config):
        """Reads the lines of `data` anew; raises DataError and OSError as `TextData` does."""
        super().__init__(data, config)
        if data.source.long and data.config.long_lines == "truncate":
            share = 100 * data.source.long / data.source.lengths.total()
            what = f"texygen_nll_gen leaves out what was truncated of {share:.3g} % of the lines"
            print(f"warning: {data.origin}: {what}", file=sys.stderr)
        lines: dict[str, list[Sequence[str]]] = {split: [] for split in SPLITS}
        whole = Source(dataclasses.replace(data.config, long_lines="truncate"), data.source.as_version_1)
        for split, tokens in whole:
            lines[split].append(tokens)
        self.written, self.longest = lines["test"], max(whole.lengths)
        seen, count = lines["train"] + lines["valid"], config.eval_samples
        self.of_real = self._bleu(some(lines["valid"], MAX_HELD_OUT), "real_texygen_bleu")
        if len(seen) >= count:
            self.of_real |= by_order("real_texygen_self_bleu", self_bleu(some(seen, count), ORDERS))

    def of_policy(self, policy: MeasuredPolicy, epoch: int, due: Due) -> Figures:
        """As `TextEvaluator`; where samples are due, (value, standard error) of Texygen's figures, too.

        Beside those of `compare` there is `texygen_nll_gen`: -log G of lines of train (at most 2,000), nats, over the
        tokens of the longest line, as Texygen counts the padding. `real_texygen_...` are BLEU of validation lines (at
        most 2,000), and self-BLEU among --eval_samples real lines, if there are as many.
        """
        figures = super().of_policy(policy, epoch, due)
        if not due.samples:
            return figures
        of_train = nats(policy, spread(self.data.lines["train"], MAX_NLL_GEN))
        return figures | {"texygen_nll_gen": mean_and_error(of_train / self.longest)} | self.of_real

    def compare(self, rows: np.ndarray) -> Figures:
        """As `TextEvaluator`, `texygen_self_bleu2` to `5`, which are its self-BLEU, and `texygen_bleu2` to `5`."""
        # The last have all test lines as references, as they are written, so that an unknown token occurs in none.
        figures = super().compare(rows)
        among = {f"texygen_{name}": pair for name, pair in figures.items() if name.startswith("self_bleu")}
        shown = [*self.data.vocabulary.entries, UNKNOWN]
        lines = [[shown[i] for i in ids] for ids in self.data.vocabulary.strip(rows)]
        return figures | among | self._bleu(lines, "texygen_bleu")

    def _bleu(self, lines: Sequence[Sequence[str]], name: str) -> Figures:
        return by_order(name, bleu(lines, self.written, ORDERS)) if lines and self.written else {}


def some(lines: Sequence[Sequence[str]], most: int) -> list[Sequence[str]]:
    """At most `most` of the lines, evenly spread over them."""
    return [lines[i] for i in spread(np.arange(len(lines)), most)]
