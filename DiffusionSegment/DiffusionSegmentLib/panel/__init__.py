"""The Qt panel: widgets bound to the parameter node, the worker client and the scene."""
