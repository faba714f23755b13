"""The four architectures: how inputs and outputs are connected over time."""

from __future__ import annotations

import numpy as np

from layers import LSTM
from pipelines.engine.core.tables import Table
from pipelines.lab.section import Section, Settings


def run(settings: Settings) -> Section:
    """Compare the shapes of inputs and outputs."""
    x = np.zeros((1, 5, 3), "float32")
    every = tuple(LSTM(4, return_sequences=True)(x).shape)
    last = tuple(LSTM(4)(x).shape)
    architectures = {
        "one-to-one": ("each output is the next input", "generation, forecasting"),
        "one-to-many": ("an image sets the initial state", "captioning"),
        "many-to-one": (f"{x.shape[1:]} → {last[1:]}", "sentiment"),
        "many-to-many": (f"{x.shape[1:]} → {every[1:]}", "translation"),
    }
    return Section(
        title="The four architectures",
        claim="One cell serves them all; they differ in where inputs come in and outputs go out.",
        equation="ŷ_T = softmax(V h_T)        ŷ_t = softmax(V h_t)        x_{t+1} = ŷ_t",
        method="The shapes of five steps of three features through LSTM layers of four units.",
        holds=last == (1, 4) and every == (1, 5, 4),
        verdict="The same layer returns its last state or all of them.",
        numbers={},
        table=Table(
            ["architecture", "inputs and outputs", "pipeline"],
            [[name, *row] for name, row in architectures.items()],
        ),
    )
