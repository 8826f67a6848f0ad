"""The command line: read into a configuration, and written from one."""

import argparse
import contextlib
import difflib
import math
import os
import platform
import re
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from support.config import FIELDS, SECTIONS, Config, check, check_effect, discriminator_entry, shown
from support.config_file import trained
from support.errors import UsageError, first_line
from support.own_code import forget, is_own
from support.presets import PRESETS, UPDATE_DEFAULTS

EPILOG = """an example, a minute on two cores:
  python main.py --preset quick
  tensorboard --logdir logs/eval

README.md leads to all pages: docs/training.md has the phases and rewards, docs/flags.md these tables with all presets.
--preset NAME --help shows the defaults of a preset."""
VERSION = "2.0.0"
SMALLEST, LARGEST = 2.0**-126, (2 - 2**-23) * 2.0**127  # of float32, in which all is computed
MOST = 10**6  # of anything counted, unless a flag says otherwise


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, and which guesses what an unknown flag was to be."""

    def __init__(self, *args: Any, **kwargs: Any):
        """As argparse does it; a `type=Path` takes no empty name, which would be the current directory."""
        super().__init__(*args, **kwargs)
        self.register("type", Path, named)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """As argparse does it; an unknown flag is an error that names the most similar one."""
        values, unknown = self.parse_known_args(args, namespace)
        if unknown:
            name = unknown[0].split("=")[0].lower().replace("-", "_").lstrip("_")
            known = {option.lstrip("-"): option for option in self._option_string_actions if option.startswith("--")}
            close = difflib.get_close_matches(name, known, n=1) if unknown[0].startswith("-") else []
            guess = f"; did you mean {known[close[0]]}?" if close else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{guess}")
        return values

    @contextlib.contextmanager
    def failing_in_one_line(self, output: Path | str | None = None) -> Iterator[None]:
        """An OSError, which names `output` where it names no file, and a ValueError end the program with their line.

        The exit status is 2, or that of a `NoGain`. A reader of its output, such as `head`, that has seen enough ends
        it, too, and is no error.
        """
        try:
            yield
        except BrokenPipeError:
            sys.stderr.close()
            self.exit()
        except OSError as error:
            where = error.filename or output
            self.error(f"{where}: " * bool(where) + (error.strerror or first_line(error)))
        except ValueError as error:
            self.exit(getattr(error, "status", 2), f"{self.prog}: error: {' '.join(str(error).split())}\n")
        except MemoryError:
            self.error("out of memory")
        except Exception as error:
            device = sys.modules.get("support.device")  # which imports TensorFlow
            if not (line := device and device.of_cache(error)):
                raise
            self.error(line)

    def error(self, message: str) -> NoReturn:
        """Prints the line and exits with status 2."""
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())}\n")


class RaisingParser(Parser):
    """A parser for command lines that come from a file: without --help and --version, which would end the process."""

    def error(self, message: str) -> NoReturn:
        """Raises UsageError."""
        raise UsageError(" ".join(message.split()))


def named(text: str) -> Path:
    """Reads the name of a file or folder."""
    if not text:
        raise argparse.ArgumentTypeError("an empty name")
    return Path(text)


def new_file(text: str) -> Path:
    """Reads the name of a file to write, in a folder that is there: to be known before long work, not after it."""
    path = named(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: a folder, not a file")
    if not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: there is no such folder")
    in_place = path.is_symlink() or (path.exists() and not path.is_file())  # such as /dev/stdout
    if not in_place and not os.access(path.absolute().parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text}: its folder can't be written to")
    return path


def truth(text: str) -> bool:
    """Reads true/false, yes/no, on/off or 1/0, whatever their case."""
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    if text.lower() not in words:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return words[text.lower()]


def number(kind: type, low: float | None, high: float | None):
    """A reader of integers (at most MOST unless `high` says otherwise) or finite real numbers, for argparse."""
    if kind is int and high is None:
        high = MOST

    def read(text: str) -> int | float:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {'an integer' if kind is int else 'a number'}") from None
        if kind is float and value and not SMALLEST <= abs(value) <= LARGEST:
            raise argparse.ArgumentTypeError(f"{text} is {'beyond float32' if math.isfinite(value) else 'not finite'}")
        if low is not None and value < low:
            raise argparse.ArgumentTypeError(f"{text} is less than {low}")
        if high is not None and value > high:
            raise argparse.ArgumentTypeError(f"{text} is more than {high}")
        return value

    return read


def word(choices: Collection[str], own: str):
    """A reader of one of a set of words or, where `own` says its form, of the name of a user's own code."""

    def read(text: str) -> str:
        if own and is_own(text):
            if not all(text.rpartition(":")):
                raise argparse.ArgumentTypeError(f"{text!r} is not a {own}")
        elif text not in choices:
            shown = ", ".join(choices) + (f", or {own}" if own else "")
            raise argparse.ArgumentTypeError(f"invalid choice: {text!r} (choose from {shown})")
        return text

    return read


