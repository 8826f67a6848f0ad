"""A run's record of its flags, config.json, and what a later version or command line may have otherwise."""

import dataclasses
import json
import os
from collections.abc import Set
from pathlib import Path
from typing import Any

from support.config import FIELDS, OWN_CODE, RATES, Config, lacking, shown
from support.errors import UsageError
from support.own_code import is_own, read_source
from support.presets import PRESETS

CONFIG = "config.json"  # a run's record of its flags, in each of its directories
FORMAT = 4  # of that file
PUBLISHED = "published"  # true in that of weights alone, see tools/publish.py
VERSION_1 = 3  # that which version 1.0 wrote, the oldest that is read: before it some draws were others
MAX_CONFIG = 2**26  # characters; one has a few thousand, and more with the checksums of many files

# Flags that a run may be continued or evaluated with another value of: its weights do not depend on them.
FREE_TO_CHANGE = {
    *("preset", "is_train", "overwrite", "log_dir", "eval_log_dir", "log_generation", "songs_dir"),
    *("eval_every", "eval_samples", "d_eval_samples", "candidates", "sample_every", "checkpoint_every", "pretrained"),
}
READ_FROM = {"data_dir", "oracle_params", "objective", "teacher"}  # may be elsewhere: what they hold is on record

# What the generator's pretraining does not depend on: runs that differ in nothing else can share it.
AFTER_PRETRAINING = {
    *("pretrain_d_epochs", "total_epochs", "g_steps", "d_steps", "d_epochs", "g_lr", "mle_steps", "cosine_decay"),
    *("reward", "kl_weight", "rollout_num", "rollout_lag", "baseline", "objective", "objective_weight", "g_update"),
    *("discriminator", "guide_eta", "d_hidden_dim", "d_draws", "d_emb_dim", "d_filter_sizes", "d_num_filters"),
    *("dropout_keep_prob", "d_l2", "d_lr", "d_batch_size", "d_loss", "d_lags", "d_init", "distil_real", "teacher"),
}
# Nor do the curves that it leaves depend on what may change, but for what they are measured on. --eval_every says where
# they have points, each of which is the same whatever it is.
UNRELATED_TO_PRETRAINING = AFTER_PRETRAINING | (FREE_TO_CHANGE - {"eval_samples", "sample_every"})


def from_flags(flags: dict[str, Any]) -> Config:
    """The configuration whose fields a config.json, of this version or of 1.0, holds as `flags`.

    Raises UsageError: a flag is unknown or its value is none. One that is gone may have had an effect, see `lost_flag`.
    """
    kept = flags if "cosine_decay" in flags else of_version_1(flags)
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


# Flags of version 1.0 that are gone: of training, with what the program does now, and those that had no effect on it.
GONE: dict[str, Any] = {"split_seed": 0, "reference_every": 0, "grad_clip": 5.0}
WITHOUT_EFFECT = ("mle_lr", "save_media", "tf32", "pretrain_d", "compile_cache", "keep_checkpoints", "debug")


def lost_flag(flags: dict[str, Any]) -> str:
    """The flag of a run of version 1.0 without which it can't go on training, with its value; "" if there is none."""
    same_as = GONE | ({"mle_lr": flags.get("g_lr")} if flags.get("mle_steps") and flags.get("total_epochs") else {})
    return next((f"--{name} {flags[name]}" for name, now in same_as.items() if flags.get(name, now) != now), "")


def of_version_1(flags: dict[str, Any]) -> dict[str, Any]:
    """The flags of a run of version 1.0 by their names of today."""
    kept = {name: value for name, value in flags.items() if name not in GONE}
    schedules = {rate: kept.pop(f"{rate}_schedule", "constant") for rate in RATES}
    kept["cosine_decay"] = tuple(rate for rate, schedule in schedules.items() if schedule == "cosine")
    beats, seconds = kept.pop("frame_beats", 0.0), kept.pop("frame_seconds", 0.4)
    kept["token_length"] = f"{beats:g}beats" if beats else f"{seconds:g}s"
    kept["log_generation"] = kept.get("log_generation", False) or kept.get("save_media", False)
    kept["deterministic"] = kept.get("deterministic", True) and not kept.get("tf32", False)
    additive = kept.get("discriminator") in ("bigram", "lstm")
    if not (kept.get("total_epochs", 1) or kept.get("pretrain_d") or additive):
        kept["pretrain_d_epochs"] = 0
    return {name: value for name, value in kept.items() if name not in WITHOUT_EFFECT}


