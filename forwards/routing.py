"""Websocket paths."""

from django.urls import path

from forwards.consumers import DashboardConsumer

websocket_urlpatterns = [path("ws/dashboard/", DashboardConsumer.as_asgi())]
