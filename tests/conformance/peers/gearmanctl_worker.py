"""A worker of gearmanctl: the argument is HOST:PORT. SIGTERM and SIGINT stop it.

Each process has one function. Commands can't send WORK_STATUS or WORK_DATA.
"""

from __future__ import annotations

import signal
import subprocess
import sys

GEARMANCTL = (sys.executable, "-c", "from gearman_sync.cli import main; main()")
PYTHON = (sys.executable, "-I", "-S", "-c")
READ = "import sys, time; payload = sys.stdin.buffer.read(); "
COMMANDS = {
    "reverse": READ + "sys.stdout.buffer.write(payload[::-1])",
    "fail": READ + "sys.exit('this job fails')",
    "slow": READ + "time.sleep(0.5); sys.stdout.buffer.write(payload)",
}


def main(address: str) -> None:
    processes = [
        subprocess.Popen([*GEARMANCTL, "work", name, "--server", address, "--", *PYTHON, command])
        for name, command in COMMANDS.items()
    ]

    def stop(*_: object) -> None:
        for process in processes:
            process.terminate()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    for process in processes:
        process.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
