from pathlib import Path

import pytest
from conftest import ROOT

from runs.directories import CHECKPOINTS
from runs.experiment import read
from support.config import FIELDS, UsageError
from support.config_file import AFTER_PRETRAINING, CONFIG, differences
from support.parser import read_flags

GOOD = """
title = "A table"
seeds = [1, 2]
flags = "--vocab_size 10 --seq_len 5 --d_filter_sizes 2 --d_num_filters 3"

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


def test_the_flags_of_a_cell(tmp_path):
    experiment = read(table(tmp_path))
    assert (experiment.name, experiment.title, experiment.threads) == ("table", "A table", 1)
    assert [(m.name, m.label, m.seeds) for m in experiment.methods] == [
        ("mle", "MLE", (1, 2)),
        ("seqgan", "seqgan", (1, 2)),
        ("baseline", "baseline", (2, 3)),
    ]
    cell = experiment.cells(tmp_path / "logs")[0]
    config = read_flags(cell.argv)
    assert (config.vocab_size, config.pretrain_g_epochs, config.total_epochs) == (10, 20, 0)
    assert (config.seed, config.threads) == (1, 1)
    assert (config.log_dir, config.eval_log_dir) == (str(cell.log_dir), str(cell.eval_log_dir))
    assert cell.log_dir == tmp_path / "logs" / "table" / "mle" / "1" / "train"


def test_methods_that_differ_after_pretraining_share_it(tmp_path):
    cells = read(table(tmp_path)).cells(tmp_path)
    places = [str(cell.directory.relative_to(tmp_path / "table")) for cell in cells]
    assert places == [
        *("mle/1", "mle/2"),  # another pretraining: alone
        *("pretrained/seqgan/1", "seqgan/1", "pretrained/seqgan/2", "seqgan/2", "baseline/2"),
        *("pretrained/seqgan/3", "baseline/3"),
    ]
    by_place = dict(zip(places, cells, strict=True))
    assert by_place["seqgan/2"].source is by_place["pretrained/seqgan/2"]
    assert by_place["baseline/2"].source is by_place["pretrained/seqgan/2"]
    assert by_place["mle/1"].source is None
    source = read_flags(by_place["pretrained/seqgan/2"].argv)
    assert (source.pretrain_g_epochs, source.total_epochs, source.seed) == (10, 0, 2)
    assert read_flags(by_place["baseline/2"].argv).pretrained == str(by_place["pretrained/seqgan/2"].log_dir)


def test_methods_that_are_evaluated_at_other_epochs_pretrain_by_themselves(tmp_path):
    """Their curves of pretraining have other points."""
    text = GOOD.replace("--baseline batch", "--baseline batch --eval_every 7")
    assert all(cell.source is None for cell in read(table(tmp_path, text)).cells(tmp_path))


def test_a_method_that_only_pretrains_is_the_source_of_the_others(tmp_path):
    text = GOOD.replace("--pretrain_g_epochs 20", "--pretrain_g_epochs 10")
    cells = {
        str(cell.directory.relative_to(tmp_path / "table")): cell
        for cell in read(table(tmp_path, text)).cells(tmp_path)
    }
    assert cells["seqgan/1"].source is cells["mle/1"] and cells["baseline/2"].source is cells["mle/2"]
    assert cells["baseline/3"].source is None  # MLE has no such seed
    assert not any(place.startswith("pretrained") for place in cells)


def test_what_is_not_wanted_is_not_run_but_for_the_pretraining_that_it_needs(tmp_path):
    cells = read(table(tmp_path)).cells(tmp_path, only=["baseline"], seeds=[3])
    assert [str(cell.directory.relative_to(tmp_path)) for cell in cells] == [
        "table/pretrained/seqgan/3",
        "table/baseline/3",
    ]
    with pytest.raises(UsageError, match="--only: table has no method gan"):
        read(table(tmp_path)).cells(tmp_path, only=["gan"])
    with pytest.raises(UsageError, match="--seeds: table has no seed 7"):
        read(table(tmp_path)).cells(tmp_path, seeds=[7])


def test_a_cell_has_finished_when_its_last_step_is_saved(tmp_path):
    import dataclasses
    import json

    cell = read(table(tmp_path)).cells(tmp_path)[0]
    assert not cell.finished and cell.epochs_done == 0 and cell.epochs == 20
    cell.log_dir.mkdir(parents=True)
    config = read_flags(cell.argv)
    (cell.log_dir / CONFIG).write_text(json.dumps({"flags": dataclasses.asdict(config), "run": "x"}))
    (cell.log_dir / "metrics.csv").write_text("epoch,phase\n0,pretrain_g\n1,pretrain_g\n")
    (cell.log_dir / CHECKPOINTS / "step-000000010").mkdir(parents=True)
    assert not cell.finished and cell.epochs_done == 2
    (cell.log_dir / CHECKPOINTS / "step-000000020").mkdir()
    assert cell.finished
    other = dataclasses.replace(config, g_pretrain_lr=0.5)
    (cell.log_dir / CONFIG).write_text(json.dumps({"flags": dataclasses.asdict(other), "run": "x"}))
    with pytest.raises(UsageError, match="--g_pretrain_lr"):
        _ = cell.finished


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.toml")), ids=lambda path: path.name)
def test_the_tables_here_can_be_run(path, tmp_path):
    assert read(path).cells(tmp_path)


BAD = [
    ('title = "x"\nseeds = \n', "line 2"),
    ("title = ", "at end of document"),
    (GOOD.replace("title", "titel"), "line 2: titel is not known here"),
    (GOOD.replace('"A table"', "3"), "line 2: title is 3, not a text"),
    (GOOD.replace("seeds = [1, 2]", "seeds = []"), "line 3: seeds is []"),
    (GOOD.replace("seeds = [1, 2]", "seeds = [1, 1]"), "line 3: seeds is [1, 1]"),
    (GOOD.replace("seeds = [1, 2]", "seeds = [-1]"), "line 3: seeds is [-1]"),
    (GOOD.replace("seeds = [1, 2]", "seeds = ['1']"), "line 3: seeds is ['1']"),
    (GOOD.replace("seeds = [1, 2]", "seeds = 1"), "line 3: seeds is 1"),
    (GOOD.replace("seeds = [1, 2]", ""), "neither the table nor method mle has seeds"),
    (GOOD.replace("seeds = [2, 3]", "seeds = [true]"), "line 18: seeds is [True]"),
    (GOOD.replace("--vocab_size 10", "--vocab_syze 10"), "line 4: flags: unrecognized"),
    (GOOD.replace("--vocab_size 10", "--vocab_size ten"), "--vocab_size"),
    (GOOD.replace("--baseline batch", "--baseline mean"), "line 17: flags: argument --baseline: invalid choice"),
    (GOOD.replace("--baseline batch", "--baseline 'batch"), "line 17: flags: No closing quotation"),
    (GOOD.replace("--baseline batch", "--seed 3"), "line 17: --seed is not for a table to give"),
    (GOOD.replace("--baseline batch", "--log_dir x"), "line 17: --log_dir is not for a table to give"),
    (GOOD.replace("--baseline batch", "--d_filter_sizes 9"), "line 17: --d_filter_sizes"),
    (GOOD.replace('name = "seqgan"', 'name = "mle"'), "line 12: there are two methods mle"),
    (GOOD.replace('name = "seqgan"', 'name = "a/b"'), "line 12: name is 'a/b'"),
    (GOOD.replace('name = "seqgan"', 'name = "pretrained"'), "line 12: name is 'pretrained'"),
    (GOOD.replace('name = "seqgan"\n', ""), "line 11: name is None"),
    (GOOD.replace('label = "MLE"', "label = 1"), "line 8: label is 1"),
    (GOOD.replace('label = "MLE"', 'label = "seqgan"'), "there are two methods with the label 'seqgan'"),
    (GOOD.replace('label = "MLE"', 'lable = "MLE"'), "line 8: lable is not known here"),
    (GOOD.replace('flags = "--pretrain_g_epochs 20 --total_epochs 0"', "flags = 20"), "line 9: flags is 20"),
    (GOOD.replace('against = "mle"', 'against = "gan"'), "line 21: report.against is 'gan'"),
    (GOOD.replace('against = "mle"', 'agianst = "mle"'), "line 21: agianst is not known here"),
    (GOOD.replace('against = "mle"', 'metrics = "nll"'), "line 21: report.metrics is 'nll', not a list of names"),
    (GOOD.replace('against = "mle"', "curves = [3]"), "line 21: report.curves is [3], not a list of names"),
    (GOOD.replace('against = "mle"', "primary = 3"), "line 21: report.primary is 3, not a name"),
    (
        GOOD.replace('against = "mle"', 'x = ["time"]'),
        "line 21: report.x is ['time']; it may have 'epoch', then 'seconds'",
    ),
    (GOOD.replace('against = "mle"', 'draw = ["gan"]'), "line 21: report.draw is ['gan'], which is no method"),
    (GOOD.replace("--baseline batch", "--help"), "line 17: flags: unrecognized arguments: --help"),
    (GOOD.replace("--baseline batch", "-hx"), "line 17: flags: unrecognized arguments: -hx"),
    (GOOD.replace("--baseline batch", "--version"), "line 17: flags: unrecognized arguments: --version"),
    (GOOD + "limits = { nll = [2, 1] }\n", "line 22: report.limits has the lower end of an axis first"),
    (GOOD + "[report.limits]\nnll_tset = [1, 2]\n", "line 22: report.limits has nll_tset, which is not drawn"),
    (GOOD + "[report.closed]\nmetrics = []\n", "line 22: report.closed has metrics, along, by"),
    (
        GOOD + "[report.closed]\nmetrics = ['nll']\nalong = 'seed'\nby = 'rewards'\n",
        "line 22: report.closed: 'rewards'",
    ),
    ("threads = 0\n" + GOOD, "line 1: threads is 0"),
    ('title = "x"\nseeds = [1]\n', "there must be at least one [[methods]]"),
    ("methods = 3\n", "line 1: there must be at least one [[methods]]"),
    ("methods = [1]\n", "line 1: there must be at least one [[methods]]"),
    ("report = 3\n" + GOOD.split("[report]")[0], "line 1: report is not a table"),
]


@pytest.mark.parametrize(("text", "why"), BAD)
def test_a_bad_table_is_one_line_with_the_line(tmp_path, text, why):
    with pytest.raises(UsageError) as error:
        read(table(tmp_path, text))
    message = str(error.value)
    assert why in message and "table.toml" in message and "\n" not in message, message


def test_a_byte_order_mark_is_no_part_of_a_table(tmp_path):
    path = table(tmp_path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read(path).title == "A table"


def test_a_file_that_is_no_table(tmp_path):
    with pytest.raises(OSError, match="absent"):
        read(tmp_path / "absent.toml")
    (tmp_path / "bytes.toml").write_bytes(b"title = '\xff'")
    with pytest.raises(UsageError, match=r"bytes\.toml"):
        read(tmp_path / "bytes.toml")
    with pytest.raises(UsageError, match="the file's name"):
        read(table(tmp_path, name="a b.toml"))


@pytest.mark.parametrize(
    ("preset", "table", "method", "others"),
    [
        ("paper_music", "nottingham", "kl_penalty_mle", set()),
        (
            "music",
            "tunes",
            "resampled",
            AFTER_PRETRAINING - {name for name in FIELDS if name.startswith("d")} | {"d_steps"},
        ),
    ],
)
def test_the_music_presets_are_what_the_tables_runs_were(preset, table, method, others):
    """The figures of a preset are those of a method that gives each flag itself."""
    cells = {cell.method.name: cell for cell in read(ROOT / "experiments" / f"{table}.toml").cells(Path("logs"))}
    own = {"preset", "seed", "threads", "log_dir", "eval_log_dir", "pretrained", "sample_every", "eval_every"}
    run, values = read_flags(cells[method].argv), read_flags(["--preset", preset])
    assert not differences(run, values, own | (others - {"pretrain_d_epochs"}))
