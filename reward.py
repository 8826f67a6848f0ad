"""Rewards of generated sequences: scorers of completions, which rollout.py is handed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

from generator import Generator, Policy, PolicyCopy, Scorer
from support import own_code
from support.errors import UsageError
from support.registries import REWARDS
from support.seeds import Purpose, key, permutation, uniforms

ORDER = 3  # of BLEU: the longest n-gram
NEVER = np.iinfo(np.int64).max  # no n-gram's number


@dataclass(frozen=True)
class Parts:
    """What rewards are made of; those that a run lacks are None."""

    policy: Generator
    discriminator: Any = None  # a `Discriminator`
    oracle: Policy | None = None  # p, the distribution of the real data
    references: Callable[[], np.ndarray] | None = None  # returns the training set, int32 [n, T]
    rollout_num: int = 0  # completions of a prefix; with 0 the sample itself stands for them
    seed: int = 0
    jit: bool = False  # whether XLA compiles the g-step


# Given the parts, makes the scorer of completions of a batch's prefixes, int32 [B, T], at a g-step, int32 scalar.
BatchScorer = Callable[[tf.Tensor, tf.Tensor], Scorer]
Maker = Callable[[Parts], BatchScorer]


def probability(odds: BatchScorer) -> BatchScorer:
    """The probability that a sequence is real, by its log-odds."""

    def of_batch(tokens: tf.Tensor, step: tf.Tensor) -> Scorer:
        score = odds(tokens, step)
        return lambda rollouts, prefix_len: tf.sigmoid(score(rollouts, prefix_len))

    return of_batch


def discriminator(parts: Parts) -> BatchScorer:
    """D(Y), the paper's reward."""
    return probability(log_odds(parts))


def permuted(parts: Parts) -> BatchScorer:
    """D(Y) of the batch's samples in a random order, another one a g-step: D's rewards, without their information."""
    of_batch = discriminator(parts)

    def permuted_batch(tokens: tf.Tensor, step: tf.Tensor) -> Scorer:
        score, order = of_batch(tokens, step), permutation(tokens.shape[0], key(parts.seed, Purpose.REWARD, step))
        return lambda rollouts, prefix_len: tf.gather(score(rollouts, prefix_len), order, axis=1)

    return permuted_batch


def log_odds(parts: Parts) -> BatchScorer:
    """Log D(Y) - log(1 - D(Y))."""
    return lambda tokens, step: parts.discriminator.completion_log_odds(tokens, parts.rollout_num)


def log_ratio_to_oracle(parts: Parts) -> BatchScorer:
    """Log p(Y) - log G(Y), the log-odds of the optimal discriminator D*."""
    oracle = parts.oracle
    if oracle is None:  # where sequences are only to be drawn
        return constant(parts)
    return lambda tokens, step: log_ratio_of(tokens, oracle, parts.policy)


def optimal(parts: Parts) -> BatchScorer:
    """D*(Y) = p(Y) / (p(Y) + G(Y))."""
    return probability(log_ratio_to_oracle(parts))


def bleu(parts: Parts) -> BatchScorer:
    """BLEU-3 against the training set."""
    if parts.references is None:  # where sequences are only to be drawn
        return constant(parts)
    score = Bleu(parts.references(), parts.policy.vocab_size, parts.policy.end_token).score
    return lambda tokens, step: lambda rollouts, prefix_len: score(rollouts)


def constant(parts: Parts) -> BatchScorer:
    """1 for every sequence: a control."""
    return lambda tokens, step: lambda rollouts, prefix_len: tf.ones(rollouts.shape[:2])


def random(parts: Parts) -> BatchScorer:
    """A number in [0, 1) by the seed, the step and the place of the action in the batch alone: a control."""

    def of_batch(tokens: tf.Tensor, step: tf.Tensor) -> Scorer:
        numbers = uniforms(tokens.shape[::-1], key(parts.seed, Purpose.REWARD, step))  # [T, B]
        return lambda rollouts, prefix_len: tf.broadcast_to(numbers[prefix_len - 1], rollouts.shape[:2])

    return of_batch


