"""The ASGI application: Django for HTTP, consumers for websockets of our own pages."""

import os

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.urls import re_path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tunnelweb.settings")

# Models can be imported only after this.
django_application = get_asgi_application()

from forwards.routing import websocket_urlpatterns  # noqa: E402
from tunnelweb.origin import OwnOriginOnly, refuse  # noqa: E402

# Without the last route an unknown path is a traceback in the log.
websockets = URLRouter([*websocket_urlpatterns, re_path("", refuse)])  # type: ignore[arg-type]

application = ProtocolTypeRouter(
    {
        "http": django_application,
        "websocket": OwnOriginOnly(AuthMiddlewareStack(websockets)),
    }
)
