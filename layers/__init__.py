"""The chapter: recurrent cells, their unfolding over time, and what wraps them."""

from layers.attention import AdditiveAttention
from layers.bidirectional import Bidirectional
from layers.cells import GRUCell, LSTMCell, SimpleRNNCell
from layers.recurrent import GRU, LSTM, SimpleRNN

__all__ = [
    "GRU",
    "LSTM",
    "AdditiveAttention",
    "Bidirectional",
    "GRUCell",
    "LSTMCell",
    "SimpleRNN",
    "SimpleRNNCell",
]
