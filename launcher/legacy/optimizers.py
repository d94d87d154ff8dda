"""The old optimizers and learning rates, as those of OneFlow 0.9."""

from __future__ import annotations

import typing

import oneflow as flow
from oneflow.optim.lr_scheduler import _LRScheduler

from launcher.legacy.blob import Blob, current_trace
from launcher.legacy.unsupported import LegacyError, refuse

NAIVE = "naive"
MOMENTUM = "momentum"
ADAM = "adam"


class PiecewiseConstantScheduler:
    """A learning rate of `values[i]` up to and with step `boundaries[i]`, counted from 0."""

    def __init__(
        self,
        boundaries: typing.Sequence[int],
        values: typing.Sequence[float],
        warmup: typing.Any = None,
    ) -> None:
        refuse("oneflow.optimizer.PiecewiseConstantScheduler", {"warmup": warmup})
        if len(values) != len(boundaries) + 1:
            raise LegacyError(
                "oneflow.optimizer.PiecewiseConstantScheduler: {} boundaries need {} values, "
                "not {}".format(len(boundaries), len(boundaries) + 1, len(values))
            )
        self.boundaries = [int(step) for step in boundaries]
        self.values = [float(value) for value in values]

    def rate_at(self, step: int) -> float:
        """Returns the learning rate of a step, the first being 0."""
        passed = sum(1 for boundary in self.boundaries if step > boundary)
        return self.values[passed]


class UpdateRule(typing.NamedTuple):
    """How a training function changes its variables.

    Attributes:
        kind: `NAIVE`, `MOMENTUM` or `ADAM`.
        options: momentum: beta; adam: beta1, beta2, epsilon, do_bias_correction.
    """

    kind: str
    options: typing.Dict[str, typing.Any]
    schedule: PiecewiseConstantScheduler

    def build(self, parameters: typing.Sequence[typing.Any]) -> typing.Tuple[typing.Any, ...]:
        """Returns today's optimizer and scheduler for an nn.Graph."""
        rate = self.schedule.rate_at(0)
        if self.kind == ADAM:
            optim = flow.optim.Adam(
                parameters,
                lr=rate,
                betas=(self.options["beta1"], self.options["beta2"]),
                eps=self.options["epsilon"],
                do_bias_correction=self.options["do_bias_correction"],
            )
        else:
            optim = flow.optim.SGD(parameters, lr=rate, momentum=self.options.get("beta", 0.0))
        return optim, _GraphSchedule(optim, self.schedule)


class _GraphSchedule(_LRScheduler):  # type: ignore[misc]
    """Hands the schedule to the graph: its runtime still knows the old piecewise constant."""

    def __init__(self, optim: typing.Any, schedule: PiecewiseConstantScheduler) -> None:
        self._schedule = schedule
        super().__init__(optim)

    def get_lr(self, base_lr: float, step: int) -> float:
        """Returns the learning rate of a step."""
        del base_lr
        return self._schedule.rate_at(step)

    def _generate_conf_for_graph(self, conf: typing.Any) -> None:
        conf.piecewise_constant_conf.boundaries.extend(self._schedule.boundaries)
        conf.piecewise_constant_conf.values.extend(self._schedule.values)


class _Optimizer:
    """What the old optimizers share: a rule, given to the job function by `minimize`."""

    def __init__(self, symbol: str, rule: UpdateRule, rest: typing.Dict[str, typing.Any]) -> None:
        refuse(symbol, rest)
        self._symbol = symbol
        self._rule = rule

    def minimize(
        self, loss: typing.Union[Blob, typing.Sequence[Blob]], model: typing.Any = None
    ) -> None:
        """Makes the job function a training one, of these losses."""
        refuse(self._symbol + ".minimize", {"model": model})
        trace = current_trace(self._symbol + ".minimize")
        trace.losses.extend([loss] if isinstance(loss, Blob) else loss)
        trace.rule = self._rule


class SGD(_Optimizer):
    """Gradient descent. The old default momentum is 0.9."""

    def __init__(
        self,
        lr_scheduler: PiecewiseConstantScheduler,
        loss_scale_factor: typing.Any = None,
        momentum: float = 0.9,
        grad_clipping: typing.Any = None,
        train_step_lbn: typing.Any = None,
        **rest: typing.Any,
    ) -> None:
        rest.update(
            loss_scale_factor=loss_scale_factor,
            grad_clipping=grad_clipping,
            train_step_lbn=train_step_lbn,
        )
        rule = UpdateRule(NAIVE, {}, lr_scheduler)
        if momentum:
            rule = UpdateRule(MOMENTUM, {"beta": momentum}, lr_scheduler)
        super().__init__("oneflow.optimizer.SGD", rule, rest)


class Adam(_Optimizer):
    """Adam, without bias correction unless asked for, as it was."""

    def __init__(
        self,
        lr_scheduler: PiecewiseConstantScheduler,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        do_bias_correction: bool = False,
        **rest: typing.Any,
    ) -> None:
        options = {
            "beta1": beta1,
            "beta2": beta2,
            "epsilon": epsilon,
            "do_bias_correction": do_bias_correction,
        }
        rule = UpdateRule(ADAM, options, lr_scheduler)
        super().__init__("oneflow.optimizer.Adam", rule, rest)


def rule_of_conf(
    conf: typing.Mapping[str, typing.Mapping[str, typing.Any]], rate: float
) -> UpdateRule:
    """Returns the rule of a ``model_update_conf`` dictionary with a constant learning rate.

    >>> rule_of_conf({"momentum_conf": {"beta": 0.8}}, 0.1).options
    {'beta': 0.8}

    Raises:
        LegacyError: it names no rule, several, or one that is not covered.
    """
    schedule = PiecewiseConstantScheduler([], [rate])
    if list(conf) == ["naive_conf"]:
        return UpdateRule(NAIVE, {}, schedule)
    if list(conf) == ["momentum_conf"]:
        return UpdateRule(MOMENTUM, dict({"beta": 0.9}, **conf["momentum_conf"]), schedule)
    if list(conf) == ["adam_conf"]:
        options = {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "do_bias_correction": False}
        return UpdateRule(ADAM, dict(options, **conf["adam_conf"]), schedule)
    raise LegacyError(
        "model_update_conf({!r}): expected one of naive_conf, momentum_conf, adam_conf; "
        "for others write the program for OneFlow 0.9 (oneflow.optim)".format(dict(conf))
    )


def add_loss(loss: Blob) -> None:
    """Makes the job function a training one, of this loss.

    The gradient is that of the loss's mean: the old API divided by its count of elements.
    """
    current_trace("oneflow.losses.add_loss").losses.append(loss)
