"""How qualities are called in reports, and what they are."""

from __future__ import annotations

MEANING = {
    "accuracy": ("Accuracy", "Share of right answers"),
    "f1_macro": ("F1", "Mean of F1 over the classes that occur"),
    "precision_macro": ("Precision", "Mean of precision over the classes that occur"),
    "recall_macro": ("Recall", "Mean of recall over the classes that occur"),
    "f1": ("F1", "F1 of the second class"),
    "precision": ("Precision", "Precision of the second class"),
    "recall": ("Recall", "Recall of the second class"),
    "roc_auc": ("ROC AUC", "Area under the ROC curve"),
    "f1_micro": ("F1 (pooled)", "F1 over the decisions of all labels together"),
    "exact_match": ("Exact match", "Share of examples whose labels are all right"),
    "mean_iou": ("Mean IoU", "Mean over classes of intersection over union"),
    "dice": ("Dice", "Mean over classes of Dice's coefficient (F1)"),
    "skill": ("Skill", "1 - loss / loss of answers to other examples"),
    "agreement": ("Agreement", "Share of decisions that are the given model's; of numbers R2"),
    "r2": ("R2", "Coefficient of determination, mean over targets"),
    "mae": ("MAE", "Mean absolute error"),
    "rmse": ("RMSE", "Root mean squared error"),
}
"""Title and sentence of each name that `Task.quality` returns."""

MEANING["mean_quality"] = (
    "Mean quality",
    "Mean over outputs of the quality that each is judged by, each at least 0",
)


ERRORS = ("mae", "rmse")
"""These are in the targets' unit and less is better."""

UNBOUNDED = (*ERRORS, "r2", "skill")
"""These are no shares in [0, 1]."""


_COMPILED = "compiled:"


def meaning(name: str) -> tuple[str, str]:
    """Returns title and sentence of a quality; of an output's ("box.r2") with the output."""
    output, own = output_of(name)
    if own.startswith(_COMPILED):
        metric = own.removeprefix(_COMPILED)
        title, sentence = metric, f"Metric '{metric}' that the model was compiled with"
    else:
        title, sentence = MEANING[own]
    if not output:
        return title, sentence
    return f"{title} ({output})", f"{sentence}; of output '{output}'"


def output_of(name: str) -> tuple[str, str]:
    """Return the output that a metric is of, "" where there is one, and the metric's own name."""
    before, sign, metric = name.partition(_COMPILED)
    if sign:
        return before.removesuffix("."), sign + metric
    output, _, own = name.rpartition(".")
    return output, own


def is_quality(name: str) -> bool:
    """Tells whether some task gives a quality of this name, of an output too."""
    own = output_of(name)[1]
    return own in MEANING or own.startswith(_COMPILED)


def in_units(name: str) -> bool:
    """Tells whether a quality has a unit of its own: it is no share to be shown in per cent."""
    own = output_of(name)[1]
    return own in ERRORS or own.startswith(_COMPILED)


def is_share(name: str) -> bool:
    """Tells whether a quality lies in [0, 1]."""
    own = output_of(name)[1]
    return own not in UNBOUNDED and not own.startswith(_COMPILED)
