"""`acidburn serve`: questions over HTTP, and the search page, until it is stopped."""

import asyncio
import ipaddress
import logging
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial

import click
import uvicorn

from acidburn_assets import settings
from acidburn_assets.core.datasets import Pool
from acidburn_assets.core.errors import ConfigError
from acidburn_assets.runtime import backends, engines, service
from acidburn_assets.runtime.following import EngineHome, Pools
from acidburn_assets.runtime.guard import LOOPBACK_HOSTS, Rules
from acidburn_assets.settings import Settings

LEAST_TOKEN_CHARS = 16
"""Of a token. Chosen: as letters and digits they are 95 bits."""

GRACE_SECONDS = 10
"""For questions that are worked on when the service is asked to stop. Chosen."""

MOST_CONNECTIONS = 1_000
"""At once; what comes beyond is told so. Chosen: some 50 MB."""

HEADER_BYTES = 16_384
"""Of a request's headers, at most. Chosen: twice what browsers send with cookies."""


@click.command()
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen at; beyond this machine ACIDBURN_SERVE_TOKEN must be set.",
)
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535))
@click.option(
    "--pool",
    "names",
    multiple=True,
    help="A pool to serve; may be given several times.  [default: all knowledge pools]",
)
def command(host: str, port: int, names: Sequence[str]) -> None:
    """Answer questions over HTTP, with a search page; Ctrl-C stops it.

    The page is at /, questions go to POST /ask, and /openapi.json describes it all.
    """
    configured = settings.load()
    rules = make_rules(configured, host)
    chosen = _choose(configured, names)
    with _listen(host, port) as listening:
        click.echo("opening the pools and loading the model …", err=True)
        pools = open_pools(configured, chosen)
        app = service.make_app(
            pools,
            rules=rules,
            limits=service.Limits(
                question_chars=configured.acidburn_serve_question_chars,
                n_scanned=configured.acidburn_serve_scanned,
                n_at_once=configured.acidburn_serve_at_once,
                n_waiting=configured.acidburn_serve_waiting,
                timeout_seconds=configured.acidburn_serve_timeout_seconds,
            ),
            look_seconds=configured.acidburn_serve_refresh_seconds,
        )
        proxies = _names(configured.acidburn_serve_proxies)
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                access_log=False,  # the guard writes its own line, without queries
                forwarded_allow_ips=proxies,
                h11_max_incomplete_event_size=HEADER_BYTES,
                http="h11",  # httptools takes headers of any size
                limit_concurrency=MOST_CONNECTIONS,
                log_config=None,
                proxy_headers=bool(proxies),
                server_header=False,
                timeout_graceful_shutdown=GRACE_SECONDS,
                ws="none",
            )
        )
        logging.getLogger("acidburn.serve").setLevel(logging.INFO)
        click.echo(f"{_url(host, listening)}  (Ctrl-C stops)", err=True)
        asyncio.run(_serve(server, listening))
    click.echo("stopped", err=True)


def make_rules(configured: Settings, host: str) -> Rules:
    """Who may ask.

    Raises:
        ConfigError: others than this machine could, and no token keeps them out.
    """
    token = configured.acidburn_serve_token.get_secret_value()
    names = _names(configured.acidburn_serve_hosts)
    is_loopback = _is_loopback(host)
    if not token and not is_loopback:
        raise ConfigError(
            f"--host {host} lets others than this machine ask, and nothing keeps anybody out; set "
            f"ACIDBURN_SERVE_TOKEN to {_HOW}"
        )
    if not token and names:
        raise ConfigError(
            "ACIDBURN_SERVE_HOSTS names the service for others than this machine, and nothing "
            f"keeps anybody out; set ACIDBURN_SERVE_TOKEN to {_HOW}"
        )
    if token and (len(token) < LEAST_TOKEN_CHARS or not token.isascii() or " " in token):
        raise ConfigError(
            f"ACIDBURN_SERVE_TOKEN must be {LEAST_TOKEN_CHARS} or more letters, digits and signs "
            f"of ASCII without blanks; set it to {_HOW}"
        )
    hosts = frozenset(name.lower() for name in names)
    return Rules(
        token=configured.acidburn_serve_token,
        hosts=hosts | LOOPBACK_HOSTS if is_loopback or hosts else frozenset(),
        body_bytes=configured.acidburn_serve_body_bytes,
        per_minute=configured.acidburn_serve_per_minute,
    )


_HOW = "what this prints: python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"


def open_pools(configured: Settings, chosen: Sequence[Pool]) -> Pools:
    """The pools, looked at once.

    Raises:
        AcidburnError: none of them can be asked.
    """
    patience = backends.SERVICE_PATIENCE_SECONDS
    store = backends.open_store(configured, patience_seconds=patience)
    postgres = backends.open_postgres(configured)
    backends.load_encoder(configured)
    pools = Pools(
        [
            EngineHome(
                store=store,
                postgres=postgres,
                name=pool.name,
                tier=pool.tier,
                beside=[
                    other.name
                    for other in configured.registry.pools.values()
                    if other.tier == "verification"
                ],
                make=partial(engines.open_engine, configured, pool.name, patience_seconds=patience),
            )
            for pool in chosen
        ],
        look_seconds=configured.acidburn_serve_refresh_seconds,
    )
    pools.follow()
    states = pools.states()
    troubles = [state.trouble for state in states if state.trouble]
    if not any(state.opened for state in states):
        raise troubles[0]
    return pools


def _choose(configured: Settings, names: Sequence[str]) -> list[Pool]:
    registry = configured.registry
    if names:
        return [registry.pool(name) for name in dict.fromkeys(names)]
    chosen = [pool for pool in registry.pools.values() if pool.tier == "knowledge"]
    if not chosen:
        raise ConfigError(
            f"say --pool: datasets.yaml has no knowledge pool, only {sorted(registry.pools)}"
        )
    return chosen


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    """A socket at the address, before anything dear is opened.

    Raises:
        ConfigError: the address is not of this machine, or in use.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"cannot listen at {host!r}: {error.strerror}") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"cannot listen at {host}, port {port}: {error.strerror}; choose another --port or "
            "--host"
        ) from error
    return listening


def _url(host: str, listening: socket.socket) -> str:
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{listening.getsockname()[1]}"


def _names(line: str) -> list[str]:
    return [name.strip() for name in line.split(",") if name.strip()]


async def _serve(server: uvicorn.Server, listening: socket.socket) -> None:
    """Serves until the first signal, then ends what was begun; a second one ends at once."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        click.echo("stopping: what is worked on is answered first", err=True)
        server.should_exit = True
        for one in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(one)
            signal.signal(one, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    # uvicorn's own would raise the signal once more when all is done
    server.capture_signals = nullcontext  # type: ignore[method-assign, assignment]
    await server.serve(sockets=[listening])
    if not server.started:
        sys.exit(1)
