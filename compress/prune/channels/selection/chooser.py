"""Widths and blocks by damage, for any cost and target: what they are worth is measured once."""

from __future__ import annotations

from dataclasses import dataclass, replace

from compress.core.progress import OnProgress
from compress.plan import ChannelOptions
from compress.prune.channels.coupling.groups import Coupling
from compress.prune.channels.criteria import Context, Criterion
from compress.prune.channels.selection.allocation import Priced
from compress.prune.channels.selection.allowed import step_text
from compress.prune.channels.selection.chosen import Selection, notes_on, of_widths
from compress.prune.channels.selection.judging import Judge
from compress.prune.channels.selection.refining import refined
from compress.prune.channels.selection.weighed import Weighed, Weights, by_damage, weigh


@dataclass(frozen=True, eq=False)
class Chooser:
    """Chooses what of a model stays, by what its outputs lose.

    Attributes:
        coupling: Of the model.
        options: Steps, floors, limits, blocks, tries.
        judge: Repairs and judges choices.
        weights: What groups and blocks are worth.
        seed: Of what is drawn.
        told: What choices near a target came to.
    """

    coupling: Coupling
    options: ChannelOptions
    judge: Judge
    weights: Weights
    seed: int
    told: tuple[str, ...] = ()

    @classmethod
    def measured(
        cls,
        coupling: Coupling,
        options: ChannelOptions,
        criterion: Criterion,
        context: Context,
        on_progress: OnProgress | None = None,
    ) -> Chooser:
        """Measures what groups and blocks are worth.

        Args:
            coupling: Of the model, whose weights are as before when this returns.
            options: With scope damage.
            criterion: Chooses units within a group.
            context: Data and what the criterion sees.
            on_progress: Called with (text, share that is done).

        Raises:
            InputError: There are no data.
        """
        judge = Judge(coupling, context)
        weights = weigh(
            coupling, context, criterion, judge, blocks=options.blocks, on_progress=on_progress
        )
        return cls(coupling, options, judge, weights, context.seed)

    def refined(
        self, target: float, own: Priced | None = None, on_progress: OnProgress | None = None
    ) -> Chooser:
        """Judges choices near a target whole, and returns a chooser that knows what came of it.

        Args:
            target: What the cost comes to.
            own: See `choose`.
            on_progress: Called with (text, share that is done).

        Returns:
            One whose damages lead to the best of them, here and at costs nearby; this one where
            the options try none.
        """
        if not self.options.tries:
            return self
        best = refined(
            self.weights,
            lambda scaled: self._nearest(scaled, target, own),
            self.judge,
            self.options.tries,
            self.seed,
            on_progress,
        )
        return replace(self, weights=best.weights, told=(best.note(),))

    def choose(self, target: float, own: Priced | None = None) -> Selection:
        """Chooses widths and blocks for a target.

        Args:
            target: What the cost comes to.
            own: What kept units and present blocks cost; default: what the options count.

        Raises:
            FeasibleError: The target is below what is feasible.
        """
        found = self._nearest(self.weights, target, own)
        notes = [*(f"block '{block.name}' left" for block in found.dropped), *self.told]
        notes += notes_on(
            self.coupling, self.options, found.choice, found.round_to, target, of_widths(own)
        )
        words = step_text(found.round_to)
        return Selection(found.mask, found.choice, words, tuple(notes), found.dropped)

    def _nearest(self, weights: Weights, target: float, own: Priced | None) -> Weighed:
        return by_damage(self.coupling, self.options, weights, target, own)
