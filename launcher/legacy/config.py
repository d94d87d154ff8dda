"""flow.config and function_config: what a script says of itself, checked against the launch."""

from __future__ import annotations

import typing

from launcher.legacy.blob import current_trace
from launcher.legacy.launch import ALL, Launch
from launcher.legacy.optimizers import UpdateRule, rule_of_conf
from launcher.legacy.unsupported import LegacyError, not_covered


class TrainConfig:
    """``config.train``: the learning rate and the rule of the oldest training functions."""

    def __init__(self) -> None:
        self._rate: typing.Optional[float] = None
        self._update: typing.Optional[typing.Mapping[str, typing.Any]] = None

    def primary_lr(self, value: float) -> None:
        """Sets the learning rate."""
        self._rate = float(value)

    def model_update_conf(self, value: typing.Mapping[str, typing.Any]) -> None:
        """Sets the rule: ``{"naive_conf": {}}``, momentum_conf or adam_conf."""
        self._update = value

    def rule(self) -> typing.Optional[UpdateRule]:
        """Returns what was set, or None; a rule that was not given is the naive one.

        Raises:
            LegacyError: a rule without a learning rate.
        """
        if self._rate is None and self._update is None:
            return None
        if self._rate is None:
            raise LegacyError("config.train.model_update_conf needs config.train.primary_lr too")
        return rule_of_conf(self._update or {"naive_conf": {}}, self._rate)

    def __getattr__(self, name: str) -> typing.Any:
        raise not_covered("oneflow.config.train." + name)


class FunctionConfig:
    """``flow.function_config()``: the settings of one job function."""

    def __init__(self) -> None:
        self.train = TrainConfig()
        self.data_type: typing.Any = None

    def default_data_type(self, value: typing.Any) -> None:
        """Sets the dtype of placeholders that name none."""
        self.data_type = value

    def __getattr__(self, name: str) -> typing.Any:
        raise not_covered("oneflow.function_config()." + name)


class _BodyTrainConfig:
    """``flow.config.train``, which sets up the job function whose body is running."""

    def __getattr__(self, name: str) -> typing.Any:
        return getattr(current_trace("oneflow.config.train." + name).config.train, name)


class Config:
    """``flow.config``: the old way to say what the launcher says now.

    Nothing here changes the launch. What is said is checked when the first job function is
    needed, as a script may say a thing twice (the last one counts).
    """

    def __init__(self) -> None:
        self.train = _BodyTrainConfig()
        self.data_type: typing.Any = None
        self._devices: typing.Optional[int] = None
        self._port: typing.Optional[int] = None
        self._machines: typing.Tuple[str, ...] = ()

    def gpu_device_num(self, value: int) -> None:
        """Says how many devices, so workers, each machine has."""
        self._devices = int(value)

    def cpu_device_num(self, value: int) -> None:
        """Says the same of CPUs."""
        self._devices = int(value)

    def ctrl_port(self, value: int) -> None:
        """Says the rendezvous port."""
        self._port = int(value)

    def machine(self, *value: typing.Any) -> None:
        """Says the machines in order, as dictionaries with "addr"."""
        flat = value[0] if len(value) == 1 and isinstance(value[0], (list, tuple)) else value
        self._machines = tuple(one if isinstance(one, str) else one["addr"] for one in flat)

    def default_data_type(self, value: typing.Any) -> None:
        """Sets the dtype of placeholders that name none."""
        self.data_type = value

    def problems(self, launch: Launch, workers: typing.Mapping[int, int]) -> typing.List[str]:
        """Returns each contradiction between what was said and the launch.

        Args:
            launch: this worker's.
            workers: of each machine, how many workers it has.
        """
        checks = (
            self._device_problem(launch, workers),
            self._machine_problem(launch),
            self._port_problem(launch),
        )
        return [problem for problem in checks if problem]

    def _device_problem(self, launch: Launch, workers: typing.Mapping[int, int]) -> str:
        wrong = {m: count for m, count in workers.items() if count != self._devices}
        if self._devices is None or launch.placement == ALL or not wrong:
            return ""
        machine, count = min(wrong.items())
        return (
            "the script says config.gpu_device_num({}), machine {} has {} worker(s): start with "
            "--nproc-per-node {}, or spread with --placement all".format(
                self._devices, machine, count, self._devices
            )
        )

    def _machine_problem(self, launch: Launch) -> str:
        if not self._machines or not launch.machines or self._machines == launch.machines:
            return ""
        return (
            "the script says config.machine({}), this launch has {}: give the script the "
            "launch's addresses in their order, or name its machines in cluster.yaml".format(
                ", ".join(self._machines), ", ".join(launch.machines)
            )
        )

    def _port_problem(self, launch: Launch) -> str:
        # Without machines the port was for one machine's own use. After a restart the launcher
        # may have had to take another one.
        bound = self._machines and launch.world_size > 1 and launch.first_attempt
        if not bound or self._port is None or self._port == launch.ctrl_port:
            return ""
        return (
            "the script says config.ctrl_port({}), this launch has {}: set ctrl_port: {} in "
            "cluster.yaml, or change the script".format(self._port, launch.ctrl_port, self._port)
        )

    def __getattr__(self, name: str) -> typing.Any:
        raise not_covered("oneflow.config." + name)
