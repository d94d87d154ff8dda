"""The IPv4 addresses of this machine, from the kernel; no program is started.

Shipped to nodes: Python 3.7 and its standard library only.
"""

import array
import fcntl
import socket
import struct
from typing import Any, Dict, Iterator, List, Optional, Tuple

_SIOCGIFCONF = 0x8912
_SIOCGIFNETMASK = 0x891B
_IFREQ_BYTES = 40
_MOST_ADDRESSES = 1024


def addresses() -> List[Dict[str, Any]]:
    """Returns ``{"name", "address", "prefix", "mbits"}`` of each address, loopback left out.

    `name` is the interface's, `prefix` the length of its network's, `mbits` what the link can
    carry, null where the kernel does not say (a virtual one).
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        return [
            {
                "name": name,
                "address": address,
                "prefix": _prefix(control, name),
                "mbits": _mbits(name.partition(":")[0]),
            }
            for name, address in _configured(control)
            if not address.startswith("127.")
        ]


def _configured(control: socket.socket) -> Iterator[Tuple[str, str]]:
    buffer = array.array("B", bytes(_MOST_ADDRESSES * _IFREQ_BYTES))
    place, _ = buffer.buffer_info()
    wanted = struct.pack("iL", len(buffer), place)
    size, _ = struct.unpack("iL", fcntl.ioctl(control, _SIOCGIFCONF, wanted))
    data = buffer.tobytes()[:size]
    for start in range(0, size, _IFREQ_BYTES):
        name = data[start : start + 16].split(b"\0", 1)[0]
        yield name.decode("utf-8", "replace"), socket.inet_ntoa(data[start + 20 : start + 24])


def _prefix(control: socket.socket, name: str) -> int:
    request = struct.pack("256s", name.encode("utf-8")[:15])
    try:
        mask = fcntl.ioctl(control, _SIOCGIFNETMASK, request)[20:24]
    except OSError:
        return 32
    return bin(int.from_bytes(mask, "big")).count("1")


def _mbits(interface: str) -> Optional[int]:
    try:
        with open("/sys/class/net/%s/speed" % interface) as file:
            speed = int(file.read())
    except (OSError, ValueError):
        return None
    return speed if speed > 0 else None
