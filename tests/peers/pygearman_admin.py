"""pygearman's admin client: prints the replies. The arguments are host and port."""

from __future__ import annotations

import json
import sys

import gearman


def main(host: str, port: str) -> None:
    client = gearman.GearmanAdminClient([(host, int(port))])
    answers = {
        name: getattr(client, name)()
        for name in ("get_status", "get_workers", "get_version", "get_pid")
    }
    print(json.dumps(answers))


if __name__ == "__main__":
    main(*sys.argv[1:])
