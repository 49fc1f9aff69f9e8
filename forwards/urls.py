from django.urls import path

from forwards.views import forwards, servers

app_name = "forwards"
urlpatterns = [
    path("", forwards.forward_list, name="list"),
    path("forwards/add/", forwards.add, name="add"),
    path("forwards/<int:pk>/edit/", forwards.edit, name="edit"),
    path("forwards/<int:pk>/stop-and-edit/", forwards.stop_and_edit, name="stop-and-edit"),
    path("forwards/<int:pk>/delete/", forwards.delete, name="delete"),
    path("forwards/<int:pk>/start/", forwards.start, name="start"),
    path("forwards/<int:pk>/stop/", forwards.stop, name="stop"),
    path("forwards/<int:pk>/take-port/", forwards.take_port, name="take-port"),
    path("servers/", servers.server_list, name="servers"),
    path("servers/add/", servers.add, name="server-add"),
    path("servers/<int:pk>/edit/", servers.edit, name="server-edit"),
    path("servers/<int:pk>/delete/", servers.delete, name="server-delete"),
    path("servers/<int:pk>/test/", servers.test, name="server-test"),
    path("servers/<int:pk>/trust/", servers.trust, name="server-trust"),
    path("servers/<int:pk>/accept-key/", servers.accept_key, name="server-accept-key"),
]
