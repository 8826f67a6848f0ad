"""Scheduled sampling, learning-rate decay, averaged weights and interleaved maximum likelihood."""

import re
import shlex

import fault_injection
import numpy as np
import pytest
import tensorflow as tf
from conftest import (
    NOW,
    TINY,
    all_sequences,
    compiled_as_by_users,
    compiled_quickly,
    probabilities,
    randomise,
    tiny_config,
)
from fault_injection import Trainer, differing, flags, outcome

from generator import State
from main import main as program
from model import SeqGAN
from oracle import OracleData
from runs.schedule import Schedule
from support.seeds import Purpose, dropout, fold, key
from tools.sample import portions

ENDS = pytest.mark.parametrize("end_token", [None, 2], ids=["one length", "unequal lengths"])
ALL = shlex.split(
    "--scheduled_sampling 0.2 --g_pretrain_schedule cosine --g_schedule cosine --d_schedule cosine --average 0.8 "
    "--mle_steps 2 --g_steps 2 --g_dropout_keep_prob 0.7"
)


def model_of(*flags: str, end_token: int | None = None) -> SeqGAN:
    """V = 4, T = 3, and a generator whose distribution is far from uniform."""
    model = SeqGAN(tiny_config("--no-jit", *flags), vocab_size=4, end_token=end_token)
    randomise(model.generator, seed=1)
    return model


def batches_of(count: int, size: int = 4, end_token: int | None = None) -> tf.Tensor:
    """Real sequences, int32 [count, size, 3], of all lengths where there is an end token."""
    rows = all_sequences(4, 3, end_token)
    return tf.constant(rows[np.random.default_rng(0).integers(len(rows), size=[count, size])])


def uniform(seed: int, *shape: int) -> tf.Tensor:
    return tf.constant(np.random.default_rng(seed).random(shape), tf.float32)


def weights(network) -> list[np.ndarray]:
    return [weight.numpy() for weight in network.weights]


