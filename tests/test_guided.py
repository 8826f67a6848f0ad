"""The guided policy in a run: η, what is measured, folding, learning from the guide, resuming."""

import shlex
import signal

import numpy as np
import pytest
import tensorflow as tf
from conftest import BIGRAM, ROOT, SIZES, assert_same, cases, interrupted_at, resumed_alike, tiny_config, train
from enumeration import all_sequences, index_of, probabilities, randomise
from fault_injection import logs_in, timeless_rows
from test_generator import chi_square
from test_model import ENDS, applied, assert_same_gradient, exact_gradient, tiny_model

from discriminator import REAL, Options
from generator import PolicyCopy, TokenSpec, sample_many
from guidance.additive import BigramDiscriminator
from guidance.guided import Guidance, GuidedPolicy
from model import SeqGAN, build
from reward import discriminator as opinion
from support.seeds import Purpose, fold, key, permutation
from tools import sample
from tools.restored import restore


def rows_of(end_token: int | None = None) -> np.ndarray:
    return all_sequences(4, 3, end_token)[np.random.default_rng(2).integers(20, size=64)]


def model_of(*more: str, end_token: int | None = None) -> SeqGAN:
    config = tiny_config(*more, words=BIGRAM)
    model = build(config, TokenSpec(4, 3, 0, end_token), validation=lambda: rows_of(end_token))
    randomise(model.generator, seed=1)
    randomise(model.discriminator, seed=2, stddev=0.5)
    return model


def text_in(folder, *splits: str) -> list[str]:
    """The flags of a tiny run on lines of text that are written to the folder."""
    (folder / "lines").mkdir()
    for name in splits:
        (folder / "lines" / f"{name}.txt").write_text("ab\na\nbab\nba\nabb\n" * 4)
    words = shlex.split("--dataset text --discriminator bigram --d_draws 8")
    return [*SIZES, *words, "--data_dir", str(folder / "lines")]


@ENDS
def test_eta_is_the_one_of_least_nll_on_the_validation_set(end_token):
    model, rows = model_of(end_token=end_token), tf.constant(rows_of(end_token))
    successors, guidance = model.discriminator.successors, model.guidance
    successors.assign(successors * 0.2)
    if not guidance.choose_eta():
        successors.assign(-successors)
    chosen = guidance.choose_eta()
    assert 0.05 < chosen < 3.9 and chosen == pytest.approx(float(guidance.eta.numpy()))

    def nll(eta: float) -> float:
        guide = GuidedPolicy(model.generator, model.discriminator, tf.Variable(eta))
        return -float(tf.reduce_mean(tf.reduce_sum(guide.log_probs(rows), axis=1)))

    around = [nll(eta) for eta in np.arange(0, 4, 0.02, dtype=np.float32)]
    assert nll(chosen) == pytest.approx(min(around), abs=1e-4)
    assert model_of("--guide_eta", "0.3", end_token=end_token).guidance.choose_eta() == pytest.approx(0.3)


class Witness(BigramDiscriminator):
    """Keeps the minibatches that it is given."""

    seen: list[np.ndarray]

    def loss(self, tokens, labels, dropout_seed):
        self.seen.append(tokens.numpy())
        return super().loss(tokens, labels, dropout_seed)


def test_a_folding_run_trains_each_discriminator_against_what_was_folded(eagerly):
    words = "--g_update fold --guide_eta 1 --total_epochs 2 --d_batch_size 64 --d_draws 256 --d_epochs 1"
    words += " --d_loss sequence"
    config, spec = tiny_config(*words.split(), words=BIGRAM), TokenSpec(4, 3)
    options = Options(emb_dim=3, l2=0.0)
    model = SeqGAN(config, spec, lambda copy: Witness(spec, options), opinion, validation=rows_of)
    randomise(model.generator, seed=1)
    for round_ in range(3):
        model.discriminator.seen = []
        randomise(model.discriminator, seed=round_ + 2)
        fakes = sample_many(model.policy, 256, key(1, Purpose.D_FAKE, round_)).numpy()
        model._d_step(tf.zeros([256, 3], tf.int32), tf.constant(round_))
        seen = np.concatenate([tokens[32:] for tokens in model.discriminator.seen])
        np.testing.assert_array_equal(np.sort(index_of(seen, 4)), np.sort(index_of(fakes, 4)))
        if round_ < 2:
            before = probabilities(model.policy)
            model.g_step(tf.constant(round_))
            assert np.abs(probabilities(model.policy) - before).max() > 1e-3


