"""A run's record of its flags, config.json, and what a later version or command line may have otherwise."""

import dataclasses
import json
import os
from collections.abc import Set
from pathlib import Path
from typing import Any

from support.config import FIELDS, RATES, Config
from support.errors import UsageError
from support.presets import PRESETS

CONFIG = "config.json"  # a run's record of its flags, in each of its directories
FORMAT = 4  # of that file; version 1.0 wrote 3, before which some draws were others
MAX_CONFIG = 2**20  # characters; one has a few thousand

# Flags that a run may be continued or evaluated with another value of: its weights do not depend on them.
FREE_TO_CHANGE = {
    *("preset", "is_train", "overwrite", "log_dir", "eval_log_dir", "log_generation", "songs_dir"),
    *("eval_every", "eval_samples", "d_eval_samples", "candidates", "sample_every", "checkpoint_every", "pretrained"),
}
# May be found elsewhere, if what they hold is recorded and the same.
READ_FROM = {"data_dir", "oracle_params", "objective", "reward", "discriminator"}

# What the generator's pretraining does not depend on: runs that differ in nothing else can share it.
AFTER_PRETRAINING = {
    *("pretrain_d_epochs", "total_epochs", "g_steps", "d_steps", "d_epochs", "g_lr", "mle_steps", "cosine_decay"),
    *("reward", "kl_weight", "rollout_num", "rollout_lag", "baseline", "objective", "objective_weight", "g_update"),
    *("discriminator", "guide_eta", "d_hidden_dim", "d_draws", "d_emb_dim", "d_filter_sizes", "d_num_filters"),
    *("dropout_keep_prob", "d_l2", "d_lr", "d_batch_size"),
}
# Nor do the curves that it leaves depend on what may change, but for what they are measured on. --eval_every says where
# they have points, each of which is the same whatever it is.
UNRELATED_TO_PRETRAINING = AFTER_PRETRAINING | (FREE_TO_CHANGE - {"eval_samples", "sample_every"})


def from_flags(flags: dict[str, Any]) -> Config:
    """The configuration whose fields a config.json, of this version or of 1.0, holds as `flags`.

    Raises UsageError: a flag is unknown or its value is none, or one that is gone had an effect.
    """
    kept = dict(flags)
    if "cosine_decay" not in kept:
        kept = of_version_1(kept)
    if unknown := sorted(kept.keys() - FIELDS.keys()):
        raise UsageError(f"a run of another version, with unknown flags: {', '.join(f'--{name}' for name in unknown)}")
    values: dict[str, Any] = {}
    for name, field in FIELDS.items():
        value = kept.get(name, field.default)
        values[name] = tuple(value) if isinstance(value, list) else value
        wanted = type(field.default)
        if type(values[name]) is not wanted and not (wanted is float and type(value) is int):
            raise UsageError(f"--{name}: {value!r} is no value of it")
    return Config(**values)


# Flags of version 1.0 that are gone, with the values that mean what the program does now.
GONE: dict[str, Any] = {"split_seed": 0, "reference_every": 0, "grad_clip": 5.0}


def of_version_1(flags: dict[str, Any]) -> dict[str, Any]:
    """The flags of a run of version 1.0 by their names of today.

    Raises UsageError: one that is gone had an effect.
    """
    kept = dict(flags)
    for name, value in GONE.items():
        if kept.pop(name, value) != value:
            raise UsageError(f"a run of version 1.0: --{name} {flags[name]} is no longer possible")
    if kept.get("mle_steps") and kept.get("mle_lr") != kept.get("g_lr"):
        raise UsageError(f"a run of version 1.0: --mle_lr {kept['mle_lr']} other than --g_lr is no longer possible")
    schedules = {rate: kept.pop(f"{rate}_schedule", "constant") for rate in RATES}
    kept["cosine_decay"] = tuple(rate for rate, schedule in schedules.items() if schedule == "cosine")
    beats, seconds = kept.pop("frame_beats", 0.0), kept.pop("frame_seconds", 0.4)
    kept["token_length"] = f"{beats!r}beats" if beats else f"{seconds!r}s"
    kept["log_generation"] = kept.get("log_generation", False) or kept.get("save_media", False)
    kept["deterministic"] = kept.get("deterministic", True) and not kept.get("tf32", False)
    additive = kept.get("discriminator") in ("bigram", "lstm")
    if not (kept.get("total_epochs", 1) or kept.get("pretrain_d") or additive):
        kept["pretrain_d_epochs"] = 0
    for name in ("mle_lr", "save_media", "tf32", "pretrain_d", "compile_cache", "keep_checkpoints", "debug"):
        kept.pop(name, None)
    return kept


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
    config = dataclasses.replace(recorded, **{"overwrite": False, "log_dir": log_dir} | given)
    free = FREE_TO_CHANGE | (READ_FROM if "data" in content else set())
    if differing := differences(recorded, config, free):
        raise UsageError(f"--no-is_train: the run in --log_dir {log_dir} has {'; '.join(differing)}")
    return config


def pretraining_part(config: Config, unrelated: Set[str] = UNRELATED_TO_PRETRAINING) -> Config:
    """A configuration as far as the generator's pretraining depends on it; the `unrelated` rest has its defaults."""
    rest: dict[str, Any] = {name: FIELDS[name].default for name in unrelated}
    decays = tuple(rate for rate in config.cosine_decay if rate == "g_pretrain")
    return dataclasses.replace(config, **rest | {"cosine_decay": decays})


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
