import numpy as np
import pytest
import tensorflow as tf
from conftest import cases
from enumeration import random_generator, randomise

from discriminator import FAKE, REAL, ConvolutionalDiscriminator, Options, PooledDiscriminator
from generator import TokenSpec
from rollout import RolloutPolicy
from support.seeds import Purpose, key, uniforms

SIZES, FILTERS = (1, 2, 3, 3), (4, 3, 5, 2)
TOKENS = np.random.default_rng(0).integers(0, 7, [6, 5]).astype(np.int32)
LENGTHS = [1, 2, 3, 4, 5, 4]
KINDS = pytest.mark.parametrize("kind", [ConvolutionalDiscriminator, PooledDiscriminator], ids=["cnn", "pooled"])


def discriminator(kind=ConvolutionalDiscriminator, padded: bool = False, seq_len: int = 5, **changes):
    options = {"emb_dim": 4, "hidden_dim": 3, "filter_sizes": SIZES, "num_filters": FILTERS, "seed": 1} | changes
    network = kind(TokenSpec(7, seq_len, end_token=6 if padded else None), Options(**options))
    randomise(network, seed=1)
    return network


def layer(values: np.ndarray, dense) -> np.ndarray:
    return values @ dense.kernel.numpy() + dense.bias.numpy()


def activations(network, tokens: np.ndarray, length: int) -> list[np.ndarray]:
    """What each filter makes of each window, [windows, filters] a width; one too wide sees zeros behind the tokens."""
    embedded = np.zeros([5, 4])
    embedded[:length] = network.embedding.embeddings.numpy()[tokens[:length]]
    found = []
    for width, convolution in zip(network.filter_sizes, network.convolutions, strict=True):
        windows = [embedded[first : first + width].ravel() for first in range(max(length - width, 0) + 1)]
        found.append(np.maximum(layer(np.array(windows), convolution), 0))
    return found


def padded(lengths, width: int = 5) -> np.ndarray:
    """The rows of TOKENS cut to some lengths; padding is 7."""
    rows = np.full([len(lengths), width], 7, np.int32)
    for row, tokens, length in zip(rows, TOKENS, lengths, strict=True):
        row[:length] = tokens[:length]
    return rows


