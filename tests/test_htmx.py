import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import Client, RequestFactory
from django.urls import reverse
from django_htmx.middleware import HtmxDetails

from forwards import htmx

HERE = "http://testserver"


def request(path: str = "/", **headers: str) -> Any:
    made = RequestFactory().get(path, headers=headers)
    made.htmx = HtmxDetails(made)
    return made


def events(response: HttpResponse) -> dict[str, Any]:
    return json.loads(response.headers.get("HX-Trigger", "{}"))


def test_done_raises_nothing_unless_asked() -> None:
    response = htmx.done()

    assert response.status_code == 204
    assert events(response) == {}


def test_done_tells_the_page_what_to_do() -> None:
    raised = events(htmx.done(toast="Saved.", level="danger", close=True, refresh=True))

    assert raised.keys() == {htmx.CLOSE_DIALOG, htmx.REFRESH, htmx.TOAST}
    assert raised[htmx.TOAST] == {"text": "Saved.", "level": "danger"}


def test_a_saved_dialog_closes_in_the_page_and_leads_home_without_scripts() -> None:
    assert htmx.saved(request(**{"HX-Request": "true"}), "Saved.", "/").status_code == 204
    plain = htmx.saved(request(), "Saved.", "/")
    assert (plain.status_code, plain.headers["Location"]) == (302, "/")


@pytest.fixture
def visitor(db: None) -> Client:
    client = Client()
    client.force_login(User.objects.create_user("visitor"))
    return client


def test_one_address_answers_a_browser_with_a_page_and_htmx_with_a_part(visitor: Client) -> None:
    page = visitor.get("/")
    part = visitor.get("/", headers={"HX-Request": "true"})

    assert b"<!doctype html>" in page.content and b"<!doctype html>" not in part.content
    for response in (page, part):
        assert "HX-Request" in response.headers["Vary"]
        assert response.headers["Cache-Control"] == "no-store"


def test_a_page_restored_from_history_is_a_whole_one(visitor: Client) -> None:
    restored = visitor.get("/", headers={"HX-Request": "true", "HX-History-Restore-Request": "true"})

    assert b"<!doctype html>" in restored.content


def test_another_filter_is_a_step_in_the_history_and_a_refresh_is_none(visitor: Client) -> None:
    headers = {"HX-Request": "true", "HX-Current-URL": f"{HERE}/"}
    assert "HX-Push-Url" in visitor.get("/?q=web", headers=headers).headers
    assert "HX-Push-Url" not in visitor.get("/", headers=headers).headers


@pytest.mark.django_db
def test_a_signed_out_page_goes_to_the_sign_in_page_as_a_whole() -> None:
    headers = {"HX-Request": "true", "HX-Current-URL": f"{HERE}/servers/?q=x"}
    response = Client().get(reverse("forwards:servers"), headers=headers)

    assert response.headers["HX-Redirect"] == "/sign-in/?next=%2Fservers%2F%3Fq%3Dx"
    assert response.content == b""


@pytest.mark.django_db
def test_a_signed_out_browser_is_redirected() -> None:
    response = Client().get(reverse("forwards:servers"))

    assert (response.status_code, response.headers["Location"]) == (302, "/sign-in/?next=/servers/")
