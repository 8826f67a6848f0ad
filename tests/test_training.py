"""Scheduled sampling, dropout, learning-rate decay, averaged weights and interleaved maximum likelihood."""

import shlex

import numpy as np
import pytest
import tensorflow as tf
import toy
from conftest import NOW, SIZES, TINY, assert_same, cases, evaluation_of, resumed_alike, tiny_config, train, watching
from enumeration import all_sequences, by_token, of_tokens, probabilities, randomise
from test_model import ENDS, applied, flat
from test_model import tiny_model as model_of

from data.oracle import OracleData
from generator import TokenSpec, sample_many
from model import build
from support.seeds import Purpose, dropout, fold, key
from tools.restored import restore

ALL = shlex.split("--scheduled_sampling 0.2 --cosine_decay g_pretrain g d --average 0.8 --mle_steps 2 --g_steps 2")
ALL += ["--g_dropout_keep_prob", "0.7"]


def batches_of(count: int, size: int = 4, end_token: int | None = None) -> tf.Tensor:
    """Real sequences, int32 [count, size, 3], of all lengths where there is an end token."""
    rows = all_sequences(4, 3, end_token)
    return tf.constant(rows[np.random.default_rng(0).integers(len(rows), size=[count, size])])


def uniform(seed: int, *shape: int) -> tf.Tensor:
    return tf.constant(np.random.default_rng(seed).random(shape), tf.float32)


@ENDS
def test_what_is_read_is_real_own_or_as_the_coins_say(end_token):
    generator = model_of(end_token=end_token).generator
    tokens, numbers = batches_of(1, 64, end_token)[0], uniform(1, 3, 64)

    def read(*own: bool) -> np.ndarray:
        return generator.scheduled_inputs(tokens, tf.constant([[each] * 64 for each in own]), numbers).numpy()

    real, own, mixed = read(False, False, False), read(True, True, True), read(True, False, True)
    np.testing.assert_array_equal(real, tokens)
    drawn = generator.sample(numbers).numpy()
    before_an_end = (np.cumsum(drawn == end_token, axis=1) - (drawn == end_token) == 0)[:, :2]
    np.testing.assert_array_equal(own[:, :2][before_an_end], drawn[:, :2][before_an_end])
    assert own[:, :2].max() < 4 and (own[:, :2] != real[:, :2]).any()
    np.testing.assert_array_equal(mixed[:, 0], own[:, 0])
    np.testing.assert_array_equal(mixed[:, 1], real[:, 1])


def test_an_own_token_follows_what_was_read_before_it():
    generator, rows = model_of().generator, 20_000
    coins = tf.constant([[False] * rows, [True] * rows, [False] * rows])
    read = generator.scheduled_inputs(tf.fill([rows, 3], 3), coins, uniform(2, 3, rows)).numpy()
    p = probabilities(generator).reshape(4, 4, 4).sum(axis=2)  # of the first two tokens
    np.testing.assert_allclose(np.bincount(read[:, 1], minlength=4) / rows, p[3] / p[3].sum(), atol=0.015)


@ENDS
def test_the_likelihood_is_that_of_the_real_tokens_after_what_was_read(end_token):
    generator = model_of(end_token=end_token).generator
    tokens, read = batches_of(1, 64, end_token)[0], tf.constant(all_sequences(4, 3))
    log_probs = tf.nn.log_softmax(generator.logits(by_token(generator, read).hidden))
    np.testing.assert_allclose(generator.log_probs(tokens, read), of_tokens(log_probs, tokens), atol=1e-5)


@ENDS
def test_a_share_of_0_is_plain_maximum_likelihood_bit_for_bit(eagerly, end_token):
    plain, scheduled = (model_of(*flags, end_token=end_token) for flags in ((), ("--scheduled_sampling", "0.5")))
    batches = batches_of(3, end_token=end_token)
    for epoch in (0, 1):
        losses = [float(model.mle_epoch(batches, tf.constant(epoch))) for model in (plain, scheduled)]
        assert (losses[0] == losses[1]) == (epoch == 0)
        if epoch == 0:
            assert_same(plain.generator.get_weights(), scheduled.generator.get_weights())


