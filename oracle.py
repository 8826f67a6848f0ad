"""The oracle: a fixed random LSTM whose samples are the real data, so that their true density is known."""

import zipfile
from pathlib import Path

import keras
import numpy as np

from generator import Generator
from support.errors import UsageError, first_line
from support.seeds import Purpose, variable_seed

GATES = "ifco"  # the order in which Keras' LSTMCell stacks its gates; c is the candidate
MAX_BYTES = 2**31  # more than any oracle file; a longer one is not read


class Oracle(Generator):
    """An LSTM of the generator's kind, never trained (SeqGAN, "Synthetic data")."""

    def __init__(self, vocab_size: int, seq_len: int, emb_dim: int, hidden_dim: int, seed: int, init: str = "glorot"):
        """Makes and initialises the weights.

        `init` is `normal`: every weight from N(0, 1), as the paper has it; or `glorot`: only embedding, output kernel
        and output bias; the LSTM is that of TensorFlow 1, whose kernels are one matrix [E + H, 4H], uniform within
        Glorot's limit, and whose biases are 1 for the forget gate and 0 else. `seed` is the oracle's own, so that runs
        of many seeds can share one oracle.
        """
        purpose = Purpose.ORACLE_INIT
        sizes = vocab_size, seq_len, emb_dim, hidden_dim
        super().__init__(*sizes, seed=seed, purpose=purpose, stddev=1.0)
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
        oracle.set_weights([arrays["embedding"], kernel, recurrent, bias, output, output_bias])
        return oracle


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz file, none unpickled; raises UsageError: missing, damaged, too large, or not of arrays."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())  # zipfile reads no more than it declares
        if size > MAX_BYTES:
            raise ValueError(f"larger than {MAX_BYTES} bytes")
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # a damaged file makes zipfile, zlib and numpy raise many kinds
        raise UsageError(f"--oracle_params {path}: not a readable .npz file ({first_line(error)})") from None


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
