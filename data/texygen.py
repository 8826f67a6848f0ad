"""Lines of text measured as Texygen does it (Zhu et al., SIGIR 2018), on which papers on text GANs compare."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from data import Due
from data.text import MAX_HELD_OUT, ORDERS, SPLITS, Source, TextData, by_order
from data.training_set import spread
from support.config import Config
from support.metrics import bleu, mean_and_error, self_bleu

MAX_NLL_GEN = 2_000  # lines of train

Figures = dict[str, tuple[float, float]]  # {name: (value, standard error)}
UNKNOWN = ""  # is in no line, whatever words a corpus has, such as <unk>


class TexygenData(TextData):
    """Lines of text with further measures; holds all lines in memory, whole and as they are written."""

    def __init__(self, config: Config):
        """Raises DataError and OSError as TextData does."""
        super().__init__(config)
        lines: dict[str, list[Sequence[str]]] = {split: [] for split in SPLITS}
        whole = Source(dataclasses.replace(config, long_lines="truncate"), whole=True)
        for split, tokens in whole:
            lines[split].append(tokens)
        self.written, self.longest = lines["test"], max(whole.lengths)
        seen, count = lines["train"] + lines["valid"], config.eval_samples
        self.of_real = {f"real_{name}": pair for name, pair in self._bleu(some(lines["valid"], MAX_HELD_OUT)).items()}
        if len(seen) >= count:
            alike = by_order("real_texygen_self_bleu", self_bleu(some(seen, count), ORDERS))
            self.of_real |= {name: mean_and_error(values) for name, values in alike.items()}

    def evaluate(self, model, epoch: int, due: Due) -> Figures:
        """As `TextData.evaluate`; where samples are due, (value, standard error) of Texygen's figures, too.

        Those are, beside the ones of `compare`,
        - `texygen_nll_gen`: -log G of lines of train (at most 2,000), nats, over the tokens of the longest line of the
          data: Texygen counts the padding, which costs nothing, as tokens;
        - `real_texygen_...`: BLEU of validation lines (at most 2,000), and self-BLEU among --eval_samples real
          lines, if there are as many.
        """
        figures = super().evaluate(model, epoch, due)
        if not due.samples:
            return figures
        nats = self.nats(model, spread(self.lines["train"], MAX_NLL_GEN))
        return figures | {"texygen_nll_gen": mean_and_error(nats / self.longest)} | self.of_real

    def compare(self, rows: np.ndarray) -> Figures:
        """As `TextData.compare`, and two more, (mean over the sequences, standard error of the mean).

        - `texygen_bleu2` to `texygen_bleu5`: `metrics.bleu` with all test lines as references, compared as they are
          written, so that an unknown token occurs in none of them; left out where test is empty;
        - `texygen_self_bleu2` to `texygen_self_bleu5`: self-BLEU, which has no other definition.
        """
        figures = super().compare(rows)
        alike = {f"texygen_{name}": pair for name, pair in figures.items() if name.startswith("self_bleu")}
        shown = [*self.vocabulary.entries, UNKNOWN]
        return figures | alike | self._bleu([[shown[i] for i in ids] for ids in self.vocabulary.strip(rows)])

    def _bleu(self, lines: Sequence[Sequence[str]]) -> Figures:
        if not lines or not self.written:
            return {}
        scores = by_order("texygen_bleu", bleu(lines, self.written, ORDERS))
        return {name: mean_and_error(values) for name, values in scores.items()}


def some(lines: Sequence[Sequence[str]], most: int) -> list[Sequence[str]]:
    """At most `most` of the lines, evenly spread over them."""
    return [lines[i] for i in spread(np.arange(len(lines)), most)]
