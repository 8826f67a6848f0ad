"""The registry of metrics: the name, title, meaning and unit of every figure that the program writes; and tables."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from support.statistics import Figures

ARROWS = {"lower": " (↓ better)", "higher": " (↑ better)", "real": " (real is best)", "": ""}
PER_TOKEN, PER_SEQUENCE = "nats per token", "nats per sequence"


@dataclass(frozen=True)
class Metric:
    """A figure of an evaluation, of training or of a tool."""

    name: str  # its column in metrics.csv and in the tables of studies
    title: str  # its name on pages and axes
    meaning: str  # what it is, in one sentence
    unit: str = ""  # of its values, "" for a number without one
    better: str = ""  # "lower", "higher", "real" where the value of real data is best, or ""
    data: tuple[str, ...] = ()  # the kinds of data it is measured for, among "oracle", "text" and "music"; () for all
    # float [n] of sequences, int32 [n, T], padding being V, and of the data set. None: it is measured elsewhere.
    of: Callable[[np.ndarray, Any], np.ndarray] | None = None


def _bleu(prefix: str, words: str, references: str, data: tuple[str, ...]) -> Iterator[Metric]:
    """BLEU and self-BLEU of all orders."""
    for n in range(2, 6):
        yield Metric(f"{prefix}bleu{n}", f"{words}BLEU-{n}", f"BLEU-{n} against {references}.", "", "higher", data)
        meaning = f"BLEU-{n} of each sample against all others; high where samples are alike."
        yield Metric(f"{prefix}self_bleu{n}", f"{words}self-BLEU-{n}", meaning, "", "real", data)


_ORACLE, _TEXT, _MUSIC = ("oracle",), ("text",), ("music",)
_EVALUATION = (
    Metric("nll", "NLL_oracle", "NLL of generated sequences under the oracle.", PER_TOKEN, "lower", _ORACLE),
    Metric("nll_valid", "NLL_valid", "NLL of the validation set under the generator.", PER_TOKEN, "lower"),
    Metric("nll_test", "NLL_test", "NLL of the test set under the generator.", PER_TOKEN, "lower"),
    Metric("g_entropy", "entropy of G", "Entropy of the generator: how varied its samples are.", PER_TOKEN, "real"),
    Metric("oracle_entropy", "entropy of the oracle", "Entropy of the oracle, the least possible NLL_test.", PER_TOKEN),
    Metric("objective", "objective", "Mean score of generated sequences by --objective.", "", "higher"),
    Metric("kl_to_pretrained", "KL(G‖pretrained)", "KL divergence of G from the pretrained generator.", PER_SEQUENCE),
    Metric(
        "kl_of_teacher",
        "KL(teacher‖G)",
        "KL divergence of the teacher (with `--d_steps` the next one) from G.",
        PER_SEQUENCE,
        "lower",
    ),
    Metric("kl_forward", "KL(oracle‖G)", "KL divergence of the oracle from G.", PER_TOKEN, "lower", _ORACLE),
    Metric("kl_reverse", "KL(G‖oracle)", "KL divergence of G from the oracle.", PER_TOKEN, "lower", _ORACLE),
    Metric("nll_run", "NLL under a run", "NLL of samples of any program under a run.", PER_TOKEN),
    Metric("nll_reverse", "reverse NLL", "NLL_test of an LSTM that learns from the samples.", PER_TOKEN, "lower"),
    Metric("distinct2", "distinct bigrams", "Share of distinct bigrams of sequences.", "", "real", ("oracle", "text")),
    Metric("distinct3", "distinct trigrams", "Share of distinct trigrams of sequences.", "", "real", _TEXT),
    Metric("d_gain_valid", "D's gain on validation", "What reweighting by D takes off NLL_valid.", PER_TOKEN, "higher"),
    Metric("d_gain", "D's gain", "What reweighting by D takes off NLL_test.", PER_TOKEN, "higher"),
    Metric("d_eta", "η of D's gain", "Weight of D's log-odds in D's gain, chosen on the validation set."),
    Metric("d_test_acc", "D's accuracy", "Accuracy of D on held-out and generated sequences.", "", "higher"),
    Metric("d_optimal_acc", "accuracy of D*", "Accuracy of the optimal discriminator.", "", "", _ORACLE),
    Metric("guide_eta", "η of guidance", "Weight of D's log-odds in the guided generator."),
    *_bleu("", "", "sequences of the test set", ("text", "music")),
    Metric("mse", "MSE", "Squared difference of pitch to the nearest test window.", "semitones²", "real", _MUSIC),
    Metric("rest_share", "rests", "Share of tokens that are rests.", "", "real", _MUSIC),
    Metric("pitch_range", "pitch range", "Highest less lowest pitch of a tune.", "semitones", "real", _MUSIC),
    Metric("copied_share", "copied", "Share of samples that copy training data.", "", "real", ("text", "music")),
    Metric("longest_copy", "longest copy", "Longest stretch that a training tune has, too.", "tokens", "real", _MUSIC),
    Metric("length", "length", "Tokens of a line or whole tune.", "tokens", "real", ("text", "music")),
    Metric("scale_consistency", "notes in one scale", "Largest share of notes in one scale.", "", "real", _MUSIC),
    Metric("pitch_class_entropy", "pitch-class entropy", "Entropy of pitch classes.", "bits", "real", _MUSIC),
    Metric("stepwise", "steps", "Share of moves to another pitch by one or two semitones.", "", "real", _MUSIC),
    Metric("ends_on_tonic", "ends on the tonic", "Share of tunes that end on the tonic.", "", "real", _MUSIC),
    Metric("repeated_bars", "repeated bars", "Share of bars that occur before in the tune.", "", "real", _MUSIC),
    Metric("looped_bars", "looped bars", "Share of bars that loop: a third time in a row.", "", "real", _MUSIC),
    Metric("alike_after_2", "alike after 2 bars", "Share of tokens equal to those 2 bars before.", "", "real", _MUSIC),
    Metric("alike_after_4", "alike after 4 bars", "Share of tokens equal to those 4 bars before.", "", "real", _MUSIC),
    Metric("alike_after_8", "alike after 8 bars", "Share of tokens equal to those 8 bars before.", "", "real", _MUSIC),
    Metric("interval_divergence", "interval divergence", "Divergence of intervals from real.", "bits", "real", _MUSIC),
    Metric("rhythm_divergence", "rhythm divergence", "Divergence of rhythms from real.", "bits", "real", _MUSIC),
    *_bleu("texygen_", "Texygen's ", "all test lines as they are written", _TEXT),
    Metric("texygen_nll_gen", "Texygen's NLL_gen", "NLL of training lines as Texygen counts it.", "nats", "", _TEXT),
)
_TRAINING = (
    Metric("g_pretrain_loss", "MLE loss", "NLL of the minibatches of MLE pretraining.", PER_TOKEN, "lower"),
    Metric("g_mle_loss", "MLE loss beside rewards", "NLL of the minibatches of --mle_steps.", PER_TOKEN, "lower"),
    Metric("d_pretrain_loss", "D's loss in pretraining", "Loss of D on the minibatches of its pretraining."),
    Metric("d_pretrain_acc", "D's training accuracy in pretraining", "Accuracy of D on the same minibatches."),
    Metric("g_loss", "policy-gradient loss", "Loss of the policy gradient, or of distilling."),
    Metric(
        "g_reward", "mean reward", "Mean reward of generated sequences, or of distilling -KL(teacher ‖ G) or log G."
    ),
    Metric("d_loss", "D's loss", "Loss of D on the minibatches of adversarial training."),
    Metric("d_acc", "D's training accuracy", "Accuracy of D on the same minibatches."),
    Metric("seconds_per_epoch", "time per epoch", "Time of an epoch without steps that were compiled.", "seconds"),
    Metric("compile_seconds", "to compile", "Time of the steps that were compiled.", "seconds"),
    Metric("seconds", "seconds", "Time of training until then, without evaluation and compilation.", "seconds"),
)
METRICS: dict[str, Metric] = {m.name: m for m in (*_EVALUATION, *_TRAINING)}  # in the order of tables


# What a column is of: {form: (prefix, suffix, words after the title)}. "" is the generator itself.
FORMS: dict[str, tuple[str, str, str]] = {"": ("", "", ""), "guided": ("", "_guided", ", guided")}
FORMS |= {"resampled": ("", "_resampled", ", resampled"), "real": ("real_", "", " (real)")}
FORMS["before"] = "before_", "", ", before"
TOLD = ("g_entropy", "objective", "kl_to_pretrained")  # in a line of progress, beside NLLs
D_FIGURES = ("d_test_acc", "d_gain", "d_gain_valid", "d_eta")  # of the discriminator, for all data
_RESAMPLED = ("nll", "nll_test", "g_entropy", "kl_forward", "kl_reverse", "d_gain")


def column(name: str, form: str = "") -> str:
    """The column of a metric's form, such as nll_test_guided; raises KeyError: there is no such metric or form."""
    prefix, suffix, _ = FORMS[form]
    parse(found := prefix + name + suffix)
    return found


