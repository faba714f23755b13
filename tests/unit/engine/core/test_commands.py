"""Messages word commands as the user typed the last one."""

import pytest

from pipelines.engine.core.commands import command, option, with_input


@pytest.mark.parametrize(
    ("dialect", "expected"),
    [
        (
            "make",
            [
                "make ui",
                "make export-sentiment",
                "make train-sentiment CONFIG=a.yaml",
                "make train-sentiment RUN=r1",
                "make evaluate-sentiment RUN=r1",
                "make export-sentiment NAME=tickets",
                "make export-sentiment",
                "PORT=1 GRPC=2 HOST=h",
                'make predict-sentiment RUN=r1 INPUT="…"',
            ],
        ),
        (
            "",
            [
                "unfold ui",
                "unfold export sentiment",
                "unfold train sentiment --config a.yaml",
                "unfold train sentiment --resume r1",
                "unfold evaluate sentiment --run r1",
                "unfold export sentiment --name tickets",
                "unfold export sentiment",
                "--port 1 --grpc-port 2 --host h",
                'unfold predict sentiment --run r1 "…"',
            ],
        ),
    ],
)
def test_wording(dialect, expected, monkeypatch):
    monkeypatch.setenv("UNFOLD_DIALECT", dialect)
    options = (option("port", 1), option("grpc-port", 2), option("host", "h"))
    assert expected == [
        command("ui"),
        command("export", "sentiment"),
        command("train", "sentiment", config="a.yaml"),
        command("train", "sentiment", run="r1"),
        command("evaluate", "sentiment", run="r1"),
        command("export", "sentiment", name="tickets"),
        command("export", "sentiment", name="sentiment"),
        " ".join(options),
        with_input(command("predict", "sentiment", run="r1")),
    ]
