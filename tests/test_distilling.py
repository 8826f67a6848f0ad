"""Distilling: the gradient by enumeration, padding, and what a g-step and a round do."""

import signal
from shlex import split
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from conftest import BIGRAM, TINY, interrupted_at, refusal, resumed_alike, tiny_config, train
from enumeration import all_sequences, probabilities, random_generator, randomise
from fault_injection import logs_in, timeless_rows
from test_model import flat
from test_token_loss import ENDS, made

from generator import Averaged
from guidance.additive import BigramDiscriminator
from guidance.choosing import keep_one
from guidance.distilling import Distillation, divergence
from guidance.guided import GuidedPolicy
from support.errors import UsageError
from tools.restored import restore


@ENDS
def test_the_gradient_along_the_teachers_sequences_is_that_of_the_divergence(end_token):
    """Every sequence is weighed by its probability under the teacher."""
    student, base = (random_generator(seed=seed, end_token=end_token) for seed in (1, 2))
    teacher = GuidedPolicy(base, made(BigramDiscriminator, end_token=end_token), tf.Variable(0.7))
    tokens, t = tf.constant(all_sequences(4, 3, end_token)), probabilities(teacher)
    with tf.GradientTape() as tape:
        crossed, apart = divergence(student, teacher, tokens)
        loss = tf.reduce_sum(crossed * t[:, None])
    with tf.GradientTape() as exact:
        log_g = tf.reduce_sum(student.log_probs(tokens), axis=1)
        kl = tf.reduce_sum(t * (np.log(t) - log_g))
    assert float(tf.reduce_sum(apart * t[:, None])) == pytest.approx(float(kl), rel=1e-4)
    assert (crossed.numpy()[tokens.numpy() == 4] == 0).all() and (apart.numpy() >= -1e-6).all()
    variables = student.trainable_variables
    found, wanted = flat(tape.gradient(loss, variables)), flat(exact.gradient(kl, variables))
    np.testing.assert_allclose(found, wanted, atol=2e-5)
    assert np.linalg.norm(wanted) > 0.05


@ENDS
def test_a_student_that_is_its_teacher_has_no_gradient(end_token):
    student = random_generator(end_token=end_token)
    student.dropout_rate, tokens = 0.5, tf.constant(all_sequences(4, 3, end_token)[::3])
    with tf.GradientTape() as tape:
        crossed, apart = divergence(student, student, tokens)
    np.testing.assert_allclose(apart, np.zeros(apart.shape), atol=1e-6)
    for gradient in tape.gradient(crossed, student.trainable_variables):
        np.testing.assert_allclose(gradient, np.zeros(gradient.shape), atol=1e-5)


def distillation(more: str, **chosen_by) -> tuple[Distillation, list]:
    """One of sequences of three of four tokens, and the gradients that it has applied."""
    student, applied = random_generator(), []
    student.dropout_rate = 0.5  # which has no effect in distilling
    batches = tf.random.stateless_uniform([9, 3, 4, 3], [1, 2], 0, 4, tf.int32)  # by pass and place
    given = {"batches": lambda epoch: batches[epoch % 9], "update": applied.append} | chosen_by
    config = tiny_config(*split(f"--g_update distil --batch_size 4 --train_size 12 {more}"), words=BIGRAM[:-2])
    return Distillation(config, student, random_generator(seed=5), **given), applied