def read_config(path: Path, published: bool = False) -> dict[str, Any]:
    """A config.json: `flags`, `run`, the identifier of the run, `data`, checksums of what it reads, and more.

    Raises UsageError: the file can't be read, or a version older than 1.0 or a newer one than this wrote it. Or it is
    one of tools/publish.py, and not asked for by `published`.
    """
    try:
        with open(path, encoding="utf-8") as file:
            content = {"data": {}, **json.loads(file.read(MAX_CONFIG))}
        kinds = (content["flags"]["total_epochs"], int), (content["run"], str), (content["data"], dict)
        if not all(isinstance(value, kind) for value, kind in (*kinds, (content.get("files", []), list))):
            raise TypeError
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise UsageError(f"{path}: not a readable configuration") from None
    if (found := content.get("format", 1)) in range(VERSION_1):
        raise UsageError(f"{path}: of format {found}, of a version before 1.0, whose runs are no longer read")
    if found not in range(FORMAT + 1):
        raise UsageError(f"{path}: of format {found}, which a newer version of the program wrote")
    if content.get(PUBLISHED) and not published:
        raise UsageError(f"{path}: of published weights, from which samples are drawn and nothing is trained")
    return content


def read_same(content: dict[str, Any], digests: dict[str, str], config: Config) -> bool:
    """Whether the run of a config.json has read data with these checksums, those of a configuration.

    Where there is no record of a user's own data, their code tells. Raises UsageError: it can't be read.
    """
    if content["data"] or not is_own(config.dataset):
        return content["data"] == digests
    return content.get("dataset") == read_source("--dataset", config.dataset)


def trained(given: dict[str, Any]) -> Config:
    """A run's own flags, and of those `given` what may differ; raises UsageError: there is none, or one contradicts."""
    if given.get("overwrite"):
        raise UsageError("--overwrite and --no-is_train: nothing would be left to evaluate")
    log_dir = (PRESETS[given.get("preset", "default")] | given).get("log_dir", Config.log_dir)
    path = Path(log_dir) / CONFIG
    if not os.path.isfile(path):
        raise UsageError(f"--no-is_train: no run to evaluate in --log_dir {log_dir} (there is no {CONFIG})")
    content = read_config(path)
    try:
        recorded = from_flags(content["flags"])
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    config = dataclasses.replace(recorded, **{"overwrite": False, "log_dir": log_dir} | given)
    if differing := differences(recorded, config, FREE_TO_CHANGE):
        raise UsageError(f"--no-is_train: the run in --log_dir {log_dir} has {'; '.join(differing)}")
    return config


def pretraining_part(config: Config, unrelated: Set[str] = UNRELATED_TO_PRETRAINING) -> Config:
    """A configuration as far as the generator's pretraining depends on it; the `unrelated` rest has its defaults."""
    kept = {"eval_every"} if config.best_pretraining else set()  # decides which epoch is the best
    rest: dict[str, Any] = {name: FIELDS[name].default for name in unrelated - kept}
    decays = tuple(rate for rate in config.cosine_decay if rate == "g_pretrain")
    return dataclasses.replace(config, **rest | {"cosine_decay": decays})


def differences(before: Config, now: Config, free: Set[str] = frozenset()) -> list[str]:
    """The flags but `free` that differ, with both values; other spellings, or places of what is on record, do not."""

    def differs(name: str) -> bool:
        old, new = getattr(before, name), getattr(now, name)
        if name in READ_FROM:
            return bool(old) != bool(new)
        if name in OWN_CODE and is_own(old) and is_own(new):  # their code is on record, too
            return False
        if name == "cosine_decay":
            used = {rate for rate in RATES if not lacking(before, f"{rate}_lr") or not lacking(now, f"{rate}_lr")}
            return bool(used & (set(old) ^ set(new)))
        return old != new and name not in free and not (name == "token_length" and before.frame == now.frame)

    differing = [name for name in sorted(FIELDS) if differs(name)]
    return [f"--{name} {shown(getattr(before, name))}, not {shown(getattr(now, name))}" for name in differing]
