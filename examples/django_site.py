"""A Django site that submits jobs to Gearman, in one file.

    python examples/django_site.py runserver --noreload
    python examples/django_site.py gearman_worker

In a project, `Command` is in the file management/commands/gearman_worker.py of an app.
"""

from __future__ import annotations

import functools
import os
import sys
import uuid
from pathlib import Path
from typing import Any

try:
    from django.conf import settings
    from django.core.cache import cache
    from django.core.management import execute_from_command_line
    from django.core.management.base import BaseCommand
    from django.core.wsgi import get_wsgi_application
    from django.db import close_old_connections, transaction
    from django.http import HttpRequest, JsonResponse
    from django.urls import path
    from django.views.decorators.http import require_GET, require_POST
except ModuleNotFoundError:
    raise SystemExit("this example needs Django: pip install django") from None

import gearman_sync as gearman

DATA = Path(os.environ.get("SITE_DATA", "site-data"))
DATA.mkdir(mode=0o700, exist_ok=True)
FILE_CACHE = "django.core.cache.backends.filebased.FileBasedCache"

settings.configure(
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["localhost", "testserver"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": DATA / "db.sqlite3",
            "ATOMIC_REQUESTS": True,
        }
    },
    CACHES={"default": {"BACKEND": FILE_CACHE, "LOCATION": DATA / "cache"}},
    GEARMAN_SERVERS=os.environ.get("GEARMAN_SERVERS", "localhost:4730").split(","),
)


@functools.cache
def get_client() -> gearman.GearmanClient:
    return gearman.GearmanClient(settings.GEARMAN_SERVERS)


@require_POST
def count_now(request: HttpRequest) -> JsonResponse:
    """Wait for the result, but only for two seconds."""
    try:
        job = get_client().submit_job("count-words", request.body, poll_timeout=2)
    except gearman.errors.ServerUnavailable:
        return JsonResponse({"error": "try again later"}, status=503)
    if job.state != gearman.JOB_COMPLETE:
        return JsonResponse({"error": job.reason or "no result in time"}, status=504)
    return JsonResponse({"words": int(job.result)})


@require_POST
def count_later(request: HttpRequest) -> JsonResponse:
    """Submit a background job, and return the URL of its result."""
    name = uuid.uuid4().hex
    # Submit after the commit: the worker might look for data that is not committed yet.
    transaction.on_commit(
        lambda: get_client().submit_job(
            "count-words", request.body, name, background=True, poll_timeout=2
        )
    )
    return JsonResponse({"result": f"/results/{name}"}, status=202)


@require_GET
def result(request: HttpRequest, name: str) -> JsonResponse:
    return JsonResponse({"words": cache.get(name)})


urlpatterns = [
    path("now", count_now),
    path("later", count_later),
    path("results/<str:name>", result),
]
application = get_wsgi_application()


def count_words(worker: gearman.GearmanWorker, job: gearman.WorkerJob) -> str:
    words = len(job.data.split())
    cache.set(job.unique, words, timeout=3600)
    return str(words)


class DjangoWorker(gearman.GearmanWorker):
    """A worker that manages database connections for each job as Django does for each request."""

    def on_job_execute(self, current_job: gearman.WorkerJob) -> bool:
        close_old_connections()
        try:
            return super().on_job_execute(current_job)
        finally:
            close_old_connections()


def make_worker() -> DjangoWorker:
    worker = DjangoWorker(settings.GEARMAN_SERVERS, max_jobs=4)
    worker.register_task("count-words", count_words)
    return worker


class Command(BaseCommand):
    help = "Do the jobs of this site, until SIGTERM or Ctrl-C."

    def handle(self, *args: Any, **options: Any) -> None:
        make_worker().run()


if __name__ == "__main__":
    if sys.argv[1:2] == ["gearman_worker"]:
        Command().run_from_argv(sys.argv)
    else:
        execute_from_command_line(sys.argv)
