"""With README's certificates Ray's own ports speak TLS, and hear nobody without one."""

from __future__ import annotations

import shutil
import socket
import ssl
from collections.abc import Iterator

import pytest
from local_cluster import LocalCluster, running_cluster
from readme_commands import command_blocks
from running import ROOT, product_files

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="the openssl command is not installed"),
]

HTTP_2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)
"""How a client of gRPC begins: the preface and a frame of no settings."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    (before,) = command_blocks(ROOT / "cluster" / "README.md", "## Tokens, ports and TLS")
    with running_cluster(tmp_path_factory.mktemp("project"), lengths=[60] * 4, before=before) as cluster:
        yield cluster


def test_a_job_runs_on_workers_that_came_for_it(cluster: LocalCluster) -> None:
    done = cluster.run(cluster.submit, cluster.access)
    assert done.returncode == 0, done.stdout
    assert cluster.nodes()
    assert product_files(cluster.project / "out" / "cluster")


def answer(cluster: LocalCluster, context: ssl.SSLContext) -> bytes:
    """The first bytes that the head answers; none where it ends the connection."""
    with (
        socket.create_connection(("127.0.0.1", cluster.port), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        connection.sendall(HTTP_2)
        try:
            return connection.recv(9)
        except ssl.SSLError:  # told that a certificate is wanted
            return b""


def test_the_head_hears_only_who_shows_a_certificate_of_the_authority(cluster: LocalCluster) -> None:
    folder = cluster.project / "out" / "tls"
    stranger = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    stranger.set_alpn_protocols(["h2"])
    assert answer(cluster, stranger) == b""
    known = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    known.set_alpn_protocols(["h2"])
    known.load_cert_chain(folder / "node.crt", folder / "node.key")
    assert answer(cluster, known)[3] == 4  # a frame of settings


def test_the_head_does_not_speak_without_tls(cluster: LocalCluster) -> None:
    with socket.create_connection(("127.0.0.1", cluster.port), timeout=30) as plain:
        plain.sendall(HTTP_2)
        assert b"\x00\x04" not in plain.recv(64)
