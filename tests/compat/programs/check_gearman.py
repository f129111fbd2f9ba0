"""A monitoring check for the number of a task's workers and queued jobs."""

# ruff: noqa: E402, UP031

import gearman_sync

gearman_sync.install_as_gearman()

import argparse
import json
import sys
from typing import Any

import gearman

OK, WARNING, CRITICAL, UNKNOWN = range(4)


def check(server: str, task: str, warning: int, critical: int) -> tuple[int, str]:
    try:
        admin = gearman.GearmanAdminClient([server], poll_timeout=5)
        status = admin.get_status()
    except gearman.admin_client.ServerUnavailable:
        return CRITICAL, "CRITICAL - gearmand is not there"
    for row in status:
        if row["task"] == task:
            text = "%(task)s: %(queued)d queued, %(running)d running, %(workers)d workers" % row
            if row["workers"] == 0 or row["queued"] >= critical:
                return CRITICAL, f"CRITICAL - {text}"
            if row["queued"] >= warning:
                return WARNING, f"WARNING - {text}"
            return OK, f"OK - {text}"
    return UNKNOWN, f"UNKNOWN - no task {task}"


def discover(server: str) -> str:
    admin = gearman.GearmanAdminClient([server])
    return json.dumps({"data": [{"{#TASK}": row["task"]} for row in admin.get_status()]})


def totals(server: str) -> dict[str, int]:
    found: dict[str, Any] = dict.fromkeys(("queued", "running", "workers"), 0)
    for row in gearman.GearmanAdminClient([server]).get_status():
        for key in found:
            found[key] += row[key]
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("-H", dest="server")
    parser.add_argument("-t", dest="task")
    parser.add_argument("-w", dest="warning", type=int, default=10)
    parser.add_argument("-c", dest="critical", type=int, default=20)
    arguments = parser.parse_args()
    code, text = check(arguments.server, arguments.task, arguments.warning, arguments.critical)
    print(text)
    sys.exit(code)


if __name__ == "__main__":
    main()
