import numpy as np
import pytest
import tensorflow as tf
from conftest import random_generator, randomise, tiny_config

from discriminator import FAKE, REAL, Discriminator, PooledDiscriminator
from model import SeqGAN
from rollout import RolloutPolicy
from support.seeds import Purpose, key, uniforms

SIZES, FILTERS = (1, 2, 3, 3), (4, 3, 5, 2)
TOKENS = np.random.default_rng(0).integers(0, 7, [6, 5]).astype(np.int32)


def discriminator(**changes) -> Discriminator:
    flags = {"dropout_keep_prob": 0.75, "l2": 0.2, "seed": 1} | changes
    kind = PooledDiscriminator if "units" in flags else Discriminator
    network = kind(7, flags.pop("seq_len", 5), 4, flags.pop("sizes", SIZES), FILTERS, **flags)
    randomise(network, seed=1)
    return network


def test_the_network_is_the_papers():
    network = discriminator()
    embedding = network.embedding.embeddings.numpy()
    pooled = []
    for width, layer in zip(SIZES, network.convolutions, strict=True):
        kernel, bias = layer.kernel.numpy().reshape(width, 4, -1), layer.bias.numpy()
        maps = np.stack(
            [
                sum(embedding[TOKENS[:, start + i]] @ kernel[i] for i in range(width)) + bias
                for start in range(5 - width + 1)
            ],
            axis=1,
        )
        pooled.append(np.maximum(maps, 0).max(axis=1))
    features = np.concatenate(pooled, axis=1)
    gate = 1 / (1 + np.exp(-(features @ network.gate.kernel.numpy() + network.gate.bias.numpy())))
    transform = np.maximum(features @ network.transform.kernel.numpy() + network.transform.bias.numpy(), 0)
    highway = gate * transform + (1 - gate) * features
    logits = highway @ network.output_layer.kernel.numpy() + network.output_layer.bias.numpy()
    np.testing.assert_allclose(network.logits(TOKENS), logits, rtol=1e-4, atol=1e-4)
    odds = np.exp(logits[:, REAL] - logits[:, FAKE])
    np.testing.assert_allclose(network.real_prob(TOKENS), odds / (1 + odds), atol=1e-5)


def test_a_convolution_agrees_with_tensorflows():
    network = discriminator()
    embedded = network.embedding(TOKENS)
    start = 0
    features = network.features(TOKENS)
    for width, filters, layer in zip(SIZES, FILTERS, network.convolutions, strict=True):
        maps = tf.nn.conv1d(embedded, tf.reshape(layer.kernel, [width, 4, filters]), 1, "VALID") + layer.bias
        expected = tf.reduce_max(tf.nn.relu(maps), axis=1)
        np.testing.assert_allclose(features[:, start : start + filters], expected, rtol=1e-4, atol=1e-5)
        start += filters


FORMS = pytest.mark.parametrize(
    "worth",
    [[True] * 4, [False] * 4, [False, True, False, True]],
    ids=["tables", "products", "some of both"],
)
WIDTHS = (1, 2, 3, 5)  # of one token, and of whole sequences


@FORMS
@pytest.mark.parametrize("jit", [True, False])
def test_completions_are_scored_as_whole_sequences(jit, worth, monkeypatch):
    """Whatever the prefix: every token after it differs from the sample's, and none of those before."""
    network = discriminator(sizes=WIDTHS)
    monkeypatch.setattr(network, "worth_a_table", lambda sequences: worth)
    network.embedding.embeddings.assign(network.embedding.embeddings * 3)  # opinions far apart
    tokens = tf.constant(TOKENS)
    score = tf.function(lambda r, n: network.completion_scorer(tokens)(r, n), jit_compile=jit)
    for prefix_len in range(1, 6):
        rollouts = np.repeat(TOKENS[None], 4, axis=0)
        rollouts[:, :, prefix_len:] = np.random.default_rng(prefix_len).integers(0, 7, [4, 6, 5 - prefix_len])
        whole = network.real_prob(rollouts.reshape(24, 5)).numpy().reshape(4, 6)
        assert whole.std() > 0.05
        np.testing.assert_allclose(score(tf.constant(rollouts), tf.constant(prefix_len)), whole, atol=1e-5)


