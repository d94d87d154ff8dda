"""Shows the overlay as `oneflow` to the script, and the real OneFlow to OneFlow itself.

Who imports decides what is seen, so ``builtins.__import__`` is the place: a finder on
``sys.meta_path`` does not learn the importer, and ``sys.modules`` holds one module a name, which
has to stay the real one. `importlib.import_module` therefore always gives the real modules.

Only the standard library is imported here: ``import oneflow`` is the rendezvous, and has to happen
when the script does it.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.abc
import importlib.machinery
import os
import sys
import types
import typing

from launcher.legacy import stopping
from launcher.legacy.launch import PLACEMENT_VARIABLE, PLACEMENTS, read_launch

_real_import = builtins.__import__
# These see the real OneFlow: its own package, and the launcher that stands on it.
_INSIDERS = ("oneflow", "launcher")


def install(placement: str = "") -> None:
    """Makes ``import oneflow`` of this process's script give the old API.

    Args:
        placement: "script" keeps what the script pins to devices, "all" spreads it over all the
            workers; "" takes it from ``FLOWLAUNCH_LEGACY_PLACEMENT`` (else "script").

    Raises:
        ValueError: placement is something else.
    """
    placement = placement or read_launch().placement
    if placement not in PLACEMENTS:
        raise ValueError("placement is {!r}; it may be: {}".format(placement, PLACEMENTS))
    os.environ[PLACEMENT_VARIABLE] = placement
    builtins.__import__ = _import
    if not any(isinstance(finder, _MnistUtilFinder) for finder in sys.meta_path):
        # Last, so that a mnist_util.py beside the script is the one that the script meant.
        sys.meta_path.append(_MnistUtilFinder())
    launch = read_launch()
    if os.environ.get("FLOWLAUNCH_RUN_ID"):
        stopping.install(launch.rank, launch.world_size)
    if launch.rank > 0:
        # Every worker runs the whole script; what it prints is to be seen once.
        sys.stdout = open(os.devnull, "w")


def _import(
    name: str,
    globals: typing.Optional[typing.Mapping[str, object]] = None,  # noqa: A002
    locals: typing.Optional[typing.Mapping[str, object]] = None,  # noqa: A002
    fromlist: typing.Optional[typing.Sequence[str]] = (),
    level: int = 0,
) -> types.ModuleType:
    """Stands for ``builtins.__import__``, whose signature it has."""
    if level == 0 and name.partition(".")[0] == "oneflow" and not _is_insider(globals):
        return _import_overlay(name, fromlist)
    module = _real_import(name, globals, locals, fromlist or (), level)
    if level == 0 and name.partition(".")[0] == "PIL":
        _restore_antialias()
    return module


def _is_insider(importer: typing.Optional[typing.Mapping[str, object]]) -> bool:
    name = str((importer or {}).get("__name__", ""))
    return name.partition(".")[0] in _INSIDERS


def _import_overlay(name: str, fromlist: typing.Optional[typing.Sequence[str]]) -> types.ModuleType:
    overlay = importlib.import_module("launcher.legacy.overlay").overlay
    module = overlay
    for part in name.split(".")[1:]:
        module = _submodule(module, name, part)
    return typing.cast(types.ModuleType, module if fromlist else overlay)


def _submodule(parent: object, name: str, part: str) -> object:
    try:
        return getattr(parent, part)
    except AttributeError:
        # A real submodule that OneFlow has not loaded by itself, or an error that names it.
        return importlib.import_module(name)


def _restore_antialias() -> None:
    """Gives Pillow 10 and later the name that it dropped; LANCZOS is the same filter."""
    image = sys.modules.get("PIL.Image")
    if image is not None and hasattr(image, "LANCZOS") and not hasattr(image, "ANTIALIAS"):
        image.ANTIALIAS = image.LANCZOS  # type: ignore[attr-defined]


class _MnistUtilFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the tutorials' `mnist_util` where there is no such file."""

    def find_spec(
        self,
        fullname: str,
        path: typing.Optional[typing.Sequence[str]],
        target: typing.Optional[types.ModuleType] = None,
    ) -> typing.Optional[importlib.machinery.ModuleSpec]:
        if fullname != "mnist_util":
            return None
        return importlib.machinery.ModuleSpec(fullname, self)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        mnist = importlib.import_module("launcher.legacy.mnist")
        module.load_data = mnist.load_data  # type: ignore[attr-defined]
