"""The implicit discriminator: python -m experiments.implicit LOGDIR... -o FILE.csv [--beta --weight --lr ...].

D(y) = σ(β (log G(y) - log G₀(y))) has no weights of its own: the GAN's loss of D trains G. G₀ is the run's generator,
and draws the fake sequences. Of two rounds the second has the first one's G as G₀ (DGSAN, Montahaei et al., 2019; SPIN,
Chen et al., 2024). A round ends with the weights of least NLL on the validation set, those that it began with among
them; `end` has the figures after the last update. `--save FOLDER` is a copy of the run whose pretraining ends with
these weights, for main.py --pretrained.
"""

import argparse
import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import support.quiet  # noqa: F401 - before TensorFlow

import keras
import pandas as pd
import tensorflow as tf

from evaluation.evaluator import Due
from evaluation.policy import MeasuredPolicy
from evaluation.run import evaluator_of
from generator import Tempered
from runs.checkpoints import MARKS, Checkpoints
from runs.directories import CHECKPOINTS, PRETRAINED, spare, write_whole
from support.errors import UsageError
from support.parser import Parser, new_file, number
from support.seeds import Purpose, fold, key, uniforms
from support.streams import run_tool
from tools.restored import restore

KEPT = ("nll", "nll_valid", "nll_test", "g_entropy", "bleu2", "bleu4", "self_bleu2", "self_bleu4")
DEFAULTS = {"beta": 1.0, "weight": 1.0, "lr": 1e-4, "updates": 400, "rounds": 2, "eval_samples": 1000}
EVERY = 50  # updates between looks at the validation set


