"""What every data set is: real sequences that are read, split, cut into batches and decoded."""

import contextlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from data import checksum
from data.training_set import TrainingData
from generator import Policy, TokenSpec
from runs.directories import CHECKPOINTS, METRICS
from support import own_code
from support.config import Config
from support.config_file import CONFIG
from support.errors import UsageError
from support.registries import DATASETS

MEASURED = {"oracle": ("oracle",), "text": ("vocabulary", "lines"), "music": ("grid", "tunes")}  # beside rows, by kind


class Dataset:
    """Real data. A subclass reads them in its constructor, which gets the `Config`, and sets what stands below."""

    kind = ""  # of data, for which `evaluation/metrics.py` has metrics: oracle, text or music
    spec: TokenSpec  # what sequences are made of
    oracle: Policy | None = None  # the distribution of the real data, where it is known
    origin: str  # where they come from, for messages: the flag and its value
    training: TrainingData  # what training reads
    valid: np.ndarray  # what is used of the validation set, on which training may choose, int32 [n, T]
    test: np.ndarray  # the same of the test set; not where there is an oracle

    def digests(self) -> dict[str, str]:
        """Checksums of the parts of the data, {name of the part: checksum}; recorded with the run.

        Here they are of the sequences; of those that training reads only where --train_size does not choose some.
        """
        parts = {"validation": self.valid, "test": getattr(self, "test", None)}
        if hasattr(self, "training") and not self.training.config.train_size:
            parts["train"] = self.references()
        return {f"sequences of {name}": checksum([rows]) for name, rows in parts.items() if rows is not None}

    def files(self) -> dict[str, str]:
        """What is kept in --log_dir beside the configuration: {file name: content}."""
        return {}

    def decode(self, rows: np.ndarray) -> Sequence[Any]:
        """What an objective is given for sequences, int32 [n, T]: here the token ids, int32 [T] each."""
        return list(rows)

    def introduction(self) -> str:
        """The line a run begins with."""
        return f"{self.origin}: {self.spec.vocab_size} tokens, sequences of {self.spec.seq_len}"

    def mle_batches(self, epoch: int) -> tf.Tensor:
        """What the generator learns from in an epoch of pretraining, int32 [n, B, T]."""
        return self.training.mle_batches(epoch)

    def real(self, step: int) -> tf.Tensor:
        """The real sequences of a d-step, int32 [n, T]; always the same n."""
        return self.training.real(step)

    def references(self) -> np.ndarray:
        """The training set, int32 [n, T]: what the reward BLEU compares with."""
        sequences = self.training.sequences
        return sequences[np.arange(len(sequences))]


def warn_of_held_out(origin: str, known: Mapping[str, Sequence[bool] | np.ndarray]) -> None:
    """Warns of a validation or test set that can't tell what training never saw.

    `origin` is the data's flag and its value; `known` tells of each sequence of `valid` and of `test` whether training
    has it as well, bool [n].
    """
    for split, name in (("valid", "validation"), ("test", "test")):
        if all(known[split]):  # or it has none
            what = f"whole {name} set is in the training set as well"
            what = what if len(known[split]) else f"{name} set is empty; its figures are left out"
            print(f"warning: {origin}: the {what}", file=sys.stderr)


