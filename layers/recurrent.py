"""The chapter's recurrent layers: simple, long short-term memory and gated recurrent unit."""

import keras

from layers.cells import GRUCell, LSTMCell, SimpleRNNCell
from layers.unfold import Unfolded, _parameters, of_cell


@keras.saving.register_keras_serializable(package="unfold")
class SimpleRNN(Unfolded):
    """h_t = tanh(U x_t + W h_{t-1} + b)  (Elman 1990)."""

    cell_class = SimpleRNNCell
    cell_name = "simple_rnn_cell"
    keras_class = keras.layers.SimpleRNN
    keras_cell_class = keras.layers.SimpleRNNCell


@keras.saving.register_keras_serializable(package="unfold")
class LSTM(Unfolded):
    """Long short-term memory (Hochreiter & Schmidhuber 1997)."""

    cell_class = LSTMCell
    cell_name = "lstm_cell"
    keras_class = keras.layers.LSTM
    keras_cell_class = keras.layers.LSTMCell


@keras.saving.register_keras_serializable(package="unfold")
class GRU(Unfolded):
    """Gated recurrent unit (Cho et al. 2014)."""

    cell_class = GRUCell
    cell_name = "gru_cell"
    keras_class = keras.layers.GRU
    keras_cell_class = keras.layers.GRUCell


for _layer in (SimpleRNN, LSTM, GRU):
    _views = [
        name for name in dir(_layer.cell_class) if name[:2] in ("U_", "W_", "b_", "U", "W", "b")
    ]
    for _name in [*_parameters(_layer.keras_cell_class), "initial", *_views]:
        setattr(_layer, _name, of_cell(_name))