def test_the_share_grows_by_the_flag_an_epoch():
    """Real tokens are 3, which the policy never draws: so its own ones show."""
    model = model_of("--scheduled_sampling", "0.3")
    model.generator.output_layer.bias.assign([0.0, 0.0, 0.0, -1e9])
    own, drawn = {}, {}
    for epoch, batch in ((0, 0), (1, 0), (1, 1), (3, 0), (4, 0), (1000, 0)):
        seed = key(1, Purpose.SCHEDULED_SAMPLING, epoch, batch)
        inputs = model._scheduled_inputs(tf.fill([4000, 3], 3), seed, epoch).numpy()[:, :2]
        own[epoch, batch], drawn[epoch] = inputs != 3, inputs[:, 0]
    shares = [own[epoch, 0].mean() for epoch in (0, 1, 3, 4, 1000)]
    np.testing.assert_allclose(shares, [0, 0.3, 0.9, 1, 1], atol=0.02)
    assert shares[0] == 0 and shares[3:] == [1, 1] and (own[1, 0] != own[1, 1]).any()
    kinds = [np.bincount(firsts[firsts < 3], minlength=3) / (firsts < 3).sum() for firsts in (drawn[1], drawn[1000])]
    np.testing.assert_allclose(*kinds, atol=0.06)  # at each share the generator's own


def test_a_share_of_1_learns_from_own_tokens_alone(eagerly):
    """The loss and the gradient are those of the real tokens after a sample of the policy, which is a constant."""
    model, tokens = model_of("--scheduled_sampling", "1"), batches_of(1)
    read = model._scheduled_inputs(tokens[0], key(1, Purpose.SCHEDULED_SAMPLING, 1, 0), 1)
    assert (read.numpy() != tokens[0].numpy()).any()
    with tf.GradientTape() as tape:
        expected = -tf.reduce_mean(model.generator.log_probs(tokens[0], read))
    exact = flat(tape.gradient(expected, model.generator.trainable_variables))
    assert float(model.mle_epoch(tokens, tf.constant(1))) == pytest.approx(float(expected), rel=1e-5)
    np.testing.assert_allclose(applied(model.g_pretrain_optimizer), exact, atol=1e-5)


@ENDS
def test_dropout_is_on_what_the_lstm_reads_and_on_what_is_read_from_it(end_token):
    generator = model_of("--g_dropout_keep_prob", "0.6", end_token=end_token).generator
    tokens, seed = batches_of(1, 64, end_token)[0], key(5, Purpose.G_DROPOUT)
    reads, writes = (dropout(tf.ones([3, 64, size]), 0.4, fold(seed, place)) for place, size in enumerate((3, 5)))
    assert set(np.unique(writes)) == {0, np.float32(1 / 0.6)}
    state, log_probs = [tf.zeros([64, 5])] * 2, []
    for t, read in enumerate([tf.zeros([64], tf.int32), *tf.transpose(tokens)[:-1]]):
        _, state = generator.cell(generator.embedding(read) * reads[t], state)  # its own memory is whole
        log_probs.append(tf.nn.log_softmax(generator.logits(state[0] * writes[t])))
    np.testing.assert_allclose(generator.log_probs(tokens, dropout_seed=seed), of_tokens(log_probs, tokens), atol=1e-5)


def test_dropout_is_for_maximum_likelihood_alone_and_new_in_each_batch(eagerly):
    flags = ["--mle_steps", "1", "--g_lr", "0", "--g_pretrain_lr", "0", "--g_dropout_keep_prob"]  # the weights stay
    whole, dropping = model_of(*flags, "1"), model_of(*flags, "0.5")
    tokens = batches_of(1)[0]
    np.testing.assert_array_equal(*(model.generator.log_probs(tokens) for model in (whole, dropping)))
    steps = [model.g_step(tf.constant(0)) for model in (whole, dropping)]
    assert_same(*([step.rewards, step.loss] for step in steps))

    def losses(model) -> list[float]:
        batches = ((1, 0), (2, 0), (1, 1))
        mle = [float(model.mle_epoch(tf.stack([tokens] * count), tf.constant(epoch))) for count, epoch in batches]
        return [*mle, *(float(model.mle_step(tokens, tf.constant(1), tf.constant(place))) for place in (0, 1))]

    assert np.ptp(losses(whole)) < 1e-6
    first, both, later, step, next_step = losses(dropping)
    assert step == pytest.approx(later, rel=1e-6)  # of the same epoch and place
    assert len({round(loss, 5) for loss in (first, both, later, next_step)}) == 4


