import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import cases
from enumeration import action_values, all_sequences, by_token, of_tokens, probabilities, random_generator, randomise
from test_model import flat

from discriminator import REAL, Options
from generator import State, Tempered, TokenSpec
from guidance.additive import AdditiveDiscriminator, BigramDiscriminator, LSTMDiscriminator
from guidance.guided import GuidedPolicy, best_guidance
from support.seeds import Purpose, key, uniforms

KINDS = pytest.mark.parametrize("kind", [BigramDiscriminator, LSTMDiscriminator], ids=["bigram", "lstm"])
ENDS = pytest.mark.parametrize("end_token", [None, 1], ids=["one length", "unequal lengths"])


def made(kind, seq_len: int = 3, end_token: int | None = None, **others) -> AdditiveDiscriminator:
    """A discriminator of 4 tokens with weights far from 0."""
    options = {"emb_dim": 3, "hidden_dim": 5, "l2": 0.0, "dropout_keep_prob": 1.0} | others
    discriminator = kind(TokenSpec(4, seq_len, 0, end_token), Options(**options))
    randomise(discriminator, seed=7)
    return discriminator


class Table(AdditiveDiscriminator):
    """A score of its own for each prefix and next token: its context says which prefix it is."""

    def __init__(self, vocab_size: int, seq_len: int, end_token: int | None = None):
        self.base = vocab_size + 2  # of a prefix's number: token + 1, and 0 for none
        super().__init__(TokenSpec(vocab_size, seq_len, 0, end_token), Options(emb_dim=self.base**seq_len))
        self.memory_dim = 1
        self.successors.assign(tf.zeros_like(self.successors))

    def contexts(self, tokens, dropout_seed=None):
        return by_token(self, tokens)

    def first_state(self, batch_size):
        return self._state(tf.zeros([batch_size, 1]))

    def next_state(self, tokens, memory):
        return self._state(memory * self.base + tf.cast(tokens, tf.float32)[:, None] + 1)

    def _state(self, memory):
        return State(tf.one_hot(tf.cast(memory[:, 0], tf.int32), self.rank), memory)


def exact(oracle, generator) -> Table:
    """The table of log p(y_t | y_<t) - log G(y_t | y_<t)."""
    table = Table(oracle.vocab_size, oracle.seq_len, oracle.end_token)
    tokens = tf.constant(all_sequences(oracle.vocab_size, oracle.seq_len, oracle.end_token))
    contexts, ratios = table.contexts(tokens).hidden, (oracle.log_probs(tokens) - generator.log_probs(tokens)).numpy()
    successors = np.zeros(table.successors.shape, np.float32)
    for t in range(oracle.seq_len):
        prefix, drawn = contexts[t].numpy().argmax(axis=1), tokens[:, t].numpy() < oracle.vocab_size
        successors[tokens[:, t].numpy()[drawn], prefix[drawn]] = ratios[drawn, t]
    table.successors.assign(successors)
    return table


@KINDS
@ENDS
def test_log_odds_are_the_sum_of_the_scores_of_the_tokens(kind, end_token):
    discriminator, tokens = made(kind, end_token=end_token), all_sequences(4, 3, end_token)
    scores = discriminator.next_scores(by_token(discriminator, tokens).hidden)
    sums = of_tokens(scores, tokens).sum(axis=1)
    assert np.ptp(sums) > 1
    np.testing.assert_allclose(discriminator.log_odds(tf.constant(tokens)), sums, atol=1e-5)
    rollouts = tf.constant(tokens[None])
    for n in (1, 3):
        score = discriminator.completion_log_odds(tf.constant(tokens))(rollouts, tf.constant(n))
        np.testing.assert_allclose(score[0], sums, atol=1e-5)


@pytest.mark.parametrize("lags", [(1,), (3, 1)])
def test_a_bigram_score_is_bilinear(lags):
    discriminator = made(BigramDiscriminator, seq_len=4, lags=lags, offset=True)
    tables, successors = (discriminator.embedding, *discriminator.further), discriminator.successors.numpy()
    tokens = [1, 3, 2, 2]
    expected = successors[tokens, -1] + discriminator.offsets[0].embeddings.numpy()[[0, *tokens[:-1]], 0]
    for i, (lag, table) in enumerate(zip(lags, tables, strict=True)):
        read = [0] * lag + tokens[:-lag]  # start tokens first
        expected = expected + (table.embeddings.numpy()[read] * successors[tokens, 3 * i : 3 * i + 3]).sum(axis=1)
    np.testing.assert_allclose(discriminator.token_scores(tf.constant([tokens]))[0], expected, rtol=1e-5)