def padded(lengths, width: int = 5) -> np.ndarray:
    """The rows of TOKENS cut to some lengths; padding is 7."""
    rows = np.full([len(lengths), width], 7, np.int32)
    for row, tokens, length in zip(rows, TOKENS, lengths, strict=True):
        row[:length] = tokens[:length]
    return rows


def test_an_opinion_is_that_of_the_tokens_before_the_padding():
    """By hand, whatever T is; filters wider than the sequence look at it once, with zeros behind it."""
    lengths = [1, 2, 3, 4, 5, 4]
    network, longer = discriminator(padded=True), discriminator(padded=True, seq_len=9)
    embedding = network.embedding.embeddings.numpy()
    features = []
    for tokens, length in zip(TOKENS, lengths, strict=True):
        embedded, row = np.zeros([5, 4]), []
        embedded[:length] = embedding[tokens[:length]]
        for width, layer in zip(SIZES, network.convolutions, strict=True):
            windows = [embedded[first : first + width].ravel() for first in range(max(length - width, 0) + 1)]
            row.append(np.maximum(np.array(windows) @ layer.kernel.numpy() + layer.bias.numpy(), 0).max(axis=0))
        features.append(np.concatenate(row))
    np.testing.assert_allclose(network.features(padded(lengths)), features, rtol=1e-4, atol=1e-5)
    opinions = network.real_prob(padded(lengths))
    assert np.std(opinions) > 0.01
    np.testing.assert_allclose(longer.real_prob(padded(lengths, 9)), opinions, atol=1e-6)
    np.testing.assert_allclose(network.real_prob(TOKENS), discriminator().real_prob(TOKENS), atol=1e-6)


