from django.contrib import admin
from django.contrib.auth.decorators import login_not_required
from django.urls import include, path
from django.views.generic import RedirectView

from forwards.views import sign_in

urlpatterns = [
    path("sign-in/", sign_in.SignIn.as_view(), name="sign-in"),
    path("sign-in/<str:token>/", sign_in.sign_in_link, name="sign-in-link"),
    path("sign-out/", sign_in.SignOut.as_view(), name="sign-out"),
    # One door: the admin's own sign-in page knows nothing of sign-in links.
    path("admin/login/", login_not_required(RedirectView.as_view(pattern_name="sign-in", query_string=True))),
    path("admin/", admin.site.urls),
    path("", include("forwards.urls")),
]