@ENDS
def test_with_the_exact_log_ratio_it_is_the_best_discriminator_and_guides_to_the_oracle(end_token):
    oracle, generator = (random_generator(seed=seed, end_token=end_token) for seed in (1, 2))
    table = exact(oracle, generator)
    p, g = probabilities(oracle), probabilities(generator)
    tokens = tf.constant(all_sequences(4, 3, end_token))
    np.testing.assert_allclose(tf.sigmoid(table.log_odds(tokens)), p / (p + g), atol=1e-5)
    guided = GuidedPolicy(generator, table, tf.Variable(1.0))
    np.testing.assert_allclose(probabilities(guided), p, atol=1e-6)
    guided.eta.assign(0.0)
    np.testing.assert_allclose(probabilities(guided), g, atol=1e-6)

    def nll(eta: float) -> float:
        guided.eta.assign(eta)
        return -(p * np.log(probabilities(guided))).sum()

    assert best_guidance(nll) == pytest.approx(1, abs=0.02) and best_guidance(lambda eta: eta**2) == 0


def test_an_eta_beyond_4_is_found_and_one_at_the_largest_bound_is_said(capsys):
    assert best_guidance(lambda eta: (eta - 9) ** 2) == pytest.approx(9, abs=0.02)
    assert not capsys.readouterr().err and best_guidance(lambda eta: -eta) == pytest.approx(64, abs=0.1)
    assert "warning: η is 64.0: the NLL still falls at the largest that is tried" in capsys.readouterr().err


@cases(
    "kind, end_token, jit",
    *((LSTMDiscriminator, None, False), (LSTMDiscriminator, 1, True)),
    *((BigramDiscriminator, None, True), (BigramDiscriminator, 1, False)),
)
def test_the_guided_generator_is_the_product_normalised_over_the_next_token(kind, end_token, jit):
    generator, discriminator = random_generator(end_token=end_token), made(kind, end_token=end_token)
    eta = 0.7
    guided, tokens = GuidedPolicy(generator, discriminator, tf.Variable(eta)), all_sequences(4, 3, end_token)
    hidden, context = (by_token(reader, tokens).hidden for reader in (generator, discriminator))
    log_probs = tf.nn.log_softmax(generator.logits(hidden) + eta * discriminator.next_scores(context))
    np.testing.assert_allclose(probabilities(guided), np.exp(of_tokens(log_probs, tokens).sum(axis=1)), atol=1e-5)
    assert probabilities(guided).sum() == pytest.approx(1, abs=1e-5)
    compare = tf.function(lambda numbers: guided.sample_and_compare(numbers, generator), jit_compile=jit)
    drawn, entropy, cross_entropy = compare(uniforms([3, 20_000], key(1, Purpose.EVALUATE)))
    np.testing.assert_array_equal(drawn[:50], guided.sample(uniforms([3, 20_000], key(1, Purpose.EVALUATE)))[:50])
    q, g = probabilities(guided), probabilities(generator)
    for values, truth in ((entropy, -(q * np.log(q)).sum()), (cross_entropy, -(q * np.log(g)).sum())):
        assert abs(np.mean(values) - truth) < 4 * np.std(values) / np.sqrt(20_000)


def test_guides_can_be_stacked_and_have_temperatures():
    generator, first, second = random_generator(), made(BigramDiscriminator), made(LSTMDiscriminator)
    stacked = GuidedPolicy(GuidedPolicy(generator, first, tf.Variable(0.5)), second, tf.Variable(2.0))
    tokens = tf.constant(all_sequences(4, 3))
    scores = [each.next_scores(each.contexts(tokens).hidden) for each in (first, second)]
    logits = generator.logits(generator.states(tokens).hidden) + 0.5 * scores[0] + 2 * scores[1]  # [T, B, V]
    for temperature, policy in ((1.0, stacked), (0.5, Tempered(stacked, 0.5))):
        chosen = tf.gather(tf.nn.log_softmax(logits / temperature), tf.transpose(tokens), batch_dims=2)
        np.testing.assert_allclose(policy.log_probs(tokens), tf.transpose(chosen), atol=1e-4)


@KINDS
@ENDS
def test_the_loss_is_cross_entropy_with_a_penalty(kind, end_token):
    discriminator, tokens = made(kind, end_token=end_token, l2=0.3), all_sequences(4, 3, end_token)[::3]
    labels, r = np.arange(len(tokens)) % 2, discriminator.log_odds(tf.constant(tokens)).numpy().astype(np.float64)
    loss, accuracy = discriminator.loss(tf.constant(tokens), tf.constant(labels, tf.int32), None)
    contexts = np.moveaxis(discriminator.contexts(tf.constant(tokens)).hidden, 1, 0)
    rows = discriminator.successors.numpy()[np.minimum(tokens, 3)]
    squares = ((contexts**2).sum(axis=2) + (rows**2).sum(axis=2))[tokens < 4]
    cross_entropy = np.mean(np.log1p(np.exp(np.where(labels == REAL, -r, r))))
    assert float(loss) == pytest.approx(cross_entropy + 0.15 * squares.mean(), rel=1e-4)
    assert float(accuracy) == pytest.approx(np.mean((r > 0) == (labels == REAL)))


