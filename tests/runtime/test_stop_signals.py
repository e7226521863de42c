"""A server that is told to stop ends by itself; told twice it does not wait for what it is doing."""

from __future__ import annotations

import signal
import subprocess
import sys

SERVER = """
import asyncio, time
from runtime.stop_signals import stop_event

async def run():
    stop = stop_event()
    asyncio.get_running_loop().run_in_executor(None, time.sleep, 60)
    print("ready", flush=True)
    await stop.wait()
    print("stopping", flush=True)

asyncio.run(run())
"""


def test_the_second_signal_ends_a_server_whose_thread_does_not_end() -> None:
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for number, told in ((signal.SIGINT, "ready\n"), (signal.SIGTERM, "stopping\n")):
            assert process.stdout.readline() == told
            process.send_signal(number)
        assert process.wait(20) == -signal.SIGTERM
