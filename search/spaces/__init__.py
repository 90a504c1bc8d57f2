"""Search spaces by name, one file each."""

from compress.registry import Registry
from search.spaces._base import Space
from search.spaces.cnn import CNN

SPACES: Registry[Space] = Registry("space")
SPACES.add("cnn", CNN())

__all__ = ["CNN", "SPACES", "Space"]
