"""The oracle: a fixed random LSTM whose samples are the real data, so that their true density is known."""

import functools
import zipfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from data import Due, checksum
from data.held_out import D_FIGURES, Figures, resampled, resampled_on_test, what_d_knows
from data.training_set import TrainingSet
from evaluation import SAMPLE_ROWS, OracleEvaluation, sample_many
from generator import Generator
from resampling import GROUPS, Groups
from runs.logs import RunLog
from support.config import Config, UsageError
from support.metrics import balanced_accuracy, distinct, mean_and_error
from support.pictures import likelihoods
from support.seeds import Purpose, key, uniforms, variable_seed

GATES = "ifco"  # the order in which Keras' LSTMCell stacks its gates; c is the candidate
ENTROPY_SAMPLES = 1024
MAX_BYTES = 2**31  # more than any oracle file; a longer one is not read


class Oracle(Generator):
    """An LSTM of the generator's kind, never trained (SeqGAN, "Synthetic data")."""

    def __init__(
        self, vocab_size: int, seq_len: int, emb_dim: int, hidden_dim: int, *, seed: int, init: str = "glorot"
    ):
        """Makes and initialises the weights.

        `init` is `normal`: every weight from N(0, 1), as the paper has it; or `glorot`: only embedding, output kernel
        and output bias; the LSTM is that of TensorFlow 1, whose kernels are one matrix [E + H, 4H], uniform within
        Glorot's limit, and whose biases are 1 for the forget gate and 0 else. `seed` is the oracle's own, so that runs
        of many seeds can share one oracle.
        """
        purpose = Purpose.ORACLE_INIT
        sizes = vocab_size, seq_len, emb_dim, hidden_dim
        super().__init__(*sizes, seed=seed, purpose=purpose, stddev=1.0, name="oracle")
        if init == "glorot":
            shape = (emb_dim + hidden_dim, 4 * hidden_dim)
            joint = keras.initializers.GlorotUniform(variable_seed(seed, purpose, 1))(shape)
            self.cell.kernel.assign(joint[:emb_dim])
            self.cell.recurrent_kernel.assign(joint[emb_dim:])
            self.cell.bias.assign(np.repeat([float(gate == "f") for gate in GATES], hidden_dim))
        self.trainable = False

    @classmethod
    def from_npz(cls, path: str | Path, seq_len: int) -> "Oracle":
        """Loads an oracle from an .npz file; the sizes are the file's.

        `path`: arrays `embedding [V, E]`; for each gate g of i, f, o, c: `W_g [E, H]`, `U_g [H, H]`, `b_g [H]`; `W_out
        [H, V]`, `b_out [V]`. Any floating-point type; used as float32. No pickled objects. `seq_len`: T, tokens a
        sequence. Raises UsageError: the file is missing or damaged, or an array is missing, misshapen or not finite.
        """
        arrays = read_npz(path)
        vocab_size, emb_dim = array_of(arrays, "embedding", (None, None), path).shape
        hidden_dim = array_of(arrays, "b_i", (None,), path).shape[0]
        if min(vocab_size, emb_dim, hidden_dim) < 1:
            raise UsageError(f"{path}: an array is empty")

        def stacked(letter: str, shape: tuple[int, ...]) -> np.ndarray:
            return np.concatenate([array_of(arrays, f"{letter}_{g}", shape, path) for g in GATES], axis=-1)

        kernel, recurrent = stacked("W", (emb_dim, hidden_dim)), stacked("U", (hidden_dim, hidden_dim))
        bias, output = stacked("b", (hidden_dim,)), array_of(arrays, "W_out", (hidden_dim, vocab_size), path)
        output_bias = array_of(arrays, "b_out", (vocab_size,), path)
        oracle = cls(vocab_size, seq_len, emb_dim, hidden_dim, seed=0)
        oracle.embedding.set_weights([arrays["embedding"]])
        oracle.cell.set_weights([kernel, recurrent, bias])
        oracle.output_layer.set_weights([output, output_bias])
        return oracle


