"""How busy the NVIDIA GPUs are, as the driver's own library says (NVML).

It is what nvidia-smi and the package nvidia-ml-py call too. The agent runs apart from every
package of the node, so it calls the library itself; where that is missing there is no driver.

Shipped to nodes: Python 3.7 and its standard library only.
"""

import ctypes
import threading
import time
from typing import Any, Dict, List, Optional

# The last one is where Windows keeps the driver of its Linux.
LIBRARIES = ("libnvidia-ml.so.1", "/usr/lib/wsl/lib/libnvidia-ml.so.1")


class _Utilization(ctypes.Structure):
    _fields_ = [("gpu", ctypes.c_uint), ("memory", ctypes.c_uint)]


class _Memory(ctypes.Structure):
    _fields_ = [
        ("total", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    ]


def load(names: "tuple[str, ...]" = LIBRARIES) -> Optional[Any]:
    """Returns the library, started; None where there is no driver, or it does not answer."""
    for name in names:
        try:
            library = ctypes.CDLL(name)
            if library.nvmlInit_v2() == 0:
                return library
        except (OSError, AttributeError):
            continue
    return None


def read(library: Any) -> List[Dict[str, Any]]:
    """Returns ``{gpu, memory_bytes, memory_used_bytes}`` for each GPU, in the driver's order.

    `gpu` is the share of the time, 0..1, in which something ran on it. What a GPU does not tell is
    left out: one that is divided has no utilization of its own.
    """
    count = ctypes.c_uint()
    if library.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
        return []
    return [_device(library, index) for index in range(count.value)]


def _device(library: Any, index: int) -> Dict[str, Any]:
    handle = ctypes.c_void_p()
    found: Dict[str, Any] = {}
    if library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(handle)) != 0:
        return found
    use, memory = _Utilization(), _Memory()
    if library.nvmlDeviceGetUtilizationRates(handle, ctypes.byref(use)) == 0:
        found["gpu"] = use.gpu / 100.0
    if library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) == 0:
        found["memory_bytes"] = memory.total
        found["memory_used_bytes"] = memory.used
    return found


class GpuWatch:
    """Reads the GPUs in a thread of its own: a driver that hangs must not hang the agent.

    Attributes:
        newest: what was read last; nothing where there are no GPUs.
    """

    def __init__(self, interval_s: float) -> None:
        """Begins; the thread lasts as long as the agent, and ends at once without a driver."""
        self._interval_s = interval_s
        self.newest: List[Dict[str, Any]] = []
        threading.Thread(target=self._watch, name="gpus", daemon=True).start()

    def _watch(self) -> None:
        library = load()
        while library is not None:
            self.newest = read(library)
            time.sleep(self._interval_s)
