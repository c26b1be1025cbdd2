"""Addresses of maps on a server, and the one way to write an address where others may read it."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

SCHEMES = ("postgresql://", "postgres://")
NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
# Patterns are compiled when they are used: every error knows this module, and few are raised.
# Only what is known to be no secret is shown. Everything else that libpq takes is not.
_OPTIONS = ("map", "host", "hostaddr", "port", "dbname", "user", "sslmode", "connect_timeout")
# Of postgres also what lacks its slashes: a file of such a name is less likely than a password in it.
_ADDRESS = r"(?is)\s*([a-z][a-z0-9+.-]*):(?://|/|(?<=postgres:)|(?<=postgresql:))(.*)"
_HOST = r"(?:\[[0-9A-Fa-f:.%]*\]|(?:[\w.-]|%[0-9A-Fa-f]{2})*)(?::\d*)?"
# What an address has to look like. A password with a sign that should be encoded does not, and so nobody
# takes a part of it for a host, a database or an option.
_STRICT = (
    rf"(?:(?P<user>[^:/?#@\s]*)(?::(?P<password>[^:/?#@\s]*))?@)?(?P<hosts>{_HOST}(?:,{_HOST})*)"
    r"(?P<database>/[^/?#@:=&\s]*)?(?:\?(?P<query>[^?#@\s]*))?"
)
_SAFE = re.compile(r"[\w.,:/+~-]*")
_CONNECTION = r"\b(password|passfile|sslpassword|passwd|dbname|host|hostaddr)\s*="
_IN_TEXT = r"(?i)\bpostgres[a-z0-9+.-]*:(?:/+\S*|\S*@\S*)[^\s.,:;)'\"]"
ENCODE = (
    "write it as postgresql://user@host:5432/database?map=NAME, with % and two digits for special signs in "
    "names and passwords (@ is %40, : is %3A, / is %2F)"
)


def is_server(uri: str | Path) -> bool:
    """Returns whether a URI names a map on a server rather than a file."""
    return str(uri).startswith(SCHEMES)


def is_mistyped(uri: str | Path) -> bool:
    """Returns whether a URI is meant for a server but is not written as such an address is."""
    text = str(uri)
    if is_server(uri):
        return parsed(text) is None
    return bool(re.match(_ADDRESS, text) or re.search(_CONNECTION, text))


def parsed(uri: str) -> re.Match[str] | None:
    """Returns the parts of an address: user, password, hosts, database and query; None where it is none."""
    found = re.match(_ADDRESS, uri)
    return re.fullmatch(_STRICT, found[2]) if found else None


def shown(uri: str | Path) -> str:
    """Returns a map's URI for messages, logs and diagnostics: a path as it is, an address without secrets.

    An address shows what is known to be no secret: user, hosts, database, the map's name and a few options;
    "..." stands for anything else.
    """
    text = str(uri)
    found = re.match(_ADDRESS, text)
    if found is None:
        return "(connection string)" if re.search(_CONNECTION, text) else text
    parts = re.fullmatch(_STRICT, found[2])
    scheme = found[1] if found[1].lower().startswith("postgres") else "..."
    if parts is None:
        name = re.search(r"[?&]map=([a-z][a-z0-9_]{0,39})$", text)
        return f"{scheme}://...{'?map=' + name[1] if name else ''}"
    user = "" if parts["user"] is None else f"{_safe(parts['user'])}@"
    database = parts["database"] or ""
    options = []
    for option in (parts["query"] or "").split("&"):
        key, _, value = option.partition("=")
        if key in _OPTIONS and _safe(value) == value:
            options.append(option)
        elif option and "..." not in options:
            options.append("...")
    query = "?" + "&".join(options) if options else ""
    return f"{scheme}://{user}{parts['hosts']}{'/' if database else ''}{_safe(database[1:])}{query}"


def without_secrets(text: str) -> str:
    """Returns a text with every address in it as `shown` writes it."""
    return re.sub(_IN_TEXT, lambda found: shown(found[0]), text)


def _safe(text: str) -> str:
    """Returns a part of an address, or "..." where it may hold more than a name."""
    return text if _SAFE.fullmatch(unquote(text)) else "..."


def name_in(uri: str) -> str:
    """Returns the name of the map that an address has, or nothing."""
    parts = parsed(uri)
    found = (
        [o[4:] for o in (parts["query"] or "").split("&") if o.startswith("map=")] if parts else []
    )
    return found[0] if len(found) == 1 and NAME.fullmatch(found[0]) else ""