def parse(column: str) -> tuple[Metric, str]:
    """The metric and the form of a column; raises KeyError: it is none."""
    for form, (prefix, suffix, _) in FORMS.items():
        name = column.removeprefix(prefix).removesuffix(suffix)
        if name in METRICS and column == prefix + name + suffix:
            return METRICS[name], form
    raise KeyError(f"{column}: no such metric; METRICS in evaluation/metrics.py has all of them")


def title(column: str) -> str:
    """A column's name on pages; raises KeyError: it is none."""
    metric, form = parse(column)
    return metric.title + FORMS[form][2]


def described(column: str) -> str:
    """What a column is, in a sentence, with its unit; "" for one that is none, such as a user's own."""
    try:
        metric, form = parse(column.removesuffix("_se"))
    except KeyError:
        return ""
    of = "Standard error. " * column.endswith("_se") + f"{FORMS[form][2].strip(', ()').capitalize()}: " * bool(form)
    return of + metric.meaning + f" In {metric.unit}." * bool(metric.unit)


def axis_title(column: str, separator: str = ", ") -> str:
    """The same with the direction that is better and, after `separator`, the unit; raises KeyError."""
    metric, _ = parse(column)
    unit = "" if metric.unit in ("", metric.title) else separator + metric.unit
    return title(column) + ARROWS[metric.better] + unit


