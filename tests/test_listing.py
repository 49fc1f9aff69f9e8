from itertools import product

import pytest
from django.http import QueryDict

from forwards import listing
from forwards.listing import state_filter
from forwards.models import Forward, ForwardState, ForwardStatus, Server
from forwards.shown import UNKNOWN, shown

pytestmark = pytest.mark.django_db


@pytest.fixture
def server() -> Server:
    return Server.objects.create(name="My VPS", host="vps.example.com", user="deploy")


def test_every_state_can_be_filtered_for_as_it_is_shown(server):
    states = [*ForwardState.values, ""]
    for state, enabled, generation in product(states, (True, False), (0, 1)):
        forward = Forward.objects.create(name="f", server=server, local_port=1, remote_port=1, enabled=enabled)
        if state:
            ForwardStatus.objects.create(forward=forward, state=state, generation=generation)
    forwards = list(Forward.objects.for_rows())
    for alive in (True, False):
        for wanted in [*ForwardState.values, UNKNOWN]:
            expected = {each.pk for each in forwards if shown(each, worker_alive=alive).state == wanted}
            found = Forward.objects.filter(state_filter(wanted, worker_alive=alive))
            assert {each.pk for each in found} == expected, (alive, wanted)


def test_an_address_keeps_what_was_chosen_and_leaves_out_the_rest(server):
    context = listing.forward_list(QueryDict(f"q=+my+sql+&kind=&state=failed&server={server.pk}&sort=-in&page=7&x=1"))
    assert context["url"] == f"?q=my+sql&server={server.pk}&state=failed&sort=-in"
    assert listing.forward_list(QueryDict(""))["url"] == "?"


def test_a_column_sorts_up_then_down_and_says_so(server):
    first = listing.forward_list(QueryDict("sort=in"))["columns"]
    assert (first["in"]["aria"], first["in"]["url"]) == ("ascending", "?sort=-in")
    assert (first["name"]["aria"], first["name"]["url"]) == ("none", "?")
    assert listing.forward_list(QueryDict(""))["columns"]["name"]["url"] == "?sort=-name"


def test_a_list_says_whether_its_rows_come_and_go_by_themselves(server):
    assert listing.forward_list(QueryDict("state=failed"))["live_filter"]
    assert listing.forward_list(QueryDict("sort=-state"))["live_filter"]
    assert not listing.forward_list(QueryDict("q=x"))["live_filter"]


def test_unknown_is_a_state_to_filter_for_only_without_a_worker(server):
    assert UNKNOWN in dict(listing.forward_list(QueryDict(""))["states"])
