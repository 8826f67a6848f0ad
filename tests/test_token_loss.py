"""Additive discriminators trained token by token: what the loss is, its optimum, the offset, lags and echoes."""

import functools

import numpy as np
import pytest
import tensorflow as tf
import test_additive
from conftest import assert_same
from enumeration import all_sequences, by_token, of_tokens, probabilities, random_generator, randomise
from test_additive import ENDS, exact

from discriminator import Options
from generator import PolicyCopy, Tempered, TokenSpec
from guidance.additive import BigramDiscriminator, EchoDiscriminator, LSTMDiscriminator, drawn_in_place
from guidance.guided import GuidedPolicy
from support.echoes import SPANS, Echoes, pasts
from support.seeds import Purpose, key

made = functools.partial(test_additive.made, lags=(1, 2), offset=True)
KINDS = pytest.mark.parametrize("kind", [BigramDiscriminator, LSTMDiscriminator, EchoDiscriminator])


def after_prefixes(policy) -> np.ndarray:
    """log G(a | y_<t) of every next token a along all sequences, [n, T, V]."""
    logits = policy.logits(policy.states(tf.constant(all_sequences(4, 3, policy.end_token))).hidden)
    return np.swapaxes(tf.nn.log_softmax(logits).numpy(), 0, 1)


@ENDS
def test_the_optimum_is_the_log_ratio_and_the_only_one(end_token):
    """Each real sequence is weighed by its probability. Others with the same sums over sequences are no optimum."""
    oracle, generator = (random_generator(seed=seed, end_token=end_token) for seed in (1, 2))
    (table, moved), p = (exact(oracle, generator) for _ in range(2)), probabilities(oracle)
    shift = np.array([1.0, -1.0, 0.5, 0.0], np.float32)  # φ(y_1): what the first token is given, and the second loses
    successors = moved.successors.numpy()
    successors[:, 0] += shift
    successors[:, 1:5] -= shift
    moved.successors.assign(successors)
    rows, slopes = all_sequences(4, 3, end_token), []
    if end_token is None:
        np.testing.assert_allclose(moved.log_odds(tf.constant(rows)), table.log_odds(tf.constant(rows)), atol=1e-4)
    for scores in (table, moved):
        with tf.GradientTape() as tape:
            losses = [scores.expected_loss(generator, tf.constant(row[None]), None, None)[0] for row in rows]
            loss = tf.reduce_sum(p * (rows < 4).sum(axis=1) * tf.stack(losses))  # each is a mean over its tokens
        slopes.append(np.abs(tape.gradient(loss, scores.successors)).max())
    assert slopes[0] < 1e-6 and slopes[1] > 0.01
    guided = (probabilities(GuidedPolicy(generator, scores, tf.Variable(1.0))) for scores in (table, moved))
    assert [np.abs(each - p).max() > 0.01 for each in guided] == [False, True]
    odds = np.exp(after_prefixes(generator) + np.swapaxes(table.next_scores(table.contexts(rows).hidden), 0, 1))
    np.testing.assert_allclose(odds.sum(axis=2)[rows < 4], 1, rtol=1e-4)  # E_G[exp s] = 1


