"""Messages on standard error, results on standard output."""

from pipelines.engine.core import console as consoles
from pipelines.engine.core.console import Console


def test_messages_go_to_standard_error_and_are_not_markup(capsys):
    console = Console()
    console.say("[bold] 1")
    console.warn("two")
    console.error("three")
    captured = capsys.readouterr()
    assert captured.err == "[bold] 1\nwarning: two\nerror: three\n"
    assert captured.out == ""


def test_silent_console_prints_tables_only(capsys):
    console = Console(silent=True)
    console.say("one")
    console.table("scores", ["name", "value"], [["accuracy", "0.9"]])
    captured = capsys.readouterr()
    assert captured.err == ""
    lines = captured.out.splitlines()
    assert lines[0] == "scores"
    assert any(line.split() == ["accuracy", "0.9"] for line in lines)


def test_progress_without_a_terminal_is_a_line_now_and_then(capsys, monkeypatch):
    with Console().progress("epoch 1", 4, "rows") as bar:
        bar.advance(10)
        assert capsys.readouterr().err == ""
        monkeypatch.setattr(consoles, "PROGRESS_INTERVAL", 0.0)
        bar.advance(10, loss=0.5)
    line = capsys.readouterr().err
    assert line.startswith("epoch 1  2/4  loss 0.5000  ")
    assert "rows/s" in line
    assert line.endswith(" s left\n")


def test_epoch_shows_scores_but_no_diagnostics(capsys):
    record = {
        "loss": 0.25,
        "val_loss": 0.5,
        "learning_rate": 1.0,
        "health/gradient": 3.0,
        "tokens_per_second": 1234.0,
        "epoch_seconds": 5.0,
    }
    Console().epoch(2, 10, record, is_best=True)
    assert capsys.readouterr().err == (
        "epoch 2/10  loss 0.2500  val_loss 0.5000  1,234 tokens/s  5 s  (best)\n"
    )
