"""Slicer's Python surroundings on PySide6: `qt` as PythonQt presents it, widget stand-ins, module base classes."""
