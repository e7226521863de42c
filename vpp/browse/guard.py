"""Who is let in: whoever shows the token; without one, whoever asks for this machine by a name that is its own."""

from __future__ import annotations

import binascii
import hmac
import ipaddress
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Guard:
    """Checks the headers of a request.

    Attributes:
        host: The address that the server listens at.
        token: What visitors must show; empty for none.
    """

    host: str
    token: str = ""

    def shows_token(self, headers: Mapping[str, str]) -> bool:
        """Whether the password is the token (HTTP Basic, RFC 7617; any user name will do)."""
        if not self.token:
            return True
        scheme, _, encoded = headers.get("Authorization", "").partition(" ")
        try:
            _, _, password = b64decode(encoded.strip(), validate=True).partition(b":")
        except (binascii.Error, ValueError):
            return False
        return scheme.lower() == "basic" and hmac.compare_digest(password, self.token.encode())

    def is_own_name(self, headers: Mapping[str, str]) -> bool:
        """Whether the host that was asked for is an address, or a name that means this machine.

        A page of strangers can have its own name lead here (DNS rebinding) and would then read what is shown; it cannot
        have an address as its name. With a token, which such a page does not have, any name will do.
        """
        name = _name(headers.get("Host", ""))
        return bool(self.token) or name in ("localhost", self.host.lower()) or _is_address(name)

    def is_own_form(self, headers: Mapping[str, str]) -> bool:
        """Whether a form was sent from a page of this server, as far as the browser tells.

        Behind a proxy the host that is asked for may not be the one that the browser knows: then what the browser says
        of the two, which no page can change, tells.
        """
        origin = headers.get("Origin")
        is_same = headers.get("Sec-Fetch-Site") == "same-origin"
        return origin is None or is_same or urlsplit(origin).netloc == headers.get("Host")


def _name(host: str) -> str:
    """The host without its port.

    >>> _name("127.0.0.1:80"), _name("[::1]:80"), _name("localhost")
    ('127.0.0.1', '::1', 'localhost')
    """
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
