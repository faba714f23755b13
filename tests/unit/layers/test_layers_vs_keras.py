"""The layers equal those of the same name in keras.layers: values, gradients, configs."""

import itertools

import keras
import numpy as np
import pytest

import layers
from tests.support.comparing import (
    BATCH,
    INPUTS,
    KINDS,
    TIME,
    UNITS,
    as_numpy,
    assert_same,
    data,
    fewer_on_jax,
    make,
    outputs_and_gradients,
    random_states,
)

SETTINGS = [
    {},
    {"return_sequences": True, "return_state": True},
    {"return_sequences": True, "go_backwards": True},
    {"return_state": True, "go_backwards": True, "unroll": True},
    {"return_sequences": True, "unroll": True, "use_bias": False},
    {"return_sequences": True, "zero_output_for_mask": True},
    {"zero_output_for_mask": True},
    {"activation": "relu", "recurrent_activation": "hard_sigmoid", "return_state": True},
    {"activation": None, "units": 1},
    {"implementation": 1, "units": 7, "inputs": 1},
    {"dropout": 0.4, "recurrent_dropout": 0.3, "return_sequences": True},
]
# Every row begins with a real step: before it Keras's two backends differ, see
# test_padding_and_initial_states.py for what happens there.
MASK = np.array(
    [[1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0], [1, 0, 1, 1, 0, 1], [1, 0, 0, 0, 0, 1]], dtype="bool"
)


def pair(kind, **settings):
    if kind == "SimpleRNN":
        settings = {
            k: v for k, v in settings.items() if k not in ("recurrent_activation", "implementation")
        }
    return make(kind, **settings), make(kind, module=keras.layers, **settings)


