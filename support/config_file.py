"""A run's record of its flags, config.json, and what a later version or command line may have otherwise."""

import dataclasses
import json
import os
from collections.abc import Set
from pathlib import Path
from typing import Any

from support.config import FIELDS, Config, UsageError
from support.presets import PRESETS

CONFIG = "config.json"  # a run's record of its flags, in each of its directories
FORMAT = 3  # of that file; the first had no number. Before 3 some draws were others: runs/identity.py
MAX_CONFIG = 2**20  # characters; one has a few thousand

# Runs outlive versions of the program. A config.json that lacks a flag which was added later means what the program did
# before: the flag's default, unless there is a value here.
BEFORE_ADDED: dict[str, Any] = {"oracle_init": "normal"}
# Flags that are gone: {name: the value with which an older run is still the same run}.
REMOVED: dict[str, Any] = {"mixed_precision": False}
# Flags that a run may be continued or evaluated with another value of: its weights do not depend on them.
FREE_TO_CHANGE = {
    *("preset", "is_train", "overwrite", "debug", "log_dir", "eval_log_dir", "log_generation", "save_media"),
    *("songs_dir", "eval_every", "eval_samples", "d_eval_samples", "candidates", "sample_every"),
    *("checkpoint_every", "keep_checkpoints", "pretrained", "compile_cache"),
}
# May be found elsewhere, if what they hold is recorded and the same.
READ_FROM = {"data_dir", "oracle_params", "objective"}

# What the generator's pretraining does not depend on: runs that differ in nothing else can share it.
AFTER_PRETRAINING = {
    *("pretrain_d", "pretrain_d_epochs", "total_epochs", "g_steps", "d_steps", "d_epochs", "g_lr"),
    *("reward", "kl_weight", "reference_every", "rollout_num", "rollout_lag", "baseline"),
    *("discriminator", "guide_eta", "d_hidden_dim", "d_draws", "g_update"),
    *("d_emb_dim", "d_filter_sizes", "d_num_filters", "dropout_keep_prob", "d_l2", "d_lr", "d_batch_size"),
    *("g_schedule", "d_schedule", "mle_steps", "mle_lr", "objective", "objective_weight"),
}
# Nor do the curves that it leaves depend on what may change, but for what they are measured on. --eval_every says where
# they have points, each of which is the same whatever it is.
UNRELATED_TO_PRETRAINING = AFTER_PRETRAINING | (FREE_TO_CHANGE - {"eval_samples", "sample_every"})


def from_flags(flags: dict[str, Any]) -> Config:
    """The configuration whose fields a config.json, of this version or an older one, holds as `flags`.

    Raises UsageError: a flag is unknown or its value is none, or one that is gone had an effect.
    """
    kept = dict(flags)
    for name, value in REMOVED.items():
        if kept.pop(name, value) != value:
            raise UsageError(f"a run of an older version: --{name} {flags[name]} is no longer possible")
    if unknown := sorted(kept.keys() - FIELDS.keys()):
        raise UsageError(f"a run of another version, with unknown flags: {', '.join(f'--{name}' for name in unknown)}")
    values: dict[str, Any] = {}
    for name, field in FIELDS.items():
        value = kept.get(name, BEFORE_ADDED.get(name, field.default))
        values[name] = tuple(value) if isinstance(value, list) else value
        wanted = type(field.default)
        if type(values[name]) is not wanted and not (wanted is float and type(value) is int):
            raise UsageError(f"--{name}: {value!r} is no value of it")
    return Config(**values)


def read_config(path: Path) -> dict[str, Any]:
    """The content of a config.json, among it `flags`, and `run`, the run's identifier.

    Raises UsageError: the file can't be read, or a newer version of the program wrote it.
    """
    try:
        with open(path, encoding="utf-8") as file:
            content = json.loads(file.read(MAX_CONFIG))
        if not isinstance(content["flags"]["total_epochs"], int) or not isinstance(content["run"], str):
            raise TypeError
        if not isinstance(content.get("data", {}), dict):
            raise TypeError
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise UsageError(f"{path}: not a readable configuration") from None
    if content.get("format", 1) not in range(1, FORMAT + 1):
        raise UsageError(f"{path}: of format {content['format']}, which a newer version of the program wrote")
    return content


def trained(given: dict[str, Any]) -> Config:
    """The configuration to evaluate a run with: its own, and of `given`, the command line's, what may differ from it.

    Raises UsageError: --log_dir holds no run, or a flag contradicts it.
    """
    if given.get("overwrite"):
        raise UsageError("--overwrite and --no-is_train: nothing would be left to evaluate")
    log_dir = (PRESETS[given.get("preset", "default")] | given).get("log_dir", Config.log_dir)
    path = Path(log_dir) / CONFIG
    if not path.is_file():
        raise UsageError(f"--no-is_train: no run to evaluate in --log_dir {log_dir} (there is no {CONFIG})")
    content = read_config(path)
    try:
        recorded = from_flags(content["flags"])
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    config = dataclasses.replace(recorded, **{"overwrite": False, "debug": False, "log_dir": log_dir} | given)
    free = FREE_TO_CHANGE | (READ_FROM if "data" in content else set())
    if differing := differences(recorded, config, free):
        raise UsageError(f"--no-is_train: the run in --log_dir {log_dir} has {'; '.join(differing)}")
    return config


def differences(before: Config, now: Config, free: Set[str]) -> list[str]:
    """The flags, but for those of `free`, in which a configuration differs from that of a run, with both values.

    Two spellings of one path are no difference; with and without --oracle_params is one, whatever `free` says.
    """

    def differs(name: str) -> bool:
        old, new = getattr(before, name), getattr(now, name)
        if name in READ_FROM and old and new:
            return name not in free and os.path.normpath(old) != os.path.normpath(new)
        return old != new and name not in free - READ_FROM

    def shown(value: Any) -> str:
        return " ".join(map(str, value)) if isinstance(value, tuple) else str(value) if value != "" else "none"

    differing = [name for name in sorted(FIELDS) if differs(name)]
    return [f"--{name} {shown(getattr(before, name))}, not {shown(getattr(now, name))}" for name in differing]
