"""Search spaces by name, one file each."""

from compress.core.errors import InputError, unknown_name
from search.plugins import SPACES
from search.spaces._base import DeclaredSpace, Space, head
from search.spaces.around import PREFIX, Around
from search.spaces.cnn import CNN
from search.spaces.mlp import MLP
from search.spaces.mobilenet import MobileNet
from search.spaces.python import PythonSpace
from search.spaces.resnet import ResNet

__all__ = [
    "Around",
    "CNN",
    "DeclaredSpace",
    "MLP",
    "MobileNet",
    "PythonSpace",
    "ResNet",
    "SPACES",
    "Space",
    "head",
    "space_for",
]


def space_for(name: str) -> Space:
    """Returns the space that users call `name`.

    Args:
        name: Of `SPACES`; "around:model.keras": see `Around`; or "package.module:function":
            see `PythonSpace`.

    Raises:
        InputError: None of them; the message lists the choices. Or see the classes.
    """
    if name in SPACES:
        space: Space = SPACES[name]
        return space
    if name.startswith(PREFIX):
        return Around(name)
    if ":" in name:
        return PythonSpace(name)
    error = unknown_name("space", name, SPACES.names())
    raise InputError(
        f"{error} Or {PREFIX}model.keras, or your own build(trial, data): package.module:function."
    )