@KINDS
@pytest.mark.parametrize("lengths", [[5] * 6, LENGTHS], ids=["one length", "unequal lengths"])
def test_the_network_is_that_of_the_equations(lengths, kind):
    """Features, then highway or dense layer, by hand; padding is in no window and no mean, whatever T is."""
    network = discriminator(kind, lengths == LENGTHS)
    tokens, features = padded(lengths), []
    for row, length in zip(tokens, lengths, strict=True):
        found = activations(network, row, length)
        means = [each.mean(axis=0) for each in found] if kind is PooledDiscriminator else []
        features.append(np.concatenate([each.max(axis=0) for each in found] + means))
    features = np.array(features)
    np.testing.assert_allclose(network.features(tokens), features, rtol=1e-4, atol=1e-5)
    if kind is PooledDiscriminator:
        hidden = np.maximum(layer(features, network.dense), 0)
    else:
        gate = 1 / (1 + np.exp(-layer(features, network.gate)))
        hidden = gate * np.maximum(layer(features, network.transform), 0) + (1 - gate) * features
    logits = layer(hidden, network.output_layer)
    for logits_of in (network.logits, tf.function(network.logits, jit_compile=True)):
        np.testing.assert_allclose(logits_of(tf.constant(tokens)), logits, rtol=1e-4, atol=1e-4)
    log_odds = logits[:, REAL] - logits[:, FAKE]
    np.testing.assert_allclose(network.log_odds(tokens), log_odds, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(tf.sigmoid(network.log_odds(tokens)), 1 / (1 + np.exp(-log_odds)), atol=1e-5)
    assert log_odds.std() > 0.01
    if lengths == LENGTHS:
        longer = discriminator(kind, True, seq_len=9)
        np.testing.assert_allclose(longer.log_odds(padded(lengths, 9)), log_odds, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(network.log_odds(TOKENS), discriminator(kind).log_odds(TOKENS), rtol=1e-4, atol=1e-5)


def with_tables(worth: list[bool]) -> type[ConvolutionalDiscriminator]:
    class Decided(ConvolutionalDiscriminator):
        def worth_a_table(self, sequences: int) -> list[bool]:
            return worth

    return Decided


SCORERS = {"even": with_tables([False, True, False, True]), "odd": with_tables([True, False, True, False])}
SCORERS |= {"none": with_tables([False] * 4), "pooled": PooledDiscriminator}


@cases("kind, unequal", ("even", True), ("none", False), *((k, u) for k in ("odd", "pooled") for u in (False, True)))
def test_completions_are_scored_as_whole_sequences(kind, unequal):
    """Whatever the prefix, whose tokens are the sample's."""
    network = discriminator(SCORERS[kind], unequal, filter_sizes=(1, 2, 3, 5))  # of one token, and of all
    policy = RolloutPolicy(random_generator(7, 5, end_token=6 if unequal else None))
    policy.output_layer.bias.assign(policy.output_layer.bias + 1.5 * tf.one_hot(6, 7))
    tokens = policy.sample(uniforms([5, 40], key(1, Purpose.G_SAMPLE, 0)))
    assert set((tokens.numpy() != 7).sum(axis=1)) == ({1, 2, 3, 4, 5} if unequal else {5})

    def scores(rollouts: tf.Tensor, prefix_len: tf.Tensor) -> tf.Tensor:
        return network.completion_log_odds(tokens)(rollouts, prefix_len)

    scores = tf.function(scores, jit_compile=True) if kind == "even" else scores
    for prefix_len in range(1, 6):
        rollouts = tokens[None]
        if prefix_len < 5:
            numbers = uniforms([5, 4, 40], key(1, Purpose.ROLLOUT, prefix_len))
            rollouts = policy.complete(tokens, policy.states(tokens), tf.constant(prefix_len), numbers)
        whole = tf.reshape(network.log_odds(tf.reshape(rollouts, [-1, 5])), rollouts.shape[:2])
        assert np.std(whole) > 1
        np.testing.assert_allclose(scores(rollouts, tf.constant(prefix_len)), whole, rtol=1e-4, atol=1e-4)


def test_a_table_is_made_where_it_saves_more_than_it_costs():
    """The windows that completions add, counted one by one; memory is bounded, and narrow widths come first."""

    def worth(vocab_size: int, sequences: int = 12, emb_dim: int = 40, filters=(3, 4, 6)) -> list[bool]:
        options = Options(emb_dim=emb_dim, filter_sizes=(5, 2, 1), num_filters=filters)
        return ConvolutionalDiscriminator(TokenSpec(vocab_size, 5), options).worth_a_table(sequences)

    added = {w: sum(first + w > n for n in range(1, 5) for first in range(5 - w + 1)) for w in (1, 2, 5)}
    assert added == {1: 10, 2: 10, 5: 4}
    saved = {width: 12 * windows * (40 - 20) for width, windows in added.items()}  # of 12 completions a prefix
    for vocab_size in (1, 22, 23, 24, 58, 59, 60, 200):
        assert worth(vocab_size) == [saved[width] > (vocab_size + 1) * 40 for width in (5, 2, 1)]
    assert worth(22) == [True] * 3 and worth(60) == [False] * 3 and worth(40) == [False, True, True]
    assert worth(1, 10**6, emb_dim=20) == [False] * 3  # a product of few pairs is no dearer than a lookup
    # Of 2³⁰ bytes for all tables, 4·2¹⁶ times 4,096 = 1·96 + 2·2000 numbers a row.
    assert worth(2**16 - 1, 10**9, emb_dim=21, filters=(30, 2000, 96)) == [False, True, True]
    assert worth(2**16 - 1, 10**9, emb_dim=21, filters=(30, 2000, 97)) == [True, False, True]


@pytest.mark.parametrize("l2", [0.0, 0.2, 3.0])
@KINDS
def test_the_loss_is_cross_entropy_plus_the_penalty_of_the_output_layer(kind, l2):
    labels, network = np.array([REAL, FAKE, REAL, FAKE, FAKE, REAL]), discriminator(kind, l2=l2)
    logits = network.logits(TOKENS).numpy()
    cross_entropy = np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(6), labels])
    kernel, bias = network.output_layer.kernel.numpy(), network.output_layer.bias.numpy()
    loss, accuracy = network.loss(TOKENS, labels.astype(np.int32), None)
    assert float(loss) == pytest.approx(cross_entropy + l2 * (np.sum(kernel**2) + np.sum(bias**2)) / 2, rel=1e-5)
    assert float(accuracy) == pytest.approx(np.mean(logits.argmax(axis=1) == labels))