@pytest.mark.parametrize("kind", [[], ["--discriminator", "lstm", "--d_hidden_dim", "5"]], ids=["bigram", "lstm"])
def test_folding_makes_the_guided_generator_the_generator(eagerly, kind):
    model = model_of(*kind, "--g_update", "fold", "--total_epochs", "2")
    guidance, before = model.guidance, probabilities(model.generator)
    fresh = [fold.discriminator.get_weights() for fold in guidance.folds]
    np.testing.assert_allclose(probabilities(model.policy), before, atol=1e-6)
    for round_ in range(2):
        model.d_step(tf.constant(all_sequences(4, 3)[:8]), tf.constant(round_))
        if not guidance.choose_eta():
            model.discriminator.successors.assign(-model.discriminator.successors)
        eta = guidance.choose_eta()
        guided, log_probs = probabilities(guidance.guided), guidance.guided.log_probs(tf.constant(rows_of())).numpy()
        scores = eta * model.discriminator.token_scores(tf.constant(rows_of())).numpy()
        assert eta > 0.05 and np.abs(guided - before).max() > 1e-3
        result = model.g_step(tf.constant(round_))
        np.testing.assert_allclose(probabilities(model.policy), guided, atol=1e-5)
        assert float(result.loss) == pytest.approx(-log_probs.mean(), rel=1e-5)
        np.testing.assert_allclose(result.rewards, scores, rtol=1e-4, atol=1e-5)
        assert_same(model.discriminator.get_weights(), fresh[round_])  # D begins anew
        assert int(model.d_optimizer.iterations) == 0
        assert all((v.numpy() == 0).all() for v in model.d_optimizer.variables if "momentum" in v.path)
        before = guided
        randomise(model.discriminator, seed=5, stddev=0.3)


@ENDS
def test_without_what_follows_the_expected_update_ends_at_the_guided_generator(end_token):
    """At β = 1, where Σ_a G(a)·(s(a) - log G(a) + log G₀(a)) is greatest for each prefix."""
    words = "--g_update expected --reward log_odds --rollout_num 0 --kl_weight 1 --g_lr 0.03 --batch_size 64"
    model = model_of(*words.split(), end_token=end_token)
    model.begin_adversarial()
    reference = PolicyCopy(model.generator)
    wanted = probabilities(GuidedPolicy(reference, model.discriminator, tf.Variable(1.0)))

    def divergence() -> float:
        found = probabilities(model.generator)
        return (found * np.log(found / wanted)).sum()

    first = divergence()
    for step in range(300):
        model.g_step(tf.constant(step))
    assert first > 0.1 and divergence() < 0.05 * first


@pytest.mark.parametrize(("flags", "end_token"), [("--baseline batch", 2), ("--baseline prefix --kl_weight 0.7", None)])
def test_with_rollouts_the_expected_update_follows_the_exact_gradient(flags, end_token):
    """That of E[log-odds] - β KL(G‖G₀), by enumeration: what follows a token is in it."""
    words = f"--g_update expected --reward log_odds --rollout_num 2 --batch_size 40000 {flags}"
    model = model_of(*words.split(), end_token=end_token)
    if model.reward.reference is not None:
        randomise(model.reward.reference, seed=3)
    model.follow_policy(lag=0.0)
    scores = model.discriminator.log_odds(tf.constant(all_sequences(4, 3, end_token))).numpy().astype(np.float64)
    exact = exact_gradient(model, scores)
    model.g_step(tf.constant(0))
    assert_same_gradient(applied(model.g_optimizer), exact)