def test_real_sequences_are_those_of_the_passes_after_pretraining(eagerly):
    (distil, _), drawn = distillation("--pretrain_g_epochs 2"), []
    for step in range(7):
        (_, _, rewards, tokens, _), real = distil.step(tf.constant(step)), distil._batches(2 + step // 3)[step % 3]
        np.testing.assert_array_equal(tokens[:2], real[:2])
        np.testing.assert_allclose(rewards, -divergence(distil.student, distil.teacher, tokens)[1], atol=1e-6)
        assert tokens.shape == [4, 3] and not np.array_equal(tokens[2:], real[2:])
        drawn.append(tokens[2:].numpy())
    assert len({rows.tobytes() for rows in drawn}) > 4  # each step draws numbers of its own
    distil, _ = distillation("--distil_real 1")  # nothing is drawn
    np.testing.assert_array_equal(distil.step(tf.constant(1))[3], distil._batches(distil.config.pretrain_g_epochs)[1])


@pytest.mark.parametrize("by", ["objective", "discriminator"])
def test_the_best_candidates_are_learnt_as_if_they_were_real(eagerly, monkeypatch, by):
    """Of a discriminator with great log-odds for great tokens the best candidate is all but certain."""
    values = SimpleNamespace(
        score=lambda rows: rows @ np.array([16.0, 4.0, 1.0]),
        log_odds=lambda rows: tf.linalg.matvec(tf.cast(rows, tf.float32), [1600.0, 400.0, 100.0]),
    )
    firsts, asked = [], []
    monkeypatch.setattr("guidance.distilling.keep_one", lambda *given: asked.append(given) or keep_one(*given))
    distil, applied = distillation("--distil_real 0.25", **{by: values})
    for step in range(7):
        loss, _, rewards, tokens, _ = distil.step(tf.constant(step))
        firsts += list(tokens[1:, 0].numpy())
        with tf.GradientTape() as tape:
            nll = -tf.reduce_sum(distil.student.log_probs(tokens)) / 12
        np.testing.assert_allclose(flat(applied[-1]), flat(tape.gradient(nll, distil.student.trainable_variables)))
        assert float(loss) == pytest.approx(float(nll)) == pytest.approx(-float(tf.reduce_mean(rewards)))
    assert all(given[1:3] == (values.log_odds, 16) for given in asked) and len(asked) == 7 * (by == "discriminator")
    drawn = probabilities(distil.teacher) @ (all_sequences(4, 3)[:, 0] == 3)
    assert np.mean(np.equal(firsts, 3)) == pytest.approx(1 - (1 - drawn) ** 16, abs=0.1) and drawn < 0.5


def test_a_student_of_another_size_learns_from_other_runs(tmp_path, eagerly, capsys):
    """From one, which its discriminator guides, from one without a discriminator, and from the average of two."""
    guided = [*BIGRAM, *split("--pretrain_d_epochs 9 --d_lr 0.3 --guide_eta 1 --total_epochs 0")]
    plain = [[*TINY, "--seed", seed, "--total_epochs", "0"] for seed in "23"]
    for name, words in zip(names := ("guided", "plain", "another"), (guided, *plain), strict=True):
        assert train([*words, *logs_in(tmp_path / name)]) == 0
    runs = [restore(tmp_path / name / "train") for name in names]
    average = Averaged([run.seqgan.generator for run in runs[1:]])
    own = [probabilities(each) for each in (runs[0].policy(guide=True), runs[1].policy(), average)]
    assert np.abs(own[0] - probabilities(runs[0].seqgan.generator)).max() > 0.01
    student = "--pretrain_g_epochs 0 --g_update distil --distil_real 0 --g_hidden_dim 9 --g_lr 0.1 --total_epochs 30"
    words = [*TINY, *student.split(), *split("--eval_every 30 --batch_size 16 --teacher")]
    logs = [str(run.logdir) for run in runs]
    for i, (teachers, wanted) in enumerate(zip((logs[:1], logs[1:2], logs[1:]), own, strict=True)):
        assert train([*words, *teachers, *logs_in(tmp_path / str(i))]) == 0
        learnt = probabilities(restore(tmp_path / str(i) / "train").seqgan.generator)
        first, last = (float(row["kl_of_teacher"]) for row in timeless_rows(tmp_path / str(i) / "eval"))
        kl = float(tf.reduce_sum(wanted * tf.math.log(wanted / learnt)))
        assert last == pytest.approx(kl, abs=0.02) and last < 0.3 * first
    assert not resumed_alike(tmp_path / "resumed", [*words, logs[0], "--total_epochs", "6"], 1, 3)
    more = [*TINY, *student.replace("epochs 0", "epochs 1").replace("epochs 30", "epochs 1").split(), "--teacher"]
    assert train([*more, logs[0], *logs_in(tmp_path / "p")]) == 0
    assert train([*more, logs[1], *logs_in(tmp_path / "q"), "--pretrained", f"{tmp_path}/p/train"]) == 0
    told = [[row["kl_of_teacher"] for row in timeless_rows(tmp_path / name / "eval")] for name in "pq"]
    assert told[0][0] and told[1][0] == "" and told[1][-1]  # of another teacher
    cases = [("0", logs[1:], "learns from another run"), ("c", ["nowhere"], "no run"), ("c", logs, "runs of one size")]
    for name, teachers, why in [*cases, ("c", [logs[0], "--oracle_seed", "3"], "other --oracle_seed")]:
        assert why in refusal(capsys, train, [*words, *teachers, *logs_in(tmp_path / name)], alone=False)


def test_an_unfinished_teacher_is_warned_of(tmp_path, eagerly, capsys):
    plain = [*TINY, "--total_epochs", "0", *logs_in(tmp_path / "plain")]
    assert train(plain, interrupted_at(3)) == 128 + signal.SIGTERM
    student = split(f"--pretrain_g_epochs 0 --g_update distil --total_epochs 1 --teacher {tmp_path}/plain/train")
    for name, told in (("early", f"warning: --teacher {student[-1]}: unfinished, after 3 of 6 steps\n"), ("late", "")):
        capsys.readouterr()
        assert train([*TINY, *student, *logs_in(tmp_path / name)]) == 0
        assert capsys.readouterr().err == told and train(plain) == 0


def test_a_teacher_is_guided_where_its_discriminator_knows_it_as_it_is(tmp_path, eagerly):
    """Not before the discriminator is trained, nor after a policy gradient without d-steps."""
    words = "--pretrain_d_epochs 2 --d_lr 0.3 --guide_eta 1 --total_epochs 2 --checkpoint_every 1 --g_update expected"
    words += " --reward log_odds --g_lr 0.1 --d_steps 0"
    assert train([*BIGRAM, *words.split(), *logs_in(tmp_path)]) == 0
    run = restore(tmp_path / "train", step := restore(tmp_path / "train").taken - 2)
    assert run.teaches() is run.seqgan.guidance.guided
    assert (last := restore(tmp_path / "train")).teaches() is last.seqgan.policy and last.guided()
    with pytest.raises(UsageError, match="its discriminator is not trained yet"):
        run._replace(taken=step - 1).teaches()
    seqgan = SimpleNamespace(policy="", guidance=SimpleNamespace(guided="guided"))
    for more, after in (("", "guided"), (" --average 0.5", "")):  # against which D is not trained then
        config = tiny_config(*words.replace("--d_steps 0", f"--d_steps 2 --mle_steps 1{more}").split(), words=BIGRAM)
        told = [run._replace(config=config, seqgan=seqgan, taken=taken).teaches() for taken in range(step, step + 9)]
        assert told == ["guided", *["", "", after, after] * 2]  # a g-step, one of MLE and two d-steps a round


def test_the_generator_learns_the_guided_one_which_a_new_discriminator_makes_anew(tmp_path, eagerly):
    """After d-steps the teacher takes the student in; without them it stays, as the student above shows."""
    words = "--g_update distil --total_epochs 3 --d_steps 1 --g_lr 0.05 --d_lr 0.3 --pretrain_d_epochs 20 --guide_eta 1"
    words += " --eval_every 30 --distil_real 0.25 --batch_size 16"
    assert train([*BIGRAM, *words.split(), *logs_in(tmp_path)]) == 0
    seqgan, before = (restore(tmp_path / "train", *which).seqgan for which in ((), ("pretrained",)))
    teacher, student = probabilities(seqgan.guidance.copy), probabilities(seqgan.generator)
    np.testing.assert_array_equal(teacher, student)
    assert np.abs(student - probabilities(before.generator)).max() > 0.001
    guided = probabilities(seqgan.guidance.guided)
    randomise(seqgan.generator, 3)
    np.testing.assert_array_equal(probabilities(seqgan.guidance.guided), guided)  # while the student learns
