"""The decorator @layer: settings are plain values, and all others are rejected."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn


@nn.layer
class Scale:
    """A user's layer: y = factor * x."""

    factor: float = 2.0

    def init(self, key, x):
        return ()

    def forward(self, params, x, key=None):
        return self.factor * x, ()

    def backward(self, params, cache, dy):
        return (), self.factor * dy


def test_a_layer_of_the_users_own_is_a_full_citizen():
    net = nn.chain(nn.Dense(3), Scale(0.5), nn.Sigmoid())
    assert nn.certify(net, np.ones((2, 3))).passed
    assert nn.from_json(nn.to_json(net)) == net
    assert '"type": "test_values.Scale"' in nn.to_json(net)
    assert repr(Scale()) == "Scale()"
    assert repr(Scale(3.0)) == "Scale(factor=3.0)"


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ([1, 2], "list (write a tuple)"),
        (np.ones(2), "ndarray (arrays belong in the parameters)"),
        (jnp.ones(2), "(arrays belong in the parameters)"),
        (abs, "builtin_function_or_method"),
        ({"a": 1}, "dict"),
        (type("Bare", (Scale,), {})(), "Bare (decorate its class with @jaxnn.layer)"),
        (float("nan"), "to be finite, got nan"),
        ((1, [2]), "factor[1] to be a plain value"),
    ],
)
def test_a_setting_that_is_not_plain_is_refused(setting, named):
    with pytest.raises(nn.InputError, match="Scale: expected factor") as error:
        Scale(setting)
    assert named in str(error.value)


def test_a_layer_without_a_backward_is_refused():
    with pytest.raises(TypeError, match="missing backward"):

        @nn.layer
        class Half:
            def init(self, key, x):
                return ()

            def forward(self, params, x, key=None):
                return x, ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected JSON"),
        ('{"type": "Unheard"}', "known layer or loss type, got 'Unheard'"),
        (
            '{"type": "Dense", "features": 3, "features": 4}',
            "expected each key once, got 'features' twice",
        ),
        ("3", "expected a layer or a loss, got int"),
        pytest.param("[" * 10**5, "nested too deeply", id="lists"),
        pytest.param(
            '{"type": "Residual", "body": ' * 10**5 + "3" + "}" * 10**5,
            "nested too deeply",
            id="layers",
        ),
        pytest.param("1" * 5000, "expected JSON", id="digits"),
        (None, "expected JSON"),
        ('{"type": ["Dense"]}', "known layer or loss type"),
        ('{"type": "_Watched"}', "known layer or loss type, got '_Watched'"),
        ('{"type": "Dense"}', "settings that Dense takes, got TypeError"),
        (
            '{"type": "OptaxLoss", "name": "__class__"}',
            "a function in optax.losses, got '__class__'",
        ),
        ('{"type": "OptaxLoss", "name": 3}', "OptaxLoss"),
        ('{"features": 3}', "known layer or loss type, got None"),
        ('{"type": "Dense", "features": 3, "colour": 1}', r"settings of Dense .* got \['colour'\]"),
        ('{"type": "Dense", "features": 0}', "features to be an integer of at least 1, got 0"),
    ],
)
def test_json_that_is_not_a_layer_is_refused(text, message):
    with pytest.raises(nn.InputError, match=message):
        nn.from_json(text)
    with pytest.raises(nn.InputError, match="expected a layer or a loss, got int"):
        nn.to_json(3)


def test_a_layer_passes_through_jit_as_part_of_the_program():
    traced = []

    @jax.jit
    def run(net, x):
        traced.append(net)
        return net.forward((), x)[0]

    run(Scale(3.0), jnp.ones(2))
    run(Scale(3.0), jnp.ones(2))
    assert traced == [Scale(3.0)]
