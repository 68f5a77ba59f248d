"""A sender that is killed (SIGKILL) after a step: python -m tests.engagement.dying DATABASE STEP PORT IDEMPOTENT"""

import asyncio
import os
import signal
import sys

from libs.common.db import make_engine, make_sessions
from tests.engagement.provider import Provider
from tests.engagement.test_sending import posting, send
from tests.support.folding import NOW


async def main(url: str, step: str, port: str, idempotent: str) -> None:
    provider = Provider()
    provider.port = int(port)
    engine = make_engine(url, 2)
    async with posting(provider.channel(idempotent=idempotent == "True")) as poster:
        # in the middle of the call it is killed from outside
        await send(make_sessions(engine), poster, NOW, dies_after=None if step == "call" else step)  # type: ignore[arg-type]
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
