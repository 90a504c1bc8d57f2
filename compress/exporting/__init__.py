"""Export: `export` writes a model's files and checks them against the Keras model."""

from __future__ import annotations

from compress.exporting.files import Exported, ExportedFiles, export, get_file_path

__all__ = ["Exported", "ExportedFiles", "export", "get_file_path"]
