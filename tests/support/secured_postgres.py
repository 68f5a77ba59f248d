"""A PostgreSQL server as production has it: TLS only."""

import shutil

import trustme

from libs.cli.local.processes import unprivileged_user
from tests.support.postgres import TestServer


class SecuredServer(TestServer):
    """Takes connections over TLS only; its certificate is one of `localhost`, from the authority in the file `ca`."""

    async def start(self) -> None:
        """Raises LaunchError when the programs were built without TLS, as those of the wheel are (`lacks_tls`)."""
        await self.server.prepare()
        self.ca = self.folder / "ca.crt"
        authority = trustme.CA()
        certificate = authority.issue_cert("localhost")
        authority.cert_pem.write_to_path(str(self.ca))
        key, chain = (self.server.cluster / name for name in ("server.key", "server.crt"))
        key.touch(mode=0o600)
        certificate.private_key_pem.write_to_path(str(key))
        chain.write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
        if (user := unprivileged_user()) is not None:
            shutil.chown(key, user)
            shutil.chown(chain, user)
        (self.server.cluster / "pg_hba.conf").write_text("hostssl all all 127.0.0.1/32 scram-sha-256\n")
        with (self.server.cluster / "postgresql.conf").open("a") as file:
            file.write("ssl = on\n")
        self.server.launch()
        await self.server.ready()

    @property
    def lacks_tls(self) -> bool:
        return "not supported by this build" in self.server.log.read_text()

    def url_of(self, user: str, database: str) -> str:
        """By the name that the certificate has, and without a password."""
        return f"postgresql://{user}@localhost:{self.server.port}/{database}"
