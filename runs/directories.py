"""A run's directories: locked while it runs, claimed by its configuration, and written so as to survive a crash."""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from support import config_file
from support.config import FIELDS, VOCABULARY, Config, lacking
from support.config_file import CONFIG, FREE_TO_CHANGE, differences, from_flags, read_config
from support.errors import UsageError
from support.own_code import is_own

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

CHECKPOINTS, METRICS = "checkpoints", "metrics.csv"
MEDIA, TEMPO = "media", "tempo.json"
TAKEN = "another process is using it"
PRETRAINED = "pretrained"  # the mark of the checkpoint at the end of the generator's pretraining
# What runs on music leave, or samples of them.
SONG, MEDIUM = re.compile(r"sample\d+\.(mid|abc)|tunes\.(abc|html)"), re.compile(r"epoch\d+_.*\.(png|wav)")
WRITTEN_SONGS = ".samples.sha256"  # in a folder of songs: what was written there, as `sha256sum` lists files
SONGS = tuple(f"sample{i}.mid" for i in range(5))  # that such a run leaves in its --log_dir
# What runs on a data set leave in --log_dir beside what every run does.
WRITTEN: dict[str | None, tuple[str, ...]] = {"text": (VOCABULARY,), "Nottingham": (TEMPO, *SONGS)}
# A run's files, which no tool's output replaces.
OWN = {CONFIG, METRICS, "lock", VOCABULARY, TEMPO, WRITTEN_SONGS, *SONGS}
EVENTS = re.compile(r"events\.out\.tfevents\.\d+\.(seqgan|hparams)")  # files of runs/logs.py; once hparams, too
FILES = "files"  # in config.json: what the data set keeps in --log_dir
SAVED = "saved"  # in config.json: whether the run has written a checkpoint
MANIFEST = "manifest.txt"  # in a checkpoint's directory: its own checksum, then a line of JSON
MAX_MANIFEST = 2**24  # bytes; one of a long run has thousands
CHECKSUM = "sha256"  # in a position: of metrics.csv
STEP = re.compile(r"step-\d{9}")  # a checkpoint's directory: the number of steps taken


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Gives an OSError that names no file, as those of writing to an open one, the name `path`."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def fsync(path: Path) -> None:
    """Waits until a file's content, or a directory's entries, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with naming(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the lock of a folder, once other processes have let it go; where the system has none, nothing is held."""
    if not fcntl:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file (text: UTF-8) whole or not at all: to disk, then renamed; a link or a device in place."""
    written = content.encode() if isinstance(content, str) else content
    if path.is_symlink() or (path.exists() and not path.is_file()):  # /dev/stdout is both
        with naming(path):
            path.write_bytes(written)
        return
    partial = path.with_name(f".{path.name}.partial")
    try:
        with naming(partial), open(partial, "wb") as file:
            file.write(written)
        fsync(partial)
        os.replace(partial, path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)
        raise
    fsync(path.parent)


def spare(output: Path | None) -> None:
    """Raises UsageError: an output would replace a file of a run, such as its config.json, or be its --log_dir."""
    place = Path(os.path.realpath(output)) if output else Path()
    if output and (place / CONFIG).is_file():
        raise UsageError(f"{output}: a run is there; name another folder")
    own = (place.parent / CONFIG).is_file() and (place.name in OWN or EVENTS.fullmatch(place.name))
    saved = any(folder.name == CHECKPOINTS and (folder.parent / CONFIG).is_file() for folder in (place, *place.parents))
    if output and (own or saved):
        raise UsageError(f"{output}: a run's own file; name another")


def sha256_of(content: bytes) -> str:
    """The SHA-256 of a content, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def written_songs(folder: Path) -> dict[str, str]:
    """The songs in a folder that this program wrote and nobody changed since: {name: digest}; raises OSError."""
    path = folder / WRITTEN_SONGS
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    known = {(line[66:], line[:64]) for line in lines if SONG.fullmatch(line[66:]) and (folder / line[66:]).is_file()}
    return {name: digest for name, digest in known if sha256_of((folder / name).read_bytes()) == digest}


def record_files(directory: Path) -> list[Path]:
    """metrics.csv and the event files of a directory, as this program names them."""
    return sorted(path for path in directory.iterdir() if path.name == METRICS or EVENTS.fullmatch(path.name))


def holds_evaluations(directory: Path) -> bool:
    """Whether a run's directory is an --eval_log_dir, by what is measured there."""
    path = directory / METRICS
    return path.is_file() and "nll" in path.read_text(encoding="utf-8", errors="replace").partition("\n")[0]


