"""The registry of metrics knows every figure that the program writes."""

import pytest

from evaluation import metrics
from evaluation.metrics import FORMS, METRICS, axis_title, column, guided_columns, parse, resampled_columns, title
from evaluation.oracle import OracleEvaluator
from evaluation.text import TextEvaluator
from evaluation.tunes import TuneEvaluator
from runs.records import TRAIN_COLUMNS

DATA = {"oracle": OracleEvaluator, "text": TextEvaluator, "music": TuneEvaluator}


@pytest.mark.parametrize("kind", DATA)
def test_every_figure_of_a_data_set_is_known(kind):
    found = (*DATA[kind].generator_figures, *DATA[kind].compared, *metrics.D_FIGURES)
    for name in (*found, *guided_columns(found), *resampled_columns(found)):
        metric, _ = parse(name)
        assert not metric.data or kind in metric.data, name


def test_names_titles_and_meanings_are_clear_and_different_and_columns_read_as_they_are_written():
    assert {*TRAIN_COLUMNS, "g_mle_loss"} <= METRICS.keys()
    assert len({metric.title for metric in METRICS.values()}) == len(METRICS)
    for name, metric in METRICS.items():
        assert metric.name == name and metric.meaning.endswith(".") and metric.title
        assert metric.better in ("lower", "higher", "real", "") and set(metric.data) <= set(DATA)
        assert [parse(column(name, form)) for form in FORMS] == [(metric, form) for form in FORMS]


@pytest.mark.parametrize("unknown", ["nll_tset", "", "real_", "_guided", "guided", "real_nll_guided", "nll_test_se"])
def test_an_unknown_column_is_an_error(unknown):
    for ask in (parse, title, axis_title, column):
        with pytest.raises(KeyError, match="no such metric; METRICS in evaluation/metrics.py"):
            ask(unknown)


def test_titles_of_axes_and_which_columns_go_beside_those_of_the_generator():
    """A title has the unit and the better direction."""
    assert axis_title("nll_test", "\n") == "NLL_test (↓ better)\nnats per token"
    assert axis_title("bleu2_guided") == "BLEU-2, guided (↑ better)"
    assert axis_title("d_eta") == "η of D's gain" and axis_title("seconds") == "seconds"
    columns = ("nll", "oracle_entropy", "d_gain", "real_bleu2", "bleu2")
    assert guided_columns(columns) == ("guide_eta", "nll_guided", "bleu2_guided")
    assert resampled_columns(columns) == ("nll_resampled", "d_gain_resampled")
