"""Keeps of a run what samples are drawn from: python tools/publish.py LOGDIR FOLDER.

FOLDER gets the weights of the generator, or of its average, and of the discriminator, without optimizers; config.json,
and the vocabulary or the tempo. `tools/sample.py FOLDER` draws from it. models/ is made so.
"""

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import support.quiet  # noqa: F401 - before TensorFlow

from runs.checkpoints import Checkpoints
from runs.directories import CHECKPOINTS, TEMPO, write_whole
from support.config import VOCABULARY
from support.config_file import CONFIG, PUBLISHED
from support.parser import Parser
from support.streams import run_tool
from tools.restored import drawn_from, restore


def main(argv: Sequence[str] | None = None) -> int:
    """The tool; returns the exit status. A user's error is one line on stderr and status 2."""
    parser = Parser(description=__doc__)
    parser.add_argument("logdir", metavar="LOGDIR", type=Path, help="--log_dir of a run")
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="a new folder")
    asked = parser.parse_args(argv)
    with parser.failing_in_one_line(asked.folder):
        run = restore(asked.logdir)
        asked.folder.mkdir(parents=True)
        state = Checkpoints(asked.folder / CHECKPOINTS, drawn_from(run.seqgan))
        try:
            state.save(run.taken, {"evaluation": run.recorded})
            for name in (VOCABULARY, TEMPO):
                if (asked.logdir / name).is_file():
                    shutil.copy(asked.logdir / name, asked.folder / name)
            write_whole(asked.folder / CONFIG, json.dumps(run.content | {PUBLISHED: True}, indent=1) + "\n")
        except BaseException:  # Ctrl-C, too
            shutil.rmtree(asked.folder, ignore_errors=True)
            raise
    return 0


if __name__ == "__main__":
    run_tool(main)
