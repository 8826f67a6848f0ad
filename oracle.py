"""The oracle: a fixed random LSTM whose samples are the real data, so that their true density is known."""

from pathlib import Path

import keras
import numpy as np
from numpy.lib.npyio import NpzFile

from generator import Generator
from support.errors import UsageError, first_line
from support.seeds import Purpose, variable_seed

GATES = "ifco"  # the order in which Keras' LSTMCell stacks its gates; c is the candidate


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
        try:
            with open(path, "rb") as file, NpzFile(file, allow_pickle=False) as archive:
                embedding, hidden_dim = read(archive, "embedding", None, None), len(read(archive, "b_i", None))
                vocab_size, emb_dim = embedding.shape

                def stacked(letter: str, *shape: int) -> np.ndarray:
                    return np.concatenate([read(archive, f"{letter}_{gate}", *shape) for gate in GATES], axis=-1)

                kernel, recurrent = stacked("W", emb_dim, hidden_dim), stacked("U", hidden_dim, hidden_dim)
                output = read(archive, "W_out", hidden_dim, vocab_size), read(archive, "b_out", vocab_size)
                weights = [embedding, kernel, recurrent, stacked("b", hidden_dim), *output]
        except OSError as error:
            raise UsageError(f"--oracle_params {path}: {error.strerror or first_line(error)}") from None
        except Exception as error:  # a damaged file makes zipfile, zlib and numpy raise many kinds
            raise UsageError(f"--oracle_params {path}: not an oracle's .npz file ({first_line(error)})") from None
        oracle = cls(vocab_size, seq_len, emb_dim, hidden_dim, seed=0)
        oracle.set_weights(weights)
        return oracle


def read(archive: NpzFile, name: str, *shape: int | None) -> np.ndarray:
    """The array `name` of an .npz file as float32; in `shape` None stands for any size but 0.

    Raises ValueError: it is missing, or its type, shape or values are wrong.
    """
    if name not in archive:
        raise ValueError(f"array {name} is missing")
    array = np.asarray(archive[name])
    fits = array.ndim == len(shape) and array.size
    if not fits or any(want not in (None, have) for want, have in zip(shape, array.shape, strict=True)):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"array {name} has shape {list(array.shape)}, not [{wanted}]")
    with np.errstate(over="ignore"):  # what float32 can't hold becomes infinite
        converted = array.astype(np.float32) if array.dtype.kind == "f" else None
    if converted is None or not np.isfinite(converted).all():
        raise ValueError(f"array {name} must hold finite floating-point numbers")
    return converted