@KINDS
@ENDS
@pytest.mark.parametrize("drawn_alone", [True, False], ids=["token", "expected"])
def test_the_loss_tells_each_real_token_from_one_drawn_in_its_place_or_from_all(kind, end_token, drawn_alone):
    generator, discriminator = random_generator(end_token=end_token), made(kind, end_token=end_token)
    tokens = tf.constant(all_sequences(4, 3, end_token))
    seed = key(1, Purpose.D_FAKE)
    fake = drawn_in_place(generator, tokens, seed).numpy()
    scores, drawn = discriminator.next_scores(discriminator.contexts(tokens).hidden).numpy(), tokens.numpy() < 4
    real, fakes = (of_tokens(scores, each) for each in (tokens, fake))
    told, seen = np.logaddexp(0, fakes), fakes < 0
    if not drawn_alone:
        g, scores = np.exp(after_prefixes(generator)), np.swapaxes(scores, 0, 1)
        told, seen = (g * np.logaddexp(0, scores)).sum(axis=2), (g * (scores < 0)).sum(axis=2)
    expected = ((np.logaddexp(0, -real) + told) * drawn).sum() / (2 * drawn.sum())
    loss_of = discriminator.token_loss if drawn_alone else discriminator.expected_loss
    loss, accuracy = loss_of(generator, tokens, seed, None)
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert float(accuracy) == pytest.approx((((real > 0) * 1 + seen) * drawn).sum() / (2 * drawn.sum()), rel=1e-5)
    discriminator.dropout_rate = 0.5
    assert loss_of(generator, tokens, seed, key(1, Purpose.DROPOUT))[0] != loss
    if drawn_alone:  # with the penalty that `loss` has of real tokens and of fakes
        discriminator.l2 = 0.3
        squares = np.mean([discriminator.scores_of(tokens, [tf.constant(each)])[1] for each in (tokens, fake)])
        more = discriminator.token_loss(generator, tokens, seed, None)[0] - loss
        assert float(more) == pytest.approx(0.15 * squares, rel=1e-3)


def test_fakes_are_drawn_from_the_policy_after_each_prefix():
    generator = random_generator()
    tokens = tf.constant(np.repeat(all_sequences(4, 3), 500, axis=0))
    fake = drawn_in_place(generator, tokens, key(1, Purpose.D_FAKE)).numpy().reshape(64, 500, 3)
    log_g = after_prefixes(generator)
    for t in range(3):
        for prefix in range(4**t):  # all sequences with that prefix share the distribution
            same = slice(prefix * 4 ** (3 - t), (prefix + 1) * 4 ** (3 - t))
            share = np.bincount(fake[same, :, t].ravel(), minlength=4) / fake[same, :, t].size
            expected = np.exp(log_g[same.start, t])
            error = np.sqrt(expected * (1 - expected) / fake[same, :, t].size)
            assert (abs(share - expected) < 5 * error).all()


@KINDS
@ENDS
def test_the_offset_does_not_change_the_guided_policy(kind, end_token):
    generator, discriminator = random_generator(end_token=end_token), made(kind, end_token=end_token)
    guided = GuidedPolicy(generator, discriminator, tf.Variable(0.7))
    before = probabilities(guided)
    tokens = tf.constant(all_sequences(4, 3, end_token))
    scores = discriminator.token_scores(tokens).numpy()
    for weights in getattr(discriminator, "offsets", ()):
        weights.embeddings.assign_add(tf.ones_like(weights.embeddings) * [[1.0]])
    if kind is LSTMDiscriminator:
        bias = discriminator.output_layer.bias
        bias.assign(tf.concat([bias[:-1], bias[-1:] + 1.0], axis=0))
    moved = discriminator.token_scores(tokens).numpy()
    np.testing.assert_allclose(moved - scores, tokens.numpy() < 4, atol=1e-5)
    if kind is EchoDiscriminator:
        randomise(discriminator.level, seed=3)
        assert np.abs(discriminator.token_scores(tokens) - moved).max() > 0.1
    np.testing.assert_allclose(probabilities(guided), before, atol=1e-6)


class General(EchoDiscriminator):
    """Scores by the rule for any `added_dim`."""

    scores_of = test_additive.AdditiveDiscriminator.scores_of


@pytest.mark.parametrize("kind", [BigramDiscriminator, LSTMDiscriminator, EchoDiscriminator, General])
@ENDS
@pytest.mark.parametrize("offset", [False, True], ids=["plain", "offset"])
def test_reading_token_by_token_gives_the_scores_of_whole_sequences(kind, end_token, offset):
    """Up to a length beyond that of training, as longer samples are drawn."""
    discriminator = made(kind, seq_len=4, end_token=end_token, lags=(1, 2, 4), offset=offset)
    tokens = np.random.default_rng(0).integers(4, size=[50, 6]).astype(np.int32)
    if end_token is not None:
        for row in tokens:
            row[np.append(np.flatnonzero(row == end_token), 6)[0] + 1 :] = 4
    states, own = by_token(discriminator, tokens), discriminator.token_scores(tf.constant(tokens)).numpy()
    assert_same(states, discriminator.contexts(tf.constant(tokens)), atol=1e-5)
    np.testing.assert_allclose(own, of_tokens(discriminator.next_scores(states.hidden), tokens), atol=1e-5)
    assert (own[tokens == 4] == 0).all()


