"""Trains, then leaves samples: `python -m tools.train_and_choose COUNT NAME [--FLAG VALUE ...]`, for train_*.sh.

The flags are those of main.py. Once training has ended, and not by a signal, NAME in --log_dir gets COUNT samples. An
additive discriminator guides the generator where no adversarial phase follows. Any other that was trained chooses each
among 16 candidates, and ranks them. Where it can't, as it has no gain, they are plain samples, and a line says so.
Songs are in data/Nottingham as well, and the samples of tunes are ABC, too.

main.py and tools/sample.py run in this process, so that a signal reaches the one at work and gives the exit status.
"""

import os
import runpy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support.config import discriminator_entry
from support.errors import NoGain
from support.parser import explicit_flags, parse


def run(program: str, *words: str) -> int:
    """Runs a program in this process, as its file would be run by itself; returns its exit status."""
    sys.argv = [program, *words]
    try:
        runpy.run_path(program, run_name="__main__")
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def main(count: str, name: str, *flags: str) -> int:
    """Trains with flags of main.py, and draws `count` samples to `name`; returns the exit status."""
    config, here = parse(flags), os.getcwd()
    elsewhere = not os.path.samefile(os.environ.get("CALLED_FROM", here), here)
    if elsewhere and "data_dir" in explicit_flags(flags) and not os.path.isabs(config.data_dir):
        print(f"train_and_choose.py: error: --data_dir {config.data_dir}: not an absolute path", file=sys.stderr)
        return 2
    music = config.dataset == "Nottingham"
    songs = ["--songs_dir", "data/Nottingham"] if music else []
    if status := run("main.py", *songs, *flags):
        return status
    output = f"{Path(config.log_dir, name)}"
    sample = ["tools/sample.py", config.log_dir, "-n", count, "-o", output, *(["--abc"] if music else [])]
    trained = config.trains_discriminator and config.updates.d > 0
    guides = trained and discriminator_entry(config.discriminator).additive and not config.total_epochs
    how = ["--guide"] if guides else ["--candidates", "16", "--rank"] if trained else []
    status = run(*sample, *how)
    if status == NoGain.status:
        print(f"{output}: plain samples, as the discriminator can't choose", file=sys.stderr)
        status = run(*sample)
    return status


if __name__ == "__main__":
    if len(sys.argv) < 3 or not (sys.argv[1].isdecimal() and 0 < int(sys.argv[1]) <= 10**6):
        needed = "COUNT, 1 to 1000000, and NAME are needed, see its first lines"
        print(f"train_and_choose.py: error: {needed}", file=sys.stderr)
        sys.exit(2)
    sys.exit(main(*sys.argv[1:]))
