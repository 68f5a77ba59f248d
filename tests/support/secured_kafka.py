"""A broker as production has it: TLS, users with passwords (SCRAM-SHA-512), and what each of them may do (ACLs)."""

import asyncio
import hashlib
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import trustme
from aiokafka.protocol.admin import CreateAclsRequest_v1
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    CompactArray,
    CompactBytes,
    CompactString,
    Int8,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from libs.cli.local.kafka import KafkaServer
from libs.cli.local.processes import free_ports
from libs.common.kafka.admin import admin_client
from libs.common.kafka.security import Security, refusal
from tests.support.kafka import TestBroker, add_listener

RESOURCES = {"topic": 2, "group": 3, "cluster": 4, "transactionalId": 5}
OPERATIONS = {
    "All": 2,
    "Read": 3,
    "Write": 4,
    "Create": 5,
    "Delete": 6,
    "Alter": 7,
    "Describe": 8,
    "DescribeConfigs": 10,
    "AlterConfigs": 11,
    "IdempotentWrite": 12,
}
PATTERNS = {"literal": 3, "prefix": 4}

SETTINGS = """\
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
allow.everyone.if.no.acl.found=false
listener.name.secured.ssl.keystore.type=PEM
listener.name.secured.ssl.keystore.location={keystore}
listener.name.secured.sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.secured.scram-sha-512.sasl.jaas.config=\
org.apache.kafka.common.security.scram.ScramLoginModule required;
"""


@dataclass(frozen=True)
class Acl:
    """`user` may do `operation` to a resource, in the words of Strimzi's KafkaUser: type topic, group, cluster or
    transactionalId; operation Read, Write, Describe, …; pattern literal or prefix."""

    user: str
    type: str
    name: str
    operation: str
    pattern: str = "literal"


class SecuredBroker(TestBroker):
    """A broker with a second listener that takes nobody but `users` (name to password) and lets them do nothing but
    what `acls` say. `bootstrap` is the plain listener still: who comes that way may do everything.

        broker = SecuredBroker({"kafka-profile": "secret"}, [Acl("kafka-profile", "topic", "superfan.traits", "Read")])
        await broker.start()
        Producer(broker.secured, "test", security=broker.security("kafka-profile"))

    For tests.support.services.System: `system = System(server, accounts, broker)`, and for each service
    `system.service_env["profile"] = broker.env("kafka-profile")`. The certificate is one of `localhost` only.
    """

    def __init__(self, users: Mapping[str, str], acls: Iterable[Acl] = ()) -> None:
        super().__init__()
        self._users = dict(users)
        self._acls = list(acls)
        self.ca = self.folder / "ca.crt"
        self.renew_certificates()
        for user, password in self._users.items():
            self.write_password(user, password)

    def renew_certificates(self) -> None:
        """A new authority in the file `ca`, and a new certificate for the next start of the broker."""
        authority = trustme.CA()
        certificate = authority.issue_cert("localhost")
        authority.cert_pem.write_to_path(str(self.ca))
        key = load_pem_private_key(certificate.private_key_pem.bytes(), None)
        keystore = [key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())]
        keystore += [pem.bytes() for pem in certificate.cert_chain_pems]
        (self.folder / "server.pem").write_bytes(b"".join(keystore))

    @property
    def secured(self) -> str:
        """host:port of the listener with TLS."""
        assert isinstance(self._server, _SecuredServer)
        return f"localhost:{self._server.secured_port}"

    def security(self, user: str) -> Security:
        """What a client of this user needs."""
        return Security(self.ca, user, self.password_file(user))

    def env(self, user: str) -> dict[str, str]:
        """The same as settings of a service."""
        return {
            "SUPERFAN_KAFKA": self.secured,
            "SUPERFAN_KAFKA_CA": str(self.ca),
            "SUPERFAN_KAFKA_USER": user,
            "SUPERFAN_KAFKA_PASSWORD_FILE": str(self.password_file(user)),
        }

    def password_file(self, user: str) -> Path:
        return self.folder / f"password-of-{user}"

    def write_password(self, user: str, password: str) -> None:
        """What the user's clients will use; Kafka knows nothing of it."""
        self.password_file(user).write_text(f"{password}\n")

    async def start(self) -> None:
        """Returns when the broker answers, every topic is there, and users and ACLs hold."""
        await super().start()
        await self._create(self._acls)
        for user, password in self._users.items():
            await self.set_password(user, password)

    async def set_password(self, user: str, password: str) -> None:
        """What Kafka takes from now on, and everything that was said to it before holds; open connections stay open."""
        self._users[user] = password
        salt = secrets.token_bytes(16)
        salted = await asyncio.to_thread(hashlib.pbkdf2_hmac, "sha512", password.encode(), salt, ITERATIONS)
        response = await self._ask(AlterScramRequest_v0([], [(user, SCRAM_SHA_512, ITERATIONS, salt, salted, {})], {}))
        assert [result[1] for result in response.results] == [0], response
        given = self.folder / "given"
        given.write_text(password)
        async with asyncio.timeout(20):
            while await refusal(self.secured, Security(self.ca, user, given)):
                await asyncio.sleep(0.02)

    async def allow(self, *acls: Acl) -> None:
        """Adds to what users may do, from now on."""
        await self._create(acls)
        for user in {acl.user for acl in acls}:
            await self.set_password(user, self._users[user])

    async def _create(self, acls: Iterable[Acl]) -> None:
        creations = [
            (
                RESOURCES[acl.type],
                acl.name,
                PATTERNS[acl.pattern],
                f"User:{acl.user}",
                "*",
                OPERATIONS[acl.operation],
                ALLOW,
            )
            for acl in acls
        ]
        if creations:
            response = await self._ask(CreateAclsRequest_v1(creations))
            assert {code for code, _ in response.creation_responses} == {0}, response

    async def _ask(self, request: RequestStruct) -> Response:
        async with admin_client(self.bootstrap) as admin:
            response: Response = await admin._send_to_controller(_Ready(request))
            return response


