"""A traced job function, made to compute: training in an nn.Graph, prediction in eager mode.

Prediction is eager because an nn.Graph of 0.9 on a CPU can crash the process when one run of it
takes a few microseconds only.
"""

from __future__ import annotations

import sys
import typing

import numpy as np
import oneflow as flow

from launcher.legacy.blob import Blob, Mask, Trace, numpy_dtype
from launcher.legacy.initializers import generator_for
from launcher.legacy.mesh import Mesh
from launcher.legacy.optimizers import UpdateRule
from launcher.legacy.variables import Variables
from launcher.worker import context

if typing.TYPE_CHECKING:
    Array = np.ndarray[typing.Any, typing.Any]
    Tensors = typing.Sequence[typing.Any]

_DRY_RUN_STEPS = 5


class Program:
    """What computes one job function.

    Args:
        trace: what the function's body said.
        ends: the blobs that it returns.
        rule: how it trains, or None where it only predicts.
        mesh: where it is computed.
        variables: what it shares with the other job functions.

    Attributes:
        rule: how it trains, or None.
        steps: how many steps were started; it goes on from a loaded checkpoint's.
        graph: the nn.Graph, or None where it only predicts.
        trained: the names of the variables, in the order of the network's parameters.
    """

    def __init__(
        self,
        trace: Trace,
        ends: typing.Sequence[Blob],
        rule: typing.Optional[UpdateRule],
        mesh: Mesh,
        variables: Variables,
    ) -> None:
        losses = trace.losses if rule else []
        needed = trace.needed_for(list(ends) + losses, training=bool(rule))
        shared = {name: blob for name, blob in trace.variables.items() if blob in needed}
        inputs = set(shared.values())
        self.rule = rule
        self.steps = 0
        self.trained = list(shared)
        self._mesh = mesh
        self._arguments = trace.arguments
        self._fed = [blob for blob in needed if not blob.inputs and blob not in inputs]
        self._masks = [mask for mask in trace.masks if mask.blob in needed]
        self._readers = [source.open(mesh) for source in trace.sources]
        self._losses = [loss for loss in losses if loss in ends]
        self._worker = context() if rule and mesh.rank == 0 else None
        self._computed = [end for end in dict.fromkeys(ends) if end not in self._arguments]
        parameters = {blob: variables.parameter(name, mesh) for name, blob in shared.items()}
        self._net = _Network(needed, self._fed, parameters, self._computed, losses)
        self.graph = _TrainGraph(self._net, rule, mesh) if rule else None

    def step(
        self, arguments: typing.Sequence[Array]
    ) -> typing.Callable[[], typing.Dict[Blob, Array]]:
        """Starts one step.

        Args:
            arguments: whole arrays, in the order of the function's arguments.

        Returns:
            What waits for the step and gives the returned values by blob.

        Raises:
            SystemExit: this is a dry run, and it has trained enough.
        """
        self._stop_dry_run()
        whole = dict(zip(self._arguments, arguments))
        fed = {blob: array for blob, array in whole.items() if blob in self._fed}
        fed.update((mask.blob, self._drawn(mask)) for mask in self._masks)
        given: typing.Dict[Blob, typing.Any] = {
            blob: self._mesh.put_batch(array) for blob, array in fed.items()
        }
        for reader in self._readers:
            given.update(reader.read())
        results = self._run([given[blob] for blob in self._fed])
        self.steps += 1
        number = self.steps

        def read() -> typing.Dict[Blob, Array]:
            values = dict(whole)
            values.update(
                (blob, self._mesh.read(one)) for blob, one in zip(self._computed, results)
            )
            self._report(number, values)
            return values

        return read

    def _run(self, tensors: Tensors) -> Tensors:
        if self.graph is not None:
            return typing.cast("Tensors", self.graph(*tensors))
        with flow.no_grad():
            results, _ = self._net(*tensors)
            return [self._mesh.gather(result) for result in results]

    def _stop_dry_run(self) -> None:
        """Ends the script after a few training steps: it knows nothing of dry runs itself."""
        dry = self._worker is not None and self._worker.dry_run
        if dry and self.steps >= _DRY_RUN_STEPS:
            sys.stderr.write(
                "flowlaunch --legacy-api: dry run: ended after {} steps\n".format(self.steps)
            )
            sys.exit(0)

    def _report(self, step: int, values: typing.Mapping[Blob, Array]) -> None:
        """Tells the launcher of a training step, where the script itself read its losses."""
        if self._worker is not None and self._losses:
            loss = sum(float(values[one].mean()) for one in self._losses)
            self._worker.report(step=step, loss=loss)

    def _drawn(self, mask: Mask) -> Array:
        generator = generator_for("{} {}".format(mask.blob.name, self.steps))
        kept = generator.random(mask.blob.shape, dtype=np.float32) >= mask.rate
        scale = 1.0 / (1.0 - mask.rate) if mask.rate < 1.0 else 0.0
        return np.asarray(kept * np.float32(scale), dtype=numpy_dtype(mask.blob.dtype))


class _Network(flow.nn.Module):  # type: ignore[misc]
    """Replays the recorded blobs on tensors."""

    def __init__(
        self,
        needed: typing.Sequence[Blob],
        fed: typing.Sequence[Blob],
        parameters: typing.Mapping[Blob, typing.Any],
        ends: typing.Sequence[Blob],
        losses: typing.Sequence[Blob],
    ) -> None:
        super().__init__()
        self._needed = needed
        self._fed = fed
        self._ends = ends
        self._losses = losses
        # Old names may hold what a parameter's name may not.
        self._attributes = {blob: "p{}".format(i) for i, blob in enumerate(parameters)}
        for blob, name in self._attributes.items():
            self.register_parameter(name, parameters[blob])

    def forward(self, *tensors: typing.Any) -> typing.Tuple[Tensors, Tensors]:
        """Returns the ends' tensors and the losses'."""
        values = dict(zip(self._fed, tensors))
        for blob, name in self._attributes.items():
            values[blob] = getattr(self, name)
        for blob in self._needed:
            if blob not in values:
                values[blob] = _value(blob, values)
        return [values[end] for end in self._ends], [values[loss] for loss in self._losses]


def _value(blob: Blob, values: typing.Mapping[Blob, typing.Any]) -> typing.Any:
    if blob.training_only and blob.inputs[1] not in values:
        return values[blob.inputs[0]]
    assert blob.compute is not None, blob
    return blob.compute(*(values[one] for one in blob.inputs))


class _TrainGraph(flow.nn.Graph):  # type: ignore[misc]
    """One training step: the network, its losses' means backwards, the update."""

    def __init__(self, net: _Network, rule: UpdateRule, mesh: Mesh) -> None:
        super().__init__()
        self.net = net
        self._mesh = mesh
        optim, schedule = rule.build([one for one in net.parameters() if one.requires_grad])
        self.add_optimizer(optim, lr_sch=schedule)

    def build(self, *tensors: typing.Any) -> Tensors:
        """Returns the ends, whole on every rank."""
        ends, losses = self.net(*tensors)
        total = losses[0].mean()
        for loss in losses[1:]:
            total = total + loss.mean()
        total.backward()
        # A graph has to return something, also where the job function does not.
        return [self._mesh.gather(one) for one in (ends or [total])]