def make_parser(kind: type[Parser] = Parser, preset: str = "default") -> Parser:
    """The parser of all flags of `Config`; its help shows the defaults of a preset."""
    ends = kind is Parser  # on --help and --version
    parser = kind(
        prog="main.py",
        usage="%(prog)s [--FLAG VALUE ...]",
        description="SeqGAN: sequence generation by policy gradient against a discriminator (Yu et al., AAAI 2017).",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=ends,
        argument_default=argparse.SUPPRESS,  # what is not given is not there
    )
    version = f"SeqGAN {VERSION}, Python {platform.python_version()}"
    if ends:
        parser.add_argument("--version", action="version", version=version, help="show the version and exit")
    titles = {first: title for title, first in SECTIONS.items()}
    defaults = defaults_of({"preset": preset}) | {"preset": preset}
    for field in FIELDS.values():
        if field.name in titles:
            group = parser.add_argument_group(titles[field.name])
        meta, name, default = field.metadata, f"--{field.name}", defaults.get(field.name, field.default)
        text = f"{meta['help']} (default: {shown(default)})".replace("%", "%%")
        if field.type is bool:
            group.add_argument(name, nargs="?", const=True, type=truth, metavar="True|False", help=text)
            group.add_argument(f"--no-{field.name}", dest=field.name, action="store_false", help=argparse.SUPPRESS)
            continue
        item = str if field.type in (str, tuple[str, ...]) else float if field.type is float else int
        read, words = str, None
        if meta["choices"]:
            words = "|".join([*meta["choices"], *([meta["own"]] if meta["own"] else [])])
            read = word(meta["choices"], meta["own"])
        elif item is not str:
            words, read = item.__name__.upper(), number(item, meta["low"], meta["high"])
        several: dict[str, Any] = {"nargs": "*" if meta["choices"] else "+"} if isinstance(field.default, tuple) else {}
        group.add_argument(name, type=read, metavar=words, help=text, **several)
    return parser


def parse(argv: Sequence[str] | None = None) -> Config:
    """Reads the command line (None: the process's own); explicit flags win over the preset.

    A wrong command line ends the process with status 2 and one line on stderr that names the flag.
    """
    words = sys.argv[1:] if argv is None else argv
    forget()
    presets = [name for name in re.findall(r"--preset[= ](\w+)", " ".join(words)) if name in PRESETS]
    parser = make_parser(preset=presets[-1] if presets else "default")
    parser.parse_args(words)  # ends here where it asks for --help or --version
    try:
        return read_flags(words)
    except (UsageError, OSError) as error:
        parser.error(str(error))


def read_flags(argv: Sequence[str]) -> Config:
    """The configuration of a command line, with --no-is_train that of --log_dir; raises UsageError: it is wrong."""
    given = explicit_flags(argv)
    config = Config(**(defaults_of(given) | given)) if given.get("is_train", True) else trained(given)
    check_effect(config, given)
    check(config)
    return config


def defaults_of(given: dict[str, Any]) -> dict[str, Any]:
    """The values that the flags start from beside those that are given: of the preset, and what some flags bring.

    Raises UsageError: the class that --discriminator names can't be loaded.
    """
    defaults = PRESETS[given.get("preset", "default")]
    asked, brought = given.get("discriminator"), []
    start = discriminator_entry(defaults.get("discriminator", "cnn")).defaults
    if asked and (own := discriminator_entry(asked).defaults) != start:  # or it is as the preset has it
        words = words_of(own)
        try:
            brought.append(explicit_flags(words))
        except UsageError as error:  # in a user's own class
            raise UsageError(f"--discriminator {asked}: its defaults: {error}") from None
    brought.append(UPDATE_DEFAULTS.get(given.get("g_update", ""), {}))
    for more in brought:
        both = dict.fromkeys([*defaults.get("cosine_decay", ()), *more.get("cosine_decay", ())])
        defaults = defaults | more | {"cosine_decay": tuple(both)}
    if (defaults | given).get("reward") == "bleu":
        defaults = defaults | {"rollout_num": 1}  # as in the paper's baseline
    if (defaults | given).get("total_epochs") == 0:  # a discriminator is of no use then, unless it is asked for
        guides = discriminator_entry((defaults | given).get("discriminator", "cnn")).additive
        defaults = defaults if guides else defaults | {"pretrain_d_epochs": 0}
    return defaults


def explicit_flags(argv: Sequence[str]) -> dict[str, Any]:
    """The flags that a command line gives itself, {name: value}; raises UsageError where one is wrong."""
    values = vars(make_parser(RaisingParser).parse_args(argv))
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def words_of(flags: dict[str, Any]) -> list[str]:
    """A command line that gives these flags: {name: value} → words."""
    words = []
    for name, value in flags.items():
        values = value if isinstance(value, (list, tuple)) else [value]
        # A path that starts with a hyphen would be taken for a flag.
        words += [f"--{name}", *(f"{'./' * (isinstance(v, Path) and str(v).startswith('-'))}{v}" for v in values)]
    return words