@KINDS
def test_dropout_changes_what_is_read_and_repeats_with_its_key(kind):
    discriminator, tokens = made(kind, dropout_keep_prob=0.5), tf.constant(all_sequences(4, 3))
    seeds = (None, key(1, Purpose.DROPOUT), key(1, Purpose.DROPOUT))
    scores = [discriminator.token_scores(tokens, seed) for seed in seeds]
    np.testing.assert_array_equal(scores[1], scores[2])
    assert not np.isclose(scores[0], scores[1]).all()
    hidden = made(BigramDiscriminator, dropout_keep_prob=0.5, lags=(1, 2)).contexts(tokens, seeds[1]).hidden.numpy()
    assert ((hidden[..., :3] == 0) != (hidden[..., 3:] == 0)).any()  # each lag has numbers of its own


@KINDS
def test_training_finds_the_best_scores(kind):
    """Of two chains over three tokens, where bigrams are all there is: the optimum of the cross-entropy is D*."""
    rng, tokens = np.random.default_rng(3), all_sequences(3, 3)
    log_p, log_g = (np.log(rng.dirichlet(np.ones(3), size=4)) for _ in range(2))  # after start, 0, 1, 2

    def chain(log_probs):
        total = log_probs[0][tokens[:, 0]]
        return total + sum(log_probs[1 + tokens[:, t - 1], tokens[:, t]] for t in (1, 2))

    ratio = chain(log_p) - chain(log_g)
    weights = tf.constant(np.exp(np.concatenate([chain(log_p), chain(log_g)])), tf.float32)
    options = Options(emb_dim=4, hidden_dim=8, l2=0.0, dropout_keep_prob=1.0, seed=1)
    discriminator, optimizer = kind(TokenSpec(3, 3, start_token=3), options), keras.optimizers.Adam(0.02)
    optimizer.build(discriminator.trainable_variables)
    both, real = tf.constant(np.concatenate([tokens, tokens])), tf.constant([1.0] * 27 + [0.0] * 27)

    @tf.function
    def update():
        with tf.GradientTape() as tape:
            terms = tf.nn.sigmoid_cross_entropy_with_logits(labels=real, logits=discriminator.log_odds(both))
            loss = tf.reduce_sum(weights * terms)
        optimizer.apply(tape.gradient(loss, discriminator.trainable_variables), discriminator.trainable_variables)

    for _ in range(3000):
        update()
    np.testing.assert_allclose(discriminator.log_odds(tf.constant(tokens)), ratio, atol=0.05)


@pytest.mark.parametrize(("seq_len", "end_token"), [(3, None), (3, 1), (1, None)])
@pytest.mark.parametrize("kl_weight", [0.0, 0.6])
def test_the_expected_policy_gradient_is_exact_with_what_follows_and_biased_without(seq_len, end_token, kl_weight):
    """Where nothing follows it needs no rollouts: there an error in what is expected at once does not cancel."""
    generator, reference = (random_generator(seq_len=seq_len, seed=seed, end_token=end_token) for seed in (1, 2))
    discriminator = made(LSTMDiscriminator, seq_len=seq_len, end_token=end_token)
    tokens = tf.constant(all_sequences(4, seq_len, end_token))
    probs, kept = probabilities(generator), {"reference": reference, "kl_weight": kl_weight} if kl_weight else {}
    with tf.GradientTape() as tape:
        log_probs = tf.reduce_sum(generator.log_probs(tokens), axis=1)
        log_ratios = log_probs - tf.reduce_sum(reference.log_probs(tokens), axis=1)
        reward = discriminator.log_odds(tokens) - kl_weight * log_ratios
        objective = tf.reduce_sum(tf.exp(log_probs) * reward)
    gradients = [tape.gradient(objective, generator.trainable_variables)]
    values = action_values(generator, reward.numpy())
    start = np.full([len(values), 1], probs @ reward.numpy())
    advantages = tf.constant(values - np.concatenate([start, values[:, :-1]], axis=1), tf.float32)
    for known in (advantages, None):
        with tf.GradientTape() as tape:
            each = discriminator.surrogate(generator, tokens, advantages=known, **kept)
            mean = tf.reduce_sum(tf.constant(probs, tf.float32) * each)
        gradients.append(tape.gradient(mean, generator.trainable_variables))
    exact, found, without = map(flat, gradients)
    tolerance = 2e-4 * np.abs(exact).max() + 1e-5
    np.testing.assert_allclose(found, exact, atol=tolerance)
    if seq_len == 1:
        np.testing.assert_allclose(without, exact, atol=tolerance)
    else:
        assert without @ exact / np.linalg.norm(without) / np.linalg.norm(exact) < 0.99
        assert np.abs(without - exact).max() > 0.05 * np.abs(exact).max()
