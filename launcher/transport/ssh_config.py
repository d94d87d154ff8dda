"""OpenSSH's client configuration, read as ssh reads it.

paramiko's reader has no Include, takes Match words that it does not know for true, and matches
patterns as file globs; resolving an address must not cost the import of paramiko either. So the
walk is done here: top to bottom, the first value of an option wins, IdentityFile and
CertificateFile add up. What ssh does and this does not is a `ConfigLineError`, never a guess.
"""

from __future__ import annotations

import functools
import getpass
import glob
import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

USER_CONFIG = Path("~/.ssh/config")
SYSTEM_CONFIG = Path("/etc/ssh/ssh_config")

_MAX_INCLUDE_DEPTH = 16
_MATCH_EXEC_LIMIT_S = 10.0
_ADDED_UP = frozenset({"identityfile", "certificatefile"})
_REST_OF_LINE = frozenset({"proxycommand", "localcommand", "remotecommand"})
_EXCLUSIVE = {"proxyjump": "proxycommand", "proxycommand": "proxyjump"}
_KEYWORD = re.compile(r'\s*"?([A-Za-z][\w-]*)"?(?:\s*=\s*|\s+)(.*)$')

Options = dict[str, tuple[str, ...]]


class ConfigLineError(Exception):
    """A configuration that cannot be followed. The message begins with ``file:line``."""


@dataclass(frozen=True)
class Line:
    """One directive.

    Attributes:
        keyword: in lower case.
        args: its words, quotes taken off.
        where: ``file:line``.
        raw: everything after the keyword, as it stands.
    """

    keyword: str
    args: tuple[str, ...]
    where: str
    raw: str


@dataclass(frozen=True)
class ConfigFile:
    """One file to read, and whether it is the person's own or the machine's."""

    path: Path
    is_user: bool

    @property
    def include_base(self) -> Path:
        """Where relative Include paths begin."""
        return Path.home() / ".ssh" if self.is_user else Path("/etc/ssh")


def split_words(text: str) -> list[str]:
    r"""Cuts a directive's arguments as ssh does; a word that begins with ``#`` ends the line.

    >>> split_words('a "b c" d\\ e # rest')
    ['a', 'b c', 'd e']

    Raises:
        ValueError: a quote is not closed.
    """
    words: list[str] = []
    rest = text.strip()
    while rest and not rest.startswith("#"):
        word, rest = _one_word(rest)
        words.append(word)
        rest = rest.lstrip()
    return words


def _one_word(text: str) -> tuple[str, str]:
    word, quote, at = "", "", 0
    while at < len(text):
        char, ahead = text[at], text[at + 1 : at + 2]
        if char == "\\" and ahead and (ahead in "\"'\\" or (ahead == " " and not quote)):
            word, at = word + ahead, at + 2
            continue
        if quote:
            quote, word = ("", word) if char == quote else (quote, word + char)
        elif char in "\"'":
            quote = char
        elif char in " \t":
            break
        else:
            word += char
        at += 1
    if quote:
        raise ValueError("a quote is not closed")
    return word, text[at:]


def parse_lines(text: str, name: str) -> Iterator[Line]:
    """Yields the directives of one file's text; `name` is what problems call it.

    Raises:
        ConfigLineError: a line is no directive.
    """
    for number, line in enumerate(text.splitlines(), 1):
        where = f"{name}:{number}"
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _KEYWORD.match(line)
        if match is None:
            raise ConfigLineError(f"{where}: a keyword without a value: {line.strip()!r}")
        keyword, raw = match.group(1).lower(), match.group(2).strip()
        try:
            args = (raw,) if keyword in _REST_OF_LINE else tuple(split_words(raw))
        except ValueError as error:
            raise ConfigLineError(f"{where}: {error}: {line.strip()!r}") from None
        if not args:
            raise ConfigLineError(f"{where}: {match.group(1)} has no value")
        yield Line(keyword, args, where, raw)


def pattern_matches(pattern: str, text: str) -> bool:
    """Says whether one of ssh's patterns (``*`` and ``?`` only) covers the text.

    >>> pattern_matches("gpu?", "gpu1"), pattern_matches("gpu[1]", "gpu1")
    (True, False)
    """
    if "*" not in pattern and "?" not in pattern:
        return pattern == text
    parts = (".*" if char == "*" else "." if char == "?" else re.escape(char) for char in pattern)
    return re.fullmatch("".join(parts), text, re.DOTALL) is not None


def any_matches(patterns: Sequence[str], text: str) -> bool:
    """Says whether some pattern covers the text and none that is negated with ``!`` does.

    >>> any_matches(["gpu*", "!gpu7"], "gpu7")
    False
    """
    if any(p.startswith("!") and pattern_matches(p[1:], text) for p in patterns):
        return False
    return any(not p.startswith("!") and pattern_matches(p, text) for p in patterns)


def expand(text: str, tokens: Mapping[str, str]) -> str:
    """Puts in the values of ``%h`` and the like; ``%%`` is a percent sign.

    >>> expand("%h.lab:%%", {"h": "gpu1"})
    'gpu1.lab:%'

    Raises:
        ValueError: the text uses a token that is not among `tokens`.
    """

    def value(match: re.Match[str]) -> str:
        letter = match.group(1)
        if letter == "%":
            return "%"
        if letter not in tokens:
            raise ValueError(f"%{letter} is not known here")
        return tokens[letter]

    return re.sub(r"%(.?)", value, text, flags=re.DOTALL)


def local_user() -> str:
    """Returns the login name here, which is the remote one unless something says otherwise."""
    return getpass.getuser()


