"""A PostgreSQL server on this machine: Debian's, with TLS by an authority of its own, and SCRAM.

It listens on 127.0.0.1 alone, and is somebody else's than root, who may not run it.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import pwd
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from local_ports import reserve_port
from waiting import PATIENCE_S, until

USER: Final = "reader"
PASSWORD: Final = "a secret of the tests"
DATABASE: Final = "shop"
_ACCOUNT: Final = "postgres"
_SETUP: Final = f"""
create database {DATABASE};
\\c {DATABASE}
create role {USER} login password '{PASSWORD}';
create role certified login;
create table public.orders (id int primary key, note text, price numeric(12, 3));
insert into orders values (1, 'first', 10.500), (2, null, 0.001);
grant select, insert, update, delete on orders to {USER};
create table public.private (id int);
grant pg_monitor to {USER};
"""
_HBA: Final = """
local all all trust
hostssl all certified 127.0.0.1/32 cert clientcert=verify-full
host all all 127.0.0.1/32 scram-sha-256
"""


def program(name: str) -> str | None:
    """One of PostgreSQL's programs: Debian keeps them in a folder for each version."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda each: int(each.parts[-3]))
    return str(found[-1]) if found else shutil.which(name)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """A certificate and its key, PEM."""

    certificate: str
    key: str


class Authority:
    """Signs certificates for the tests."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority of the tests")])
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        made = self._builder(self._name, self._key).add_extension(constraints, critical=True)
        usage = x509.KeyUsage(
            digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
            data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        self.pem = _pem(made.add_extension(usage, critical=True).sign(self._key, hashes.SHA256()))

    def sign(self, name: str, *, addresses: tuple[str, ...] = ()) -> Pair:
        """A certificate for a user, or for a server at these addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names: list[x509.GeneralName] = [x509.DNSName(name)]
        names += [x509.IPAddress(ipaddress.ip_address(each)) for each in addresses]
        made = self._builder(subject, key).add_extension(x509.SubjectAlternativeName(names), critical=False)
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Pair(certificate=_pem(made.sign(self._key, hashes.SHA256())), key=secret.decode())

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = dt.datetime.now(tz=dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=30))
        )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


class Server:
    """One server in a folder of its own. It can be stopped and started again with its data kept."""

    def __init__(self, folder: Path, *, host: str = "127.0.0.1") -> None:
        self.host = host
        self.port = reserve_port()
        self.authority = Authority()
        self.client = self.authority.sign("certified")
        self._folder = folder
        self._data = folder / "data"
        self._process: subprocess.Popen[Any] | None = None

    def __enter__(self) -> Self:
        self._make()
        self.start()
        self.psql(_SETUP, database="postgres")
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Return once it answers. Raises TimeoutError."""
        command = [_required("postgres"), "-D", str(self._data), "-k", str(self._folder)]
        process = self._process = subprocess.Popen(
            command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, **_as_other()
        )

        def answers() -> bool:
            if process.poll() is not None:
                raise TimeoutError(f"postgres ended with {process.returncode}")
            ready = [_required("pg_isready"), "-q", "-h", self.host, "-p", str(self.port), "-U", _ACCOUNT]
            return subprocess.run(ready, check=False).returncode == 0

        until(answers, f"an answer of PostgreSQL at {self.host}:{self.port}")

    def stop(self) -> None:
        """Away, at once, with its data kept."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # "fast": connections are ended
            self._process.wait(PATIENCE_S)
            self._process = None

    def psql(self, script: str, *, database: str = DATABASE) -> str:
        """What its owner's script prints, without headers."""
        command = [
            _required("psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", str(self._folder),
            "-p", str(self.port), "-U", _ACCOUNT, database,
        ]  # fmt: skip
        ended = subprocess.run(command, input=script, capture_output=True, text=True, check=True)
        return ended.stdout.strip()

    def _make(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            # The folders of pytest are for their owner alone, and another has to pass.
            for folder in (self._folder, *self._folder.parents[:3]):
                if folder.stat().st_uid == 0 and str(folder).startswith("/tmp/"):
                    folder.chmod(folder.stat().st_mode | 0o011)
            shutil.chown(self._folder, _ACCOUNT)
        command = [_required("initdb"), "-D", str(self._data), "-U", _ACCOUNT, "-A", "trust", "-N", "--locale=C.UTF-8"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **_as_other())
        pair = self.authority.sign("localhost", addresses=(self.host,))
        settings = (
            f"listen_addresses = '{self.host}'\nport = {self.port}\nfsync = off\nssl = on\nmax_connections = 40\n"
            f"shared_buffers = 16MB\npassword_encryption = 'scram-sha-256'\nssl_ca_file = 'ca.pem'\n"
            "ssl_cert_file = 'server.pem'\nssl_key_file = 'server.key'\nmax_prepared_transactions = 2\n"
        )
        for name, text in {
            "postgresql.auto.conf": settings, "pg_hba.conf": _HBA, "server.pem": pair.certificate,
            "server.key": pair.key, "ca.pem": self.authority.pem,
        }.items():  # fmt: skip
            path = self._data / name
            path.write_text(text)
            path.chmod(0o600)
            if os.geteuid() == 0:
                shutil.chown(path, _ACCOUNT)


def _required(name: str) -> str:
    found = program(name)
    if found is None:
        raise FileNotFoundError(f"{name} is missing (Debian: apt-get install postgresql)")
    return found


def _as_other() -> dict[str, Any]:
    """PostgreSQL does not run as root."""
    if os.geteuid() != 0:
        return {}
    account = pwd.getpwnam(_ACCOUNT)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": [], "cwd": "/"}
