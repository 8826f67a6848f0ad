import json

import pytest
from conftest import ROOT, cases

from runs.directories import CHECKPOINTS
from support.config import UsageError
from support.config_file import CONFIG, FORMAT
from support.parser import read_flags
from tools.experiment import Cell, read

BASELINE = "--baseline batch"
GOOD = """
title = "A table"
seeds = [1, 2]
flags = "--vocab_size 10 --seq_len 5"
[[methods]]
name = "mle"
label = "MLE"
flags = "--pretrain_g_epochs 20 --total_epochs 0"
[[methods]]
name = "seqgan"
flags = "--pretrain_g_epochs 10 --total_epochs 3"
[[methods]]
name = "baseline"
flags = "--pretrain_g_epochs 10 --total_epochs 5 --baseline batch --g_lr 0.001"
seeds = [2, 3]
[report]
against = "mle"
"""


def table(tmp_path, text=GOOD, name="table.toml"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def places(tmp_path, text=GOOD, **selected) -> dict[str, Cell]:
    cells = read(table(tmp_path, text)).cells(tmp_path, **selected)
    return {str(cell.directory.relative_to(tmp_path / "table")): cell for cell in cells}


def test_the_flags_of_a_cell(tmp_path):
    experiment = read(table(tmp_path, "threads = 2\n" + GOOD))
    assert (experiment.name, experiment.title, experiment.threads) == ("table", "A table", 2)
    found = [(method.name, method.label, method.seeds) for method in experiment.methods]
    assert found == [("mle", "MLE", (1, 2)), ("seqgan", "seqgan", (1, 2)), ("baseline", "baseline", (2, 3))]
    assert experiment.report["against"] == ["mle"] and experiment.report["metrics"] == []
    cell = experiment.cells(tmp_path / "logs")[0]
    config = read_flags(cell.argv)
    assert (config.vocab_size, config.pretrain_g_epochs, config.total_epochs) == (10, 20, 0)
    assert (config.seed, config.threads) == (1, 2)
    assert (config.log_dir, config.eval_log_dir) == (str(cell.log_dir), str(cell.eval_log_dir))
    assert cell.log_dir == tmp_path / "logs" / "table" / "mle" / "1" / "train"


def test_methods_that_differ_after_pretraining_share_it(tmp_path):
    cells = places(tmp_path)
    shared = ["pretrained/seqgan/1", "seqgan/1", "pretrained/seqgan/2", "seqgan/2", "baseline/2"]
    own = ["pretrained/seqgan/3", "baseline/3"]
    # MLE, of another pretraining, is alone.
    assert list(cells) == ["mle/1", "mle/2", *shared, *own]
    assert list(places(tmp_path, only=["baseline"], seeds=[3])) == own  # a selected cell brings what it needs
    source = cells["pretrained/seqgan/2"]
    assert cells["seqgan/2"].source == cells["baseline/2"].source == source and cells["mle/1"].source is None
    config = read_flags(source.argv)
    assert (config.vocab_size, config.pretrain_g_epochs, config.total_epochs, config.seed) == (10, 10, 0, 2)
    assert source.epochs == 10 and not config.trains_discriminator
    assert read_flags(cells["baseline/2"].argv).pretrained == str(source.log_dir)
    paper = 'seeds = [1]\nflags = "--preset paper --oracle_params x.npz"\n[[methods]]\nname = "a"\n'
    cells = places(tmp_path, paper + '[[methods]]\nname = "b"\nflags = "--baseline batch"\n')
    assert [read_flags(cell.argv).oracle_params for cell in cells.values()] == ["x.npz"] * 3


def test_a_method_that_only_pretrains_is_the_source_of_the_others(tmp_path):
    """Not of those that are evaluated at other epochs, whose curves of pretraining have other points."""
    text = GOOD.replace("--baseline batch", "--baseline batch --eval_every 7")
    assert all(cell.source is None for cell in places(tmp_path, text).values())
    cells = places(tmp_path, GOOD.replace("--pretrain_g_epochs 20", "--pretrain_g_epochs 10"))
    assert cells["seqgan/1"].source == cells["mle/1"] and cells["baseline/2"].source == cells["mle/2"]
    assert cells["mle/1"].source is None and cells["baseline/3"].source is None  # MLE has no such seed
    assert not any(place.startswith("pretrained") for place in cells)
    # A discriminator that guides starts from the pretraining alone.
    text = 'seeds = [1]\nflags = "--seq_len 10 --pretrain_g_epochs 2 --total_epochs 0"\n'
    text += '[[methods]]\nname = "guided"\nflags = "--discriminator bigram"\n[[methods]]\nname = "mle"\n'
    cells = places(tmp_path, text)
    assert cells["guided/1"].source == cells["mle/1"] and cells["mle/1"].source is None


def test_a_student_needs_the_runs_of_its_teachers(tmp_path):
    """Those of the same seed and of the next one, after the last the first; only methods above it are teachers."""
    own = 'name = "student"\nflags = "--g_update distil --pretrain_g_epochs 10"\nteachers = ["mle", "mle+1"]\n'
    text = GOOD.replace("[report]", f"[[methods]]\n{own}[report]")
    cells = places(tmp_path, text, only=["student"], seeds=[2])
    assert list(cells) == ["pretrained/seqgan/2", "mle/2", "mle/1", "student/2"]
    student, teachers = cells["student/2"], (cells["mle/2"], cells["mle/1"])
    assert student.needs == [cells["pretrained/seqgan/2"], *teachers] and student.teachers == teachers
    assert read_flags(student.argv).teacher == tuple(str(cell.log_dir) for cell in teachers)
    for wrong in ("mle+0", "mle+2", "gan", "student", "baseline"):  # which has other seeds
        with pytest.raises(UsageError, match="method student: teachers: "):
            places(tmp_path, text.replace('["mle", ', f'["{wrong}", '))
    for number, cell in enumerate((*teachers, student)):
        record(cell, str(number))
    student.checkpoint.mkdir(parents=True)
    assert student.finished
    for cell, run, steps in ((student, "2", 10), (teachers[1], "another", 20)):  # a teacher has trained on; is another
        record(cell, run, steps)
        with pytest.raises(UsageError, match="learnt from others"):
            _ = student.finished
        record(student, "2")


def record(cell: Cell, run: str = "x", steps: int = 20, **flags) -> None:
    """Writes the config.json of a cell's `run`, with some flags otherwise than the table has them."""
    cell.log_dir.mkdir(parents=True, exist_ok=True)
    learnt = [{"run": each.recorded["run"], "steps": steps} for each in cell.teachers]
    config = vars(read_flags(cell.argv)) | flags
    (cell.log_dir / CONFIG).write_text(json.dumps({"flags": config, "run": run, "format": FORMAT, "teacher": learnt}))


def test_a_cell_has_finished_when_its_last_step_is_saved(tmp_path):
    cell = read(table(tmp_path)).cells(tmp_path)[0]
    assert not cell.finished and cell.epochs_done == 0 and cell.epochs == 20
    record(cell)
    (cell.log_dir / "metrics.csv").write_text("epoch,phase\n0,pretrain_g\n1,pretrain_g\n")
    (cell.log_dir / CHECKPOINTS / "step-000000010").mkdir(parents=True)
    assert not cell.finished and cell.epochs_done == 2
    (cell.log_dir / CHECKPOINTS / "step-000000020").mkdir()
    assert cell.finished
    record(cell, g_pretrain_lr=0.5)
    with pytest.raises(UsageError, match="--g_pretrain_lr"):
        _ = cell.finished
    cell = places(tmp_path)["pretrained/seqgan/1"]  # where version 1 recorded flags of later phases
    record(cell, reward="discriminator", d_filter_sizes=[2], d_num_filters=[3], checkpoint_every=7)
    (cell.log_dir / CHECKPOINTS / "step-000000010").mkdir(parents=True)
    assert cell.finished


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.toml")), ids=lambda path: path.name)
def test_the_tables_here_can_be_run(path, tmp_path):
    assert all(read_flags(cell.argv) for cell in read(path).cells(tmp_path))


@cases(
    "before, after, why",
    *(("seeds = [1, 2]", "seeds = ", "line 3"), ("title", "titel", "titel is not among title, seeds")),
    *(('"A table"', "3", "title is 3, no str"), ('against = "mle"', 'agianst = "mle"', "agianst is not among metrics")),
    *(("[1, 2]", seeds, f"method mle: seeds is {seeds}") for seeds in ("[]", "[1, 1]", "[-1]", "['1']")),
    *(("[2, 3]", "[true]", "method baseline: seeds is [True]"), ('name = "seqgan"\n', "", "method 2: name is ''")),
    ("--vocab_size 10", "--vocab_syze 10", "unrecognized arguments: --vocab_syze"),
    (BASELINE, "--baseline mean", "method baseline: argument --baseline: invalid choice"),
    (BASELINE, "--baseline 'batch", "method baseline: No closing quotation"),
    *((BASELINE, f"--{own} 3", f"method baseline: --{own} is not for a table") for own in ("seed", "log_dir")),
    (BASELINE, "--d_filter_sizes 9", "method baseline: --d_filter_sizes"),
    *((BASELINE, own, f"method baseline: unrecognized arguments: {own}") for own in ("--help", "--version")),
    ('name = "seqgan"', 'name = "mle"', "there are two methods with the name 'mle'"),
    *(('"seqgan"', f'"{name}"', f"method {name}: name is '{name}'") for name in ("a/b", "pretrained")),
    ('label = "MLE"', 'label = "seqgan"', "there are two methods with the label 'seqgan'"),
    ('label = "MLE"', 'lable = "MLE"', "method mle: lable is not among name, label"),
    ('"--pretrain_g_epochs 20 --total_epochs 0"', "20", "method mle: flags is 20, no str"),
    ('against = "mle"', 'against = ["mle", "gan"]', "report.against: there is no method 'gan'"),
    ('against = "mle"', "collapsed = 3", "collapsed is 3, no list"),
    ('title = "A table"', "threads = 0", "threads is 0"),
    ('title = "A table"', "threads = true", "threads is True, no int"),
    (GOOD, 'title = "x"\nseeds = [1]\n', "there must be at least one [[methods]]"),
    (GOOD, "methods = [1]\n", "there must be at least one [[methods]]"),
    (GOOD, "report = 3\n" + GOOD.split("[report]")[0], "report is 3, no dict"),
)
def test_a_bad_table_is_one_line_with_the_method(tmp_path, before, after, why):
    assert GOOD.count(before)
    path = table(tmp_path, GOOD.replace(before, after))
    with pytest.raises(UsageError) as error:
        read(path)
    message = str(error.value)
    assert why in message and "table.toml" in message and "\n" not in message, message


def test_a_file_that_is_no_table(tmp_path):
    """A byte order mark is no part of one."""
    path = table(tmp_path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert (read(path).title, read(path).threads) == ("A table", 1)
    (tmp_path / "bytes.toml").write_bytes(b"title = '\xff'")
    with pytest.raises(UsageError, match=r"bytes\.toml"):
        read(tmp_path / "bytes.toml")
    with pytest.raises(UsageError, match="the file's name"):
        read(table(tmp_path, name="a b.toml"))
