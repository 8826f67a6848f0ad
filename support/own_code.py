"""A user's own Python: what FILE.py:NAME names, with its text on record and its errors in one line."""

import contextlib
import functools
import re
import sys
import traceback
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support.errors import UsageError

DRAWS = "Random|Multinomial|(Parameterized)?Truncated|Rng|Stateful(?!Part)"  # operations of TensorFlow
WRITES = "Assign|Resource(Scatter|Apply)"  # a variable
_on_record: dict[tuple[str, str], dict[str, str]] = {}  # the sources that were given, by flag and name
LONGEST = 2**17  # bytes of a file, which is kept in config.json


def is_own(name: str) -> bool:
    """Whether a flag's value is FILE.py:NAME rather than a name of a registry."""
    return ":" in name


def check_name(flag: str, name: str) -> None:
    """Checks the form of FILE.py:NAME; raises UsageError."""
    if not all(name.rpartition(":")):
        raise UsageError(f"{flag} {name}: not a FILE.py:NAME")


def read_source(flag: str, name: str) -> dict[str, str]:
    """The name, as `function`, and the `text` of the file that FILE.py:NAME names: what a run keeps on record.

    Raises UsageError: the name is none, or the file can't be read.
    """
    check_name(flag, name)
    path, _, function = name.rpartition(":")
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"{flag} {path}: {error.strerror}") from None
    except ValueError:
        raise UsageError(f"{flag} {path}: not a text file in UTF-8") from None
    if len(text.encode()) > LONGEST:
        raise UsageError(f"{flag} {path}: longer than {LONGEST:,} bytes; data belong in other files")
    return {"function": function, "text": text}


def load(flag: str, name: str, source: dict[str, str] | None = None) -> Any:
    """What FILE.py:NAME names: runs the file, or the `source` that a run has on record; once for each text.

    Afterwards the name means that `source`, though the file changes or moves, until `forget`. Raises UsageError: the
    file can't be read, raises an exception, or has no such function or class.
    """
    if source:
        _on_record[flag, name] = source
    source = source or _on_record.get((flag, name)) or read_source(flag, name)
    return _run(flag, name.rpartition(":")[0], source["function"], source["text"])


def forget() -> None:
    """Makes names mean what their files have now."""
    _on_record.clear()


@functools.cache
def _run(flag: str, path: str, function: str, text: str) -> Any:
    module = types.ModuleType("own_" + flag.lstrip("-"))  # not `discriminator`, which is a module of the program
    module.__file__ = path
    sys.modules[module.__name__] = module  # where dataclasses look up their types
    with blamed(flag, path):
        exec(compile(text, path, "exec"), vars(module))
    found = getattr(module, function, None)
    if not callable(found):
        own = [name for name, each in vars(module).items() if getattr(each, "__module__", "") == module.__name__]
        has = f"; it has {', '.join(own)}" if own else ", and none at all"
        raise UsageError(f"{flag} {path}: has no function or class {function!r}{has}")
    return found


@contextlib.contextmanager
def blamed(flag: str, path: str) -> Iterator[None]:
    """Makes an exception, but a UsageError, of the file's code one with its type, its message and its line there."""
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout may be a tool's table
            yield
    except (KeyboardInterrupt, UsageError):
        raise
    except BaseException as error:  # SystemExit and others that are no Exception
        raise UsageError(f"{flag} {path}: {told(error, path)}") from error


def refuse(what: str, operations: str, graph: Any) -> None:
    """Raises UsageError, which begins with `what`: a traced function has such `operations`, a regular expression."""
    nodes = graph.as_graph_def()
    nodes = [*nodes.node, *(node for each in nodes.library.function for node in each.node_def)]
    if found := [node.op for node in nodes if re.match(operations, node.op)]:
        raise UsageError(f"{what} ({found[0]}), so that a resumed run would differ")


def lines_of(error: BaseException, path: str) -> list[int | None]:
    """The lines of a file through which an exception came, the innermost last."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    lines += map(int, re.findall(rf'File "{re.escape(path)}", line (\d+)', str(error)))  # of a graph's node
    return [*lines, error.lineno] if isinstance(error, SyntaxError) and error.filename == path else lines


def told(error: BaseException, path: str) -> str:
    """An exception in one line: its line in the file, its type and its message."""
    lines = lines_of(error, path)
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    if text.startswith("Graph execution error"):  # what TensorFlow tells last, before the name of the node
        text = [line for line in text.splitlines() if line.strip() and "[[{{node" not in line][-1]
    message = " ".join(text.split())
    what = type(error).__name__ + (f": {message}" if message else "")
    return f"line {lines[-1]}: {what}" if lines else what


def blame(error: Exception, names: dict[str, str]) -> str:
    """The line that tells of an exception through a user's own code, of {flag: FILE.py:NAME}; "" of another one."""
    paths = {flag: name.rpartition(":")[0] for flag, name in names.items()}
    found = (f"--{flag} {path}: {told(error, path)}" for flag, path in paths.items() if lines_of(error, path))
    return next(found, "")
