"""Settings of the Tunnelweb project: one file, driven by the environment.

TUNNELWEB_DATA    data directory (default: the platform's own)
TUNNELWEB_HOSTS   further host names the dashboard may be opened by, comma separated
TUNNELWEB_DEBUG   1 shows tracebacks in the browser; for development only
"""

import hashlib
import os
from pathlib import Path

from tunnelweb import data

BASE_DIR = Path(__file__).resolve().parent.parent
DATA_DIR = data.data_dir()

SECRET_KEY = data.signing_key(DATA_DIR)
SEALING_KEYS = [data.sealing_key(DATA_DIR)]
DEBUG = os.environ.get("TUNNELWEB_DEBUG") == "1"

ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]"]
ALLOWED_HOSTS += [name.strip() for name in os.environ.get("TUNNELWEB_HOSTS", "").split(",") if name.strip()]

INSTALLED_APPS = [
    "channels",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_htmx",
    "forwards",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "tunnelweb.staticfiles.StaticFilesMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    # After authentication: every view asks for a signed-in user unless it says otherwise.
    "forwards.htmx.LoginRequiredMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]

ROOT_URLCONF = "tunnelweb.urls"
ASGI_APPLICATION = "tunnelweb.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# WAL lets pages be read while the worker writes; IMMEDIATE takes the write lock before the first read of a
# transaction, without which two processes fail with "database is locked" whatever the timeout.
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": DATA_DIR / "tunnelweb.sqlite3",
        "OPTIONS": {
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        },
        "TEST": {"NAME": DATA_DIR / "test.sqlite3"},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "sign-in"
LOGIN_REDIRECT_URL = "forwards:list"
LOGOUT_REDIRECT_URL = "sign-in"

# Browsers send cookies to every port of a host, so a web app opened through a forward on localhost shares our jar, and
# so does a second Tunnelweb on another port: names of our own keep them from overwriting each other.
_INSTALLATION = hashlib.sha256(str(DATA_DIR).encode("utf-8", "surrogateescape")).hexdigest()[:8]
SESSION_COOKIE_NAME = f"tunnelweb_session_{_INSTALLATION}"
SESSION_COOKIE_SAMESITE = "Strict"
CSRF_COOKIE_NAME = f"tunnelweb_csrf_{_INSTALLATION}"
CSRF_COOKIE_SAMESITE = "Strict"
CSRF_COOKIE_HTTPONLY = True
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = True
LOCALE_PATHS = [BASE_DIR / "forwards" / "locale"]

STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = DEBUG
WHITENOISE_MAX_AGE = 60

WORKER_NAME = "default"

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
    "loggers": {
        "tunnelweb": {"level": "INFO"},
        "forwards": {"level": "INFO"},
        "django": {"handlers": [], "level": "WARNING"},
        # A page that is not there is the visitor's mistake.
        "django.request": {"level": "ERROR"},
        # asyncssh speaks of every channel and names users; what matters of it becomes a status.
        "asyncssh": {"level": "ERROR"},
    },
}
