"""Which addresses may be reached: a table, a resolver that changes its mind, and hosts that fool parsers."""

from __future__ import annotations

import socket

import pytest

from trilith.errors import APIConnectionError, APIStatusError, BadRequestError, PermissionDeniedError
from trilith_gateway.egress import Egress

INSIDE = [
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",  # a cloud's metadata service
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",  # most clouds' metadata service
    "172.16.0.1",
    "192.0.0.1",
    "192.0.0.9",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:a9fe:a9fe",
    "64:ff9b::7f00:1",
    "64:ff9b::808:808",
    "64:ff9b:1::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:808:808::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
]
OUTSIDE = ["1.1.1.1", "8.8.8.8", "93.184.215.14", "::ffff:8.8.8.8", "2606:4700:4700::1111"]
MISLEADING = [
    "http://good.example@127.0.0.1/",
    "http://127.0.0.1\\@good.example/",
    "http://good.example\\@127.0.0.1/",
    "http://127。0。0。1/",
    "http://１２７.0.0.1/",
    "http://good.example%2f@127.0.0.1/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.0.0.1/",
    "http://0177.0.0.1/",
    "http://127.1/",
    "http://127.0.0.1 .good.example/",
    "http://good.example\t.evil.example/",
    "http://good.example\r\nHost: evil.example/",
    "http://[::1%25lo]/",
    "http://[::ffff:127.0.0.1/",
    "http://good_host/",
    "http:///path",
    "http://good.example:99999/",
    "//good.example/",
    "file:///etc/passwd",
    "gopher://good.example/",
    "ftp://good.example/",
    "",
]


class Names:
    """A resolver with prepared answers, one for each time that it is asked."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        return self.answers.pop(0)


def url(ip: str) -> str:
    return f"https://[{ip}]/v1" if ":" in ip else f"https://{ip}/v1"


@pytest.mark.parametrize("ip", INSIDE)
async def test_an_address_inside_is_refused_as_a_number_and_behind_a_name(ip: str) -> None:
    with pytest.raises(PermissionDeniedError, match="not public"):
        await Egress().check(url(ip))
    with pytest.raises(PermissionDeniedError, match="not public"):
        await Egress(resolver=Names([ip])).check("https://good.example/")


@pytest.mark.parametrize("ip", OUTSIDE)
async def test_a_public_address_is_let_through(ip: str) -> None:
    assert (await Egress().check(url(ip))).port == 443


@pytest.mark.parametrize("text", MISLEADING)
async def test_what_parsers_read_in_different_ways_is_refused_before_any_look_up(text: str) -> None:
    names = Names()
    with pytest.raises(BadRequestError):
        await Egress(resolver=names).check(text)
    assert names.asked == []


async def test_one_address_inside_condemns_the_name() -> None:
    with pytest.raises(PermissionDeniedError):
        await Egress(resolver=Names(["8.8.8.8", "2606:4700::1", "10.0.0.1"])).check("http://mixed.example/")


async def test_a_name_is_looked_up_once_and_its_address_pinned() -> None:
    names = Names(["8.8.8.8"], ["127.0.0.1"])  # the second answer is the rebinding
    target = await Egress(resolver=names).check("http://rebinding.example/x?y=1")
    assert (target.ip, target.host, target.path) == ("8.8.8.8", "rebinding.example", "/x?y=1")
    assert len(names.asked) == 1


async def test_the_target_of_a_redirect_is_an_address_like_any_other() -> None:
    with pytest.raises(PermissionDeniedError):
        await Egress().check("http://169.254.169.254/latest/meta-data/")


@pytest.mark.parametrize("port", [22, 25, 6379, 8080, 0])
async def test_only_the_ports_of_the_web_are_reached(port: int) -> None:
    with pytest.raises(PermissionDeniedError, match="port"):
        await Egress().check(f"http://8.8.8.8:{port}/")


async def test_the_operator_may_open_a_network_and_only_that() -> None:
    guard = Egress(["10.1.0.0/16", "fd12::/16"])
    assert (await guard.check("http://10.1.2.3/")).ip == "10.1.2.3"
    assert (await guard.check("http://[::ffff:10.1.2.3]/")).ip == "::ffff:a01:203"
    assert (await guard.check("http://[fd12::1]/")).ip == "fd12::1"
    with pytest.raises(PermissionDeniedError):
        await guard.check("http://10.2.0.1/")


@pytest.mark.parametrize("text", ["10.1.2.3/16", "everything", ""])
def test_an_allowance_that_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="network|host bits"):
        Egress([text])


async def test_a_name_without_an_address_is_a_connection_error() -> None:
    async def nothing(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    for resolver in (nothing, Names([])):
        with pytest.raises(APIConnectionError):
            await Egress(resolver=resolver).check("http://nowhere.example/")


async def test_a_refusal_does_not_say_what_the_name_led_to() -> None:
    with pytest.raises(APIStatusError) as caught:
        await Egress(resolver=Names(["10.11.12.13"])).check("http://probe.example/")
    assert "10.11.12.13" not in str(caught.value)
