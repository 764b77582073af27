"""Certificates and keys of a federation: an authority of its own, the server's certificate, one key per client.

The nodes check the server by TLS against the authority's certificate; the server knows each node by its registered
public key. The authority signs nothing but the server's certificate, so holding `ca.crt` entitles to nothing.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from holdfast.files import write_atomically
from holdfast.types import ConfigError

_BACKDATED = timedelta(minutes=5)  # clocks of other machines may be behind


def make_certificates(folder: Path, hosts: Sequence[str], *, days: int) -> None:
    """Write `ca.crt`, `server.crt`, `server.key` and, for renewals, `ca.key`; keys are readable by their owner only.

    Args:
        folder: where to.
        hosts: names and addresses under which nodes reach the server; localhost and 127.0.0.1 are added.
        days: how long the server's certificate is valid; the authority's is valid ten times as long.
    """
    authority, authority_key = _authority(10 * days)
    key = ec.generate_private_key(ec.SECP256R1())
    names = dict.fromkeys([*hosts, "localhost", "127.0.0.1"])
    certificate = (
        _builder("holdfast federation server", authority.subject, key.public_key(), days)
        .add_extension(x509.SubjectAlternativeName([_subject(host) for host in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    _write_certificate(folder / "ca.crt", authority)
    _write_key(folder / "ca.key", authority_key)
    _write_certificate(folder / "server.crt", certificate)
    _write_key(folder / "server.key", key)


def make_node_key(folder: Path) -> bytes:
    """Write a node's `node.key` (ECDSA P-384, OpenSSH) and `node.pub`; gives back the public key."""
    key = ec.generate_private_key(ec.SECP384R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    write_atomically(folder / "node.key", private, mode=0o600)
    write_atomically(folder / "node.pub", public + b"\n")
    return public


def check_certificate(path: Path) -> None:
    """Refuse a file that is no PEM certificate, or one outside its dates.

    Raises:
        ConfigError: names the file and what is wrong with it.
    """
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as problem:
        raise ConfigError(f"certificate {path} cannot be read: {problem.strerror or problem}") from problem
    except ValueError as problem:
        raise ConfigError(f"{path} is not a PEM certificate") from problem
    now = datetime.now(UTC)
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise ConfigError(
            f"certificate {path} is valid from {certificate.not_valid_before_utc:%Y-%m-%d} to "
            f"{certificate.not_valid_after_utc:%Y-%m-%d}, not today; make new ones with: holdfast flower setup"
        )


def _authority(days: int) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "holdfast federation authority")])
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        _builder("holdfast federation authority", name, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate, key


def _builder(name: str, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + timedelta(days=days))
    )


def _subject(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write_certificate(path: Path, certificate: x509.Certificate) -> None:
    write_atomically(path, certificate.public_bytes(serialization.Encoding.PEM))


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    content = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_atomically(path, content, mode=0o600)
