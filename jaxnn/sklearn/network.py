"""The base of the estimators that train a network by ``fit``.   n rows, I features, O outputs."""

import contextlib
import functools
import math
import numbers
import warnings
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import jax
import numpy as np
import optax
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from jaxnn.compose import chain, output_shape
from jaxnn.layers import Dense, ReLU, Sigmoid, Tanh
from jaxnn.layers.dense import DenseParams
from jaxnn.sklearn.plans import TRAINER, Rule, Task, TrainingPlan, optimizer_of
from jaxnn.training.batching import padded_size
from jaxnn.training.early_stopping import EarlyStopping
from jaxnn.training.evaluation import ROWS, predict
from jaxnn.training.fit import Fit, can_be_padded, fit
from jaxnn.training.train_step import TrainState, init_state
from jaxnn.types import Layer, Loss, Params
from jaxnn.values import from_json, to_json

ACTIVATIONS: dict[str, tuple[Layer, ...]] = {
    "identity": (),
    "logistic": (Sigmoid(),),
    "tanh": (Tanh(),),
    "relu": (ReLU(),),
}


class NetworkEstimator(BaseEstimator):
    """The base of estimators that train a network on minibatches.

    The parameters are those of :class:`~jaxnn.sklearn.MLPClassifier`.
    """

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: str = "relu",
        *,
        network: Layer | None = None,
        loss: Loss | None = None,
        optimizer: Any = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate_init: float = 0.001,
        momentum: float = 0.9,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: float = 10,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.network = network
        self.loss = loss
        self.optimizer = optimizer
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.momentum = momentum
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "hidden_layer_sizes": ["array-like", Interval(numbers.Integral, 1, None, closed="left")],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "network": [Layer, None],
        "loss": [Loss, None],
        "optimizer": [str, optax.GradientTransformation],
        "alpha": [Interval(numbers.Real, 0, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(numbers.Integral, 1, None, closed="left")],
        "learning_rate_init": [Interval(numbers.Real, 0, None, closed="neither")],
        "momentum": [Interval(numbers.Real, 0, 1, closed="left")],
        "max_iter": [Interval(numbers.Integral, 1, None, closed="left")],
        "shuffle": ["boolean"],
        "random_state": ["random_state"],
        "tol": [Interval(numbers.Real, 0, None, closed="left")],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(numbers.Real, 0, 1, closed="neither")],
        "n_iter_no_change": [
            Interval(numbers.Integral, 1, None, closed="left"),
            Options(numbers.Real, {math.inf}),
        ],
    }

    # the parameters that change no more of a plan than its rule, its epochs and its ending
    NUMBERS: ClassVar[frozenset[str]] = frozenset(
        {"alpha", "learning_rate_init", "momentum", "max_iter", "n_iter_no_change", "tol"}
    )

    @classmethod
    @functools.cache
    def _get_param_names(cls) -> list[str]:
        """Return the names of the parameters, which a search asks for many times."""
        return super()._get_param_names()

    # ── What was trained ──────────────────────────────────────────────────────────────────────────

    @property
    def network_(self) -> Layer:
        """The network that was trained."""
        return _network_of(self._network)

    @property
    def params_(self) -> Params:
        """Its parameters, as arrays of NumPy."""
        structure = _structure_of(self._network, self._row, self._dtype)
        return jax.tree.unflatten(structure, self._leaves)

    @property
    def coefs_(self) -> list[np.ndarray]:
        """The weight matrices of the Dense layers, in order."""
        return [np.asarray(dense.w) for dense in self._dense_layers()]

    @property
    def intercepts_(self) -> list[np.ndarray]:
        """The biases of the Dense layers, in order."""
        return [np.asarray(dense.b) for dense in self._dense_layers() if dense.b is not None]

    def _dense_layers(self) -> list[DenseParams]:
        check_is_fitted(self)
        is_dense = lambda node: isinstance(node, DenseParams)  # noqa: E731
        return list(filter(is_dense, jax.tree.leaves(self.params_, is_leaf=is_dense)))

    # ── Training ──────────────────────────────────────────────────────────────────────────────────

    def _checked(self, X: Any, y: Any, reset: bool) -> tuple[np.ndarray, np.ndarray]:
        X, y = validate_data(
            self, X, y, accept_sparse=["csr", "csc"], multi_output=True,
            dtype=(np.float64, np.float32), reset=reset,
        )  # fmt: skip
        return dense(X), y

    def _rows(self, X: Any) -> np.ndarray:
        """Check inputs after training, and return them as an array."""
        return dense(
            validate_data(
                self, X, accept_sparse=["csr", "csc"], dtype=(np.float64, np.float32), reset=False
            )
        )

    def _train(
        self,
        x: np.ndarray,
        task: Task,
        weights: np.ndarray,
        *,
        epochs: int,
        resume: bool,
        stop: bool,
        strata: np.ndarray | None = None,
    ) -> None:
        """Train the network, and keep the result.

        Args:
            x: inputs, n rows.
            task: what to learn.
            weights: the weight of each row, (n,).
            epochs: the number of passes at most.
            resume: whether to continue from the state that was reached before.
            stop: whether to stop once the loss, or the score of rows held out, improves no more.
            strata: classes of which the same part is held out, or None.
        """
        random = check_random_state(self.random_state)
        data, held_out = self._parts((x, task.target, weights), random, stop, strata)
        with precision(x.dtype):
            net = self._network_for(task)
            batch_size = self._batch(len(data[0]), net)
            plan = TrainingPlan(
                net, task, data, held_out, self._rule(task.scale, _mean_weight(data, batch_size)),
                batch_size, int(random.randint(2**31 - 1)), self.random_state is not None, epochs,
                self._ending(task, held_out) if stop else None, self.shuffle,
            )  # fmt: skip
            trained = None if resume else TRAINER.get()(self, plan)
            if trained is None:
                trained = self._trained(plan, resume)
        self._keep(trained, task, x, len(data[0]), resume)
        if stop and trained.stopped == "completed":
            warnings.warn(
                f"{type(self).__name__}: the loss still improved after max_iter={self.max_iter} "
                "passes through the data.",
                ConvergenceWarning,
                stacklevel=3,
            )

    def _trained(self, plan: TrainingPlan, resume: bool) -> Fit:
        """Train the network as planned."""
        state = self._first_state(plan)
        return fit(
            plan.net, plan.task.loss, optimizer_of(plan.rule), plan.data, epochs=plan.epochs,
            batch_size=plan.batch_size, state=self._resumed(state) if resume else state,
            shuffle=plan.shuffle, validation=plan.held_out,
            metrics=() if plan.held_out is None else (plan.task.metric,),
            early_stopping=plan.ending, pad_rows=can_be_padded(plan.net),
            progress=bool(self.verbose),
        )  # fmt: skip

    def _replanned(self, plan: TrainingPlan) -> TrainingPlan:
        """Return the plan for the same data, from that of an estimator with other ``NUMBERS``."""
        weight = _mean_weight(plan.data, plan.batch_size)
        return plan._replace(
            rule=self._rule(plan.task.scale, weight),
            epochs=self.max_iter,
            ending=self._ending(plan.task, plan.held_out),
        )

    def _first_state(self, plan: TrainingPlan) -> TrainState:
        """Return the state before the first step; check that the network fits the task."""
        x = plan.data[0]
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        state = init_state(plan.net, optimizer_of(plan.rule), shape, jax.random.key(plan.seed))
        _check_outputs(type(self).__name__, plan.net, state.params, x, plan.task.outputs)
        return state

    def _parts(
        self, data: tuple[np.ndarray, ...], random: Any, stop: bool, strata: np.ndarray | None
    ) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...] | None]:
        """Return the data to train on, and those that are held out for early stopping."""
        if not (stop and self.early_stopping):
            return data, None
        parts = train_test_split(
            *data, test_size=self.validation_fraction, random_state=random, stratify=strata
        )
        held_out = tuple(parts[1::2])
        n = len(held_out[0])
        size = padded_size(n)  # so that other numbers of rows need no compilation
        repeated = [np.concatenate([part, part[:1].repeat(size - n, axis=0)]) for part in held_out]
        repeated[2][n:] = 0
        return tuple(parts[::2]), tuple(repeated)

    def _batch(self, n: int, net: Layer) -> int:
        """Return the rows of a batch; it may be filled up, so that folds of a row less share it."""
        most = padded_size(n + 1) if can_be_padded(net) else n
        size = 200 if self.batch_size == "auto" else int(self.batch_size)
        if self.batch_size != "auto" and size > n:
            warnings.warn(
                f"Got batch_size={self.batch_size}, larger than the {n} samples. It is going to "
                "be clipped.",
                stacklevel=2,
            )
        return min(size, most)

    def _network_for(self, task: Task) -> Layer:
        if self.network is not None:
            return self.network
        sizes = np.atleast_1d(np.asarray(self.hidden_layer_sizes)).tolist()
        for size in sizes:
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise ValueError(
                    "hidden_layer_sizes must be integers of at least 1, "
                    f"got {self.hidden_layer_sizes}."
                )
        hidden = [part for size in sizes for part in (Dense(size), *ACTIVATIONS[self.activation])]
        return chain(*hidden, Dense(task.outputs))  # with the rule of Glorot, as in scikit-learn

    def _rule(self, scale: float, batch_weight: float) -> Rule:
        """Return the optimizer, behind the penalty alpha / 2 Σ w² on the sum over a batch."""
        name = self.optimizer
        if isinstance(name, str) and not callable(getattr(optax, name, None)):
            raise ValueError(
                f"{type(self).__name__}: expected the name of an optimizer of optax, got {name!r}."
            )
        return Rule(name, self.learning_rate_init, self.momentum, scale, self.alpha / batch_weight)

    def _ending(self, task: Task, held_out: Any) -> EarlyStopping | None:
        if self.n_iter_no_change == math.inf:
            return None
        by_score = held_out is not None
        return EarlyStopping(
            patience=int(self.n_iter_no_change) + 1,
            monitor=f"validation_{task.metric}" if by_score else "loss",
            min_delta=float(self.tol) / (1 if by_score else task.scale),
            restore_best=by_score,
        )

    # ── What is kept ──────────────────────────────────────────────────────────────────────────────

    def _keep(self, trained: Fit, task: Task, x: np.ndarray, n: int, resume: bool) -> None:
        """Keep the result as texts, numbers and arrays of NumPy, which any pickle can hold."""
        self._network = to_json(trained.net)
        self._row, self._dtype = x.shape[1:], str(x.dtype)
        self._leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(trained.params)]
        self._optimizer = [np.asarray(leaf) for leaf in jax.tree.leaves(trained.state.opt_state)]
        curve = (trained.history["loss"] * task.scale).tolist()
        before = self.loss_curve_ if resume else []
        self.loss_curve_: list[float] = [*before, *curve]
        self.loss_ = self.loss_curve_[-1]
        self.best_loss_: float | None = min(self.loss_curve_)
        self.n_iter_ = len(self.loss_curve_)
        self.t_ = n * self.n_iter_
        self.n_outputs_ = task.outputs
        self.n_layers_ = 1 + len(self.coefs_)
        self.validation_scores_: list[float] | None = None
        self.best_validation_score_: float | None = None
        scores = trained.history.get(f"validation_{task.metric}")
        if scores is not None:
            self.validation_scores_ = scores.tolist()
            self.best_validation_score_ = float(scores.max())
            self.best_loss_ = None

    def _resumed(self, state: TrainState) -> TrainState:
        """Return a first state with the parameters and the optimizer's numbers of the last."""
        opt_state = jax.tree.unflatten(jax.tree.structure(state.opt_state), self._optimizer)
        params = jax.tree.unflatten(jax.tree.structure(state.params), self._leaves)
        return state._replace(params=params, opt_state=opt_state)

    def _outputs(
        self,
        x: np.ndarray,
        layers: int | None = None,
        then: Callable[[Any], Any] = lambda outputs: outputs,
    ) -> np.ndarray:
        """Run the network, or its first layers, on checked inputs, then ``then`` on the outputs."""
        net, params = self.network_, self.params_
        if layers is not None:
            net, params = chain(*net.layers[:layers]), params[:layers]  # type: ignore[attr-defined]
        x, n = x.astype(self._dtype, copy=False), len(x)
        if n < ROWS:  # so that other numbers of rows need no compilation
            x = np.concatenate([x, x[:1].repeat(padded_size(n) - n, axis=0)])
        with precision(x.dtype):
            return np.asarray(then(predict(net, params, x)))[:n]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