def assert_same(one: list[np.ndarray], other: list[np.ndarray]) -> None:
    for mine, theirs in zip(one, other, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.fixture(scope="module")
def trainer():
    trainer = Trainer()
    yield trainer
    trainer.close()


# ---- scheduled sampling


@ENDS
def test_what_is_read_is_real_own_or_as_the_coins_say(end_token):
    generator = model_of(end_token=end_token).generator
    tokens, numbers = batches_of(1, 64, end_token)[0], uniform(1, 3, 64)
    real, own = (generator.fed(tokens, tf.fill([3, 64], each), numbers).numpy() for each in (False, True))
    np.testing.assert_array_equal(real, tokens)
    drawn = generator.sample(numbers).numpy()
    before_an_end = np.cumsum(drawn == end_token, axis=1) - (drawn == end_token) == 0
    np.testing.assert_array_equal(own[:, :2][before_an_end[:, :2]], drawn[:, :2][before_an_end[:, :2]])
    assert own[:, :2].max() < 4 and (own[:, :2] != real[:, :2]).any()
    coins = tf.constant([[True] * 64, [False] * 64, [True] * 64])
    mixed = generator.fed(tokens, coins, numbers).numpy()
    np.testing.assert_array_equal(mixed[:, 0], own[:, 0])
    np.testing.assert_array_equal(mixed[:, 1], real[:, 1])


def test_an_own_token_follows_what_was_read_before_it():
    generator = model_of().generator
    rows = 20_000
    coins = tf.constant([[False] * rows, [True] * rows, [False] * rows])
    fed = generator.fed(tf.fill([rows, 3], 3), coins, uniform(2, 3, rows)).numpy()
    p = probabilities(generator).reshape(4, 4, 4).sum(axis=2)  # of the first two tokens
    np.testing.assert_allclose(np.bincount(fed[:, 1], minlength=4) / rows, p[3] / p[3].sum(), atol=0.015)


@ENDS
def test_the_likelihood_is_that_of_the_real_tokens_after_what_was_read(end_token):
    generator = model_of(end_token=end_token).generator
    tokens, fed = batches_of(1, 64, end_token)[0], tf.constant(all_sequences(4, 3))
    state = generator.first_state(64)
    for t in range(3):
        expected = tf.nn.log_softmax(generator.logits(state.hidden)).numpy()
        real = tokens[:, t].numpy()
        expected = np.where(real < 4, expected[np.arange(64), np.minimum(real, 3)], 0)
        np.testing.assert_allclose(generator.log_probs(tokens, fed)[:, t], expected, atol=1e-5)
        state = State(*generator.next_state(fed[:, t], state))


@ENDS
@pytest.mark.parametrize("jit", ["True", "False"])
def test_a_share_of_0_is_plain_maximum_likelihood_bit_for_bit(request, jit, end_token):
    if jit == "True" and compiled_quickly():  # which rounds the same formula in two ways
        return compiled_as_by_users(request.node.nodeid)
    plain = model_of("--jit", jit, end_token=end_token)
    scheduled = model_of("--jit", jit, "--scheduled_sampling", "0.5", end_token=end_token)
    batches = batches_of(3, end_token=end_token)
    losses = [float(model.mle_epoch(batches, tf.constant(0))) for model in (plain, scheduled)]
    assert losses[0] == losses[1]
    assert_same(weights(plain.generator), weights(scheduled.generator))
    losses = [float(model.mle_epoch(batches, tf.constant(1))) for model in (plain, scheduled)]
    assert losses[0] != losses[1]


def test_the_share_grows_by_the_flag_an_epoch(monkeypatch):
    model, seen = model_of("--scheduled_sampling", "0.3"), []
    fed = model.generator.fed
    monkeypatch.setattr(model.generator, "fed", lambda tokens, own, u: seen.append(own) or fed(tokens, own, u))
    batches = batches_of(2, 4000)
    for epoch in (0, 1, 3, 4, 1000):
        model._mle_epoch(batches, tf.constant(epoch))
    shares = [own.numpy().mean() for own in seen]
    np.testing.assert_allclose(shares, np.repeat([0, 0.3, 0.9, 1, 1], 2), atol=0.02)
    assert shares[:2] == [0, 0] and shares[6:] == [1, 1, 1, 1]
    assert (seen[2].numpy() != seen[3].numpy()).any()  # each batch has its own coins


def test_a_share_of_1_learns_from_own_tokens_alone(monkeypatch):
    """The loss and the gradient are those of the real tokens after a sample of the policy, which is a constant."""
    model, seen = model_of("--scheduled_sampling", "1"), []
    tokens = batches_of(1)
    monkeypatch.setattr(model, "_update_generator", lambda optimizer, gradients: seen.extend(gradients))
    fed, made = model.generator.fed, []
    monkeypatch.setattr(model.generator, "fed", lambda *arguments: made.append(fed(*arguments)) or made[-1])
    loss = model._mle_epoch(tokens, tf.constant(1))
    states = model.generator.states(made[0])
    with tf.GradientTape() as tape:
        states = model.generator.states(made[0])
        log_probs = tf.nn.log_softmax(model.generator.logits(states.hidden))  # [T, B, V]
        expected = -tf.reduce_mean(tf.gather(log_probs, tf.transpose(tokens[0]), batch_dims=2))
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    for mine, exact in zip(seen, tape.gradient(expected, model.generator.trainable_variables), strict=True):
        np.testing.assert_allclose(tf.convert_to_tensor(mine), tf.convert_to_tensor(exact), atol=1e-5)


# ---- dropout


@ENDS
def test_dropout_is_on_what_the_lstm_reads_and_on_what_is_read_from_it(end_token):
    generator = model_of("--g_dropout_keep_prob", "0.6", end_token=end_token).generator
    tokens, seed = batches_of(1, 64, end_token)[0], key(5, Purpose.G_DROPOUT)
    reads, writes = (dropout(tf.ones([3, 64, size]), 0.4, fold(seed, place)) for place, size in enumerate((3, 5)))
    assert set(np.unique(writes)) == {0, np.float32(1 / 0.6)}
    read, state = tf.zeros([64], tf.int32), [tf.zeros([64, 5])] * 2
    found = generator.log_probs(tokens, dropout_seed=seed)
    for t in range(3):
        _, state = generator.cell(generator.embedding(read) * reads[t], state)  # its own memory is whole
        distributions = tf.nn.log_softmax(generator.logits(state[0] * writes[t])).numpy()
        read = tokens[:, t]
        expected = np.where(read < 4, distributions[np.arange(64), np.minimum(read, 3)], 0)
        np.testing.assert_allclose(found[:, t], expected, atol=1e-5)


def test_dropout_is_for_maximum_likelihood_alone_and_new_in_each_batch(monkeypatch):
    flags = ("--mle_steps", "1", "--g_dropout_keep_prob")
    whole, dropping = model_of(*flags, "1"), model_of(*flags, "0.5")
    tokens = batches_of(1)[0]
    np.testing.assert_array_equal(whole.nll(tokens), dropping.nll(tokens))
    np.testing.assert_array_equal(*(model.g_step(tf.constant(0)).rewards for model in (whole, dropping)))
    assert_same(weights(whole.generator), weights(dropping.generator))
    monkeypatch.setattr(SeqGAN, "_update_generator", lambda self, *_: None)  # so that the weights stay

    def losses(model) -> list[float]:
        mle = [
            float(model._mle_epoch(tf.stack([tokens] * count), tf.constant(epoch)))
            for count, epoch in ((1, 0), (2, 0), (1, 1))
        ]
        return [*mle, float(model._mle_step(tokens, 1, 0)), float(model._mle_step(tokens, 1, 1))]

    assert np.ptp(losses(whole)) < 1e-6
    first, both, later, step, next_step = losses(dropping)
    assert step == pytest.approx(later, rel=1e-6)  # of the same epoch and place
    assert len({round(loss, 5) for loss in (first, both, later, next_step)}) == 4


# ---- cosine learning-rate decay


def test_a_cosine_falls_to_0_over_all_updates_of_a_run(tmp_path):
    """Of each optimizer, whether an epoch is a batch or a pass."""
    sizes = ["--no-jit", "--train_size", "10", "--d_batch_size", "6", "--d_steps", "1", "--no-evaluate"]
    argv = [*ALL, *sizes, "--log_dir", str(tmp_path)]
    config = tiny_config(*argv)
    assert config.updates == (4 * 2, 3 * 2, 3 * 2, (2 + 3 * 1) * 2 * 3)
    model = SeqGAN(config, 4)
    rates = [float(model.g_pretrain_optimizer.learning_rate)]
    for epoch in range(2):
        model.mle_epoch(batches_of(2), tf.constant(epoch))
        rates.append(float(model.g_pretrain_optimizer.learning_rate))
    np.testing.assert_allclose(rates, [0.01 * (1 + np.cos(np.pi * k / 8)) / 2 for k in (0, 2, 4)], rtol=1e-5)
    assert program(tiny_argv(*argv)) == 0
    trained = SeqGAN.restored(tmp_path)
    optimizers = (trained.g_pretrain_optimizer, trained.g_optimizer, trained.mle_optimizer, trained.d_optimizer)
    assert [int(optimizer.iterations) for optimizer in optimizers] == list(config.updates)
    assert all(float(optimizer.learning_rate) == pytest.approx(0, abs=1e-9) for optimizer in optimizers)


def test_an_epoch_of_fresh_batches_is_one_update():
    assert tiny_config("--mle_steps", "5").updates == (4, 3, 15, (2 + 3 * 2) * 2)
    assert tiny_config("--total_epochs", "0").updates == (4, 0, 0, 4)


def test_a_longer_run_is_another_where_a_rate_falls(trainer, tmp_path):
    for schedule in ("g_schedule", "d_schedule"):
        folder = tmp_path / schedule
        cosine = [f"--{schedule}", "cosine"]
        for epochs in ("0", "2"):  # where there was no adversarial phase, no rate has fallen yet
            assert trainer.run(flags(folder, *cosine, "--total_epochs", epochs), toy=True).status == 0
        ended = trainer.run(flags(folder, *cosine, "--total_epochs", "3"), toy=True)
        assert ended.status == 2 and ended.err.count("\n") == 1
        assert re.search(r"--total_epochs 2, not 3 \(cosine learning-rate decay", ended.err), ended.err
    trained = flags(tmp_path / "d", "--d_schedule", "cosine", "--pretrain_d", "--total_epochs")
    assert trainer.run([*trained, "0"], toy=True).status == 0  # but D's has, over its pretraining
    assert re.search(r"--total_epochs 0, not 2 \(cosine", trainer.run([*trained, "2"], toy=True).err)
    assert trainer.run([*trained, "2", "--d_steps", "0"], toy=True).status == 2  # other flags
    cosine = ["--g_pretrain_schedule", "cosine"]
    assert trainer.run(flags(tmp_path, *cosine, "--total_epochs", "1"), toy=True).status == 0
    assert trainer.run(flags(tmp_path, *cosine, "--total_epochs", "2"), toy=True).status == 0
    ended = trainer.run(flags(tmp_path, *cosine, "--pretrain_g_epochs", "6"), toy=True)
    assert re.search(r"--pretrain_g_epochs 5, not 6 \(cosine learning-rate decay", ended.err), ended.err


# ---- averaged weights


def test_the_average_is_that_of_all_updates_each_weighted_by_the_decay_since():
    model = model_of("--average", "0.7", "--mle_steps", "1")
    history = []
    for _ in range(4):
        model.mle_epoch(batches_of(1))
        history.append(weights(model.generator))
    model.mle_step(batches_of(1)[0])
    history.append(weights(model.generator))
    model.g_step(tf.constant(0))
    history.append(weights(model.generator))
    share = 0.7 ** np.arange(len(history))[::-1]
    share /= share.sum()
    for values, average in zip(zip(*history, strict=True), weights(model.averaged), strict=True):
        np.testing.assert_allclose(average, np.tensordot(share, np.stack(values), axes=1), atol=1e-5)
    assert any((a != w).any() for a, w in zip(weights(model.averaged), history[-1], strict=True))
    model.end_pretraining()
    assert_same(weights(model.averaged), weights(model.generator))


def test_evaluation_samples_and_the_discriminator_use_the_average_and_policy_updates_do_not():
    model, other = model_of("--average", "0.9", "--eval_samples", "5000"), model_of("--eval_samples", "5000")
    randomise(model.averaged, seed=5)
    sequences = tf.constant(all_sequences(4, 3))
    assert_same([model.g_step(tf.constant(0)).tokens.numpy()], [other.g_step(tf.constant(0)).tokens.numpy()])
    randomise(model.averaged, seed=5)
    randomise(other.generator, seed=5)
    np.testing.assert_array_equal(model.nll(sequences), other.nll(sequences))
    np.testing.assert_array_equal(model.sample(64, 0, tf.constant(0)), other.sample(64, 0, tf.constant(0)))
    data = OracleData(model.config)
    assert data.evaluate(model, epoch=0, due=NOW) == data.evaluate(other, epoch=0, due=NOW)
    drawn = (next(portions(policy.plain, 64, [], 0.7, seed=1)) for policy in (model, other))
    np.testing.assert_array_equal(*drawn)
    real = batches_of(1, size=64)[0]
    assert model.d_step(real, tf.constant(0)) == other.d_step(real, tf.constant(0))


def test_without_an_average_there_is_none():
    model = model_of()
    assert model.averaged is model.generator and model.mle_optimizer is None
    names = {name for name, _ in model.checkpoint()._trackable_children().items()}
    assert not names & {"averaged", "mle_optimizer"}


# ---- interleaved maximum likelihood


def test_an_epoch_is_g_steps_then_mle_steps_then_d_steps():
    steps = list(Schedule(tiny_config("--g_steps", "2", "--mle_steps", "3")))[6:]
    assert [step.kind for step in steps] == ["g", "g", "mle", "mle", "mle", "d", "d"] * 3
    assert [step.number for step in steps if step.kind == "mle"] == list(range(9))
    assert [step.number for step in steps if step.kind == "d"] == list(range(2, 8))
    assert [step.last for step in steps] == [False, False, False, False, False, False, True] * 3
    assert [step.policy_done for step in steps] == [False, False, False, False, True, False, False] * 3
    plain = list(Schedule(tiny_config("--g_steps", "2")))[6:]
    assert [step.policy_done for step in plain] == [False, True, False, False] * 3


def test_an_mle_step_is_an_update_by_an_optimizer_of_its_own():
    model, other = model_of("--mle_steps", "1", "--mle_lr", "0.02"), model_of("--g_pretrain_lr", "0.02")
    losses = [float(model.mle_step(batches_of(1)[0])), float(other.mle_epoch(batches_of(1)))]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    for mine, theirs in zip(weights(model.generator), weights(other.generator), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)
    assert (int(model.mle_optimizer.iterations), int(model.g_pretrain_optimizer.iterations)) == (1, 0)


def test_the_batches_go_on_from_those_of_pretraining(tmp_path, monkeypatch):
    """Each batch of the passes after those of pretraining, in turn; and the rollouts follow the last update."""
    argv = tiny_argv("--train_size", "12", "--d_batch_size", "6", "--mle_steps", "2", "--no-evaluate")
    seen = []

    def built(step):
        name = getattr(step, "__name__", "")
        if name == "_mle_step":
            return lambda tokens, epoch, place: seen.append(tokens.numpy()) or tf.constant(1.0)
        if name == "_follow_policy":
            return lambda lag: seen.append("follow")
        return tf.function(step, autograph=False)

    monkeypatch.setattr(SeqGAN, "_compiled", lambda self, step: built(step))
    assert program([*argv, "--log_dir", str(tmp_path)]) == 0
    data = OracleData(tiny_config(*argv))
    expected = np.concatenate([data.mle_batches(4 + epoch).numpy() for epoch in range(2)])
    np.testing.assert_array_equal(np.stack([item for item in seen if not isinstance(item, str)]), expected)
    assert [isinstance(item, str) for item in seen] == [True] + [False, False, True] * 3
    assert "g_mle_loss" in (tmp_path / "metrics.csv").read_text().splitlines()[0]


# ---- all of it together


def tiny_argv(*more: str) -> list[str]:
    return [*TINY, "--no-jit", *more]


@pytest.mark.parametrize("data", ["fresh batches", "passes", "text"])
def test_resumed_bit_for_bit(trainer, tmp_path, data):
    def argv(name: str) -> list[str]:
        train, evaluation = tmp_path / name / "train", tmp_path / name / "eval"
        return [*sizes, *ALL, "--log_dir", str(train), "--eval_log_dir", str(evaluation)]

    sizes = fault_injection.TINY
    if data == "text":
        (tmp_path / "lines").mkdir()
        for name in ("train.txt", "valid.txt", "test.txt"):
            (tmp_path / "lines" / name).write_text("ab\na\nbab\nba\nabb\n")
        sizes = [*fault_injection.SIZES, "--dataset", "text", "--data_dir", str(tmp_path / "lines")]
    elif data == "passes":
        sizes = [*fault_injection.TINY, "--train_size", "5"]
    assert trainer.run(argv("whole")).status == 0
    for at in (60, 40, 40):  # in pretraining, in the adversarial phase, and once more
        assert trainer.run(argv("broken"), at=at, action="SIGTERM").status == 143
    assert trainer.run(argv("broken")).status == 0
    assert not differing(outcome(tmp_path / "broken"), outcome(tmp_path / "whole"))