def guided_columns(columns: Iterable[str]) -> tuple[str, ...]:
    """The columns of the guided generator beside those of the generator, and its η; raises KeyError."""
    others = (*D_FIGURES, "d_optimal_acc", "oracle_entropy")
    own = (name for name in columns if parse(name)[1] == "" and name not in others)
    return ("guide_eta", *(column(name, "guided") for name in own))


def resampled_columns(columns: Iterable[str]) -> tuple[str, ...]:
    """The columns of samples chosen by D beside those of the generator."""
    return tuple(column(name, "resampled") for name in columns if name in _RESAMPLED)


def by_importance(names: Iterable[str]) -> list[str]:
    """NLLs first, then entropies."""
    return sorted(names, key=lambda name: (not name.startswith("nll"), not name.endswith("entropy")))


def told(evaluation: Figures) -> dict[str, float]:
    """The figures of an evaluation that a line of progress has."""
    names = (name for name in by_importance(evaluation) if parse(name)[1] != "resampled")
    return {name: evaluation[name][0] for name in names if name.startswith("nll") or name in TOLD}


def table(evaluation: Figures) -> str:
    """The figures of an evaluation, a line each, and what real data has beside it; an unknown error is left out."""
    if not evaluation:
        return "not evaluated"

    def shown(name: str) -> str:
        value, error = evaluation.get(name, (math.nan, math.nan))
        return "" if math.isnan(value) else f"{value:.3f}" if math.isnan(error) else f"{value:.3f} ± {error:.3f}"

    forms = {"": "generated", "guided": "guided", "resampled": "resampled", "real": "real"}
    of_real = {"g_entropy": "oracle_entropy"}  # which is not named after the figure that it stands beside
    rows: list[tuple[str, ...]] = [("", *forms.values())]
    known = [name for name in evaluation if described(name) and name != "oracle_entropy"]
    for name in by_importance(dict.fromkeys(parse(name)[0].name for name in known)):
        columns = {form: column(name, form) for form in forms} | ({"real": of_real[name]} if name in of_real else {})
        rows.append((name, *map(shown, columns.values())))
    kept = [cells for cells in zip(*rows, strict=True) if any(cells[1:])]
    padded = [[cell.ljust(max(map(len, cells))) for cell in cells] for cells in kept]
    return "\n".join("  ".join(line).rstrip() for line in zip(*padded, strict=True))


def report(evaluation: Figures, *remarks: str, first: str = "") -> str:
    """What a run ends with: the table of an evaluation, a line that comes `first`, and one of remarks."""
    units = "NLL and entropy in nats per token, ± one standard error"
    units += ", kl_to_pretrained in nats per sequence" * ("kl_to_pretrained" in evaluation)
    return "\n".join([table(evaluation), *([first] if first else []), "; ".join([units, *remarks])])
