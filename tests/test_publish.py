"""tools/publish.py, and the weights in models/."""

import shutil
from pathlib import Path
from unittest.mock import Mock

import pytest
from conftest import ROOT, cases, refusal, train
from test_guided import text_in

from tools import publish, sample


def drawn(capsys, *words: str) -> str:
    assert sample.main([*words, "-n", "5"]) == 0
    return capsys.readouterr().out


def test_samples_of_published_weights_are_those_of_the_run(tmp_path, capsys, eagerly):
    words = [*text_in(tmp_path, "train", "valid", "test"), "--total_epochs", "0", "--average", "0.5"]
    assert train([*words, "--log_dir", str(tmp_path / "run"), "--eval_log_dir", str(tmp_path / "eval")]) == 0
    run, folder = str(tmp_path / "run"), str(tmp_path / "kept")
    assert publish.main([run, folder]) == 0
    weights = [sum(p.stat().st_size for p in Path(d).rglob("weights.data*")) for d in (folder, run)]
    assert weights[0] < weights[1] / 3
    assert "File exists" in refusal(capsys, lambda words: publish.main(words), [run, folder])
    for more in (["--log_dir", folder], ["--pretrained", folder, "--log_dir", str(tmp_path / "new")]):
        assert "published weights" in refusal(capsys, train, [*words, *more, "--no-evaluate"], alone=False)
    shutil.rmtree(tmp_path / "lines", ignore_errors=True)
    for how in ([], ["--guide"]):
        assert drawn(capsys, folder, *how) == drawn(capsys, run, *how)


def test_ctrl_c_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(publish, "write_whole", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        publish.main([str(ROOT / "models" / "captions"), str(tmp_path / "kept")])
    assert not (tmp_path / "kept").exists()


@cases("path", *sorted(path for path in (ROOT / "models").glob("*") if path.is_dir()), ids=lambda path: path.name)
def test_models_are_sampled(path, tmp_path, capsys):
    music = (path / "tempo.json").exists()
    shown = drawn(capsys, str(path), *(["--abc", "-o", str(tmp_path / "tunes")] if music else ["--guide"]))
    lines, pages = len(shown.splitlines()), len(list((tmp_path / "tunes").glob("*.abc")))
    assert (pages == 6 and "tunes.html" in shown) if music else lines == 5
    assert sum(file.stat().st_size for file in path.rglob("*")) < 8e6
    assert publish.main([str(path), str(tmp_path / "again")]) == 0
    assert {file.name for file in (tmp_path / "again").iterdir()} == {file.name for file in path.iterdir()}