def of_function(function: Callable[[tf.Tensor], tf.Tensor]) -> Maker:
    """The reward by a user's own function of finished sequences, int32 [n, T] → float32 [n], in TensorFlow.

    Two calls come first, so that what is wrong is told before training. Raises UsageError: it returns something else,
    XLA is to compile it and can't, or it writes a variable or draws numbers, so that no resumed run would repeat.
    """

    def score(rollouts: tf.Tensor, prefix_len: tf.Tensor) -> tf.Tensor:
        returned = function(tf.reshape(rollouts, [-1, rollouts.shape[2]]))
        what = f"--reward: {getattr(function, '__name__', 'the function')} returns"
        count = rollouts.shape[0] * rollouts.shape[1]
        try:
            values = tf.convert_to_tensor(returned)
            if not (values.dtype.is_floating or values.dtype.is_integer or values.dtype.is_bool):
                raise TypeError
        except (TypeError, ValueError):  # such as None, of a function without `return`
            kind = getattr(getattr(returned, "dtype", None), "name", type(returned).__name__)
            raise UsageError(f"{what} a {kind} for {count} sequences, which is no tensor of real numbers") from None
        if values.shape != [count]:
            raise UsageError(f"{what} values of shape {values.shape} for {count} sequences, not ({count},)")
        return tf.reshape(tf.cast(values, tf.float32), rollouts.shape[:2])

    def make(parts: Parts) -> BatchScorer:
        length = parts.policy.seq_len
        tokens = tf.reshape(tf.range((length + 1) * length) ** 2 % parts.policy.vocab_size, [1, length + 1, length])
        traced = [tf.function(score, jit_compile=parts.jit, autograph=False) for _ in range(2)]
        graph = traced[0].get_concrete_function(tokens, tf.constant(1)).graph
        own_code.refuse("--reward: its function keeps a state", f"{own_code.DRAWS}|{own_code.WRITES}", graph)
        try:
            one, other = (each(tokens, tf.constant(1)).numpy() for each in traced)
            if not np.array_equal(one, other, equal_nan=True):
                raise UsageError("--reward: two calls of its function differ, so that a resumed run would")
        except tf.errors.InvalidArgumentError as error:
            if not parts.jit:
                raise
            name = getattr(function, "__name__", "the function")  # an object that is called has none
            ways = "--no-jit leaves XLA out, and --objective takes a score in Python"
            raise UsageError(f"--reward: XLA can't compile {name}; {ways}") from error
        return lambda tokens, step: score

    return make


def reward_of(name: str, source: dict[str, str] | None = None) -> Maker:
    """What --reward names; of a user's own function `source` is on record. Raises UsageError: it can't be used."""
    if not own_code.is_own(name):
        return REWARDS[name].load()
    function = own_code.load("--reward", name, source)
    return own_code.blamed("--reward", name.rpartition(":")[0])(of_function(function))


class Reward:
    """The reward of a g-step: one of the functions above, an objective beside it, a KL penalty."""

    def __init__(self, make: Maker, parts: Parts, *, objective_share: float, kl_weight: float, to_go: bool):
        """`objective_share` is λ and `kl_weight` β of `scorer`; `to_go`: a penalty leaves out what came before."""
        self.parts, self.objective_share, self.kl_weight, self.to_go = parts, objective_share, kl_weight, to_go
        self.reference = PolicyCopy(parts.policy) if kl_weight else None  # G₀
        self._of_place = make is random  # and not of the sequence
        self._of_batch = make(parts) if objective_share < 1 else None

    def scorer(self, tokens: tf.Tensor, step: tf.Tensor, scores: tf.Tensor | None = None) -> Scorer:
        """The reward of completions of a batch's prefixes, int32 [B, T], at the g-step numbered `step`.

        With an objective it is (1 - λ) times the reward and λ times the objective, of which `scores` has the values,
        float32 [K + 1, N, B]: of the completions in the order of `RolloutPolicy.all_completions`, then of the samples.

        With a KL penalty it is less β·(log G - log G₀), where `to_go` of y_t..y_T, y_t being the action that is valued,
        the last token of the prefix, else of Y. What lies before y_t does not depend on it, so that leaving it out
        changes the estimated gradient's variance, but not its expectation: that of -β·KL(G‖G₀) as of the rest.
        """
        share = self.objective_share
        alone = self._of_batch(tokens, step) if self._of_batch else None

        def value(rollouts: tf.Tensor, prefix_len: tf.Tensor) -> tf.Tensor:
            if scores is None:
                assert alone
                return alone(rollouts, prefix_len)
            last = scores.shape[0] - 1
            objective = scores[tf.minimum(prefix_len - 1, last), : rollouts.shape[0]]
            return (1 - share) * alone(rollouts, prefix_len) + share * objective if alone else objective

        score: Scorer = value
        drawn = self.parts.rollout_num > 0  # or else all "completions" are the sample itself, and scored once
        if not drawn and not self._of_place:
            of_sample = value(tokens[None], tf.constant(tokens.shape[1]))
            score = lambda rollouts, prefix_len: of_sample  # noqa: E731
        if self.reference is None:
            return score
        ratio = log_ratio_of(tokens, self.parts.policy, self.reference, self.to_go, drawn)
        return lambda rollouts, prefix_len: score(rollouts, prefix_len) - self.kl_weight * ratio(rollouts, prefix_len)


def log_ratio_of(tokens: tf.Tensor, one: Policy, other: Policy, to_go: bool = False, drawn: bool = True) -> Scorer:
    """Log of `one` model's probability of whole sequences less that of the `other`, in nats.

    The scored sequences complete prefixes, of at least one token, of `tokens`, int32 [B, T]; with `to_go` only the last
    token of the prefix counts. Where none are `drawn`, all that is scored is `tokens`.
    """
    ratios = tf.transpose(one.log_probs(tokens) - other.log_probs(tokens))  # [T, B]
    if to_go and not drawn:
        left = tf.cumsum(ratios, reverse=True)
        return lambda rollouts, prefix_len: left[prefix_len - 1][None]
    known = ratios if to_go else tf.cumsum(ratios)  # entry n - 1: what a prefix of n tokens contributes
    own, its = one.completion_log_probs(tokens), other.completion_log_probs(tokens)
    return lambda rollouts, prefix_len: known[prefix_len - 1] + own(rollouts, prefix_len) - its(rollouts, prefix_len)


