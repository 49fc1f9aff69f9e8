"""The project's settings on a data directory of each test process's own, so that nobody's real one is touched."""

import os
import tempfile

os.environ["TUNNELWEB_DATA"] = tempfile.mkdtemp(prefix="tunnelweb-test-")

from tunnelweb.settings import *  # noqa: E402, F403

# Argon and friends are made to be slow; hundreds of test users need not wait for it.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