def lost_weights(directory: Path, recorded: dict[str, Any]) -> str:
    """Why a run, by its config.json, has lost its checkpoints, in words; "" where it may not have come so far."""
    if holds_evaluations(directory):
        its = recorded["flags"].get("log_dir", "unknown")
        return f"the evaluations of a run; its weights are in its --log_dir, {its}"
    if recorded.get(SAVED):
        return f"a run whose weights are gone: no checkpoint is left in {directory / CHECKPOINTS}"
    return ""


def evaluations_of(log_dir: Path) -> Path:
    """The --eval_log_dir of the run in a --log_dir; both may have been moved, together or one beside the other.

    Raises UsageError: there is no run, or its evaluations are not found.
    """
    content = read_config(log_dir / CONFIG)
    flags = from_flags(content["flags"])
    recorded = Path(flags.eval_log_dir)
    together = Path(os.path.normpath(log_dir / os.path.relpath(recorded, flags.log_dir)))
    for place in (together, log_dir.parent / recorded.name, recorded):
        with contextlib.suppress(UsageError):
            its = (place / METRICS).is_file() and read_config(place / CONFIG)["run"] == content["run"]
            if its and not place.samefile(log_dir):
                return place
    raise UsageError(f"{log_dir}: no evaluations of this run, neither in {together} nor in {recorded}")


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints in a folder, good or damaged ones, oldest first."""
    return sorted(path for path in folder.glob("step-*") if STEP.fullmatch(path.name))


def steps_taken(log_dir: Path) -> int:
    """How many steps the newest checkpoint of a run has behind it; 0 where there is none."""
    return max((int(path.name[5:]) for path in checkpoints_in(log_dir / CHECKPOINTS)), default=0)


def read_manifest(checkpoint: Path) -> dict[str, Any]:
    """A checkpoint's `step`, `sha256` of its files, and `details`; raises ValueError: it is damaged; raises OSError."""
    with open(checkpoint / MANIFEST, encoding="utf-8") as file:
        checksum, _, content = file.read(MAX_MANIFEST).partition("\n")
    if sha256_of(content.encode()) != checksum:
        raise ValueError(f"{MANIFEST} differs from its checksum")
    return json.loads(content)


def sizes_at(directory: Path, position: dict[str, Any], advice: str = "; --overwrite starts afresh") -> dict[str, int]:
    """How long each file of a directory was at a position, {file name: bytes}.

    Raises UsageError: a file is shorter now, or metrics.csv does not begin with the rows that were written until then.
    Raises OSError: one can't be read.
    """
    sizes = {name: size for name, size in position.items() if name != CHECKSUM}
    for name, size in sizes.items():
        path = directory / Path(name).name
        if not path.is_file() or path.stat().st_size < size:
            raise UsageError(f"{path}: missing or cut short since the last checkpoint{advice}")
        if name == METRICS and sha256_of(path.read_bytes()[:size]) != position.get(CHECKSUM):
            raise UsageError(f"{path}: rows or line ends changed since the last checkpoint; restore it{advice}")
    return sizes


