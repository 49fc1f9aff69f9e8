"""Fixtures of the view tests: a signed-in browser, and the same browser asking the way htmx asks."""

import pytest
from django.contrib.auth.models import User
from django.test import Client

from forwards.models import Forward, Server


@pytest.fixture
def owner(db) -> User:
    return User.objects.create_superuser("owner")


@pytest.fixture
def browser(owner: User) -> Client:
    client = Client()
    client.force_login(owner)
    return client


@pytest.fixture
def htmx(owner: User) -> Client:
    client = Client(headers={"HX-Request": "true", "HX-Current-URL": "http://testserver/"})
    client.force_login(owner)
    return client


@pytest.fixture
def server(db) -> Server:
    return Server.objects.create(name="My VPS", host="vps.example.com", user="deploy")


@pytest.fixture
def forward(server: Server) -> Forward:
    return Forward.objects.create(name="MySQL", server=server, local_port=3307, remote_port=3306)
