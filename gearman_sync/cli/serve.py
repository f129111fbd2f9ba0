"""``gearmanctl serve``: a job server in the foreground."""

from __future__ import annotations

import functools
import os
import signal
import ssl
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from gearman_proto.constants import DEFAULT_GEARMAN_PORT, DEFAULT_JOB_RETRIES, DEFAULT_MAX_MEMORY
from gearman_proto.signals import handled
from gearman_sync import JobServer

from . import exits
from .options import KeyFile, load_files

_MEGABYTE: Final = 1024 * 1024


def serve(
    *,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", "-p", min=0, max=65535, help="0 is any port that is free.")
    ] = DEFAULT_GEARMAN_PORT,
    job_retries: Annotated[
        int, typer.Option(metavar="N", min=0, help="How often a job that was lost is run again.")
    ] = DEFAULT_JOB_RETRIES,
    max_queue: Annotated[
        int, typer.Option(metavar="JOBS", min=0, help="Jobs of a function at most; 0 is no limit.")
    ] = 0,
    max_memory: Annotated[
        int, typer.Option(metavar="MB", min=1, help="For all jobs together.")
    ] = DEFAULT_MAX_MEMORY // _MEGABYTE,
    tls_cert: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Speak TLS, and show this certificate.")
    ] = None,
    tls_key: KeyFile = None,
    tls_ca: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Take only clients and workers that show a certificate which these verify.",
        ),
    ] = None,
) -> int:
    """Run a job server for development and tests.

    Ctrl-C, SIGTERM and `gearmanctl shutdown` end it. It keeps nothing on disk: what is queued ends
    with it. In production use gearmand.

    Example:
      gearmanctl serve --port 4731
    """
    server = JobServer(
        host,
        port,
        job_retries=job_retries,
        max_queue_size=max_queue,
        max_memory=max_memory * _MEGABYTE,
        ssl_context=_context(tls_cert, tls_key, tls_ca),
    )

    def on_signal(_number: int) -> None:
        raise KeyboardInterrupt

    try:
        with handled([signal.SIGTERM], on_signal), server:
            print(  # noqa: T201
                f"gearmanctl: a job server for development and tests, at {server.address}\n"
                "It keeps nothing on disk: what is queued ends with it. Ctrl-C ends it.",
                file=sys.stderr,
                flush=True,
            )
            server.wait()
    except KeyboardInterrupt:
        pass  # The requested shutdown is complete.
    except OSError as error:
        # Python's own message for a port in use contains the address.
        reason = os.strerror(errno) if (errno := error.errno or 0) > 0 else error.strerror
        raise exits.Exit(exits.FAILED, f"can't listen at {host}:{port}: {reason}") from None
    return exits.DONE


def _context(cert: Path | None, key: Path | None, ca: Path | None) -> ssl.SSLContext | None:
    if cert is None:
        if key or ca:
            raise ValueError(f"{'--tls-key' if key else '--tls-ca'} needs --tls-cert")
        return None
    create = functools.partial(ssl.create_default_context, ssl.Purpose.CLIENT_AUTH)
    context = load_files(create, ca, cert, key)
    if ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context
