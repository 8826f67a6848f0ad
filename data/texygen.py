"""Lines of text measured as Texygen does it (Zhu et al., SIGIR 2018), on which papers on text GANs compare."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from data.text import MAX_HELD_OUT, MAX_LINE, ORDERS, SPLITS, Source, TextData, by_order
from data.training_set import spread
from support.metrics import bleu, mean_and_error, self_bleu
from support.seeds import Purpose

MAX_NLL_GEN = 10_000  # lines of train


class Texygen:
    """The lines of a data set, whole, and what is measured with them; holds all of them in memory."""

    def __init__(self, data: TextData):
        """Reads the files anew, as `data` has neither lines of more than --seq_len tokens nor rare words.

        Raises:
            DataError, OSError: as `data.text.read_lines` does.
        """
        self.data, self.count = data, data.config.eval_samples
        lines: dict[str, list[Sequence[str]]] = {split: [] for split in SPLITS}
        source = Source(dataclasses.replace(data.config, seq_len=MAX_LINE))
        for split, tokens in source:
            lines[split].append(tokens)
        self.references, self.longest = lines["test"], max(source.lengths)
        seen = lines["train"] + lines["valid"]
        real = self._bleu(some(lines["valid"], MAX_HELD_OUT))
        real |= self._self_bleu(some(seen, self.count)) if len(seen) >= self.count else {}
        self.real = {f"real_{name}": mean_and_error(values) for name, values in real.items()}

    def measure(self, model, epoch: int) -> dict[str, tuple[float, float]]:
        """Measures a `model.SeqGAN` by the --eval_samples lines that `TextData.evaluate` draws in this epoch.

        Returns:
            (mean, standard error of the mean) of
            - `texygen_bleu2` to `texygen_bleu5`: `metrics.bleu` with all lines of test as references, compared as they
              are written, so that an unknown token occurs in none of them;
            - `texygen_self_bleu2` to `texygen_self_bleu5`: `metrics.self_bleu` among the generated lines;
            - `texygen_nll_gen`: -log G of lines of train (at most 10,000), nats, over the tokens of the longest line of
              the data: Texygen counts the padding, which costs nothing, as tokens;
            - `real_...`: BLEU of lines of valid (at most 2,000), and self-BLEU among as many lines of train and valid
              as are generated.
            BLEU is left out where test is empty, and what needs more lines than there are.
        """
        data = self.data
        generated = data.vocabulary.tokens(model.sample(self.count, Purpose.EVALUATE, tf.constant(epoch)).numpy())
        values = self._bleu(generated) | self._self_bleu(generated)
        values["texygen_nll_gen"] = data.nats(model, spread(data.lines["train"], MAX_NLL_GEN)) / self.longest
        return {name: mean_and_error(numbers) for name, numbers in values.items()} | self.real

    def _bleu(self, lines: Sequence[Sequence[str]]) -> dict[str, np.ndarray]:
        return by_order("texygen_bleu", bleu(lines, self.references, ORDERS)) if lines and self.references else {}

    def _self_bleu(self, lines: Sequence[Sequence[str]]) -> dict[str, np.ndarray]:
        return by_order("texygen_self_bleu", self_bleu(lines, ORDERS)) if len(lines) > 1 else {}


def some(lines: Sequence[Sequence[str]], most: int) -> list[Sequence[str]]:
    """At most `most` of the lines, evenly spread over them."""
    return [lines[i] for i in spread(np.arange(len(lines)), most)]