@pytest.mark.parametrize(
    ("kind", "settings", "masked"),
    fewer_on_jax(
        pytest.param(
            kind, settings, masked, id=f"{kind}-{'-'.join(settings) or 'default'}-{masked}"
        )
        for place, (kind, settings) in enumerate(itertools.product(KINDS, SETTINGS))
        # Half of the combinations with a mask, those with a setting for masks always.
        for masked in [bool(place % 2) or "zero_output_for_mask" in settings]
    ),
)
def test_outputs_states_and_gradients(kind, settings, masked):
    ours, theirs = pair(kind, **settings)
    x = data(inputs=settings.get("inputs", INPUTS))
    mask = MASK if masked else None
    if masked and settings.get("go_backwards"):
        mask = MASK[:, ::-1]
    given = random_states(ours) if settings.get("return_state") else None
    assert_same(
        outputs_and_gradients(ours, x, given, mask=mask),
        outputs_and_gradients(theirs, x, given, mask=mask),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_in_training_draws_the_same_masks(kind):
    """The same seed gives Keras's masks, so training can be moved over in the middle."""
    settings = {"dropout": 0.4, "recurrent_dropout": 0.3, "seed": 11, "return_sequences": True}
    ours, theirs = pair(kind, **settings)
    x = data()
    for _ in range(2):
        np.testing.assert_allclose(
            *(as_numpy(layer(x, training=True))[0] for layer in (ours, theirs)), atol=1e-5
        )


@pytest.mark.parametrize("kind", KINDS)
def test_stateful(kind):
    ours, theirs = pair(kind, stateful=True, return_sequences=True)
    for seed in range(3):
        x = data(seed)
        if seed == 2:
            ours.reset_state()
            theirs.reset_state()
        np.testing.assert_allclose(*(as_numpy(f(x))[0] for f in (ours, theirs)), atol=1e-5)
    with pytest.raises(ValueError, match="stateful for batches of 4 rows, received 3"):
        ours(data()[:3])


@pytest.mark.parametrize(
    ("kind", "policy"),
    fewer_on_jax(
        itertools.product(KINDS, ["float16", "bfloat16", "mixed_float16", "mixed_bfloat16"])
    ),
)
def test_precision_policies(kind, policy):
    ours, theirs = pair(
        kind,
        dtype=policy,
        return_sequences=True,
        return_state=True,
        recurrent_initializer="glorot_uniform",  # orthogonal needs a QR that 16 bits lack
    )
    x = data().astype("float32")
    got, want = ours(x, mask=MASK), theirs(x, mask=MASK)
    for a, b in zip(got, want, strict=True):
        assert keras.backend.standardize_dtype(a.dtype) == policy.removeprefix("mixed_")
        a, b = as_numpy(a)[0].astype("float32"), as_numpy(b)[0].astype("float32")
        np.testing.assert_allclose(a, b, atol=0.04 if "bfloat" in policy else 5e-3)
    assert [v.dtype for v in ours.weights] == [v.dtype for v in theirs.weights]
    traced = ours.trace(x)
    assert {keras.backend.standardize_dtype(v.dtype) for v in traced.values()} == {
        policy.removeprefix("mixed_")
    }


@pytest.mark.parametrize("kind", KINDS)
def test_cells_alone_and_inside_keras_rnn(kind):
    settings = {"reset_after": False} if kind == "GRU before" else {}
    name = kind.split()[0] + "Cell"
    cells = [getattr(module, name)(UNITS, **settings) for module in (layers, keras.layers)]
    for cell in cells:
        cell.build((None, INPUTS))
    rng = np.random.default_rng(2)
    weights = [rng.normal(size=w.shape) for w in cells[0].weights]
    states = [rng.normal(size=(BATCH, UNITS)).astype("float32") for _ in cells[0].state_names]
    results = []
    for cell in cells:
        cell.set_weights(weights)
        output, after = cell(data()[:, 0], states)
        results.append([output, *after, keras.layers.RNN(cell)(data())])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(*as_numpy([a, b]), atol=1e-5)
    if len(states) == 1:
        output, after = cells[0](data()[:, 0], states[0])
        np.testing.assert_array_equal(*as_numpy([output, after]))


@pytest.mark.parametrize("kind", ["SimpleRNN", "LSTM", "GRU"])
def test_configs_can_be_exchanged(kind):
    settings = {
        "activation": "elu",
        "use_bias": True,
        "kernel_initializer": keras.initializers.HeNormal(seed=3),
        "recurrent_initializer": "glorot_normal",
        "bias_initializer": keras.initializers.Constant(0.3),
        "kernel_regularizer": keras.regularizers.L2(0.1),
        "recurrent_regularizer": "l1",
        "bias_regularizer": "l2",
        "activity_regularizer": "l2",
        "kernel_constraint": "max_norm",
        "recurrent_constraint": "unit_norm",
        "bias_constraint": "non_neg",
        "dropout": 0.1,
        "recurrent_dropout": 0.2,
        "return_sequences": True,
        "return_state": True,
        "go_backwards": True,
        "stateful": True,
        "unroll": True,
        "zero_output_for_mask": True,
        "seed": 3,
        "name": "reader",
        "dtype": "mixed_bfloat16",
        "trainable": False,
    }
    if kind != "SimpleRNN":
        settings["recurrent_activation"] = "hard_sigmoid"
    if kind == "LSTM":
        settings["unit_forget_bias"] = False
    if kind == "GRU":
        settings["reset_after"] = False
    theirs, ours = getattr(keras.layers, kind), getattr(layers, kind)
    config = ours(5, **settings).get_config()
    expected = theirs(5, **settings).get_config()
    if kind == "SimpleRNN":  # Keras forgets both there
        expected["activity_regularizer"] = config["activity_regularizer"]
        expected["seed"] = 3
    assert config == expected
    their_config = theirs.from_config(config).get_config()
    assert ours.from_config(their_config).get_config() == {
        **expected,
        "seed": their_config.get("seed"),
        "activity_regularizer": their_config["activity_regularizer"],
    }


@pytest.mark.parametrize("kind", ["SimpleRNN", "LSTM", "GRU"])
def test_our_own_settings_survive_the_config(kind):
    settings = {"initial": "random", "truncate": 7}
    settings |= {} if kind == "SimpleRNN" else {"use_cudnn": False, "implementation": 1}
    cls = getattr(layers, kind)
    config = cls(5, **settings).get_config()
    assert settings.items() <= config.items()
    assert cls.from_config(config).get_config() == config
    assert not (settings.keys() & cls(5).get_config().keys())
    cell = getattr(layers, kind + "Cell")(5, initial="learned")
    assert type(cell).from_config(cell.get_config()).initial == "learned"


@pytest.mark.parametrize("kind", ["SimpleRNN", "LSTM", "GRU"])
def test_arguments_may_be_given_by_position(kind):
    positional = (5, "relu", "tanh", False)[: 3 if kind == "SimpleRNN" else 4]
    ours, theirs = getattr(layers, kind)(*positional), getattr(keras.layers, kind)(*positional)
    for name in ("units", "activation", "use_bias"):
        assert getattr(ours, name) == getattr(theirs, name)
    with pytest.raises(TypeError, match="multiple values"):
        getattr(layers, kind)(5, units=5)
    with pytest.raises(ValueError, match="no_such"):
        getattr(layers, kind)(5, no_such=1)


@pytest.mark.parametrize("kind", ["SimpleRNN", "LSTM", "GRU"])
def test_initial_values_and_tracked_variables(kind):
    ours, theirs = (getattr(m, kind)(UNITS, seed=1, name="reader") for m in (layers, keras.layers))
    for layer in (ours, theirs):
        layer.build((None, None, INPUTS))
    assert [w.path for w in ours.weights] == [w.path for w in theirs.weights]
    assert len(ours.variables) == len(theirs.variables)
    np.testing.assert_array_equal(ours.get_weights()[2], theirs.get_weights()[2])
    assert ours.count_params() == theirs.count_params()


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])  # Keras's SimpleRNN forgets the activity's
def test_regularizers_add_the_same_losses(kind):
    settings = {name + "_regularizer": "l2" for name in ("kernel", "recurrent", "bias", "activity")}
    ours, theirs = pair(kind, **settings)
    ours(data())
    theirs(data())
    np.testing.assert_allclose(as_numpy(sum(ours.losses)), as_numpy(sum(theirs.losses)), rtol=1e-5)


@pytest.mark.parametrize(("kind", "unroll"), itertools.product(KINDS, [False, True]))
def test_symbolic_shapes(kind, unroll):
    time = TIME if unroll else None
    ours, theirs = pair(kind, return_sequences=True, return_state=True, unroll=unroll)
    got, want = (layer(keras.Input((time, INPUTS))) for layer in (ours, theirs))
    assert [y.shape for y in got] == [y.shape for y in want]


def test_unrolling_needs_the_number_of_steps():
    model_input = keras.Input((None, INPUTS))
    with pytest.raises(ValueError, match="unroll=True needs a known number of timesteps"):
        make("LSTM", unroll=True)._in_order_of_processing(model_input, None, None)
