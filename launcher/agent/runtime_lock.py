"""What the OneFlow runtime is made of: every wheel with its version, size and sha256.

OneFlow 0.9.0 names neither its numpy bound nor the CUDA libraries that it links, so what it needs
is written down here whole: with pip's `--no-deps`, nothing else comes in, and two nodes that
build the same lock hold the same bytes. The wheels are those for glibc 2.17 and newer on x86-64.

Shipped to nodes: Python 3.7 and its standard library only.
"""

import hashlib
from typing import List, NamedTuple, Tuple

ANY = "any"

# Changes when a runtime is laid out in another way, so that older ones are not taken for it.
LAYOUT = 1


class Wheel(NamedTuple):
    """One file that the index serves.

    Attributes:
        name: the distribution's name, as pip normalises it.
        version: its exact version.
        python: the minor version that it is for, e.g. "3.10", or `ANY`.
        size: bytes.
        sha256: of the file, in hex.
    """

    name: str
    version: str
    python: str
    size: int
    sha256: str


class RuntimeSpec(NamedTuple):
    """Everything that decides what a runtime is.

    Attributes:
        wheels: the lock, for all minor versions together.
        pythons: the minor versions that can carry it, the preferred one first.
        verify: a program; run by the runtime's python it must end with exit code 0.
        installed_bytes: what the runtime takes on disk.
        needed_bytes: the most that a build takes on disk at any moment.
        pip: the pip that is fetched where an interpreter brings none.
    """

    wheels: Tuple[Wheel, ...]
    pythons: Tuple[str, ...]
    verify: str
    installed_bytes: int
    needed_bytes: int
    pip: Wheel


def parse_lock(text: str) -> Tuple[Wheel, ...]:
    r"""Returns the wheels of a lock: a name, then indented `version python size sha256` lines.

    >>> parse_lock("idna\n    3.10 any 70442 946d")
    (Wheel(name='idna', version='3.10', python='any', size=70442, sha256='946d'),)
    """
    wheels: List[Wheel] = []
    name = ""
    for line in filter(None, text.splitlines()):
        if not line.startswith(" "):
            name = line
            continue
        version, python, size, sha256 = line.split()
        wheels.append(Wheel(name, version, python, int(size), sha256))
    return tuple(wheels)


def wheels_for(spec: RuntimeSpec, minor: str) -> Tuple[Wheel, ...]:
    """Returns the wheels that a runtime on this minor version holds, in the lock's order."""
    return tuple(wheel for wheel in spec.wheels if wheel.python in (minor, ANY))


def requirement(wheel: Wheel) -> str:
    """Returns the line by which pip takes this very file and no other.

    >>> requirement(Wheel("idna", "3.10", "any", 70442, "946d"))
    'idna==3.10 --hash=sha256:946d'
    """
    return "%s==%s --hash=sha256:%s" % (wheel.name, wheel.version, wheel.sha256)


def runtime_hash(spec: RuntimeSpec, minor: str) -> str:
    """Returns the name of the runtime's directory: 16 hex digits over lock and minor version."""
    lines = ["layout %d" % LAYOUT, "python %s" % minor]
    lines.extend(sorted(requirement(wheel) for wheel in wheels_for(spec, minor)))
    return hashlib.sha256("\n".join(lines).encode("ascii")).hexdigest()[:16]


# A matrix product with known result: it needs the OneFlow library, its BLAS and numpy's ABI, and
# the two packages that jobs import beside it are tried as well.
_VERIFY = """
import google.protobuf, PIL.Image
import numpy, oneflow
left = numpy.arange(6, dtype="float32").reshape(2, 3)
right = numpy.arange(12, dtype="float32").reshape(3, 4)
product = oneflow.matmul(oneflow.tensor(left), oneflow.tensor(right)).numpy()
expected = [[20, 23, 26, 29], [56, 68, 80, 92]]
if product.tolist() != expected:
    raise SystemExit("OneFlow computes wrongly: %r instead of %r" % (product.tolist(), expected))
if oneflow.__version__ != "0.9.0":
    raise SystemExit("OneFlow is %s, not 0.9.0" % oneflow.__version__)
"""