def test_dropout_keeps_its_share_and_the_mean():
    network = discriminator(dropout_keep_prob=0.75)
    network.output_layer.kernel.assign(tf.eye(14, 2))  # the two logits show features 0 and 1 of the highway's output
    network.output_layer.bias.assign([0.0, 0.0])
    tokens = np.repeat(TOKENS[:1], 20_000, axis=0)
    whole = network.logits(tokens[:1]).numpy()[0]
    assert (np.abs(whole) > 0.1).all()
    dropped, again, other = (network.logits(tokens, key(1, Purpose.DROPOUT, step)).numpy() for step in (0, 0, 1))
    kept = np.abs(dropped) > 1e-6
    assert np.abs(kept.mean(axis=0) - 0.75).max() < 5 * np.sqrt(0.75 * 0.25 / 20_000)
    np.testing.assert_allclose(dropped[kept[:, 0], 0], whole[0] / 0.75, rtol=1e-4)
    np.testing.assert_array_equal(dropped, again)
    assert (dropped != other).any()
    for net in (network, discriminator(PooledDiscriminator, dropout_keep_prob=0.5)):
        losses = [float(net.loss(TOKENS, TOKENS[:, 0] % 2, seed)[0]) for seed in (None, key(1, Purpose.DROPOUT))]
        assert losses[0] != losses[1]
    full = discriminator(dropout_keep_prob=1.0)
    np.testing.assert_array_equal(full.logits(TOKENS), full.logits(TOKENS, key(1, Purpose.DROPOUT, 0)))


def test_weights_start_from_the_authors_distributions():
    def made(seed: int, init: str = "authors") -> ConvolutionalDiscriminator:
        options = Options(emb_dim=30, filter_sizes=(3, 5), num_filters=(40, 60), seed=seed, init=init)
        return ConvolutionalDiscriminator(TokenSpec(50, 20), options)

    network = made(3)
    embedding = network.embedding.embeddings.numpy()
    assert embedding.min() < -0.98 and embedding.max() > 0.98 and np.abs(embedding).max() <= 1.0
    layers = (*network.convolutions, network.output_layer)
    for dense in layers:
        assert np.abs(dense.kernel.numpy()).max() <= 0.2 + 1e-6  # a normal distribution of 0.1, cut at two deviations
        np.testing.assert_allclose(dense.bias, 0.1)
    assert network.convolutions[1].kernel.numpy().std() == pytest.approx(0.088, abs=0.003)
    weights, again, other = network.get_weights(), made(3).get_weights(), made(4).get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(weights, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(again, other, strict=True))
    kernels = [dense.kernel.numpy().ravel()[:100] for dense in layers]
    assert not np.array_equal(kernels[0], kernels[1])
    for dense in (network.transform, network.gate):
        assert np.abs(dense.kernel).max() <= np.sqrt(6 / sum(dense.kernel.shape)) and not dense.bias.numpy().any()
    pooled = PooledDiscriminator(TokenSpec(50, 20), Options(emb_dim=30, filter_sizes=(3, 5), num_filters=(40, 60)))
    assert 0.049 < np.abs(pooled.embedding.embeddings).max() <= 0.05
    keras = made(3, "keras")
    assert 0.049 < np.abs(keras.embedding.embeddings).max() <= 0.05
    for dense in (*keras.convolutions, keras.output_layer):
        bound = np.sqrt(6 / sum(dense.kernel.shape))  # Glorot and Bengio (2010)
        assert 0.9 * bound < np.abs(dense.kernel.numpy()).max() <= bound and not dense.bias.numpy().any()


@pytest.mark.parametrize(("sizes", "filters"), [((6,), (4,)), ((0,), (4,)), ((1, 2), (4,))])
def test_filters_that_do_not_fit_are_refused(sizes, filters):
    with pytest.raises(ValueError, match="--d_filter_sizes .* do not fit"):
        discriminator(filter_sizes=sizes, num_filters=filters)
