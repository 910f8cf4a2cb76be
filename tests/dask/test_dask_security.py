"""Encrypted clusters, and what a training leaves open."""

import ssl
import subprocess

import pytest
from dask_processes import Processes, stored, waves

import cmlp

distributed = pytest.importorskip("distributed", minversion="2025.1")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    key, cert = str(folder / "key.pem"), str(folder / "cert.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=cmlp", "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


def sockets(dask_worker):
    """Return the kinds of a rank's connections, and the ports that this process listens on."""
    import psutil

    from cmlp.dask.worker import _seats

    seat = _seats.get(dask_worker.address)
    both = (seat.comm.out, seat.comm.into) if seat and seat.comm else ()
    kinds = [type(each).__name__ for each in both]
    listens = psutil.Process().net_connections(kind="tcp")
    return kinds, sorted(c.laddr.port for c in listens if c.status == psutil.CONN_LISTEN)


def test_connections_are_encrypted_where_the_cluster_is_and_no_port_stays_open(
    certificate, tmp_path
):
    cert, key = certificate
    options = ["--tls-ca-file", cert, "--tls-cert", cert, "--tls-key", key, "--protocol", "tls"]
    security = distributed.Security(
        tls_ca_file=cert, tls_client_cert=cert, tls_client_key=key, require_encryption=True
    )
    seen, found = [], Processes(2, options)
    try:
        address = found.address()
        assert address.startswith("tls://")
        with distributed.Client(address, security=security, timeout=200) as client:
            client.wait_for_workers(2, timeout=200)
            before = client.run(sockets)
            net = cmlp.Network([8, 16, 3], "tanh", seed=1)
            look = lambda state: seen.append(client.run(sockets)) and None  # noqa: E731
            source = stored(tmp_path, *waves(2_000))
            cmlp.dask.train(client, net, source, epochs=2, timeout=10, callbacks=[look])
            after = client.run(sockets)
    finally:
        found.close()
    assert len(seen) == 2
    for worker, (kinds, ports) in seen[0].items():
        assert kinds == [ssl.SSLSocket.__name__] * 2
        assert ports == before[worker][1]  # the ring stands: no port is open
    assert after == before