def test_a_run_shows_what_guidance_changes_and_the_tool_draws_from_it(tmp_path, capsys):
    words = "--total_epochs 0 --d_lr 0.3 --pretrain_d_epochs 20 --guide_eta 2"
    assert train([*BIGRAM, *words.split(), *logs_in(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "guided" in out and "nll_test_guided" in out
    rows = timeless_rows(tmp_path / "eval")
    assert not rows[0]["nll_guided"] and float(rows[-1]["nll_guided"]) > 0 and float(rows[-1]["guide_eta"]) == 2
    assert abs(float(rows[-1]["nll_test_guided"]) - float(rows[-1]["nll_test"])) > 0.01
    restored = restore(tmp_path / "train").seqgan
    wanted = [probabilities(policy) for policy in (restored.generator, restored.guidance.guided)]
    for flags, policy in (([], 0), (["--guide"], 1)):
        assert sample.main([str(tmp_path / "train"), "-n", "2000", *flags]) == 0
        drawn = np.array([line.split() for line in capsys.readouterr().out.splitlines()], np.int32)
        counts = np.bincount(index_of(drawn, 4), minlength=64)
        assert chi_square(counts, wanted[policy]) > 1e-3 and chi_square(counts, wanted[1 - policy]) < 1e-6


@cases(
    "update",
    "--g_update fold --d_steps 2 --total_epochs 2 --pretrain_g_epochs 2 --guide_eta 0.7",
    "--g_update expected --reward log_odds --kl_weight 1 --baseline prefix --total_epochs 2 --guide_eta 2",
    "--g_update expected --reward log_odds --kl_weight 1 --baseline prefix --total_epochs 2 --d_steps 0",
    "--g_update distil --d_steps 2 --total_epochs 2 --g_dropout_keep_prob 0.5",
    "--g_echo --discriminator echo --g_update distil --d_steps 2 --total_epochs 2 --average 0.9",
    ids=["fold", "expected", "kept eta", "distil", "echo"],
)
def test_a_resumed_run_is_bitwise_the_same(tmp_path, eagerly, update):
    words = text_in(tmp_path, "train", "valid", "test")
    assert not resumed_alike(tmp_path, [*words, *update.split()], 1, 3, 2, 1)


def test_flags_reach_the_networks():
    assert model_of("--g_echo").generator.echoes.times == 1 and not model_of().generator.echoes
    assert model_of("--g_echo", "--g_echo_twice").generator.echoes.times == 2
    assert [model_of("--d_loss", loss).discriminator.options.offset for loss in ("token", "sequence")] == [True, False]
    other = ("--discriminator", f"{ROOT}/experiments/offset.py:Bigram", "--d_loss")
    assert [model_of(*other, loss).discriminator.options.offset for loss in ("token", "sequence")] == [False, True]
    options = model_of(*shlex.split("--d_l2 0.3 --dropout_keep_prob 0.6 --d_lags 1 2")).discriminator.options
    assert (options.l2, options.dropout_keep_prob, options.lags) == (0.3, 0.6, (1, 2))
    assert tiny_model("--d_init", "keras").discriminator.options.init == "keras"


@pytest.mark.parametrize("loss", ["token", "expected", "likelihood"])
def test_a_d_step_by_token_draws_no_sequences_and_follows_its_loss(loss, monkeypatch):
    """Adam's first update is of the size of the rate, against the gradient."""
    monkeypatch.setattr("model.sample_many", None)
    words = f"--d_loss {loss} --d_epochs 1 --d_batch_size 16 --d_lr 0.01 --dropout_keep_prob 0.6 --total_epochs 0"
    model = model_of(*words.split())
    seed, before, loss_of = 1, model.discriminator.get_weights(), getattr(model.discriminator, f"{loss}_loss")
    real = tf.gather(rows_of(), permutation(8, fold(key(seed, Purpose.D_SHUFFLE, 0, 0), REAL)))
    with tf.GradientTape() as tape:
        drops = key(seed, Purpose.DROPOUT, 0, 0, 0)
        nats, _ = loss_of(model.policy, real, key(seed, Purpose.D_FAKE, 0, 0, 0), drops)
    gradients = tape.gradient(nats, model.discriminator.trainable_variables)
    found = model._d_step(rows_of()[:8], tf.constant(0))
    assert float(found[0]) == pytest.approx(float(nats), rel=1e-5)
    for old, new, gradient in zip(before, model.discriminator.get_weights(), gradients, strict=True):
        slope = tf.convert_to_tensor(gradient).numpy()
        told = np.abs(slope) > 1e-6  # the others are 0 but for rounding
        np.testing.assert_allclose((new - old)[told], -0.01 * np.sign(slope[told]), rtol=0.05)


def test_eta_is_chosen_once_when_the_discriminators_training_ends(tmp_path, eagerly):
    """Whether the run is evaluated, and how often, changes nothing; without d-steps it is kept."""
    words = "--total_epochs 2 --d_lr 0.05 --d_steps 1 --eval_every 1 --checkpoint_every 1"
    kept = [*words.replace("--d_steps 1", "--d_steps 0 --g_lr 0.3").split(), "--no-evaluate"]
    assert train([*BIGRAM, *kept, "--log_dir", str(tmp_path / "kept")]) == 0
    assert len({float(restore(tmp_path / "kept", step).seqgan.guidance.eta.numpy()) for step in (6, 7, 8)}) == 1
    for name, more in (("seen", ["--eval_log_dir", str(tmp_path / "eval")]), ("unseen", ["--no-evaluate"])):
        assert train([*BIGRAM, *words.split(), "--log_dir", str(tmp_path / name), *more]) == 0
    runs = [[restore(tmp_path / name, which) for which in ("pretrained", 6, 8, 10)] for name in ("seen", "unseen")]
    etas = [[float(run.seqgan.guidance.eta.numpy()) for run in each] for each in runs]
    assert etas[0] == etas[1] and etas[0][0] == 1.0 and len(set(etas[0])) == 4, etas
    measured = [float(row["guide_eta"]) for row in timeless_rows(tmp_path / "eval") if row["guide_eta"]]
    assert measured == pytest.approx(etas[0][1:])
    guided = [run.guided() for run in (runs[0][0], runs[0][1]._replace(taken=5), runs[0][1])]
    assert guided == [False, False, True]  # the second is in the midst of D's training


def test_what_a_signal_saves_and_a_fold_tells_is_of_the_discriminator_there(tmp_path, eagerly, monkeypatch):
    read, choose = [], Guidance.choose_eta
    keep = lambda self: read.append(self.discriminator.successors.numpy()) or choose(self)  # noqa: E731
    monkeypatch.setattr(Guidance, "choose_eta", keep)
    words = ["--total_epochs", "3", "--d_lr", "0.05", "--d_steps", "2", "--eval_every", "9", "--checkpoint_every", "9"]
    for update in ("sampled", "distil"):
        words += ["--g_update", update, "--overwrite"]
        assert train([*BIGRAM, *words, *logs_in(tmp_path)], interrupted_at(11)) == 128 + signal.SIGTERM
        assert (read[-1] == restore(tmp_path / "train").seqgan.discriminator.successors.numpy()).all()
    fold = shlex.split("--g_update fold --total_epochs 1 --d_steps 0 --guide_eta 1 --overwrite --d_eval_samples 8")
    assert train([*BIGRAM, *fold, *logs_in(tmp_path)]) == 0
    rows = timeless_rows(tmp_path / "eval")
    assert [bool(row["nll_guided"]) for row in rows[-2:]] == [True, False] and not rows[-1]["d_test_acc"]


def test_an_empty_validation_set_is_named(tmp_path, capsys, eagerly):
    words = [*text_in(tmp_path, "train"), *logs_in(tmp_path)]
    assert train([*words, "--total_epochs", "0"]) == 2
    assert "--guide_eta 0 needs a validation set" in capsys.readouterr().err
    assert not (tmp_path / "train").exists(), "found out before training"
    assert train([*words, "--g_update", "fold", "--guide_eta", "1"]) == 2
    assert "--g_update fold needs a validation set" in capsys.readouterr().err
    assert train([*words, "--total_epochs", "0", "--guide_eta", "1"]) == 0