@pytest.mark.parametrize("jit", [True, False])
def test_the_mean_over_time_is_beside_the_maximum(jit):
    """By hand; padding is in no mean, a filter wider than the sequence looks at it once, and completions are whole."""
    lengths = [1, 2, 3, 4, 5, 4]
    network, longer = discriminator(padded=True, units=3), discriminator(padded=True, units=3, seq_len=9)
    embedding = network.embedding.embeddings.numpy()
    features = []
    for tokens, length in zip(TOKENS, lengths, strict=True):
        embedded, maxima, means = np.zeros([5, 4]), [], []
        embedded[:length] = embedding[tokens[:length]]
        for width, layer in zip(SIZES, network.convolutions, strict=True):
            windows = [embedded[first : first + width].ravel() for first in range(max(length - width, 0) + 1)]
            active = np.maximum(np.array(windows) @ layer.kernel.numpy() + layer.bias.numpy(), 0)
            maxima.append(active.max(axis=0))
            means.append(active.mean(axis=0))
        features.append(np.concatenate(maxima + means))
    np.testing.assert_allclose(network.features(padded(lengths)), features, rtol=1e-4, atol=1e-5)
    dense, output = network.dense, network.output_layer
    hidden = np.maximum(np.array(features) @ dense.kernel.numpy() + dense.bias.numpy(), 0)
    logits = hidden @ output.kernel.numpy() + output.bias.numpy()
    tokens = tf.constant(padded(lengths))
    np.testing.assert_allclose(tf.function(network.logits, jit_compile=jit)(tokens), logits, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(longer.log_odds(padded(lengths, 9)), network.log_odds(tokens), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(network.logits(TOKENS), discriminator(units=3).logits(TOKENS), rtol=1e-5, atol=1e-5)
    rollouts = np.stack([padded(lengths), padded(lengths[::-1])])
    whole = network.real_prob(rollouts.reshape(12, 5)).numpy().reshape(2, 6)
    assert whole.std() > 0.05
    score = tf.function(lambda r, n: network.completion_scorer(tokens)(r, n), jit_compile=jit)
    np.testing.assert_allclose(score(tf.constant(rollouts), tf.constant(1)), whole, atol=1e-5)


@FORMS
@pytest.mark.parametrize("jit", [True, False])
def test_completions_of_unequal_lengths_are_scored_as_whole_sequences(jit, worth, monkeypatch):
    network = discriminator(padded=True, sizes=WIDTHS)
    monkeypatch.setattr(network, "worth_a_table", lambda sequences: worth)
    network.embedding.embeddings.assign(network.embedding.embeddings * 3)
    policy = RolloutPolicy(random_generator(7, 5, end_token=6))
    policy.output_layer.bias.assign(policy.output_layer.bias + 1.5 * tf.one_hot(6, 7))
    tokens = policy.sample(uniforms([5, 40], key(1, Purpose.G_SAMPLE, 0)))
    assert set((tokens.numpy() != 7).sum(axis=1)) == {1, 2, 3, 4, 5}
    score = tf.function(lambda r, n: network.completion_scorer(tokens)(r, n), jit_compile=jit)
    for prefix_len in range(1, 6):
        numbers = uniforms([5, 4, 40], key(1, Purpose.ROLLOUT, prefix_len))
        rollouts = tokens[None]
        if prefix_len < 5:
            rollouts = policy.complete(tokens, policy.states(tokens), tf.constant(prefix_len), numbers)
        whole = tf.reshape(network.real_prob(tf.reshape(rollouts, [-1, 5])), rollouts.shape[:2])
        assert np.std(whole) > 0.05
        np.testing.assert_allclose(score(rollouts, tf.constant(prefix_len)), whole, atol=1e-5)


def test_a_response_is_the_sum_of_rows_of_its_table():
    """By hand, in integers, where both sides are exact; padding adds zeros."""
    network = discriminator()
    rng = np.random.default_rng(3)
    embedding, kernel = rng.integers(-9, 9, [7, 4]), rng.integers(-9, 9, [3 * 4, 5])
    network.embedding.embeddings.assign(embedding)
    table = network.table(3, tf.constant(kernel, tf.float32)).numpy()
    assert table.shape == (8 * 3, 5)
    windows = rng.integers(0, 8, [100, 3])
    vectors = np.concatenate([embedding, np.zeros([1, 4])])[windows].reshape(100, 12)
    np.testing.assert_array_equal(table[windows * 3 + np.arange(3)].sum(axis=1), vectors @ kernel)


def test_a_table_is_made_where_it_saves_more_than_it_costs(monkeypatch):
    """The windows that completions add, counted one by one; memory is bounded, and narrow widths come first."""

    def network(vocab_size: int, emb_dim: int, sizes=(5, 2, 1), filters=(3, 4, 6)) -> Discriminator:
        return Discriminator(vocab_size, 5, emb_dim, sizes, filters, dropout_keep_prob=1.0, l2=0.0, seed=1)

    monkeypatch.setattr("discriminator.PAIRS_A_LOOKUP", 16)
    added = {
        width: sum(first + width > n for n in range(1, 5) for first in range(5 - width + 1)) for width in (1, 2, 5)
    }
    assert added == {1: 10, 2: 10, 5: 4}
    saved = {width: 12 * windows * (32 - 16) for width, windows in added.items()}  # of 12 completions a prefix
    for vocab_size in (1, 22, 23, 24, 58, 59, 60, 61, 200):
        expected = [saved[width] > (vocab_size + 1) * 32 for width in (5, 2, 1)]
        assert network(vocab_size, 32).worth_a_table(12) == expected
    assert network(22, 32).worth_a_table(12) == [True] * 3 and network(60, 32).worth_a_table(12) == [False] * 3
    assert network(40, 32).worth_a_table(12) == [False, True, True]
    assert network(1, 16).worth_a_table(10**6) == [False] * 3  # a product of few pairs is no dearer than a lookup
    rows = 10 + 1
    monkeypatch.setattr("discriminator.MOST_TABLES", 4 * rows * (1 * 6 + 2 * 4))
    assert network(10, 32).worth_a_table(10**6) == [False, True, True]
    monkeypatch.setattr("discriminator.MOST_TABLES", 4 * rows * (1 * 6 + 2 * 4) - 1)
    assert network(10, 32).worth_a_table(10**6) == [False, False, True]


def test_the_loss_is_cross_entropy_plus_the_penalty_of_the_output_layer():
    labels = np.array([REAL, FAKE, REAL, FAKE, FAKE, REAL])
    for l2 in (0.0, 0.2, 3.0):
        network = discriminator(l2=l2)
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
    dropped = network.logits(tokens, key(1, Purpose.DROPOUT, 0)).numpy()
    kept = np.abs(dropped) > 1e-6
    assert np.abs(kept.mean(axis=0) - 0.75).max() < 5 * np.sqrt(0.75 * 0.25 / 20_000)
    np.testing.assert_allclose(dropped[kept[:, 0], 0], whole[0] / 0.75, rtol=1e-4)
    again, other = (network.logits(tokens, key(1, Purpose.DROPOUT, step)).numpy() for step in (0, 1))
    np.testing.assert_array_equal(dropped, again)
    assert (dropped != other).any()


def test_no_dropout_in_opinions_nor_at_keep_one():
    network = discriminator()
    np.testing.assert_array_equal(network.real_prob(TOKENS), network.real_prob(TOKENS))
    whole = discriminator(dropout_keep_prob=1.0)
    np.testing.assert_array_equal(whole.logits(TOKENS), whole.logits(TOKENS, key(1, Purpose.DROPOUT, 0)))


def test_weights_start_from_the_authors_distributions():
    network = Discriminator(50, 20, 30, (3, 5), (40, 60), dropout_keep_prob=1.0, l2=0.0, seed=3)
    embedding = network.embedding.embeddings.numpy()
    assert embedding.min() < -0.98 and embedding.max() > 0.98 and np.abs(embedding).max() <= 1.0
    for layer in (*network.convolutions, network.output_layer):
        assert np.abs(layer.kernel.numpy()).max() <= 0.2 + 1e-6  # a normal distribution of 0.1, cut at two deviations
        np.testing.assert_allclose(layer.bias, 0.1)
    assert network.convolutions[1].kernel.numpy().std() == pytest.approx(0.088, abs=0.003)
    again, other = (
        Discriminator(50, 20, 30, (3, 5), (40, 60), dropout_keep_prob=1.0, l2=0.0, seed=s).get_weights() for s in (3, 4)
    )
    assert all(np.array_equal(a, b) for a, b in zip(network.get_weights(), again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(again, other, strict=True))
    kernels = [layer.kernel.numpy().ravel()[:100] for layer in (*network.convolutions, network.output_layer)]
    assert not np.array_equal(kernels[0], kernels[1])


def test_all_of_the_pooled_one_is_trained_and_kept(tmp_path):
    flags = ["--no-jit", "--discriminator", "pooled"]
    model, other = (SeqGAN(tiny_config(*flags, "--seed", seed), 4, 5, end_token=3) for seed in ("1", "9"))
    assert isinstance(model.discriminator, PooledDiscriminator) and model.discriminator.units == 128
    before = model.discriminator.get_weights()
    model.d_step(tf.constant([[0, 3, 4], [1, 2, 3], [2, 2, 2], [0, 0, 0]] * 4), tf.constant(0))
    after = model.discriminator.get_weights()
    assert len(after) == 1 + 2 * 2 + 2 * 2 and all((a != b).any() for a, b in zip(after, before, strict=True))
    path = model.checkpoint().write(str(tmp_path / "state"))
    other.checkpoint().read(path).assert_consumed()
    for mine, theirs in zip(other.discriminator.get_weights(), after, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(("sizes", "filters"), [((6,), (4,)), ((0,), (4,)), ((1, 2), (4,))])
def test_filters_that_do_not_fit_are_refused(sizes, filters):
    with pytest.raises(ValueError, match="do not fit"):
        Discriminator(7, 5, 4, sizes, filters, dropout_keep_prob=1.0, l2=0.0, seed=1)
