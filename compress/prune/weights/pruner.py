"""Weight pruning during any training, by constraints that update and apply masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import numpy.typing as npt

from compress.core.arguments import check_arguments
from compress.core.errors import InputError
from compress.core.lazy_modules import keras, tf
from compress.model.layers import BIAS, NORMALIZATION
from compress.plan import WeightOptions
from compress.plan.keywords import WEIGHT_PRUNER
from compress.prune.weights.masks import Ranking
from compress.prune.weights.patterns import create_pattern
from compress.prune.weights.schedules import (
    compute_update_times,
    create_schedule,
    find_last_update,
    get_final_sparsity,
    validate_schedule,
)
from compress.prune.weights.targets import (
    PrunedLayer,
    SkippedLayer,
    Target,
    WeightReport,
    find_targets,
)

if TYPE_CHECKING:
    from compress.plan.settings import WeightPrunerSettings

Constraint = Callable[[Any], Any]
State = dict[str, npt.NDArray[Any]]
PRUNED_SHARE = 0.01
"""Share of zeros above which a kernel counts as pruned before."""


class WeightPruner:
    """Pruner of weights during any training.

    A Keras optimizer applies the constraint of a variable after each step. The constraints set here
    multiply weights by their masks. The first constraint called in a step also counts the step and,
    if the schedule requires it, computes new masks from the magnitudes after the optimizer's
    update. Pruning is therefore independent of the training loop: it works with `fit`, custom
    loops, gradient accumulation and mixed precision. A constraint set by the user is applied first
    and restored by `strip`.

    Used as a callback of `fit`, it attaches itself to the model and strips it at the end of the
    training. In other training loops, call `attach`.

    Args:
        options: Pattern, scope, sparsity and times; keywords override it.
        schedule: tfmot's `ConstantSparsity` or `PolynomialDecay`, or a function step -> (update
            now, sparsity); the first step is 1, as in tfmot. Default: sparsity grows from 0 at the
            first step to the options' at their end, by a cubic polynomial.
        **settings: Fields of `WeightOptions`: sparsity, pattern, scope, end, ...

    Attributes:
        options: The options, with all keywords applied.
        schedule: The schedule; None until `attach` if the plan's is used.
        pattern: Pattern of units that are kept or removed together.
        targets: Weights that are pruned; empty before `attach`.
        kept: Layers that are not pruned, with reasons.
        notes: Notes for the user.

    Example:
        >>> model.compile("adam", "sparse_categorical_crossentropy")
        >>> pruner = WeightPruner(sparsity=0.5, include=["ends"])
        >>> history = model.fit(x, y, batch_size=25, epochs=2, verbose=0, callbacks=[pruner])
        >>> 0.49 < pruner.report.sparsity < 0.51
        True

    Reference:
        Zhu & Gupta 2017, "To prune, or not to prune". Masks and update times are those of tfmot
        0.8.1: a mask update may restore weights until the schedule ends.
    """

    async_safe = True
    """Keras need not wait for this callback: none of its hooks reads a batch."""

    @check_arguments(number_keywords={"options": "sparsity"})
    def __init__(
        self,
        options: WeightOptions | None = None,
        *,
        schedule: Any = None,
        **settings: Unpack[WeightPrunerSettings],
    ) -> None:
        self.options = WEIGHT_PRUNER.build_section("weights", options, WeightOptions, settings)
        self.schedule = schedule
        self.pattern = create_pattern(self.options)
        self.targets: list[Target] = []
        self.kept: list[SkippedLayer] = []
        self.notes: list[str] = []
        self._model: Any = None
        self._masks: list[Any] = []
        self._user_constraints: list[tuple[Any, Constraint | None]] = []
        self._visited: set[int] = set()
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
        """Set the constraints: any training of the model prunes it until `strip` is called.

        In `with pruner.attach(...):` the model is stripped at the end of the block, after an error
        too.

        Args:
            model: Built model; changed in place.
            steps_per_epoch: Number of batches in an epoch.
            epochs: Number of epochs of the training. Both are required unless a schedule was given.
            state: Result of `state`, to resume a training.

        Returns:
            The pruner itself.

        Raises:
            InputError: A pattern matches no layer, a block is larger than a weight, the schedule
                does not fit the training, weights are not finite, or the pruner was used before.
        """
        total = steps_per_epoch * epochs if steps_per_epoch and epochs else None
        if total is None and self.schedule is None:
            raise InputError(
                "attach() must know the length of the training. Received: "
                f"steps_per_epoch={steps_per_epoch}, epochs={epochs}. Give both, or schedule=."
            )
        self._attach(model, total, steps_per_epoch, state)
        return self

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Return a no-op hook of a Keras callback; this avoids importing Keras."""
        if name.startswith("on_") and name.endswith(("_begin", "_end")):
            return lambda *_, **__: None
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def set_model(self, model: Any) -> None:
        """Set the model that `fit` trains."""
        self._fitted = model

    def set_params(self, params: Mapping[str, Any]) -> None:
        """Set the length of the training."""
        self._params = params

    def on_train_begin(self, logs: Any = None) -> None:
        """Attach to the model that `fit` trains; called by Keras.

        Raises:
            InputError: The number of steps is unknown and there is no schedule; see `attach`.
        """
        params = self._params
        if params.get("steps") is None and self.schedule is None:
            raise InputError(
                "fit() must know how many steps an epoch has for a WeightPruner. Received: data "
                "without a length. Give fit(steps_per_epoch=), or WeightPruner(schedule=)."
            )
        self.attach(self._fitted, steps_per_epoch=params.get("steps"), epochs=params["epochs"])
        self._fitted.make_train_function()  # fit() traced the current one without constraints

    def on_train_end(self, logs: Any = None) -> None:
        """Strip the model; called by Keras."""
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
        """Attach the pruner; called by the training loop of `compress.train`.

        Args:
            model: Built model; changed in place.
            step: Not used.
            total_steps: Number of training steps.
            steps_per_epoch: Number of steps in an epoch.
            jit: Whether XLA compiles the training step.
            state: Result of `state`, to resume a training.
        """
        self._jit = jit
        self._attach(model, total_steps, steps_per_epoch, state)

    @property
    def attached(self) -> bool:
        """Whether the pruner is, or was, attached to a model."""
        return self._model is not None

    def may_select(self, step: int) -> bool:
        """Return whether weights may be selected at a step: from the last mask update on."""
        return not self.targets or self._last_update is None or step >= self._last_update

    def once(self, model: keras.Model) -> WeightReport:
        """Prune to the final sparsity at once, without training; no constraint is set.

        Args:
            model: Built model; its weights are changed in place.

        Returns:
            The report.

        Raises:
            InputError: A pattern matches no layer, a block is larger than a weight, or weights are
                not finite.
        """
        self._find_targets(model)
        for target, mask in zip(self.targets, self._compute_masks(self._final), strict=True):
            value = target.variable.value
            target.variable.assign(value * tf.cast(mask, value.dtype))
        return self.report

    def __enter__(self) -> WeightPruner:
        """Return the pruner, which must be attached before.

        Raises:
            InputError: The pruner is not attached to a model.
        """
        if self._model is None:
            raise InputError(
                "A WeightPruner must be attached to a model. Received: none. Write "
                "with pruner.attach(model, steps_per_epoch=..., epochs=...):"
            )
        return self

    def __exit__(self, *_: object) -> None:
        """Strip the model, after an error too."""
        self.strip()

    def strip(self) -> WeightReport:
        """Remove masks and constraints, leaving an ordinary model with exact zeros.

        Call it after training, also if the training failed. A second call changes nothing.

        Returns:
            The report.
        """
        for variable, constraint in self._user_constraints:
            variable.constraint = constraint
        if self._user_constraints:
            _reset_train_function(self._model)
            # values may have been assigned without constraints: an optimizer's moving averages, say
            for target, mask in zip(self.targets, self._masks, strict=True):
                target.variable.assign(target.variable.value * mask)
        self._user_constraints.clear()
        return self.report

    def state(self) -> State:
        """Return the state to resume a training from.

        Returns:
            "step", "floors" (initial share of zeros of each target), and "mask0", "mask1", ...:
            each target's mask as packed bits, uint8.
        """
        state: State = {"step": self._step.numpy(), "floors": np.array(self._floors)}
        for index, mask in enumerate(self._masks):
            state[f"mask{index}"] = np.packbits(mask.numpy() != 0)
        return state

    # -- inside ----------------------------------------------------------------------------

    def _find_targets(self, model: keras.Model, floors: Sequence[float] | None = None) -> None:
        candidates, self.kept = find_targets(
            model, include=self.options.include, overrides=self.options.overrides
        )
        for target in candidates:
            reason = self.pattern.check(target)
            if reason:
                self.kept.append(SkippedLayer(target.layer, target.kind, reason))
            else:
                self.targets.append(target)
        self._final = get_final_sparsity(self.schedule, self.options)
        # zeros of a resumed training come from its own masks
        self._floors = (
            [self._measure_zeros(target) for target in self.targets] if floors is None else floors
        )
        self._ranking = Ranking(
            self.targets, self.pattern, self.options.effective_scope, self._final, self._floors
        )

    def _measure_zeros(self, target: Target) -> float:
        value = target.variable.numpy()
        if not np.isfinite(value).all():
            raise InputError(
                "The model's weights must be finite to be ranked. Received: NaN or infinity in "
                f"layer '{target.layer}'. Load the weights of an earlier epoch."
            )
        share = float(np.mean(value == 0))
        if target.role in (BIAS, NORMALIZATION) or not PRUNED_SHARE < share < 1:
            return 0.0
        self.notes.append(f"layer '{target.layer}' begins with {share:.1%} zeros: kept as a start")
        return share

    def _attach(
        self,
        model: keras.Model,
        total_steps: int | None,
        steps_per_epoch: int | None,
        state: Mapping[str, npt.NDArray[Any]] | None,
    ) -> None:
        if self._model is not None:
            raise InputError(
                "A WeightPruner must be used for one training. Received: one that is attached "
                "already. Train within `with pruner:`, or make a new one."
            )
        if self.schedule is not None:
            validate_schedule(self.schedule, total_steps)
        else:
            assert total_steps is not None
            times = compute_update_times(self.options, total_steps, steps_per_epoch)
            self.schedule = create_schedule(self.options, times)
        self._last_update = find_last_update(self.schedule, total_steps)
        self._find_targets(model, None if state is None else state["floors"].tolist())
        self._model = model
        self._step = tf.Variable(0, dtype=tf.int64, trainable=False)
        values = [target.variable.value for target in self.targets]
        self._masks = [
            tf.Variable(tf.cast(value != 0, value.dtype) if self._floors[index] > 0
                        else tf.ones_like(value), trainable=False)
            for index, value in enumerate(values)
        ]  # fmt: skip
        if state is not None:
            self._restore(state)
        elif self.targets:
            self._update_if_due(1)
        _reset_train_function(model)
        for index, target in enumerate(self.targets):
            self._user_constraints.append((target.variable, target.variable.constraint))
            target.variable.constraint = self._build_constraint(index, target.variable.constraint)
            target.variable.assign(target.variable.value * self._masks[index])

    def _build_constraint(self, index: int, user_constraint: Constraint | None) -> Constraint:
        """Return the constraint of one weight: user constraint, step count, then mask."""

        def apply_constraint(weight: Any) -> Any:
            # the first constraint call in a pass over the weights marks a new step, in every trace
            if not self._visited or index in self._visited:
                self._visited.clear()
                self._step.assign_add(1)
                self._update_if_due(self._step + 1)
            self._visited.add(index)
            value = tf.convert_to_tensor(
                weight if user_constraint is None else user_constraint(weight)
            )
            return value * self._masks[index]

        return apply_constraint

    def _update_if_due(self, step: Any) -> None:
        step = tf.cast(step, tf.int64)
        due, sparsity = self.schedule(step)

        def update() -> Any:
            for mask, new in zip(self._masks, self._compute_masks(sparsity), strict=True):
                mask.assign(tf.cast(new, mask.dtype))
            return tf.constant(True)

        tf.cond(due, update, lambda: tf.constant(False))

    def _compute_masks(self, sparsity: Any) -> list[Any]:
        user_constraints = {
            id(variable): constraint for variable, constraint in self._user_constraints
        }
        values = []
        for target in self.targets:
            constraint = user_constraints.get(id(target.variable))
            value = target.variable if constraint is None else constraint(target.variable)
            values.append(tf.convert_to_tensor(value))
        jit = self._jit or bool(getattr(self._model, "jit_compile", False))
        return self._ranking.compute_masks(values, sparsity, jit=jit)

    def _restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        for index, (target, mask) in enumerate(zip(self.targets, self._masks, strict=True)):
            bits = state.get(f"mask{index}")
            if bits is None or len(bits) != -(-target.size // 8):
                raise InputError(
                    f"A pruning state must belong to the model. Received: no mask of "
                    f"{target.size:,} weights for layer '{target.layer}'."
                )
            flags = np.unpackbits(bits, count=target.size).reshape(mask.shape)
            mask.assign(flags.astype(mask.dtype.as_numpy_dtype))
        self._step.assign(state["step"])

    @property
    def report(self) -> WeightReport:
        """The report: weights pruned so far, and skipped layers with reasons."""
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
            pruned,
            tuple(self.kept),
            str(self.options.pattern),
            self.options.effective_scope,
            tuple(self.notes),
        )


def _reset_train_function(model: Any) -> None:
    """Make the next `fit` trace its step again, because a traced step keeps its constraints."""
    if getattr(model, "train_function", None) is not None:
        model.train_function = None
