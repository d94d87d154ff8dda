"""A unix account of its own: another user, with an empty home, for whom nothing is prepared."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.deadline import wait_until
from tests.support.keys import make_key
from tests.support.netns import SSH_PORT, namespaces
from tests.support.servers import SshHost
from tests.support.sshd import running_sshd

# Below an account's home: the directory of the library of a Python that was copied there.
PYTHON_LIBRARY = "python-library"


@dataclass(frozen=True)
class Account:
    """One user of this machine."""

    name: str
    uid: int
    home: Path

    def write(self, name: str, text: str) -> None:
        """Writes a file into the home, as the user's own."""
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        self.own()

    def own(self) -> None:
        """Makes everything in the home the user's own."""
        owner = pwd.getpwnam(self.name)
        for path in (self.home, *self.home.rglob("*")):
            os.chown(path, owner.pw_uid, owner.pw_gid, follow_symlinks=False)

    @property
    def processes(self) -> list[int]:
        """The user's processes, which only the account's tests can have started."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and entry.stat().st_uid == self.uid:
                    found.append(int(entry.name))
        return found


@contextlib.contextmanager
def unix_account() -> Iterator[Account]:
    """Makes a user whom a key lets in, and removes it with all that it has."""
    if os.getuid() != 0 or shutil.which("useradd") is None:
        assert os.environ.get("CI") != "true", "accounts cannot be made: run as root, with useradd"
        pytest.skip("needs root and useradd (CI has them)")
    # Not below pytest's own directory, which nobody else may enter.
    top = Path(tempfile.mkdtemp(prefix="flowlaunch-account-"))
    top.chmod(0o755)
    name, home = f"fl{os.getpid()}", top / "home"
    # "*" for a password: there is none. Of "!", sshd would say that the account is locked.
    made = [
        "useradd",
        "--create-home",
        "--home-dir",
        str(home),
        "--shell",
        "/bin/sh",
        "-p",
        "*",
        name,
    ]
    subprocess.run(made, check=True, capture_output=True)
    account = Account(name, pwd.getpwnam(name).pw_uid, home)
    try:
        yield account
    finally:
        for pid in account.processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not account.processes, f"an end of all that {name} runs")
        subprocess.run(["userdel", name], check=True, capture_output=True)
        shutil.rmtree(top)


@contextlib.contextmanager
def account_host(directory: Path, account: Account) -> Iterator[SshHost]:
    """Runs a host in a namespace on which the account can log in."""
    identity = make_key(directory / "client_key")
    account.write(".ssh/authorized_keys", identity.public + "\n")
    # The first word on a setting holds: the home is the account's own, as the system knows it.
    settings = [
        f"AuthorizedKeysFile {account.home}/.ssh/authorized_keys",
        # A Python that is copied there looks for its library where it was built.
        f"SetEnv LANG=C.UTF-8 LD_LIBRARY_PATH={account.home}/{PYTHON_LIBRARY}",
    ]
    with (
        namespaces(1) as (host,),
        running_sshd(
            directory / host.name,
            name=host.name,
            addresses=(host.address,),
            namespace=host.namespace,
            port=SSH_PORT,
            identity=identity,
            settings=settings,
        ) as server,
    ):
        yield dataclasses.replace(
            server, user=account.name, home=account.home, extra={"gateway": host.gateway}
        )
