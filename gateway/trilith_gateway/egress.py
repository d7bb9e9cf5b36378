"""Decides whether an address that data names may be connected to, and to which IP address exactly.

A name is resolved once, every address of the answer is checked, and the connection goes to a checked IP
address: a second look-up, which could give another answer, never happens. Redirects are not followed; whoever
follows one checks its target anew.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import NoReturn, TypeAlias
from urllib.parse import urlsplit

from trilith.errors import APIConnectionError, BadRequestError, PermissionDeniedError

IP: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve: TypeAlias = Callable[[str, int], Awaitable[list[str]]]
"""Gives all IP addresses of a host name, as text."""

_DEFAULT_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*\.?")
_NOT_IN_A_URL = re.compile(r"[^\x21-\x7e]|\\")
_DENIED: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; also clouds' metadata services
        "169.254.0.0/16",
        "192.0.0.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "224.0.0.0/4",
        "240.0.0.0/4",
        "64:ff9b::/96",  # NAT64: an IPv4 address inside
        "64:ff9b:1::/48",
        "2001::/32",  # Teredo: an IPv4 address inside
        "2002::/16",  # 6to4: an IPv4 address inside
        "fec0::/10",
        "ff00::/8",
        "::/96",  # IPv4-compatible
    )
)
"""What Python's `is_global` lets through, or has let through in some version, and what leads inside."""


@dataclass(frozen=True, slots=True)
class Target:
    """A checked address: connect to `ip` and say `host` in the Host header and for TLS."""

    scheme: str
    host: str
    port: int
    ip: str
    path: str


def denied(ip: IP, allow: Iterable[Network] = ()) -> bool:
    """Say whether `ip` leads anywhere but to the public internet, and is not in `allow` either."""
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    bare = mapped or ip
    if isinstance(bare, ipaddress.IPv6Address) and bare.scope_id is not None:
        return True
    if any(bare in network for network in allow if network.version == bare.version):
        return False
    return not bare.is_global or any(
        bare in network for network in _DENIED if network.version == bare.version
    )


async def resolve(host: str, port: int) -> list[str]:
    """Return all IP addresses of `host`, by the system's resolver.

    Raises:
        OSError: there is no such name, or no answer.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


class Egress:
    """The guard before connections to addresses that come from data."""

    def __init__(
        self,
        allow: Iterable[str] = (),
        *,
        ports: Iterable[int] = (80, 443),
        resolver: Resolve = resolve,
    ) -> None:
        """Make a guard.

        Args:
            allow: networks (CIDR) that may be reached although they are not public.
            ports: the only ports that may be reached.
            resolver: how names become IP addresses.

        Raises:
            ValueError: `allow` holds something that is not a network.
        """
        self._allow = tuple(ipaddress.ip_network(text) for text in allow)
        self._ports = frozenset(ports)
        self._resolve = resolver

    async def check(self, url: str) -> Target:
        """Return where to connect to for `url`.

        Raises:
            BadRequestError: not an http(s) URL that all parsers read alike.
            PermissionDeniedError: the port or one of the host's addresses is not allowed.
            APIConnectionError: the host has no address.
        """
        scheme, host, port, path = parse(url)
        if port not in self._ports:
            _deny(f"port {port} is not one of {sorted(self._ports)}")
        try:
            texts = [str(ipaddress.ip_address(host))]
        except ValueError:
            texts = await self._look_up(host, port)
        addresses = [ipaddress.ip_address(text) for text in texts]
        # One bad address condemns the name: which one a client takes is not ours to guess.
        if any(denied(address, self._allow) for address in addresses):
            _deny("it leads into a network that is not public")
        return Target(scheme, host, port, str(addresses[0]), path)

    async def _look_up(self, host: str, port: int) -> list[str]:
        try:
            texts = await self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise APIConnectionError(f"The host of the address cannot be found: {error}.") from error
        if not texts:
            raise APIConnectionError("The host of the address has no IP address.")
        return texts


def parse(url: str) -> tuple[str, str, int, str]:
    """Return scheme, host, port and path (with query) of `url`; refuse what parsers read in different ways.

    Raises:
        BadRequestError: not such a URL.
    """
    if _NOT_IN_A_URL.search(url):
        _malformed("characters that belong in no URL")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        _malformed("a host or a port that cannot be read")
    if parts.scheme not in _DEFAULT_PORTS:
        _malformed("a scheme other than http and https")
    if "@" in parts.netloc:
        _malformed("a user name or a password")
    if "%" in parts.netloc:
        _malformed("an escaped host or an interface's name")
    host = _host(host)
    path = parts.path or "/"
    return (
        parts.scheme,
        host,
        port if port is not None else _DEFAULT_PORTS[parts.scheme],
        f"{path}?{parts.query}" if parts.query else path,
    )


def _host(host: str) -> str:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass  # a name then, or an address in an unusual spelling
    if len(host) > 253 or not _HOST.fullmatch(host):
        _malformed("a host that is no name and no address")
    # 127.1, 0x7f.0.0.1, 2130706433 and 0177.0.0.1 are addresses to some resolvers.
    if re.fullmatch(r"\d+|0x[0-9a-f]*", host.rstrip(".").rpartition(".")[2]):
        _malformed("a host in numbers that is not an IP address in its usual spelling")
    return host.rstrip(".")


def _malformed(what: str) -> NoReturn:
    raise BadRequestError(
        f"The address has {what}; expected a plain http or https URL.",
        status_code=400,
        code="invalid_address",
        type="invalid_request_error",
    )


def _deny(why: str) -> NoReturn:
    raise PermissionDeniedError(
        f"The address may not be reached: {why}.",
        status_code=403,
        code="address_not_allowed",
        type="invalid_request_error",
    )
