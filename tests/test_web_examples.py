"""The web applications in examples/, and the parts of them that docs/howto/web.md shows."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from gearman_sync import JobServer
from tests.support import eventually, free_port, require_module

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gearman_proto.address import HostAndPort

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "howto" / "web.md"
SHOWN = ("examples/django_site.py", "examples/fastapi_app.py", "tests/test_web_examples.py")


@pytest.fixture(scope="module")
def django_site(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The example's module, which keeps its data in a temporary directory."""
    require_module("django")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SITE_DATA", str(tmp_path_factory.mktemp("site")))
        return importlib.import_module("examples.django_site")


@pytest.fixture
def site(django_site: Any, gearman_server: HostAndPort) -> Iterator[Any]:
    from django.test import override_settings

    with override_settings(GEARMAN_SERVERS=[gearman_server]):
        django_site.get_client.cache_clear()
        yield django_site
        django_site.get_client().shutdown()


def test_django_now(site: Any, gearman_worker: Any) -> None:
    from django.test import Client

    with gearman_worker(site.make_worker()):
        response = Client().post("/now", "to be or not", content_type="text/plain")
    assert response.json() == {"words": 4}


def test_django_later(site: Any, gearman_worker: Any) -> None:
    from django.test import Client

    response = Client().post("/later", "to be or not", content_type="text/plain")
    place = response.json()["result"]
    assert Client().get(place).json() == {"words": None}
    gearman_worker(site.make_worker()).drain()
    assert Client().get(place).json() == {"words": 4}


def test_django_without_a_worker(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from django.test import Client

    submit = site.get_client().submit_job
    monkeypatch.setattr(
        site.get_client(), "submit_job", lambda *args, **_: submit(*args, poll_timeout=0.1)
    )
    response = Client().post("/now", "to be", content_type="text/plain")
    assert (response.status_code, response.json()) == (504, {"error": "no result in time"})


def test_django_without_a_server(site: Any) -> None:
    from django.test import Client, override_settings

    with override_settings(GEARMAN_SERVERS=["localhost:1"]):
        site.get_client.cache_clear()
        response = Client().post("/now", "to be", content_type="text/plain")
    assert (response.status_code, response.json()) == (503, {"error": "try again later"})


def test_django_command(django_site: Any) -> None:
    with mock.patch.object(django_site.DjangoWorker, "run") as run:
        django_site.Command().handle()
    run.assert_called_once_with()


@pytest.fixture
def application(gearman_server: HostAndPort, monkeypatch: pytest.MonkeyPatch) -> Any:
    for module in ("fastapi", "httpx2"):
        require_module(module)
    monkeypatch.setenv("GEARMAN_SERVERS", str(gearman_server))
    return importlib.import_module("examples.fastapi_app")


def test_fastapi(application: Any, gearman_worker: Any) -> None:
    from fastapi.testclient import TestClient

    callbacks = {"count-words": application.count_words}
    with gearman_worker(callbacks) as worker, TestClient(application.app) as http:
        assert http.post("/now", content="to be or not").json() == {"words": 4}
        http.post("/later", content="to be")
        assert [run.result for run in worker.drain()] == ["4", "2"]


def test_fastapi_with_a_worker_starts_before_the_server(
    application: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastapi.testclient import TestClient

    port = free_port()
    monkeypatch.setenv("GEARMAN_SERVERS", f"127.0.0.1:{port}")
    monkeypatch.setattr(
        application.app.router, "lifespan_context", application.lifespan_with_worker
    )
    with TestClient(application.app) as http:
        assert http.post("/now", content="to be or not").status_code == 503
        with JobServer(port=port):
            eventually(lambda: http.post("/now", content="to be").status_code == 200)


def test_page_shows_the_examples() -> None:
    page = PAGE.read_text(encoding="utf-8")
    sources = [(ROOT / name).read_text(encoding="utf-8") for name in SHOWN]
    blocks = re.findall(r"^```py\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) > 5
    for block in blocks:
        assert any(block in source for source in sources), block