class RunDirectory(contextlib.AbstractContextManager["RunDirectory"]):
    """A directory that one run, and one process at a time, may write to."""

    def __init__(self, path: str, flag: str, make: bool = True):
        """Locks the directory until it is left, or until this process ends, however it ends.

        `flag` named it, for messages; `make`: make it where it is missing. Raises UsageError: it can't be written, or
        another process holds it.
        """
        self.path, self.flag = Path(path), flag
        self._made: list[Path] = []  # by this process, deepest first; not to stay where the command is refused
        self._used = False
        if not fcntl:
            raise UsageError("training needs Linux, macOS or WSL: this system's Python has no fcntl")
        try:
            if make:
                self._made = [each for each in (self.path, *self.path.parents) if not os.path.lexists(each)]
                self.path.mkdir(parents=True, exist_ok=True)
            self._take_lock()
        except BlockingIOError:
            raise UsageError(f"{flag} {path}: {TAKEN}") from None
        except OSError as error:
            self._unmake()
            raise UsageError(f"{flag} {path}: {error.strerror}") from None

    def _take_lock(self) -> None:
        path = self.path / "lock"
        while True:
            made = not os.path.lexists(path)
            self._lock = open(path, "a", encoding="utf-8")
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.exists(path) and os.path.samestat(os.stat(path), os.fstat(self._lock.fileno())):
                    break
            except BlockingIOError:
                self._lock.close()
                raise
            self._lock.close()  # the process that had made it was refused, and has removed it
        if made:
            self._made.insert(0, path)

    def _unmake(self) -> None:
        """Removes what this process made, as far as it is empty."""
        with contextlib.suppress(OSError):
            for path in self._made:
                path.unlink() if path.name == "lock" and not path.is_dir() else path.rmdir()

    def recorded(self, damaged: bool = False) -> dict[str, Any]:
        """The config.json of the run whose records the directory holds, {} where it holds none.

        Raises UsageError: the run is unknown; {} where it may be `damaged`, and checkpoints or event files show it.
        """
        path, names = self.path / CONFIG, os.listdir(self.path)
        ours = any(EVENTS.fullmatch(name) for name in names) or bool(checkpoints_in(self.path / CHECKPOINTS))
        try:
            if path.exists():
                return read_config(path)
            foreign = any((self.path / CHECKPOINTS).glob("step-*"))
            if ours or foreign or any(name == METRICS or ".tfevents." in name for name in names):
                raise UsageError(f"{self.flag} {self.path}: holds records of an unknown run")
        except UsageError as error:
            if not (damaged and ours):
                advice = "--overwrite starts afresh" if ours else f"choose another {self.flag}"
                raise UsageError(f"{error}; {advice}") from None
        return {}

    def describe(self, described: dict[str, Any]) -> None:
        """Writes config.json; from then on the directory is this run's. Raises OSError: it can't be written."""
        self._used = True
        write_whole(self.path / CONFIG, json.dumps(described, indent=2) + "\n")

    def note_saved(self, saved: bool) -> None:
        """Writes down in config.json, where there is one, whether the run has written a checkpoint; raises OSError."""
        with contextlib.suppress(UsageError):
            self.describe(read_config(self.path / CONFIG) | {SAVED: saved})

    def check(
        self, run: dict[str, Any], origin: str, sums: dict[str, str], files: dict[str, str], songs: Iterable[str] = ()
    ) -> None:
        """Makes sure that a run reads what it has always read.

        `run` is its config.json, {} for a new one. `origin` is the flag and the file that it reads; `sums` are
        checksums of the parts of what it read now, and `files` what it keeps in this directory, {name: content}; it
        also writes `songs`. Raises UsageError: something differs, or a new run would write over a file that is no
        run's. Raises OSError: one can't be read.
        """
        place = f"{self.flag} {self.path}"
        there = {name: content for name, content in files.items() if (self.path / name).exists()}
        other = (name for name, content in there.items() if (self.path / name).read_bytes() != content.encode())
        if not run:
            for name in (*other, *songs):
                if (self.path / name).exists() and self.path / name not in self.written():
                    raise UsageError(f"{place}: {name} there is no run's; choose another {self.flag}")
            return
        before = run["data"]
        changed = sorted(name for name in before.keys() | sums.keys() if before.get(name) != sums.get(name))
        if before and changed:  # of a user's own data there may be no record
            what = f"{' and '.join(changed)} changed since the run in {place} began"
            raise UsageError(f"{origin}: {what}; choose another directory, or --overwrite")
        for name in other:
            raise UsageError(f"{self.path / name}: of other data than {origin} has now; --overwrite starts afresh")

    def check_code(self, recorded: dict[str, Any], sources: dict[str, dict[str, str]]) -> None:
        """Raises UsageError: a user's own code, {flag: source}, is not that which the run has on record, if any."""
        for flag, source in sources.items():
            if recorded.get(flag, source) != source:
                what = f"the code of {source['function']} changed since the run in {self.flag} {self.path} began"
                advice = f"choose other directories (--pretrained {self.path} keeps its pretraining), or --overwrite"
                raise UsageError(f"--{flag}: {what}, whose {CONFIG} has it as it was; {advice}")

    def wipe(self) -> None:
        """Removes the records of an earlier run, and nothing else. Raises OSError: one can't be removed.

        What its data set has not written stays; all of that where config.json, which names it, can't be read.
        """
        media, kept = self.path / MEDIA, self.written()
        # The configuration last: it tells whose the others are.
        for path in [*record_files(self.path), *kept, self.path / CONFIG]:
            path.unlink(missing_ok=True)
        if any(path.parent == media for path in kept) and not any(media.iterdir()):
            media.rmdir()

    def written(self) -> list[Path]:
        """What the data set of the run in a --log_dir has written there; [] where config.json can't be read.

        Songs that somebody has changed are left out, where there is a record of them; version 1.0 kept none.
        """
        kept: list[Path] = []
        with contextlib.suppress(UsageError):
            content = read_config(self.path / CONFIG) if self.flag == "--log_dir" else {"flags": {}}
            names = [*content.get(FILES, WRITTEN.get(content["flags"].get("dataset"), ()))]
            if (self.path / WRITTEN_SONGS).exists():
                names = [name for name in names if name not in SONGS] + [*written_songs(self.path), WRITTEN_SONGS]
            kept = [self.path / Path(name).name for name in names]
            if any(name in names for name in (TEMPO, WRITTEN_SONGS)):
                kept += [path for path in (self.path / MEDIA).glob("*") if MEDIUM.fullmatch(path.name)]
        return kept

    def __exit__(self, *_: object) -> None:
        """Lets the next process in; what was made for nothing goes."""
        if not self._used:
            self._unmake()
        self._lock.close()