def test_an_echo_is_of_the_token_that_came_so_long_before_and_hears_how_well_the_last_ones_agree():
    """By hand: one lag alone has a weight, of one unit that sees the last two tokens' agreement."""
    echo = EchoDiscriminator(TokenSpec(5, 8, 0, None), Options(emb_dim=2, l2=0.0, dropout_keep_prob=1.0))
    randomise(echo, seed=0, stddev=0.0)
    kernel, lags = (np.zeros(w.shape, np.float32) for w in (echo.echoes.shared.kernel, echo.echoes.lag_weights))
    kernel[2, 0] = 1.0  # the share of the last two tokens that agree
    lags[2, 0], lags[2, -1] = 3.0, 0.5  # lag 3
    echo.echoes.shared.kernel.assign(kernel)
    echo.echoes.lag_weights.assign(lags)
    tokens = np.array([[1, 2, 3, 1, 2, 3, 1, 4]], np.int32)
    scores = echo.next_scores(echo.contexts(tf.constant(tokens)).hidden).numpy()[:, 0]
    expected = np.zeros([8, 5])
    expected[3, 1] = 0.5  # y_1 comes again, nothing before it to compare
    expected[4, 2] = 0.5 + 3 * 1.0  # one pair is there, and agrees
    expected[5, 3] = expected[6, 1] = expected[7, 2] = 3.5
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    echo.echoes.shared.bias.assign(tf.ones([16]))
    heard = echo.echoes.after(tf.cast(echo.contexts(tf.constant(tokens)).cell, tf.int32))
    exists = np.arange(7) < np.arange(8)[:, None]  # of a lag, as many tokens as it is long
    heard_of = heard.units.numpy()[:, 0, :, 1] == 1, heard.echo.numpy()[:, 0] != 0
    assert (heard_of[0] == exists).all() and (heard_of[1] <= exists).all()


@pytest.mark.parametrize("times", [1, 2])
def test_an_echo_hears_every_span(times):
    """By hand: of the last tokens, the share that agrees with those l, or 2 l, places before; a unit sees one span."""
    tokens, echoes = np.random.default_rng(0).integers(2, size=40), Echoes(40, 0, times)
    for k, (m, span) in enumerate((m, span) for m in range(1, times + 1) for span in SPANS):
        echoes.shared.kernel.assign(np.eye(10 * times, 16, -2 * k) * (np.arange(16) == 0))
        heard = echoes.after(pasts(tf.constant(tokens[None], tf.int32), echoes.memory_dim)).units[:, 0, :, 0]
        for t, place in zip(*np.tril_indices(40, -1), strict=True):
            back = m * (place + 1)
            agree = [tokens[t - j] == tokens[t - j - back] for j in range(1, min(span, t - back) + 1)]
            assert float(heard[t, place]) == pytest.approx(sum(agree) / max(len(agree), 1))


@KINDS
@ENDS
def test_the_control_is_the_likelihood_of_the_guided_generator(kind, end_token):
    generator, discriminator = random_generator(end_token=end_token, echoes=1), made(kind, end_token=end_token)
    tokens = tf.constant(all_sequences(4, 3, end_token))
    guided, mask = Tempered(GuidedPolicy(generator, discriminator, tf.Variable(1.0)), 1.0), generator.mask(tokens)
    with tf.GradientTape() as tape:
        loss, likelier = discriminator.likelihood_loss(generator, tokens, key(1, Purpose.D_FAKE), None)
    with tf.GradientTape() as other:
        expected = -tf.reduce_sum(guided.log_probs(tokens)) / tf.reduce_sum(mask)
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    more = (guided.log_probs(tokens) > generator.log_probs(tokens)).numpy() * mask.numpy()
    assert float(likelier) == pytest.approx(more.sum() / mask.numpy().sum())
    variables = discriminator.trainable_variables
    gradients = [tape.gradient(loss, variables, None, "zero"), other.gradient(expected, variables, None, "zero")]
    assert_same(*gradients, atol=1e-6)
    discriminator.dropout_rate = 0.5
    drops = key(1, Purpose.DROPOUT)
    assert discriminator.likelihood_loss(generator, tokens, key(1, Purpose.D_FAKE), drops)[0] != loss


