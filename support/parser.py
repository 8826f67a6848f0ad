"""The command line: read into a configuration, and written from one."""

import argparse
import contextlib
import difflib
import math
import platform
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from support.config import FIELDS, SECTIONS, Config, UsageError, check, check_effect, first_line
from support.config_file import trained
from support.presets import D_DEFAULTS, FOLD_DEFAULTS, PRESETS

VERSION = "1.0.0"
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

        A reader of its output, such as `head`, that has seen enough ends it, too, and is no error.
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
            self.error(str(error))

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
    if not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: there is no such folder")
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
        if kind is float and not math.isfinite(value):
            raise argparse.ArgumentTypeError(f"{text} is not finite")
        if low is not None and value < low:
            raise argparse.ArgumentTypeError(f"{text} is less than {low}")
        if high is not None and value > high:
            raise argparse.ArgumentTypeError(f"{text} is more than {high}")
        return value

    return read


def make_parser(kind: type[Parser] = Parser) -> Parser:
    """The parser of all flags of `Config`."""
    ends = kind is Parser  # on --help and --version
    parser = kind(
        prog="main.py",
        usage="%(prog)s [--FLAG VALUE ...]",
        description="SeqGAN: sequence generation by policy gradient against a discriminator (Yu et al., AAAI 2017).",
        allow_abbrev=False,
        add_help=ends,
        argument_default=argparse.SUPPRESS,  # what is not given is not there
    )
    version = f"SeqGAN {VERSION}, Python {platform.python_version()}"
    if ends:
        parser.add_argument("--version", action="version", version=version, help="show the version and exit")
    titles = {first: title for title, first in SECTIONS.items()}
    for field in FIELDS.values():
        if field.name in titles:
            group = parser.add_argument_group(titles[field.name])
        meta, name, default = field.metadata, f"--{field.name}", field.default
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
        text = f"{meta['help']} (default: {shown if shown != '' else 'none'})".replace("%", "%%")
        if field.type is bool:
            group.add_argument(name, nargs="?", const=True, type=truth, metavar="True|False", help=text)
            group.add_argument(f"--no-{field.name}", dest=field.name, action="store_false", help=argparse.SUPPRESS)
        elif field.type is str:
            group.add_argument(name, choices=meta["choices"], help=text)
        elif field.type in (int, float):
            read = number(field.type, meta["low"], meta["high"])
            group.add_argument(name, type=read, metavar=field.type.__name__.upper(), help=text)
        else:
            read = number(int, meta["low"], meta["high"])
            group.add_argument(name, type=read, nargs="+", metavar="INT", help=text)
    return parser


def parse(argv: Sequence[str] | None = None) -> Config:
    """Reads the command line (None: the process's own); explicit flags win over the preset.

    A wrong command line ends the process with status 2 and one line on stderr that names the flag.
    """
    parser, words = make_parser(), sys.argv[1:] if argv is None else argv
    parser.parse_args(words)  # ends here where it asks for --help or --version
    try:
        return read_flags(words)
    except UsageError as error:
        parser.error(str(error))


def read_flags(argv: Sequence[str]) -> Config:
    """The configuration that a command line means; without --is_train, the run's in --log_dir that was trained.

    Raises UsageError: it is wrong; the message names the flag.
    """
    given = explicit_flags(argv)
    if given.get("is_train", True):
        defaults = PRESETS[given.get("preset", "default")]
        if (asked := given.get("discriminator")) != defaults.get("discriminator"):  # or it is as the preset has it
            defaults = defaults | D_DEFAULTS.get(asked or "", {})
        if given.get("g_update") == "fold":
            defaults = defaults | FOLD_DEFAULTS
        if (defaults | given).get("reward") == "bleu":
            defaults = defaults | {"rollout_num": 1}  # as in the paper's baseline
        config = Config(**defaults | given)
    else:
        config = trained(given)
    check(config)
    check_effect(config, given)
    return config


def explicit_flags(argv: Sequence[str]) -> dict[str, Any]:
    """The flags that a command line gives itself, {name: value}; raises UsageError where one is wrong."""
    values = vars(make_parser(RaisingParser).parse_args(argv))
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def words_of(flags: dict[str, Any]) -> list[str]:
    """A command line that gives these flags: {name: value} → words."""
    words = []
    for name, value in flags.items():
        words += [f"--{name}", *map(str, value if isinstance(value, (list, tuple)) else [value])]
    return words