def rows_of(logdir: Path, asked: argparse.Namespace) -> Iterator[dict[str, object]]:
    """The figures of a run's G₀ and of G after each round, at its best and at its end."""
    before, run = restore(logdir), restore(logdir)
    base, student, data, config = before.policy(), run.seqgan.generator, run.data(), run.config
    if config.g_update == "fold":
        raise UsageError(f"{logdir}: of --g_update fold, whose policy is no generator alone")
    state = run.seqgan.checkpoint()
    kept = Checkpoints(logdir / CHECKPOINTS, state).look(PRETRAINED) if asked.save else None
    student.set_weights([own.numpy() for own in base.weights])  # others where the run's policy is an average
    valid = tf.constant(data.valid)
    if not len(valid):
        raise UsageError(f"{logdir}: its data have no validation set")
    evaluator = evaluator_of(data, dataclasses.replace(config, eval_samples=asked.eval_samples))
    temperature = tf.Variable(1.0, trainable=False)
    measured = MeasuredPolicy(Tempered(student, temperature), config.seed, jit=False)
    optimizer = keras.optimizers.Adam(asked.lr)

    @tf.function(autograph=False)
    def update(real: tf.Tensor, seed: tf.Tensor) -> None:
        tokens = tf.concat([real, base.sample(uniforms([config.seq_len, config.batch_size], seed))], axis=0)
        known = tf.reduce_sum(base.log_probs(tokens), axis=1)
        with tf.GradientTape() as tape:
            odds = asked.beta * (tf.reduce_sum(student.log_probs(tokens), axis=1) - known)
            of_real, of_fake = tf.split(odds, 2)
            if asked.likelihood:
                drops = fold(seed, 1) if asked.dropout else None
                loss = -tf.reduce_mean(tf.reduce_sum(student.log_probs(real, dropout_seed=drops), axis=1))
            else:
                loss = tf.reduce_mean(tf.nn.softplus(-of_real)) + asked.weight * tf.reduce_mean(tf.nn.softplus(of_fake))
        gradients = tape.gradient(loss, student.trainable_variables)
        optimizer.apply_gradients(zip(gradients, student.trainable_variables, strict=True))

    def figures(name: str, number: int, at: float = 1.0) -> dict[str, object]:
        temperature.assign(at)
        found = evaluator.of_policy(measured, number, Due(evaluation=True, samples=True, last=True))
        loss, own = "gan", ("beta", "weight", "updates", "lr")
        if asked.likelihood:
            loss, own = "likelihood, dropout" if asked.dropout else "likelihood", ("updates", "lr")
        row = {"run": str(logdir), "temperature": at, "after": name, "loss": loss} | {n: vars(asked)[n] for n in own}
        return row | {each: float(found[each][0]) for each in KEPT if each in found}

    @tf.function(autograph=False)
    def nll_held_out() -> tf.Tensor:
        return -tf.reduce_sum(student.log_probs(valid)) / tf.reduce_sum(student.mask(valid))

    yield figures("G0", 0)
    step = 0
    for round_ in range(1, asked.rounds + 1):
        best, weights = float(nll_held_out()), student.get_weights()
        for done in range(1, asked.updates + 1):
            passes, place = divmod(step, config.mle_batches)
            real = data.mle_batches(config.pretrain_g_epochs + passes)[place]
            update(tf.constant(real), fold(key(config.seed, Purpose.G_SAMPLE, tf.constant(step)), 7))
            step += 1
            if (done % EVERY == 0 or done == asked.updates) and (now := float(nll_held_out())) < best:
                best, weights = now, student.get_weights()
        yield figures(f"round {round_}, end", round_)
        for own, found, reference in zip(student.weights, weights, base.weights, strict=True):
            own.assign(found)
            reference.assign(found)
        yield from (figures(f"round {round_}", round_, at) for at in asked.temperatures)
    if kept:
        temperature.assign(1.0)
        now = evaluator.of_policy(measured, asked.rounds, Due(evaluation=True, samples=False, last=True))
        changed = {"evaluation": kept[1]["evaluation"] | now, "best": None, MARKS: {PRETRAINED: kept[0]}}
        if run.seqgan.average:
            run.seqgan.average.follow(student)
        asked.save.mkdir(parents=True)  # fails where somebody has made it meanwhile
        try:
            shutil.copytree(logdir, asked.save, ignore=shutil.ignore_patterns(CHECKPOINTS), dirs_exist_ok=True)
            Checkpoints(asked.save / CHECKPOINTS, state).save(kept[0], kept[1] | changed)
        except BaseException:  # Ctrl-C, too
            shutil.rmtree(asked.save, ignore_errors=True)
            raise


def main() -> int:
    """The program; returns 0."""
    parser = Parser(prog="implicit", description=__doc__)
    add = parser.add_argument
    add("logdirs", nargs="+", type=Path, metavar="LOGDIR")
    add("-o", type=new_file, required=True, metavar="FILE.csv")
    for name, value in DEFAULTS.items():
        add(f"--{name}", type=number(type(value), 1 if type(value) is int else 0, None), default=value)
    add("--temperatures", nargs="+", type=number(float, 1e-2, 100), default=[1.0], help="of a round's best weights")
    add("--likelihood", action="store_true", help="the control: MLE of the same real sequences, without dropout too")
    add("--dropout", action="store_true", help="--likelihood: with the dropout of the run")
    add("--save", type=Path, metavar="FOLDER", help="a new one, for the run with the last round's best weights")
    asked = parser.parse_args()
    if asked.save and (len(asked.logdirs) > 1 or asked.save.exists()):
        parser.error(f"--save {asked.save}: takes one LOGDIR, and a folder that does not exist yet")
    if asked.dropout and not asked.likelihood:
        parser.error("--dropout has no effect without --likelihood")
    with parser.failing_in_one_line(asked.o):
        spare(asked.o)
        rows = [row for logdir in asked.logdirs for row in rows_of(logdir, asked)]
        write_whole(asked.o, pd.DataFrame(rows).to_csv(index=False, float_format="%.4f"))
    return 0


if __name__ == "__main__":
    run_tool(main)