def check_own(data: Dataset, config: Config) -> None:
    """Raises UsageError: a user's own data set lacks a part, or has what is no token or no sequence of the flags."""
    name = f"--dataset {config.dataset}"
    try:
        given: Any = data.spec
        numbers = (*given[:3], given[3] or 0) if isinstance(given, tuple) and len(given) == 4 else ("",)
        if not all(isinstance(each, int | np.integer) for each in numbers):
            raise UsageError(f"{name}: spec is {given!r}, not a TokenSpec of whole numbers")
        ids: Any = (each if each is None else int(each) for each in given)  # NumPy's to Python's
        data.spec = spec = TokenSpec(*ids)
        parts = {"mle_batches": data.mle_batches(0), "valid": data.valid}
        parts |= {} if data.kind == "oracle" else {"test": data.test}
        parts |= {"real": data.real(0)} if config.trains_discriminator and config.updates.d else {}
        parts |= {"training": data.references()} if hasattr(data, "training") else {}
        data.origin, config.reward != "bleu" or data.training  # noqa: B018 - are there
        files: Any = data.files()
        if lacking := [part for part in MEASURED.get(data.kind, ()) if getattr(data, part, None) is None]:
            raise UsageError(f"{name}: kind is {data.kind!r}, whose metrics need {lacking[0]}; leave kind empty")
    except AttributeError as error:
        raise UsageError(f"{name}: {error}") from None
    if not isinstance(files, dict) or not all(isinstance(each, str) for pair in files.items() for each in pair):
        raise UsageError(f"{name}: files are {files!r}, not texts by their names")
    if wrong := [file for file in files if Path(file).name != file or file in (CONFIG, METRICS, CHECKPOINTS, "lock")]:
        raise UsageError(f"{name}: files has {wrong[0]!r}, which is no name of a file of its own in --log_dir")
    if spec.start_token < 0:
        raise UsageError(f"{name}: start_token is {spec.start_token}, which is no token id")
    if spec.seq_len != config.seq_len:
        raise UsageError(f"{name}: sequences of {spec.seq_len} tokens; --seq_len is {config.seq_len}")
    most, batches = spec.vocab_size - (spec.end_token is None), (config.mle_batches, config.batch_size)
    sizes: dict[str, tuple[int, ...]] = {"mle_batches": batches, "real": (config.real_draws,)}
    for part, values in parts.items():
        if part not in sizes and not isinstance(values, np.ndarray):
            raise UsageError(f"{name}: {part} is a {type(values).__name__}, not a NumPy array")
        rows = np.asarray(values)
        shape = sizes.get(part, (len(rows),) if rows.ndim else ())
        if rows.dtype != np.int32 or rows.shape != (*shape, spec.seq_len):
            wanted = [*sizes.get(part, "n"), spec.seq_len]
            what = f"{rows.dtype} {list(rows.shape)}, not int32 [{', '.join(map(str, wanted))}]"
            raise UsageError(f"{name}: {part} is {what}")
        if rows.size and (rows.min() < 0 or rows.max() > most):
            raise UsageError(f"{name}: {part} has token ids from {rows.min()} to {rows.max()}, not from 0 to {most}")
        ends = rows == (-1 if spec.end_token is None else spec.end_token)
        if np.any((np.cumsum(ends, axis=-1) - ends > 0) != (rows == spec.vocab_size)):
            raise UsageError(f"{name}: {part} has not the padding {most} after each end token {spec.end_token}, alone")
    digests: Any = data.digests()
    if not isinstance(digests, dict) or not all(isinstance(each, str) for pair in digests.items() for each in pair):
        raise UsageError(f"{name}: digests are {digests!r}, not texts by the names of what was read")


def read_data(config: Config, recorded: dict[str, str] | None = None) -> Dataset:
    """The data that --dataset names, of the registry or a user's own.

    Where `recorded`, the checksums of a run, are those of text as version 1.0 had read it, it is read like that.
    Raises UsageError, OSError: it can't be used.
    """
    own = own_code.is_own(config.dataset)
    kind: Any = own_code.load("--dataset", config.dataset) if own else DATASETS[config.dataset].load()
    fits = isinstance(kind, type) and issubclass(kind, Dataset)
    if not fits:
        raise UsageError(f"--dataset {config.dataset}: not a subclass of data.real.Dataset")
    path = config.dataset.rpartition(":")[0]
    with own_code.blamed("--dataset", path) if own else contextlib.nullcontext():
        data = kind(config)
    if own:
        check_own(data, config)
        data.decode = own_code.blamed("--dataset", path)(data.decode)
    spec = data.spec
    if spec.end_token is not None and spec.start_token in (spec.end_token, spec.vocab_size):
        what = "end_token" if spec.start_token == spec.end_token else "padding where sequences end early"
        what = f"start_token is {spec.start_token}, which is {what}; {spec.vocab_size + 1} is free"
        raise UsageError(f"--dataset {config.dataset}: {what}")
    if config.dataset == "text" and recorded and data.digests() != recorded:
        before = kind(config, as_version_1=True)
        return before if before.digests() == recorded else data
    return data
