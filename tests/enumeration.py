"""A small world, of four tokens as a rule, in which all sequences and their probabilities can be enumerated."""

import itertools

import numpy as np
import tensorflow as tf

from generator import Generator, Policy, State


def randomise(network, seed: int, stddev: float = 1.0) -> None:
    """Gives every weight a value from N(0, stddev²), so that the network's distribution is far from uniform."""
    rng = np.random.default_rng(seed)
    for weight in network.weights:
        weight.assign(rng.normal(0.0, stddev, weight.shape))


def randomise_all(seqgan):
    """Randomises its networks, the reward's reference among them; returns it. The rollout policy follows."""
    for seed, network in enumerate((seqgan.generator, seqgan.discriminator, seqgan.reward.reference), start=1):
        if network is not None:
            randomise(network, seed)
    seqgan.follow_policy(lag=0.0)
    return seqgan


def random_generator(vocab_size: int = 4, seq_len: int = 3, seed: int = 0, **sizes) -> Generator:
    """A generator whose distribution is far from uniform."""
    emb_dim, hidden_dim = sizes.pop("emb_dim", 3), sizes.pop("hidden_dim", 5)
    generator = Generator(vocab_size, seq_len, emb_dim, hidden_dim, seed=0, **sizes)
    randomise(generator, seed)
    return generator


def all_sequences(vocab_size: int, seq_len: int, end_token: int | None = None) -> np.ndarray:
    """Every sequence, int32 [n, T], in the order of their numbers in base V + 1; what follows an end is padding, V."""
    rows = np.array(list(itertools.product(range(vocab_size), repeat=seq_len)), np.int32)
    if end_token is None:
        return rows
    ended = np.cumsum(rows == end_token, axis=1) - (rows == end_token) > 0
    return np.unique(np.where(ended, vocab_size, rows), axis=0).astype(np.int32)


def index_of(tokens: np.ndarray, vocab_size: int, end_token: int | None = None) -> np.ndarray:
    """The place of each sequence in `all_sequences`."""
    powers = (vocab_size + 1) ** np.arange(tokens.shape[-1])[::-1]
    numbers, found = all_sequences(vocab_size, tokens.shape[-1], end_token) @ powers, np.asarray(tokens) @ powers
    places = np.searchsorted(numbers, found)
    np.testing.assert_array_equal(numbers[places], found)
    return places


def probabilities(policy: Policy) -> np.ndarray:
    """The exact probability of every sequence, float64 [n]."""
    sequences = all_sequences(policy.vocab_size, policy.seq_len, policy.end_token)
    return np.exp(policy.log_probs(tf.constant(sequences)).numpy().astype(np.float64).sum(axis=1))


def action_values(policy: Policy, scores: np.ndarray) -> np.ndarray:
    """The exact Q(t) of every sequence, [n, T]: the mean score given its first t tokens."""
    sequences = all_sequences(policy.vocab_size, policy.seq_len, policy.end_token)
    probs, values = probabilities(policy), np.empty(sequences.shape)
    for t in range(1, policy.seq_len + 1):
        _, prefix = np.unique(sequences[:, :t], axis=0, return_inverse=True)
        mean = np.bincount(prefix, probs * scores) / np.bincount(prefix, probs)
        values[:, t - 1] = mean[prefix]
    return values


def by_token(reader, tokens) -> State:
    """The states that a policy or an additive discriminator has before each token as it reads one by one, [T, n, …]."""
    tokens = tf.constant(tokens)
    if hasattr(reader, "first_state"):
        states = [reader.first_state(len(tokens))]
    else:  # what predicts the first token, whatever the tokens are
        states = [State(*(part[0] for part in reader.contexts(tf.zeros_like(tokens[:, :1]))))]
    for t in range(tokens.shape[1] - 1):
        states.append(reader.next_state(tokens[:, t], states[-1] if isinstance(reader, Policy) else states[-1].cell))
    return State(*map(tf.stack, zip(*states, strict=True)))


def of_tokens(values, tokens) -> np.ndarray:
    """Of what there is for each next token, [T, n, V], that of the sequences' own, [n, T]; of padding 0."""
    values, tokens = np.swapaxes(values, 0, 1), np.asarray(tokens)
    drawn = tokens < values.shape[2]
    return np.take_along_axis(values, np.where(drawn, tokens, 0)[..., None], axis=2)[..., 0] * drawn