def test_a_cosine_falls_to_0_over_all_updates_of_a_run(tmp_path, eagerly):
    """Of each optimizer, whether an epoch is a batch or a pass."""
    words = "--train_size 10 --d_batch_size 6 --pretrain_d_epochs 1 --total_epochs 2 --d_steps 1 --d_epochs 1"
    words = [*ALL, *words.split(), "--no-evaluate", "--log_dir", str(tmp_path)]
    config = tiny_config(*words)
    assert config.updates == (4 * 2, 2 * 2, 2 * 2, (1 + 2 * 1) * 3)
    model = build(config, TokenSpec(4, 3))
    rates = [float(model.g_pretrain_optimizer.learning_rate)]
    for epoch in range(2):
        model.mle_epoch(batches_of(2), tf.constant(epoch))
        rates.append(float(model.g_pretrain_optimizer.learning_rate))
    np.testing.assert_allclose(rates, [0.01 * (1 + np.cos(np.pi * k / 8)) / 2 for k in (0, 2, 4)], rtol=1e-5)
    assert train([*TINY, *words]) == 0
    trained = restore(tmp_path).seqgan
    optimizers = (trained.g_pretrain_optimizer, trained.g_optimizer, trained.mle_optimizer, trained.d_optimizer)
    assert [int(optimizer.iterations) for optimizer in optimizers] == list(config.updates)
    assert all(float(optimizer.learning_rate) == pytest.approx(0, abs=1e-9) for optimizer in optimizers)
    assert tiny_config("--mle_steps", "5").updates == (4, 3, 15, (2 + 3 * 2) * 2)  # an epoch is one update
    assert tiny_config("--total_epochs", "0").updates == (4, 0, 0, 4)
    assert tiny_config(*shlex.split("--g_update fold --d_steps 5 --discriminator bigram --d_draws 8")).updates.d == 20


@cases(
    "rate, first, then, why",
    ("g", "--total_epochs 1", "--total_epochs 2", "--total_epochs 1, not 2 (cosine"),
    ("d", "--total_epochs 0", "--total_epochs 2", "--total_epochs 0, not 2 (cosine"),  # D's rate has fallen
    ("g_pretrain", "--total_epochs 0", "--total_epochs 1 --d_steps 5 --rollout_num 16", ""),
    ("g_pretrain", "--total_epochs 1", "--total_epochs 1 --pretrain_g_epochs 6", "epochs 4, not 6 (cosine"),
)
def test_a_longer_run_is_another_where_a_rate_has_fallen(tmp_path, capsys, eagerly, rate, first, then, why):
    logs = ["--cosine_decay", rate, "--d_epochs", "1", "--log_dir", str(tmp_path), "--no-evaluate"]
    assert train([*TINY, *first.split(), *logs]) == 0
    capsys.readouterr()
    assert train([*TINY, *then.split(), *logs]) == (2 if why else 0)
    err = capsys.readouterr().err
    assert why in err and err.count("\n") == bool(why)


def test_the_average_is_that_of_all_updates_each_weighted_by_the_decay_since(eagerly):
    model, history = model_of("--average", "0.7", "--mle_steps", "1"), []
    steps = [lambda: model.mle_epoch(batches_of(1))] * 4
    steps += [lambda: model.mle_step(batches_of(1)[0]), lambda: model.g_step(tf.constant(0))]
    for step in steps:
        step()
        history.append(model.generator.get_weights())
    share = 0.7 ** np.arange(len(history))[::-1]
    share /= share.sum()
    for values, average in zip(zip(*history, strict=True), model.average.get_weights(), strict=True):
        np.testing.assert_allclose(average, np.tensordot(share, np.stack(values), axes=1), atol=1e-5)
    assert any((a != w).any() for a, w in zip(model.average.get_weights(), history[-1], strict=True))
    model.adopt_average()
    assert_same(model.average.get_weights(), model.generator.get_weights())