class OracleData:
    """Real data from an oracle: what training reads, and how far the generator is from the truth."""

    start_token = 0
    end_token: int | None = None
    generator_figures = ("nll", "nll_test", "g_entropy", "oracle_entropy", "kl_forward", "kl_reverse", "distinct2")
    evaluated: tuple[str, ...] = (*generator_figures, *D_FIGURES, "d_optimal_acc")

    def __init__(self, config: Config):
        """Makes the oracle of the flags and, for --train_size, draws the training set.

        Raises UsageError: --oracle_params can't be used.
        """
        self.config = config
        if config.oracle_params:
            self.oracle = Oracle.from_npz(config.oracle_params, config.seq_len)
            self.origin = f"--oracle_params {config.oracle_params}"
        else:
            sizes = (config.vocab_size, config.seq_len, config.oracle_emb_dim, config.oracle_hidden_dim)
            self.oracle = Oracle(*sizes, seed=config.oracle_seed, init=config.oracle_init)
            self.origin = f"--oracle_seed {config.oracle_seed}"
        self.vocab_size = self.oracle.vocab_size

        def draw(rows: int, seed: tf.Tensor) -> tf.Tensor:
            return self.oracle.sample(uniforms([config.seq_len, rows], seed))

        def entropies(rows: int, seed: tf.Tensor) -> tf.Tensor:
            return self.oracle.sample_and_compare(uniforms([config.seq_len, rows], seed))[1] / config.seq_len

        compiled = functools.partial(tf.function, jit_compile=config.jit, autograph=False)
        self._log_probs, self._draw, self._entropies = map(compiled, (self.oracle.log_probs, draw, entropies))
        self._draw_many = compiled(functools.partial(sample_many, self.oracle))
        self.training_set = None
        if config.train_size:
            sequences = self.sample(config.train_size, Purpose.TRAIN_SET)
            self.training_set = TrainingSet(sequences, config.batch_size, config.seed)
        self.entropy = self._estimate_entropy()
        self._unseen: np.ndarray | None = None  # for `evaluate_discriminator`
        self._validation: np.ndarray | None = None

    def sample(self, size: int, purpose: Purpose) -> np.ndarray:
        """`size` sequences drawn for `purpose`, int32 [size, T]."""
        chunks = range(-(-size // SAMPLE_ROWS))
        parts = [self._draw(SAMPLE_ROWS, key(self.config.seed, purpose, chunk)).numpy() for chunk in chunks]
        return np.concatenate(parts)[:size]

    def mle_batches(self, epoch: int) -> tf.Tensor:
        """What the generator learns from in an epoch: int32 [n, B, T], with n = 1 unless there is a training set."""
        if self.training_set:
            return self.training_set.mle_batches(epoch)
        return self._draw(self.config.batch_size, key(self.config.seed, Purpose.MLE_BATCH, epoch))[None]

    def real(self, step: int) -> tf.Tensor:
        """The real sequences of the d-step numbered `step`, int32 [n, T]."""
        if self.training_set:
            return self.training_set.real(step)
        if self.config.d_draws:
            return self._draw_many(self.config.d_draws, key(self.config.seed, Purpose.D_REAL, step))
        return self._draw(self.config.d_batch_size // 2, key(self.config.seed, Purpose.D_REAL, step))

    def references(self) -> np.ndarray:
        """The training set of --train_size, int32 [n, T]."""
        assert self.training_set is not None
        return self.training_set.references()

    def validation(self) -> np.ndarray:
        """As many sequences as an estimate of the entropy takes, int32 [n, T]; always the same ones."""
        if self._validation is None:
            self._validation = self.sample(ENTROPY_SAMPLES, Purpose.VALIDATION)
        return self._validation

    def _estimate_entropy(self) -> tuple[float, float]:
        """The oracle's entropy, (mean, standard error) in nats per token, from the same sequences in every run."""
        chunks = range(ENTROPY_SAMPLES // SAMPLE_ROWS)
        parts = [self._entropies(SAMPLE_ROWS, key(0, Purpose.ORACLE_ENTROPY, chunk)).numpy() for chunk in chunks]
        return mean_and_error(np.concatenate(parts))

    def digests(self) -> dict[str, str]:
        """The checksum of the weights that --oracle_params names; random ones follow from the flags."""
        return {"the oracle's weights": checksum(self.oracle.get_weights())} if self.config.oracle_params else {}

    def files(self) -> dict[str, str]:
        """What is kept with the run: nothing, as the flags and --oracle_params say all."""
        return {}

    def decode(self, rows: np.ndarray) -> list[np.ndarray]:
        """The token ids of sequences, int32 [n, T], for an objective: int32 [T] each."""
        return list(rows)

    def introduction(self) -> str:
        """The line a run begins with."""
        oracle, (entropy, error) = self.oracle, self.entropy
        return (
            f"oracle: {oracle.vocab_size} tokens, sequences of {oracle.seq_len}; entropy {entropy:.3f} ± {error:.3f} "
            "nats per token: the floor of nll_test"
        )

    def log_samples(self, model, epoch: int, due: Due, log: RunLog) -> None:
        """With --log_generation, at evaluations: the oracle's likelihoods of a generated and a real batch."""
        if self.config.log_generation and due.evaluation:
            generated = model.sample(self.config.batch_size, Purpose.IMAGES, tf.constant(epoch))
            batches = {"generated": generated, "real": self.mle_batches(epoch)[0]}
            log_probs = {name: self._log_probs(tokens).numpy() for name, tokens in batches.items()}
            picture = likelihoods(log_probs, self.vocab_size)
            log.image(epoch, "samples/likelihoods", picture)

    def evaluate(self, model, epoch: int, due: Due) -> dict[str, tuple[float, float]]:
        """Measures a `model.SeqGAN` against the oracle; `epoch` picks the random numbers, `due` changes nothing.

        Returns:
            (value, standard error) over --eval_samples sequences:
            - `nll` = NLL_oracle, `nll_test` and `g_entropy`, nats per token;
            - `kl_forward` = KL(oracle ‖ G) = nll_test - H(oracle) and `kl_reverse` = KL(G ‖ oracle) = nll - g_entropy,
              nats per token; each difference is taken along the same sequences, so its error is small;
            - `distinct2`, the share of different bigrams among those of the generated sequences;
            - `oracle_entropy` as it was estimated at the start.
        """
        size = self.config.eval_samples
        rows = min(size, SAMPLE_ROWS)
        chunks = range(-(-size // rows))
        parts = [model.evaluate_against(self.oracle, rows, tf.constant(epoch), tf.constant(chunk)) for chunk in chunks]
        joined = OracleEvaluation._make(np.concatenate(values)[:size] for values in zip(*parts, strict=True))
        measured = {"nll": joined.nll_oracle, "nll_test": joined.nll_test, "g_entropy": joined.g_entropy}
        measured |= {"kl_forward": joined.kl_forward, "kl_reverse": joined.kl_reverse}
        figures = {name: mean_and_error(values) for name, values in measured.items()}
        return {**figures, "distinct2": distinct(joined.generated), "oracle_entropy": self.entropy}

    def evaluate_discriminator(self, model, epoch: int, beside=None) -> dict[str, tuple[float, float]]:
        """What the discriminator knows of two times --d_eval_samples sequences of the oracle, always the same ones.

        The first half stands for the validation set, the other for the test set. Returns (value, standard error) of the
        figures of `what_d_knows`, and `d_optimal_acc`: the accuracy, on the same sequences, of the optimal
        discriminator, D* = p / (p + G). With `beside`, what `evaluate` has returned, also the NLLs, entropy and
        divergences of what is kept of --candidates.
        """
        size = self.config.d_eval_samples
        if self._unseen is None:
            self._unseen = self.sample(2 * size, Purpose.D_TEST_REAL)
        choosing, measuring = np.split(self._unseen, 2)
        candidates = self.config.candidates if beside else 0
        known = what_d_knows(model, choosing, measuring, epoch, self.vocab_size, candidates)
        sequences = np.concatenate([measuring, known.fakes, known.pool])
        optimal = model.optimal_log_odds(self.oracle, tf.constant(sequences)).numpy()  # log p - log G
        real, fake, of_pool = np.split(optimal, [size, 2 * size])
        figures = {"d_optimal_acc": balanced_accuracy(real, fake)}
        if known.groups and beside:
            figures |= resampled(beside, self._changes(model, known.groups, known.pool, of_pool))
        return resampled_on_test(known, beside or {}) | figures

    def choose_optimally(self, model, epoch: int, beside: Figures, count: int) -> dict[str, tuple[float, float]]:
        """What would come of keeping one of `count` samples by D*, with η = 1: the figures of `resampled`.

        As many sequences of the oracle as --d_eval_samples measure it.
        """
        real = self.sample(max(self.config.d_eval_samples, 2), Purpose.D_TEST_REAL)
        pool = model.sample(GROUPS * count, Purpose.D_TEST_FAKE, tf.constant(epoch)).numpy()
        optimal = model.optimal_log_odds(self.oracle, tf.constant(np.concatenate([real, pool]))).numpy()
        groups = Groups(optimal[len(real) :].reshape(GROUPS, count))
        gain, error = groups.gain(optimal[: len(real)], np.full(len(real), self.config.seq_len))
        changes = dict.fromkeys(("nll_test", "kl_forward"), (-gain, error))
        return resampled(beside, changes | self._changes(model, groups, pool, optimal[len(real) :]))

    def _changes(self, model, groups: Groups, pool: np.ndarray, log_ratios: np.ndarray) -> dict:
        """By how much choosing changes NLL_oracle, entropy and KL(G ‖ oracle), by a pool and its log p - log G."""
        parts = np.split(pool, len(pool) // SAMPLE_ROWS)  # one shape, whatever the candidates
        nats = np.concatenate([model.nll(tf.constant(part)).numpy() for part in parts])
        values = {"nll": (nats - log_ratios, 0.0), "g_entropy": (nats, -1.0), "kl_reverse": (-log_ratios, 1.0)}
        return {name: self._change(groups, f, slope) for name, (f, slope) in values.items()}

    def _change(self, groups: Groups, nats: np.ndarray, slope: float) -> tuple[float, float]:
        """`Groups.change` in nats per token; `nats` are of each draw, [m · n]."""
        change, error = groups.change(nats.reshape(groups.log_weights.shape), slope)
        return change / self.config.seq_len, error / self.config.seq_len


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz file, none of them unpickled.

    Raises UsageError: missing, damaged, too large, or it holds something else than arrays.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())  # zipfile reads no more than it declares
        if size > MAX_BYTES:
            raise ValueError(f"larger than {MAX_BYTES} bytes")
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # a damaged file makes zipfile, zlib and numpy raise many kinds
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise UsageError(f"--oracle_params {path}: not a readable .npz file ({reason})") from None


def array_of(arrays: dict[str, np.ndarray], name: str, shape: tuple[int | None, ...], path: str | Path) -> np.ndarray:
    """The array `name` as float32, after checking it against `shape`, where None stands for any size.

    Raises UsageError: it is missing, or its type, shape or values are wrong.
    """
    if name not in arrays:
        raise UsageError(f"{path}: array {name} is missing")
    array = np.asarray(arrays[name])
    if array.ndim != len(shape) or any(want not in (None, have) for want, have in zip(shape, array.shape, strict=True)):
        want = "[" + ", ".join("any" if size is None else str(size) for size in shape) + "]"
        raise UsageError(f"{path}: array {name} has shape {list(array.shape)}, not {want}")
    with np.errstate(over="ignore"):  # what float32 can't hold becomes infinite
        converted = array.astype(np.float32) if array.dtype.kind == "f" else None
    if converted is None or not np.isfinite(converted).all():
        raise UsageError(f"{path}: array {name} must hold finite floating-point numbers")
    return converted