class Bleu:
    """BLEU-3 against references that never change: `evaluation.ngrams.bleu`, inside a compiled step.

    Of the references only two things matter: how often each n-gram occurs in the one that has it most often, and which
    lengths they have. So they are counted once, and what is left of them is a sorted table of n-grams for each order.
    """

    def __init__(self, references: np.ndarray, vocab_size: int, end_token: int | None):
        """Counts the n-grams of `references`, int32 [n, T] with n >= 1; an end and padding are no tokens here."""
        self.vocab_size, self.end_token = vocab_size, -1 if end_token is None else end_token
        lengths = ((references != self.end_token) & (references != vocab_size)).sum(axis=1)
        known = np.unique(lengths)  # ascending: of two that are equally near the shorter one is taken
        nearest = known[np.abs(np.arange(references.shape[1] + 1)[:, None] - known).argmin(axis=1)]
        self._nearest = tf.constant(nearest, tf.float32)  # [T + 1], by length
        self._tables = []  # an order: the n-grams' numbers, ascending, and how often one reference has each at most
        for order in range(1, ORDER + 1):
            numbers = gram_numbers(tf.constant(references), order, vocab_size).numpy()
            reference, place = np.nonzero(np.arange(references.shape[1]) + order <= lengths[:, None])
            found = pd.DataFrame({"reference": reference, "gram": numbers[reference, place]})
            most = found.groupby(["reference", "gram"], sort=False).size().groupby("gram").max()
            tables = np.append(most.index, NEVER), np.append(most, 0).astype(np.int32)  # int64 [m], int32 [m]
            # Variables, as XLA would compile a constant of megabytes into each program.
            self._tables.append(tuple(tf.Variable(table, trainable=False) for table in tables))

    def score(self, sequences: tf.Tensor) -> tf.Tensor:
        """BLEU-3 of each sequence: int32 [N, B, T] → float32 [N, B]."""
        tokens = tf.reshape(sequences, [-1, sequences.shape[-1]])
        rows, seq_len = tokens.shape
        lengths = tf.reduce_sum(tf.cast((tokens != self.end_token) & (tokens != self.vocab_size), tf.int32), axis=1)
        not_later = tf.range(seq_len)[:, None] >= tf.range(seq_len)  # [T, T]
        logarithm, matches = tf.zeros([rows]), []
        for order, (grams, most) in enumerate(self._tables, start=1):
            inside = tf.range(seq_len) + order <= lengths[:, None]  # [R, T]
            numbers = gram_numbers(tokens, order, self.vocab_size)
            same = (numbers[:, :, None] == numbers[:, None, :]) & inside[:, None, :]
            rank = tf.reduce_sum(tf.cast(same & not_later, tf.int32), axis=2)  # 1 for an n-gram's first occurrence
            matched = inside & (rank <= looked_up(numbers, grams, most))
            matches.append(tf.reduce_sum(tf.cast(matched, tf.float32), axis=1))
            total = tf.maximum(tf.reduce_sum(tf.cast(inside, tf.float32), axis=1), 1.0)
            logarithm += tf.math.log(tf.maximum(matches[-1], 0.1) / total) / ORDER  # no match counts as 0.1
        length = tf.cast(lengths, tf.float32)
        brevity = tf.minimum(1.0 - tf.gather(self._nearest, lengths) / tf.maximum(length, 1.0), 0.0)
        return tf.reshape(tf.where(matches[0] > 0, tf.exp(logarithm + brevity), 0.0), sequences.shape[:-1])


def gram_numbers(tokens, order: int, vocab_size: int):
    """Numbers that tell the n-grams of `order` tokens apart: int32 [R, T] → int64 [R, T], by where each begins.

    Those that reach beyond the sequence have none that means anything. V must be less than 2²¹.
    """
    padded = tf.pad(tf.cast(tokens, tf.int64), [[0, 0], [0, order - 1]])
    numbers = tf.zeros(tokens.shape, tf.int64)
    for i in range(order):
        numbers = numbers * vocab_size + padded[:, i : i + tokens.shape[1]]
    return numbers


def looked_up(numbers: tf.Tensor, keys: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """The value of each number in a table, 0 where it is none of its keys; XLA's own search compares with all of them.

    int64 of any shape; keys int64 [m], ascending; values int32 [m] → int32.
    """
    size = keys.shape[0]
    place = tf.zeros(numbers.shape, tf.int32)  # keys that are less than the number
    for bit in reversed(range(size.bit_length())):
        further = place + 2**bit
        less = tf.gather(keys, tf.minimum(further, size) - 1) < numbers
        place = tf.where((further <= size) & less, further, place)
    place = tf.minimum(place, size - 1)
    return tf.where(tf.gather(keys, place) == numbers, tf.gather(values, place), 0)
