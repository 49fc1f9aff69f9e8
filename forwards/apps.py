from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class ForwardsConfig(AppConfig):
    name = "forwards"
    verbose_name = _("Port Forward")