@functools.lru_cache(maxsize=64)
def _network_of(text: str) -> Layer:
    """Return a network that is kept as text; it is read once for many estimators."""
    return from_json(text)


@functools.lru_cache(maxsize=64)
def _structure_of(text: str, row: tuple[int, ...], dtype: str) -> Any:
    """Return the structure of the parameters of a network that is kept as text."""
    net, x = _network_of(text), jax.ShapeDtypeStruct((1, *row), np.dtype(dtype))
    with precision(dtype):
        return jax.tree.structure(jax.eval_shape(lambda: net.init(jax.random.key(0), x)))


@contextlib.contextmanager
def precision(dtype: Any) -> Iterator[None]:
    """Compute in float64 for data of float64, as scikit-learn does, whatever JAX's setting."""
    with jax.enable_x64(np.dtype(dtype) == np.float64):
        yield


def dense(x: Any) -> np.ndarray:
    """Return a sparse matrix as an array, and an array as it is."""
    return x.toarray() if hasattr(x, "toarray") else x


def _mean_weight(data: tuple[np.ndarray, ...], batch_size: int) -> float:
    """Return the mean of the sums of the weights over a batch."""
    return float(data[2].mean()) * min(batch_size, len(data[0]))


def _check_outputs(who: str, net: Layer, params: Params, x: np.ndarray, outputs: int) -> None:
    found = output_shape(net, params, jax.ShapeDtypeStruct((len(x), *x.shape[1:]), x.dtype))
    if getattr(found, "shape", None) != (len(x), outputs):
        raise ValueError(
            f"{who}: expected a network with {outputs} outputs for each of {len(x)} rows, "
            f"got {jax.tree.map(lambda leaf: leaf.shape, found)}."
        )
