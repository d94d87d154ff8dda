"""flowlaunch: one command starts a OneFlow program on every machine you name."""

__version__ = "0.1.0"
