"""Weight pruning during any training: the weights' constraints count, update and hold masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.core.arguments import check_arguments
from compress.core.errors import InputError
from compress.core.lazy_modules import tf
from compress.model.layers import BIAS, NORMALIZATION
from compress.plan import WeightOptions
from compress.plan.keywords import WEIGHT_PRUNER
from compress.prune.weights.masks import Ranking
from compress.prune.weights.patterns import pattern_of
from compress.prune.weights.schedules import (
    checked,
    final_sparsity,
    last_update,
    planned,
    update_times,
)
from compress.prune.weights.targets import (
    PrunedLayer,
    SkippedLayer,
    Target,
    WeightReport,
    find_targets,
)

if TYPE_CHECKING:
    from typing import Unpack

    import keras

    from compress.plan.settings import WeightPrunerSettings

Constraint = Callable[[Any], Any]
State = dict[str, npt.NDArray[Any]]
BEGUN = 0.01
"""A kernel with a larger share of zeros than this has been pruned before."""


class WeightPruner:
    """Pruner of weights during any training, which holds them at zero.

    A Keras optimizer applies a variable's constraint after each step. The constraints set
    here multiply by the masks; the first of them in a step also counts the step and, where
    the schedule says so, makes new masks from the magnitudes as the optimizer left them. So
    nothing depends on the loop around: `fit`, a custom loop, accumulated gradients, mixed
    precision. A constraint that the user set acts first and is given back by `strip`.

    As a callback of `fit` it attaches itself to the model and strips it at the end of the training;
    anywhere else call `attach`.

    Args:
        options: Pattern, scope, sparsity, times; keywords go over it.
        schedule: "polynomial" or "constant"; tfmot's `ConstantSparsity` or `PolynomialDecay`
            instead of the plan's, or a function step -> (update now, sparsity). The first step
            is 1, as in tfmot.
        **settings: Fields of `WeightOptions`: sparsity, pattern, scope, begin, end, ...

    Example:
        >>> model.compile("adam", "sparse_categorical_crossentropy")
        >>> pruner = WeightPruner(sparsity=0.5, include=["ends"])
        >>> history = model.fit(x, y, batch_size=25, epochs=2, verbose=0, callbacks=[pruner])
        >>> 0.49 < pruner.report.sparsity < 0.51
        True

    Reference:
        Zhu & Gupta 2017, "To prune, or not to prune"; masks and their times as tfmot 0.8.1
        computes them: masks may take weights back until the schedule ends.
    """

    async_safe = True
    """None of the hooks for Keras looks at a batch: it need not wait for them."""

    @check_arguments(number={"options": "sparsity"})
    def __init__(
        self,
        options: WeightOptions | None = None,
        *,
        schedule: Any = None,
        **settings: Unpack[WeightPrunerSettings],
    ) -> None:
        self.options = WEIGHT_PRUNER.section("weights", options, WeightOptions, settings)
        if isinstance(schedule, str):
            self.options, schedule = replace(self.options, schedule=schedule), None
        self.schedule = schedule
        self.pattern = pattern_of(self.options)
        self.targets: list[Target] = []
        self.kept: list[SkippedLayer] = []
        self.notes: list[str] = []
        self._model: Any = None
        self._masks: list[Any] = []
        self._given_back: list[tuple[Any, Constraint | None]] = []
        self._called: set[int] = set()
        self._jit = False
        self._last_update: int | None = None

    # -- any training ----------------------------------------------------------------------

    def attach(
        self,
        model: keras.Model,
        *,
        steps_per_epoch: int | None = None,
        epochs: int | None = None,
        state: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> WeightPruner:
        """Set the constraints; whatever trains the model then prunes it, until `strip`.

        Used as `with pruner.attach(...):` it is stripped where the block ends, by an error too.

        Args:
            model: Built; it is changed in place.
            steps_per_epoch: Batches of an epoch.
            epochs: Of the training; both are needed unless a schedule was given.
            state: From `state`, of a training that goes on.

        Returns:
            Itself.

        Raises:
            InputError: Nothing to prune can be found by a pattern, a block is larger than a
                weight, a schedule does not fit the training, or the pruner is in use.
        """
        known = steps_per_epoch is not None and epochs is not None
        total = steps_per_epoch * epochs if steps_per_epoch and epochs else None
        if not known and self.schedule is None:
            raise InputError(
                "attach() must know the length of the training. Received: "
                f"steps_per_epoch={steps_per_epoch}, epochs={epochs}. Give both, or schedule=."
            )
        self._begin(model, total, steps_per_epoch, state)
        return self

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Return a hook of a Keras callback that does nothing; Keras is not imported for it."""
        if name.startswith("on_") and name.endswith(("_begin", "_end")):
            return lambda *_, **__: None
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def set_model(self, model: Any) -> None:
        """Take the model that `fit` trains."""
        self._fitted = model

    def set_params(self, params: Mapping[str, Any]) -> None:
        """Take the length of the training."""
        self._params = params

    def on_train_begin(self, logs: Any = None) -> None:
        """Attach to the model that `fit` trains, for Keras.

        Raises:
            InputError: The number of steps is not known and there is no schedule; see `attach`.
        """
        params = self._params
        if params.get("steps") is None and self.schedule is None:
            raise InputError(
                "fit() must know how many steps an epoch has for a WeightPruner. Received: data "
                "without a length. Give fit(steps_per_epoch=), or WeightPruner(schedule=)."
            )
        self.attach(self._fitted, steps_per_epoch=params.get("steps"), epochs=params["epochs"])
        self._fitted.make_train_function()  # the one that fit() has made knows no constraints

    def on_train_end(self, logs: Any = None) -> None:
        """Strip the model, for Keras."""
        self.strip()

    def start(
        self,
        model: keras.Model,
        step: Any,
        total_steps: int,
        steps_per_epoch: int,
        *,
        jit: bool,
        state: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> None:
        """Attach the pruner, for the training loop of `compress.train`."""
        self._jit = jit
        self._begin(model, total_steps, steps_per_epoch, state)

    @property
    def attached(self) -> bool:
        """Whether it prunes, or has pruned, a model that something trains."""
        return self._model is not None

    def may_select(self, step: int) -> bool:
        """Allow weights only after the last mask update."""
        return not self.targets or self._last_update is None or step >= self._last_update

    def once(self, model: keras.Model) -> WeightReport:
        """Prune to the final sparsity now, without training; holds nothing afterwards.

        Args:
            model: Its weights are changed in place.
        """
        self._find(model)
        for target, mask in zip(self.targets, self._new_masks(self._final), strict=True):
            target.variable.assign(target.variable.value * _as(mask, target.variable.value))
        return self.report

    def __enter__(self) -> WeightPruner:
        """Begin a block that is pruned; `attach` comes before."""
        if self._model is None:
            raise InputError(
                "A WeightPruner must be attached to a model. Received: none. Write "
                "with pruner.attach(model, steps_per_epoch=..., epochs=...):"
            )
        return self

    def __exit__(self, *_: object) -> None:
        """Strip the model, whatever has happened."""
        self.strip()

    def strip(self) -> WeightReport:
        """Take masks and constraints off, leaving an ordinary model with exact zeros.

        To be called after training, failed training too; a second call changes nothing.
        """
        for variable, constraint in self._given_back:
            variable.constraint = constraint
        if self._given_back:
            _traced_anew(self._model)
            # an optimizer's moving averages, say, were put in place behind the constraints
            for target, mask in zip(self.targets, self._masks, strict=True):
                target.variable.assign(target.variable.value * mask)
        self._given_back.clear()
        return self.report

    def state(self) -> State:
        """Return the state to resume a training from: the step and the masks, as bits."""
        state: State = {
            "step": self._step.numpy(),
            "updated": self._updated.numpy(),
            "floors": np.array(self._floors),
        }
        for place, mask in enumerate(self._masks):
            state[f"mask{place}"] = np.packbits(mask.numpy() != 0)
        return state

    # -- inside ----------------------------------------------------------------------------

    def _find(self, model: keras.Model, floors: Sequence[float] | None = None) -> None:
        found, self.kept = find_targets(
            model, include=self.options.include, overrides=self.options.overrides
        )
        for target in found:
            reason = self.pattern.check(target)
            if reason:
                self.kept.append(SkippedLayer(target.layer, target.kind, reason))
            else:
                self.targets.append(target)
        self._final = final_sparsity(self.schedule, self.options)
        # a training that goes on has zeros that it made itself
        self._floors = (
            [self._floor(target) for target in self.targets] if floors is None else floors
        )
        self._ranking = Ranking(
            self.targets, self.pattern, self.options.ranking, self._final, self._floors
        )

    def _floor(self, target: Target) -> float:
        value = target.variable.numpy()
        if not np.isfinite(value).all():
            raise InputError(
                "The model's weights must be finite to be ranked. Received: NaN or infinity in "
                f"layer '{target.layer}'. Load the weights of an earlier epoch."
            )
        share = float(np.mean(value == 0))
        if target.role in (BIAS, NORMALIZATION) or not BEGUN < share < 1:
            return 0.0
        self.notes.append(f"layer '{target.layer}' begins with {share:.1%} zeros: kept as a start")
        return share

    def _begin(
        self,
        model: keras.Model,
        total_steps: int | None,
        steps_per_epoch: int | None,
        state: Mapping[str, npt.NDArray[Any]] | None,
    ) -> None:
        if self._model is not None:
            raise InputError("A WeightPruner must be used for one training. Make a new one.")
        if self.schedule is not None:
            self.schedule = checked(self.schedule, total_steps)
        else:
            assert total_steps is not None
            times = update_times(self.options, total_steps, steps_per_epoch)
            self.schedule = planned(self.options, times)
        self._last_update = last_update(self.schedule, total_steps)
        self._find(model, None if state is None else state["floors"].tolist())
        self._model = model
        self._step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._updated = tf.Variable(False, trainable=False)
        self._masks = [
            tf.Variable(_as(target.variable.value != 0, target.variable.value)
                        if self._floors[place] > 0 else tf.ones_like(target.variable.value),
                        trainable=False)
            for place, target in enumerate(self.targets)
        ]  # fmt: skip
        if state is not None:
            self._restore(state)
        elif self.targets:
            self._maybe_update(1)
        _traced_anew(model)
        for place, target in enumerate(self.targets):
            self._given_back.append((target.variable, target.variable.constraint))
            target.variable.constraint = self._holding(place, target.variable.constraint)
            target.variable.assign(target.variable.value * self._masks[place])

    def _holding(self, place: int, own: Constraint | None) -> Constraint:
        """Return the constraint of one weight: the user's, the count, the mask."""

        def constraint(weight: Any) -> Any:
            # the first call of a pass over the weights, in every trace: this is a step
            if not self._called or place in self._called:
                self._called.clear()
                self._step.assign_add(1)
                self._maybe_update(self._step + 1)
            self._called.add(place)
            value = tf.convert_to_tensor(weight if own is None else own(weight))
            return value * self._masks[place]

        return constraint

    def _maybe_update(self, step: Any) -> None:
        step = tf.cast(step, tf.int64)
        due, sparsity = self.schedule(step)
        if self.pattern.decides and self.options.freeze:
            due = tf.logical_and(due, tf.logical_not(self._updated))

        def update() -> Any:
            for mask, new in zip(self._masks, self._new_masks(sparsity), strict=True):
                mask.assign(_as(new, mask))
            self._updated.assign(True)
            return tf.constant(True)

        tf.cond(due, update, lambda: tf.constant(False))

    def _new_masks(self, sparsity: Any) -> list[Any]:
        own = {id(variable): constraint for variable, constraint in self._given_back}
        values = []
        for target in self.targets:
            constraint = own.get(id(target.variable))
            value = target.variable if constraint is None else constraint(target.variable)
            values.append(tf.convert_to_tensor(value))
        jit = self._jit or bool(getattr(self._model, "jit_compile", False))
        return self._ranking.masks(values, sparsity, jit=jit)

    def _restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        for place, (target, mask) in enumerate(zip(self.targets, self._masks, strict=True)):
            bits = state.get(f"mask{place}")
            if bits is None or len(bits) != -(-target.size // 8):
                raise InputError(
                    f"A pruning state must belong to the model. Received: no mask of "
                    f"{target.size:,} weights for layer '{target.layer}'."
                )
            flags = np.unpackbits(bits, count=target.size).reshape(mask.shape)
            mask.assign(flags.astype(mask.dtype.as_numpy_dtype))
        self._step.assign(state["step"])
        self._updated.assign(state["updated"])

    @property
    def report(self) -> WeightReport:
        """The pruned weights so far, and the kept layers with reasons."""
        pruned = tuple(
            PrunedLayer(
                target.layer,
                target.size,
                int(np.count_nonzero(target.variable.numpy() == 0)),
                target.role,
            )
            for target in self.targets
        )
        return WeightReport(
            pruned, tuple(self.kept), self.pattern.name, self.options.ranking, tuple(self.notes)
        )


def _traced_anew(model: Any) -> None:
    """Make the next `fit` trace its step anew: a traced step keeps its constraints."""
    if getattr(model, "train_function", None) is not None:
        model.train_function = None


def _as(flags: Any, like: Any) -> Any:
    return tf.cast(flags, like.dtype)
