"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARNING, ERROR = "ok", "warning", "error"


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        subject: in a word or two.
        text: what was found.
        level: `ok`; `warning`, something is slower or less sure than it need be; `error`, something will
            not work.
        remedy: what to change; empty where nothing need be.
    """

    subject: str
    text: str
    level: str = OK
    remedy: str = ""
