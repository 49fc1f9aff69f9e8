"""Signing in by one-time link or by password, and signing out."""

from django.contrib.auth import login, views
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from forwards import signin

BACKEND = "django.contrib.auth.backends.ModelBackend"


class SignIn(views.LoginView):
    """The password form, which also says where sign-in links come from."""

    template_name = "registration/sign_in.html"


@method_decorator(login_not_required, name="dispatch")
class SignOut(views.LogoutView):
    """Ends the session; open to everybody, so that a second press leads to the sign-in page and not to an error."""


@login_not_required
@never_cache
@require_GET
def sign_in_link(request: HttpRequest, token: str) -> HttpResponseBase:
    """Sign in with a one-time link; whoever opens a used one while signed in goes on to the list."""
    user = signin.redeem(token)
    if user is not None:
        login(request, user, backend=BACKEND)
    elif not request.user.is_authenticated:
        return SignIn.as_view(extra_context={"link_used": True})(request)
    return redirect("forwards:list")
