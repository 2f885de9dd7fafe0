"""Settings: no database and no sessions; what the pages know is in their URLs and in the lanes."""

import secrets
from pathlib import Path

WEB = Path(__file__).parents[2] / "web"  # pages, style and scripts, the same as the Flask example's

SECRET_KEY = secrets.token_urlsafe(48)  # for this process alone: nothing that it signs has to outlive it
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
ROOT_URLCONF = "proj.urls"
MIDDLEWARE = [
    "django.middleware.common.CommonMiddleware",  # refuses other hosts
    "django.middleware.csrf.CsrfViewMiddleware",
    "proj.views.LaneErrors",
]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": [WEB / "templates"]}]