_LOCK = """
oneflow
    0.9.0 3.8 964791106 078357095e16c4a3bedac698a79028307fabe8d1ba35d20bd71a198ff5e7482c
    0.9.0 3.9 964790654 405fa4e189f3b6a5a4116113cfd93b367aedddb66bec9d61a55d0534d6d18535
    0.9.0 3.10 964788545 80b4f007ed8306b758558dcbd98a4fa543e50d30eedb70f427445029df4eba7e
nvidia-cudnn-cu11
    8.5.0.96 any 557141533 402f40adfc6f418f9dae9ab402e773cfed9beae52333f6d86ae3107a1b9527e7
nvidia-cublas-cu11
    11.10.3.66 any 317097917 d32e4d75f94ddfb93ea0a5dda08389bcc65d8916a25cb9f37ac89edaeed3bded
numpy
    1.24.4 3.8 17316263 dd80e219fd4c71fc3699fc1dadac5dcf4fd882bfc6f7ec53d30fa197b8ee22dc
    1.26.4 3.9 18249516 f870204a840a60da0b12273ef34f7051e98c3b5961b61b0c2c1be6dfd64fbcd3
    1.26.4 3.10 18240889 ffa75af20b44f8dba823498024771d5ac50620e6915abac414251bd971b4529f
pillow
    10.4.0 3.8 4444341 7a8d4bade9952ea9a77d0c3e49cbd8b2890a399422258a77f357b9cc9be8d680
    10.4.0 3.9 4440810 930044bb7679ab003b14023138b50181899da3f25de50e9dbee23b61b4de2126
    10.4.0 3.10 4444808 e4d49b85c4348ea0b31ea63bc75a9f3857869174e2bf17e7aba02945cd218e6f
setuptools
    75.3.2 any 1251198 90ab613b6583fc02d5369cbca13ea26ea0e182d1df2d943ee9cbe81d4c61add9
pygments
    2.19.2 any 1225217 86540386c03d588bb81d44bc3928634ff26449851e99741617ecb9037ee5ec0b
protobuf
    3.20.3 3.8 1019323 44246bab5dd4b7fbd3c0c80b6f16686808fab0e4aca819ade6e8d294a29c7050
    3.20.3 3.9 1019250 daa564862dd0d39c00f8086f88700fdbe8bc717e993a21e90711acfed02f2402
    3.20.3 3.10 1051042 9aae4406ea63d825636cc11ffb34ad3379335803216ee3a856787bcf5ccc751e
rich
    13.9.4 any 242424 6049d5e6ec054bf2779ab3358186963bac2ea89175919d699e378b99738c2a90
certifi
    2025.8.3 any 161216 f6c12493cfb1b06ba2ff328595af9350c65d6644968e5d3a2ffd78699af217a5
charset-normalizer
    3.4.3 3.8 147391 8999f965f922ae054125286faf9f11bc6932184b93011d138925a1773830bbe9
    3.4.3 3.9 152487 257f26fed7d7ff59921b78244f3cd93ed2af1800ff048c33f624c87475819dd7
    3.4.3 3.10 152388 d0e909868420b7049dafd3a31d45125b31143eec59235311fc4c57ea26a4acd2
urllib3
    2.2.3 any 126338 ca899ca043dcb1bafa3e262d73aa25c465bfb49e0bd9dd5d59f1d0acba2f8fac
markdown-it-py
    3.0.0 any 87528 355216845c60bd96232cd8d8c40e8f9765cc86f46880e43a8fd22dc1a1a8cab1
tqdm
    4.67.1 any 78540 26445eca388f82e72884e0d580d5464cd801a3ea01e63e5601bdff9ba6a48de2
wheel
    0.45.1 any 72494 708e7481cc80179af0e556bbf0cc00b8444c7321e2700b8d8580231d13017248
idna
    3.10 any 70442 946d195a0d259cbba61165e88e65941f16e9b36ea6ddb97f00452bae8b1287d3
requests
    2.32.4 any 64847 27babd3cda2a6d50b30443204ee89830707d396671944c998b5975b031ac2b2c
typing-extensions
    4.13.2 any 45806 a439e7c04b49fec3e5d3e2beaa21755cadbbdc391694e28ccdd36ca4a1408f8c
mdurl
    0.1.2 any 9979 84008a41e51615a49fc9966191ff91509e3c40b939176e643fd50a5c2196b8f8
"""

UV = Wheel(
    "uv",
    "0.8.22",
    ANY,
    21252972,
    "8efec4ef5acddc35f0867998c44e0b15fc4dace1e4c26d01443871a2fbb04bf6",
)

SPEC = RuntimeSpec(
    wheels=parse_lock(_LOCK),
    pythons=("3.10", "3.9", "3.8"),
    verify=_VERIFY,
    installed_bytes=4090000000,
    needed_bytes=5000000000,
    pip=Wheel(
        "pip",
        "25.0.1",
        ANY,
        1841526,
        "c46efd13b6aa8279f33f2864459c8ce587ea6a1a59ee20de055868d8f7688f7f",
    ),
)
