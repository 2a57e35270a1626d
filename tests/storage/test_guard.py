"""The guard: which addresses are let through, by number and by name, and that nothing goes around it."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from ipaddress import ip_address

import aiohttp
import pytest

from app.errors import AddressRefusedError, StorageTimeoutError, UnreachableError
from app.storage.addresses import public
from app.storage.guard import Guard

REFUSED = """
0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.100.100.200 127.0.0.1 127.255.255.254 168.63.129.16 169.254.169.254
169.254.170.2 172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.192 192.0.2.1 192.88.99.1 192.168.0.1 198.18.0.1
198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255
:: ::1 ::127.0.0.1 ::a9fe:a9fe ::ffff:127.0.0.1 ::ffff:8.8.8.8 ::ffff:0:7f00:1 64:ff9b::7f00:1
64:ff9b::a9fe:a9fe 64:ff9b:1::808:808 100::1 2001::1 2001:2::1 2001:10::1 2001:20::1 2001:db8::1
2002:7f00:1:: 2002:808:808:: 3fff::1 4000::1 5f00::1 fc00::1 fd00:ec2::254 fe80::1 fec0::1 ff02::1
"""
PUBLIC = """
1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 52.216.1.1 100.63.255.255 100.128.0.0 168.63.129.15 172.15.255.255
172.32.0.0 191.255.255.255 192.0.1.0 198.17.255.255 198.20.0.0 223.255.255.255
2001:4860:4860::8888 2600:1f00::1 2a05:d018::1 2001:200::1 64:ff9b::808:808
"""

Answers = list[tuple[object, ...]]


@pytest.mark.parametrize("text", REFUSED.split())
def test_an_address_with_a_special_purpose_is_not_public(text: str) -> None:
    assert not public(ip_address(text))


@pytest.mark.parametrize("text", PUBLIC.split())
def test_a_global_unicast_address_is_public(text: str) -> None:
    assert public(ip_address(text))


def answers(*addresses: str) -> Answers:
    """What a resolver gives for some addresses."""
    return [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (text, 443, 0, 0))
        if ":" in text
        else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (text, 443))
        for text in addresses
    ]


class Names:
    """A resolver of our own making: gives its answers in turn, the last one for ever."""

    def __init__(self, *turns: Answers) -> None:
        self._turns = list(turns)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int, **_: object) -> Answers:
        self.asked.append(host)
        turn = self._turns.pop(0) if len(self._turns) > 1 else self._turns[0]
        return [(*info[:4], (info[4][0], port, *info[4][2:])) for info in turn]  # type: ignore[index]


class Connects:
    """Notes what would be connected to, and refuses."""

    def __init__(self) -> None:
        self.targets: list[str] = []

    async def __call__(self, sock: socket.socket, target: tuple[str, int]) -> None:
        self.targets.append(target[0])
        raise ConnectionRefusedError(111, "refused")


@pytest.fixture
async def connects(monkeypatch: pytest.MonkeyPatch) -> Connects:
    noted = Connects()
    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", noted)
    return noted


@pytest.fixture
async def resolving(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Names]:
    def install(*turns: Answers) -> Names:
        names = Names(*turns)
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", names)
        return names

    return install


SPELLINGS = [
    "127.0.0.1", "::1", "::ffff:127.0.0.1", "::ffff:7f00:1", "0.0.0.0", "::", "2130706433", "0x7f.1", "0177.0.0.1",
    "127.1", "fe80::1%lo", "１２７.０.０.１", "localhost", "LOCALHOST", "64:ff9b::7f00:1", "2002:7f00:1::",  # noqa: RUF001
    "168.63.129.16", "169.254.169.254", "192.0.0.192", "fd00:ec2::254", "100.100.100.200", "0",
]  # fmt: skip


@pytest.mark.parametrize("host", SPELLINGS)
async def test_no_spelling_of_a_private_address_is_opened(host: str, connects: Connects) -> None:
    with pytest.raises(AddressRefusedError) as caught:
        await Guard().open(asyncio.Protocol, host, 80)
    assert connects.targets == []
    assert caught.value.at == "endpoint_url"
    assert "FRAMEGATE_ALLOWED_PRIVATE_ENDPOINTS" in caught.value.remedy


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "0.0.0.0", "169.254.169.254", "fe80::1"])
def test_no_socket_is_made_for_a_private_address(address: str) -> None:
    with pytest.raises(AddressRefusedError):
        Guard().socket(answers(address)[0])  # type: ignore[arg-type]  # made above


async def test_a_refusal_does_not_tell_the_address_behind_a_name(resolving: Callable[..., Names]) -> None:
    resolving(answers("10.9.8.7"))
    with pytest.raises(AddressRefusedError) as caught:
        await Guard().addresses("intranet.example", 443)
    assert "10.9.8.7" not in caught.value.detail + caught.value.remedy


async def test_one_private_answer_refuses_the_whole_name(
    resolving: Callable[..., Names], connects: Connects
) -> None:
    resolving(answers("8.8.8.8", "127.0.0.1"))
    with pytest.raises(AddressRefusedError):
        await Guard().open(asyncio.Protocol, "mixed.example", 443)
    assert connects.targets == []


async def test_the_address_that_was_checked_is_the_one_connected_to(
    resolving: Callable[..., Names], connects: Connects
) -> None:
    names = resolving(answers("8.8.8.8"), answers("127.0.0.1"))
    with pytest.raises(UnreachableError, match="refuses connections"):
        await Guard().open(asyncio.Protocol, "flips.example", 443)
    assert (names.asked, connects.targets) == (["flips.example"], ["8.8.8.8"])


async def test_every_address_of_a_name_is_tried(resolving: Callable[..., Names], connects: Connects) -> None:
    resolving(answers("8.8.8.8", "2001:4860:4860::8888", "1.1.1.1"))
    with pytest.raises(UnreachableError):
        await Guard().open(asyncio.Protocol, "many.example", 443)
    assert connects.targets == ["8.8.8.8", "2001:4860:4860::8888", "1.1.1.1"]


def session_of(guard: Guard, resolver: aiohttp.abc.AbstractResolver | None = None) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(resolver=resolver or guard, socket_factory=guard.socket)
    )


async def test_aiohttp_connects_to_the_checked_address(
    resolving: Callable[..., Names], connects: Connects
) -> None:
    resolving(answers("8.8.8.8"), answers("127.0.0.1"))
    async with session_of(Guard()) as session:
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get("http://flips.example/")
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get("http://flips.example/")  # aiohttp keeps a look-up for ten seconds
    assert set(connects.targets) == {"8.8.8.8"}


class LyingResolver(aiohttp.abc.AbstractResolver):
    """Gives an address that nobody checked."""

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[aiohttp.abc.ResolveResult]:
        return [
            aiohttp.abc.ResolveResult(hostname=host, host="127.0.0.1", port=port, family=2, proto=6, flags=0)
        ]

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("allowed", [(), ("bucket.example",)])
async def test_a_lying_resolver_gets_no_socket(connects: Connects, allowed: tuple[str, ...]) -> None:
    async with session_of(Guard(allowed), LyingResolver()) as session:
        with pytest.raises(AddressRefusedError):
            await session.get("http://bucket.example/")
    assert connects.targets == []


@pytest.mark.parametrize(
    ("allowed", "host", "port", "goes"),
    [
        ("minio.internal", "minio.internal", 9000, True),
        ("minio.internal", "MinIO.Internal.", 443, True),
        ("minio.internal:9000", "minio.internal", 9000, True),
        ("minio.internal:9000", "minio.internal", 9001, False),
        ("minio.internal", "evil.example", 9000, False),
        ("minio.internal", "10.0.0.5", 9000, False),
        ("minio.internal", "x.minio.internal", 9000, False),
        ("10.0.0.5", "10.0.0.5", 1, True),
        ("10.0.0.5:9000", "10.0.0.5", 9000, True),
        ("10.0.0.5:9000", "10.0.0.5", 9001, False),
        ("10.0.0.5:9000", "anything.example", 9000, True),
        ("10.0.0.0/8", "anything.example", 80, True),
        ("192.168.0.0/16", "anything.example", 80, False),
    ],
)
async def test_an_allowance_lets_in_what_it_names(
    resolving: Callable[..., Names], allowed: str, host: str, port: int, goes: bool
) -> None:
    resolving(answers("10.0.0.5"))
    guard = Guard([allowed])
    if goes:
        assert await guard.addresses(host, port)
    else:
        with pytest.raises(AddressRefusedError):
            await guard.addresses(host, port)


@pytest.mark.parametrize("allowed", ["::1", "[::1]:9000", "::/64", "fe80::/10"])
async def test_ipv6_allowances(allowed: str) -> None:
    guard = Guard([allowed])
    if allowed == "fe80::/10":  # a scoped literal is refused whatever is allowed
        with pytest.raises(AddressRefusedError):
            await guard.addresses("fe80::1%lo", 9000)
    else:
        assert await guard.addresses("::1", 9000)


@pytest.mark.parametrize(
    "entry", ["", "a b", "http://x", "host:port", "host:0", "host:70000", "10.0.0.0/40", "[x]:1"]
)
def test_an_entry_that_says_nothing_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Guard([entry])


async def test_a_name_allowance_lends_nothing_to_others(
    resolving: Callable[..., Names], connects: Connects
) -> None:
    resolving(answers("10.0.0.5"))
    async with session_of(Guard(["minio.internal:443"])) as session:
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get("http://minio.internal:443/")
        assert connects.targets == ["10.0.0.5"]
        for url in ("http://10.0.0.5:443/", "http://evil.example:443/", "http://minio.internal:444/"):
            with pytest.raises(AddressRefusedError):
                await session.get(url)
    assert connects.targets == ["10.0.0.5"]


@pytest.mark.parametrize("host", ["no-such-name.invalid", "x" * 64 + ".example", "a\0b.example", "..", ""])
async def test_a_name_without_address_is_unreachable(host: str) -> None:
    with pytest.raises((UnreachableError, AddressRefusedError)) as caught:
        await Guard().open(asyncio.Protocol, host, 443)
    assert caught.value.at == "endpoint_url"


async def test_a_look_up_that_hangs_is_a_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(*_: object, **__: object) -> Answers:
        await asyncio.sleep(60)
        return []

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", hang)
    with pytest.raises(StorageTimeoutError):
        await Guard(connect_timeout_s=0.05).open(asyncio.Protocol, "slow.example", 443)


async def test_a_connect_that_hangs_leaves_time_for_the_next_address(
    resolving: Callable[..., Names], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolving(answers("8.8.8.8", "1.1.1.1"))
    tried: list[str] = []

    async def connect(sock: socket.socket, target: tuple[str, int]) -> None:
        tried.append(target[0])
        await asyncio.sleep(60 if target[0] == "8.8.8.8" else 0.01)
        raise ConnectionRefusedError(111, "refused")

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", connect)
    with pytest.raises(UnreachableError, match="refuses"):
        await Guard(connect_timeout_s=0.2).open(asyncio.Protocol, "slow.example", 443)
    assert tried == ["8.8.8.8", "1.1.1.1"]


def test_allowed_hosts_work_on_both_loops(run: Callable[[Awaitable[None]], None]) -> None:
    async def scenario() -> None:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        guard = Guard(["localhost"])
        transport, _ = await guard.open(asyncio.Protocol, "localhost", port)
        transport.abort()
        async with session_of(guard) as session:
            with pytest.raises((aiohttp.ClientConnectionResetError, aiohttp.ServerDisconnectedError)):
                await session.get(f"http://localhost:{port}/")
        server.close()

    run(scenario())
