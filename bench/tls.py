"""A certificate for the bucket, of an authority that nobody else knows: made anew for each run."""

from dataclasses import dataclass
from pathlib import Path

import trustme

from bench.processes import LOOPBACK

SERVER_NAME = "localhost"
"""nginx compares names alone, not addresses; the certificate holds both."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """PEM files: the authority to trust, the server's chain, and its key."""

    ca_file: Path
    chain_file: Path
    key_file: Path


def certificate(folder: Path) -> Certificate:
    """Make one for 127.0.0.1 and localhost, with an EC key as most servers have."""
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    server = authority.issue_cert(LOOPBACK, SERVER_NAME, key_type=trustme.KeyType.ECDSA)
    made = Certificate(folder / "ca.pem", folder / "chain.pem", folder / "key.pem")
    authority.cert_pem.write_to_path(made.ca_file)
    for blob in server.cert_chain_pems:
        blob.write_to_path(made.chain_file, append=True)
    server.private_key_pem.write_to_path(made.key_file)
    return made