def read_options(
    files: Sequence[ConfigFile], alias: str, given: Mapping[str, tuple[str, ...]]
) -> Options:
    """Returns what the files say for one host, raw: tokens are not expanded but in HostName.

    Args:
        files: in the order in which ssh reads them.
        alias: what the person would type after ``ssh``.
        given: options that stand above the files, as those of ssh's command line do.

    Raises:
        ConfigLineError: a file cannot be followed.
    """
    walk = _Walk(alias, dict(given))
    walk.all_of(files)
    walk.options["hostname"] = (walk.hostname(),)
    if walk.wants_final:
        walk.host, walk.final = walk.options["hostname"][0], True
        walk.all_of(files)
    return walk.options


@dataclass
class _Walk:
    """One pass over the files with what has been found so far."""

    alias: str
    options: Options
    host: str = ""
    final: bool = False
    wants_final: bool = False
    active: bool = True

    def __post_init__(self) -> None:
        self.host = self.alias

    def all_of(self, files: Sequence[ConfigFile]) -> None:
        for file in files:
            self.active = True
            self._one(file, depth=0, never=False)

    def _one(self, file: ConfigFile, *, depth: int, never: bool) -> None:
        text = _read(file, checked=file.is_user and depth == 0)
        for line in _parsed(text, str(file.path)):
            if line.keyword == "host":
                self.active = not never and any_matches(line.args, self.host)
            elif line.keyword == "match":
                self.active = self._match(line) and not never
            elif line.keyword == "include":
                self._include(line, file, depth, never)
            elif self.active:
                self._set(line)

    def _include(self, line: Line, file: ConfigFile, depth: int, never: bool) -> None:
        if depth >= _MAX_INCLUDE_DEPTH:
            raise ConfigLineError(f"{line.where}: Include goes too deep")
        before = self.active
        for pattern in line.args:
            base = file.include_base / Path(pattern).expanduser()
            # Like ssh's own glob, this one passes over hidden files; Path.glob does not.
            for path in sorted(glob.glob(str(base))):  # noqa: PTH207
                self.active = before
                inner = ConfigFile(Path(path), file.is_user)
                self._one(inner, depth=depth + 1, never=never or not before)
        self.active = before

    def _set(self, line: Line) -> None:
        key = line.keyword
        if key in _ADDED_UP:
            known = self.options.get(key, ())
            self.options[key] = known + tuple(arg for arg in line.args[:1] if arg not in known)
        elif key not in self.options and _EXCLUSIVE.get(key, "") not in self.options:
            self.options[key] = line.args

    def hostname(self) -> str:
        """Returns what is dialled: HostName with its tokens, or the alias itself."""
        given = self.options.get("hostname", (self.alias,))[0]
        try:
            return expand(given, {"h": self.host})
        except ValueError as error:
            raise ConfigLineError(f"HostName {given}: {error}") from None

    def _match(self, line: Line) -> bool:
        results = [self._criterion(item, line) != item.negated for item in _criteria(line)]
        return all(results)

    def _criterion(self, item: _Criterion, line: Line) -> bool:
        user = self.options.get("user", (local_user(),))[0]
        subjects = {
            "host": self.hostname(),
            "originalhost": self.alias,
            "user": user,
            "localuser": local_user(),
        }
        if item.name == "all":
            return True
        if item.name in ("final", "canonical"):
            self.wants_final = self.wants_final or item.name == "final"
            return self.final
        if item.name == "exec":
            return self._exec(item.value, user, line)
        return any_matches(item.value.split(","), subjects[item.name])

    def _exec(self, command: str, user: str, line: Line) -> bool:
        tokens = {
            "h": self.hostname(),
            "n": self.alias,
            "p": self.options.get("port", ("22",))[0],
            "r": user,
            "u": local_user(),
            "d": str(Path.home()),
        }
        try:
            text = expand(command, tokens)
            shell = [os.environ.get("SHELL", "/bin/sh"), "-c", text]
            done = subprocess.run(
                shell,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                timeout=_MATCH_EXEC_LIMIT_S,
                check=False,
            )
        except (ValueError, OSError, subprocess.TimeoutExpired) as error:
            raise ConfigLineError(f"{line.where}: Match exec: {error}") from None
        return done.returncode == 0


_BARE = frozenset({"all", "final", "canonical"})
_WITH_VALUE = frozenset({"host", "originalhost", "user", "localuser", "exec"})


@dataclass(frozen=True)
class _Criterion:
    name: str
    value: str
    negated: bool


def _criteria(line: Line) -> list[_Criterion]:
    words, items = list(line.args), []
    while words:
        word = words.pop(0)
        name, equals, value = word.lstrip("!").partition("=")
        name = name.lower()
        if name not in _BARE | _WITH_VALUE:
            raise ConfigLineError(f"{line.where}: Match {name} is not supported here")
        if name in _WITH_VALUE and not equals:
            if not words:
                raise ConfigLineError(f"{line.where}: Match {name} needs a value")
            value = words.pop(0)
        items.append(_Criterion(name, value, word.startswith("!")))
    return items


@functools.lru_cache(maxsize=64)
def _parsed(text: str, name: str) -> tuple[Line, ...]:
    # A hundred nodes walk the same files, one node after the other.
    return tuple(parse_lines(text, name))


def _read(file: ConfigFile, *, checked: bool) -> str:
    try:
        if checked:
            _refuse_foreign(file.path)
        return file.path.read_text(encoding="utf-8", errors="surrogateescape")
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        raise ConfigLineError(f"{file.path}: cannot be read: {error.strerror}") from None


def _refuse_foreign(path: Path) -> None:
    """Refuses, as ssh does, a configuration that another user could have written."""
    found = path.stat()
    if found.st_uid not in (0, os.getuid()) or found.st_mode & 0o022:
        raise ConfigLineError(f"{path}: bad owner or permissions: others may write it")