@KINDS
@pytest.mark.parametrize("loss", ["sequence", "token", "expected", "likelihood"])
@pytest.mark.parametrize("offset", [False, True])
def test_every_weight_has_a_part_in_the_loss(kind, loss, offset):
    discriminator, tokens, ones = made(kind, offset=offset), tf.constant([[0, 1, 2]]), tf.constant([1])
    given = (tokens, ones, None) if loss == "sequence" else (random_generator(), tokens, key(1, Purpose.D_FAKE), None)
    with tf.GradientTape() as tape:
        nats, _ = getattr(discriminator, "loss" if loss == "sequence" else f"{loss}_loss")(*given)
    assert all(gradient is not None for gradient in tape.gradient(nats, discriminator.trainable_variables))


@pytest.mark.parametrize("guide", [None, BigramDiscriminator, EchoDiscriminator])
def test_what_is_added_to_the_logits_is_tempered_and_learnt(guide):
    generator = random_generator(echoes=1)
    policy = GuidedPolicy(generator, made(guide), tf.Variable(0.7)) if guide else generator
    tokens, weights = tf.constant(all_sequences(4, 3)), generator.trainable_variables
    for way, temperature in ((Tempered(policy, 0.5), 0.5), (policy, 1.0)):
        with tf.GradientTape() as tape, tf.GradientTape() as other:
            nats, logits = way.log_probs(tokens), policy.logits(policy.states(tokens).hidden) / temperature
            expected = tf.gather(tf.nn.log_softmax(logits), tf.transpose(tokens), batch_dims=2)
        np.testing.assert_allclose(nats, tf.transpose(expected), atol=1e-5)
        for mine, theirs in zip(tape.gradient(nats, weights), other.gradient(expected, weights), strict=True):
            np.testing.assert_allclose(mine, tf.convert_to_tensor(theirs), rtol=1e-4, atol=1e-4)
    if guide:
        own, scores = generator.logits(generator.states(tokens).hidden), policy.discriminator.contexts(tokens).hidden
        np.testing.assert_allclose(logits, own + 0.7 * policy.discriminator.next_scores(scores), atol=1e-5)
    longer = tf.constant(np.random.default_rng(0).integers(4, size=[20, 5]), tf.int32)
    alone, whole = (policy.logits(states.hidden) for states in (by_token(policy, longer), policy.states(longer)))
    np.testing.assert_allclose(alone, whole, atol=1e-5)


@ENDS
def test_a_generator_that_hears_echoes_is_an_lstm_guided_by_them(end_token):
    """The same distribution, token by token and whole, as of an LSTM that a discriminator of echoes alone guides."""
    hearing = random_generator(seq_len=4, end_token=end_token, echoes=1)
    plain, echo = random_generator(seq_len=4, end_token=end_token), made(EchoDiscriminator, 4, end_token)
    plain.set_weights(hearing.get_weights()[: len(plain.weights)])
    randomise(echo, seed=0, stddev=0.0)
    echo.echoes.set_weights(hearing.echoes.get_weights())
    guided = GuidedPolicy(plain, echo, tf.Variable(1.0))
    assert abs(probabilities(hearing) - probabilities(plain)).max() > 0.001
    np.testing.assert_allclose(probabilities(hearing), probabilities(guided), rtol=1e-4)
    tokens = tf.constant(all_sequences(4, 4, end_token))
    for each in (hearing, random_generator(seq_len=4, end_token=end_token, echoes=2, start_token=5)):
        assert_same(by_token(each, tokens), each.states(tokens), atol=1e-5)
        np.testing.assert_allclose(probabilities(PolicyCopy(each)), probabilities(each), rtol=1e-5)
