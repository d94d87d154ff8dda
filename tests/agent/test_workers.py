"""A worker's environment."""

from __future__ import annotations

import pytest

from launcher.agent import workers

PROXIES = ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"]


@pytest.mark.parametrize("name", [*PROXIES, "PYTHONHOME"])
def test_what_hangs_oneflow_is_scrubbed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "http://proxy:3128")
    assert name not in workers.worker_environment({}, {})


def test_a_proxy_that_the_person_asks_for_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://login:3128")
    env = workers.worker_environment({"http_proxy": "http://asked:1"}, {})
    assert env["http_proxy"] == "http://asked:1"


def test_the_plan_wins_over_the_login_and_the_agent_over_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("A", "B", "C"):
        monkeypatch.setenv(name, "login")
    env = workers.worker_environment({"B": "plan", "C": "plan"}, {"C": "agent"})
    assert [env[name] for name in ("A", "B", "C")] == ["login", "plan", "agent"]


@pytest.mark.parametrize(
    ("flags", "fast"),
    [({"avx2", "fma", "sse"}, True), ({"avx2"}, False), ({"fma"}, False), (set(), False)],
)
def test_the_cpu_settings_are_set_where_the_cpu_has_both(
    monkeypatch: pytest.MonkeyPatch, flags: set[str], fast: bool
) -> None:
    for name in workers.FAST_CPU:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(workers, "_cpu_flags", lambda: flags)
    env = workers.worker_environment({}, {})
    assert all((env.get(name) == value) is fast for name, value in workers.FAST_CPU.items())


@pytest.mark.parametrize("name", [*workers.FAST_CPU, *workers.QUIET])
def test_what_the_person_set_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(workers, "_cpu_flags", lambda: workers.FAST_CPU_FLAGS)
    monkeypatch.setenv(name, "mine")
    assert workers.worker_environment({}, {})[name] == "mine"
    monkeypatch.delenv(name)
    assert workers.worker_environment({name: "plan"}, {})[name] == "plan"
