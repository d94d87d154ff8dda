"""A job's state as the files that flow.load reads, in memory.

What flow.save would write is made here instead, for three reasons: it can be hashed while it is
written; it can be copied first, so that training goes on meanwhile; and a tensor that is split over
ranks can stay so, each rank writing what it has.

A state becomes ``pickled_data``, in which a tensor stands as the name of a folder, and a folder
``tensor_<n>`` for each, in the order of the state, with ``meta`` (dtype and shape) and ``out`` (its
bytes in C order).

Shipped to nodes: Python 3.7 and its standard library only; oneflow is used where it is there.
"""

import copyreg
import io
import pickle
import sys
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Set, Tuple

from launcher.wire.shards import LAYOUT, WHOLE, Layout, even_sizes, pack_layout, part_name

PICKLE = "pickled_data"
_PROTOCOL_VERSION = 1  # of flow.save


class File(NamedTuple):
    """A file to be written: a path with forward slashes, and what returns its bytes' buffer."""

    path: str
    read: Callable[[], Any]


class Snapshot(NamedTuple):
    """What of a state this rank writes.

    Attributes:
        files: its files.
        writers: the ranks that have files, in order. More than one: each publishes a part.
    """

    files: List[File]
    writers: List[int]


def take(state: Any, *, rank: int, in_parts: bool, copy: bool) -> Snapshot:
    """Takes a state to memory. Where a tensor in it is global, all ranks call it at a time.

    Args:
        state: dicts, lists and plain values with flow tensors in them, as flow.save takes.
        rank: this worker's; local tensors and all else are rank 0's.
        in_parts: whether a tensor that is split over ranks stays so; else rank 0 gets it whole.
        copy: whether the state may change before the files are written.
    """
    taking = _Taking(rank, in_parts, copy)
    pickled = taking.pickle({"protocol_version": _PROTOCOL_VERSION, "data": state})
    if rank == 0:
        taking.files.append(File(PICKLE, lambda: pickled))
    return Snapshot(taking.files, sorted(taking.writers))


class _Taking:
    """One state, while it is taken."""

    def __init__(self, rank: int, in_parts: bool, copy: bool) -> None:
        self.files: List[File] = []
        self.writers: Set[int] = {0}
        self._rank = rank
        self._in_parts = in_parts
        self._copy = copy
        self._count = 0
        # A state without tensors needs no oneflow; one with them has imported it.
        self._flow: Any = sys.modules.get("oneflow")

    def pickle(self, state: Any) -> bytes:
        buffer = io.BytesIO()
        pickler = pickle.Pickler(buffer, protocol=4)
        if self._flow is not None:
            table: Any = _Reducers(self._flow.Tensor, self._reduce)
            pickler.dispatch_table = table
        pickler.dump(state)
        return buffer.getvalue()

    def _reduce(self, tensor: Any) -> Tuple[Any, ...]:
        folder = "tensor_%d" % self._count
        self._count += 1
        if tensor.is_global:
            self._take_global(tensor.detach(), folder)
        elif self._rank == 0:
            self._put_whole(tensor.detach(), folder)
        return copyreg.__newobj__, (type(tensor),), {"path": folder}  # type: ignore[attr-defined]

    def _take_global(self, tensor: Any, folder: str) -> None:
        ranks, sbp = tensor.placement.ranks.reshape(-1).tolist(), tensor.sbp
        is_line = len(sbp) == 1 and len(ranks) > 1
        axis = _split_axis(sbp[0], len(tensor.shape)) if is_line else None
        if axis is not None and self._in_parts:
            self._put_part(tensor, folder, axis, ranks)
            return
        is_everywhere = all(part == self._flow.sbp.broadcast for part in sbp)
        if not is_everywhere or (ranks[0] != 0 and not self._in_parts):
            # Its value exists only over several ranks: they bring it to the first, together.
            ranks = [ranks[0] if self._in_parts else 0]
            tensor = self._gather(tensor, ranks[0])
        self.writers.add(ranks[0])
        if self._rank == ranks[0]:
            self._put_whole(tensor.to_local(), folder)

    def _gather(self, tensor: Any, rank: int) -> Any:
        flow = self._flow
        # On the CPU, so that no device has to hold the whole.
        here = tensor.to_global(placement=flow.placement("cpu", tensor.placement.ranks))
        return here.to_global(placement=flow.placement("cpu", [rank]), sbp=flow.sbp.broadcast)

    def _put_part(self, tensor: Any, folder: str, axis: int, ranks: List[int]) -> None:
        shape = list(tensor.shape)
        sizes = even_sizes(shape[axis], ranks)
        self.writers.update(rank for rank, size in sizes if size)
        if self._rank == 0:
            layout = pack_layout(Layout(axis, shape, sizes))
            self._put(folder, LAYOUT, lambda: layout)
            self._put_meta(folder, tensor)
        size = dict(sizes).get(self._rank, 0)
        if size:
            part = tensor.to_local()
            if part.shape[axis] != size:
                raise ValueError(
                    "rank %d holds %d of axis %d of a tensor of shape %s, expected were %d"
                    % (self._rank, part.shape[axis], axis, tuple(shape), size)
                )
            self._put_data(folder, part_name(self._rank), part)

    def _put_whole(self, tensor: Any, folder: str) -> None:
        self._put_data(folder, WHOLE, tensor)
        self._put_meta(folder, tensor)

    def _put_data(self, folder: str, name: str, tensor: Any) -> None:
        if self._copy:
            data = _array(tensor).tobytes()
            self._put(folder, name, lambda: data)
        else:
            # Not before it is written: what lies on a device comes one tensor at a time.
            self._put(folder, name, lambda: _array(tensor))

    def _put(self, folder: str, name: str, read: Callable[[], Any]) -> None:
        self.files.append(File(folder + "/" + name, read))

    def _put_meta(self, folder: str, tensor: Any) -> None:
        from oneflow.core.framework import variable_meta_info_pb2

        to_proto = self._flow._oneflow_internal.deprecated.GetProtoDtype4OfDtype
        meta = variable_meta_info_pb2.VariableMetaInfo()
        meta.shape.dim[:] = tensor.shape
        meta.data_type = to_proto(tensor.dtype)
        text = str(meta).encode("ascii")
        self._put(folder, "meta", lambda: text)


class _Reducers:
    """What pickle asks how to take an object apart: tensors, and theirs that inherit from them."""

    def __init__(self, tensor: type, reduce: Callable[[Any], Tuple[Any, ...]]) -> None:
        self._tensor = tensor
        self._reduce = reduce
        self._others: Dict[type, Any] = copyreg.dispatch_table

    def __getitem__(self, kind: type) -> Any:
        return self._reduce if issubclass(kind, self._tensor) else self._others[kind]


def _array(tensor: Any) -> Any:
    """Returns a tensor's values in C order; where it can be, a view of its memory."""
    array = tensor.numpy()
    return array if array.flags.c_contiguous else array.copy(order="C")


def _split_axis(sbp: Any, dimensions: int) -> Optional[int]:
    """Returns the axis over which a tensor is split, None where it is not."""
    import oneflow

    return next((axis for axis in range(dimensions) if sbp == oneflow.sbp.split(axis)), None)