def test_evaluation_and_samples_use_the_average_and_policy_updates_and_their_discriminator_do_not(eagerly):
    real = batches_of(1, size=8)[0]
    for kind in ("bigram", "cnn"):  # token by token, or of whole sequences
        model, other = (model_of(*words, "--discriminator", kind) for words in (("--average", "0.9"), ()))
        randomise(model.average, seed=5)
        assert_same(*([each.g_step(tf.constant(0)).tokens.numpy()] for each in (model, other)))
        randomise(model.average, seed=5)
        assert model.d_step(real, tf.constant(0)) == other.d_step(real, tf.constant(0))
    randomise(other.generator, seed=5)
    data, known = OracleData(tiny_config()), tiny_config("--d_eval_samples", "40")
    figures = [evaluation_of(known, data, each).measure(0, NOW) for each in (model, other)]
    assert figures[0] == figures[1] and "d_test_acc" in figures[0]
    assert_same(*([sample_many(each.policy, 64, key(1, Purpose.TOOL_SAMPLE)).numpy()] for each in (model, other)))
    additive = ("--g_update", "distil", "--discriminator", "bigram")
    student, other = (model_of(*words, *additive) for words in (("--average", "0.9"), ()))
    for policy in (student.average, other.generator):
        randomise(policy, seed=5)
    assert student.d_step(real, tf.constant(0)) == other.d_step(real, tf.constant(0))
    plain = model_of()
    assert plain.average is None and plain.policy is plain.generator and plain.mle_optimizer is None
    assert not {name for name, _ in plain.checkpoint()._trackable_children().items()} & {"averaged", "mle_optimizer"}


def test_an_mle_step_is_an_update_by_an_optimizer_of_its_own(eagerly):
    model, other = model_of("--mle_steps", "1", "--g_lr", "0.02"), model_of("--g_pretrain_lr", "0.02")
    losses = [float(model.mle_step(batches_of(1)[0])), float(other.mle_epoch(batches_of(1)))]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert_same(model.generator.get_weights(), other.generator.get_weights(), atol=1e-5)
    optimizers = (model.mle_optimizer, model.g_optimizer, model.g_pretrain_optimizer)
    assert [int(each.iterations) for each in optimizers] == [1, 0, 0]
    assert [float(each.learning_rate) for each in optimizers] == pytest.approx([0.02, 0.02, 0.01])


def test_the_batches_go_on_from_those_of_pretraining(tmp_path):
    """Each batch of the passes after those of pretraining, in turn; and the rollouts follow the last update."""
    words = [*TINY, *shlex.split(f"--train_size 12 --d_batch_size 6 --mle_steps 2 --no-evaluate --log_dir {tmp_path}")]
    seen: list = []

    def note(name, arguments):
        if name in ("mle_step", "follow_policy"):
            seen.append(arguments[0].numpy() if name == "mle_step" else name)

    class Steps(toy.ToySeqGAN):
        def mle_epoch(self, *given):
            return self._step(0, 1.1)

        mle_step = mle_epoch

    makers = toy.makers(valid=False)._replace(seqgan=Steps, data=lambda config, *_: OracleData(config))
    assert train(words, watching(note, makers)) == 0
    data = OracleData(tiny_config("--train_size", "12", "--d_batch_size", "6"))
    expected = np.concatenate([data.mle_batches(4 + epoch).numpy() for epoch in range(2)])
    np.testing.assert_array_equal(np.stack([item for item in seen if not isinstance(item, str)]), expected)
    assert [isinstance(item, str) for item in seen] == [False, False, True] * 3
    assert "g_mle_loss" in (tmp_path / "metrics.csv").read_text().splitlines()[0]


def test_resumed_bit_for_bit(tmp_path):
    """Compiled, in passes over data of unequal lengths."""
    for name in ("train", "valid", "test"):
        (tmp_path / f"{name}.txt").write_text("ab\na\nbab\nba\nabb\n")
    words = [*SIZES, "--dataset", "text", "--data_dir", str(tmp_path)]
    assert not resumed_alike(tmp_path, [*words, *ALL, "--checkpoint_every", "2"], 2, 6, 5)