class _SecuredServer(KafkaServer):
    secured_port = 0

    async def prepare(self) -> None:
        await super().prepare()
        self.secured_port = self.secured_port or free_ports(1)[0]
        add_listener(
            self._settings,
            "SECURED",
            f"127.0.0.1:{self.secured_port}",
            f"localhost:{self.secured_port}",
            "SASL_SSL",
        )
        with self._settings.open("a") as file:
            file.write(SETTINGS.format(keystore=self.folder.parent / "server.pem"))


SecuredBroker.kind = _SecuredServer

ALLOW = 3
SCRAM_SHA_512 = 2
ITERATIONS = 4096


class AlterScramResponse_v0(Response):  # type: ignore[misc]  # noqa: N801 - as aiokafka names its own
    API_KEY = 51
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "results",
            CompactArray(
                ("user", CompactString()),
                ("error_code", Int16),
                ("error_message", CompactString()),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class AlterScramRequest_v0(RequestStruct):  # type: ignore[misc]  # noqa: N801
    """Not among aiokafka's own."""

    FLEXIBLE_VERSION = True
    API_KEY = 51
    API_VERSION = 0
    RESPONSE_TYPE = AlterScramResponse_v0
    SCHEMA = Schema(
        ("deletions", CompactArray(("name", CompactString()), ("mechanism", Int8), ("tags", TaggedFields))),
        (
            "upsertions",
            CompactArray(
                ("name", CompactString()),
                ("mechanism", Int8),
                ("iterations", Int32),
                ("salt", CompactBytes),
                ("salted_password", CompactBytes),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _Ready(Request[RequestStruct]):  # type: ignore[misc]
    """A request whose version has been chosen already."""

    API_KEY = -1

    def __init__(self, request: RequestStruct) -> None:
        self._request = request

    def build(self, request_struct_class: type[RequestStruct]) -> RequestStruct:
        return self._request

    def prepare(self, versions: dict[int, tuple[int, int]]) -> RequestStruct:
        return self._request