def claim(directories: list[RunDirectory], config: Config) -> tuple[dict[str, Any], Config]:
    """Makes sure that directories hold one run, this configuration's, or nothing; writes nothing.

    With --overwrite it may be of any configuration, but it is one: another run's records are not removed. Returns the
    run's config.json, {} where there is none yet or --overwrite, and the configuration: with the run's own values of
    flags without effect, which may be a network's that is not used. Raises UsageError: they hold something else, or a
    run whose weights are gone.
    """
    first, *others = directories
    content, *found = [directory.recorded(damaged=config.overwrite) for directory in directories]
    place, advice = f"{first.flag} {first.path}", "choose another directory, or --overwrite"
    if content and holds_evaluations(first.path):
        raise UsageError(f"{place}: holds {lost_weights(first.path, content)}; choose another {first.flag}")
    for other, its in zip(others, found, strict=True):
        if its and its["run"] != content.get("run"):
            its_run = f"run {its['run'][:6]} of --log_dir {its['flags'].get('log_dir', 'unknown')}"
            what = f"holds records of another run than {place}, {its_run}; choose another {other.flag}"
            raise UsageError(f"{other.flag} {other.path}: {what}")
    kept = first.path / CHECKPOINTS
    if not content and not checkpoints_in(kept) and (kept.is_file() or (kept / "partial").exists()):
        raise UsageError(f"{place}: {CHECKPOINTS} there is no run's; choose another {first.flag}")
    if config.overwrite:
        return {}, config
    if content and not checkpoints_in(first.path / CHECKPOINTS) and (lost := lost_weights(first.path, content)):
        raise UsageError(f"{place}: holds {lost}" + (f"; bring them back, {advice}" if config.is_train else ""))
    if content:
        try:
            before = from_flags(content["flags"])
        except UsageError as error:
            raise UsageError(f"{first.path / CONFIG}: {error}; --overwrite starts afresh") from None
        if config.is_train and (gone := config_file.lost_flag(content["flags"])):
            raise UsageError(f"{place}: holds a run of version 1.0 with {gone}, which is no longer possible; {advice}")
        config = dataclasses.replace(config, **{name: getattr(before, name) for name in in_vain(before, config)})
        if differing := differences(before, config, changeable(first.path, before, config)):
            decays = config.cosine_decay and "_epochs" in " ".join(differing)
            why = " (cosine learning-rate decay spans all epochs: another number is another run)" if decays else ""
            part = config_file.pretraining_part
            if not differences(part(before), part(config)) and 0 < before.pretrain_g_epochs <= steps_taken(first.path):
                advice = f"choose another directory, with --pretrained {first.path} for its pretraining, or --overwrite"
            raise UsageError(f"{place}: holds a run with {'; '.join(differing)}{why}; {advice}")
        config = dataclasses.replace(config, cosine_decay=before.cosine_decay)
    for other, its in zip(others, found, strict=True):
        if not its and steps_taken(first.path):
            raise UsageError(f"{other.flag} {other.path}: holds no records of the run in {place}")
    return content, config


def in_vain(before: Config, now: Config) -> set[str]:
    """The flags that have no effect in either of two configurations."""
    if is_own(before.discriminator):  # whose file may be elsewhere now
        before = dataclasses.replace(before, discriminator=now.discriminator)
    return {name for name in FIELDS if lacking(before, name) and lacking(now, name)}


def changeable(log_dir: Path, before: Config, now: Config) -> set[str]:
    """The flags that the run in a --log_dir, which was begun `before`, may be continued with other values of."""
    free, taken = FREE_TO_CHANGE | in_vain(before, now), steps_taken(log_dir)
    free -= {"candidates"} if (now if is_own(before.discriminator) else before).best_of_candidates else set()
    # More epochs are more of the same, unless a rate falls over them or a checkpoint has a place for each.
    longer = now.total_epochs >= before.total_epochs and now.g_update != "fold"
    spanning = {"g", "d"} & set(now.cosine_decay)
    spanning -= set() if now.trains_discriminator and now.d_steps else {"d"}
    if longer and not (spanning and (before.total_epochs or ("d" in spanning and taken > before.pretrain_g_epochs))):
        free.add("total_epochs")
        if taken <= before.pretrain_g_epochs and not before.pretrain_d_epochs:
            free.add("pretrain_d_epochs")  # 0 unless given where no adversarial phase was to follow
    free -= {"eval_every"} if before.best_pretraining else set()  # chose among these, as --pretrained checks
    most = before.pretrain_g_epochs - bool(before.average or before.best_pretraining)  # steps, before these act
    longer = now.pretrain_g_epochs >= before.pretrain_g_epochs and "g_pretrain" not in now.cosine_decay
    return free | ({"pretrain_g_epochs"} if longer and taken <= most else set())
