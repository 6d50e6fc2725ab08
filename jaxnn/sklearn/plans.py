"""What an estimator trains, and how: a plan that a search can carry out together with others."""

import dataclasses
import functools
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from jaxnn.training.early_stopping import EarlyStopping
from jaxnn.training.fit import Fit
from jaxnn.training.optimizers import OptaxUpdate
from jaxnn.types import Layer, Loss, Params


class Task(NamedTuple):
    """What a network has to learn.

    Attributes:
        loss: the objective.
        outputs: O, the numbers that the network has to return for each row.
        target: the target of the loss, n rows.
        scale: the factor from this loss to scikit-learn's objective, which sums over the outputs of
            a row, and takes half of a square.
        metric: the score on the rows that early stopping holds out.
    """

    loss: Loss
    outputs: int
    target: np.ndarray
    scale: float
    metric: str


class Rule(NamedTuple):
    """The numbers that make an optimizer.

    Attributes:
        name: its name, or an optimizer of optax itself.
        learning_rate: the learning rate, for a name.
        momentum: that of "sgd".
        scale: a factor of the gradient.
        decay: the strength of the penalty on the weights.
    """

    name: Any
    learning_rate: float
    momentum: float
    scale: float
    decay: float

    def optimizer(self) -> optax.GradientTransformation:
        """Return the optimizer of optax."""
        if isinstance(self.name, optax.GradientTransformation):
            rule = self.name
        elif self.name == "sgd":
            rule = optax.sgd(self.learning_rate, momentum=self.momentum, nesterov=True)
        else:
            rule = getattr(optax, self.name)(self.learning_rate)
        penalty = optax.add_decayed_weights(self.decay, mask=_are_matrices)
        return optax.chain(optax.scale(self.scale), penalty, rule)


@functools.lru_cache(maxsize=64)
def optimizer_of(rule: Rule) -> optax.GradientTransformation:
    """Return the optimizer of a rule, the same object for equal rules.

    By the object, ``fit`` knows again what it has traced of an optimizer.
    """
    return rule.optimizer()


@dataclasses.dataclass(frozen=True)
class RuleUpdate:
    """The update of an optimizer of which the numbers of its :class:`Rule` are arguments.

    It is an ``Update`` of :mod:`jaxnn.training.optimizers`. Many rules share one program, and
    nothing has to be traced to take their numbers out.
    """

    name: str

    def __call__(
        self, constants: Any, gradient: Params, opt_state: Any, trained: Params, value: Any
    ) -> tuple[Params, Any]:
        """Return the updates of the parameters, and the optimizer's next state."""
        update = OptaxUpdate(Rule(self.name, *constants).optimizer())
        return update((), gradient, opt_state, trained, value)


class TrainingPlan(NamedTuple):
    """A training run before it begins: everything that decides its result.

    Attributes:
        net: the network.
        task: what it has to learn.
        data: inputs, targets and weights of the rows to train on.
        held_out: those of the rows that are held out for early stopping, or None.
        rule: the optimizer.
        batch_size: B.
        seed: the seed of the parameters and of the orders of the rows.
        seeded: whether the user has fixed the seed.
        epochs: the number of passes at most.
        ending: the rule by which to stop before that, or None.
        shuffle: whether to draw a new order of the rows for each pass.
    """

    net: Layer
    task: Task
    data: tuple[np.ndarray, ...]
    held_out: tuple[np.ndarray, ...] | None
    rule: Rule
    batch_size: int
    seed: int
    seeded: bool
    epochs: int
    ending: EarlyStopping | None
    shuffle: bool


# What an estimator asks first, with its plan: a search that has trained its candidates together
# answers with the result. None means that the estimator has to train by itself.
Trainer = Callable[[Any, TrainingPlan], Fit | None]
TRAINER: ContextVar[Trainer] = ContextVar("trainer", default=lambda estimator, plan: None)


def _are_matrices(params: Params) -> Params:
    """Return which parameters are weights, to which the penalty applies, and which are biases."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)
